//! The half of a pool that lives until its last fragment is home, wherever and by whomever it is dropped.

// Reached by pointer by whoever holds a fragment, and taken down by the last of them.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};
use std::sync::Arc;

use pagewire_pci::AddressSpace;

use crate::error::Error;
use crate::fault;
use crate::memory::Memory;
use crate::record::{LARGE, Record, Records, kind_of, pool_of};
use crate::return_ring::{Outcome, ReturnRing};
use crate::stats::{Life, Published};
use crate::sync::{AtomicPtr, Mutex, Ordering};

/// Pools a process can have at one time. Number 0 is nobody's.
pub(crate) const MAX_POOLS: usize = if cfg!(loom) { 3 } else { 1023 };

/// The pools of this process by number, for those who only hold a fragment.
#[cfg(not(loom))]
static POOLS: [AtomicPtr<Shared>; MAX_POOLS + 1] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_POOLS + 1];
/// Held while a number is taken.
#[cfg(not(loom))]
static NUMBERS: Mutex<()> = Mutex::new(());

#[cfg(loom)]
loom::lazy_static! {
    static ref POOLS: [AtomicPtr<Shared>; MAX_POOLS + 1] = Default::default();
    static ref NUMBERS: Mutex<()> = Mutex::new(());
}

pub(crate) struct Shared {
    pub(crate) ring: ReturnRing,
    pub(crate) published: Arc<Published>,
    pub(crate) records: Records,
    pub(crate) space: AddressSpace,
    /// The owner's as long as there is one, then of whoever takes the pool down: never waited for.
    pub(crate) memory: std::sync::Mutex<Memory>,
    number: Number,
}

impl Shared {
    /// Publishes a pool under its number.
    pub(crate) fn publish(
        number: Number,
        ring: ReturnRing,
        published: Arc<Published>,
        records: Records,
        memory: Memory,
    ) -> NonNull<Shared> {
        let place = number.0;
        let (space, memory) = (memory.space.clone(), std::sync::Mutex::new(memory));
        let shared = Box::into_raw(Box::new(Shared { ring, published, records, space, memory, number }));
        POOLS[place].store(shared, Ordering::Release);
        // SAFETY: `Box::into_raw` is never null.
        unsafe { NonNull::new_unchecked(shared) }
    }

    /// The way home for fragments of pool `kind` from a thread that is not allocating from it.
    #[cold]
    #[inline(never)]
    #[must_use]
    pub(crate) fn give_back(kind: u32, records: &[NonNull<Record>]) -> Option<Doomed> {
        let pool = POOLS[pool_of(kind) & MAX_POOLS].load(Ordering::Acquire);
        // SAFETY: a pool lives as long as a fragment of it is out, and `records` are, until `push` has counted them.
        let shared = unsafe { &*pool };
        if shared.ring.is_closed() {
            shared.stamp_late(records);
        }
        let fragments = match kind & LARGE {
            0 => records.len(),
            _ => records.iter().map(|record| shared.records.fragments(*record).len()).sum(),
        };
        // SAFETY: `kind` names the pool of the fragments, which are the caller's to give.
        let outcome = unsafe { ReturnRing::push(&raw const shared.ring, records, fragments as u64) };
        (outcome == Outcome::Last).then(|| Doomed(pool))
    }
}

impl Shared {
    /// So many fragments of pool `kind`, which the caller has, are about to be given back for want of room elsewhere.
    pub(crate) fn count_full(kind: u32, fragments: usize) {
        let pool = POOLS[pool_of(kind) & MAX_POOLS].load(Ordering::Acquire);
        // SAFETY: a pool lives as long as a fragment of it is out.
        let published = unsafe { &(*pool).published };
        published.recycle_cache_full.fetch_add(fragments as u64, Ordering::Relaxed);
    }

    /// Fragments come back to a pool without an owner, who would stamp them.
    fn stamp_late(&self, records: &[NonNull<Record>]) {
        for fragments in records.iter().map(|record| self.records.fragments(*record)) {
            fragments.for_each(|fragment| self.published.stamps.home(fragment));
        }
    }
}

/// A pool's number, its own until this is dropped.
pub(crate) struct Number(usize);

impl Number {
    /// Takes a number that is free.
    pub(crate) fn take(pool: &str) -> Result<Number, Error> {
        let _turn = NUMBERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let free = (1..=MAX_POOLS).find(|&number| POOLS[number].load(Ordering::Acquire).is_null());
        let Some(number) = free.filter(|_| !fault::here()) else {
            return Err(Error::TooManyPools { pool: pool.into() });
        };
        // Nobody has a fragment of the pool yet, so nobody looks.
        POOLS[number].store(NonNull::dangling().as_ptr(), Ordering::Release);
        Ok(Number(number))
    }

    /// What the records of its fragments say.
    pub(crate) fn kind(&self) -> u32 {
        kind_of(self.0)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        POOLS[self.0].store(ptr::null_mut(), Ordering::Release);
    }
}

/// A pool whose last fragment is home: dropping this takes it down. There is one for a pool, for whom the return ring called
/// the last.
#[must_use]
pub(crate) struct Doomed(pub(crate) *mut Shared);

impl Drop for Doomed {
    fn drop(&mut self) {
        /// Says at the very end that it is done, and gives the number back, whatever happens on the way.
        struct End(Arc<Published>, #[expect(dead_code, reason = "dropped last")] Number);
        impl Drop for End {
            fn drop(&mut self) {
                let published = &self.0;
                published.release.store(published.hold.load(Ordering::Relaxed), Ordering::Release);
                published.enter(Life::Gone);
            }
        }
        // SAFETY: it was made by `Box::into_raw`, every other party has made its last access, and none takes it down as well.
        let Shared { ring, published, records, memory, number, .. } = *unsafe { Box::from_raw(self.0) };
        let _end = End(published, number);
        // Unmapped, released, uninstalled: only then does the last counter move.
        drop((ring, memory, records));
    }
}
