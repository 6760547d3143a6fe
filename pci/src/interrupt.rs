//! Interrupts as events that a thread can wait for.

// eventfd(2) and ppoll(2) have no safe wrapper in the standard library.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::InterruptKind;
use crate::space::Opened;
use crate::{Address, Error};

/// One interrupt vector. It counts what has come since it was last read.
///
/// Its descriptor can be waited for with others in poll or epoll; read it with [`try_read`](Interrupt::try_read).
pub struct Interrupt {
    event: File,
    kind: InterruptKind,
    address: Address,
    opened: Arc<Opened>,
}

impl Interrupt {
    pub(crate) fn new(
        address: Address,
        kind: InterruptKind,
        opened: &Arc<Opened>,
    ) -> Result<Interrupt, Error> {
        Ok(Interrupt {
            event: eventfd().map_err(Error::io("making an eventfd"))?,
            kind,
            address,
            opened: opened.clone(),
        })
    }

    /// How many interrupts came since the last look; `None` if there was none.
    pub fn try_read(&self) -> Result<Option<u64>, Error> {
        let mut count = [0; 8];
        match (&self.event).read_exact(&mut count) {
            Ok(()) => Ok(Some(u64::from_ne_bytes(count))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(self.failed("reading")(error)),
        }
    }

    /// Waits until an interrupt comes and says how many did; `None` if none came in time. Without a timeout it waits for
    /// ever. A signal does not end the wait.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<u64>, Error> {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(count) = self.try_read()? {
                return Ok(Some(count));
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            wait_any(&[self.event.as_fd()], left).map_err(self.failed("waiting for"))?;
        }
    }

    /// Lets the line interrupt again after it has fired. Message-signalled interrupts need none of this.
    pub fn unmask(&self) -> Result<(), Error> {
        match self.kind {
            InterruptKind::Intx => self.opened.device().unmask_intx().map_err(self.failed("unmasking")),
            InterruptKind::Msi | InterruptKind::Msix => Ok(()),
        }
    }

    fn failed(&self, what: &str) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("{what} an {} interrupt of {}", self.kind, self.address))
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// An eventfd that does not block.
///
/// # Errors
///
/// Those of eventfd(2).
pub fn eventfd() -> io::Result<File> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, ours alone.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Waits until one of these can be read, the time is up or a signal came; without a time, for ever. Whether one can be read.
///
/// # Errors
///
/// Those of ppoll(2), but for signals.
pub fn wait_any(fds: &[BorrowedFd<'_>], time: Option<Duration>) -> io::Result<bool> {
    let entry = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut entries: Vec<_> = fds.iter().map(entry).collect();
    let time = time.map(|time| libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    let limit = time.as_ref().map_or(std::ptr::null(), |time| &raw const *time);
    let count = entries.len() as libc::nfds_t;
    // SAFETY: as many entries as the count says; the time outlives the call or is none; no signal mask.
    let ready = unsafe { libc::ppoll(entries.as_mut_ptr(), count, limit, std::ptr::null()) };
    if ready >= 0 {
        return Ok(ready > 0);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        error => Err(error),
    }
}
