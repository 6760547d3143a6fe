//! One trial: what was sent in it, what came through, and whether it went well.

use serde::Serialize;

use super::super::report::{Arrived, Results, StreamReport, Times};
use super::super::schedule::MOMENT;

/// The part of the frames of a rate that a sender may have been too slow for.
const TOO_SLOW: f64 = 0.01;

/// What became of a trial.
#[derive(Serialize, Clone)]
pub(super) struct Trial {
    /// Bytes with check sequence.
    pub(super) size: u16,
    /// Of the highest rate.
    pub(super) part: f64,
    pub(super) seconds: f64,
    /// All streams together.
    pub(super) asked_pps: f64,
    pub(super) sent_pps: f64,
    pub(super) received_pps: f64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) lost: u64,
    /// The part that was lost.
    pub(super) loss: f64,
    /// Whether this machine sent as many as were asked for.
    pub(super) kept_up: bool,
    /// By stream.
    pub(super) latency: Vec<StreamLatency>,
}

/// A stream's latency.
#[derive(Serialize, Clone)]
pub(super) struct StreamLatency {
    pub(super) stream: String,
    pub(super) latency: Option<Times>,
    pub(super) jitter: Option<Times>,
}

impl Trial {
    pub(super) fn new(size: u16, part: f64, seconds: f64, results: &Results) -> Trial {
        let streams = &results.streams;
        let sum = |what: fn(&StreamReport) -> f64| streams.iter().map(what).sum::<f64>();
        let count = |what: fn(&StreamReport) -> u64| streams.iter().map(what).sum::<u64>();
        let (sent, received) = (count(|stream| stream.sent), count(|stream| stream.received));
        let asked_pps = sum(|stream| stream.asked_pps.unwrap_or(0.0));
        let sent_pps = sum(|stream| stream.sent_pps);
        let lost = sent.saturating_sub(received);
        let behind =
            streams.iter().filter_map(|stream| stream.outcome.as_ref()).map(|outcome| outcome.behind);
        let latency = |stream: &StreamReport| {
            let times =
                |what: fn(&Arrived) -> Option<Times>| what(stream.outcome.as_ref()?.arrived.as_ref()?);
            StreamLatency {
                stream: stream.name.clone(),
                latency: times(|arrived| arrived.latency),
                jitter: times(|arrived| arrived.jitter),
            }
        };
        Trial {
            size,
            part,
            seconds,
            asked_pps,
            sent_pps,
            received_pps: sum(|stream| stream.received_pps),
            sent,
            received,
            lost,
            loss: lost as f64 / (sent as f64).max(1.0),
            kept_up: sent > 0
                && behind.fold(0.0, f64::max) <= MOMENT.as_secs_f64().max(seconds * TOO_SLOW)
                && sent_pps >= asked_pps * (1.0 - TOO_SLOW),
            latency: streams.iter().map(latency).collect(),
        }
    }

    /// Whether no more was lost than may be, of what was asked for.
    pub(super) fn is_good(&self, tolerance: f64) -> bool {
        self.kept_up && self.loss <= tolerance
    }

    /// The part of the highest rate that came through.
    pub(super) fn through(&self) -> f64 {
        self.part * self.received_pps / self.asked_pps.max(1e-9)
    }
}
