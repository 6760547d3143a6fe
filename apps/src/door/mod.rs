//! A UNIX socket at which a process answers requests, each a line, each answer a line.
//!
//! A thread of its own talks to clients, none of which it waits for. What it answers is a [`Service`]'s.

mod connection;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pagewire_pci::vfio_user::Listener;
use pagewire_pci::vfio_user::transport::peer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::geteuid;

use connection::{Connection, Wants};

use crate::run::happened;

/// Clients at one time. Others wait until one of these is done, or out of time.
const CLIENTS: usize = 32;
/// How often to look whether there is an answer, while somebody waits.
const GLANCE: Duration = Duration::from_millis(5);
/// How long nobody is let in after that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// When there is nothing else to wait for.
const SELDOM: Duration = Duration::from_secs(60);

/// An answer: a document and the end of the line.
pub(crate) fn line(document: &impl serde::Serialize) -> Vec<u8> {
    // Numbers, strings and objects with names: there is nothing that could not be written.
    let mut text = serde_json::to_vec(document).unwrap_or_default();
    text.push(b'\n');
    text
}

/// What is answered at a socket.
pub(crate) trait Service: Send + 'static {
    /// A request that makes sense.
    type Request: Send;
    /// What clients get there, for messages.
    const WHAT: &'static str;
    /// Whether a client may ask one thing after the other; else it is sent away after one answer.
    const MANY: bool;

    /// What a line asks for, or what is wrong with it.
    fn understand(&self, line: &[u8]) -> Result<Self::Request, String>;

    /// The answer to what cannot be understood, with the end of the line.
    fn refusal(&self, error: &str) -> Vec<u8>;

    /// The answer to what was asked for at a moment, with the end of the line. None if it is not there yet: it is asked for again soon.
    fn answer(&mut self, request: &mut Self::Request, since: Instant) -> Option<Vec<u8>>;

    /// What else is to be done now and then. Returns when the next time is.
    fn tend(&mut self) -> Option<Instant> {
        None
    }
}

/// Serves until it is dropped.
pub(crate) struct Serving {
    /// Its end is that of the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    what: &'static str,
}

impl Serving {
    /// Begin to serve at a path, which only this user and root may use.
    ///
    /// # Errors
    ///
    /// A path that is in use, or where there can be no socket.
    pub(crate) fn start<S: Service>(path: &Path, service: S) -> Result<Serving> {
        let listener = Listener::bind(path)?;
        // Nobody else is let in meanwhile, by `open`.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
            .with_context(|| format!("closing {} to others", path.display()))?;
        let (stop, stopped) = UnixStream::pair()?;
        let door = Door { listener, stopped, service, connections: Vec::new(), closed_until: None };
        let thread = std::thread::Builder::new().name(S::WHAT.into()).spawn(move || door.run())?;
        Ok(Serving { stop: Some(stop), thread: Some(thread), what: S::WHAT })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that serves {} has ended by a bug", self.what);
        }
    }
}

/// What the thread has.
struct Door<S: Service> {
    listener: Listener,
    stopped: UnixStream,
    service: S,
    connections: Vec<Connection<S::Request>>,
    closed_until: Option<Instant>,
}

impl<S: Service> Door<S> {
    fn run(mut self) {
        loop {
            let next = self.service.tend();
            let now = Instant::now();
            self.closed_until = self.closed_until.filter(|until| *until > now);
            // With nobody at the door there is no need for room.
            let full = self.connections.len() >= CLIENTS && self.is_knocked();
            let listens = self.closed_until.is_none() && !full;
            let ready = self.wait(listens, full, next, now).unwrap_or_else(|error| {
                log::warn!("waiting for who wants {}: {error}", S::WHAT);
                std::thread::sleep(PAUSE);
                Vec::new()
            });
            let is_ready = |index: usize| ready.get(index).copied().unwrap_or(false);
            if is_ready(0) {
                // What is answered by now, such as who asked for the end, is to be heard.
                std::mem::take(&mut self.connections)
                    .iter_mut()
                    .for_each(|connection| self.serve(connection));
                return;
            }
            for (number, mut connection) in std::mem::take(&mut self.connections).into_iter().enumerate() {
                if is_ready(1 + number) {
                    connection.go_on();
                }
                self.serve(&mut connection);
                if !connection.is_over(full) {
                    self.connections.push(connection);
                }
            }
            if listens && self.connections.len() < CLIENTS && is_ready(ready.len().saturating_sub(1)) {
                self.open();
            }
        }
    }

    /// Waits for something to do. What is ready: the end, connections in order, the listener if it `listens`.
    fn wait(&self, listens: bool, full: bool, next: Option<Instant>, now: Instant) -> io::Result<Vec<bool>> {
        let glance = self.connections.iter().any(Connection::waits).then(|| now + GLANCE);
        let times = self.connections.iter().filter_map(|connection| connection.until(full));
        let until = times.chain(self.closed_until).chain(glance).chain(next).min().unwrap_or(now + SELDOM);
        // Rounded up: not to look just before it is time.
        let left = until.saturating_duration_since(now) + Duration::from_millis(1);
        let timeout = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        fds.extend(self.connections.iter().map(|connection| {
            let flags = match connection.wants() {
                Wants::Read => PollFlags::IN,
                Wants::Write => PollFlags::OUT,
                Wants::Nothing => PollFlags::empty(),
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

    /// Whether somebody waits to be let in.
    fn is_knocked(&self) -> bool {
        !happened(self.listener.as_fd(), PollFlags::IN).is_empty()
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
                log::warn!("process {} of user {} may not have {}", who.pid, who.uid, S::WHAT);
            }
            Ok((socket, _)) => self.connections.push(Connection::new(socket, S::MANY)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::warn!("accepting at {}: {error}", self.listener.path().display());
                self.closed_until = Some(Instant::now() + PAUSE);
            }
        }
    }

    /// Answers who has asked, if what it asks for is there, and what it asked behind that.
    fn serve(&mut self, connection: &mut Connection<S::Request>) {
        loop {
            if let Some(line) = connection.line() {
                match line.and_then(|line| self.service.understand(&line)) {
                    Ok(request) => connection.ask(request),
                    Err(error) => connection.answer(self.service.refusal(&error)),
                }
            } else if let Some((request, since)) = connection.request() {
                let Some(document) = self.service.answer(request, since) else { return };
                connection.answer(document);
            } else {
                return;
            }
        }
    }
}
