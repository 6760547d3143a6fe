//! Every feature with every size: rings from the smallest to the largest, bursts from 1 to 256, and pools in which there is hardly more than
//! a ring holds, of which somebody takes the rest at random. Frames are compared as the card sent them and as they were received, both byte
//! by byte; counters with the cards'; ends of frames with what the receiving card wrote into descriptors.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::bench::{Bench, Sent, Side, Watched, bytes, count};
use common::features::{Feature, RINGS, Seen, features, nothing};
use common::functions::{function_at, wide_pool};
use common::liar::{Liar, Write};
use common::packets::{Flow, KEY, ask, payload, whole};
use common::{eventually, headers, pool, space};
use pagewire_ethdev::nic::testing::Random;
use pagewire_ethdev::{
    Burst, MacAddr, Packet, PacketFlags, Pool, Port, PortConfig, RssConfig, RxOffloads, RxQueue,
    RxQueueConfig, TxOffloads, TxQueue, TxQueueConfig, Waiter,
};
use pagewire_ixgbe::{Ixgbe, IxgbeVf};
use pagewire_models::ixgbe::{Config, Kind};
use pagewire_models::wire::pair;

/// Frames of a round: no more than the smallest ring takes whatever was not refilled yet, all in one queue.
const UNDER_WAY: usize = 16;

/// Counts descriptors that the card wrote as the last of a frame.
#[derive(Clone, Default)]
struct Ends(Arc<AtomicU64>);

impl Liar for Ends {
    fn write(&mut self, what: Write, _: &mut u64, data: &mut [u8]) -> bool {
        if what == Write::Status && data[0] & 3 == 3 {
            self.0.fetch_add(1, Relaxed);
        }
        true
    }
}

/// How a feature is tried.
#[derive(Debug)]
struct Size {
    ring: u32,
    burst: usize,
    /// Fragments beyond what the ring and its longest frame need.
    spare: usize,
    rounds: usize,
}

/// What is taken out of pools so that others find nothing.
#[derive(Default)]
struct Taken(Vec<Packet>);

impl Taken {
    /// All that is left to the queues.
    fn take<P: Side>(&mut self, bench: &mut Bench<P>) {
        for queue in &mut bench.b.rx {
            self.0.extend(std::iter::from_fn(|| queue.pool().alloc_packet()));
        }
    }
}

/// Times that queues found a frame and no fragment.
fn waits<P: Side>(bench: &Bench<P>) -> u64 {
    bench.b.port.rx_queue_stats().iter().map(|queue| queue.nombuf).sum()
}

/// Two cards of a kind.
fn start(kind: Kind, feature: &Feature<Ixgbe>, size: &Size, ends: &Ends) -> (Bench, Sent) {
    let (mut bench, sent) = Bench::watched(
        Config { kind, ..Config::default() },
        |space, config| {
            configure(feature, size, config, &|fragments| pool(space, fragments), &|fragments| {
                headers(space, fragments, 64)
            });
            if let (Kind::X550 | Kind::X552, Some(table)) = (kind, &mut config.rss.table) {
                *table = table.repeat(4);
            }
        },
        |card| card.liar = Box::new(ends.clone()),
    );
    bench.b.running.lie(true);
    // A card that has answered has ended what it did before.
    bench.b.port.stats();
    (bench, sent)
}

/// Two functions, each of a card of its own, with the addresses that frames are from and for.
fn start_functions(feature: &Feature<IxgbeVf>, size: &Size, ends: &Ends) -> (Bench<IxgbeVf>, Sent) {
    let (space, (one, two), sent) = (space(), pair(), Sent::default());
    let end = |last, wire, liar: &dyn Fn() -> Box<dyn Liar>| {
        let mut config = PortConfig::default();
        // They decide on their MTU, but not on what comes: buffers of whole KiB hold ordinary frames only if they are larger.
        let fragments = |fragments| wide_pool(&space, fragments);
        configure(feature, size, &mut config, &fragments, &|_| unreachable!("no headers are split off"));
        let own = |own: &mut PortConfig| {
            (own.mtu, own.rss.key) = (feature.mtu, Some(KEY.into()));
            own.rx_offloads = RxOffloads::SCATTER;
        };
        config.rss = RssConfig::default();
        function_at(wire, liar, MacAddr([2, 0, 0, 0, 0, last]), &space, own, config)
    };
    let one = Watched { cable: one, sent: sent.clone() };
    let a = end(0xee, Box::new(one) as _, &|| Box::new(()));
    let b = end(2, Box::new(two), &|| Box::new(ends.clone()));
    (Bench::of(a, b, space), sent)
}

