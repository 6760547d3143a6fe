//! Nonsense from drivers and from the wire: the card goes on.

use super::*;

/// A small generator of reproducible nonsense (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

#[test]
fn a_million_random_register_accesses() {
    let (mut rig, wire) = bench(2);
    let mut random = Random(0x8259_9000);
    for n in 0..1_000_000u32 {
        let offset = match random.below(4) {
            0 => random.below(BAR_SIZE as u64) as u32,
            1 => RDBAL + random.below(0x80) as u32,
            2 => TDBAL + random.below(0x80) as u32,
            _ => TABLE[random.below(TABLE.len() as u64) as usize].offset,
        };
        let value = random.next() >> random.below(64);
        if random.below(4) == 0 {
            rig.get(offset);
        } else {
            rig.set(offset & !3, value as u32);
        }
        if n % 64 == 0 {
            let any: Vec<u8> = (0..random.below(2000)).map(|_| random.next() as u8 | 0xfd).collect();
            wire.give(&any);
            rig.pass(1000);
            rig.card.poll(&mut rig.machine);
            rig.machine.sent.clear();
            wire.taken();
        }
        if n % 4096 == 0 {
            rig.start(2);
        }
    }
}

#[test]
fn random_transmit_descriptors() {
    let (mut rig, wire) = bench(1);
    let mut random = Random(1);
    for _ in 0..20_000 {
        let mut descriptors = Vec::new();
        for _ in 0..=random.below(4) {
            let mut word = random.next();
            // Mostly types that exist, lengths that are small, and payload lengths that may be right.
            if random.below(4) != 0 {
                word = word & !0x20f0_0000 | 0x2020_0000 | random.below(2) << 20;
            }
            if random.below(4) != 0 {
                word = word & !0xf000 & !(0x3_fff0 << 46);
            }
            let first = if random.below(2) == 0 { TX_BUFFERS + random.below(4096) } else { random.next() };
            descriptors.push([first, word]);
        }
        rig.submit(0, &descriptors);
        rig.card.poll(&mut rig.machine);
        for frame in wire.taken() {
            assert!((14..=15872).contains(&frame.len()));
        }
        if random.below(100) == 0 {
            let noise: Vec<u8> = (0..4096).map(|_| random.next() as u8).collect();
            rig.machine.at(TX_BUFFERS, 4096, true).unwrap().copy_from_slice(&noise);
        }
    }
    rig.poll();
    assert_eq!(rig.get(TDH), rig.get(TDT), "the ring goes on");
    assert!(rig.card.control().malformed() > 0);
}

#[test]
fn random_segmentation() {
    let (mut rig, wire) = bench(1);
    let mut random = Random(2);
    for _ in 0..20_000 {
        let first = random.below(80) | random.below(128) << 9;
        let context = 0x2020_0000 | random.below(4) << 10 | random.below(64) << 40 | random.below(3000) << 48;
        let length = random.below(2000);
        let payload = length.saturating_sub(random.below(120));
        let data = 0xab30_0000 | length | 3 << 40 | payload << 46;
        rig.submit(0, &[[first, context], [TX_BUFFERS, data]]);
        rig.poll();
        wire.taken();
    }
    assert_eq!(rig.get(TDH), rig.get(TDT));
}

#[test]
fn random_receive_descriptors_and_frames() {
    let (mut rig, wire) = bench(1);
    let mut random = Random(3);
    rig.change(HLREG0, 4);
    rig.set(MAXFRS, 0x3000 << 16);
    for n in 0..20_000u32 {
        let slot = random.below(RING as u64);
        let address = if random.below(2) == 0 { rx_buffer(0, 0) + random.below(4096) } else { random.next() };
        rig.machine.put(rx_ring(0) + 16 * slot, [address, random.next()]);
        let mut frame: Vec<u8> = (0..random.below(300)).map(|_| random.next() as u8).collect();
        // Headers that are nearly right reach further into the parser.
        if frame.len() > 60 {
            frame[..6].fill(0xff);
            let types = [[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 8]];
            frame[12..14].copy_from_slice(&types[random.below(4) as usize]);
            frame[14] = [0x45, 0x60, 0x4f, 0x46][random.below(4) as usize];
            frame[23] = [6, 17, 132, 44][random.below(4) as usize];
            frame[20] = [0, 6, 44, 60][random.below(4) as usize];
            // And lengths that end inside the frame: an IPv4 packet's, an IPv6 packet's, an extension header's.
            (frame[16], frame[18]) = (0, 0);
            frame[55] = random.below(4) as u8;
        }
        wire.give(&frame);
        if n % 16 == 0 {
            rig.set(SRRCTL, random.next() as u32);
            rig.set(PSRTYPE, random.next() as u32);
            rig.set(MRQC, 0x00f3_0001);
        }
        rig.set(RDT, random.below(RING as u64 + 8) as u32);
        rig.card.poll(&mut rig.machine);
    }
}
