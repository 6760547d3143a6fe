//! A stream on one transmit queue: packets made from templates, when they are due.
//!
//! A pool that only sends keeps what was written to its fragments. Where one sender has it for one template, all fragments are
//! painted with that beforehand. Else a word before each frame tells which template a fragment has been painted with; where that is
//! the one wanted, only what differs from packet to packet is written.

mod fill;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use pagewire_ethdev::{Burst, Pool};
use pagewire_pool::PoolConfig;

use super::desk::histogram;
use super::orders::{Order, Orders};
use super::pace::{Clock, Due};
use super::pattern::Pattern;
use super::replay::{Gaps, Replay};
use super::schedule::{MEASURED, MOMENT, Schedule, Span, Speed, WARM_UP};
use super::signature::{self, Run};
use super::template::TAG;
use crate::tsc;

/// Where a packet's tag begins in its fragment.
const START: u16 = PoolConfig::HEADROOM - TAG as u16;
/// What a sender has sent of what is measured; written by its core, once a burst.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct SendCounters {
    pub(super) packets: AtomicU64,
    /// Without check sequence.
    pub(super) bytes: AtomicU64,
}

/// A stream on one transmit queue.
pub(super) struct Sender {
    /// In signatures.
    pub(super) id: u8,
    /// Of the scenario.
    pub(super) stream: usize,
    content: Content,
    run: Run,
    schedule: Schedule,
    /// Whether all fragments of the pool are painted.
    prepared: bool,
    /// Packets of this phase, and their bytes.
    number: u64,
    bytes: u64,
    speed: Speed,
    /// How late bursts were, in ticks; of a sender with a rate.
    lateness: Histogram<u64>,
    /// Of a capture with its own timing.
    gaps: Option<Box<Gaps>>,
    counters: Arc<SendCounters>,
    orders: Arc<Orders>,
}

/// What a sender sends.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Made(Pattern),
    Replayed(Replay),
}

/// What became of a sender's packets.
pub(super) struct Sent {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Packets a second.
    pub(super) mean: Option<f64>,
    /// The same from the first to the last that was on time, if there is a rate.
    pub(super) paced: Option<f64>,
    /// Seconds by which the last packet was late, or the next one was when it ended.
    pub(super) behind: f64,
    pub(super) lateness: Histogram<u64>,
    /// How exactly the gaps of a capture were kept.
    pub(super) gap_errors: Option<Histogram<u64>>,
}

impl Sender {
    /// `count` packets at most, `group` of them together, at a rate if `paced`.
    pub(super) fn new(
        (id, stream): (u8, usize),
        content: Content,
        paced: bool,
        group: u32,
        count: Option<u64>,
        run: Run,
    ) -> Sender {
        let timed = matches!(&content, Content::Replayed(replay) if replay.is_timed());
        Sender {
            id,
            stream,
            content,
            run,
            schedule: Schedule::new(paced, group, count),
            prepared: false,
            number: 0,
            bytes: 0,
            speed: Speed::default(),
            lateness: histogram(),
            gaps: timed.then(|| Box::new(Gaps::new())),
            counters: Arc::default(),
            orders: Arc::default(),
        }
    }

    pub(super) fn counters(&self) -> Arc<SendCounters> {
        self.counters.clone()
    }

    pub(super) fn orders(&self) -> Arc<Orders> {
        self.orders.clone()
    }

    /// Send from the span's start on; what is replayed, from the beginning of the measurement.
    pub(super) fn begin(&mut self, span: Span) {
        let Sender { schedule, content, .. } = self;
        (schedule.due, schedule.span) = (Due::at(span.start), span);
        if let Content::Replayed(replay) = content {
            replay.begin(span.measured);
            schedule.due = Due::at(span.measured);
            schedule.span.start = span.measured;
            schedule.phase = MEASURED;
        }
    }

    /// Send nothing until told to.
    pub(super) fn stop(&mut self) {
        self.schedule.stopped = true;
    }

    #[cold]
    #[inline(never)]
    fn obey(&mut self, now: u64) {
        for order in self.orders.take() {
            match order {
                Order::Begin(span) => self.begin(span),
                Order::Stop => self.stop(),
                Order::Start if !self.schedule.stopped => {}
                Order::Start => {
                    self.schedule.stopped = false;
                    self.resume(now);
                }
                Order::Pace(intervals) => {
                    self.schedule.paced = intervals.is_some();
                    match (&mut self.content, intervals) {
                        (Content::Made(pattern), Some(list)) => pattern.set_intervals(list),
                        (Content::Replayed(replay), Some(list)) => replay.set_intervals(list),
                        (_, None) => {}
                    }
                    self.resume(now);
                }
            }
        }
    }