fn configure<P: Side>(
    feature: &Feature<P>,
    size: &Size,
    config: &mut PortConfig,
    fragments: &dyn Fn(usize) -> Pool,
    headers: &dyn Fn(usize) -> Pool,
) {
    let most = match feature.rx {
        rx if rx.contains(RxOffloads::LRO) => 33 * 16,
        rx if rx.contains(RxOffloads::SCATTER) => 10,
        _ => 2,
    };
    let queue = || {
        let count = size.ring as usize + most + 1 + size.spare;
        let headers = feature.rx.contains(RxOffloads::HEADER_SPLIT).then(|| headers(count));
        RxQueueConfig { headers, ..RxQueueConfig::new(fragments(count), size.ring) }
    };
    config.rx = (0..feature.queues).map(|_| queue()).collect();
    config.tx = vec![TxQueueConfig { descriptors: size.ring }; feature.queues];
    (config.rx_offloads, config.tx_offloads, config.mtu) = (feature.rx, feature.tx, feature.mtu);
    (feature.config)(config);
}

/// `card` if the ports are cards' own, of which more is known.
fn try_out<P: Side>(
    what: impl std::fmt::Display,
    card: bool,
    start: impl FnOnce(&Feature<P>, &Size, &Ends) -> (Bench<P>, Sent),
    feature: &Feature<P>,
    size: &Size,
    random: &mut Random,
) {
    let ends = Ends::default();
    let (mut bench, on_wire) = start(feature, size, &ends);
    (feature.started)(&mut bench);
    // A function does not wait for descriptors, of which a long frame takes three.
    let under_way = if card { UNDER_WAY } else { UNDER_WAY / 3 };
    // Of all that is sent: frames, their bytes; of those let in: frames, bytes, and how many came.
    let (mut sent, mut sent_bytes, mut let_in, mut let_in_bytes, mut came) = (0, 0, 0, 0, 0);
    let mut dropped = 0;
    let mut held = Vec::new();
    for round in 0..size.rounds {
        let (mut packets, mut made) = (Vec::new(), Vec::new());
        while made.len() < under_way && packets.len() < size.burst {
            let (packet, becomes) = (feature.packet)(&mut bench, random);
            packets.push(packet);
            made.extend(becomes);
        }
        let mut expected: Vec<Seen> = made.iter().filter_map(|(_, seen)| seen.clone()).collect();
        for (wire, seen) in &made {
            let bytes = wire.len().max(60) as u64 + 4;
            (sent, sent_bytes) = (sent + 1, sent_bytes + bytes);
            if seen.is_some() || feature.name == "flow rules" {
                (let_in, let_in_bytes) = (let_in + 1, let_in_bytes + bytes);
                dropped += u64::from(seen.is_none());
            }
        }
        came += expected.len() as u64;
        let from = random.below(feature.queues as u64) as usize;
        let mut out = Burst::new(size.burst);
        packets.into_iter().for_each(|packet| out.push(packet).expect("no more than a burst"));
        // In the first round somebody has all fragments until a queue has missed one; then now and then.
        let mut taken = Taken::default();
        held.clear();
        pagewire_pool::flush_thread();
        taken.take(&mut bench);
        let before = waits(&bench);
        let (mut got, mut into) = (Vec::new(), Burst::new(1 + random.below(size.burst as u64) as usize));
        let mut waiter = Waiter::new(0, Duration::from_millis(5));
        eventually("all frames", || {
            let had = got.len();
            bench.a.tx[from].tx_burst(&mut out);
            for (number, queue) in bench.b.rx.iter_mut().enumerate() {
                queue.rx_burst(&mut into);
                for packet in into.drain() {
                    got.push(Seen::of(&packet, number));
                    held.push(packet);
                }
            }
            if out.is_empty() && bench.b.rx.iter().any(|queue| queue.interrupt().is_some()) {
                let interrupts = bench.b.rx.iter().filter_map(|queue| queue.interrupt());
                waiter.polled(got.len() - had, interrupts).unwrap();
            }
            let all_gone = out.is_empty() && got.len() >= expected.len();
            match random.below(8) {
                _ if waits(&bench) == before && !all_gone => {}
                0 => taken.take(&mut bench),
                1 | 2 => held.clear(),
                _ => taken.0.clear(),
            }
            all_gone
        });
        assert!(
            round > 0 || expected.is_empty() || waits(&bench) > before,
            "{}: nobody waited",
            feature.name
        );
        // A function tells of RSS whoever asks.
        if !card && expected.iter().all(|seen| !seen.has_hash()) {
            got = got.into_iter().map(Seen::without_hash).collect();
        }
        let known = expected.iter().all(|seen| seen.queue.is_some());
        got.iter_mut().filter(|_| !known).for_each(|seen| seen.queue = None);
        got.sort();
        expected.sort();
        assert!(
            got == expected,
            "{}, {size:?}, round {round}: got {got:02x?}, expected {expected:02x?}",
            feature.name
        );
        let mut wire: Vec<_> =
            made.into_iter().map(|(wire, _)| Seen::new(&wire, PacketFlags::empty()).bytes).collect();
        let mut sent_frames = Vec::new();
        eventually("the frames on the wire", || {
            sent_frames.extend(on_wire.take());
            sent_frames.len() >= wire.len()
        });
        wire.sort();
        sent_frames.sort();
        assert!(wire == sent_frames, "{}, {size:?}, round {round}: other frames on the wire", feature.name);
        drop(taken);
        let least = bench.b.port.info().capabilities.rx_descriptors.min;
        let ring = RINGS[random.below(3) as usize].max(least);
        (feature.between)(&mut bench, random, ring);
    }
    held.clear();
    if dropped > 0 {
        eventually("drops", || count(&mut bench.b.port, "rx_flow_dropped_packets") == dropped);
    }
    if card {
        eventually("frames that are not let in", || count(&mut bench.b.port, "rx_total_packets") == sent);
    }
    let (a, b) = (bench.a.port.stats(), bench.b.port.stats());
    assert_eq!((a.tx_packets, a.tx_errors), (sent, 0), "{}", feature.name);
    assert_eq!((b.rx_packets, b.rx_errors, b.rx_missed), (came, 0, 0), "{}", feature.name);
    let counted = |port: &mut _, names: [&str; 2]| names.map(|name| count(port, name));
    assert_eq!(counted(&mut bench.a.port, ["tx_good_packets", "tx_good_bytes"]), [sent, sent_bytes]);
    assert_eq!(counted(&mut bench.b.port, ["rx_good_packets", "rx_good_bytes"]), [let_in, let_in_bytes]);
    assert_eq!(ends.0.load(Relaxed), came, "{}: ends of frames in descriptors", feature.name);
    println!("{what}, {}, {size:?}: {sent} frames, {came} came, {} waits", feature.name, b.rx_nombuf);
    bench.finish();
}

