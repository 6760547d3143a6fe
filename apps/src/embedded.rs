//! Cards where there are none: models of the 82599 in threads of this process, driven through their sockets as any other function.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use pagewire_models::Function;
use pagewire_models::ixgbe::{self, Ixgbe};
use pagewire_models::server::{Server, ServerError, ServerOptions, Stopper, run_together};
use pagewire_models::wire::Wire;

use crate::cores;
use crate::ports::PortSpec;

/// The cards, served until it is dropped.
pub(crate) struct Embedded {
    threads: Vec<(Stopper, JoinHandle<Result<(), ServerError>>)>,
    count: usize,
    cpus: Vec<usize>,
    /// Where their sockets are, until they have been connected to.
    folder: Option<tempfile::TempDir>,
}

impl Embedded {
    /// Serve a card at each of these wires, in a thread for each of `cpus` or one for all.
    pub(crate) fn start(wires: Vec<Box<dyn Wire>>, mut cpus: Vec<usize>) -> Result<Embedded> {
        let count = wires.len();
        cpus.truncate(count);
        let folder =
            tempfile::Builder::new().prefix("pagewire-").tempdir().context("a folder for sockets")?;
        let mut embedded = Embedded { threads: Vec::new(), count, cpus, folder: Some(folder) };
        let mut cards = Vec::new();
        for (number, (path, wire)) in embedded.sockets().into_iter().zip(wires).enumerate() {
            let server = Server::bind(&path, ServerOptions::default())?;
            let mut config = ixgbe::Config { mapped: true, ..ixgbe::Config::default() };
            config.mac[5] = number as u8;
            cards.push((server, Ixgbe::new(config, wire)));
        }
        // Cards on one core share a thread: a thread each would spin while the other has work.
        let share = count.div_ceil(embedded.cpus.len().max(1));
        for number in 0..count / share {
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
    pub(crate) fn shares(&self, cpus: &[usize]) -> bool {
        self.cpus.iter().all(|cpu| cpus.contains(cpu))
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let folder = self.folder.iter().map(tempfile::TempDir::path);
        folder
            .flat_map(|folder| (0..self.count).map(|number| folder.join(format!("82599-{number}"))))
            .collect()
    }

    /// The ports that they are.
    pub(crate) fn ports(&self) -> Vec<PortSpec> {
        self.sockets().into_iter().map(PortSpec::VfioUser).collect()
    }

    /// They have been connected to. Nobody else needs their sockets: a process that is killed leaves none behind.
    pub(crate) fn connected(&mut self) {
        self.folder = None;
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
