//! What a generated frame says of itself: which stream it is of, its number there, when it was sent, and what its payload was.
//!
//! 18 bytes behind the headers, so that an untagged UDP/IPv4 frame of the shortest length has room for them:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | [`MAGIC`] |
//! | 1 | the low 7 bits of the [`Run`], and the phase: frames of another run or of another phase are not measured |
//! | 2 | the sender: a stream on one transmit queue |
//! | 3–7 | the frame's number, most significant byte first, as all of these |
//! | 8–9 | the low half of a CRC-32 of the payload behind the signature |
//! | 10 | the high 8 bits of the run |
//! | 11–15 | the time stamp counter when it was sent, in units of 4 ticks: its low 40 bits |
//! | 16–17 | what makes the sum of all of it 0 modulo 65,535 |
//!
//! The last field finds a damaged signature, and keeps the checksums of TCP and UDP the same for all frames of a stream.

use std::hash::{BuildHasher, RandomState};

use super::sum;

/// Bytes of a signature.
pub(super) const LEN: usize = 18;
/// Its first byte.
const MAGIC: u8 = 0xb7;
/// Bits of a number.
const NUMBER: u32 = 40;
/// Bits of a time, and of the ticks that it does not tell.
const TIME: u32 = 40;
const UNIT: u32 = 2;
/// Bits of a run, and how many of them stand beside the phase.
const RUN: u32 = 15;
const LOW: u32 = 7;

/// What tells frames of one measurement from those of others: a number by chance, of 15 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run(u16);

impl Run {
    pub(super) fn new(number: u16) -> Run {
        Run(number & ((1 << RUN) - 1))
    }

    /// Another than this one, if there was one.
    pub(super) fn random(before: Option<Run>) -> Run {
        let run = Run::new(RandomState::new().hash_one(()) as u16);
        if before == Some(run) { Run::new(run.0 + 1) } else { run }
    }
}

/// A frame that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) run: Run,
    /// 0 or 1.
    pub(super) phase: u8,
    pub(super) sender: u8,
    /// Its low 40 bits are told.
    pub(super) number: u64,
    pub(super) payload: u16,
    /// Ticks, of which the lowest 2 bits and those above 42 are not told.
    pub(super) time: u64,
}

/// A signature as it is written, and those of the frames after it.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    first: u64,
    second: u64,
    check: u16,
}

impl Signature {
    #[inline(always)]
    pub(super) fn writer(&self) -> Writer {
        let Run(run) = self.run;
        let front = u64::from(u32::from_be_bytes([0, MAGIC, (run as u8) << 1 | self.phase & 1, self.sender]));
        let first = front << NUMBER | self.number & ((1 << NUMBER) - 1);
        let back = u64::from(self.payload) << (RUN - LOW) | u64::from(run >> LOW);
        let second = back << TIME | self.time >> UNIT & ((1 << TIME) - 1);
        Writer { first, second, check: !sum::fold(u64::from(word_sum(first)) + u64::from(word_sum(second))) }
    }

    /// What a frame says, if it has a signature there; an error if it had one and is damaged.
    #[inline(always)]
    pub(super) fn read(bytes: &[u8; LEN]) -> Option<Result<Signature, Damaged>> {
        if bytes[0] != MAGIC {
            return None;
        }
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let (first, second) = (word(0), word(8));
        let check = u64::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        if sum::fold(u64::from(word_sum(first)) + u64::from(word_sum(second)) + check) != 0xffff {
            return Some(Err(Damaged));
        }
        let [_, front, sender, ..] = *bytes;
        let run = Run(u16::from(bytes[10]) << LOW | u16::from(front >> 1));
        let number = first & ((1 << NUMBER) - 1);
        let (payload, time) = ((second >> 48) as u16, (second & ((1 << TIME) - 1)) << UNIT);
        Some(Ok(Signature { run, phase: front & 1, sender, number, payload, time }))
    }

    /// The whole number, since it is near another.
    #[inline(always)]
    pub(super) fn number_near(&self, expected: u64) -> u64 {
        // To where 40 bits reach, forwards or backwards.
        let ahead = (self.number.wrapping_sub(expected) << (64 - NUMBER)).cast_signed() >> (64 - NUMBER);
        expected.wrapping_add_signed(ahead)
    }

    /// Ticks from when it was sent to `now`. Less than nothing if two cores' counters differ, and that is nothing.
    #[inline(always)]
    pub(super) fn age(&self, now: u64) -> u64 {
        const TOLD: u32 = TIME + UNIT;
        let age = (now.wrapping_sub(self.time) << (64 - TOLD)).cast_signed() >> (64 - TOLD);
        age.max(0).cast_unsigned()
    }
}

