//! The page pool: packet memory carved from huge pages into recycled half-page fragments.
//!
//! A [`Pool`] cuts pinned [segments](pagewire_hugepages::Segment) into logical pages (4 KiB unless asked otherwise) and
//! each page into fragments, two half pages by default. A fragment is at any time exactly one of
//!
//! * free, in the pool;
//! * [`Posted`]: a device may write it, nobody may read it;
//! * a [`Packet`], or one segment of one: owned, one machine word, `Send`; dropping it returns it to its pool.
//!
//! ```
//! use pagewire_pci::{AddressSpace, AddressSpaceOptions};
//! use pagewire_pool::{PageSize, Pool, PoolConfig};
//!
//! let space = AddressSpace::new(AddressSpaceOptions::default())?;
//! // Huge pages are the default; this example asks for small ones by name, so that it runs anywhere.
//! let config = PoolConfig { fragments: 1024, backing: PageSize::Size4K, ..PoolConfig::default() };
//! let mut pool = Pool::new(&config, &space)?;
//!
//! let mut packet = pool.alloc_packet().expect("a fresh pool is not empty");
//! packet.extend_from_slice(b"hello, wire").expect("a half page holds more than this");
//! assert_eq!(packet.as_slice(), Some(&b"hello, wire"[..]));
//! drop(packet); // back in the pool
//! pool.trim();
//! assert_eq!(pool.stats().inflight(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How recycling works
//!
//! The source of the semantics is Linux's `net/core/page_pool.c`; this is where the design differs, and why.
//!
//! Linux counts references on a page and recycles it when its last fragment is dropped. Here the count is kept off the
//! fast path altogether: what the owner's cache and the return path carry are *fragments*, and a page is put together
//! again only when fragments go back to the page store, in batches ([`Pool::trim`] and teardown). Any order
//! of frees of a page's fragments yields exactly one whole page, and a slow holder of one half does not keep the
//! other half from being used.
//!
//! Beside the page store three places hold free fragments:
//!
//! 1. The pool's **cache**, a LIFO reached through `&mut Pool`: the owner's alloc path, five instructions.
//! 2. A **magazine** per thread and pool, in thread-local storage, where a drop puts its fragment. A pool that
//!    refills its cache takes the magazine of the thread it runs on: on one core a fragment goes from the transmit
//!    ring to the receive ring without an atomic operation.
//! 3. The **return ring**, bounded, multi-producer, large enough for every fragment of the pool so that it can never be
//!    full. A magazine that fills on a thread that does not allocate from the pool is flushed here: two atomic
//!    additions on one cache line for 16 fragments.
//!
//! No thread identity is compared anywhere, so a pool may be sent to another thread at any time. A magazine that
//! stays behind is flushed by [`flush_thread`], which a run loop calls when it is idle, and at thread exit.
//!
//! A dropped pool is taken down by whoever brings its last fragment, exactly once and without a wait. What threads do to
//! one another here is model-checked, on this code: `RUSTFLAGS='--cfg loom' cargo test -p pagewire-pool --lib models`.

mod about;
mod ages;
mod bulk;
mod burst;
mod check;
mod config;
mod error;
mod fault;
pub mod handover;
mod magazine;
mod memory;
#[cfg(doctest)]
mod misuse;
#[cfg(all(test, loom))]
mod models;
mod numa;
mod packet;
mod pages;
mod pool;
mod provider;
mod record;
mod refill;
mod resize;
mod return_ring;
mod shared;
mod stats;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;

pub use about::{PacketType, RssTypes};
pub use ages::Ages;
pub use bulk::Bulk;
pub use burst::{Burst, Drain};
pub use config::PoolConfig;
pub use error::Error;
pub use magazine::{flush_thread, release_alike, release_bulk};
pub use packet::{Chain, Packet, PacketFlags, Plain, Posted, Segments};
pub use pagewire_hugepages::PageSize;
pub use pool::{Batch, Fresh, Pool};
pub use provider::{DeviceMemory, Pages, Provider, ProviderError, Region, RegionError};
pub use stats::{Life, PoolMonitor, PoolStats, pools};
