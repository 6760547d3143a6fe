//! Frames in a file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, Endianness, TsResolution};

use super::{MAX_FRAME, PcapError, PcapReport, single_writer_add};

/// Bytes that are written at once.
const BATCH: usize = 256 << 10;
/// What is not yet written waits no longer than this, while somebody looks after it.
const SOON: Duration = Duration::from_millis(200);

/// A file that frames are written to with nanoseconds, in large pieces and always whole: pcapng if its name ends so, pcap otherwise.
/// Dropped, it has everything.
#[derive(Debug)]
pub struct CaptureFile {
    path: PathBuf,
    report: Arc<PcapReport>,
    /// None after an error.
    file: Option<File>,
    /// Bytes of whole records in the file.
    length: u64,
    /// Where frames may come from, in pcapng.
    interfaces: Vec<InterfaceDescriptionBlock<'static>>,
    /// What is to be written next.
    batch: Batch,
    flushed: SystemTime,
}

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It was received.
    In,
    /// It was sent.
    Out,
}

/// A frame, or its front.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// Of [`CaptureFile::add_interface`].
    pub interface: u32,
    /// Which way it went, if that is known; pcap does not tell.
    pub direction: Option<Direction>,
    /// When, since 1970.
    pub since: Duration,
    /// Bytes of the whole frame.
    pub length: usize,
    /// The bytes to be written.
    pub front: &'a [u8],
}

/// A file's head, which is the file's if it is the first batch, and records.
struct Batch {
    writer: Writer,
    bytes: usize,
    frames: u64,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} frames, {} bytes)", self.frames, self.bytes)
    }
}

enum Writer {
    Pcap(PcapWriter<Vec<u8>>),
    PcapNg(PcapNgWriter<Vec<u8>>),
}

impl Batch {
    /// With the head that a file has which frames of these interfaces come to; `ng` is pcapng.
    fn new(ng: bool, interfaces: &[InterfaceDescriptionBlock<'static>]) -> io::Result<Self> {
        let writer = if ng {
            let mut writer = PcapNgWriter::new(Vec::new()).map_err(io::Error::other)?;
            for interface in interfaces {
                writer.write_pcapng_block(interface.clone()).map_err(io::Error::other)?;
            }
            Writer::PcapNg(writer)
        } else {
            let header = PcapHeader {
                snaplen: MAX_FRAME as u32,
                datalink: DataLink::ETHERNET,
                ts_resolution: TsResolution::NanoSecond,
                endianness: Endianness::native(),
                ..PcapHeader::default()
            };
            Writer::Pcap(PcapWriter::with_header(Vec::new(), header).map_err(io::Error::other)?)
        };
        Ok(Self { writer, bytes: 0, frames: 0 })
    }

    fn write(&mut self, frame: &Captured<'_>) -> Result<(), pcap_file::PcapError> {
        let &Captured { interface, direction, since, length, front } = frame;
        self.bytes += match &mut self.writer {
            Writer::Pcap(writer) => writer.write_packet(&PcapPacket::new(since, length as u32, front))?,
            Writer::PcapNg(writer) => {
                let flags = direction.map(|direction| match direction {
                    Direction::In => 1,
                    Direction::Out => 2,
                });
                writer.write_pcapng_block(EnhancedPacketBlock {
                    interface_id: interface,
                    timestamp: since,
                    original_len: length as u32,
                    data: front.into(),
                    options: flags.map(EnhancedPacketOption::Flags).into_iter().collect(),
                })?
            }
        };
        self.frames += 1;
        Ok(())
    }

    fn into_bytes(self) -> Vec<u8> {
        match self.writer {
            Writer::Pcap(writer) => writer.into_writer(),
            Writer::PcapNg(writer) => writer.into_inner(),
        }
    }
}

impl CaptureFile {
    /// Makes the file, and writes what it begins with. A file that is there is overwritten.
    pub fn create(path: &Path, report: Arc<PcapReport>) -> Result<Self, PcapError> {
        let failed = |cause| PcapError::Io { path: path.into(), cause };
        let file = File::create(path).map_err(failed)?;
        let ng = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pcapng"));
        let (batch, interfaces) = (Batch::new(ng, &[]).map_err(failed)?, Vec::new());
        let flushed = SystemTime::now();
        let mut output =
            Self { path: path.into(), report, file: Some(file), length: 0, interfaces, batch, flushed };
        output.try_flush().map_err(failed)?;
        Ok(output)
    }

