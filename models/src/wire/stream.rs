//! A UNIX stream socket with frames in QEMU's netdev format: four bytes of length, most significant first, then the frame.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use super::{Arrival, MAX_FRAME, MIN_FRAME, Wire};

/// Bytes that wait to be sent before the wire is full.
const ROOM: usize = 256 << 10;

/// A wire over a stream socket.
#[derive(Debug)]
pub struct Stream {
    socket: Option<UnixStream>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    taken: usize,
}

impl Stream {
    /// Over a connected socket, which is made non-blocking.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some(socket), outgoing: Vec::new(), incoming: Vec::new(), taken: 0 })
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
