//! The descriptor ring of a transmit queue: the packets on their way out.

// The transmit loop writes descriptors by pointer, and packets that were sent are moved out of their slots unseen.
#![allow(unsafe_code)]

mod vector;

use std::mem::MaybeUninit;

use pagewire_pci::AddressSpace;
use pagewire_pool::{Burst, Drain, Packet, Plain, release_alike, release_bulk};

use crate::error::Error;
use crate::ring::DescriptorRing;

/// A [`DescriptorRing`] of packets being sent. Each packet is kept at its last descriptor until that is released.
///
/// Positions count on without end; the ring takes them modulo its length.
pub struct TransmitRing {
    /// Slots from `clean` to before `tail` have been written; what is in the others is nobody's.
    ring: DescriptorRing<MaybeUninit<Option<Packet>>>,
    tail: u32,
    clean: u32,
    /// How far a run goes: from `tail` to there descriptors are free, and the ring does not end before.
    stop: u32,
    shortest: u32,
    longest: u32,
    /// What every slot from `alike_from` to before `tail` holds a packet of.
    alike: Plain,
    alike_from: u32,
    /// Set only where the CPU has AVX2.
    vector: bool,
}

impl TransmitRing {
    /// A ring of that many zeroed descriptors, a power of two. Packets from `shortest` to `longest` bytes can be sent as they are.
    ///
    /// # Errors
    ///
    /// [`Error::Pci`] if there is no memory for them.
    pub fn new(
        space: &AddressSpace,
        descriptors: u32,
        shortest: u32,
        longest: u32,
    ) -> Result<TransmitRing, Error> {
        let slots = (0..descriptors).map(|_| MaybeUninit::uninit()).collect();
        let ring = DescriptorRing::new(space, slots)?;
        Ok(TransmitRing {
            ring,
            tail: 0,
            clean: 0,
            stop: 0,
            shortest,
            longest,
            alike: Plain::NONE,
            alike_from: 0,
            vector: false,
        })
    }

    /// Where the device finds the first descriptor.
    pub fn iova(&self) -> u64 {
        self.ring.iova()
    }

    /// Bytes of the ring, as length registers want them.
    pub fn bytes(&self) -> u32 {
        self.ring.bytes()
    }

    /// Number of descriptors.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a ring is never empty")]
    pub fn len(&self) -> u32 {
        self.ring.len()
    }

    /// Next descriptor to write.
    #[inline(always)]
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// What a tail register takes.
    #[inline(always)]
    pub fn tail_index(&self) -> u32 {
        self.ring.index(self.tail)
    }

    /// Oldest descriptor not yet released.
    #[inline(always)]
    pub fn clean(&self) -> u32 {
        self.clean
    }

    /// Descriptors free. One stays unused: head equal to tail means an empty ring.
    #[inline(always)]
    pub fn free(&self) -> u32 {
        self.len() - 1 - self.tail.wrapping_sub(self.clean)
    }

    /// Read a descriptor's first or second word. What the device wrote before it is visible afterwards.
    #[inline(always)]
    pub fn read<const WORD: usize>(&mut self, position: u32) -> u64 {
        self.ring.view().read::<WORD>(position)
    }

    /// Set bits in a word of the descriptor written last, which the device does not own before the doorbell.
    #[inline(always)]
    pub fn set_last<const WORD: usize>(&mut self, bits: u64) {
        self.ring.view().set::<WORD>(self.tail.wrapping_sub(1), bits);
    }

    /// Write a descriptor, the last of the packet that comes with it if one does. There is one free.
    pub fn write(&mut self, words: [u64; 2], packet: Option<Packet>) {
        assert!(self.free() > 0, "a descriptor is written before it was released");
        let mut view = self.ring.view();
        view.write(self.tail, words);
        view.slot(self.tail).write(packet);
        self.tail = self.tail.wrapping_add(1);
        (self.alike_from, self.stop) = (self.tail, self.tail);
    }

    /// Whether [`send`](TransmitRing::send) takes the packet: it is [plain](Plain), and from now on of the pool that is expected.
    pub fn expect(&mut self, packet: &Packet) -> bool {
        let alike = Plain::like(packet, self.shortest, self.longest);
        if !alike.includes(packet) {
            return false;
        }
        if alike != self.alike {
            (self.alike, self.alike_from) = (alike, self.tail);
        }
        true
    }

    /// The transmit loop: write the descriptors that `encode` makes of packets from the front of `packets`, one each. Ends at the first
    /// that is not [expected](TransmitRing::expect), and with the [run](TransmitRing::begin_run). Returns how many.
    #[inline(always)]
    pub fn send(&mut self, packets: &mut Drain<'_>, mut encode: impl FnMut(&Packet) -> [u64; 2]) -> usize {
        let (alike, count) = (self.alike, self.left() as usize);
        let mut view = self.ring.view();
        let words = view.words(self.tail);
        // SAFETY: `count` slots from there on are within the ring, and borrowed by the view.
        let slots = unsafe { std::slice::from_raw_parts_mut(view.slot_ptr(self.tail), count) };
        let sent = packets.hand_over(slots, |number, packet| {
            if !alike.includes(packet) {
                return false;
            }
            let [first, second] = encode(packet);
            // SAFETY: `number` is below the number of slots; the device may read it meanwhile, hence volatile.
            unsafe {
                words.add(number * 2).write_volatile(first.to_le());
                words.add(number * 2 + 1).write_volatile(second.to_le());
            }
            true
        });
        self.tail = self.tail.wrapping_add(sent as u32);
        sent
    }

