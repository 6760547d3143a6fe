//! A burst: up to a fixed number of packets that travel together.

// Moves packets in and out of a buffer without the bookkeeping of `Vec::drain`, which costs as much as a packet.
#![allow(unsafe_code)]

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut};

use crate::magazine::release_bulk;
use crate::packet::Packet;
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
    /// The receive loop of a driver: `next` is told how many were added before, and lent a fragment, which it takes to put it in the
    /// place of the one it makes its packet from.
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
