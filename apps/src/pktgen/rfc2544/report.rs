//! What was found, as JSON and as text: of the schema of all of pktgen's reports.

use std::fmt::Write;

use serde::Serialize;

use super::super::report::VERSION;
use super::config::{Rfc2544, Test};
use super::trial::Trial;

/// A line of JSON: a trial while it goes on, all of it at the end.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    pub(super) version: u32,
    #[serde(rename = "final")]
    pub(super) last: bool,
    #[serde(flatten)]
    pub(super) content: Content<'a>,
    /// Criteria that were not met; present at the end if there are any criteria.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<&'a [String]>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content<'a> {
    Trial {
        test: Test,
        good: bool,
        #[serde(flatten)]
        trial: &'a Trial,
    },
    Rfc2544(&'a Found),
}

/// Everything that was found.
#[derive(Serialize)]
pub(in super::super) struct Found {
    /// Seconds of a full trial, and of one that leads there.
    trial: f64,
    search_trial: f64,
    resolution: f64,
    loss_tolerance: f64,
    /// Trials that were made.
    pub(super) trials: u64,
    /// It was ended before its time.
    pub(super) interrupted: bool,
    pub(super) sizes: Vec<OfSize>,
    #[serde(skip)]
    pub(in super::super) failed: Option<Vec<String>>,
}

/// What was found for a length of frames.
#[derive(Serialize, Default)]
pub(super) struct OfSize {
    /// Bytes with check sequence.
    pub(super) size: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) throughput: Option<Throughput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Trial>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) frame_loss: Vec<Trial>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) back_to_back: Option<BackToBack>,
}

/// The highest rate that went well.
#[derive(Serialize)]
pub(super) struct Throughput {
    /// What more would have failed by.
    pub(super) limit: Limit,
    /// The trial that it held for; none if no rate went well.
    #[serde(flatten)]
    pub(super) trial: Option<Trial>,
}

/// What keeps a rate from being higher.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Limit {
    /// It is the highest that is tried.
    MaxRate,
    /// Frames are lost.
    Loss,
    /// This machine sends no more.
    Sender,
}

impl Limit {
    fn label(self) -> &'static str {
        match self {
            Limit::MaxRate => "max",
            Limit::Loss => "loss",
            Limit::Sender => "sender",
        }
    }
}

/// The longest burst that went well.
#[derive(Serialize)]
pub(super) struct BackToBack {
    /// Frames; 0 if not even a few did.
    pub(super) frames: u64,
    /// Whether it is the longest that is tried.
    pub(super) all: bool,
    /// What a longer one would have failed by; none if there is no longer one.
    pub(super) limit: Option<Limit>,
    #[serde(flatten)]
    pub(super) trial: Option<Trial>,
}

impl Found {
    pub(super) fn new(asked: &Rfc2544) -> Found {
        let Rfc2544 { trial, search_trial, resolution, loss_tolerance, .. } = *asked;
        let (trials, interrupted, sizes, failed) = (0, false, Vec::new(), None);
        Found { trial, search_trial, resolution, loss_tolerance, trials, interrupted, sizes, failed }
    }

    /// Print it on standard output.
    pub(in super::super) fn print(&self, json: bool) -> anyhow::Result<()> {
        let failed = self.failed.as_deref();
        let document = Document { version: VERSION, last: true, content: Content::Rfc2544(self), failed };
        Ok(crate::run::print(&if json { serde_json::to_string(&document)? + "\n" } else { self.text() })?)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "RFC 2544, {} trials, {} s each where reported{}",
            self.trials,
            self.trial,
            if self.interrupted { "; ENDED BEFORE ITS TIME" } else { "" }
        );
        let _ = writeln!(
            text,
            "{:>6}{:>14}{:>10}{:>12}{:>10}{:>12}{:>12}{:>12}{:>14}{:>10}",
            "bytes",
            "packets/s",
            "Gb/s L2",
            "% of max",
            "limit",
            "min µs",
            "p50 µs",
            "p99 µs",
            "back to back",
            "limit"
        );
        for of_size in &self.sizes {
            of_size.line(&mut text);
        }
        if self.sizes.iter().any(|of_size| !of_size.frame_loss.is_empty()) {
            text.push_str("frame loss\n");
        }
        for OfSize { size, frame_loss, .. } in &self.sizes {
            for trial in frame_loss {
                let slow = if trial.kept_up { "" } else { "; this machine sent no more" };
                let _ = writeln!(
                    text,
                    "{size:>6}{:>13.0} %{:>14.0} packets/s sent, {:.4} % lost{slow}",
                    trial.part * 100.0,
                    trial.sent_pps,
                    trial.loss * 100.0
                );
            }
        }
        match self.failed.as_deref() {
            None => {}
            Some([]) => text.push_str("all criteria are met\n"),
            Some(failed) => failed.iter().for_each(|failed| {
                let _ = writeln!(text, "FAILED {failed}");
            }),
        }
        text
    }
}

impl OfSize {
    fn line(&self, text: &mut String) {
        let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        let none = || "-".to_owned();
        let throughput = self.throughput.as_ref().and_then(|found| found.trial.as_ref());
        let [pps, bits, part] = throughput.map_or([none(), none(), none()], |trial| {
            let bits = trial.received_pps * 8.0 * f64::from(trial.size);
            [
                format!("{:.0}", trial.received_pps),
                format!("{:.3}", bits / 1e9),
                format!("{:.2}", trial.part * 100.0),
            ]
        });
        let limit = self.throughput.as_ref().map_or("-", |found| found.limit.label());
        let times = self.latency.iter().flat_map(|trial| &trial.latency).find_map(|stream| stream.latency);
        let [min, p50, p99] = times
            .map_or([none(), none(), none()], |times| [times.min_ns, times.p50_ns, times.p99_ns].map(us));
        let burst = self
            .back_to_back
            .as_ref()
            .map_or_else(none, |found| format!("{}{}", if found.all { "≥ " } else { "" }, found.frames));
        let of_burst = self.back_to_back.as_ref().and_then(|found| found.limit).map_or("-", Limit::label);
        let size = self.size;
        let _ = writeln!(
            text,
            "{size:>6}{pps:>14}{bits:>10}{part:>12}{limit:>10}{min:>12}{p50:>12}{p99:>12}{burst:>14}{of_burst:>10}"
        );
    }
}
