//! Two cards to forward between where there are none, with a generator of traffic at the port of each.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use pagewire_models::wire::{Generator, Report, Traffic, Wire};

use super::Args;
use crate::embedded::Embedded;

/// How many there are.
pub(super) const CARDS: usize = 2;
/// Flows that each generator sends where they are to be spread over queues: enough for each queue to get some.
const FLOWS_PER_QUEUE: u16 = 16;
/// How long frames may take that are on their way when the generators stop. All of it is needed only if somebody else has
/// every core.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this long without one, some may have been dropped.
const PAUSE: Duration = Duration::from_millis(20);
/// After this long without one, none comes any more.
const SILENCE: Duration = Duration::from_secs(1);

/// The cards, and what their generators count.
pub(super) struct Generators {
    pub(super) cards: Embedded,
    report: Arc<Report>,
}

impl Generators {
    /// Start the cards, in a thread for each of `cpus` or one for all. The generators are quiet at first.
    pub(super) fn start(args: &Args, cpus: Vec<usize>) -> Result<Generators> {
        let report = Arc::new(Report::default());
        report.run(false);
        let wire = |number| -> Box<dyn Wire> {
            let traffic = Traffic {
                stream: number as u8,
                length: args.tx_size.into(),
                // What a ring holds can be under way without a loss.
                window: (args.rx_ring.min(args.tx_ring) / 2).into(),
                flows: if args.queues > 1 { FLOWS_PER_QUEUE * args.queues } else { 1 },
                ..Traffic::default()
            };
            Box::new(Generator::new(traffic, report.clone()))
        };
        let cards = Embedded::start((0..CARDS).map(wire).collect(), cpus)?;
        Ok(Generators { cards, report })
    }

    /// What the generators count.
    pub(super) fn report(&self) -> Arc<Report> {
        self.report.clone()
    }

    /// Let the generators send.
    pub(super) fn send(&self) {
        self.report.run(true);
    }

    /// Stop the generators, and wait until all that they sent is accounted for, or no more of it comes. To ask the ports for
    /// what they dropped takes many messages: that is for when frames stop coming.
    pub(super) fn drain(&self, mut accounted: impl FnMut() -> bool) {
        self.report.run(false);
        let start = Instant::now();
        let (mut seen, mut last) = (self.report.received(), start);
        while self.report.received() < self.report.sent()
            && start.elapsed() < PATIENCE
            && last.elapsed() < SILENCE
            && (last.elapsed() < PAUSE || !accounted())
        {
            thread::sleep(Duration::from_millis(1));
            let now = self.report.received();
            if now != seen {
                (seen, last) = (now, Instant::now());
            }
        }
    }
}
