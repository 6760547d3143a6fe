use pagewire_pool::{PageSize, PoolConfig};

use super::super::testing::Random;
use super::super::testing::plain::{RDT, Rx, bench};
use super::*;
use crate::PacketFlags;
use crate::config::PortConfig;
use crate::port::Port;

/// What a card may write into a descriptor: anything. One in `frame` ends one.
fn write_back(random: &mut Random, frame: u64) -> [u64; 2] {
    let mut status = match random.below(32) {
        0 => random.next(),
        1 => random.next() & Rx::BROKEN,
        _ => 0,
    };
    // Mostly done, so that there is something to look at.
    status = status & !(Rx::DONE | Rx::END) | if random.below(50) > 0 { Rx::DONE } else { 0 };
    status |= if random.below(frame) == 0 { Rx::END } else { 0 };
    let len = match random.below(8) {
        0 => random.below(0x1_0000),
        1 => 0,
        2 => [1792, 1793, 2048, 9018, 9019, 0xffff][random.below(6) as usize],
        3..6 => 1024,
        _ => random.below(1793),
    };
    [random.next(), status & !(0xffff << 32) | len << 32]
}

/// Lengths, errors, ends of packets and done bits at random, in any order: packets within bounds come out, no fragment is
/// lost, and the ring goes on.
#[test]
fn two_million_hostile_write_backs() {
    for vector in [true, false] {
        for offloads in [RxOffloads::SCATTER, RxOffloads::SCATTER | RxOffloads::IP_CSUM] {
            hostile_write_backs(vector, offloads);
        }
    }
}

fn hostile_write_backs(vector: bool, offloads: RxOffloads) {
    let mut random = Random::new();
    let mut bench = bench();
    // Barely more than the ring and the longest chain: whoever holds packets makes the queue wait.
    let mut port = bench.open().unwrap();
    let config = PortConfig { vector, rx_offloads: offloads, ..bench.config(64 + 32) };
    let (mut rx, tx) = port.start(config).unwrap();
    let mut queue = rx.remove(0);
    let path = match vector && offloads == RxOffloads::SCATTER {
        true => path::Path::Vector,
        false => path::Path::Bulk,
    };
    assert_eq!(queue.path().active, path);
    let monitor = queue.pool().monitor();
    let mut held: Vec<Packet> = Vec::new();
    let (mut packets, mut chains, mut taken) = (0_u64, 0_u64, 0_u64);
    let mut out = Burst::new(32);
    while taken < 500_000 {
        let start = queue.ring().descriptors.next();
        {
            let ring = queue.ring();
            let frame = 1 + random.below(16);
            for step in 0..random.below(70) as u32 {
                // In turn mostly, anywhere in the ring now and then.
                let index = if random.below(8) > 0 { start.wrapping_add(step) } else { random.next() as u32 };
                ring.descriptors.write(index.wrapping_sub(start), write_back(&mut random, frame));
            }
        }
        queue.rx_burst(&mut out);
        taken += u64::from(queue.ring().descriptors.next().wrapping_sub(start));
        for packet in out.drain() {
            let (segments, bytes) = packet.segments().fold((0, 0), |(count, bytes), segment| {
                (count + 1, bytes + segment.as_slice().unwrap().len())
            });
            assert_eq!((segments, bytes), (packet.segment_count(), packet.len()));
            // 9,018 bytes, in buffers that a working card fills with 1,024.
            assert!(bytes <= 9018 && segments <= 9, "{packet:?}");
            packets += 1;
            chains += u64::from(segments > 1);
            held.push(packet);
        }
        if random.below(4) == 0 {
            held.truncate(random.below(8) as usize);
        }
        if random.below(64) == 0 {
            let fragments: usize = held.iter().map(Packet::segment_count).sum();
            let posted = queue.posted();
            queue.pool().trim();
            assert_eq!(queue.pool().stats().inflight(), (posted + fragments) as u64, "after {taken}");
        }
    }
    held.clear();
    let stats = port.stats();
    println!("{taken} write-backs: {packets} packets, {chains} of them chains; {stats:?}");
    // The test reaches what it is about.
    assert!(packets > 20_000 && chains > 500, "{packets} packets, {chains} chains");
    assert!(stats.rx_errors > 20_000 && stats.rx_nombuf > 300, "{stats:?}");
    let long = port.xstats().into_iter().find(|stat| stat.name == "rx_longer_than_mtu_packets").unwrap();
    assert!(long.value > 300 && long.value < stats.rx_errors, "{long:?}");

    // A whole ring of good frames takes what was left in it and in the frame under way with it. From then on every one counts.
    let good = |queue: &mut NicRx<Rx>, step: u32, len: u64| {
        let ring = queue.ring();
        ring.descriptors.write(step, [0, Rx::DONE | Rx::END | len << 32]);
    };
    (0..64).for_each(|step| good(&mut queue, step, 60));
    while queue.rx_burst(&mut out) > 0 {
        out.clear();
    }
    for len in 60..360 {
        good(&mut queue, 0, len);
        queue.rx_burst(&mut out);
        assert_eq!(out.iter().map(Packet::len).collect::<Vec<_>>(), [len as usize]);
        out.clear();
    }
    drop((queue, tx));
    port.stop().unwrap();
    assert_eq!(monitor.stats().inflight(), 0);
}

