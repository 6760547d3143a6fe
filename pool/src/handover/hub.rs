//! What the server's thread and the producers, each on a thread of its own, know together. No lock here is held for longer
//! than it takes to look at a list, and a producer that would have to wait for one comes back at its next poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use pagewire_hugepages::Segment;

use super::attached::Attached;
use super::layout::{GENERATIONS, MAX_PARTS, SegmentId};
use super::stats::Client;
use super::wake::Event;
use super::{Error, Options};

/// News for a producer.
pub(super) enum News {
    Attached(Attached),
    /// The consumer of that number has gone.
    Gone(u64),
    /// Consumers have been told of a segment of the producer's memory, by that name.
    Segment(SegmentId, Arc<Segment>),
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

    /// Only these segments are the producer's.
    pub(super) fn keep(&self, segments: &[Arc<Segment>]) {
        let mut list = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|news| match news {
            News::Segment(_, told) => segments.iter().any(|segment| Arc::ptr_eq(segment, told)),
            News::Attached(_) | News::Gone(_) => true,
        });
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

/// What consumers are told of, by number. A number is used again when its part has gone, in another generation.
pub(super) struct Parts<T> {
    parts: Vec<Part<T>>,
}

pub(super) struct Part<T> {
    /// The number of the change that made it what it is. Who has been told of that, and of those before, knows it.
    pub(super) change: u64,
    pub(super) generation: u16,
    /// `None`: it has gone.
    pub(super) what: Option<T>,
}

impl<T> Parts<T> {
    fn add(&mut self, change: u64, what: T) -> Option<usize> {
        let number = match self.parts.iter().position(|part| part.what.is_none()) {
            Some(vacant) => vacant,
            None if self.parts.len() < MAX_PARTS => {
                self.parts.push(Part { change: 0, generation: u16::MAX, what: None });
                self.parts.len() - 1
            }
            None => return None,
        };
        let part = &mut self.parts[number];
        let generation = part.generation.wrapping_add(1) & (GENERATIONS - 1) as u16;
        *part = Part { change, generation, what: Some(what) };
        Some(number)
    }

    fn remove(&mut self, changes: &mut u64, goes: impl Fn(usize, &T) -> bool) {
        for (number, part) in self.parts.iter_mut().enumerate() {
            if part.what.as_ref().is_some_and(|what| goes(number, what)) {
                *changes += 1;
                (part.change, part.what) = (*changes, None);
            }
        }
    }

    /// The first part that changed after that, and its number.
    pub(super) fn after(&self, change: u64) -> Option<(usize, &Part<T>)> {
        let later = self.parts.iter().enumerate().filter(|(_, part)| part.change > change);
        later.min_by_key(|(_, part)| part.change)
    }

    /// Those that there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.parts.iter().filter_map(|part| part.what.as_ref())
    }

    fn get(&self, number: usize) -> Option<&T> {
        self.parts.get(number)?.what.as_ref()
    }
}

impl<T> Default for Parts<T> {
    fn default() -> Parts<T> {
        Parts { parts: Vec::new() }
    }
}

#[derive(Default)]
pub(super) struct State {
    /// Changes so far.
    pub(super) changes: u64,
    pub(super) segments: Parts<Shared>,
    pub(super) lanes: Parts<Lane>,
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
        state.changes += 1;
        let change = state.changes;
        let lane = Lane { name: name.into(), mailbox };
        state.lanes.add(change, lane).ok_or(Error::TooMany { what: "producers", most: MAX_PARTS })
    }

    /// These are a lane's segments now. Those that are new the server's thread tells of; those that have gone are not held any
    /// more.
    pub(super) fn set_segments(&self, lane: usize, segments: &[Arc<Segment>]) -> Result<(), Error> {
        let mut state = self.state();
        let State { segments: shared, changes, .. } = &mut *state;
        let is_there = |segment: &Arc<Segment>| segments.iter().any(|one| Arc::ptr_eq(one, segment));
        shared.remove(changes, |_, shared| shared.lane == lane && !is_there(&shared.segment));
        for segment in segments {
            if shared.iter().any(|shared| shared.lane == lane && Arc::ptr_eq(&shared.segment, segment)) {
                continue;
            }
            *changes += 1;
            let entry = Shared { segment: segment.clone(), lane, confirmed: false };
            let many = Error::TooMany { what: "segments of memory", most: MAX_PARTS };
            shared.add(*changes, entry).ok_or(many)?;
        }
        drop(state);
        self.event.set();
        Ok(())
    }

    /// Every consumer has been told of the segments up to that change: producers may use them.
    pub(super) fn confirm_segments(&self, told: u64) {
        let mut state = self.state();
        let State { segments, lanes, .. } = &mut *state;
        let told = segments.parts.iter_mut().enumerate().filter(|(_, part)| part.change <= told);
        for (number, part) in told {
            if let Some(shared) = part.what.as_mut().filter(|shared| !shared.confirmed)
                && let Some(lane) = lanes.get(shared.lane)
            {
                shared.confirmed = true;
                let id = SegmentId { index: number as u16, generation: part.generation };
                lane.mailbox.post(News::Segment(id, shared.segment.clone()));
            }
        }
    }

    /// A producer has gone: it is offered to consumers no more, and its memory not held for them.
    pub(super) fn remove_lane(&self, lane: usize) {
        let mut state = self.state();
        let State { segments, lanes, changes, .. } = &mut *state;
        lanes.remove(changes, |number, _| number == lane);
        segments.remove(changes, |_, shared| shared.lane == lane);
        drop(state);
        self.event.set();
    }
}
