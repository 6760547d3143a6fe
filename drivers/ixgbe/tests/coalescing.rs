//! TCP segments that the card puts together.

mod common;

use std::time::{Duration, Instant};

use common::bench::{Bench, bytes, count, receive, send};
use common::liar::Record;
use common::packets::{ETHERNET, Flow, ask, payload, segments, tcp_header, whole};
use common::{config, eventually, headers, pool, serve};
use etherparse::TcpHeader;
use pagewire_ethdev::{
    Burst, Error, Packet, PacketFlags, Port, PortConfig, RssConfig, RxOffloads, RxQueue, RxQueueConfig,
    TxOffloads, TxQueueConfig,
};
use pagewire_pci::AddressSpace;

fn coalesce(space: &AddressSpace, config: &mut PortConfig) {
    config.rx[0].pool = pool(space, 1024);
    config.rx_offloads = RxOffloads::LRO | RxOffloads::IP_CSUM | RxOffloads::L4_CSUM;
    config.tx_offloads = TxOffloads::all();
}

/// A packet as it was received, but for the TCP checksum, which the card leaves as it was.
fn without_sum(flow: Flow, mut packet: Vec<u8>) -> Vec<u8> {
    packet[flow.l4() + 16..flow.l4() + 18].fill(0);
    packet
}

/// The payload of a received packet, after its headers have been compared with those that a packet of so much has.
fn checked(flow: Flow, header: &TcpHeader, packet: &Packet) -> Vec<u8> {
    let got = bytes(packet);
    let data = got[flow.l4() + 20..].to_vec();
    let expected = flow.tcp(header, &data);
    assert_eq!(without_sum(flow, got), without_sum(flow, expected), "{packet:?}");
    data
}

#[test]
fn segments_in_order_become_packets_of_many() {
    for (mapped, v6) in [(false, false), (false, true), (true, false)] {
        let mut bench = Bench::new(mapped, coalesce);
        let flow = Flow::new(v6);
        let (mut frames, mut packets) = (0, 0);
        for (len, mss) in [(3000, 1400), (14_000, 1400), (14_336, 512), (60_000, 1400)] {
            let data = payload(len);
            let mut packet = bench.chain(&whole(flow, &data));
            ask(&mut packet, flow, mss as u16);
            send(&mut bench.a.tx[0], vec![packet]);
            let first = TcpHeader::from_slice(&segments(flow, &data, mss)[0][flow.l4()..]).unwrap().0;
            let mut got: Vec<u8> = Vec::new();
            let mut came = Vec::new().into_iter();
            while got.len() < len {
                let Some(packet) = came.next() else {
                    came = receive(&mut bench.b.rx, 1).remove(0).into_iter();
                    continue;
                };
                let alone = packet.len() <= flow.l4() + 20 + mss;
                assert!(packet.flags().contains(PacketFlags::RX_L4_CSUM_GOOD));
                assert!(alone || packet.flags().contains(PacketFlags::RX_LRO), "{packet:?}");
                // Buffers of a KiB, 16 of them.
                assert!(packet.len() <= 16 << 10 && packet.segment_count() <= 16, "{packet:?}");
                let last = got.len() + packet.len() - flow.l4() - 20 == len;
                let header = TcpHeader {
                    sequence_number: first.sequence_number.wrapping_add(got.len() as u32),
                    psh: last,
                    fin: last,
                    ..first.clone()
                };
                // TSO counts the identification up by segments.
                let id = flow.id.wrapping_add((got.len() / mss) as u16);
                got.extend(checked(Flow { id, ..flow }, &header, &packet));
                packets += 1;
            }
            assert_eq!(got, data);
            frames += len.div_ceil(mss) as u64;
        }
        let stats = bench.b.port.stats();
        assert_eq!((stats.rx_packets, stats.rx_errors, stats.rx_missed), (packets, 0, 0));
        assert_eq!(count(&mut bench.b.port, "rx_good_packets"), frames);
        println!("mapped {mapped}, IPv6 {v6}: {frames} segments in {packets} packets");
        assert!(packets * 3 < frames, "{frames} segments in {packets} packets");
        bench.finish();
    }
}

