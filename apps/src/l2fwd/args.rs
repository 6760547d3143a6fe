//! The command line of `pagewire l2fwd`.

use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use pagewire_ethdev::{MacAddr, RxOffloads, TxOffloads};
use pagewire_pool::PoolConfig;

use crate::capture::select::Way;
use crate::lanes::Lanes;
use crate::memory::Needs;
use crate::ports::{Access, PortSpec};
use crate::run::Reporting;
use crate::screen::ScreenOptions;

const EXAMPLES: &str = "\
Examples:
  pagewire l2fwd                                              two modelled cards, for 10 seconds
  pagewire l2fwd --port 0000:01:00.0 --port 0000:02:00.0      forward between two cards until Ctrl-C
  pagewire l2fwd --port 01:00.0 --port 02:00.0 --mode io --json --duration 30
  pagewire l2fwd --port 01:00.0 --port 02:00.0 --mtu 9000     jumbo frames
  pagewire l2fwd --port 01:00.0 --port 02:00.0 --queues 4 --cores 2-5     flows spread over four cores
  pagewire l2fwd --port 01:00.0 --port 02:00.0 --interrupts   leave the core to others while nothing comes";

/// What `pagewire l2fwd` is asked to do.
///
/// Forward frames between ports at layer 2. What a port receives is sent by the port it is paired with.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub(crate) struct Args {
    /// A port, once for each: a PCI address bound to vfio-pci (see `pagewire dev bind`), vfio-user:SOCKET (see `pagewire model`),
    /// null:, null:SIZE, pcap:IN, pcap:IN,OUT, pcap:IN,OUT,repeat=N or ring:NAME. None at all: two models of the 82599 in this process, with a traffic generator at each
    #[arg(long = "port", value_name = "ADDR")]
    pub(crate) ports: Vec<PortSpec>,

    /// Which ports forward to each other: (0,1)(2,3) or 0:1,2:3. By default neighbours do; an odd one out reflects
    #[arg(long, value_name = "PAIRS")]
    pub(crate) portmap: Option<PortMap>,

    /// What is done to each packet
    #[arg(long, value_enum, default_value_t = Mode::Mac)]
    pub(crate) mode: Mode,

    /// Forward without changing addresses; the same as `--mode io`
    #[arg(long, conflicts_with = "mode")]
    pub(crate) no_mac_updating: bool,

    #[command(flatten)]
    pub(crate) lanes: Lanes,

    /// Largest layer-3 packet in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    pub(crate) mtu: u16,

    /// Receive only frames for the port's own address, broadcast and multicast
    #[arg(long)]
    pub(crate) no_promiscuous: bool,

    /// Let frames come in several fragments, as they do for an MTU beyond 1,500: what a virtual function needs, which does not decide
    /// how long they may be
    #[arg(long)]
    pub(crate) scatter: bool,

    /// Look after so many virtual functions of each port, for others to drive: `pagewire model --vfs` has them
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) vfs: u16,

    /// Bytes of the frames that `--mode txonly`, `--tx-first` and the generators at modelled cards send, without frame check
    /// sequence
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(60..=1514))]
    pub(crate) tx_size: u16,

    /// Send this many bursts of such frames from each port before forwarding: what a loop or a hub then keeps going
    #[arg(long, value_name = "BURSTS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=65536))]
    pub(crate) tx_first: u32,

    /// Let `pagewire capture --from SOCKET` watch what the ports receive, as it came. Costs copies while somebody watches
    #[arg(long, value_name = "SOCKET")]
    pub(crate) capture_socket: Option<std::path::PathBuf>,

    /// With --capture-socket: what can be watched
    #[arg(long, value_enum, default_value_t = Way::Receive, requires = "capture_socket")]
    pub(crate) capture_direction: Way,

    /// Sleep while nothing comes, until the card interrupts, rather than poll for ever
    #[arg(long)]
    pub(crate) interrupts: bool,

    /// With --interrupts: microseconds at least from one interrupt of a queue to its next
    #[arg(long, value_name = "MICROS", default_value_t = 20, requires = "interrupts")]
    pub(crate) rx_usecs: u32,

    /// With --interrupts: microseconds that a loop sleeps at most, and so a packet waits whatever becomes of its interrupt
    #[arg(long, value_name = "MICROS", default_value_t = 10_000, requires = "interrupts",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_wait: u32,

    #[command(flatten)]
    pub(crate) reporting: Reporting,

    #[command(flatten)]
    pub(crate) screen: ScreenOptions,

    /// Do without vector instructions
    #[arg(long)]
    pub(crate) no_vector: bool,

    /// Count the cycles of each round that moved packets, and report their median and mean number per packet
    #[arg(long)]
    pub(crate) record_core_cycles: bool,

    #[command(flatten)]
    pub(crate) access: Access,
}

impl Args {
    /// `--mode`, or what `--no-mac-updating` makes of it.
    pub(crate) fn mode(&self) -> Mode {
        if self.no_mac_updating { Mode::Io } else { self.mode }
    }

