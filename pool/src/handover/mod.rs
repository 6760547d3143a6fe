//! Packets handed to other processes without a copy.
//!
//! A process that owns packets has a [`Server`] at a UNIX socket and a [`Producer`] for each pool; other processes attach to
//! it as [`Consumer`]s. They map the pool's memory, read the packets where they are, and give them back.
//!
//! ```
//! use std::time::Duration;
//! use pagewire_pool::handover::{Access, Consumer, Options, Server};
//! # use pagewire_pci::{AddressSpace, AddressSpaceOptions};
//! # use pagewire_pool::{PageSize, Pool, PoolConfig};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("packets");
//! # let space = AddressSpace::new(AddressSpaceOptions::default())?;
//! # let config = PoolConfig { fragments: 64, backing: PageSize::Size4K, ..PoolConfig::default() };
//! # let mut pool = Pool::new(&config, &space)?;
//!
//! // The process that owns the packets.
//! let server = Server::bind(&path, Options::default())?;
//! let mut producer = server.producer("port0", &pool)?;
//!
//! // Another process, in a thread here.
//! let consumer = std::thread::spawn(move || {
//!     let consumer = Consumer::attach(&path, Access::Read)?;
//!     while !consumer.wait(Duration::from_secs(10))? {}
//!     let packet = consumer.receive()?.expect("wait said so");
//!     let mut bytes = Vec::new();
//!     packet.copy_to(&mut bytes)?;
//!     assert_eq!(bytes, b"hello, neighbour");
//!     drop(packet); // given back
//!     Ok::<(), pagewire_pool::handover::Error>(())
//! });
//!
//! # while !producer.has_consumers() { producer.wait(Duration::from_secs(10)); }
//! // The receive loop: offer what came, then poll once a burst.
//! let mut packet = pool.alloc_packet().expect("a fresh pool is not empty");
//! packet.extend_from_slice(b"hello, neighbour")?;
//! if let Err(packet) = producer.offer(packet) {
//!     drop(packet); // nobody is attached, or all hold as much as they may: it is ours still
//! }
//! producer.poll(); // consumers see it from here on, and what they gave back goes to the pool
//!
//! assert_eq!(producer.drain(Duration::from_secs(10)), 0);
//! consumer.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Who trusts whom
//!
//! A consumer is not trusted with anything but sight of the memory. What it stores in the rings is read once and checked
//! against the producer's own table: place, generation, holder. What does not fit is counted and forgotten, and a consumer
//! that goes on with it, or whose rings make no sense at all, is thrown out. It can hold [`Options::quota`] fragments of each
//! producer and no more; all of them come back when its connection ends, however that happens. A producer never waits for a
//! consumer, takes no lock that one could hold, and makes at most one system call a poll for each that sleeps.
//!
//! What a consumer holds can be taken back: when it is thrown out, when the producer or the server goes. It finds that out when it reads
//! ([`Error::Revoked`]), and never takes for a packet what came to lie in its place.
//!
//! A consumer sees all of the pool's memory and not only the packets it was handed, and [`Access::ReadWrite`] lets it change
//! all of that. It is for processes that could as well be part of this one.

mod attached;
mod consumer;
mod door;
mod error;
mod hub;
mod layout;
mod memory;
mod producer;
mod received;
mod server;
mod stats;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;
mod wake;

use std::time::Duration;

pub use consumer::Consumer;
pub use error::{Error, Refusal};
pub use producer::Producer;
pub use received::Received;
pub use server::Server;
pub use stats::{ConsumerInfo, Counts};

/// Most consumers a server can have at one time: one for each bit of a word.
pub const MAX_CONSUMERS: u32 = 64;
/// Most fragments of one producer that a consumer can be allowed to hold.
pub const MAX_QUOTA: u32 = 1 << 16;

/// What a consumer may do with the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    #[default]
    Read,
    /// Read and write it, all of it.
    ReadWrite,
}

/// How a [`Server`] serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fragments of one producer that each consumer may hold: at least 1, at most [`MAX_QUOTA`]. With every consumer there
    /// can be, that many fragments are missing from the producer's pool at worst.
    pub quota: u32,
    /// Consumers at one time: at least 1, at most [`MAX_CONSUMERS`].
    pub consumers: u32,
    /// The most a consumer is granted. [`Access::ReadWrite`] goes with one consumer only: two would write the same packets.
    pub access: Access,
    /// Who may attach besides this process's user and root: a user's number. The socket then belongs to that user, which takes
    /// root.
    pub user: Option<u32>,
    /// How long a consumer may take for its greeting, and to take a message; nobody waits for it meanwhile.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            quota: 1024,
            consumers: 8,
            access: Access::Read,
            user: None,
            timeout: Duration::from_secs(1),
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), Error> {
        let bad = |field, found: String, expected: String| Err(Error::Options { field, found, expected });
        if !(1..=MAX_QUOTA).contains(&self.quota) {
            return bad("quota", self.quota.to_string(), format!("1 to {MAX_QUOTA}"));
        }
        if !(1..=MAX_CONSUMERS).contains(&self.consumers) {
            return bad("consumers", self.consumers.to_string(), format!("1 to {MAX_CONSUMERS}"));
        }
        if self.access == Access::ReadWrite && self.consumers != 1 {
            return bad("consumers", self.consumers.to_string(), "1 with read-write access".into());
        }
        Ok(())
    }
}
