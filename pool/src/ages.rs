//! How long fragments have been out of their pool, at no cost to a packet.
//!
//! Every fragment has a stamp: the number of the last *look* before which it was certainly free. A look is a question for the
//! ages, once a second perhaps. Stamps are made where fragments pass in batches anyway, on the owner's slow paths: out of the
//! page store, and for what circulates, by the owner's own magazine or the return ring, when the cache is refilled
//! after a look, for about as many fragments as the pool has two times over, and not again until the next look. So a packet costs
//! nothing, a refill one comparison, and who never asks for ages never pays at all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the fragments of a pool have been out, at one moment.
///
/// A fragment may have been handed out later than is said here, and never earlier: what circulates is noticed from the first
/// look on. An owner that allocates nothing notices nothing, and what its cache holds counts as out. Looks further apart
/// make coarser ages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ages {
    /// How many fragments have been out for less than the bound of the same place in [`Ages::BOUNDS`]; the last, for longer.
    pub counts: [u64; Ages::BOUNDS.len() + 1],
    /// How long that is for the oldest.
    pub oldest: Duration,
}

impl Ages {
    /// What divides the histogram.
    pub const BOUNDS: [Duration; 5] = [
        Duration::from_secs(1),
        Duration::from_secs(10),
        Duration::from_secs(60),
        Duration::from_secs(600),
        Duration::from_secs(3600),
    ];
}

/// Looks whose time is kept. What is older than the first of them is as old as that.
const KEPT: usize = 1024;
/// The stamp of a fragment in the page store.
const HOME: u32 = 0;

/// The stamps of a pool's fragments.
pub(crate) struct Stamps {
    /// Number of the last look: the first of all is when the pool was made.
    looks: AtomicU32,
    stamps: Box<[AtomicU32]>,
    /// When the last looks were. The youngest has the number `looks`.
    times: Mutex<VecDeque<Instant>>,
}

impl Stamps {
    pub(crate) fn new(fragments: usize) -> Stamps {
        let mut times = VecDeque::with_capacity(KEPT);
        times.push_back(Instant::now());
        Stamps {
            looks: AtomicU32::new(HOME + 1),
            stamps: (0..fragments).map(|_| AtomicU32::new(HOME)).collect(),
            times: Mutex::new(times),
        }
    }

    /// Number of the last look.
    #[inline(always)]
    pub(crate) fn now(&self) -> u32 {
        self.looks.load(Ordering::Relaxed)
    }

    /// The fragment is free now, in the owner's hands, and may be given out next.
    pub(crate) fn pass(&self, fragment: usize) {
        self.stamps[fragment].store(self.now(), Ordering::Relaxed);
    }

    /// The fragment is in the page store.
    pub(crate) fn home(&self, fragment: usize) {
        self.stamps[fragment].store(HOME, Ordering::Relaxed);
    }

    /// Have all looks so far been earlier.
    #[cfg(test)]
    pub(crate) fn backdate(&self, by: Duration) {
        self.times.lock().expect("no panic").iter_mut().for_each(|time| *time -= by);
    }

    /// Look, and begin a new interval.
    pub(crate) fn look(&self) -> Ages {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, youngest) = (Instant::now(), self.now());
        let mut ages = Ages { counts: [0; _], oldest: Duration::ZERO };
        for stamp in self.stamps.iter().map(|stamp| stamp.load(Ordering::Relaxed)) {
            if stamp == HOME {
                continue;
            }
            // It was free after the look of its number, and before the next.
            let back = youngest.wrapping_sub(stamp) as usize;
            let since = times[times.len() - 1 - back.min(times.len() - 1)];
            let age = now.saturating_duration_since(since);
            ages.counts[Ages::BOUNDS.iter().take_while(|&&bound| age >= bound).count()] += 1;
            ages.oldest = ages.oldest.max(age);
        }
        if times.len() == KEPT {
            times.pop_front();
        }
        times.push_back(now);
        let next = youngest.wrapping_add(1);
        self.looks.store(if next == HOME { HOME + 1 } else { next }, Ordering::Relaxed);
        ages
    }
}

/// How far the owner is with stamping what circulates on its fast path.
pub(crate) struct Turn {
    /// The look whose turn is over: with no other since there is nothing to stamp.
    pub(crate) done: u32,
    /// The look whose turn it is, and how many fragments are still to be stamped.
    running: u32,
    left: usize,
}

impl Turn {
    pub(crate) fn new(stamps: &Stamps) -> Turn {
        Turn { done: stamps.now(), running: stamps.now(), left: 0 }
    }

    /// Of the owner's cache, the last `fresh` fragments have just come in.
    pub(crate) fn stamp(
        &mut self,
        stamps: &Stamps,
        cache: impl DoubleEndedIterator<Item = usize> + ExactSizeIterator,
        fresh: usize,
    ) {
        let now = stamps.now();
        let fresh = if self.running == now {
            fresh
        } else {
            (self.running, self.left) = (now, 2 * stamps.stamps.len());
            // All of it, once: what nobody asks for at the bottom of the cache is nobody's.
            cache.len()
        };
        cache.rev().take(fresh).for_each(|fragment| stamps.pass(fragment));
        self.left = self.left.saturating_sub(fresh);
        if self.left == 0 {
            self.done = now;
        }
    }
}
