//! When a sender's packets are due, and how fast they went.

use super::pace::Due;

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

impl Span {
    /// Of who is told later.
    pub(super) const NEVER: Span = Span { start: u64::MAX / 2, measured: u64::MAX / 2, end: u64::MAX / 2 };
}

/// When what is to be sent.
pub(super) struct Schedule {
    /// Whether there is a rate.
    pub(super) paced: bool,
    pub(super) due: Due,
    /// Packets that are due together, and how many of them are still to come.
    group: u32,
    left_in_group: u32,
    pub(super) span: Span,
    pub(super) phase: u8,
    /// Packets that are measured at most.
    pub(super) count: u64,
    /// Told to send nothing.
    pub(super) stopped: bool,
}

impl Schedule {
    pub(super) fn new(paced: bool, group: u32, count: Option<u64>) -> Schedule {
        Schedule {
            paced,
            due: Due::at(0),
            group,
            left_in_group: 0,
            span: Span::default(),
            phase: WARM_UP,
            count: count.unwrap_or(u64::MAX),
            stopped: false,
        }
    }

    /// The moment that decides what is to be done next.
    #[inline(always)]
    pub(super) fn moment(&self, now: u64) -> u64 {
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
    pub(super) fn limit(&self) -> u64 {
        if self.phase == WARM_UP { self.span.measured } else { self.span.end }
    }

    /// Whether one more is due; it is the caller's to send then.
    #[inline(always)]
    pub(super) fn take(&mut self, now: u64, limit: u64, interval: u128) -> bool {
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

    /// The first is due at a moment, or later by so many parts of ticks for each packet that is due together with it.
    pub(super) fn begin(&mut self, moment: u64, delay: u128) {
        (self.due, self.left_in_group) = (Due::at(moment), 0);
        if self.paced {
            self.due.advance(delay * u128::from(self.group));
        }
    }

    /// Go on at a moment, as if nothing had been due until then. Returns the ticks that were left out.
    pub(super) fn resume(&mut self, now: u64, delay: u128) -> u64 {
        let moment = now.max(self.span.start);
        let out = moment.saturating_sub(self.due.tick());
        self.begin(moment, delay);
        out
    }

    /// Whether nothing more will be due.
    pub(super) fn is_over(&self, now: u64, sent: u64) -> bool {
        let moment = if self.stopped { now } else { self.moment(now) };
        // One that is due later than others may have nothing to do before the measurement, or at all.
        let measured = match self.phase {
            WARM_UP => (moment >= self.span.measured).then_some(0),
            _ => Some(sent),
        };
        moment >= self.span.end || measured.is_some_and(|sent| sent >= self.count)
    }
}

/// Ticks by which a packet may be late and still be on time: some microseconds.
const ON_TIME: u64 = 1 << 14;

/// When packets were sent, in ticks, and how many before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    first: Option<(u64, u64)>,
    last: (u64, u64),
    /// The first and the last that were on time.
    on_time: Option<[(u64, u64); 2]>,
}

impl Speed {
    /// Packets were sent, the first of them so late, after so many others.
    #[inline(always)]
    pub(super) fn sent(&mut self, before: u64, now: u64, late: u64) {
        self.last = (now, before);
        if self.first.is_none() {
            self.first = Some(self.last);
        }
        if late < ON_TIME {
            self.on_time.get_or_insert([self.last; 2])[1] = self.last;
        }
    }

    /// Packets a tick from the first to the last.
    pub(super) fn mean(&self) -> Option<f64> {
        rate(self.first?, self.last)
    }

    /// Packets a tick from the first to the last that was on time: a moment's delay at either end does not change it.
    pub(super) fn paced(&self) -> Option<f64> {
        self.on_time.and_then(|[first, last]| rate(first, last))
    }
}

fn rate(first: (u64, u64), last: (u64, u64)) -> Option<f64> {
    (last.0 > first.0).then(|| (last.1 - first.1) as f64 / (last.0 - first.0) as f64)
}
