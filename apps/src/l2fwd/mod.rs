//! `pagewire l2fwd`: forward frames between ports at layer 2.

mod args;
mod lane;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pagewire_ethdev::{
    AnyPort, Burst, DescriptorRing, Link, Pool, PortConfig, RxOffloads, RxQueue, RxQueueConfig, TxOffloads,
    TxQueue, TxQueueConfig,
};
use pagewire_hugepages::PageSize;
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{PoolConfig, PoolMonitor};
use pagewire_virtual::Null;

pub(crate) use args::Args;
use args::PortMap;
use lane::{CyclesPerPacket, Lane, LaneCounters};
use report::{Fragments, Reporter};

use crate::ports::{self, PortSpec};
use crate::{cores, run};

/// How long to run if nobody said and no port is named.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);
/// Fragments of a pool of small pages: two such pools are within the 8 MiB that an ordinary user may lock.
const SMALL_POOL: usize = 1536;
/// Fragments of a pool besides those in rings: the owner's cache, magazines, bursts on their way.
const SPARE_FRAGMENTS: usize = 1024;

pub(crate) fn run(mut args: Args) -> Result<()> {
    let stop = run::stop_flag()?;
    if args.ports.is_empty() {
        args.ports = vec![PortSpec::Null(Null::PACKET_SIZE); 2];
        let duration = *args.duration.get_or_insert(DEFAULT_DURATION);
        note!(
            "no --port given: forwarding between two null: ports, which make and discard packets in memory, for {} s",
            duration.as_secs_f64()
        );
    }
    let count = args.ports.len();
    if count > 256 {
        bail!("{count} ports; the most is 256");
    }
    let map = args.portmap.clone().unwrap_or_else(|| PortMap::neighbours(count));
    let peers = map.resolve(count).map_err(anyhow::Error::msg)?;
    let cpus = match &args.cores {
        Some(list) => cores::check(&list.0)?,
        None => cores::default(count)?,
    };

    check_huge_pages(&args)?;
    let space = AddressSpace::new(AddressSpaceOptions {
        backend: args.vfio.into(),
        unsafe_noiommu: args.unsafe_noiommu,
        dma_page_size: args.pages.unwrap_or(PageSize::Size2M),
        ..Default::default()
    })?;
    let mut ports = ports::open(&args.ports, &space)?;
    let (lanes, monitors) = start(&args, &space, &mut ports, &peers)?;
    let counters = lanes.iter().map(|lane| lane.counters.clone()).collect();
    let mut reporter = Reporter::new(args.json, monitors, counters);
    let (lanes, cycles, elapsed) = forward(&args, lanes, cpus, &mut ports, &mut reporter, &stop)?;
    finish(lanes, cycles, elapsed, ports, reporter)
}

/// Huge pages that all of this takes, asked for before anything is touched: each pool would only say what it lacks itself.
fn check_huge_pages(args: &Args) -> Result<()> {
    let page_size = args.pages.unwrap_or(PageSize::Size2M);
    if !page_size.is_huge() || !args.ports.iter().any(PortSpec::is_hardware) {
        return Ok(());
    }
    let pool = pool_config(args, 0);
    let pages = |bytes: usize| bytes.div_ceil(page_size.bytes()) as u64;
    let rings = args.ports.len() * (args.rx_ring + args.tx_ring) as usize * DescriptorRing::<()>::DESCRIPTOR;
    let needed = args.ports.len() as u64 * pages(pool.fragments * pool.fragment_size) + pages(rings);
    let counts = pagewire_hugepages::Sysfs::default().counts(page_size, None)?;
    let free = counts.free.saturating_sub(counts.promised);
    if free < needed {
        bail!(
            "{needed} free huge pages of {page_size} are needed, {free} of the {} reserved are free: run `pagewire hugepages reserve \
             --size {} --count {}` as root",
            counts.reserved,
            page_size.short(),
            counts.reserved - free.min(counts.reserved) + needed,
        );
    }
    Ok(())
}

