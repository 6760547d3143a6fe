//! Checksums, segmentation, tags, hashes and header split, from card to card.

use super::*;
use crate::ixgbe::Offload;
use crate::ixgbe::checksum;
use crate::ixgbe::packet::Packet;

/// A packet over IPv4 with all checksums right. 6 TCP, 17 UDP, 132 SCTP.
fn packet(protocol: u8, payload: usize) -> Vec<u8> {
    let mut p = vec![0xff; 6];
    p.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    let header = match protocol {
        6 => 20,
        17 => 8,
        _ => 12,
    };
    let total = (20 + header + payload) as u16;
    p.extend([0x45, 0]);
    p.extend(total.to_be_bytes());
    p.extend([0xab, 0xcd, 0, 0, 64, protocol, 0, 0, 66, 9, 149, 187, 161, 142, 100, 80]);
    let sum = !checksum::fold(checksum::add(0, &p[14..34]));
    p[24..26].copy_from_slice(&sum.to_be_bytes());
    p.extend(2794u16.to_be_bytes());
    p.extend(1766u16.to_be_bytes());
    p.resize(34 + header, 0);
    p.extend((0..payload).map(|n| (n * 3) as u8));
    match protocol {
        6 => p[46] = 0x50,
        17 => p[38..40].copy_from_slice(&(total - 20).to_be_bytes()),
        _ => {
            let sum = checksum::sctp(&p[34..]).to_le_bytes();
            p[42..46].copy_from_slice(&sum);
            return p;
        }
    }
    let at = if protocol == 6 { 50 } else { 40 };
    let pseudo = Packet::parse(&p, None, 0x8100).pseudo_header(&p);
    let sum = !checksum::fold(checksum::add(pseudo, &p[34..]));
    p[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    p
}

/// A context descriptor for IPv4: transport as L4T, length of its header, MSS, tag.
fn context(transport: u64, length: u64, mss: u64, tag: u64) -> [u64; 2] {
    [20 | 14 << 9 | tag << 16, 1 << 10 | transport << 11 | 0x2020_0000 | length << 40 | mss << 48]
}

#[test]
fn transmitted_checksums_are_right_when_received() {
    let (mut a, mut b) = two(1);
    for (protocol, transport, at) in [(6u8, 1u64, 50usize), (17, 0, 40), (132, 2, 42)] {
        let right = packet(protocol, 101);
        let mut blank = right.clone();
        blank[24..26].fill(0);
        if protocol == 132 {
            blank[at..at + 4].fill(0);
        } else {
            let pseudo = checksum::fold(Packet::parse(&right, None, 0x8100).pseudo_header(&right));
            blank[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        }
        a.machine.at(TX_BUFFERS, blank.len(), true).unwrap().copy_from_slice(&blank);
        let data = [TX_BUFFERS, 0x2b30_0000 | blank.len() as u64 | 3 << 40 | (blank.len() as u64) << 46];
        a.submit(0, &[context(transport, 0, 0, 0), data]);
        a.poll();
        b.poll();
        let received = b.next(0).expect("a packet");
        assert_eq!(received.data, right, "protocol {protocol}");
        assert_eq!(received.status & 0xc000_0060, 0x60);
        assert_eq!(
            received.info >> 4 & 0x1fff,
            1 | if protocol == 6 {
                0x10
            } else if protocol == 17 {
                0x20
            } else {
                0x40
            }
        );
    }
    assert_eq!(a.card.control().offloads(Offload::Checksum), 3);
}

#[test]
fn wrong_checksums_are_told() {
    let (mut a, mut b) = two(1);
    for (protocol, byte, errors) in
        [(6u8, 60, 0x4000_0000u32), (17, 45, 0x4000_0000), (132, 47, 0x4000_0000), (6, 22, 0x8000_0000)]
    {
        let mut wrong = packet(protocol, 40);
        wrong[byte] ^= 1;
        a.send(&wrong);
        b.poll();
        assert_eq!(b.next(0).expect("a packet").status & 0xc000_0060, 0x60 | errors);
    }
    // A UDP packet without a checksum is not checked.
    let mut without = packet(17, 40);
    without[40..42].fill(0);
    a.send(&without);
    b.poll();
    assert_eq!(b.next(0).unwrap().status & 0xc000_0070, 0x40);
}

#[test]
fn legacy_descriptors_send_and_sum() {
    let (mut a, mut b) = two(1);
    let right = packet(17, 60);
    let mut blank = right.clone();
    let pseudo = checksum::fold(Packet::parse(&right, None, 0x8100).pseudo_header(&right));
    blank[40..42].copy_from_slice(&pseudo.to_be_bytes());
    a.machine.at(TX_BUFFERS, blank.len(), true).unwrap().copy_from_slice(&blank);
    a.submit(0, &[[TX_BUFFERS, blank.len() as u64 | 40 << 16 | 0x0f00_0000 | 34 << 40]]);
    a.poll();
    b.poll();
    assert_eq!(b.next(0).unwrap().data, right);
    // With a tag, and in two pieces.
    let (at, tagged) = (TX_BUFFERS, 0x4200_0000 | 0x3123 << 48);
    a.submit(0, &[[at, tagged | 50], [at + 50, 0x0b00_0000 | (right.len() as u64 - 50)]]);
    a.poll();
    b.poll();
    let received = b.next(0).unwrap().data;
    assert_eq!((&received[12..16], &received[16..40]), (&[0x81, 0, 0x31, 0x23][..], &right[12..36]));
    // And legacy receive descriptors.
    b.start_rx(0, 0x0000_0402);
    a.send(&right);
    b.poll();
    let at = rx_ring(0);
    assert_eq!(b.machine.word(at), rx_buffer(0, 0));
    assert_eq!(b.machine.word(at + 8) & 0xff_0000_ffff, 0x73_0000_0000 | right.len() as u64);
}

#[test]
fn null_descriptors_report_and_send_nothing() {
    const NULL: u64 = 0x0900_0000;
    let (mut rig, wire) = bench(1);
    // Its address is nobody's: there is nothing to fetch.
    let at = rig.submit(0, &[[0x10, NULL]]);
    rig.poll();
    assert_eq!(rig.machine.word(at + 8), NULL | 1 << 32);
    assert_eq!((rig.get(TDH), rig.get(TPT), rig.get(QPTC)), (1, 0, 0));
    // Around packets, and without a report.
    rig.machine.at(TX_BUFFERS, 60, true).unwrap().copy_from_slice(&frame(60));
    let packet = [TX_BUFFERS, 0x2b30_0000 | 60 | 60 << 46];
    let at = rig.submit(0, &[[0, 0x0100_0000], packet, [0, NULL], packet, [0, NULL]]);
    rig.poll();
    assert_eq!(wire.taken(), [frame(60), frame(60)]);
    assert_eq!([4, 3, 2, 1, 0].map(|n| rig.machine.word(at - 16 * n + 8) >> 32 & 1), [0, 1, 1, 1, 1]);
    let control = rig.card.control();
    assert_eq!((control.malformed(), control.refused()), (0, 0));
    // Inside a packet it is none, nor is an empty piece that does not end: both spoil the packet.
    let first = [TX_BUFFERS, 60];
    for descriptors in [[first, [0, NULL]], [[0, 0], [TX_BUFFERS, NULL | 60]]] {
        let before = control.malformed();
        rig.submit(0, &descriptors);
        rig.poll();
        assert_eq!((control.malformed(), wire.taken().len()), (before + 1, 0));
    }
}

#[test]
fn a_frame_without_ifcs_brings_its_check_sequence() {
    let (mut rig, wire) = bench(1);
    let mut whole = frame(60);
    whole.extend(checksum::fcs(&frame(60)).to_le_bytes());
    rig.machine.at(TX_BUFFERS, 64, true).unwrap().copy_from_slice(&whole);
    rig.submit(0, &[[TX_BUFFERS, 0x0900_0000 | 64], [TX_BUFFERS, 0x2930_0000 | 64 | 64 << 46]]);
    rig.poll();
    assert_eq!(wire.taken(), [frame(60), frame(60)]);
    rig.submit(0, &[[TX_BUFFERS, 0x0900_0000 | 60], [TX_BUFFERS, 0x4900_0000 | 64]]);
    rig.poll();
    assert_eq!((rig.card.control().malformed(), wire.taken().len()), (2, 0));
}

#[test]
fn segmentation_makes_packets_that_stand_alone() {
    let (mut a, mut b) = two(1);
    let mut whole = packet(6, 4000);
    let addresses = whole[26..34].to_vec();
    let pseudo = checksum::fold(checksum::add(6, &addresses));
    whole[50..52].copy_from_slice(&pseudo.to_be_bytes());
    a.machine.at(TX_BUFFERS, whole.len(), true).unwrap().copy_from_slice(&whole);
    let data = [TX_BUFFERS, 0xab30_0000 | whole.len() as u64 | 3 << 40 | 4000 << 46];
    a.submit(0, &[context(1, 20, 1448, 0), data]);
    a.poll();
    b.poll();
    let mut payload = Vec::new();
    for length in [1448, 1448, 1104] {
        let received = b.next(0).expect("a segment");
        assert_eq!(received.status & 0xc000_0060, 0x60);
        assert_eq!(received.data.len(), 54 + length);
        payload.extend_from_slice(&received.data[54..]);
    }
    assert_eq!(payload, whole[54..]);
    assert_eq!((a.get(GPTC), a.card.control().malformed()), (3, 0));
    assert_eq!(a.card.control().offloads(Offload::Segmentation), 1);
}

#[test]
fn a_turn_is_over_when_a_packet_was_cut_into_very_many_segments() {
    let (mut rig, wire) = bench(1);
    let whole = packet(6, 200);
    rig.machine.at(TX_BUFFERS, whole.len(), true).unwrap().copy_from_slice(&whole);
    let data = [TX_BUFFERS, 0xab30_0000 | whole.len() as u64 | 3 << 40 | 200 << 46];
    rig.submit(0, &[context(1, 20, 1, 0), data, data]);
    rig.card.poll(&mut rig.machine);
    assert_eq!((wire.taken().len(), rig.get(TDH)), (200, 2));
    rig.poll();
    assert_eq!((wire.taken().len(), rig.get(TDH)), (200, 3));
}

#[test]
fn tags_go_in_and_come_out() {
    let (mut a, mut b) = two(1);
    let plain = packet(6, 50);
    a.machine.at(TX_BUFFERS, plain.len(), true).unwrap().copy_from_slice(&plain);
    let data = [TX_BUFFERS, 0x6b30_0000 | plain.len() as u64 | (plain.len() as u64) << 46];
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0, 0x60, 100]);
    a.submit(0, &[context(1, 20, 0, 0x6064), data]);
    a.poll();
    b.poll();
    let received = b.next(0).unwrap();
    assert_eq!((received.data, received.status & 0x68), (tagged, 0x68));
    b.change(RXDCTL, 1 << 30);
    a.submit(0, &[data]);
    a.poll();
    b.poll();
    let received = b.next(0).unwrap();
    assert_eq!((received.data, received.status & 0x68, received.tag), (plain, 0x68, 0x6064));
    let done = |rig: &Rig| {
        [Offload::Checksum, Offload::TagInsertion, Offload::TagStripping]
            .map(|which| rig.card.control().offloads(which))
    };
    assert_eq!((done(&a), done(&b)), ([0, 2, 0], [0, 0, 1]));
}

