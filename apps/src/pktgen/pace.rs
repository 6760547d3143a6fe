//! When packets are due, by the time stamp counter.

use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::tsc;

/// Bytes that a frame takes on the wire besides its own: preamble, start of frame, and the smallest gap.
pub(super) const OVERHEAD: u32 = 20;
/// Of those, the gap.
const GAP: u32 = 12;
/// Bits of a tick's fraction.
const FRACTION: u32 = 32;

/// The time stamp counter's frequency.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Ticks a second.
    pub(super) hz: f64,
}

impl Clock {
    /// Measures it beside the system's clock, for as long as that takes to be right to some parts in a million.
    pub(super) fn calibrate() -> Clock {
        const LONG: Duration = Duration::from_millis(60);
        let start = Clock::mark();
        std::thread::sleep(LONG);
        Clock::between(start, Clock::mark())
    }

    /// The frequency between two moments.
    pub(super) fn between(start: (u64, Instant), end: (u64, Instant)) -> Clock {
        let ticks = end.0.wrapping_sub(start.0);
        Clock { hz: (ticks as f64 / (end.1 - start.1).as_secs_f64()).max(1.0) }
    }

    /// A moment by both clocks: the reading that was interrupted least.
    pub(super) fn mark() -> (u64, Instant) {
        let read = || {
            let before = tsc::read();
            let now = Instant::now();
            let after = tsc::read();
            (after.wrapping_sub(before), (before.wrapping_add(after.wrapping_sub(before) / 2), now))
        };
        (0..16).map(|_| read()).min_by_key(|(took, _)| *took).unwrap_or_else(read).1
    }

    pub(super) fn ticks(&self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.hz) as u64
    }

    pub(super) fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / self.hz
    }
}

/// How fast a stream is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rate {
    /// As fast as the port takes it.
    Max,
    /// Packets a second.
    Packets(f64),
    /// Bits a second of all that is on the wire, preambles and gaps included.
    Layer1(f64),
    /// Bits a second of frames, check sequence included.
    Layer2(f64),
    /// A part of the link's rate.
    Line(f64),
    /// So many bytes between one frame and the next, 12 at least.
    Gap(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let error = || {
            format!(
                "{text:?} is no rate; expected something like max, 1000pps, 1.5Mpps, 5Gbps (frames), 5GbpsL1 (with gaps and \
                 preambles), 40% (of the link) or gap:96B"
            )
        };
        let number = |digits: &str| {
            let number = digits.trim().parse::<f64>().ok();
            number.filter(|number| number.is_finite() && *number > 0.0).ok_or_else(error)
        };
        if text == "max" {
            return Ok(Rate::Max);
        }
        if let Some(percent) = text.strip_suffix('%') {
            return number(percent).map(|percent| Rate::Line(percent / 100.0));
        }
        if let Some(gap) = text.strip_prefix("gap:").and_then(|gap| gap.strip_suffix('B')) {
            return number(gap).map(Rate::Gap);
        }
        let scaled = |digits: &str| {
            let digits = digits.trim();
            let scale = match digits.as_bytes().last() {
                Some(b'k') => 1e3,
                Some(b'M') => 1e6,
                Some(b'G') => 1e9,
                _ => return number(digits),
            };
            number(&digits[..digits.len() - 1]).map(|number| number * scale)
        };
        let of_bits = |digits: &str| match (digits.strip_suffix("bpsL1"), digits.strip_suffix("bpsL2")) {
            (Some(digits), _) => Some(scaled(digits).map(Rate::Layer1)),
            (_, Some(digits)) => Some(scaled(digits).map(Rate::Layer2)),
            _ => digits.strip_suffix("bps").map(|digits| scaled(digits).map(Rate::Layer2)),
        };
        match text.strip_suffix("pps") {
            Some(digits) => scaled(digits).map(Rate::Packets),
            None => of_bits(text).unwrap_or_else(|| Err(error())),
        }
    }
}

impl Rate {
    /// Seconds from one frame of `size` bytes, check sequence included, to the next, on a link of `line` bits a second. Nothing
    /// if the port sets the pace.
    ///
    /// # Errors
    ///
    /// More than the link carries.
    pub(super) fn interval(self, size: u32, line: f64) -> Result<f64> {
        let seconds = self.spacing(size, line)?;
        if self != Rate::Max {
            check_line(&format!("frames of {size} bytes"), seconds, on_wire(size) / line, line)?;
        }
        Ok(seconds)
    }

