//! The command line of `pagewire model`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args as ClapArgs, ValueEnum};
use pagewire_ethdev::MacAddr;
use pagewire_models::ixgbe::Kind;
use pagewire_models::wire::{MAX_FRAME, PcapOptions, STREAMS, Traffic};

use crate::run::Reporting;

const EXAMPLES: &str = "\
Wires:
  open                      nothing at the other end: what is sent is lost
  pair[:MBPS]               a cable between two cards: takes the next two --socket. It carries MBPS
                            megabits a second each way, preambles and gaps included, or what it can
  stream:PATH[,listen]      a UNIX socket with frames as QEMU's `-netdev stream` has: connect to it,
                            or listen there
  pcap:IN[,OUT][,repeat=N]  receive a capture's frames, N times (0: for ever); write what is sent to
                            another. `pcap:,OUT` only writes. A file at OUT is overwritten
  tap:NAME                  a TAP interface of this machine
  generate[:LENGTH[,WINDOW[,FLOWS]]]
                            UDP frames of LENGTH bytes without FCS, WINDOW on their way at most, in
                            FLOWS flows; what comes back, to any such card, is checked

Examples:
  pagewire model 82599 --socket /tmp/card --wire generate --mapped
  pagewire l2fwd --port vfio-user:/tmp/card         (in another terminal)
  pagewire model 82599 --socket /tmp/a --socket /tmp/b --pair
  pagewire model 82599 --socket /tmp/card --vfs 2   (their driver's own sockets: /tmp/card.vf0, /tmp/card.vf1)
  pagewire model 82599 --socket /tmp/a --wire pcap:in.pcap,out.pcap
  pagewire model 82599 --socket /tmp/a --wire tap:tap0 --socket /tmp/b --wire stream:/tmp/hub";

/// What `pagewire model` is asked to do.
///
/// Serve modelled cards on UNIX sockets by the vfio-user protocol, to `pagewire` and to QEMU 10.1 or later, until Ctrl-C.
/// Each serves one client after the other; a client finds a card that was reset.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub(crate) struct Args {
    /// Which card
    #[arg(value_enum, value_name = "CARD")]
    pub(crate) card: Card,

    /// Where to serve a card, once for each
    #[arg(long = "socket", value_name = "PATH", required = true)]
    pub(crate) sockets: Vec<PathBuf>,

    /// What a card's port is plugged into, once for each in the order of the sockets. By default open
    #[arg(long = "wire", value_name = "WIRE")]
    pub(crate) wires: Vec<WireSpec>,

    /// Join neighbours back to back; the same as `--wire pair` for every two sockets
    #[arg(long, conflicts_with = "wires")]
    pub(crate) pair: bool,

    /// Let drivers map the pages with the queues' registers, so that a doorbell is a store and no message. Side effects of
    /// accesses there, such as clearing on read, are lost
    #[arg(long)]
    pub(crate) mapped: bool,

    /// Every access to a register is a message: as a real card behaves, for any driver. The default
    #[arg(long, conflicts_with = "mapped")]
    pub(crate) trapped: bool,

    /// Virtual functions of each card, each served at a socket of its own: SOCKET.vf0 and so on
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=63))]
    pub(crate) vfs: u16,

    /// A card's address, once for each in the order of the sockets. By default 02:1b:21:82:59:09 and so on
    #[arg(long = "mac", value_name = "ADDR")]
    pub(crate) macs: Vec<MacAddr>,

    #[command(flatten)]
    pub(crate) reporting: Reporting,
}

/// Cards that there are models of.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Card {
    /// Intel 82599 10 Gigabit Ethernet, 8086:10fb, one port with an optical module
    #[value(name = "82599", alias = "ixgbe")]
    I82599,
    /// Intel X540, 8086:1528, one port with 10GBASE-T
    X540,
    /// Intel X550, 8086:1563, one port with 10GBASE-T
    X550,
    /// Intel X552, 8086:15ab, one port with 10GBASE-KR
    X552,
}

impl Card {
    /// The model's name for it.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Card::I82599 => Kind::I82599,
            Card::X540 => Kind::X540,
            Card::X550 => Kind::X550,
            Card::X552 => Kind::X552,
        }
    }
}

/// What a port is plugged into.
#[derive(Clone, Debug)]
pub(crate) enum WireSpec {
    Open,
    /// With as many megabits a second at most.
    Pair(Option<u32>),
    Stream {
        path: PathBuf,
        listen: bool,
    },
    Pcap(PcapOptions),
    Tap(String),
    Generate(Traffic),
}

impl WireSpec {
    /// Cards that it has ends for.
    fn ends(&self) -> usize {
        if matches!(self, WireSpec::Pair(_)) { 2 } else { 1 }
    }
}

impl fmt::Display for WireSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireSpec::Open => f.write_str("open"),
            WireSpec::Pair(None) => f.write_str("pair"),
            WireSpec::Pair(Some(mbps)) => write!(f, "pair:{mbps}"),
            WireSpec::Stream { path, listen } => {
                write!(f, "stream:{}{}", path.display(), if *listen { ",listen" } else { "" })
            }
            WireSpec::Pcap(options) => write!(f, "pcap:{options}"),
            WireSpec::Tap(name) => write!(f, "tap:{name}"),
            WireSpec::Generate(Traffic { length, window, flows, .. }) => {
                write!(f, "generate:{length},{window},{flows}")
            }
        }
    }
}

