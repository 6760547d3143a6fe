//! Fields of a frame that differ from packet to packet.

use super::sum;
use super::values::{Number, Range};

/// A generator of numbers (xorshift64*): quick, and the same in every run.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One below `bound`.
    #[inline]
    pub(super) fn below(&mut self, bound: u128) -> u64 {
        // Both factors are below 2^64, or the bound is just that.
        ((u128::from(self.next()) * bound) >> 64) as u64
    }
}

/// Where a field's values come from.
#[derive(Clone, Debug)]
enum Source {
    /// In steps from the lowest to the highest, and round again.
    Steps {
        next: u64,
        max: u64,
        /// Added for the one after it; and in its place, if that is above `max`.
        up: u64,
        down: u64,
        /// What these were made of.
        min: u64,
        step: u64,
    },
    Random {
        min: u64,
        count: u128,
    },
    /// Some bits at random, the others as they are.
    Bits {
        others: u64,
        mask: u64,
    },
}

/// A field: its place, its values, and the checksums it counts in.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) at: usize,
    /// Bytes: 1 to 8.
    pub(super) width: usize,
    source: Source,
    /// Bits of it that stay.
    fixed: u64,
    pub(super) in_ip: bool,
    pub(super) in_l4: bool,
}

impl Field {
    /// The low `width` bytes of a range's values.
    pub(super) fn of_range<T: Number>(range: &Range<T>, at: usize, width: usize, fixed: u64) -> Field {
        let low = |value: T| value.bits() as u64;
        let (min, max, step) = (low(range.min), low(range.max), range.step);
        let source = match range.random {
            true => Source::Random { min, count: u128::from(max - min) + 1 },
            false => {
                let next = low(range.start);
                // The lowest that steps from the first one lead to.
                let min = min + (next - min) % step;
                Source::Steps { next, max, up: 0, down: 0, min, step }
            }
        };
        let mut field = Field { at, width, source, fixed, in_ip: false, in_l4: false };
        field.deal(0, 1);
        field
    }

    /// Of its values take every `parts`th, from the `part`th on. Random ones are not dealt.
    pub(super) fn deal(&mut self, part: u64, parts: u64) {
        let Source::Steps { next, max, up, down, min, step } = &mut self.source else { return };
        let count = u128::from((*max - *min) / *step) + 1;
        // Of these none is as large as the count, nor is a product beyond the highest value.
        let first = (u128::from((*next - *min) / *step) + u128::from(part)) % count;
        let stride = u128::from(parts) % count;
        *next = *min + first as u64 * *step;
        *up = stride as u64 * *step;
        // Modulo 2^64, as it is added.
        *down = up.wrapping_sub((count as u64).wrapping_mul(*step));
    }

    /// Random bits, where a frame has those.
    pub(super) fn of_bits(frame: &[u8], at: usize, mask: &[u8]) -> Field {
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let (others, mask) = (word(&frame[at..at + mask.len()]), mask);
        let (width, mask) = (mask.len(), word(mask));
        let source = Source::Bits { others: others & !mask, mask };
        Field { at, width, source, fixed: 0, in_ip: false, in_l4: false }
    }

    /// The same, as part of what the checksums of IP and of TCP or UDP are of.
    pub(super) fn counting(self, in_ip: bool, in_l4: bool) -> Field {
        Field { in_ip, in_l4, ..self }
    }

    /// The next value.
    #[inline]
    fn next(&mut self, random: &mut Random) -> u64 {
        let value = match &mut self.source {
            Source::Steps { next, max, up, down, .. } => {
                let value = *next;
                *next = value.wrapping_add(if *max - value < *up { *down } else { *up });
                value
            }
            Source::Random { min, count } => *min + random.below(*count),
            Source::Bits { others, mask } => *others | random.next() & *mask,
        };
        value | self.fixed
    }

