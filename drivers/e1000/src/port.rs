//! The port: opening, starting, stopping, and everything that is asked of it meanwhile.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pagewire_ethdev::{
    Capabilities, DescriptorLimits, Error, Link, MacAddr, Port, PortConfig, PortInfo, QueueCounters,
    QueueStats, Queues, RxOffloads, Stats, TxOffloads, XStat,
};
use pagewire_pci::{Address, AddressSpace, Function, Interrupt};

use crate::device::Device;
use crate::filters::{EXTRA_UNICAST, Filters, MULTICAST};
use crate::registers::*;
use crate::rx::{E1000Rx, RxCounters, RxLimits, RxRing};
use crate::statistics::Statistics;
use crate::tx::{E1000Tx, TxRing};
use crate::{DEVICES, DRIVER};

/// Longest frame that the vendor's drivers let the card take, with tag and frame check sequence, less what an MTU does not count.
const MAX_MTU: u16 = 9234 - FRAME_OVERHEAD as u16;
/// Ethernet header, VLAN tag, frame check sequence.
const FRAME_OVERHEAD: usize = 14 + 4 + 4;
/// Longest frame, with tag and frame check sequence, that needs no long packet enable.
const LONGEST_STANDARD: usize = 1522;
const FCS: usize = 4;

/// An 82574L port.
pub struct E1000 {
    info: PortInfo,
    device: Arc<Device>,
    filters: Filters,
    statistics: Statistics,
    started: bool,
    link_interrupt: Option<Interrupt>,
    rx_counters: Arc<RxCounters>,
    tx_counters: Arc<QueueCounters>,
}

impl E1000 {
    /// Open the function at `address` in `space`, check that it is one of [`DEVICES`], and reset it.
    ///
    /// # Errors
    ///
    /// Those of [`AddressSpace::open`]; [`Error::Device`] if it is another device or holds no address of its own;
    /// [`Error::Timeout`] if it does not come out of reset. The device is left as it was before, or stopped.
    pub fn open(space: &AddressSpace, address: Address) -> Result<E1000, Error> {
        E1000::with_function(space, space.open(address)?)
    }

    pub(crate) fn with_function(space: &AddressSpace, function: Function) -> Result<E1000, Error> {
        // Before anything is written to it: another device would take our registers for its own.
        let info = function.info();
        if !DEVICES.iter().any(|known| (known.vendor, known.device) == (info.vendor_id, info.device_id)) {
            return Err(Error::Device {
                port: info.name(),
                what: "the device",
                found: format!("{:04x}:{:04x}", info.vendor_id, info.device_id),
                expected: "an Intel 82574L (8086:10d3)",
            });
        }
        let numa_node = info.numa_node;
        let device = Arc::new(Device::new(space, function)?);
        device.reset()?;
        let filters = Filters::from_card(&device, device.registers.read(RAL), device.registers.read(RAH))?;
        device.wake_phy();
        let info = PortInfo {
            name: device.name.clone(),
            driver: DRIVER,
            mac: filters.mac,
            numa_node,
            capabilities: Capabilities {
                rx_queues: 1,
                tx_queues: 1,
                rx_descriptors: DescriptorLimits { min: 64, max: 4096 },
                tx_descriptors: DescriptorLimits { min: 64, max: 4096 },
                rx_offloads: RxOffloads::all(),
                tx_offloads: TxOffloads::all(),
                max_mtu: MAX_MTU,
                multicast_addresses: MULTICAST,
                extra_unicast_addresses: EXTRA_UNICAST,
            },
        };
        let mut port = E1000 {
            info,
            device,
            filters,
            statistics: Statistics::new(),
            started: false,
            link_interrupt: None,
            rx_counters: Arc::default(),
            tx_counters: Arc::default(),
        };
        port.set_link_up();
        Ok(port)
    }

    fn registers(&self) -> &Registers {
        &self.device.registers
    }

    fn check_started(&self, started: bool) -> Result<(), Error> {
        if self.started == started {
            return Ok(());
        }
        let what =
            if started { "the port is not started" } else { "the port is started already; stop it first" };
        Err(Error::State { port: self.info.name.clone(), what })
    }

