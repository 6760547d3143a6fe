//! Counters, named as Linux's page_pool names them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A pool's counters at one moment. All count fragments unless they say otherwise.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct PoolStats { $($(#[$doc])* pub $name: u64),* }

        /// What the owner publishes: written by it alone until the pool is closed, on slow paths only.
        #[derive(Default)]
        pub(crate) struct Published { $(pub(crate) $name: AtomicU64),* }

        impl Published {
            pub(crate) fn snapshot(&self) -> PoolStats {
                PoolStats { $($name: self.$name.load(Ordering::Acquire)),* }
            }
        }

        impl PoolStats {
            /// Every counter with its name, for reports.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Fragments in the pool, free or not.
    fragments,
    /// Allocations served from the owner's cache. Other threads see it as of the last refill.
    alloc_fast,
    /// Fragments the slow path took out of the page store, pages of 4 KiB.
    alloc_slow,
    /// The same for pages above 4 KiB.
    alloc_slow_high_order,
    /// Allocations that found no fragment anywhere.
    alloc_empty,
    /// Refills of the cache.
    alloc_refill,
    /// Fragments that came back to the cache from a magazine of the owner's own thread.
    recycle_cached,
    /// Fragments that found the cache full on their way back. They wait in their magazine instead: this stays 0.
    recycle_cache_full,
    /// Fragments that came back through the return ring.
    recycle_ring,
    /// Fragments that found the return ring full. It cannot be: this stays 0.
    recycle_ring_full,
    /// Fragments let go because somebody else held their page. Nobody else can: this stays 0.
    recycle_released_ref,
    /// Batches that other threads, or this thread's idle loop, sent through the return ring.
    remote_batch,
    /// References that another process returned and did not hold: given back before, or never handed to it. See
    /// [`crate::handover`].
    stale_generation,
    /// Packets that were not handed to another process because it holds as many fragments as it may.
    quota_denied,
    /// Fragments that went back to the page store. Read before `hold`, so that a reader never sees more back than left.
    release,
    /// Fragments that left the page store.
    hold,
}

impl PoolStats {
    /// Fragments out of the page store: in rings and packets, in the cache and on their way back.
    ///
    /// After [`crate::Pool::trim`] cache, magazine and return ring are empty, and this is what rings and packets hold.
    pub fn inflight(&self) -> u64 {
        self.hold - self.release
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    // Single writer: a plain load and store, no read-modify-write.
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Release);
}

/// Reads a pool's counters from any thread without disturbing its owner; outlives the pool.
#[derive(Clone)]
pub struct PoolMonitor {
    pub(crate) name: Arc<str>,
    pub(crate) published: Arc<Published>,
}

impl PoolMonitor {
    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The counters as the owner last published them: at its last refill, trim or close.
    pub fn stats(&self) -> PoolStats {
        self.published.snapshot()
    }
}
