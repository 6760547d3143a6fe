//! What a sender is told while it runs. It looks at a flag once a round, and takes a lock only where that is set.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::schedule::Span;

/// One thing to do.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// It is known from when to when.
    Begin(Span),
    Stop,
    /// Go on from now.
    Start,
    /// Parts of ticks from each frame, by its template or length, to the next. Without, the port sets the pace.
    Pace(Option<Vec<u128>>),
}

/// Orders that a sender has not yet obeyed.
#[derive(Debug, Default)]
pub(super) struct Orders {
    given: AtomicBool,
    list: Mutex<Vec<Order>>,
}

impl Orders {
    pub(super) fn give(&self, order: Order) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.given.store(true, Ordering::Release);
    }

    /// Whether there are any.
    #[inline(always)]
    pub(super) fn are_given(&self) -> bool {
        self.given.load(Ordering::Relaxed)
    }

    /// Those that there are, unless somebody is just giving one: the next round will do.
    #[cold]
    pub(super) fn take(&self) -> Vec<Order> {
        let Ok(mut list) = self.list.try_lock() else { return Vec::new() };
        self.given.store(false, Ordering::Relaxed);
        std::mem::take(&mut list)
    }
}
