//! The loops at work on their cores, watched by this thread, until all is sent and has arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pagewire_ethdev::AnyPort;
use serde::Serialize;
use serde_json::json;

use super::engine::{Share, Signals};
use super::measure::{ReceiveCounters, Tracker};
use super::pace::Clock;
use super::plan::Asked;
use super::report::{Results, StreamReport, Unmatched};
use super::scenario::Scenario;
use super::sender::{SendCounters, Sent, Span};
use super::{Args, Started};
use crate::idle::Idle;
use crate::l2fwd::{Report, Reporter};
use crate::run::EndOnExit;
use crate::stats::Statistics;
use crate::workload::{CoreCounters, WorkReport, Workload};
use crate::{cores, tsc};

/// From when the threads are started to when they send.
const HEAD_START: Duration = Duration::from_millis(20);
/// How long frames may be on their way after the last was sent, however often one comes.
const DRAIN_AT_MOST: Duration = Duration::from_secs(10);
/// How long what is due may take to be sent after the end, where the port is too slow for it.
const GRACE: Duration = Duration::from_secs(2);

/// A run to be.
pub(super) struct Running<'a> {
    pub(super) args: &'a Args,
    pub(super) scenario: &'a Scenario,
    pub(super) clock: Clock,
    pub(super) cpus: Vec<usize>,
    pub(super) naps: bool,
    pub(super) statistics: Statistics,
}

/// What this thread sees of the others.
struct Watch {
    streams: Vec<Asked>,
    /// Streams of senders, and their counters.
    senders: Vec<(usize, Arc<SendCounters>)>,
    receivers: Vec<Arc<ReceiveCounters>>,
    cores: Vec<(usize, Arc<CoreCounters>)>,
    reporter: Reporter,
    published: Reporter,
    start: Instant,
    /// When the last report was made, and packets of each stream then, sent and received.
    before: (Duration, Vec<(u64, u64)>),
}

