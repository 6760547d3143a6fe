//! Lengths, rings and pools at their limits.

use anyhow::{Context, Result, ensure};
use pagewire_e1000::I82574;
use pagewire_ethdev::nic::Card;
use pagewire_ethdev::{Burst, MacAddr, PacketFlags, Port, RxOffloads, RxQueue, TxOffloads, TxQueue};
use pagewire_pool::PoolConfig;

use crate::pair::{Options, Pair, Random, Side, bytes, frame, same};
use crate::{Cards, Case};

pub(crate) const CASES: &[Case] = &[
    ("jumbo-frames-pass", jumbo),
    ("long-frames-are-dropped-and-counted", long),
    ("unsendable-packets-are-dropped-and-counted", unsendable),
    ("short-frames-are-padded", padded),
    ("rings-of-64-wrap", |cards| wrap(cards, 64, 20_000)),
    ("rings-of-4096-wrap", |cards| wrap(cards, 4096, 20_000)),
    ("a-full-ring-leaves-the-rest", full_ring),
    ("a-packet-as-long-as-the-ring-is-sent", whole_ring),
    ("reclaim-empties-an-idle-ring", reclaim),
    ("frames-wait-for-fragments", exhausted),
    ("chains-wait-for-fragments", exhausted_by_chains),
];

/// Longest frame of a port with this MTU: Ethernet header and one tag.
fn longest(mtu: u16) -> usize {
    usize::from(mtu) + 18
}

fn jumbo_options(mtu: u16, page_size: usize, fragment_size: usize) -> Options {
    Options {
        mtu,
        rx_offloads: RxOffloads::SCATTER,
        tx_offloads: TxOffloads::MULTI_SEGS,
        pool: PoolConfig { fragments: 4096, fragment_size, page_size, ..Options::default().pool },
        ..Options::default()
    }
}

/// Chains in and out, cut at random; received into buffers of 1, 3 and 15 KiB.
fn jumbo(cards: &Cards) -> Result<()> {
    for (page_size, fragment_size, buffer) in [(4096, 2048, 1024), (4096, 4096, 3072), (16384, 16384, 15360)]
    {
        let mut pair = Pair::new(cards, &jumbo_options(9000, page_size, fragment_size))?;
        let mut random = Random(3);
        for number in 0..300 {
            let len = match number {
                0 => longest(9000),
                1 => buffer.min(9000),
                2 => 2 * buffer.min(4096),
                _ => random.between(60, longest(9000)),
            };
            let sent = frame(pair.b.mac(), pair.a.mac(), len, number);
            let packet = pair.a.cut(&sent, random.between(100, 1792))?;
            pair.a.send(packet)?;
            let packet = pair.b.receive().with_context(|| format!("frame {number} of {len} bytes"))?;
            same(&bytes(&packet)?, &sent)?;
            let (segments, expected) = (packet.segment_count(), len.div_ceil(buffer));
            ensure!(segments == expected, "{len} bytes came in {segments} segments, expected {expected}");
        }
        let stats = pair.b.port.stats();
        ensure!((stats.rx_packets, stats.rx_errors) == (300, 0), "{stats:?}");
        pair.stop()?;
    }
    Ok(())
}

/// A port receives nothing longer than its MTU, whatever the card lets in, and says how many it dropped.
fn long(cards: &Cards) -> Result<()> {
    let sender = jumbo_options(9212, 4096, 2048);
    for (options, counter) in [
        (Options::default(), "rx_oversize_packets"),
        // Into several buffers, and into one.
        (jumbo_options(2000, 4096, 2048), "rx_longer_than_mtu_packets"),
        (jumbo_options(9000, 4096, 2048), "rx_longer_than_mtu_packets"),
        (jumbo_options(9000, 16384, 16384), "rx_longer_than_mtu_packets"),
    ] {
        let mut pair = Pair::with(cards, &sender, &options)?;
        let longest = longest(options.mtu);
        let mut dropped = 0;
        for len in [longest, longest + 1, 9215, longest - 1, 9229] {
            let sent = frame(pair.b.mac(), pair.a.mac(), len, 1);
            let passed = pair.passes(&sent).with_context(|| format!("MTU {}, {len} bytes", options.mtu))?;
            ensure!(passed == (len <= longest), "MTU {}: {len} bytes: received {passed}", options.mtu);
            dropped += u64::from(!passed);
        }
        let (stats, counted) = (pair.b.port.stats(), pair.b.xstat(counter)?);
        ensure!(
            (stats.rx_errors, counted) == (dropped, dropped),
            "MTU {}: {dropped} frames were dropped, {counter} is {counted}, {stats:?}",
            options.mtu
        );
        pair.stop()?;
    }
    Ok(())
}

