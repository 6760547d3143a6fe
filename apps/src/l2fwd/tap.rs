//! What a port receives or sends, for those who attach to watch: `pagewire capture --from`.
//!
//! A forwarded packet has one owner, the ring that sends it, so watchers get copies, in memory that no device writes and that is
//! all they can see. One copy is for all of them, and without any there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use pagewire_ethdev::{AnyTxQueue, Burst, Packet, Pool, TxQueue};
use pagewire_hugepages::PageSize;
use pagewire_pci::AddressSpace;
use pagewire_pool::handover::{Options, Producer, Server};
use pagewire_pool::{Chain, PoolConfig};
use serde::Serialize;

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

/// What became of packets while somebody watched; written by one core, once a burst.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct TapCounters {
    copied: AtomicU64,
    dropped: AtomicU64,
}

/// The same for others.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct TapReport {
    /// As those who watch know it.
    name: String,
    /// Packets that somebody was shown.
    copied: u64,
    /// Packets that nobody was: there was no memory for a copy, or all who watch hold as many as they may.
    dropped: u64,
}

impl TapReport {
    pub(crate) fn new(name: &str, counters: &TapCounters) -> TapReport {
        let [copied, dropped] = [&counters.copied, &counters.dropped].map(|counter| counter.load(Relaxed));
        TapReport { name: name.into(), copied, dropped }
    }
}

/// Copies for watchers of one port's queue.
pub(crate) struct Tap {
    // Before the pool: what it has out comes back first.
    producer: Producer,
    pool: Pool,
    /// Of packets that are to be sent: copies, in the same places.
    copies: Vec<Option<Packet>>,
    name: String,
    counters: Arc<TapCounters>,
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
        let (producer, copies) = (server.producer(queue, &pool)?, Vec::new());
        Ok(Tap { producer, pool, copies, name: queue.into(), counters: Arc::default() })
    }

    /// What it is called, and what it counts.
    pub(super) fn about(&self) -> (String, Arc<TapCounters>) {
        (self.name.clone(), self.counters.clone())
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

    /// There is nothing to show: who comes and goes, and what comes back, is seen to.
    #[inline(always)]
    pub(super) fn poll(&mut self) {
        self.producer.poll();
    }

    #[inline(never)]
    fn copy(&mut self, packets: &[Packet]) {
        let mut shown = 0;
        for packet in packets {
            if let Some(copy) = copy(&mut self.pool, packet) {
                // Nobody has room: the copy goes home.
                shown += u64::from(self.producer.offer(copy).is_ok());
            }
        }
        self.count(shown, packets.len());
    }

    /// Sends a burst, and shows what of it the ring took to whoever is attached. Returns how many packets those are.
    #[inline(never)]
    pub(super) fn send(&mut self, tx: &mut AnyTxQueue, burst: &mut Burst) -> usize {
        let watched = self.producer.has_consumers();
        if watched {
            // Before: then they are the ring's.
            self.copies.extend(burst.iter().map(|packet| copy(&mut self.pool, packet)));
        }
        let sent = tx.tx_burst(burst);
        if watched {
            let mut shown = 0;
            for copy in self.copies.drain(..).take(sent).flatten() {
                shown += u64::from(self.producer.offer(copy).is_ok());
            }
            self.count(shown, sent);
        }
        self.producer.poll();
        sent
    }

    fn count(&self, shown: u64, of: usize) {
        // Nobody else writes.
        let add = |counter: &AtomicU64, more: u64| counter.store(counter.load(Relaxed) + more, Relaxed);
        add(&self.counters.copied, shown);
        add(&self.counters.dropped, of as u64 - shown);
    }

    /// Waits a little for the last packets to be taken.
    pub(super) fn finish(mut self) {
        match self.producer.drain(PATIENCE) {
            0 => {}
            left => log::warn!("{left} packets were never returned by those who watch {}", self.name),
        }
        let TapReport { name, copied, dropped } = TapReport::new(&self.name, &self.counters);
        if dropped > 0 {
            note!("{dropped} packets of {} were not shown to who watched {name}: too slow", copied + dropped);
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
