//! The pool: its owner's half ([`Pool`]) and the half that lives until the last fragment is home ([`Shared`]).

// Owns the fragments' records and memory and hands out pointers to them.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use pagewire_hugepages::{PageSize, Segment, SegmentOptions};
use pagewire_pci::AddressSpace;

use crate::error::Error;
use crate::magazine;
use crate::packet::{Packet, Posted};
use crate::pages::PageStore;
use crate::record::{Record, Records, kind_of, pool_of};
use crate::return_ring::{Outcome, ReturnRing};
use crate::stats::{PoolMonitor, PoolStats, Published, add};
use crate::sync::{AtomicPtr, Mutex, Ordering};

/// Pools a process can have at one time. Number 0 is nobody's.
pub(crate) const MAX_POOLS: usize = if cfg!(loom) { 3 } else { 1023 };
/// Fragments the owner's cache holds.
const CACHE: usize = 256;
/// Fragments that the slow path takes out of the page store at a time.
const REFILL: usize = 64;

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

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Its name, in messages and reports.
    pub name: String,
    /// How many fragments, rounded up to whole pages.
    pub fragments: usize,
    /// Bytes in a fragment: a power of two, 512 to `page_size`. Half a page by default.
    pub fragment_size: usize,
    /// Bytes in a logical page: a power of two, 4 KiB to 64 KiB.
    pub page_size: usize,
    /// Bytes left free before the data of a fresh packet, for headers that are prepended later.
    pub headroom: u16,
    /// Kind of memory page behind it. Small pages are used only when asked for here.
    pub backing: PageSize,
    /// NUMA node of the memory; `None` leaves it to the kernel, which takes the node of the calling thread.
    pub node: Option<u32>,
}

impl PoolConfig {
    /// Headroom of a fresh packet in bytes, unless configured otherwise.
    pub const HEADROOM: u16 = 256;
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig {
            name: "pool".into(),
            fragments: 4096,
            fragment_size: 2048,
            page_size: 4096,
            headroom: PoolConfig::HEADROOM,
            backing: PageSize::Size2M,
            node: None,
        }
    }
}

impl PoolConfig {
    fn check(&self) -> Result<(), Error> {
        let bad = |field, found, expected: String| {
            Err(Error::Config { pool: self.name.clone(), field, found, expected })
        };
        if !self.page_size.is_power_of_two() || !(4096..=65536).contains(&self.page_size) {
            return bad("page_size", self.page_size, "a power of two from 4096 to 65536".into());
        }
        // A page's free fragments are one 32-bit mask, and a packet's length in one fragment 16 bits.
        let smallest = 512.max(self.page_size / 32);
        let largest = self.page_size.min(32768);
        if !self.fragment_size.is_power_of_two() || !(smallest..=largest).contains(&self.fragment_size) {
            return bad(
                "fragment_size",
                self.fragment_size,
                format!("a power of two from {smallest} to {largest}"),
            );
        }
        if usize::from(self.headroom) >= self.fragment_size {
            return bad(
                "headroom",
                self.headroom.into(),
                format!("less than the fragment's {}", self.fragment_size),
            );
        }
        let most = 1 << 26;
        if !(1..=most).contains(&self.fragments) {
            return bad("fragments", self.fragments, format!("1 to {most}"));
        }
        Ok(())
    }
}

/// The part of a pool that lives until its last fragment is home, wherever and by whomever it is dropped.
pub(crate) struct Shared {
    ring: ReturnRing,
    published: Arc<Published>,
    number: usize,
    records: Records,
    /// Held so that the memory stays mapped.
    mapped: Mapped,
}

/// A segment mapped for the devices of a space, until dropped.
struct Mapped {
    space: AddressSpace,
    segment: Arc<Segment>,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.space.unmap(&self.segment);
    }
}