/// Packets that cannot be sent go away and are counted, and those around them are sent.
fn unsendable(cards: &Cards) -> Result<()> {
    let mut pair = Pair::new(cards, &Options::default())?;
    let (to, from) = (pair.b.mac(), pair.a.mac());
    let long = frame(to, from, 9000, 0);
    let plain = frame(to, from, 100, 1);
    let mut packets = vec![
        ("an empty packet", pair.a.packet(&[&[]])?),
        ("16 bytes", pair.a.packet(&[&plain[..16]])?),
        ("1519 bytes", pair.a.packet(&[&long[..1519]])?),
        ("9000 bytes", pair.a.cut(&long, 1500)?),
        ("segments without MULTI_SEGS", pair.a.packet(&[&plain[..50], &plain[50..]])?),
    ];
    for flag in [
        PacketFlags::TX_IP_CSUM,
        PacketFlags::TX_TCP_CSUM,
        PacketFlags::TX_UDP_CSUM,
        PacketFlags::TX_VLAN_INSERT,
    ] {
        let mut packet = pair.a.packet(&[&plain])?;
        packet.set_flags(flag);
        packet.set_header_lens(14, 20);
        packets.push(("an offload that was not asked for", packet));
    }
    let mut count = 0;
    for (what, packet) in packets {
        ensure!(pair.a.try_send(packet)? == 1, "{what} was not counted as an error");
        count += 1;
        ensure!(pair.passes(&plain).context(what)?, "the frame after {what} was dropped");
    }
    let stats = pair.a.port.stats();
    ensure!((stats.tx_packets, stats.tx_errors) == (2 * count, count), "{stats:?}");
    pair.stop()?;

    // With every offload on: what the card would read beyond the packet for.
    let options = Options { tx_offloads: I82574::CAPABILITIES.tx_offloads, ..Options::default() };
    let mut pair = Pair::new(cards, &options)?;
    for (l2, l3, flag) in [
        (14, 80, PacketFlags::TX_TCP_CSUM),
        (14, 86, PacketFlags::TX_IP_CSUM | PacketFlags::TX_UDP_CSUM),
        (91, 0, PacketFlags::TX_IP_CSUM),
        (240, 20, PacketFlags::TX_IP_CSUM),
        (14, 65535, PacketFlags::TX_UDP_CSUM),
        (65535, 65535, PacketFlags::TX_UDP_CSUM),
    ] {
        let mut packet = pair.a.packet(&[&plain])?;
        packet.set_flags(flag);
        packet.set_header_lens(l2, l3);
        ensure!(pair.a.try_send(packet)? == 1, "headers of {l2} and {l3} bytes in a packet of 100 were sent");
    }
    let gap = pair.a.packet(&[&plain[..50], &[], &plain[50..]])?;
    ensure!(pair.a.try_send(gap)? == 1, "an empty segment was sent");
    ensure!(pair.passes(&plain)?, "the frame after it was dropped");
    pair.stop()
}

fn padded(cards: &Cards) -> Result<()> {
    let mut pair = Pair::new(cards, &Options::default())?;
    for len in [17, 18, 59] {
        let mut sent = frame(pair.b.mac(), pair.a.mac(), len, 1);
        pair.a.send_frame(&sent)?;
        sent.resize(60, 0);
        pair.b.expect(&sent)?;
    }
    pair.stop()
}