#[test]
fn hashes_choose_queues() {
    let (mut a, mut b) = two(4);
    let key: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];
    for (n, word) in key.chunks_exact(4).enumerate() {
        b.set(0x5c80 + 4 * n as u32, u32::from_le_bytes(word.try_into().unwrap()));
    }
    for n in 0..32 {
        b.set(0x5c00 + 4 * n, 0x0302_0100);
    }
    b.set(RXCSUM, 1 << 13);
    // With TCP's type on the ports count, for UDP only the addresses do.
    b.set(0x5818, 0x0033_0001);
    for (protocol, hash, kind) in [(6u8, 0x51cc_c178u32, 1u32), (17, 0x323e_8fc2, 2)] {
        a.send(&packet(protocol, 40));
        b.poll();
        let received = b.next(hash & 3).expect("in that queue");
        assert_eq!((received.hash, received.info & 0xf), (hash, kind));
    }
    a.send(&frame(60));
    b.poll();
    assert_eq!(b.next(0).unwrap().hash, 0);
    // Without PCSD there is the IP identification in place of the hash.
    b.set(RXCSUM, 0);
    a.send(&packet(6, 40));
    b.poll();
    assert_eq!(b.next(0).unwrap().hash, 0xabcd);
}

#[test]
fn ethertypes_choose_queues() {
    let (mut a, mut b) = two(4);
    b.set(ETQF + 8, 1 << 31 | 0x1234);
    b.set(ETQS + 8, 1 << 31 | 3 << 16);
    a.send(&frame(60));
    b.poll();
    assert_eq!(b.next(3).unwrap().info >> 4 & 0x1fff, 0x802);
}

