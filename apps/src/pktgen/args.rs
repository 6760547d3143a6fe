//! The command line of `pagewire pktgen`.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use pagewire_ethdev::{MacAddr, RxOffloads};
use pagewire_pool::PoolConfig;

use super::pace::Rate;
use super::plan;
use super::scenario::{Checksums, Frame, Paced, Pass, Payload, Protocol, Scenario, Stream};
use super::values::{Range, Sizes};
use crate::l2fwd::args::CpuList;
use crate::memory::{Needs, Rings};
use crate::ports::{Access, PortSpec};
use crate::run::{self, Reporting};

const EXAMPLES: &str = "\
Examples:
  pagewire pktgen                                             two modelled cards back to back, for 10 seconds
  pagewire pktgen --port 01:00.0 --port 02:00.0 --rate 1Mpps --duration 30      from one card to the other
  pagewire pktgen --port 01:00.0 --port 02:00.0 --size imix --rate 40% --json
  pagewire pktgen --port 01:00.0 --src-ip 10.0.0.1-10.0.0.254 --dst-port 'random 1-65535' --no-rx
  pagewire pktgen --port ring:a --port ring:a --rate 100kpps --duration 5 --max-loss 0   exit code 3 if any is lost
  pagewire pktgen --port 01:00.0 --port 02:00.0 --scenario night.toml           see docs/pktgen.md";

/// What `pagewire pktgen` is asked to do.
///
/// Generate packets and measure what becomes of them: rate, loss, order, duplicates, corruption, latency and jitter.
///
/// Values of fields are one, FIRST-LAST, FIRST-LAST/STEP or 'random FIRST-LAST'. Lengths of frames include their check sequence of 4 bytes.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub(crate) struct Args {
    /// A port, once for each: a PCI address bound to vfio-pci (see `pagewire dev bind`), vfio-user:SOCKET (see `pagewire model`),
    /// null:, null:SIZE, pcap:IN, pcap:IN,OUT, pcap:IN,OUT,repeat=N or ring:NAME. None at all: two models of the 82599 in this process, back to back
    #[arg(long = "port", value_name = "ADDR")]
    pub(super) ports: Vec<PortSpec>,

    /// What to send, from a file: see docs/pktgen.md. In place of the options from --tx-port to --max-loss
    #[arg(long, value_name = "FILE", conflicts_with = "traffic")]
    scenario: Option<PathBuf>,

    #[command(flatten)]
    traffic: Traffic,

    /// Receive nothing: only send
    #[arg(long, conflicts_with = "rx_port")]
    no_rx: bool,

    /// Send for so many seconds before the measurement begins
    #[arg(long, value_name = "SECONDS", value_parser = run::seconds)]
    warm_up: Option<std::time::Duration>,

    /// Wait for frames on their way until none has come for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = run::seconds)]
    pub(super) drain: std::time::Duration,

    /// Queue pairs of each port: each stream is sent on all transmit queues of its port, a share on each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(super) queues: u16,

    /// CPUs to run on, one loop each: 2,3 or 2-5. By default as many as there are queues at work, less one CPU for the rest
    #[arg(long, value_name = "CPUS")]
    pub(super) cores: Option<CpuList>,

    /// Packets handled at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) burst: u16,

    #[command(flatten)]
    pub(super) rings: Rings,

    /// Fragments in each queue's pool. By default what the rings and caches can hold, and some
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
    fragments: Option<u32>,

    #[command(flatten)]
    pub(super) reporting: Reporting,

    #[command(flatten)]
    pub(super) access: Access,
}

/// One stream, and what makes it a success.
#[derive(ClapArgs, Clone, Debug)]
#[group(id = "traffic", multiple = true)]
struct Traffic {
    /// The port that sends, by its place among --port
    #[arg(long, value_name = "N", default_value_t = 0)]
    tx_port: usize,

    /// The port where frames are expected. By default the other one, or the only one unless it is null:
    #[arg(long, value_name = "N")]
    rx_port: Option<usize>,

    /// How fast: max, 1000pps, 1.5Mpps, 5Gbps (frames), 5GbpsL1 (with gaps and preambles), 40% (of the link) or gap:96B
    #[arg(long, default_value = "max")]
    rate: Rate,

    /// Packets sent together, at so many times the interval
    #[arg(long, value_name = "N", default_value_t = 1)]
    stream_burst: u32,

    /// Stop after this many packets
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Bytes of frames: 64, 64-1518/2, 'random 64-1518', 64:7,594:4,1518:1 (with weights) or imix
    #[arg(long, value_name = "SIZES", default_value = "64")]
    size: Sizes,

    /// Source address of Ethernet. By default the sending port's
    #[arg(long, value_name = "MACS")]
    src_mac: Option<Range<MacAddr>>,

    /// Destination address of Ethernet. By default the receiving port's
    #[arg(long, value_name = "MACS")]
    dst_mac: Option<Range<MacAddr>>,

    /// ID of an 802.1Q tag; twice for two tags, the outer one first
    #[arg(long, value_name = "IDS")]
    vlan: Vec<Range<u16>>,

