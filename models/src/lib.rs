//! Register-level models of network cards.

mod function;
pub mod ixgbe;
mod listener;
pub mod server;
pub mod wire;

pub use function::{Area, DmaError, Function, Host, Region, RegionInfo};
