//! The host's end of a card's cable.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Larger than any frame a card can send.
const FRAME_MAX: usize = 64 * 1024;

/// How long QEMU may refuse to take a frame. It does while the card has no free descriptor and no room.
const STALL: Duration = Duration::from_secs(10);

/// The host's end of a card's cable: frames without their checksum, as QEMU's `-netdev stream` carries them, each behind
/// its length in 4 bytes, big-endian. It loses nothing: a card that cannot take a frame makes the sender wait.
pub struct Wire {
    stream: UnixStream,
    reader: Frames,
}

impl Wire {
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_write_timeout(Some(STALL))?;
        Ok(Self { stream, reader: Frames::default() })
    }

    /// Sends one frame.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(frame.len() + 4);
        push(&mut bytes, frame);
        (&self.stream).write_all(&bytes)
    }

    /// The next frame out of the card, or `None` if none came in time.
    pub fn receive(&mut self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(frame) = self.reader.next()? {
                return Ok(Some(frame.to_vec()));
            }
            if !self.reader.fill(&self.stream, deadline.saturating_duration_since(Instant::now()))? {
                return Ok(None);
            }
        }
    }

    /// Both directions, for two threads.
    pub(crate) fn split(&mut self) -> (&UnixStream, &mut Frames) {
        (&self.stream, &mut self.reader)
    }
}

/// Appends a frame as the wire carries it.
pub(crate) fn push(bytes: &mut Vec<u8>, frame: &[u8]) {
    bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    bytes.extend_from_slice(frame);
}

/// Cuts the byte stream into frames.
#[derive(Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    /// The next whole frame that has been read.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>> {
        let Some((length, rest)) = self.buffer[self.start..self.end].split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        ensure!(length <= FRAME_MAX, "a frame of {length} bytes came: the stream is out of step");
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.start + 4;
        self.start = start + length;
        Ok(Some(&self.buffer[start..self.start]))
    }

    /// Reads more bytes; false if none came in time.
    pub(crate) fn fill(&mut self, mut stream: &UnixStream, patience: Duration) -> Result<bool> {
        if self.buffer.is_empty() {
            self.buffer.resize(8 * FRAME_MAX, 0);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        // Zero would mean for ever.
        stream.set_read_timeout(Some(patience.max(Duration::from_micros(1))))?;
        match stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => {
                self.end += n;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
