//! RFC 2544's tests of what is between the ports: throughput, latency, frame loss, bursts back to back.

mod config;
mod report;
mod search;
mod trial;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::bench::Bench;
use super::pace::Rate;
use super::plan::{Plan, line_rate};
use super::report::VERSION;
use super::run::Conduct;
use super::scenario::{Paced, Pass, Scenario};
use super::signature::Run;
pub(super) use config::{Rfc2544, Test};
pub(super) use report::Found;
use report::{BackToBack, Content, Document, Limit, OfSize, Throughput};
use search::{Length, Went, highest, tenths};
use trial::Trial;

/// Seconds of the longest burst that is tried (RFC 2544, 26.4: 2 at least).
const BURST: f64 = 2.0;
/// How soon somebody who ends it while nothing is sent is heard.
const LOOK: Duration = Duration::from_millis(20);

/// The tests at work on open ports.
pub(super) struct Tests<'a, 'b> {
    pub(super) bench: &'a mut Bench<'b>,
    pub(super) scenario: &'a Scenario,
    pub(super) asked: &'a Rfc2544,
    pub(super) stop: &'a AtomicBool,
}

/// Somebody ended it.
#[derive(Debug, thiserror::Error)]
#[error("ended before its time")]
struct Interrupted;

impl Tests<'_, '_> {
    /// Whether there can be such rates, and frames of all lengths.
    ///
    /// # Errors
    ///
    /// More than a link carries, and a length that a stream's headers and signature have no room in.
    pub(super) fn check(&mut self) -> Result<()> {
        for size in self.asked.sizes.clone() {
            self.pps(self.asked.max_rate.0, size).context("rfc2544: max-rate")?;
            self.least(size).context("rfc2544: min-throughput")?;
            let trial = self.asked.trial(self.scenario, size, 1.0);
            let Bench { ports, clock, args, .. } = &mut *self.bench;
            Plan::new(&trial, ports, args.lanes.queues, clock, Run::random(None))
                .with_context(|| format!("rfc2544: sizes: {size}"))?;
        }
        Ok(())
    }

    /// All of them, for all lengths. Ended before its time, what has been found until then.
    pub(super) fn run(&mut self) -> (Found, Result<()>) {
        let mut found = Found::new(self.asked);
        let mut failed = Vec::new();
        for size in self.asked.sizes.clone() {
            found.sizes.push(OfSize { size, ..OfSize::default() });
            if let Err(error) = self.of_size(size, &mut found, &mut failed) {
                found.interrupted = error.is::<Interrupted>();
                if !found.interrupted {
                    return (found, Err(error));
                }
                failed.push("it ended before its time".into());
                break;
            }
        }
        if self.asked.min_throughput.is_some() || self.scenario.pass != Pass::default() {
            found.failed = Some(failed);
        }
        (found, Ok(()))
    }

    fn of_size(&mut self, size: u16, found: &mut Found, failed: &mut Vec<String>) -> Result<()> {
        let tests = self.asked.tests.clone();
        let has = |test| tests.contains(&test);
        let here = found.sizes.len() - 1;
        let mut part = None;
        if has(Test::Throughput) || has(Test::Latency) {
            let throughput = self.throughput(size, &mut found.trials)?;
            part = throughput.trial.as_ref().map(|trial| trial.part);
            failed.extend(self.too_little(size, &throughput)?);
            found.sizes[here].throughput = Some(throughput);
        }
        match part.filter(|_| has(Test::Latency)) {
            Some(part) => {
                let (trial, missed) = self.attempt(Test::Latency, size, part, self.asked.trial, None)?;
                found.trials += 1;
                failed.extend(missed.into_iter().map(|missed| format!("{size} bytes: {missed}")));
                found.sizes[here].latency = Some(trial);
            }
            // What nothing came through of meets no criterion.
            None if self.scenario.pass != Pass::default() => {
                failed.push(format!("{size} bytes: no rate went well"));
            }
            None => {}
        }
        if has(Test::FrameLoss) {
            let tolerance = self.asked.loss_tolerance;
            tenths(|part| {
                let (trial, _) = self.attempt(Test::FrameLoss, size, part, self.asked.trial, None)?;
                found.trials += 1;
                let lossless = trial.is_good(tolerance);
                found.sizes[here].frame_loss.push(trial);
                Ok(lossless)
            })?;
        }
        if has(Test::BackToBack) {
            found.sizes[here].back_to_back = Some(self.back_to_back(size, &mut found.trials)?);
        }
        Ok(())
    }

    fn throughput(&mut self, size: u16, trials: &mut u64) -> Result<Throughput> {
        let Rfc2544 { trial, search_trial, .. } = *self.asked;
        let (limit, trial) = self.search(trials, |tests, part, length| {
            let seconds = if length == Length::Full { trial } else { search_trial.min(trial) };
            let (trial, _) = tests.attempt(Test::Throughput, size, part, seconds, None)?;
            let through = trial.through();
            Ok((trial, through))
        })?;
        Ok(Throughput { limit: limit.unwrap_or(Limit::MaxRate), trial })
    }

    fn back_to_back(&mut self, size: u16, trials: &mut u64) -> Result<BackToBack> {
        let most = (self.pps(self.asked.max_rate.0, size)? * BURST).max(1.0);
        let (limit, trial) = self.search(trials, |tests, part, _| {
            let frames = ((most * part) as u64).max(1);
            let (trial, _) = tests.attempt(Test::BackToBack, size, 1.0, BURST * part, Some(frames))?;
            let through = part * (1.0 - trial.loss);
            Ok((trial, through))
        })?;
        let frames = trial.as_ref().map_or(0, |trial| trial.sent);
        Ok(BackToBack { frames, all: trial.is_some() && limit.is_none(), limit, trial })
    }

