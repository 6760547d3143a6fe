//! `pagewire l2fwd`: forward frames between ports at layer 2.

pub(crate) mod args;
mod cycles;
pub(crate) mod draw;
mod embedded;
mod forward;
mod lane;
mod live;
mod published;
mod report;
mod reporter;
mod table;
mod tap;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pagewire_ethdev::{
    AnyPort, Burst, FunctionConfig, PortConfig, RxQueue, RxQueueConfig, TxQueue, TxQueueConfig,
};
use pagewire_hugepages::PageSize;
use pagewire_pci::AddressSpace;
use pagewire_pool::PoolMonitor;
use pagewire_pool::handover::Server;

pub(crate) use args::Args;
use args::{Mode, PortMap};
use embedded::Generators;
use forward::{Forwarded, forward};
use lane::{Lane, LaneCounters};
use published::{Published, Reports};
use report::Fragments;
pub(crate) use report::{PoolReport, PortReport, Report};
pub(crate) use reporter::Reporter;
use tap::Tap;

use crate::capture::select::SEND;
use crate::stats::Statistics;
use crate::{cores, ports, run};

/// How long to run if nobody said and no port is named.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

pub(crate) fn run(mut args: Args) -> Result<()> {
    let stop = run::stop_flag()?;
    let embedded = args.ports.is_empty();
    let count = if embedded { embedded::CARDS } else { args.ports.len() };
    if count > 256 {
        bail!("{count} ports; the most is 256");
    }
    if args.interrupts && args.mode() == Mode::Txonly {
        bail!(
            "--interrupts with --mode txonly: what receives nothing is woken by nothing; leave one of them out"
        );
    }
    let map = args.portmap.clone().unwrap_or_else(|| PortMap::neighbours(count));
    let peers = map.resolve(count).map_err(anyhow::Error::msg)?;
    let lanes = count * usize::from(args.lanes.queues);
    let (cpus, for_cards) = match &args.lanes.cores {
        Some(list) => (cores::check(&list.0)?, cores::others(&list.0)?),
        None if embedded => cores::beside(lanes, embedded::CARDS)?,
        None => (cores::default(lanes)?, Vec::new()),
    };
    let statistics = Statistics::serve("l2fwd");
    let mut cards = None;
    if embedded {
        let duration = *args.reporting.duration.get_or_insert(DEFAULT_DURATION);
        note!(
            "no --port given: forwarding for {} s between two models of the Intel 82599 in this process, with a traffic \
             generator at each",
            duration.as_secs_f64()
        );
        let started = Generators::start(&args, for_cards)?;
        args.ports = started.cards.ports();
        cards = Some(started);
    }

    let server = args.capture_socket.as_deref().map(|path| Server::bind(path, tap::options())).transpose()?;
    let started =
        args.needs().with_pages(|page_size| Started::new(&args, page_size, &peers, server.as_ref()))?;
    let Started { mut ports, lanes, monitors, space: _space } = started;
    if let Some(cards) = &mut cards {
        cards.cards.connected();
    }
    let by_port = lanes.chunk_by(|a, b| a.rx_port == b.rx_port);
    let counters = by_port.map(|lanes| lanes.iter().map(|lane| lane.counters.clone()).collect()).collect();
    let generators = cards.as_ref().map(|cards| (cards.report(), args.mode() == Mode::Rxonly));
    let own = Reporter::new(monitors, counters, generators);
    let mut reports = Reports { published: Published::new(&args, statistics, own.fork()), own };
    let forwarded = forward(&args, lanes, cpus, &mut ports, &mut reports, cards.as_ref(), &stop);
    finish(&args, forwarded, ports, reports)
}

/// Ports that run, and what is to be done with them.
struct Started {
    // Dropped in this order: queues, ports, what both are in.
    lanes: Vec<Lane>,
    ports: Vec<AnyPort>,
    monitors: Vec<PoolMonitor>,
    space: AddressSpace,
}

impl Started {
    /// Open the ports, start them, and pair each one's receive queue with its peer's transmit queue.
    fn new(args: &Args, page_size: PageSize, peers: &[usize], server: Option<&Server>) -> Result<Started> {
        let space = args.access.space(page_size)?;
        let mut ports = ports::open(&args.ports, &space)?;
        let (mut lanes, mut monitors) = start(args, page_size, &space, &mut ports, peers)?;
        if let Some(server) = server {
            let way = args.capture_direction;
            let mut tap = |name: &str| -> Result<Tap> {
                let tap = Tap::new(server, page_size, &space, name)?;
                monitors.push(tap.pool().monitor());
                Ok(tap)
            };
            for lane in &mut lanes {
                if way.receives() {
                    lane.tap = Some(tap(lane.rx.pool().name())?);
                }
                if way.sends() {
                    let queue = args.needs().queue_name(lane.tx_port, lane.queue as u16);
                    lane.tx_tap = Some(tap(&format!("{queue}{SEND}"))?);
                }
            }
        }
        Ok(Started { lanes, ports, monitors, space })
    }
}

