//! Cards that threads of this process play: register-level models, which QEMU reaches over vfio-user.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Result, ensure};
use pagewire_models::ixgbe::{Config, Control, Ixgbe};
use pagewire_models::server::{self, Server, ServerError, ServerOptions, Stopper};
use pagewire_models::wire::{Counts, Meter, Wire};

/// A card of the guest's that is a model of ours, and what can be seen and done from outside of it.
pub struct Model {
    /// Its cable and module, and its counts of what no driver should make it do.
    pub control: Arc<Control>,
    /// What has passed its port.
    pub counts: Arc<Counts>,
    served: Arc<server::Counters>,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

impl Model {
    /// Serves an 82599 on a socket. `mapped` lets its driver map the pages with the doorbells; else each access is a message.
    pub(crate) fn ixgbe(socket: &Path, mac: [u8; 6], mapped: bool, wire: Box<dyn Wire>) -> Result<Self> {
        keep_warnings();
        let wire = Meter::new(wire);
        let counts = wire.counts();
        let mut card = Ixgbe::new(Config { mac, mapped, ..Config::default() }, Box::new(wire));
        let server = Server::bind(socket, ServerOptions { mappable: mapped, ..ServerOptions::default() })?;
        let (control, served, stopper) = (card.control(), server.counters(), server.stopper());
        let thread = thread::Builder::new().name("82599".into()).spawn(move || server.run(&mut card))?;
        Ok(Self { control, counts, served, stopper, thread: Some(thread) })
    }

    /// An error if the card was told to reach for memory that is not its, or was misused in another way.
    pub(crate) fn unharmed(&self) -> Result<()> {
        let (control, served) = (&self.control, &self.served);
        for (what, count) in [
            ("accesses to memory or interrupts were refused", control.refused()),
            ("descriptors ask for what the card cannot do", control.malformed()),
            ("accesses were to registers that it does not have", control.unknown()),
            ("accesses to memory were refused by its server", served.refused_dma.load(Relaxed)),
            ("connections were dropped", served.dropped.load(Relaxed)),
        ] {
            ensure!(count == 0, "{count} {what}");
        }
        Ok(())
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stopper.stop();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("a model's server ended: {error}"),
            Some(Err(_)) => eprintln!("a model panicked"),
            Some(Ok(Ok(()))) | None => {}
        }
    }
}

/// What models and their servers have warned of since the guest was booted that runs now.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Forgets the warnings so far and returns them.
pub(crate) fn take_warnings() -> Vec<String> {
    std::mem::take(&mut *WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

fn keep_warnings() {
    struct Keep;
    impl log::Log for Keep {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Warn
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).push(format!(
                    "{}: {}",
                    record.target(),
                    record.args()
                ));
            }
        }
        fn flush(&self) {}
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails if a program has a logger of its own, which then tells its user.
        if log::set_logger(&Keep).is_ok() {
            log::set_max_level(log::LevelFilter::Warn);
        }
    });
}
