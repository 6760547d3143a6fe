//! A card made of memory, for the tests of drivers; there with the feature `mock` only, which is for `dev-dependencies`.

// What a test bench cannot do ends the test.
#![allow(clippy::missing_panics_doc)]

use std::marker::PhantomData;
use std::ops::Range;

use pagewire_pci::mock::{self, Registers};
use pagewire_pci::{AddressSpace, AddressSpaceOptions, Function};
use pagewire_pool::{Burst, Chain, Packet, PageSize, Pool, PoolConfig};

use super::card::Card;
use super::port::Nic;
use super::rx::NicRx;
use super::tx::NicTx;
use crate::config::{PortConfig, RxOffloads};
use crate::error::Error;
use crate::port::Port;

/// A card of memory that is not opened by its driver yet.
pub struct Bench<C: Card> {
    /// Where its driver's memory is.
    pub space: AddressSpace,
    /// The card's side of its registers.
    pub registers: Registers,
    function: Option<Function>,
    card: PhantomData<C>,
}

impl<C: Card> Bench<C> {
    /// The first of the driver's devices. `doorbells` are the pages of its registers that are mapped; `behaviour` is asked about
    /// every other.
    pub fn new(doorbells: Range<u64>, behaviour: impl mock::Card) -> Bench<C> {
        let options =
            AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..AddressSpaceOptions::default() };
        let space = AddressSpace::new(options).expect("an address space");
        let ids = (C::DEVICES[0].vendor, C::DEVICES[0].device);
        let (function, registers) = mock::open(&space, ids, doorbells, behaviour).expect("a function");
        Bench { space, registers, function: Some(function), card: PhantomData }
    }

    /// Open it, once.
    pub fn open(&mut self) -> Result<Nic<C>, Error> {
        Nic::with_function(&self.space, self.function.take().expect("opened once"))
    }

    /// A pool of small pages.
    pub fn pool(&self, fragments: usize) -> Pool {
        let config = PoolConfig { fragments, backing: PageSize::Size4K, ..PoolConfig::default() };
        Pool::new(&config, &self.space).expect("memory for a pool")
    }

    /// Every offload that the card has and that needs no pool, rings of 64, an MTU of 9,000.
    pub fn config(&self, fragments: usize) -> PortConfig {
        let mut config = PortConfig::single_queue(self.pool(fragments));
        (config.rx[0].descriptors, config.tx[0].descriptors) = (64, 64);
        config.mtu = 9000;
        /// What needs pools of its own, or larger ones.
        const FEWER: RxOffloads = RxOffloads::HEADER_SPLIT.union(RxOffloads::LRO);
        let can = C::CAPABILITIES;
        (config.rx_offloads, config.tx_offloads) = (can.rx_offloads - FEWER, can.tx_offloads);
        config
    }

    /// Open it and start it with [`config`](Bench::config).
    pub fn start(&mut self, fragments: usize) -> (Nic<C>, NicRx<C::Rx>, NicTx<C::Tx>) {
        let mut port = self.open().expect("a card that can be opened");
        let (mut rx, mut tx) = port.start(self.config(fragments)).expect("a card that can be started");
        (port, rx.remove(0), tx.remove(0))
    }
}

/// A packet of segments of these lengths.
pub fn packet(pool: &mut Pool, lengths: &[usize]) -> Packet {
    let mut segments = lengths.iter().map(|&len| {
        let mut packet = pool.alloc_packet().expect("a pool that is large enough");
        packet.extend_from_slice(&vec![0; len]).expect("a segment that fits");
        packet
    });
    let mut chain = Chain::new(segments.next().expect("a segment"));
    segments.for_each(|segment| chain.push(segment).expect("few segments"));
    chain.finish()
}

/// A burst of one.
pub fn burst(packet: Packet) -> Burst {
    let mut burst = Burst::new(1);
    burst.push(packet).expect("an empty burst has room");
    burst
}

