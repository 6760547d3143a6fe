//! Register-level models of network cards.
//!
//! `docs/fuzzing.md` says how the server of the models is fuzzed.

mod function;
pub mod ixgbe;
pub mod server;
pub mod wire;

pub use function::{Area, DmaError, Function, Host, Region, RegionInfo};
