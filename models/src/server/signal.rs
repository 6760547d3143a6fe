//! Signalling eventfds that are a client's.

// io_setup(2) and its siblings have no safe wrapper.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `aio_flags`: `aio_resfd` is an eventfd (linux/aio_abi.h).
const WITH_EVENTFD: u32 = 1;

/// Signals eventfds as the kernel does: without waiting.
///
/// A write(2) would wait where the counter is full, unless the descriptor is set not to; but that is a property of the open
/// file, which the client shares, may rely on, and may change between a look at it and the write. The kernel signals the
/// eventfd of an asynchronous read that ends, and never waits for its counter: here that is an empty read of /dev/null.
pub(crate) struct Signaller {
    context: libc::c_ulong,
    null: File,
}

impl Signaller {
    /// Asks the kernel for it.
    pub(crate) fn new() -> io::Result<Signaller> {
        let null = File::open("/dev/null")?;
        let mut context = 0;
        // SAFETY: the context is written before the call returns.
        checked(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) })?;
        Ok(Signaller { context, null })
    }

    /// Adds one to an eventfd's counter, unless that is full.
    pub(crate) fn signal(&self, event: &File) -> io::Result<()> {
        // SAFETY: a struct of integers.
        let mut read: libc::iocb = unsafe { std::mem::zeroed() };
        read.aio_fildes = self.null.as_raw_fd() as u32;
        read.aio_flags = WITH_EVENTFD;
        read.aio_resfd = event.as_raw_fd() as u32;
        let reads = [&raw mut read];
        // SAFETY: one request, as the count says, of no bytes; it is copied before the call returns.
        checked(unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1, reads.as_ptr()) })?;
        // It has ended already. The context has room for few ends: take it.
        let mut end = [0u64; 4];
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: room for one event, which is four words; the time outlives the call.
        let taken = unsafe {
            libc::syscall(libc::SYS_io_getevents, self.context, 0, 1, end.as_mut_ptr(), &raw const now)
        };
        checked(taken)
    }
}

impl Drop for Signaller {
    fn drop(&mut self) {
        // SAFETY: the context is this one's, and no request is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::FromRawFd;

    /// It would wait for ever if a full counter were waited for: a descriptor that blocks, as a client's may.
    #[test]
    fn a_full_counter_is_not_waited_for() {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: a new descriptor, ours alone.
        let mut event = unsafe { File::from_raw_fd(fd) };
        let signaller = Signaller::new().unwrap();
        let mut count = [0; 8];
        for _ in 0..500 {
            signaller.signal(&event).unwrap();
        }
        event.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 500);
        event.write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
        for _ in 0..3 {
            signaller.signal(&event).unwrap();
        }
        event.read_exact(&mut count).unwrap();
        assert!(u64::from_ne_bytes(count) >= u64::MAX - 1);
        signaller.signal(&event).unwrap();
        event.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}