/// The same for frames that are put together: of headers and data, of segments that a card coalesces. Lengths at random, longer than their
/// buffer, without data, without a frame; frames that go on anywhere, many in one descriptor; and pools that are nearly empty.
fn hostile_assembly(offload: RxOffloads, spare: usize) -> (u64, u64, crate::Stats) {
    let mut random = Random::new();
    let mut bench = bench();
    let mut port = bench.open().unwrap();
    let mut config = bench.config(64 + spare);
    config.rx_offloads |= offload;
    if offload == RxOffloads::HEADER_SPLIT {
        config.rx[0].headers = Some(bench.pool(64 + 12));
    }
    let mut pools = vec![config.rx[0].pool.monitor()];
    pools.extend(config.rx[0].headers.as_ref().map(Pool::monitor));
    let inflight = || pools.iter().map(|pool| pool.stats().inflight()).sum::<u64>();
    let (mut rx, tx) = port.start(config).unwrap();
    let mut queue = rx.remove(0);
    let mut held: Vec<Packet> = Vec::new();
    let mut out = Burst::new(32);
    let (mut split, mut whole) = (0, 0);
    for _ in 0..50_000 {
        let ring = queue.assembled();
        let frame = 1 + random.below(8);
        for step in 0..random.below(70) as u32 {
            let index = if random.below(8) > 0 { ring.next.wrapping_add(step) } else { random.next() as u32 };
            let [first, status] = write_back(&mut random, frame);
            let header = [0, 1, 54, 1920, 1921, 0xffff][random.below(6) as usize];
            // Mostly to a descriptor that comes soon.
            let next = match random.below(8) {
                0 => random.below(0x1_0000),
                _ => u64::from(index.wrapping_add(1 + random.below(5) as u32) & 63),
            };
            let goes_on = if random.below(2) == 0 { Rx::COALESCED } else { 0 };
            let first = first & 0xffff_ffff | next << 32 | header << 48;
            ring.descriptors.view().write(index, [first, status & !Rx::COALESCED | goes_on]);
        }
        queue.rx_burst(&mut out);
        for packet in out.drain() {
            let bytes: usize = packet.segments().map(|segment| segment.as_slice().unwrap().len()).sum();
            assert_eq!(bytes, packet.len());
            assert!(bytes <= 9018 && packet.segment_count() <= 10, "{packet:?}");
            match packet.flags().contains(PacketFlags::RX_HEADER_SPLIT) {
                true => split += 1,
                false => whole += 1,
            }
            held.push(packet);
        }
        if random.below(4) == 0 {
            held.truncate(random.below(8) as usize);
        }
        if random.below(64) == 0 {
            held.clear();
            pagewire_pool::flush_thread();
            let posted = queue.posted() as u64;
            queue.pool().trim();
            if offload == RxOffloads::HEADER_SPLIT {
                queue.assembled().headers().trim();
            }
            assert_eq!(inflight(), posted);
        }
    }
    let stats = port.stats();
    println!("{offload:?}: {split} split, {whole} whole; {stats:?}");
    held.clear();
    drop((queue, tx));
    port.stop().unwrap();
    pagewire_pool::flush_thread();
    assert_eq!(inflight(), 0);
    (split, whole, stats)
}

#[test]
fn hostile_write_backs_of_headers() {
    let (split, whole, stats) = hostile_assembly(RxOffloads::HEADER_SPLIT, 16);
    assert!(
        split > 10_000 && whole > 1_000 && stats.rx_errors > 10_000 && stats.rx_nombuf > 100,
        "{stats:?}"
    );
}