impl FromStr for WireSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<WireSpec, String> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("open", None) => Ok(WireSpec::Open),
            ("pair", None) => Ok(WireSpec::Pair(None)),
            ("pair", Some(mbps)) => match mbps.parse() {
                Ok(mbps) if mbps > 0 => Ok(WireSpec::Pair(Some(mbps))),
                _ => Err(format!("pair: megabits a second, 1 or more, not {mbps:?}")),
            },
            ("stream", Some(rest)) if !rest.is_empty() => {
                let waiting = rest.strip_suffix(",listen");
                Ok(WireSpec::Stream { path: waiting.unwrap_or(rest).into(), listen: waiting.is_some() })
            }
            ("pcap", Some(rest)) => rest.parse().map(WireSpec::Pcap),
            ("tap", Some(name)) if !name.is_empty() => Ok(WireSpec::Tap(name.into())),
            ("generate", rest) => generate(rest.unwrap_or("")),
            _ => Err(
                "expected open, pair[:MBPS], stream:PATH[,listen], pcap:IN[,OUT][,repeat=N], tap:NAME or \
                      generate[:LENGTH[,WINDOW[,FLOWS]]]"
                    .into(),
            ),
        }
    }
}

fn generate(text: &str) -> Result<WireSpec, String> {
    let mut traffic = Traffic::default();
    let mut numbers = text.split(',');
    let mut next = |what: &str, default: u64, least: u64, most: u64| match numbers.next() {
        None | Some("") => Ok(default),
        Some(text) => match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("generate: {what} is {least} to {most}, not {text:?}")),
        },
    };
    traffic.length = next("the length of a frame", traffic.length as u64, 60, MAX_FRAME as u64)? as usize;
    traffic.window = next("the number on their way", traffic.window, 1, 1 << 20)?;
    traffic.flows = next("the number of flows", traffic.flows.into(), 1, 1 << 15)? as u16;
    match numbers.next() {
        Some(more) => Err(format!("generate: length, window, flows, and nothing more, such as {more:?}")),
        None => Ok(WireSpec::Generate(traffic)),
    }
}

impl Args {
    /// The wires, each with its ends, so that every socket's card has one.
    pub(crate) fn plan(&self) -> Result<Vec<WireSpec>, String> {
        let sockets = &self.sockets;
        for (number, socket) in sockets.iter().enumerate() {
            if sockets[..number].contains(socket) {
                return Err(format!("--socket {} is there twice; each card needs its own", socket.display()));
            }
        }
        if let Some(function) =
            sockets.iter().flat_map(|socket| self.functions(socket)).find(|path| sockets.contains(path))
        {
            let path = function.display();
            return Err(format!(
                "--socket {path} is where a virtual function of another is to be; choose another"
            ));
        }
        if self.macs.len() > sockets.len() {
            return Err(format!("{} --mac for {} --socket", self.macs.len(), sockets.len()));
        }
        if let Some(mac) = self.macs.iter().find(|mac| !mac.is_valid_unicast()) {
            return Err(format!("--mac {mac}: a card's address is neither zero nor a group's"));
        }
        let mut wires = self.wires.clone();
        if self.pair {
            if !sockets.len().is_multiple_of(2) {
                return Err(format!(
                    "--pair joins two cards at a time, but there are {} --socket",
                    sockets.len()
                ));
            }
            wires = vec![WireSpec::Pair(None); sockets.len() / 2];
        }
        let ends: usize = wires.iter().map(WireSpec::ends).sum();
        if ends > sockets.len() {
            let sockets = sockets.len();
            return Err(format!(
                "the wires have ends for {ends} cards, but there are {sockets} --socket; a pair takes two"
            ));
        }
        if wires.iter().filter(|wire| matches!(wire, WireSpec::Generate(_))).count() > STREAMS {
            return Err(format!("at most {STREAMS} wires can be generators"));
        }
        wires.extend(std::iter::repeat_n(WireSpec::Open, sockets.len() - ends));
        Ok(wires)
    }

    /// Where a card's virtual functions are served.
    pub(crate) fn functions(&self, socket: &Path) -> Vec<PathBuf> {
        let path = |number| {
            let mut path = socket.as_os_str().to_owned();
            path.push(format!(".vf{number}"));
            PathBuf::from(path)
        };
        (0..self.vfs).map(path).collect()
    }

    /// The address of a card.
    pub(crate) fn mac(&self, number: usize) -> MacAddr {
        let default = MacAddr([0x02, 0x1b, 0x21, 0x82, 0x59, 0x09_u8.wrapping_add(number as u8)]);
        self.macs.get(number).copied().unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wires_are_understood_as_they_are_shown() {
        for text in [
            "open",
            "pair",
            "pair:100",
            "stream:/tmp/a",
            "stream:/tmp/a,listen",
            "pcap:in",
            "pcap:in,out",
            "pcap:,out",
            "pcap:in,out,repeat=0",
            "tap:tap0",
            "generate:60,256,1",
            "generate:1514,8,100",
        ] {
            assert_eq!(text.parse::<WireSpec>().map(|wire| wire.to_string()), Ok(text.into()));
        }
        for (text, shown) in [("generate", "generate:60,256,1"), ("generate:,32", "generate:60,32,1")] {
            assert_eq!(text.parse::<WireSpec>().map(|wire| wire.to_string()), Ok(shown.into()));
        }
        for (bad, why) in [
            ("", "expected open"),
            ("open:", "expected open"),
            ("pair:", "megabits a second"),
            ("pair:0", "1 or more"),
            ("stream:", "stream:PATH"),
            ("tap:", "tap:NAME"),
            ("pcap:", "wants a file"),
            ("pcap:a,b,c", "not 3"),
            ("pcap:a,repeat=x", "0 for ever"),
            ("generate:59", "60 to 16384"),
            ("generate:60,0", "1 to 1048576"),
            ("generate:60,1,1,1", "nothing more"),
        ] {
            let error = bad.parse::<WireSpec>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