/// A signature whose parts do not belong together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// The sum of a word's four halves.
#[inline(always)]
fn word_sum(word: u64) -> u32 {
    (word >> 48) as u32 + (word >> 32 & 0xffff) as u32 + (word >> 16 & 0xffff) as u32 + (word & 0xffff) as u32
}

/// Packets from this one on whose numbers follow each other as they are written.
#[inline(always)]
pub(super) fn before_wrap(number: u64) -> u64 {
    (1 << NUMBER) - (number & ((1 << NUMBER) - 1))
}

impl Writer {
    /// Write it, and go on to the frame after it, which differs by its number.
    #[inline(always)]
    pub(super) fn write(&mut self, to: &mut [u8; LEN]) {
        to[..8].copy_from_slice(&self.first.to_be_bytes());
        to[8..16].copy_from_slice(&self.second.to_be_bytes());
        to[16..].copy_from_slice(&self.check.to_be_bytes());
        // One more in the number is one more in the sum, carries included; 0 and 65,535 are the same.
        self.first += 1;
        self.check = if self.check == 0 { 0xfffe } else { self.check - 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Run = Run(0x2a5c);

    fn written(writer: &mut Writer) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        writer.write(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_is_read_and_the_sum_never_changes() {
        let mut start =
            Signature { run: Run(0x7fff), phase: 1, sender: 255, number: 0, payload: 0x1234, time: 1 << 41 };
        for number in [0, 65_534, 0xffff_fff0, 0xff_ffff_ff00] {
            start.number = number;
            let mut writer = start.writer();
            for step in 0..200 {
                let bytes = written(&mut writer);
                assert_eq!(sum::fold(sum::of(&bytes)), 0xffff);
                let expected = Signature { number: number + step, ..start };
                assert_eq!(Signature::read(&bytes), Some(Ok(expected)), "{number} + {step}");
            }
        }
    }

    #[test]
    fn numbers_wrap_between_bursts() {
        let wrap = 1 << NUMBER;
        assert_eq!([0, 1, wrap - 1, wrap, 3 * wrap - 7].map(before_wrap), [wrap, wrap - 1, 1, wrap, 7]);
        let last = Signature { run: SOME, phase: 1, sender: 2, number: wrap - 1, payload: 0, time: 0 };
        let next = Signature { number: wrap, ..last };
        for (signature, number) in [(last, wrap - 1), (next, 0)] {
            let read = Signature::read(&written(&mut signature.writer()));
            assert_eq!(read, Some(Ok(Signature { number, ..last })));
        }
    }

    #[test]
    fn any_changed_bit_is_found() {
        let signature = Signature { run: SOME, phase: 1, sender: 2, number: 77, payload: 0, time: 123_456 };
        let bytes = written(&mut signature.writer());
        for bit in 8..8 * LEN {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Signature::read(&changed), Some(Err(Damaged)), "bit {bit}");
        }
        assert_eq!(Signature::read(&[0; LEN]), None);
    }

    #[test]
    fn numbers_and_times_are_whole_again() {
        let of = |number, time| {
            let signature = Signature { run: SOME, phase: 0, sender: 0, number, payload: 0, time };
            Signature::read(&written(&mut signature.writer())).unwrap().unwrap()
        };
        for (number, expected) in
            [(0, 0), (5, 9), (1 << 40, (1 << 40) - 1), ((1 << 40) - 1, 1 << 40), (3 << 40, (3 << 40) + 7)]
        {
            assert_eq!(of(number, 0).number_near(expected), number);
        }
        // What is not told of a time is less than four ticks.
        assert_eq!(of(0, u64::MAX).age(9), 13);
        assert_eq!((of(0, 1000).age(999), of(0, 1003).age(1003)), (0, 3));
        // Minutes.
        assert_eq!(of(0, 0).age(1 << 40), 1 << 40);
    }

    #[test]
    fn every_run_is_another() {
        for number in 0..=u16::MAX {
            let run = Run::new(number);
            let signature = Signature { run, phase: 1, sender: 9, number: 5, payload: 0xffff, time: 1 << 30 };
            assert_eq!(Signature::read(&written(&mut signature.writer())), Some(Ok(signature)), "{number}");
        }
        let first = Run::random(None);
        assert!((0..100).all(|_| Run::random(Some(first)) != first));
    }
}
