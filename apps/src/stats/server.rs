//! The end of the socket that is in the process that is watched.
//!
//! A thread of its own talks to clients, none of which it waits for. What ports count is read by the thread that has them,
//! when it next looks and no more often than [`FRESH`] says, however many ask; nobody else is asked for anything.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pagewire_pci::vfio_user::Listener;
use pagewire_pci::vfio_user::transport::peer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::geteuid;
use serde::Serialize;
use serde_json::{Map, Value};

use super::connection::{Connection, Wants};
use super::document::{Get, Looks, Process, Snapshot};
use super::{client, place};

/// Clients at one time. Others wait until one of these is done, or out of time.
const CLIENTS: usize = 32;
/// What was read from ports so recently is not read again.
const FRESH: Duration = Duration::from_millis(100);
/// How long the thread that has the ports is waited for. It may be at a device that does not answer: then what it said last
/// has to do.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often to look whether it has said something, while somebody waits.
const GLANCE: Duration = Duration::from_millis(5);
/// How long nobody is let in after that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves this process's statistics until it is dropped. Failing that the process runs without, and says so.
pub(crate) struct Statistics {
    served: Option<Served>,
}

struct Served {
    shared: Arc<Shared>,
    /// Its end is that of the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
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
        let listener = Listener::bind(&place::socket(&folder, &id))?;
        // The folder lets nobody else in meanwhile.
        std::fs::set_permissions(listener.path(), PermissionsExt::from_mode(0o600))
            .with_context(|| format!("closing {} to others", listener.path().display()))?;
        let (stop, stopped) = UnixStream::pair()?;
        let shared = Arc::new(Shared::default());
        let door = Door {
            listener,
            stopped,
            shared: shared.clone(),
            process: Process::new(id, command),
            looks: Looks::new(),
            connections: Vec::new(),
            closed_until: None,
        };
        let thread = std::thread::Builder::new().name("statistics".into()).spawn(move || door.run())?;
        Ok(Served { shared, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that serves statistics has ended by a bug");
        }
    }
}

/// What the thread has.
struct Door {
    listener: Listener,
    stopped: UnixStream,
    shared: Arc<Shared>,
    process: Process,
    looks: Looks,
    connections: Vec<Connection>,
    closed_until: Option<Instant>,
}

impl Door {
    fn run(mut self) {
        loop {
            self.looks.look();
            let now = Instant::now();
            self.closed_until = self.closed_until.filter(|until| *until > now);
            let listens = self.closed_until.is_none() && self.connections.len() < CLIENTS;
            let ready = self.wait(listens, now).unwrap_or_else(|error| {
                log::warn!("waiting for who wants statistics: {error}");
                std::thread::sleep(PAUSE);
                Vec::new()
            });
            let is_ready = |index: usize| ready.get(index).copied().unwrap_or(false);
            if is_ready(0) {
                return;
            }
            for (number, mut connection) in std::mem::take(&mut self.connections).into_iter().enumerate() {
                if is_ready(1 + number) {
                    connection.go_on();
                }
                self.answer(&mut connection);
                if !connection.is_over() {
                    self.connections.push(connection);
                }
            }
            if listens && is_ready(ready.len().saturating_sub(1)) {
                self.open();
            }
        }
    }

    /// Waits for something to do. What is ready: the end, connections in order, the listener if it `listens`.
    fn wait(&self, listens: bool, now: Instant) -> io::Result<Vec<bool>> {
        let glance = self.connections.iter().any(Connection::waits).then(|| now + GLANCE);
        let times = self.connections.iter().map(Connection::until).chain(self.closed_until).chain(glance);
        let until = times.chain([self.looks.next()]).min().unwrap_or(now);
        // Rounded up: not to look just before it is time.
        let left = until.saturating_duration_since(now) + Duration::from_millis(1);
        let timeout = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        fds.extend(self.connections.iter().map(|connection| {
            let flags = match connection.wants() {
                Wants::Read => PollFlags::IN,
                Wants::Write => PollFlags::OUT,
                Wants::Snapshot(..) => PollFlags::empty(),
            };
            PollFd::from_borrowed_fd(connection.as_fd(), flags)
        }));
        if listens {
            fds.push(PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets in who knocks, if it is somebody who may.
    fn open(&mut self) {
        let come = self.listener.accept().and_then(|socket| {
            socket.set_nonblocking(true)?;
            let who = peer(&socket)?;
            Ok((socket, who))
        });
        match come {
            Ok((_, who)) if who.uid != 0 && who.uid != geteuid().as_raw() => {
                log::warn!("process {} of user {} may not have statistics", who.pid, who.uid);
            }
            Ok((socket, _)) => self.connections.push(Connection::new(socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::warn!("accepting at {}: {error}", self.listener.path().display());
                self.closed_until = Some(Instant::now() + PAUSE);
            }
        }
    }

    /// Answers who has asked, if what it asks for is there.
    fn answer(&mut self, connection: &mut Connection) {
        let Wants::Snapshot(get, since) = connection.wants() else { return };
        let latest = self.shared.snapshot();
        let fresh = latest.as_ref().is_some_and(|snapshot| snapshot.taken + FRESH >= since);
        if get == Get::All && !fresh && since.elapsed() < PATIENCE {
            // Under the lock, under which it is taken back.
            return self.shared.wanted.store(true, Ordering::Relaxed);
        }
        let snapshot = latest.clone();
        drop(latest);
        connection.answer(self.process.answer(get, snapshot.as_deref(), &mut self.looks));
    }
}
