//! Counting packets and bytes in the statistics registers (82599 datasheet 7.6, 8.2.3.23). Lengths are from destination
//! address to FCS, both included.

use super::registers::Registers;
use super::table::*;

/// Bytes of the frame check sequence, which counts.
pub(super) const FCS: usize = 4;

/// To whom a frame is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cast {
    /// One station.
    Unicast,
    /// A group.
    Multicast,
    /// Everybody.
    Broadcast,
}

impl Cast {
    /// From a frame's destination address.
    #[inline]
    pub(super) fn of(frame: &[u8]) -> Self {
        match frame {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => Self::Broadcast,
            [first, ..] if first & 1 != 0 => Self::Multicast,
            _ => Self::Unicast,
        }
    }
}

/// Offset from PRC64 or PTC64 of the register for a length.
#[inline]
fn size_class(length: usize) -> u32 {
    match length {
        ..=64 => 0,
        65..=127 => 4,
        128..=255 => 8,
        256..=511 => 12,
        512..=1023 => 16,
        _ => 20,
    }
}

/// A frame came in from the wire, whatever it is.
#[inline]
pub(super) fn total_received(registers: &mut Registers, length: usize) {
    registers.count(TPR, 1);
    registers.count36(TORL, length as u32);
}

/// A frame passed the filters.
#[inline]
pub(super) fn received(registers: &mut Registers, length: usize, cast: Cast) {
    registers.count(GPRC, 1);
    registers.count36(GORCL, length as u32);
    registers.count(PRC64 + size_class(length), 1);
    match cast {
        Cast::Unicast => {}
        Cast::Multicast => registers.count(MPRC, 1),
        Cast::Broadcast => registers.count(BPRC, 1),
    }
}

/// The statistics set that a queue counts in, from RQSMR or TQSM.
#[inline]
fn set_of(registers: &Registers, map: u32, queue: usize) -> u32 {
    let queue = queue as u32;
    registers.get(map + (queue & !3)) >> (8 * (queue & 3)) & 0xf
}

/// A packet went to a receive queue.
#[inline]
pub(super) fn queue_received(registers: &mut Registers, queue: usize, length: usize) {
    let set = set_of(registers, RQSMR, queue);
    registers.count(QPRC + 0x40 * set, 1);
    registers.count36(QBRC_L + 0x40 * set, length as u32);
    registers.count(RXDGPC, 1);
    registers.count36(RXDGBCL, length as u32);
}

/// A packet was dropped because its queue had no descriptors.
pub(super) fn queue_dropped(registers: &mut Registers, queue: usize) {
    let set = set_of(registers, RQSMR, queue);
    registers.count(QPRDC + 0x40 * set, 1);
}

/// A frame went out to the wire.
#[inline]
pub(super) fn transmitted(registers: &mut Registers, length: usize, cast: Cast) {
    registers.count(TPT, 1);
    registers.count(GPTC, 1);
    registers.count36(GOTCL, length as u32);
    registers.count(PTC64 + size_class(length), 1);
    match cast {
        Cast::Unicast => {}
        Cast::Multicast => registers.count(MPTC, 1),
        Cast::Broadcast => registers.count(BPTC, 1),
    }
}

/// A queue gave a frame to the wire.
#[inline]
pub(super) fn queue_transmitted(registers: &mut Registers, queue: usize, length: usize) {
    let set = set_of(registers, TQSM, queue);
    registers.count(QPTC + 4 * set, 1);
    registers.count36(QBTC_L + 8 * set, length as u32);
    registers.count(TXDGPC, 1);
    registers.count36(TXDGBCL, length as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_casts_have_their_registers() {
        let mut registers = Registers::new();
        for length in [64, 65, 127, 128, 255, 256, 511, 512, 1023, 1024, 1518, 9018] {
            received(&mut registers, length, Cast::Multicast);
            transmitted(&mut registers, length, Cast::Broadcast);
        }
        let counts = |base| (0..6).map(|n| registers.get(base + 4 * n)).collect::<Vec<_>>();
        assert_eq!(counts(PRC64), [1, 2, 2, 2, 2, 3]);
        assert_eq!(counts(PTC64), [1, 2, 2, 2, 2, 3]);
        assert_eq!((registers.get(MPRC), registers.get(BPRC), registers.get(BPTC)), (12, 0, 12));
        assert_eq!(Cast::of(&[0xff; 6]), Cast::Broadcast);
        assert_eq!(Cast::of(&[0x01, 0, 0x5e, 0, 0, 1]), Cast::Multicast);
        assert_eq!(Cast::of(&[0x02, 0, 0, 0, 0, 1]), Cast::Unicast);
    }

    #[test]
    fn queues_count_where_they_are_mapped() {
        let mut registers = Registers::new();
        registers.set(RQSMR + 4, 0x0300_0000);
        registers.set(TQSM + 4, 0x0000_0005);
        queue_received(&mut registers, 7, 100);
        queue_dropped(&mut registers, 7);
        queue_transmitted(&mut registers, 4, 64);
        queue_transmitted(&mut registers, 127, 64);
        assert_eq!((registers.get(QPRC + 3 * 0x40), registers.get(QBRC_L + 3 * 0x40)), (1, 100));
        assert_eq!(registers.get(QPRDC + 3 * 0x40), 1);
        assert_eq!((registers.get(QPTC + 4 * 5), registers.get(QBTC_L + 8 * 5)), (1, 64));
        assert_eq!(registers.get(QPTC), 1);
    }
}
