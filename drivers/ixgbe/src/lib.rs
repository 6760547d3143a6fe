//! Poll-mode driver for the Intel 82599 10 Gigabit Ethernet controller with SFP+ modules, the X540, the X550, the X552 at a backplane, and
//! the virtual functions of these: of the family that Linux drives with ixgbe and ixgbevf. It has been seen to work on models of these cards, and on none of silicon.
//!
//! ```no_run
//! use pagewire_ethdev::{Burst, Pool, Port, PortConfig, RxQueue};
//! use pagewire_ixgbe::Ixgbe;
//! use pagewire_pci::{AddressSpace, AddressSpaceOptions};
//! use pagewire_pool::PoolConfig;
//!
//! let space = AddressSpace::new(AddressSpaceOptions::default())?;
//! let pool = Pool::new(&PoolConfig::default(), &space)?;
//! let mut port = Ixgbe::open(&space, "0000:01:00.0".parse()?)?;
//! let (mut rx, tx) = port.start(PortConfig::single_queue(pool))?;
//! let mut burst = Burst::new(32);
//! rx[0].rx_burst(&mut burst);
//! drop((rx, tx));
//! port.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Payload in another device's memory
//!
//! The datasheet advises against header split on the 82599, as unpredictable (7.1.10); it has been seen to work on the model, and a queue that
//! uses it warns. With header split the card writes headers into host memory and what follows them into a pool of its own, whose memory may be
//! another device's: a part of its BAR, or a dma-buf. The CPU reads and changes the header; the payload it can send, hand on and drop.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use pagewire_ethdev::{Burst, Pool, Port, PortConfig, RxOffloads, RxQueue, TxOffloads};
//! use pagewire_ixgbe::Ixgbe;
//! use pagewire_pci::{AddressSpace, AddressSpaceOptions};
//! use pagewire_pool::{DeviceMemory, PoolConfig};
//!
//! let space = AddressSpace::new(AddressSpaceOptions::default())?;
//! let mut port = Ixgbe::open(&space, "0000:01:00.0".parse()?)?;
//! // 16 MiB of the accelerator's BAR 2, which stays open for as long as the pool has it.
//! let accelerator = space.open("0000:02:00.0".parse()?)?.bar(2)?;
//! let memory = Arc::new(DeviceMemory::bar(&accelerator, 0..16 << 20)?);
//! let payload = PoolConfig { name: "payload".into(), fragments: 8192, headroom: 0, ..PoolConfig::default() };
//! let headers =
//!     PoolConfig { name: "headers".into(), fragment_size: 512, headroom: 64, ..PoolConfig::default() };
//!
//! let mut config = PortConfig::single_queue(Pool::with_provider(&payload, &space, memory.clone())?);
//! config.rx[0].headers = Some(Pool::new(&headers, &space)?);
//! config.rx_offloads = RxOffloads::HEADER_SPLIT;
//! config.tx_offloads = TxOffloads::MULTI_SEGS;
//! let (mut rx, tx) = port.start(config)?;
//!
//! // All in one segment: a packet's place is how far it is from the segment's first byte.
//! let segment = rx[0].pool().segments().remove(0);
//! let (first, begin) = (space.iova(&segment, 0)?, memory.offset(&segment).expect("it came from there"));
//! let mut burst = Burst::new(32);
//! rx[0].rx_burst(&mut burst);
//! for packet in burst.drain() {
//!     println!("headers: {:02x?}", packet.as_slice());
//!     for data in packet.segments().filter(|segment| !segment.is_readable()) {
//!         println!("{} bytes at {:#x} of the BAR", data.data_len(), begin + data.iova() - first);
//!     }
//! }
//! drop((rx, tx));
//! port.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Virtual functions
//!
//! ```no_run
//! use pagewire_ethdev::{FunctionConfig, Pool, Port, PortConfig};
//! use pagewire_ixgbe::Ixgbe;
//! # use pagewire_pci::{AddressSpace, AddressSpaceOptions};
//! # use pagewire_pool::PoolConfig;
//! # let space = AddressSpace::new(AddressSpaceOptions::default())?;
//! let mut card = Ixgbe::open(&space, "0000:01:00.0".parse()?)?;
//! let given = FunctionConfig { mac: Some("02:00:00:00:00:01".parse()?), trusted: false };
//! // A function may send longer frames than the port's MTU: 2 KiB or more whole, so that no other fragment is written to.
//! let wide = PoolConfig { headroom: 0, ..PoolConfig::default() };
//! let pool = Pool::new(&wide, &space)?;
//! let config = PortConfig { functions: vec![given, FunctionConfig::default()], ..PortConfig::single_queue(pool) };
//! let (_rx, _tx) = card.start(config)?;
//! loop {
//!     // Whoever drives a function, an `IxgbeVf` perhaps, waits for its answers.
//!     card.serve_functions()?;
//!     std::thread::sleep(std::time::Duration::from_millis(5));
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Rings, refill, reports and everything else that cards have in common is [`pagewire_ethdev::nic`]'s; here is the card.
//! Where things are: `card.rs` what the shared part calls, `registers.rs` and `statistics.rs` the tables, `reset.rs` and
//! `configure.rs` the initialisation in the datasheet's order (section 4.6), `queues.rs` and `descriptor.rs` the rings as the card
//! sees them, `interrupts.rs` what wakes who sleeps, `link.rs` the link, `sfp.rs` and `i2c.rs` the module, `eeprom.rs` and
//! `semaphore.rs` what is shared with the firmware, `filters.rs` addresses and VLANs, `flows.rs` flow rules. `functions/` looks after
//! a card's virtual functions, `vf/` is the driver of one, `messages.rs` what the two say to each other. `family.rs` has what the X540
//! and later ones differ in, `phy.rs` the PHY of 10GBASE-T, `backplane.rs` that of the X552, `firmware.rs` how the firmware of X550 and X552 is asked.
//! Section numbers are those of the *Intel 82599 10 GbE Controller Datasheet*, revision 3.4.
//!
//! A port whose cage is empty opens and starts; its link is down until there is a module. No module is refused: what is
//! not of a known kind is taken for limiting optics, with a warning. A module that can do 10 and 1 Gb/s is used at 10.

