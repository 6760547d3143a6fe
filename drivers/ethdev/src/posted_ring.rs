//! The descriptor ring of a receive queue: every descriptor has a fragment posted.

// The receive loop walks descriptors and slots by pointer, and completes packets whose length it has compared itself.
#![allow(unsafe_code)]

use std::sync::atomic::{Ordering, fence};

use pagewire_pci::AddressSpace;
use pagewire_pool::{Burst, Packet, Pool, Posted};

use crate::error::Error;
use crate::ring::DescriptorRing;

/// A [`DescriptorRing`] of posted fragments. A posted descriptor's first word is the address of the fragment's data, its second
/// is zero; the device writes both, and says in the second when it is done.
///
/// As there, every index is taken modulo the number of descriptors.
pub struct PostedRing {
    ring: DescriptorRing<Posted>,
    headroom: u16,
    /// Bytes of the smallest fragment that was posted at first: what the device has been promised. No smaller one follows.
    smallest: usize,
    /// Longest packet that the receive loop takes: what the smallest holds after the headroom, or less.
    longest: u16,
}

impl PostedRing {
    /// Post each of `fragments`, whose number is a power of two. Data is to lie `headroom` bytes into each, which is no
    /// longer than any of them. The receive loop takes packets of at most `longest` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Pci`] if there is no memory for the descriptors.
    pub fn new(
        space: &AddressSpace,
        fragments: Vec<Posted>,
        headroom: u16,
        longest: u16,
    ) -> Result<PostedRing, Error> {
        let smallest = fragments.iter().map(Posted::size).min().unwrap_or(0);
        let iovas: Vec<u64> = fragments.iter().map(|fragment| data(fragment, headroom.into())).collect();
        let mut ring = DescriptorRing::new(space, fragments)?;
        let mut view = ring.view();
        for (index, iova) in iovas.into_iter().enumerate() {
            view.write(index as u32, [iova, 0]);
        }
        let room = smallest.checked_sub(headroom.into()).expect("a fragment is longer than the headroom");
        let longest = u16::try_from(room).unwrap_or(u16::MAX).min(longest);
        Ok(PostedRing { ring, headroom, smallest, longest })
    }

    /// Where the device finds the first descriptor.
    pub fn iova(&self) -> u64 {
        self.ring.iova()
    }

    /// Bytes before the data in each fragment.
    pub fn headroom(&self) -> u16 {
        self.headroom
    }

    /// Number of descriptors.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a ring is never empty")]
    pub fn len(&self) -> u32 {
        self.ring.len()
    }

    /// Bytes of the ring, as length registers want them.
    pub fn bytes(&self) -> u32 {
        self.ring.bytes()
    }

    /// Read a descriptor's first or second word. What the device wrote before it is visible afterwards.
    #[inline(always)]
    pub fn read<const WORD: usize>(&mut self, index: u32) -> u64 {
        self.ring.view().read::<WORD>(index)
    }

    /// Post another fragment in a descriptor that the device is done with. Returns the one that was there, or `fresh` itself if it
    /// is smaller than what the ring began with: the device may write that much into each.
    pub fn replace(&mut self, index: u32, fresh: Posted) -> Result<Posted, Posted> {
        if fresh.size() < self.smallest {
            return Err(fresh);
        }
        let iova = data(&fresh, self.headroom.into());
        let mut view = self.ring.view();
        view.write(index, [iova, 0]);
        Ok(std::mem::replace(view.slot(index), fresh))
    }

    /// The receive loop: from `index` on, take descriptors for as long as `accept` finds the length of a whole packet in their
    /// second word that is not too long, post a fragment of the pool in the place of each, and add the packets to `out`. It ends
    /// after `most` packets, where `out` is full or the pool empty, and at the end of the ring. Returns how many, and their bytes.
    ///
    /// With `DESCRIBE` the packet and both words go to `describe`. The loop has no index to mask, and asks no fragment for its size: a
    /// pool of fragments that [`replace`](PostedRing::replace) would not post is not taken from, and what is longer than the smallest
    /// of them can hold is left for it.
    #[inline(always)]
    pub fn exchange<const DESCRIBE: bool>(
        &mut self,
        index: u32,
        pool: &mut Pool,
        out: &mut Burst,
        most: usize,
        mut accept: impl FnMut(u64) -> Option<u16>,
        mut describe: impl FnMut([u64; 2], &mut Packet),
    ) -> (usize, u64) {
        let (headroom, longest) = (u32::from(self.headroom), u32::from(self.longest));
        let big_enough = pool.fragment_size() >= self.smallest;
        let mut view = self.ring.view();
        let (descriptors, slots) = (view.words(index), view.slot_ptr(index));
        let most = if big_enough { most.min(view.straight(index)) } else { 0 };
        let mut bytes = 0u32;
        let packets = out.fill(pool, most, |number, fragment| {
            // SAFETY: `number` is less than `most`, so that neither pointer is beyond the end of the ring.
            let (descriptor, slot) = unsafe { (descriptors.add(number * 2), slots.add(number)) };
            // SAFETY: in bounds and aligned; the device may write it meanwhile, hence volatile.
            let status = u64::from_le(unsafe { descriptor.add(1).read_volatile() });
            let len = accept(status).map(u32::from).filter(|len| *len <= longest)?;
            // What the device wrote before it is visible from here on.
            fence(Ordering::Acquire);
            // SAFETY: as above.
            let first = if DESCRIBE { u64::from_le(unsafe { descriptor.read_volatile() }) } else { 0 };
            let fragment = fragment.take();
            let iova = data(&fragment, headroom);
            // SAFETY: as above; the slot is borrowed by the view. The fragment that was in it is at least `smallest` bytes long, which
            // is no less than `headroom + longest`.
            let mut packet = unsafe {
                descriptor.write_volatile(iova.to_le());
                descriptor.add(1).write_volatile(0);
                slot.replace(fragment).complete_unchecked(headroom, len)
            };
            bytes += len;
            if DESCRIBE {
                describe([first, status], &mut packet);
            }
            Some(packet)
        });
        (packets, bytes.into())
    }

    /// The driver's side of a test: write a descriptor as the device would.
    #[cfg(test)]
    pub(crate) fn write(&mut self, index: u32, words: [u64; 2]) {
        self.ring.view().write(index, words);
    }
}

/// Where a fragment's data is for the device.
#[inline(always)]
fn data(fragment: &Posted, headroom: u32) -> u64 {
    fragment.iova() + u64::from(headroom)
}
