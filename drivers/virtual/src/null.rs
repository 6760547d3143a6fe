//! `null:`, a port that always has a packet and never minds one.

use std::sync::Arc;

use pagewire_ethdev::{
    Burst, Error, Link, MacAddr, Packet, PacketFlags, Pool, Port, PortConfig, PortInfo, QueueCounters,
    QueueStats, Queues, RxQueue, TxQueue, TxRefused,
};

use crate::Started;

/// A port that receives without end and discards what is sent.
pub struct Null {
    info: PortInfo,
    packet_size: u16,
    started: Started,
    rx_counters: Arc<QueueCounters>,
    tx_counters: Arc<QueueCounters>,
}

impl Null {
    /// Bytes in a packet unless configured otherwise.
    pub const PACKET_SIZE: u16 = 64;

    /// The `number`th null port of the process; its packets have `packet_size` bytes, whatever they hold.
    pub fn new(number: u8, packet_size: u16) -> Null {
        let mac = MacAddr([0x02, 0, 0, 0, 1, number]);
        Null {
            info: crate::info(format!("null:{number}"), "net_null", mac),
            packet_size,
            started: Started::default(),
            rx_counters: Arc::default(),
            tx_counters: Arc::default(),
        }
    }
}

/// The receive queue of [`Null`].
pub struct NullRx {
    pool: Pool,
    packet_size: u16,
    headroom: u16,
    counters: Arc<QueueCounters>,
}

impl RxQueue for NullRx {
    fn rx_burst(&mut self, out: &mut Burst) -> usize {
        let (headroom, size) = (self.headroom, self.packet_size);
        // `start` has made sure that the packet fits into a fragment.
        let packets = out.fill(&mut self.pool, out.room(), |_, fragment| {
            fragment.take().complete(headroom, size, PacketFlags::empty()).ok()
        });
        if packets == 0 && out.room() > 0 {
            self.counters.count_nombuf();
        }
        self.counters.count(packets, packets as u64 * u64::from(self.packet_size));
        packets
    }

    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    fn posted(&self) -> usize {
        0
    }
}

/// The transmit queue of [`Null`].
pub struct NullTx {
    counters: Arc<QueueCounters>,
}

impl TxQueue for NullTx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let count = packets.len();
        let bytes = packets.iter().map(|packet| packet.len() as u64).sum();
        packets.clear();
        self.counters.count(count, bytes);
        count
    }

    fn check(&self, packet: &Packet) -> Result<(), TxRefused> {
        crate::check(packet)
    }

    fn reclaim(&mut self) -> usize {
        0
    }

    fn pending(&self) -> usize {
        0
    }
}

impl Port for Null {
    type Rx = NullRx;
    type Tx = NullTx;

    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn start(&mut self, config: PortConfig) -> Result<Queues<NullRx, NullTx>, Error> {
        config.check(&self.info)?;
        for queue in &config.rx {
            let room = queue.pool.fragment_size() - usize::from(queue.pool.headroom());
            if usize::from(self.packet_size) > room {
                return Err(Error::Unsupported {
                    port: self.info.name.clone(),
                    what: "packet size",
                    asked: self.packet_size.to_string(),
                    limit: format!("{room} bytes in a fragment of its pool"),
                });
            }
        }
        self.started.set(&self.info.name, true)?;
        let rx = config.rx.into_iter().map(|queue| NullRx {
            headroom: queue.pool.headroom(),
            pool: queue.pool,
            packet_size: self.packet_size,
            counters: self.rx_counters.clone(),
        });
        let tx = config.tx.iter().map(|_| NullTx { counters: self.tx_counters.clone() });
        Ok((rx.collect(), tx.collect()))
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.started.set(&self.info.name, false)
    }

    fn link(&mut self) -> Link {
        Link::Up { mbps: 10_000, full_duplex: true }
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
