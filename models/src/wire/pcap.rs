//! A capture file to receive from, and one of everything that the card sends.

mod input;
mod output;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Arrival, MAX_FRAME, MIN_FRAME, Wire, single_writer_add};
use input::Frames;
pub use output::CaptureFile;

/// Why there is no such wire.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PcapError {
    /// The operating system said no.
    #[error("the capture {path}: {cause}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The answer. Part of the message, hence no `source` that would be printed once more.
        cause: std::io::Error,
    },
    /// A file that cannot be received from.
    #[error("the capture {path}, at byte {at} ({place}): {found}; expected {expected}", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where in the file what cannot be understood starts.
        at: u64,
        /// What is there.
        place: String,
        /// What was found.
        found: String,
        /// What makes sense there.
        expected: &'static str,
    },
    /// Both files are one.
    #[error("the capture {} would be overwritten by what is sent: take another path for that", .0.display())]
    Same(PathBuf),
}

/// What a [`Pcap`] reads and writes.
#[derive(Clone, Debug)]
pub struct PcapOptions {
    /// What the card receives: pcap or pcapng, of Ethernet frames.
    pub input: Option<PathBuf>,
    /// How often it receives that; 0 is for ever.
    pub repeat: u64,
    /// Where to write what the card sends, as pcap with nanoseconds. A file that is there is overwritten.
    pub output: Option<PathBuf>,
}

impl Default for PcapOptions {
    fn default() -> Self {
        Self { input: None, repeat: 1, output: None }
    }
}

/// What became of the frames, to be looked at while the wire is used elsewhere.
#[derive(Debug, Default)]
pub struct PcapReport {
    /// Frames that the card took from the input, repetitions included.
    pub taken: AtomicU64,
    /// The card has taken all there is.
    pub exhausted: AtomicBool,
    /// Frames that the card sent and that are in the output's file.
    pub written: AtomicU64,
    /// Frames that the card sent and that could not be written. The error is logged once.
    pub unwritten: AtomicU64,
}

/// A wire between two capture files.
///
/// Frames wait until the card's receiver is on and has room for them, so that none is lost to a driver that is slow or
/// starts late. Frames shorter than Ethernet's minimum are padded, as a sending card does. The input is read as a whole
/// when the wire is made: what is wrong with it is known before the first frame.
#[derive(Debug)]
pub struct Pcap {
    frames: Frames,
    next: usize,
    /// Repetitions after this one.
    left: u64,
    output: Option<CaptureFile>,
    report: Arc<PcapReport>,
}

impl Pcap {
    /// Opens the files.
    pub fn open(options: &PcapOptions) -> Result<Self, PcapError> {
        let frames = options.input.as_deref().map_or(Ok(Frames::default()), Frames::read)?;
        if let (Some(input), Some(output)) = (&options.input, &options.output)
            && let (Some(one), Some(other)) = (identity(input), identity(output))
            && one == other
        {
            return Err(PcapError::Same(input.clone()));
        }
        let report = Arc::new(PcapReport::default());
        let output =
            options.output.as_deref().map(|path| CaptureFile::create(path, report.clone())).transpose()?;
        report.exhausted.store(frames.len() == 0, Relaxed);
        let left = options.repeat.checked_sub(1).unwrap_or(u64::MAX);
        Ok(Self { frames, next: 0, left, output, report })
    }

    /// What becomes of the frames.
    pub fn report(&self) -> Arc<PcapReport> {
        self.report.clone()
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

impl Wire for Pcap {
    fn send(&mut self, frame: &[u8]) -> bool {
        if let Some(output) = &mut self.output {
            output.write(frame);
        }
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        if self.report.exhausted.load(Relaxed) {
            // Nothing else to do: a good time for what the card sent.
            if let Some(output) = &mut self.output {
                output.flush_when_due();
            }
            return None;
        }
        frame.clear();
        frame.extend_from_slice(self.frames.get(self.next));
        frame.resize(frame.len().max(MIN_FRAME), 0);
        self.next += 1;
        single_writer_add(&self.report.taken, 1);
        if self.next == self.frames.len() {
            self.next = 0;
            self.report.exhausted.store(self.left == 0, Relaxed);
            // For ever is longer than this counts.
            self.left = self.left.saturating_sub(1);
        }
        Some(Arrival::Good)
    }

    fn patient(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