    fn unsupported(&self, what: &'static str, asked: impl ToString, limit: impl ToString) -> Error {
        Error::Unsupported {
            port: self.info.name.clone(),
            what,
            asked: asked.to_string(),
            limit: limit.to_string(),
        }
    }

    /// Section 4.6.3: let MAC and PHY agree on speed and duplex. No flow control: a port that is too slow drops and counts.
    fn set_link_up(&mut self) {
        self.registers().modify(
            CTRL,
            ctrl::ASDE | ctrl::FRCSPD | ctrl::FRCDPLX | ctrl::RFCE | ctrl::TFCE | ctrl::GIO_MASTER_DISABLE,
            ctrl::SLU | ctrl::FD,
        );
    }

    /// Section 4.6.2: general configuration.
    fn configure(&mut self, strip_vlan: bool) {
        let registers = self.registers();
        registers.modify(GCR, 0, GCR_BIT_22);
        registers.modify(CTRL, 0, ctrl::VME);
        if !strip_vlan {
            // VME enables stripping and inserting together; without it neither happens.
            registers.modify(CTRL, ctrl::VME, 0);
        }
        registers.write(VET, 0x8100);
        for register in [FCAL, FCAH, FCT, FCTTV, FCRTL, FCRTH] {
            registers.write(register, 0);
        }
        self.filters.write(registers);
    }

    /// Section 4.6.5: receive. The ring is full of buffers before the unit is enabled.
    fn start_receive(&mut self, ring: &mut RxRing, buffer_size: u32, long: bool, offloads: RxOffloads) {
        let registers = &self.device.registers;
        let base = ring.descriptors.iova();
        registers.write(RDBAL, base as u32);
        registers.write(RDBAH, (base >> 32) as u32);
        registers.write(RDLEN, ring.descriptors.bytes());
        registers.write(RDH, 0);
        registers.write(RDT, 0);
        registers.write(RXDCTL, rxdctl::GRAN_DESCRIPTORS | rxdctl::WTHRESH_1);
        registers.write(RFCTL, RFCTL_EXSTEN);
        let mut checksums = 0;
        if offloads.contains(RxOffloads::IP_CSUM) {
            checksums |= rxcsum::IPOFLD;
        }
        if offloads.contains(RxOffloads::L4_CSUM) {
            checksums |= rxcsum::TUOFLD;
        }
        registers.write(RXCSUM, checksums);
        let long = if long { rctl::LPE } else { 0 };
        registers.write(RCTL, rctl::EN | rctl::SECRC | self.filters.rctl() | buffer_size | long);
        ring.ring_doorbell();
    }

    /// Section 4.6.6: transmit.
    fn start_transmit(&mut self, ring: &TxRing) {
        let registers = self.registers();
        let base = ring.descriptors.iova();
        registers.write(TDBAL, base as u32);
        registers.write(TDBAH, (base >> 32) as u32);
        registers.write(TDLEN, ring.descriptors.bytes());
        registers.write(TDH, 0);
        registers.write(TDT, 0);
        registers.write(
            TXDCTL,
            txdctl::GRAN_DESCRIPTORS
                | txdctl::RESERVED_ONE
                | txdctl::WTHRESH_1
                | txdctl::HTHRESH_1
                | txdctl::PTHRESH_31,
        );
        registers.write(TIPG, TIPG_802_3);
        registers.write(TCTL, tctl::EN | tctl::PSP | tctl::CT | tctl::COLD);
    }

    /// Link changes by MSI-X, or MSI where that fails, or by asking.
    fn enable_link_interrupt(&mut self) {
        let function = &self.device.function;
        let interrupt = function
            .enable_msix(1)
            .or_else(|_| function.enable_msi(1))
            .map(|vectors| vectors.into_iter().next());
        match interrupt {
            Ok(Some(interrupt)) => {
                let registers = self.registers();
                registers.write(IVAR, IVAR_OTHER_VECTOR_0);
                registers.write(EIAC, 0);
                registers.write(IMS, cause::LINK | cause::OTHER);
                self.link_interrupt = Some(interrupt);
            }
            Ok(None) => {}
            Err(error) => log::warn!("{}: link changes are polled: no interrupt: {error}", self.info.name),
        }
    }

