//! `ring:NAME`, two ports joined in memory: what one sends the other receives, packet by packet, without a copy.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_channel::{Receiver, Sender, bounded};
use pagewire_ethdev::{
    Burst, Error, Link, MacAddr, Packet, Pool, Port, PortConfig, PortInfo, QueueCounters, QueueStats, Queues,
    RxQueue, TxQueue, TxRefused,
};

use crate::Started;

/// Packets that each direction holds.
const CAPACITY: usize = 1024;

/// Rings with one end taken: the other end's way out and in.
static HALF_OPEN: Mutex<Option<HashMap<String, End>>> = Mutex::new(None);
/// Numbers ports, for their addresses.
static PORTS: AtomicUsize = AtomicUsize::new(0);

/// One end of a ring.
struct End {
    to_peer: Sender<Packet>,
    from_peer: Receiver<Packet>,
    /// Fragments on their way to the peer, and from it.
    sent: Arc<AtomicUsize>,
    coming: Arc<AtomicUsize>,
    /// Ends that are started.
    started: Arc<AtomicUsize>,
}

/// A port joined with the other port of its name.
pub struct Ring {
    info: PortInfo,
    end: End,
    started: Started,
    rx_counters: Arc<QueueCounters>,
    tx_counters: Arc<QueueCounters>,
}

fn half_open() -> MutexGuard<'static, Option<HashMap<String, End>>> {
    HALF_OPEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Ring {
    /// One end of the ring `name`: the first call for a name makes the ring, the second takes its other end.
    pub fn new(name: &str) -> Ring {
        let end = {
            let mut half_open = half_open();
            let half_open = half_open.get_or_insert_default();
            half_open.remove(name).unwrap_or_else(|| {
                let (to_peer, from_here) = bounded(CAPACITY);
                let (to_here, from_peer) = bounded(CAPACITY);
                let [sent, coming, started] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
                let other = End {
                    to_peer: to_here,
                    from_peer: from_here,
                    sent: coming.clone(),
                    coming: sent.clone(),
                    started: started.clone(),
                };
                half_open.insert(name.into(), other);
                End { to_peer, from_peer, sent, coming, started }
            })
        };
        let number = PORTS.fetch_add(1, Ordering::Relaxed);
        let mac = MacAddr([0x02, 0, 0, 0, 2, number as u8]);
        Ring {
            info: crate::info(format!("ring:{name}"), "net_ring", mac),
            end,
            started: Started::default(),
            rx_counters: Arc::default(),
            tx_counters: Arc::default(),
        }
    }
}

/// The receive queue of [`Ring`].
pub struct RingRx {
    from_peer: Receiver<Packet>,
    coming: Arc<AtomicUsize>,
    pool: Pool,
    counters: Arc<QueueCounters>,
}

impl RxQueue for RingRx {
    fn rx_burst(&mut self, out: &mut Burst) -> usize {
        let (mut packets, mut bytes, mut fragments) = (0, 0, 0);
        for packet in self.from_peer.try_iter().take(out.room()) {
            bytes += packet.len() as u64;
            fragments += packet.segment_count();
            packets += usize::from(out.push(packet).is_ok());
        }
        if packets > 0 {
            self.coming.fetch_sub(fragments, Ordering::Relaxed);
            self.counters.count(packets, bytes);
        }
        packets
    }

    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    fn posted(&self) -> usize {
        0
    }
}

/// The transmit queue of [`Ring`].
pub struct RingTx {
    to_peer: Sender<Packet>,
    sent: Arc<AtomicUsize>,
    counters: Arc<QueueCounters>,
}

impl TxQueue for RingTx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let (mut sent, mut gone, mut bytes) = (0, 0, 0);
        // Nobody else sends on this queue, so the room there is now is there.
        let room = CAPACITY.saturating_sub(self.to_peer.len());
        for packet in packets.drain().take(room) {
            let (len, fragments) = (packet.len() as u64, packet.segment_count());
            // Before the peer can take it, which subtracts.
            self.sent.fetch_add(fragments, Ordering::Relaxed);
            if self.to_peer.try_send(packet).is_ok() {
                (sent, bytes) = (sent + 1, bytes + len);
            } else {
                // The other end is gone: a cable with nobody behind it.
                self.sent.fetch_sub(fragments, Ordering::Relaxed);
                self.counters.count_errors(1);
            }
            gone += 1;
        }
        self.counters.count(sent, bytes);
        gone
    }

    fn check(&self, packet: &Packet) -> Result<(), TxRefused> {
        crate::check(packet)
    }

    fn reclaim(&mut self) -> usize {
        0
    }

    fn pending(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Port for Ring {
    type Rx = RingRx;
    type Tx = RingTx;

    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn start(&mut self, config: PortConfig) -> Result<Queues<RingRx, RingTx>, Error> {
        config.check(&self.info)?;
        self.started.set(&self.info.name, true)?;
        self.end.started.fetch_add(1, Ordering::Relaxed);
        let rx = config.rx.into_iter().map(|queue| RingRx {
            from_peer: self.end.from_peer.clone(),
            coming: self.end.coming.clone(),
            pool: queue.pool,
            counters: self.rx_counters.clone(),
        });
        let tx = config.tx.iter().map(|_| RingTx {
            to_peer: self.end.to_peer.clone(),
            sent: self.end.sent.clone(),
            counters: self.tx_counters.clone(),
        });
        Ok((rx.collect(), tx.collect()))
    }

    /// Packets still on their way here are dropped.
    fn stop(&mut self) -> Result<(), Error> {
        self.started.set(&self.info.name, false)?;
        self.end.started.fetch_sub(1, Ordering::Relaxed);
        for packet in self.end.from_peer.try_iter() {
            self.end.coming.fetch_sub(packet.segment_count(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Up while both ends are started.
    fn link(&mut self) -> Link {
        match self.end.started.load(Ordering::Relaxed) {
            2 => Link::Up { mbps: 10_000, full_duplex: true },
            _ => Link::Down,
        }
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.info.mac = mac;
        Ok(())
    }

    fn rx_queue_stats(&self) -> Vec<QueueStats> {
        vec![self.rx_counters.stats()]
    }

    fn tx_queue_stats(&self) -> Vec<QueueStats> {
        vec![self.tx_counters.stats()]
    }
}
