//! What drivers of descriptor-ring cards share: everything but the card.
//!
//! A family of cards implements [`Card`] (its registers, its initialisation, its counters) with the two descriptor formats
//! [`RxFormat`] and [`TxFormat`]. [`Nic`] makes a [`Port`](crate::Port) of it: states and their checks, rings, refill, frames
//! of several descriptors, status reports, statistics, and who may let go of memory when.
//!
//! Where things are: `card.rs` what is implemented, `port.rs` the port, `queues.rs` its queues, `rx.rs` and `tx.rs` the two hot paths, `device.rs` the
//! open card, `interrupts.rs` what wakes who sleeps, `registers.rs` and `statistics.rs` the tables, `filters.rs` addresses.

mod card;
mod device;
mod filters;
mod interrupts;
mod port;
mod queues;
mod registers;
mod retiring;
mod rx;
mod statistics;
mod tx;

#[cfg(any(test, feature = "mock"))]
pub mod testing;

pub use card::{Card, DeviceId, RxSetup, TxSetup};
pub use device::Device;
pub use filters::Filters;
pub use port::Nic;
pub use registers::{Register, Registers};
pub use rx::{NicRx, RxFormat};
pub use statistics::Counter;
pub use tx::{Encoded, L4, NicTx, Request, TxFormat};
