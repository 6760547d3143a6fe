//! What the thread that watches a run sees of its loops: counts, and reports made of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pagewire_ethdev::AnyPort;
use serde_json::{Value, json};

use super::desk::Gathered;
use super::measure::ReceiveCounters;
use super::orders::Orders;
use super::plan::Asked;
use super::report::{Results, StreamReport, Unmatched};
use super::sender::SendCounters;
use crate::l2fwd::{Report, Reporter};
use crate::workload::CoreCounters;

/// A sender, from outside.
pub(super) struct Watched {
    /// In signatures, and in what receivers count.
    pub(super) id: u8,
    pub(super) stream: usize,
    pub(super) counters: Arc<SendCounters>,
    pub(super) orders: Arc<Orders>,
}

/// A core that queues are looked after on.
pub(super) struct Core {
    pub(super) cpu: usize,
    pub(super) work: Arc<CoreCounters>,
    /// Its queues, and how it sends and receives.
    lanes: Vec<Value>,
}

impl Core {
    pub(super) fn new(cpu: usize, lanes: Vec<Value>) -> Core {
        Core { cpu, work: Arc::default(), lanes }
    }
}

/// What is to be seen of a run.
pub(super) struct Watch {
    pub(super) streams: Vec<Asked>,
    pub(super) senders: Vec<Watched>,
    pub(super) receivers: Vec<Arc<ReceiveCounters>>,
    pub(super) cores: Vec<Core>,
    /// What was taken from receivers, if anybody looked.
    pub(super) gathered: Gathered,
    pub(super) start: Instant,
}

/// Makes reports, each of the time since its last one.
pub(super) struct Window {
    pub(super) reporter: Reporter,
    /// When the last report was made, and packets of each stream then, sent and received.
    before: (Duration, Vec<(u64, u64)>),
}

impl Window {
    pub(super) fn new(reporter: Reporter) -> Window {
        Window { reporter, before: Default::default() }
    }

    /// A report of the time since the last one.
    pub(super) fn report(&mut self, watch: &Watch, ports: &mut [AnyPort]) -> Results {
        let elapsed = watch.start.elapsed();
        let (then, before) = std::mem::take(&mut self.before);
        let streams = watch.streams((elapsed - then).as_secs_f64(), &before);
        self.before = (elapsed, streams.iter().map(|stream| (stream.sent, stream.received)).collect());
        let Report { ports, .. } = self.reporter.report(ports, elapsed, false);
        Results::new(elapsed.as_secs_f64(), streams, watch.unmatched(), ports)
    }
}

impl Watch {
    /// The senders of a stream.
    pub(super) fn of_stream(&self, number: usize) -> impl Iterator<Item = &Watched> {
        self.senders.iter().filter(move |sender| sender.stream == number)
    }

    /// What each core does, as others are told.
    pub(super) fn cores(&self) -> Vec<Value> {
        let core = |Core { cpu, work, lanes }: &Core| {
            let mut core = json!(work.report());
            core["cpu"] = json!(cpu);
            core["lanes"] = json!(lanes);
            core
        };
        self.cores.iter().map(core).collect()
    }

    /// Packets of each stream so far, bytes sent, and packets received.
    fn counts(&self) -> Vec<(u64, u64, u64)> {
        let mut counts = vec![(0, 0, 0); self.streams.len()];
        // In this order: what has been received was sent before.
        for Watched { id, stream, .. } in &self.senders {
            for receiver in &self.receivers {
                counts[*stream].2 += receiver.received[usize::from(*id)].load(Ordering::Acquire);
            }
        }
        for Watched { stream, counters, .. } in &self.senders {
            counts[*stream].0 += counters.packets.load(Ordering::Relaxed);
            counts[*stream].1 += counters.bytes.load(Ordering::Relaxed);
        }
        counts
    }

    pub(super) fn streams(&self, seconds: f64, before: &[(u64, u64)]) -> Vec<StreamReport> {
        let report = |(number, (asked, (sent, bytes, received)))| {
            let before = before.get::<usize>(number).copied().unwrap_or_default();
            StreamReport::live(asked, (sent, bytes), received, before, seconds.max(1e-9))
        };
        self.streams.iter().zip(self.counts()).enumerate().map(report).collect()
    }

    /// Packets of the streams whose arrival is watched: sent, and received.
    pub(super) fn expected(&self) -> (u64, u64) {
        let watched =
            self.streams.iter().zip(self.counts()).filter(|(asked, _)| asked.rx.is_some() && asked.signed);
        watched.fold((0, 0), |sums, (_, (sent, _, received))| (sums.0 + sent, sums.1 + received.min(sent)))
    }

    pub(super) fn unmatched(&self) -> Unmatched {
        let sum = |what: fn(&ReceiveCounters) -> &AtomicU64| {
            self.receivers.iter().map(|receiver| what(receiver).load(Ordering::Relaxed)).sum()
        };
        Unmatched {
            foreign: sum(|counters| &counters.foreign),
            damaged: sum(|counters| &counters.damaged),
            other: sum(|counters| &counters.other),
            other_run: sum(|counters| &counters.other_run),
            other_port: sum(|counters| &counters.other_port),
        }
    }
}
