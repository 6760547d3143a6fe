//! `pagewire pktgen`: generate packets, and measure what becomes of them.

mod args;
mod engine;
mod field;
mod headers;
mod measure;
mod pace;
mod pattern;
mod plan;
mod report;
mod run;
mod scenario;
mod sender;
mod signature;
mod sum;
mod template;
#[cfg(test)]
mod tests;
mod values;

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pagewire_ethdev::{AnyPort, AnyRxQueue, AnyTxQueue, Pool, PortConfig, RxQueueConfig, TxQueueConfig};
use pagewire_hugepages::PageSize;
use pagewire_models::wire;
use pagewire_pci::AddressSpace;
use pagewire_pool::PoolMonitor;

pub(crate) use args::Args;
use engine::Transmitter;
use measure::Receiver;
use pace::Clock;
use plan::{Asked, Plan};
use report::Results;
use run::Running;
use scenario::Scenario;

use crate::embedded::Embedded;
use crate::stats::Statistics;
use crate::{cores, ports};

/// How long to run if nobody said and no port is named, in seconds.
const DEFAULT_DURATION: f64 = 10.0;
/// How long a link may take to come up.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// Modelled cards where there are no ports.
const CARDS: usize = 2;

/// Exit code of a run whose measurements do not meet the criteria: neither a failure nor a mistake on the command line.
pub(crate) const UNMET: u8 = 3;

/// The run went as it should, and what was measured does not meet the criteria.
#[derive(Debug, thiserror::Error)]
#[error("{} of the criteria are not met: {}", .0.len(), .0.join("; "))]
pub(crate) struct Unmet(Vec<String>);

pub(crate) fn run(mut args: Args) -> Result<()> {
    let mut scenario = args.scenario()?;
    let stop = crate::run::stop_flag()?;
    let mut cards = None;
    if args.ports.is_empty() {
        let duration = *scenario.duration.get_or_insert(DEFAULT_DURATION);
        note!(
            "no --port given: from one model of the Intel 82599 to another in this process, back to back, for {duration} s"
        );
        let for_cards = match &args.cores {
            Some(list) => cores::others(&list.0)?,
            None => cores::beside(CARDS, CARDS)?.1,
        };
        let (a, b) = wire::pair();
        let started = Embedded::start(vec![Box::new(a), Box::new(b)], for_cards)?;
        args.ports = started.ports();
        cards = Some(started);
    }
    let (results, outcome) = measure(&args, scenario, cards, &stop)?;
    results.print(args.reporting.json)?;
    outcome?;
    match results.failed {
        Some(failed) if !failed.is_empty() => Err(Unmet(failed).into()),
        _ => Ok(()),
    }
}

/// Run a scenario; returns the last report, and why it ended if before its time.
fn measure(
    args: &Args,
    mut scenario: Scenario,
    mut cards: Option<Embedded>,
    stop: &AtomicBool,
) -> Result<(Results, Result<()>)> {
    args.expect(&mut scenario)?;
    let statistics = Statistics::serve("pktgen");
    let needs = args.needs(&scenario)?;
    let clock = Clock::calibrate();
    let started = needs.with_pages(|page_size| Started::new(args, &scenario, page_size, &clock))?;
    if let Some(cards) = &mut cards {
        cards.connected();
    }
    let queues = started.transmitters.len() + started.receivers.len();
    let cpus = match &args.cores {
        Some(list) => cores::check(&list.0)?,
        None if cards.is_some() => cores::beside(queues, CARDS)?.0,
        None => cores::default(queues)?,
    };
    let naps = cards.as_ref().is_some_and(|cards| cards.shares(&cpus));
    Running { args, scenario: &scenario, clock, cpus, naps, statistics }.run(started, stop)
}

/// Ports that run, and what is to be done with their queues.
pub(super) struct Started {
    // Dropped in this order: queues, ports, what both are in.
    transmitters: Vec<Transmitter>,
    receivers: Vec<Receiver>,
    ports: Vec<AnyPort>,
    streams: Vec<Asked>,
    /// Streams of senders, by their number.
    senders: Vec<usize>,
    monitors: Vec<PoolMonitor>,
    _space: AddressSpace,
}

