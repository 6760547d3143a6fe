//! A stream on one transmit queue: packets made from templates, when they are due.
//!
//! A pool that only sends keeps what was written to its fragments. Where one sender has it for one template, all fragments are
//! painted with that beforehand. Else a word before each frame tells which template a fragment has been painted with; where that is
//! the one wanted, only what differs from packet to packet is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use pagewire_ethdev::{Burst, Packet, PacketFlags, Pool};
use pagewire_pool::{PoolConfig, Posted};

use super::measure::histogram;
use super::pace::{Clock, Due};
use super::pattern::Pattern;
use super::signature::{LEN, Signature};
use super::template::{TAG, Template};

/// Where a packet's tag begins in its fragment.
const START: u16 = PoolConfig::HEADROOM - TAG as u16;
/// Phase of what is sent before the measurement.
pub(super) const WARM_UP: u8 = 0;
/// Phase of what is measured.
pub(super) const MEASURED: u8 = 1;

/// From when to when a sender sends, in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) start: u64,
    /// What is due from then on is measured.
    pub(super) measured: u64,
    pub(super) end: u64,
}

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
    pattern: Pattern,
    schedule: Schedule,
    /// Whether all fragments of the pool are painted.
    prepared: bool,
    /// Packets of this phase, and their bytes.
    number: u64,
    bytes: u64,
    speed: Speed,
    /// How late bursts were, in ticks; of a sender with a rate.
    lateness: Histogram<u64>,
    counters: Arc<SendCounters>,
}

/// When what is to be sent.
struct Schedule {
    /// Whether there is a rate.
    paced: bool,
    due: Due,
    /// Packets that are due together, and how many of them are still to come.
    group: u32,
    left_in_group: u32,
    span: Span,
    phase: u8,
    /// Packets that are measured at most.
    count: u64,
}

/// Ticks by which a packet may be late and still be on time: some microseconds.
const ON_TIME: u64 = 1 << 14;

/// When packets were sent, in ticks, and how many before.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    first: (u64, u64),
    last: (u64, u64),
    /// The first and the last that were on time.
    on_time: Option<[(u64, u64); 2]>,
}

impl Speed {
    /// Packets were sent, the first of them so late, after so many others.
    #[inline(always)]
    fn sent(&mut self, before: u64, now: u64, late: u64) {
        if before == 0 {
            *self = Speed { first: (now, 0), ..Speed::default() };
        }
        self.last = (now, before);
        if late < ON_TIME {
            self.on_time.get_or_insert([self.last; 2])[1] = self.last;
        }
    }

    /// Packets a tick from the first to the last.
    fn mean(&self) -> Option<f64> {
        rate(self.first, self.last)
    }

    /// Packets a tick from the first to the last that was on time: a moment's delay at either end does not change it.
    fn paced(&self) -> Option<f64> {
        self.on_time.and_then(|[first, last]| rate(first, last))
    }
}

fn rate(first: (u64, u64), last: (u64, u64)) -> Option<f64> {
    (last.0 > first.0).then(|| (last.1 - first.1) as f64 / (last.0 - first.0) as f64)
}

/// What became of a sender's packets.
pub(super) struct Sent {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Packets a second.
    pub(super) mean: Option<f64>,
    /// The same from the first to the last that was on time, if there is a rate.
    pub(super) paced: Option<f64>,
    /// Seconds behind its schedule when it ended, because the port took no more.
    pub(super) behind: f64,
    pub(super) lateness: Histogram<u64>,
}

impl Schedule {
    /// The moment that decides what is to be done next.
    #[inline(always)]
    fn moment(&self, now: u64) -> u64 {
        if !self.paced {
            now
        } else if self.left_in_group > 0 {
            // What has begun goes on.
            now.min(self.span.end.saturating_sub(1))
        } else {
            self.due.tick()
        }
    }

    /// Until when something is due in this phase.
    #[inline(always)]
    fn limit(&self) -> u64 {
        if self.phase == WARM_UP { self.span.measured } else { self.span.end }
    }

    /// Whether one more is due; it is the caller's to send then.
    #[inline(always)]
    fn take(&mut self, now: u64, limit: u64, interval: u128) -> bool {
        if self.left_in_group == 0 {
            let due = self.due.tick();
            if due > now || due >= limit {
                return false;
            }
            self.left_in_group = self.group;
        }
        self.left_in_group -= 1;
        self.due.advance(interval);
        true
    }
}

impl Sender {
    /// `count` packets at most, `group` of them together.
    pub(super) fn new(id: u8, stream: usize, pattern: Pattern, group: u32, count: Option<u64>) -> Sender {
        let paced = pattern.templates().any(|template| template.interval > 0);
        let schedule = Schedule {
            paced,
            due: Due::at(0),
            group,
            left_in_group: 0,
            span: Span::default(),
            phase: WARM_UP,
            count: count.unwrap_or(u64::MAX),
        };
        Sender {
            id,
            stream,
            pattern,
            schedule,
            prepared: false,
            number: 0,
            bytes: 0,
            speed: Speed::default(),
            lateness: histogram(),
            counters: Arc::default(),
        }
    }

    pub(super) fn counters(&self) -> Arc<SendCounters> {
        self.counters.clone()
    }

    /// Send from the span's start on.
    pub(super) fn begin(&mut self, span: Span) {
        (self.schedule.due, self.schedule.span) = (Due::at(span.start), span);
    }

    /// Whether something may be due: a look before the pool is asked for fragments.
    #[inline(always)]
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let moment = self.schedule.moment(now);
        if moment > now || now < self.schedule.span.start {
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
        (self.number, self.bytes) = (0, 0);
        self.lateness.clear();
    }

