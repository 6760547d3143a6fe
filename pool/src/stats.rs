//! Counters, named as Linux's page_pool names them.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::ages::{Ages, Stamps};
use crate::return_ring::Gate;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A pool's counters at one moment. All count fragments unless they say otherwise.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct PoolStats { $($(#[$doc])* pub $name: u64),* }

        /// What the owner publishes: written by it alone until the pool is closed, on slow paths only.
        pub(crate) struct Published {
            $(pub(crate) $name: AtomicU64,)*
            pub(crate) stamps: Stamps,
            pub(crate) gate: Arc<Gate>,
            life: AtomicU8,
        }

        impl Published {
            fn new(fragments: usize) -> Published {
                Published {
                    $($name: AtomicU64::new(0),)*
                    stamps: Stamps::new(fragments),
                    gate: Arc::default(),
                    life: AtomicU8::new(Life::Open as u8),
                }
            }

            fn counters(&self) -> PoolStats {
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
    /// Fragments of the pool's segments, free or not.
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
    /// Fragments on a foreign NUMA node that were not used again when they came back, one a refill.
    alloc_waive,
    /// Fragments that came back to the cache from a magazine of the owner's own thread.
    recycle_cached,
    /// Fragments that went through the return ring because the magazine of the thread that allocates from the pool, where its cache would
    /// have found them, was full.
    recycle_cache_full,
    /// Fragments that came back through the return ring.
    recycle_ring,
    /// Nothing counts here: the return ring has a slot for every fragment. There for those who know the name from Linux.
    recycle_ring_full,
    /// Nothing counts here: nobody but the pool can hold a page. There for those who know the name from Linux.
    recycle_released_ref,
    /// Batches that other threads, or this thread's idle loop, sent through the return ring.
    remote_batch,
    /// References that another process returned and did not hold: given back before, or never handed to it. See
    /// [`crate::handover`].
    stale_generation,
    /// Packets that were not handed to another process because it holds as many fragments as it may.
    quota_denied,
    /// Fragments of segments that an IOMMU did not unmap: their memory is kept, and nobody's.
    unmap_failed,
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

/// What has become of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// Its owner allocates from it.
    Open,
    /// Its owner has dropped it, and fragments of it are still out.
    Orphan,
    /// Its memory has gone back to where it came from.
    Gone,
}

impl Published {
    pub(crate) fn enter(&self, life: Life) {
        self.life.store(life as u8, Ordering::Release);
    }

    fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            open if open == Life::Open as u8 => Life::Open,
            orphan if orphan == Life::Orphan as u8 => Life::Orphan,
            _ => Life::Gone,
        }
    }

    fn snapshot(&self) -> PoolStats {
        // Before the counters: a pool found alive now may be taken down meanwhile.
        let life = self.life();
        let mut stats = self.counters();
        stats.remote_batch = self.gate.batches();
        if life == Life::Orphan
            && let Some(missing) = self.gate.missing()
        {
            // Nobody but the gate counts what comes back now. The last fragment counts as back when the memory is.
            stats.release = stats.hold.saturating_sub(missing.max(1));
        }
        stats
    }
}

/// Every pool of the process that has not gone.
static POOLS: Mutex<Vec<(Arc<str>, Weak<Published>)>> = Mutex::new(Vec::new());

/// Every pool of this process, in the order in which they were made: those that have an owner and those that wait for their last
/// fragments.
pub fn pools() -> Vec<PoolMonitor> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|(_, published)| published.strong_count() > 0);
    let monitors = pools.iter().filter_map(|(name, published)| {
        Some(PoolMonitor { name: name.clone(), published: published.upgrade()? })
    });
    monitors.filter(|pool| pool.life() != Life::Gone).collect()
}

/// Reads a pool's counters from any thread without disturbing its owner; outlives the pool.
#[derive(Clone)]
pub struct PoolMonitor {
    pub(crate) name: Arc<str>,
    pub(crate) published: Arc<Published>,
}

impl PoolMonitor {
    /// The counters of a pool that may come to have so many fragments.
    pub(crate) fn new(name: Arc<str>, fragments: usize) -> PoolMonitor {
        PoolMonitor { name, published: Arc::new(Published::new(fragments)) }
    }

    /// From now on [`pools`] finds it.
    pub(crate) fn register(&self) {
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|(_, published)| published.strong_count() > 0);
        pools.push((self.name.clone(), Arc::downgrade(&self.published)));
    }

    /// Whether it has an owner, fragments, or neither.
    pub fn life(&self) -> Life {
        self.published.life()
    }

    /// How long its fragments have been out, as far as can be told; each call looks once more. See [`Ages`].
    pub fn ages(&self) -> Ages {
        self.published.stamps.look()
    }

    /// Whether both read the same pool; several can have one name.
    pub fn is_same(&self, other: &PoolMonitor) -> bool {
        Arc::ptr_eq(&self.published, &other.published)
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The counters as the owner last published them: at its last refill, trim or close.
    pub fn stats(&self) -> PoolStats {
        self.published.snapshot()
    }
}
