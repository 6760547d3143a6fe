//! The 82599's virtual function as a [`Card`]: a pool's queues, and all else by asking the driver of the physical function.

mod mailbox;
mod registers;
mod statistics;

use std::cell::{Cell, RefCell};

use pagewire_ethdev::nic::{Card, Counter, Device, DeviceId, Filters, Register, RxSetup, TxSetup};
use pagewire_ethdev::{
    Capabilities, DescriptorLimits, Error, FlowLimits, Link, MacAddr, PortConfig, PortEvents, RssLimits,
    RxOffloads, TxOffloads,
};

use crate::card::MAX_MTU;
use crate::descriptor::{RxAdvanced, TxSwitched};
use crate::family::Family;
use crate::messages::*;
use crate::queues::{self, KIB, RxBlock, TxBlock};
use crate::registers::{rxdctl, txdctl};
use crate::{DRIVER_VF, VF_DEVICES, link};
use mailbox::Mailbox;
use registers::*;

/// Queues whose registers there are; the physical function grants two or four of them.
const QUEUES: u16 = 8;
/// How long the function may take to come out of reset.
const MILLIS: u64 = 100;

const RECEIVE: RxBlock = RxBlock {
    ring: [VFRDBAL, VFRDBAH, VFRDLEN, VFRDH, VFRDT],
    buffers: VFSRRCTL,
    control: VFRXDCTL,
    attributes: VFDCA_RXCTRL,
    push: VFSTATUS,
};
const TRANSMIT: TxBlock = TxBlock {
    ring: [VFTDBAL, VFTDBAH, VFTDLEN, VFTDH, VFTDT],
    control: VFTXDCTL,
    attributes: VFDCA_TXCTRL,
    push: VFSTATUS,
};

/// An 82599's virtual function.
pub struct CardVf {
    mailbox: Mailbox,
    /// As the physical function has it.
    granted: Granted,
    strip_vlan: bool,
    /// The address that the physical function knows it by.
    told: Cell<Option<MacAddr>>,
    /// Its receive queues that run, by bit.
    running: u32,
    /// VLANs that it has been told of.
    vlans: RefCell<Vec<u16>>,
    /// The link as it was last told of.
    link_up: bool,
}

/// What the physical function grants, and how it is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Granted {
    mac: Option<MacAddr>,
    version: u32,
    rx_queues: u16,
    tx_queues: u16,
}

impl Card for CardVf {
    type Rx = RxAdvanced;
    type Tx = TxSwitched;

