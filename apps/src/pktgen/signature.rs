//! What a generated frame says of itself: which stream it is of, its number there, when it was sent, and what its payload was.
//!
//! 18 bytes behind the headers, so that an untagged UDP/IPv4 frame of the shortest length has room for them:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | [`MAGIC`] |
//! | 1 | the phase: frames of another phase of the run are not measured |
//! | 2 | the sender: a stream on one transmit queue |
//! | 3–7 | the frame's number, most significant byte first, as all of these |
//! | 8–9 | the low half of a CRC-32 of the payload behind the signature |
//! | 10–15 | the time stamp counter when it was sent, its low 48 bits |
//! | 16–17 | what makes the sum of all of it 0 modulo 65,535 |
//!
//! The last field finds a damaged signature, and keeps the checksums of TCP and UDP the same for all frames of a stream.

use super::sum;

/// Bytes of a signature.
pub(super) const LEN: usize = 18;
/// Its first byte.
const MAGIC: u8 = 0xb7;
/// Bits of a number.
const NUMBER: u32 = 40;
/// Bits of a time.
const TIME: u32 = 48;

/// A frame that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) phase: u8,
    pub(super) sender: u8,
    /// Its low 40 bits are told.
    pub(super) number: u64,
    pub(super) payload: u16,
    /// Its low 48 bits are told.
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
        let front = u64::from(u32::from_be_bytes([0, MAGIC, self.phase, self.sender]));
        let first = front << NUMBER | self.number & ((1 << NUMBER) - 1);
        let second = u64::from(self.payload) << TIME | self.time & ((1 << TIME) - 1);
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
        let [_, phase, sender, ..] = *bytes;
        let number = first & ((1 << NUMBER) - 1);
        let (payload, time) = ((second >> TIME) as u16, second & ((1 << TIME) - 1));
        Some(Ok(Signature { phase, sender, number, payload, time }))
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
        let age = (now.wrapping_sub(self.time) << (64 - TIME)).cast_signed() >> (64 - TIME);
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

    fn written(writer: &mut Writer) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        writer.write(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_is_read_and_the_sum_never_changes() {
        let mut start =
            Signature { phase: 3, sender: 255, number: 0xff_fffe, payload: 0x1234, time: 1 << 47 };
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
    fn any_changed_bit_is_found() {
        let signature = Signature { phase: 1, sender: 2, number: 77, payload: 0, time: 123_456 };
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
            let signature = Signature { phase: 0, sender: 0, number, payload: 0, time };
            Signature::read(&written(&mut signature.writer())).unwrap().unwrap()
        };
        for (number, expected) in
            [(0, 0), (5, 9), (1 << 40, (1 << 40) - 1), ((1 << 40) - 1, 1 << 40), (3 << 40, (3 << 40) + 7)]
        {
            assert_eq!(of(number, 0).number_near(expected), number);
        }
        assert_eq!(of(0, u64::MAX).age(9), 10);
        assert_eq!(of(0, 1000).age(999), 0);
    }
}