impl Shared {
    /// The way home for fragments of pool `kind` from a thread that is not allocating from it.
    #[cold]
    #[inline(never)]
    #[must_use]
    pub(crate) fn give_back(kind: u32, records: &[NonNull<Record>]) -> Option<Doomed> {
        let pool = POOLS[pool_of(kind) & MAX_POOLS].load(Ordering::Acquire);
        // SAFETY: a pool lives as long as a fragment of it is out, and `records` are, until `push` has counted them.
        let shared = unsafe { &*pool };
        // Counted before the push, after which the pool may be gone.
        shared.published.remote_batch.fetch_add(1, Ordering::Relaxed);
        if shared.ring.is_closed() {
            shared.published.release.fetch_add(records.len() as u64, Ordering::Release);
        }
        // SAFETY: `kind` names the pool of the fragments, which are the caller's to give.
        let outcome = unsafe { ReturnRing::push(&raw const shared.ring, records) };
        (outcome == Outcome::Last).then(|| Doomed(pool))
    }
}

/// A pool whose last fragment is home: dropping this takes it down. There is one for a pool, for whom the return ring called
/// the last.
#[must_use]
pub(crate) struct Doomed(*mut Shared);

impl Drop for Doomed {
    fn drop(&mut self) {
        /// Gives the number back at the very end, whatever happens on the way.
        struct Number(usize);
        impl Drop for Number {
            fn drop(&mut self) {
                POOLS[self.0].store(ptr::null_mut(), Ordering::Release);
            }
        }
        // SAFETY: it was made by `Box::into_raw`, every other party has made its last access, and none takes it down as well.
        let (_number, shared) = unsafe { (Number((*self.0).number), Box::from_raw(self.0)) };
        let published = &shared.published;
        published.release.store(published.hold.load(Ordering::Relaxed), Ordering::Release);
    }
}

/// A pool of packet memory; owned by one core at a time.
///
/// `Send`, not `Sync`: allocation needs `&mut`, so the compiler forbids two cores on one pool. Dropping a pool while fragments
/// are out is normal: its memory lives on until the last of them returns.
pub struct Pool {
    shared: NonNull<Shared>,
    cache: [MaybeUninit<NonNull<Record>>; CACHE],
    /// Free fragments are the entries of the cache from `next` to before `end`, taken in this order: a receive loop has one count for
    /// them, its descriptors and its packets.
    next: usize,
    end: usize,
    /// Fragments taken from the return ring so far.
    head: u64,
    kind: u32,
    headroom: u16,
    fragment_size: u32,
    store: PageStore,
    /// Fragments that have ever been put into the cache; less what is there now, it is what has been allocated.
    filled: u64,
    monitor: PoolMonitor,
    page_size: usize,
    _not_sync: PhantomData<std::cell::Cell<()>>,
}

// SAFETY: all that the pool points to is either reached through `&mut Pool` alone or made for several threads.
unsafe impl Send for Pool {}

impl Pool {
    /// Make a pool, map its memory for every device of `space`, and fill it.
    ///
    /// # Errors
    ///
    /// [`Error`], with nothing left behind.
    pub fn new(config: &PoolConfig, space: &AddressSpace) -> Result<Pool, Error> {
        config.check()?;
        let name = || config.name.clone();
        let fragments_per_page = config.page_size / config.fragment_size;
        let pages = config.fragments.div_ceil(fragments_per_page);
        let fragments = pages * fragments_per_page;
        let options =
            SegmentOptions { page_size: config.backing, node: config.node, name: config.name.clone() };
        let segment = Segment::allocate(pages * config.page_size, &options)
            .map_err(|cause| Error::Memory { pool: name(), cause })?;
        space.map(segment.clone()).map_err(|cause| Error::Map { pool: name(), cause })?;
        let mapped = Mapped { space: space.clone(), segment };
        let records = Records::new(fragments).map_err(|cause| Error::Records {
            pool: name(),
            bytes: Records::bytes(fragments),
            cause,
        })?;
        let monitor = PoolMonitor { name: name().into(), published: Arc::new(Published::default()) };
        monitor.published.fragments.store(fragments as u64, Ordering::Relaxed);

        let numbers = NUMBERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let number = (1..=MAX_POOLS)
            .find(|&number| POOLS[number].load(Ordering::Acquire).is_null())
            .ok_or_else(|| Error::TooManyPools { pool: name() })?;
        for index in 0..fragments {
            let offset = index * config.fragment_size;
            let iova = mapped.space.iova(&mapped.segment, offset);
            let record = Record {
                addr: mapped.segment.as_ptr().as_ptr().wrapping_add(offset),
                iova: iova.map_err(|cause| Error::Map { pool: name(), cause })?,
                data: 0,
                offset: 0,
                packet_len: 0,
                kind: kind_of(number),
                next: None,
                hash: 0,
                size: config.fragment_size as u32,
                vlan_tci: 0,
                segments: 1,
                l2_len: 0,
                l3_len: 0,
                l4_len: 0,
                mss: 0,
                packet_type: 0,
                rss_type: 0,
            };
            // SAFETY: the records are this function's own until the pool is published.
            unsafe { records.get(index).write(record) };
        }
        let shared = Box::into_raw(Box::new(Shared {
            ring: ReturnRing::new(fragments),
            published: monitor.published.clone(),
            number,
            records,
            mapped,
        }));
        POOLS[number].store(shared, Ordering::Release);
        drop(numbers);

        Ok(Pool {
            // SAFETY: `Box::into_raw` is never null.
            shared: unsafe { NonNull::new_unchecked(shared) },
            cache: [MaybeUninit::uninit(); CACHE],
            next: 0,
            end: 0,
            head: 0,
            kind: kind_of(number),
            headroom: config.headroom,
            fragment_size: config.fragment_size as u32,
            store: PageStore::new(pages, fragments_per_page),
            filled: 0,
            monitor,
            page_size: config.page_size,
            _not_sync: PhantomData,
        })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: it lives until the owner has closed and every fragment is home.
        unsafe { self.shared.as_ref() }
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        self.monitor.name()
    }

