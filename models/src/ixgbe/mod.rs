//! Intel 82599 10 Gigabit Ethernet controller (8086:10fb), one port with an optical module, at the level of its registers.
//!
//! Facts are from the "Intel 82599 10 GbE Controller Datasheet"; sections in comments are that document's.
//!
//! Memory is reached, and interrupts are sent, only with Bus Master Enable set in the command register: that gate is here,
//! in `bus::Bus`, so whoever serves the card passes writes to the configuration space on. MSI-X masks are the
//! server's: the table in BAR 4 is storage.
//!
//! Work is done in [`Function::poll`]: a doorbell only moves a tail. Two ways to ring it: trapped writes, or, with
//! [`Config::mapped`], stores to the shared pages with the queues' registers, which `poll` looks at.

mod access;
mod backplane;
mod bus;
mod checksum;
mod clock;
mod descriptor;
mod eeprom;
mod filters;
mod firmware;
mod flow;
mod interrupts;
mod kind;
mod link;
mod msix;
mod offload;
mod packet;
mod pci;
mod phy;
mod receive;
mod registers;
mod ring;
mod rsc;
mod rss;
mod sfp;
mod shared;
mod statistics;
mod switch;
mod table;
#[cfg(test)]
mod tests;
mod transmit;
mod vf;

use std::sync::Arc;

use crate::function::{Area, Function, Host, Region, RegionInfo};
use crate::wire::Wire;
use backplane::Backplane;
use bus::Bus;
pub use bus::{Control, Offload};
pub use clock::Clock;
use eeprom::Eeprom;
use interrupts::{GPIE_PIN_2, Interrupts, LINK_CHANGE, PIN_2};
pub use kind::Kind;
use link::Link;
use msix::Msix;
use pci::{ConfigSpace, Identity};
use phy::Phy;
use receive::Receive;
use registers::Registers;
pub use registers::{Access, BAR_SIZE, Register, Unit, UnknownAccess};
use sfp::Sfp;
use shared::AREAS;
use switch::Switch;
pub use table::TABLE;
use table::*;
use transmit::Transmit;
pub use vf::Vf;

const CTRL_MASTER_DISABLE: u32 = 1 << 2;
/// Which BAR holds the MSI-X table.
const MSIX_BAR: u8 = 4;
/// The most virtual functions (7.10.2): each has a pool, and the card itself needs one.
const MOST_FUNCTIONS: u16 = 63;

/// Tables that hold anything after a reset, and their words (4.6.7): what a driver forgets to write lets in what it should not.
const UNDEFINED: [(u32, u32); 6] =
    [(MTA, 128), (VFTA, 128), (PFUTA, 128), (MPSAR, 256), (PFVLVF, 64), (PFVLVFB, 128)];

/// What kind of card it is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which of the family.
    pub kind: Kind,
    /// Its station address.
    pub mac: [u8; 6],
    /// The queues' register pages may be mapped by the driver.
    pub mapped: bool,
    /// MSI-X vectors, 1 to 64.
    pub vectors: u16,
    /// Time.
    pub clock: Clock,
    /// Virtual functions, 0 to 63: see [`Ixgbe::take_functions`].
    pub functions: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            mac: [0x02, 0x1b, 0x21, 0x82, 0x59, 0x09],
            mapped: false,
            vectors: 64,
            clock: Clock::default(),
            functions: 0,
        }
    }
}

/// What the units of the card reach for when they work.
struct Card<'a, 'b> {
    registers: &'a mut Registers,
    interrupts: &'a mut Interrupts,
    bus: Bus<'b>,
    clock: &'a Clock,
    switch: &'a mut Switch,
}

/// The card.
pub struct Ixgbe {
    config: Config,
    registers: Registers,
    pci: ConfigSpace,
    msix: Msix,
    eeprom: Eeprom,
    sfp: Sfp,
    phy: Phy,
    backplane: Backplane,
    link: Link,
    interrupts: Interrupts,
    receive: Receive,
    transmit: Transmit,
    switch: Switch,
    functions: Vec<Vf>,
    wire: Box<dyn Wire>,
    light: bool,
    control: Arc<Control>,
    master: bool,
    polls: u32,
}

impl Ixgbe {
    /// A card with its port plugged into a wire.
    pub fn new(mut config: Config, wire: Box<dyn Wire>) -> Self {
        config.vectors = config.vectors.clamp(1, 64);
        let [a, b, c, d, e, f] = config.mac;
        let serial = u64::from_be_bytes([a, b, c, 0xff, 0xff, d, e, f]);
        let identity = Identity {
            device: config.kind.device(),
            registers: BAR_SIZE,
            msix_bar: MSIX_BAR,
            serial: Some(serial),
        };
        let switch = Switch::new(config.functions.min(MOST_FUNCTIONS));
        let functions =
            (0..).zip(switch.lanes()).map(|(n, lane)| Vf::new(n, config.kind, lane, &config.clock)).collect();
        let mut card = Self {
            registers: Registers::of(config.kind),
            pci: ConfigSpace::new(identity, config.vectors),
            msix: Msix::new(config.vectors),
            eeprom: Eeprom::new(config.kind, config.mac),
            sfp: Sfp::new(),
            phy: Phy::new(config.kind),
            backplane: Backplane::default(),
            link: Link::default(),
            interrupts: Interrupts::new(config.clock.clone()),
            receive: Receive::new(),
            transmit: Transmit::new(),
            switch,
            functions,
            wire,
            light: true,
            control: Arc::default(),
            master: false,
            polls: 0,
            config,
        };
        card.after_reset();
        card
    }

    /// Switches and counters, to be used while the card runs elsewhere.
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// Whether the card may reach memory: Bus Master Enable, power state D0, and the driver has not disabled it.
    pub fn bus_master(&self) -> bool {
        self.pci.bus_master() && !self.registers.has(CTRL, CTRL_MASTER_DISABLE)
    }

