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
const PATIENCE: Duration = Duration::from_secs(20);
/// After this long without one, some may have been dropped.
const PAUSE: Duration = Duration::from_millis(20);

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
                window: (args.rings.rx_ring.min(args.rings.tx_ring) / 2).into(),
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
    /// what they dropped takes many messages: that is for when frames stop coming. `rests`: times that each loop has found nothing.
    pub(super) fn drain(&self, rests: impl Fn() -> Vec<u64>, mut accounted: impl FnMut() -> bool) {
        self.report.run(false);
        let start = Instant::now();
        let (mut seen, mut last) = (self.report.received(), start);
        let mut silence = Silence::default();
        while self.report.received() < self.report.sent()
            && start.elapsed() < PATIENCE
            && (last.elapsed() < PAUSE || !accounted())
        {
            thread::sleep(Duration::from_millis(1));
            let now = self.report.received();
            if now != seen {
                (seen, last) = (now, Instant::now());
            }
            let idle = self.report.refused(CARDS).chain(rests()).collect();
            if silence.is_believed(now, idle) {
                break;
            }
        }
    }
}

/// That no frame comes any more, whoever has the cores: all who could bring one have looked for some, one after the other, and there was
/// none.
#[derive(Default)]
struct Silence {
    received: u64,
    /// How often each had looked in vain when this turn of all of them began.
    idle: Vec<u64>,
    turns: u32,
}

impl Silence {
    /// More turns than a frame takes: from a card's buffer to its loop, to the other card, and out.
    const TURNS: u32 = 10;

    /// Told how many frames have been received, and how often each party has looked in vain.
    fn is_believed(&mut self, received: u64, idle: Vec<u64>) -> bool {
        if received != self.received || self.idle.len() != idle.len() {
            *self = Silence { received, idle, turns: 0 };
        // Twice: one may have looked already when the turn began, and not said so yet.
        } else if self.idle.iter().zip(&idle).all(|(before, now)| *now >= before + 2) {
            (self.idle, self.turns) = (idle, self.turns + 1);
        }
        self.turns >= Self::TURNS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_believed_when_everybody_has_looked_in_vain_and_not_for_its_length() {
        let mut silence = Silence::default();
        // One has no core: however often the others look, a frame may be with it.
        for turn in 0..1000 {
            assert!(!silence.is_believed(5, vec![turn, 2 * turn, 7]));
        }
        // It looks once, and again, and a frame comes.
        assert!(!silence.is_believed(5, vec![1000, 2000, 9]));
        assert!(!silence.is_believed(5, vec![1010, 2010, 11]));
        assert!(!silence.is_believed(6, vec![1020, 2020, 13]));
        // From there on all look, one turn after the other.
        let turns = (1..100).take_while(|turn| {
            !silence.is_believed(6, vec![1020 + 2 * turn, 2020 + 9 * turn, 13 + 2 * turn])
        });
        assert_eq!(turns.count(), Silence::TURNS as usize - 1);
    }
}