/// A port's queues.
struct Queues {
    rx: Vec<AnyRxQueue>,
    tx: Vec<(AnyTxQueue, Pool)>,
}

impl Started {
    fn new(args: &Args, scenario: &Scenario, page_size: PageSize, clock: &Clock) -> Result<Started> {
        let space = args.access.space(page_size)?;
        let mut ports = ports::open(&args.ports, &space)?;
        let mut monitors = Vec::new();
        let mut queues = start(args, scenario, page_size, &space, &mut ports, &mut monitors)?;
        await_links(scenario, &mut ports)?;
        let Plan { streams, senders } = Plan::new(scenario, &mut ports, args.queues, clock)?;
        let count = scenario.streams.len() * usize::from(args.queues);
        let burst = usize::from(args.burst);
        let (mut transmitters, mut receivers, mut of_senders) = (Vec::new(), Vec::new(), vec![0; count]);
        for (queues, senders) in queues.drain(..).zip(senders) {
            for sender in senders.iter().flatten() {
                of_senders[usize::from(sender.id)] = sender.stream;
            }
            let transmitter = |((tx, pool), senders)| Transmitter::new(tx, pool, burst, senders);
            transmitters.extend(queues.tx.into_iter().zip(senders).map(transmitter));
            receivers.extend(queues.rx.into_iter().map(|rx| Receiver::new(rx, burst, count)));
        }
        Ok(Started { transmitters, receivers, ports, streams, senders: of_senders, monitors, _space: space })
    }
}

/// Start every port with the queues that its part needs.
fn start(
    args: &Args,
    scenario: &Scenario,
    page_size: PageSize,
    space: &AddressSpace,
    ports: &mut [AnyPort],
    monitors: &mut Vec<PoolMonitor>,
) -> Result<Vec<Queues>> {
    let (sends, receives) = plan::roles(scenario, ports.len())?;
    let needs = args.needs(scenario)?;
    let (mtu, rx_offloads) = Args::mtu(scenario);
    let mut queues = Vec::new();
    for (number, port) in ports.iter_mut().enumerate() {
        let tx_offloads = if sends[number] { plan::tx_offloads(scenario) } else { Default::default() };
        let mut config = PortConfig { mtu, rx_offloads, tx_offloads, ..PortConfig::default() };
        let mut pools = Vec::new();
        for queue in 0..args.queues {
            if receives[number] {
                let pool = needs.make_pool(page_size, space, number, queue)?;
                monitors.push(pool.monitor());
                config.rx.push(RxQueueConfig::new(pool, args.rings.rx_ring));
            }
            if sends[number] {
                let pool = needs.make_tx_pool(page_size, space, number, queue)?;
                monitors.push(pool.monitor());
                pools.push(pool);
                config.tx.push(TxQueueConfig { descriptors: args.rings.tx_ring });
            }
        }
        let (rx, tx) = port.start(config)?;
        queues.push(Queues { rx, tx: tx.into_iter().zip(pools).collect() });
    }
    Ok(queues)
}

/// Wait until the ports in use have their links.
fn await_links(scenario: &Scenario, ports: &mut [AnyPort]) -> Result<()> {
    let (sends, receives) = plan::roles(scenario, ports.len())?;
    let start = Instant::now();
    for (number, port) in
        ports.iter_mut().enumerate().filter(|(number, _)| sends[*number] || receives[*number])
    {
        while !port.link().is_up() {
            port.check()?;
            if start.elapsed() > LINK_PATIENCE {
                bail!(
                    "port {number} ({}): the link did not come up within {} s: look at cable and module, and at the other end",
                    port.info().name,
                    LINK_PATIENCE.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let link = port.link();
        note!("port {number} ({}): link {link}", port.info().name);
    }
    Ok(())
}