    /// The trial of the highest part that goes well, by attempts that give a trial and the part that came through in it; and what the
    /// lowest part that went wrong was wrong by.
    fn search(
        &mut self,
        trials: &mut u64,
        mut attempt: impl FnMut(&mut Self, f64, Length) -> Result<(Trial, f64)>,
    ) -> Result<(Option<Limit>, Option<Trial>)> {
        let Rfc2544 { resolution, loss_tolerance, attempts, .. } = *self.asked;
        // Also the last trial that was full and good.
        let (mut wrong, mut best) = (None, None);
        let part = highest(resolution, |part, length| {
            let mut left = attempts;
            let (trial, through) = loop {
                let tried = attempt(self, part, length)?;
                (*trials, left) = (*trials + 1, left - 1);
                if left == 0 || tried.0.is_good(loss_tolerance) {
                    break tried;
                }
            };
            let limit = trial.limit(loss_tolerance);
            if let Some(limit) = limit.filter(|_| wrong.is_none_or(|(lowest, _)| part <= lowest)) {
                wrong = Some((part, limit));
            }
            if limit.is_none() && length == Length::Full {
                best = Some(trial);
            }
            Ok(Went { well: limit.is_none(), through })
        })?;
        Ok((wrong.map(|(_, limit)| limit), part.and(best)))
    }

    /// Packets a second that a rate comes to, of all ports that send together.
    fn pps(&mut self, rate: Rate, size: u16) -> Result<f64> {
        let ports: BTreeSet<usize> = self.scenario.streams.iter().map(|stream| stream.tx).collect();
        let of_port = |port: usize| -> Result<f64> {
            let line = line_rate(&mut self.bench.ports[port])?;
            Ok(1.0 / rate.interval(size.into(), line)?)
        };
        ports.into_iter().map(of_port).sum()
    }

    /// Packets a second that there are to be at least, of all streams together.
    fn least(&mut self, size: u16) -> Result<Option<f64>> {
        self.asked.min_throughput.map(|Paced(least)| self.pps(least, size)).transpose()
    }

    /// A criterion that the throughput does not meet.
    fn too_little(&mut self, size: u16, found: &Throughput) -> Result<Option<String>> {
        let pps = found.trial.as_ref().map_or(0.0, |trial| trial.received_pps);
        let least = self.least(size)?.filter(|least| pps < *least);
        Ok(least
            .map(|least| format!("{size} bytes: min-throughput: {pps:.0} packets/s is less than {least:.0}")))
    }

    /// Let be what is on its way.
    fn pause(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(self.asked.pause);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                bail!(Interrupted);
            }
            match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => std::thread::sleep(left.min(LOOK)),
            }
        }
    }

    /// A trial, and the criteria that it does not meet.
    fn attempt(
        &mut self,
        test: Test,
        size: u16,
        part: f64,
        seconds: f64,
        count: Option<u64>,
    ) -> Result<(Trial, Vec<String>)> {
        self.pause()?;
        let mut trial = self.asked.trial(self.scenario, size, part);
        match count {
            None => trial.duration = Some(seconds),
            Some(count) => {
                let (streams, frames) = (trial.streams.len() as u64, count.max(1));
                // A port that takes no more ends it.
                trial.duration = Some(2.0 * seconds + 1.0);
                trial.streams.iter_mut().for_each(|stream| stream.count = Some(frames.div_ceil(streams)));
            }
        }
        let conduct = Conduct { period: Duration::ZERO, stop: self.stop, control: None, stopped: false };
        let (results, outcome) = self.bench.run(&trial, &conduct)?;
        outcome?;
        if self.stop.load(Ordering::Relaxed) {
            bail!(Interrupted);
        }
        let trial = Trial::new(size, part, seconds, &results);
        let reporting = &self.bench.args.reporting;
        if !reporting.stats_period.is_zero() {
            let good = trial.is_good(self.asked.loss_tolerance);
            let content = Content::Trial { test, good, trial: &trial };
            let document = Document { version: VERSION, last: false, content, failed: None };
            match reporting.json {
                true => crate::run::print(&(serde_json::to_string(&document)? + "\n"))?,
                false => note!(
                    "{size} bytes, {:.2} %: {:.0} packets/s asked, {:.0} sent, {} of {} lost{}",
                    part * 100.0,
                    trial.asked_pps,
                    trial.sent_pps,
                    trial.lost,
                    trial.sent,
                    if trial.kept_up { "" } else { "; this machine sent no more" }
                ),
            }
        }
        Ok((trial, results.failed.unwrap_or_default()))
    }
}

impl Rate {
    /// A part of it.
    pub(super) fn scaled(self, part: f64) -> Rate {
        match self {
            Rate::Max => Rate::Line(part),
            Rate::Packets(rate) => Rate::Packets(rate * part),
            Rate::Layer1(rate) => Rate::Layer1(rate * part),
            Rate::Layer2(rate) => Rate::Layer2(rate * part),
            Rate::Line(rate) => Rate::Line(rate * part),
            // From the start of one to the start of the next: the frame's length is not known here.
            Rate::Gap(gap) => Rate::Gap(gap),
        }
    }
}