    fn try_start(&mut self, mut config: PortConfig) -> Result<Queues<E1000Rx, E1000Tx>, Error> {
        self.device.reset()?;
        self.filters.promiscuous = config.promiscuous;
        self.set_link_up();
        self.device.wake_phy();
        // VLAN stripping and insertion are one bit of the card: who sends tags by offload receives without them.
        let vlan = config.rx_offloads.contains(RxOffloads::VLAN_STRIP)
            || config.tx_offloads.contains(TxOffloads::VLAN_INSERT);
        self.configure(vlan);
        Statistics::clear(self.registers());
        let longest = usize::from(config.mtu) + FRAME_OVERHEAD;

        let mut rx = Vec::new();
        if let Some(queue) = config.rx.pop() {
            let long = longest > LONGEST_STANDARD;
            let room = queue.pool.fragment_size() - usize::from(queue.pool.headroom());
            let (bytes, bits) = buffer_size(room, long).ok_or_else(|| {
                self.unsupported("receive buffer of", format!("{room} bytes"), "buffers of 256 bytes or more")
            })?;
            if longest - FCS > bytes && !config.rx_offloads.contains(RxOffloads::SCATTER) {
                let limit =
                    format!("receive buffers of {bytes} bytes, and RxOffloads::SCATTER is not asked for");
                return Err(self.unsupported("MTU", config.mtu, limit));
            }
            let limits = RxLimits::new(longest - FCS, bytes);
            let counters = self.rx_counters.clone();
            let mut ring = RxRing::new(&self.device, queue.pool, queue.descriptors, limits, counters)?;
            self.device.function.set_bus_master(true)?;
            self.start_receive(&mut ring, bits, long, config.rx_offloads);
            rx.push(E1000Rx::new(ring, self.device.clone()));
        }
        let mut tx = Vec::new();
        if let Some(queue) = config.tx.pop() {
            let ring = TxRing::new(
                &self.device,
                queue.descriptors,
                longest - FCS,
                config.tx_offloads,
                self.tx_counters.clone(),
            )?;
            self.device.function.set_bus_master(true)?;
            self.start_transmit(&ring);
            tx.push(E1000Tx::new(ring, self.device.clone()));
        }
        self.enable_link_interrupt();
        Ok((rx, tx))
    }
}

/// The receive buffer size that fits into `room` bytes, and its bits in RCTL (section 10.2.5.1).
///
/// Without long packets the card stops at 1,522 bytes of frame, so that 2,048 may be promised where there are fewer.
fn buffer_size(room: usize, long: bool) -> Option<(usize, u32)> {
    match room {
        2048.. if !long => Some((2048, rctl::BSIZE_2048)),
        LONGEST_STANDARD.. if !long => Some((LONGEST_STANDARD, rctl::BSIZE_2048)),
        1024.. => {
            let kilobytes = (room / 1024).min(15);
            match kilobytes {
                1 => Some((1024, rctl::BSIZE_1024)),
                2 => Some((2048, rctl::BSIZE_2048)),
                more => Some((more * 1024, (more as u32) << rctl::FLXBUF_SHIFT)),
            }
        }
        512.. => Some((512, rctl::BSIZE_512)),
        256.. => Some((256, rctl::BSIZE_256)),
        _ => None,
    }
}

impl Port for E1000 {
    type Rx = E1000Rx;
    type Tx = E1000Tx;

    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn start(&mut self, config: PortConfig) -> Result<Queues<E1000Rx, E1000Tx>, Error> {
        self.check_started(false)?;
        config.check(&self.info)?;
        let queues = self.try_start(config);
        self.started = queues.is_ok();
        if queues.is_err() {
            // What failed is the error to report; the device is stopped as well as can be.
            let _ = self.device.stop();
        }
        queues
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.check_started(true)?;
        if Arc::strong_count(&self.device) > 1 {
            let what = "its queues are still in use; drop them before stopping the port";
            return Err(Error::State { port: self.info.name.clone(), what });
        }
        self.statistics.update(&self.device.registers);
        self.started = false;
        self.link_interrupt = None;
        // The card is stopped whatever becomes of its interrupts.
        let interrupts = self.device.function.disable_interrupts();
        self.device.stop()?;
        Ok(interrupts?)
    }

