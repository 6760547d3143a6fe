//! Whole messages over a UNIX socket, with the file descriptors that come along.
//!
//! A message is received in two steps, header and body, because descriptors belong to the message whose first byte they
//! arrive with: reading further than one message would mix them up.

// Descriptors travel in control messages, which are laid out by hand.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::wire::{HEADER_LEN, Header, MAX_FDS, Malformed};

/// Why a message could not be sent or received. The stream is in an unknown state then: close it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Broken {
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer sent {0}")]
    Malformed(#[from] Malformed),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How long to wait for a message.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// All of it has to be there in this time.
    All(Duration),
    /// Not at all for its first byte. All the others have to be there in this time after it.
    Rest(Duration),
}

/// The process at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number; 0 if it is in a PID namespace that this process does not see.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
}

/// Connects to a socket whose server is waited for no longer than `timeout` if it does not accept; later each write has this
/// time too.
pub fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor of a UNIX socket, ours alone.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // Also bounds connect(2), which waits where the server's queue is full.
    socket.set_write_timeout(Some(timeout))?;
    // SAFETY: all zeroes is an address, the one without a name.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = path.as_os_str().as_bytes();
    // One byte stays zero: the end of the name.
    if name.is_empty() || name.len() >= address.sun_path.len() || name.contains(&0) {
        let longest = address.sun_path.len() - 1;
        let why = format!("a socket's path has 1 to {longest} bytes, this one {}", name.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address outlives the call and has that length.
    if unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Who connected, as the kernel knew it then.
///
/// Not by rustix 1.1.6, whose process number cannot be 0, and is when the peer's PID namespace is not seen from here.
pub fn peer(socket: &UnixStream) -> io::Result<Peer> {
    let mut about = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: the kernel writes no more than `len` bytes into `about`, which outlives the call.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut about).cast(), &raw mut len) };
    match done {
        0 => Ok(Peer { pid: about.pid, uid: about.uid }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A message that is being sent as there is room for it.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl Outgoing {
    /// The header's size is filled in. Descriptors go with the first byte.
    pub fn new(header: Header, body: &[&[u8]], fds: Vec<OwnedFd>) -> Outgoing {
        Outgoing { bytes: encode(header, body), sent: 0, fds }
    }
}

fn encode(header: Header, body: &[&[u8]]) -> Vec<u8> {
    let size = HEADER_LEN + body.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(size);
    bytes.extend(Header { size: size as u32, ..header }.encode());
    body.iter().for_each(|part| bytes.extend(*part));
    bytes
}

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    /// For each send.
    timeout: Duration,
}

impl Channel {
    /// Connects to a server. A server that does not accept is waited for no longer than `timeout`; later each send has this
    /// time too.
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<Channel> {
        Ok(Channel { socket: connect(path, timeout)?, timeout })
    }

    /// Takes a connection that a server accepted. Each send has `timeout`.
    pub fn accepted(socket: UnixStream, timeout: Duration) -> io::Result<Channel> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(timeout))?;
        Ok(Channel { socket, timeout })
    }

    /// Who connected: see [`peer`].
    pub fn peer(&self) -> io::Result<Peer> {
        peer(&self.socket)
    }

    /// Sends a message. The header's size is filled in. Descriptors go with its first byte.
    pub fn send(&self, header: Header, body: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<(), Broken> {
        let bytes = encode(header, body);
        // For all of it: a peer that takes a little now and then is waited for no longer.
        let mut deadline = None;
        let mut sent = 0;
        while !self.push(&bytes, &mut sent, fds)? {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.timeout);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !ready(&self.socket, libc::POLLOUT, left)? {
                return Err(Broken::TimedOut(self.timeout));
            }
        }
        Ok(())
    }

    /// Sends as much of a message as there is room for, and waits for nothing. Says whether that was the last of it.
    pub fn send_part(&self, message: &mut Outgoing) -> Result<bool, Broken> {
        let fds: Vec<_> = message.fds.iter().map(OwnedFd::as_fd).collect();
        self.push(&message.bytes, &mut message.sent, &fds)
    }

    /// Sends what there is room for of a message of which so much is `sent`.
    fn push(&self, bytes: &[u8], sent: &mut usize, fds: &[BorrowedFd<'_>]) -> Result<bool, Broken> {
        while *sent < bytes.len() {
            let first = if *sent == 0 { fds } else { &[] };
            match send_some(&self.socket, &bytes[*sent..], first) {
                Ok(0) => return Err(Broken::Closed),
                Ok(some) => *sent += some,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Ok(false),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => return Err(Broken::Closed),
                    _ => return Err(Broken::Io(error)),
                },
            }
        }
        Ok(true)
    }

    /// Receives a message: its body into `body`, whose old content goes. `None` if there is none and that is not waited for.
    /// No more than [`MAX_MESSAGE`](super::wire::MAX_MESSAGE) bytes are taken, and no more than [`MAX_FDS`] descriptors;
    /// what the caller does not keep of them is closed.
    pub fn receive(&self, body: &mut Vec<u8>, wait: Wait) -> Result<Option<(Header, Vec<OwnedFd>)>, Broken> {
        let mut fds = Vec::new();
        let mut header = [0; HEADER_LEN];
        let (mut deadline, timeout) = match wait {
            Wait::All(timeout) => (Some(Instant::now() + timeout), timeout),
            Wait::Rest(timeout) => (None, timeout),
        };
        let mut fill = |into: &mut [u8], mut filled: usize| {
            while filled < into.len() {
                match receive_some(&self.socket, &mut into[filled..], &mut fds) {
                    Ok(0) => return Err(Broken::Closed),
                    Ok(some) => filled += some,
                    Err(Broken::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(Broken::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                        let Some(deadline) = deadline else { return Ok(false) };
                        let left = deadline.saturating_duration_since(Instant::now());
                        if left.is_zero() || !ready(&self.socket, libc::POLLIN, left)? {
                            return Err(Broken::TimedOut(timeout));
                        }
                    }
                    Err(error) => return Err(error),
                }
                deadline.get_or_insert_with(|| Instant::now() + timeout);
            }
            Ok(true)
        };
        if !fill(&mut header, 0)? {
            return Ok(None);
        }
        let (header, _) = Header::decode(&header)?;
        let header = header.check()?;
        let len = header.size as usize - HEADER_LEN;
        body.clear();
        body.reserve_exact(len);
        body.resize(len, 0);
        // The first byte is there, so the rest is waited for.
        fill(body, 0)?;
        if fds.len() > MAX_FDS {
            return Err(Malformed::Descriptors { fds: fds.len(), expected: MAX_FDS }.into());
        }
        Ok(Some((header, fds)))
    }

    /// Ends the connection, for both ends.
    pub fn shutdown(&self) {
        // An error means that it has ended already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for the control message of [`MAX_FDS`] descriptors, aligned as one has to be.
#[repr(C)]
union Control {
    _align: libc::cmsghdr,
    bytes: [MaybeUninit<u8>; CONTROL_LEN],
}

// SAFETY: the macro's function computes a number.
const CONTROL_LEN: usize = unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<i32>()) as u32) } as usize;

