//! `pagewire pktgen`: generate packets, and measure what becomes of them.

mod args;
mod bench;
mod captured;
mod engine;
mod field;
mod frame;
mod headers;
mod measure;
mod orders;
mod pace;
mod pattern;
mod plan;
mod replay;
mod report;
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

use anyhow::Result;
use pagewire_models::wire;

pub(crate) use args::Args;
use bench::Bench;
use report::Results;
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
        let duration = *scenario.duration.get_or_insert(DEFAULT_DURATION);
        note!(
            "no --port given: from one model of the Intel 82599 to another in this process, back to back, for {duration} s"
        );
        let for_cards = match &args.lanes.cores {
            Some(list) => cores::others(&list.0)?,
            None => cores::beside(CARDS, CARDS)?.1,
        };
        let (a, b) = wire::pair();
        let started = Embedded::start(vec![Box::new(a), Box::new(b)], for_cards)?;
        args.ports = started.ports();
        cards = Some(started);
    }
    let (results, outcome) = measure(&args, scenario, cards, &stop)?;
    results.print(args.reporting.json)?;
    outcome?;
    match results.failed {
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
    let mut bench = Bench::open(args, &scenario, &mut cards)?;
    let measured = bench.run(&scenario, &Conduct { period: args.reporting.stats_period, stop });
    let closed = bench.close();
    measured.map(|(results, outcome)| (results, outcome.and(closed)))
}
