//! The free ranges of an address window.

use std::collections::BTreeMap;

/// A set of free ranges, never overlapping and never touching: neighbours are merged.
pub(crate) struct Ranges {
    /// First byte of a range → its length, which is never 0.
    free: BTreeMap<usize, usize>,
}

impl Ranges {
    /// One free range, `0..len`.
    pub(crate) fn new(len: usize) -> Self {
        Ranges { free: (len > 0).then_some((0, len)).into_iter().collect() }
    }

    /// Takes the lowest `len` bytes that start on a multiple of `align`, which is a power of two.
    pub(crate) fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        debug_assert!(len > 0 && align.is_power_of_two());
        let (start, end, first) = self.free.iter().find_map(|(&start, &free)| {
            let first = start.checked_next_multiple_of(align)?;
            (first.checked_add(len)? <= start + free).then_some((start, start + free, first))
        })?;
        self.free.remove(&start);
        if first > start {
            self.free.insert(start, first - start);
        }
        if end > first + len {
            self.free.insert(first + len, end - first - len);
        }
        Some(first)
    }

    /// Gives back a range that [`take`](Self::take) handed out.
    pub(crate) fn give(&mut self, mut start: usize, mut len: usize) {
        if let Some((&before, &before_len)) = self.free.range(..start).next_back()
            && before + before_len == start
        {
            self.free.remove(&before);
            start = before;
            len += before_len;
        }
        if let Some(after_len) = self.free.remove(&(start + len)) {
            len += after_len;
        }
        self.free.insert(start, len);
    }

    /// Length of the longest free range.
    pub(crate) fn longest(&self) -> usize {
        self.free.values().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same allocator, one `bool` a byte.
    struct Oracle(Vec<bool>);

    impl Oracle {
        fn take(&mut self, len: usize, align: usize) -> Option<usize> {
            let start = (0..self.0.len()).step_by(align).find(|&start| {
                self.0.get(start..start + len).is_some_and(|bytes| bytes.iter().all(|used| !used))
            })?;
            self.0[start..start + len].fill(true);
            Some(start)
        }

        fn longest(&self) -> usize {
            self.0.split(|used| *used).map(<[bool]>::len).max().unwrap_or(0)
        }
    }

    #[test]
    fn random_takes_and_gives_match_a_map_of_bytes() {
        const LEN: usize = 300;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |bound: usize| {
            // xorshift64: the same walk on every run.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % bound as u64) as usize
        };
        let (mut ranges, mut oracle) = (Ranges::new(LEN), Oracle(vec![false; LEN]));
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let mut refused = 0;
        for _ in 0..50_000 {
            if taken.is_empty() || below(100) < 52 {
                let (len, align) = (1 + below(40), 1 << below(6));
                let start = ranges.take(len, align);
                assert_eq!(start, oracle.take(len, align), "take({len}, {align}) with {taken:?} taken");
                match start {
                    Some(start) => taken.push((start, len)),
                    None => refused += 1,
                }
            } else {
                let (start, len) = taken.swap_remove(below(taken.len()));
                ranges.give(start, len);
                oracle.0[start..start + len].fill(false);
            }
            assert_eq!(ranges.longest(), oracle.longest());
        }
        assert!(refused > 1_000, "the walk has to meet a full window often, and met it {refused} times");
        for (start, len) in taken {
            ranges.give(start, len);
        }
        assert_eq!(ranges.free, BTreeMap::from([(0, LEN)]), "all given back is one range again");
    }

    #[test]
    fn a_length_near_the_end_of_the_address_space_does_not_wrap() {
        let mut ranges = Ranges::new(1 << 20);
        assert_eq!(ranges.take(usize::MAX, 1), None);
        assert_eq!(ranges.take(usize::MAX - 4095, 4096), None);
        assert_eq!(ranges.take(1 << 20, 1 << 20), Some(0));
        assert_eq!(Ranges::new(0).take(1, 1), None);
    }
}
