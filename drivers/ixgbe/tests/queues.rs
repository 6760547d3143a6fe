//! Several queues: how RSS spreads flows over them, and single ones stopped and started while others run.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::bench::{Bench, bytes, count, receive, send};
use common::liar::{Liar, Ring, Write};
use common::packets::{Flow, KEY, payload, tcp_header, toeplitz};
use common::{config, eventually, fault, headers, pool, serve};
use pagewire_ethdev::{
    Burst, Error, FlowAction, FlowRule, Packet, PacketFlags, Port, PortConfig, RssConfig, RssTypes,
    RxOffloads, RxQueue, RxQueueConfig, TxQueue, TxQueueConfig,
};
use pagewire_models::Host;
use pagewire_pci::AddressSpace;

fn queues(space: &AddressSpace, config: &mut PortConfig, count: usize) {
    for _ in 1..count {
        config.rx.push(RxQueueConfig::new(pool(space, 512), 64));
        config.tx.push(TxQueueConfig { descriptors: 64 });
    }
}

/// Packets of 20 flows of each kind, their hashes' input, and what it is.
fn flows() -> Vec<(Vec<u8>, Vec<u8>, RssTypes)> {
    let mut all = Vec::new();
    for (v6, number) in [false, true].into_iter().flat_map(|v6| (0..20).map(move |number| (v6, number))) {
        let flow = Flow { ports: (3000 + u16::from(number) * 7, 53), hosts: (number, 200), ..Flow::new(v6) };
        let [ip, tcp, udp] = match v6 {
            true => [RssTypes::IPV6, RssTypes::TCP_IPV6, RssTypes::UDP_IPV6],
            false => [RssTypes::IPV4, RssTypes::TCP_IPV4, RssTypes::UDP_IPV4],
        };
        let data = payload(64);
        let kinds = [(flow.tcp(&tcp_header(1), &data), tcp), (flow.udp(&data), udp), (flow.sctp(&data), ip)];
        for (packet, kind) in kinds {
            let addresses = if v6 { 22..54 } else { 26..34 };
            let end = if kind == ip { addresses.end } else { addresses.end + 4 };
            let input = packet[addresses.start..end].to_vec();
            all.push((packet, input, kind));
        }
    }
    all
}

/// Send each packet alone; returns the queue it came to, and it.
fn pass_each(bench: &mut Bench, data: &[u8]) -> (u16, Packet) {
    let packet = bench.packet(data, &[data.len()]);
    let got = bench.pass(vec![packet], 1);
    let (queue, mut packets) = (0..).zip(got).find(|(_, packets)| !packets.is_empty()).expect("a packet");
    (queue, packets.remove(0))
}

#[test]
fn the_known_hash() {
    let input = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
    assert_eq!((toeplitz(&KEY, &input), toeplitz(&KEY, &input[..8])), (0x51cc_c178, 0x323e_8fc2));
}

#[test]
fn key_and_table_choose_the_queue_and_the_hash_is_told() {
    // Unlike any that is made up by counting.
    let table: Vec<u16> = (0..128).map(|entry| (entry * entry / 5 % 3 + 1) as u16).collect();
    let mut bench = Bench::new(false, |space, config| {
        queues(space, config, 4);
        config.rss = RssConfig { key: Some(KEY.into()), table: Some(table.clone()), types: None };
    });
    for (data, input, kind) in flows() {
        let (queue, packet) = pass_each(&mut bench, &data);
        let hash = toeplitz(&KEY, &input);
        // No offload was asked for: the hash is there because there is one.
        assert_eq!(packet.flags(), PacketFlags::RX_RSS_HASH);
        assert_eq!((packet.rss_hash(), packet.rss_type()), (Some(hash), Some(kind)));
        assert_eq!(queue, table[hash as usize % 128], "{kind:?} {hash:#x}");
    }
    // What has no addresses has no hash.
    let (queue, packet) =
        pass_each(&mut bench, &common::bench::frame(pagewire_ethdev::MacAddr::BROADCAST, 80));
    assert_eq!((queue, packet.rss_hash(), packet.rss_type()), (0, None, None));
    drop(packet);
    let sent = count(&mut bench.a.port, "tx_good_packets");
    let by_queue: Vec<u64> = bench.b.port.rx_queue_stats().iter().map(|queue| queue.packets).collect();
    assert_eq!((by_queue.iter().sum::<u64>(), count(&mut bench.b.port, "rx_good_packets")), (sent, sent));
    bench.finish();
}

