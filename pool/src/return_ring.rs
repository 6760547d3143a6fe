//! The way home for fragments dropped on other threads: a bounded multi-producer, single-consumer ring that cannot be full.
//!
//! It has a slot for every fragment of the pool, and a fragment is in it at most once, so a producer needs neither to
//! look at the consumer's position nor to retry: one addition reserves as many slots as it brings.
//!
//! The same counter ends the pool's life. Closing sets its top bit, and the producer whose reservation brings it to
//! the last position knows that nothing is missing any more.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::record::Record;

/// Set in the tail once the owner has left.
const CLOSED: u64 = 1 << 63;

pub(crate) struct ReturnRing {
    slots: Box<[AtomicPtr<Record>]>,
    tail: AtomicU64,
    /// The tail's value when every fragment is home; written before `CLOSED` is set, read after it was seen.
    last: AtomicU64,
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
        ReturnRing { slots, tail: AtomicU64::new(0), last: AtomicU64::new(0) }
    }

    fn slot(&self, position: u64) -> &AtomicPtr<Record> {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    /// Give fragments back. Unless the outcome is `Last`, the caller must not touch the pool again.
    pub(crate) fn push(&self, records: &[NonNull<Record>]) -> Outcome {
        let count = records.len() as u64;
        // Release: the slots this producer reuses were emptied before the fragments it brings were given out.
        // Acquire: sees `last` if CLOSED is set.
        let reserved = self.tail.fetch_add(count, Ordering::AcqRel);
        let (position, closed) = (reserved & !CLOSED, reserved & CLOSED != 0);
        // Read before the slots are filled: once they are, another producer may be the last and take the pool down.
        let last = closed && position + count == self.last.load(Ordering::Relaxed);
        for (i, record) in records.iter().enumerate() {
            self.slot(position + i as u64).store(record.as_ptr(), Ordering::Release);
        }
        match (closed, last) {
            (false, _) => Outcome::Open,
            (true, false) => Outcome::Closed,
            (true, true) => Outcome::Last,
        }
    }

    /// Take the fragment at `head`, which only the consumer advances. `None`: nothing there, or not yet.
    pub(crate) fn pop(&self, head: u64) -> Option<NonNull<Record>> {
        let slot = self.slot(head);
        let record = NonNull::new(slot.load(Ordering::Acquire))?;
        slot.store(ptr::null_mut(), Ordering::Relaxed);
        Some(record)
    }

    /// Whether the owner has left.
    pub(crate) fn is_closed(&self) -> bool {
        self.tail.load(Ordering::Acquire) & CLOSED != 0
    }

    /// The consumer, having taken `head` fragments in all, leaves while `outstanding` are still to come.
    pub(crate) fn close(&self, head: u64, outstanding: u64) -> Outcome {
        let last = head + outstanding;
        self.last.store(last, Ordering::Relaxed);
        match self.tail.fetch_or(CLOSED, Ordering::AcqRel) == last {
            true => Outcome::Last,
            false => Outcome::Closed,
        }
    }

    /// Wait until every producer that reserved a position from `head` on has also filled it, its last access to the pool.
    pub(crate) fn wait_for_producers(&self, head: u64) {
        for position in head..self.last.load(Ordering::Relaxed) {
            let mut spins = 0u32;
            while self.slot(position).load(Ordering::Acquire).is_null() {
                spins += 1;
                match spins % 128 {
                    0 => std::thread::yield_now(),
                    _ => std::hint::spin_loop(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: usize) -> Vec<NonNull<Record>> {
        // The ring only carries pointers.
        (1..=count).map(|i| NonNull::new(ptr::without_provenance_mut(i * 64)).unwrap()).collect()
    }

    #[test]
    fn it_wraps_and_keeps_order() {
        let (ring, records) = (ReturnRing::new(5), records(5));
        let mut head = 0;
        for _ in 0..100 {
            assert_eq!(ring.push(&records[..3]), Outcome::Open);
            assert_eq!(ring.push(&records[3..]), Outcome::Open);
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
        assert_eq!(ReturnRing::new(6).close(0, 0), Outcome::Last);
        // Some came back before the owner left but after it last looked; some after.
        let ring = ReturnRing::new(6);
        assert_eq!(ring.push(&records[..2]), Outcome::Open);
        assert_eq!(ring.close(0, 6), Outcome::Closed);
        assert_eq!(ring.push(&records[2..5]), Outcome::Closed);
        assert_eq!(ring.push(&records[5..]), Outcome::Last);
        ring.wait_for_producers(0);
        // All came back in that gap.
        let ring = ReturnRing::new(6);
        assert_eq!(ring.push(&records), Outcome::Open);
        assert_eq!(ring.close(0, 6), Outcome::Last);
    }
}
