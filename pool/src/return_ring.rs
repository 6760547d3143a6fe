//! The way home for fragments dropped on other threads: a bounded multi-producer, single-consumer ring that cannot be full.
//!
//! It has a slot for every fragment of the pool, and a fragment is in it at most once, so a producer needs neither to
//! look at the consumer's position nor to retry: one addition reserves as many slots as it brings. A slot says by one bit of what is in
//! it whether that is of this lap or of the one before, so the consumer has nothing to write: lines of slots cross between cores once.
//!
//! A second addition, on the same cache line and a producer's last access, counts the fragments it brought. That count ends the
//! pool's life: the owner, on leaving, moves it to where it reaches [`END`] with the last fragment, and whoever brings it
//! there knows that nothing is missing and nobody else is here any more. No party ever waits for another. What an orphan still
//! misses is told by that count too, which outlives the ring.

// A ring may be freed as soon as a producer has made its last access, while that call has yet to return: what ends so
// takes a pointer, since a reference would promise that the ring outlives the call.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::record::{Record, fetch_to_write};
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// What `home` comes to when the owner has left and every fragment is home.
const END: u64 = 1 << 63;
/// `home` is below this as long as the owner is there, and never again.
const CLOSED: u64 = 1 << 62;

pub(crate) struct ReturnRing {
    slots: Box<[AtomicPtr<Record>]>,
    gate: Arc<Gate>,
}

/// What producers count, alone on a pair of cache lines.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Gate {
    /// Positions reserved so far.
    tail: AtomicU64,
    /// Fragments brought so far; once the owner has left, `END` less those still to come.
    home: AtomicU64,
    /// Batches brought so far: beside what each of them changes anyway.
    batches: std::sync::atomic::AtomicU64,
}

impl Gate {
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Whether the owner has left.
    fn is_closed(&self) -> bool {
        self.home.load(Ordering::Acquire) >= CLOSED
    }

    /// Fragments still to come, once the owner has left.
    pub(crate) fn missing(&self) -> Option<u64> {
        let home = self.home.load(Ordering::Acquire);
        (home >= CLOSED).then(|| END - home)
    }
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
    pub(crate) fn new(fragments: usize, gate: Arc<Gate>) -> ReturnRing {
        let slots = (0..fragments.next_power_of_two()).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        ReturnRing { slots, gate }
    }

    /// The slots of so many positions in a row, no more than there are slots, before the end of the array and after it. With each part the
    /// bit of what is put in there now: in turns from lap to lap, and not that of an empty slot on the first.
    #[inline(always)]
    fn parts(&self, position: u64, count: usize) -> [(&[AtomicPtr<Record>], usize); 2] {
        let len = self.slots.len();
        let lap = usize::from(position & len as u64 == 0);
        let (behind, before) = self.slots.split_at(position as usize & (len - 1));
        let first = count.min(before.len());
        [(&before[..first], lap), (&behind[..count - first], 1 - lap)]
    }

    /// Give records back, which stand for so many fragments. Unless the outcome is `Last`, the caller must not touch the pool again.
    ///
    /// # Safety
    ///
    /// `ring` is that of the fragments' pool, and each of them was taken from it and has not been given back since.
    pub(crate) unsafe fn push(
        ring: *const ReturnRing,
        records: &[NonNull<Record>],
        fragments: u64,
    ) -> Outcome {
        let home = {
            // SAFETY: the ring lives until `home` has counted these fragments.
            let ring = unsafe { &*ring };
            // Both orders: the slots reserved here were read before some fragment was given out that has come back at an
            // earlier position, be it another producer's.
            let gate = &*ring.gate;
            gate.batches.fetch_add(1, Ordering::Relaxed);
            let first = gate.tail.fetch_add(records.len() as u64, Ordering::AcqRel);
            let mut rest = records;
            for (slots, lap) in ring.parts(first, records.len()) {
                let (now, later) = rest.split_at(slots.len());
                for (slot, record) in slots.iter().zip(now) {
                    #[cfg(loom)]
                    // SAFETY: the model checker stops at any store to the slot that does not happen before.
                    assert_ne!(
                        unsafe { slot.unsync_load() }.addr() & 1,
                        lap,
                        "a slot is used before it was read"
                    );
                    slot.store(record.as_ptr().map_addr(|addr| addr | lap), Ordering::Release);
                }
                rest = later;
            }
            &raw const gate.home
        };
        // Release: all that was done here is over before the ring is freed. Acquire: so it is for the one that frees it.
        // SAFETY: as above; this counts them.
        match unsafe { (*home).fetch_add(fragments, Ordering::AcqRel) } {
            ..CLOSED => Outcome::Open,
            before if before + fragments == END => Outcome::Last,
            _ => Outcome::Closed,
        }
    }

