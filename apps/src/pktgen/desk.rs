//! Delays of packets, and how the thread that watches comes by them while receive loops are at work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use super::measure::ReceiveCounters;

/// The longest time that a histogram tells, in ticks: an hour or more. What is longer counts as this.
const LONGEST: u64 = 1 << 44;

/// Times in ticks, to three digits. Of a fixed size: recording never allocates.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds and precision are in range")
}

/// How late packets were, in ticks.
#[derive(Clone, Debug)]
pub(super) struct Delays {
    pub(super) latency: Histogram<u64>,
    /// Between the latencies of one packet and the next.
    pub(super) jitter: Histogram<u64>,
}

impl Default for Delays {
    fn default() -> Delays {
        Delays { latency: histogram(), jitter: histogram() }
    }
}

impl Delays {
    pub(super) fn add(&mut self, other: &Delays) {
        // Of the same kind, so that adding does not fail.
        let _ = self.latency.add(&other.latency);
        let _ = self.jitter.add(&other.jitter);
    }
}

/// What of a sender's packets the thread that watches is told when it asks.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Since it was asked last, if there may be any.
    pub(super) delays: Option<Box<Delays>>,
    /// Since the start.
    pub(super) wrong: Wrong,
}

/// Packets that came and should not have come so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wrong {
    pub(super) reordered: u64,
    pub(super) duplicates: u64,
    pub(super) late: u64,
    pub(super) corrupt: u64,
}

/// Where a receive queue's core leaves what it has [`Seen`], if asked: it swaps boxes with the one who asks, and copies no histogram.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Desk {
    asked: AtomicBool,
    /// By sender. Whose turn it is `asked` says, so that nobody ever waits.
    seen: Mutex<Vec<Seen>>,
}

impl Desk {
    /// Take what was left here, if anything was asked for, and ask again, for the delays of those senders that packets have come of. Nothing
    /// if there was no answer yet.
    fn ask(&self, have_come: impl Iterator<Item = bool>) -> Vec<Seen> {
        if self.asked.load(Ordering::Acquire) {
            return Vec::new();
        }
        let fresh = have_come.map(|has| Seen { delays: has.then(Box::default), ..Seen::default() }).collect();
        let seen = std::mem::replace(&mut *self.lock(), fresh);
        self.asked.store(true, Ordering::Release);
        seen
    }

    /// Take what was left here, with nobody at work any more.
    fn last(&self) -> Vec<Seen> {
        let seen = std::mem::take(&mut *self.lock());
        if self.asked.swap(false, Ordering::Acquire) { Vec::new() } else { seen }
    }

    /// Somebody asks: one comparison a poll.
    #[inline(always)]
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Leave an answer, for each sender by its number.
    pub(super) fn answer(&self, mut of_sender: impl FnMut(usize, &mut Seen)) {
        self.lock().iter_mut().enumerate().for_each(|(sender, seen)| of_sender(sender, seen));
        self.asked.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread that watches has gathered from all desks, by stream.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    desks: Vec<(Arc<Desk>, Arc<ReceiveCounters>)>,
    /// Streams of senders, by their number.
    streams: Vec<usize>,
    /// Of the packets between the last two answers.
    pub(super) lately: Vec<Option<Box<Delays>>>,
    /// Of all that were taken from the receivers.
    pub(super) so_far: Vec<Option<Box<Delays>>>,
    /// By desk and sender.
    wrong: Vec<Vec<Wrong>>,
}

impl Gathered {
    pub(super) fn new(
        desks: Vec<(Arc<Desk>, Arc<ReceiveCounters>)>,
        streams: Vec<usize>,
        count: usize,
    ) -> Gathered {
        let wrong = vec![vec![Wrong::default(); streams.len()]; desks.len()];
        Gathered { desks, streams, lately: vec![None; count], so_far: vec![None; count], wrong }
    }

    /// Take what there is, and ask again. Of a receive loop that has not answered yet nothing is lost: it answers later.
    pub(super) fn gather(&mut self) {
        self.take(|desk, counters| {
            desk.ask(counters.received.iter().map(|count| count.load(Ordering::Relaxed) > 0))
        });
    }

    /// Take what is left, with nobody at work any more.
    pub(super) fn finish(&mut self) {
        self.take(|desk, _| desk.last());
    }

    fn take(&mut self, take: impl Fn(&Desk, &ReceiveCounters) -> Vec<Seen>) {
        self.lately.fill(None);
        for ((desk, counters), wrong) in self.desks.iter().zip(&mut self.wrong) {
            for (sender, seen) in take(desk, counters).into_iter().enumerate() {
                wrong[sender] = seen.wrong;
                let (stream, Some(delays)) = (self.streams[sender], seen.delays) else { continue };
                self.lately[stream].get_or_insert_default().add(&delays);
                self.so_far[stream].get_or_insert_default().add(&delays);
            }
        }
    }

    /// What was wrong with a stream's packets so far.
    pub(super) fn wrong(&self, stream: usize) -> Wrong {
        let mut sum = Wrong::default();
        let of_stream = |sender: &usize| self.streams[*sender] == stream;
        for wrong in &self.wrong {
            for sender in (0..wrong.len()).filter(of_stream) {
                let Wrong { reordered, duplicates, late, corrupt } = wrong[sender];
                sum.reordered += reordered;
                sum.duplicates += duplicates;
                sum.late += late;
                sum.corrupt += corrupt;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn what_is_asked_for_comes_once_and_in_pieces_comes_whole() {
        let desk = Arc::new(Desk::default());
        let received = [1, 1, 1].map(AtomicU64::new).into();
        let counters = Arc::new(ReceiveCounters { received, ..ReceiveCounters::default() });
        let mut gathered = Gathered::new(vec![(desk.clone(), counters)], vec![0, 1, 1], 2);
        assert!(!desk.is_asked(), "nobody asks before there is somebody who looks");
        gathered.gather();
        let samples = |delays: &[Option<Box<Delays>>]| -> Vec<u64> {
            delays.iter().map(|delays| delays.as_ref().map_or(0, |delays| delays.latency.len())).collect()
        };
        let mut held: Vec<Box<Delays>> = (0..3).map(|_| Box::default()).collect();
        for round in 1..=4u64 {
            held.iter_mut().for_each(|delays| delays.latency.record(100 * round).unwrap());
            if round == 3 {
                // No answer this time: what there is comes with the next one.
                gathered.gather();
                assert!(gathered.lately[1].is_none());
                continue;
            }
            assert!(desk.is_asked());
            desk.answer(|sender, seen| {
                std::mem::swap(&mut held[sender], seen.delays.as_mut().expect("all have come"));
                seen.wrong = Wrong { duplicates: round, ..Wrong::default() };
            });
            assert!(!desk.is_asked());
            if round == 4 {
                gathered.finish();
            } else {
                gathered.gather();
            }
            let lately = samples(&gathered.lately);
            assert_eq!(lately, if round == 4 { [2, 4] } else { [1, 2] });
            assert_eq!(gathered.wrong(1).duplicates, 2 * round);
        }
        let all = samples(&gathered.so_far);
        assert_eq!(all, [4, 8], "none twice, none lost");
    }
}