/// Start every port and pair its receive queues with its peer's transmit queues. The lanes of a port are together.
fn start(
    args: &Args,
    page_size: PageSize,
    space: &AddressSpace,
    ports: &mut [AnyPort],
    peers: &[usize],
) -> Result<(Vec<Lane>, Vec<PoolMonitor>)> {
    let (mut rx_queues, mut tx_queues, mut monitors) = (Vec::new(), Vec::new(), Vec::new());
    for (number, port) in ports.iter_mut().enumerate() {
        let mut config = PortConfig {
            mtu: args.mtu,
            rx_offloads: args.rx_offloads(),
            tx_offloads: args.tx_offloads(),
            promiscuous: !args.no_promiscuous,
            functions: vec![FunctionConfig::default(); args.vfs.into()],
            rx_interrupts: args.rx_interrupts(),
            vector: !args.no_vector,
            ..PortConfig::default()
        };
        for queue in 0..args.lanes.queues {
            let pool = args.needs().make_pool(page_size, space, number, queue)?;
            monitors.push(pool.monitor());
            config.rx.push(RxQueueConfig::new(pool, args.lanes.rx_ring));
            config.tx.push(TxQueueConfig { descriptors: args.lanes.tx_ring });
        }
        let (rx, tx) = port.start(config)?;
        if let (Some(rx), Some(tx)) = (rx.first(), tx.first()) {
            note!("port {number}: receive path {}; send path {}", rx.path(), tx.path());
        }
        rx_queues.push(rx);
        tx_queues.push(tx.into_iter().map(Some).collect::<Vec<_>>());
    }
    let mut lanes = Vec::new();
    for (rx_port, queues) in rx_queues.into_iter().enumerate() {
        let tx_port = peers[rx_port];
        let source = ports[tx_port].info().mac;
        let header = lane::header(args::destination(tx_port), source);
        for (queue, rx) in queues.into_iter().enumerate() {
            lanes.push(Lane {
                rx_port,
                tx_port,
                queue,
                rx,
                tx: tx_queues[tx_port][queue].take().context("a transmit queue has two lanes")?,
                burst: Burst::new(args.lanes.burst.into()),
                mode: args.mode(),
                header,
                template: lane::template(header, args.tx_size),
                tap: None,
                tx_tap: None,
                counters: Arc::new(LaneCounters::default()),
            });
        }
    }
    Ok((lanes, monitors))
}

/// Account for every fragment, close the ports, and print the totals.
fn finish(args: &Args, forwarded: Forwarded, mut ports: Vec<AnyPort>, reports: Reports) -> Result<()> {
    let Reports { own: mut reporter, published: _published } = reports;
    let Forwarded { mut lanes, cycles, elapsed, outcome } = forwarded;
    let (mut inflight, mut in_rings) = (0, 0);
    for lane in &mut lanes {
        [lane.tap.take(), lane.tx_tap.take()].into_iter().flatten().for_each(Tap::finish);
        in_rings += lane.rx.posted() + lane.tx.pending();
        lane.rx.pool().trim();
        inflight += lane.rx.pool().stats().inflight();
    }
    let report = reporter.report(&mut ports, elapsed, true).with_cycles(cycles);
    drop(lanes);
    let stopped: Result<Vec<()>, _> = ports
        .iter_mut()
        // One that is gone cannot be stopped. It says so itself, and keeps the memory that it was given.
        .filter(|port| port.check().is_ok())
        .map(|port| port.stop())
        .collect();
    drop(ports);
    // What stopping the ports dropped on this thread.
    pagewire_pool::flush_thread();
    if outcome.is_err() {
        report.print(args.reporting.json)?;
        return outcome;
    }
    let after_close = reporter.pools.iter().map(|pool| pool.stats().inflight()).sum();
    let fragments = Fragments { inflight, in_rings: in_rings as u64, after_close };
    let report = report.with_fragments(fragments);
    report.print(args.reporting.json)?;
    stopped?;
    if !fragments.balance() {
        bail!("fragments were lost; this is a bug of pagewire");
    }
    if let Some(count) = report.unexplained() {
        bail!("{count} frames were lost without a reason; this is a bug of pagewire");
    }
    Ok(())
}
