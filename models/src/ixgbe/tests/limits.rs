//! What a driver may not ask of the card, told from what it may.

use super::*;

/// Descriptors of `length` bytes each that make one packet.
fn pieces(count: usize, length: u64) -> Vec<[u64; 2]> {
    let command = 0x2230_0000 | length | (length * count as u64) << 46;
    let mut pieces = vec![[TX_BUFFERS, command]; count];
    pieces[count - 1][1] |= 0x0900_0000;
    pieces
}

/// 40 less WTHRESH less 2 (7.2.1.1).
#[test]
fn a_packet_has_38_descriptors_at_most() {
    let (mut rig, wire) = bench(1);
    for (threshold, most) in [(0, 38), (8, 30), (40, 1)] {
        rig.set(TDBAL + 0x28, ENABLE | threshold << 16);
        let before = rig.card.control().malformed();
        for (count, is) in [(most, true), (most + 1, false), (1, true)] {
            let at = rig.submit(0, &pieces(count, 64));
            rig.poll();
            assert_eq!(rig.machine.word(at + 8) >> 32 & 1, 1, "done all the same");
            assert_eq!(wire.taken().len(), usize::from(is), "{count} descriptors, WTHRESH {threshold}");
        }
        assert_eq!(rig.card.control().malformed(), before + 1);
    }
}

/// A TCP segment of a flow that can be coalesced.
fn segment(number: u32) -> Vec<u8> {
    let mut p = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
    p.extend([8, 0, 0x45, 0, 0, 140, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9]);
    p.extend((1000 + number * 100).to_be_bytes());
    p.extend([0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    p.resize(154, number as u8);
    let sum = !checksum::fold(checksum::add(0, &p[14..34]));
    p[24..26].copy_from_slice(&sum.to_be_bytes());
    let pseudo = packet::Packet::parse(&p, None, 0x8100).pseudo_header(&p);
    let sum = !checksum::fold(checksum::add(pseudo, &p[34..]));
    p[50..52].copy_from_slice(&sum.to_be_bytes());
    p
}

/// All that coalescing in queue 0 needs, packets of 16 descriptors.
fn coalescing() -> (Rig, Bench) {
    let (mut rig, wire) = bench(1);
    rig.set(HLREG0, 1 << 1);
    rig.set(RDRXCTL, 1 << 1);
    rig.set(IVAR, 0x80);
    rig.set(EITR, 25 << 3);
    rig.set(RSCCTL, 3 << 2 | 1);
    (rig, wire)
}

/// Two segments: whether they come as one packet.
fn coalesces(rig: &mut Rig, wire: &Bench) -> bool {
    (0..2).for_each(|number| wire.give(&segment(number)));
    rig.poll();
    rig.pass(60_000);
    rig.poll();
    let packets: Vec<_> = std::iter::from_fn(|| rig.next(0)).collect();
    let bytes: usize = packets.iter().map(|packet| packet.data.len()).sum();
    assert_eq!(bytes, if packets.len() == 1 { 254 } else { 308 });
    packets.len() == 1
}

#[test]
fn coalescing_has_conditions() {
    let (mut rig, wire) = coalescing();
    assert!(coalesces(&mut rig, &wire));
    assert_eq!(rig.card.control().malformed(), 0);
    type Spoil = fn(&mut Rig);
    let spoils: [(&str, Spoil); 5] = [
        ("no vector", |rig| rig.set(IVAR, 0)),
        ("no interval", |rig| rig.set(EITR, 0)),
        ("frames with their check sequence in the DMA unit", |rig| rig.set(RDRXCTL, 0)),
        ("a first size", |rig| rig.set(RDRXCTL, 1 << 1 | 1 << 17)),
        ("64 KiB", |rig| rig.set(RDBAL + 0x14, 0x0200_0404)),
    ];
    for (what, spoil) in spoils {
        let (mut rig, wire) = coalescing();
        spoil(&mut rig);
        assert!(!coalesces(&mut rig, &wire), "{what}");
        assert_eq!(rig.card.control().malformed(), 2, "{what}");
        // Nobody minds where nothing is to be coalesced.
        rig.set(RSCCTL, 3 << 2);
        assert!(!coalesces(&mut rig, &wire), "{what}");
        assert_eq!(rig.card.control().malformed(), 2, "{what}");
    }
    // Legacy descriptors, which this test does not read.
    let (mut rig, wire) = coalescing();
    rig.set(RDBAL + 0x14, 2);
    wire.give(&segment(0));
    rig.poll();
    assert_eq!(rig.card.control().malformed(), 1);
}

#[test]
fn a_queue_is_not_to_be_stopped_within_a_packet() {
    for wait in [0, 60_000] {
        let (mut rig, wire) = coalescing();
        wire.give(&segment(0));
        rig.poll();
        rig.pass(wait);
        rig.poll();
        rig.set(RDBAL + 0x28, 0);
        assert_eq!(rig.card.control().malformed(), u64::from(wait == 0));
    }
}