/// The sizes for a feature: the smallest and the largest ring and burst, and others.
fn sizes(random: &mut Random) -> [Size; 4] {
    let any = |random: &mut Random| (RINGS[random.below(8) as usize], 2 + random.below(254) as usize);
    let (some, another) = (any(random), any(random));
    [(32, 256), (4096, 1), some, (32, another.1)].map(|(ring, burst)| Size {
        ring,
        burst,
        spare: random.below(12) as usize,
        rounds: if burst == 1 { 30 } else { 8 },
    })
}

fn try_out_card(kind: Kind, feature: &Feature<Ixgbe>, size: &Size, random: &mut Random) {
    try_out(kind, true, |feature, size, ends| start(kind, feature, size, ends), feature, size, random);
}

fn try_out_all(features: impl Iterator<Item = Feature<Ixgbe>>) {
    let mut random = Random::new();
    for feature in features {
        for size in sizes(&mut random) {
            try_out_card(Kind::I82599, &feature, &size, &mut random);
        }
    }
}

#[test]
fn features_of_receive_and_of_queues_with_every_size() {
    try_out_all(features().into_iter().filter(|feature| feature.tx.is_empty()));
}

#[test]
fn features_of_transmit_with_every_size() {
    try_out_all(features().into_iter().filter(|feature| !feature.tx.is_empty()));
}

/// Those that differ from the 82599 in what surrounds the queues have the same features.
#[test]
fn features_of_the_later_cards() {
    let mut random = Random::new();
    let later: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| *kind != Kind::I82599).collect();
    let first = random.below(later.len() as u64) as usize;
    for (number, feature) in features().into_iter().enumerate() {
        // Each feature on another card, and in the next run on others.
        let kind = later[(first + number) % later.len()];
        let [_, _, any, small] = sizes(&mut random);
        let size = if random.below(2) == 0 { any } else { small };
        try_out_card(kind, &feature, &size, &mut random);
    }
}

