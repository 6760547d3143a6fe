//! A burst: up to a fixed number of packets that travel together.

// Moves packets in and out of a buffer without the bookkeeping of `Vec::drain`, which costs as much as a packet.
#![allow(unsafe_code)]

use std::arch::x86_64::{_mm256_loadu_si256, _mm256_storeu_si256};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut};

use crate::check;
use crate::magazine::release_bulk;
use crate::packet::{Packet, Posted};
use crate::pool::{Fresh, Pool};

/// Packets handed over in one call. Its capacity is set once and never grows.
#[derive(Debug)]
pub struct Burst {
    packets: Vec<Packet>,
}

impl Burst {
    /// The largest burst there can be.
    pub const MAX: usize = 4096;

    /// An empty burst with room for `capacity` packets, at least 1 and at most [`Burst::MAX`].
    pub fn new(capacity: usize) -> Burst {
        Burst { packets: Vec::with_capacity(capacity.clamp(1, Burst::MAX)) }
    }

    /// How many packets fit.
    #[inline(always)]
    pub fn capacity(&self) -> usize {
        self.packets.capacity()
    }

    /// How many more packets fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.packets.capacity() - self.packets.len()
    }

    /// Add a packet at the end, or give it back if the burst is full.
    #[inline(always)]
    pub fn push(&mut self, packet: Packet) -> Result<(), Packet> {
        let len = self.packets.len();
        if len == self.packets.capacity() {
            return Err(packet);
        }
        // SAFETY: `len` is within the capacity; the new length covers exactly what has been written.
        unsafe {
            self.packets.as_mut_ptr().add(len).write(packet);
            self.packets.set_len(len + 1);
        }
        Ok(())
    }

    /// Add the packets that `next` makes, until it makes none, there are `count`, the burst is full, or the pool has no fragment.
    /// Returns how many.
    ///
    /// `next` is told how many were added before, and lent a fragment, which it takes to put it in the place of the one it makes its
    /// packet from.
    #[inline(always)]
    pub fn fill(
        &mut self,
        pool: &mut Pool,
        count: usize,
        mut next: impl FnMut(usize, Fresh<'_>) -> Option<Packet>,
    ) -> usize {
        let count = count.min(self.room());
        let mut offer = pool.batch(count);
        let count = offer.len();
        let start = self.packets.len();
        let packets = self.packets.as_mut_ptr();
        let (mut added, mut taken) = (0, 0);
        // Should `next` panic, the fragments and what was added leak: nobody has them twice.
        let fragments = offer.take_all();
        while added < count {
            // SAFETY: each round takes one fragment at most, and there are `count`.
            let fragment = unsafe { fragments.add(taken).read() };
            let Some(packet) = next(added, Fresh { fragment, taken: &mut taken }) else { break };
            // SAFETY: start + added is within the capacity.
            unsafe { packets.add(start + added).write(packet) };
            added += 1;
        }
        // SAFETY: so many have been taken.
        unsafe { offer.give_back(fragments.add(taken)) };
        // SAFETY: that many packets have been written.
        unsafe { self.packets.set_len(start + added) };
        added
    }

    /// [`fill`](Burst::fill) for a receive loop that walks its arrays itself: `exchange` is lent up to `count` fragments of the pool that are
    /// [at hand](Pool::at_hand), room for as many packets behind those that are in the burst, and their number. Returns what it returns.
    ///
    /// # Safety
    ///
    /// As many as it returns, and no others, `exchange` has moved out of the front of the fragments, and written to the front of the room.
    #[inline(always)]
    pub unsafe fn exchange(
        &mut self,
        pool: &mut Pool,
        count: usize,
        exchange: impl FnOnce(*const Posted, *mut Packet, usize) -> usize,
    ) -> usize {
        let (count, start) = (count.min(pool.at_hand()).min(self.room()), self.packets.len());
        // SAFETY: start + count is within the capacity.
        let packets = unsafe { self.packets.as_mut_ptr().add(start) };
        // Should `exchange` panic, all of them leak: nobody has them twice.
        let fragments = pool.lend(count);
        let added = exchange(fragments.cast(), packets, count);
        debug_assert!(added <= count);
        if check::is_on() {
            // SAFETY: so many were lent; the entries are as they were.
            (0..added).for_each(|number| check::taken(unsafe { fragments.add(number).read() }));
        }
        // SAFETY: the caller's word: so many have been taken, so many packets written.
        unsafe {
            pool.give_back(count - added);
            self.packets.set_len(start + added);
        }
        added
    }

    /// Add the packet that `next` makes, if the burst has room for one and no more. Returns whether that was done.
    #[inline(always)]
    pub fn push_last(&mut self, next: impl FnOnce() -> Option<Packet>) -> bool {
        let len = self.packets.len() + 1;
        if len != self.packets.capacity() {
            return false;
        }
        let Some(packet) = next() else { return false };
        // SAFETY: `len` is the capacity; the new length covers exactly what has been written.
        unsafe {
            self.packets.as_mut_ptr().add(len - 1).write(packet);
            self.packets.set_len(len);
        }
        true
    }

    /// Take the packet of a burst of one, if `accept` says yes to it.
    #[inline(always)]
    pub fn take_only(&mut self, accept: impl FnOnce(&Packet) -> bool) -> Option<Packet> {
        let [packet] = self.packets.as_slice() else { return None };
        if !accept(packet) {
            return None;
        }
        // SAFETY: shortening is always allowed; the packet is the caller's from here on.
        unsafe {
            self.packets.set_len(0);
            Some(self.packets.as_ptr().read())
        }
    }

    /// Move packets from the front into `slots`, four at a time and `count` at most, as long as `accept` says yes to the first one's number
    /// and the four. Returns how many.
    ///
    /// # Safety
    ///
    /// So many slots can be written from `slots` on. What is in them is not dropped. The CPU has AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn hand_over_fours(
        &mut self,
        slots: *mut Packet,
        count: usize,
        mut accept: impl FnMut(usize, &[Packet; 4]) -> bool,
    ) -> usize {
        let len = self.packets.len();
        let count = count.min(len) & !3;
        let first = self.packets.as_mut_ptr();
        // SAFETY: shortening is always allowed. Should `accept` panic, they leak, and are not dropped twice.
        unsafe { self.packets.set_len(0) };
        let mut number = 0;
        while number != count {
            // SAFETY: in the buffer, and not yet taken.
            let four = unsafe { &*first.add(number).cast::<[Packet; 4]>() };
            if !accept(number, four) {
                break;
            }
            // SAFETY: as above, and the caller's word for the slots. From here on the packets are theirs.
            unsafe {
                _mm256_storeu_si256(slots.add(number).cast(), _mm256_loadu_si256(first.add(number).cast()))
            };
            number += 4;
        }
        if number != len {
            // SAFETY: so many are left.
            unsafe { self.keep(number, len - number) };
        }
        number
    }

    /// What is left are `count` packets from place `first` on: they move to the front.
    ///
    /// # Safety
    ///
    /// They are there, and the burst is empty.
    #[cold]
    #[inline(never)]
    unsafe fn keep(&mut self, first: usize, count: usize) {
        let packets = self.packets.as_mut_ptr();
        // SAFETY: the caller's word.
        unsafe {
            std::ptr::copy(packets.add(first), packets, count);
            self.packets.set_len(count);
        }
    }

    /// Drop all packets: a bulk return to their pools.
    #[inline]
    pub fn clear(&mut self) {
        let len = self.packets.len();
        if len == 0 {
            return;
        }
        // SAFETY: shortening is always allowed; the packets are the slice's from here on.
        unsafe { self.packets.set_len(0) };
        let packets = self.packets.as_mut_ptr().cast::<Option<Packet>>();
        // SAFETY: `len` packets are in the buffer and belong to nobody else; `Option<Packet>` has `Packet`'s layout, a
        // transparent non-null pointer.
        release_bulk(unsafe { std::slice::from_raw_parts_mut(packets, len) });
    }

    /// Take packets from the front; those that are not taken from the iterator stay in the burst, in order.
    #[inline(always)]
    pub fn drain(&mut self) -> Drain<'_> {
        let packets = self.packets.as_mut_ptr_range();
        // SAFETY: shortening is always allowed. Should the iterator be leaked, its packets are too: they do not dangle.
        unsafe { self.packets.set_len(0) };
        Drain { next: packets.start, end: packets.end, burst: self }
    }
}

