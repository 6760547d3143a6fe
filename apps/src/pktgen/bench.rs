//! Ports that run, with their queues, for one measurement after the other.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pagewire_ethdev::{AnyPort, PortConfig, RxQueueConfig, TxQueue, TxQueueConfig};
use pagewire_hugepages::PageSize;
use pagewire_pci::AddressSpace;
use pagewire_pool::PoolMonitor;

use super::engine::{RxLane, TxLane};
use super::pace::Clock;
use super::plan::{self, Plan};
use super::scenario::Scenario;
use super::signature::Run;
use super::{Args, CARDS};
use crate::embedded::Embedded;
use crate::idle::Idle;
use crate::l2fwd::Reporter;
use crate::stats::Statistics;
use crate::{cores, ports};

/// How long what a ring has may take to be sent.
const RING_PATIENCE: Duration = Duration::from_secs(1);
/// How long a link may take to come up.
const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// Ports and queues, and what is around them.
pub(super) struct Bench<'a> {
    // Dropped in this order: queues, ports, what both are in.
    pub(super) tx: Vec<TxLane>,
    pub(super) rx: Vec<RxLane>,
    pub(super) ports: Vec<AnyPort>,
    pub(super) monitors: Vec<PoolMonitor>,
    _space: AddressSpace,
    pub(super) args: &'a Args,
    pub(super) clock: Clock,
    pub(super) cpus: Vec<usize>,
    /// What loops do that find nothing: they may share their only core with modelled cards.
    pub(super) idle: Idle,
    pub(super) statistics: Statistics,
    /// What others are told, from one measurement to the next, and since when.
    pub(super) published: (Reporter, Instant),
    /// The last measurement.
    pub(super) run: Option<Run>,
}

impl<'a> Bench<'a> {
    /// Open and start the ports for everything that a scenario may send. `cards`: those of this process.
    pub(super) fn open(
        args: &'a Args,
        scenario: &Scenario,
        cards: &mut Option<Embedded>,
    ) -> Result<Bench<'a>> {
        let statistics = Statistics::serve("pktgen");
        let needs = args.needs(scenario)?;
        let clock = Clock::calibrate();
        let (space, mut ports, (tx, rx, monitors)) = needs.with_pages(|page_size| {
            let space = args.access.space(page_size)?;
            let mut ports = ports::open(&args.ports, &space)?;
            // Before anything is started, which overwrites files.
            scenario.explain(Plan::check(scenario, (&args.ports, &mut ports), args.lanes.queues, &clock))?;
            let queues = start(args, scenario, page_size, &space, &mut ports)?;
            Ok((space, ports, queues))
        })?;
        await_links(scenario, &mut ports)?;
        if let Some(cards) = cards {
            cards.connected();
        }
        let queues = tx.len() + rx.len();
        let cpus = match &args.lanes.cores {
            Some(list) => cores::check(&list.0)?,
            None if cards.is_some() => cores::beside(queues, CARDS)?.0,
            None => cores::default(queues)?,
        };
        let idle = Idle::napping(cards.as_ref().is_some_and(|cards| cards.shares(&cpus)));
        let published =
            (Reporter::new(monitors.clone(), vec![Vec::new(); ports.len()], None), Instant::now());
        Ok(Bench {
            published,
            tx,
            rx,
            ports,
            monitors,
            _space: space,
            args,
            clock,
            cpus,
            idle,
            statistics,
            run: None,
        })
    }

    /// Wait until the cards have sent what their rings have: a port that stops sends no more.
    pub(super) fn finish_sending(&mut self) {
        let start = Instant::now();
        for lane in &mut self.tx {
            lane.tx.reclaim();
            while lane.tx.pending() > 0 && start.elapsed() < RING_PATIENCE {
                std::thread::sleep(Duration::from_millis(1));
                lane.tx.reclaim();
            }
            if lane.tx.pending() > 0 {
                let name = &self.ports[lane.port].info().name;
                let (queue, left) = (lane.queue, lane.tx.pending());
                note!("port {} ({name}), queue {queue}: {left} frames were never sent", lane.port);
            }
        }
    }

    /// Stop the ports.
    ///
    /// # Errors
    ///
    /// A port that does not stop, or fragments that nobody has.
    pub(super) fn close(self) -> Result<()> {
        let Bench { tx, rx, mut ports, monitors, .. } = self;
        drop((tx, rx));
        let stopped: Result<Vec<()>, _> =
            ports.iter_mut().filter(|port| port.check().is_ok()).map(|port| port.stop()).collect();
        drop(ports);
        pagewire_pool::flush_thread();
        stopped?;
        match monitors.iter().map(|pool| pool.stats().inflight()).sum::<u64>() {
            0 => Ok(()),
            lost => bail!("{lost} fragments were lost; this is a bug of pagewire"),
        }
    }
}

type Queues = (Vec<TxLane>, Vec<RxLane>, Vec<PoolMonitor>);

/// Start every port with the queues that its part needs.
fn start(
    args: &Args,
    scenario: &Scenario,
    page_size: PageSize,
    space: &AddressSpace,
    ports: &mut [AnyPort],
) -> Result<Queues> {
    let (sends, receives) = plan::roles(scenario, ports.len())?;
    let needs = args.needs(scenario)?;
    let (mtu, rx_offloads) = Args::mtu(scenario);
    let (mut lanes, mut receivers, mut monitors) = (Vec::new(), Vec::new(), Vec::new());
    for (number, port) in ports.iter_mut().enumerate() {
        let tx_offloads = plan::tx_offloads(scenario, number);
        let mut config = PortConfig { mtu, rx_offloads, tx_offloads, ..PortConfig::default() };
        let mut pools = Vec::new();
        for queue in 0..args.lanes.queues {
            if receives[number] {
                let pool = needs.make_pool(page_size, space, number, queue)?;
                monitors.push(pool.monitor());
                config.rx.push(RxQueueConfig::new(pool, args.lanes.rx_ring));
            }
            if sends[number] {
                let pool = needs.make_tx_pool(page_size, space, number, queue)?;
                monitors.push(pool.monitor());
                pools.push(pool);
                config.tx.push(TxQueueConfig { descriptors: args.lanes.tx_ring });
            }
        }
        let (rx, tx) = port.start(config)?;
        let lane = |((tx, pool), queue)| TxLane { port: number, queue, tx, pool };
        lanes.extend(tx.into_iter().zip(pools).zip(0..).map(lane));
        receivers.extend(rx.into_iter().zip(0..).map(|(rx, queue)| RxLane { port: number, queue, rx }));
    }
    Ok((lanes, receivers, monitors))
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