/// Segments of two flows in turn: their packets' descriptors lie between each other. And what is no TCP between them.
#[test]
fn flows_are_kept_apart() {
    let mut bench = Bench::new(false, coalesce);
    let flows = [Flow::new(false), Flow { ports: (7, 8), ..Flow::new(true) }];
    let other = Flow::new(false).udp(&payload(100));
    let data = payload(8 * 1200);
    for round in 0..30 {
        let mut frames = Vec::new();
        for number in 0..8 {
            for flow in flows {
                let header = TcpHeader { psh: number == 7, ..tcp_header(1000 + number * 1200) };
                frames.push(flow.tcp(&header, &data[number as usize * 1200..][..1200]));
            }
            if number == 4 {
                frames.push(other.clone());
            }
        }
        let packets = bench.packets(&frames);
        send(&mut bench.a.tx[0], packets);
        let mut got = [Vec::new(), Vec::new()];
        let (mut count, mut others) = (0, 0);
        let mut burst = Burst::new(32);
        eventually("all of it", || {
            bench.b.rx[0].rx_burst(&mut burst);
            for packet in burst.drain() {
                count += 1;
                match packet.as_slice().unwrap()[ETHERNET + 9] {
                    17 if packet.as_slice().unwrap()[12] == 8 => {
                        assert_eq!(bytes(&packet), other);
                        others += 1;
                    }
                    _ => {
                        let number = usize::from(packet.as_slice().unwrap()[12] == 0x86);
                        let part = &mut got[number];
                        let psh = part.len() + packet.len() - flows[number].l4() - 20 == data.len();
                        let header = TcpHeader { psh, ..tcp_header(1000 + part.len() as u32) };
                        let all = checked(flows[number], &header, &packet);
                        part.extend(all);
                    }
                }
            }
            others == 1 && got.iter().all(|part| part.len() == data.len())
        });
        assert!(got.iter().all(|part| *part == data), "round {round}");
        assert!(count <= 11, "{count} packets of 17 frames");
    }
    assert_eq!(bench.b.port.stats().rx_errors, 0);
    bench.finish();
}

#[test]
fn what_does_not_belong_together_stays_apart() {
    let mut bench = Bench::new(false, coalesce);
    let flow = Flow::new(false);
    let data = payload(300);
    let at = |number: u32| tcp_header(1000 + number * 300);
    let plain = |number: u32| flow.tcp(&at(number), &data);
    for (what, frames) in [
        ("out of order", vec![plain(1), plain(0), plain(2)]),
        ("once more", vec![plain(0), plain(0)]),
        ("a gap", vec![plain(0), plain(2)]),
        ("no data", vec![plain(0), flow.tcp(&at(1), &[]), flow.tcp(&at(1), &data)]),
        ("RST", vec![plain(0), flow.tcp(&TcpHeader { rst: true, ..at(1) }, &data)]),
        ("URG", vec![plain(0), flow.tcp(&TcpHeader { urg: true, ..at(1) }, &data)]),
        ("CWR", vec![plain(0), flow.tcp(&TcpHeader { cwr: true, ..at(1) }, &data)]),
        ("another port", vec![plain(0), Flow { ports: (1, 2), ..flow }.tcp(&at(1), &data)]),
        ("another host", vec![plain(0), Flow { hosts: (1, 3), ..flow }.tcp(&at(1), &data)]),
        ("UDP", vec![flow.udp(&data), flow.udp(&data)]),
        ("a wrong checksum", {
            let mut wrong = plain(1);
            wrong[60] ^= 1;
            vec![plain(0), wrong]
        }),
    ] {
        // Padded on the wire.
        let padded: Vec<Vec<u8>> = frames
            .iter()
            .map(|frame| [&frame[..], &vec![0; 60usize.saturating_sub(frame.len())]].concat())
            .collect();
        let packets = bench.packets(&frames);
        let got = bench.pass(packets, frames.len()).remove(0);
        let mut got: Vec<_> = got.iter().map(bytes).collect();
        // Of different flows one may overtake the other's waiting segment.
        let mut expected = padded;
        if what.starts_with("another") {
            got.sort();
            expected.sort();
        }
        assert_eq!(got, expected, "{what}");
    }
    bench.finish();
}

