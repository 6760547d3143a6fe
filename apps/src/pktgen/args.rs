//! The command line of `pagewire pktgen`.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use pagewire_ethdev::{MacAddr, RxOffloads};
use pagewire_pool::PoolConfig;

use super::captured::Timing;
use super::frame::{Frame, Payload, Protocol};
use super::pace::Rate;
use super::plan;
use super::rfc2544::{Rfc2544, Test};
use super::scenario::{Checksums, Paced, Pass, Scenario, Stream};
use super::values::{Range, Sizes};
use crate::lanes::Lanes;
use crate::memory::Needs;
use crate::ports::{Access, PortSpec};
use crate::run::{self, Reporting};
use crate::screen::ScreenOptions;

const EXAMPLES: &str = "\
Examples:
  pagewire pktgen                                             two modelled cards back to back, for 10 seconds
  pagewire pktgen --port 01:00.0 --port 02:00.0 --rate 1Mpps --duration 30      from one card to the other
  pagewire pktgen --port 01:00.0 --port 02:00.0 --size imix --rate 40% --json
  pagewire pktgen --port 01:00.0 --src-ip 10.0.0.1-10.0.0.254 --dst-port 'random 1-65535' --no-rx
  pagewire pktgen --port ring:a --port ring:a --rate 100kpps --duration 5 --max-loss 0   exit code 3 if any is lost
  pagewire pktgen --port 01:00.0 --port 02:00.0 --rfc2544 --sizes 64,1518 --trial 10      throughput, latency, loss of a device
  pagewire pktgen --port 01:00.0 --pcap in.pcap --timing capture --no-rx    a capture, with its own gaps
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

    #[command(flatten)]
    trials: Trials,

    /// Receive nothing: only send
    #[arg(long, conflicts_with_all = ["rx_port", "rfc2544"])]
    no_rx: bool,

    /// Send for so many seconds before the measurement begins
    #[arg(long, value_name = "SECONDS", value_parser = run::seconds)]
    warm_up: Option<std::time::Duration>,

    /// Wait for frames on their way until none has come for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = run::seconds)]
    pub(super) drain: std::time::Duration,

    /// Take commands at this socket, a line of JSON each: {"command":"stop"}, start, set-rate, statistics, quit. See docs/pktgen.md
    #[arg(long, value_name = "SOCKET")]
    pub(super) control: Option<PathBuf>,

    /// Send nothing before a command says start; the duration counts from then
    #[arg(long, requires = "control")]
    pub(super) stopped: bool,

    #[command(flatten)]
    pub(super) lanes: Lanes,

    #[command(flatten)]
    pub(super) reporting: Reporting,

    #[command(flatten)]
    pub(super) screen: ScreenOptions,

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

    /// Send the frames of a capture, as they are, in place of made ones
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "size", "src_mac", "dst_mac", "vlan", "src_ip", "dst_ip", "protocol", "src_port", "dst_port", "ttl", "payload", "checksums",
    ])]
    pcap: Option<PathBuf>,

    /// Send them with the timing that they were captured with: capture, or capture:0.5 for gaps half as long. By default at the rate
    #[arg(long, value_name = "TIMING", requires = "pcap", conflicts_with_all = ["rate", "stream_burst"])]
    timing: Option<Timing>,

    /// Send the capture so many times; 0 is for ever. By default once
    #[arg(long, value_name = "N", requires = "pcap")]
    loops: Option<u64>,

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

/// RFC 2544's tests.
#[derive(ClapArgs, Clone, Debug)]
#[group(id = "trials", multiple = true, conflicts_with = "scenario")]
struct Trials {
    /// Find out by trials what is between the ports can do (RFC 2544); without a list throughput, latency and frame-loss
    #[arg(long, value_name = "TESTS", value_enum, num_args = 0.., value_delimiter = ',', require_equals = true,
          conflicts_with_all = ["size", "rate", "count", "pcap", "no_signature", "duration", "stream_burst"])]
    rfc2544: Option<Vec<Test>>,

    /// Bytes of the frames. By default 64,128,256,512,1024,1280,1518
    #[arg(long, value_name = "SIZES", value_delimiter = ',', requires = "rfc2544")]
    sizes: Option<Vec<u16>>,

    /// Seconds of a trial whose outcome is reported. By default 60
    #[arg(long, value_name = "SECONDS", requires = "rfc2544")]
    trial: Option<f64>,

    /// Seconds of a trial on the way there. By default 5
    #[arg(long, value_name = "SECONDS", requires = "rfc2544")]
    search_trial: Option<f64>,

    /// The part of a rate that is found to be exact enough. By default 0.01
    #[arg(long, value_name = "PART", requires = "rfc2544")]
    resolution: Option<f64>,

    /// The part of the frames that may be lost in a trial. By default 0
    #[arg(long, value_name = "PART", requires = "rfc2544")]
    loss_tolerance: Option<f64>,

    /// How often a trial of throughput is made before it has gone wrong, where this machine may be why. By default once
    #[arg(long, value_name = "N", requires = "rfc2544")]
    attempts: Option<u32>,

    /// The highest rate to try. By default 100%
    #[arg(long, value_name = "RATE", requires = "rfc2544")]
    max_rate: Option<Rate>,

    /// Less throughput makes the exit code 3
    #[arg(long, value_name = "RATE", requires = "rfc2544")]
    min_throughput: Option<Rate>,
}

