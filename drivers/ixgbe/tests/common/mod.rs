//! An 82599 at a socket: the model, and what may be wrong with it.

// Each test program uses a part of this.
#![allow(dead_code)]

pub(crate) mod bench;
pub(crate) mod features;
pub(crate) mod flood;
pub(crate) mod functions;
pub(crate) mod liar;
pub(crate) mod memory;
pub(crate) mod mutator;
pub(crate) mod neighbour;
pub(crate) mod packets;
pub(crate) mod sleeper;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pagewire_ethdev::{Error, Pool, PortConfig};
use pagewire_ixgbe::Ixgbe;
use pagewire_models::ixgbe::{Config, Control, Ixgbe as Model, Kind};
use pagewire_models::server::{Counters, Server, ServerOptions, Stopper};
use pagewire_models::wire::{Open, Wire};
use pagewire_models::{Function, Host, Region, RegionInfo};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{PageSize, PoolConfig};
use tempfile::TempDir;

use liar::{Liar, Lied};

/// What is wrong with the card: any of these.
pub(crate) mod fault {
    /// Registers read as all ones and take no writes.
    pub(crate) const GONE: u32 = 1 << 0;
    /// CTRL.RST does not clear.
    pub(crate) const STAYS_IN_RESET: u32 = 1 << 1;
    /// A reset that clears nothing of the receive ring.
    pub(crate) const RESETS_NOTHING: u32 = 1 << 2;
    /// DMA does not end when it is disabled.
    pub(crate) const DMA_NEVER_ENDS: u32 = 1 << 3;
    /// RDRXCTL.DMAIDONE does not come.
    pub(crate) const NO_DMA: u32 = 1 << 4;
    /// EEC.AUTO_RD does not come.
    pub(crate) const NO_EEPROM: u32 = 1 << 5;
    /// EERD is never done.
    pub(crate) const EEPROM_SILENT: u32 = 1 << 6;
    /// The firmware owns everything in SW_FW_SYNC.
    pub(crate) const FIRMWARE_OWNS: u32 = 1 << 7;
    /// Some driver never gave SWSM.SMBI back, until it is cleared.
    pub(crate) const SMBI_HELD: u32 = 1 << 8;
    /// The firmware never gives SWSM.SWESMBI.
    pub(crate) const SWESMBI_HELD: u32 = 1 << 9;
    /// The link's state machine stays in state 0.
    pub(crate) const LINK_STUCK: u32 = 1 << 10;
    /// RXDCTL and TXDCTL of queue 0 do not show ENABLE.
    pub(crate) const QUEUES_STUCK: u32 = 1 << 11;
    /// The receive path never runs dry.
    pub(crate) const NEVER_DRY: u32 = 1 << 12;
    /// The firmware's veto over the link.
    pub(crate) const VETO: u32 = 1 << 13;
    /// The configuration space reads as all ones, but for the command register: the server asks the card for it too.
    pub(crate) const GONE_FROM_THE_BUS: u32 = 1 << 15;
    /// The X540's SW_FW_SYNC.REGSMP is never given.
    pub(crate) const REGSMP_HELD: u32 = 1 << 16;
    /// MDIO commands are never done, nor accesses by the X552's sideband; or the latter are refused.
    pub(crate) const PHY_SILENT: u32 = 1 << 17;
    pub(crate) const SIDEBAND_REFUSES: u32 = 1 << 22;
    /// The X550's firmware takes no commands; or never answers; or has no answer.
    pub(crate) const HOST_CLOSED: u32 = 1 << 19;
    pub(crate) const HOST_SILENT: u32 = 1 << 20;
    pub(crate) const HOST_REFUSES: u32 = 1 << 21;
    /// It is at a command of somebody else's for good; or answers another command.
    pub(crate) const HOST_BUSY: u32 = 1 << 23;
    pub(crate) const HOST_ANSWERS_ANOTHER: u32 = 1 << 24;
    /// RXDCTL of queue 1 does not show that it is disabled.
    pub(crate) const QUEUE_1_NEVER_STOPS: u32 = 1 << 14;
    /// RXDCTL and TXDCTL of queue 1 do not show that they are enabled.
    pub(crate) const QUEUE_1_NEVER_STARTS: u32 = 1 << 18;
}

/// The command register in the configuration space.
const COMMAND: u64 = 4;

/// The model between us and its faults.
pub(crate) struct Card {
    pub(crate) model: Model,
    pub(crate) device_id: u16,
    /// Who is to be between it and its driver.
    pub(crate) liar: Box<dyn Liar>,
    pub(crate) faults: Arc<AtomicU32>,
}

impl Function for Card {
    fn region(&self, region: Region) -> RegionInfo {
        self.model.region(region)
    }

