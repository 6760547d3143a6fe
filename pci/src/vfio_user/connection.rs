//! A connection to a server: one command at a time, and what is wrong with the answer.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::transport::{Broken, Channel, Wait};
use super::wire::{self, Command, Header, Limits, Malformed, Version};

/// A command that a vfio-user server did not carry out.
#[derive(Debug, thiserror::Error)]
#[error("{command} to the vfio-user server at {socket}: {cause}", socket = socket.display())]
pub struct VfioUserError {
    /// The server's socket.
    pub socket: PathBuf,
    /// What was asked of it.
    pub command: Command,
    /// What became of that.
    pub cause: VfioUserCause,
}

/// What became of a command to a vfio-user server. All but `Refused` end the connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfioUserCause {
    /// The server said no.
    #[error("refused: {0}")]
    Refused(io::Error),
    /// There was no answer, or none that makes sense.
    #[error(
        "{0}; the connection is closed: start the server again if it has ended, then open the function anew"
    )]
    Broken(#[from] Broken),
    /// The connection ended before, and why was said then.
    #[error("the connection was closed after an earlier error")]
    Closed,
}

impl From<Malformed> for VfioUserCause {
    fn from(malformed: Malformed) -> VfioUserCause {
        VfioUserCause::Broken(malformed.into())
    }
}

impl From<VfioUserError> for io::Error {
    fn from(error: VfioUserError) -> io::Error {
        let kind = match &error.cause {
            VfioUserCause::Refused(answer) => answer.kind(),
            VfioUserCause::Broken(Broken::TimedOut(_)) => io::ErrorKind::TimedOut,
            VfioUserCause::Broken(Broken::Malformed(_)) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, error)
    }
}

/// What the server may send of its own between a command and its reply. It has no reason to: see [`Connection::request`].
const MOST_INTERJECTIONS: usize = 64;

pub(super) struct Connection {
    path: PathBuf,
    timeout: Duration,
    limits: Limits,
    /// Something went wrong with the stream: nothing is sent any more.
    dead: AtomicBool,
    line: Mutex<Line>,
}

struct Line {
    channel: Channel,
    next_id: u16,
    /// The body received last. Kept for its memory.
    body: Vec<u8>,
}

impl Connection {
    /// Connects, and agrees on a version.
    pub(super) fn open(path: &Path, timeout: Duration) -> Result<Connection, VfioUserError> {
        let failed = |cause| VfioUserError { socket: path.into(), command: Command::Version, cause };
        let channel = Channel::connect(path, timeout).map_err(|error| failed(Broken::Io(error).into()))?;
        let line = Mutex::new(Line { channel, next_id: 0, body: Vec::new() });
        let mut connection = Connection {
            path: path.into(),
            timeout,
            limits: wire::OWN_LIMITS,
            dead: AtomicBool::new(false),
            line,
        };
        let ours = Version { major: wire::MAJOR, minor: wire::MINOR };
        let body: [&[u8]; 2] = [&ours.encode(), &wire::OWN_LIMITS.encode()];
        connection.limits = connection.request(Command::Version, &body, &[], |body, _| {
            let (theirs, capabilities) = Version::decode(body)?;
            if theirs.major != ours.major || theirs.minor > ours.minor {
                let found = u64::from(theirs.major) << 16 | u64::from(theirs.minor);
                return Err(Malformed::field("version", found, format_args!("at most 0.{}", ours.minor)));
            }
            Limits::decode(capabilities)
        })?;
        Ok(connection)
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether the connection ended with an error.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Sends a command and lets `read` make sense of the reply's body and the descriptors that came along, which are closed
    /// unless it keeps them.
    ///
    /// A server may ask for memory that it was not handed as a file. All of ours is, so such a request is answered with a
    /// refusal.
    pub(super) fn request<T>(
        &self,
        command: Command,
        body: &[&[u8]],
        fds: &[BorrowedFd<'_>],
        read: impl FnOnce(&[u8], Vec<OwnedFd>) -> Result<T, Malformed>,
    ) -> Result<T, VfioUserError> {
        // What a panic leaves half-done is a stream out of step, which shows in the id of the next reply.
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let fail = |cause| VfioUserError { socket: self.path.clone(), command, cause };
        if self.is_dead() {
            return Err(fail(VfioUserCause::Closed));
        }
        line.exchange(command, body, fds, self.timeout, read).map_err(|cause| {
            let error = fail(cause);
            if !matches!(error.cause, VfioUserCause::Refused(_)) {
                self.dead.store(true, Ordering::Relaxed);
                line.channel.shutdown();
                // The first of them is the one that tells; a driver that only reads registers sees no error.
                log::error!("{error}");
            }
            error
        })
    }
}

impl Line {
    fn exchange<T>(
        &mut self,
        command: Command,
        body: &[&[u8]],
        fds: &[BorrowedFd<'_>],
        timeout: Duration,
        read: impl FnOnce(&[u8], Vec<OwnedFd>) -> Result<T, Malformed>,
    ) -> Result<T, VfioUserCause> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let deadline = Instant::now() + timeout;
        let header = Header { id, command: command as u16, ..Header::default() };
        self.channel.send(header, body, fds)?;
        for _ in 0..MOST_INTERJECTIONS {
            let left = deadline.saturating_duration_since(Instant::now());
            let (reply, fds) = self
                .channel
                .receive(&mut self.body, Wait::All(left))
                .map_err(|error| match error {
                    Broken::TimedOut(_) => Broken::TimedOut(timeout),
                    error => error,
                })?
                .ok_or(Broken::TimedOut(timeout))?;
            if !reply.is_reply() {
                if reply.flags & wire::NO_REPLY == 0 {
                    let flags = wire::REPLY | wire::ERROR;
                    let refusal = Header { flags, error: libc::ENOTSUP as u32, ..reply };
                    self.channel.send(refusal, &[], &[])?;
                }
                continue;
            }
            if reply.id != id {
                return Err(Malformed::field("number of the message replied to", reply.id, id).into());
            }
            if reply.command != command as u16 {
                return Err(Malformed::field("command replied to", reply.command, command as u16).into());
            }
            if reply.flags & wire::ERROR != 0 {
                // 0 is allowed, and tells nothing.
                let errno = i32::try_from(reply.error).ok().filter(|&errno| errno > 0).unwrap_or(libc::EIO);
                return Err(VfioUserCause::Refused(io::Error::from_raw_os_error(errno)));
            }
            return Ok(read(&self.body, fds)?);
        }
        Err(Malformed::field("commands instead of a reply", MOST_INTERJECTIONS as u64, "none").into())
    }
}