impl Running<'_> {
    /// Send, receive and report; returns the last report, and why it ended if before its time.
    pub(super) fn run(mut self, started: Started, stop: &AtomicBool) -> Result<(Results, Result<()>)> {
        let Started { mut transmitters, receivers, mut ports, streams, senders, monitors, _space } = started;
        let signals = Arc::new(Signals::default());
        signals.sending.store(transmitters.len(), Ordering::Relaxed);
        let span = self.span();
        let mut counters = vec![None; senders.len()];
        for transmitter in &mut transmitters {
            for sender in transmitter.senders_mut() {
                sender.begin(span);
                counters[usize::from(sender.id)] = Some((sender.stream, sender.counters()));
            }
        }
        let reporter = Reporter::new(monitors.clone(), vec![Vec::new(); ports.len()], None);
        let mut watch = Watch {
            before: (Duration::ZERO, vec![(0, 0); streams.len()]),
            streams,
            senders: counters.into_iter().flatten().collect(),
            receivers: receivers.iter().map(|receiver| receiver.counters()).collect(),
            cores: self.cpus.iter().map(|cpu| (*cpu, Arc::default())).collect(),
            published: reporter.fork(),
            reporter,
            start: Instant::now(),
        };
        let mut shares: Vec<Share> = self.cpus.iter().map(|_| Share::default()).collect();
        let cores = shares.len();
        let (tx, rx) = (transmitters.len(), receivers.len());
        transmitters
            .into_iter()
            .enumerate()
            .for_each(|(n, queue)| shares[n % cores].transmitters.push(queue));
        receivers
            .into_iter()
            .enumerate()
            .for_each(|(n, queue)| shares[(tx + n) % cores].receivers.push(queue));
        note!("{tx} transmit and {rx} receive queues on cores {:?}", &self.cpus[..cores.min(tx + rx)]);
        let idle = if self.naps { Idle::Nap } else { Idle::Spin };
        let workers = spawn(&watch.cores, shares, &signals, idle);
        let watched = match &workers {
            (_, None) => self.watch(&mut watch, &mut ports, &signals, stop),
            (_, Some(_)) => Ok(()),
        };
        signals.end.store(true, Ordering::Relaxed);
        let (workers, failed) = workers;
        let (mut shares, mut panicked) = (Vec::new(), None);
        for worker in workers {
            match worker.join() {
                Ok(share) => shares.push(share),
                Err(panic) => panicked = Some(panic),
            }
        }
        if let Some(panic) = panicked {
            drop(shares);
            std::panic::resume_unwind(panic);
        }
        if let Some(error) = failed {
            return Err(error).context("a thread for a loop");
        }
        let mut results = self.totals(&mut watch, &mut ports, shares, &senders);
        let stopped: Result<Vec<()>, _> =
            ports.iter_mut().filter(|port| port.check().is_ok()).map(|port| port.stop()).collect();
        drop(ports);
        pagewire_pool::flush_thread();
        results.judge(&self.scenario.pass);
        let lost = monitors.iter().map(|pool| pool.stats().inflight()).sum::<u64>();
        let outcome = watched.and(stopped.map(drop).map_err(Into::into)).and_then(|()| match lost {
            0 => Ok(()),
            lost => bail!("{lost} fragments were lost; this is a bug of pagewire"),
        });
        Ok((results, outcome))
    }

    fn span(&self) -> Span {
        let start = tsc::read() + self.clock.ticks(HEAD_START);
        let ticks = |seconds: f64| self.clock.ticks(Duration::from_secs_f64(seconds));
        let measured = start + ticks(self.scenario.warm_up);
        let end = self.scenario.duration.map_or(u64::MAX / 2, |duration| measured + ticks(duration));
        Span { start, measured, end }
    }

    /// Report every period until all is sent and has arrived, or it is time to stop.
    fn watch(
        &mut self,
        watch: &mut Watch,
        ports: &mut [AnyPort],
        signals: &Signals,
        stop: &AtomicBool,
    ) -> Result<()> {
        let (period, json) = (self.args.reporting.stats_period, self.args.reporting.json);
        let mut next = period;
        let whole = self
            .scenario
            .duration
            .map(|duration| HEAD_START + Duration::from_secs_f64(self.scenario.warm_up + duration) + GRACE);
        let over = |signals: &Signals| signals.end.load(Ordering::Relaxed);
        // While they send, and until what is on its way has come.
        let (mut sent, mut arrived) = (None, (Instant::now(), 0));
        while !over(signals) {
            crate::run::wait_for_event(ports);
            ports.iter().try_for_each(|port| port.check())?;
            let elapsed = watch.start.elapsed();
            self.publish(watch, ports, elapsed);
            if stop.load(Ordering::Relaxed) || whole.is_some_and(|whole| elapsed > whole) {
                signals.halt.store(true, Ordering::Relaxed);
            }
            if !period.is_zero() && elapsed >= next && sent.is_none() {
                next = elapsed + period;
                watch.live(ports, elapsed).print(json)?;
            }
            if signals.sending.load(Ordering::Relaxed) > 0 {
                continue;
            }
            let since: &Instant = sent.get_or_insert_with(Instant::now);
            let (sent, received) = watch.expected();
            if received != arrived.1 {
                arrived = (Instant::now(), received);
            }
            let silence = arrived.0.max(*since).elapsed();
            if received >= sent || silence > self.args.drain || since.elapsed() > DRAIN_AT_MOST {
                break;
            }
        }
        Ok(())
    }

    /// Tell those who ask from elsewhere.
    fn publish(&mut self, watch: &mut Watch, ports: &mut [AnyPort], elapsed: Duration) {
        let streams = self.scenario.streams.len();
        self.statistics.tick(|| {
            let Report { seconds, ports, .. } = watch.published.snapshot(ports, elapsed);
            let cores: Vec<_> = watch.cores.iter().map(|(cpu, work)| Core::new(*cpu, work)).collect();
            json!({
                "seconds": seconds,
                "configuration": { "streams": streams },
                "ports": ports,
                "cores": cores,
                "streams": watch.streams(elapsed.as_secs_f64(), &[]),
            })
        });
    }

    /// The end: all counts, and the histograms.
    fn totals(
        &self,
        watch: &mut Watch,
        ports: &mut [AnyPort],
        shares: Vec<Share>,
        senders: &[usize],
    ) -> Results {
        let mut sent: Vec<Vec<Sent>> = watch.streams.iter().map(|_| Vec::new()).collect();
        let mut trackers = vec![Tracker::default(); watch.streams.len()];
        for share in shares {
            for receiver in share.receivers {
                for (sender, tracker) in receiver.trackers.iter().enumerate() {
                    tracker.iter().for_each(|tracker| trackers[senders[sender]].add(tracker));
                }
            }
            for transmitter in share.transmitters {
                for (_, stream, of_sender) in transmitter.totals(&self.clock) {
                    sent[stream].push(of_sender);
                }
            }
        }
        let streams = watch.streams.iter().zip(&sent).zip(&trackers);
        let streams =
            streams.map(|((asked, sent), tracker)| StreamReport::last(asked, sent, tracker, &self.clock));
        let elapsed = watch.start.elapsed();
        let Report { ports, pools, .. } = watch.reporter.report(ports, elapsed, true);
        let mut results = Results::new(elapsed.as_secs_f64(), streams.collect(), watch.unmatched(), ports);
        (results.last, results.pools, results.tsc_hz) = (true, pools, Some(self.clock.hz));
        results
    }
}