impl Trials {
    fn asked(self) -> Option<Rfc2544> {
        let tests = self.rfc2544?;
        let default = Rfc2544::default();
        Some(Rfc2544 {
            tests: if tests.is_empty() { default.tests } else { tests },
            sizes: self.sizes.unwrap_or(default.sizes),
            trial: self.trial.unwrap_or(default.trial),
            search_trial: self.search_trial.unwrap_or(default.search_trial),
            resolution: self.resolution.unwrap_or(default.resolution),
            loss_tolerance: self.loss_tolerance.unwrap_or(default.loss_tolerance),
            attempts: self.attempts.unwrap_or(default.attempts),
            max_rate: self.max_rate.map_or(default.max_rate, Paced),
            pause: default.pause,
            min_throughput: self.min_throughput.map(Paced),
        })
    }
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
            signature: self.no_signature.then_some(false),
            checksums: self.checksums,
            frames: if self.pcap.is_some() { Vec::new() } else { vec![frame] },
            pcap: self.pcap,
            timing: self.timing,
            loops: self.loops,
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
            None => {
                let rfc2544 = self.trials.clone().asked();
                Scenario { rfc2544, ..self.traffic.clone().scenario() }.check()?
            }
        };
        if let Some(duration) = self.reporting.duration {
            if scenario.rfc2544.is_some() {
                bail!("--duration: beside rfc2544, whose trials have a length of their own: `trial`");
            }
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
        plan::roles(scenario, self.ports.len()).map(drop)
    }

    /// What the ports take of memory.
    pub(super) fn needs(&self, scenario: &Scenario) -> Result<Needs<'_>> {
        let (tx, rx) = plan::roles(scenario, self.ports.len())?;
        let count = |roles: Vec<bool>| roles.into_iter().filter(|role| *role).count();
        let longest = plan::longest(scenario);
        let (jumbo, receivers) = (longest > 1518, count(rx).max(1));
        Ok(Needs {
            ports: &self.ports,
            paired: receivers.min(self.ports.len()),
            queues: self.lanes.queues,
            pages: self.access.pages,
            descriptors: self.lanes.rx_ring.max(self.lanes.tx_ring),
            elsewhere: 2 * usize::from(self.lanes.burst),
            fragments: self.lanes.fragments,
            headroom: if jumbo { 0 } else { PoolConfig::HEADROOM },
            tx_pools: count(tx) * usize::from(self.lanes.queues),
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// What is needed of memory: whether small pages will do, and how many ports and queues have pools.
    fn needs(line: &str) -> (bool, usize, usize) {
        let Cli { args } = Cli::parse_from(format!("pktgen {line}").split_whitespace());
        let mut scenario = args.scenario().unwrap();
        args.expect(&mut scenario).unwrap();
        let needs = args.needs(&scenario).unwrap();
        assert_eq!(needs.ports, args.ports);
        (needs.may_be_small(), needs.paired, needs.tx_pools)
    }

    #[test]
    fn a_card_has_huge_pages_wherever_among_the_ports_it_is() {
        for line in [
            "--port null: --port 01:00.0 --tx-port 1 --no-rx",
            "--port 01:00.0 --port null: --tx-port 0 --no-rx",
            "--port ring:a --port ring:a --port 01:00.0 --tx-port 2 --rx-port 0",
        ] {
            assert_eq!(needs(line), (false, 1, 1), "{line}");
        }
        assert_eq!(needs("--port ring:a --port ring:a"), (true, 1, 1));
        assert_eq!(needs("--port ring:a --port ring:a --pages 2M"), (false, 1, 1));
    }
}