/// Start every port and pair its receive queue with its peer's transmit queue.
fn start(
    args: &Args,
    space: &AddressSpace,
    ports: &mut [AnyPort],
    peers: &[usize],
) -> Result<(Vec<Lane>, Vec<PoolMonitor>)> {
    let jumbo = args.is_jumbo();
    let (mut rx_queues, mut tx_queues, mut monitors) = (Vec::new(), Vec::new(), Vec::new());
    for (number, port) in ports.iter_mut().enumerate() {
        let pool = make_pool(args, space, number)?;
        monitors.push(pool.monitor());
        let config = PortConfig {
            rx: vec![RxQueueConfig { pool, descriptors: args.rx_ring }],
            tx: vec![TxQueueConfig { descriptors: args.tx_ring }],
            mtu: args.mtu,
            rx_offloads: if jumbo { RxOffloads::SCATTER } else { RxOffloads::empty() },
            tx_offloads: if jumbo { TxOffloads::MULTI_SEGS } else { TxOffloads::empty() },
            promiscuous: !args.no_promiscuous,
        };
        let (rx, tx) = port.start(config)?;
        rx_queues.extend(rx);
        tx_queues.extend(tx.into_iter().map(Some));
    }
    let mut lanes = Vec::new();
    for (rx_port, rx) in rx_queues.into_iter().enumerate() {
        let tx_port = peers[rx_port];
        let source = ports[tx_port].info().mac;
        let header = lane::header(args::destination(tx_port), source);
        lanes.push(Lane {
            rx_port,
            tx_port,
            rx,
            tx: tx_queues[tx_port].take().context("a transmit queue has two lanes")?,
            burst: Burst::new(args.burst.into()),
            mode: args.mode(),
            header,
            template: lane::template(header, args.tx_size),
            counters: Arc::new(LaneCounters::default()),
        });
    }
    Ok((lanes, monitors))
}

fn pool_config(args: &Args, number: usize) -> PoolConfig {
    let rings = (args.rx_ring + args.tx_ring) as usize;
    PoolConfig {
        name: format!("port{number}"),
        fragments: args
            .fragments
            .map_or(rings + SPARE_FRAGMENTS + 2 * usize::from(args.burst), |count| count as usize),
        headroom: if args.is_jumbo() { 0 } else { PoolConfig::HEADROOM },
        backing: args.pages.unwrap_or(PageSize::Size2M),
        ..PoolConfig::default()
    }
}

fn make_pool(args: &Args, space: &AddressSpace, number: usize) -> Result<Pool> {
    let mut config = pool_config(args, number);
    let may_be_small = args.pages.is_none() && !args.ports.iter().any(PortSpec::is_hardware);
    match Pool::new(&config, space) {
        Err(error @ pagewire_pool::Error::Memory { .. }) if may_be_small => {
            if number == 0 {
                note!(
                    "{error}\ngoing on with 4 KiB pages, which cost TLB misses, because no port is a real device"
                );
            }
            config.backing = PageSize::Size4K;
            config.fragments = args.fragments.map_or(SMALL_POOL, |count| count as usize);
            Ok(Pool::new(&config, space)?)
        }
        pool => Ok(pool?),
    }
}

