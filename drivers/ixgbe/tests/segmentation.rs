//! What the card does to packets that are sent: segments, and checksums of every kind. Frames are compared byte by byte with those of
//! another implementation, descriptors and counters with what the card saw.

mod common;

use common::bench::{Bench, bytes, count};
use common::packets::{ETHERNET, Flow, UDP, ask, payload, segments, tcp_header, whole};
use pagewire_ethdev::{Packet, PacketFlags, Port, RxOffloads, TxOffloads, TxQueue, TxRefused};

fn bench() -> Bench {
    Bench::new(false, |_, config| {
        config.rx_offloads = RxOffloads::IP_CSUM | RxOffloads::L4_CSUM | RxOffloads::SCTP_CSUM;
        config.tx_offloads = TxOffloads::all();
    })
}

#[test]
fn packets_are_cut_into_segments_that_stand_alone() {
    for v6 in [false, true] {
        let mut bench = bench();
        let flow = Flow { id: 0xfffe, ..Flow::new(v6) };
        let (mut frames, mut sent_bytes, mut packets) = (0, 0, 0);
        for (len, mss) in
            [(6, 1440), (1440, 1440), (1446, 1440), (5000, 1000), (30_000, 1440), (60_000, 1400)]
        {
            let data = payload(len);
            let mut packet = bench.chain(&whole(flow, &data));
            ask(&mut packet, flow, mss);
            assert_eq!(bench.a.tx[0].check(&packet), Ok(()));
            let expected = segments(flow, &data, mss.into());
            let got = bench.pass(vec![packet], expected.len());
            for (number, (got, expected)) in got[0].iter().zip(&expected).enumerate() {
                assert_eq!(bytes(got), *expected, "IPv6 {v6}, {len} bytes by {mss}, segment {number}");
                let ip = if v6 { PacketFlags::empty() } else { PacketFlags::RX_IP_CSUM_GOOD };
                assert_eq!(got.flags(), ip | PacketFlags::RX_L4_CSUM_GOOD);
            }
            packets += 1;
            frames += expected.len() as u64;
            sent_bytes += expected.iter().map(|frame| frame.len() as u64).sum::<u64>();
        }
        let (a, b) = (bench.a.port.stats(), bench.b.port.stats());
        assert_eq!((a.tx_packets, a.tx_bytes, a.tx_errors), (frames, sent_bytes, 0));
        assert_eq!((b.rx_packets, b.rx_bytes, b.rx_errors), (frames, sent_bytes, 0));
        // And the cards say so too.
        assert_eq!(count(&mut bench.a.port, "tx_good_packets"), frames);
        assert_eq!(count(&mut bench.a.port, "tx_good_bytes"), sent_bytes + 4 * frames);
        assert_eq!(count(&mut bench.b.port, "rx_checksum_errors"), 0);
        // Another segment size is another context.
        assert_eq!((bench.a.running.control.contexts(), packets), (3, 6));
        bench.finish();
    }
}

#[test]
fn tags_go_into_every_segment() {
    let mut bench = bench();
    let flow = Flow::new(false);
    let data = payload(3000);
    let mut packet = bench.chain(&whole(flow, &data));
    ask(&mut packet, flow, 1460);
    packet.set_flags(packet.flags() | PacketFlags::TX_VLAN_INSERT);
    packet.set_vlan_tci(0x2123);
    let mut expected = segments(flow, &data, 1460);
    expected.iter_mut().for_each(|frame| drop(frame.splice(12..12, [0x81, 0, 0x21, 0x23])));
    let got: Vec<_> = bench.pass(vec![packet], expected.len())[0].iter().map(bytes).collect();
    assert_eq!(got, expected);
    bench.finish();
}

/// What a caller has to fill in where the CPU does not reach the headers' checksums: here because they are in the second segment. A packet
/// that is to be cut has none there.
#[test]
fn headers_in_several_segments_are_the_callers() {
    let mut bench = bench();
    let flow = Flow::new(false);
    let data = payload(1200);
    let right = flow.tcp(&tcp_header(5), &data);
    let mut blank = right.clone();
    // RFC 9293's pseudo-header.
    let sum = 0x0a00 + 1 + 0x0a00 + 2 + 6 + 1220u16;
    blank[flow.l4() + 16..flow.l4() + 18].copy_from_slice(&sum.to_be_bytes());
    blank[24..26].fill(0);
    for first in [14, 20, 34, 40, 53] {
        let mut packet = bench.packet(&blank, &[first, 500, blank.len() - first - 500]);
        packet.set_flags(PacketFlags::TX_IP_CSUM | PacketFlags::TX_TCP_CSUM);
        packet.set_header_lens(14, 20);
        assert_eq!(bytes(&bench.pass_one(packet)), right, "{first} bytes in the first segment");
    }
    let cut = whole(flow, &data);
    for (first, is) in [(14, false), (34, false), (53, false), (54, true), (55, true)] {
        let mut packet = bench.packet(&cut, &[first, cut.len() - first]);
        ask(&mut packet, flow, 600);
        match bench.a.tx[0].check(&packet) {
            Ok(()) => assert!(is, "{first} bytes in the first segment"),
            Err(error) => {
                assert!(!is && error.to_string().contains("all in its first segment"), "{error}");
                continue;
            }
        }
        let got: Vec<_> = bench.pass(vec![packet], 2)[0].iter().map(bytes).collect();
        assert_eq!(got, segments(flow, &data, 600));
    }
    bench.finish();
}

