//! Files of captured frames, pcap and pcapng: read whole and checked before the first frame is used, written in whole records.

mod input;
mod output;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

pub use input::{Frames, Wrong};
pub use output::{CaptureFile, Captured, Direction};

/// The longest frame, without check sequence.
pub const MAX_FRAME: usize = 16 << 10;
/// The shortest frame on Ethernet, without check sequence.
pub const MIN_FRAME: usize = 60;

/// Why a capture cannot be received from, or none be written.
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

/// What is read and written by a device or wire between two capture files. As text `IN[,OUT][,repeat=N]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcapOptions {
    /// What is received: pcap or pcapng, of Ethernet frames.
    pub input: Option<PathBuf>,
    /// How often that is received; 0 is for ever.
    pub repeat: u64,
    /// Where to write what is sent, with nanoseconds: as pcapng if the name ends so, as pcap otherwise. A file that is there is overwritten.
    pub output: Option<PathBuf>,
}

impl Default for PcapOptions {
    fn default() -> Self {
        Self { input: None, repeat: 1, output: None }
    }
}

impl FromStr for PcapOptions {
    type Err = String;

    fn from_str(text: &str) -> Result<PcapOptions, String> {
        let mut options = PcapOptions::default();
        let mut files = Vec::new();
        for part in text.split(',') {
            match part.strip_prefix("repeat=") {
                Some(times) => {
                    options.repeat = times
                        .parse()
                        .map_err(|_| format!("repeat={times}: expected a number, 0 for ever"))?;
                }
                None => files.push((!part.is_empty()).then(|| PathBuf::from(part))),
            }
        }
        match &files[..] {
            [input] => options.input = input.clone(),
            [input, output] => (options.input, options.output) = (input.clone(), output.clone()),
            _ => return Err(format!("pcap: has a file to receive and one to write, not {}", files.len())),
        }
        match (&options.input, &options.output) {
            (None, None) => Err("pcap: wants a file, such as pcap:in.pcap or pcap:,out.pcap".into()),
            _ => Ok(options),
        }
    }
}

impl fmt::Display for PcapOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        write!(f, "{}", name(&self.input).unwrap_or_default())?;
        name(&self.output).map_or(Ok(()), |output| write!(f, ",{output}"))?;
        if self.repeat == 1 { Ok(()) } else { write!(f, ",repeat={}", self.repeat) }
    }
}

/// What became of the frames, to be looked at while they are used elsewhere.
#[derive(Debug, Default)]
pub struct PcapReport {
    /// Frames that were taken from the input, repetitions included.
    pub taken: AtomicU64,
    /// All there is has been taken.
    pub exhausted: AtomicBool,
    /// Frames that were sent and that are in the output's file.
    pub written: AtomicU64,
    /// Frames that were sent and that could not be written. The error is logged once.
    pub unwritten: AtomicU64,
}

/// The frames of a capture, one after the other and as often as asked.
#[derive(Debug)]
pub struct Player {
    frames: Arc<Frames>,
    next: usize,
    repeat: u64,
    /// Repetitions after this one.
    left: u64,
    report: Arc<PcapReport>,
}

/// Open both files: what is wrong with the one that is read is known before the other is overwritten.
///
/// # Errors
///
/// [`PcapError`].
pub fn open(options: &PcapOptions) -> Result<(Player, Option<CaptureFile>), PcapError> {
    let player = read(options)?;
    let create = |path: &PathBuf| CaptureFile::create(path, player.report());
    let output = options.output.as_ref().map(create).transpose()?;
    Ok((player, output))
}

/// Read the one that is read. The other is not touched; it is for [`CaptureFile::create`].
///
/// # Errors
///
/// [`PcapError`], also where both are one file.
pub fn read(options: &PcapOptions) -> Result<Player, PcapError> {
    let frames = options.input.as_deref().map_or(Ok(Frames::default()), Frames::read)?;
    if let (Some(input), Some(output)) = (&options.input, &options.output)
        && let (Some(one), Some(other)) = (identity(input), identity(output))
        && one == other
    {
        return Err(PcapError::Same(input.clone()));
    }
    let report = Arc::new(PcapReport::default());
    let mut player = Player { frames: Arc::new(frames), next: 0, repeat: options.repeat, left: 0, report };
    player.rewind();
    Ok(player)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

impl Player {
    /// Begin at the first frame, with all repetitions to come.
    pub fn rewind(&mut self) {
        self.next = 0;
        self.left = self.repeat.checked_sub(1).unwrap_or(u64::MAX);
        self.report.exhausted.store(self.frames.is_empty(), Relaxed);
    }

    /// Whether all there is has been taken.
    pub fn is_exhausted(&self) -> bool {
        self.report.exhausted.load(Relaxed)
    }

    /// What becomes of the frames.
    pub fn report(&self) -> Arc<PcapReport> {
        self.report.clone()
    }

    /// Bytes of the longest frame.
    pub fn longest(&self) -> usize {
        (0..self.frames.len()).map(|frame| self.frames.get(frame).len()).max().unwrap_or(0)
    }

    /// The next frame, as it is in the file. None if there are no more.
    pub fn take(&mut self) -> Option<&[u8]> {
        if self.is_exhausted() {
            return None;
        }
        let this = self.next;
        self.next += 1;
        single_writer_add(&self.report.taken, 1);
        if self.next == self.frames.len() {
            self.next = 0;
            self.report.exhausted.store(self.left == 0, Relaxed);
            // For ever is longer than this counts.
            self.left = self.left.saturating_sub(1);
        }
        Some(self.frames.get(this))
    }
}

/// Adds to a counter that nobody else adds to.
fn single_writer_add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed) + n, Relaxed);
}
