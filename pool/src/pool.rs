//! The pool: what its owner allocates from. The half that lives until the last fragment is home is [`Shared`].

// Owns the fragments' records and memory and hands out pointers to them.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Arc, MutexGuard, PoisonError};

use pagewire_hugepages::SegmentOptions;
use pagewire_pci::AddressSpace;

use crate::ages::Turn;
use crate::config::PoolConfig;
use crate::error::Error;
use crate::magazine;
use crate::memory::Memory;
use crate::numa::{Machine, Nodes, Topology};
use crate::packet::{Packet, Posted};
use crate::pages::PageStore;
use crate::provider::{Pages, Provider};
use crate::record::{Record, Records};
use crate::return_ring::{Outcome, ReturnRing};
use crate::shared::{Doomed, Number, Shared};
use crate::stats::{Life, PoolMonitor, PoolStats, add};
use crate::sync::Ordering;

/// Fragments the owner's cache holds.
pub(crate) const CACHE: usize = 256;
/// Fragments that the slow path takes out of the page store at a time.
pub(crate) const REFILL: usize = 64;

/// A pool of packet memory; owned by one core at a time.
///
/// `Send`, not `Sync`: allocation needs `&mut`, so the compiler forbids two cores on one pool. Dropping a pool while fragments
/// are out is normal: its memory lives on until the last of them returns.
pub struct Pool {
    pub(crate) shared: NonNull<Shared>,
    pub(crate) cache: [MaybeUninit<NonNull<Record>>; CACHE],
    /// Free fragments are the entries of the cache from `next` to before `end`, taken in this order: a receive loop has one count for
    /// them, its descriptors and its packets.
    pub(crate) next: usize,
    pub(crate) end: usize,
    /// Taken from the return ring so far: records, and the fragments by which those that stood for several were more.
    pub(crate) head: u64,
    pub(crate) beyond: u64,
    pub(crate) kind: u32,
    headroom: u16,
    pub(crate) fragment_size: u32,
    pub(crate) store: PageStore,
    /// Fragments that have come into the cache from the page store or the return ring, and from magazines, less those that went
    /// back. Less what is there now, their sum is what has been allocated.
    pub(crate) filled: u64,
    pub(crate) recycled: u64,
    pub(crate) turn: Turn,
    pub(crate) monitor: PoolMonitor,
    pub(crate) page_size: usize,
    /// Fragments that others stand for: out, and without a return of their own.
    pub(crate) joined: usize,
    pub(crate) nodes: Nodes,
    pub(crate) grow_when_empty: bool,
    /// Times that the pool is to stay empty before it tries to grow again, after it failed to.
    pub(crate) growth_rests: u32,
    _not_sync: PhantomData<std::cell::Cell<()>>,
}

// SAFETY: all that the pool points to is either reached through `&mut Pool` alone or made for several threads.
unsafe impl Send for Pool {}

impl Pool {
    /// Make a pool of [`Pages`], as the configuration says, map its memory for every device of `space`, and fill it.
    ///
    /// # Errors
    ///
    /// [`Error`], with nothing left behind.
    pub fn new(config: &PoolConfig, space: &AddressSpace) -> Result<Pool, Error> {
        let options =
            SegmentOptions { page_size: config.backing, node: config.node, name: config.name.clone() };
        Pool::with_provider(config, space, Arc::new(Pages { options }))
    }

    /// Make a pool of a provider's memory.
    ///
    /// # Errors
    ///
    /// [`Error`], with nothing left behind: whatever was allocated has been released, and the provider uninstalled.
    pub fn with_provider(
        config: &PoolConfig,
        space: &AddressSpace,
        provider: Arc<dyn Provider>,
    ) -> Result<Pool, Error> {
        Pool::with_topology(config, space, provider, Box::new(Machine::new()))
    }

    pub(crate) fn with_topology(
        config: &PoolConfig,
        space: &AddressSpace,
        provider: Arc<dyn Provider>,
        topology: Box<dyn Topology>,
    ) -> Result<Pool, Error> {
        let geometry = config.geometry()?;
        let (name, fragments) = (Arc::<str>::from(config.name.as_str()), geometry.fragments());
        let number = Number::take(&name)?;
        let monitor = PoolMonitor::new(name.clone(), fragments);
        let mut memory = Memory {
            pool: name.clone(),
            provider,
            space: space.clone(),
            geometry,
            kind: number.kind(),
            segments: vec![None; geometry.segments],
            published: monitor.published.clone(),
        };
        let records = Records::new(fragments, geometry.fragment_size).map_err(|cause| Error::Records {
            pool: name.to_string(),
            bytes: Records::bytes(fragments),
            cause,
        })?;
        for place in 0..geometry.first_segments {
            memory.install(place, &records)?;
        }
        let segments = memory.segments[..geometry.first_segments].to_vec();
        monitor.register();
        let mut pool = Pool {
            cache: [MaybeUninit::uninit(); CACHE],
            next: 0,
            end: 0,
            head: 0,
            beyond: 0,
            kind: number.kind(),
            headroom: config.headroom,
            fragment_size: geometry.fragment_size as u32,
            store: PageStore::new(&geometry),
            filled: 0,
            recycled: 0,
            turn: Turn::new(&monitor.published.stamps),
            page_size: geometry.page_size,
            joined: 0,
            nodes: Nodes::new(topology, config.node, geometry.segments),
            grow_when_empty: config.grow_when_empty,
            growth_rests: 0,
            shared: Shared::publish(
                number,
                ReturnRing::new(fragments, monitor.published.gate.clone()),
                monitor.published.clone(),
                records,
                memory,
            ),
            monitor,
            _not_sync: PhantomData,
        };
        for (place, segment) in segments.iter().flatten().enumerate() {
            pool.adopt(place, segment);
        }
        Ok(pool)
    }

