//! Our own driver at the other end of a guest's cable: it drives a model in this process, which is wired back to back to the guest's.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pagewire_ethdev::{
    Burst, Chain, Packet, PacketFlags, Pool, Port, PortConfig, RxOffloads, RxQueue, TxOffloads, TxQueue,
};
use pagewire_hugepages::PageSize;
use pagewire_ixgbe::{Ixgbe, IxgbeRx, IxgbeTx};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::PoolConfig;

use crate::model::Model;

const PATIENCE: Duration = Duration::from_secs(30);

/// The port of a model at a socket, and a pool in its address space, which needs no huge pages.
pub(crate) fn open(socket: &Path) -> Result<(Ixgbe, Pool)> {
    let options = AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..AddressSpaceOptions::default() };
    let space = AddressSpace::new(options)?;
    let pool = Pool::new(&PoolConfig { backing: PageSize::Size4K, ..PoolConfig::default() }, &space)?;
    Ok((Ixgbe::with_function(&space, space.open_vfio_user(socket)?)?, pool))
}

/// A started port of our driver's, with every offload that does not change packets' number.
pub struct Peer {
    // The queues go first, the card last.
    rx: IxgbeRx,
    tx: IxgbeTx,
    arrived: VecDeque<Packet>,
    /// Where the packets that it sends come from.
    pool: Pool,
    /// The port.
    pub port: Ixgbe,
    /// The card.
    pub model: Model,
}

impl Peer {
    pub(crate) fn start(socket: &Path, model: Model) -> Result<Self> {
        let (mut port, pool) = open(socket)?;
        let received =
            PoolConfig { name: "received".into(), backing: PageSize::Size4K, ..PoolConfig::default() };
        let config = PortConfig {
            rx_offloads: RxOffloads::IP_CSUM | RxOffloads::L4_CSUM | RxOffloads::VLAN_STRIP,
            tx_offloads: TxOffloads::all(),
            ..PortConfig::single_queue(Pool::new(&received, pool.space())?)
        };
        let (mut rx, mut tx) = port.start(config)?;
        Ok(Self { rx: rx.remove(0), tx: tx.remove(0), arrived: VecDeque::new(), pool, port, model })
    }

    /// A packet of a frame, in as few segments as hold it.
    pub fn packet(&mut self, frame: &[u8]) -> Result<Packet> {
        let room = self.pool.fragment_size() - usize::from(self.pool.headroom());
        let mut segments = frame.chunks(room).map(|bytes| -> Result<Packet> {
            let mut packet = self.pool.alloc_packet().context("the pool to send from is empty")?;
            packet.extend_from_slice(bytes)?;
            Ok(packet)
        });
        let mut chain = Chain::new(segments.next().context("an empty frame")??);
        for segment in segments {
            ensure!(chain.push(segment?).is_ok(), "a packet of {} bytes has too many segments", frame.len());
        }
        Ok(chain.finish())
    }

    /// Sends a packet, or says why it cannot.
    pub fn send(&mut self, packet: Packet) -> Result<()> {
        self.tx.check(&packet)?;
        let mut burst = Burst::new(1);
        ensure!(burst.push(packet).is_ok(), "a new burst has room");
        let until = Instant::now() + PATIENCE;
        while self.tx.tx_burst(&mut burst) == 0 {
            ensure!(Instant::now() < until, "the transmit ring took no packet within {PATIENCE:?}");
            self.tx.reclaim();
            std::thread::yield_now();
        }
        Ok(())
    }

    /// The next packet, if one has come.
    pub fn poll(&mut self) -> Option<Packet> {
        if self.arrived.is_empty() {
            let mut burst = Burst::new(64);
            self.rx.rx_burst(&mut burst);
            self.arrived.extend(burst.drain());
        }
        self.arrived.pop_front()
    }

    /// The next packet.
    pub fn receive(&mut self) -> Result<Packet> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(packet) = self.poll() {
                return Ok(packet);
            }
            if Instant::now() > until {
                bail!("nothing came within {PATIENCE:?}; {:?}", self.port.stats());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Whether a packet waits to be taken.
    pub fn has_more(&mut self) -> bool {
        if let Some(packet) = self.poll() {
            self.arrived.push_front(packet);
        }
        !self.arrived.is_empty()
    }

    /// Stops the port, with no packet out; an error if fragments are, or if the card was misused.
    pub fn finish(self) -> Result<()> {
        let Self { mut rx, mut tx, arrived, mut pool, mut port, model } = self;
        tx.reclaim();
        let received = rx.pool().monitor();
        drop((rx, tx, arrived));
        port.stop()?;
        pool.trim();
        let out = (pool.stats().inflight(), received.stats().inflight());
        ensure!(out == (0, 0), "fragments are out after the stop: {out:?} of those to send and to receive");
        model.unharmed().context("the card that we drive")
    }
}

/// What a card says of a packet whose checksums it has found right.
pub const GOOD: PacketFlags = PacketFlags::RX_IP_CSUM_GOOD.union(PacketFlags::RX_L4_CSUM_GOOD);