#[test]
fn only_what_is_asked_for_is_hashed() {
    for types in [RssTypes::TCP_IPV4 | RssTypes::IPV6, RssTypes::empty()] {
        let mut bench = Bench::new(false, |space, config| {
            queues(space, config, 2);
            config.rss.types = Some(types);
        });
        for (data, _, kind) in flows().into_iter().step_by(4) {
            // Of what is not hashed with its ports the addresses are, if those are asked for.
            let ip = if data[12] == 8 { RssTypes::IPV4 } else { RssTypes::IPV6 };
            let expected = [kind, ip].into_iter().find(|kind| types.contains(*kind));
            let (queue, packet) = pass_each(&mut bench, &data);
            assert_eq!(packet.rss_type(), expected, "{kind:?} of {types:?}");
            assert!(expected.is_some() || queue == 0);
        }
        bench.finish();
    }
    // With one queue only if somebody asks.
    for offloads in [RxOffloads::empty(), RxOffloads::RSS_HASH] {
        let mut bench = Bench::new(false, |_, config| config.rx_offloads = offloads);
        let packet = bench.pass_frame(&flows()[0].0);
        assert_eq!(packet.rss_hash().is_some(), !offloads.is_empty());
        drop(packet);
        bench.finish();
    }
}

#[test]
fn what_rss_cannot_be_told_is_refused() {
    let running = serve(false, |_| ());
    let (space, mut port) = running.open().unwrap();
    for (rss, expected) in [
        (RssConfig { key: Some(vec![1; 39]), ..RssConfig::default() }, "RSS key of 39 bytes is not possible"),
        (
            RssConfig { table: Some(vec![0; 127]), ..RssConfig::default() },
            "table of 127 entries is not possible",
        ),
        (RssConfig { table: Some(vec![2; 128]), ..RssConfig::default() }, "the port has 2 receive queues"),
        (RssConfig { types: Some(RssTypes::from_bits_retain(0x80)), ..RssConfig::default() }, "RSS of"),
        (
            RssConfig { types: Some(RssTypes::empty()), table: Some(vec![1; 128]), ..RssConfig::default() },
            "RSS with a table is not possible; the port has no hash where RssConfig::types is empty",
        ),
        (
            RssConfig { types: Some(RssTypes::empty()), key: Some(KEY.into()), ..RssConfig::default() },
            "RSS with a key is not possible",
        ),
    ] {
        let mut asked = config(&space);
        queues(&space, &mut asked, 2);
        asked.rss = rss;
        let error = port.start(asked).err().expect(expected);
        assert!(
            matches!(error, Error::Unsupported { .. }) && error.to_string().contains(expected),
            "{error}"
        );
    }
    running.assert_clean();
}

