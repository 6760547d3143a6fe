//! Packets between two ports, through two models and a cable.

mod common;

use common::bench::{Bench, assert_nothing, bytes, count, frame, receive, send};
use common::{config, eventually, pool, serve_on};
use pagewire_ethdev::{MacAddr, Pool, Port, RxOffloads, RxQueue, RxQueueConfig, TxOffloads, TxQueue};
use pagewire_models::wire::{Arrival, Wire};
use pagewire_pool::{PageSize, PoolConfig};

#[test]
fn packets_arrive_as_they_were_sent() {
    for mapped in [false, true] {
        let mut bench = Bench::new(mapped, |_, _| ());
        let to = bench.b.port.info().mac;
        // Many times around rings of 64, through reports and reclaim.
        let mut sent = 0u64;
        let mut sent_bytes = 0u64;
        for round in 0..20 {
            let frames: Vec<Vec<u8>> = (0..40).map(|n| frame(to, 60 + (round * 40 + n) % 1459)).collect();
            let packets = bench.packets(&frames);
            let got: Vec<_> = bench.pass(packets, frames.len()).iter().flatten().map(bytes).collect();
            assert_eq!(got, frames, "mapped {mapped}, round {round}");
            sent += frames.len() as u64;
            sent_bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        }
        // Shorter ones are padded on the wire.
        let short = frame(to, 17);
        let got = bytes(&bench.pass_frame(&short));
        assert_eq!((&got[..17], got.len()), (&short[..], 60));
        let (a, b) = (bench.a.port.stats(), bench.b.port.stats());
        assert_eq!((a.tx_packets, a.tx_bytes, a.tx_errors), (sent + 1, sent_bytes + 17, 0));
        assert_eq!((b.rx_packets, b.rx_bytes, b.rx_missed, b.rx_errors), (sent + 1, sent_bytes + 60, 0, 0));
        assert_eq!(count(&mut bench.a.port, "tx_good_packets"), sent + 1);
        assert_eq!(count(&mut bench.b.port, "rx_good_packets"), sent + 1);
        assert_eq!(count(&mut bench.b.port, "rx_good_bytes"), sent_bytes + 60 + 4 * (sent + 1));
        bench.finish();
    }
}

#[test]
fn an_idle_ring_gives_everything_back() {
    for mapped in [false, true] {
        let mut bench = Bench::new(mapped, |_, _| ());
        let to = bench.b.port.info().mac;
        for count in [1, 3, 7] {
            let packets = bench.packets(&vec![frame(to, 100); count]);
            assert_eq!(bench.pass(packets, count)[0].len(), count);
            let tx = &mut bench.a.tx[0];
            eventually("a report", || {
                tx.reclaim();
                tx.pending() == 0
            });
        }
        // The reports were no frames.
        assert_nothing(&mut bench.b.rx[0]);
        bench.finish();
    }
}

/// A segment comes while frames are under way and the ring is full of the others' memory; all but what is needed goes again.
#[test]
fn a_queues_pool_grows_while_frames_flow_and_shrinks_later() {
    let mut bench = Bench::new(true, |space, config| {
        let growing = PoolConfig {
            fragments: 128,
            max_fragments: 512,
            segment_size: 128 * 2048,
            backing: PageSize::Size4K,
            ..PoolConfig::default()
        };
        config.rx[0].pool = Pool::new(&growing, space).unwrap();
    });
    let to = bench.b.port.info().mac;
    let (mut sent, mut held, mut grown) = (Vec::new(), Vec::new(), 0);
    for round in 0..12 {
        let frames: Vec<Vec<u8>> = (0..32).map(|n| frame(to, 60 + (round * 32 + n) * 3)).collect();
        let packets = bench.packets(&frames);
        send(&mut bench.a.tx[0], packets);
        let pool = bench.b.rx[0].pool();
        if pool.available() < 64 {
            grown += pool.grow().unwrap();
        }
        held.extend(receive(&mut bench.b.rx, 32).into_iter().flatten());
        sent.extend(frames);
    }
    let pool = bench.b.rx[0].pool();
    assert_eq!((grown, pool.stats().fragments), (3 * 128, 512), "384 are held, and 64 in the ring");
    assert_eq!(pool.shrink(128), 0, "nothing of it is idle");
    assert!(held.iter().map(bytes).eq(sent));
    drop(held);
    // What is in the ring is of any segment, until frames have come.
    eventually("three segments of four to go", || {
        bench.pass_all(2);
        bench.b.rx[0].pool().shrink(128);
        bench.b.rx[0].pool().stats().fragments == 128
    });
    bench.pass_all(5);
    let stats = bench.b.port.stats();
    assert_eq!((stats.rx_missed, stats.rx_errors), (0, 0));
    bench.finish();
}

#[test]
fn jumbo_frames_go_through_several_fragments() {
    let mut bench = Bench::new(false, |_, config| {
        config.mtu = 9000;
        config.rx_offloads = RxOffloads::SCATTER;
        config.tx_offloads = TxOffloads::MULTI_SEGS;
    });
    let to = bench.b.port.info().mac;
    for len in [1518, 1519, 1792, 1793, 4000, 9014] {
        let data = frame(to, len);
        let lengths: Vec<usize> = (0..len.div_ceil(1700)).map(|n| (len - n * 1700).min(1700)).collect();
        let packet = bench.packet(&data, &lengths);
        let got = bench.pass_one(packet);
        assert_eq!(bytes(&got), data, "{len}");
        assert!(got.segment_count() >= len.div_ceil(1792), "{len} in {}", got.segment_count());
    }
    // A packet of too many descriptors is dropped and counted, and those behind it go on.
    let data = frame(to, 39 * 100);
    let packets = [39, 38, 39, 38].map(|segments| bench.packet(&data, &vec![100; segments]));
    let got = bench.pass(packets.into(), 2);
    assert!(got[0].iter().all(|packet| bytes(packet) == data[..3800]), "{got:?}");
    drop(got);
    assert_eq!(bench.a.port.stats().tx_errors, 2);
    bench.finish();
}

