//! The process that has the port: it hands what it receives to a second one, which it starts itself.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pagewire_ethdev::{AnyPort, AnyRxQueue, Burst, PortConfig, RxOffloads, RxQueue};
use pagewire_hugepages::PageSize;
use pagewire_pool::handover::{Options, Producer, Server};
use pagewire_pool::{Pool, PoolConfig};
use serde::Serialize;
use serde_json::json;

use super::select::Selection;
use super::{Args, Reported, Written};
use crate::idle::{Idle, Rounds};
use crate::l2fwd::{Report, Reporter};
use crate::memory::Needs;
use crate::ports::{self, PortSpec};
use crate::stats::Statistics;
use crate::{cores, run};

/// Packets received at a time.
const BURST: usize = 64;
/// How often to look at signals, the time and the other process.
const LOOK: Duration = Duration::from_millis(20);
/// How long the other process may take to start, and, after the last packet, to take what waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to put that on its disk.
const SLOW_DISK: Duration = Duration::from_secs(120);

/// The totals.
#[derive(Serialize)]
struct Totals {
    port: String,
    /// Packets that the port received.
    received: u64,
    #[serde(flatten)]
    written: Written,
    /// Packets that were dropped because the file's process was behind by `--queue`.
    dropped: u64,
    /// Frames that the port dropped because this process was too slow.
    missed: u64,
}

#[derive(Default)]
#[repr(align(64))]
struct Counters {
    received: AtomicU64,
    dropped: AtomicU64,
}

pub(super) fn capture(args: &Args, spec: &PortSpec, stop: &AtomicBool) -> Result<()> {
    let statistics = Statistics::serve("capture");
    let folder = tempfile::Builder::new().prefix("pagewire-").tempdir().context("a folder for a socket")?;
    let socket = folder.path().join("capture");
    let options = Options { quota: args.queue, consumers: 1, ..Options::default() };
    let server = Server::bind(&socket, options)?;
    let needs = Needs {
        ports: std::slice::from_ref(spec),
        paired: 1,
        queues: 1,
        pages: args.access.pages,
        descriptors: args.rx_ring,
        elsewhere: args.queue as usize + 2 * BURST,
        fragments: None,
        headroom: if args.mtu > 1500 { 0 } else { PoolConfig::HEADROOM },
        tx_pools: 0,
        tx_longest: 0,
    };
    let (mut port, pool, _space) = needs.with_pages(|page_size| open(args, &needs, page_size))?;
    let monitor = pool.monitor();
    let mut producer = server.producer(&port.info().name, &pool)?;
    // Started before anything is pinned, which it would inherit, and attached before anything is received.
    let mut writer = Writer::start(args, &socket)?;
    writer.attached(&mut producer)?;
    drop(folder);
    let (mut rx, _tx) = port.start(PortConfig {
        mtu: args.mtu,
        rx_offloads: if args.mtu > 1500 { RxOffloads::SCATTER } else { RxOffloads::empty() },
        promiscuous: !args.no_promiscuous,
        tx: Vec::new(),
        ..single_queue(pool, args.rx_ring)
    })?;
    let rx = rx.pop().context("a port without a receive queue")?;

    let (counters, end) = (Arc::new(Counters::default()), Arc::new(AtomicBool::new(false)));
    let idle = Idle::napping(!spec.is_hardware());
    let cpu = cores::default(1)?.pop();
    let lane = Lane { rx, producer, counters: counters.clone(), end: end.clone(), idle };
    let worker = thread::Builder::new().name("capture".into()).spawn(move || {
        cpu.inspect(|cpu| cores::pin(*cpu));
        lane.run()
    })?;
    let mut published =
        Published { statistics, reporter: Reporter::new(vec![monitor.clone()], vec![vec![]], None) };
    let watched = watch(args, &mut port, &counters, &mut published, stop, &end);
    end.store(true, Ordering::Relaxed);
    let (rx, producer) = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let late = producer.outstanding();
    drop(producer);
    drop(server);
    let written = writer.finish();
    let missed = port.stats().rx_missed;
    let name = port.info().name.clone();
    drop(rx);
    if port.check().is_ok() {
        port.stop()?;
    }
    drop(port);
    pagewire_pool::flush_thread();
    watched?;
    let (received, dropped) =
        (counters.received.load(Ordering::Relaxed), counters.dropped.load(Ordering::Relaxed));
    report(args, &Totals { port: name, received, written: written?, dropped, missed })?;
    if late > 0 {
        bail!("{late} packets were still not written {} s after the last came", PATIENCE.as_secs());
    }
    match monitor.stats().inflight() {
        0 => Ok(()),
        lost => bail!("{lost} fragments were lost; this is a bug of pagewire"),
    }
}

fn open(
    args: &Args,
    needs: &Needs<'_>,
    page_size: PageSize,
) -> Result<(AnyPort, Pool, pagewire_pci::AddressSpace)> {
    let space = args.access.space(page_size)?;
    let port = ports::open(needs.ports, &space)?.pop().context("one port was asked for")?;
    let pool = needs.make_pool(page_size, &space, 0, 0)?;
    Ok((port, pool, space))
}

fn single_queue(pool: Pool, descriptors: u32) -> PortConfig {
    let mut config = PortConfig::single_queue(pool);
    config.rx.iter_mut().for_each(|queue| queue.descriptors = descriptors);
    config
}

/// What the core that receives has.
struct Lane {
    rx: AnyRxQueue,
    producer: Producer,
    counters: Arc<Counters>,
    end: Arc<AtomicBool>,
    idle: Idle,
}