/// A queue goes and comes while traffic flows through the others: nothing is lost, and its fragments come home.
#[test]
fn one_queue_stops_and_starts_while_others_run() {
    for mapped in [false, true] {
        let mut bench = Bench::new(mapped, |space, config| queues(space, config, 4));
        let all: Vec<Vec<u8>> = flows().into_iter().map(|(data, ..)| data).collect();
        let pass = |bench: &mut Bench, from: usize| -> Vec<usize> {
            let mut got = vec![0; bench.b.rx.len()];
            for batch in all.chunks(40) {
                let packets = bench.packets(batch);
                send(&mut bench.a.tx[from], packets);
                let by_queue = receive(&mut bench.b.rx, batch.len());
                assert_eq!(by_queue.iter().map(Vec::len).sum::<usize>(), batch.len());
                got.iter_mut().zip(by_queue).for_each(|(sum, packets)| *sum += packets.len());
            }
            got
        };
        let before = pass(&mut bench, 0);
        assert!(before.iter().all(|packets| *packets > 10), "{before:?}");
        for round in 0..3 {
            let error = bench.b.port.stop_rx_queue(2).unwrap_err();
            assert!(error.to_string().contains("drop it before stopping it"), "{error}");
            let mut queue = bench.b.rx.remove(2);
            let monitor = queue.pool().monitor();
            drop(queue);
            assert!(monitor.stats().inflight() >= 64, "the card has its ring");
            bench.b.port.stop_rx_queue(2).unwrap();
            assert_eq!(monitor.stats().inflight(), 0, "mapped {mapped}, round {round}");
            let without = pass(&mut bench, round);
            assert_eq!(without.iter().sum::<usize>(), all.len());
            assert!(matches!(bench.b.port.stop_rx_queue(2), Err(Error::State { .. })));
            // Its ring is another, of another size, from another pool.
            let again = RxQueueConfig::new(pool(&bench.space, 512), [64, 128, 256][round]);
            let queue = bench.b.port.start_rx_queue(2, again).unwrap();
            bench.b.rx.insert(2, queue);
            assert_eq!(pass(&mut bench, 3), before, "flows are where they were");
        }
        assert_eq!(bench.b.port.stats().rx_missed, 0);
        bench.finish();
    }
}

/// With several queues one that has no descriptor drops, so that the others go on; by which is counted, mapped or not.
#[test]
fn what_a_queue_has_no_descriptor_for_is_counted() {
    for mapped in [false, true] {
        let mut bench = Bench::new(mapped, |space, config| {
            queues(space, config, 2);
            // Everything to queue 1.
            config.rss.table = Some(vec![1; 128]);
        });
        let data = Flow::new(false).udp(&payload(100));
        let (mut all, mut came) = (0, 0);
        // Twice: what was counted is not counted again.
        for _ in 0..2 {
            for _ in 0..10 {
                let packets = bench.packets(&vec![data.clone(); 20]);
                send(&mut bench.a.tx[0], packets);
            }
            all += 200;
            eventually("all of them", || count(&mut bench.b.port, "rx_good_packets") == all);
            let mut dropped = 0;
            let mut burst = Burst::new(32);
            eventually("all in one or the other", || {
                came += bench.b.rx[1].rx_burst(&mut burst) as u64;
                burst.clear();
                dropped = count(&mut bench.b.port, "rx_no_descriptor_packets");
                came + dropped >= all
            });
            assert_eq!((came + dropped, bench.b.port.stats().rx_missed), (all, dropped), "mapped {mapped}");
            assert!(came >= 60 && dropped >= 60, "{came} came, {dropped} dropped");
        }
        bench.finish();
    }
}

#[test]
fn one_transmit_queue_stops_and_starts_while_others_run() {
    for mapped in [false, true] {
        let mut bench = Bench::new(mapped, |space, config| queues(space, config, 2));
        let data = Flow::new(false).udp(&payload(100));
        for round in 0..3 {
            // Some are in it when it is dropped; they go out all the same.
            let packets = bench.packets(&vec![data.clone(); 20]);
            send(&mut bench.a.tx[1], packets);
            assert!(bench.a.port.stop_tx_queue(1).is_err(), "it is in use");
            drop(bench.a.tx.remove(1));
            bench.a.port.stop_tx_queue(1).unwrap();
            let got = receive(&mut bench.b.rx, 20);
            assert!(
                got.iter().flatten().all(|packet| bytes(packet) == data),
                "mapped {mapped}, round {round}"
            );
            drop(got);
            bench.pool.trim();
            assert_eq!(bench.pool.stats().inflight(), 0, "mapped {mapped}, round {round}");
            assert_eq!(bytes(&bench.pass_frame(&data)), data, "the other one goes on");
            eventually("a report", || {
                bench.a.tx[0].reclaim();
                bench.a.tx[0].pending() == 0
            });
            let queue = bench.a.port.start_tx_queue(1, TxQueueConfig { descriptors: 128 }).unwrap();
            bench.a.tx.push(queue);
            let packets = bench.packets([&data]);
            send(&mut bench.a.tx[1], packets);
            assert_eq!(receive(&mut bench.b.rx, 1).iter().flatten().count(), 1);
            eventually("a report", || {
                bench.a.tx[1].reclaim();
                bench.a.tx[1].pending() == 0
            });
        }
        bench.finish();
    }
}

