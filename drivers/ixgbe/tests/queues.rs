//! Several queues: how RSS spreads flows over them, and single ones stopped and started while others run.

mod common;

use common::bench::{Bench, bytes, count, receive, send};
use common::packets::{Flow, payload, tcp_header};
use common::{config, eventually, pool, serve};
use pagewire_ethdev::{
    Error, Packet, PacketFlags, Port, PortConfig, RssConfig, RssTypes, RxOffloads, RxQueue, RxQueueConfig,
    TxQueue, TxQueueConfig,
};
use pagewire_pci::AddressSpace;

fn queues(space: &AddressSpace, config: &mut PortConfig, count: usize) {
    for _ in 1..count {
        config.rx.push(RxQueueConfig::new(pool(space, 512), 64));
        config.tx.push(TxQueueConfig { descriptors: 64 });
    }
}

/// The hash as Microsoft describes it: for each bit of the input that is set, 32 bits of the key from there on.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| u32::from(bytes[at / 8]) >> (7 - at % 8) & 1;
    let window = |at: usize| (at..at + 32).fold(0, |word, at| word << 1 | bit(key, at));
    (0..input.len() * 8).filter(|at| bit(input, *at) == 1).fold(0, |hash, at| hash ^ window(at))
}

/// The key of Microsoft's "Verifying the RSS Hash Calculation".
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

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
    running.set_faults(common::fault::QUEUE_1_NEVER_STOPS);
    let error = port.stop_rx_queue(1).unwrap_err().to_string();
    assert!(error.contains("stopping a receive queue did not end"), "{error}");
    assert!(monitor.stats().inflight() >= 64);
    running.set_faults(0);
    port.stop_rx_queue(1).unwrap();
    assert_eq!(monitor.stats().inflight(), 0);
    drop((rx, tx));
    port.stop().unwrap();
    running.assert_clean();
}
