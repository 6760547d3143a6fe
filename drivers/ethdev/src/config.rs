//! What ports can do, and what they are asked to.

use std::fmt::Display;
use std::time::Duration;

use pagewire_pool::{Packet, PacketFlags, Pool, RssTypes};

use crate::error::Error;
use crate::flow::FlowLimits;
use crate::mac::MacAddr;

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

/// What a port has that cannot be promiscuous.
pub(crate) const NOT_PROMISCUOUS: &str = "only frames for its own addresses and groups; start it without";

/// How many descriptors a ring can have: a power of two between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimits {
    /// Fewest.
    pub min: u32,
    /// Most.
    pub max: u32,
}

impl DescriptorLimits {
    fn check(&self, info: &PortInfo, what: &'static str, asked: u32) -> Result<(), Error> {
        if asked.is_power_of_two() && (self.min..=self.max).contains(&asked) {
            return Ok(());
        }
        let limit = format!("rings of a power of two from {} to {}", self.min, self.max);
        Err(info.unsupported(what, format!("{asked} descriptors"), limit))
    }
}

/// What a port can do. Asked, never guessed; asking for more is an error at [`Port::start`](crate::Port::start).
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
    /// What RSS can be told.
    pub rss: RssLimits,
    /// Whether single queues can be stopped, and started again, while others run.
    pub queue_stop: bool,
    /// Whether frames can be filtered by their VLAN.
    pub vlan_filter: bool,
    /// What [`FlowRule`](crate::FlowRule)s it can follow.
    pub flow: FlowLimits,
    /// Whether it can receive every frame, whoever it is for.
    pub promiscuous: bool,
    /// Virtual functions that it can look after.
    pub functions: u16,
    /// The longest [`PortConfig::rx_interrupts`]; `None` if receive queues have no interrupts.
    pub rx_interrupts: Option<Duration>,
}

/// What a port's RSS can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RssLimits {
    /// Bytes of its key.
    pub key: usize,
    /// Entries of its redirection table.
    pub table: usize,
    /// What it can hash.
    pub types: RssTypes,
}

impl RssLimits {
    /// A port without RSS.
    pub const NONE: RssLimits = RssLimits { key: 0, table: 0, types: RssTypes::empty() };
}

/// How packets are spread over several receive queues: by a Toeplitz hash of their addresses and ports, whose lowest bits choose
/// an entry of the redirection table, which names the queue. What has no hash goes to queue 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RssConfig {
    /// The key, of [`RssLimits::key`] bytes. By default one with which both directions of a flow meet at one queue.
    pub key: Option<Vec<u8>>,
    /// The redirection table, of [`RssLimits::table`] queue numbers. By default all queues in turn.
    pub table: Option<Vec<u16>>,
    /// What is hashed. By default all that the port can. Empty is nothing: every packet goes to queue 0 but those that flow rules lead
    /// elsewhere.
    pub types: Option<RssTypes>,
}

impl RssConfig {
    fn check(
        &self,
        can: &RssLimits,
        queues: usize,
        hash: bool,
    ) -> Result<(), (&'static str, String, String)> {
        if self.types.is_some_and(|types| types.is_empty()) {
            for (asked, what) in
                [(hash, "RxOffloads::RSS_HASH"), (self.key.is_some(), "key"), (self.table.is_some(), "table")]
            {
                if asked {
                    let limit = "no hash where RssConfig::types is empty";
                    return Err(("RSS with a", what.into(), limit.into()));
                }
            }
        }
        if let Some(key) = self.key.as_ref().filter(|key| key.len() != can.key) {
            return Err(("RSS key of", format!("{} bytes", key.len()), format!("keys of {} bytes", can.key)));
        }
        if let Some(table) = &self.table {
            if table.len() != can.table {
                let limit = format!("a table of {} entries", can.table);
                return Err(("RSS redirection table of", format!("{} entries", table.len()), limit));
            }
            if let Some(queue) = table.iter().find(|queue| usize::from(**queue) >= queues) {
                let limit = format!("{queues} receive queues as it is configured");
                return Err(("RSS redirection to queue", queue.to_string(), limit));
            }
        }
        match self.types.unwrap_or_default() - can.types {
            missing if missing.is_empty() => Ok(()),
            missing => Err(("RSS of", format!("{missing:?}"), format!("{:?}", can.types))),
        }
    }
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

impl PortInfo {
    /// [`Error::Unsupported`]: more was asked of the port than it has.
    pub fn unsupported(&self, what: &'static str, asked: impl Display, limit: impl Display) -> Error {
        let (asked, limit) = (asked.to_string(), limit.to_string());
        Error::Unsupported { port: self.name.clone(), what, asked, limit }
    }

