//! Makes reports of what ports, queues, pools and generators count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pagewire_ethdev::{AnyPort, QueueStats, Stats, WaiterCounters, XStat};
use pagewire_models::wire;
use pagewire_pool::PoolMonitor;
use serde_json::{Map, Value};

use super::lane::LaneCounters;
use super::report::{
    Drops, GeneratorReport, PoolReport, PortReport, QueueReport, Report, Sleeps, Traffic, WaiterReport,
};

/// Makes reports, and remembers what the last one said.
pub(crate) struct Reporter {
    pub(crate) pools: Vec<PoolMonitor>,
    /// By receiving port, and queue.
    pub(crate) counters: Vec<Vec<Arc<LaneCounters>>>,
    /// What generators at modelled cards count, and whether everything received is dropped.
    pub(crate) generators: Option<(Arc<wire::Report>, bool)>,
    /// Cores that sleep.
    pub(crate) waiters: Vec<(usize, Arc<WaiterCounters>)>,
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

fn map<'a>(counters: impl Iterator<Item = (&'a str, u64)>) -> Map<String, Value> {
    counters.map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn xstats(port: &mut AnyPort, which: impl Fn(&XStat) -> bool) -> Map<String, Value> {
    let all = port.xstats();
    map(all.iter().filter(|x| which(x)).map(|x| (x.name.as_str(), x.value)))
}

/// What was there before; nothing if it was not.
fn at<T: Clone + Default>(list: &[T], index: usize) -> T {
    list.get(index).cloned().unwrap_or_default()
}

impl Reporter {
    pub(crate) fn new(
        pools: Vec<PoolMonitor>,
        counters: Vec<Vec<Arc<LaneCounters>>>,
        generators: Option<(Arc<wire::Report>, bool)>,
    ) -> Reporter {
        Reporter { pools, counters, generators, waiters: Vec::new(), before: Before::default() }
    }

    /// Another one for the same things, with a memory of its own.
    pub(crate) fn fork(&self) -> Reporter {
        Reporter::new(self.pools.clone(), self.counters.clone(), self.generators.clone())
    }

    /// A report of the time since the last one with all counters there are.
    pub(crate) fn snapshot(&mut self, ports: &mut [AnyPort], now: Duration) -> Report {
        let mut report = self.report(ports, now, false);
        for (report, port) in report.ports.iter_mut().zip(ports) {
            report.xstats = xstats(port, |_| true);
        }
        report
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
            let xstats = if last { xstats(port, |x| x.value > 0) } else { Map::new() };
            let lanes = &self.counters[number];
            let sum = |what: fn(&LaneCounters) -> &AtomicU64| -> u64 {
                lanes.iter().map(|lane| what(lane).load(Ordering::Relaxed)).sum()
            };
            let cycles = (sum(|lane| &lane.cycles), sum(|lane| &lane.recorded));
            let (cycles_before, recorded_before) = at(&before.cycles, number);
            let recorded = cycles.1.saturating_sub(recorded_before);
            let info = port.info();
            reports.push(PortReport {
                port: number,
                name: info.name.clone(),
                driver: info.driver.into(),
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
                    tx_full: sum(|lane| &lane.tx_full),
                },
                cycles_per_packet: (recorded > 0)
                    .then(|| cycles.0.saturating_sub(cycles_before) as f64 / recorded as f64),
                xstats,
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
            waiters: self
                .waiters
                .iter()
                .map(|(cpu, counters)| WaiterReport { cpu: *cpu, sleeps: Sleeps::new(counters) })
                .collect(),
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
    pub(crate) fn new(monitor: &PoolMonitor) -> PoolReport {
        let stats = monitor.stats();
        PoolReport { name: monitor.name().into(), inflight: stats.inflight(), counters: map(stats.iter()) }
    }
}
