//! The descriptor ring of a receive queue, with the pool that refills it: every descriptor has a fragment posted.

// The receive loops walk descriptors and slots by pointer, and complete packets whose length they have compared themselves.
#![allow(unsafe_code)]

mod vector;

use std::sync::atomic::{Ordering, fence};

use pagewire_pci::AddressSpace;
use pagewire_pool::{Burst, Packet, Pool, Posted};

use crate::error::Error;
use crate::ring::DescriptorRing;

/// A [`DescriptorRing`] of posted fragments. A posted descriptor's first word is the address of the fragment's data, its second
/// is zero; the device writes both. In the second it says when it is done, and in bits 32 to 47 how many bytes it wrote.
///
/// Descriptors are taken in turn, and each is posted anew when it is taken: without a fragment for it, it stays where it is.
pub struct PostedRing {
    ring: DescriptorRing<Posted>,
    pool: Pool,
    /// Next descriptor to look at. Counts on without end; the ring takes it modulo its length.
    next: u32,
    /// How far a run goes: for each descriptor from `next` to there the pool has a fragment at hand, not smaller than `smallest`. The ring does
    /// not end before.
    stop: u32,
    headroom: u32,
    /// Longest packet that the receive loops take: what the smallest fragment holds after the headroom, or less.
    longest: u64,
    /// Bytes of the smallest fragment that was posted at first: what the device has been promised. No smaller one follows.
    smallest: usize,
    /// Set only where the CPU has AVX2.
    vector: bool,
}

/// What the second word of a descriptor looks like that holds a whole packet of one fragment.
#[derive(Clone, Copy)]
pub struct Whole {
    /// Bits that are looked at, of the lower 32.
    pub mask: u32,
    /// How they are then.
    pub bits: u32,
}

impl Whole {
    /// The packet's length, if it is one and not longer.
    ///
    /// One comparison for both: rotated, what is not as it should be stands above the length.
    #[inline(always)]
    fn len(self, status: u64, longest: u64) -> Option<u64> {
        let looked_at = 0xffff << 32 | u64::from(self.mask);
        let len = (status & looked_at ^ u64::from(self.bits)).rotate_right(32);
        (len <= longest).then_some(len)
    }
}

/// Bytes that the device wrote, by a descriptor's second word.
#[inline(always)]
pub(crate) fn written(status: u64) -> u16 {
    (status >> 32) as u16
}

impl PostedRing {
    /// Post each of `fragments`, whose number is a power of two; `pool` refills the ring, and its headroom is left free before the data in
    /// each, which is no longer than any of them. The receive loops take packets of at most `longest` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Pci`] if there is no memory for the descriptors.
    pub fn new(
        space: &AddressSpace,
        pool: Pool,
        fragments: Vec<Posted>,
        longest: u16,
    ) -> Result<PostedRing, Error> {
        let smallest = fragments.iter().map(Posted::size).min().unwrap_or(0);
        let headroom = u32::from(pool.headroom());
        let iovas: Vec<u64> = fragments.iter().map(|fragment| data(fragment, headroom)).collect();
        let mut ring = DescriptorRing::new(space, fragments)?;
        let mut view = ring.view();
        for (index, iova) in iovas.into_iter().enumerate() {
            view.write(index as u32, [iova, 0]);
        }
        let room = smallest.checked_sub(headroom as usize).expect("a fragment is longer than the headroom");
        let longest = (room as u64).min(longest.into());
        Ok(PostedRing { ring, pool, next: 0, stop: 0, headroom, longest, smallest, vector: false })
    }

    /// Where the device finds the first descriptor.
    pub fn iova(&self) -> u64 {
        self.ring.iova()
    }

    /// The pool that refills it. Whoever puts another in its place gets no packets while that one's fragments are smaller than those that
    /// the ring began with: the device may write that much into each.
    pub fn pool(&mut self) -> &mut Pool {
        self.stop = self.next;
        &mut self.pool
    }

