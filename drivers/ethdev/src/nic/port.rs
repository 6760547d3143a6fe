//! The port: states, checks, and the order of things.

use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pagewire_pci::{Address, AddressSpace, Function};

use super::card::Card;
use super::device::{Device, Way};
use super::filters::Filters;
use super::interrupts::Interrupts;
use super::queues::{Started, State};
use super::rx::{NicRx, RxCounters};
use super::statistics::Statistics;
use super::tx::NicTx;
use crate::config::{NOT_PROMISCUOUS, PortConfig, PortInfo, RxQueueConfig, TxQueueConfig};
use crate::error::Error;
use crate::flow::FlowRule;
use crate::interrupt::PortEvents;
use crate::link::Link;
use crate::mac::MacAddr;
use crate::port::{Port, Queues};
use crate::stats::{QueueCounters, QueueStats, Stats, XStat};

/// Highest VLAN identifier (IEEE 802.1Q keeps 4,095 for itself).
const MAX_VLAN: u16 = 4094;

type NicQueues<C> = Queues<NicRx<<C as Card>::Rx>, NicTx<<C as Card>::Tx>>;

/// A port of a card.
pub struct Nic<C: Card> {
    pub(super) info: PortInfo,
    pub(super) device: Arc<Device>,
    pub(super) card: C,
    pub(super) filters: Filters,
    statistics: Statistics,
    pub(super) started: Option<Started>,
    pub(super) interrupts: Interrupts,
    /// By queue; they outlive the queues.
    pub(super) rx_counters: Vec<Arc<RxCounters>>,
    pub(super) tx_counters: Vec<Arc<QueueCounters>>,
}

impl<C: Card> Nic<C> {
    /// Open the function at `address` in `space`; see [`with_function`](Nic::with_function).
    ///
    /// # Errors
    ///
    /// Those of [`AddressSpace::open`] and of [`with_function`](Nic::with_function).
    pub fn open(space: &AddressSpace, address: Address) -> Result<Nic<C>, Error> {
        Nic::with_function(space, space.open(address)?)
    }

    /// Take a function that was opened in `space`, check that it is one of [`Card::DEVICES`], and reset it.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if it is another device or holds no address of its own; [`Error::Timeout`] if it does not come out of
    /// reset. The device is left as it was before, or stopped.
    pub fn with_function(space: &AddressSpace, function: Function) -> Result<Nic<C>, Error> {
        let info = function.info();
        // Before anything is written to it: another device would take our registers for its own.
        if !C::DEVICES.iter().any(|known| (known.vendor, known.device) == (info.vendor_id, info.device_id)) {
            return Err(Error::Device {
                port: info.name(),
                what: "the device",
                found: format!("{:04x}:{:04x}", info.vendor_id, info.device_id),
                expected: C::EXPECTED,
            });
        }
        let numa_node = info.numa_node;
        let device = Arc::new(Device::new::<C>(space, function)?);
        device.reset()?;
        let (card, mac) = C::open(&device)?;
        let capabilities = card.capabilities();
        Ok(Nic {
            info: PortInfo { name: device.name.clone(), driver: C::DRIVER, mac, numa_node, capabilities },
            device,
            card,
            filters: Filters::new(mac),
            statistics: Statistics::new(C::COUNTERS),
            started: None,
            interrupts: Interrupts::default(),
            rx_counters: Vec::new(),
            tx_counters: Vec::new(),
        })
    }

    fn check_started(&self) -> Result<(), Error> {
        self.started.as_ref().map(|_| ()).ok_or_else(|| self.not_started())
    }

    pub(super) fn not_started(&self) -> Error {
        self.state("the port is not started")
    }

    fn check_unicast(&self, mac: MacAddr) -> Result<(), Error> {
        match mac.is_valid_unicast() {
            true => Ok(()),
            false => Err(self.device.unsupported("address", mac, "unicast addresses")),
        }
    }