    fn vectors(&self) -> u16 {
        self.model.vectors()
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8], host: &mut dyn Host) {
        self.model.read(region, offset, data, host);
        if region == Region::Config {
            for (at, byte) in (2..4).zip(self.device_id.to_le_bytes()) {
                if let Some(place) = usize::try_from(at - offset as i64).ok().and_then(|at| data.get_mut(at))
                {
                    *place = byte;
                }
            }
        }
        if self.faults.load(Relaxed) & fault::GONE_FROM_THE_BUS != 0
            && region == Region::Config
            && offset != COMMAND
        {
            data.fill(0xff);
        }
        if let (Region::Bar(0), Ok(bytes)) = (region, <[u8; 4]>::try_from(&*data)) {
            let value = self.spoil(offset, u32::from_le_bytes(bytes));
            data.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8], host: &mut dyn Host) {
        let faults = self.faults.load(Relaxed);
        if region == Region::Bar(0) && faults & fault::GONE != 0 {
            return;
        }
        if (region, offset) == (Region::Bar(0), 0x10140) && data[0] & 1 == 0 {
            self.faults.fetch_and(!fault::SMBI_HELD, Relaxed);
        }
        if (region, offset) == (Region::Bar(0), 0x15f00)
            && data[0] & 2 != 0
            && faults & fault::HOST_SILENT != 0
        {
            self.faults.fetch_or(fault::HOST_BUSY, Relaxed);
        }
        self.model.write(region, offset, data, host);
    }

    fn reset(&mut self, host: &mut dyn Host) {
        self.model.reset(host);
    }

    fn poll(&mut self, host: &mut dyn Host) -> bool {
        self.model.poll(host)
    }
}

impl Card {
    fn spoil(&self, offset: u64, value: u32) -> u32 {
        let faults = self.faults.load(Relaxed);
        let has = |fault: u32| faults & fault != 0;
        match offset {
            _ if has(fault::GONE) => u32::MAX,
            0x00000 if has(fault::STAYS_IN_RESET) => value | 1 << 26,
            0x00008 if has(fault::DMA_NEVER_ENDS) => value | 1 << 19,
            0x01008 if has(fault::RESETS_NOTHING) => 128,
            0x01028 | 0x06028 if has(fault::QUEUES_STUCK) => value & !(1 << 25),
            0x01068 if has(fault::QUEUE_1_NEVER_STOPS) => value | 1 << 25,
            0x01068 | 0x06068 if has(fault::QUEUE_1_NEVER_STARTS) => value & !(1 << 25),
            0x15f00 if has(fault::HOST_CLOSED) => value & !1,
            0x15f00 if has(fault::HOST_BUSY) => value | 1 << 1,
            0x15800 if has(fault::HOST_ANSWERS_ANOTHER) => value & !0xff | 0x0a,
            0x15f00 if has(fault::HOST_REFUSES) => value & !(1 << 2),
            0x02f00 if has(fault::NO_DMA) => value & !(1 << 3),
            0x042b0 if has(fault::LINK_STUCK) => 0,
            0x042d0 if has(fault::VETO) => 1,
            0x08d04 if has(fault::NEVER_DRY) => value & !1,
            0x10010 if has(fault::NO_EEPROM) => value & !(1 << 9),
            0x10014 if has(fault::EEPROM_SILENT) => value & !2,
            0x10140 if has(fault::SMBI_HELD) => value | 1,
            0x10140 if has(fault::SWESMBI_HELD) => value & !2,
            0x0425c if has(fault::PHY_SILENT) => value | 1 << 30,
            0x11144 if has(fault::PHY_SILENT) => value | 1 << 31,
            0x11144 if has(fault::SIDEBAND_REFUSES) => value | 1 << 18,
            0x10160 if has(fault::REGSMP_HELD) => value | 1 << 31,
            0x10160 if has(fault::FIRMWARE_OWNS) => value | 0x1f << 5,
            _ => value,
        }
    }
}