/// What it has not sent within its time is not sent, and its fragments come home: here there is no cable.
#[test]
fn a_transmit_queue_that_cannot_send_stops_all_the_same() {
    let mut bench = Bench::new(false, |space, config| queues(space, config, 2));
    bench.a.running.control.set_cable(false);
    eventually("no link", || !bench.a.port.link().is_up());
    let packets = bench.packets(&vec![Flow::new(false).udp(&payload(100)); 20]);
    send(&mut bench.a.tx[1], packets);
    drop(bench.a.tx.remove(1));
    bench.a.port.stop_tx_queue(1).unwrap();
    assert_eq!(bench.a.running.logged("sending what is left"), 1);
    bench.pool.trim();
    assert_eq!(bench.pool.stats().inflight(), 0);
    bench.finish();
}

#[test]
fn queues_that_cannot_stop_or_start_say_why() {
    let running = serve(false, |_| ());
    let (space, mut port) = running.open().unwrap();
    assert!(matches!(port.stop_rx_queue(0), Err(Error::State { what: "the port is not started", .. })));
    // That comes first, whatever else is wrong with what is asked.
    let wrong =
        RxQueueConfig { headers: Some(headers(&space, 8, 64)), ..RxQueueConfig::new(pool(&space, 8), 5) };
    let error = port.start_rx_queue(0, wrong).err().unwrap().to_string();
    assert!(error.contains("the port is not started"), "{error}");
    let error = port.start_tx_queue(0, TxQueueConfig { descriptors: 5 }).err().unwrap().to_string();
    assert!(error.contains("the port is not started"), "{error}");
    let mut asked = config(&space);
    queues(&space, &mut asked, 2);
    let (mut rx, tx) = port.start(asked).unwrap();
    let error = port.stop_rx_queue(2).unwrap_err().to_string();
    assert!(error.contains("receive queue 2 is not possible; the port has 2 as it was started"), "{error}");
    let error = port.start_tx_queue(1, TxQueueConfig { descriptors: 64 }).err().unwrap().to_string();
    assert!(error.contains("the queue is running; stop it first"), "{error}");
    drop(rx.pop());
    port.stop_rx_queue(1).unwrap();
    let error = port.start_rx_queue(1, RxQueueConfig::new(pool(&space, 512), 100)).err().unwrap().to_string();
    assert!(error.contains("rings of a power of two"), "{error}");
    // A start that fails is no start, and leaks nothing.
    let few = pool(&space, 8);
    let monitor = few.monitor();
    assert!(port.start_rx_queue(1, RxQueueConfig::new(few, 64)).is_err());
    assert_eq!(monitor.stats().inflight(), 0);
    let queue = port.start_rx_queue(1, RxQueueConfig::new(pool(&space, 512), 64)).unwrap();
    // A card that does not let go keeps the memory.
    let mut queue = queue;
    let monitor = queue.pool().monitor();
    drop(queue);
    running.set_faults(fault::QUEUE_1_NEVER_STOPS);
    let error = port.stop_rx_queue(1).unwrap_err().to_string();
    assert!(error.contains("stopping a receive queue did not end"), "{error}");
    assert!(monitor.stats().inflight() >= 64);
    // Nothing comes to it any more, and it is not started again before it has stopped.
    let error = port.set_flows(&[FlowRule::new(FlowAction::Queue(1))]).unwrap_err().to_string();
    assert!(error.contains("leads to a queue that is stopped"), "{error}");
    let error = port.start_rx_queue(1, RxQueueConfig::new(pool(&space, 512), 64)).err().unwrap().to_string();
    assert!(error.contains("stop it first"), "{error}");
    running.set_faults(0);
    port.stop_rx_queue(1).unwrap();
    assert_eq!(monitor.stats().inflight(), 0);
    drop((rx, tx));
    port.stop().unwrap();
    running.assert_clean();
}