    fn link(&mut self) -> Link {
        if let Some(interrupt) = &self.link_interrupt {
            // Acknowledge first: a change after this raises the interrupt again.
            let _ = interrupt.try_read();
            self.registers().write(ICR, cause::LINK | cause::OTHER);
        }
        match self.registers().read(STATUS) {
            u32::MAX => Link::Down,
            status if status & status::LU == 0 => Link::Down,
            status => Link::Up {
                mbps: [10, 100, 1000, 1000][(status >> status::SPEED_SHIFT & 3) as usize],
                full_duplex: status & status::FD != 0,
            },
        }
    }

    fn link_interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.link_interrupt.as_ref().map(|interrupt| interrupt.as_fd())
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        self.check_started(true)?;
        self.filters.promiscuous = on;
        self.filters.write_rctl(self.registers());
        Ok(())
    }

    fn set_all_multicast(&mut self, on: bool) -> Result<(), Error> {
        self.check_started(true)?;
        self.filters.all_multicast = on;
        self.filters.write_rctl(self.registers());
        Ok(())
    }

    fn set_multicast(&mut self, groups: &[MacAddr]) -> Result<(), Error> {
        self.check_started(true)?;
        if let Some(group) = groups.iter().find(|group| !group.is_multicast()) {
            return Err(self.unsupported("multicast address", group, "addresses whose first byte is odd"));
        }
        if groups.len() > MULTICAST {
            return Err(self.unsupported("number of multicast addresses", groups.len(), MULTICAST));
        }
        self.filters.multicast = groups.to_vec();
        self.filters.write_multicast(self.registers());
        Ok(())
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.check_started(true)?;
        if !mac.is_valid_unicast() {
            return Err(self.unsupported("address", mac, "unicast addresses"));
        }
        (self.filters.mac, self.info.mac) = (mac, mac);
        self.filters.write_addresses(self.registers());
        Ok(())
    }

    fn set_extra_unicast(&mut self, macs: &[MacAddr]) -> Result<(), Error> {
        self.check_started(true)?;
        if let Some(mac) = macs.iter().find(|mac| !mac.is_valid_unicast()) {
            return Err(self.unsupported("address", mac, "unicast addresses"));
        }
        if macs.len() > EXTRA_UNICAST {
            return Err(self.unsupported("number of extra addresses", macs.len(), EXTRA_UNICAST));
        }
        self.filters.extra_unicast = macs.to_vec();
        self.filters.write_addresses(self.registers());
        Ok(())
    }

    fn stats(&mut self) -> Stats {
        if self.started {
            self.statistics.update(&self.device.registers);
        }
        let mut stats = Stats::from_queues(&self.rx_queue_stats(), &self.tx_queue_stats());
        let card = |names: &[&str]| self.statistics.sum(names);
        stats.rx_missed = card(&["rx_missed_packets"]);
        stats.rx_errors += card(&[
            "rx_crc_errors",
            "rx_alignment_errors",
            "rx_phy_errors",
            // Not "rx_length_errors", which counts the next two and others again.
            "rx_undersize_packets",
            "rx_oversize_packets",
            "rx_carrier_extension_errors",
        ]);
        stats.tx_errors += card(&["tx_excessive_collisions", "tx_late_collisions"]);
        stats
    }

    fn xstats(&mut self) -> Vec<XStat> {
        if self.started {
            self.statistics.update(&self.device.registers);
        }
        let mut stats: Vec<XStat> = self.statistics.xstats().collect();
        let (rx, tx) = (self.rx_counters.queue.stats(), self.tx_counters.stats());
        for (name, value) in [
            ("rx_longer_than_mtu_packets", self.rx_counters.longer_than_mtu.load(Ordering::Relaxed)),
            ("rx_q0_packets", rx.packets),
            ("rx_q0_bytes", rx.bytes),
            ("rx_q0_errors", rx.errors),
            ("rx_q0_nombuf", rx.nombuf),
            ("tx_q0_packets", tx.packets),
            ("tx_q0_bytes", tx.bytes),
            ("tx_q0_errors", tx.errors),
        ] {
            stats.push(XStat { name: name.into(), value });
        }
        stats
    }

    fn rx_queue_stats(&self) -> Vec<QueueStats> {
        vec![self.rx_counters.queue.stats()]
    }

    fn tx_queue_stats(&self) -> Vec<QueueStats> {
        vec![self.tx_counters.stats()]
    }
}

#[cfg(test)]
mod tests;
