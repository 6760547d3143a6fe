//! The end of the socket that is in the process that is watched.
//!
//! A thread of its own talks to clients, none of which it waits for. What ports count is read by the thread that has them,
//! when it next looks and no more often than [`FRESH`] says, however many ask; nobody else is asked for anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value};

use super::document::{Get, Looks, Process, Request, Snapshot, refusal};
use super::{client, place};
use crate::door::{Service, Serving};

/// What was read from ports so recently is not read again.
const FRESH: Duration = Duration::from_millis(100);
/// How long the thread that has the ports is waited for. It may be at a device that does not answer: then what it said last
/// has to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves this process's statistics until it is dropped. Failing that the process runs without, and says so.
pub(crate) struct Statistics {
    served: Option<Served>,
}

struct Served {
    shared: Arc<Shared>,
    _serving: Serving,
}

#[derive(Default)]
struct Shared {
    /// Somebody wants to know what ports count.
    wanted: AtomicBool,
    snapshot: Mutex<Option<Arc<Snapshot>>>,
}

impl Shared {
    fn snapshot(&self) -> MutexGuard<'_, Option<Arc<Snapshot>>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Statistics {
    /// Begin to serve.
    pub(crate) fn serve(command: &'static str) -> Statistics {
        let served = Served::start(command);
        if let Err(error) = &served {
            log::warn!("no statistics are served to `pagewire stats`: {error:#}");
        }
        Statistics { served: served.ok() }
    }

    /// To be called now and then by the thread that has the ports: reads them if somebody asks. What `read` gives becomes part
    /// of the document: an object, with the `seconds` since the start at which it was read.
    pub(crate) fn tick<T: Serialize>(&self, read: impl FnOnce() -> T) {
        let Some(Served { shared, .. }) = &self.served else { return };
        if !shared.wanted.load(Ordering::Relaxed) {
            return;
        }
        let sections = match serde_json::to_value(read()) {
            Ok(Value::Object(sections)) => sections,
            other => return log::error!("statistics that are no object: {other:?}"),
        };
        // By the clock that rates are made with.
        let seconds =
            |sections: &Map<String, Value>| sections.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
        let mut snapshot = shared.snapshot();
        let before = snapshot.as_ref().map_or(0.0, |before| seconds(&before.sections));
        let interval = seconds(&sections) - before;
        *snapshot = Some(Arc::new(Snapshot { taken: Instant::now(), interval, sections }));
        // Only now: who asked meanwhile has what there is to have.
        shared.wanted.store(false, Ordering::Relaxed);
    }
}

impl Served {
    fn start(command: &'static str) -> Result<Served> {
        let folder = place::own()?;
        client::clean(&folder);
        let id = place::id(command, std::process::id());
        let socket = place::socket(&folder, &id);
        let shared = Arc::new(Shared::default());
        let answers =
            Answers { shared: shared.clone(), process: Process::new(id, command), looks: Looks::new() };
        Ok(Served { shared, _serving: Serving::start(&socket, answers)? })
    }
}

/// What it answers.
struct Answers {
    shared: Arc<Shared>,
    process: Process,
    looks: Looks,
}

impl Service for Answers {
    type Request = Get;
    const WHAT: &'static str = "statistics";
    const MANY: bool = false;

    fn understand(&self, line: &[u8]) -> Result<Get, String> {
        serde_json::from_slice::<Request>(line).map(|Request { get }| get).map_err(|error| {
            format!(
                "a request that is not {{\"get\":\"process\"}}, pools or all in place of process: {error}"
            )
        })
    }

    fn refusal(&self, error: &str) -> Vec<u8> {
        refusal(error)
    }

    fn answer(&mut self, get: &mut Get, since: Instant) -> Option<Vec<u8>> {
        let latest = self.shared.snapshot();
        let fresh = latest.as_ref().is_some_and(|snapshot| snapshot.taken + FRESH >= since);
        if *get == Get::All && !fresh && since.elapsed() < PATIENCE {
            // Under the lock, under which it is taken back.
            self.shared.wanted.store(true, Ordering::Relaxed);
            return None;
        }
        let snapshot = latest.clone();
        drop(latest);
        Some(self.process.answer(*get, snapshot.as_deref(), &mut self.looks))
    }

    /// Pools are looked at whether anybody asks or not.
    fn tend(&mut self) -> Option<Instant> {
        self.looks.look();
        Some(self.looks.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_line_of_what_there_is() {
        let process = Process::new("id".into(), "test");
        let answers = Answers { shared: Arc::default(), process, looks: Looks::new() };
        assert_eq!(answers.understand(b"{\"get\":\"all\"}\n"), Ok(Get::All));
        assert_eq!(answers.understand(b" {\"get\": \"pools\"} \n"), Ok(Get::Pools));
        let nested = [b'['; 1000];
        for garbage in [
            &b"\n"[..],
            b"\0\xff\n",
            b"{}\n",
            b"[]\n",
            b"{\"get\":\"none\"}\n",
            b"{\"get\":\"all\",\"set\":1}\n",
            b"GET / HTTP/1.1\r\n",
            &nested,
        ] {
            let error = answers.understand(garbage).expect_err("it is refused");
            assert!(error.starts_with("a request that is not "), "{error}");
        }
    }
}
