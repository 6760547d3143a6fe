//! What the card finds out about frames that come in, where it puts their parts, and which VLANs it lets in.

mod common;

use common::bench::{Bench, assert_nothing, bytes, count, frame, receive, send};
use common::packets::{ETHERNET, Flow, UDP, payload, tcp_header};
use common::{config, eventually, headers, pool, serve};
use pagewire_ethdev::{
    Burst, Error, Packet, PacketFlags, PacketType, Port, PortConfig, RxOffloads, RxQueue, RxQueueConfig,
    TxOffloads,
};
use pagewire_pci::AddressSpace;

#[test]
fn the_headers_that_were_found_are_told() {
    let mut bench = Bench::new(false, |_, config| config.rx_offloads = RxOffloads::PACKET_TYPE);
    let data = payload(64);
    for (v6, ip) in [(false, PacketType::IPV4), (true, PacketType::IPV6)] {
        let flow = Flow::new(v6);
        for (packet, kind) in [
            (flow.tcp(&tcp_header(1), &data), ip | PacketType::TCP),
            (flow.udp(&data), ip | PacketType::UDP),
            (flow.sctp(&data), ip | PacketType::SCTP),
        ] {
            let got = bench.pass_frame(&packet);
            assert_eq!((got.flags(), got.packet_type()), (PacketFlags::RX_PACKET_TYPE, Some(kind)));
        }
    }
    let mut options = Flow::new(false).udp(&data);
    // One word of padding options, and what counts the header.
    options.splice(34..34, [1, 1, 1, 0]);
    options[14] = 0x46;
    options[17] += 4;
    let fragment = Flow::new(false).fragment(&data);
    let other = frame(bench.b.port.info().mac, 80);
    for (packet, kind) in [
        (options, PacketType::IPV4 | PacketType::IPV4_OPTIONS | PacketType::UDP),
        (fragment, PacketType::IPV4),
        (other, PacketType::empty()),
    ] {
        assert_eq!(bench.pass_frame(&packet).packet_type(), Some(kind));
    }
    bench.finish();
    // Nobody asks, nobody is told.
    let mut bench = Bench::new(false, |_, config| config.rx_offloads = RxOffloads::IP_CSUM);
    assert_eq!(bench.pass_frame(&Flow::new(false).udp(&data)).packet_type(), None);
    bench.finish();
}

fn split(space: &AddressSpace, config: &mut PortConfig) {
    config.rx_offloads |= RxOffloads::HEADER_SPLIT | RxOffloads::PACKET_TYPE | RxOffloads::L4_CSUM;
    config.rx[0].headers = Some(headers(space, 256, 64));
}

/// Where a packet is split: after TCP's or UDP's header, else after IP's.
fn kinds() -> Vec<(Vec<u8>, usize)> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        let flow = Flow::new(v6);
        for len in [0, 1, 100, 1400] {
            let data = payload(len);
            all.push((flow.tcp(&tcp_header(1), &data), flow.l4() + 20));
            all.push((flow.udp(&data), flow.l4() + UDP));
            all.push((flow.sctp(&data), flow.l4()));
        }
    }
    all
}

fn assert_split(packet: &Packet, data: &[u8], at: usize) {
    assert_eq!(bytes(packet), data);
    let lengths: Vec<usize> = packet.segments().map(|segment| segment.data_len().into()).collect();
    assert!(packet.flags().contains(PacketFlags::RX_HEADER_SPLIT | PacketFlags::RX_PACKET_TYPE));
    assert_eq!((lengths[0], lengths.iter().sum::<usize>()), (at, data.len()));
    // A packet that is no more than its headers has no other segment.
    assert_eq!(lengths.len() > 1, data.len() > at, "{lengths:?}");
}

#[test]
fn headers_come_into_fragments_of_their_own() {
    for mapped in [false, true] {
        let mut bench = Bench::new(mapped, split);
        let monitor = |bench: &mut Bench| bench.b.rx[0].pool().monitor();
        let data_pool = monitor(&mut bench);
        // Many times around the ring.
        for _ in 0..8 {
            for (data, at) in kinds() {
                // Short ones are padded on the wire, and what is padding is data.
                let mut padded = data.clone();
                padded.resize(data.len().max(60), 0);
                let got = bench.pass_frame(&data);
                assert_split(&got, &padded, at);
                assert_eq!(got.flags() & PacketFlags::RX_L4_CSUM_BAD, PacketFlags::empty());
            }
            // What is no IP is not split.
            let other = frame(bench.b.port.info().mac, 200);
            let got = bench.pass_frame(&other);
            assert_eq!((bytes(&got), got.segment_count()), (other, 1));
            assert!(!got.flags().contains(PacketFlags::RX_HEADER_SPLIT));
        }
        let (a, b) = (bench.a.port.stats(), bench.b.port.stats());
        assert_eq!((b.rx_packets, b.rx_errors), (a.tx_packets, 0));
        assert_eq!(count(&mut bench.b.port, "rx_good_packets"), a.tx_packets);
        // Two fragments a descriptor.
        assert_eq!(bench.b.rx[0].posted(), 128);
        bench.b.rx[0].pool().trim();
        assert_eq!(data_pool.stats().inflight(), 64);
        bench.finish();
    }
}

