//! The receive path: what of each stream arrives, in which order, whole or not, and how late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewire_ethdev::{Burst, Packet, RxQueue};

use super::desk::{Delays, Desk, Wrong};
use super::engine::RxLane;
use super::headers::payload_at;
use super::schedule::MEASURED;
use super::signature::{LEN, Run, Signature};
use super::template::payload_check;
use crate::tsc;

/// Numbers before the highest one of which is known whether they came: as many as a late frame may be late by, and still be told
/// from a second copy.
const WINDOW: u64 = 1 << 16;

/// What a receive queue has seen so far; written by its core, once a burst.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct ReceiveCounters {
    /// By sender.
    pub(super) received: Vec<AtomicU64>,
    /// Frames without a signature.
    pub(super) foreign: AtomicU64,
    /// Frames whose signature is damaged, so that nobody knows whose they were.
    pub(super) damaged: AtomicU64,
    /// Frames of a sender that this run does not have.
    pub(super) other: AtomicU64,
    /// Frames of another run: an earlier one's, or another program's.
    pub(super) other_run: AtomicU64,
    /// Frames that were to come to another port, or to none.
    pub(super) other_port: AtomicU64,
}

/// What came of one sender's packets to one receive queue.
#[derive(Clone, Debug)]
pub(super) struct Tracker {
    /// Each number once.
    pub(super) received: u64,
    /// Of those, the ones that came after a higher number.
    pub(super) reordered: u64,
    /// Numbers that came again.
    pub(super) duplicates: u64,
    /// Numbers so far behind that nobody knows whether they came before. Not among the received.
    pub(super) late: u64,
    /// Frames that are not what was sent. They are received, too.
    pub(super) corrupt: u64,
    pub(super) delays: Box<Delays>,
    last_latency: Option<u64>,
    /// After the highest number that came.
    next: u64,
    /// Of the last numbers, which came: a bit each.
    seen: Box<[u64]>,
}

impl Default for Tracker {
    fn default() -> Tracker {
        Tracker {
            received: 0,
            reordered: 0,
            duplicates: 0,
            late: 0,
            corrupt: 0,
            delays: Box::default(),
            last_latency: None,
            next: 0,
            seen: vec![0; (WINDOW / 64) as usize].into(),
        }
    }
}

impl Tracker {
    /// A packet arrived. Returns whether it is the first of its number.
    #[inline]
    fn number(&mut self, number: u64) -> bool {
        if number < self.next {
            return self.behind(number);
        }
        if number > self.next {
            self.skip(number);
        }
        // The first number of a word: what stood there is out of the window.
        let (word, bit) = ((number / 64 % (WINDOW / 64)) as usize, 1 << (number % 64));
        self.seen[word] = if number.is_multiple_of(64) { bit } else { self.seen[word] | bit };
        self.next = number + 1;
        self.received += 1;
        true
    }

    /// Numbers from the next one to before this have not come.
    #[cold]
    fn skip(&mut self, number: u64) {
        let words = WINDOW / 64;
        // Those that are entered by the way, and the number's own unless it is entered as it should be.
        let (first, last) = (self.next.div_ceil(64), number / 64);
        for word in first.max(last.saturating_sub(words - 1))..=last {
            self.seen[(word % words) as usize] = 0;
        }
    }

    #[cold]
    fn behind(&mut self, number: u64) -> bool {
        // The word that is being filled takes the place of the oldest.
        if number / 64 + WINDOW / 64 <= (self.next - 1) / 64 {
            self.late += 1;
            return false;
        }
        let (word, bit) = ((number / 64 % (WINDOW / 64)) as usize, 1 << (number % 64));
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        self.seen[word] |= bit;
        self.received += 1;
        self.reordered += 1;
        true
    }

    #[inline]
    fn time(&mut self, latency: u64) {
        self.delays.latency.saturating_record(latency);
        if let Some(last) = self.last_latency.replace(latency) {
            self.delays.jitter.saturating_record(latency.abs_diff(last));
        }
    }

    /// Add what came to another queue.
    pub(super) fn add(&mut self, other: &Tracker) {
        self.received += other.received;
        self.reordered += other.reordered;
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.corrupt += other.corrupt;
        self.delays.add(&other.delays);
    }
}

/// A receive queue, and what came to it.
pub(super) struct Receiver {
    pub(super) lane: RxLane,
    burst: Burst,
    run: Run,
    /// Whether a sender's packets are to come here, by sender.
    expected: Box<[bool]>,
    /// By sender; none before its first packet.
    pub(super) trackers: Vec<Option<Box<Tracker>>>,
    counters: Arc<ReceiveCounters>,
    desk: Arc<Desk>,
    /// Where the last signature was: most likely the next one is there too.
    at: usize,
    /// A packet of several segments.
    whole: Vec<u8>,
}

fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Receiver {
    /// Of packets of those senders that are `expected`, among all there are.
    pub(super) fn new(expected: Box<[bool]>, lane: RxLane, burst: usize, run: Run) -> Receiver {
        let received = expected.iter().map(|_| AtomicU64::new(0)).collect();
        Receiver {
            lane,
            burst: Burst::new(burst),
            run,
            trackers: vec![None; expected.len()],
            expected,
            counters: Arc::new(ReceiveCounters { received, ..ReceiveCounters::default() }),
            desk: Arc::default(),
            at: 42,
            whole: Vec::new(),
        }
    }

    pub(super) fn counters(&self) -> Arc<ReceiveCounters> {
        self.counters.clone()
    }

    pub(super) fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Take what has come. Returns how many packets.
    #[inline]
    pub(super) fn poll(&mut self) -> usize {
        if self.desk.is_asked() {
            self.answer();
        }
        let count = self.lane.rx.rx_burst(&mut self.burst);
        if count == 0 {
            return 0;
        }
        let now = tsc::read();
        let Receiver { burst, run, expected, trackers, counters, at, whole, .. } = self;
        for packet in burst.iter() {
            look(packet, now, (*run, expected), trackers, counters, at, whole);
        }
        for (tracker, count) in trackers.iter().zip(&counters.received) {
            if let Some(tracker) = tracker {
                count.store(tracker.received, Ordering::Relaxed);
            }
        }
        burst.clear();
        count
    }

    #[cold]
    #[inline(never)]
    fn answer(&mut self) {
        let trackers = &mut self.trackers;
        self.desk.answer(|sender, seen| {
            let Some(Some(tracker)) = trackers.get_mut(sender) else { return };
            if let Some(delays) = &mut seen.delays {
                std::mem::swap(&mut tracker.delays, delays);
            }
            let Tracker { reordered, duplicates, late, corrupt, .. } = **tracker;
            seen.wrong = Wrong { reordered, duplicates, late, corrupt };
        });
    }
}

/// What a packet says, and whether that is true.
#[inline]
fn look(
    packet: &Packet,
    now: u64,
    (run, expected): (Run, &[bool]),
    trackers: &mut [Option<Box<Tracker>>],
    counters: &ReceiveCounters,
    at: &mut usize,
    whole: &mut Vec<u8>,
) {
    let mut frame = packet.as_slice().unwrap_or_default();
    if frame.len() < packet.len() {
        // What the CPU cannot read is not there.
        let _ = packet.copy_to(whole);
        frame = whole;
    }
    let read =
        |at: usize| frame.get(at..).and_then(|rest| rest.first_chunk::<LEN>()).and_then(Signature::read);
    let mut found = read(*at);
    if !matches!(found, Some(Ok(_))) {
        // Other headers than those of the packet before.
        if let Some(other) = payload_at(frame).filter(|other| other != at)
            && let Some(read) = read(other)
        {
            (*at, found) = (other, Some(read));
        }
    }
    let signature = match found {
        Some(Ok(signature)) => signature,
        Some(Err(_)) => return add(&counters.damaged),
        None => return add(&counters.foreign),
    };
    if signature.run != run {
        return add(&counters.other_run);
    }
    let sender = usize::from(signature.sender);
    let (Some(expected), Some(tracker)) = (expected.get(sender), trackers.get_mut(sender)) else {
        return add(&counters.other);
    };
    if signature.phase != MEASURED {
        return;
    }
    if !expected {
        return add(&counters.other_port);
    }
    let tracker = tracker.get_or_insert_default();
    if !tracker.number(signature.number_near(tracker.next)) {
        return;
    }
    tracker.time(signature.age(now));
    if payload_check(&frame[*at + LEN..]) != signature.payload {
        tracker.corrupt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_apart() {
        let mut tracker = Tracker::default();
        for number in (0..1000).filter(|number| number % 10 != 7) {
            assert!(tracker.number(number));
        }
        assert_eq!((tracker.received, tracker.next), (900, 1000));
        // One that was missing comes late, then again, as does one of those that came in time.
        assert!(tracker.number(7) && !tracker.number(7) && !tracker.number(8));
        assert_eq!((tracker.received, tracker.reordered, tracker.duplicates), (901, 1, 2));
    }

    #[test]
    fn the_window_is_exact_at_its_ends() {
        for gap in
            [1, 63, 64, 65, 1000, WINDOW - 65, WINDOW - 64, WINDOW - 1, WINDOW, WINDOW + 1, 10 * WINDOW]
        {
            for start in [0, 1, 63, 64, 70_000] {
                let mut tracker = Tracker::default();
                let mut came: Vec<u64> = (0..=start).filter(|number| number % 3 == 0).collect();
                came.push(start + gap);
                came.iter().for_each(|number| assert!(tracker.number(*number) || *number > start));
                let before = tracker.clone();
                let end = start + gap;
                let edges = [0, start, end.saturating_sub(WINDOW), end];
                let near = |number: &u64| edges.iter().any(|edge| number.abs_diff(*edge) < 140);
                for number in (0..end).filter(near) {
                    let mut after = before.clone();
                    let first = after.number(number);
                    let known = number / 64 + WINDOW / 64 > (start + gap) / 64;
                    let expected =
                        (known && !came.contains(&number), known && came.contains(&number), !known);
                    let late = after.late > before.late;
                    assert_eq!(
                        (first, after.duplicates > before.duplicates, late),
                        expected,
                        "{number} of {start} + {gap}"
                    );
                }
            }
        }
    }

    #[test]
    fn numbers_beyond_forty_bits_and_nonsense_are_no_trouble() {
        let mut tracker = Tracker::default();
        assert!(tracker.number(u64::from(u32::MAX) << 20));
        assert!(tracker.number((u64::from(u32::MAX) << 20) + 1));
        assert!(!tracker.number(0));
        assert_eq!((tracker.received, tracker.late), (2, 1));
    }
}
