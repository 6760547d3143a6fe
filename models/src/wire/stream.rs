//! A UNIX stream socket with frames in QEMU's netdev format: four bytes of length, most significant first, then the frame.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use pagewire_pci::vfio_user::{ListenError, Listener};

use super::{Arrival, MAX_FRAME, MIN_FRAME, Wire};

/// Bytes that wait to be sent before the wire is full.
const ROOM: usize = 256 << 10;

/// Between two looks at whether somebody wants in.
const LOOK: Duration = Duration::from_millis(5);

/// A wire over a stream socket.
#[derive(Debug)]
pub struct Stream {
    socket: Option<UnixStream>,
    listener: Option<Listener>,
    looked: Option<Instant>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    taken: usize,
}

impl Stream {
    /// Over a connected socket, which is made non-blocking.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some(socket), ..Self::unconnected() })
    }

    /// Over whoever connects to a socket of this path, one after the other. Without anybody there is no carrier. Dropping it
    /// removes the socket.
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        Ok(Self { listener: Some(Listener::bind(path)?), ..Self::unconnected() })
    }

    fn unconnected() -> Self {
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        Self { socket: None, listener: None, looked: None, outgoing, incoming, taken: 0 }
    }

    /// Lets the next one in, if somebody is there.
    #[cold]
    fn look(&mut self) {
        let Some(listener) = &self.listener else { return };
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        match listener.accept().and_then(|socket| socket.set_nonblocking(true).map(|()| socket)) {
            Ok(socket) => {
                // Nothing of the one before.
                self.incoming.clear();
                self.taken = 0;
                self.socket = Some(socket);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => log::warn!("wire: accepting at {}: {error}", listener.path().display()),
        }
    }

    fn lose(&mut self, why: &dyn std::fmt::Display) {
        if self.socket.take().is_some() {
            log::warn!("wire: the other end is gone: {why}");
        }
        self.outgoing.clear();
    }

    fn flush(&mut self) {
        while let (Some(socket), false) = (&mut self.socket, self.outgoing.is_empty()) {
            match socket.write(&self.outgoing) {
                Ok(0) => return self.lose(&"closed"),
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return self.lose(&e),
            }
        }
    }

    /// The whole frame at the front of what has come in.
    fn take(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        let waiting = &self.incoming[self.taken..];
        let (length, rest) = waiting.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME {
            self.incoming.clear();
            self.taken = 0;
            self.lose(&format_args!("it announced a frame of {length} bytes, more than {MAX_FRAME}"));
            return None;
        }
        let bytes = rest.get(..length)?;
        frame.clear();
        frame.extend_from_slice(bytes);
        frame.resize(length.max(MIN_FRAME), 0);
        self.taken += 4 + length;
        Some(Arrival::Good)
    }
}

impl Wire for Stream {
    fn send(&mut self, frame: &[u8]) -> bool {
        if self.socket.is_none() {
            return true;
        }
        if self.outgoing.len() + frame.len() + 4 > ROOM {
            self.flush();
            if self.outgoing.len() + frame.len() + 4 > ROOM {
                return false;
            }
        }
        self.outgoing.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.outgoing.extend_from_slice(frame);
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        if let Some(arrival) = self.take(frame) {
            return Some(arrival);
        }
        self.flush();
        self.incoming.drain(..self.taken);
        self.taken = 0;
        let at = self.incoming.len();
        self.incoming.resize(at + (64 << 10), 0);
        let read = match &mut self.socket {
            Some(socket) => socket.read(&mut self.incoming[at..]),
            None => Err(ErrorKind::WouldBlock.into()),
        };
        self.incoming.truncate(at + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.lose(&"closed"),
            Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => self.lose(&e),
            _ => {}
        }
        self.take(frame)
    }

    fn carrier(&mut self) -> bool {
        if self.socket.is_none() {
            self.look();
        }
        self.socket.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (Stream, Stream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Stream::new(a).unwrap(), Stream::new(b).unwrap())
    }

    #[test]
    fn frames_pass_and_short_ones_are_padded() {
        let (mut a, mut b) = ends();
        let mut frame = Vec::new();
        for n in [14usize, 60, 1514, 9000] {
            assert!(a.send(&vec![n as u8; n]));
        }
        assert_eq!(a.receive(&mut frame), None);
        for n in [14usize, 60, 1514, 9000] {
            assert_eq!(b.receive(&mut frame), Some(Arrival::Good));
            assert_eq!(frame.len(), n.max(60));
            assert!(frame[..n].iter().all(|&byte| byte == n as u8));
        }
        drop(a);
        assert_eq!(b.receive(&mut frame), None);
        assert!(!b.carrier() && b.send(&[0; 60]));
    }

    #[test]
    fn one_after_the_other_is_let_in() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("wire");
        let mut wire = Stream::listen(&path).unwrap();
        assert!(matches!(Stream::listen(&path), Err(ListenError::InUse(used)) if used == path));
        let appears = |wire: &mut Stream| {
            let end = Instant::now() + Duration::from_secs(10);
            while !wire.carrier() {
                assert!(Instant::now() < end, "somebody is there");
            }
        };
        // The one that asked above is let in first, and is gone.
        appears(&mut wire);
        let mut frame = Vec::new();
        assert_eq!(wire.receive(&mut frame), None);
        assert!(wire.socket.is_none() && wire.send(&[0; 60]));
        for n in [1, 2] {
            let mut other = Stream::new(UnixStream::connect(&path).unwrap()).unwrap();
            appears(&mut wire);
            assert!(other.send(&[n; 60]) && other.send(&[n; 61]));
            other.flush();
            // The second frame is never taken.
            assert!(wire.receive(&mut frame).is_some() && frame == [n; 60]);
            drop(other);
            wire.take(&mut frame);
            assert_eq!(wire.receive(&mut frame), None);
            assert!(wire.socket.is_none());
        }
        drop(wire);
        assert!(!path.exists());
    }

    #[test]
    fn full_when_nobody_reads_and_broken_by_nonsense() {
        let (mut a, _b) = ends();
        assert!((0..10_000).any(|_| !a.send(&[0; 1514])));
        let (mut a, b) = UnixStream::pair().unwrap();
        let mut b = Stream::new(b).unwrap();
        a.write_all(&[0xff; 8]).unwrap();
        assert_eq!(b.receive(&mut Vec::new()), None);
        assert!(!b.carrier());
    }
}
