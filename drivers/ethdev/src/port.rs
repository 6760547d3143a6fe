use std::os::fd::BorrowedFd;

use pagewire_pool::{Burst, Packet, Pool};

use crate::config::{PortConfig, PortInfo, RxQueueConfig, TxQueueConfig};
use crate::error::Error;
use crate::flow::FlowRule;
use crate::interrupt::{PortEvents, RxInterrupt};
use crate::link::Link;
use crate::mac::MacAddr;
use crate::path::PathReport;
use crate::refused::TxRefused;
use crate::stats::{QueueStats, Stats, XStat};

/// The receiving half of a queue pair; owned by one core.
pub trait RxQueue: Send {
    /// Take received packets, at most as many as `out` has room for, and add them to it. Returns how many.
    ///
    /// Never waits. Frames for which the pool has no replacement fragment stay in the ring.
    fn rx_burst(&mut self, out: &mut Burst) -> usize;

    /// The queue's pool, to make packets from.
    fn pool(&mut self) -> &mut Pool;

    /// Fragments that the ring holds now.
    fn posted(&self) -> usize;

    /// How packets are received at present, and what keeps the queue off a faster path.
    fn path(&self) -> PathReport {
        PathReport::SIMPLE
    }

    /// The queue's interrupt, to sleep until packets come; `None` unless the port was started with
    /// [`PortConfig::rx_interrupts`].
    fn interrupt(&self) -> Option<&dyn RxInterrupt> {
        None
    }
}

/// The sending half of a queue pair; owned by one core.
pub trait TxQueue: Send {
    /// Send packets from the front of the burst; what there was no room for stays in it, in order. Returns how many went.
    ///
    /// Never waits. A packet that can never be sent (empty, too long, more segments than the ring has) is dropped and
    /// counted as an error, and counts as gone; [`check`](TxQueue::check) says why.
    ///
    /// # Checksums and segmentation
    ///
    /// Whoever asks for them (`PacketFlags::TX_*`) says where the headers are ([`Packet::set_header_lens`]), and for TSO how long the
    /// TCP header and a segment's payload are ([`Packet::set_segmentation`]). Layer 2 goes up to the IP header, tags in the packet
    /// included; headers of a tunnel may be counted to it as far as the card can be told (127 bytes on an 82599), whose own checksums
    /// the card then leaves alone. TSO implies the checksums of IP and TCP, and wants all headers in the first segment.
    ///
    /// The driver fills in what the card needs in the checksum fields, 0 or the sum of the pseudo-header, and so changes the packet; and
    /// cuts off what is behind the end that IP tells, which the card would sum too.
    /// It cannot where the CPU does not reach the packet's memory, where the field is not in the first segment, and for the
    /// pseudo-header's sum where the IP header has options or extensions: there the field must hold, as it does for DPDK's drivers,
    /// 0 for IPv4, the pseudo-header's sum for TCP and UDP, without their length for TSO. In memory that the CPU does not reach,
    /// `TX_IP_CSUM` tells TSO over IPv4 from TSO over IPv6.
    fn tx_burst(&mut self, packets: &mut Burst) -> usize;

    /// Whether a packet can be sent, if there is room: what [`tx_burst`](TxQueue::tx_burst) drops is refused here with the reason. Not
    /// for the hot path.
    ///
    /// # Errors
    ///
    /// The first thing that is in the way.
    fn check(&self, packet: &Packet) -> Result<(), TxRefused>;

    /// Return the packets that have been sent to their pools now. Returns how many fragments were freed.
    ///
    /// [`tx_burst`](TxQueue::tx_burst) does so when it needs room; a run loop that is idle calls this, so that a quiet ring hoards
    /// nothing. It may read a register: not for the hot path.
    fn reclaim(&mut self) -> usize;

    /// Fragments that the ring holds now.
    fn pending(&self) -> usize;

    /// How packets are sent, and what keeps the queue off a faster path.
    fn path(&self) -> PathReport {
        PathReport::SIMPLE
    }
}

