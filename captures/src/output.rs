//! Frames in a file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution};

use super::{MAX_FRAME, PcapError, PcapReport, single_writer_add};

/// Bytes that are written at once.
const BATCH: usize = 256 << 10;
/// What is not yet written waits no longer than this, while somebody looks after it.
const SOON: Duration = Duration::from_millis(200);

/// A pcap file with nanoseconds that frames are written to, in large pieces and always whole. Dropped, it has everything.
#[derive(Debug)]
pub struct CaptureFile {
    path: PathBuf,
    report: Arc<PcapReport>,
    /// None after an error.
    file: Option<File>,
    /// Bytes of whole records in the file.
    length: u64,
    /// What is to be written next.
    batch: Batch,
    flushed: SystemTime,
}

/// A file header, which is the file's if it is the first batch, and records.
#[derive(Debug)]
struct Batch {
    writer: PcapWriter<Vec<u8>>,
    bytes: usize,
    frames: u64,
}

impl Batch {
    fn new() -> io::Result<Self> {
        let header = PcapHeader {
            snaplen: MAX_FRAME as u32,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(Vec::new(), header).map_err(io::Error::other)?;
        Ok(Self { writer, bytes: 0, frames: 0 })
    }
}

impl CaptureFile {
    /// Makes the file, and writes its header. A file that is there is overwritten.
    pub fn create(path: &Path, report: Arc<PcapReport>) -> Result<Self, PcapError> {
        let failed = |cause| PcapError::Io { path: path.into(), cause };
        let file = File::create(path).map_err(failed)?;
        let batch = Batch::new().map_err(failed)?;
        let flushed = SystemTime::now();
        let mut output = Self { path: path.into(), report, file: Some(file), length: 0, batch, flushed };
        output.try_flush().map_err(failed)?;
        Ok(output)
    }

    /// Adds a frame that came now.
    pub fn write(&mut self, frame: &[u8]) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.write_at(since, frame.len(), frame);
    }

    /// Adds the front of a frame of `length` bytes that came at a time since 1970. What could not be written is counted, and the
    /// first error logged: after that nothing is written any more.
    pub fn write_at(&mut self, since: Duration, length: usize, front: &[u8]) {
        if self.file.is_none() {
            single_writer_add(&self.report.unwritten, 1);
            return;
        }
        match self.batch.writer.write_packet(&PcapPacket::new(since, length as u32, front)) {
            Ok(bytes) => {
                self.batch.bytes += bytes;
                self.batch.frames += 1;
            }
            // Too long for a wire, or after the year 2106.
            Err(error) => {
                single_writer_add(&self.report.unwritten, 1);
                log::debug!("{}: a frame of {length} bytes: {error}", self.path.display());
            }
        }
        if self.batch.bytes >= BATCH {
            self.flush();
        } else {
            self.flush_when_due();
        }
    }

    /// Writes what has waited for a while. To be called when no frame comes.
    pub fn flush_when_due(&mut self) {
        // A clock that was set back is no reason to wait.
        if self.batch.frames > 0 && self.flushed.elapsed().map_or(true, |since| since >= SOON) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let frames = self.batch.frames;
        match self.try_flush() {
            Ok(()) => single_writer_add(&self.report.written, frames),
            Err(error) => {
                single_writer_add(&self.report.unwritten, frames);
                // Whoever reads it finds whole records.
                let cut = self.file.take().map(|file| file.set_len(self.length));
                log::error!("the capture {}: {error}; no more frames are written", self.path.display());
                if let Some(Err(error)) = cut {
                    log::debug!("cutting {} off after its last whole record: {error}", self.path.display());
                }
            }
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let Batch { writer, bytes, .. } = std::mem::replace(&mut self.batch, Batch::new()?);
        let all = writer.into_writer();
        let new = if self.length == 0 { &all[..] } else { &all[all.len() - bytes..] };
        file.write_all(new)?;
        self.length += new.len() as u64;
        self.flushed = SystemTime::now();
        Ok(())
    }
}

impl Drop for CaptureFile {
    fn drop(&mut self) {
        if self.batch.frames > 0 {
            self.flush();
        }
    }
}