    fn try_start(&mut self, mut config: PortConfig) -> Result<NicQueues<C>, Error> {
        self.device.reset()?;
        // What queues left behind that could not be stopped.
        self.device.release_all();
        self.filters.promiscuous = config.promiscuous;
        self.filters.flows.clear();
        self.card.configure(&self.device, &self.filters, &config)?;
        self.statistics.clear(&self.device.registers);
        let finds_out = C::finds_out(&config);
        let (rx, tx) = (mem::take(&mut config.rx), mem::take(&mut config.tx));
        let started =
            Started { config, finds_out, rx: vec![State::Runs; rx.len()], tx: vec![State::Runs; tx.len()] };
        self.redirect(&started);
        let queues = started.config.rx_interrupts.map_or(0, |_| started.rx.len());
        self.interrupts = Interrupts::new(&self.device, queues)?;
        let rx =
            rx.into_iter().enumerate().map(|(number, queue)| self.start_receive(number, queue, &started));
        let rx = rx.collect::<Result<Vec<_>, _>>()?;
        let tx =
            tx.into_iter().enumerate().map(|(number, queue)| self.start_transmit(number, queue, &started));
        let tx = tx.collect::<Result<Vec<_>, _>>()?;
        self.card.enable(&self.device);
        if self.interrupts.events().is_some() {
            self.card.enable_interrupts(&self.device, queues);
        }
        self.started = Some(started);
        Ok((rx, tx))
    }

    /// Change what is filtered, unless the card cannot.
    fn change(
        &mut self,
        what: impl FnOnce(&mut Filters),
        write: impl FnOnce(&C, &Device, &Filters) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut filters = self.filters.clone();
        what(&mut filters);
        write(&self.card, &self.device, &filters)?;
        self.filters = filters;
        Ok(())
    }

    fn update_statistics(&mut self) {
        if self.started.is_some() {
            self.statistics.update(&self.device.registers);
        }
    }
}

impl<C: Card> Port for Nic<C> {
    type Rx = NicRx<C::Rx>;
    type Tx = NicTx<C::Tx>;

    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn start(&mut self, config: PortConfig) -> Result<Queues<Self::Rx, Self::Tx>, Error> {
        if self.started.is_some() {
            return Err(self.state("the port is started already; stop it first"));
        }
        config.check(&self.info)?;
        let queues = self.try_start(config);
        if queues.is_err() {
            // What failed is the error to report; the device is stopped as well as can be.
            self.interrupts = Interrupts::default();
            let _ = self.device.function.disable_interrupts();
            let _ = self.device.stop();
        }
        queues
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.check_started()?;
        if Arc::strong_count(&self.device) > 1 {
            return Err(self.state("its queues are still in use; drop them before stopping the port"));
        }
        self.update_statistics();
        self.started = None;
        self.interrupts = Interrupts::default();
        // The card is stopped whatever becomes of its interrupts.
        let interrupts = self.device.function.disable_interrupts();
        self.device.stop()?;
        Ok(interrupts?)
    }

    fn stop_rx_queue(&mut self, queue: u16) -> Result<(), Error> {
        self.stop_queue(Way::Receive, queue)
    }

    fn start_rx_queue(&mut self, queue: u16, config: RxQueueConfig) -> Result<Self::Rx, Error> {
        self.start_queue(Way::Receive, queue, |port, started| {
            config.check(&port.info, started.config.rx_offloads)?;
            port.start_receive(queue.into(), config, started)
        })
    }

    fn stop_tx_queue(&mut self, queue: u16) -> Result<(), Error> {
        self.stop_queue(Way::Transmit, queue)
    }

    fn start_tx_queue(&mut self, queue: u16, config: TxQueueConfig) -> Result<Self::Tx, Error> {
        self.start_queue(Way::Transmit, queue, |port, started| {
            config.check(&port.info)?;
            port.start_transmit(queue.into(), config, started)
        })
    }

    fn link(&mut self) -> Link {
        // Acknowledge first: a change after this raises the interrupt again.
        self.look_at_events();
        self.card.link(&self.device)
    }

