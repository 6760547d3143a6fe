//! A bulk: bare fragments of one pool, taken and given back many at a time.

// Moves pointers to fragments between its buffer, the pool's cache and the thread's magazine by one copy.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::ptr;

use crate::check;
use crate::magazine;
use crate::packet::Posted;
use crate::pool::Pool;
use crate::record::LARGE;

/// Fragments of one pool, none of them a packet yet: what a driver takes to fill a ring, and what it takes out of one that it stops.
///
/// [`Pool::alloc_bulk`] fills it by one copy of pointers, [`clear`](Bulk::clear) gives all of them back by another: since they are of one
/// pool, none is looked at. Its capacity is set once and never grows.
///
/// ```
/// # use pagewire_pci::{AddressSpace, AddressSpaceOptions};
/// # use pagewire_pool::{PageSize, PoolConfig};
/// use pagewire_pool::{Bulk, Pool, Posted};
///
/// /// Posts fragments as long as there are some: `descriptors` and `slots` are a ring's, from its tail on.
/// fn refill(pool: &mut Pool, spare: &mut Bulk, descriptors: &mut [u64], slots: &mut [Option<Posted>]) -> usize {
///     pool.alloc_bulk(spare, descriptors.len());
///     let ring = descriptors.iter_mut().zip(slots);
///     let posted = spare.drain().zip(ring).map(|(fragment, (descriptor, slot))| {
///         *descriptor = fragment.iova();
///         *slot = Some(fragment);
///     });
///     posted.count()
/// }
/// # let space = AddressSpace::new(AddressSpaceOptions::default())?;
/// # let config = PoolConfig { fragments: 64, backing: PageSize::Size4K, ..PoolConfig::default() };
/// # let mut pool = Pool::new(&config, &space)?;
///
/// let (mut descriptors, mut slots) = ([0; 32], [const { None }; 32]);
/// let mut spare = Bulk::new(32);
/// assert_eq!(refill(&mut pool, &mut spare, &mut descriptors, &mut slots), 32);
///
/// // The queue is stopped, its card reset: what was posted goes home.
/// for fragment in slots.iter_mut().filter_map(Option::take) {
///     spare.push(fragment).expect("32 of one pool fit");
/// }
/// spare.clear();
/// # pool.trim();
/// # assert_eq!(pool.stats().inflight(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Bulk {
    /// All of the pool `kind`, and none of them large.
    fragments: Vec<Posted>,
    /// [`Record::kind`](crate::record::Record::kind) of what it holds. Means nothing while it is empty.
    kind: u32,
}

impl Bulk {
    /// An empty bulk with room for `capacity` fragments, at least 1 and at most the 256 that a pool's cache gives at a time.
    pub fn new(capacity: usize) -> Bulk {
        Bulk { fragments: Vec::with_capacity(capacity.clamp(1, crate::pool::CACHE)), kind: 0 }
    }

    /// How many fragments fit.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.fragments.capacity()
    }

    /// How many more fragments fit.
    #[inline]
    pub fn room(&self) -> usize {
        self.fragments.capacity() - self.fragments.len()
    }

    /// Add a fragment at the end, or give it back: if the bulk is full, if it holds fragments of another pool, or if this one stands for
    /// several ([`Pool::alloc_len`]).
    #[inline]
    pub fn push(&mut self, fragment: Posted) -> Result<(), Posted> {
        let kind = fragment.kind();
        if self.room() == 0 || kind & LARGE != 0 || !self.takes(kind) {
            return Err(fragment);
        }
        self.kind = kind;
        self.fragments.push(fragment);
        Ok(())
    }

    /// Take the last fragment.
    #[inline]
    pub fn pop(&mut self) -> Option<Posted> {
        self.fragments.pop()
    }

    /// Take all fragments, first to last; those that are not taken from the iterator go home.
    #[inline]
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = Posted> + '_ {
        self.fragments.drain(..)
    }

    /// Drop all fragments: a bulk return to their pool.
    #[inline]
    pub fn clear(&mut self) {
        let count = self.fragments.len();
        // SAFETY: shortening is always allowed; what was in the buffer is given away here. A fragment is a transparent pointer to its
        // record, and all of these are single ones of pool `kind`.
        unsafe {
            self.fragments.set_len(0);
            magazine::release_of(self.kind, self.fragments.as_ptr().cast(), count);
        }
    }

    /// Whether it may hold fragments of that pool.
    #[inline(always)]
    fn takes(&self, kind: u32) -> bool {
        self.fragments.is_empty() || self.kind == kind
    }
}

impl Deref for Bulk {
    type Target = [Posted];

    /// Not to be changed: a fragment of another pool might take the place of one of this.
    #[inline]
    fn deref(&self) -> &[Posted] {
        &self.fragments
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Pool {
    /// Take up to `count` fragments at once, to be added to a bulk. Returns how many, by one copy of pointers.
    ///
    /// Fewer than `count` if fragments are short or the bulk has no room for more, and none if it holds some of another pool.
    #[inline]
    pub fn alloc_bulk(&mut self, bulk: &mut Bulk, count: usize) -> usize {
        if !bulk.takes(self.kind) {
            return 0;
        }
        bulk.kind = self.kind;
        let mut offer = self.batch(count.min(bulk.room()));
        let (start, count) = (bulk.fragments.len(), offer.len());
        let fragments = offer.take_all();
        if check::is_on() {
            // SAFETY: there are `count`.
            (0..count).for_each(|number| check::taken(unsafe { fragments.add(number).read() }));
        }
        // SAFETY: the bulk has room for `count` behind its `start`; that many are on offer, which are the bulk's afterwards.
        unsafe {
            ptr::copy_nonoverlapping(fragments, bulk.fragments.as_mut_ptr().add(start).cast(), count);
            bulk.fragments.set_len(start + count);
        }
        count
    }
}
