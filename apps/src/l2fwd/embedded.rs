//! Two cards to forward between where there are none: models of the 82599 in threads of this process, driven through their
//! sockets as any other function, with a generator of traffic at the port of each.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pagewire_models::Function;
use pagewire_models::ixgbe::{self, Ixgbe};
use pagewire_models::server::{Server, ServerError, ServerOptions, Stopper, run_together};
use pagewire_models::wire::{Generator, Report, Traffic};

use super::Args;
use crate::cores;
use crate::ports::PortSpec;

/// How many there are.
pub(super) const CARDS: usize = 2;
/// Flows that each generator sends where they are to be spread over queues: enough for each queue to get some.
const FLOWS_PER_QUEUE: u16 = 16;
/// How long frames may take that are on their way when the generators stop. All of it is needed only if somebody else has
/// every core.
const PATIENCE: Duration = Duration::from_secs(20);
/// After this long without one, some may have been dropped.
const PAUSE: Duration = Duration::from_millis(20);

/// The cards, served until it is dropped.
pub(super) struct Embedded {
    threads: Vec<(Stopper, JoinHandle<Result<(), ServerError>>)>,
    report: Arc<Report>,
    cpus: Vec<usize>,
    /// Where their sockets are, until they have been connected to.
    folder: Option<tempfile::TempDir>,
}

impl Embedded {
    /// Serve them, in a thread for each of `cpus` or one for all. The generators are quiet at first.
    pub(super) fn start(args: &Args, mut cpus: Vec<usize>) -> Result<Embedded> {
        cpus.truncate(CARDS);
        let folder =
            tempfile::Builder::new().prefix("pagewire-").tempdir().context("a folder for sockets")?;
        let report = Arc::new(Report::default());
        report.run(false);
        let mut embedded = Embedded { threads: Vec::new(), report, cpus, folder: Some(folder) };
        let mut cards = Vec::new();
        for (number, path) in embedded.sockets().into_iter().enumerate() {
            let server = Server::bind(&path, ServerOptions::default())?;
            let traffic = Traffic {
                stream: number as u8,
                length: args.tx_size.into(),
                // What a ring holds can be under way without a loss.
                window: (args.rx_ring.min(args.tx_ring) / 2).into(),
                flows: if args.queues > 1 { FLOWS_PER_QUEUE * args.queues } else { 1 },
                ..Traffic::default()
            };
            let generator = Generator::new(traffic, embedded.report.clone());
            let mut config = ixgbe::Config { mapped: true, ..ixgbe::Config::default() };
            config.mac[5] = number as u8;
            cards.push((server, Ixgbe::new(config, Box::new(generator))));
        }
        // Cards on one core share a thread: a thread each would spin while the other has work.
        let share = CARDS.div_ceil(embedded.cpus.len().max(1));
        for number in 0..CARDS / share {
            let mut cards: Vec<_> = cards.drain(..share).collect();
            let stopper = cards[0].0.stopper();
            let cpu = embedded.cpus.get(number).copied();
            if let Some(cpu) = cpu {
                note!("core {cpu}: modelled card {}", names(number * share..(number + 1) * share));
            }
            let thread = thread::Builder::new().name(format!("82599-{number}")).spawn(move || {
                cpu.inspect(|cpu| cores::pin(*cpu));
                run_together(
                    cards.iter_mut().map(|(server, card)| (&*server, card as &mut dyn Function)).collect(),
                )
            });
            embedded.threads.push((stopper, thread.context("a thread for modelled cards")?));
        }
        Ok(embedded)
    }

    /// Whether they have no core but these.
    pub(super) fn shares(&self, cpus: &[usize]) -> bool {
        self.cpus.iter().all(|cpu| cpus.contains(cpu))
    }

    fn sockets(&self) -> Vec<std::path::PathBuf> {
        let folder = self.folder.iter().map(tempfile::TempDir::path);
        folder.flat_map(|folder| (0..CARDS).map(|number| folder.join(format!("82599-{number}")))).collect()
    }

    /// The ports that they are.
    pub(super) fn ports(&self) -> Vec<PortSpec> {
        self.sockets().into_iter().map(PortSpec::VfioUser).collect()
    }

    /// They have been connected to. Nobody else needs their sockets: a process that is killed leaves none behind.
    pub(super) fn connected(&mut self) {
        self.folder = None;
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
    /// Turns that a frame takes at most: from a card to its loop, to the other card, and out.
    const TURNS: u32 = 3;

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

fn names(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(" and ")
}

impl Drop for Embedded {
    fn drop(&mut self) {
        for (stopper, _) in &self.threads {
            stopper.stop();
        }
        for (_, thread) in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::error!("a modelled card: {error}"),
                // Its message has been printed.
                Err(_) => log::error!("a modelled card ended by a bug of its model"),
            }
        }
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
        let turns = (1..10).take_while(|turn| {
            !silence.is_believed(6, vec![1020 + 2 * turn, 2020 + 9 * turn, 13 + 2 * turn])
        });
        assert_eq!(turns.count(), 2);
    }
}