    /// What the ports take of memory.
    pub(crate) fn needs(&self) -> Needs<'_> {
        Needs {
            ports: &self.ports,
            paired: self.ports.len(),
            queues: self.lanes.queues,
            pages: self.access.pages,
            descriptors: self.lanes.rx_ring + self.lanes.tx_ring,
            elsewhere: 2 * usize::from(self.lanes.burst),
            fragments: self.lanes.fragments,
            headroom: if self.is_jumbo() { 0 } else { PoolConfig::HEADROOM },
            tx_pools: 0,
            tx_longest: 0,
        }
    }

    /// What the ports are asked to find out.
    pub(crate) fn rx_offloads(&self) -> RxOffloads {
        if self.is_jumbo() { RxOffloads::SCATTER } else { RxOffloads::empty() }
    }

    /// What the ports are asked to do.
    pub(crate) fn tx_offloads(&self) -> TxOffloads {
        if self.is_jumbo() { TxOffloads::MULTI_SEGS } else { TxOffloads::empty() }
    }

    /// How far apart interrupts are to be, if there are to be any.
    pub(crate) fn rx_interrupts(&self) -> Option<Duration> {
        self.interrupts.then(|| Duration::from_micros(self.rx_usecs.into()))
    }

    /// Whether frames may take several fragments, as virtual functions' do; headroom would then halve what each receives.
    pub(crate) fn is_jumbo(&self) -> bool {
        self.mtu > 1500 || self.scatter || self.vfs > 0
    }
}

/// What is done to each packet.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing
    Io,
    /// Source becomes the sending port's address, destination 02:00:00:00:00:NN with its number
    Mac,
    /// Source and destination change places
    Macswap,
    /// Drop it: receive only
    Rxonly,
    /// Receive nothing, send as fast as possible
    Txonly,
}

/// Pairs of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortMap(Vec<(usize, usize)>);

impl std::str::FromStr for PortMap {
    type Err = String;

    /// DPDK's `(0,1)(2,3)`, with or without commas between, or `0:1,2:3`, which no shell minds.
    fn from_str(text: &str) -> Result<PortMap, String> {
        let error = || format!("{text:?} is no port map; expected something like (0,1)(2,3) or 0:1,2:3");
        let pairs: Vec<&str> = match text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            Some(inner) => inner.split(')').map(|pair| pair.trim_start_matches([',', '('])).collect(),
            None => text.split(',').collect(),
        };
        let pair = |pair: &str| {
            let (a, b) = pair.split_once([',', ':']).ok_or_else(error)?;
            let number = |digits: &str| digits.trim().parse().map_err(|_| error());
            Ok((number(a)?, number(b)?))
        };
        pairs.into_iter().map(pair).collect::<Result<_, String>>().map(PortMap)
    }
}

impl PortMap {
    /// Neighbours.
    pub(crate) fn neighbours(ports: usize) -> PortMap {
        PortMap((0..ports).step_by(2).map(|port| (port, (port + 1).min(ports - 1))).collect())
    }

    /// For each port, the one that sends what it receives.
    pub(crate) fn resolve(&self, ports: usize) -> Result<Vec<usize>, String> {
        let mut peers = vec![None; ports];
        for &(a, b) in &self.0 {
            for (from, to) in [(a, b), (b, a)] {
                let seen =
                    peers.get_mut(from).ok_or(format!("port map: there is no port {from}, only {ports}"))?;
                if seen.is_some_and(|peer| peer != to) {
                    return Err(format!("port map: port {from} is in it twice"));
                }
                *seen = Some(to);
            }
        }
        let missing = peers.iter().position(Option::is_none);
        match missing {
            Some(port) => Err(format!("port map: port {port} is not in it")),
            None => Ok(peers.into_iter().flatten().collect()),
        }
    }
}

/// Where mode `mac` sends to: 02:00:00:00:00:NN, NN the sending port's number.
pub(crate) fn destination(port: usize) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, port as u8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_maps() {
        let resolve = |text: &str, ports| text.parse::<PortMap>().and_then(|map| map.resolve(ports));
        for text in ["(0,3)(1,2)", "(0,3),(1,2)", "0:3,1:2"] {
            assert_eq!(resolve(text, 4), Ok(vec![3, 2, 1, 0]), "{text}");
        }
        assert_eq!(PortMap::neighbours(3).resolve(3), Ok(vec![1, 0, 2]));
        assert_eq!(resolve("0:0", 1), Ok(vec![0]));
        assert!(resolve("0:1", 3).unwrap_err().contains("port 2 is not in it"));
        assert!(resolve("0:1,1:2", 3).unwrap_err().contains("port 1 is in it twice"));
        assert!(resolve("0:7", 2).unwrap_err().contains("no port 7"));
        for bad in ["", "()", "0", "a:b", "(0,1", "0:1,"] {
            assert!(bad.parse::<PortMap>().is_err(), "{bad}");
        }
    }
}