    /// The address space that its memory is mapped in: its fragments are for devices of that space.
    pub fn space(&self) -> &AddressSpace {
        &self.shared().mapped.space
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
        // SAFETY: entries from `next` to `end`, CACHE at most, are free fragments; stepping over it makes this the only owner.
        let fragment = unsafe { self.cache.get_unchecked(self.next).assume_init() };
        self.next += 1;
        Some(Posted::from_record(fragment))
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

    /// Up to `count` fragments to post, taken one by one: what is not taken stays in the pool.
    ///
    /// The batch is shorter than `count` if fragments are short, or `count` above the 256 that the cache holds: a receive
    /// path asks for its burst and stops where the batch ends.
    #[inline(always)]
    pub fn batch(&mut self, count: usize) -> Batch<'_> {
        if self.end - self.next < count {
            self.refill(count);
        }
        let count = count.min(self.end - self.next);
        // SAFETY: `next + count` is no more than `end`, which is within the cache.
        let (next, end) = unsafe {
            let next = self.cache.as_ptr().add(self.next);
            (next, next.add(count))
        };
        // Should the batch be leaked, its fragments are too: they are never given out twice.
        self.next += count;
        Batch { next, end, pool: self }
    }

    /// Fill the cache, from this thread's magazine first. Returns whether there is anything in it.
    #[inline(never)]
    fn refill(&mut self, want: usize) -> bool {
        // What is left goes first.
        self.cache.copy_within(self.next..self.end, 0);
        (self.next, self.end) = (0, self.end - self.next);
        let recycled = magazine::take(self.kind, &mut self.cache[self.end..]);
        self.end += recycled;
        self.filled += recycled as u64;
        if self.end < want.min(CACHE) {
            self.refill_slow(want);
        }
        let published = &*self.monitor.published;
        add(&published.recycle_cached, recycled as u64);
        add(&published.alloc_refill, 1);
        published.alloc_fast.store(self.filled - self.end as u64, Ordering::Relaxed);
        self.end > 0
    }

    /// Free fragments in the cache.
    fn cached(&self) -> usize {
        self.end - self.next
    }

    /// Fill the cache from the return ring, then from the page store.
    #[cold]
    #[inline(never)]
    fn refill_slow(&mut self, want: usize) {
        let want = want.clamp(REFILL, CACHE);
        let before = self.end;
        while self.end < want {
            let Some(record) = self.pop_returned() else { break };
            self.cache[self.end].write(record);
            self.end += 1;
        }
        let returned = self.end - before;
        while self.end < want {
            let Some(fragment) = self.store.take() else { break };
            self.cache[self.end].write(self.shared().records.get(fragment));
            self.end += 1;
        }
        let split = self.end - before - returned;
        self.filled += (returned + split) as u64;
        let published = &*self.monitor.published;
        add(&published.recycle_ring, returned as u64);
        add(
            if self.page_size > 4096 { &published.alloc_slow_high_order } else { &published.alloc_slow },
            split as u64,
        );
        add(&published.hold, split as u64);
        if self.end == 0 {
            add(&published.alloc_empty, 1);
        }
    }

