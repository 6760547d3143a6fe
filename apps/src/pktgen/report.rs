//! What is reported every period and at the end: version 1 of the schema in docs/pktgen.md.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::captured::Captured;
use super::measure::Tracker;
use super::pace::Clock;
use super::plan::Asked;
use super::scenario::Pass;
use super::sender::Sent;
use crate::l2fwd::{PoolReport, PortReport};

/// Of what is written here. A field that is added is no new version; one that is gone or means something else is.
pub(super) const VERSION: u32 = 1;

/// One report.
#[derive(Serialize)]
pub(super) struct Results {
    version: u32,
    /// Since the start, warm-up included.
    pub(super) seconds: f64,
    /// Whether it is the last one, with totals of all that was measured.
    #[serde(rename = "final")]
    pub(super) last: bool,
    pub(super) streams: Vec<StreamReport>,
    pub(super) unmatched: Unmatched,
    pub(super) ports: Vec<PortReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) pools: Vec<PoolReport>,
    /// Hertz of the clock that paces and measures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tsc_hz: Option<f64>,
    /// Criteria that were not met; present at the end if there are any criteria.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<Vec<String>>,
}

/// Frames that came and are no stream's.
#[derive(Serialize, Default, Clone, Copy)]
pub(super) struct Unmatched {
    /// Without a signature.
    pub(super) foreign: u64,
    /// With a signature that is damaged.
    pub(super) damaged: u64,
    /// Of a sender that this run does not have.
    pub(super) other: u64,
    /// Of another run: an earlier one's, or another program's.
    pub(super) other_run: u64,
    /// Of a stream that is expected at another port, or at none.
    pub(super) other_port: u64,
}

#[derive(Serialize, Default)]
pub(super) struct StreamReport {
    pub(super) name: String,
    pub(super) tx_port: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rx_port: Option<usize>,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    /// Each number once.
    pub(super) received: u64,
    /// A second, since the last report; over all of the measurement in the last one.
    pub(super) sent_pps: f64,
    pub(super) received_pps: f64,
    /// Its frames carry signatures, by which they are known where they arrive.
    pub(super) signed: bool,
    /// It was told to send nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) stopped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asked_pps: Option<f64>,
    /// (sent − asked) / asked, from the first to the last packet that went on time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_error: Option<f64>,
    /// The rest in the last report only.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<Outcome>,
}

#[derive(Serialize)]
pub(super) struct Outcome {
    /// Seconds by which the last packet was late, or the next one was when it ended.
    pub(super) behind: f64,
    /// How late bursts were, if there is a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lateness: Option<Times>,
    /// If it is a capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replay: Option<ReplayReport>,
    /// If its frames are expected somewhere.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) arrived: Option<Arrived>,
}

/// A capture that was sent.
#[derive(Serialize)]
pub(super) struct ReplayReport {
    pub(super) capture: String,
    /// In the file.
    pub(super) frames: usize,
    /// By how much its gaps were to be longer, where it has its own timing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) factor: Option<f64>,
    /// How far the gaps between frames were from that, without sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gap_error: Option<Times>,
    /// How that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gap_measured: Option<&'static str>,
}

/// How errors of gaps are measured.
const GAP_MEASURED: &str = "at the sender: the time stamp counter is read each time the transmit queue has taken frames; the error of a \
     gap is the time between two frames that follow each other, less that between their stamps times the factor";

#[derive(Serialize)]
pub(super) struct Arrived {
    /// Sent and not received.
    pub(super) lost: u64,
    pub(super) reordered: u64,
    pub(super) duplicates: u64,
    /// So late that nobody knows whether they came before.
    pub(super) late: u64,
    pub(super) corrupt: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Times>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jitter: Option<Times>,
}

/// A histogram of times, in nanoseconds.
#[derive(Serialize, Clone, Copy)]
pub(super) struct Times {
    pub(super) samples: u64,
    pub(super) min_ns: u64,
    pub(super) p50_ns: u64,
    pub(super) p90_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) p99_9_ns: u64,
    pub(super) p99_99_ns: u64,
    pub(super) max_ns: u64,
}

impl Times {
    pub(super) fn new(ticks: &Histogram<u64>, clock: &Clock) -> Option<Times> {
        let ns = |ticks: u64| (clock.seconds(ticks) * 1e9).round() as u64;
        let at = |quantile| ns(ticks.value_at_quantile(quantile));
        (!ticks.is_empty()).then(|| Times {
            samples: ticks.len(),
            min_ns: ns(ticks.min()),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p99_9_ns: at(0.999),
            p99_99_ns: at(0.9999),
            max_ns: ns(ticks.max()),
        })
    }
}

impl ReplayReport {
    fn new(captured: &Captured, sent: &[Sent], clock: &Clock) -> ReplayReport {
        // It has one sender.
        let gap_error = sent.iter().find_map(|sent| Times::new(sent.gap_errors.as_ref()?, clock));
        ReplayReport {
            capture: captured.path.display().to_string(),
            frames: captured.frames.len(),
            factor: captured.timing.map(|timing| timing.factor),
            gap_error,
            gap_measured: gap_error.map(|_| GAP_MEASURED),
        }
    }
}

impl StreamReport {
    /// Whether it is known which of its frames arrive.
    pub(super) fn is_measured(&self) -> bool {
        self.signed && self.rx_port.is_some()
    }

