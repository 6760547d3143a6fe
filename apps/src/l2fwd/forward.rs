//! The lanes at work: on their cores, watched by this thread, until it is time to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pagewire_ethdev::{AnyPort, Link, PortEvents, Waiter};

use super::args::{Args, Mode};
use super::cycles::CyclesPerPacket;
use super::embedded::Generators;
use super::lane::{self, Between, Lane, LaneCounters};
use super::live::Summary;
use super::published::Reports;
use crate::idle::{IDLE_ROUNDS, Idle};
use crate::workload::Workload;
use crate::{cores, run};

/// What comes back of it.
pub(super) struct Forwarded {
    pub(super) lanes: Vec<Lane>,
    pub(super) cycles: Vec<CyclesPerPacket>,
    pub(super) elapsed: Duration,
    /// Why it ended, if before its time.
    pub(super) outcome: Result<()>,
}

/// Run the lanes on their cores, report meanwhile, and collect what comes back, whatever it was that ended it.
pub(super) fn forward(
    args: &Args,
    lanes: Vec<Lane>,
    cpus: Vec<usize>,
    ports: &mut [AnyPort],
    reports: &mut Reports,
    cards: Option<&Generators>,
    stop: &AtomicBool,
) -> Forwarded {
    // Not the flag that signals set: what is on its way then is forwarded still.
    let end = Arc::new(AtomicBool::new(false));
    let mut shares: Vec<Vec<Lane>> = cpus.iter().map(|_| Vec::new()).collect();
    let cores = shares.len();
    let counters: Vec<Arc<LaneCounters>> = lanes.iter().map(|lane| lane.counters.clone()).collect();
    for (number, lane) in lanes.into_iter().enumerate() {
        let queue = if args.lanes.queues > 1 { format!("queue {} of ", lane.queue) } else { String::new() };
        note!(
            "core {}: {queue}port {} ({}) to port {} ({})",
            cpus[number % cores],
            lane.rx_port,
            ports[lane.rx_port].info().name,
            lane.tx_port,
            ports[lane.tx_port].info().name,
        );
        reports.published.add(cpus[number % cores], &lane);
        shares[number % cores].push(lane);
    }
    let (record, first) = (args.record_core_cycles, args.tx_first);
    let idle = Idle::napping(cards.is_some_and(|cards| cards.cards.shares(&cpus)));
    let (mut workers, mut failed) = (Vec::new(), None);
    for (cpu, mut share) in cpus.into_iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
        let end = end.clone();
        let between = match args.interrupts {
            true => {
                let waiter = Waiter::new(IDLE_ROUNDS, Duration::from_micros(args.max_wait.into()));
                reports.sleeps(cpu, waiter.counters());
                Between::Sleep(waiter)
            }
            false => Between::Rest(idle),
        };
        let counters = reports.works(cpu);
        let worker = thread::Builder::new().name(format!("lcore-{cpu}")).spawn(move || {
            // A loop that ends early, by a bug, ends the others too.
            let _end = run::EndOnExit(end.clone());
            cores::pin(cpu);
            share.iter_mut().for_each(|lane| lane.send_first(first));
            let mut work = Workload::new(counters);
            match record {
                false => (lane::run(share, &end, between, &mut work), None),
                true => {
                    let (lanes, cycles) = lane::run_recording(share, &end, between, &mut work);
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
        None => {
            if let Some(cards) = cards.filter(|_| args.mode() != Mode::Txonly) {
                cards.send();
            }
            let ended = || stop.load(Ordering::Relaxed) || end.load(Ordering::Relaxed);
            let watched = watch(args, ports, reports, ended, start);
            if let Some(cards) = cards {
                let rests = || counters.iter().map(|lane| lane.rests.load(Ordering::Relaxed)).collect();
                let accounted = || reports.own.report(ports, start.elapsed(), true).unexplained().is_none();
                cards.drain(rests, accounted);
            }
            watched
        }
        Some(error) => Err(error).context("a thread for the run loop"),
    };
    // Every loop has ended, and its queues are back or gone, before anything else happens.
    end.store(true, Ordering::Relaxed);
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
    lanes.sort_by_key(|lane| (lane.rx_port, lane.queue));
    Forwarded { lanes, cycles, elapsed: start.elapsed(), outcome: watched }
}

/// Report every period and at every change of a link, until it is time to stop or a device is gone.
fn watch(
    args: &Args,
    ports: &mut [AnyPort],
    reports: &mut Reports,
    ended: impl Fn() -> bool,
    start: Instant,
) -> Result<()> {
    let mut view = Summary::view(args);
    let mut links: Vec<Link> = ports.iter_mut().map(|port| port.link()).collect();
    for (number, (port, link)) in ports.iter().zip(&links).enumerate() {
        note!("port {number} ({}): link {link}", port.info().name);
    }
    let period = args.reporting.stats_period;
    let mut next = period;
    // It shows the ports at once.
    if view.is_screen() {
        view.show(reports.own.report(ports, start.elapsed(), false))?;
    }
    while !ended() && args.reporting.duration.is_none_or(|duration| start.elapsed() < duration) {
        run::wait_for_event(ports);
        for (number, (port, before)) in ports.iter_mut().zip(&mut links).enumerate() {
            let link = port.link();
            if link != *before {
                note!("port {number} ({}): link {link}", port.info().name);
                *before = link;
            }
            let trouble = port.events() & PortEvents::FATAL;
            if !trouble.is_empty() {
                let name = &port.info().name;
                note!(
                    "port {number} ({name}): the card tells of {trouble:?}; what it does from here on is not to be relied on"
                );
            }
        }
        ports.iter().try_for_each(|port| port.check())?;
        ports.iter_mut().try_for_each(|port| port.serve_functions())?;
        reports.published.tick(ports, start.elapsed());
        if !period.is_zero() && start.elapsed() >= next {
            // From now on: a process that slept does not catch up with what it missed.
            next = start.elapsed() + period;
            view.show(reports.own.report(ports, start.elapsed(), false))?;
        }
        if view.wants_to_quit()? {
            break;
        }
    }
    Ok(())
}
