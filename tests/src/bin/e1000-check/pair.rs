//! Two ports joined by the lab's hub: what one sends, the other receives, in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pagewire_e1000::{E1000, E1000Rx, E1000Tx};
use pagewire_ethdev::{
    Burst, Chain, MacAddr, Packet, PacketFlags, Pool, Port, PortConfig, RxOffloads, RxQueue, RxQueueConfig,
    TxOffloads, TxQueue, TxQueueConfig,
};
use pagewire_pci::{Address, AddressSpace, AddressSpaceOptions};
use pagewire_pool::{PoolConfig, PoolMonitor, Provider};

use crate::Cards;

/// Many times what a frame needs through the hub on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How a port is started.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) mtu: u16,
    pub(crate) rx_offloads: RxOffloads,
    pub(crate) tx_offloads: TxOffloads,
    pub(crate) rx_ring: u32,
    pub(crate) tx_ring: u32,
    pub(crate) promiscuous: bool,
    /// The receive queue's pool.
    pub(crate) pool: PoolConfig,
    /// Where its memory comes from, if not from pages.
    pub(crate) provider: Option<Arc<dyn Provider>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mtu: 1500,
            rx_offloads: RxOffloads::empty(),
            tx_offloads: TxOffloads::empty(),
            rx_ring: 512,
            tx_ring: 512,
            promiscuous: true,
            pool: PoolConfig { fragments: 1024, name: "receive".into(), ..PoolConfig::default() },
            provider: None,
        }
    }
}

impl Options {
    pub(crate) fn config(&self, space: &AddressSpace) -> Result<PortConfig> {
        let pool = match &self.provider {
            Some(provider) => Pool::with_provider(&self.pool, space, provider.clone())?,
            None => Pool::new(&self.pool, space)?,
        };
        Ok(PortConfig {
            rx: vec![RxQueueConfig::new(pool, self.rx_ring)],
            tx: vec![TxQueueConfig { descriptors: self.tx_ring }],
            mtu: self.mtu,
            rx_offloads: self.rx_offloads,
            tx_offloads: self.tx_offloads,
            promiscuous: self.promiscuous,
            ..PortConfig::default()
        })
    }
}

/// A started port. Its queues are dropped first.
pub(crate) struct Side {
    pub(crate) rx: E1000Rx,
    pub(crate) tx: E1000Tx,
    pub(crate) port: E1000,
    /// Where the packets it sends come from.
    pub(crate) packets: Pool,
    /// Of the receive queue's pool.
    pub(crate) receive_pool: PoolMonitor,
}

impl Side {
    pub(crate) fn open(space: &AddressSpace, card: Address, options: &Options) -> Result<Side> {
        Side::start(space, E1000::open(space, card)?, options)
    }

    pub(crate) fn start(space: &AddressSpace, mut port: E1000, options: &Options) -> Result<Side> {
        let config = options.config(space)?;
        let receive_pool = config.rx[0].pool.monitor();
        let (mut rx, mut tx) = port.start(config)?;
        let (rx, tx) = (rx.remove(0), tx.remove(0));
        let start = Instant::now();
        while !port.link().is_up() {
            ensure!(start.elapsed() < PATIENCE, "no link on {}", port.info().name);
            std::thread::sleep(Duration::from_millis(1));
        }
        let sending = PoolConfig { fragments: 8192, name: "send".into(), ..PoolConfig::default() };
        Ok(Side { rx, tx, port, packets: Pool::new(&sending, space)?, receive_pool })
    }

    pub(crate) fn mac(&self) -> MacAddr {
        self.port.info().mac
    }

    /// A packet of these segments.
    pub(crate) fn packet(&mut self, segments: &[&[u8]]) -> Result<Packet> {
        let mut chain: Option<Chain> = None;
        for bytes in segments {
            let mut packet = self.packets.alloc_packet().context("the pool to send from is empty")?;
            packet.extend_from_slice(bytes)?;
            match &mut chain {
                None => chain = Some(Chain::new(packet)),
                Some(chain) => chain.push(packet).map_err(|_| anyhow::anyhow!("too many segments"))?,
            }
        }
        Ok(chain.context("no segment")?.finish())
    }

    /// A packet of a frame, cut into segments of at most `most` bytes.
    pub(crate) fn cut(&mut self, frame: &[u8], most: usize) -> Result<Packet> {
        self.packet(&frame.chunks(most).collect::<Vec<_>>())
    }

    /// Sends one packet. Returns the errors that the queue counted for it.
    pub(crate) fn try_send(&mut self, packet: Packet) -> Result<u64> {
        let before = self.port.tx_queue_stats()[0].errors;
        let mut burst = Burst::new(1);
        burst.push(packet).expect("an empty burst has room");
        ensure!(self.tx.tx_burst(&mut burst) == 1 && burst.is_empty(), "the ring takes no packet");
        Ok(self.port.tx_queue_stats()[0].errors - before)
    }

