//! When a sender's packets are due, and how fast they went.

use std::time::Duration;

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

    /// Go on at a moment, as if nothing had been due until then. Returns the ticks that were left out.
    pub(super) fn resume(&mut self, now: u64) -> u64 {
        let moment = now.max(self.span.start);
        let out = moment.saturating_sub(self.due.tick());
        (self.due, self.left_in_group) = (Due::at(moment), 0);
        out
    }

    /// Whether nothing more will be due.
    pub(super) fn is_over(&self, now: u64, sent: u64) -> bool {
        let moment = if self.stopped { now } else { self.moment(now) };
        self.phase == MEASURED && (moment >= self.span.end || sent >= self.count)
            || self.stopped && now >= self.span.end
    }
}

/// How long what keeps packets from being sent may last at the end, and still be a moment.
pub(super) const MOMENT: Duration = Duration::from_millis(50);

/// Ticks by which a packet may be late and still be on time: some microseconds.
const ON_TIME: u64 = 1 << 14;

/// When packets were sent, in ticks, and how many before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    first: Option<(u64, u64)>,
    last: (u64, u64),
    /// By how much the last was late.
    pub(super) late: u64,
    /// The first and the last that were on time.
    on_time: Option<[(u64, u64); 2]>,
}

impl Speed {
    /// Packets were sent, the first of them so late, after so many others.
    #[inline(always)]
    pub(super) fn sent(&mut self, before: u64, now: u64, late: u64) {
        (self.last, self.late) = ((now, before), late);
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

    /// Packets a tick from the first to the last that was on time: a moment's delay at either end, of so many ticks at most,
    /// does not change it. Nothing if it was not kept up to the end.
    pub(super) fn paced(&self, moment: u64) -> Option<f64> {
        let [first, last] = self.on_time?;
        let (before, after) = (last.0 - first.0, self.last.0 - last.0);
        rate(first, last).filter(|_| after <= moment.min(before / 8))
    }
}

fn rate(first: (u64, u64), last: (u64, u64)) -> Option<f64> {
    (last.0 > first.0).then(|| (last.1 - first.1) as f64 / (last.0 - first.0) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of packets that were sent one by one, with how late each was.
    fn speed(sent: impl Iterator<Item = (u64, u64)>) -> Speed {
        let mut speed = Speed::default();
        sent.enumerate().for_each(|(before, (now, late))| speed.sent(before as u64, now, late));
        speed
    }

    #[test]
    fn a_moment_at_either_end_does_not_change_a_rate_and_a_slow_port_does() {
        const MOMENT: u64 = 20_000_000;
        let late = |number: u64| ON_TIME + number;
        let exact = Some(1e-5);
        // One every 100,000 ticks.
        let of = |number| (100_000 * number, 0);
        assert_eq!(speed((0..1000).map(of)).paced(MOMENT), exact);
        // The last ten, a hundredth, late by a moment.
        let end = |number| if number < 990 { of(number) } else { (100_000 * number + late(9), late(9)) };
        let paused = speed((0..1000).map(end));
        assert_eq!((paused.paced(MOMENT), paused.late), (exact, late(9)));
        // A ring takes the first hundred in time, and is emptied half as fast.
        let slow = |number: u64| match number {
            0..100 => of(number),
            _ => (10_000_000 + 200_000 * (number - 100), 100_000 * (number - 100) + ON_TIME),
        };
        let slow = speed((0..1000).map(slow));
        assert_eq!(slow.paced(MOMENT), None);
        assert!(slow.mean().is_some_and(|mean| mean < 0.6e-5), "{slow:?}");
        assert_eq!(slow.late, 899 * 100_000 + ON_TIME);
        // One alone has no speed.
        assert_eq!(speed([(5, 0)].into_iter()).paced(MOMENT), None);
    }
}