/// What a failed start leaves behind is not taken for a queue that was dropped: a queue that somebody has is neither stopped nor started.
#[test]
fn a_queue_in_use_is_not_stopped_whatever_failed_before() {
    let running = serve(false, |_| ());
    let (space, mut port) = running.open().unwrap();
    let mut asked = config(&space);
    queues(&space, &mut asked, 2);
    let (mut rx, mut tx) = port.start(asked).unwrap();
    drop((rx.pop(), tx.pop()));
    port.stop_rx_queue(1).unwrap();
    port.stop_tx_queue(1).unwrap();
    let again = |space: &AddressSpace| RxQueueConfig::new(pool(space, 512), 64);

    // A card that does not take it stops it, and what it was given comes home.
    running.set_faults(fault::QUEUE_1_NEVER_STARTS);
    let refused = again(&space);
    let monitor = refused.pool.monitor();
    let error = port.start_rx_queue(1, refused).err().unwrap().to_string();
    assert!(error.contains("enabling a receive queue did not end"), "{error}");
    assert_eq!(monitor.stats().inflight(), 0);
    let error = port.start_tx_queue(1, TxQueueConfig { descriptors: 64 }).err().unwrap().to_string();
    assert!(error.contains("enabling a transmit queue did not end"), "{error}");

    // One that neither takes it nor lets go of it keeps the memory.
    running.set_faults(fault::GONE);
    let kept = again(&space);
    let kept_monitor = kept.pool.monitor();
    assert!(
        port.start_rx_queue(1, kept).is_err()
            && port.start_tx_queue(1, TxQueueConfig { descriptors: 64 }).is_err()
    );
    assert!(kept_monitor.stats().inflight() >= 64);

    running.set_faults(0);
    let used = again(&space);
    let used_monitor = used.pool.monitor();
    let queue = port.start_rx_queue(1, used).unwrap();
    let sender = port.start_tx_queue(1, TxQueueConfig { descriptors: 64 }).unwrap();
    for error in [port.stop_rx_queue(1), port.stop_tx_queue(1)] {
        assert!(error.as_ref().is_err_and(|error| error.to_string().contains("drop it before")), "{error:?}");
    }
    assert!(used_monitor.stats().inflight() >= 64, "it has its ring");
    drop((queue, sender));
    port.stop_rx_queue(1).unwrap();
    port.stop_tx_queue(1).unwrap();
    assert_eq!((used_monitor.stats().inflight(), kept_monitor.stats().inflight()), (0, 0));
    drop((rx, tx));
    port.stop().unwrap();
    running.assert_clean();
}

