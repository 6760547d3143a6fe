//! What a process says of itself: the schema, version 1. See docs/statistics.md.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pagewire_pool::{Ages, Life, PoolMonitor, pools};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::door::line;
use crate::l2fwd::PoolReport;

/// Of what is written here. A field that is added is no new version; one that is gone or means something else is.
pub(super) const VERSION: u64 = 1;
/// How often fragments are looked at for how long they have been out. Whether anybody asks makes no difference to a pool's
/// owner, and what is kept of these looks goes back for more than the histogram's last hour.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// What a client asks for: one line of JSON.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) get: Get,
}

/// How much of it.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Get {
    /// Who it is.
    Process,
    /// That, and its pools.
    Pools,
    /// Everything.
    All,
}

/// The answer, one line of JSON.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    version: u64,
    process: Now<'a>,
    #[serde(flatten)]
    snapshot: Option<Aged<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pools: Option<Vec<PoolState>>,
}

/// A process, as it started.
#[derive(Serialize)]
pub(super) struct Process {
    id: String,
    pid: u32,
    command: &'static str,
    /// As they were typed.
    arguments: Vec<String>,
    /// The program's version.
    pagewire: &'static str,
    /// Seconds since 1970.
    started: f64,
    #[serde(skip)]
    start: Instant,
}

#[derive(Serialize)]
struct Now<'a> {
    #[serde(flatten)]
    process: &'a Process,
    /// Since the start.
    uptime: f64,
}

/// What the thread that has the ports said last.
pub(super) struct Snapshot {
    pub(super) taken: Instant,
    /// Seconds since the one before it: what rates are of.
    pub(super) interval: f64,
    pub(super) sections: Map<String, Value>,
}

#[derive(Serialize)]
struct Aged<'a> {
    age: f64,
    interval: f64,
    #[serde(flatten)]
    sections: &'a Map<String, Value>,
}

impl Snapshot {
    fn aged(&self) -> Aged<'_> {
        let Snapshot { taken, interval, sections } = self;
        Aged { age: taken.elapsed().as_secs_f64(), interval: *interval, sections }
    }
}

/// A pool: its counters, and how long its fragments have been out.
#[derive(Serialize)]
struct PoolState {
    #[serde(flatten)]
    report: PoolReport,
    /// `open`, or `orphan`: its owner is gone, fragments of it are not.
    life: &'static str,
    ages: AgesReport,
}

#[derive(Serialize)]
struct AgesReport {
    /// Seconds that divide the histogram.
    bounds: [u64; Ages::BOUNDS.len()],
    /// Fragments out for less than the bound of the same place; the last, for longer than all.
    counts: [u64; Ages::BOUNDS.len() + 1],
    /// Seconds that the oldest has been out.
    oldest: f64,
    /// Seconds since this was found out.
    age: f64,
}

impl Process {
    pub(super) fn new(id: String, command: &'static str) -> Process {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
        Process {
            id,
            pid: std::process::id(),
            command,
            arguments: arguments.collect(),
            pagewire: env!("CARGO_PKG_VERSION"),
            started,
            start: Instant::now(),
        }
    }

    /// The answer to a request, with the end of the line.
    pub(super) fn answer(&self, get: Get, snapshot: Option<&Snapshot>, looks: &mut Looks) -> Vec<u8> {
        let document = Document {
            version: VERSION,
            process: Now { process: self, uptime: self.start.elapsed().as_secs_f64() },
            snapshot: snapshot.filter(|_| get == Get::All).map(Snapshot::aged),
            pools: (get != Get::Process).then(|| looks.pools()),
        };
        line(&document)
    }
}

/// What a client is told whose request makes no sense.
pub(super) fn refusal(error: &str) -> Vec<u8> {
    line(&serde_json::json!({ "version": VERSION, "error": error }))
}

/// When the pools were looked at last, and what was seen.
pub(super) struct Looks {
    last: Instant,
    seen: Vec<(PoolMonitor, Ages, Instant)>,
}

impl Looks {
    pub(super) fn new() -> Looks {
        Looks { last: Instant::now(), seen: Vec::new() }
    }

    /// When it is time for the next.
    pub(super) fn next(&self) -> Instant {
        self.last + LOOK
    }

    /// Look at all of them, if it is time.
    pub(super) fn look(&mut self) {
        if self.next() <= Instant::now() {
            self.last = Instant::now();
            self.seen = pools().into_iter().map(see).collect();
        }
    }

    /// Every pool of the process. One that is new since the last look is looked at now.
    fn pools(&mut self) -> Vec<PoolState> {
        let mut states = Vec::new();
        for pool in pools() {
            let known = self.seen.iter().position(|(seen, ..)| seen.is_same(&pool));
            let index = known.unwrap_or_else(|| {
                self.seen.push(see(pool.clone()));
                self.seen.len() - 1
            });
            let (_, ages, when) = &self.seen[index];
            states.push(PoolState {
                report: PoolReport::new(&pool),
                life: if pool.life() == Life::Orphan { "orphan" } else { "open" },
                ages: AgesReport {
                    bounds: Ages::BOUNDS.map(|bound| bound.as_secs()),
                    counts: ages.counts,
                    oldest: ages.oldest.as_secs_f64(),
                    age: when.elapsed().as_secs_f64(),
                },
            });
        }
        states
    }
}

fn see(pool: PoolMonitor) -> (PoolMonitor, Ages, Instant) {
    let ages = pool.ages();
    (pool, ages, Instant::now())
}
