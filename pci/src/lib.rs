//! PCI functions: enumerate, bind, config space, BARs, DMA maps, interrupts, reset.
//!
//! - [`enumerate`] lists the functions of the machine; [`bind`] hands them to programs and back to the kernel.
//! - An [`AddressSpace`] is what a set of devices sees. Memory is mapped in it, and functions are opened in it.
//! - A [`Function`] is an opened device: its [`ConfigSpace`], its [`Bar`]s, its [`Interrupt`]s, its reset.
//! - A [`DmaBuffer`] is memory that device and driver share, such as a descriptor ring.
//!
//! `examples/probe.rs` does each of these things once to a real card.
//!
//! Devices are reached through the kernel's VFIO, by group and container or by iommufd, or through a UNIX socket that a
//! model of a card is served on: see [`vfio_user`]. Another way in is two private traits away.
//!
//! ```no_run
//! use pagewire_pci::{AddressSpace, AddressSpaceOptions};
//!
//! # fn main() -> Result<(), pagewire_pci::Error> {
//! let space = AddressSpace::new(AddressSpaceOptions::default())?;
//! let function = space.open("0000:01:00.0".parse()?)?;
//! let registers = function.bar(0)?;
//! println!("status {:#x}", registers.read32(0x8));
//! let ring = space.allocate_dma(4096, 128)?;
//! println!("a ring at {:p}, which the card sees at {:#x}", ring.as_ptr(), ring.iova());
//! function.set_bus_master(true)?;
//! # Ok(())
//! # }
//! ```

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!(
    "pagewire-pci needs Linux on x86-64: its VFIO calls and the order of its register writes are made for it"
);

mod address;
mod backend;
mod bar;
pub mod bind;
mod config;
mod dma;
mod error;
mod express;
mod function;
mod interrupt;
mod iova;
#[cfg(feature = "mock")]
pub mod mock;
mod names;
mod space;
mod sysfs;
mod vfio;
pub mod vfio_user;

pub use address::Address;
pub use backend::InterruptKind;
pub use bar::{Bar, Doorbell};
pub use config::{
    CAP_EXPRESS, CAP_MSI, CAP_MSIX, CAP_PM, CAP_SERIAL, Capabilities, Capability, ConfigSpace, Msix,
};
pub use dma::DmaBuffer;
pub use error::Error;
pub use express::ExpressLink;
pub use function::Function;
pub use interrupt::{Interrupt, eventfd, wait_any};
pub use space::{AddressSpace, AddressSpaceOptions, Backend};
pub use sysfs::{FunctionInfo, NetInterface, Sysfs, enumerate};