/// All that a function can do; the smallest ring that it can have is larger.
#[test]
fn features_of_virtual_functions() {
    let mut random = Random::new();
    let can = |feature: &Feature<IxgbeVf>| {
        !feature.rx.contains(RxOffloads::HEADER_SPLIT)
            && !["flow rules", "interrupts"].contains(&feature.name)
    };
    let first = random.below(4) as usize;
    for (number, feature) in features().into_iter().filter(can).enumerate() {
        // Each with another size, and in the next run with others.
        let size = sizes(&mut random).into_iter().nth((first + number) % 4).expect("one of four");
        let size = Size { ring: size.ring.max(64), ..size };
        try_out("function", false, start_functions, &feature, &size, &mut random);
    }
}

/// Packets that are coalesced are other ones at each run: what is compared is what they carry, and that they say so.
#[test]
fn coalescing_with_every_size() {
    let mut random = Random::new();
    let feature = Feature { rx: RxOffloads::LRO | RxOffloads::L4_CSUM, tx: TxOffloads::all(), ..nothing() };
    for size in sizes(&mut random) {
        let ends = Ends::default();
        let (mut bench, _) = start(Kind::I82599, &feature, &size, &ends);
        let (mut frames, mut came, mut coalesced, mut held) = (0, 0, 0, Vec::new());
        for _ in 0..size.rounds {
            // Two flows in turn, each with its own bytes.
            let flows =
                [false, true].map(|v6| Flow { ports: (random.below(60_000) as u16, 80), ..Flow::new(v6) });
            let mss = 500 + random.below(900) as usize;
            let mut out = Burst::new(2);
            let mut expected = BTreeMap::new();
            for flow in flows {
                let data =
                    payload(mss * random.below(12) as usize + 30 + random.below(mss as u64 - 30) as usize);
                let mut packet = bench.chain(&whole(flow, &data));
                ask(&mut packet, flow, mss as u16);
                out.push(packet).expect("room for two");
                frames += data.len().div_ceil(mss) as u64;
                expected.insert(flow.v6, data);
            }
            let mut got = BTreeMap::from([(false, Vec::new()), (true, Vec::new())]);
            let mut taken = Taken::default();
            held.clear();
            pagewire_pool::flush_thread();
            taken.take(&mut bench);
            let before = waits(&bench);
            let mut into = Burst::new(size.burst);
            eventually("all data", || {
                bench.a.tx[0].tx_burst(&mut out);
                bench.b.rx[0].rx_burst(&mut into);
                for packet in into.drain() {
                    let all = bytes(&packet);
                    let flow = flows[usize::from(all[12] == 0x86)];
                    assert!(packet.flags().contains(PacketFlags::RX_L4_CSUM_GOOD), "{packet:?}");
                    assert!(
                        packet.flags().contains(PacketFlags::RX_LRO) || all.len() <= flow.l4() + 20 + mss
                    );
                    got.entry(flow.v6).or_default().extend(&all[flow.l4() + 20..]);
                    coalesced += u64::from(all.len() > flow.l4() + 20 + mss);
                    came += 1;
                    held.push(packet);
                }
                let all = got.values().map(Vec::len).sum::<usize>()
                    == expected.values().map(Vec::len).sum::<usize>();
                match random.below(8) {
                    _ if waits(&bench) == before => {}
                    0 => taken.take(&mut bench),
                    1 | 2 => held.clear(),
                    _ => taken.0.clear(),
                }
                all
            });
            assert!(got == expected, "{size:?}: other data than was sent");
        }
        held.clear();
        let stats = bench.b.port.stats();
        assert_eq!((stats.rx_packets, stats.rx_errors, stats.rx_missed), (came, 0, 0));
        assert_eq!((count(&mut bench.b.port, "rx_good_packets"), ends.0.load(Relaxed)), (frames, came));
        assert!(coalesced > 0 && stats.rx_nombuf > 0, "{coalesced} coalesced, {} waits", stats.rx_nombuf);
        println!("coalescing, {size:?}: {frames} frames in {came} packets, {} waits", stats.rx_nombuf);
        bench.finish();
    }
}