#[test]
fn checksums_of_every_protocol_are_filled_in_by_driver_and_card() {
    let mut bench = bench();
    for v6 in [false, true] {
        let flow = Flow::new(v6);
        let data = payload(301);
        for (right, flag, at, len) in [
            (flow.tcp(&tcp_header(5), &data), PacketFlags::TX_TCP_CSUM, 16, 2),
            (flow.udp(&data), PacketFlags::TX_UDP_CSUM, 6, 2),
            (flow.sctp(&data), PacketFlags::TX_SCTP_CSUM, 8, 4),
        ] {
            let mut blank = right.clone();
            blank[flow.l4() + at..][..len].fill(0xa5);
            let ip = match v6 {
                true => PacketFlags::empty(),
                false => {
                    blank[24..26].fill(0xa5);
                    PacketFlags::TX_IP_CSUM
                }
            };
            for lengths in [vec![right.len()], vec![100, right.len() - 100]] {
                let mut packet = bench.packet(&blank, &lengths);
                packet.set_flags(ip | flag);
                packet.set_header_lens(14, flow.l3() as u16);
                let got = bench.pass_one(packet);
                assert_eq!(bytes(&got), right, "IPv6 {v6}, {flag:?} in {lengths:?}");
                let ip = if v6 { PacketFlags::empty() } else { PacketFlags::RX_IP_CSUM_GOOD };
                assert_eq!(got.flags(), ip | PacketFlags::RX_L4_CSUM_GOOD);
            }
            // On the way in a wrong one is found out; of UDP the card is not to be believed.
            let mut wrong = right.clone();
            wrong[flow.l4() + at] ^= 1;
            let bad = if flag == PacketFlags::TX_UDP_CSUM {
                PacketFlags::empty()
            } else {
                PacketFlags::RX_L4_CSUM_BAD
            };
            let got = bench.pass_frame(&wrong).flags() - PacketFlags::RX_IP_CSUM_GOOD;
            assert_eq!(got, bad, "IPv6 {v6}, {flag:?}");
        }
    }
    bench.finish();
}

/// Short frames are padded, on receipt too: what a forwarder asks a checksum for may be longer than IP says.
#[test]
fn padding_is_no_part_of_a_checksum() {
    let mut bench = bench();
    for v6 in [false, true] {
        let flow = Flow::new(v6);
        for (mut right, flag, at) in [
            (flow.tcp(&tcp_header(5), &payload(1)), PacketFlags::TX_TCP_CSUM, 16),
            (flow.udp(&payload(3)), PacketFlags::TX_UDP_CSUM, 6),
            (flow.sctp(&payload(4)), PacketFlags::TX_SCTP_CSUM, 8),
        ] {
            let len = right.len();
            let mut blank = right.clone();
            blank[flow.l4() + at..][..2].fill(0xa5);
            // Not zeros, as padding should be.
            blank.resize(len.max(60) + 8, 0xee);
            // The card's own is.
            right.resize(len.max(60), 0);
            for lengths in [vec![blank.len()], vec![len - 1, blank.len() - len + 1]] {
                let before = bench.a.port.stats().tx_bytes;
                let mut packet = bench.packet(&blank, &lengths);
                packet.set_flags(flag);
                packet.set_header_lens(14, flow.l3() as u16);
                let got = bench.pass_one(packet);
                assert_eq!(bytes(&got), right, "IPv6 {v6}, {flag:?} in {lengths:?}");
                assert!(got.flags().contains(PacketFlags::RX_L4_CSUM_GOOD), "{:?}", got.flags());
                assert_eq!(bench.a.port.stats().tx_bytes - before, len as u64);
            }
            let mut packet = bench.packet(&blank, &[len, blank.len() - len]);
            packet.set_flags(flag);
            packet.set_header_lens(14, flow.l3() as u16);
            let check = bench.a.tx[0].check(&packet);
            assert_eq!(check.is_err(), flag == PacketFlags::TX_SCTP_CSUM, "{check:?}");
        }
    }
    bench.finish();
}

#[test]
fn what_is_in_a_tunnel_gets_its_checksums_and_the_tunnel_keeps_its_own() {
    let mut bench = bench();
    let outer = Flow { hosts: (8, 9), ..Flow::new(false) };
    let inner = Flow::new(false);
    let right = outer.vxlan(&inner.tcp(&tcp_header(5), &payload(200)));
    let before = outer.l4() + UDP + 8;
    let mut blank = right.clone();
    blank[before + 24..before + 26].fill(0xa5);
    blank[before + 50..before + 52].fill(0xa5);
    let mut packet = bench.packet(&blank, &[blank.len()]);
    packet.set_flags(PacketFlags::TX_IP_CSUM | PacketFlags::TX_TCP_CSUM);
    packet.set_header_lens((before + ETHERNET) as u16, 20);
    assert_eq!(bytes(&bench.pass_one(packet)), right);
    bench.finish();
}