mod backplane;
mod card;
mod configure;
mod descriptor;
mod eeprom;
mod family;
mod filters;
mod firmware;
mod flows;
mod functions;
mod i2c;
mod interrupts;
mod link;
mod messages;
mod phy;
mod queues;
mod registers;
mod reset;
mod semaphore;
mod sfp;
mod statistics;
mod vf;

use pagewire_ethdev::nic::{DeviceId, Nic, NicRx, NicTx};

pub use card::Card82599;
pub use descriptor::{RxAdvanced, TxAdvanced, TxSwitched};
pub use vf::CardVf;

/// An 82599 port.
pub type Ixgbe = Nic<Card82599>;
/// A port of an 82599's virtual function.
pub type IxgbeVf = Nic<CardVf>;
/// Their receive queue.
pub type IxgbeRx = NicRx<RxAdvanced>;
/// The transmit queue of the card.
pub type IxgbeTx = NicTx<TxAdvanced>;
/// That of a virtual function.
pub type IxgbeVfTx = NicTx<TxSwitched>;

/// The driver's name.
pub const DRIVER: &str = "net_ixgbe";
/// The name of the one for virtual functions.
pub const DRIVER_VF: &str = "net_ixgbe_vf";

/// Devices the driver knows: those whose ports are SFP+ cages wired to the card's SFI, those with 10GBASE-T on the chip, and
/// the X552 whose PHY is for a backplane.
pub const DEVICES: &[DeviceId] = &[
    DeviceId { vendor: 0x8086, device: 0x10fb, name: "Intel 82599ES (SFI/SFP+)" },
    DeviceId { vendor: 0x8086, device: 0x1507, name: "Intel 82599 (SFP+, embedded)" },
    DeviceId { vendor: 0x8086, device: 0x1529, name: "Intel 82599 (SFP+ with FCoE)" },
    DeviceId { vendor: 0x8086, device: 0x154a, name: "Intel 82599 (SFP+, four ports)" },
    DeviceId { vendor: 0x8086, device: 0x154d, name: "Intel 82599 (SFP+, second generation)" },
    DeviceId { vendor: 0x8086, device: 0x1557, name: "Intel 82599EN (SFP+, one port)" },
    DeviceId { vendor: 0x8086, device: 0x1528, name: "Intel X540 (10GBASE-T)" },
    DeviceId { vendor: 0x8086, device: 0x1560, name: "Intel X540 (10GBASE-T, one port)" },
    DeviceId { vendor: 0x8086, device: 0x1563, name: "Intel X550 (10GBASE-T)" },
    DeviceId { vendor: 0x8086, device: 0x15d1, name: "Intel X550 (10GBASE-T, one port)" },
    DeviceId { vendor: 0x8086, device: 0x15ab, name: "Intel X552 (10GBASE-KR)" },
];

/// Virtual functions the driver knows.
pub const VF_DEVICES: &[DeviceId] = &[
    DeviceId { vendor: 0x8086, device: 0x10ed, name: "Intel 82599 virtual function" },
    DeviceId { vendor: 0x8086, device: 0x1515, name: "Intel X540 virtual function" },
    DeviceId { vendor: 0x8086, device: 0x1565, name: "Intel X550 virtual function" },
    DeviceId { vendor: 0x8086, device: 0x15a8, name: "Intel X552 virtual function" },
];
