//! What the server's thread and the producers, each on a thread of its own, know together. No lock here is held for longer
//! than it takes to look at a list, and a producer that would have to wait for one comes back at its next poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use pagewire_hugepages::Segment;

use super::attached::Attached;
use super::stats::Client;
use super::wake::Event;
use super::{Error, Options};

/// News for a producer.
pub(super) enum News {
    Attached(Attached),
    /// The consumer of that number has gone.
    Gone(u64),
    /// Consumers have been told of a segment of the producer's memory, by that number.
    Segment(u16, Arc<Segment>),
}

/// Where a producer's news wait for its next poll.
pub(super) struct Mailbox {
    any: AtomicBool,
    news: Mutex<Vec<News>>,
    pub(super) event: Event,
}

impl Mailbox {
    pub(super) fn new() -> std::io::Result<Mailbox> {
        Ok(Mailbox { any: AtomicBool::new(false), news: Mutex::default(), event: Event::new()? })
    }

    pub(super) fn post(&self, news: News) {
        let mut list = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        // A producer that does not look finds at most one entry for each consumer that there is or that it knows.
        let unseen = |listed: &News| matches!((listed, &news), (News::Attached(one), News::Gone(id)) if one.id() == *id);
        match list.iter().position(unseen) {
            Some(at) => drop(list.remove(at)),
            None => list.push(news),
        }
        self.any.store(true, Ordering::Release);
        drop(list);
        self.event.set();
    }

    #[inline(always)]
    pub(super) fn has_any(&self) -> bool {
        // Relaxed: what is not seen now is seen at the next poll.
        self.any.load(Ordering::Relaxed)
    }

    /// All of it; nothing while somebody is writing.
    pub(super) fn take(&self) -> Vec<News> {
        let mut list = match self.news.try_lock() {
            Ok(list) => list,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Vec::new(),
        };
        self.any.store(false, Ordering::Relaxed);
        self.event.clear();
        std::mem::take(&mut list)
    }
}

/// A producer, as the server knows it.
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) mailbox: Arc<Mailbox>,
}

/// Memory that packets of a lane are in.
pub(super) struct Shared {
    pub(super) segment: Arc<Segment>,
    pub(super) lane: usize,
    /// Whether its producer may refer to it: every consumer has been told.
    pub(super) confirmed: bool,
}

/// Entries keep their place; those of producers that have gone are `None`.
#[derive(Default)]
pub(super) struct State {
    pub(super) segments: Vec<Option<Shared>>,
    pub(super) lanes: Vec<Option<Lane>>,
    pub(super) clients: Vec<Arc<Client>>,
}

pub(super) struct Hub {
    pub(super) options: Options,
    /// Wakes the server's thread.
    pub(super) event: Event,
    pub(super) stop: AtomicBool,
    state: Mutex<State>,
    /// Lanes that are used no more.
    dead: Mutex<Vec<Attached>>,
}

impl Hub {
    pub(super) fn new(options: Options, event: Event) -> Hub {
        Hub { options, event, stop: AtomicBool::new(false), state: Mutex::default(), dead: Mutex::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves it to the server's thread to unmap and close a lane: a producer has other things to do.
    pub(super) fn bury(&self, lane: Attached) {
        if let Ok(mut dead) = self.dead.try_lock() {
            dead.push(lane);
            drop(dead);
            self.event.set();
        }
    }

    pub(super) fn clear_dead(&self) {
        let dead = std::mem::take(&mut *self.dead.lock().unwrap_or_else(PoisonError::into_inner));
        drop(dead);
    }

    /// Adds a producer; gives its number.
    pub(super) fn add_lane(&self, name: &str, mailbox: Arc<Mailbox>) -> Result<usize, Error> {
        let mut state = self.state();
        let found = state.lanes.len() + 1;
        let most = super::layout::MAX_PARTS / 2;
        if found > most {
            return Err(Error::TooMany { what: "producers", found, most });
        }
        state.lanes.push(Some(Lane { name: name.into(), mailbox }));
        Ok(found - 1)
    }

    /// These are a lane's segments now. Those that are new the server's thread tells of; those that have gone are not held any
    /// more.
    pub(super) fn set_segments(&self, lane: usize, segments: &[Arc<Segment>]) -> Result<(), Error> {
        let mut state = self.state();
        for shared in &mut state.segments {
            let has_gone = |shared: &Shared| {
                shared.lane == lane && !segments.iter().any(|segment| Arc::ptr_eq(segment, &shared.segment))
            };
            if shared.as_ref().is_some_and(has_gone) {
                *shared = None;
            }
        }
        for segment in segments {
            let known = |shared: &Shared| shared.lane == lane && Arc::ptr_eq(&shared.segment, segment);
            if state.segments.iter().flatten().any(known) {
                continue;
            }
            let found = state.segments.len() + 1;
            let most = super::layout::MAX_PARTS / 2;
            if found > most {
                return Err(Error::TooMany { what: "segments of memory", found, most });
            }
            state.segments.push(Some(Shared { segment: segment.clone(), lane, confirmed: false }));
        }
        drop(state);
        self.event.set();
        Ok(())
    }

    /// Every consumer has been told of the first `told` segments: producers may use them.
    pub(super) fn confirm_segments(&self, told: usize) {
        let mut state = self.state();
        let State { segments, lanes, .. } = &mut *state;
        for (number, shared) in segments.iter_mut().take(told).enumerate() {
            if let Some(shared) = shared.as_mut().filter(|shared| !shared.confirmed)
                && let Some(lane) = &lanes[shared.lane]
            {
                shared.confirmed = true;
                lane.mailbox.post(News::Segment(number as u16, shared.segment.clone()));
            }
        }
    }

    /// A producer has gone: it is offered to consumers no more, and its memory not held for them.
    pub(super) fn remove_lane(&self, lane: usize) {
        let mut state = self.state();
        state.lanes[lane] = None;
        for shared in &mut state.segments {
            if shared.as_ref().is_some_and(|shared| shared.lane == lane) {
                *shared = None;
            }
        }
    }
}
