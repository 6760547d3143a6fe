use std::os::fd::BorrowedFd;

use pagewire_pool::{Burst, Packet, PacketFlags, Pool};

use crate::error::Error;
use crate::link::Link;
use crate::mac::MacAddr;
use crate::refused::TxRefused;
use crate::stats::{QueueStats, Stats, XStat};

bitflags::bitflags! {
    /// What a port can find out about received packets.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RxOffloads: u32 {
        /// Check the IPv4 header checksum.
        const IP_CSUM = 1 << 0;
        /// Check TCP and UDP checksums.
        const L4_CSUM = 1 << 1;
        /// Take the VLAN tag out of the frame.
        const VLAN_STRIP = 1 << 2;
        /// Receive frames into several segments, which MTUs above the fragment's size need.
        const SCATTER = 1 << 3;
        /// Check SCTP checksums.
        const SCTP_CSUM = 1 << 4;
        /// Report the RSS hash and what it was made of. On in any case where RSS spreads packets over several queues.
        const RSS_HASH = 1 << 5;
        /// Report the headers that were found.
        const PACKET_TYPE = 1 << 6;
        /// Put headers into fragments of a pool of their own: see [`RxQueueConfig::headers`].
        const HEADER_SPLIT = 1 << 7;
        /// Put TCP segments of one flow together that come in order. Such packets are longer than the MTU and have several
        /// segments, their headers are changed: not for what is forwarded.
        const LRO = 1 << 8;
    }

    /// What a port can do to packets it sends.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct TxOffloads: u32 {
        /// Fill in the IPv4 header checksum.
        const IP_CSUM = 1 << 0;
        /// Fill in the TCP checksum.
        const TCP_CSUM = 1 << 1;
        /// Fill in the UDP checksum.
        const UDP_CSUM = 1 << 2;
        /// Insert a VLAN tag.
        const VLAN_INSERT = 1 << 3;
        /// Send packets of several segments.
        const MULTI_SEGS = 1 << 4;
        /// Fill in the SCTP checksum.
        const SCTP_CSUM = 1 << 5;
        /// Cut packets into TCP segments.
        const TSO = 1 << 6;
    }
}

impl TxOffloads {
    /// What has to be enabled for a packet to be sent.
    pub fn asked_by(packet: &Packet) -> TxOffloads {
        let by_flag = [
            (PacketFlags::CHAINED, TxOffloads::MULTI_SEGS),
            (PacketFlags::TX_VLAN_INSERT, TxOffloads::VLAN_INSERT),
            (PacketFlags::TX_IP_CSUM, TxOffloads::IP_CSUM),
            (PacketFlags::TX_TCP_CSUM, TxOffloads::TCP_CSUM),
            (PacketFlags::TX_UDP_CSUM, TxOffloads::UDP_CSUM),
            (PacketFlags::TX_SCTP_CSUM, TxOffloads::SCTP_CSUM),
            (PacketFlags::TX_TSO, TxOffloads::TSO),
        ];
        let flags = packet.flags();
        by_flag.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, offload)| offload).collect()
    }
}

/// How many descriptors a ring can have: a power of two between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimits {
    /// Fewest.
    pub min: u32,
    /// Most.
    pub max: u32,
}

/// What a port can do. Asked, never guessed; asking for more is an error at [`Port::start`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Most receive queues.
    pub rx_queues: u16,
    /// Most transmit queues.
    pub tx_queues: u16,
    /// Receive ring sizes.
    pub rx_descriptors: DescriptorLimits,
    /// Transmit ring sizes.
    pub tx_descriptors: DescriptorLimits,
    /// Receive offloads.
    pub rx_offloads: RxOffloads,
    /// Transmit offloads.
    pub tx_offloads: TxOffloads,
    /// Largest MTU in bytes, without Ethernet header, VLAN tag and frame check sequence.
    pub max_mtu: u16,
    /// Multicast addresses that can be filtered exactly or by hash.
    pub multicast_addresses: usize,
    /// Unicast addresses besides the port's own.
    pub extra_unicast_addresses: usize,
}

/// What a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its name: the PCI address, or the virtual device's specification.
    pub name: String,
    /// The driver's name, as DPDK would call it.
    pub driver: &'static str,
    /// Its own Ethernet address.
    pub mac: MacAddr,
    /// NUMA node it is attached to.
    pub numa_node: Option<u32>,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// A receive queue to be.
#[derive(Debug)]
pub struct RxQueueConfig {
    /// Where its fragments come from; the queue owns it from now on.
    pub pool: Pool,
    /// Descriptors in its ring.
    pub descriptors: u32,
}

