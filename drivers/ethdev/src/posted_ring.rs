//! The descriptor ring of a receive queue: every descriptor has a fragment posted.

// The receive loop walks descriptors and slots by pointer, and completes packets whose length it has compared itself.
#![allow(unsafe_code)]

use std::sync::atomic::{Ordering, fence};

use pagewire_pci::AddressSpace;
use pagewire_pool::{Batch, Burst, Packet, PacketFlags, Posted};

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
    /// Bytes of data that it holds after the headroom, as far as a length goes.
    room: u16,
}

impl PostedRing {
    /// Post each of `fragments`, whose number is a power of two. Data is to lie `headroom` bytes into each, which is no
    /// longer than any of them.
    ///
    /// # Errors
    ///
    /// [`Error::Pci`] if there is no memory for the descriptors.
    pub fn new(space: &AddressSpace, fragments: Vec<Posted>, headroom: u16) -> Result<PostedRing, Error> {
        let smallest = fragments.iter().map(Posted::size).min().unwrap_or(0);
        let iovas: Vec<u64> = fragments.iter().map(|fragment| data(fragment, headroom)).collect();
        let mut ring = DescriptorRing::new(space, fragments)?;
        let mut view = ring.view();
        for (index, iova) in iovas.into_iter().enumerate() {
            view.write(index as u32, [iova, 0]);
        }
        let room = smallest.checked_sub(headroom.into()).expect("a fragment is longer than the headroom");
        Ok(PostedRing { ring, headroom, smallest, room: room.try_into().unwrap_or(u16::MAX) })
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

    /// Descriptors from `index` to the end of the ring.
    #[inline(always)]
    pub fn straight(&mut self, index: u32) -> usize {
        self.ring.view().straight(index)
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
        let iova = data(&fresh, self.headroom);
        let mut view = self.ring.view();
        view.write(index, [iova, 0]);
        Ok(std::mem::replace(view.slot(index), fresh))
    }

    /// The receive loop: from `index` on, take descriptors for as long as `accept` finds the length of a whole packet in their
    /// second word that is no more than `longest`, post a fragment of `fresh` in the place of each, and add the packets to `out`.
    /// Returns how many, and their bytes. Takes none for fragments that [`replace`](PostedRing::replace) would not post.
    ///
    /// With `DESCRIBE` the packet and both words go to `describe`. `fresh` has no more fragments than there are descriptors
    /// [to the end of the ring](PostedRing::straight): the loop has no index to mask. Nor does it ask a fragment for its size: what
    /// is longer than the smallest of them can hold is left for [`replace`](PostedRing::replace).
    #[inline(always)]
    pub fn exchange<const DESCRIBE: bool>(
        &mut self,
        index: u32,
        fresh: &mut Batch<'_>,
        out: &mut Burst,
        longest: u16,
        mut accept: impl FnMut(u64) -> Option<u16>,
        mut describe: impl FnMut([u64; 2], &mut Packet),
    ) -> (usize, u64) {
        if fresh.fragment_size() < self.smallest {
            return (0, 0);
        }
        let (headroom, longest) = (self.headroom, longest.min(self.room));
        let mut view = self.ring.view();
        assert!(fresh.len() <= view.straight(index), "more fragments than descriptors");
        let (mut descriptor, mut slot) = (view.words(index), view.slot_ptr(index));
        let mut bytes = 0;
        let taken = out.fill(fresh, |fragment| {
            // SAFETY: `fill` calls this no more often than `fresh` has fragments, so that neither pointer is beyond the end of the
            // ring; in bounds and aligned; the device may write it meanwhile, hence volatile.
            let status = u64::from_le(unsafe { descriptor.add(1).read_volatile() });
            let len = accept(status).filter(|len| *len <= longest)?;
            // What the device wrote before it is visible from here on.
            fence(Ordering::Acquire);
            // SAFETY: as above.
            let first = if DESCRIBE { u64::from_le(unsafe { descriptor.read_volatile() }) } else { 0 };
            let fragment = fragment.take();
            let iova = data(&fragment, headroom);
            // SAFETY: as above; the slot is borrowed by the view. The fragment that was in it is at least `smallest` bytes long, which
            // is no less than `headroom + longest`. Both pointers advance to the next or to one past the last.
            let mut packet = unsafe {
                descriptor.write_volatile(iova.to_le());
                descriptor.add(1).write_volatile(0);
                let filled = slot.replace(fragment);
                (descriptor, slot) = (descriptor.add(2), slot.add(1));
                filled.complete_unchecked(headroom, len, PacketFlags::empty())
            };
            // By way of 32 bits, as the record wants it: one conversion for both.
            bytes += u64::from(u32::from(len));
            if DESCRIBE {
                describe([first, status], &mut packet);
            }
            Some(packet)
        });
        (taken, bytes)
    }

    /// The driver's side of a test: write a descriptor as the device would.
    #[cfg(test)]
    pub(crate) fn write(&mut self, index: u32, words: [u64; 2]) {
        self.ring.view().write(index, words);
    }
}

/// Where a fragment's data is for the device.
#[inline(always)]
fn data(fragment: &Posted, headroom: u16) -> u64 {
    fragment.iova() + u64::from(headroom)
}
