//! Reports as text, for people.

use std::fmt::Write;

use super::report::{Arrived, Outcome, Results, StreamReport, Times, Unmatched};
use super::schedule::MOMENT;

impl Results {
    /// A table, and what there is to say of each stream.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let when = if self.last { "total, " } else { "" };
        let _ = writeln!(
            text,
            "{:<24}{:>14}{:>12}{:>14}{:>12}{:>12}",
            format!("{when}{:.1} s", self.seconds),
            "sent",
            "kpps",
            "received",
            "kpps",
            if self.last { "lost" } else { "on the way" },
        );
        for stream in &self.streams {
            let measured = |count: String| if stream.is_measured() { count } else { "-".into() };
            let missing = measured(stream.sent.saturating_sub(stream.received).to_string());
            let name = format!("{} {}", stream.name, self.way(stream));
            let _ = writeln!(
                text,
                "  {name:<22}{:>14}{:>12.3}{:>14}{:>12}{missing:>12}",
                stream.sent,
                stream.sent_pps / 1e3,
                measured(stream.received.to_string()),
                measured(format!("{:.3}", stream.received_pps / 1e3)),
            );
            stream.outcome.iter().for_each(|outcome| outcome.lines(stream, &mut text));
        }
        if self.last {
            self.rest(&mut text);
        }
        text
    }

    fn way(&self, stream: &StreamReport) -> String {
        let to = stream.rx_port.map_or("nowhere".into(), |port| port.to_string());
        format!("({} to {to})", stream.tx_port)
    }

    /// What does not belong to a stream.
    fn rest(&self, text: &mut String) {
        for port in &self.ports {
            let (name, drops) = (&port.name, &port.drops);
            let _ = writeln!(
                text,
                "  port {} {name} ({}), link {}: sent {}, received {}, missed {}, errors {}, nombuf {}",
                port.port,
                port.driver,
                port.link,
                port.traffic.tx_packets,
                port.traffic.rx_packets,
                drops.rx_missed,
                drops.rx_errors + drops.tx_errors,
                drops.rx_nombuf,
            );
        }
        let Unmatched { foreign, damaged, other, other_run, other_port } = self.unmatched;
        if foreign + damaged + other + other_run + other_port > 0 {
            let _ = writeln!(
                text,
                "  frames of no stream: {foreign} without signature, {damaged} with a damaged one, {other_run} of another run, \
                 {other_port} at a port where they were not to come, {other} of no sender"
            );
        }
        match self.failed.as_deref() {
            None => {}
            Some([]) => text.push_str("  all criteria are met\n"),
            Some(failed) => failed.iter().for_each(|failed| {
                let _ = writeln!(text, "  FAILED {failed}");
            }),
        }
    }
}

impl Outcome {
    fn lines(&self, stream: &StreamReport, text: &mut String) {
        if let (Some(asked), Some(error)) = (stream.asked_pps, stream.rate_error) {
            let late = self.lateness.map_or_else(String::new, |times| times.line());
            let _ = writeln!(
                text,
                "    rate: {asked:.3} packets/s asked, {:+.4} %; late by {late}",
                error * 100.0
            );
        }
        if self.behind > MOMENT.as_secs_f64() {
            let _ = writeln!(text, "    the port was too slow: {:.3} s behind at the end", self.behind);
        }
        if let Some(times) = self.replay.as_ref().and_then(|replay| replay.gap_error) {
            let _ = writeln!(text, "    gaps off by {}", times.line());
        }
        let Some(arrived) = &self.arrived else { return };
        let Arrived { reordered, duplicates, late, corrupt, .. } = arrived;
        let _ = writeln!(
            text,
            "    {reordered} reordered, {duplicates} twice, {late} too late, {corrupt} corrupt"
        );
        for (name, times) in [("latency", arrived.latency), ("jitter", arrived.jitter)] {
            if let Some(times) = times {
                let _ = writeln!(text, "    {name:<7} {}", times.line());
            }
        }
    }
}

impl Times {
    /// In microseconds.
    fn line(&self) -> String {
        let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        let Times { min_ns, p50_ns, p90_ns, p99_ns, p99_9_ns, p99_99_ns, max_ns, .. } = *self;
        let [min, p50, p90, p99, p99_9, p99_99, max] =
            [min_ns, p50_ns, p90_ns, p99_ns, p99_9_ns, p99_99_ns, max_ns].map(us);
        format!("min {min}, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, p99.99 {p99_99}, max {max} µs")
    }
}
