//! What the card does to packets: checksums, VLAN tags, RSS.

mod common;

use common::bench::{Bench, bytes, frame, receive, send};
use common::pool;
use pagewire_ethdev::{MacAddr, PacketFlags, Port, RxOffloads, RxQueueConfig, TxOffloads, TxQueueConfig};

/// IPv4 with TCP or UDP, every checksum right.
fn segment(protocol: u8, port: u16, payload: usize) -> Vec<u8> {
    let mut frame = frame(MacAddr([2, 0, 0, 0, 0, 2]), 14 + 20 + 20 + payload);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let len = (frame.len() - 14) as u16;
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    let l4 = len - 20;
    frame[34..54].fill(0);
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    match protocol {
        6 => frame[46] = 5 << 4,
        _ => frame[38..40].copy_from_slice(&l4.to_be_bytes()),
    }
    let header = !sum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    let at = checksum_at(protocol);
    let value = !sum(&frame[34..], u32::from(pseudo(&frame)));
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    frame
}

fn checksum_at(protocol: u8) -> usize {
    if protocol == 6 { 34 + 16 } else { 34 + 6 }
}

/// The pseudo header's sum.
fn pseudo(frame: &[u8]) -> u16 {
    sum(&frame[26..34], u32::from(frame[23]) + (frame.len() - 34) as u32)
}

/// One's complement sum.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum = words.fold(start, |sum, word| sum + word);
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

#[test]
fn checksums_are_filled_in_and_checked() {
    let mut bench = Bench::new(false, |_, config| {
        config.rx_offloads = RxOffloads::IP_CSUM | RxOffloads::L4_CSUM;
        config.tx_offloads = TxOffloads::all();
    });
    for protocol in [6, 17] {
        let right = segment(protocol, 1000, 301);
        let mut blank = right.clone();
        blank[24..26].fill(0);
        let at = checksum_at(protocol);
        let start = pseudo(&right);
        blank[at..at + 2].copy_from_slice(&start.to_be_bytes());
        let l4 = if protocol == 6 { PacketFlags::TX_TCP_CSUM } else { PacketFlags::TX_UDP_CSUM };
        for lengths in [&[right.len()][..], &[34, right.len() - 34]] {
            let mut packet = bench.packet(&blank, lengths);
            packet.set_flags(PacketFlags::TX_IP_CSUM | l4);
            packet.set_header_lens(14, 20);
            let got = bench.pass_one(packet);
            assert_eq!(bytes(&got), right, "protocol {protocol}");
            let good = PacketFlags::RX_IP_CSUM_GOOD | PacketFlags::RX_L4_CSUM_GOOD;
            assert_eq!(got.flags(), good, "protocol {protocol}");
        }
        let mut wrong = right.clone();
        wrong[24] ^= 1;
        wrong[at] ^= 1;
        let got = bench.pass_frame(&wrong);
        // The card is not to be believed about UDP that is wrong.
        let l4 = if protocol == 6 { PacketFlags::RX_L4_CSUM_BAD } else { PacketFlags::empty() };
        assert_eq!(got.flags(), PacketFlags::RX_IP_CSUM_BAD | l4, "protocol {protocol}");
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
    let there: Vec<_> = (0..flows).map(|n| segment(17, 5000 + n, 40)).collect();
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
