//! A TAP interface of Linux: the host's network stack is at the other end of the cable.

// ioctl(2) has no safe wrapper in the standard library.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::{Arrival, MAX_FRAME, MIN_FRAME, Wire};

const DEVICE: &str = "/dev/net/tun";

/// Why there is no such wire.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// No interface can have this name.
    #[error("{0:?} is no name of an interface; expected 1 to 15 bytes without blanks and slashes")]
    Name(String),
    /// The kernel's driver is missing.
    #[error("there is no {DEVICE}: run `modprobe tun` as root")]
    NoDriver,
    /// This user may not have it.
    #[error(
        "the interface {0} may not be used by this user: run `ip tuntap add dev {0} mode tap user $USER` as root, \
         and see that {DEVICE} may be opened"
    )]
    Permission(String),
    /// Another program has it.
    #[error("the interface {0} is used by another program; end that one first, or take another name")]
    Busy(String),
    /// It exists, and is of another kind.
    #[error("the interface {0} is no TAP interface of one queue; take another name")]
    Kind(String),
    /// The operating system said no.
    #[error("the interface {name}: {cause}")]
    Io {
        /// The interface.
        name: String,
        /// The answer. Part of the message, hence no `source` that would be printed once more.
        cause: io::Error,
    },
}

/// A wire to the host's network stack. An interface that was not there before goes with it.
///
/// While the host's interface is down what the card sends is lost. While the card's transmitter is off the interface has no
/// carrier.
#[derive(Debug)]
pub struct Tap {
    name: String,
    /// None after an error.
    file: Option<File>,
    buffer: Box<[u8]>,
}

impl Tap {
    /// Takes the interface of this name; if there is none and this user may, makes it.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let bad = |byte: u8| byte == b'/' || byte.is_ascii_whitespace() || byte == 0 || byte == b'%';
        // `struct ifreq`: a name that ends in zero, and here its first word of flags.
        let mut request: libc::ifreq = ifreq();
        if name.is_empty() || name.len() >= request.ifr_name.len() || name.bytes().any(bad) {
            return Err(TapError::Name(name.into()));
        }
        let said = |cause: io::Error| match cause.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDriver,
            Some(libc::EPERM | libc::EACCES) => TapError::Permission(name.into()),
            Some(libc::EBUSY) => TapError::Busy(name.into()),
            Some(libc::EINVAL) => TapError::Kind(name.into()),
            _ => TapError::Io { name: name.into(), cause },
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(said)?;
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request is a whole `struct ifreq` that outlives the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
            return Err(said(io::Error::last_os_error()));
        }
        Ok(Self { name: name.into(), file: Some(file), buffer: vec![0; MAX_FRAME].into() })
    }

    #[cold]
    fn lose(&mut self, why: &io::Error) {
        self.file = None;
        log::warn!("wire: the interface {} is gone: {why}", self.name);
    }
}

/// One without a name.
fn ifreq() -> libc::ifreq {
    // SAFETY: all zeroes is a valid value.
    unsafe { std::mem::zeroed() }
}

impl Wire for Tap {
    fn send(&mut self, frame: &[u8]) -> bool {
        let Some(file) = &mut self.file else { return true };
        match file.write(frame) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => false,
            // Down, or too long or too short for it: lost, as on a cable.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) => {
                true
            }
            Err(error) => {
                self.lose(&error);
                true
            }
            Ok(_) => true,
        }
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        match self.file.as_mut()?.read(&mut self.buffer) {
            Ok(length) => {
                frame.clear();
                frame.extend_from_slice(&self.buffer[..length]);
                frame.resize(length.max(MIN_FRAME), 0);
                Some(Arrival::Good)
            }
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                    self.lose(&error);
                }
                None
            }
        }
    }

    fn carrier(&mut self) -> bool {
        self.file.is_some()
    }

    fn light(&mut self, on: bool) {
        let Some(file) = &self.file else { return };
        let on = libc::c_int::from(on);
        // SAFETY: the argument is an int that outlives the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETCARRIER, &raw const on) } < 0 {
            // A kernel before 5.0.
            log::debug!("carrier of {}: {}", self.name, io::Error::last_os_error());
        }
    }
}
