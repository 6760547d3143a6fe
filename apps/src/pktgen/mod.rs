//! `pagewire pktgen`: generate packets, and measure what becomes of them.

mod args;
mod bench;
mod captured;
mod control;
mod desk;
mod draw;
mod engine;
mod field;
mod frame;
mod headers;
mod live;
mod measure;
mod orders;
mod pace;
mod pattern;
mod plan;
mod replay;
mod report;
mod rfc2544;
mod run;
mod scenario;
mod schedule;
mod sender;
mod signature;
mod sum;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod values;
mod watch;

use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};
use pagewire_models::wire;

pub(crate) use args::Args;
use bench::Bench;
use control::Control;
use report::Results;
use rfc2544::{Found, Rfc2544, Tests};
use run::Conduct;
use scenario::Scenario;

use crate::cores;
use crate::embedded::Embedded;

/// How long to run if nobody said and no port is named, in seconds.
const DEFAULT_DURATION: f64 = 10.0;
/// Modelled cards where there are no ports.
const CARDS: usize = 2;

/// Exit code of a run whose measurements do not meet the criteria: neither a failure nor a mistake on the command line.
pub(crate) const UNMET: u8 = 3;

/// The run went as it should, and what was measured does not meet the criteria.
#[derive(Debug, thiserror::Error)]
#[error("{} of the criteria are not met: {}", .0.len(), .0.join("; "))]
pub(crate) struct Unmet(Vec<String>);

pub(crate) fn run(mut args: Args) -> Result<()> {
    let mut scenario = args.scenario()?;
    let stop = crate::run::stop_flag()?;
    let mut cards = None;
    if args.ports.is_empty() {
        note!("no --port given: from one model of the Intel 82599 to another in this process, back to back");
        if scenario.rfc2544.is_none() {
            let duration = *scenario.duration.get_or_insert(DEFAULT_DURATION);
            note!("for {duration} s");
        }
        let for_cards = match &args.lanes.cores {
            Some(list) => cores::others(&list.0)?,
            None => cores::beside(CARDS, CARDS)?.1,
        };
        let (a, b) = wire::pair();
        let started = Embedded::start(vec![Box::new(a), Box::new(b)], for_cards)?;
        args.ports = started.ports();
        cards = Some(started);
    }
    if let Some(asked) = scenario.rfc2544.take() {
        if args.control.is_some() {
            bail!("--control: beside rfc2544, whose trials take no commands");
        }
        let (found, outcome) = find_out(&args, scenario, &asked, cards, &stop)?;
        found.print(args.reporting.json)?;
        outcome?;
        return met(found.failed);
    }
    let (results, outcome) = measure(&args, scenario, cards, &stop)?;
    results.print(args.reporting.json)?;
    outcome?;
    met(results.failed)
}

/// An error if there are criteria that are not met.
fn met(failed: Option<Vec<String>>) -> Result<()> {
    match failed {
        Some(failed) if !failed.is_empty() => Err(Unmet(failed).into()),
        _ => Ok(()),
    }
}

/// Run a scenario; returns the last report, and why it ended if before its time.
fn measure(
    args: &Args,
    mut scenario: Scenario,
    mut cards: Option<Embedded>,
    stop: &AtomicBool,
) -> Result<(Results, Result<()>)> {
    let expected = args.expect(&mut scenario);
    scenario.explain(expected)?;
    let control = args.control.as_deref().map(Control::serve).transpose()?;
    let mut bench = Bench::open(args, &scenario, &mut cards)?;
    let (period, stopped) = (args.reporting.stats_period, args.stopped);
    let measured = bench.run(&scenario, &Conduct { period, stop, control: control.as_ref(), stopped });
    let closed = bench.close();
    measured.map(|(results, outcome)| (results, outcome.and(closed)))
}

/// RFC 2544's tests, with the streams of a scenario; returns what was found, and why it ended if before its time.
fn find_out(
    args: &Args,
    mut scenario: Scenario,
    asked: &Rfc2544,
    mut cards: Option<Embedded>,
    stop: &AtomicBool,
) -> Result<(Found, Result<()>)> {
    let expected = args.expect(&mut scenario);
    scenario.explain(expected)?;
    if let Some(stream) = scenario.streams.iter().find(|stream| stream.rx.is_none()) {
        bail!("stream {}: rx: RFC 2544's tests measure what arrives; say where: --rx-port", stream.label());
    }
    let mut bench = Bench::open(args, &asked.widest(&scenario), &mut cards)?;
    let mut tests = Tests { bench: &mut bench, scenario: &scenario, asked, stop };
    let possible = tests.check();
    scenario.explain(possible)?;
    let (found, outcome) = tests.run();
    Ok((found, outcome.and(bench.close())))
}