/// Run the lanes on their cores, report meanwhile, and collect what comes back.
fn forward(
    args: &Args,
    lanes: Vec<Lane>,
    cpus: Vec<usize>,
    ports: &mut [AnyPort],
    reporter: &mut Reporter,
    stop: &Arc<AtomicBool>,
) -> Result<(Vec<Lane>, Vec<CyclesPerPacket>, Duration)> {
    let mut shares: Vec<Vec<Lane>> = cpus.iter().map(|_| Vec::new()).collect();
    let cores = shares.len();
    for (number, lane) in lanes.into_iter().enumerate() {
        note!(
            "core {}: port {} ({}) to port {} ({})",
            cpus[number % cores],
            lane.rx_port,
            ports[lane.rx_port].info().name,
            lane.tx_port,
            ports[lane.tx_port].info().name,
        );
        shares[number % cores].push(lane);
    }
    let (record, first) = (args.record_core_cycles, args.tx_first);
    let (mut workers, mut failed) = (Vec::new(), None);
    for (cpu, mut share) in cpus.into_iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
        let stop = stop.clone();
        let worker = thread::Builder::new().name(format!("lcore-{cpu}")).spawn(move || {
            // A loop that ends early, by a bug, ends the others too.
            let _stop = StopOnExit(stop.clone());
            cores::pin(cpu);
            share.iter_mut().for_each(|lane| lane.send_first(first));
            match record {
                false => (lane::run(share, &stop), None),
                true => {
                    let (lanes, cycles) = lane::run_recording(share, &stop);
                    (lanes, cycles.summary())
                }
            }
        });
        match worker {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let start = Instant::now();
    let watched = match failed {
        None => watch(args, ports, reporter, stop, start),
        Some(error) => Err(error).context("a thread for the run loop"),
    };
    // Every loop has ended, and its queues are back or gone, before anything else happens.
    stop.store(true, Ordering::Relaxed);
    let (mut lanes, mut cycles, mut panicked) = (Vec::new(), Vec::new(), None);
    for worker in workers {
        match worker.join() {
            Ok((share, summary)) => {
                lanes.extend(share);
                cycles.extend(summary);
            }
            Err(panic) => panicked = Some(panic),
        }
    }
    if let Some(panic) = panicked {
        drop(lanes);
        std::panic::resume_unwind(panic);
    }
    watched?;
    lanes.sort_by_key(|lane| lane.rx_port);
    Ok((lanes, cycles, start.elapsed()))
}

struct StopOnExit(Arc<AtomicBool>);

impl Drop for StopOnExit {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Report every period and at every change of a link, until it is time to stop.
fn watch(
    args: &Args,
    ports: &mut [AnyPort],
    reporter: &mut Reporter,
    stop: &AtomicBool,
    start: Instant,
) -> Result<()> {
    let mut links: Vec<Link> = ports.iter_mut().map(|port| port.link()).collect();
    for (number, (port, link)) in ports.iter().zip(&links).enumerate() {
        note!("port {number} ({}): link {link}", port.info().name);
    }
    let period = args.stats_period;
    let mut next = period;
    while !stop.load(Ordering::Relaxed) && args.duration.is_none_or(|duration| start.elapsed() < duration) {
        wait_for_link_change(ports);
        for (number, (port, before)) in ports.iter_mut().zip(&mut links).enumerate() {
            let link = port.link();
            if link != *before {
                note!("port {number} ({}): link {link}", port.info().name);
                *before = link;
            }
        }
        if !period.is_zero() && start.elapsed() >= next {
            // From now on: a process that slept does not catch up with what it missed.
            next = start.elapsed() + period;
            reporter.report(ports, start.elapsed(), false).print(args.json)?;
        }
    }
    Ok(())
}

/// Wait for a link interrupt, and not long: links without one are polled, and signals come at any time.
fn wait_for_link_change(ports: &[AnyPort]) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut interrupts: Vec<_> = ports
        .iter()
        .filter_map(|port| port.link_interrupt())
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    // An error is a signal's: the caller looks for it.
    let _ = poll(&mut interrupts, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
}

/// Account for every fragment, close the ports, and print the totals.
fn finish(
    mut lanes: Vec<Lane>,
    cycles: Vec<CyclesPerPacket>,
    elapsed: Duration,
    mut ports: Vec<AnyPort>,
    mut reporter: Reporter,
) -> Result<()> {
    let (mut inflight, mut in_rings) = (0, 0);
    for lane in &mut lanes {
        in_rings += lane.rx.posted() + lane.tx.pending();
        lane.rx.pool().trim();
        inflight += lane.rx.pool().stats().inflight();
    }
    let report = reporter.report(&mut ports, elapsed, true).with_cycles(cycles);
    drop(lanes);
    let stopped: Result<Vec<()>, _> = ports.iter_mut().map(|port| port.stop()).collect();
    drop(ports);
    // What stopping the ports dropped on this thread.
    pagewire_pool::flush_thread();
    let after_close = reporter.pools.iter().map(|pool| pool.stats().inflight()).sum();
    let fragments = Fragments { inflight, in_rings: in_rings as u64, after_close };
    report.with_fragments(fragments).print(reporter.json)?;
    stopped?;
    if !fragments.balance() {
        bail!("fragments were lost; this is a bug of pagewire");
    }
    Ok(())
}
