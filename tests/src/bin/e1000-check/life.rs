//! Opening, starting, stopping, counting.

use anyhow::{Result, ensure};
use pagewire_e1000::E1000;
use pagewire_ethdev::{Burst, Error, Port, RxOffloads, RxQueue};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};

use crate::pair::{Options, Pair, Side, frame};
use crate::{Cards, Case, is_bus_master};

pub(crate) const CASES: &[Case] = &[
    ("counters-are-exact", counters),
    ("ports-start-again", again),
    ("a-port-with-live-queues-does-not-stop", live_queues),
    ("whatever-goes-first-the-card-stops-last", drop_order),
    ("a-port-can-do-one-thing-only", one_way),
    ("bad-configurations-are-refused", refused),
];

/// 100 bytes each, a few of them broadcasts and multicasts.
fn exchange(pair: &mut Pair, count: u32) -> Result<()> {
    let (a, b) = (pair.a.mac(), pair.b.mac());
    for number in 0..count {
        let (there, back) = (frame(b, a, 100, number), frame(a, b, 100, number));
        pair.a.send_frame(&there)?;
        pair.b.send_frame(&back)?;
        pair.b.expect(&there)?;
        pair.a.expect(&back)?;
    }
    Ok(())
}

fn counters(cards: &Cards) -> Result<()> {
    let exact = Options { promiscuous: false, ..Options::default() };
    let mut pair = Pair::new(cards, &exact)?;
    exchange(&mut pair, 500)?;
    for round in 1..=2 {
        let count = 500;
        for side in [&mut pair.a, &mut pair.b] {
            let stats = side.port.stats();
            let found = [stats.rx_packets, stats.tx_packets, stats.rx_bytes, stats.tx_bytes];
            ensure!(found == [count, count, count * 100, count * 100], "read {round}: {stats:?}");
            ensure!([stats.rx_errors, stats.tx_errors, stats.rx_missed] == [0; 3], "{stats:?}");
            for (name, expected) in [
                ("rx_good_packets", count),
                ("tx_good_packets", count),
                ("rx_good_bytes", count * 104),
                ("tx_good_bytes", count * 104),
                ("rx_size_65_to_127_packets", count),
                ("tx_size_65_to_127_packets", count),
                ("rx_size_64_packets", 0),
                ("rx_missed_packets", 0),
                ("rx_q0_packets", count),
                ("tx_q0_bytes", count * 100),
            ] {
                let value = side.xstat(name)?;
                ensure!(value == expected, "read {round}: {name} is {value}, expected {expected}");
            }
        }
    }
    // A ring that nobody empties: the card drops, and says so.
    let (a, b) = (pair.a.mac(), pair.b.mac());
    for number in 0..2_000 {
        pair.a.send_frame(&frame(b, a, 100, number))?;
    }
    let mut burst = Burst::new(256);
    while pair.b.rx.rx_burst(&mut burst) > 0 {
        burst.clear();
    }
    let stats = pair.b.port.stats();
    ensure!(stats.rx_packets + stats.rx_missed == 500 + 2_000, "{stats:?}");
    pair.stop()
}

fn again(cards: &Cards) -> Result<()> {
    let mut pair = Pair::new(cards, &Options::default())?;
    let counted = |side: &mut Side| side.port.stats().rx_packets;
    for round in 1..=5 {
        exchange(&mut pair, 50)?;
        ensure!(counted(&mut pair.a) == 50 * round, "counts start anew with each start");
        ensure!(is_bus_master(cards.a)? && is_bus_master(cards.b)?, "a started card is no bus master");
        let (a, b) = (pair.a.stop()?, pair.b.stop()?);
        ensure!(!is_bus_master(cards.a)? && !is_bus_master(cards.b)?, "a stopped card is bus master");
        let options = Options { rx_ring: 64 << round, ..Options::default() };
        let mut options = options;
        options.pool.fragments = 8192;
        let space = pair.space;
        pair = Pair { a: Side::start(&space, a, &options)?, b: Side::start(&space, b, &options)?, space };
    }
    pair.stop()
}

fn state(result: Result<(), Error>, expected: &str) -> Result<()> {
    match result {
        Err(Error::State { what, .. }) => ensure!(what.contains(expected), "{what:?}, expected {expected:?}"),
        other => ensure!(false, "{other:?}, expected the error {expected:?}"),
    }
    Ok(())
}

fn live_queues(cards: &Cards) -> Result<()> {
    let mut pair = Pair::new(cards, &Options::default())?;
    state(pair.a.port.stop(), "its queues are still in use")?;
    let config = Options::default().config(&pair.space)?;
    state(pair.a.port.start(config).map(drop), "started already")?;
    // It goes on as if nobody had tried.
    exchange(&mut pair, 10)?;
    let Side { rx, tx, mut port, .. } = pair.a;
    drop(rx);
    state(port.stop(), "its queues are still in use")?;
    drop(tx);
    port.stop()?;
    state(port.stop(), "is not started")?;
    state(port.set_promiscuous(true), "is not started")?;
    pair.b.stop()?;
    Ok(())
}

