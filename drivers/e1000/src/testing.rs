//! A card made of memory, which does as it is told by a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pagewire_ethdev::{Burst, Chain, Error, Packet, Pool, Port, PortConfig, RxOffloads, TxOffloads};
use pagewire_pci::mock::{self, Card, Registers};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{PageSize, PoolConfig};

use crate::registers::*;
use crate::rx::E1000Rx;
use crate::tx::E1000Tx;
use crate::{DEVICES, E1000};

/// How the card misbehaves: any of these.
pub(crate) mod fault {
    /// CTRL.RST never clears.
    pub(crate) const STAYS_IN_RESET: u32 = 1;
    /// The EEPROM is never read.
    pub(crate) const NO_EEPROM: u32 = 2;
    /// A reset that clears nothing.
    pub(crate) const RESETS_NOTHING: u32 = 4;
    /// Every register outside the rings' pages reads as all ones.
    pub(crate) const ALL_ONES: u32 = 8;
    /// Statistics read as all ones.
    pub(crate) const ALL_ONES_STATISTICS: u32 = 16;
    /// The PHY answers nothing and DMA never ends.
    pub(crate) const SLOW: u32 = 32;
}

/// Faults that the card has now.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<AtomicU32>);

impl Faults {
    pub(crate) fn set(&self, faults: u32) {
        self.0.store(faults, Ordering::Relaxed);
    }

    fn has(&self, fault: u32) -> bool {
        self.0.load(Ordering::Relaxed) & fault != 0
    }
}

impl Card for Faults {
    fn read(&self, registers: &Registers, offset: u64) -> u32 {
        if self.has(fault::ALL_ONES) {
            return u32::MAX;
        }
        let stored = registers.get(offset);
        match offset as usize {
            at if at == STATUS.offset => {
                let disabled = registers.get(CTRL.offset as u64) & ctrl::GIO_MASTER_DISABLE != 0;
                let busy = !disabled || self.has(fault::SLOW);
                status::LU
                    | status::FD
                    | 2 << status::SPEED_SHIFT
                    | if busy { status::GIO_MASTER_ENABLE } else { 0 }
            }
            at if at == EECD.offset && !self.has(fault::NO_EEPROM) => stored | EECD_AUTO_RD,
            at if at == MDIC.offset && !self.has(fault::SLOW) => stored | mdic::READY,
            0x4000..=0x40ff if self.has(fault::ALL_ONES_STATISTICS) => u32::MAX,
            _ => stored,
        }
    }

    fn write(&self, registers: &Registers, offset: u64, value: u32) {
        registers.set(offset, value);
        if offset == CTRL.offset as u64 && value & ctrl::RST != 0 && !self.has(fault::STAYS_IN_RESET) {
            registers.set(offset, 0);
            if !self.has(fault::RESETS_NOTHING) {
                registers.set(RDLEN.offset as u64, 0);
            }
        }
    }
}

/// A card of memory that is not opened by the driver yet.
pub(crate) struct Bench {
    pub(crate) space: AddressSpace,
    pub(crate) registers: Registers,
    pub(crate) faults: Faults,
    function: Option<pagewire_pci::Function>,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let options =
            AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..AddressSpaceOptions::default() };
        let space = AddressSpace::new(options).unwrap();
        let faults = Faults::default();
        let ids = (DEVICES[0].vendor, DEVICES[0].device);
        // The pages of the rings' registers, whose tails are doorbells.
        let (function, registers) = mock::open(&space, ids, 0x2000..0x4000, faults.clone()).unwrap();
        registers.set(RAL.offset as u64, 0x0000_0002);
        registers.set(RAH.offset as u64, RAH_AV | 0x0100);
        Bench { space, registers, faults, function: Some(function) }
    }

    pub(crate) fn open(&mut self) -> Result<E1000, Error> {
        E1000::with_function(&self.space, self.function.take().expect("opened once"))
    }

    pub(crate) fn pool(&self, fragments: usize) -> Pool {
        let config = PoolConfig { fragments, backing: PageSize::Size4K, ..PoolConfig::default() };
        Pool::new(&config, &self.space).unwrap()
    }

    /// A port with every offload and rings of 64, started for an MTU of 9,000.
    pub(crate) fn start(&mut self, fragments: usize) -> (E1000, E1000Rx, E1000Tx) {
        let mut port = self.open().unwrap();
        let (mut rx, mut tx) = port.start(self.config(fragments)).unwrap();
        (port, rx.remove(0), tx.remove(0))
    }

    pub(crate) fn config(&self, fragments: usize) -> PortConfig {
        let mut config = PortConfig::single_queue(self.pool(fragments));
        (config.rx[0].descriptors, config.tx[0].descriptors) = (64, 64);
        config.mtu = 9000;
        config.rx_offloads = RxOffloads::all();
        config.tx_offloads = TxOffloads::all();
        config
    }
}

/// A packet of segments of these lengths.
pub(crate) fn packet(pool: &mut Pool, lengths: &[usize]) -> Packet {
    let mut segments = lengths.iter().map(|&len| {
        let mut packet = pool.alloc_packet().expect("a pool that is large enough");
        packet.extend_from_slice(&vec![0; len]).unwrap();
        packet
    });
    let mut chain = Chain::new(segments.next().expect("a segment"));
    segments.for_each(|segment| chain.push(segment).expect("few segments"));
    chain.finish()
}

/// A burst of one.
pub(crate) fn burst(packet: Packet) -> Burst {
    let mut burst = Burst::new(1);
    burst.push(packet).expect("an empty burst has room");
    burst
}

/// SplitMix64: the same sequence for the same seed.
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by the time, or by PAGEWIRE_SEED to see a failure again; says which.
    pub(crate) fn new() -> Random {
        let now = || std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
        let seed = std::env::var("PAGEWIRE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
        println!("PAGEWIRE_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ n >> 31
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
