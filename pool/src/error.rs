use crate::provider::ProviderError;
use crate::shared::MAX_POOLS;

/// Why a pool could not be made, or a packet not grown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the configuration is out of its range.
    #[error("pool {pool:?}: {field} is {found}, expected {expected}")]
    Config {
        /// The pool's name.
        pool: String,
        /// Which field of the configuration.
        field: &'static str,
        /// What it was.
        found: usize,
        /// What it may be.
        expected: String,
    },
    /// Every pool number is taken.
    #[error(
        "pool {pool:?}: this process has {MAX_POOLS} pools already, the most there can be; drop one first"
    )]
    TooManyPools {
        /// The pool's name.
        pool: String,
    },
    /// The memory could not be had.
    #[error("pool {pool:?}: {cause}")]
    Memory {
        /// The pool's name.
        pool: String,
        /// What the floor below found. Part of the message, and therefore no `source` that would be printed once more.
        cause: pagewire_hugepages::Error,
    },
    /// The provider has no memory to give, or none that will do.
    #[error("pool {pool:?}: {provider}: {cause}")]
    Provider {
        /// The pool's name.
        pool: String,
        /// How the provider describes itself.
        provider: String,
        /// What it said. Part of the message, and therefore no `source` that would be printed once more.
        cause: ProviderError,
    },
    /// The pool has as many segments as it may.
    #[error(
        "pool {pool:?}: it has all of its {fragments} fragments already; make it with a larger max_fragments"
    )]
    FullyGrown {
        /// The pool's name.
        pool: String,
        /// How many fragments that is.
        fragments: usize,
    },
    /// The memory could not be mapped for the devices.
    #[error("pool {pool:?}: {cause}")]
    Map {
        /// The pool's name.
        pool: String,
        /// What the floor below found. Part of the message, and therefore no `source` that would be printed once more.
        cause: pagewire_pci::Error,
    },
    /// The records that describe the fragments could not be allocated.
    #[error("pool {pool:?}: no memory for {bytes} bytes of fragment records: {cause}")]
    Records {
        /// The pool's name.
        pool: String,
        /// How much was asked for.
        bytes: usize,
        /// What the kernel said.
        cause: std::io::Error,
    },
    /// A segment of the packet is in memory that the CPU cannot read, as of a device.
    #[error(
        "segment {segment} of the packet is in memory that the CPU cannot read: it can be sent, handed on or dropped"
    )]
    Unreadable {
        /// Which segment, counted from 0.
        segment: usize,
    },
    /// More bytes were asked of a packet than it has room for.
    #[error("no room for {asked} bytes in the packet: {room} are left")]
    NoRoom {
        /// Bytes asked for.
        asked: usize,
        /// Bytes there are.
        room: usize,
    },
}