    /// Something that frames come from, of which so many bytes are written of each. pcap forgets the name.
    pub fn add_interface(&mut self, name: &str, snaplen: u32) -> u32 {
        let nanoseconds = InterfaceDescriptionOption::IfTsResol(9);
        let options = match name {
            "" => vec![nanoseconds],
            name => vec![InterfaceDescriptionOption::IfName(name.to_owned().into()), nanoseconds],
        };
        let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen, options };
        if let Writer::PcapNg(writer) = &mut self.batch.writer {
            match writer.write_pcapng_block(interface.clone()) {
                Ok(bytes) => self.batch.bytes += bytes,
                // Into memory: only what is no block could fail.
                Err(error) => log::error!("{}: an interface called {name}: {error}", self.path.display()),
            }
        }
        self.interfaces.push(interface);
        self.interfaces.len() as u32 - 1
    }

    /// Adds a frame that came now.
    pub fn write(&mut self, frame: &[u8]) {
        if self.interfaces.is_empty() {
            self.add_interface("", MAX_FRAME as u32);
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.write_captured(&Captured {
            interface: 0,
            direction: None,
            since,
            length: frame.len(),
            front: frame,
        });
    }

    /// Adds a frame. What could not be written is counted, and the first error logged: after that nothing is written any more.
    pub fn write_captured(&mut self, frame: &Captured<'_>) {
        if self.file.is_none() {
            single_writer_add(&self.report.unwritten, 1);
            return;
        }
        // Too long for a wire, of no interface, or after the year 2106.
        if let Err(error) = self.batch.write(frame) {
            single_writer_add(&self.report.unwritten, 1);
            log::debug!("{}: a frame of {} bytes: {error}", self.path.display(), frame.length);
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
        let ng = matches!(self.batch.writer, Writer::PcapNg(_));
        let batch = std::mem::replace(&mut self.batch, Batch::new(ng, &self.interfaces)?);
        let bytes = batch.bytes;
        let all = batch.into_bytes();
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

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    #[test]
    fn pcapng_has_names_directions_and_nanoseconds_through_many_batches() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.PCAPNG");
        let report = Arc::new(PcapReport::default());
        let mut file = CaptureFile::create(&path, report.clone()).expect("it is made");
        let frame = |number: u64| vec![number as u8; 60 + number as usize % 1400];
        let [mut first, mut second] = [0; 2];
        for number in 0..1000 {
            // One that comes later, in a batch of its own.
            match number {
                0 => first = file.add_interface("port0", 1500),
                700 => second = file.add_interface("port1-send", 1500),
                _ => second = if number < 700 { first } else { second },
            }
            let (interface, direction) = match number % 2 == 1 && number > 700 {
                true => (second, Direction::Out),
                false => (first, Direction::In),
            };
            let (frame, since) = (frame(number), Duration::new(1_700_000_000, number as u32 * 7 + 1));
            let captured =
                Captured { interface, direction: Some(direction), since, length: 9000, front: &frame };
            file.write_captured(&captured);
        }
        // Of nothing that there is.
        file.write_captured(&Captured {
            interface: 2,
            direction: None,
            since: Duration::ZERO,
            length: 1,
            front: &[0],
        });
        drop(file);
        assert_eq!(
            (report.written.load(std::sync::atomic::Ordering::Relaxed), 1),
            (1000, report.unwritten.load(std::sync::atomic::Ordering::Relaxed))
        );
        let mut reader = PcapNgReader::new(File::open(&path).expect("it is there")).expect("pcapng");
        let (mut names, mut number) = (Vec::new(), 0);
        while let Some(block) = reader.next_block() {
            match block.expect("a block").into_owned() {
                Block::InterfaceDescription(interface) => names.push(format!("{:?}", interface.options)),
                Block::EnhancedPacket(packet) => {
                    let out = number % 2 == 1 && number > 700;
                    assert_eq!(packet.interface_id, u32::from(out), "{number}");
                    assert_eq!(packet.options, [EnhancedPacketOption::Flags(1 + u32::from(out))]);
                    assert_eq!(packet.timestamp, Duration::new(1_700_000_000, number as u32 * 7 + 1));
                    assert_eq!((packet.original_len, &packet.data[..]), (9000, &frame(number)[..]));
                    number += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(number, 1000);
        assert!(
            names.len() == 2 && names[0].contains("port0") && names[1].contains("port1-send"),
            "{names:?}"
        );
        assert!(names.iter().all(|name| name.contains("IfTsResol(9)")), "{names:?}");
    }

    #[test]
    fn frames_of_nowhere_in_particular_can_be_written_to_both() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["out.pcap", "out.pcapng", "out"] {
            let path = folder.path().join(name);
            let mut file = CaptureFile::create(&path, Arc::default()).expect("it is made");
            file.write(&[7; 60]);
            drop(file);
            let frames = crate::Frames::read(&path).expect("it is a capture");
            assert_eq!((frames.len(), frames.get(0)), (1, &[7; 60][..]), "{name}");
        }
    }
}
