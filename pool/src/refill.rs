//! The cold half of the pool: from the return ring and the page store into the cache, and back.

// Free fragments are pointers to their records.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::check;
use crate::magazine;
use crate::pool::{CACHE, Pool, REFILL};
use crate::record::Record;
use crate::stats::add;
use crate::sync::Ordering;

impl Pool {
    /// Somebody looks at ages: stamp what has come into the cache since it had `left`, and at first all of it.
    #[cold]
    #[inline(never)]
    pub(crate) fn stamp(&mut self, left: usize) {
        let fresh = self.end - left;
        // SAFETY: as in `shared`; not through `self`, whose turn is changed meanwhile.
        let shared = unsafe { self.shared.as_ref() };
        // SAFETY: the first `end` entries are fragments: `next` is 0 in a refill.
        let index = |record: &MaybeUninit<_>| shared.records.index_of(unsafe { record.assume_init() });
        self.turn.stamp(&shared.published.stamps, self.cache[..self.end].iter().map(index), fresh);
    }

    /// Fill the cache from the return ring, then from the page store.
    #[cold]
    #[inline(never)]
    pub(crate) fn refill_slow(&mut self, asked: usize) {
        if self.nodes.has_moved() {
            self.sort_by_node();
        }
        let want = asked.clamp(REFILL, CACHE);
        let mut returned = self.fill_from_ring(want, true);
        self.fill_from_store(want);
        if self.end < asked.min(CACHE) {
            // The page store is empty: memory on the wrong node, one of which ended the first look, is better than none.
            returned += self.fill_from_ring(want, false);
        }
        if self.end == 0 && self.grow_for_want() {
            self.fill_from_store(want);
        }
        let published = &*self.monitor.published;
        add(&published.recycle_ring, returned as u64);
        if self.end == 0 {
            add(&published.alloc_empty, 1);
        }
    }

    /// Take what has come back, until the cache has `want`. Returns how many fragments came. `choosy`: none of a foreign node.
    fn fill_from_ring(&mut self, want: usize, choosy: bool) -> usize {
        let before = self.end;
        let turned_away = match self.joined == 0 && self.store.takes_all() {
            true => self.take_returned(want, |_, _| None),
            false => self.take_returned(want, |pool, record| pool.turn_away(record, choosy)),
        };
        let kept = self.end - before;
        self.filled += kept as u64;
        turned_away + kept
    }

    /// The loop of [`fill_from_ring`](Pool::fill_from_ring): `turn_away` says how many fragments went into the page store instead of
    /// the cache, and whether that ends it. Returns how many did.
    #[inline(always)]
    fn take_returned(
        &mut self,
        want: usize,
        mut turn_away: impl FnMut(&mut Pool, NonNull<Record>) -> Option<(usize, bool)>,
    ) -> usize {
        let mut turned_away = 0;
        while self.end < want {
            let Some(record) = self.pop_returned() else { break };
            if let Some((fragments, ends)) = turn_away(self, record) {
                turned_away += fragments;
                if ends {
                    break;
                }
                continue;
            }
            self.cache[self.end].write(record);
            self.end += 1;
        }
        turned_away
    }

    /// Put what came back and is not to be used again as it is into the page store: several fragments in one, or a page that is on
    /// the wrong node or in quarantine. One foreign page ends a refill: a ring full of them is not to be drained at once.
    fn turn_away(&mut self, record: NonNull<Record>, choosy: bool) -> Option<(usize, bool)> {
        let fragments = self.shared().records.fragments(record);
        let is_foreign = choosy && self.store.is_foreign(fragments.start);
        if fragments.len() == 1 && !is_foreign && !self.store.is_quarantined(fragments.start) {
            return None;
        }
        if is_foreign {
            add(&self.monitor.published.alloc_waive, 1);
        }
        Some((self.put(record), is_foreign))
    }

    /// Take fragments out of the page store, until the cache has `want`.
    fn fill_from_store(&mut self, want: usize) {
        let before = self.end;
        while self.end < want {
            let Some(fragment) = self.store.take() else { break };
            self.monitor.published.stamps.pass(fragment);
            self.cache[self.end].write(self.shared().records.get(fragment));
            self.end += 1;
        }
        let split = self.end - before;
        self.filled += split as u64;
        self.count_split(split);
    }

    /// That many fragments have left the page store.
    pub(crate) fn count_split(&self, fragments: usize) {
        let published = &*self.monitor.published;
        let taken =
            if self.page_size > 4096 { &published.alloc_slow_high_order } else { &published.alloc_slow };
        add(taken, fragments as u64);
        add(&published.hold, fragments as u64);
    }

    fn pop_returned(&mut self) -> Option<NonNull<Record>> {
        let record = self.shared().ring.pop(self.head)?;
        self.head += 1;
        Some(record)
    }

    /// Put everything that is free back into the page store, where pages become whole again.
    ///
    /// Afterwards [`PoolStats::inflight`](crate::PoolStats::inflight) is what rings and packets hold, and magazines of other threads.
    pub fn trim(&mut self) {
        loop {
            while self.next < self.end {
                let fragment = self.cache[self.next];
                self.next += 1;
                // Not allocated: wrapping, since it may have come from a magazine.
                self.filled = self.filled.wrapping_sub(1);
                // SAFETY: entries from `next` to `end` are free fragments; stepping over it makes this the only owner.
                self.put(unsafe { fragment.assume_init() });
            }
            let taken = magazine::take(self.kind, &mut self.cache[..]);
            (self.next, self.end) = (0, taken);
            self.recycled += taken as u64;
            if taken == 0 {
                break;
            }
        }
        let mut returned = 0;
        while let Some(record) = self.pop_returned() {
            returned += self.put(record);
        }
        let published = &*self.monitor.published;
        published.recycle_cached.store(self.recycled, Ordering::Relaxed);
        add(&published.recycle_ring, returned as u64);
        published.alloc_fast.store(self.allocated(), Ordering::Relaxed);
    }

    /// Allocations from the cache so far.
    pub(crate) fn allocated(&self) -> u64 {
        self.filled.wrapping_add(self.recycled).wrapping_sub(self.at_hand() as u64)
    }

    /// Put a free fragment into the page store, or those that it stands for. Returns how many.
    pub(crate) fn put(&mut self, record: NonNull<Record>) -> usize {
        let shared = self.shared();
        let (first, count) = (shared.records.index_of(record), shared.records.split(record));
        check::split(record, count);
        for fragment in first..first + count {
            self.store.put(fragment);
            self.monitor.published.stamps.home(fragment);
        }
        self.joined -= count - 1;
        add(&self.monitor.published.release, count as u64);
        self.seal_off(first);
        count
    }
}
