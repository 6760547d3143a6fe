//! Statistics of running processes: every process that runs for long serves them on a socket of its own, and `pagewire stats`
//! asks there.

mod client;
mod document;
mod http;
mod metrics;
mod place;
mod server;
mod show;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

pub(crate) use place::preflight as check_folder;
pub(crate) use server::Statistics;

use crate::run;
use crate::screen::Screen;
use client::Target;
use document::Get;

const EXAMPLES: &str = "\
Examples:
  pagewire stats                             the processes that run; the only one in full
  pagewire stats --id l2fwd-4711 --watch     one of them, every second
  pagewire stats pools                       every packet pool of every process: what it has out, and for how long
  pagewire stats --prometheus 127.0.0.1:9184   all of them, for Prometheus on this machine
  pagewire stats --json | jq '.processes[].ports[].xstats'";

/// How often to look for a key or a signal.
const LOOK: Duration = Duration::from_millis(20);

/// What `pagewire stats` is asked to do.
///
/// Show what running pagewire processes of this user count: ports, queues, cores and pools. Asking never disturbs them.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub(crate) struct Args {
    /// What to show
    #[arg(value_enum, default_value_t = What::All)]
    what: What,

    /// The process: its id, such as l2fwd-4711, or its process number
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    /// Again and again, every second or so many
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = run::seconds)]
    watch: Option<Duration>,

    /// Report as JSON: one object a line, see docs/statistics.md
    #[arg(long)]
    json: bool,

    /// Serve what the processes count as OpenMetrics, at http://ADDR/metrics, until Ctrl-C. Addresses of this machine's own only
    #[arg(long, value_name = "ADDR", value_parser = http::loopback, conflicts_with_all = ["what", "watch", "json"])]
    prometheus: Option<SocketAddr>,
}

/// What to show.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The processes, and everything of one
    All,
    /// The packet pools of all of them, or of one
    Pools,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if let Some(address) = args.prometheus {
        return http::serve(address, args.id.as_deref(), &*run::stop_flag()?);
    }
    let Some(period) = args.watch else { return run::print(&once(&args)?).map_err(Into::into) };
    let stop = run::stop_flag()?;
    let (period, terminal) = (period.max(LOOK), std::io::stdout().is_terminal());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if args.json || dumb || !terminal {
        while !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            run::print(&once(&args)?)?;
            while start.elapsed() < period && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK.min(period.saturating_sub(start.elapsed())));
            }
        }
        return Ok(());
    }
    watch(&args, period, &stop)
}

/// On all of the terminal, until the user ends it or the process that was asked for has ended.
fn watch(args: &Args, period: Duration, stop: &AtomicBool) -> Result<()> {
    let mut screen = Screen::open()?;
    loop {
        let start = Instant::now();
        let found = Found::look(args)?;
        screen.draw(|frame| found.draw(frame.buffer_mut(), args.what, "q: end"))?;
        while start.elapsed() < period {
            let input = screen.input()?;
            if input.quit || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if input.resized {
                screen.draw(|frame| found.draw(frame.buffer_mut(), args.what, "q: end"))?;
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn once(args: &Args) -> Result<String> {
    let found = Found::look(args)?;
    Ok(match args.json {
        true => format!("{}\n", json!({ "version": document::VERSION, "processes": found.documents })),
        false => found.text(args.what),
    })
}

/// What processes say.
struct Found {
    documents: Vec<Value>,
    /// Why others do not.
    silent: Vec<String>,
}

impl Found {
    /// Everything, of every process or of one, if there is any.
    fn all(id: Option<&str>) -> Result<Found> {
        Ok(Found::ask(&targets(id)?, Get::All))
    }

    fn ask(targets: &[Target], get: Get) -> Found {
        let mut found = Found { documents: Vec::new(), silent: Vec::new() };
        // All at once: those that do not answer are waited for together.
        let answers: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> = targets.iter().map(|target| scope.spawn(|| target.ask(get))).collect();
            asking.into_iter().filter_map(|asked| asked.join().expect("asking does not panic")).collect()
        });
        for answer in answers {
            match answer {
                Ok(document) => found.documents.push(document),
                Err(error) => found.silent.push(format!("{error:#}")),
            }
        }
        found
    }

    fn look(args: &Args) -> Result<Found> {
        let targets = targets(args.id.as_deref())?;
        // In full if it is to be shown in full.
        let get = match args.what {
            What::Pools => Get::Pools,
            What::All if args.json || targets.len() == 1 => Get::All,
            What::All => Get::Process,
        };
        let found = Found::ask(&targets, get);
        match (&args.id, found.documents.is_empty(), found.silent.first()) {
            (Some(_), true, Some(error)) => bail!("{error}"),
            (Some(id), true, None) => {
                bail!("no process {id} serves statistics to this user: `pagewire stats` lists those that do")
            }
            _ => Ok(found),
        }
    }
}

/// The processes, or the one that was asked for.
fn targets(id: Option<&str>) -> Result<Vec<Target>> {
    let mut targets = client::targets()?;
    targets.retain(|target| id.is_none_or(|id| target.is(id)));
    Ok(targets)
}

impl Target {
    fn is(&self, id: &str) -> bool {
        self.id == id || self.id.rsplit_once('-').is_some_and(|(_, pid)| pid == id)
    }
}