/// What a port has that cannot stop one of its queues.
pub(crate) const NO_QUEUE_STOP: &str = "queues that stop and start together";

/// A started port's queues, each kind in order of its number.
pub type Queues<R, T> = (Vec<R>, Vec<T>);

/// One network interface.
///
/// Dropping a port and its queues, in any order, stops the device before its memory is let go.
pub trait Port: Send {
    /// The driver's receive queue.
    type Rx: RxQueue;
    /// The driver's transmit queue.
    type Tx: TxQueue;

    /// What the port is and can do.
    fn info(&self) -> &PortInfo;

    /// Configure the port, start it, and split it into its queues.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the port is started already; it goes on. [`Error::Unsupported`] if more is asked than [`Capabilities`](crate::Capabilities)
    /// say, and what the device makes of it; the port is stopped then.
    fn start(&mut self, config: PortConfig) -> Result<Queues<Self::Rx, Self::Tx>, Error>;

    /// Stop the device and free what its queues left behind. The queues must have been dropped.
    ///
    /// # Errors
    ///
    /// [`Error::State`] while a queue lives; [`Error::Timeout`] if the device does not stop (bus mastering is off all the same).
    fn stop(&mut self) -> Result<(), Error>;

    /// Stop one receive queue while others run. The queue must have been dropped; its fragments go home, with the frames that were
    /// in its ring. RSS sends what would come to it to the queues that run. What has no hash goes to queue 0 whatever runs: it is the
    /// last to stop and the first to start.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the port cannot; [`Error::State`] if the port or the queue is not started, the queue has not been
    /// dropped, a [flow rule](Port::set_flows) leads to it, or it is queue 0 and others run; [`Error::Timeout`] if the device does not
    /// stop it: then it keeps its memory until this succeeds or the port is stopped.
    fn stop_rx_queue(&mut self, queue: u16) -> Result<(), Error> {
        Err(self.info().unsupported("stopping", format!("receive queue {queue} alone"), NO_QUEUE_STOP))
    }

    /// Start a receive queue that was stopped, with a new ring.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the port is not started, the queue is, or receive queue 0 is not; [`Error::Unsupported`] if the port cannot, or
    /// more is asked than it can do; [`Error::Timeout`] if the device does not start it. The queue stays stopped then.
    fn start_rx_queue(&mut self, queue: u16, _config: RxQueueConfig) -> Result<Self::Rx, Error> {
        Err(self.info().unsupported("starting", format!("receive queue {queue} alone"), NO_QUEUE_STOP))
    }

    /// Stop one transmit queue while others run. The queue must have been dropped; what it had not sent within some milliseconds is
    /// not sent, and all its fragments go home.
    ///
    /// # Errors
    ///
    /// As for [`stop_rx_queue`](Port::stop_rx_queue).
    fn stop_tx_queue(&mut self, queue: u16) -> Result<(), Error> {
        Err(self.info().unsupported("stopping", format!("transmit queue {queue} alone"), NO_QUEUE_STOP))
    }

    /// Start a transmit queue that was stopped, with a new ring.
    ///
    /// # Errors
    ///
    /// As for [`start_rx_queue`](Port::start_rx_queue).
    fn start_tx_queue(&mut self, queue: u16, _config: TxQueueConfig) -> Result<Self::Tx, Error> {
        Err(self.info().unsupported("starting", format!("transmit queue {queue} alone"), NO_QUEUE_STOP))
    }

    /// The link, as the device has it now. Acknowledges the [event interrupt](Port::event_interrupt).
    fn link(&mut self) -> Link;

