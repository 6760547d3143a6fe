//! The way home for fragments dropped on other threads: a bounded multi-producer, single-consumer ring that cannot be full.
//!
//! It has a slot for every fragment of the pool, and a fragment is in it at most once, so a producer needs neither to
//! look at the consumer's position nor to retry: one addition reserves as many slots as it brings.
//!
//! The consumer writes to nothing that producers do. A slot says itself whether it has been filled in this lap round the ring or
//! in the last: by the lowest bit of its pointer, which records leave zero. So its line crosses to the consumer and back
//! once a lap.
//!
//! A second addition, on the same cache line and a producer's last access, counts what it brought. That count ends the
//! pool's life: the owner, on leaving, moves it to where it reaches [`END`] with the last fragment, and whoever brings it
//! there knows that nothing is missing and nobody else is here any more. No party ever waits for another.

// A ring may be freed as soon as a producer has made its last access, while that call has yet to return: what ends so
// takes a pointer, since a reference would promise that the ring outlives the call.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use crate::record::Record;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// What `home` comes to when the owner has left and every fragment is home.
const END: u64 = 1 << 63;
/// `home` is below this as long as the owner is there, and never again.
const CLOSED: u64 = 1 << 62;

pub(crate) struct ReturnRing {
    slots: Box<[AtomicPtr<Record>]>,
    counts: Counts,
}

/// What producers write, in a line that the consumer does not read: two, since processors fetch lines in pairs.
#[repr(align(128))]
struct Counts {
    /// Positions reserved so far.
    tail: AtomicU64,
    /// Fragments brought so far; once the owner has left, `END` less those still to come.
    home: AtomicU64,
}

/// What a producer or the closing owner has to do next.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Outcome {
    /// The pool lives on.
    Open,
    /// The owner has left, and fragments are still missing.
    Closed,
    /// This was the last fragment of a pool whose owner has left: the caller now takes the pool down.
    Last,
}

impl ReturnRing {
    pub(crate) fn new(fragments: usize) -> ReturnRing {
        let slots = (0..fragments.next_power_of_two()).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        ReturnRing { slots, counts: Counts { tail: AtomicU64::new(0), home: AtomicU64::new(0) } }
    }

    fn slot(&self, position: u64) -> &AtomicPtr<Record> {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    /// The lowest bit of what is put into the slot of that position: 1 and 0 in turns from lap to lap. Slots begin with 0.
    fn lap(&self, position: u64) -> usize {
        usize::from(position as usize & self.slots.len() == 0)
    }

    /// Give fragments back. Unless the outcome is `Last`, the caller must not touch the pool again.
    ///
    /// # Safety
    ///
    /// `ring` is that of the fragments' pool, and each of them was taken from it and has not been given back since.
    pub(crate) unsafe fn push(ring: *const ReturnRing, records: &[NonNull<Record>]) -> Outcome {
        let count = records.len() as u64;
        let home = {
            // SAFETY: the ring lives until `home` has counted these fragments.
            let ring = unsafe { &*ring };
            // Both orders: what the slots reserved here held was taken before some fragment was given out that has come back at an
            // earlier position, be it another producer's.
            let position = ring.counts.tail.fetch_add(count, Ordering::AcqRel);
            for (position, record) in (position..).zip(records) {
                let (slot, lap) = (ring.slot(position), ring.lap(position));
                #[cfg(loom)]
                // SAFETY: the model checker stops at any store to the slot that does not happen before.
                assert_ne!(unsafe { slot.unsync_load() }.addr() & 1, lap, "a slot is used twice in a lap");
                slot.store(record.as_ptr().map_addr(|addr| addr | lap), Ordering::Release);
            }
            &raw const ring.counts.home
        };
        // Release: all that was done here is over before the ring is freed. Acquire: so it is for the one that frees it.
        // SAFETY: as above; this counts them.
        match unsafe { (*home).fetch_add(count, Ordering::AcqRel) } {
            ..CLOSED => Outcome::Open,
            before if before + count == END => Outcome::Last,
            _ => Outcome::Closed,
        }
    }

    /// Take the fragment at `head`, which only the consumer advances. `None`: nothing there, or not yet.
    pub(crate) fn pop(&self, head: u64) -> Option<NonNull<Record>> {
        let (slot, lap) = (self.slot(head).load(Ordering::Acquire), self.lap(head));
        if slot.addr() & 1 != lap {
            return None;
        }
        NonNull::new(slot.map_addr(|addr| addr & !1))
    }

    /// Whether the owner has left.
    pub(crate) fn is_closed(&self) -> bool {
        self.counts.home.load(Ordering::Acquire) >= CLOSED
    }

    /// The consumer, having taken `head` fragments in all, leaves while `outstanding` are still to come. Unless the
    /// outcome is `Last`, it must not touch the ring again.
    ///
    /// # Safety
    ///
    /// `ring` is alive, and this is called once.
    pub(crate) unsafe fn close(ring: *const ReturnRing, head: u64, outstanding: u64) -> Outcome {
        let all = head + outstanding;
        // SAFETY: the ring lives until this addition.
        match unsafe { (*ring).counts.home.fetch_add(END - all, Ordering::AcqRel) } {
            home if home == all => Outcome::Last,
            _ => Outcome::Closed,
        }
    }
}

/// Shows the model checker that what is freed is this thread's alone: it stops at any access that does not happen before.
#[cfg(loom)]
impl Drop for ReturnRing {
    fn drop(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.with_mut(|_| ()));
        self.counts.tail.with_mut(|_| ());
        self.counts.home.with_mut(|_| ());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn records(count: usize) -> Vec<NonNull<Record>> {
        // The ring only carries pointers.
        (1..=count).map(|i| NonNull::new(ptr::without_provenance_mut(i * 64)).unwrap()).collect()
    }

    fn push(ring: &ReturnRing, records: &[NonNull<Record>]) -> Outcome {
        // SAFETY: the ring outlives the call, and the tests bring each fragment once.
        unsafe { ReturnRing::push(ring, records) }
    }

    fn close(ring: &ReturnRing, head: u64, outstanding: u64) -> Outcome {
        // SAFETY: the ring outlives the call, and the tests close it once.
        unsafe { ReturnRing::close(ring, head, outstanding) }
    }

    #[test]
    fn it_wraps_and_keeps_order() {
        let (ring, records) = (ReturnRing::new(5), records(5));
        let mut head = 0;
        for _ in 0..100 {
            assert_eq!(push(&ring, &records[..3]), Outcome::Open);
            assert_eq!(push(&ring, &records[3..]), Outcome::Open);
            for record in &records {
                assert_eq!(ring.pop(head), Some(*record));
                head += 1;
            }
            assert_eq!(ring.pop(head), None);
        }
    }

    #[test]
    fn exactly_one_party_is_the_last() {
        let records = records(6);
        // Nothing is out: the owner itself.
        assert_eq!(close(&ReturnRing::new(6), 0, 0), Outcome::Last);
        // Some came back before the owner left but after it last looked; some after.
        let ring = ReturnRing::new(6);
        assert_eq!(push(&ring, &records[..2]), Outcome::Open);
        assert_eq!(close(&ring, 0, 6), Outcome::Closed);
        assert_eq!(push(&ring, &records[2..5]), Outcome::Closed);
        assert_eq!(push(&ring, &records[5..]), Outcome::Last);
        // All came back in that gap.
        let ring = ReturnRing::new(6);
        assert_eq!(push(&ring, &records), Outcome::Open);
        assert_eq!(close(&ring, 0, 6), Outcome::Last);
    }
}
