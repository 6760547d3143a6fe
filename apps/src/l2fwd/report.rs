//! What is reported every period and at the end: the same to tables, to the screen and as JSON.

use pagewire_ethdev::{WaiterCounters, WaiterStats};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cycles::CyclesPerPacket;

/// One report.
#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    /// Seconds since the start.
    pub(crate) seconds: f64,
    /// Whether it is the last one, with totals of the whole run.
    #[serde(rename = "final", default)]
    pub(crate) last: bool,
    #[serde(default)]
    pub(crate) ports: Vec<PortReport>,
    pub(crate) pools: Vec<PoolReport>,
    /// Present if the ports are modelled cards of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generator: Option<GeneratorReport>,
    /// Present with `--interrupts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) waiters: Vec<WaiterReport>,
    /// Present at the end of a run with `--record-core-cycles`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cycles_per_packet: Vec<CyclesPerPacket>,
    /// Present at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fragments: Option<Fragments>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct PortReport {
    pub(crate) port: usize,
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) mac: String,
    pub(crate) link_up: bool,
    pub(crate) link: String,
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
    /// By number.
    pub(crate) queues: Vec<QueueReport>,
    /// Frames and packets that went no further, by reason, and the shortages that led to it.
    pub(crate) drops: Drops,
    /// Of what was received here since the last report, where cycles are recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cycles_per_packet: Option<f64>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) xstats: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct QueueReport {
    pub(crate) queue: usize,
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
}

/// What went through, and how fast: since the last report, over the whole run in the last one.
#[derive(Serialize, Deserialize, Default)]
pub(crate) struct Traffic {
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    /// Packets a second.
    pub(crate) rx_pps: f64,
    pub(crate) tx_pps: f64,
    /// Bits a second, of frames without check sequence, gap and preamble.
    pub(crate) rx_bps: f64,
    pub(crate) tx_bps: f64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Drops {
    /// The card had no descriptor or no room: the frame never reached the program.
    pub(crate) rx_missed: u64,
    /// Frames with an error.
    pub(crate) rx_errors: u64,
    /// Times a frame had to wait for a fragment.
    pub(crate) rx_nombuf: u64,
    /// Packets that the card could not send.
    pub(crate) tx_errors: u64,
    /// Packets received here that found the peer's transmit ring full.
    pub(crate) tx_full: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct PoolReport {
    pub(crate) name: String,
    pub(crate) inflight: u64,
    #[serde(flatten)]
    pub(crate) counters: Map<String, Value>,
}

/// A core that sleeps while nothing comes.
#[derive(Serialize, Deserialize)]
pub(crate) struct WaiterReport {
    pub(crate) cpu: usize,
    #[serde(flatten)]
    pub(crate) sleeps: Sleeps,
}

/// Since the start.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sleeps {
    /// Rounds over its queues.
    pub(crate) polls: u64,
    /// Times it slept.
    pub(crate) sleeps: u64,
    /// Sleeps that an interrupt ended.
    pub(crate) wake_ups: u64,
    /// Sleeps that lasted as long as they may.
    pub(crate) time_outs: u64,
}

impl Sleeps {
    pub(crate) fn new(counters: &WaiterCounters) -> Sleeps {
        let WaiterStats { polls, sleeps, wake_ups, time_outs, .. } = counters.stats();
        Sleeps { polls, sleeps, wake_ups, time_outs }
    }
}

/// What became of the frames that the generators at the modelled cards sent.
#[derive(Serialize, Deserialize, Default)]
pub(crate) struct GeneratorReport {
    pub(crate) sent: u64,
    /// As they were sent, but for their addresses.
    pub(crate) received: u64,
    /// Sent and not back.
    pub(crate) missing: u64,
    /// Frames that came twice or too late.
    pub(crate) late: u64,
    /// Frames that came back changed.
    pub(crate) corrupt: u64,
    /// Frames that no generator sent.
    pub(crate) foreign: u64,
    /// A second, since the last report; over the whole run in the last one.
    pub(crate) sent_pps: f64,
    pub(crate) received_pps: f64,
    /// At the end: those of the missing that nothing says where they went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unexplained: Option<i64>,
}

/// Where the fragments are when the loops have stopped, and when all is closed.
#[derive(Serialize, Deserialize, Clone, Copy)]
pub(crate) struct Fragments {
    /// Out of their pools.
    pub(crate) inflight: u64,
    /// In receive and transmit rings.
    pub(crate) in_rings: u64,
    /// Out of their pools after the ports were closed.
    pub(crate) after_close: u64,
}

impl Fragments {
    /// Whether every fragment is accounted for.
    pub(crate) fn balance(self) -> bool {
        self.inflight == self.in_rings && self.after_close == 0
    }
}

impl Report {
    pub(crate) fn with_cycles(mut self, cycles: Vec<CyclesPerPacket>) -> Report {
        self.cycles_per_packet = cycles;
        self
    }

    pub(crate) fn with_fragments(mut self, fragments: Fragments) -> Report {
        self.fragments = Some(fragments);
        self
    }

    /// Frames of the generators that are missing without a reason, or that have more reasons than there are of them.
    pub(crate) fn unexplained(&self) -> Option<i64> {
        self.generator.as_ref()?.unexplained.filter(|count| *count != 0)
    }

    /// Print it on standard output.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        let text = if json { serde_json::to_string(self)? + "\n" } else { self.table() };
        Ok(crate::run::print(&text)?)
    }
}