    /// [`send`](TransmitRing::send) from the front of a burst in fours, as far as all four are expected: for a ring that
    /// [uses vector instructions](TransmitRing::use_vector), and nothing in others. A descriptor's second word is `word`, with the packet's
    /// length in it, and once more from bit `shift` on, or not if that is 64. Returns how many, and their bytes.
    #[inline(always)]
    pub fn send_vector(&mut self, packets: &mut Burst, word: u64, shift: u32) -> (usize, u64) {
        if self.vector {
            // SAFETY: the CPU has AVX2.
            return unsafe { self.send_fours(packets, word, shift) };
        }
        (0, 0)
    }

    /// Use vector instructions from now on, if they are `wanted` and the CPU has those it takes.
    ///
    /// # Errors
    ///
    /// Why they are not used.
    pub fn use_vector(&mut self, wanted: bool) -> Result<(), &'static str> {
        crate::vector::allowed(wanted)?;
        self.vector = true;
        Ok(())
    }

    /// Begin a run of at most `count` packets: as far as descriptors are free, up to the end of the ring. Returns how many.
    #[inline(always)]
    pub fn begin_run(&mut self, count: u32) -> u32 {
        let straight = self.len() - self.ring.index(self.tail);
        let count = count.min(self.free()).min(straight);
        self.stop = self.tail.wrapping_add(count);
        count
    }

    /// Packets that are left in the run.
    #[inline(always)]
    pub fn left(&self) -> u32 {
        self.stop.wrapping_sub(self.tail)
    }

    /// One step of the [transmit loop](TransmitRing::send), for a burst of one packet that is expected, as long as more than `but` are left
    /// in the [run](TransmitRing::begin_run). Returns whether it was that.
    #[inline(always)]
    pub fn send_one(
        &mut self,
        packets: &mut Burst,
        but: u32,
        encode: impl FnOnce(&Packet) -> [u64; 2],
    ) -> bool {
        if self.left() <= but {
            return false;
        }
        let Some(packet) = packets.take_only(|packet| self.alike.includes(packet)) else { return false };
        let mut view = self.ring.view();
        view.write(self.tail, encode(&packet));
        view.slot(self.tail).write(Some(packet));
        self.tail = self.tail.wrapping_add(1);
        true
    }

    /// Release what is before a position, which the device has done with: one that was written and not yet released.
    #[inline(always)]
    pub fn release(&mut self, position: u32) {
        let (clean, count) = (self.clean, position.wrapping_sub(self.clean));
        assert!(count <= self.tail.wrapping_sub(clean), "released before it was written");
        self.clean = position;
        let straight = self.ring.view().straight(clean) as u32;
        if count > straight {
            self.release_wrapped(clean, straight, count);
        } else {
            self.release_straight(clean, count);
        }
    }

    /// [`release`](TransmitRing::release) slots on both sides of the ring's end.
    #[cold]
    #[inline(never)]
    fn release_wrapped(&mut self, position: u32, straight: u32, count: u32) {
        self.release_straight(position, straight);
        self.release_straight(position.wrapping_add(straight), count - straight);
    }

    /// [`release`](TransmitRing::release) `count` slots, which end before the ring does, and before `clean`.
    #[inline(always)]
    fn release_straight(&mut self, position: u32, count: u32) {
        let alike = self.alike_from.wrapping_sub(position).wrapping_sub(1) >= self.len();
        let slots: *mut Option<Packet> = self.ring.view().slot_ptr(position).cast();
        match alike {
            // SAFETY: each holds a packet that is alike, and `clean` is beyond it by now; `Option<Packet>` has `Packet`'s layout.
            true => unsafe { release_alike(self.alike, slots.cast(), count as usize) },
            // SAFETY: they have been written, and `clean` is beyond them by now.
            false => release_bulk(unsafe { std::slice::from_raw_parts_mut(slots, count as usize) }),
        }
    }

    /// The packets in the ring, oldest first.
    pub fn packets(&self) -> impl Iterator<Item = &Packet> {
        let written = 0..self.tail.wrapping_sub(self.clean);
        // SAFETY: all of these have been written, and not yet released.
        let slot = |position| unsafe { self.ring.slot(self.clean.wrapping_add(position)).assume_init_ref() };
        written.filter_map(move |position| slot(position).as_ref())
    }
}

#[cfg(test)]
impl TransmitRing {
    /// The driver's side of a test: write a descriptor as the device would.
    pub(crate) fn put(&mut self, index: u32, words: [u64; 2]) {
        self.ring.view().write(index, words);
    }
}

impl Drop for TransmitRing {
    fn drop(&mut self) {
        self.release(self.tail);
    }
}
