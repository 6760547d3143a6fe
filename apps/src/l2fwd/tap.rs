//! What a port receives, for those who attach to watch: `pagewire capture --from`.
//!
//! A forwarded packet has one owner, the ring that sends it, so watchers get copies, in memory that no device writes and that is
//! all they can see. One copy is for all of them, and without any there is none.

use std::time::Duration;

use anyhow::Result;
use pagewire_ethdev::{Packet, Pool};
use pagewire_hugepages::PageSize;
use pagewire_pci::AddressSpace;
use pagewire_pool::handover::{Options, Producer, Server};
use pagewire_pool::{Chain, PoolConfig};

/// Fragments that each watcher of a port may hold, and watchers at one time.
const QUOTA: u32 = 512;
const WATCHERS: u32 = 4;
/// Fragments that the pool and its caches keep besides.
const SPARE: u32 = 512;
/// How long watchers may take for the last packets.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn options() -> Options {
    Options { quota: QUOTA, consumers: WATCHERS, ..Options::default() }
}

/// Copies for watchers of one port's queue.
pub(crate) struct Tap {
    // Before the pool: what it has out comes back first.
    producer: Producer,
    pool: Pool,
}

impl Tap {
    pub(super) fn new(
        server: &Server,
        page_size: PageSize,
        space: &AddressSpace,
        queue: &str,
    ) -> Result<Tap> {
        let pool = Pool::new(
            &PoolConfig {
                name: format!("{queue}-capture"),
                fragments: (QUOTA * WATCHERS + SPARE) as usize,
                headroom: 0,
                backing: page_size,
                ..PoolConfig::default()
            },
            space,
        )?;
        Ok(Tap { producer: server.producer(queue, &pool)?, pool })
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Shows a burst to whoever is attached.
    #[inline(always)]
    pub(super) fn see(&mut self, packets: &[Packet]) {
        if self.producer.has_consumers() {
            self.copy(packets);
        }
        self.producer.poll();
    }

    #[inline(never)]
    fn copy(&mut self, packets: &[Packet]) {
        for packet in packets {
            if let Some(copy) = copy(&mut self.pool, packet) {
                // Nobody has room: the producer counts that, and the copy goes home.
                drop(self.producer.offer(copy));
            }
        }
    }

    /// Waits a little for the last packets to be taken.
    pub(super) fn finish(mut self) {
        match self.producer.drain(PATIENCE) {
            0 => {}
            left => log::warn!("{left} packets were never returned by those who watch {}", self.pool.name()),
        }
    }
}

/// A packet with the same bytes; `None` if there is no memory for it, or the bytes cannot be read.
fn copy(pool: &mut Pool, packet: &Packet) -> Option<Packet> {
    let mut whole: Option<Chain> = None;
    for segment in packet.segments() {
        for bytes in segment.as_slice()?.chunks(pool.fragment_size()) {
            let mut copy = pool.alloc_packet()?;
            copy.extend_from_slice(bytes).ok()?;
            match &mut whole {
                Some(chain) => chain.push(copy).ok()?,
                None => whole = Some(Chain::new(copy)),
            }
        }
    }
    whole.map(Chain::finish)
}
