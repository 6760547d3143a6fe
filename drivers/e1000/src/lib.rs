//! Poll-mode driver for the Intel 82574L gigabit Ethernet controller, of the family that Linux drives with e1000e.
//!
//! ```no_run
//! use pagewire_e1000::E1000;
//! use pagewire_ethdev::{Burst, Pool, Port, PortConfig, RxQueue};
//! use pagewire_pci::{AddressSpace, AddressSpaceOptions};
//! use pagewire_pool::PoolConfig;
//!
//! let space = AddressSpace::new(AddressSpaceOptions::default())?;
//! let pool = Pool::new(&PoolConfig::default(), &space)?;
//! let mut port = E1000::open(&space, "0000:01:00.0".parse()?)?;
//! let (mut rx, tx) = port.start(PortConfig::single_queue(pool))?;
//! let mut burst = Burst::new(32);
//! rx[0].rx_burst(&mut burst);
//! drop((rx, tx));
//! port.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where things are: `registers.rs` the register table, `reset.rs` reset and PHY, `card.rs` the initialisation in the datasheet's
//! order (section 4.6) and filters, `interrupts.rs` what wakes who sleeps, `descriptor.rs` what the card reads and writes, `statistics.rs` the counters. Rings and the
//! port itself are [`pagewire_ethdev::nic`]'s. Section numbers are those of the *Intel 82574 GbE Controller Family Datasheet*,
//! revision 3.4.

mod card;
mod descriptor;
mod interrupts;
mod registers;
mod reset;
mod statistics;
#[cfg(test)]
mod testing;

use pagewire_ethdev::nic::{DeviceId, Nic, NicRx, NicTx};

pub use card::I82574;
pub use descriptor::{ExtendedRx, ExtendedTx};

/// An 82574L port.
pub type E1000 = Nic<I82574>;
/// Its receive queue.
pub type E1000Rx = NicRx<ExtendedRx>;
/// Its transmit queue.
pub type E1000Tx = NicTx<ExtendedTx>;

/// The driver's name.
pub const DRIVER: &str = "net_e1000_em";

/// Devices the driver knows.
pub const DEVICES: &[DeviceId] = &[DeviceId { vendor: 0x8086, device: 0x10d3, name: "Intel 82574L" }];
