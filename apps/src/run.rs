//! What commands share that run until they are told to stop.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pagewire_ethdev::AnyPort;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::screen;

/// A flag that SIGINT and SIGTERM set, and SIGHUP if somebody is to see the end of it. The second of them kills, should
/// stopping hang.
pub(crate) fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if std::io::stdout().is_terminal() {
        // A terminal that goes takes its user along. Elsewhere nohup(1) decides.
        signals.add_signal(SIGHUP)?;
    }
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if set.swap(true, Ordering::Relaxed) {
                screen::restore();
                signal_hook::low_level::exit(128 + signal);
            }
        }
    })?;
    Ok(stop)
}

/// How long to run, and what to report meanwhile.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Reporting {
    /// Seconds between two reports; 0 reports only at the end
    #[arg(short = 'T', long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) stats_period: Duration,

    /// Stop after this many seconds. By default at Ctrl-C; l2fwd without ports stops after 10
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,

    /// Report as JSON: one object a period and a final one, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time on the command line.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e9).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds, such as 10 or 0.5".into()),
    }
}

/// Sets a flag when it is dropped: a thread that ends early, by a bug, ends the others too.
pub(crate) struct EndOnExit(pub(crate) Arc<AtomicBool>);

impl Drop for EndOnExit {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Wait for a port's interrupt, and not long: links without one are polled, and signals come at any time.
pub(crate) fn wait_for_event(ports: &[AnyPort]) {
    let mut interrupts: Vec<_> = ports
        .iter()
        .filter_map(|port| port.event_interrupt())
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    // An error is a signal's: the caller looks for it.
    let _ = poll(&mut interrupts, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
}

/// What is true of a file now: of `what`, or that its other end is gone.
pub(crate) fn happened(file: impl AsFd, what: PollFlags) -> PollFlags {
    let mut file = [PollFd::from_borrowed_fd(file.as_fd(), what)];
    match poll(&mut file, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => file[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

/// Print on standard output. A reader that left, such as `head`, is no reason to stop.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