/// A transmit queue to be.
#[derive(Clone, Debug)]
pub struct TxQueueConfig {
    /// Descriptors in its ring.
    pub descriptors: u32,
}

/// How to start a port.
#[derive(Debug)]
pub struct PortConfig {
    /// Receive queues.
    pub rx: Vec<RxQueueConfig>,
    /// Transmit queues.
    pub tx: Vec<TxQueueConfig>,
    /// Largest layer-3 packet in bytes, 1,500 for plain Ethernet.
    pub mtu: u16,
    /// Receive offloads to enable.
    pub rx_offloads: RxOffloads,
    /// Transmit offloads that packets may ask for.
    pub tx_offloads: TxOffloads,
    /// Receive every frame, whoever it is for.
    pub promiscuous: bool,
}

impl PortConfig {
    /// Descriptors in a ring unless configured otherwise.
    pub const DESCRIPTORS: u32 = 512;

    /// One queue pair of 512 descriptors, MTU 1,500, no offloads, promiscuous.
    pub fn single_queue(pool: Pool) -> PortConfig {
        PortConfig {
            rx: vec![RxQueueConfig { pool, descriptors: PortConfig::DESCRIPTORS }],
            tx: vec![TxQueueConfig { descriptors: PortConfig::DESCRIPTORS }],
            mtu: 1500,
            rx_offloads: RxOffloads::empty(),
            tx_offloads: TxOffloads::empty(),
            promiscuous: true,
        }
    }

    /// Compare what is asked with what the port can do.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] with the name of the first thing that is too much. Every driver calls this first.
    pub fn check(&self, info: &PortInfo) -> Result<(), Error> {
        let can = &info.capabilities;
        let refuse = |what, asked: String, limit: String| {
            Err(Error::Unsupported { port: info.name.clone(), what, asked, limit })
        };
        for (what, asked, most) in [
            ("number of receive queues", self.rx.len(), can.rx_queues),
            ("number of transmit queues", self.tx.len(), can.tx_queues),
        ] {
            if asked > most.into() {
                return refuse(what, asked.to_string(), format!("{most}"));
            }
        }
        let rx = self.rx.iter().map(|queue| ("receive ring of", queue.descriptors, can.rx_descriptors));
        let tx = self.tx.iter().map(|queue| ("transmit ring of", queue.descriptors, can.tx_descriptors));
        for (what, asked, limits) in rx.chain(tx) {
            if !asked.is_power_of_two() || !(limits.min..=limits.max).contains(&asked) {
                let limit = format!("rings of a power of two from {} to {}", limits.min, limits.max);
                return refuse(what, format!("{asked} descriptors"), limit);
            }
        }
        // RFC 791: every link carries 68 bytes.
        if !(68..=can.max_mtu).contains(&self.mtu) {
            return refuse("MTU", self.mtu.to_string(), format!("68 to {}", can.max_mtu));
        }
        let missing = self.rx_offloads - can.rx_offloads;
        if !missing.is_empty() {
            return refuse("receive offload", format!("{missing:?}"), format!("{:?}", can.rx_offloads));
        }
        let missing = self.tx_offloads - can.tx_offloads;
        if !missing.is_empty() {
            return refuse("transmit offload", format!("{missing:?}"), format!("{:?}", can.tx_offloads));
        }
        Ok(())
    }
}

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
    /// the card then leaves alone. TSO implies the checksums of IP and TCP.
    ///
    /// The driver fills in what the card needs in the checksum fields, 0 or the sum of the pseudo-header, and so changes the packet.
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
}

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
    /// [`Error::State`] if the port is started already; it goes on. [`Error::Unsupported`] if more is asked than [`Capabilities`]
    /// say, and what the device makes of it; the port is stopped then.
    fn start(&mut self, config: PortConfig) -> Result<Queues<Self::Rx, Self::Tx>, Error>;

    /// Stop the device and free what its queues left behind. The queues must have been dropped.
    ///
    /// # Errors
    ///
    /// [`Error::State`] while a queue lives; [`Error::Timeout`] if the device does not stop (bus mastering is off all the same).
    fn stop(&mut self) -> Result<(), Error>;

    /// The link, as the device has it now. Acknowledges a link interrupt.
    fn link(&mut self) -> Link;

    /// Becomes readable when the link changes; `None` if the port has no such interrupt, and [`link`](Port::link) is to be polled.
    fn link_interrupt(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether the device is still there. To be asked now and then: a device that is gone receives nothing and says nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if it is not.
    fn check(&self) -> Result<(), Error> {
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
    fn link(&mut self) -> Link {
        self.0.link()
    }
    fn link_interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.0.link_interrupt()
    }
    fn check(&self) -> Result<(), Error> {
        self.0.check()
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
