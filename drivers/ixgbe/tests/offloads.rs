//! What the card does to packets: checksums, VLAN tags, RSS.

mod common;

use common::bench::{Bench, bytes, frame, receive, send};
use common::packets::{Flow, payload, tcp_header};
use common::pool;
use pagewire_ethdev::{PacketFlags, Port, RxOffloads, RxQueueConfig, TxOffloads, TxQueueConfig};

#[test]
fn checksums_are_checked() {
    let mut bench = Bench::new(false, |_, config| {
        config.rx_offloads = RxOffloads::IP_CSUM | RxOffloads::L4_CSUM;
    });
    let (flow, data) = (Flow::new(false), payload(301));
    // The card is not to be believed about UDP that is wrong, and not asked about SCTP.
    for (right, at, good, bad) in [
        (flow.tcp(&tcp_header(1), &data), 16, PacketFlags::RX_L4_CSUM_GOOD, PacketFlags::RX_L4_CSUM_BAD),
        (flow.udp(&data), 6, PacketFlags::RX_L4_CSUM_GOOD, PacketFlags::empty()),
        (flow.sctp(&data), 8, PacketFlags::empty(), PacketFlags::empty()),
    ] {
        assert_eq!(bench.pass_frame(&right).flags(), PacketFlags::RX_IP_CSUM_GOOD | good);
        let mut wrong = right;
        wrong[24] ^= 1;
        wrong[flow.l4() + at] ^= 1;
        assert_eq!(bench.pass_frame(&wrong).flags(), PacketFlags::RX_IP_CSUM_BAD | bad);
    }
    // What is no IP has no checksums.
    let plain = frame(bench.b.port.info().mac, 64);
    assert_eq!(bench.pass_frame(&plain).flags(), PacketFlags::empty());
    bench.finish();
}

#[test]
fn vlan_tags_are_inserted_and_taken_out() {
    for strip in [false, true] {
        let mut bench = Bench::new(false, |_, config| {
            config.rx_offloads = if strip { RxOffloads::VLAN_STRIP } else { RxOffloads::IP_CSUM };
            config.tx_offloads = TxOffloads::VLAN_INSERT;
        });
        let data = frame(bench.b.port.info().mac, 200);
        for tci in [0x6123, 0x0001, 0x0000] {
            let mut packet = bench.packet(&data, &[data.len()]);
            packet.set_vlan_tci(tci);
            packet.set_flags(PacketFlags::TX_VLAN_INSERT);
            let got = bench.pass_one(packet);
            if strip {
                assert_eq!((got.flags(), got.vlan_tci()), (PacketFlags::RX_VLAN_STRIPPED, tci));
                assert_eq!(bytes(&got), data);
            } else {
                assert_eq!(got.flags(), PacketFlags::empty(), "the tag is in the frame");
                let mut tagged = data.clone();
                tagged.splice(12..12, [0x81, 0x00, (tci >> 8) as u8, tci as u8]);
                assert_eq!(bytes(&got), tagged);
            }
        }
        bench.finish();
    }
}

#[test]
fn flows_are_spread_over_queues_and_both_directions_meet() {
    let queues = 4;
    let mut bench = Bench::new(false, |space, config| {
        config.rx_offloads = RxOffloads::L4_CSUM;
        for _ in 1..queues {
            config.rx.push(RxQueueConfig::new(pool(space, 512), 64));
            config.tx.push(TxQueueConfig { descriptors: 64 });
        }
    });
    let flows = 48;
    let there: Vec<_> =
        (0..flows).map(|n| Flow { ports: (5000 + n, 80), ..Flow::new(false) }.udp(&payload(40))).collect();
    // From every queue.
    let mut packets = bench.packets(&there).into_iter();
    for tx in &mut bench.a.tx {
        send(tx, packets.by_ref().take(12).collect());
    }
    let got = receive(&mut bench.b.rx, flows.into());
    assert!(got.iter().all(|queue| queue.len() >= 4), "{:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
    // Ports and addresses exchanged: the same queue.
    let mut back = Vec::new();
    for packet in got.iter().flatten() {
        assert!(packet.flags().contains(PacketFlags::RX_RSS_HASH));
        let mut data = bytes(packet);
        let (source, destination) = (data[26..30].to_vec(), data[30..34].to_vec());
        data[26..30].copy_from_slice(&destination);
        data[30..34].copy_from_slice(&source);
        let (source, destination) = (data[34..36].to_vec(), data[36..38].to_vec());
        data[34..36].copy_from_slice(&destination);
        data[36..38].copy_from_slice(&source);
        back.push(data);
    }
    let sizes: Vec<usize> = got.iter().map(Vec::len).collect();
    drop(got);
    let back = bench.packets(&back);
    let again = bench.pass(back, flows.into());
    assert_eq!(again.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
    drop(again);
    bench.finish();
}
