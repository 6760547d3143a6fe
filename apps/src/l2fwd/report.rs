//! What is reported every period and at the end: the same to tables, to the screen and as JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pagewire_ethdev::{AnyPort, QueueStats, Stats};
use pagewire_models::wire;
use pagewire_pool::PoolMonitor;
use serde::Serialize;

use super::lane::{CyclesPerPacket, LaneCounters};

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

/// Makes reports, and remembers what the last one said.
pub(crate) struct Reporter {
    pub(crate) pools: Vec<PoolMonitor>,
    /// By receiving port.
    pub(crate) counters: Vec<Arc<LaneCounters>>,
    /// What generators at modelled cards count, and whether everything received is dropped.
    pub(crate) generators: Option<(Arc<wire::Report>, bool)>,
    before: Before,
}

/// What the last report said.
#[derive(Default)]
struct Before {
    time: Duration,
    ports: Vec<Stats>,
    rx_queues: Vec<Vec<QueueStats>>,
    tx_queues: Vec<Vec<QueueStats>>,
    /// Cycles, and packets that took them.
    cycles: Vec<(u64, u64)>,
    /// Sent and received.
    generators: (u64, u64),
}

fn map<'a>(counters: impl Iterator<Item = (&'a str, u64)>) -> serde_json::Map<String, serde_json::Value> {
    counters.map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// What was there before; nothing if it was not.
fn at<T: Clone + Default>(list: &[T], index: usize) -> T {
    list.get(index).cloned().unwrap_or_default()
}

impl Reporter {
    pub(crate) fn new(
        pools: Vec<PoolMonitor>,
        counters: Vec<Arc<LaneCounters>>,
        generators: Option<(Arc<wire::Report>, bool)>,
    ) -> Reporter {
        Reporter { pools, counters, generators, before: Before::default() }
    }

    /// A report of the time since the last one, or, if it is the last, of all the time.
    pub(crate) fn report(&mut self, ports: &mut [AnyPort], now: Duration, last: bool) -> Report {
        let before = if last { Before::default() } else { std::mem::take(&mut self.before) };
        let seconds = (now - before.time).as_secs_f64().max(1e-9);
        self.before.time = now;
        let mut reports = Vec::new();
        for (number, port) in ports.iter_mut().enumerate() {
            let link = port.link();
            let stats = port.stats();
            let xstats = if last { port.xstats() } else { Vec::new() };
            let lane = &self.counters[number];
            let cycles = (lane.cycles.load(Ordering::Relaxed), lane.recorded.load(Ordering::Relaxed));
            let (cycles_before, recorded_before) = at(&before.cycles, number);
            let recorded = cycles.1.saturating_sub(recorded_before);
            let info = port.info();
            reports.push(PortReport {
                port: number,
                name: info.name.clone(),
                driver: info.driver,
                mac: info.mac.to_string(),
                link_up: link.is_up(),
                link: link.to_string(),
                traffic: Traffic::of_port(&stats, &at(&before.ports, number), seconds),
                queues: Vec::new(),
                drops: Drops {
                    rx_missed: stats.rx_missed,
                    rx_errors: stats.rx_errors,
                    rx_nombuf: stats.rx_nombuf,
                    tx_errors: stats.tx_errors,
                    tx_full: lane.tx_full.load(Ordering::Relaxed),
                },
                cycles_per_packet: (recorded > 0)
                    .then(|| cycles.0.saturating_sub(cycles_before) as f64 / recorded as f64),
                xstats: map(xstats.iter().filter(|x| x.value > 0).map(|x| (x.name.as_str(), x.value))),
            });
            let (rx, tx) = (port.rx_queue_stats(), port.tx_queue_stats());
            let (rx_before, tx_before) = (at(&before.rx_queues, number), at(&before.tx_queues, number));
            reports[number].queues = (0..rx.len().max(tx.len()))
                .map(|queue| QueueReport {
                    queue,
                    traffic: Traffic::of_queue(
                        [&at(&rx, queue), &at(&tx, queue)],
                        [&at(&rx_before, queue), &at(&tx_before, queue)],
                        seconds,
                    ),
                })
                .collect();
            self.before.ports.push(stats);
            self.before.rx_queues.push(rx);
            self.before.tx_queues.push(tx);
            self.before.cycles.push(cycles);
        }
        let generator = self.generators.as_ref().map(|(report, rxonly)| {
            let mut generator = GeneratorReport::new(report, before.generators, seconds);
            self.before.generators = (generator.sent, generator.received);
            if last {
                generator.explain(&reports, *rxonly);
            }
            generator
        });
        Report {
            seconds: now.as_secs_f64(),
            last,
            ports: reports,
            pools: self.pools.iter().map(PoolReport::new).collect(),
            generator,
            cycles_per_packet: Vec::new(),
            fragments: None,
        }
    }
}

fn rate(now: u64, before: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

impl Traffic {
    fn of_port(now: &Stats, before: &Stats, seconds: f64) -> Traffic {
        Traffic {
            rx_packets: now.rx_packets,
            rx_bytes: now.rx_bytes,
            tx_packets: now.tx_packets,
            tx_bytes: now.tx_bytes,
            rx_pps: rate(now.rx_packets, before.rx_packets, seconds),
            tx_pps: rate(now.tx_packets, before.tx_packets, seconds),
            rx_bps: 8.0 * rate(now.rx_bytes, before.rx_bytes, seconds),
            tx_bps: 8.0 * rate(now.tx_bytes, before.tx_bytes, seconds),
        }
    }

    /// Of a queue pair: receive, transmit.
    fn of_queue(now: [&QueueStats; 2], before: [&QueueStats; 2], seconds: f64) -> Traffic {
        let as_port = |[rx, tx]: [&QueueStats; 2]| Stats::from_queues(&[*rx], &[*tx]);
        Traffic::of_port(&as_port(now), &as_port(before), seconds)
    }
}

impl GeneratorReport {
    fn new(report: &wire::Report, before: (u64, u64), seconds: f64) -> GeneratorReport {
        // In this order: what comes back was sent before.
        let received = report.received();
        let sent = report.sent();
        let sum = |what: fn(&wire::StreamReport) -> &AtomicU64| {
            report.streams.iter().map(|stream| what(stream).load(Ordering::Relaxed)).sum()
        };
        GeneratorReport {
            sent,
            received,
            missing: sent.saturating_sub(received),
            late: sum(|stream| &stream.late),
            corrupt: sum(|stream| &stream.corrupt),
            foreign: report.foreign.load(Ordering::Relaxed),
            sent_pps: rate(sent, before.0, seconds),
            received_pps: rate(received, before.1, seconds),
            unexplained: None,
        }
    }

    /// Subtract from the missing what the ports know of.
    fn explain(&mut self, ports: &[PortReport], rxonly: bool) {
        let known: u64 = ports
            .iter()
            .map(|port| {
                let Drops { rx_missed, rx_errors, tx_errors, tx_full, .. } = port.drops;
                let dropped = if rxonly { port.traffic.rx_packets } else { 0 };
                rx_missed + rx_errors + tx_errors + tx_full + dropped
            })
            .sum();
        self.unexplained = Some(self.missing as i64 - (known + self.corrupt) as i64);
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