#[test]
fn nothing_is_coalesced_unless_asked_for() {
    let mut bench = Bench::new(false, |_, config| config.rx_offloads = RxOffloads::L4_CSUM);
    let flow = Flow::new(false);
    let frames: Vec<_> = (0..4).map(|number| flow.tcp(&tcp_header(number * 500), &payload(500))).collect();
    let packets = bench.packets(&frames);
    let got = bench.pass(packets, 4).remove(0);
    assert!(got.iter().zip(&frames).all(|(packet, frame)| bytes(packet) == *frame));
    assert!(got.iter().all(|packet| !packet.flags().contains(PacketFlags::RX_LRO)));
    drop(got);
    bench.finish();
}

#[test]
fn what_coalescing_cannot_have_is_refused() {
    let running = serve(false, |_| ());
    let (space, mut port) = running.open().unwrap();
    let mut with_split = config(&space);
    with_split.rx[0].headers = Some(headers(&space, 256, 64));
    with_split.rx_offloads = RxOffloads::LRO | RxOffloads::HEADER_SPLIT;
    let mut with_few = config(&space);
    with_few.rx_offloads = RxOffloads::LRO;
    with_few.tx = vec![TxQueueConfig { descriptors: 64 }];
    // 64 in the ring, 16 in each of the 32 packets that may be open and of one that is not coalesced, and one more.
    for (asked, expected) in [
        (with_split, "LRO with header split is not possible"),
        (with_few, "512 fragments for it, where 593 are needed"),
    ] {
        let error = port.start(asked).err().expect(expected);
        assert!(
            matches!(error, Error::Unsupported { .. }) && error.to_string().contains(expected),
            "{error}"
        );
    }
    running.assert_clean();
}

/// What has begun to be coalesced ends before the queue stops: the card begins no other, and is given two intervals of 25 units of 2,048
/// ns (4.6.7.2).
#[test]
fn packets_end_before_their_queue_stops() {
    for mapped in [false, true] {
        let record = Record::default();
        let mut bench = Bench::spoiled(
            mapped,
            |space, config| {
                coalesce(space, config);
                config.rx.push(RxQueueConfig::new(pool(space, 1024), 64));
                config.rss = RssConfig { table: Some(vec![1; 128]), ..RssConfig::default() };
            },
            |card| card.liar = Box::new(record.clone()),
        );
        bench.b.running.lie(true);
        let flow = Flow::new(false);
        for round in 0..20 {
            let frames: Vec<_> =
                (0..3).map(|number| flow.tcp(&tcp_header(number * 500), &payload(500))).collect();
            let packets = bench.packets(&frames);
            send(&mut bench.a.tx[0], packets);
            let sent = 3 * (round + 1);
            eventually("the frames", || count(&mut bench.b.port, "rx_good_packets") == sent);
            drop(bench.b.rx.pop());
            record.take();
            bench.b.port.stop_rx_queue(1).unwrap();
            if !mapped {
                let written = record.take();
                let when = |register, bit: u32| {
                    let is =
                        |(offset, value, _): &&(u64, u32, Instant)| *offset == register && value & bit == 0;
                    written.iter().find(is).expect("a bit that is cleared").2
                };
                let (coalescing, enabled) = (when(0x106c, 1), when(0x1068, 1 << 25));
                assert!(enabled - coalescing >= Duration::from_nanos(2 * 25 * 2048));
            }
            let again = RxQueueConfig::new(pool(&bench.space, 1024), 64);
            bench.b.rx.push(bench.b.port.start_rx_queue(1, again).unwrap());
        }
        // The card complains of what is stopped too early.
        bench.finish();
    }
}
