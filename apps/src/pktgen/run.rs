//! One measurement: the loops at work on their cores, watched by this thread, until all is sent and has arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::bench::Bench;
use super::control::{Command, Control};
use super::desk::Gathered;
use super::engine::{RxLane, Share, Signals, Transmitter};
use super::live::Summary;
use super::measure::{Receiver, Tracker};
use super::plan::Plan;
use super::report::{Results, StreamReport};
use super::scenario::Scenario;
use super::schedule::Span;
use super::sender::Sent;
use super::signature::Run;
use super::watch::{Core, Watch, Watched, Window};
use crate::door;
use crate::idle::Idle;
use crate::l2fwd::{Report, Reporter};
use crate::run::EndOnExit;
use crate::workload::Workload;
use crate::{cores, tsc};

/// From when the threads are started to when they send.
const HEAD_START: Duration = Duration::from_millis(20);
/// How long frames may be on their way after the last was sent, however often one comes, unless more is asked for.
const DRAIN_AT_MOST: Duration = Duration::from_secs(10);
/// How long what is due may take to be sent after the end, where the port is too slow for it.
const GRACE: Duration = Duration::from_secs(2);

/// What a run is given besides its scenario.
pub(super) struct Conduct<'a> {
    /// Between two reports on standard output; zero for none.
    pub(super) period: Duration,
    /// End it when this is set.
    pub(super) stop: &'a AtomicBool,
    /// Where commands come from.
    pub(super) control: Option<&'a Control>,
    /// Send nothing before one of them says so.
    pub(super) stopped: bool,
}