/// Sends what there is room for, without waiting.
fn send_some(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more descriptors than fit a message"));
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control { bytes: [MaybeUninit::zeroed(); CONTROL_LEN] };
    // SAFETY: all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let data = size_of_val(fds) as u32;
        message.msg_control = (&raw mut control).cast();
        // SAFETY: computes a number. `fds` is at most `MAX_FDS`, for which `control` has room, and a `BorrowedFd` is an i32.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(data) } as usize;
        // SAFETY: there is room for one header and its data, by the length just set.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(data) as usize;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(fds.as_ptr().cast(), data as usize);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message points at live memory of the lengths it gives; sending only reads it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives what there is, without waiting, and adds the descriptors that came along to `fds`.
fn receive_some(socket: &UnixStream, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Broken> {
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut control = Control { bytes: [MaybeUninit::zeroed(); CONTROL_LEN] };
    // SAFETY: all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL_LEN;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points at live memory of the lengths it gives, which nobody else uses during the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let received = usize::try_from(received).map_err(|_| {
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::ConnectionReset => Broken::Closed,
            _ => Broken::Io(error),
        }
    })?;
    // SAFETY: the kernel filled the control messages in, and set their length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: not null, so a control message that the kernel wrote into `control`.
        let (level, kind, len) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len as usize) };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: computes a number.
            let count = (len - unsafe { libc::CMSG_LEN(0) } as usize) / size_of::<i32>();
            for number in 0..count {
                // SAFETY: `count` descriptors follow the header, by its length; they are new, and ours alone.
                let fd = unsafe {
                    OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<i32>().add(number).read_unaligned())
                };
                fds.push(fd);
            }
        }
        // SAFETY: `message` and `header` are as the kernel left them.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        // Those that did not fit were never made. How many those were nobody says.
        return Err(Malformed::Descriptors { fds: fds.len() + 1, expected: MAX_FDS }.into());
    }
    Ok(received)
}

/// Waits until there is something to read, or room to write, or the peer is gone. `false` if the time is up first.
fn ready(socket: &UnixStream, events: libc::c_short, left: Duration) -> io::Result<bool> {
    let milliseconds = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry, as the count says.
    match unsafe { libc::poll(&mut entry, 1, milliseconds) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            error => Err(error),
        },
        ready => Ok(ready > 0),
    }
}

#[cfg(test)]
mod tests;
