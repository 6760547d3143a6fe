//! Descriptor rings: the memory a card and its driver share, and what the driver keeps for each descriptor.

// Memory that a device reads and writes at any time: raw pointers and volatile access, bounded by a mask.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use pagewire_pci::{AddressSpace, DmaBuffer};

use crate::error::Error;

/// A ring of 16-byte descriptors, two little-endian words each, in memory that the device reaches; and for each
/// descriptor a slot out of its reach, for what it stands for. For packets there are [`PostedRing`](crate::PostedRing) and
/// [`TransmitRing`](crate::TransmitRing).
///
/// Every index is taken modulo the number of descriptors, so no index, wherever it comes from, is out of range.
pub struct DescriptorRing<T> {
    /// The buffer's first word, kept here because it is asked for in every burst.
    words: NonNull<u64>,
    slots: Box<[T]>,
    /// The number of descriptors less one.
    mask: usize,
    buffer: DmaBuffer,
}

// SAFETY: `words` points into the buffer, which the ring owns and which may be sent as well.
unsafe impl<T: Send> Send for DescriptorRing<T> {}

impl<T> DescriptorRing<T> {
    /// Bytes in a descriptor.
    pub const DESCRIPTOR: usize = 16;

    /// A zeroed descriptor for each of `slots`, whose number is a power of two (see [`crate::DescriptorLimits`]).
    ///
    /// # Errors
    ///
    /// [`Error::Pci`] if there is no memory for them.
    pub fn new(space: &AddressSpace, slots: Vec<T>) -> Result<DescriptorRing<T>, Error> {
        let count = slots.len();
        assert!(count.is_power_of_two(), "a ring of {count} descriptors");
        // Intel asks for 128-byte alignment; a page also keeps rings of different queues from sharing lines.
        let buffer = space.allocate_dma(count * Self::DESCRIPTOR, 4096)?;
        Ok(DescriptorRing {
            words: buffer.as_ptr().cast(),
            slots: slots.into_boxed_slice(),
            mask: count - 1,
            buffer,
        })
    }

    /// Where the device finds the first descriptor.
    pub fn iova(&self) -> u64 {
        self.buffer.iova()
    }

    /// Number of descriptors.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a ring is never empty")]
    pub fn len(&self) -> u32 {
        self.mask as u32 + 1
    }

    /// The descriptor's index, of a position that counts on without end.
    #[inline(always)]
    pub fn index(&self, position: u32) -> u32 {
        position & self.mask as u32
    }

    /// Bytes of the ring, as length registers want them.
    pub fn bytes(&self) -> u32 {
        self.len() * Self::DESCRIPTOR as u32
    }

    /// The ring as a hot loop wants it: few enough words to stay in registers.
    #[inline(always)]
    pub fn view(&mut self) -> RingView<'_, T> {
        RingView {
            words: self.words,
            mask: self.mask,
            slots: NonNull::from(&mut *self.slots).cast(),
            ring: PhantomData,
        }
    }

    /// The descriptor's slot.
    pub fn slot(&self, index: u32) -> &T {
        &self.slots[index as usize & self.mask]
    }
}

/// Access to a [`DescriptorRing`]; see [`DescriptorRing::view`].
pub struct RingView<'a, T> {
    words: NonNull<u64>,
    slots: NonNull<T>,
    mask: usize,
    ring: PhantomData<&'a mut DescriptorRing<T>>,
}

impl<T> RingView<'_, T> {
    #[inline(always)]
    pub(crate) fn words(&self, index: u32) -> *mut u64 {
        // SAFETY: the buffer has `mask + 1` descriptors of two words, and is borrowed by the view.
        unsafe { self.words.as_ptr().add((index as usize & self.mask) * 2) }
    }

    /// Read a descriptor's first or second word. What the device wrote before it is visible afterwards.
    #[inline(always)]
    pub fn read<const WORD: usize>(&self, index: u32) -> u64 {
        const { assert!(WORD < 2) };
        // SAFETY: in bounds and aligned; the device may write it meanwhile, hence volatile.
        let word = u64::from_le(unsafe { self.words(index).add(WORD).read_volatile() });
        // Nothing on x86; a load barrier where loads may pass one another.
        fence(Ordering::Acquire);
        word
    }

    /// Write a descriptor. The doorbell that tells the device orders it.
    #[inline(always)]
    pub fn write(&mut self, index: u32, words: [u64; 2]) {
        let descriptor = self.words(index);
        // SAFETY: in bounds and aligned; the device may read it meanwhile, hence volatile.
        unsafe {
            descriptor.write_volatile(words[0].to_le());
            descriptor.add(1).write_volatile(words[1].to_le());
        }
    }

    /// Set bits of one word of a descriptor that the device does not own yet.
    #[inline(always)]
    pub fn set<const WORD: usize>(&mut self, index: u32, bits: u64) {
        const { assert!(WORD < 2) };
        // SAFETY: in bounds and aligned; volatile as every access to the ring.
        unsafe {
            let word = self.words(index).add(WORD);
            word.write_volatile(word.read_volatile() | bits.to_le());
        }
    }

    /// Descriptors from `index` to the end of the ring.
    #[inline(always)]
    pub fn straight(&self, index: u32) -> usize {
        self.mask + 1 - (index as usize & self.mask)
    }

    #[inline(always)]
    pub(crate) fn slot_ptr(&mut self, index: u32) -> *mut T {
        // SAFETY: there are `mask + 1` slots.
        unsafe { self.slots.as_ptr().add(index as usize & self.mask) }
    }

    /// The descriptor's slot.
    #[inline(always)]
    pub fn slot(&mut self, index: u32) -> &mut T {
        // SAFETY: a slot, borrowed by the view, which `&mut self` borrows in turn.
        unsafe { &mut *self.slot_ptr(index) }
    }
}
