//! Cards that threads of this process play: register-level models, which QEMU reaches over vfio-user.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use pagewire_ethdev::{Burst, FunctionConfig, Port, PortConfig, RxOffloads, RxQueue};
use pagewire_models::Function;
use pagewire_models::ixgbe::{Config, Control, Ixgbe, Kind};
use pagewire_models::server::{self, Server, ServerError, ServerOptions, Stopper};
use pagewire_models::wire::{Counts, Meter, Open, Wire};

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
    /// Serves an 82599, or another of its family, on a socket. `mapped` lets its driver map the pages with the doorbells; else each access is a message.
    pub(crate) fn ixgbe(
        kind: Kind,
        socket: &Path,
        mac: [u8; 6],
        mapped: bool,
        wire: Box<dyn Wire>,
    ) -> Result<Self> {
        keep_warnings();
        let wire = Meter::new(wire);
        let counts = wire.counts();
        let mut card = Ixgbe::new(Config { kind, mac, mapped, ..Config::default() }, Box::new(wire));
        let server = Server::bind(socket, ServerOptions { mappable: mapped, ..ServerOptions::default() })?;
        let (control, served, stopper) = (card.control(), server.counters(), server.stopper());
        let thread = thread::Builder::new().name("82599".into()).spawn(move || server.run(&mut card))?;
        Ok(Self { control, counts, served, stopper, thread: Some(thread) })
    }

    /// An error if the card was told to reach for memory that is not its, or was misused in another way.
    pub(crate) fn unharmed(&self) -> Result<()> {
        unharmed(&self.control, &self.served)
    }
}

fn unharmed(control: &Control, served: &server::Counters) -> Result<()> {
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

/// A card with virtual functions, each at a socket of its own: the card itself is driven by our own driver, in this process, which
/// answers them.
pub struct Functions {
    /// Where the virtual functions are.
    pub sockets: Vec<PathBuf>,
    /// What is asked of each that it should not be.
    pub controls: Vec<Arc<Control>>,
    served: Vec<Arc<server::Counters>>,
    server: Option<JoinHandle<Result<(), ServerError>>>,
    stopper: Stopper,
    driver: Option<JoinHandle<Result<()>>>,
    stop: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

impl Functions {
    /// Serves a card with such virtual functions, which has nothing at its port's other end but a light.
    pub fn serve(functions: &[FunctionConfig]) -> Result<Self> {
        keep_warnings();
        let folder = tempfile::Builder::new().prefix("pagewire-functions.").tempdir()?;
        let config = Config { functions: functions.len() as u16, ..Config::default() };
        let mut card = Ixgbe::new(config, Box::new(Open));
        let mut vfs = card.take_functions();
        let controls = vfs.iter().map(|vf| vf.control()).collect();
        let sockets: Vec<PathBuf> = (0..=vfs.len()).map(|n| folder.path().join(n.to_string())).collect();
        let bind = |path: &PathBuf| Server::bind(path, ServerOptions::default());
        let servers = sockets.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let (served, stopper) = (servers.iter().map(Server::counters).collect(), servers[0].stopper());
        let server = thread::Builder::new().name("82599".into()).spawn(move || {
            let all = std::iter::once(&mut card as &mut dyn Function);
            let all = all.chain(vfs.iter_mut().map(|vf| vf as &mut dyn Function));
            server::run_together(servers.iter().zip(all).collect())
        })?;
        let stop = Arc::<AtomicBool>::default();
        let (told, path, functions) = (stop.clone(), sockets[0].clone(), functions.to_vec());
        let driver =
            thread::Builder::new().name("driver".into()).spawn(move || drive(&path, functions, &told))?;
        let sockets = sockets[1..].to_vec();
        Ok(Self {
            sockets,
            controls,
            served,
            server: Some(server),
            stopper,
            driver: Some(driver),
            stop,
            _folder: folder,
        })
    }

    /// Ends it; an error if one of its functions was told to reach for memory that is not its, or was misused in another way.
    pub fn finish(mut self) -> Result<()> {
        self.stop.store(true, Relaxed);
        if let Some(driver) = self.driver.take() {
            driver.join().map_err(|_| anyhow!("the card's driver panicked"))??;
        }
        for (number, control) in self.controls.iter().enumerate() {
            unharmed(control, &self.served[number + 1]).with_context(|| format!("function {number}"))?;
        }
        Ok(())
    }
}

impl Drop for Functions {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.stopper.stop();
        // What they say was asked for in `finish`, or something else went wrong.
        let _ = self.driver.take().map(JoinHandle::join);
        let _ = self.server.take().map(JoinHandle::join);
    }
}

/// Drives a card for its virtual functions' sake: what comes to itself is thrown away.
fn drive(path: &Path, functions: Vec<FunctionConfig>, stop: &AtomicBool) -> Result<()> {
    let (mut port, pool) = crate::peer::open(path)?;
    let config = PortConfig {
        functions,
        mtu: 1500,
        rx_offloads: RxOffloads::SCATTER,
        ..PortConfig::single_queue(pool)
    };
    let (mut rx, tx) = port.start(config)?;
    let mut burst = Burst::new(64);
    while !stop.load(Relaxed) {
        port.serve_functions()?;
        rx[0].rx_burst(&mut burst);
        burst.clear();
        thread::sleep(Duration::from_millis(1));
    }
    drop((burst, rx, tx));
    Ok(port.stop()?)
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
