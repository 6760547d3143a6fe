//! What `pagewire stats` is told of ports and cores.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pagewire_ethdev::{AnyPort, PathReport, WaiterCounters};
use serde::Serialize;
use serde_json::{Value, json};

use super::args::Args;
use super::lane::{Lane, LaneCounters};
use super::report::{GeneratorReport, PortReport, Report, Sleeps};
use super::reporter::Reporter;
use super::tap::{Tap, TapCounters, TapReport};
use crate::stats::Statistics;
use crate::workload::{CoreCounters, WorkReport};

/// Who makes reports: for the one who started this, and for those who ask from elsewhere.
pub(super) struct Reports {
    pub(super) own: Reporter,
    pub(super) published: Published,
}

impl Reports {
    /// A core will work, and count what it does here.
    pub(super) fn works(&self, cpu: usize) -> Arc<CoreCounters> {
        let core = self.published.cores.iter().find(|core| core.cpu == cpu);
        core.map(|core| core.work.clone()).unwrap_or_default()
    }

    /// A core will sleep.
    pub(super) fn sleeps(&mut self, cpu: usize, counters: Arc<WaiterCounters>) {
        for core in self.published.cores.iter_mut().filter(|core| core.cpu == cpu) {
            core.waiter = Some(counters.clone());
        }
        self.own.waiters.push((cpu, counters));
    }
}

/// The other processes' side. Rates are of the time since somebody asked last, not of this process's own periods.
pub(super) struct Published {
    statistics: Statistics,
    reporter: Reporter,
    configuration: Value,
    cores: Vec<Core>,
    taps: Vec<(String, Arc<TapCounters>)>,
}

/// Receiving port, queue and sending port of a lane; the paths it receives and sends on; its counters.
type Routed = ([usize; 3], [PathReport; 2], Arc<LaneCounters>);

struct Core {
    cpu: usize,
    lanes: Vec<Routed>,
    work: Arc<CoreCounters>,
    /// With `--interrupts`.
    waiter: Option<Arc<WaiterCounters>>,
}

#[derive(Serialize)]
struct Sections<'a> {
    seconds: f64,
    configuration: &'a Value,
    ports: Vec<PortReport>,
    cores: Vec<CoreReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    taps: Vec<TapReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generator: Option<GeneratorReport>,
}

#[derive(Serialize)]
struct CoreReport {
    cpu: usize,
    lanes: Vec<LaneReport>,
    #[serde(flatten)]
    work: WorkReport,
    /// With `--interrupts`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    sleeps: Option<Sleeps>,
}

#[derive(Serialize)]
struct LaneReport {
    port: usize,
    queue: usize,
    to: usize,
    tx_full: u64,
    rx_path: String,
    tx_path: String,
}

impl Published {
    pub(super) fn new(args: &Args, statistics: Statistics, reporter: Reporter) -> Published {
        // What decides which way packets take through a driver, besides the driver.
        let configuration = json!({
            "mode": clap::ValueEnum::to_possible_value(&args.mode()).map(|mode| mode.get_name().to_owned()),
            "mtu": args.mtu,
            "queues": args.lanes.queues,
            "burst": args.lanes.burst,
            "rx_ring": args.lanes.rx_ring,
            "tx_ring": args.lanes.tx_ring,
            "rx_offloads": names(args.rx_offloads().iter_names().map(|(name, _)| name)),
            "tx_offloads": names(args.tx_offloads().iter_names().map(|(name, _)| name)),
            "promiscuous": !args.no_promiscuous,
            "interrupts": args.interrupts,
            "capture_socket": args.capture_socket,
        });
        Published { statistics, reporter, configuration, cores: Vec::new(), taps: Vec::new() }
    }

    /// A core will look after a lane.
    pub(super) fn add(&mut self, cpu: usize, lane: &Lane) {
        let known = self.cores.iter().position(|core| core.cpu == cpu);
        let index = known.unwrap_or_else(|| {
            self.cores.push(Core { cpu, lanes: Vec::new(), work: Arc::default(), waiter: None });
            self.cores.len() - 1
        });
        let paths = [lane.rx.path(), lane.tx.path()];
        let about = ([lane.rx_port, lane.queue, lane.tx_port], paths, lane.counters.clone());
        self.cores[index].lanes.push(about);
        self.taps.extend([&lane.tap, &lane.tx_tap].into_iter().flatten().map(Tap::about));
    }

    /// To be called now and then: reads the ports if somebody asks.
    pub(super) fn tick(&mut self, ports: &mut [AnyPort], now: Duration) {
        let Published { statistics, reporter, configuration, cores, taps } = self;
        statistics.tick(|| {
            let Report { seconds, ports, generator, .. } = reporter.snapshot(ports, now);
            let cores = cores.iter().map(Core::report).collect();
            let taps = taps.iter().map(|(name, counters)| TapReport::new(name, counters)).collect();
            Sections { seconds, configuration, ports, cores, taps, generator }
        });
    }
}

impl Core {
    fn report(&self) -> CoreReport {
        let lane = |([port, queue, to], [rx, tx], counters): &Routed| {
            let tx_full = counters.tx_full.load(Ordering::Relaxed);
            let (rx_path, tx_path) = (rx.to_string(), tx.to_string());
            LaneReport { port: *port, queue: *queue, to: *to, tx_full, rx_path, tx_path }
        };
        let lanes = self.lanes.iter().map(lane).collect();
        let sleeps = self.waiter.as_deref().map(Sleeps::new);
        CoreReport { cpu: self.cpu, lanes, work: self.work.report(), sleeps }
    }
}

fn names<'a>(flags: impl Iterator<Item = &'a str>) -> Vec<String> {
    flags.map(str::to_lowercase).collect()
}
