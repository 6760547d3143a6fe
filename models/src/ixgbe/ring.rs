//! A descriptor ring as the card sees it: where it is, how far driver and card are, and descriptors read ahead.

use super::bus::Bus;
use super::registers::Registers;

/// Offsets in a queue's block of registers.
pub(super) const BAL: u32 = 0x00;
/// Base address, upper half.
pub(super) const BAH: u32 = 0x04;
/// Bytes of the ring.
pub(super) const LEN: u32 = 0x08;
/// Head: the card's.
pub(super) const HEAD: u32 = 0x10;
/// Tail: the driver's.
pub(super) const TAIL: u32 = 0x18;
/// Descriptor control.
pub(super) const CONTROL: u32 = 0x28;
/// Descriptor control: queue enabled.
pub(super) const ENABLE: u32 = 1 << 25;

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR: usize = 16;
/// Descriptors read in one go.
const AHEAD: usize = 32;

/// A ring. Invariant: `head` and `tail` are below `size`, or the ring is stalled.
#[derive(Debug)]
pub(super) struct Ring {
    /// Offset of the queue's registers.
    pub(super) block: u32,
    base: u64,
    size: u32,
    head: u32,
    tail: u32,
    /// It cannot go on: an address is wrong, or an index. A new tail, or bus mastering on again, gives it another chance.
    stalled: bool,
    ahead: [u8; AHEAD * DESCRIPTOR],
    ahead_first: u32,
    ahead_count: u32,
}

/// A descriptor as two 64-bit words.
pub(super) type Descriptor = [u64; 2];

impl Ring {
    /// A ring whose registers are at an offset.
    pub(super) fn new(block: u32) -> Self {
        Self {
            block,
            base: 0,
            size: 0,
            head: 0,
            tail: 0,
            stalled: true,
            ahead: [0; AHEAD * DESCRIPTOR],
            ahead_first: 0,
            ahead_count: 0,
        }
    }

    /// Take over what the queue's registers say.
    pub(super) fn load(&mut self, registers: &Registers) {
        let get = |offset| registers.get(self.block + offset);
        self.base = ((get(BAH) as u64) << 32 | get(BAL) as u64) & !0x7f;
        self.size = (get(LEN) & 0xf_ff80) / DESCRIPTOR as u32;
        self.head = get(HEAD) & 0xffff;
        let tail = get(TAIL);
        self.ahead_count = 0;
        self.set_tail(tail);
    }

    /// The driver moved the tail.
    #[inline]
    pub(super) fn set_tail(&mut self, tail: u32) {
        self.tail = tail & 0xffff;
        self.stalled = self.tail >= self.size || self.head >= self.size;
    }

    /// The tail that was last taken over.
    #[inline]
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// The descriptor that the card is at.
    #[inline]
    pub(super) fn head(&self) -> u32 {
        self.head
    }

    /// Descriptors of the whole ring.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Descriptors that the card has.
    #[inline]
    pub(super) fn available(&self) -> u32 {
        if self.stalled {
            0
        } else if self.tail >= self.head {
            self.tail - self.head
        } else {
            self.tail + self.size - self.head
        }
    }

    /// Where a descriptor is, `n` after the head; `n` is less than `available()`.
    #[inline]
    pub(super) fn address(&self, n: u32) -> u64 {
        let mut index = self.head + n;
        if index >= self.size {
            index -= self.size;
        }
        self.base.wrapping_add(index as u64 * DESCRIPTOR as u64)
    }

    /// The descriptor `n` after the head, `n` less than `available()`. Stalls the ring if it cannot be read.
    #[inline]
    pub(super) fn get(&mut self, bus: &mut Bus<'_>, n: u32) -> Option<Descriptor> {
        let mut index = self.head + n;
        if index >= self.size {
            index -= self.size;
        }
        let mut at = index.wrapping_sub(self.ahead_first);
        if at >= self.ahead_count {
            let until = if self.tail > index { self.tail } else { self.size };
            let count = ((until - index) as usize).min(AHEAD);
            let bytes = &mut self.ahead[..count * DESCRIPTOR];
            let address = self.base.wrapping_add(index as u64 * DESCRIPTOR as u64);
            if bus.read(address, bytes).is_err() {
                self.ahead_count = 0;
                self.stalled = true;
                return None;
            }
            self.ahead_first = index;
            self.ahead_count = count as u32;
            at = 0;
        }
        let at = at as usize * DESCRIPTOR;
        let word = |at: usize| u64::from_le_bytes(self.ahead[at..at + 8].try_into().unwrap_or_default());
        Some([word(at), word(at + 8)])
    }

    /// The card is done with so many descriptors, at most `available()`.
    #[inline]
    pub(super) fn advance(&mut self, n: u32) {
        self.head += n;
        if self.head >= self.size {
            self.head -= self.size;
            // The next lap's descriptors are others.
            self.ahead_count = 0;
        }
    }

    /// Take the last `advance` back.
    pub(super) fn back(&mut self, n: u32) {
        self.head = (self.head + self.size - n) % self.size.max(1);
        self.ahead_count = 0;
    }

    /// Another chance for a stalled ring.
    pub(super) fn retry(&mut self) {
        self.set_tail(self.tail);
    }
}
