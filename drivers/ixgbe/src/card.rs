//! The 82599 as a [`Card`].

use pagewire_ethdev::nic::{Card, Counter, Device, DeviceId, Filters, Register, RxSetup, TxSetup};
use pagewire_ethdev::{
    Capabilities, DescriptorLimits, Error, Link, MacAddr, PortConfig, PortEvents, RxOffloads, TxOffloads,
};

use crate::configure::{self, RSS_QUEUES};
use crate::descriptor::{RxAdvanced, TxAdvanced};
use crate::filters::{self, EXTRA_UNICAST, MULTICAST};
use crate::link::Cage;
use crate::registers::{RDT, TDT};
use crate::{DEVICES, DRIVER, eeprom, flows, interrupts, queues, reset, statistics};

/// Longest frame with its check sequence, 9,728 bytes: what the vendor's drivers let the card take.
const MAX_MTU: u16 = 9728 - 14 - 4 - 4;
/// Transmit queues without DCB and virtualisation (section 7.2.1.2.1).
const TX_QUEUES: u16 = 64;

/// An 82599 with an SFP+ cage.
pub struct Card82599 {
    cage: Cage,
    /// As configured by the last start.
    several_queues: bool,
    strip_vlan: bool,
}

impl Card for Card82599 {
    type Rx = RxAdvanced;
    type Tx = TxAdvanced;

    const DRIVER: &'static str = DRIVER;
    const DEVICES: &'static [DeviceId] = DEVICES;
    const EXPECTED: &'static str = "an Intel 82599 with SFP+ cages (8086:10fb, 1507, 1529, 154a, 154d or 1557); \
                                    its variants for backplanes, CX4, 10GBASE-T and QSFP+ are not supported";
    const BAR_LEN: usize = 0x20000;
    const BAR_LEN_TEXT: &'static str = "0x20000 or more";
    const LEAST_BUFFER: usize = queues::KIB;
    const CAPABILITIES: Capabilities = Capabilities {
        rx_queues: RSS_QUEUES,
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
        let cage = Cage::look(device);
        Ok((Card82599 { cage, several_queues: false, strip_vlan: false }, mac))
    }

    fn configure(&mut self, device: &Device, filters: &Filters, config: &PortConfig) -> Result<(), Error> {
        self.cage.look_again(device);
        self.several_queues = config.rx.len() > 1;
        self.strip_vlan = config.rx_offloads.contains(RxOffloads::VLAN_STRIP);
        configure::configure(device, filters, config, &self.cage.module)
    }

    /// RSS says what it found whether anybody asks or not.
    fn finds_out(config: &PortConfig) -> RxOffloads {
        let hashes = !configure::rss_types(config).is_empty();
        let rss = if hashes { RxOffloads::RSS_HASH } else { RxOffloads::empty() };
        (config.rx_offloads - RxOffloads::RSS_HASH) | rss
    }

    fn receive_buffer(room: usize, frame: usize) -> Option<usize> {
        queues::receive_buffer(room, frame)
    }

    fn header_buffer(room: usize) -> Option<usize> {
        queues::header_buffer(room)
    }

    fn coalesced(buffer: usize) -> u16 {
        queues::coalesced(buffer)
    }

    fn start_receive(&mut self, device: &Device, _filters: &Filters, setup: RxSetup) -> Result<(), Error> {
        queues::start_receive(device, setup, self.several_queues, self.strip_vlan)
    }

    fn start_transmit(&mut self, device: &Device, setup: TxSetup) -> Result<(), Error> {
        queues::start_transmit(device, setup)
    }

    fn stop_receive(&mut self, device: &Device, queue: usize) -> Result<(), Error> {
        queues::stop_receive(device, queue)
    }

    fn stop_transmit(&mut self, device: &Device, queue: usize) -> Result<(), Error> {
        queues::stop_transmit(device, queue)
    }

    fn write_redirection(&self, device: &Device, queues: &[u16]) {
        configure::write_redirection(device, queues);
    }

    fn receive_tail(queue: usize) -> (Register, usize) {
        (RDT, queue)
    }

    fn transmit_tail(queue: usize) -> (Register, usize) {
        (TDT, queue)
    }

    fn enable(&mut self, device: &Device) {
        queues::enable_receive(device);
    }

    fn link(&mut self, device: &Device) -> Link {
        self.cage.link(device)
    }

    fn enable_interrupts(&mut self, device: &Device, queues: usize) {
        interrupts::enable(device, queues);
    }

    fn take_events(&mut self, device: &Device) -> PortEvents {
        interrupts::take_events(device)
    }

    fn arm_receive(device: &Device, queue: usize) -> Result<(), Error> {
        interrupts::arm(device, queue)
    }

    fn write_modes(&self, device: &Device, filters: &Filters) {
        filters::write_modes(device, filters);
    }

    fn write_addresses(&self, device: &Device, filters: &Filters) {
        filters::write_addresses(device, filters);
    }

    fn write_multicast(&self, device: &Device, filters: &Filters) {
        filters::write_multicast(device, filters);
    }

    fn write_vlans(&self, device: &Device, filters: &Filters) {
        filters::write_vlans(device, filters);
    }

    fn write_flows(&self, device: &Device, filters: &Filters) {
        flows::write(device, filters);
    }
}