    /// Becomes readable when the link changes, the device is in trouble or a virtual function asks for something; `None` if the port
    /// has no such interrupt, and [`link`](Port::link) is to be polled.
    fn event_interrupt(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What has happened since this was asked last. Acknowledges the [event interrupt](Port::event_interrupt).
    fn events(&mut self) -> PortEvents {
        PortEvents::empty()
    }

    /// Whether the device is still there. To be asked now and then: a device that is gone receives nothing and says nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if it is not; [`Error::WasReset`] if somebody else has reset it.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Answer what the virtual functions of [`PortConfig::functions`] have asked since the last time, and see to those that were reset.
    /// To be called every few milliseconds while there are any, or when [`event_interrupt`](Port::event_interrupt) becomes readable: their
    /// drivers wait a second for an answer, some longer. Never waits.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the device is not there.
    fn serve_functions(&mut self) -> Result<(), Error> {
        Ok(())
    }

    // Filters. What is not overridden suits a port that has none and receives every frame.

    /// Receive every frame, or only those for the port.
    fn set_promiscuous(&mut self, _on: bool) -> Result<(), Error> {
        Ok(())
    }

    /// Receive every multicast frame, or only those of [`set_multicast`](Port::set_multicast).
    fn set_all_multicast(&mut self, _on: bool) -> Result<(), Error> {
        Ok(())
    }

    /// Receive frames for these groups.
    fn set_multicast(&mut self, _groups: &[MacAddr]) -> Result<(), Error> {
        Ok(())
    }

    /// Receive frames for these addresses besides the port's own.
    fn set_extra_unicast(&mut self, _macs: &[MacAddr]) -> Result<(), Error> {
        Ok(())
    }

    /// Change the port's own address.
    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error>;

    /// Receive frames of these VLANs only, and those without tag, promiscuous or not; or of all (`None`). A frame that has a tag for
    /// its priority alone is of VLAN 0.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the port has no such filter, [`Error::State`] if it is not started.
    fn set_vlan_filter(&mut self, vlans: Option<&[u16]>) -> Result<(), Error> {
        vlans.map_or(Ok(()), |vlans| Err(self.info().no_vlan_filter(vlans)))
    }

    /// Lead the packets of some flows to queues of their own, or drop them: these rules, in place of all that were there before. A
    /// stop of the port makes it forget them.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the port cannot follow one of them, [`Error::State`] if it is not started or a queue is stopped that one of
    /// them leads to; then none is changed.
    fn set_flows(&mut self, rules: &[FlowRule]) -> Result<(), Error> {
        FlowRule::check_all(rules, self.info(), 0)
    }

    /// What the port counted since it was opened.
    fn stats(&mut self) -> Stats {
        Stats::from_queues(&self.rx_queue_stats(), &self.tx_queue_stats())
    }

    /// Every other counter there is, by name.
    ///
    /// A card's registers are added up when they are read, here and by [`stats`](Port::stats), and count no further than they are
    /// wide: to be called every 30 seconds at least, for the 36 bits of a byte counter last for 55 at 10 Gb/s.
    fn xstats(&mut self) -> Vec<XStat> {
        Vec::new()
    }

    /// What each receive queue counted since the port was opened.
    fn rx_queue_stats(&self) -> Vec<QueueStats>;

    /// What each transmit queue counted since the port was opened.
    fn tx_queue_stats(&self) -> Vec<QueueStats>;

    /// The port behind a type that hides its driver.
    fn into_any(self) -> AnyPort
    where
        Self: Sized + 'static,
        Self::Rx: 'static,
        Self::Tx: 'static,
    {
        Box::new(Boxed(self))
    }
}

/// A receive queue of any driver.
pub type AnyRxQueue = Box<dyn RxQueue>;
/// A transmit queue of any driver.
pub type AnyTxQueue = Box<dyn TxQueue>;
/// A port of any driver, for applications that choose at run time. Dispatches once a burst.
pub type AnyPort = Box<dyn Port<Rx = AnyRxQueue, Tx = AnyTxQueue>>;

impl<Q: RxQueue + ?Sized> RxQueue for Box<Q> {
    #[inline]
    fn rx_burst(&mut self, out: &mut Burst) -> usize {
        (**self).rx_burst(out)
    }
    fn pool(&mut self) -> &mut Pool {
        (**self).pool()
    }
    fn posted(&self) -> usize {
        (**self).posted()
    }
    fn path(&self) -> PathReport {
        (**self).path()
    }
    fn interrupt(&self) -> Option<&dyn RxInterrupt> {
        (**self).interrupt()
    }
}

impl<Q: TxQueue + ?Sized> TxQueue for Box<Q> {
    #[inline]
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        (**self).tx_burst(packets)
    }
    fn check(&self, packet: &Packet) -> Result<(), TxRefused> {
        (**self).check(packet)
    }
    fn reclaim(&mut self) -> usize {
        (**self).reclaim()
    }
    fn pending(&self) -> usize {
        (**self).pending()
    }
    fn path(&self) -> PathReport {
        (**self).path()
    }
}