    const DRIVER: &'static str = DRIVER_VF;
    const DEVICES: &'static [DeviceId] = VF_DEVICES;
    const EXPECTED: &'static str = "a virtual function of an Intel 82599 (8086:10ed), X540 (8086:1515), X550 (8086:1565) or \
                                    X552 (8086:15a8)";
    const BAR_LEN: usize = 0x4000;
    const BAR_LEN_TEXT: &'static str = "0x4000 or more";
    const LEAST_BUFFER: usize = KIB;
    const CAPABILITIES: Capabilities = Capabilities {
        rx_queues: QUEUES,
        tx_queues: QUEUES,
        rx_descriptors: DescriptorLimits { min: 64, max: 4096 },
        tx_descriptors: DescriptorLimits { min: 64, max: 4096 },
        rx_offloads: RxOffloads::all().difference(RxOffloads::LRO).difference(RxOffloads::HEADER_SPLIT),
        tx_offloads: TxOffloads::all(),
        max_mtu: MAX_MTU,
        multicast_addresses: MOST_GROUPS,
        extra_unicast_addresses: 0,
        // Key, table and types are the physical function's.
        rss: RssLimits::NONE,
        queue_stop: true,
        vlan_filter: true,
        flow: FlowLimits::NONE,
        promiscuous: false,
        functions: 0,
        rx_interrupts: None,
    };
    const COUNTERS: &'static [Counter] = statistics::COUNTERS;
    const RX_MISSED: &'static [&'static str] = &[];
    const RX_ERRORS: &'static [&'static str] = &[];
    const TX_ERRORS: &'static [&'static str] = &[];

    /// 4.2.2, and what Intel's drivers clear besides: it leaves the rings' registers alone.
    fn reset(device: &Device) -> Result<(), Error> {
        let registers = &device.registers;
        registers.write(VTEIMC, VECTORS);
        for queue in 0..QUEUES.into() {
            registers.write_at(VFTXDCTL, queue, 0);
            registers.write_at(VFRXDCTL, queue, 0);
        }
        registers.write(VFCTRL, VFCTRL_RST);
        let stopped = |register, enabled| {
            device.wait("reset of the virtual function", register, MILLIS, move |value| value & enabled == 0)
        };
        stopped(VFRXDCTL, rxdctl::ENABLE)?;
        stopped(VFTXDCTL, txdctl::ENABLE)?;
        for queue in 0..QUEUES.into() {
            registers.write_at(VFTDWBAL, queue, 0);
            registers.write_at(VFTDWBAH, queue, 0);
        }
        registers.write(VFPSRTYPE, 0);
        registers.write(VTEICR, VECTORS);
        Ok(())
    }

    fn open(device: &Device) -> Result<(CardVf, MacAddr), Error> {
        let mailbox = Mailbox::default();
        let granted = greet(device, &mailbox)?;
        let mac = granted.mac.unwrap_or_else(MacAddr::random_local);
        let told = Cell::new(granted.mac);
        let vlans = RefCell::default();
        Ok((CardVf { mailbox, granted, strip_vlan: false, told, running: 0, vlans, link_up: false }, mac))
    }

    fn capabilities(&self) -> Capabilities {
        let Granted { rx_queues, tx_queues, .. } = self.granted;
        Capabilities { rx_queues, tx_queues, ..Self::CAPABILITIES }
    }

    fn configure(&mut self, device: &Device, filters: &Filters, config: &PortConfig) -> Result<(), Error> {
        // The reset before has made the physical function forget everything, and it may be another driver's now.
        self.granted = greet(device, &self.mailbox)?;
        self.told.set(self.granted.mac);
        self.vlans.borrow_mut().clear();
        for (what, asked, granted) in [
            ("number of receive queues", config.rx.len(), self.granted.rx_queues),
            ("number of transmit queues", config.tx.len(), self.granted.tx_queues),
        ] {
            if asked > granted.into() {
                return Err(device.unsupported(what, asked, granted));
            }
        }
        if !config.rx.len().max(1).is_power_of_two() {
            let granted = self.granted.rx_queues;
            let limit =
                format!("a power of two of them, {granted} at most, since RSS tells them apart by bits");
            return Err(device.unsupported("number of receive queues", config.rx.len(), limit));
        }
        self.strip_vlan = config.rx_offloads.contains(RxOffloads::VLAN_STRIP);
        let longest = u32::from(config.mtu) + 14 + 4;
        self.mailbox.require(device, &[SET_FRAME, longest], "an MTU of", config.mtu)?;
        self.write_addresses(device, filters)?;
        self.write_multicast(device, filters)?;
        self.write_vlans(device, filters)?;
        self.write_modes(device, filters)?;
        self.running = 0;
        self.spread(device);
        Ok(())
    }

    /// RSS is the physical function's, and says what it found whether anybody asks or not.
    fn finds_out(config: &PortConfig) -> RxOffloads {
        config.rx_offloads | RxOffloads::RSS_HASH
    }

    /// The longest frame is the physical function's choice, not ours: the card is promised no more than there is.
    fn receive_buffer(&self, room: usize, _frame: usize) -> Option<usize> {
        queues::whole_buffer(room)
    }

    fn start_receive(&mut self, device: &Device, _: &Filters, setup: RxSetup) -> Result<(), Error> {
        RECEIVE.start(device, setup, true, self.strip_vlan)?;
        // What comes is led to it when its tail has been moved.
        self.running |= 1 << setup.queue;
        Ok(())
    }

    fn start_transmit(&mut self, device: &Device, setup: TxSetup) -> Result<(), Error> {
        TRANSMIT.start(device, setup)
    }

    fn stop_receive(&mut self, device: &Device, queue: usize) -> Result<(), Error> {
        self.running &= !(1 << queue);
        self.spread(device);
        RECEIVE.stop(device, queue)
    }

    fn write_redirection(&self, device: &Device, _queues: &[u16]) {
        self.spread(device);
    }

    fn enable(&mut self, device: &Device) {
        self.spread(device);
    }

    fn stop_transmit(&mut self, device: &Device, queue: usize) -> Result<(), Error> {
        TRANSMIT.stop(device, queue)
    }

    fn receive_tail(&self, queue: usize) -> (Register, usize) {
        (VFRDT, queue)
    }

    fn transmit_tail(&self, queue: usize) -> (Register, usize) {
        (VFTDT, queue)
    }

    fn link(&mut self, device: &Device) -> Link {
        self.mailbox.heed(device);
        match self.mailbox.status(device) & (vfmailbox::RSTI | vfmailbox::RSTD) {
            0 => link::decode(Family::of(device), device.registers.read(VFLINKS)),
            // Whatever the link is, it is not for us.
            _ => Link::Down,
        }
    }

    fn enable_interrupts(&mut self, device: &Device, _queues: usize) {
        let registers = &device.registers;
        registers.write(VTIVAR_MISC, VTIVAR_MISC_VECTOR_0);
        registers.write(VTEIAC, 0);
        registers.write(VTEIAM, 0);
        registers.write(VTEICR, VECTORS);
        registers.write(VTEIMS, 1);
    }

    fn take_events(&mut self, device: &Device) -> PortEvents {
        device.registers.write(VTEICR, 1);
        let up = self.link(device).is_up();
        if std::mem::replace(&mut self.link_up, up) == up { PortEvents::empty() } else { PortEvents::LINK }
    }

    /// The physical function was reset, by its driver's will or without: it knows nothing of us any more.
    fn check(&self, device: &Device) -> Result<(), Error> {
        match self.mailbox.status(device) & (vfmailbox::RSTI | vfmailbox::RSTD) {
            0 => Ok(()),
            _ => Err(Error::WasReset { port: device.name.clone() }),
        }
    }

    fn write_modes(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        if self.granted.version < VERSION_1_2 {
            // Without the question broadcasts and hashed groups are what there is.
            return match filters.all_multicast {
                false => Ok(()),
                true => Err(device.unsupported("receiving all groups", "of", "mailbox messages before 1.2")),
            };
        }
        let (mode, asked) = match filters.all_multicast {
            true => (mode::ALL_GROUPS, "all groups"),
            false => (mode::GROUPS, "its groups"),
        };
        let answer = self.mailbox.require(device, &[SET_MODE, mode], "receiving", asked)?;
        // Linux's driver for the card grants less than was asked for, and says how much.
        match answer[1] >= mode {
            true => Ok(()),
            false => {
                Err(Error::Refused { port: device.name.clone(), what: "receiving", asked: asked.into() })
            }
        }
    }

    fn write_addresses(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        if self.told.get() == Some(filters.mac) {
            return Ok(());
        }
        let (low, high) = Filters::words(filters.mac);
        self.mailbox.require(device, &[SET_MAC, low, high], "the address", filters.mac)?;
        self.told.set(Some(filters.mac));
        Ok(())
    }

    fn write_multicast(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        let mut question = [0; WORDS];
        question[0] = SET_MULTICAST | (filters.multicast.len() as u32) << INFO_SHIFT;
        for (index, group) in filters.multicast.iter().take(MOST_GROUPS).enumerate() {
            question[1 + index / 2] |= Filters::hash(*group) << (16 * (index % 2));
        }
        self.mailbox.require(device, &question, "groups:", filters.multicast.len()).map(|_| ())
    }

    fn write_vlans(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        // There is no asking for all: without a list there are only frames without tag.
        let wanted = filters.vlans.as_deref().unwrap_or_default();
        let mut told = self.vlans.borrow_mut();
        let ask = |vlan: u16, add: u32| {
            let question = [SET_VLAN | add << INFO_SHIFT, vlan.into()];
            self.mailbox.require(device, &question, "VLAN", vlan)
        };
        for vlan in wanted {
            if !told.contains(vlan) {
                ask(*vlan, 1)?;
                told.push(*vlan);
            }
        }
        while let Some(at) = told.iter().position(|vlan| !wanted.contains(vlan)) {
            ask(told[at], 0)?;
            told.remove(at);
        }
        Ok(())
    }
}

