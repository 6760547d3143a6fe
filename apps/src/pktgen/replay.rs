//! A capture that is sent again: its frames as they are, one after the other, and when.

use std::collections::VecDeque;
use std::sync::Arc;

use hdrhistogram::Histogram;
use pagewire_captures::{Frames, MIN_FRAME};
use pagewire_ethdev::{Packet, PacketFlags};
use pagewire_pool::{PoolConfig, Posted};

use super::desk::histogram;
use super::pace::Due;

/// What decides when the next frame is due.
#[derive(Clone, Debug)]
enum Pace {
    /// Parts of ticks from a frame to the next, by place in the list of lengths.
    Rate { places: Vec<u16>, intervals: Vec<u128> },
    /// Ticks from the first frame of a round, and from there to the first of the next.
    Own { offsets: Vec<u64>, round: u64 },
}

/// A capture, and which of its frames is next.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    frames: Arc<Frames>,
    pace: Pace,
    next: usize,
    /// When this round's first frame was due.
    start: u64,
}

impl Replay {
    /// At a rate: `places` has each frame's place in the list of lengths. The intervals follow.
    pub(super) fn paced(frames: Arc<Frames>, places: Vec<u16>) -> Replay {
        Replay { frames, pace: Pace::Rate { places, intervals: Vec::new() }, next: 0, start: 0 }
    }

    /// Each frame so many ticks after the round's first, and the next round so many after that.
    pub(super) fn timed(frames: Arc<Frames>, offsets: Vec<u64>, round: u64) -> Replay {
        Replay { frames, pace: Pace::Own { offsets, round }, next: 0, start: 0 }
    }

    /// Whether frames are due at times of their own.
    pub(super) fn is_timed(&self) -> bool {
        matches!(self.pace, Pace::Own { .. })
    }

    /// The first frame of this round is due then.
    pub(super) fn begin(&mut self, start: u64) {
        self.start = start;
    }

    /// All that is still to come is due so many ticks later.
    pub(super) fn shift(&mut self, ticks: u64) {
        self.start = self.start.saturating_add(ticks);
    }

    pub(super) fn set_intervals(&mut self, list: Vec<u128>) {
        if let Pace::Rate { intervals, .. } = &mut self.pace {
            *intervals = list;
        }
    }

    /// The next frame, as a packet. None if it does not fit, which the plan has seen to.
    pub(super) fn packet(&self, fragment: Posted) -> Option<Packet> {
        let frame = self.frames.get(self.next);
        let length = frame.len().max(MIN_FRAME);
        let mut packet = fragment.complete(PoolConfig::HEADROOM, length as u16, PacketFlags::empty()).ok()?;
        let (front, padding) = packet.as_mut_slice()?.split_at_mut_checked(frame.len())?;
        front.copy_from_slice(frame);
        padding.fill(0);
        Some(packet)
    }

    /// It was sent: on to the one behind it, and when that is due.
    pub(super) fn advance(&mut self, due: &mut Due) {
        let this = self.next;
        self.next = if this + 1 == self.frames.len() { 0 } else { this + 1 };
        match &self.pace {
            // Without a rate nothing has an interval.
            Pace::Rate { places, intervals } => {
                due.advance(intervals.get(usize::from(places[this])).copied().unwrap_or(0))
            }
            Pace::Own { offsets, round } => {
                if self.next == 0 {
                    self.start = self.start.saturating_add(*round);
                }
                *due = Due::at(self.start.saturating_add(offsets[self.next]));
            }
        }
    }
}

/// How exactly a capture's gaps are kept: the time from one frame to the next as it was, less as it should have been.
#[derive(Debug)]
pub(super) struct Gaps {
    /// When frames were due that no queue has taken yet.
    waiting: VecDeque<u64>,
    /// Of the last frame: when it was due, and when it was taken.
    last: Option<(u64, u64)>,
    /// Ticks.
    pub(super) errors: Histogram<u64>,
}

impl Gaps {
    pub(super) fn new() -> Gaps {
        Gaps { waiting: VecDeque::new(), last: None, errors: histogram() }
    }

    /// A frame is made that was due then.
    pub(super) fn made(&mut self, due: u64) {
        self.waiting.push_back(due);
    }

    /// The transmit queue has taken so many frames.
    pub(super) fn taken(&mut self, count: usize, now: u64) {
        for due in self.waiting.drain(..count.min(self.waiting.len())) {
            if let Some((due_before, before)) = self.last.replace((due, now)) {
                self.errors
                    .saturating_record(now.saturating_sub(before).abs_diff(due.saturating_sub(due_before)));
            }
        }
    }

    /// What comes next has no gap before it.
    pub(super) fn pause(&mut self) {
        self.last = None;
    }
}
