//! `pagewire model`: serve modelled cards on sockets.

mod args;
mod report;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pagewire_models::Function;
use pagewire_models::ixgbe::{Config, Ixgbe, UnknownAccess};
use pagewire_models::server::{Server, ServerError, ServerOptions, Stopper, run_together};
use pagewire_models::wire::{Generator, Meter, Open, Paced, Pcap, Report, Stream, Tap, Traffic, Wire, pair};

pub(crate) use args::Args;
use args::WireSpec;
use report::{Reporter, Status, Watched};

use crate::run;
use crate::stats::Statistics;

/// How often to look for a signal.
const LOOK: Duration = Duration::from_millis(20);

/// A card that is served, in a thread of its own. Dropping it ends that.
struct Serving {
    stopper: Stopper,
    /// Gives the accesses to registers that there are not.
    thread: Option<JoinHandle<Result<Vec<UnknownAccess>, ServerError>>>,
}

/// One end of a wire: itself, what it is called, what it tells.
type End = (Box<dyn Wire>, String, Status);

pub(crate) fn run(args: Args) -> Result<()> {
    let stop = run::stop_flag()?;
    let wires = args.plan().map_err(anyhow::Error::msg)?;
    let statistics = Statistics::serve("model");
    // Sockets first: where one is in use nothing is touched, such as a capture that would be overwritten.
    let mut servers = Vec::new();
    for socket in &args.sockets {
        let options = ServerOptions { mappable: args.mapped, ..ServerOptions::default() };
        let bind = |path: &PathBuf| Server::bind(path, options.clone());
        servers.push(
            [socket.clone()].iter().chain(&args.functions(socket)).map(bind).collect::<Result<_, _>>()?,
        );
    }
    let (mut ends, generated) = (Vec::new(), Arc::default());
    for wire in &wires {
        plug(wire, &mut ends, &generated).with_context(|| format!("--wire {wire}"))?;
    }
    let (mut serving, mut cards) = (Vec::new(), Vec::new());
    for (number, (servers, end)) in servers.into_iter().zip(ends).enumerate() {
        let (one, card) = serve(&args, number, servers, end)?;
        serving.push(one);
        cards.push(card);
    }
    explain(&args, &cards);
    let cards: Arc<[Watched]> = cards.into();
    let mut published = Reporter::new(true, cards.clone());
    let mut reporter = Reporter::new(args.reporting.json, cards);
    let start = Instant::now();
    let mut next = args.reporting.stats_period;
    while !stop.load(Relaxed)
        && args.reporting.duration.is_none_or(|duration| start.elapsed() < duration)
        && !serving.iter().any(Serving::has_ended)
    {
        thread::sleep(LOOK);
        statistics.tick(|| published.snapshot(start.elapsed()));
        if !args.reporting.stats_period.is_zero() && start.elapsed() >= next {
            // From now on: a process that slept does not catch up with what it missed.
            next = start.elapsed() + args.reporting.stats_period;
            run::print(&reporter.report(start.elapsed(), None))?;
        }
    }
    // Every card has ended, and its socket is gone, before anything is said.
    serving.iter().for_each(|one| one.stopper.stop());
    let unknown = serving.into_iter().map(Serving::finish).collect::<Result<Vec<_>, _>>()?;
    run::print(&reporter.report(start.elapsed(), Some(&unknown)))?;
    match reporter.unwritten() {
        0 => Ok(()),
        frames => bail!("{frames} frames that cards sent are missing in their captures"),
    }
}

/// Makes a wire, and adds its ends.
fn plug(spec: &WireSpec, ends: &mut Vec<End>, generated: &Arc<Report>) -> Result<()> {
    let (wire, status): (Box<dyn Wire>, _) = match spec {
        WireSpec::Open => (Box::new(Open), Status::Nothing),
        WireSpec::Pair(mbps) => {
            let number = ends.len();
            let (one, other) = pair();
            for (end, to) in [(one, number + 1), (other, number)] {
                let end: Box<dyn Wire> = match mbps {
                    Some(mbps) => Box::new(Paced::new(end, u64::from(*mbps) * 1_000_000)),
                    None => Box::new(end),
                };
                ends.push((end, format!("to card {to}"), Status::Nothing));
            }
            return Ok(());
        }
        WireSpec::Stream { path, listen: true } => (Box::new(Stream::listen(path)?), Status::Nothing),
        WireSpec::Stream { path, listen: false } => (Box::new(connect(path)?), Status::Nothing),
        WireSpec::Pcap(options) => {
            let wire = Pcap::open(options)?;
            let report = wire.report();
            (Box::new(wire), Status::Pcap(report))
        }
        WireSpec::Tap(name) => (Box::new(Tap::open(name)?), Status::Nothing),
        WireSpec::Generate(traffic) => {
            // One report for all: what one sends may come back at another.
            let stream = ends.iter().filter(|(_, _, status)| matches!(status, Status::Generate(..))).count();
            let traffic = Traffic { stream: stream as u8, ..traffic.clone() };
            (
                Box::new(Generator::new(traffic, generated.clone())),
                Status::Generate(generated.clone(), stream),
            )
        }
    };
    ends.push((wire, spec.to_string(), status));
    Ok(())
}