impl CardVf {
    /// 7.10.2: of an entry in the physical function's table, as many bits count as tell queues apart that all run. Those above get nothing.
    fn spread(&self, device: &Device) {
        let bits = self.running.trailing_ones().max(1).ilog2();
        device.registers.write(VFPSRTYPE, bits << VFPSRTYPE_RQPL_SHIFT);
    }
}

/// Say that we are there: reset, version, queues.
fn greet(device: &Device, mailbox: &Mailbox) -> Result<Granted, Error> {
    mailbox.wait_until_ready(device)?;
    let (granted, answer) = mailbox.ask(device, &[RESET])?;
    let mac = Some(Filters::address(answer[1], answer[2])).filter(|mac| granted && mac.is_valid_unicast());
    let mut granted = Granted { mac, version: 0, rx_queues: 1, tx_queues: 1 };
    for (name, version) in VERSIONS {
        if mailbox.ask(device, &[NEGOTIATE, version])?.0 {
            log::debug!("{}: the physical function speaks version {name}", device.name);
            granted.version = version;
            break;
        }
    }
    if granted.version >= VERSION_1_1 {
        let answer = mailbox.require(device, &[GET_QUEUES], "telling", "how many queues there are")?;
        let [tx, rx] = [answer[1], answer[2]].map(|queues| queues.clamp(1, QUEUES.into()) as u16);
        (granted.tx_queues, granted.rx_queues) = (tx, rx);
    }
    Ok(granted)
}