/// SplitMix64: the same sequence for the same seed.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// Seeded by the time, or by PAGEWIRE_SEED to see a failure again; says which.
    #[expect(clippy::new_without_default, reason = "no two are the same")]
    pub fn new() -> Random {
        let now = || std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
        let seed = std::env::var("PAGEWIRE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
        println!("PAGEWIRE_SEED={seed}");
        Random(seed)
    }

    /// The sequence of this seed: one that another thread goes through, say.
    pub fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ n >> 31
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The least there is of a card: every register is memory.
#[cfg(test)]
pub(super) mod plain {
    use super::super::{Counter, Device, DeviceId, Encoded, Filters, Register, Request, RxSetup, TxSetup};
    use super::super::{RxFormat, TxFormat};
    use super::*;
    use crate::config::{Capabilities, DescriptorLimits, RssLimits, TxOffloads};
    use crate::flow::FlowLimits;
    use crate::interrupt::PortEvents;
    use crate::link::Link;
    use crate::mac::MacAddr;

    crate::registers! {
        RDT 0x2000 [8 x 4] RW "-" "Receive tails";
        TDT 0x3000 [8 x 4] RW "-" "Transmit tails";
    }

    pub(crate) struct Memory;
    impl mock::Card for Memory {}

    pub(crate) type Bench = super::Bench<Plain>;

    pub(crate) fn bench() -> Bench {
        Bench::new(0x2000..0x4000, Memory)
    }

    pub(crate) struct Rx;
    impl Rx {
        pub(crate) const COALESCED: u64 = 1 << 3;
    }
    impl RxFormat for Rx {
        const DONE: u64 = 1;
        const END: u64 = 2;
        const BROKEN: u64 = 1 << 31;
        fn describe([first, _]: [u64; 2], _: RxOffloads, packet: &mut Packet) {
            packet.set_rss_hash(first as u32, crate::RssTypes::IPV4);
        }
        fn header([first, _]: [u64; 2]) -> u16 {
            (first >> 48) as u16
        }
        fn goes_on([first, status]: [u64; 2]) -> Option<u32> {
            (status & Rx::COALESCED != 0).then_some((first >> 32 & 0xffff) as u32)
        }
    }

    pub(crate) struct Tx;
    impl TxFormat for Tx {
        const DONE: u64 = 1 << 32;
        const END: u64 = 1 << 24;
        const REPORT: u64 = 1 << 27;
        const SHORTEST: usize = 17;
        const MAX_DATA: usize = 0xffff;
        const MAX_DESCRIPTORS: u32 = 40;
        const MAX_SEGMENTED: usize = 0xffff;
        const SECOND_CONTEXT: u64 = 1 << 36;
        const DATA: u64 = 0;
        const PACKET_LEN: u32 = 64;
        fn encode(request: &Request) -> Option<Encoded> {
            Some(Encoded { options: 1 << 41, context: Some([request.l3_len.into(), 1 << 29]) })
        }
        fn report(_: Option<[u64; 2]>) -> [u64; 2] {
            [0, Self::REPORT]
        }
    }

    pub(crate) struct Plain;
    impl Card for Plain {
        type Rx = Rx;
        type Tx = Tx;
        const DRIVER: &'static str = "plain";
        const DEVICES: &'static [DeviceId] = &[DeviceId { vendor: 1, device: 2, name: "memory" }];
        const EXPECTED: &'static str = "memory";
        const BAR_LEN: usize = 0x4000;
        const BAR_LEN_TEXT: &'static str = "0x4000";
        const LEAST_BUFFER: usize = 0;
        const CAPABILITIES: Capabilities = Capabilities {
            rx_queues: 4,
            tx_queues: 4,
            rx_descriptors: DescriptorLimits { min: 64, max: 4096 },
            tx_descriptors: DescriptorLimits { min: 64, max: 4096 },
            rx_offloads: RxOffloads::all(),
            tx_offloads: TxOffloads::all(),
            max_mtu: 9000,
            multicast_addresses: 2,
            extra_unicast_addresses: 2,
            rss: RssLimits::NONE,
            queue_stop: false,
            vlan_filter: false,
            flow: FlowLimits::NONE,
            promiscuous: true,
            functions: 0,
            rx_interrupts: None,
        };
        const COUNTERS: &'static [Counter] = &[];
        const RX_MISSED: &'static [&'static str] = &[];
        const RX_ERRORS: &'static [&'static str] = &[];
        const TX_ERRORS: &'static [&'static str] = &[];

        fn reset(_: &Device) -> Result<(), Error> {
            Ok(())
        }
        fn open(_: &Device) -> Result<(Plain, MacAddr), Error> {
            Ok((Plain, MacAddr([2; 6])))
        }
        fn configure(&mut self, _: &Device, _: &Filters, _: &PortConfig) -> Result<(), Error> {
            Ok(())
        }
        fn receive_buffer(&self, room: usize, _: usize) -> Option<usize> {
            Some(room / 1024 * 1024)
        }
        fn header_buffer(room: usize) -> Option<usize> {
            Some(room)
        }
        fn coalesced(_: usize) -> u16 {
            4
        }
        fn start_receive(&mut self, _: &Device, _: &Filters, _: RxSetup) -> Result<(), Error> {
            Ok(())
        }
        fn start_transmit(&mut self, _: &Device, _: TxSetup) -> Result<(), Error> {
            Ok(())
        }
        fn receive_tail(&self, queue: usize) -> (Register, usize) {
            (RDT, queue)
        }
        fn transmit_tail(&self, queue: usize) -> (Register, usize) {
            (TDT, queue)
        }
        fn link(&mut self, _: &Device) -> Link {
            Link::Down
        }
        fn enable_interrupts(&mut self, _: &Device, _: usize) {}
        fn take_events(&mut self, _: &Device) -> PortEvents {
            PortEvents::empty()
        }
        fn write_modes(&self, _: &Device, _: &Filters) -> Result<(), Error> {
            Ok(())
        }
        fn write_addresses(&self, _: &Device, _: &Filters) -> Result<(), Error> {
            Ok(())
        }
        fn write_multicast(&self, _: &Device, _: &Filters) -> Result<(), Error> {
            Ok(())
        }
    }
}