/// Every burst size, plain packets and chains, many times around both rings.
fn wrap(cards: &Cards, ring: u32, count: u32) -> Result<()> {
    let mut options = jumbo_options(1500, 4096, 2048);
    (options.rx_ring, options.tx_ring) = (ring, ring);
    options.pool.fragments = ring as usize + 1024;
    let mut pair = Pair::new(cards, &options)?;
    let (to, from) = (pair.b.mac(), pair.a.mac());
    let mut random = Random(u64::from(ring));
    let (mut out, mut input) = (Burst::new(256), Burst::new(256));
    let (mut made, mut received) = (0, 0);
    let sent = |number: u32| frame(to, from, 60 + (number as usize * 7) % 300, number);
    let mut size = 0;
    while received < count {
        // Each size from 1 to 256 in turn; what was left over last time goes first.
        size = size % 256 + 1;
        while out.len() < size && made < count {
            let most = if random.next().is_multiple_of(8) { random.between(20, 100) } else { 1792 };
            let packet = pair.a.cut(&sent(made), most)?;
            out.push(packet).expect("sizes are at most the capacity");
            made += 1;
        }
        // No more than the receive ring takes, or the card drops.
        let mut now = Burst::new(48);
        let mut rest = out.drain();
        while now.room() > 0 {
            let Some(packet) = rest.next() else { break };
            now.push(packet).expect("there is room");
        }
        drop(rest);
        let mut flying = now.len();
        while flying > 0 {
            pair.a.tx.tx_burst(&mut now);
            flying -= pair.b.rx.rx_burst(&mut input);
            for packet in input.drain() {
                same(&bytes(&packet)?, &sent(received)).with_context(|| format!("frame {received}"))?;
                received += 1;
            }
            let stats = pair.b.port.stats();
            ensure!(stats.rx_missed == 0, "frames were lost at {received}: {stats:?}");
        }
    }
    let (sent, received) = (pair.a.port.stats(), pair.b.port.stats());
    ensure!(sent.tx_packets == u64::from(count) && sent.tx_errors == 0, "{sent:?}");
    ensure!(received.rx_packets == u64::from(count) && received.rx_errors == 0, "{received:?}");
    ensure!(sent.tx_bytes == received.rx_bytes, "{sent:?} {received:?}");
    pair.stop()
}

/// More packets than descriptors: the rest stays in the burst, in order, and goes next time.
fn full_ring(cards: &Cards) -> Result<()> {
    let options = Options { tx_ring: 64, ..Options::default() };
    let mut pair = Pair::new(cards, &options)?;
    let (to, from) = (pair.b.mac(), pair.a.mac());
    let mut burst = Burst::new(256);
    for number in 0..256 {
        let packet = pair.a.packet(&[&frame(to, from, 60, number)])?;
        burst.push(packet).expect("the capacity");
    }
    let mut left = 256;
    while left > 0 {
        let gone = pair.a.tx.tx_burst(&mut burst);
        left -= gone;
        ensure!(burst.len() == left, "{gone} packets went and {} are left of {}", burst.len(), left + gone);
        ensure!(gone > 0 && gone <= 63, "{gone} packets went into a ring of 64");
    }
    for number in 0..256 {
        pair.b.expect(&frame(to, from, 60, number)).with_context(|| format!("frame {number}"))?;
    }
    pair.stop()
}

/// A packet of as many segments as can be, behind descriptors whose completion nobody has been told to report.
fn whole_ring(cards: &Cards) -> Result<()> {
    let options = Options { tx_offloads: TxOffloads::MULTI_SEGS, tx_ring: 64, ..Options::default() };
    let mut pair = Pair::new(cards, &options)?;
    let sent = frame(pair.b.mac(), pair.a.mac(), 63 * 20, 1);
    let (plain, too_many) = (sent[..100].to_vec(), frame(pair.b.mac(), pair.a.mac(), 64 * 20, 2));
    for before in 0..8 {
        for _ in 0..before {
            pair.a.send_frame(&plain)?;
            pair.b.expect(&plain)?;
        }
        let mut burst = Burst::new(1);
        burst.push(pair.a.cut(&sent, 20)?).expect("an empty burst has room");
        let mut tries = 0;
        while pair.a.tx.tx_burst(&mut burst) == 0 {
            tries += 1;
            ensure!(tries < 1000, "a packet of 63 segments is stuck behind {before} others");
        }
        pair.b.expect(&sent)?;
    }
    let packet = pair.a.cut(&too_many, 20)?;
    ensure!(pair.a.try_send(packet)? == 1, "64 segments went into a ring of 64");
    pair.stop()
}