fn drop_order(cards: &Cards) -> Result<()> {
    for order in ["port first", "queues first", "receive queue last", "all but the transmit queue"] {
        let mut pair = Pair::new(cards, &Options::default())?;
        exchange(&mut pair, 20)?;
        // Frames in the ring that nobody takes, and packets sent that nobody reclaims.
        let (a, b) = (pair.a.mac(), pair.b.mac());
        for number in 0..10 {
            pair.a.send_frame(&frame(b, a, 100, number))?;
            pair.b.send_frame(&frame(a, b, 100, number))?;
        }
        let Side { rx, tx, port, mut packets, receive_pool } = pair.a;
        match order {
            "port first" => {
                drop(port);
                ensure!(is_bus_master(cards.a)?, "the card stopped while its queues live");
                drop((rx, tx));
            }
            "queues first" => {
                drop((tx, rx));
                let posted = receive_pool.stats().inflight();
                ensure!(posted >= 512, "{posted}: a running card's fragments were freed");
                drop(port);
            }
            "receive queue last" => {
                drop((tx, port));
                ensure!(is_bus_master(cards.a)?, "the card stopped while a queue lives");
                drop(rx);
            }
            _ => {
                drop((rx, port));
                let posted = receive_pool.stats().inflight();
                ensure!(posted >= 512, "{posted}: a running card's fragments were freed");
                drop(tx);
            }
        }
        ensure!(!is_bus_master(cards.a)?, "{order}: the card is still bus master");
        packets.trim();
        let left = (packets.stats().inflight(), receive_pool.stats().inflight());
        ensure!(left == (0, 0), "{order}: fragments are out: sent, received {left:?}");
        pair.b.stop()?;
    }
    Ok(())
}

/// Only receive queues, only transmit queues, neither.
fn one_way(cards: &Cards) -> Result<()> {
    let mut pair = Pair::new(cards, &Options::default())?;
    let mut a = pair.a.stop()?;
    for (rx, tx) in [(true, false), (false, true), (false, false)] {
        let mut config = Options::default().config(&pair.space)?;
        config.rx.truncate(usize::from(rx));
        config.tx.truncate(usize::from(tx));
        let (mut receive, mut send) = a.start(config)?;
        ensure!((receive.len(), send.len()) == (usize::from(rx), usize::from(tx)), "queues");
        let sent = frame(a.info().mac, pair.b.mac(), 100, 1);
        let mut burst = Burst::new(4);
        if let Some(queue) = receive.first_mut() {
            pair.b.send_frame(&sent)?;
            let start = std::time::Instant::now();
            while queue.rx_burst(&mut burst) == 0 {
                ensure!(start.elapsed() < crate::pair::PATIENCE, "nothing came");
            }
            burst.clear();
        }
        if let Some(queue) = send.first_mut() {
            use pagewire_ethdev::TxQueue;
            burst.push(pair.b.packet(&[&sent])?).expect("room");
            ensure!(queue.tx_burst(&mut burst) == 1, "nothing went");
            pair.b.expect(&sent)?;
        }
        drop((receive, send));
        a.stop()?;
    }
    pair.b.stop()?;
    Ok(())
}

/// Each is the typed error with what to do about it, and leaves a port that starts.
fn refused(cards: &Cards) -> Result<()> {
    let space = AddressSpace::new(AddressSpaceOptions::default())?;
    let mut port = E1000::open(&space, cards.a)?;
    let twice = E1000::open(&space, cards.a).err().map_or("no error".into(), |error| error.to_string());
    ensure!(twice.contains("open"), "opened twice: {twice}");
    type Change = fn(&mut Options);
    let cases: &[(Change, &str)] = &[
        (
            |o| o.rx_ring = 63,
            "receive ring of 63 descriptors is not possible; the port has rings of a power of two from 64 to 4096",
        ),
        (|o| o.rx_ring = 32, "receive ring of 32 descriptors is not possible"),
        (|o| o.rx_ring = 8192, "receive ring of 8192 descriptors is not possible"),
        (|o| o.tx_ring = 63, "transmit ring of 63 descriptors is not possible"),
        (|o| o.tx_ring = 8192, "transmit ring of 8192 descriptors is not possible"),
        (|o| o.tx_ring = 0, "transmit ring of 0 descriptors is not possible"),
        (|o| o.mtu = 10_000, "MTU 10000 is not possible; the port has 68 to 9212"),
        (|o| o.mtu = 67, "MTU 67 is not possible; the port has 68 to 9212"),
        (
            |o| o.mtu = 1501,
            "MTU 1501 is not possible; the port has receive buffers of 1024 bytes, and RxOffloads::SCATTER is not asked for",
        ),
        (
            |o| o.pool.fragments = 512,
            "receive ring of 512 descriptors is not possible; the port has a pool (\"receive\") of 512 fragments for it, where 514 are needed",
        ),
        (|o| o.pool.fragments = 100, "where 514 are needed"),
        (
            |o| o.pool.headroom = 1900,
            "receive buffer of 148 bytes is not possible; the port has buffers of 256 bytes or more",
        ),
    ];
    for (change, message) in cases {
        let mut options = Options::default();
        change(&mut options);
        match port.start(options.config(&space)?) {
            Err(error @ Error::Unsupported { .. }) => {
                ensure!(error.to_string().contains(message), "{error}, expected {message:?}");
            }
            other => ensure!(false, "{:?}, expected {message:?}", other.map(drop)),
        }
        ensure!(!is_bus_master(cards.a)?, "the card is bus master after {message:?}");
    }
    let mut config = Options::default().config(&space)?;
    config.tx.push(config.tx[0].clone());
    let error = port.start(config).map(drop).unwrap_err().to_string();
    ensure!(error.contains("number of transmit queues 2 is not possible; the port has 1"), "{error}");
    let mut config = Options::default().config(&space)?;
    config.rx.extend(Options::default().config(&space)?.rx);
    let error = port.start(config).map(drop).unwrap_err().to_string();
    ensure!(error.contains("number of receive queues 2 is not possible; the port has 1"), "{error}");

    let scattered = Options { mtu: 1501, rx_offloads: RxOffloads::SCATTER, ..Options::default() };
    Side::start(&space, port, &scattered)?.stop()?;
    Ok(())
}
