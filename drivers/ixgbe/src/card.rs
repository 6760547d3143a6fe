//! The 82599 as a [`Card`].

use pagewire_ethdev::nic::{Card, Counter, Device, DeviceId, Filters, Register, RxSetup, TxSetup};
use pagewire_ethdev::{
    Capabilities, DescriptorLimits, Error, Link, MacAddr, PortConfig, PortEvents, RssLimits, RxOffloads,
    TxOffloads,
};

use crate::configure;
use crate::descriptor::{RxAdvanced, TxAdvanced};
use crate::family::{Family, LARGEST_REDIRECTION, Media, Redirection};
use crate::filters::{self, EXTRA_UNICAST, MULTICAST};
use crate::functions::{FUNCTIONS, Functions};
use crate::link::{self, Cage};
use crate::registers::{EICR, EIMS, QUEUE_CAUSES, TDT, cause};
use crate::{DEVICES, DRIVER, backplane, eeprom, flows, interrupts, phy, queues, reset, statistics};

/// Longest frame with its check sequence, 9,728 bytes: what the vendor's drivers let the card take.
pub(crate) const MAX_MTU: u16 = 9728 - 14 - 4 - 4;
/// Transmit queues without DCB and virtualisation (section 7.2.1.2.1).
const TX_QUEUES: u16 = 64;

/// An 82599 with an SFP+ cage, an X540, an X550, or an X552 at a backplane.
pub struct Card82599 {
    family: &'static Family,
    /// What there is if the port is one.
    cage: Option<Cage>,
    /// As configured by the last start.
    several_queues: bool,
    strip_vlan: bool,
    rx_queues: usize,
    functions: Functions,
}

impl Card for Card82599 {
    type Rx = RxAdvanced;
    type Tx = TxAdvanced;

