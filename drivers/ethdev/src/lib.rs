//! What a poll-mode driver implements and an application calls.
//!
//! A [`Port`] is one network interface. It is configured once and split: [`Port::start`] returns its queues, each of which
//! belongs to one core from then on (`Send`, not `Sync`, `&mut self` on every hot call). Packets travel in
//! [`Burst`]s; what a [`TxQueue`] could not send stays in the burst and stays owned.
//!
//! ```
//! use pagewire_ethdev::{Burst, Port, PortConfig, RxQueue, TxQueue};
//! use pagewire_pool::Pool;
//!
//! /// Receives on one port and sends on another. Generic over the drivers: static dispatch in the loop.
//! fn forward<P: Port, Q: Port>(from: &mut P, to: &mut Q, pools: [Pool; 2], rounds: usize)
//! -> Result<u64, pagewire_ethdev::Error> {
//!     let [a, b] = pools;
//!     let (mut rx, _) = from.start(PortConfig::single_queue(a))?;
//!     let (_, mut tx) = to.start(PortConfig::single_queue(b))?;
//!     let mut burst = Burst::new(32);
//!     let mut sent = 0;
//!     for _ in 0..rounds {
//!         rx[0].rx_burst(&mut burst);
//!         sent += tx[0].tx_burst(&mut burst) as u64;
//!         burst.clear(); // what did not fit in the transmit ring
//!     }
//!     Ok(sent)
//! }
//! ```
//!
//! Applications that pick drivers at run time use [`AnyPort`], which dispatches once a burst. Those that would rather sleep than poll
//! for nothing start their ports with [`PortConfig::rx_interrupts`] and use a [`Waiter`].
//!
//! What a driver author implements: [`Port`], [`RxQueue`] and [`TxQueue`]; what helps: [`nic`] (all of it but the card itself),
//! [`PostedRing`], [`TransmitRing`] and [`DescriptorRing`] (the only unsafe code that a driver of a descriptor-ring card needs), [`QueueCounters`], [`poll_until`].

mod config;
mod error;
mod flow;
mod interrupt;
mod link;
mod mac;
pub mod nic;
mod path;
mod port;
mod posted_ring;
mod refused;
mod ring;
mod stats;
mod transmit_ring;
mod vector;
mod wait;
mod waiter;

pub use config::{
    Capabilities, DescriptorLimits, FunctionConfig, PortConfig, PortInfo, RssConfig, RssLimits, RxOffloads,
    RxQueueConfig, TxOffloads, TxQueueConfig,
};
pub use error::Error;
pub use flow::{FlowAction, FlowLimits, FlowProtocol, FlowRule};
pub use interrupt::{PortEvents, RxInterrupt};
pub use link::Link;
pub use mac::{MacAddr, ParseMacError};
pub use pagewire_pool::{
    Burst, Chain, Drain, Packet, PacketFlags, PacketType, Pool, Posted, RssTypes, release_bulk,
};
pub use path::{Path, PathReport};
pub use port::{AnyPort, AnyRxQueue, AnyTxQueue, Port, Queues, RxQueue, TxQueue};
pub use posted_ring::PostedRing;
pub use refused::TxRefused;
pub use ring::{DescriptorRing, RingView};
pub use stats::{QueueCounters, QueueStats, Stats, XStat};
pub use transmit_ring::TransmitRing;
pub use wait::poll_until;
pub use waiter::{Waiter, WaiterCounters, WaiterStats};