    /// What is known of a stream while it runs.
    pub(super) fn live(
        asked: &Asked,
        sent: (u64, u64),
        received: u64,
        before: (u64, u64),
        seconds: f64,
    ) -> Self {
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        StreamReport {
            name: asked.name.clone(),
            tx_port: asked.tx,
            rx_port: asked.rx,
            sent: sent.0,
            sent_bytes: sent.1,
            received,
            sent_pps: rate(sent.0, before.0),
            received_pps: rate(received, before.1),
            signed: asked.signed,
            stopped: asked.stopped,
            asked_pps: asked.rate,
            ..StreamReport::default()
        }
    }

    /// The end of it: what all its senders sent, and what arrived.
    pub(super) fn last(asked: &Asked, sent: &[Sent], tracker: &Tracker, clock: &Clock) -> Self {
        let packets = sent.iter().map(|sent| sent.packets).sum();
        let bytes = sent.iter().map(|sent| sent.bytes).sum();
        let sum = |what: fn(&Sent) -> Option<f64>| sent.iter().map(what).sum::<Option<f64>>();
        let (sent_pps, paced) = (sum(|sent| sent.mean), sum(|sent| sent.paced));
        let arrived = (asked.rx.is_some() && asked.signed).then(|| Arrived {
            lost: packets - tracker.received.min(packets),
            reordered: tracker.reordered,
            duplicates: tracker.duplicates,
            late: tracker.late,
            corrupt: tracker.corrupt,
            latency: Times::new(&tracker.delays.latency, clock),
            jitter: Times::new(&tracker.delays.jitter, clock),
        });
        let mut lateness = super::desk::histogram();
        for sent in sent {
            let _ = lateness.add(&sent.lateness);
        }
        let rate_error = asked.rate.zip(paced.or(sent_pps)).map(|(asked, sent)| (sent - asked) / asked);
        let received_pps = sent_pps.unwrap_or(0.0) * tracker.received as f64 / (packets as f64).max(1.0);
        StreamReport {
            name: asked.name.clone(),
            tx_port: asked.tx,
            rx_port: asked.rx,
            sent: packets,
            sent_bytes: bytes,
            received: tracker.received,
            sent_pps: sent_pps.unwrap_or(0.0),
            received_pps,
            signed: asked.signed,
            stopped: asked.stopped,
            asked_pps: asked.rate,
            rate_error,
            outcome: Some(Outcome {
                behind: sent.iter().map(|sent| sent.behind).fold(0.0, f64::max),
                lateness: Times::new(&lateness, clock),
                replay: asked.replay.as_ref().map(|captured| ReplayReport::new(captured, sent, clock)),
                arrived,
            }),
        }
    }

    /// Criteria that this stream does not meet.
    fn failed(&self, pass: &Pass) -> Vec<String> {
        let mut failed = Vec::new();
        let mut check = |key: &str, limit: Option<f64>, found: Option<f64>| {
            let Some(limit) = limit else { return };
            match found {
                Some(found) if found <= limit => {}
                Some(found) => {
                    failed.push(format!("stream {}: {key}: {found} is more than {limit}", self.name))
                }
                None => failed.push(format!("stream {}: {key}: nothing was measured", self.name)),
            }
        };
        let arrived = self.outcome.as_ref().and_then(|outcome| outcome.arrived.as_ref());
        let count = |what: fn(&Arrived) -> u64| arrived.map(|arrived| what(arrived) as f64);
        let us = |what: fn(&Times) -> u64| {
            arrived.and_then(|a| a.latency.as_ref()).map(|times| what(times) as f64 / 1e3)
        };
        let loss =
            count(|arrived| arrived.lost).filter(|_| self.sent > 0).map(|lost| lost / self.sent as f64);
        let limit = |limit: Option<u64>| limit.map(|limit| limit as f64);
        check("max-loss", pass.max_loss, loss);
        check("max-reordered", limit(pass.max_reordered), count(|arrived| arrived.reordered + arrived.late));
        check("max-duplicates", limit(pass.max_duplicates), count(|arrived| arrived.duplicates));
        check("max-corrupt", limit(pass.max_corrupt), count(|arrived| arrived.corrupt));
        check("max-rate-error", pass.max_rate_error, self.rate_error.map(f64::abs));
        check("max-latency-p50", pass.max_latency_p50, us(|times| times.p50_ns));
        check("max-latency-p99", pass.max_latency_p99, us(|times| times.p99_ns));
        check("max-latency", pass.max_latency, us(|times| times.max_ns));
        failed
    }
}

impl Results {
    pub(super) fn new(
        seconds: f64,
        streams: Vec<StreamReport>,
        unmatched: Unmatched,
        ports: Vec<PortReport>,
    ) -> Self {
        let (last, pools, tsc_hz, failed) = (false, Vec::new(), None, None);
        Results { version: VERSION, seconds, last, streams, unmatched, ports, pools, tsc_hz, failed }
    }

    /// Compare with the criteria.
    pub(super) fn judge(&mut self, pass: &Pass) {
        if *pass != Pass::default() {
            self.failed = Some(self.streams.iter().flat_map(|stream| stream.failed(pass)).collect());
        }
    }

    /// Print it on standard output.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        let text = if json { serde_json::to_string(self)? + "\n" } else { self.text() };
        Ok(crate::run::print(&text)?)
    }
}