#[test]
fn headers_are_split_off() {
    let (mut a, mut b) = two(1);
    b.set(PSRTYPE, 1 << 4 | 1 << 8 | 1 << 12);
    let header_at = |n| rx_buffer(0, n) + BUFFER - 512;
    b.start_rx(0, 2 << 25 | 0x402);
    for (n, (packet, split)) in
        [(packet(6, 200), 54), (packet(17, 200), 34), (frame(200), 14)].into_iter().enumerate()
    {
        a.send(&packet);
        b.poll();
        let header = b.machine.at(header_at(n as u32), split, false).unwrap().to_vec();
        let received = b.next(0).unwrap();
        assert_eq!(received.info >> 21, 1 << 10 | split as u32);
        assert_eq!([header, received.data].concat(), packet);
    }
    // A tag that is taken out is no part of it.
    let mut tagged = packet(6, 200);
    tagged.splice(12..12, [0x81, 0, 0x21, 0x23]);
    let control = b.get(RDBAL + 0x28);
    b.set(RDBAL + 0x28, control | 1 << 30);
    b.start_rx(0, 2 << 25 | 0x402);
    a.send(&tagged);
    b.poll();
    let header = b.machine.at(header_at(0), 54, false).unwrap().to_vec();
    let received = b.next(0).unwrap();
    assert_eq!((received.info >> 21, received.tag), (1 << 10 | 54, 0x2123));
    assert_eq!([header, received.data].concat(), packet(6, 200));
    b.set(RDBAL + 0x28, control);
    // A header buffer that is too small is not used.
    b.start_rx(0, 2 << 25 | 2);
    a.send(&packet(6, 200));
    b.poll();
    let received = b.next(0).unwrap();
    assert_eq!((received.data, received.status >> 23 & 1), (packet(6, 200), 1));
    // Always use the header buffer.
    b.set(PSRTYPE, 0);
    b.start_rx(0, 5 << 25 | 0x402);
    a.send(&frame(100));
    a.send(&frame(300));
    b.poll();
    assert_eq!(b.machine.at(header_at(0), 100, false).unwrap(), frame(100));
    let received = b.next(0).unwrap();
    assert_eq!((received.info >> 21, received.data.len()), (100, 0));
    let received = b.next(0).unwrap();
    assert_eq!((received.info >> 21, received.data), (256, frame(300)[256..].to_vec()));
}