    pub(crate) fn no_vlan_filter(&self, vlans: &[u16]) -> Error {
        self.unsupported(
            "filtering by VLAN, of which",
            format!("{} are asked for,", vlans.len()),
            "no such filter",
        )
    }
}

/// A receive queue to be.
#[derive(Debug)]
pub struct RxQueueConfig {
    /// Where its fragments come from; the queue owns it from now on.
    pub pool: Pool,
    /// Descriptors in its ring.
    pub descriptors: u32,
    /// Where fragments for headers come from, with [`RxOffloads::HEADER_SPLIT`]: the headers of IP and, where there are such, of TCP or
    /// UDP come into a fragment of this pool, what follows into one of [`pool`](RxQueueConfig::pool), both chained to one packet
    /// with `PacketFlags::RX_HEADER_SPLIT`. Packets without such headers, or with headers that are longer than the fragment, come
    /// without it, all in the one pool.
    pub headers: Option<Pool>,
}

impl RxQueueConfig {
    /// A queue of so many descriptors.
    pub fn new(pool: Pool, descriptors: u32) -> RxQueueConfig {
        RxQueueConfig { pool, descriptors, headers: None }
    }

    /// Compare what is asked with what a port can do that is started with these offloads.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`].
    pub fn check(&self, info: &PortInfo, offloads: RxOffloads) -> Result<(), Error> {
        info.capabilities.rx_descriptors.check(info, "receive ring of", self.descriptors)?;
        match offloads.contains(RxOffloads::HEADER_SPLIT) == self.headers.is_some() {
            true => Ok(()),
            false => {
                let asked = if self.headers.is_some() { "pool" } else { "split" };
                let limit = "either both a pool for headers and RxOffloads::HEADER_SPLIT, or neither";
                Err(info.unsupported("header", asked, limit))
            }
        }
    }
}

/// A transmit queue to be.
#[derive(Clone, Debug)]
pub struct TxQueueConfig {
    /// Descriptors in its ring.
    pub descriptors: u32,
}

impl TxQueueConfig {
    /// Compare what is asked with what the port can do.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`].
    pub fn check(&self, info: &PortInfo) -> Result<(), Error> {
        info.capabilities.tx_descriptors.check(info, "transmit ring of", self.descriptors)
    }
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
    /// How packets are spread over several receive queues.
    pub rss: RssConfig,
    /// The card's virtual functions, in order, which others drive: [`Port::serve_functions`](crate::Port::serve_functions) answers
    /// them. Without any, the card is the port's alone. What they send it may be longer than its MTU, and then takes more than a receive
    /// buffer.
    pub functions: Vec<FunctionConfig>,
    /// Use vector instructions (AVX2) where the CPU has them and a driver's loops know them; [`RxQueue::path`](crate::RxQueue::path) tells.
    pub vector: bool,
    /// Give each receive queue an interrupt ([`RxQueue::interrupt`](crate::RxQueue::interrupt)), and this much time at least from one
    /// to the next: what a packet may wait for its interrupt. With [`RxOffloads::LRO`] also what segments wait for others of their
    /// flow, 50 microseconds if it is 0.
    pub rx_interrupts: Option<Duration>,
}

/// What a virtual function is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionConfig {
    /// Its address, which it may not change unless it is trusted. By default one made of the port's own, which it may change.
    pub mac: Option<MacAddr>,
    /// It may receive all groups, and choose its address though it was given one.
    pub trusted: bool,
}