#[test]
fn headers_that_are_too_long_stay_with_their_data() {
    let mut bench = Bench::new(false, |space, config| {
        split(space, config);
        // 128 bytes for headers.
        config.rx[0].headers = Some(headers(space, 256, 384));
    });
    let inner = Flow::new(true);
    // IPv6 with 80 bytes of destination options before UDP: 142 bytes of headers.
    let mut long = inner.udp(&payload(300));
    let mut options = vec![17, 9];
    options.extend([1, 76]);
    options.resize(80, 0);
    long.splice(inner.l4()..inner.l4(), options);
    long[ETHERNET + 6] = 60;
    let length = (long.len() - ETHERNET - 40) as u16;
    long[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
    let got = bench.pass_frame(&long);
    assert_eq!((bytes(&got), got.segment_count()), (long, 1));
    let (data, at) = &kinds()[6];
    assert_split(&bench.pass_frame(data), data, *at);
    drop(got);
    bench.finish();
}

/// Jumbo frames: the header, and as many fragments as the rest takes.
#[test]
fn headers_of_jumbo_frames_come_off_too() {
    let mut bench = Bench::new(false, |space, config| {
        split(space, config);
        config.mtu = 9000;
        config.rx_offloads |= RxOffloads::SCATTER;
        config.tx_offloads = TxOffloads::MULTI_SEGS;
    });
    let flow = Flow::new(false);
    for len in [960, 1024, 2000, 5000, 8900] {
        let data = flow.udp(&payload(len));
        let packet = bench.chain(&data);
        assert_split(&bench.pass_one(packet), &data, flow.l4() + UDP);
    }
    bench.finish();
}

/// Whoever holds packets until the queue finds one pool or the other empty makes the next wait for a fragment; none is lost.
#[test]
fn packets_wait_while_either_pool_is_empty() {
    // Fragments besides those of the ring.
    for (spare_data, spare_headers) in [(12, 8), (6, 8)] {
        let least = spare_data.min(spare_headers);
        let mut bench = Bench::new(false, |space, config| {
            split(space, config);
            config.rx[0].pool = pool(space, 64 + spare_data);
            config.rx[0].headers = Some(headers(space, 64 + spare_headers, 64));
        });
        let (data, at) = kinds().swap_remove(6);
        let mut held: Vec<Packet> = Vec::new();
        let (mut got, mut waits) = (0, 0);
        for round in 1..=30 {
            let packets = bench.packets(&vec![data.clone(); 5]);
            send(&mut bench.a.tx[0], packets);
            let mut burst = Burst::new(4);
            eventually("all packets", || {
                bench.b.rx[0].rx_burst(&mut burst);
                for packet in burst.drain() {
                    assert_split(&packet, &data, at);
                    got += 1;
                    held.push(packet);
                }
                let nombuf = bench.b.port.rx_queue_stats()[0].nombuf;
                if nombuf > waits {
                    // Not before both pools' lesser has been used up, however the packets trickle in.
                    assert_eq!(held.len(), least);
                    waits = nombuf;
                    held.clear();
                }
                got == 5 * round
            });
        }
        assert_eq!((waits as usize, held.len()), (149 / least, 150 - 149 / least * least));
        assert_eq!((bench.b.port.stats().rx_errors, bench.b.port.stats().rx_missed), (0, 0));
        drop(held);
        bench.finish();
    }
}

/// The datasheet advises against it: a port says so at each start, once for all queues.
#[test]
fn header_split_warns_once_a_start() {
    let running = serve(false, |_| ());
    let (space, mut port) = running.open().unwrap();
    let said = || {
        running.logged("header split is on, against which the 82599's datasheet advises in section 7.1.10")
    };
    for starts in 1..3 {
        let mut asked = config(&space);
        for _ in 0..3 {
            asked.rx.push(RxQueueConfig::new(pool(&space, 256), 64));
        }
        asked.rx_offloads = RxOffloads::HEADER_SPLIT;
        asked.rx.iter_mut().for_each(|queue| queue.headers = Some(headers(&space, 256, 64)));
        drop(port.start(asked).unwrap());
        assert_eq!(said(), starts);
        port.stop().unwrap();
    }
    drop(port.start(config(&space)).unwrap());
    assert_eq!(said(), 2);
}

#[test]
fn header_split_that_is_asked_for_by_halves_is_refused() {
    let running = serve(false, |_| ());
    let (space, mut port) = running.open().unwrap();
    let error = |port: &mut pagewire_ixgbe::Ixgbe, change: &dyn Fn(&mut PortConfig)| {
        let mut asked = config(&space);
        change(&mut asked);
        let error = port.start(asked).err().expect("a start that fails");
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        error.to_string()
    };
    let only_pool = error(&mut port, &|config| config.rx[0].headers = Some(headers(&space, 256, 64)));
    assert!(only_pool.contains("header pool is not possible; the port has either both"), "{only_pool}");
    let only_flag = error(&mut port, &|config| config.rx_offloads = RxOffloads::HEADER_SPLIT);
    assert!(only_flag.contains("header split is not possible"), "{only_flag}");
    for (fragments, headroom, expected) in [
        (256, 448, "header buffer of 512 bytes after a headroom of 448"),
        (256, 63, "at even addresses"),
        (32, 64, "a pool (\"headers\") of 32 fragments"),
    ] {
        let found = error(&mut port, &|config| {
            split(&space, config);
            config.rx[0].headers = Some(headers(&space, fragments, headroom));
        });
        assert!(found.contains(expected), "{found}");
    }
    let other = common::space();
    let found = error(&mut port, &|config| {
        split(&space, config);
        config.rx[0].headers = Some(headers(&other, 256, 64));
    });
    assert!(found.contains("made in another address space"), "{found}");
    running.assert_clean();
}

#[test]
fn vlans_come_in_as_asked_for() {
    let mut bench = Bench::new(false, |_, config| config.tx_offloads = TxOffloads::VLAN_INSERT);
    let plain = frame(bench.b.port.info().mac, 100);
    let comes = |bench: &mut Bench, tci: Option<u16>, comes: bool| {
        let mut packet = bench.packet(&plain, &[plain.len()]);
        if let Some(tci) = tci {
            packet.set_vlan_tci(tci);
            packet.set_flags(PacketFlags::TX_VLAN_INSERT);
        }
        let before = count(&mut bench.b.port, "rx_good_packets");
        send(&mut bench.a.tx[0], vec![packet]);
        match comes {
            true => drop(receive(&mut bench.b.rx, 1)),
            false => assert_nothing(&mut bench.b.rx[0]),
        }
        let after = count(&mut bench.b.port, "rx_good_packets");
        assert_eq!(after - before, u64::from(comes), "{tci:?}");
    };
    let all = [None, Some(0x2000), Some(0x0001), Some(0x6123), Some(0x0fff), Some(0x0ffe)];
    for tci in all {
        comes(&mut bench, tci, true);
    }
    bench.b.port.set_vlan_filter(Some(&[0x123, 0xffe])).unwrap();
    for (tci, is) in all.into_iter().zip([true, false, false, true, false, true]) {
        comes(&mut bench, tci, is);
    }
    // Priority tags are VLAN 0. A start brings the filter back.
    bench.b.port.set_vlan_filter(Some(&[0])).unwrap();
    bench.b.rx.clear();
    bench.b.tx.clear();
    bench.b.port.stop().unwrap();
    (bench.b.rx, bench.b.tx) = bench.b.port.start(config(&bench.space)).unwrap();
    eventually("the link", || bench.b.port.link().is_up());
    for (tci, is) in all.into_iter().zip([true, true, false, false, false, false]) {
        comes(&mut bench, tci, is);
    }
    bench.b.port.set_vlan_filter(Some(&[])).unwrap();
    comes(&mut bench, Some(0), false);
    bench.b.port.set_vlan_filter(None).unwrap();
    comes(&mut bench, Some(0x123), true);
    let error = bench.b.port.set_vlan_filter(Some(&[4095])).unwrap_err().to_string();
    assert!(error.contains("VLAN 4095 is not possible; the port has VLANs 0 to 4094"), "{error}");
    bench.finish();
}