    pub(crate) fn shared(&self) -> &Shared {
        // SAFETY: it lives until the owner has closed and every fragment is home.
        unsafe { self.shared.as_ref() }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.shared().memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        self.monitor.name()
    }

    /// The address space that its memory is mapped in: its fragments are for devices of that space.
    pub fn space(&self) -> &AddressSpace {
        &self.shared().space
    }

    /// Bytes in a fragment.
    #[inline(always)]
    pub fn fragment_size(&self) -> usize {
        self.fragment_size as usize
    }

    /// Bytes left free before the data of a fresh packet.
    pub fn headroom(&self) -> u16 {
        self.headroom
    }

    /// Take one fragment to post to a device. `None` if none is free.
    #[inline]
    pub fn alloc(&mut self) -> Option<Posted> {
        if self.next == self.end {
            return self.after_refill(Pool::alloc);
        }
        // SAFETY: just compared.
        Some(unsafe { self.alloc_at_hand() })
    }

    /// Take one fragment that is [at hand](Pool::at_hand).
    ///
    /// # Safety
    ///
    /// There is one.
    #[inline(always)]
    pub unsafe fn alloc_at_hand(&mut self) -> Posted {
        debug_assert!(self.next < self.end);
        // SAFETY: entries from `next` to `end`, CACHE at most, are free fragments; stepping over it makes this the only owner.
        let fragment = unsafe { self.cache.get_unchecked(self.next).assume_init() };
        self.next += 1;
        Posted::from_record(fragment)
    }

    /// Fragments that can be taken before the cache has to be refilled.
    #[inline(always)]
    pub fn at_hand(&self) -> usize {
        self.end - self.next
    }

    /// Have `count` fragments [at hand](Pool::at_hand), if so many are free and the cache holds them. Returns how many are.
    #[inline(always)]
    pub fn have_at_hand(&mut self, count: usize) -> usize {
        if self.at_hand() < count {
            self.refill(count);
        }
        self.at_hand().min(count)
    }

    /// What an allocation does that finds the cache empty. It ends by calling this, and so needs no stack of its own.
    #[cold]
    #[inline(never)]
    fn after_refill<F>(&mut self, alloc: impl FnOnce(&mut Pool) -> Option<F>) -> Option<F> {
        if self.refill(REFILL) { alloc(self) } else { None }
    }

    /// An empty packet with the pool's headroom. `None` if no fragment is free.
    #[inline]
    pub fn alloc_packet(&mut self) -> Option<Packet> {
        if self.next == self.end {
            return self.after_refill(Pool::alloc_packet);
        }
        let fragment = self.alloc()?;
        // SAFETY: the headroom is less than the fragment's size, checked when the pool was made.
        Some(unsafe { fragment.complete_unchecked(self.headroom.into(), 0) })
    }

    /// Where the next `count` fragments stand, which are at hand: the caller's, to be read before the pool is used again.
    #[inline(always)]
    pub(crate) fn lend(&mut self, count: usize) -> *const NonNull<Record> {
        debug_assert!(count <= self.at_hand());
        // SAFETY: `next` is within the cache, or at its end.
        let first = unsafe { self.cache.as_ptr().add(self.next) };
        self.next += count;
        first.cast()
    }

    /// Have the last `count` of those that were lent again.
    ///
    /// # Safety
    ///
    /// So many were, and none of them has been taken.
    #[inline(always)]
    pub(crate) unsafe fn give_back(&mut self, count: usize) {
        self.next -= count;
    }