#[test]
fn filters_let_in_what_is_asked_for() {
    let mut bench = Bench::new(false, |_, config| config.promiscuous = false);
    let own = bench.b.port.info().mac;
    let other = MacAddr([2, 0, 0, 0, 0, 0x77]);
    let group: MacAddr = "01:00:5e:00:a5:c3".parse().unwrap();
    let groups_neighbour: MacAddr = "01:00:5e:00:b5:c3".parse().unwrap();
    let comes = |bench: &mut Bench, to: MacAddr, comes: bool| {
        let data = frame(to, 80);
        let packets = bench.packets([&data]);
        if comes {
            assert_eq!(bytes(&bench.pass(packets, 1)[0][0]), data);
        } else {
            send(&mut bench.a.tx[0], packets);
            assert_nothing(&mut bench.b.rx[0]);
        }
    };
    for (to, is) in [(own, true), (MacAddr::BROADCAST, true), (other, false), (group, false)] {
        comes(&mut bench, to, is);
    }
    bench.b.port.set_extra_unicast(&[MacAddr([2, 0, 0, 0, 0, 0x76]), other]).unwrap();
    bench.b.port.set_multicast(&[group]).unwrap();
    for (to, is) in [(own, true), (other, true), (group, true), (groups_neighbour, false)] {
        comes(&mut bench, to, is);
    }
    bench.b.port.set_extra_unicast(&[]).unwrap();
    bench.b.port.set_all_multicast(true).unwrap();
    for (to, is) in [(other, false), (groups_neighbour, true)] {
        comes(&mut bench, to, is);
    }
    bench.b.port.set_all_multicast(false).unwrap();
    bench.b.port.set_mac(other).unwrap();
    for (to, is) in [(own, false), (other, true), (groups_neighbour, false)] {
        comes(&mut bench, to, is);
    }
    bench.b.port.set_promiscuous(true).unwrap();
    for to in [own, other, groups_neighbour] {
        comes(&mut bench, to, true);
    }
    // A stop and a start bring the filters back.
    bench.b.rx.clear();
    bench.b.tx.clear();
    bench.b.port.stop().unwrap();
    let mut again = config(&bench.space);
    again.promiscuous = false;
    (bench.b.rx, bench.b.tx) = bench.b.port.start(again).unwrap();
    eventually("the link", || bench.b.port.link().is_up());
    for (to, is) in [(own, false), (other, true), (group, true), (groups_neighbour, false)] {
        comes(&mut bench, to, is);
    }
    bench.finish();
}

/// Frames of these lengths, without check sequence, good or not.
struct Lengths(Vec<(usize, Arrival)>);

impl Wire for Lengths {
    fn send(&mut self, _: &[u8]) -> bool {
        true
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> Option<Arrival> {
        let (length, arrival) = self.0.pop()?;
        *into = frame(MacAddr::BROADCAST, length);
        Some(arrival)
    }

    fn patient(&self) -> bool {
        true
    }
}

/// Each broken frame is one error, though a jabber's check sequence is wrong as well.
#[test]
fn broken_frames_are_counted_once() {
    let good = [(60, Arrival::Good), (1514, Arrival::Good)];
    let broken = [
        (59, Arrival::Good, "rx_undersize_packets", 0),
        (59, Arrival::BadFcs, "rx_fragments", 0),
        (60, Arrival::BadFcs, "rx_crc_errors", 1),
        (1514, Arrival::BadFcs, "rx_crc_errors", 1),
        (1515, Arrival::Good, "rx_oversize_packets", 0),
        (1515, Arrival::BadFcs, "rx_jabbers", 1),
    ];
    for (length, arrival, name, crc_errors) in broken {
        let frames = Lengths(vec![good[1], (length, arrival), good[0]]);
        let running = serve_on(false, 1, Box::new(frames), |_| ());
        let (space, mut port) = running.open().unwrap();
        let (mut rx, tx) = port.start(config(&space)).unwrap();
        assert_eq!(receive(&mut rx, 2)[0].len(), 2, "{name}");
        let what = format!("{length}, {arrival:?}");
        assert_eq!((port.stats().rx_errors, count(&mut port, name)), (1, 1), "{what}");
        assert_eq!(count(&mut port, "rx_crc_errors"), crc_errors, "{what}");
        drop((rx, tx));
        port.stop().unwrap();
    }
}

#[test]
fn what_there_is_no_room_for_is_counted_as_missed() {
    let mut bench = Bench::new(false, |space, config| {
        config.rx.push(RxQueueConfig::new(pool(space, 512), 64));
    });
    // Nobody looks at the queues, which drop rather than wait for each other; this one flow goes to one of them.
    let to = bench.b.port.info().mac;
    for _ in 0..4 {
        let packets = bench.packets(&vec![frame(to, 100); 40]);
        send(&mut bench.a.tx[0], packets);
    }
    eventually("drops", || bench.b.port.stats().rx_missed == 160 - 63);
    assert_eq!(receive(&mut bench.b.rx, 63).iter().map(Vec::len).sum::<usize>(), 63);
    bench.finish();
}