/// A port whose queues are boxed.
struct Boxed<P>(P);

impl<P> Port for Boxed<P>
where
    P: Port,
    P::Rx: 'static,
    P::Tx: 'static,
{
    type Rx = AnyRxQueue;
    type Tx = AnyTxQueue;

    fn info(&self) -> &PortInfo {
        self.0.info()
    }
    fn start(&mut self, config: PortConfig) -> Result<Queues<AnyRxQueue, AnyTxQueue>, Error> {
        let (rx, tx) = self.0.start(config)?;
        Ok((
            rx.into_iter().map(|queue| Box::new(queue) as AnyRxQueue).collect(),
            tx.into_iter().map(|queue| Box::new(queue) as AnyTxQueue).collect(),
        ))
    }
    fn stop(&mut self) -> Result<(), Error> {
        self.0.stop()
    }
    fn stop_rx_queue(&mut self, queue: u16) -> Result<(), Error> {
        self.0.stop_rx_queue(queue)
    }
    fn start_rx_queue(&mut self, queue: u16, config: RxQueueConfig) -> Result<AnyRxQueue, Error> {
        Ok(Box::new(self.0.start_rx_queue(queue, config)?))
    }
    fn stop_tx_queue(&mut self, queue: u16) -> Result<(), Error> {
        self.0.stop_tx_queue(queue)
    }
    fn start_tx_queue(&mut self, queue: u16, config: TxQueueConfig) -> Result<AnyTxQueue, Error> {
        Ok(Box::new(self.0.start_tx_queue(queue, config)?))
    }
    fn link(&mut self) -> Link {
        self.0.link()
    }
    fn event_interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.0.event_interrupt()
    }
    fn events(&mut self) -> PortEvents {
        self.0.events()
    }
    fn check(&self) -> Result<(), Error> {
        self.0.check()
    }
    fn serve_functions(&mut self) -> Result<(), Error> {
        self.0.serve_functions()
    }
    fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        self.0.set_promiscuous(on)
    }
    fn set_all_multicast(&mut self, on: bool) -> Result<(), Error> {
        self.0.set_all_multicast(on)
    }
    fn set_multicast(&mut self, groups: &[MacAddr]) -> Result<(), Error> {
        self.0.set_multicast(groups)
    }
    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.0.set_mac(mac)
    }
    fn set_extra_unicast(&mut self, macs: &[MacAddr]) -> Result<(), Error> {
        self.0.set_extra_unicast(macs)
    }
    fn set_vlan_filter(&mut self, vlans: Option<&[u16]>) -> Result<(), Error> {
        self.0.set_vlan_filter(vlans)
    }
    fn set_flows(&mut self, rules: &[FlowRule]) -> Result<(), Error> {
        self.0.set_flows(rules)
    }
    fn stats(&mut self) -> Stats {
        self.0.stats()
    }
    fn xstats(&mut self) -> Vec<XStat> {
        self.0.xstats()
    }
    fn rx_queue_stats(&self) -> Vec<QueueStats> {
        self.0.rx_queue_stats()
    }
    fn tx_queue_stats(&self) -> Vec<QueueStats> {
        self.0.tx_queue_stats()
    }
}