    /// Bytes before the data in each fragment.
    pub fn headroom(&self) -> u16 {
        self.headroom as u16
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

    /// Next descriptor to look at. Counts on without end.
    #[inline(always)]
    pub fn next(&self) -> u32 {
        self.next
    }

    /// What a tail register takes. It stays one descriptor behind the next: head equal to tail would mean an empty ring.
    #[inline(always)]
    pub fn tail_index(&self) -> u32 {
        self.ring.index(self.next.wrapping_sub(1))
    }

    /// Read the first or second word of the descriptor `ahead` of the next. What the device wrote before it is visible afterwards.
    #[inline(always)]
    pub fn read<const WORD: usize>(&mut self, ahead: u32) -> u64 {
        self.ring.view().read::<WORD>(self.next.wrapping_add(ahead))
    }

    /// Post another fragment in the next descriptor, which the device is done with. Returns the one that was there. `None` if the pool has
    /// none, or one that is too small.
    pub fn replace(&mut self) -> Option<Posted> {
        let fresh = self.pool().alloc().filter(|fragment| fragment.size() >= self.smallest)?;
        let mut view = self.ring.view();
        view.write(self.next, [data(&fresh, self.headroom), 0]);
        let done = std::mem::replace(view.slot(self.next), fresh);
        self.next = self.next.wrapping_add(1);
        self.stop = self.next;
        Some(done)
    }

    /// Take the next descriptor if it holds a whole packet that is not too long, within the [run](PostedRing::begin_run). Returns it with its
    /// bytes.
    #[inline(always)]
    pub fn take_one(&mut self, whole: Whole) -> Option<(Packet, u64)> {
        let next = self.next;
        if next == self.stop {
            return None;
        }
        let mut view = self.ring.view();
        let len = whole.len(view.read::<1>(next), self.longest)?;
        // SAFETY: there is one for each descriptor up to `stop`.
        let fragment = unsafe { self.pool.alloc_at_hand() };
        view.write(next, [data(&fragment, self.headroom), 0]);
        let done = std::mem::replace(view.slot(next), fragment);
        self.next = next.wrapping_add(1);
        // SAFETY: the fragment that was in the slot is at least `smallest` bytes long, which is no less than `headroom + longest`.
        Some((unsafe { done.complete_unchecked(self.headroom, len as u32) }, len))
    }

    /// Begin a run of at most `count` descriptors, as far as there are fragments for them: up to the end of the ring. Returns how many.
    #[inline(always)]
    pub fn begin_run(&mut self, count: u32) -> u32 {
        let straight = self.len() - self.ring.index(self.next);
        let count = if self.is_fit() { count.min(straight) } else { 0 };
        let count = self.pool.have_at_hand(count as usize) as u32;
        self.stop = self.next.wrapping_add(count);
        count
    }

    /// End the run where it is.
    #[inline(always)]
    pub fn end_run(&mut self) {
        self.stop = self.next;
    }

    /// Descriptors that are left in the run.
    #[inline(always)]
    pub fn left(&self) -> u32 {
        self.stop.wrapping_sub(self.next)
    }

    /// Whether the pool's fragments are not too small.
    #[inline(always)]
    fn is_fit(&self) -> bool {
        self.pool.fragment_size() >= self.smallest
    }

    /// The receive loop: take descriptors of the [run](PostedRing::begin_run) for as long as they hold whole packets that are not too long,
    /// post a fragment of the pool in the place of each, and add the packets to `out`, until that is full. Returns how many, and their
    /// bytes.
    ///
    /// With `DESCRIBE` the packet and both words go to `describe`. The loop has no index to mask, and asks no fragment for its size.
    #[inline(always)]
    pub fn take<const DESCRIBE: bool>(
        &mut self,
        out: &mut Burst,
        whole: Whole,
        mut describe: impl FnMut([u64; 2], &mut Packet),
    ) -> (usize, u64) {
        let (headroom, longest, left) = (self.headroom, self.longest, self.left() as usize);
        let mut view = self.ring.view();
        let (descriptors, slots) = (view.words(self.next), view.slot_ptr(self.next));
        let mut bytes = 0;
        let take = |fragments: *const Posted, packets: *mut Packet, count: usize| {
            let mut number = 0;
            while number < count {
                // SAFETY: there are `count` fragments, and so many descriptors and slots to the end of the ring, which are borrowed by the
                // view. The device may write the descriptor meanwhile, hence volatile.
                let (descriptor, slot, status) = unsafe {
                    let descriptor = descriptors.add(number * 2);
                    (descriptor, slots.add(number), u64::from_le(descriptor.add(1).read_volatile()))
                };
                let Some(len) = whole.len(status, longest) else { break };
                // What the device wrote before it is visible from here on.
                fence(Ordering::Acquire);
                // SAFETY: as above. The fragment that was in the slot is at least `smallest` bytes long, which is no less than
                // `headroom + longest`; there is room for `count` packets.
                unsafe {
                    let first = if DESCRIBE { u64::from_le(descriptor.read_volatile()) } else { 0 };
                    let fragment = fragments.add(number).read();
                    descriptor.write_volatile(data(&fragment, headroom).to_le());
                    descriptor.add(1).write_volatile(0);
                    let mut packet = slot.replace(fragment).complete_unchecked(headroom, len as u32);
                    if DESCRIBE {
                        describe([first, status], &mut packet);
                    }
                    packets.add(number).write(packet);
                }
                bytes += len;
                number += 1;
            }
            number
        };
        // SAFETY: each round moves a fragment out and writes a packet.
        let packets = unsafe { out.exchange(&mut self.pool, left, take) };
        self.next = self.next.wrapping_add(packets as u32);
        (packets, bytes)
    }

    /// [`take`](PostedRing::take) without metadata and in fours, as far as all four are whole packets: for a ring that
    /// [uses vector instructions](PostedRing::use_vector), and nothing in others.
    #[inline(always)]
    pub fn take_vector(&mut self, out: &mut Burst, whole: Whole) -> (usize, u64) {
        if self.vector {
            // SAFETY: the CPU has AVX2.
            return unsafe { self.take_fours(out, whole) };
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

    /// The driver's side of a test: write the descriptor `ahead` of the next as the device would.
    #[cfg(test)]
    pub(crate) fn write(&mut self, ahead: u32, words: [u64; 2]) {
        self.ring.view().write(self.next.wrapping_add(ahead), words);
    }
}

/// Where a fragment's data is for the device.
#[inline(always)]
fn data(fragment: &Posted, headroom: u32) -> u64 {
    fragment.iova() + u64::from(headroom)
}