    /// Write the next value; returns what it adds to a checksum it counts in.
    #[inline]
    pub(super) fn write(&mut self, frame: &mut [u8], random: &mut Random) -> u64 {
        let value = self.next(random);
        let bytes = value.to_be_bytes();
        if let Some(to) = frame.get_mut(self.at..self.at + self.width) {
            // Each a move or two.
            match self.width {
                2 => to.copy_from_slice(&bytes[6..]),
                4 => to.copy_from_slice(&bytes[4..]),
                6 => to.copy_from_slice(&bytes[2..]),
                8 => to.copy_from_slice(&bytes),
                width => to.copy_from_slice(&bytes[8 - width..]),
            }
        }
        // A field that ends in the middle of a 16-bit word is the upper half there.
        u64::from(sum::fold(value)) << (8 * ((self.at + self.width) & 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(range: &str, count: usize) -> Vec<u16> {
        let mut field = Field::of_range(&range.parse::<Range<u16>>().unwrap(), 1, 2, 0);
        let mut random = Random::new(1);
        let mut frame = [0; 4];
        let value = |_| {
            field.write(&mut frame, &mut random);
            u16::from_be_bytes([frame[1], frame[2]])
        };
        (0..count).map(value).collect()
    }

    #[test]
    fn steps_go_round_and_random_values_reach_both_ends() {
        assert_eq!(values("3-9/4", 5), [3, 7, 3, 7, 3]);
        assert_eq!(values("65534-65535", 3), [65534, 65535, 65534]);
        let random = values("random 5-8", 1000);
        assert!(
            (5..=8).all(|value| random.contains(&value))
                && random.iter().all(|value| (5..=8).contains(value))
        );
        let start = Range { start: 8, ..Range { min: 1u16, max: 9, start: 1, step: 3, random: false } };
        let mut field = Field::of_range(&start, 0, 2, 0);
        let mut random = Random::new(1);
        assert_eq!([(); 4].map(|()| field.next(&mut random)), [8, 2, 5, 8]);
    }

    #[test]
    fn parts_have_together_what_the_whole_has_each_value_in_its_turn() {
        let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let of = |min: &str, max: &str, start: &str, step| {
            let (min, max, start) = (address(min), address(max), address(start));
            Field::of_range(&Range { min, max, start, step, random: false }, 0, 8, 0)
        };
        let mut random = Random::new(1);
        for whole in [
            of("10.0.0.1", "10.0.0.254", "10.0.0.1", 1),
            of("10.0.0.1", "10.0.0.7", "10.0.0.6", 1),
            of("10.0.0.0", "10.0.0.255", "10.0.0.7", 2),
            of("10.0.0.0", "10.0.0.255", "10.0.0.0", 300),
            of("::fffe", "::ffff", "::ffff", 1),
            of("::", "::ffff:ffff:ffff:ffff", "::ffff:ffff:ffff:fffd", 1),
            of("::2", "::ffff:ffff:ffff:ffff", "::ffff:ffff:ffff:fff0", 3),
        ] {
            for parts in [1, 2, 3, 4, 7, 16] {
                let mut dealt = vec![whole.clone(); parts as usize];
                dealt.iter_mut().zip(0..).for_each(|(field, part)| field.deal(part, parts));
                let mut whole = whole.clone();
                for number in 0..3000 {
                    let expected = whole.next(&mut random);
                    let one = &mut dealt[number % parts as usize];
                    assert_eq!(one.next(&mut random), expected, "{number} of {parts}: {one:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_field_adds_is_what_its_bytes_sum_to() {
        let mut random = Random::new(7);
        for at in 0..4 {
            for width in 1..=8 {
                let mut frame = [0; 12];
                let mut field = Field::of_bits(&frame, at, &[0xff; 8][..width]);
                let added = field.write(&mut frame, &mut random);
                assert_eq!(sum::fold(added), sum::fold(sum::of(&frame)), "{width} bytes at {at}");
            }
        }
    }

    #[test]
    fn only_the_bits_of_a_mask_change() {
        let mut frame = [0xaa; 8];
        let mut field = Field::of_bits(&frame, 2, &[0x0f, 0x80]);
        let mut random = Random::new(3);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            field.write(&mut frame, &mut random);
            assert_eq!((frame[2] & 0xf0, frame[3] & 0x7f), (0xa0, 0x2a));
            seen.insert([frame[2], frame[3]]);
        }
        assert_eq!(seen.len(), 32);
        assert!(frame[..2].iter().chain(&frame[4..]).all(|byte| *byte == 0xaa));
    }
}
