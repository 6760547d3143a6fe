//! The card: initialisation in the datasheet's order (section 4.6), and everything that is asked of it meanwhile.

use pagewire_ethdev::nic::{self, Counter, Device, DeviceId, Filters, Register, RxSetup, TxSetup};
use pagewire_ethdev::{
    Capabilities, DescriptorLimits, Error, FlowLimits, Link, MacAddr, PortConfig, PortEvents, RssLimits,
    RxOffloads, TxOffloads,
};

use crate::descriptor::{ExtendedRx, ExtendedTx};
use crate::registers::*;
use crate::reset::{reset, wake_phy};
use crate::statistics::COUNTERS;
use crate::{DEVICES, DRIVER, interrupts};

/// Longest frame that the vendor's drivers let the card take, with tag and frame check sequence, less what an MTU does not count.
const MAX_MTU: u16 = 9234 - 22;
/// Longest frame, with tag and without frame check sequence, that needs no long packet enable.
const LONGEST_STANDARD: usize = 1518;
/// Bytes that the card writes of a frame at most without it: it stops at 1,522.
const STANDARD_BUFFER: usize = 1522;
/// Receive address registers, less the last, which belongs to the manageability firmware.
const ADDRESSES: usize = 15;

/// The 82574L, as [`Nic`](pagewire_ethdev::nic::Nic) wants it.
#[derive(Default)]
pub struct I82574 {
    long: bool,
    rx_offloads: RxOffloads,
    /// When events were last asked for.
    link_up: bool,
}

/// Bits of RCTL.
fn modes(filters: &Filters) -> u32 {
    let mut bits = rctl::BAM;
    if filters.promiscuous {
        bits |= rctl::UPE | rctl::MPE;
    }
    if filters.all_multicast {
        bits |= rctl::MPE;
    }
    bits
}

/// Section 4.6.3: let MAC and PHY agree on speed and duplex. No flow control: a port that is too slow drops and counts.
fn set_link_up(device: &Device) {
    device.registers.modify(
        CTRL,
        ctrl::ASDE | ctrl::FRCSPD | ctrl::FRCDPLX | ctrl::RFCE | ctrl::TFCE | ctrl::GIO_MASTER_DISABLE,
        ctrl::SLU | ctrl::FD,
    );
    wake_phy(device);
}

/// The bits of RCTL for a receive buffer (section 10.2.5.1): what `receive_buffer` returns.
fn buffer_bits(buffer: usize) -> u32 {
    match buffer {
        STANDARD_BUFFER | 2048 => rctl::BSIZE_2048,
        1024 => rctl::BSIZE_1024,
        512 => rctl::BSIZE_512,
        256 => rctl::BSIZE_256,
        kilobytes => (kilobytes as u32 / 1024) << rctl::FLXBUF_SHIFT,
    }
}

impl nic::Card for I82574 {
    type Rx = ExtendedRx;
    type Tx = ExtendedTx;