    /// Whether it will send nothing more.
    pub(super) fn is_done(&self, now: u64) -> bool {
        let Schedule { phase, span, count, .. } = self.schedule;
        phase == MEASURED && (self.schedule.moment(now) >= span.end || self.number >= count)
    }

    /// Fill a burst with what is due. Returns how many packets that were.
    #[inline(always)]
    pub(super) fn fill(&mut self, pool: &mut Pool, burst: &mut Burst, now: u64) -> usize {
        let due = self.schedule.due.tick();
        let room = (self.most() - self.number).min(burst.room() as u64) as usize;
        let (packets, bytes) = match (self.prepared, self.schedule.paced) {
            (true, false) => self.fill_plain::<false>(pool, burst, room, now),
            (true, true) => self.fill_plain::<true>(pool, burst, room, now),
            (false, _) => self.fill_any(pool, burst, room, now),
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
        let Some(template) = self.pattern.plain() else { return };
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

    /// One template, which all fragments are painted with, and of which nothing but the signature changes.
    #[inline(always)]
    fn fill_plain<const PACED: bool>(
        &mut self,
        pool: &mut Pool,
        burst: &mut Burst,
        room: usize,
        now: u64,
    ) -> (usize, u64) {
        let signature = self.signature(now);
        let Sender { pattern, schedule, .. } = self;
        let Some(template) = pattern.plain() else { return (0, 0) };
        // Values of its own, which what is written to packets cannot change.
        let (length, at) = (template.frame().len() as u16, template.signature_at.unwrap_or(0));
        let (interval, limit) = (template.interval, schedule.limit());
        let mut writer = Signature { payload: template.payload_check, ..signature }.writer();
        let packets = burst.fill(pool, room, |_, fragment| {
            if PACED && !schedule.take(now, limit, interval) {
                return None;
            }
            let fragment = fragment.take();
            let mut packet = fragment.complete(PoolConfig::HEADROOM, length, PacketFlags::empty()).ok()?;
            writer.write(packet.as_mut_slice()?.get_mut(at..at + LEN)?.first_chunk_mut()?);
            Some(packet)
        });
        (packets, packets as u64 * u64::from(length))
    }

    /// Whatever it is.
    fn fill_any(&mut self, pool: &mut Pool, burst: &mut Burst, room: usize, now: u64) -> (usize, u64) {
        let signature = self.signature(now);
        let Sender { pattern, schedule, .. } = self;
        let (limit, paced, mut bytes) = (schedule.limit(), schedule.paced, 0);
        let packets = burst.fill(pool, room, |number, fragment| {
            if paced && !schedule.take(now, limit, 0) {
                return None;
            }
            let (template, fields, random) = pattern.next();
            schedule.due.advance(template.interval);
            let mut packet = painted(fragment.take(), template)?;
            let frame = &mut packet.as_mut_slice()?[TAG..];
            let (mut of_ip, mut of_l4) = (0, 0);
            for field in fields {
                let added = field.write(frame, random);
                of_ip += if field.in_ip { added } else { 0 };
                of_l4 += if field.in_l4 { added } else { 0 };
            }
            template.ip.as_ref().inspect(|sum| sum.write(frame, of_ip));
            template.l4.as_ref().inspect(|sum| sum.write(frame, of_l4));
            if let Some(at) = template.signature_at {
                let number = signature.number + number as u64;
                let signature = Signature { number, payload: template.payload_check, ..signature };
                signature.writer().write(frame.get_mut(at..)?.first_chunk_mut()?);
            }
            bytes += frame.len() as u64;
            packet.trim_front(TAG).ok()?;
            if let Some(offload) = &template.offload {
                packet.set_header_lens(offload.l2, offload.l3);
                packet.set_flags(offload.flags);
            }
            Some(packet)
        });
        (packets, bytes)
    }

    /// Of its next packet; the payload is a template's.
    #[inline(always)]
    fn signature(&self, now: u64) -> Signature {
        Signature { phase: self.schedule.phase, sender: self.id, number: self.number, payload: 0, time: now }
    }

    /// The end: all but the last of its packets, which nobody took, are sent.
    pub(super) fn finish(self, unsent: &Burst, clock: &Clock, now: u64) -> Sent {
        let Sender { schedule, number, bytes, speed, lateness, .. } = self;
        if schedule.phase != MEASURED {
            return Sent { packets: 0, bytes: 0, mean: None, paced: None, behind: 0.0, lateness };
        }
        let packets = number - unsent.len() as u64;
        let bytes = bytes - unsent.iter().map(|packet| packet.len() as u64).sum::<u64>();
        let mean = speed.mean().map(|rate| rate * clock.hz);
        let paced = speed.paced().filter(|_| schedule.paced).map(|rate| rate * clock.hz);
        let behind = if schedule.paced && packets < schedule.count {
            schedule.span.end.min(now).saturating_sub(schedule.due.tick())
        } else {
            0
        };
        Sent { packets, bytes, mean, paced, behind: clock.seconds(behind), lateness }
    }
}

/// A packet with tag and frame, painted unless it is already.
#[inline(always)]
fn painted(fragment: Posted, template: &Template) -> Option<Packet> {
    let image = &template.image;
    let mut packet = fragment.complete(START, image.len() as u16, PacketFlags::empty()).ok()?;
    let data = packet.as_mut_slice()?;
    if data.first_chunk::<TAG>() != image.first_chunk() {
        paint(data, image);
    }
    Some(packet)
}

#[cold]
#[inline(never)]
fn paint(data: &mut [u8], image: &[u8]) {
    data.copy_from_slice(image);
}
