//! The descriptor ring of a transmit queue: the packets on their way out.

// The transmit loop writes descriptors by pointer, and packets that were sent are moved out of their slots unseen.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use pagewire_pci::AddressSpace;
use pagewire_pool::{Drain, Packet, Plain, release_alike, release_bulk};

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
    shortest: u32,
    longest: u32,
    /// What every slot from `alike_from` to before `tail` holds a packet of.
    alike: Plain,
    alike_from: u32,
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
        Ok(TransmitRing { ring, tail: 0, clean: 0, shortest, longest, alike: Plain::NONE, alike_from: 0 })
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
        self.tail & (self.len() - 1)
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
        self.alike_from = self.tail;
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
    /// that is not [expected](TransmitRing::expect), after `count`, and where there is none free. Returns how many.
    #[inline(always)]
    pub fn send(
        &mut self,
        packets: &mut Drain<'_>,
        count: usize,
        mut encode: impl FnMut(&Packet) -> [u64; 2],
    ) -> usize {
        let alike = self.alike;
        let count = count.min(self.free() as usize);
        let mut view = self.ring.view();
        let count = count.min(view.straight(self.tail));
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

    /// Release what is before a position, which the device has done with: one that was written and not yet released.
    #[inline(always)]
    pub fn release(&mut self, position: u32) {
        let (clean, count) = (self.clean, position.wrapping_sub(self.clean));
        assert!(count <= self.tail.wrapping_sub(clean), "released before it was written");
        self.clean = position;
        let alike = self.alike_from.wrapping_sub(clean).wrapping_sub(1) >= self.len();
        for slots in self.ring.slots(clean, count) {
            match alike {
                // SAFETY: each holds a packet that is alike, and `clean` is beyond it by now; `Option<Packet>` has `Packet`'s layout.
                true => unsafe { release_alike(self.alike, slots.as_ptr().cast(), slots.len()) },
                // SAFETY: they have been written, and `clean` is beyond them by now.
                false => release_bulk(unsafe { slots.assume_init_mut() }),
            }
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