    fn event_interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.interrupts.events()
    }

    fn events(&mut self) -> PortEvents {
        self.look_at_events();
        mem::take(&mut self.interrupts.happened)
    }

    fn check(&self) -> Result<(), Error> {
        match self.device.function.config().is_there() {
            true => self.card.check(&self.device),
            false => Err(self.device.gone()),
        }
    }

    fn serve_functions(&mut self) -> Result<(), Error> {
        self.check_started()?;
        self.card.serve_functions(&self.device, &self.filters)
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        self.check_started()?;
        if on && !self.info.capabilities.promiscuous {
            return Err(self.info.unsupported("promiscuous mode", "now", NOT_PROMISCUOUS));
        }
        self.change(|filters| filters.promiscuous = on, C::write_modes)
    }

    fn set_all_multicast(&mut self, on: bool) -> Result<(), Error> {
        self.check_started()?;
        self.change(|filters| filters.all_multicast = on, C::write_modes)
    }

    fn set_multicast(&mut self, groups: &[MacAddr]) -> Result<(), Error> {
        self.check_started()?;
        if let Some(group) = groups.iter().find(|group| !group.is_multicast()) {
            let limit = "addresses whose first byte is odd";
            return Err(self.device.unsupported("multicast address", group, limit));
        }
        let most = self.info.capabilities.multicast_addresses;
        if groups.len() > most {
            return Err(self.device.unsupported("number of multicast addresses", groups.len(), most));
        }
        self.change(|filters| filters.multicast = groups.to_vec(), C::write_multicast)
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.check_started()?;
        self.check_unicast(mac)?;
        self.change(|filters| filters.mac = mac, C::write_addresses)?;
        self.info.mac = mac;
        Ok(())
    }

    fn set_extra_unicast(&mut self, macs: &[MacAddr]) -> Result<(), Error> {
        self.check_started()?;
        macs.iter().try_for_each(|mac| self.check_unicast(*mac))?;
        let most = self.info.capabilities.extra_unicast_addresses;
        if macs.len() > most {
            return Err(self.device.unsupported("number of extra addresses", macs.len(), most));
        }
        self.change(|filters| filters.extra_unicast = macs.to_vec(), C::write_addresses)
    }

    fn set_vlan_filter(&mut self, vlans: Option<&[u16]>) -> Result<(), Error> {
        self.check_started()?;
        if !C::CAPABILITIES.vlan_filter {
            return vlans.map_or(Ok(()), |vlans| Err(self.info.no_vlan_filter(vlans)));
        }
        if let Some(vlan) = vlans.unwrap_or_default().iter().find(|vlan| **vlan > MAX_VLAN) {
            return Err(self.info.unsupported("VLAN", vlan, format!("VLANs 0 to {MAX_VLAN}")));
        }
        self.change(|filters| filters.vlans = vlans.map(<[u16]>::to_vec), C::write_vlans)
    }

    fn set_flows(&mut self, rules: &[FlowRule]) -> Result<(), Error> {
        let started = self.started.as_ref().ok_or_else(|| self.not_started())?;
        FlowRule::check_all(rules, &self.info, started.rx.len())?;
        self.check_led_to(rules, started)?;
        match C::CAPABILITIES.flow.rules {
            0 => Ok(()),
            _ => self.change(|filters| filters.flows = rules.to_vec(), C::write_flows),
        }
    }

    fn stats(&mut self) -> Stats {
        self.update_statistics();
        let mut stats = Stats::from_queues(&self.rx_queue_stats(), &self.tx_queue_stats());
        stats.rx_missed = self.statistics.sum(C::RX_MISSED);
        stats.rx_errors = stats.rx_errors.saturating_add(self.statistics.sum(C::RX_ERRORS));
        stats.tx_errors = stats.tx_errors.saturating_add(self.statistics.sum(C::TX_ERRORS));
        stats
    }

    fn xstats(&mut self) -> Vec<XStat> {
        self.update_statistics();
        let long = self.rx_counters.iter().map(|queue| queue.longer_than_mtu.load(Ordering::Relaxed)).sum();
        let mut stats: Vec<XStat> = self.statistics.xstats().collect();
        stats.push(XStat { name: "rx_longer_than_mtu_packets".into(), value: long });
        for (way, queues) in [("rx", self.rx_queue_stats()), ("tx", self.tx_queue_stats())] {
            for (number, queue) in queues.into_iter().enumerate() {
                let mut push =
                    |what, value| stats.push(XStat { name: format!("{way}_q{number}_{what}"), value });
                push("packets", queue.packets);
                push("bytes", queue.bytes);
                push("errors", queue.errors);
                if way == "rx" {
                    push("nombuf", queue.nombuf);
                }
            }
        }
        stats
    }

    fn rx_queue_stats(&self) -> Vec<QueueStats> {
        self.rx_counters.iter().map(|queue| queue.queue.stats()).collect()
    }

    fn tx_queue_stats(&self) -> Vec<QueueStats> {
        self.tx_counters.iter().map(|queue| queue.stats()).collect()
    }
}