    /// Source address of IPv4 or IPv6. By default 198.18.0.1
    #[arg(long, value_name = "ADDRS")]
    src_ip: Option<Range<IpAddr>>,

    /// Destination address of IPv4 or IPv6. By default 198.19.0.1
    #[arg(long, value_name = "ADDRS")]
    dst_ip: Option<Range<IpAddr>>,

    /// What is above IP
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,

    /// Source port of UDP or TCP
    #[arg(long, value_name = "PORTS", default_value = "1024")]
    src_port: Range<u16>,

    /// Destination port of UDP or TCP
    #[arg(long, value_name = "PORTS", default_value = "9")]
    dst_port: Range<u16>,

    /// Time to live, or hop limit
    #[arg(long, default_value_t = 64)]
    ttl: u8,

    /// What is behind headers and signature: zero, increment, random or hexadecimal digits that are repeated
    #[arg(long, default_value = "zero")]
    payload: Payload,

    /// Who fills in checksums
    #[arg(long, value_enum, default_value_t)]
    checksums: Checksums,

    /// Frames without signature: only their number is measured
    #[arg(long)]
    no_signature: bool,

    /// The part of the frames that may be lost, such as 0 or 0.001; more makes the exit code 3
    #[arg(long, value_name = "PART")]
    max_loss: Option<f64>,
}

impl Traffic {
    fn scenario(self) -> Scenario {
        let default = Frame::default();
        let frame = Frame {
            size: self.size,
            src_mac: self.src_mac,
            dst_mac: self.dst_mac,
            vlan: self.vlan,
            src_ip: self.src_ip.unwrap_or(default.src_ip),
            dst_ip: self.dst_ip.unwrap_or(default.dst_ip),
            ttl: self.ttl,
            protocol: self.protocol,
            src_port: self.src_port,
            dst_port: self.dst_port,
            payload: self.payload,
            ..default
        };
        let stream = Stream {
            tx: self.tx_port,
            rx: self.rx_port,
            rate: Paced(self.rate),
            burst: self.stream_burst,
            count: self.count,
            signature: !self.no_signature,
            checksums: self.checksums,
            frames: vec![frame],
            ..Stream::default()
        };
        let pass = Pass { max_loss: self.max_loss, ..Pass::default() };
        Scenario { streams: vec![stream], pass, ..Scenario::default() }
    }
}

impl Args {
    /// What is to be sent, of which the command line has the last word.
    pub(super) fn scenario(&self) -> Result<Scenario> {
        let mut scenario = match &self.scenario {
            Some(path) => Scenario::read(path)?,
            None => self.traffic.clone().scenario().check()?,
        };
        if let Some(duration) = self.reporting.duration {
            scenario.duration = Some(duration.as_secs_f64());
        }
        if let Some(warm_up) = self.warm_up {
            scenario.warm_up = warm_up.as_secs_f64();
        }
        Ok(scenario)
    }

    /// Where streams are expected that do not say so.
    pub(super) fn expect(&self, scenario: &mut Scenario) -> Result<()> {
        for stream in &mut scenario.streams {
            let null = |port: usize| matches!(self.ports.get(port), Some(PortSpec::Null(_)));
            if stream.rx.is_none() {
                stream.rx = match self.ports.len() {
                    1 => Some(0),
                    2 => Some(1 - stream.tx.min(1)),
                    _ => None,
                };
                stream.rx = stream.rx.filter(|port| !null(*port));
            } else if stream.rx.is_some_and(null) {
                bail!("stream {}: rx: a null port receives nothing that was sent", stream.label());
            }
            if self.no_rx {
                stream.rx = None;
            }
        }
        Ok(())
    }

    /// What the ports take of memory.
    pub(super) fn needs(&self, scenario: &Scenario) -> Result<Needs<'_>> {
        let (tx, rx) = plan::roles(scenario, self.ports.len())?;
        let count = |roles: Vec<bool>| roles.into_iter().filter(|role| *role).count();
        let longest = plan::longest(scenario);
        let (jumbo, receivers) = (longest > 1518, count(rx).max(1));
        Ok(Needs {
            ports: &self.ports[..receivers.min(self.ports.len())],
            queues: self.queues,
            pages: self.access.pages,
            descriptors: self.rings.rx_ring.max(self.rings.tx_ring),
            elsewhere: 2 * usize::from(self.burst),
            fragments: self.fragments,
            headroom: if jumbo { 0 } else { PoolConfig::HEADROOM },
            tx_pools: count(tx) * usize::from(self.queues),
            tx_longest: longest,
        })
    }

    /// Largest layer-3 packet, and what ports are asked to do about what they receive.
    pub(super) fn mtu(scenario: &Scenario) -> (u16, RxOffloads) {
        // Two tags count to it where they are not the card's.
        match plan::longest(scenario).saturating_sub(14) {
            longest @ 1509.. => (u16::try_from(longest).unwrap_or(u16::MAX), RxOffloads::SCATTER),
            _ => (1500, RxOffloads::empty()),
        }
    }
}