fn reclaim(cards: &Cards) -> Result<()> {
    let mut pair = Pair::new(cards, &jumbo_options(1500, 4096, 2048))?;
    let sent = frame(pair.b.mac(), pair.a.mac(), 600, 1);
    for (count, segments) in [(1, 1), (5, 1), (31, 1), (33, 1), (3, 4)] {
        for _ in 0..count {
            let packet = pair.a.cut(&sent, 600 / segments)?;
            pair.a.send(packet)?;
            pair.b.expect(&sent)?;
        }
        ensure!(pair.a.tx.pending() > 0, "{count} packets left nothing in the ring: the test is void");
        let start = std::time::Instant::now();
        while pair.a.tx.pending() > 0 {
            pair.a.tx.reclaim();
            ensure!(start.elapsed() < crate::pair::PATIENCE, "{} are still pending", pair.a.tx.pending());
        }
        pair.a.packets.trim();
        let inflight = pair.a.packets.stats().inflight();
        ensure!(inflight == 0, "{inflight} fragments are still out");
        ensure!(pair.a.tx.reclaim() == 0, "an empty ring freed something");
    }
    pair.stop()
}

/// Fragments that are out, less those that the ring holds.
fn balance(side: &mut Side) -> u64 {
    side.rx.pool().trim();
    side.rx.pool().stats().inflight() - side.rx.posted() as u64
}

/// Whoever holds packets makes frames wait, and loses none.
fn exhausted(cards: &Cards) -> Result<()> {
    const SPARE: usize = 8;
    let mut options = Options { rx_ring: 64, ..Options::default() };
    options.pool.fragments = 64 + SPARE;
    let mut pair = Pair::with(cards, &Options::default(), &options)?;
    let (to, from) = (pair.b.mac(), pair.a.mac());
    let mut next = 0;
    for round in 0..20 {
        for number in 0..40 {
            pair.a.send_frame(&frame(to, from, 60, round * 40 + number))?;
        }
        let (mut held, mut before) = (Burst::new(64), pair.b.port.stats().rx_nombuf);
        while held.len() < SPARE {
            pair.b.rx.rx_burst(&mut held);
        }
        for _ in 0..10 {
            ensure!(pair.b.rx.rx_burst(&mut held) == 0, "more packets than fragments");
        }
        let nombuf = pair.b.port.stats().rx_nombuf;
        ensure!(nombuf >= before + 10, "10 receives without a fragment are counted as {}", nombuf - before);
        before = nombuf;
        let out = balance(&mut pair.b);
        ensure!(out == SPARE as u64, "{out} fragments are out with {SPARE} packets held");
        for packet in held.drain() {
            same(&bytes(&packet)?, &frame(to, from, 60, next))?;
            next += 1;
        }
        while next < (round + 1) * 40 {
            pair.b.expect(&frame(to, from, 60, next)).with_context(|| format!("frame {next}"))?;
            next += 1;
        }
        ensure!(balance(&mut pair.b) == 0, "round {round}: fragments are out that nobody holds");
        ensure!(before == pair.b.port.stats().rx_nombuf, "nombuf counts receives that found a fragment");
    }
    pair.stop()
}

/// The smallest pool for chains is enough for the longest of them, and one less is refused.
fn exhausted_by_chains(cards: &Cards) -> Result<()> {
    let mut options = jumbo_options(9000, 4096, 2048);
    options.rx_ring = 64;
    // 9,018 bytes in buffers of 1,024, and one for the descriptor that makes a frame too long; a page less, which has two.
    options.pool.fragments = 64 + 10 - 2;
    let error = Pair::new(cards, &options).err().context("a pool without room for a chain was accepted")?;
    ensure!(error.to_string().contains("74"), "the error does not say how many are needed: {error}");

    options.pool.fragments = 64 + 10;
    let mut pair = Pair::with(cards, &jumbo_options(9000, 4096, 2048), &options)?;
    for number in 0..200 {
        let sent = frame(MacAddr::BROADCAST, pair.a.mac(), longest(9000) - number as usize, number);
        pair.a.send_frame(&sent)?;
        pair.b.expect(&sent).with_context(|| format!("frame {number}"))?;
        ensure!(balance(&mut pair.b) == 0, "fragments are out that nobody holds");
    }
    pair.stop()
}