impl Bench<'_> {
    /// Send, receive and report; returns the last report, and why it ended if before its time.
    ///
    /// # Errors
    ///
    /// What keeps it from beginning.
    pub(super) fn run(
        &mut self,
        scenario: &Scenario,
        conduct: &Conduct<'_>,
    ) -> Result<(Results, Result<()>)> {
        let queues = self.args.lanes.queues;
        let run = Run::random(self.run);
        self.run = Some(run);
        let plan = Plan::new(scenario, &mut self.ports, queues, &self.clock, run);
        let Plan { mut streams, mut senders } = scenario.explain(plan)?;
        streams.iter_mut().for_each(|stream| stream.stopped = conduct.stopped);
        let burst = usize::from(self.args.lanes.burst);
        let (mut transmitters, mut watched) = (Vec::new(), Vec::new());
        let span = if conduct.stopped { Span::NEVER } else { self.span(scenario) };
        for lane in self.tx.drain(..) {
            let mut of_lane = std::mem::take(&mut senders[lane.port][usize::from(lane.queue)]);
            for sender in &mut of_lane {
                sender.begin(span);
                if conduct.stopped {
                    sender.stop();
                }
                let (counters, orders) = (sender.counters(), sender.orders());
                watched.push(Watched { id: sender.id, stream: sender.stream, counters, orders });
            }
            transmitters.push(Transmitter::new(lane, burst, of_lane));
        }
        let of_senders = streams.len() * usize::from(queues);
        let mut of_stream = vec![0; of_senders];
        watched.iter().for_each(|sender| of_stream[usize::from(sender.id)] = sender.stream);
        let expected =
            |port: usize| of_stream.iter().map(|stream| streams[*stream].rx == Some(port)).collect();
        let receive = |lane: RxLane| Receiver::new(expected(lane.port), lane, burst, run);
        let receivers: Vec<_> = self.rx.drain(..).map(receive).collect();
        let signals = Arc::new(Signals::default());
        signals.sending.store(transmitters.len(), Ordering::Relaxed);
        let counters = receivers.iter().map(Receiver::counters).collect();
        let desks = receivers.iter().map(|receiver| (receiver.desk(), receiver.counters())).collect();
        let gathered = Gathered::new(desks, of_stream, streams.len());
        let (senders, start) = (watched, Instant::now());
        let shares = self.shares(transmitters, receivers);
        let cores =
            self.cpus.iter().zip(&shares).map(|(cpu, share)| Core::new(*cpu, share.lanes())).collect();
        let mut watch = Watch { streams, senders, receivers: counters, cores, gathered, start };
        let (workers, failed) = spawn(&watch.cores, shares, &signals, self.idle);
        let watched = match &failed {
            None => self.watch(scenario, conduct, &mut watch, &signals),
            Some(_) => Ok(()),
        };
        signals.end.store(true, Ordering::Relaxed);
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
        let mut results = self.totals(&mut watch, shares);
        if let Some(error) = failed {
            return Err(error).context("a thread for a loop");
        }
        results.judge(&scenario.pass);
        Ok((results, watched))
    }

    /// Queues, dealt out to the cores.
    fn shares(&self, transmitters: Vec<Transmitter>, receivers: Vec<Receiver>) -> Vec<Share> {
        let mut shares: Vec<Share> = self.cpus.iter().map(|_| Share::default()).collect();
        let cores = shares.len();
        let (tx, rx) = (transmitters.len(), receivers.len());
        let deal = |(n, transmitter): (usize, _)| shares[n % cores].transmitters.push(transmitter);
        transmitters.into_iter().enumerate().for_each(deal);
        let deal = |(n, receiver): (usize, _)| shares[(tx + n) % cores].receivers.push(receiver);
        receivers.into_iter().enumerate().for_each(deal);
        log::debug!("{tx} transmit and {rx} receive queues on cores {:?}", &self.cpus[..cores.min(tx + rx)]);
        shares
    }

    fn span(&self, scenario: &Scenario) -> Span {
        let start = tsc::read() + self.clock.ticks(HEAD_START);
        let ticks = |seconds: f64| self.clock.ticks(Duration::from_secs_f64(seconds));
        let measured = start + ticks(scenario.warm_up);
        let end = scenario.duration.map_or(u64::MAX / 2, |duration| measured + ticks(duration));
        Span { start, measured, end }
    }

    /// What reads the ports' counters.
    fn reporter(&self) -> Reporter {
        self.published.0.fork()
    }

    /// Report every period until all is sent and has arrived, or it is time to stop.
    fn watch(
        &mut self,
        scenario: &Scenario,
        conduct: &Conduct<'_>,
        watch: &mut Watch,
        signals: &Signals,
    ) -> Result<()> {
        let duration = scenario.duration.map(|measured| scenario.warm_up + measured);
        let mut view = Summary::view(self.args, duration, conduct.period);
        let [mut printed, mut asked] = [(); 2].map(|()| Window::new(self.reporter()));
        let mut next = conduct.period;
        let whole = scenario
            .duration
            .map(|duration| HEAD_START + Duration::from_secs_f64(scenario.warm_up + duration) + GRACE);
        let drain_at_most = DRAIN_AT_MOST.max(self.args.drain);
        let mut began = (!conduct.stopped).then_some(watch.start);
        let over = |signals: &Signals| signals.end.load(Ordering::Relaxed);
        // While they send, and until what is on its way has come.
        let (mut sent, mut arrived) = (None, (Instant::now(), 0));
        while !over(signals) {
            crate::run::wait_for_event(&self.ports);
            self.ports.iter().try_for_each(|port| port.check())?;
            for command in conduct.control.map(Control::asked).unwrap_or_default() {
                match command.request.command {
                    Command::Statistics => {
                        let report = asked.report(watch, &mut self.ports);
                        command.answer(door::line(&report));
                    }
                    Command::Quit => {
                        signals.halt.store(true, Ordering::Relaxed);
                        command.done(Ok(()));
                    }
                    which => {
                        let begin = began.is_none().then(|| self.span(scenario));
                        let done = command.request.obey(watch, begin, &self.clock);
                        if which == Command::Start && done.is_ok() {
                            began.get_or_insert_with(Instant::now);
                        }
                        command.done(done);
                    }
                }
            }
            let elapsed = watch.start.elapsed();
            self.publish(watch);
            if conduct.stop.load(Ordering::Relaxed)
                || view.wants_to_quit()?
                || whole.zip(began).is_some_and(|(whole, began)| began.elapsed() > whole)
            {
                signals.halt.store(true, Ordering::Relaxed);
            }
            if !conduct.period.is_zero() && elapsed >= next && sent.is_none() {
                next = elapsed + conduct.period;
                let results = printed.report(watch, &mut self.ports);
                view.report(results, watch, &self.clock)?;
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
            if received >= sent || silence > self.args.drain || since.elapsed() > drain_at_most {
                break;
            }
        }
        Ok(())
    }

    /// Tell those who ask from elsewhere.
    fn publish(&mut self, watch: &Watch) {
        let Bench { statistics, ports, published: (reporter, start), .. } = self;
        statistics.tick(|| {
            let Report { seconds, ports, .. } = reporter.snapshot(ports, start.elapsed());
            json!({
                "seconds": seconds,
                "configuration": { "streams": watch.streams.len() },
                "ports": ports,
                "cores": watch.cores(),
                "streams": watch.streams(watch.start.elapsed().as_secs_f64(), &[]),
            })
        });
    }

    /// The end: all counts, and the histograms. The queues are the bench's again.
    fn totals(&mut self, watch: &mut Watch, shares: Vec<Share>) -> Results {
        let mut sent: Vec<Vec<Sent>> = watch.streams.iter().map(|_| Vec::new()).collect();
        let mut trackers = vec![Tracker::default(); watch.streams.len()];
        for share in shares {
            for receiver in share.receivers {
                for (sender, tracker) in receiver.trackers.iter().enumerate() {
                    let stream = sender / usize::from(self.args.lanes.queues);
                    tracker.iter().for_each(|tracker| trackers[stream].add(tracker));
                }
                self.rx.push(receiver.lane);
            }
            for transmitter in share.transmitters {
                let (lane, of_senders) = transmitter.finish(&self.clock);
                of_senders.into_iter().for_each(|(stream, of_sender)| sent[stream].push(of_sender));
                self.tx.push(lane);
            }
        }
        self.finish_sending();
        watch.gathered.finish();
        for (tracker, delays) in trackers.iter_mut().zip(&watch.gathered.so_far) {
            delays.iter().for_each(|delays| tracker.delays.add(delays));
        }
        let streams = watch.streams.iter().zip(&sent).zip(&trackers);
        let streams =
            streams.map(|((asked, sent), tracker)| StreamReport::last(asked, sent, tracker, &self.clock));
        let elapsed = watch.start.elapsed();
        let Report { ports, pools, .. } = self.reporter().report(&mut self.ports, elapsed, true);
        let mut results = Results::new(elapsed.as_secs_f64(), streams.collect(), watch.unmatched(), ports);
        (results.last, results.pools, results.tsc_hz) = (true, pools, Some(self.clock.hz));
        results
    }
}

type Workers = (Vec<JoinHandle<Share>>, Option<std::io::Error>);

/// A thread for each core that has something to do.
fn spawn(cores: &[Core], shares: Vec<Share>, signals: &Arc<Signals>, idle: Idle) -> Workers {
    let mut workers = Vec::new();
    for (core, mut share) in cores.iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
        let (cpu, work, signals) = (core.cpu, core.work.clone(), signals.clone());
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