    /// Up to `count` fragments to post, taken one by one: what is not taken stays in the pool.
    ///
    /// The batch is shorter than `count` if fragments are short, or `count` above the 256 that the cache holds: a receive
    /// path asks for its burst and stops where the batch ends.
    #[inline(always)]
    pub fn batch(&mut self, count: usize) -> Batch<'_> {
        let count = self.have_at_hand(count);
        let pool = NonNull::from(self);
        // SAFETY: the pool is lent to the batch, which reaches it by this pointer alone, so that none of the others is made invalid by
        // a reference. `next + count` is no more than `end`, which is within the cache.
        let (next, end) = unsafe {
            let pool = pool.as_ptr();
            let next = (&raw const (*pool).cache).cast::<MaybeUninit<_>>().add((*pool).next);
            // Should the batch be leaked, its fragments are too: they are never given out twice.
            (*pool).next += count;
            (next, next.add(count))
        };
        Batch { next, end, pool, _pool: PhantomData }
    }

    /// Fill the cache, from this thread's magazine first. Returns whether there is anything in it.
    #[inline(never)]
    fn refill(&mut self, want: usize) -> bool {
        // What is left goes first.
        if self.next != self.end {
            self.cache.copy_within(self.next..self.end, 0);
        }
        let left = self.end - self.next;
        (self.next, self.end) = (0, left);
        let recycled = magazine::take(self.kind, &mut self.cache[self.end..]);
        self.end += recycled;
        self.recycled += recycled as u64;
        if self.end < want.min(CACHE) {
            self.refill_slow(want);
        }
        if self.monitor.published.stamps.now() != self.turn.done {
            self.stamp(left);
        }
        let published = &*self.monitor.published;
        published.recycle_cached.store(self.recycled, Ordering::Relaxed);
        add(&published.alloc_refill, 1);
        published.alloc_fast.store(self.allocated(), Ordering::Relaxed);
        self.end > 0
    }

    /// Fragments that can be allocated at once, short of those that are on their way back.
    pub fn available(&self) -> usize {
        self.at_hand() + self.store.free()
    }

    /// Pages whose fragments are all in the page store.
    pub fn whole_pages(&self) -> usize {
        self.store.whole_pages()
    }

    /// The counters, exact.
    pub fn stats(&self) -> PoolStats {
        self.monitor.published.alloc_fast.store(self.allocated(), Ordering::Relaxed);
        self.monitor.stats()
    }

    /// A handle that reads the counters from any thread, also after the pool is gone.
    pub fn monitor(&self) -> PoolMonitor {
        self.monitor.clone()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.trim();
        let shared = self.shared.as_ptr();
        let all = self.head + self.beyond + (self.store.fragments() - self.store.home()) as u64;
        self.monitor.published.enter(Life::Orphan);
        // SAFETY: the pool is alive until its owner has left, which happens here, once.
        let outcome = unsafe { ReturnRing::close(&raw const (*shared).ring, all) };
        if outcome == Outcome::Last {
            drop(Doomed(shared));
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?}, {:?})", self.name(), self.stats())
    }
}

/// Fragments on offer to a receive path; see [`Pool::batch`].
pub struct Batch<'a> {
    /// Entries of the pool's cache from `next` to before `end` are on offer.
    next: *const MaybeUninit<NonNull<Record>>,
    end: *const MaybeUninit<NonNull<Record>>,
    pool: NonNull<Pool>,
    _pool: PhantomData<&'a mut Pool>,
}

impl Batch<'_> {
    /// All that is on offer, to be read before the pool is used again. None of it is the batch's any more until some is
    /// [given back](Batch::give_back).
    #[inline(always)]
    pub(crate) fn take_all(&mut self) -> *const NonNull<Record> {
        std::mem::replace(&mut self.next, self.end).cast()
    }

    /// Have all from `first` on again.
    ///
    /// # Safety
    ///
    /// It is where one stands that was on offer, or one past the last, and none from there on has been taken.
    #[inline(always)]
    pub(crate) unsafe fn give_back(&mut self, first: *const NonNull<Record>) {
        self.next = first.cast();
    }
}

impl Iterator for Batch<'_> {
    type Item = Posted;

    #[inline(always)]
    fn next(&mut self) -> Option<Posted> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: below `end`, so in the cache, which is borrowed; a free fragment, and stepping over it makes this the only owner.
        unsafe {
            let fragment = (*self.next).assume_init();
            self.next = self.next.add(1);
            Some(Posted::from_record(fragment))
        }
    }

    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end.addr() - self.next.addr()) / size_of::<NonNull<Record>>();
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batch<'_> {}

impl Drop for Batch<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let left = self.len();
        // SAFETY: the pool is lent to this batch.
        unsafe { (*self.pool.as_ptr()).next -= left };
    }
}

/// One fragment that may be taken; see [`crate::Burst::fill`].
pub struct Fresh<'a> {
    pub(crate) fragment: NonNull<Record>,
    /// Counts those that were.
    pub(crate) taken: &'a mut usize,
}

impl Fresh<'_> {
    /// Take it.
    #[inline(always)]
    pub fn take(self) -> Posted {
        *self.taken += 1;
        Posted::from_record(self.fragment)
    }
}
