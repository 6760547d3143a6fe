//! Whole-system tests: a guest machine in software emulation, its network cards, and the wires to them.
//!
//! Nothing here needs privileges or a network: [`Guest`] runs QEMU as an ordinary program, and each [`Wire`] is a UNIX
//! socket that carries frames. What QEMU boots is downloaded and built by the scripts in `tests/lab`.

pub mod callgrind;
pub mod counters;
mod guest;
mod model;
mod peer;
pub mod ports;
pub mod programs;
mod qemu;
pub mod tcp;
mod traffic;
mod transfer;
mod wire;

pub use guest::{Guest, GuestOptions, Job, Output, quote};
pub use model::{Functions, Model};
pub use peer::{GOOD, Peer};
pub use qemu::{Device, Kernel, Link, Nic, script};
pub use traffic::Traffic;
pub use transfer::{Flow, Report, Transfer};
pub use wire::Wire;
