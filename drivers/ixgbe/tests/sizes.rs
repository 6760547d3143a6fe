//! Everything at once, at every size: segmentation, checksums, tags and chains on the way out; RSS, header split, tags and checksums on
//! the way in; rings from the smallest to the largest, bursts from 1 to 256, and pools in which there is hardly more than a ring holds.

mod common;

use common::bench::{Bench, bytes, count};
use common::packets::{ETHERNET, Flow, ask, payload, segments, tcp_header, whole};
use common::{eventually, headers, pool};
use pagewire_ethdev::nic::testing::Random;
use pagewire_ethdev::{
    Burst, Packet, PacketFlags, Port, RxOffloads, RxQueue, RxQueueConfig, TxOffloads, TxQueue, TxQueueConfig,
};
use pagewire_pci::AddressSpace;

const QUEUES: usize = 4;
/// Frames under way at most: as many as the smallest ring takes whatever was not refilled yet.
const UNDER_WAY: usize = 40;
/// Tags, where there are any.
const TCI: u16 = 0x2123;

fn rx_queue(space: &AddressSpace, ring: u32, spare: usize) -> RxQueueConfig {
    let fragments = ring as usize + spare;
    RxQueueConfig {
        headers: Some(headers(space, fragments, 64)),
        ..RxQueueConfig::new(pool(space, fragments), ring)
    }
}

/// A packet that asks for something, and the frames that it makes.
fn request(bench: &mut Bench, random: &mut Random) -> (Packet, Vec<Vec<u8>>) {
    let flow = Flow {
        ports: (random.below(60_000) as u16, 53),
        hosts: (random.below(200) as u8, 201),
        id: random.below(0xffff) as u16,
        v6: random.below(2) == 0,
    };
    // Not so little that it is padded.
    let data = payload(20 + random.below(1300) as usize);
    let (l3, l4) = (flow.l3() as u16, flow.l4());
    let (mut packet, frames) = match random.below(4) {
        0 => {
            let mss = 600 + random.below(800) as usize;
            let data = payload(random.below(8) as usize * mss + 20 + random.below(mss as u64 - 20) as usize);
            let mut packet = bench.chain(&whole(flow, &data));
            ask(&mut packet, flow, mss as u16);
            (packet, segments(flow, &data, mss))
        }
        kind => {
            let (right, flag, at, len) = match kind {
                1 => (flow.tcp(&tcp_header(5), &data), PacketFlags::TX_TCP_CSUM, 16, 2),
                2 => (flow.udp(&data), PacketFlags::TX_UDP_CSUM, 6, 2),
                _ => (flow.sctp(&data), PacketFlags::TX_SCTP_CSUM, 8, 4),
            };
            let mut blank = right.clone();
            blank[l4 + at..][..len].fill(0xa5);
            let ip = if flow.v6 { PacketFlags::empty() } else { PacketFlags::TX_IP_CSUM };
            let cut = l4 + 12 + random.below((right.len() - l4 - 20) as u64) as usize;
            // The checksum is in the first segment, or not for long.
            let cut = cut.max(l4 + 20).min(right.len() - 1);
            let lengths = if random.below(2) == 0 { vec![right.len()] } else { vec![cut, right.len() - cut] };
            let mut packet = bench.packet(&blank, &lengths);
            packet.set_flags(ip | flag);
            packet.set_header_lens(ETHERNET as u16, l3);
            (packet, vec![right])
        }
    };
    if random.below(3) == 0 {
        packet.set_flags(packet.flags() | PacketFlags::TX_VLAN_INSERT);
        packet.set_vlan_tci(TCI);
    }
    (packet, frames)
}

#[test]
fn every_feature_at_once() {
    let mut random = Random::new();
    for (ring, burst, spare) in
        [(64, 1, 8), (64, 256, 8), (128, 3, 12), (512, 32, 256), (4096, 1, 8), (4096, 256, 64)]
    {
        let mut bench = Bench::new(false, |space, config| {
            config.rx = (0..QUEUES).map(|_| rx_queue(space, ring, spare)).collect();
            config.tx = vec![TxQueueConfig { descriptors: ring }; QUEUES];
            let rx = RxOffloads::HEADER_SPLIT | RxOffloads::VLAN_STRIP | RxOffloads::PACKET_TYPE;
            config.rx_offloads = rx | RxOffloads::IP_CSUM | RxOffloads::L4_CSUM | RxOffloads::SCTP_CSUM;
            config.tx_offloads = TxOffloads::all();
        });
        let (mut sent, mut held) = (0, Vec::new());
        for round in 0..40 {
            let (mut packets, mut expected) = (Vec::new(), Vec::new());
            while expected.len() < UNDER_WAY - 16 && packets.len() < burst {
                let (packet, frames) = request(&mut bench, &mut random);
                packets.push(packet);
                expected.extend(frames);
            }
            let from = random.below(QUEUES as u64) as usize;
            let mut out = Burst::new(burst);
            packets.into_iter().for_each(|packet| out.push(packet).expect("no more than a burst"));
            let mut got = Vec::new();
            eventually("all frames", || {
                bench.a.tx[from].tx_burst(&mut out);
                for queue in &mut bench.b.rx {
                    let mut burst = Burst::new(burst);
                    queue.rx_burst(&mut burst);
                    for packet in burst.drain() {
                        let flags = packet.flags();
                        assert!(
                            flags.contains(PacketFlags::RX_L4_CSUM_GOOD | PacketFlags::RX_RSS_HASH),
                            "{flags:?}"
                        );
                        assert!(flags.contains(PacketFlags::RX_HEADER_SPLIT) && packet.segment_count() == 2);
                        assert!(!flags.contains(PacketFlags::RX_VLAN_STRIPPED) || packet.vlan_tci() == TCI);
                        got.push(bytes(&packet));
                        held.push(packet);
                    }
                }
                // Somebody holds packets for a while.
                if random.below(16) == 0 {
                    held.clear();
                }
                out.is_empty() && got.len() >= expected.len()
            });
            got.sort();
            expected.sort();
            assert!(
                got == expected,
                "ring {ring}, burst {burst}, round {round}: other frames than were sent"
            );
            sent += expected.len() as u64;
        }
        let (a, b) = (bench.a.port.stats(), bench.b.port.stats());
        assert_eq!((a.tx_packets, a.tx_errors), (sent, 0));
        assert_eq!((b.rx_packets, b.rx_errors, b.rx_missed), (sent, 0, 0));
        assert_eq!((a.tx_bytes, count(&mut bench.a.port, "tx_good_packets")), (b.rx_bytes, sent));
        println!("ring {ring}, burst {burst}: {sent} frames, waited {} times for a fragment", b.rx_nombuf);
        assert!(spare > 8 || b.rx_nombuf > 0 || burst == 1, "pools so small have to be waited for");
        held.clear();
        bench.finish();
    }
}