    const DRIVER: &'static str = DRIVER;
    const DEVICES: &'static [DeviceId] = DEVICES;
    const EXPECTED: &'static str = "an Intel 82599 with SFP+ cages (8086:10fb, 1507, 1529, 154a, 154d or 1557), an \
                                    Intel X540 (8086:1528 or 1560), X550 (8086:1563 or 15d1) or X552 with 10GBASE-KR \
                                    (8086:15ab); the 82599's variants for backplanes, CX4, 10GBASE-T and QSFP+, the X552's \
                                    for SFP+, KX4, XFI and 10GBASE-T, whose links hang on chips beside it, and the X553 are \
                                    not supported";
    const BAR_LEN: usize = 0x20000;
    const BAR_LEN_TEXT: &'static str = "0x20000 or more";
    const LEAST_BUFFER: usize = queues::KIB;
    const CAPABILITIES: Capabilities = Capabilities {
        rx_queues: LARGEST_REDIRECTION.queues,
        tx_queues: TX_QUEUES,
        // Lengths are multiples of 128 bytes (8.2.3.8.3, 8.2.3.9.7), and prefetching is by 32.
        rx_descriptors: DescriptorLimits { min: 32, max: 4096 },
        tx_descriptors: DescriptorLimits { min: 32, max: 4096 },
        rx_offloads: RxOffloads::all(),
        tx_offloads: TxOffloads::all(),
        max_mtu: MAX_MTU,
        multicast_addresses: MULTICAST,
        extra_unicast_addresses: EXTRA_UNICAST,
        rss: configure::RSS,
        queue_stop: true,
        vlan_filter: true,
        flow: flows::FLOWS,
        promiscuous: true,
        functions: FUNCTIONS,
        rx_interrupts: Some(interrupts::LONGEST_INTERVAL),
    };
    const COUNTERS: &'static [Counter] = statistics::COUNTERS;
    const RX_MISSED: &'static [&'static str] = statistics::RX_MISSED;
    const RX_ERRORS: &'static [&'static str] = statistics::RX_ERRORS;
    const TX_ERRORS: &'static [&'static str] = &[];

    fn reset(device: &Device) -> Result<(), Error> {
        reset::reset(device)
    }

    fn open(device: &Device) -> Result<(Card82599, MacAddr), Error> {
        eeprom::check(device)?;
        let mac = eeprom::mac(device)?;
        let family = Family::of(device);
        let cage = (family.media == Media::Cage).then(|| Cage::look(device));
        let functions = Functions::default();
        Ok((
            Card82599 { family, cage, several_queues: false, strip_vlan: false, rx_queues: 0, functions },
            mac,
        ))
    }

    fn capabilities(&self) -> Capabilities {
        let Redirection { queues, entries } = self.family.redirection;
        let rss = RssLimits { table: entries, ..configure::RSS };
        let without = if self.family.coalesces { RxOffloads::empty() } else { RxOffloads::LRO };
        let rx_offloads = RxOffloads::all() - without;
        Capabilities { rx_queues: queues, rx_offloads, rss, ..Self::CAPABILITIES }
    }

    fn configure(&mut self, device: &Device, filters: &Filters, config: &PortConfig) -> Result<(), Error> {
        self.functions = Functions::new(device, config, filters.mac)?;
        self.check_filters(device, filters)?;
        if config.rx_interrupts.is_some() && config.rx.len() > QUEUE_CAUSES {
            let limit = format!("{QUEUE_CAUSES} queues with an interrupt each");
            return Err(device.unsupported("number of receive queues", config.rx.len(), limit));
        }
        self.rx_queues = config.rx.len();
        self.several_queues = config.rx.len() > 1 || !self.functions.is_empty();
        self.strip_vlan = config.rx_offloads.contains(RxOffloads::VLAN_STRIP);
        configure::general(device);
        match &mut self.cage {
            Some(cage) => {
                cage.look_again(device);
                link::set_up(device, &cage.module)?;
            }
            None if link::is_vetoed(device) => {}
            None if self.family.media == Media::Backplane => backplane::set_up(device)?,
            None => phy::set_up(device)?,
        }
        configure::both_ways(device, filters, config, &self.functions);
        Ok(())
    }

    /// RSS says what it found whether anybody asks or not.
    fn finds_out(config: &PortConfig) -> RxOffloads {
        let hashes = !configure::rss_types(config).is_empty();
        let rss = if hashes { RxOffloads::RSS_HASH } else { RxOffloads::empty() };
        (config.rx_offloads - RxOffloads::RSS_HASH) | rss
    }

    /// What virtual functions send comes through the switch, where MAXFRS holds nothing back.
    fn receive_buffer(&self, room: usize, frame: usize) -> Option<usize> {
        match self.functions.is_empty() {
            true => queues::receive_buffer(room, frame),
            false => queues::whole_buffer(room),
        }
    }

    fn header_buffer(room: usize) -> Option<usize> {
        queues::header_buffer(room)
    }

    fn coalesced(buffer: usize) -> u16 {
        queues::coalesced(buffer)
    }

    fn start_receive(&mut self, device: &Device, _filters: &Filters, setup: RxSetup) -> Result<(), Error> {
        let vector = setup.queue;
        let setup = RxSetup { queue: self.queue(vector), ..setup };
        queues::start_receive(device, setup, vector, self.several_queues, self.strip_vlan)
    }

    fn start_transmit(&mut self, device: &Device, setup: TxSetup) -> Result<(), Error> {
        let setup = TxSetup { queue: self.queue(setup.queue), ..setup };
        queues::start_transmit(device, setup)
    }

    fn stop_receive(&mut self, device: &Device, queue: usize) -> Result<(), Error> {
        queues::stop_receive(device, self.queue(queue))
    }

    fn stop_transmit(&mut self, device: &Device, queue: usize) -> Result<(), Error> {
        queues::stop_transmit(device, self.queue(queue))
    }

    fn write_redirection(&self, device: &Device, queues: &[u16]) {
        let entry = |(entry, queue)| self.functions.redirection(entry, queue, self.rx_queues);
        let queues: Vec<u16> = queues.iter().copied().enumerate().map(entry).collect();
        configure::write_redirection(device, &queues);
    }

    fn receive_tail(&self, queue: usize) -> (Register, usize) {
        queues::receive_tail(self.queue(queue))
    }

    fn transmit_tail(&self, queue: usize) -> (Register, usize) {
        (TDT, self.queue(queue))
    }

    fn enable(&mut self, device: &Device) {
        queues::enable_receive(device);
        self.functions.open(device);
    }

    fn link(&mut self, device: &Device) -> Link {
        match &mut self.cage {
            Some(cage) => cage.link(device),
            None => link::link(device),
        }
    }

    fn enable_interrupts(&mut self, device: &Device, queues: usize) {
        interrupts::enable(device, queues);
        if !self.functions.is_empty() {
            device.registers.write(EIMS, cause::MAILBOX);
        }
    }

    fn take_events(&mut self, device: &Device) -> PortEvents {
        if !self.functions.is_empty() {
            device.registers.write(EICR, cause::MAILBOX);
        }
        interrupts::take_events(device)
    }

    fn arm_receive(device: &Device, queue: usize) -> Result<(), Error> {
        interrupts::arm(device, queue)
    }

    fn serve_functions(&mut self, device: &Device, filters: &Filters) -> Result<(), Error> {
        if self.functions.is_empty() {
            return Ok(());
        }
        let link = match &self.cage {
            Some(cage) => cage.known_link(device),
            None => link::link(device),
        };
        self.functions.serve(device, filters, link)
    }

    fn write_modes(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        filters::write_modes(device, filters, &self.functions);
        Ok(())
    }

    fn write_addresses(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        self.check_filters(device, filters)?;
        filters::write_addresses(device, filters, &self.functions);
        Ok(())
    }

    fn write_multicast(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        filters::write_multicast(device, filters, &self.functions);
        Ok(())
    }

    fn write_vlans(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        self.check_filters(device, filters)?;
        filters::write_vlans(device, filters, &self.functions);
        Ok(())
    }

    fn write_flows(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        self.check_filters(device, filters)?;
        flows::write(device, filters);
        Ok(())
    }
}

impl Card82599 {
    /// The card's number of one of the port's queues.
    fn queue(&self, queue: usize) -> usize {
        self.functions.first_queue() + queue
    }

    /// What filters there can be beside virtual functions, which share the card's.
    fn check_filters(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        let count = self.functions.count();
        if count == 0 {
            return Ok(());
        }
        let beside = format!("none beside {count} virtual functions");
        if let Some(vlans) = &filters.vlans {
            return Err(device.unsupported("filtering by VLAN, of which", vlans.len(), beside));
        }
        if !filters.flows.is_empty() {
            return Err(device.unsupported("flow rules, of which", filters.flows.len(), beside));
        }
        if let Some(mac) = filters.addresses().find(|mac| self.functions.have(*mac)) {
            return Err(device.unsupported("address", mac, "a virtual function with it"));
        }
        let room = EXTRA_UNICAST - count;
        match filters.extra_unicast.len() {
            asked if asked > room => Err(device.unsupported("number of extra addresses", asked, room)),
            _ => Ok(()),
        }
    }
}