/// A card that is served until it is dropped. Everything it and its driver logged is there.
pub(crate) struct Running {
    pub(crate) path: PathBuf,
    pub(crate) control: Arc<Control>,
    pub(crate) faults: Arc<AtomicU32>,
    /// Whether the card's liar is asked.
    pub(crate) lying: Arc<AtomicBool>,
    /// What the server counts, the DMA that it refused among it.
    pub(crate) counters: Arc<Counters>,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// Serve a card with an open cable, after `spoil` has had it.
pub(crate) fn serve(mapped: bool, spoil: impl FnOnce(&mut Card)) -> Running {
    serve_on(mapped, 1, Box::new(Open), spoil)
}

/// Serve card `number`, whose address ends so, on a wire.
pub(crate) fn serve_on(
    mapped: bool,
    number: u8,
    wire: Box<dyn Wire>,
    spoil: impl FnOnce(&mut Card),
) -> Running {
    serve_kind(Kind::I82599, mapped, number, wire, spoil)
}

/// The same of another card of the family.
pub(crate) fn serve_kind(
    kind: Kind,
    mapped: bool,
    number: u8,
    wire: Box<dyn Wire>,
    spoil: impl FnOnce(&mut Card),
) -> Running {
    serve_as(Config { kind, mapped, mac: [2, 0, 0, 0, 0, number], ..Config::default() }, wire, spoil)
}

/// Serve a card such as this on a wire.
pub(crate) fn serve_as(config: Config, wire: Box<dyn Wire>, spoil: impl FnOnce(&mut Card)) -> Running {
    LazyLock::force(&LOG);
    let folder = TempDir::new().unwrap();
    let (mapped, path) = (config.mapped, folder.path().join(format!("card-{}", config.mac[5])));
    let faults = Arc::<AtomicU32>::default();
    let lying = Arc::<AtomicBool>::default();
    let mut card = Card {
        device_id: config.kind.device(),
        model: Model::new(config, wire),
        liar: Box::new(()),
        faults: faults.clone(),
    };
    spoil(&mut card);
    let control = card.model.control();
    let liar = std::mem::replace(&mut card.liar, Box::new(()));
    let mut card = Lied::new(card, 0x6000, liar, lying.clone());
    let options = ServerOptions { mappable: mapped, timeout: Duration::from_secs(5) };
    let server = Server::bind(&path, options).unwrap();
    let (stopper, counters) = (server.stopper(), server.counters());
    let thread = std::thread::spawn(move || server.run(&mut card).unwrap());
    Running { path, control, faults, lying, counters, stopper, thread: Some(thread), _folder: folder }
}

impl Running {
    /// Open the card's port in a space of its own.
    pub(crate) fn open(&self) -> Result<(AddressSpace, Ixgbe), Error> {
        let space = space();
        let port = self.open_in(&space)?;
        Ok((space, port))
    }

    /// Open the card's port.
    pub(crate) fn open_in(&self, space: &AddressSpace) -> Result<Ixgbe, Error> {
        Ixgbe::with_function(space, space.open_vfio_user(&self.path)?)
    }

    /// From now on, or `0` for a card that works again.
    pub(crate) fn set_faults(&self, faults: u32) {
        self.faults.store(faults, Relaxed);
    }

    /// From now on everything the card says and does is its liar's, or nothing.
    pub(crate) fn lie(&self, on: bool) {
        self.lying.store(on, Relaxed);
    }

    /// DMA that the server refused.
    pub(crate) fn refused(&self) -> u64 {
        self.counters.refused_dma.load(Relaxed)
    }

    /// The lines of the log that name this card.
    pub(crate) fn log(&self) -> Vec<String> {
        let name = self.path.display().to_string();
        let lines = LOG.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(&name)).cloned().collect()
    }

    /// Lines of the log that name this card and contain this.
    pub(crate) fn logged(&self, what: &str) -> usize {
        self.log().iter().filter(|line| line.contains(what)).count()
    }

    /// The driver has touched no register that is none, no memory that is not its own, and asked for nothing impossible.
    pub(crate) fn assert_clean(&self) {
        let control = &self.control;
        assert_eq!(
            (control.unknown(), control.refused(), control.malformed()),
            (0, 0, 0),
            "{:?}",
            self.log()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// All that is logged in this process.
struct Log {
    lines: Mutex<Vec<String>>,
}

static LOG: LazyLock<&'static Log> = LazyLock::new(|| {
    let log: &'static Log = Box::leak(Box::new(Log { lines: Mutex::default() }));
    log::set_logger(log).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    log
});

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn flush(&self) {}
}

pub(crate) fn space() -> AddressSpace {
    let options = AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..AddressSpaceOptions::default() };
    AddressSpace::new(options).unwrap()
}

pub(crate) fn pool(space: &AddressSpace, fragments: usize) -> Pool {
    let config = PoolConfig { fragments, backing: PageSize::Size4K, ..PoolConfig::default() };
    Pool::new(&config, space).unwrap()
}

/// A pool for headers: 512 bytes less the headroom each.
pub(crate) fn headers(space: &AddressSpace, fragments: usize, headroom: u16) -> Pool {
    let config = PoolConfig {
        fragments,
        fragment_size: 512,
        headroom,
        backing: PageSize::Size4K,
        name: "headers".into(),
        ..PoolConfig::default()
    };
    Pool::new(&config, space).unwrap()
}

/// One queue pair with rings of 64.
pub(crate) fn config(space: &AddressSpace) -> PortConfig {
    let mut config = PortConfig::single_queue(pool(space, 512));
    (config.rx[0].descriptors, config.tx[0].descriptors) = (64, 64);
    config
}

/// Waits for something that the card's thread is about to do.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < end, "{what} within 10 s");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Does it, and sees that it takes no longer than so many seconds.
pub(crate) fn within<T>(seconds: u64, what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = what();
    assert!(start.elapsed() < Duration::from_secs(seconds), "{:?}", start.elapsed());
    result
}