/// What a core does, for those who ask from elsewhere.
#[derive(Serialize)]
struct Core {
    cpu: usize,
    lanes: [u8; 0],
    #[serde(flatten)]
    work: WorkReport,
}

impl Core {
    fn new(cpu: usize, work: &CoreCounters) -> Core {
        Core { cpu, lanes: [], work: work.report() }
    }
}

type Workers = (Vec<JoinHandle<Share>>, Option<std::io::Error>);

/// A thread for each core that has something to do.
fn spawn(
    cores: &[(usize, Arc<CoreCounters>)],
    shares: Vec<Share>,
    signals: &Arc<Signals>,
    idle: Idle,
) -> Workers {
    let mut workers = Vec::new();
    for ((cpu, work), mut share) in cores.iter().cloned().zip(shares).filter(|(_, share)| !share.is_empty()) {
        let signals = signals.clone();
        let worker = thread::Builder::new().name(format!("lcore-{cpu}")).spawn(move || {
            let _end = EndOnExit(signals.end.clone());
            cores::pin(cpu);
            share.run(&signals, idle, &mut Workload::new(work));
            share
        });
        match worker {
            Ok(worker) => workers.push(worker),
            Err(error) => return (workers, Some(error)),
        }
    }
    (workers, None)
}

impl Watch {
    /// Packets of each stream so far, bytes sent, and packets received.
    fn counts(&self) -> Vec<(u64, u64, u64)> {
        let mut counts = vec![(0, 0, 0); self.streams.len()];
        // In this order: what has been received was sent before.
        for (sender, (stream, _)) in self.senders.iter().enumerate() {
            for receiver in &self.receivers {
                counts[*stream].2 += receiver.received[sender].load(Ordering::Acquire);
            }
        }
        for (stream, counters) in &self.senders {
            counts[*stream].0 += counters.packets.load(Ordering::Relaxed);
            counts[*stream].1 += counters.bytes.load(Ordering::Relaxed);
        }
        counts
    }

    fn streams(&self, seconds: f64, before: &[(u64, u64)]) -> Vec<StreamReport> {
        let report = |(number, (asked, (sent, bytes, received)))| {
            let before = before.get::<usize>(number).copied().unwrap_or_default();
            StreamReport::live(asked, (sent, bytes), received, before, seconds.max(1e-9))
        };
        self.streams.iter().zip(self.counts()).enumerate().map(report).collect()
    }

    /// Packets of the streams whose arrival is watched: sent, and received.
    fn expected(&self) -> (u64, u64) {
        let watched =
            self.streams.iter().zip(self.counts()).filter(|(asked, _)| asked.rx.is_some() && asked.signed);
        watched.fold((0, 0), |sums, (_, (sent, _, received))| (sums.0 + sent, sums.1 + received))
    }

    fn unmatched(&self) -> Unmatched {
        let sum = |what: fn(&ReceiveCounters) -> &std::sync::atomic::AtomicU64| {
            self.receivers.iter().map(|receiver| what(receiver).load(Ordering::Relaxed)).sum()
        };
        Unmatched {
            foreign: sum(|counters| &counters.foreign),
            damaged: sum(|counters| &counters.damaged),
            other: sum(|counters| &counters.other),
        }
    }

    /// A report of the time since the last one.
    fn live(&mut self, ports: &mut [AnyPort], elapsed: Duration) -> Results {
        let (then, before) = std::mem::take(&mut self.before);
        let streams = self.streams((elapsed - then).as_secs_f64(), &before);
        self.before = (elapsed, streams.iter().map(|stream| (stream.sent, stream.received)).collect());
        let Report { ports, .. } = self.reporter.report(ports, elapsed, false);
        Results::new(elapsed.as_secs_f64(), streams, self.unmatched(), ports)
    }
}