    const DRIVER: &'static str = DRIVER;
    const DEVICES: &'static [DeviceId] = DEVICES;
    const EXPECTED: &'static str = "an Intel 82574L (8086:10d3)";
    /// Section 10.1.
    const BAR_LEN: usize = 0x20000;
    const BAR_LEN_TEXT: &'static str = "0x20000";
    const LEAST_BUFFER: usize = 256;
    const CAPABILITIES: Capabilities = Capabilities {
        rx_queues: 1,
        tx_queues: 1,
        rx_descriptors: DescriptorLimits { min: 64, max: 4096 },
        tx_descriptors: DescriptorLimits { min: 64, max: 4096 },
        rx_offloads: RxOffloads::IP_CSUM
            .union(RxOffloads::L4_CSUM)
            .union(RxOffloads::VLAN_STRIP)
            .union(RxOffloads::SCATTER),
        tx_offloads: TxOffloads::IP_CSUM
            .union(TxOffloads::TCP_CSUM)
            .union(TxOffloads::UDP_CSUM)
            .union(TxOffloads::VLAN_INSERT)
            .union(TxOffloads::MULTI_SEGS),
        max_mtu: MAX_MTU,
        // The multicast table is a hash, which takes any number; beyond this, ask for all of them.
        multicast_addresses: 512,
        extra_unicast_addresses: ADDRESSES - 1,
        rss: RssLimits::NONE,
        queue_stop: false,
        vlan_filter: false,
        flow: FlowLimits::NONE,
        promiscuous: true,
        functions: 0,
        rx_interrupts: Some(interrupts::LONGEST_INTERVAL),
    };
    const COUNTERS: &'static [Counter] = COUNTERS;
    const RX_MISSED: &'static [&'static str] = &["rx_missed_packets"];
    const RX_ERRORS: &'static [&'static str] = &[
        "rx_crc_errors",
        "rx_alignment_errors",
        "rx_phy_errors",
        // Not "rx_length_errors", which counts the next two and others again.
        "rx_undersize_packets",
        "rx_oversize_packets",
        "rx_carrier_extension_errors",
    ];
    const TX_ERRORS: &'static [&'static str] = &["tx_excessive_collisions", "tx_late_collisions"];

    fn reset(device: &Device) -> Result<(), Error> {
        reset(device)
    }

    /// The address is the one that the card has loaded from its EEPROM.
    fn open(device: &Device) -> Result<(I82574, MacAddr), Error> {
        let mac = device.own_address(device.registers.read_at(RAL, 0), device.registers.read_at(RAH, 0))?;
        set_link_up(device);
        Ok((I82574::default(), mac))
    }

    /// Section 4.6.2: general configuration.
    fn configure(&mut self, device: &Device, filters: &Filters, config: &PortConfig) -> Result<(), Error> {
        let registers = &device.registers;
        set_link_up(device);
        registers.modify(GCR, 0, GCR_BIT_22);
        let vlan = I82574::finds_out(config).contains(RxOffloads::VLAN_STRIP);
        registers.modify(CTRL, ctrl::VME, if vlan { ctrl::VME } else { 0 });
        registers.write(VET, 0x8100);
        for register in [FCAL, FCAH, FCT, FCTTV, FCRTL, FCRTH] {
            registers.write(register, 0);
        }
        self.write_addresses(device, filters)?;
        self.write_multicast(device, filters)?;
        // With RCTL.VFE clear the VLAN table has no effect; it is cleared all the same.
        (0..VFTA.count).for_each(|index| registers.write_at(VFTA, index, 0));
        self.long = usize::from(config.mtu) + 18 > LONGEST_STANDARD;
        self.rx_offloads = config.rx_offloads;
        Ok(())
    }

    /// Stripping and inserting tags are one bit of the card: who sends tags by offload receives without them.
    fn finds_out(config: &PortConfig) -> RxOffloads {
        let mut offloads = config.rx_offloads;
        if config.tx_offloads.contains(TxOffloads::VLAN_INSERT) {
            offloads |= RxOffloads::VLAN_STRIP;
        }
        offloads
    }

    /// Without long packets the card stops at 1,522 bytes of frame, so that 2,048 may be promised where there are fewer.
    fn receive_buffer(&self, room: usize, frame: usize) -> Option<usize> {
        match room {
            2048.. if frame <= LONGEST_STANDARD => Some(2048),
            STANDARD_BUFFER.. if frame <= LONGEST_STANDARD => Some(STANDARD_BUFFER),
            1024.. => Some((room / 1024).min(15) * 1024),
            512.. => Some(512),
            256.. => Some(256),
            _ => None,
        }
    }

    /// Section 4.6.5. The ring is full of buffers before the unit is enabled.
    fn start_receive(&mut self, device: &Device, filters: &Filters, setup: RxSetup) -> Result<(), Error> {
        let registers = &device.registers;
        registers.hand_ring([RDBAL, RDBAH, RDLEN, RDH, RDT], 0, setup.iova, setup.bytes);
        registers.write(RXDCTL, rxdctl::GRAN_DESCRIPTORS | rxdctl::WTHRESH_1);
        registers.write(RFCTL, RFCTL_EXSTEN);
        if let Some(interval) = setup.interrupts {
            interrupts::set_interval(device, interval);
        }
        let mut checksums = 0;
        if self.rx_offloads.contains(RxOffloads::IP_CSUM) {
            checksums |= rxcsum::IPOFLD;
        }
        if self.rx_offloads.contains(RxOffloads::L4_CSUM) {
            checksums |= rxcsum::TUOFLD;
        }
        registers.write(RXCSUM, checksums);
        let long = if self.long { rctl::LPE } else { 0 };
        let buffer = buffer_bits(setup.buffer);
        registers.write(RCTL, rctl::EN | rctl::SECRC | modes(filters) | buffer | long);
        Ok(())
    }

    /// Section 4.6.6.
    fn start_transmit(&mut self, device: &Device, setup: TxSetup) -> Result<(), Error> {
        let registers = &device.registers;
        registers.hand_ring([TDBAL, TDBAH, TDLEN, TDH, TDT], 0, setup.iova, setup.bytes);
        registers.write(
            TXDCTL,
            txdctl::GRAN_DESCRIPTORS
                | txdctl::RESERVED_ONE
                | txdctl::WTHRESH_1
                | txdctl::HTHRESH_1
                | txdctl::PTHRESH_31,
        );
        registers.write(TIPG, TIPG_802_3);
        // What else is in it, the threshold of reads for one, is as the card wants it.
        let set = tctl::EN | tctl::PSP | tctl::CT | tctl::COLD | tctl::MULR;
        registers.modify(TCTL, tctl::CT_MASK | tctl::COLD_MASK, set);
        Ok(())
    }

    fn receive_tail(&self, _: usize) -> (Register, usize) {
        (RDT, 0)
    }

    fn transmit_tail(&self, _: usize) -> (Register, usize) {
        (TDT, 0)
    }

    fn link(&mut self, device: &Device) -> Link {
        match device.registers.read(STATUS) {
            u32::MAX => Link::Down,
            status if status & status::LU == 0 => Link::Down,
            status => Link::Up {
                mbps: [10, 100, 1000, 1000][(status >> status::SPEED_SHIFT & 3) as usize],
                full_duplex: status & status::FD != 0,
            },
        }
    }

    fn enable_interrupts(&mut self, device: &Device, queues: usize) {
        interrupts::enable(device, queues);
    }

    /// The cause is not asked: to read ICR may clear it, the queue's bits among others.
    fn take_events(&mut self, device: &Device) -> PortEvents {
        device.registers.write(ICR, cause::LINK | cause::OTHER);
        let up = self.link(device).is_up();
        if std::mem::replace(&mut self.link_up, up) == up { PortEvents::empty() } else { PortEvents::LINK }
    }

    fn arm_receive(device: &Device, _queue: usize) -> Result<(), Error> {
        device.arm(ICR, IMS, cause::RXQ0)
    }

    fn write_modes(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        device.registers.modify(RCTL, rctl::UPE | rctl::MPE | rctl::BAM, modes(filters));
        Ok(())
    }

    fn write_addresses(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        filters.write_addresses(&device.registers, RAL, RAH, ADDRESSES);
        Ok(())
    }

    /// Section 10.2.5.21 with RCTL.MO = 0.
    fn write_multicast(&self, device: &Device, filters: &Filters) -> Result<(), Error> {
        filters.write_multicast(&device.registers, MTA);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