/// Where packets go that have no hash, or that a rule leads, is a queue that runs.
#[test]
fn queues_that_packets_are_led_to_do_not_stop() {
    let mut bench = Bench::new(false, |space, config| queues(space, config, 3));
    let data = Flow::new(false).udp(&payload(100));
    let says = |result: Result<(), Error>, expected: &str| {
        let error = result.expect_err(expected);
        assert!(matches!(error, Error::State { .. }) && error.to_string().contains(expected), "{error}");
    };
    let again = |space: &AddressSpace| RxQueueConfig::new(pool(space, 512), 64);
    bench.b.port.set_flows(&[FlowRule::new(FlowAction::Queue(2))]).unwrap();
    drop(bench.b.rx.split_off(1));
    says(bench.b.port.stop_rx_queue(2), "flow rules lead to the queue");
    bench.b.port.stop_rx_queue(1).unwrap();
    says(bench.b.port.set_flows(&[FlowRule::new(FlowAction::Queue(1))]), "a queue that is stopped");
    // The rule before is followed still, and nobody looks at its queue.
    let (dropped, missed) = ("rx_flow_dropped_packets", "rx_missed_packets");
    bench.b.port.set_flows(&[FlowRule::new(FlowAction::Drop)]).unwrap();
    let packets = bench.packets([&data]);
    send(&mut bench.a.tx[0], packets);
    eventually("a drop", || count(&mut bench.b.port, dropped) == 1);
    assert_eq!(count(&mut bench.b.port, missed), 0);
    bench.b.rx.clear();
    says(bench.b.port.stop_rx_queue(0), "stop the other queues before it");
    bench.b.port.stop_rx_queue(2).unwrap();
    bench.b.port.stop_rx_queue(0).unwrap();
    says(bench.b.port.start_rx_queue(2, again(&bench.space)).map(drop), "start it first");
    bench.b.port.set_flows(&[]).unwrap();
    for queue in 0..3 {
        let queue = bench.b.port.start_rx_queue(queue, again(&bench.space)).unwrap();
        bench.b.rx.push(queue);
    }
    assert_eq!(bytes(&pass_each(&mut bench, &data).1), data);
    bench.finish();
}

/// Writes no report before its time.
struct Slow {
    held: Vec<(Instant, u64, Vec<u8>)>,
    count: Arc<AtomicUsize>,
}

impl Liar for Slow {
    fn write(&mut self, what: Write, iova: &mut u64, data: &mut [u8]) -> bool {
        if what != Write::Report {
            return true;
        }
        self.held.push((Instant::now(), *iova, data.to_vec()));
        self.count.store(self.held.len(), Relaxed);
        false
    }

    fn polled(&mut self, _: &[Ring], host: &mut dyn Host) {
        for (_, iova, data) in
            self.held.extract_if(.., |(since, ..)| since.elapsed() > Duration::from_millis(3))
        {
            host.dma_write(iova, &data).expect("memory that the driver has not let go of");
        }
        self.count.store(self.held.len(), Relaxed);
    }
}

/// A transmit ring is let go of when the card has written back what it was to report, not when its head has come to the tail.
#[test]
fn a_transmit_queue_stops_after_its_reports() {
    let count = Arc::<AtomicUsize>::default();
    let mut bench = Bench::spoiled(
        false,
        |space, config| queues(space, config, 2),
        |card| card.liar = Box::new(Slow { held: Vec::new(), count: count.clone() }),
    );
    let data = Flow::new(false).udp(&payload(100));
    bench.a.running.lie(true);
    // Up to a report that is asked for by the way, and beyond.
    for packets in [1, 16, 20, 48] {
        let packets = bench.packets(&vec![data.clone(); packets]);
        let number = packets.len();
        send(&mut bench.a.tx[1], packets);
        receive(&mut bench.b.rx, number);
        drop(bench.a.tx.pop());
        bench.a.port.stop_tx_queue(1).unwrap();
        assert_eq!(count.load(Relaxed), 0, "{number} packets: reports that are still to come");
        bench.pool.trim();
        assert_eq!(bench.pool.stats().inflight(), 0);
        bench.a.tx.push(bench.a.port.start_tx_queue(1, TxQueueConfig { descriptors: 64 }).unwrap());
    }
    assert_eq!((bench.a.running.refused(), bench.a.running.logged("sending what is left")), (0, 0));
    bench.a.running.lie(false);
    bench.finish();
}