    /// Offsets that were accessed and where no register is.
    pub fn unknown(&self) -> &[UnknownAccess] {
        self.registers.unknown()
    }

    /// The EEPROM, to spoil it.
    pub fn set_eeprom_word(&mut self, address: usize, value: u16) {
        self.eeprom.set_word(address, value);
    }

    /// The same by an amount.
    pub fn add_to_eeprom_word(&mut self, address: usize, amount: u16) {
        let word = self.eeprom.word(address);
        self.eeprom.set_word(address, word.wrapping_add(amount));
    }

    /// A byte of the module's identification, to make another module of it. Its checksum is not mended.
    pub fn set_module_byte(&mut self, address: u8, value: u8) {
        self.sfp.set_byte(address, value);
    }

    /// The card's virtual functions, the first time: each a function of its own, with registers, memory and interrupts of its own,
    /// to be served beside the card. They do nothing until a driver of the card has switched virtualisation on.
    pub fn take_functions(&mut self) -> Vec<Vf> {
        std::mem::take(&mut self.functions)
    }

    /// CTRL.RST: all units start anew; the station address comes from the EEPROM.
    fn software_reset(&mut self) {
        self.registers.reset();
        self.after_reset();
    }

    fn after_reset(&mut self) {
        for (table, words) in UNDEFINED {
            (0..words).for_each(|n| self.registers.set(table + 4 * n, u32::MAX));
        }
        let [a, b, c, d, e, f] = self.eeprom.mac();
        self.registers.set(RAL, u32::from_le_bytes([a, b, c, d]));
        self.registers.set(RAH, u32::from_le_bytes([e, f, 0, 0x80]));
        self.registers.set(RXPBSIZE, self.config.kind.packet_buffer());
        if self.config.kind.x550() {
            self.registers.set(HICR, firmware::ENABLED);
        }
        self.interrupts.reset();
        self.receive = Receive::new();
        self.transmit = Transmit::new();
        self.switch.reset();
        self.link.after_reset(&mut self.registers);
        self.update_link();
    }

    #[inline]
    fn update_link(&mut self) {
        let cage = self.config.kind.cage();
        let (module, most) = match self.config.kind {
            Kind::I82599 => (self.control.module(), u32::MAX),
            Kind::X552 => (self.backplane.speed() != 0, self.backplane.speed()),
            Kind::X540 | Kind::X550 => (self.phy.powered(), u32::MAX),
        };
        let cable = self.control.cable();
        let light = module && cable && !self.registers.has(ESDP, 1 << 3);
        if light != self.light {
            self.light = light;
            self.wire.light(light);
        }
        self.link.set_speed(self.control.speed().min(most));
        let changes = self.link.update(&mut self.registers, module, cable && self.wire.carrier());
        if changes.link {
            self.interrupts.raise(LINK_CHANGE);
        }
        if changes.module && cage && self.registers.has(GPIE, GPIE_PIN_2) {
            self.interrupts.raise(PIN_2);
        }
    }
}

impl Function for Ixgbe {
    fn region(&self, region: Region) -> RegionInfo {
        let (size, mappable) = match region {
            Region::Bar(0) if self.config.mapped => (BAR_SIZE as u64, AREAS.to_vec()),
            Region::Bar(0) => (BAR_SIZE as u64, Vec::new()),
            Region::Bar(MSIX_BAR) => (msix::SIZE as u64, Vec::new()),
            Region::Config => (pci::SIZE as u64, Vec::<Area>::new()),
            Region::Bar(_) => (0, Vec::new()),
        };
        RegionInfo { size, mappable }
    }

    fn vectors(&self) -> u16 {
        self.config.vectors
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8], host: &mut dyn Host) {
        match region {
            Region::Bar(0) if offset < BAR_SIZE as u64 => self.read_bar(offset, data, host),
            Region::Bar(MSIX_BAR) => self.msix.read(offset, data),
            Region::Config => self.pci.read(offset, data),
            Region::Bar(_) => data.fill(0xff),
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8], host: &mut dyn Host) {
        match region {
            Region::Bar(0) if offset < BAR_SIZE as u64 => self.write_bar(offset, data, host),
            Region::Bar(MSIX_BAR) => self.msix.write(offset, data),
            Region::Config => {
                if self.pci.write(offset, data).reset {
                    self.reset(host);
                }
            }
            Region::Bar(_) => {}
        }
    }

    fn reset(&mut self, host: &mut dyn Host) {
        self.pci.reset();
        self.msix.reset();
        self.registers.reset_all();
        self.after_reset();
        self.share_all(host);
    }

    fn poll(&mut self, host: &mut dyn Host) -> bool {
        let master = self.bus_master();
        if master && !self.master {
            self.receive.retry();
            self.transmit.retry();
        }
        self.master = master;
        self.update_link();
        if self.config.mapped {
            self.look_at_shared(host);
        }
        self.switch.attend(&mut self.registers, &mut self.interrupts);
        let mut card = Card {
            registers: &mut self.registers,
            interrupts: &mut self.interrupts,
            bus: Bus::new(host, master, &self.control),
            clock: &self.config.clock,
            switch: &mut self.switch,
        };
        let mut busy = false;
        if self.link.up() {
            busy |= self.receive.poll(&mut card, &mut *self.wire);
            if !self.receive.flow.paused(|| card.clock.now()) {
                busy |= self.transmit.relay(&mut card, &mut *self.wire);
                busy |= self.transmit.poll(&mut card, &mut *self.wire);
            }
        }
        card.interrupts.deliver(card.registers, &mut card.bus);
        if self.config.mapped && busy {
            self.show_heads(host);
        }
        busy
    }
}