impl Deref for Burst {
    type Target = [Packet];

    #[inline(always)]
    fn deref(&self) -> &[Packet] {
        &self.packets
    }
}

impl DerefMut for Burst {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [Packet] {
        &mut self.packets
    }
}

/// Packets on their way out of a burst; see [`Burst::drain`].
pub struct Drain<'a> {
    /// Packets from here to `end` are still in the burst's buffer, which is not changed as long as it is borrowed.
    next: *mut Packet,
    end: *mut Packet,
    burst: &'a mut Burst,
}

impl Drain<'_> {
    /// The packet that comes next, without taking it.
    #[inline(always)]
    pub fn peek(&self) -> Option<&Packet> {
        // SAFETY: `next` is in the buffer, and not yet taken.
        (self.next != self.end).then(|| unsafe { &*self.next })
    }

    /// Move packets into `slots`, one each in order, as long as `accept` says yes to the slot's number and the packet. Returns how
    /// many.
    ///
    /// The transmit loop of a driver.
    #[inline(always)]
    pub fn hand_over(
        &mut self,
        slots: &mut [MaybeUninit<Option<Packet>>],
        mut accept: impl FnMut(usize, &Packet) -> bool,
    ) -> usize {
        let count = slots.len().min(self.len());
        let first = self.next;
        // Taken for good once that is known. Should `accept` panic, they leak, and are not dropped twice.
        // SAFETY: there are `count`.
        self.next = unsafe { first.add(count) };
        let mut number = 0;
        while number < count {
            // SAFETY: in the buffer, since there are `count`, and not yet taken. What is not accepted is not dropped here.
            let packet = ManuallyDrop::new(unsafe { first.add(number).read() });
            if !accept(number, &packet) {
                break;
            }
            slots[number].write(Some(ManuallyDrop::into_inner(packet)));
            number += 1;
        }
        // SAFETY: `number` is no more than `count`.
        self.next = unsafe { first.add(number) };
        number
    }
}

impl Iterator for Drain<'_> {
    type Item = Packet;

    #[inline(always)]
    fn next(&mut self) -> Option<Packet> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: `next` is in the buffer, and not yet taken; advancing makes this read the move.
        unsafe {
            let packet = self.next.read();
            self.next = self.next.add(1);
            Some(packet)
        }
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end.addr() - self.next.addr()) / size_of::<Packet>();
        (left, Some(left))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let left = self.len();
        if left > 0 {
            // SAFETY: `left` packets from `next` on are still in the buffer; they move to its front, and the length
            // covers exactly them.
            unsafe {
                std::ptr::copy(self.next, self.burst.packets.as_mut_ptr(), left);
                self.burst.packets.set_len(left);
            }
        }
    }
}