impl Default for PortConfig {
    /// No queues, MTU 1,500, no offloads, promiscuous, no receive interrupts.
    fn default() -> PortConfig {
        PortConfig {
            rx: Vec::new(),
            tx: Vec::new(),
            mtu: 1500,
            rx_offloads: RxOffloads::empty(),
            tx_offloads: TxOffloads::empty(),
            promiscuous: true,
            rss: RssConfig::default(),
            functions: Vec::new(),
            vector: true,
            rx_interrupts: None,
        }
    }
}

impl PortConfig {
    /// Descriptors in a ring unless configured otherwise.
    pub const DESCRIPTORS: u32 = 512;

    /// One queue pair of 512 descriptors, MTU 1,500, no offloads, promiscuous.
    pub fn single_queue(pool: Pool) -> PortConfig {
        PortConfig {
            rx: vec![RxQueueConfig::new(pool, PortConfig::DESCRIPTORS)],
            tx: vec![TxQueueConfig { descriptors: PortConfig::DESCRIPTORS }],
            ..PortConfig::default()
        }
    }

    /// Compare what is asked with what the port can do.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] with the name of the first thing that is too much. Every driver calls this first.
    pub fn check(&self, info: &PortInfo) -> Result<(), Error> {
        let can = &info.capabilities;
        let refuse = |what, asked: String, limit: String| Err(info.unsupported(what, asked, limit));
        for (what, asked, most) in [
            ("number of receive queues", self.rx.len(), can.rx_queues),
            ("number of transmit queues", self.tx.len(), can.tx_queues),
            ("number of virtual functions", self.functions.len(), can.functions),
        ] {
            if asked > most.into() {
                return refuse(what, asked.to_string(), format!("{most}"));
            }
        }
        if self.promiscuous && !can.promiscuous {
            return refuse("promiscuous mode", "at start".into(), NOT_PROMISCUOUS.into());
        }
        self.tx.iter().try_for_each(|queue| queue.check(info))?;
        // RFC 791: every link carries 68 bytes.
        if !(68..=can.max_mtu).contains(&self.mtu) {
            return refuse("MTU", self.mtu.to_string(), format!("68 to {}", can.max_mtu));
        }
        let missing = self.rx_offloads - can.rx_offloads;
        if !missing.is_empty() {
            return refuse("receive offload", format!("{missing:?}"), format!("{:?}", can.rx_offloads));
        }
        if self.rx_offloads.contains(RxOffloads::HEADER_SPLIT | RxOffloads::LRO) {
            return refuse("LRO", "with header split".into(), "one or the other".into());
        }
        self.rx.iter().try_for_each(|queue| queue.check(info, self.rx_offloads))?;
        let missing = self.tx_offloads - can.tx_offloads;
        if !missing.is_empty() {
            return refuse("transmit offload", format!("{missing:?}"), format!("{:?}", can.tx_offloads));
        }
        match (self.rx_interrupts, can.rx_interrupts) {
            (None, _) => {}
            (Some(asked), Some(longest)) if asked <= longest => {}
            (Some(asked), longest) => {
                let limit =
                    longest.map_or("none: poll it".into(), |longest| format!("intervals up to {longest:?}"));
                return refuse("receive interrupts at intervals of", format!("{asked:?}"), limit);
            }
        }
        let hash = self.rx_offloads.contains(RxOffloads::RSS_HASH);
        self.rss
            .check(&can.rss, self.rx.len(), hash)
            .or_else(|(what, asked, limit)| refuse(what, asked, limit))
    }
}