/// Two contexts are kept by the card: two kinds of packets in turn write each once, a third makes room of the older.
#[test]
fn contexts_are_written_when_they_change() {
    let mut bench = bench();
    let mut written = 0;
    let (four, six) = (Flow::new(false), Flow::new(true));
    let kinds = [
        (four, PacketFlags::TX_TCP_CSUM),
        (six, PacketFlags::TX_TCP_CSUM),
        (four, PacketFlags::TX_SCTP_CSUM),
    ];
    for (order, contexts) in [
        (&[0, 0, 0, 0][..], 1),
        (&[1, 0, 1, 0, 0, 1, 1], 1),
        // 0 was used last but one: it makes room, and then 1 does.
        (&[2, 1, 2], 1),
        (&[0, 2, 0, 2], 1),
        (&[1, 2, 0], 2),
    ] {
        for &kind in order {
            let (flow, flag) = kinds[kind];
            let right = match kind {
                2 => flow.sctp(&payload(64)),
                _ => flow.tcp(&tcp_header(1), &payload(64)),
            };
            let mut packet = bench.packet(&right, &[right.len()]);
            packet.set_flags(flag);
            packet.set_header_lens(14, flow.l3() as u16);
            assert_eq!(bytes(&bench.pass_one(packet)), right, "{order:?}");
            // A packet that asks for nothing between them changes nothing.
            bench.pass_frame(&right);
        }
        written += contexts;
        assert_eq!(bench.a.running.control.contexts(), written, "{order:?}");
    }
    bench.finish();
}

#[test]
fn what_cannot_be_sent_is_refused_with_the_reason_and_counted() {
    let mut bench = bench();
    let flow = Flow::new(false);
    let data = whole(flow, &payload(3000));
    type Spoil = fn(&mut Packet);
    let cases: [(Spoil, &str); 10] = [
        (|p| p.set_segmentation(20, 0), "3000 bytes of payload in segments of 0; 1 to 262143 can be cut"),
        (|p| p.set_segmentation(20, 1465), "a frame of it has 1519 bytes"),
        (|p| p.set_segmentation(16, 1000), "no length of a TCP header"),
        (|p| p.set_segmentation(22, 1000), "no length of a TCP header"),
        (|p| p.set_header_lens(14, 40), "layer 3 is neither"),
        (|p| p.set_header_lens(15, 20), "layer 3 is neither"),
        (|p| p.set_header_lens(128, 20), "layer 3 is neither"),
        (|p| p.set_header_lens(14, 3030), "too short, or longer than the packet"),
        (|p| (p.set_header_lens(14, 600), p.set_segmentation(20, 100)).0, "longer than the card can be told"),
        (|p| p.set_flags(PacketFlags::TX_TSO | PacketFlags::TX_UDP_CSUM), "more than one layer-4 checksum"),
    ];
    let mut errors = 0;
    for (spoil, expected) in cases {
        let mut packet = bench.chain(&data);
        ask(&mut packet, flow, 1000);
        if expected.contains("layer 3 is neither") {
            // A byte that is no version, wherever it looks.
            packet.as_mut_slice().unwrap()[14] = 0x15;
        }
        spoil(&mut packet);
        let error = bench.a.tx[0].check(&packet).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}, not {expected}");
        common::bench::send(&mut bench.a.tx[0], vec![packet]);
        errors += 1;
        assert_eq!(bench.a.port.stats().tx_errors, errors);
    }
    let lengths = [&[60][..], &[50; 36], &[45; 2]].concat();
    let mut long = bench.packet(&vec![0x45; 39 * 50], &lengths);
    assert_eq!(bench.a.tx[0].check(&long), Err(TxRefused::TooLong { len: 1950, most: 1518 }));
    ask(&mut long, flow, 1000);
    assert_eq!(bench.a.tx[0].check(&long), Err(TxRefused::Descriptors { descriptors: 40, most: 38 }));
    drop(long);
    // The queue goes on.
    let plain = flow.udp(&payload(64));
    assert_eq!(bytes(&bench.pass_frame(&plain)), plain);
    bench.finish();

    let mut bench = Bench::new(false, |_, config| config.tx_offloads = TxOffloads::TCP_CSUM);
    for (flags, missing) in [
        (PacketFlags::TX_TSO, TxOffloads::TSO),
        (PacketFlags::TX_SCTP_CSUM | PacketFlags::TX_TCP_CSUM, TxOffloads::SCTP_CSUM),
    ] {
        let mut packet = bench.packet(&plain, &[plain.len()]);
        packet.set_flags(flags);
        assert_eq!(bench.a.tx[0].check(&packet), Err(TxRefused::Offload(missing)));
    }
    bench.finish();
}