    /// Go on from now, with a speed of its own.
    fn resume(&mut self, now: u64) {
        // A frame of a capture with its own timing that is due later is.
        let due = if self.gaps.is_some() { self.schedule.due.tick() } else { 0 };
        let out = self.schedule.resume(now.max(due));
        if let Content::Replayed(replay) = &mut self.content {
            replay.shift(out);
        }
        if let Some(gaps) = &mut self.gaps {
            gaps.pause();
        }
        self.speed = Speed::default();
    }

    /// Whether something may be due: a look before the pool is asked for fragments.
    #[inline(always)]
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        if self.orders.are_given() {
            self.obey(now);
        }
        let moment = self.schedule.moment(now);
        if moment > now || now < self.schedule.span.start || self.schedule.stopped {
            return false;
        }
        if self.schedule.phase == WARM_UP && moment >= self.schedule.span.measured {
            self.measure();
        }
        moment < self.schedule.limit() && self.number < self.most()
    }

    /// Packets of this phase at most.
    #[inline(always)]
    fn most(&self) -> u64 {
        if self.schedule.phase == WARM_UP { u64::MAX } else { self.schedule.count }
    }

    /// Begin the phase that is measured.
    #[cold]
    fn measure(&mut self) {
        self.schedule.phase = MEASURED;
        (self.number, self.bytes, self.speed) = (0, 0, Speed::default());
        self.lateness.clear();
    }

    /// Whether it will send nothing more.
    pub(super) fn is_done(&self, now: u64) -> bool {
        self.schedule.is_over(now, self.number)
    }

    /// Fill a burst with what is due. Returns how many packets that were.
    #[inline(always)]
    pub(super) fn fill(&mut self, pool: &mut Pool, burst: &mut Burst, now: u64) -> usize {
        let due = self.schedule.due.tick();
        let room = (self.most() - self.number).min(burst.room() as u64);
        let room = room.min(signature::before_wrap(self.number)) as usize;
        let (packets, bytes) = match (self.prepared, self.schedule.paced) {
            (true, false) => self.fill_plain::<false>(pool, burst, room, now),
            (true, true) => self.fill_plain::<true>(pool, burst, room, now),
            (false, _) => match self.content {
                Content::Made(_) => self.fill_any(pool, burst, room, now),
                Content::Replayed(_) => self.fill_replayed(pool, burst, room, now),
            },
        };
        if packets == 0 {
            return 0;
        }
        let late = now.saturating_sub(due);
        self.speed.sent(self.number, now, late);
        self.number += packets as u64;
        self.bytes += bytes;
        if self.schedule.paced {
            self.lateness.saturating_record(late);
        }
        if self.schedule.phase == MEASURED {
            self.counters.packets.store(self.number, Ordering::Relaxed);
            self.counters.bytes.store(self.bytes, Ordering::Relaxed);
        }
        packets
    }

    /// Paint every fragment of a pool that is this sender's alone, if it has but one template.
    pub(super) fn prepare(&mut self, pool: &mut Pool) {
        let Content::Made(pattern) = &self.content else { return };
        let Some(template) = pattern.plain() else { return };
        // One that a ring still has would go out as what it was.
        pool.trim();
        if pool.stats().inflight() > 0 {
            return;
        }
        let mut packets = Vec::new();
        while let Some(mut packet) = pool.alloc_packet() {
            if packet.extend_from_slice(template.frame()).is_err() {
                return;
            }
            packets.push(packet);
        }
        drop(packets);
        pagewire_pool::flush_thread();
        self.prepared = true;
    }

    /// A transmit queue has taken so many of its packets.
    #[inline(always)]
    pub(super) fn taken(&mut self, count: usize) {
        if let Some(gaps) = &mut self.gaps {
            gaps.taken(count, tsc::read());
        }
    }

    /// The end: all but the last of its packets, which nobody took, are sent.
    pub(super) fn finish(self, unsent: &Burst, clock: &Clock, now: u64) -> Sent {
        let Sender { schedule, number, bytes, speed, lateness, gaps, .. } = self;
        let gap_errors = gaps.map(|gaps| gaps.errors);
        if schedule.phase != MEASURED {
            return Sent { packets: 0, bytes: 0, mean: None, paced: None, behind: 0.0, lateness, gap_errors };
        }
        let packets = number - unsent.len() as u64;
        let bytes = bytes - unsent.iter().map(|packet| packet.len() as u64).sum::<u64>();
        let mean = speed.mean().map(|rate| rate * clock.hz);
        let paced = speed.paced(clock.ticks(MOMENT)).filter(|_| schedule.paced).map(|rate| rate * clock.hz);
        // The last that was sent, or the next one if that is due.
        let due = schedule.due.tick();
        let behind = match schedule.paced && !schedule.stopped {
            true if packets < schedule.count && due < schedule.span.end => {
                now.saturating_sub(due).max(speed.late)
            }
            true => speed.late,
            false => 0,
        };
        Sent { packets, bytes, mean, paced, behind: clock.seconds(behind), lateness, gap_errors }
    }
}