    /// The same, of one frame among others: whether the link carries them is a matter of all of them.
    ///
    /// # Errors
    ///
    /// So slow that it is none.
    pub(super) fn spacing(self, size: u32, line: f64) -> Result<f64> {
        let wire = on_wire(size);
        let seconds = match self {
            Rate::Max => return Ok(0.0),
            Rate::Packets(rate) => 1.0 / rate,
            Rate::Layer1(rate) => wire / rate,
            Rate::Layer2(rate) => 8.0 * f64::from(size) / rate,
            Rate::Line(part) => wire / (part * line),
            Rate::Gap(bytes) => (wire + 8.0 * (bytes - f64::from(GAP))) / line,
        };
        // 30 years: more than is worth waiting for, and less than is more ticks than there are.
        if seconds.is_nan() || seconds > 1e9 {
            bail!("a packet in {seconds:.0} seconds is no rate: at least one in 1000000000 is");
        }
        Ok(seconds)
    }
}

/// Bits that a frame of `size` bytes takes of the wire.
pub(super) fn on_wire(size: u32) -> f64 {
    8.0 * f64::from(size + OVERHEAD)
}

/// Whether a link of `line` bits a second carries frames that come every `interval` seconds, and take so many `seconds` of it each.
///
/// # Errors
///
/// It does not.
pub(super) fn check_line(frames: &str, interval: f64, seconds: f64, line: f64) -> Result<()> {
    // As far as it is not a matter of rounding.
    if interval < seconds * (1.0 - 1e-9) {
        bail!(
            "{frames} at {:.0} packets/s are {:.3} Gb/s on the wire, and the link has {:.3} Gb/s: at most {:.0} packets/s",
            1.0 / interval,
            seconds * line / interval / 1e9,
            line / 1e9,
            1.0 / seconds
        );
    }
    Ok(())
}

/// The time from one packet to the next, in parts of ticks.
pub(super) fn ticks(seconds: f64, clock: &Clock) -> u128 {
    (seconds * clock.hz * (1u64 << FRACTION) as f64) as u128
}

/// When the next packet of a stream is due. What is late is made up for, so that no delay changes the rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due(u128);

impl Due {
    pub(super) fn at(tick: u64) -> Due {
        Due(u128::from(tick) << FRACTION)
    }

    /// The tick.
    #[inline(always)]
    pub(super) fn tick(self) -> u64 {
        (self.0 >> FRACTION) as u64
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, by: u128) {
        self.0 += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_parsed() {
        for (text, rate) in [
            ("max", Rate::Max),
            ("1pps", Rate::Packets(1.0)),
            ("14.88Mpps", Rate::Packets(14.88e6)),
            ("5Gbps", Rate::Layer2(5e9)),
            ("5GbpsL2", Rate::Layer2(5e9)),
            ("100 kbpsL1", Rate::Layer1(100e3)),
            ("50%", Rate::Line(0.5)),
            ("gap:96B", Rate::Gap(96.0)),
        ] {
            assert_eq!(text.parse(), Ok(rate));
        }
        for bad in ["", "5", "pps", "-1pps", "0pps", "infpps", "NaN%", "1Tpps", "gap:9", "5Gb"] {
            assert!(bad.parse::<Rate>().is_err_and(|error| error.contains("is no rate")), "{bad}");
        }
    }

    #[test]
    fn intervals_are_those_of_ethernet() {
        let interval = |rate: &str, size| rate.parse::<Rate>().unwrap().interval(size, 10e9);
        let close = |seconds: f64, expected: f64| (seconds / expected - 1.0).abs() < 1e-12;
        assert_eq!(interval("max", 64).unwrap(), 0.0);
        assert!(close(interval("100%", 64).unwrap(), 67.2e-9));
        assert!(close(interval("gap:12B", 64).unwrap(), 67.2e-9));
        assert!(close(interval("gap:1012B", 64).unwrap(), 867.2e-9));
        assert!(close(interval("10GbpsL1", 1518).unwrap(), 1230.4e-9));
        assert!(close(interval("1Gbps", 125).unwrap(), 1e-6));
        for above in ["14.9Mpps", "8Gbps", "10.1GbpsL1", "101%", "gap:11B"] {
            let error = interval(above, 64).unwrap_err().to_string();
            assert!(error.contains("at most 14880952 packets/s"), "{above}: {error}");
        }
    }

    #[test]
    fn a_day_at_the_highest_rate_is_late_by_less_than_a_packet() {
        let clock = Clock { hz: 2_893_123_456.7 };
        let interval = Rate::Line(1.0).interval(64, 10e9).unwrap();
        let mut due = Due::at(1 << 50);
        let packets = 86_400 * 14_880_952u128;
        due.advance(ticks(interval, &clock) * packets);
        let expected = packets as f64 * interval * clock.hz;
        let off = (due.tick() - (1 << 50)) as f64 - expected;
        assert!(off.abs() < interval * clock.hz * 2.0, "{off} ticks");
    }

    #[test]
    fn the_clock_is_calibrated_to_far_less_than_a_thousandth() {
        let start = Clock::mark();
        let clock = Clock::calibrate();
        std::thread::sleep(Duration::from_millis(300));
        let longer = Clock::between(start, Clock::mark());
        assert!((clock.hz / longer.hz - 1.0).abs() < 2e-4, "{} {}", clock.hz, longer.hz);
    }
}
