//! A burst: up to a fixed number of packets that travel together.

// Moves packets in and out of a buffer without the bookkeeping of `Vec::drain`, which costs as much as a packet.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr;

use crate::magazine::release_bulk;
use crate::packet::Packet;
use crate::pool::{Batch, Fresh};

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

    /// Add the packets that `next` makes, until it makes none, the burst is full, or `fresh` is used up. Returns how many.
    ///
    /// The receive loop of a driver: `next` is lent a fragment, which it takes to put it in the place of the one it
    /// makes its packet from.
    #[inline(always)]
    pub fn fill(
        &mut self,
        fresh: &mut Batch<'_>,
        mut next: impl FnMut(Fresh<'_, '_>) -> Option<Packet>,
    ) -> usize {
        let (start, count) = (self.packets.len(), fresh.len().min(self.room()));
        let slots = self.packets.as_mut_ptr();
        let mut added = 0;
        while added < count {
            // Each round takes one fragment at most, and there are `count`.
            let Some(packet) = next(Fresh::new(fresh)) else { break };
            // SAFETY: start + added is within the capacity. Should `next` panic, what was added leaks, and is not dropped twice.
            unsafe { slots.add(start + added).write(packet) };
            added += 1;
        }
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
    /// many. The slots are empty: what is in one is forgotten.
    ///
    /// The transmit loop of a driver.
    #[inline(always)]
    pub fn hand_over(
        &mut self,
        slots: &mut [Option<Packet>],
        mut accept: impl FnMut(usize, &Packet) -> bool,
    ) -> usize {
        let count = slots.len().min(self.len());
        for (number, slot) in slots[..count].iter_mut().enumerate() {
            debug_assert!(slot.is_none(), "a slot is used before it was emptied");
            // SAFETY: `next` is in the buffer, since there are `count`, and not yet taken. Advancing it makes the copy in the slot the
            // only one; until then, should `accept` say no or panic, the copy is not dropped.
            unsafe {
                let packet = ManuallyDrop::new(self.next.read());
                if !accept(number, &packet) {
                    return number;
                }
                ptr::write(slot, Some(ManuallyDrop::into_inner(packet)));
                self.next = self.next.add(1);
            }
        }
        count
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
                ptr::copy(self.next, self.burst.packets.as_mut_ptr(), left);
                self.burst.packets.set_len(left);
            }
        }
    }
}
