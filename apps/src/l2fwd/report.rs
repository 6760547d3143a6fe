//! What the user sees: a table a period, totals at the end, or the same as JSON.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pagewire_ethdev::{AnyPort, Stats};
use pagewire_pool::PoolMonitor;
use serde::Serialize;

use super::lane::{CyclesPerPacket, LaneCounters};

/// One report.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Seconds since the start.
    seconds: f64,
    /// Whether it is the last one, with totals of the whole run.
    #[serde(rename = "final")]
    last: bool,
    ports: Vec<PortReport>,
    pools: Vec<PoolReport>,
    /// Present at the end of a run with `--record-core-cycles`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cycles_per_packet: Vec<CyclesPerPacket>,
    /// Present at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    fragments: Option<Fragments>,
}

#[derive(Serialize)]
struct PortReport {
    port: usize,
    name: String,
    driver: &'static str,
    mac: String,
    link_up: bool,
    link: String,
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
    /// Packets a second since the last report; over the whole run in the last one.
    rx_pps: f64,
    tx_pps: f64,
    /// Frames and packets that went no further, by reason, and the shortages that led to it.
    drops: Drops,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    xstats: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct Drops {
    /// The card had no descriptor or no room: the frame never reached the program.
    rx_missed: u64,
    /// Frames with an error.
    rx_errors: u64,
    /// Times a frame had to wait for a fragment.
    rx_nombuf: u64,
    /// Packets that the card could not send.
    tx_errors: u64,
    /// Packets received here that found the peer's transmit ring full.
    tx_full: u64,
}

#[derive(Serialize)]
struct PoolReport {
    name: String,
    inflight: u64,
    #[serde(flatten)]
    counters: serde_json::Map<String, serde_json::Value>,
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

/// Makes reports, and remembers what the last one said.
pub(crate) struct Reporter {
    pub(crate) json: bool,
    pub(crate) pools: Vec<PoolMonitor>,
    /// By receiving port.
    pub(crate) counters: Vec<Arc<LaneCounters>>,
    before: Vec<Stats>,
    then: Duration,
}

fn map<'a>(counters: impl Iterator<Item = (&'a str, u64)>) -> serde_json::Map<String, serde_json::Value> {
    counters.map(|(name, value)| (name.to_owned(), value.into())).collect()
}

impl Reporter {
    pub(crate) fn new(json: bool, pools: Vec<PoolMonitor>, counters: Vec<Arc<LaneCounters>>) -> Reporter {
        let before = vec![Stats::default(); counters.len()];
        Reporter { json, pools, counters, before, then: Duration::ZERO }
    }

    /// A report of the time since the last one, or, if it is the last, of all the time.
    pub(crate) fn report(&mut self, ports: &mut [AnyPort], now: Duration, last: bool) -> Report {
        if last {
            self.before.fill(Stats::default());
            self.then = Duration::ZERO;
        }
        let seconds = (now - self.then).as_secs_f64().max(1e-9);
        let mut reports = Vec::new();
        for (number, port) in ports.iter_mut().enumerate() {
            let link = port.link();
            let stats = port.stats();
            let xstats = if last { port.xstats() } else { Vec::new() };
            let before = std::mem::replace(&mut self.before[number], stats);
            let info = port.info();
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            reports.push(PortReport {
                port: number,
                name: info.name.clone(),
                driver: info.driver,
                mac: info.mac.to_string(),
                link_up: link.is_up(),
                link: link.to_string(),
                rx_packets: stats.rx_packets,
                rx_bytes: stats.rx_bytes,
                tx_packets: stats.tx_packets,
                tx_bytes: stats.tx_bytes,
                rx_pps: rate(stats.rx_packets, before.rx_packets),
                tx_pps: rate(stats.tx_packets, before.tx_packets),
                drops: Drops {
                    rx_missed: stats.rx_missed,
                    rx_errors: stats.rx_errors,
                    rx_nombuf: stats.rx_nombuf,
                    tx_errors: stats.tx_errors,
                    tx_full: self.counters[number].tx_full.load(Ordering::Relaxed),
                },
                xstats: map(xstats.iter().filter(|x| x.value > 0).map(|x| (x.name.as_str(), x.value))),
            });
        }
        self.then = now;
        Report {
            seconds: now.as_secs_f64(),
            last,
            ports: reports,
            pools: self.pools.iter().map(PoolReport::new).collect(),
            cycles_per_packet: Vec::new(),
            fragments: None,
        }
    }
}

impl PoolReport {
    fn new(monitor: &PoolMonitor) -> PoolReport {
        let stats = monitor.stats();
        PoolReport { name: monitor.name().into(), inflight: stats.inflight(), counters: map(stats.iter()) }
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

    /// Print it on standard output.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        let text = if json { serde_json::to_string(self)? + "\n" } else { self.table() };
        Ok(crate::run::print(&text)?)
    }

    fn table(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let when = if self.last { "total, " } else { "" };
        let _ = writeln!(
            text,
            "{:<24}{:>14}{:>12}{:>14}{:>12}{:>10}{:>10}{:>10}{:>10}",
            format!("{when}{:.1} s", self.seconds),
            "rx packets",
            "rx kpps",
            "tx packets",
            "tx kpps",
            "missed",
            "errors",
            "nombuf",
            "tx full",
        );
        for port in &self.ports {
            let link = if port.link_up { "" } else { "  link down" };
            let _ = writeln!(
                text,
                "  {:<22}{:>14}{:>12.1}{:>14}{:>12.1}{:>10}{:>10}{:>10}{:>10}{link}",
                format!("{} {}", port.port, port.name),
                port.rx_packets,
                port.rx_pps / 1e3,
                port.tx_packets,
                port.tx_pps / 1e3,
                port.drops.rx_missed,
                port.drops.rx_errors + port.drops.tx_errors,
                port.drops.rx_nombuf,
                port.drops.tx_full,
            );
        }
        if !self.last {
            return text;
        }
        for port in &self.ports {
            let _ = writeln!(
                text,
                "  port {}: {} ({}), {}, link {}; {} bytes received, {} sent",
                port.port, port.name, port.driver, port.mac, port.link, port.rx_bytes, port.tx_bytes
            );
            for (name, value) in &port.xstats {
                let _ = writeln!(text, "    {name} {value}");
            }
        }
        for pool in &self.pools {
            let counters: Vec<_> = pool
                .counters
                .iter()
                .filter(|(_, value)| value.as_u64() != Some(0))
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            let _ = writeln!(text, "  pool {}: {}", pool.name, counters.join(", "));
        }
        for cycles in &self.cycles_per_packet {
            let _ = writeln!(
                text,
                "  cycles per packet: {:.1} in the middle, {:.1} on average over {} rounds, most of {}",
                cycles.median, cycles.mean, cycles.rounds, cycles.burst
            );
        }
        if let Some(fragments) = self.fragments {
            let _ = writeln!(
                text,
                "  fragments: {} out of their pools, {} in rings; {} out after close: {}",
                fragments.inflight,
                fragments.in_rings,
                fragments.after_close,
                if fragments.balance() { "nothing lost" } else { "SOME ARE LOST" },
            );
        }
        text
    }
}