    /// Take what there is from `head` on, which only the consumer advances, as far as `out` has room. Returns how many.
    #[inline(always)]
    pub(crate) fn pop(&self, head: u64, out: &mut [MaybeUninit<NonNull<Record>>]) -> usize {
        let room = out.len().min(self.slots.len());
        let (mut out, mut taken) = (out.iter_mut(), 0);
        for (slots, lap) in self.parts(head, room) {
            for (slot, out) in slots.iter().zip(&mut out) {
                let record = slot.load(Ordering::Acquire);
                if record.addr() & 1 != lap {
                    return taken;
                }
                // SAFETY: a slot with the bit of this lap has what a producer put in.
                let record = unsafe { NonNull::new_unchecked(record.map_addr(|addr| addr & !1)) };
                fetch_to_write(record);
                out.write(record);
                taken += 1;
            }
        }
        taken
    }

    /// Whether the owner has left.
    pub(crate) fn is_closed(&self) -> bool {
        self.gate.is_closed()
    }

    /// The consumer leaves: `all` fragments are those that it has taken in all, and those that are out. Unless the outcome is `Last`, it
    /// must not touch the ring again.
    ///
    /// # Safety
    ///
    /// `ring` is alive, and this is called once.
    pub(crate) unsafe fn close(ring: *const ReturnRing, all: u64) -> Outcome {
        // SAFETY: the ring lives until the addition.
        let home = unsafe { &raw const (&*ring).gate.home };
        // SAFETY: as above.
        match unsafe { (*home).fetch_add(END - all, Ordering::AcqRel) } {
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
        // The gate lives on with the counters; nobody is on the way through it any more.
        assert_eq!(self.gate.missing(), Some(0));
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
        unsafe { ReturnRing::push(ring, records, records.len() as u64) }
    }

    fn new(fragments: usize) -> ReturnRing {
        ReturnRing::new(fragments, Arc::default())
    }

    fn close(ring: &ReturnRing, all: u64) -> Outcome {
        // SAFETY: the ring outlives the call, and the tests close it once.
        unsafe { ReturnRing::close(ring, all) }
    }

    #[test]
    fn it_wraps_and_keeps_order() {
        let (ring, records) = (new(5), records(5));
        let mut head = 0;
        for _ in 0..100 {
            assert_eq!(push(&ring, &records[..3]), Outcome::Open);
            assert_eq!(push(&ring, &records[3..]), Outcome::Open);
            // One by one, and all that there is.
            for room in [1, 8] {
                let mut out = [MaybeUninit::uninit(); 8];
                let taken = ring.pop(head, &mut out[..room]);
                assert_eq!(taken, [1, 4][usize::from(room == 8)]);
                // SAFETY: so many have been written.
                let taken: Vec<_> =
                    out[..taken].iter().map(|record| unsafe { record.assume_init() }).collect();
                let from = head as usize % 5;
                assert_eq!(taken, records[from..from + taken.len()]);
                head += taken.len() as u64;
            }
            assert_eq!(ring.pop(head, &mut [MaybeUninit::uninit()]), 0);
        }
    }

    #[test]
    fn exactly_one_party_is_the_last() {
        let records = records(6);
        // Nothing is out: the owner itself.
        assert_eq!(close(&new(6), 0), Outcome::Last);
        // Some came back before the owner left but after it last looked; some after.
        let ring = new(6);
        assert_eq!(push(&ring, &records[..2]), Outcome::Open);
        assert_eq!(close(&ring, 6), Outcome::Closed);
        assert_eq!(push(&ring, &records[2..5]), Outcome::Closed);
        assert_eq!(push(&ring, &records[5..]), Outcome::Last);
        // All came back in that gap.
        let ring = new(6);
        assert_eq!(push(&ring, &records), Outcome::Open);
        assert_eq!(close(&ring, 6), Outcome::Last);
    }
}
