//! `pagewire capture`: packets in a file.
//!
//! Two processes, always: one has the packets and never waits for the other, which writes them and may be as slow as its disk.
//! What the second cannot keep up with is counted by the first.

mod port;
pub(crate) mod select;
mod write;

use std::path::PathBuf;

use anyhow::Result;
use clap::ArgGroup;
use serde::{Deserialize, Serialize};

use crate::ports::{Access, PortSpec};
use crate::run::{self, Reporting};
use select::Selection;

const EXAMPLES: &str = "\
Examples:
  pagewire capture --port 0000:01:00.0 --out /tmp/all.pcapng --duration 10
  pagewire capture --port vfio-user:/tmp/card --out /tmp/some.pcap --count 1000
  pagewire l2fwd --capture-socket /tmp/l2fwd --capture-direction both &
  pagewire capture --from /tmp/l2fwd --out /tmp/both.pcapng --snaplen 128 --duration 5
  pagewire capture --from /tmp/l2fwd --out /tmp/dns.pcapng --filter 'udp port 9' --direction send --count 100
  pagewire capture --from /tmp/l2fwd --out /tmp/some.pcapng --sample 1000 --count 10";

/// What `pagewire capture` is asked to do.
///
/// Write packets to a file with nanosecond stamps: what a port receives, or what a running process hands over.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, verbatim_doc_comment, group = ArgGroup::new("source").required(true).args(["port", "from"]))]
pub(crate) struct Args {
    /// A port, of which is captured what it receives: a PCI address bound to vfio-pci (see `pagewire dev bind`),
    /// vfio-user:SOCKET (see `pagewire model`) or null:
    #[arg(long, value_name = "ADDR")]
    port: Option<PortSpec>,

    /// Capture what another process hands over at this socket, for example `pagewire l2fwd --capture-socket SOCKET`
    #[arg(long, value_name = "SOCKET")]
    from: Option<PathBuf>,

    /// The file to write: pcapng if its name ends in .pcapng, pcap otherwise. One that is there is overwritten
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Stop after this many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Write no more than this many bytes of each packet
    #[arg(long, value_name = "BYTES", default_value_t = 16384, value_parser = clap::value_parser!(u32).range(1..=16384))]
    snaplen: u32,

    #[command(flatten)]
    selection: Selection,

    /// With --port: packets that may wait for the file before more are dropped
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(32..=65536))]
    queue: u32,

    /// With --port: descriptors in each receive ring
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    rx_ring: u32,

    /// With --port: largest layer-3 packet in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    mtu: u16,

    /// With --port: receive only frames for the port's own address, broadcast and multicast
    #[arg(long)]
    no_promiscuous: bool,

    #[command(flatten)]
    reporting: Reporting,

    #[command(flatten)]
    access: Access,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let stop = run::stop_flag()?;
    match (&args.port, &args.from) {
        (Some(port), _) => port::capture(&args, port, &stop),
        (None, Some(socket)) => write::write(&args, socket, &stop),
        (None, None) => unreachable!("clap requires one of them"),
    }
}

/// As JSON: an object every period, and one at the end.
#[derive(Serialize)]
struct Reported<T> {
    #[serde(rename = "final")]
    last: bool,
    #[serde(flatten)]
    counts: T,
}

impl<T: Serialize> Reported<T> {
    fn print(&self) -> Result<()> {
        Ok(run::print(&format!("{}\n", serde_json::to_string(self)?))?)
    }
}

/// What is in the file.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Written {
    /// Packets that came, those that were not to be written included.
    seen: u64,
    packets: u64,
    /// Of the packets, as they were on the wire.
    bytes: u64,
    /// The producer ended before this side did.
    producer_gone: bool,
}
