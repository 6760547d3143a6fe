//! Sleeping, and waking who sleeps.
//!
//! What wakes a process that is not trusted is a byte on a socket pair and not an eventfd: whether an eventfd blocks is a
//! property that both processes can change, and who fills its counter and makes it block stops the other end's next write for
//! ever. A send that must not wait says so itself. Eventfds are for the threads of one process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// When so much time will have passed: decades at most, which stand for ever.
pub(super) fn after(within: Duration) -> Instant {
    Instant::now() + within.min(Duration::from_secs(1 << 30))
}

/// Wakes a thread of this process.
pub(super) struct Event(OwnedFd);

impl Event {
    pub(super) fn new() -> io::Result<Event> {
        Ok(Event(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn set(&self) {
        // An error means that the counter is full, and so that it is set.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn clear(&self) {
        // An error means that it was not set.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wakes the process at the other end of a socket.
pub(super) fn poke(socket: impl AsFd) {
    // Full: bytes enough wait there. Closed: that is noticed elsewhere.
    let _ = send(socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// Takes what is there of such bytes, within bounds. `false` if the other end is closed.
pub(super) fn drain(socket: impl AsFd) -> bool {
    match recv(socket, &mut [0; 64], RecvFlags::DONTWAIT) {
        Ok((_, 0)) => false,
        Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
        Ok(_) => true,
    }
}

/// Waits until one of these can be read or is closed, the time is up, or a signal came; says for each whether it is the first.
pub(super) fn wait(fds: &[BorrowedFd<'_>], until: Option<Instant>) -> io::Result<Vec<bool>> {
    wait_for(fds, &[], until)
}

/// The same, or until one of `full` has room; says nothing of those.
pub(super) fn wait_for(
    fds: &[BorrowedFd<'_>],
    full: &[BorrowedFd<'_>],
    until: Option<Instant>,
) -> io::Result<Vec<bool>> {
    let read = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
    let written = full.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::OUT));
    let mut polled: Vec<_> = read.chain(written).collect();
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.map(|left: Duration| Timespec {
        tv_sec: left.as_secs() as i64,
        tv_nsec: left.subsec_nanos().into(),
    });
    match poll(&mut polled, left.as_ref()) {
        Ok(_) => Ok(polled[..fds.len()].iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}
