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
//! Where things are: [`registers`](self) the register table, `device.rs` reset and who may free memory when, `port.rs` the
//! initialisation in the datasheet's order (section 4.6), `rx.rs` and `tx.rs` the two hot paths, `filters.rs` addresses,
//! `statistics.rs` the counters. Section numbers are those of the *Intel 82574 GbE Controller Family Datasheet*, revision 3.4.

mod descriptor;
mod device;
mod filters;
mod port;
mod registers;
mod rx;
mod statistics;
#[cfg(test)]
mod testing;
mod tx;

pub use port::E1000;
pub use rx::E1000Rx;
pub use tx::E1000Tx;

/// The driver's name.
pub const DRIVER: &str = "net_e1000_em";

/// A device the driver knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId {
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device.
    pub device: u16,
    /// What it is.
    pub name: &'static str,
}

/// Devices the driver knows.
pub const DEVICES: &[DeviceId] = &[DeviceId { vendor: 0x8086, device: 0x10d3, name: "Intel 82574L" }];