    pub(crate) fn send(&mut self, packet: Packet) -> Result<()> {
        ensure!(self.try_send(packet)? == 0, "a good packet was counted as an error");
        Ok(())
    }

    /// Sends a frame as it is, in as few segments as it fits in.
    pub(crate) fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        let packet = self.cut(frame, 1792)?;
        self.send(packet)
    }

    /// The next packet.
    pub(crate) fn receive(&mut self) -> Result<Packet> {
        let mut burst = Burst::new(1);
        let start = Instant::now();
        while self.rx.rx_burst(&mut burst) == 0 {
            if start.elapsed() > PATIENCE {
                let stats = self.port.stats();
                bail!("{} received nothing; {stats:?}", self.port.info().name);
            }
        }
        burst.drain().next().context("a burst of 1 is empty")
    }

    /// The next frame's bytes.
    pub(crate) fn receive_frame(&mut self) -> Result<Vec<u8>> {
        bytes(&self.receive()?)
    }

    /// The next frame has to be this one.
    pub(crate) fn expect(&mut self, frame: &[u8]) -> Result<PacketFlags> {
        let packet = self.receive()?;
        same(&bytes(&packet)?, frame)?;
        Ok(packet.flags())
    }

    /// A counter of the port, by name.
    pub(crate) fn xstat(&mut self, name: &str) -> Result<u64> {
        let stat = self.port.xstats().into_iter().find(|stat| stat.name == name);
        Ok(stat.with_context(|| format!("no counter {name}"))?.value)
    }

    /// Drops the queues and stops the port; every fragment has to be back.
    pub(crate) fn stop(self) -> Result<E1000> {
        let Side { rx, tx, mut port, mut packets, receive_pool } = self;
        drop((rx, tx));
        port.stop()?;
        packets.trim();
        // What was received and sent on has come home to this thread, not to a pool that has gone with its queue.
        pagewire_pool::flush_thread();
        let left = (packets.stats().inflight(), receive_pool.stats().inflight());
        ensure!(left == (0, 0), "fragments are still out after the stop: sent, received {left:?}");
        Ok(port)
    }
}

/// Two started ports in one address space.
pub(crate) struct Pair {
    pub(crate) a: Side,
    pub(crate) b: Side,
    pub(crate) space: AddressSpace,
}

impl Pair {
    /// The same options for both.
    pub(crate) fn new(cards: &Cards, options: &Options) -> Result<Pair> {
        Pair::with(cards, options, options)
    }

    pub(crate) fn with(cards: &Cards, a: &Options, b: &Options) -> Result<Pair> {
        let space = AddressSpace::new(AddressSpaceOptions::default())?;
        let (a, b) = (Side::open(&space, cards.a, a)?, Side::open(&space, cards.b, b)?);
        Ok(Pair { a, b, space })
    }

    /// Sends a frame from A and says whether B receives it, unchanged. A broadcast behind it settles the matter: the hub
    /// keeps the order.
    pub(crate) fn passes(&mut self, sent: &[u8]) -> Result<bool> {
        self.a.send_frame(sent)?;
        let marker = frame(MacAddr::BROADCAST, self.a.mac(), 60, 0xffff_ffff);
        self.a.send_frame(&marker)?;
        let first = self.b.receive_frame()?;
        if first == marker {
            return Ok(false);
        }
        same(&first, sent)?;
        self.b.expect(&marker)?;
        Ok(true)
    }

    pub(crate) fn stop(self) -> Result<()> {
        self.a.stop()?;
        self.b.stop()?;
        Ok(())
    }
}

/// A frame of `len` bytes from 14 on, of an EtherType for experiments; `number` decides its content.
pub(crate) fn frame(to: MacAddr, from: MacAddr, len: usize, number: u32) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[0x88, 0xb5], &number.to_be_bytes()].concat();
    let mut random = Random(u64::from(number) << 16 | len as u64);
    while frame.len() < len {
        frame.push(random.next() as u8);
    }
    frame.truncate(len);
    frame
}

pub(crate) fn bytes(packet: &Packet) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    packet.copy_to(&mut bytes).context("an unreadable segment")?;
    ensure!(bytes.len() == packet.len(), "{} bytes in a packet of {}", bytes.len(), packet.len());
    Ok(bytes)
}

/// An error that says where two frames differ.
pub(crate) fn same(found: &[u8], expected: &[u8]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    let part = |bytes: &[u8]| format!("{:02x?}", &bytes[at.saturating_sub(2)..bytes.len().min(at + 8)]);
    bail!(
        "a frame of {} bytes came where one of {} was expected; they differ from byte {at} on: {} and {}",
        found.len(),
        expected.len(),
        part(found),
        part(expected)
    )
}

/// SplitMix64: the same sequence each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ n >> 31
    }

    /// One of `low..=high`.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }
}
