//! Poll-mode driver for the Intel 82599 10 Gigabit Ethernet controller with SFP+ modules, of the family that Linux drives with
//! ixgbe.
//!
//! ```no_run
//! use pagewire_ethdev::{Burst, Pool, Port, PortConfig, RxQueue};
//! use pagewire_ixgbe::Ixgbe;
//! use pagewire_pci::{AddressSpace, AddressSpaceOptions};
//! use pagewire_pool::PoolConfig;
//!
//! let space = AddressSpace::new(AddressSpaceOptions::default())?;
//! let pool = Pool::new(&PoolConfig::default(), &space)?;
//! let mut port = Ixgbe::open(&space, "0000:01:00.0".parse()?)?;
//! let (mut rx, tx) = port.start(PortConfig::single_queue(pool))?;
//! let mut burst = Burst::new(32);
//! rx[0].rx_burst(&mut burst);
//! drop((rx, tx));
//! port.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Rings, refill, reports and everything else that cards have in common is [`pagewire_ethdev::nic`]'s; here is the card.
//! Where things are: `card.rs` what the shared part calls, `registers.rs` and `statistics.rs` the tables, `reset.rs` and
//! `configure.rs` the initialisation in the datasheet's order (section 4.6), `queues.rs` and `descriptor.rs` the rings as the card
//! sees them, `link.rs` the link, `sfp.rs` and `i2c.rs` the module, `eeprom.rs` and `semaphore.rs` what is shared with the
//! firmware, `filters.rs` addresses and VLANs, `flows.rs` flow
//! rules. Section numbers are those of the *Intel 82599 10 GbE Controller Datasheet*, revision 3.4.
//!
//! A port whose cage is empty opens and starts; its link is down until there is a module. No module is refused: what is
//! not of a known kind is taken for limiting optics, with a warning. A module that can do 10 and 1 Gb/s is used at 10.

mod card;
mod configure;
mod descriptor;
mod eeprom;
mod filters;
mod flows;
mod i2c;
mod link;
mod queues;
mod registers;
mod reset;
mod semaphore;
mod sfp;
mod statistics;

use pagewire_ethdev::nic::{DeviceId, Nic, NicRx, NicTx};

pub use card::Card82599;
pub use descriptor::{RxAdvanced, TxAdvanced};

/// An 82599 port.
pub type Ixgbe = Nic<Card82599>;
/// Its receive queue.
pub type IxgbeRx = NicRx<RxAdvanced>;
/// Its transmit queue.
pub type IxgbeTx = NicTx<TxAdvanced>;

/// The driver's name.
pub const DRIVER: &str = "net_ixgbe";

/// Devices the driver knows: those whose ports are SFP+ cages wired to the card's SFI.
pub const DEVICES: &[DeviceId] = &[
    DeviceId { vendor: 0x8086, device: 0x10fb, name: "Intel 82599ES (SFI/SFP+)" },
    DeviceId { vendor: 0x8086, device: 0x1507, name: "Intel 82599 (SFP+, embedded)" },
    DeviceId { vendor: 0x8086, device: 0x1529, name: "Intel 82599 (SFP+ with FCoE)" },
    DeviceId { vendor: 0x8086, device: 0x154a, name: "Intel 82599 (SFP+, four ports)" },
    DeviceId { vendor: 0x8086, device: 0x154d, name: "Intel 82599 (SFP+, second generation)" },
    DeviceId { vendor: 0x8086, device: 0x1557, name: "Intel 82599EN (SFP+, one port)" },
];
