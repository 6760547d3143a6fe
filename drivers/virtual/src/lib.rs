//! Devices without hardware, each one small file on the public driver interface.
//!
//! * [`Null`] (`null:`): receives without end, discards what is sent. Measures the framework itself.
//! * [`Pcap`] (`pcap:IN[,OUT][,repeat=N]`): receives a capture's frames, writes what is sent to another.
//! * [`Ring`] (`ring:NAME`): two ports of the same name, joined in memory.

use std::sync::atomic::{AtomicBool, Ordering};

use pagewire_ethdev::{
    Capabilities, DescriptorLimits, Error, FlowLimits, MacAddr, Packet, PortInfo, RssLimits, RxOffloads,
    TxOffloads, TxRefused,
};

mod null;
mod pcap;
mod ring;

pub use null::{Null, NullRx, NullTx};
pub use pagewire_captures::{PcapError, PcapOptions, PcapReport};
pub use pcap::{Pcap, PcapRx, PcapTx};
pub use ring::{Ring, RingRx, RingTx};

/// What packets may ask for.
const TX_OFFLOADS: TxOffloads = TxOffloads::MULTI_SEGS;

/// A packet goes out as it is, or not at all.
fn check(packet: &Packet) -> Result<(), TxRefused> {
    match TxOffloads::asked_by(packet) - TX_OFFLOADS {
        missing if missing.is_empty() => Ok(()),
        missing => Err(TxRefused::Offload(missing)),
    }
}

/// What all virtual ports have in common: a name, a locally administered address, one queue pair.
fn info(name: String, driver: &'static str, mac: MacAddr) -> PortInfo {
    let descriptors = DescriptorLimits { min: 64, max: 4096 };
    PortInfo {
        name,
        driver,
        mac,
        numa_node: None,
        capabilities: Capabilities {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: descriptors,
            tx_descriptors: descriptors,
            rx_offloads: RxOffloads::SCATTER,
            tx_offloads: TX_OFFLOADS,
            max_mtu: 9216,
            multicast_addresses: 512,
            extra_unicast_addresses: 512,
            rss: RssLimits::NONE,
            queue_stop: false,
            vlan_filter: false,
            flow: FlowLimits::NONE,
            promiscuous: true,
            functions: 0,
            rx_interrupts: None,
        },
    }
}

/// Whether a port is started, with the errors of a call that does not fit.
#[derive(Debug, Default)]
struct Started(AtomicBool);

impl Started {
    fn set(&self, port: &str, started: bool) -> Result<(), Error> {
        if self.0.swap(started, Ordering::Relaxed) != started {
            return Ok(());
        }
        let what =
            if started { "the port is started already; stop it first" } else { "the port is not started" };
        Err(Error::State { port: port.into(), what })
    }
}