impl Lane {
    /// Until told to stop or the other process is gone. Gives the queue back, and the producer with all returned that will be.
    fn run(mut self) -> (AnyRxQueue, Producer) {
        let mut burst = Burst::new(BURST);
        let mut rounds = Rounds::default();
        while !self.end.load(Ordering::Relaxed) && self.producer.has_consumers() {
            let received = self.rx.rx_burst(&mut burst);
            let mut dropped = 0;
            for packet in burst.drain() {
                dropped += u64::from(self.producer.offer(packet).is_err());
            }
            self.producer.poll();
            if received > 0 {
                // This thread alone counts.
                let add = |counter: &AtomicU64, more| {
                    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed)
                };
                add(&self.counters.received, received as u64);
                add(&self.counters.dropped, dropped);
            }
            if rounds.are_idle(received) {
                self.idle.rest();
            }
        }
        self.producer.drain(PATIENCE);
        self.end.store(true, Ordering::Relaxed);
        (self.rx, self.producer)
    }
}

/// What `pagewire stats` is told.
struct Published {
    statistics: Statistics,
    reporter: Reporter,
}

impl Published {
    /// Reads the port if somebody asks.
    fn tick(&mut self, port: &mut AnyPort, counters: &Counters, now: Duration) {
        self.statistics.tick(|| {
            let Report { seconds, ports, .. } = self.reporter.snapshot(std::slice::from_mut(port), now);
            let [received, dropped] =
                [&counters.received, &counters.dropped].map(|counter| counter.load(Ordering::Relaxed));
            json!({ "seconds": seconds, "ports": ports, "capture": { "received": received, "dropped": dropped } })
        });
    }
}

/// Reports every period until it is time to stop.
fn watch(
    args: &Args,
    port: &mut AnyPort,
    counters: &Counters,
    published: &mut Published,
    stop: &AtomicBool,
    end: &AtomicBool,
) -> Result<()> {
    let (start, period) = (Instant::now(), args.reporting.stats_period);
    let link = port.link();
    note!("capturing what {} receives in {}; link {link}", port.info().name, args.out.display());
    let mut next = period;
    while !stop.load(Ordering::Relaxed)
        && !end.load(Ordering::Relaxed)
        && args.reporting.duration.is_none_or(|duration| start.elapsed() < duration)
    {
        thread::sleep(LOOK);
        port.check()?;
        published.tick(port, counters, start.elapsed());
        if !period.is_zero() && start.elapsed() >= next {
            next = start.elapsed() + period;
            let (received, dropped) =
                (counters.received.load(Ordering::Relaxed), counters.dropped.load(Ordering::Relaxed));
            match args.reporting.json {
                true => {
                    let counts =
                        json!({ "port": port.info().name, "received": received, "dropped": dropped });
                    Reported { last: false, counts }.print()?;
                }
                false => run::print(&format!("{received} packets received, {dropped} dropped\n"))?,
            }
        }
    }
    Ok(())
}

fn report(args: &Args, totals: &Totals) -> Result<()> {
    if args.reporting.json {
        return Reported { last: true, counts: totals }.print();
    }
    let Totals { port, received, written, dropped, missed } = totals;
    let (packets, bytes) = (written.packets, written.bytes);
    let out = args.out.display();
    let mut text = format!("{port}: {received} packets received, {packets} ({bytes} bytes) in {out}\n");
    if *dropped > 0 {
        text += &format!(
            "{dropped} dropped because the file was too slow: take a faster disk, a larger --queue or a --snaplen\n"
        );
    }
    if *missed > 0 {
        text += &format!(
            "{missed} missed by the port because this program was too slow: take a larger --rx-ring\n"
        );
    }
    Ok(run::print(&text)?)
}

/// The other process. Dropping it ends it.
struct Writer {
    child: Child,
}

impl Writer {
    fn start(args: &Args, socket: &Path) -> Result<Writer> {
        let program = std::env::current_exe().context("finding this program, to start it once more")?;
        let mut command = Command::new(program);
        command
            .args(["capture", "--json", "--stats-period", "0", "--from"])
            .arg(socket)
            .arg("--out")
            .arg(&args.out);
        command.args(["--snaplen", &args.snaplen.to_string()]);
        let Selection { filter, sample, .. } = &args.selection;
        command.args(["--sample", &sample.to_string()]);
        if let Some(filter) = filter {
            command.args(["--filter", &filter.text]);
        }
        if let Some(count) = args.count {
            command.args(["--count", &count.to_string()]);
        }
        // A group of its own: Ctrl-C is for this process, and the other ends when this one has handed over the last packet.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Writer { child: command.spawn().context("starting the process that writes the file")? })
    }

    /// Waits until it is attached.
    fn attached(&mut self, producer: &mut Producer) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !producer.has_consumers() {
            // It says itself why.
            if let Some(status) = self.child.try_wait()? {
                bail!("the process that writes the file has ended ({status})");
            }
            if Instant::now() >= until {
                bail!("the process that writes the file is not ready after {} s", PATIENCE.as_secs());
            }
            producer.wait(LOOK);
        }
        Ok(())
    }

    /// Waits until it has written all, and gives what that was.
    fn finish(&mut self) -> Result<Written> {
        let until = Instant::now() + SLOW_DISK;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= until {
                bail!("the process that writes the file is not done after {} s", SLOW_DISK.as_secs());
            }
            thread::sleep(Duration::from_millis(1));
        };
        let mut said = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            out.read_to_string(&mut said)?;
        }
        if !status.success() {
            bail!("the process that writes the file has failed ({status})");
        }
        serde_json::from_str(said.trim()).context("the totals of the process that writes the file")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