fn connect(path: &Path) -> Result<Stream> {
    let socket = UnixStream::connect(path).with_context(|| {
        format!(
            "connecting to {0}: start what listens there first (QEMU: -netdev stream,id=n0,server=on,addr.type=unix,\
             addr.path={0}), or let this side wait: stream:{0},listen",
            path.display()
        )
    })?;
    Ok(Stream::new(socket)?)
}

/// Starts to serve a card.
fn serve(
    args: &Args,
    number: usize,
    servers: Vec<Server>,
    (wire, name, status): End,
) -> Result<(Serving, Watched)> {
    let wire = Meter::new(wire);
    let counts = wire.counts();
    let mac = args.mac(number);
    let kind = args.card.kind();
    let config = Config { kind, mac: mac.0, mapped: args.mapped, functions: args.vfs, ..Config::default() };
    let mut card = Ixgbe::new(config, Box::new(wire));
    let mut functions = card.take_functions();
    let socket = std::path::absolute(&args.sockets[number])?;
    // The card's own, then its functions'.
    let server = servers.first().context("a card has a socket")?;
    let (control, counters) = (card.control(), server.counters());
    let watched = Watched { socket, mac, wire: name, status, control, server: counters, counts };
    let stopper = server.stopper();
    let thread = thread::Builder::new().name(format!("card-{number}")).spawn(move || {
        let all = [&mut card as &mut dyn Function].into_iter();
        let all = all.chain(functions.iter_mut().map(|function| function as &mut dyn Function));
        run_together(servers.iter().zip(all).collect())?;
        // Card and wire end with this thread, and a capture is written.
        Ok(card.unknown().to_vec())
    });
    let thread = Some(thread.context("a thread for a card")?);
    Ok((Serving { stopper, thread }, watched))
}

impl Serving {
    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn finish(mut self) -> Result<Vec<UnknownAccess>, ServerError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(Vec::new()),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            // What it says was asked for in `finish`, or something else went wrong.
            let _ = thread.join();
        }
    }
}

/// Says what is served, and what to type to use it.
fn explain(args: &Args, cards: &[Watched]) {
    let ways = if args.mapped { "mapped doorbells" } else { "every access trapped" };
    for (number, card) in cards.iter().enumerate() {
        let kind = args.card.kind();
        note!(
            "card {number}: {kind}, {}, wire {}, {ways}, at {}",
            card.mac,
            card.wire,
            card.socket.display()
        );
    }
    let ports: Vec<_> =
        cards.iter().map(|card| format!(" --port vfio-user:{}", card.socket.display())).collect();
    let functions: Vec<_> = cards.iter().flat_map(|card| args.functions(&card.socket)).collect();
    if !functions.is_empty() {
        let own: Vec<_> =
            cards.iter().map(|card| format!(" --port vfio-user:{}", card.socket.display())).collect();
        note!(
            "to have virtual functions looked after, in another terminal:\n  pagewire l2fwd --vfs {}{}",
            args.vfs,
            own.concat()
        );
        let ports: Vec<_> =
            functions.iter().map(|path| format!(" --port vfio-user:{}", path.display())).collect();
        note!(
            "and then to forward between them, in a third:\n  pagewire l2fwd --no-promiscuous --scatter{}",
            ports.concat()
        );
        return;
    }
    note!("to forward between them, in another terminal:\n  pagewire l2fwd{}", ports.concat());
    note!(
        "to give them to a guest, QEMU 10.1 or later, whose memory must be shared:\n  \
         -machine q35,memory-backend=mem -object memory-backend-memfd,id=mem,size=1G,share=on"
    );
    for (number, card) in cards.iter().enumerate() {
        let socket = serde_json::json!({ "type": "unix", "path": card.socket });
        let device =
            serde_json::json!({ "driver": "vfio-user-pci", "bus": format!("rp{number}"), "socket": socket });
        note!("  -device pcie-root-port,id=rp{number},chassis={} -device '{device}'", number + 1);
    }
}