    fn pop_returned(&mut self) -> Option<NonNull<Record>> {
        let record = self.shared().ring.pop(self.head)?;
        self.head += 1;
        Some(record)
    }

    /// Put everything that is free back into the page store, where pages become whole again.
    ///
    /// Afterwards [`PoolStats::inflight`] is what rings and packets hold, and magazines of other threads.
    pub fn trim(&mut self) {
        let mut recycled = 0;
        loop {
            self.filled -= self.cached() as u64;
            while self.next < self.end {
                let fragment = self.cache[self.next];
                self.next += 1;
                // SAFETY: entries from `next` to `end` are free fragments; stepping over it makes this the only owner.
                self.put(unsafe { fragment.assume_init() });
            }
            let taken = magazine::take(self.kind, &mut self.cache[..]);
            (self.next, self.end) = (0, taken);
            recycled += taken;
            self.filled += taken as u64;
            if taken == 0 {
                break;
            }
        }
        let mut returned = 0;
        while let Some(record) = self.pop_returned() {
            self.put(record);
            returned += 1;
        }
        let published = &*self.monitor.published;
        add(&published.recycle_cached, recycled as u64);
        add(&published.recycle_ring, returned);
        published.alloc_fast.store(self.filled, Ordering::Relaxed);
    }

    fn put(&mut self, record: NonNull<Record>) {
        self.store.put(self.shared().records.index_of(record));
        add(&self.monitor.published.release, 1);
    }

    /// Fragments that can be allocated at once, short of those that are on their way back.
    pub fn available(&self) -> usize {
        self.cached() + self.store.free()
    }

    /// Pages whose fragments are all in the page store.
    pub fn whole_pages(&self) -> usize {
        self.store.whole_pages()
    }

    /// The counters, exact.
    pub fn stats(&self) -> PoolStats {
        self.monitor.published.alloc_fast.store(self.filled - self.cached() as u64, Ordering::Relaxed);
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
        let outstanding = self.shared().records.len() - self.store.free();
        // SAFETY: the pool is alive until its owner has left, which happens here, once.
        let outcome = unsafe { ReturnRing::close(&raw const (*shared).ring, self.head, outstanding as u64) };
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
    pool: &'a mut Pool,
}

impl Batch<'_> {
    /// Bytes in each fragment.
    #[inline(always)]
    pub fn fragment_size(&self) -> usize {
        self.pool.fragment_size()
    }

    /// The fragment after the first `taken`, which is counted there if it is taken.
    ///
    /// # Safety
    ///
    /// The batch has more than `taken`, and it [advances](Batch::advance) by them before it is used otherwise.
    #[inline(always)]
    pub(crate) unsafe fn lend<'a>(&'a self, taken: &'a mut usize) -> Fresh<'a> {
        // SAFETY: below `end`, so in the cache, which is borrowed, and a free fragment.
        Fresh { fragment: unsafe { (*self.next.add(*taken)).assume_init() }, taken }
    }

    /// Those are no longer the batch's.
    ///
    /// # Safety
    ///
    /// The batch has `taken` or more.
    #[inline(always)]
    pub(crate) unsafe fn advance(&mut self, taken: usize) {
        // SAFETY: no more than `end`.
        self.next = unsafe { self.next.add(taken) };
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
        self.pool.next -= left;
    }
}

/// One fragment that may be taken; see [`crate::Burst::fill`].
pub struct Fresh<'a> {
    fragment: NonNull<Record>,
    taken: &'a mut usize,
}

impl Fresh<'_> {
    /// Take it.
    #[inline(always)]
    pub fn take(self) -> Posted {
        *self.taken += 1;
        Posted::from_record(self.fragment)
    }
}
