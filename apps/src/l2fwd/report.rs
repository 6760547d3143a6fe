//! What is reported every period and at the end: the same to tables, to the screen and as JSON.

use serde::Serialize;

use super::cycles::CyclesPerPacket;

/// One report.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Seconds since the start.
    pub(super) seconds: f64,
    /// Whether it is the last one, with totals of the whole run.
    #[serde(rename = "final")]
    pub(super) last: bool,
    pub(super) ports: Vec<PortReport>,
    pub(super) pools: Vec<PoolReport>,
    /// Present if the ports are modelled cards of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generator: Option<GeneratorReport>,
    /// Present at the end of a run with `--record-core-cycles`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cycles_per_packet: Vec<CyclesPerPacket>,
    /// Present at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fragments: Option<Fragments>,
}

#[derive(Serialize)]
pub(super) struct PortReport {
    pub(super) port: usize,
    pub(super) name: String,
    pub(super) driver: &'static str,
    pub(super) mac: String,
    pub(super) link_up: bool,
    pub(super) link: String,
    #[serde(flatten)]
    pub(super) traffic: Traffic,
    /// By number.
    pub(super) queues: Vec<QueueReport>,
    /// Frames and packets that went no further, by reason, and the shortages that led to it.
    pub(super) drops: Drops,
    /// Of what was received here since the last report, where cycles are recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cycles_per_packet: Option<f64>,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub(super) xstats: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
pub(super) struct QueueReport {
    pub(super) queue: usize,
    #[serde(flatten)]
    pub(super) traffic: Traffic,
}

/// What went through, and how fast: since the last report, over the whole run in the last one.
#[derive(Serialize, Default)]
pub(super) struct Traffic {
    pub(super) rx_packets: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_bytes: u64,
    /// Packets a second.
    pub(super) rx_pps: f64,
    pub(super) tx_pps: f64,
    /// Bits a second, of frames without check sequence, gap and preamble.
    pub(super) rx_bps: f64,
    pub(super) tx_bps: f64,
}

#[derive(Serialize)]
pub(super) struct Drops {
    /// The card had no descriptor or no room: the frame never reached the program.
    pub(super) rx_missed: u64,
    /// Frames with an error.
    pub(super) rx_errors: u64,
    /// Times a frame had to wait for a fragment.
    pub(super) rx_nombuf: u64,
    /// Packets that the card could not send.
    pub(super) tx_errors: u64,
    /// Packets received here that found the peer's transmit ring full.
    pub(super) tx_full: u64,
}

#[derive(Serialize)]
pub(super) struct PoolReport {
    pub(super) name: String,
    pub(super) inflight: u64,
    #[serde(flatten)]
    pub(super) counters: serde_json::Map<String, serde_json::Value>,
}

/// What became of the frames that the generators at the modelled cards sent.
#[derive(Serialize, Default)]
pub(super) struct GeneratorReport {
    pub(super) sent: u64,
    /// As they were sent, but for their addresses.
    pub(super) received: u64,
    /// Sent and not back.
    pub(super) missing: u64,
    /// Frames that came twice or too late.
    pub(super) late: u64,
    /// Frames that came back changed.
    pub(super) corrupt: u64,
    /// Frames that no generator sent.
    pub(super) foreign: u64,
    /// A second, since the last report; over the whole run in the last one.
    pub(super) sent_pps: f64,
    pub(super) received_pps: f64,
    /// At the end: those of the missing that nothing says where they went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unexplained: Option<i64>,
}

/// Where the fragments are when the loops have stopped, and when all is closed.
#[derive(Serialize, Clone, Copy)]
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