#[test]
fn hostile_write_backs_of_coalesced_frames() {
    let (_, whole, stats) = hostile_assembly(RxOffloads::LRO, 4 * 33 + 1);
    assert!(whole > 10_000 && stats.rx_errors > 10_000, "{stats:?}");
}

/// The smallest pool that the queue can be started with, found by trying.
fn smallest(offloads: RxOffloads, mtu: u16) -> (crate::nic::testing::plain::Bench, NicRx<Rx>, impl Sized) {
    for fragments in 64.. {
        let mut bench = bench();
        let mut port = bench.open().unwrap();
        let mut config = bench.config(fragments);
        (config.mtu, config.rx_offloads) = (mtu, config.rx_offloads | offloads);
        if offloads.contains(RxOffloads::HEADER_SPLIT) {
            config.rx[0].headers = Some(bench.pool(fragments));
        }
        match port.start(config) {
            Ok((mut rx, tx)) => return (bench, rx.remove(0), (port, tx)),
            Err(crate::Error::Unsupported { limit, .. }) => assert!(limit.contains("are needed"), "{limit}"),
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("some pool is large enough")
}

/// Frames that never end are given up, with no more fragments than a queue can be started with; a good one after them comes.
#[test]
fn frames_without_end_do_not_use_up_the_smallest_pool() {
    for (offloads, mtu) in [
        (RxOffloads::empty(), 1500),
        (RxOffloads::empty(), 9000),
        (RxOffloads::HEADER_SPLIT, 1500),
        (RxOffloads::HEADER_SPLIT, 9000),
        (RxOffloads::LRO, 9000),
    ] {
        let (_bench, mut queue, _others) = smallest(offloads, mtu);
        let mut out = Burst::new(32);
        let mut write = |queue: &mut NicRx<Rx>, end: u64, header: u64, goes_on: Option<u32>| {
            let goes_on = goes_on.map_or([0, 0], |by| [u64::from(by), Rx::COALESCED]);
            match &mut *queue.ring {
                Ring::Assembled(ring) => {
                    let next = u64::from(ring.next.wrapping_add(goes_on[0] as u32) & 63) << 32;
                    let words = [next | header << 48, Rx::DONE | end | goes_on[1] | 100 << 32];
                    ring.descriptors.view().write(ring.next, words);
                }
                Ring::Posted(ring) => ring.descriptors.write(0, [0, Rx::DONE | end | 100 << 32]),
            }
            queue.rx_burst(&mut out);
            let lengths: Vec<usize> = out.drain().map(|packet| packet.len()).collect();
            lengths
        };
        for step in 0..1000u32 {
            // Each of a coalescing card's frames goes on further ahead; among them are some that are of neighbours.
            let goes_on = (offloads == RxOffloads::LRO && step % 4 != 0).then_some(7 + step % 40);
            assert!(write(&mut queue, 0, 50, goes_on).is_empty(), "{offloads:?}, MTU {mtu}, step {step}");
        }
        (0..64).for_each(|_| drop(write(&mut queue, Rx::END, 0, None)));
        assert_eq!(write(&mut queue, Rx::END, 0, None), [100], "{offloads:?}, MTU {mtu}");
    }
}

/// A frame of several descriptors in a row comes in besides as many packets as a card coalesces at a time.
#[test]
fn a_frame_in_a_row_comes_while_32_are_coalesced() {
    let (_bench, mut queue, _others) = smallest(RxOffloads::LRO, 9000);
    let mut out = Burst::new(64);
    let ring = queue.assembled();
    let mut view = ring.descriptors.view();
    // The first 32 go on, and end, in as many descriptors from the 35th on, behind a frame of three.
    let word = |status: u64| Rx::DONE | status | 100 << 32;
    for index in 0..32u64 {
        view.write(index as u32, [((35 + index) & 63) << 32, word(Rx::COALESCED)]);
    }
    (32..34).for_each(|index| view.write(index, [0, word(0)]));
    view.write(34, [0, word(Rx::END)]);
    (35..64).for_each(|index| view.write(index, [0, word(Rx::END | Rx::COALESCED)]));
    while queue.rx_burst(&mut out) > 0 {}
    let mut view = queue.assembled().descriptors.view();
    (0..3).for_each(|index| view.write(index, [0, word(Rx::END | Rx::COALESCED)]));
    queue.rx_burst(&mut out);
    let lengths: Vec<usize> = out.iter().map(Packet::len).collect();
    assert_eq!(lengths, [vec![300], vec![200; 32]].concat());
}

/// The tail never reaches the descriptor that is looked at next, wherever the ring is.
#[test]
fn the_tail_stays_one_behind() {
    let mut bench = bench();
    let (_port, mut queue, _tx) = bench.start(1024);
    let mut out = Burst::new(256);
    for round in 0..1000 {
        let ring = queue.ring();
        let tail = bench.registers.get(RDT.offset as u64);
        // All that the card owns is done: from `next` to before the tail.
        let owned = tail.wrapping_sub(ring.descriptors.next()) & 63;
        assert!((64 - 1 - 15..64).contains(&owned), "round {round}: the card owns {owned} descriptors");
        for step in 0..owned {
            ring.descriptors.write(step, [0, Rx::DONE | Rx::END | 60 << 32]);
        }
        assert_eq!(queue.rx_burst(&mut out), owned as usize);
        out.clear();
    }
}

/// Who panics in the loop loses what was lent to it: no fragment is in the ring and in the pool.
#[test]
fn a_panic_in_the_loop_gives_no_fragment_out_twice() {
    let mut bench = bench();
    let (_port, mut queue, _tx) = bench.start(1024);
    let ring = &mut queue.ring().descriptors;
    assert_eq!(ring.begin_run(16), 16);
    (0..16).for_each(|step| ring.write(step, [0, Rx::DONE | Rx::END | 60 << 32]));
    let mut out = Burst::new(16);
    let whole = RxRing::<Rx>::WHOLE;
    let take = || ring.take::<true>(&mut out, whole, |_, _| panic!("as it should"));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(take)).unwrap_err();
    assert!(out.is_empty());
    let pool = queue.pool();
    let left: Vec<Posted> = std::iter::from_fn(|| pool.alloc()).collect();
    // The packet that was at hand has gone home; one of the sixteen is in its place.
    assert_eq!(left.len(), 1024 - 64 - 15);
}

/// The card gets descriptors back also within a frame that does not end.
#[test]
fn the_tail_moves_on_within_a_frame() {
    for offloads in [RxOffloads::SCATTER, RxOffloads::SCATTER | RxOffloads::IP_CSUM] {
        let mut bench = bench();
        let mut port = bench.open().unwrap();
        let (mut rx, _tx) = port.start(PortConfig { rx_offloads: offloads, ..bench.config(1024) }).unwrap();
        let mut out = Burst::new(32);
        let mut tail = bench.registers.get(RDT.offset as u64);
        for round in 0..20 {
            (0..16).for_each(|step| rx[0].ring().descriptors.write(step, [0, Rx::DONE | 60 << 32]));
            while rx[0].rx_burst(&mut out) > 0 {}
            let now = bench.registers.get(RDT.offset as u64);
            assert_ne!(tail, now, "round {round}");
            tail = now;
        }
    }
}

/// The card was told how many bytes it may write into each fragment. Whoever puts another pool in the place of the queue's gets no
/// packets while its fragments are smaller, and the card none of them.
#[test]
fn fragments_that_are_too_small_for_the_card_are_not_posted() {
    let mut bench = bench();
    let (mut port, mut queue, _tx) = bench.start(1024);
    let pool = |fragment_size, headroom| {
        let config = PoolConfig {
            fragments: 64,
            fragment_size,
            headroom,
            backing: PageSize::Size4K,
            ..PoolConfig::default()
        };
        Pool::new(&config, &bench.space).unwrap()
    };
    let others = [pool(512, 0), pool(1024, 1000)];
    let mut out = Burst::new(32);
    let frame = |queue: &mut NicRx<Rx>, step: u32, status: u64| {
        let ring = queue.ring();
        ring.descriptors.write(step, [0, Rx::DONE | status | 100 << 32]);
    };
    for small in others {
        frame(&mut queue, 0, Rx::END);
        frame(&mut queue, 1, 0);
        frame(&mut queue, 2, Rx::END);
        let own = std::mem::replace(queue.pool(), small);
        let before = port.stats().rx_nombuf;
        assert_eq!((queue.rx_burst(&mut out), port.stats().rx_nombuf), (0, before + 1));
        let mut small = std::mem::replace(queue.pool(), own);
        small.trim();
        assert_eq!(small.stats().inflight(), 0);
        // They have waited.
        assert_eq!(queue.rx_burst(&mut out), 2);
        assert_eq!(out.iter().map(Packet::len).collect::<Vec<_>>(), [100, 200]);
        out.clear();
    }
}
