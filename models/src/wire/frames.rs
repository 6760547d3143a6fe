//! A queue of frames in one piece of memory.

/// Frames one after the other, in a buffer that is reused: no allocation once it has grown.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    lengths: Vec<u32>,
    first: usize,
    start: usize,
}

impl Frames {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == self.lengths.len()
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.lengths.len() - self.first
    }

    /// Their bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Add one at the end.
    #[inline]
    pub fn push(&mut self, frame: &[u8]) {
        if self.start > self.bytes.len() / 2 && self.start >= 1 << 16 {
            self.bytes.drain(..self.start);
            self.lengths.drain(..self.first);
            (self.start, self.first) = (0, 0);
        }
        self.bytes.extend_from_slice(frame);
        self.lengths.push(frame.len() as u32);
    }

    /// The first one.
    #[inline]
    pub fn front(&self) -> Option<&[u8]> {
        let length = *self.lengths.get(self.first)? as usize;
        Some(&self.bytes[self.start..self.start + length])
    }

    /// Drop the first one.
    #[inline]
    pub fn pop(&mut self) {
        if let Some(&length) = self.lengths.get(self.first) {
            self.first += 1;
            self.start += length as usize;
        }
        if self.is_empty() {
            self.clear();
        }
    }

    /// Drop all.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.lengths.clear();
        (self.start, self.first) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_however_much_passes() {
        let mut frames = Frames::new();
        let mut expected = std::collections::VecDeque::new();
        for n in 0..20_000u32 {
            let frame = vec![n as u8; 1 + n as usize % 97];
            frames.push(&frame);
            expected.push_back(frame);
            if n % 3 != 0 {
                assert_eq!(frames.front(), expected.pop_front().as_deref());
                frames.pop();
            }
            assert_eq!(frames.bytes(), expected.iter().map(Vec::len).sum::<usize>());
        }
        while let Some(frame) = expected.pop_front() {
            assert_eq!(frames.front(), Some(&frame[..]));
            frames.pop();
        }
        assert!(frames.is_empty() && frames.front().is_none());
        frames.pop();
    }
}
