//! A capture that is to be sent again, and with which timing.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, bail};
use pagewire_captures::{Frames, MIN_FRAME};
use serde::Deserialize;

use super::pace::{Clock, OVERHEAD};
use super::replay::Replay;
use super::template::FCS;
use super::values::{SIZES, Text};

/// Seconds by which frames of a capture may be closer together than the link carries them, all in all: stamps are not exact.
const CLOSER: f64 = 1e-3;

/// The capture's own timing: its gaps, so many times as long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Timing {
    pub(super) factor: f64,
}

impl FromStr for Timing {
    type Err = String;

    /// `capture` or `capture:FACTOR`.
    fn from_str(text: &str) -> Result<Timing, String> {
        let factor = match text.strip_prefix("capture") {
            Some("") => Some(1.0),
            Some(factor) => factor.strip_prefix(':').and_then(|factor| factor.parse().ok()),
            None => None,
        };
        // Far more than a capture of a year or of a microsecond needs.
        let factor = factor.filter(|factor| (1e-9..=1e9).contains(factor));
        factor.map(|factor| Timing { factor }).ok_or_else(|| {
            format!("{text:?} is no timing; expected capture, or capture:0.5 for gaps half as long")
        })
    }
}

impl<'de> Deserialize<'de> for Timing {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Timing, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A capture, read as a whole.
#[derive(Clone, Debug)]
pub(super) struct Captured {
    pub(super) path: PathBuf,
    pub(super) frames: Arc<Frames>,
    /// Without, the stream's rate decides.
    pub(super) timing: Option<Timing>,
    /// How often it is sent; 0 is for ever.
    pub(super) loops: u64,
}

/// Lengths with check sequence, each with the part of the frames that have it.
type Sizes = Vec<(u16, f64)>;

impl Captured {
    /// # Errors
    ///
    /// What is wrong with the file, with its name and where in it.
    pub(super) fn read(path: &Path, timing: Option<Timing>, loops: u64) -> Result<Captured> {
        let frames = Frames::read(path)?;
        if frames.is_empty() {
            bail!("the capture {}: there is no frame in it; expected one at least", path.display());
        }
        let most = usize::from(*SIZES.end()) - FCS;
        for number in 0..frames.len() {
            let length = frames.get(number).len();
            if length > most {
                bail!(
                    "the capture {}, frame {}: {length} bytes; at most {most} can be sent",
                    path.display(),
                    number + 1
                );
            }
            if timing.is_some() && frames.stamp(number).is_none() {
                bail!(
                    "the capture {}, frame {}: no time stamp, which its own timing needs; say a rate instead",
                    path.display(),
                    number + 1
                );
            }
        }
        Ok(Captured { path: path.into(), frames: Arc::new(frames), timing, loops })
    }

    /// Bytes of the longest frame as it is sent, without check sequence.
    pub(super) fn longest(&self) -> usize {
        (0..self.frames.len()).map(|number| self.frames.get(number).len()).max().unwrap_or(0).max(MIN_FRAME)
    }

    /// Frames that it is good for; none if that is for ever.
    pub(super) fn count(&self) -> Option<u64> {
        (self.loops > 0).then(|| (self.frames.len() as u64).saturating_mul(self.loops))
    }

    /// Its lengths, the frames in their order, and the part that they take of a link of so many bits a second by their own timing.
    ///
    /// # Errors
    ///
    /// A timing that the link cannot keep.
    pub(super) fn plan(&self, line: f64, clock: &Clock) -> Result<(Sizes, Replay, f64)> {
        let size = |number| (self.frames.get(number).len().max(MIN_FRAME) + FCS) as u16;
        let of_frames: Vec<u16> = (0..self.frames.len()).map(size).collect();
        let mut sizes = of_frames.clone();
        sizes.sort_unstable();
        let counts: Vec<_> = sizes.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect();
        let Some(Timing { factor }) = self.timing else {
            let place = |size: &u16| counts.partition_point(|(other, _)| other < size) as u16;
            let places = of_frames.iter().map(place).collect();
            return Ok((parts(&counts), Replay::paced(self.frames.clone(), places), 0.0));
        };
        let offsets = self.offsets(factor, clock);
        let last = offsets.last().copied().unwrap_or(0);
        // From the last frame to the first of the next round it is the mean gap.
        let round = last.saturating_add(last / (offsets.len() as u64 - 1).max(1));
        let bytes: f64 =
            counts.iter().map(|(size, n)| f64::from(u32::from(*size) + OVERHEAD) * *n as f64).sum();
        let (needed, there_is) = (8.0 * bytes / line, clock.seconds(round));
        let closer = if self.loops == 1 { CLOSER } else { 0.0 };
        let load = needed / (there_is + closer);
        if load > 1.0 {
            bail!(
                "timing: the frames of {} are to be sent in {there_is:.6} s, and a link of {:.3} Gb/s carries them in {needed:.6} s",
                self.path.display(),
                line / 1e9
            );
        }
        Ok((parts(&counts), Replay::timed(self.frames.clone(), offsets, round), load))
    }

    /// When each frame is due after the first, in ticks. A frame stamped before the one before it comes with that one.
    fn offsets(&self, factor: f64, clock: &Clock) -> Vec<u64> {
        let stamp = |number| self.frames.stamp(number).unwrap_or_default();
        let (first, mut latest) = (stamp(0), 0);
        let offset = |number| {
            // A product that is too large for 64 bits is never due.
            latest = latest
                .max((stamp(number).saturating_sub(first).as_secs_f64() * factor * clock.hz).round() as u64);
            latest
        };
        (0..self.frames.len()).map(offset).collect()
    }
}

fn parts(counts: &[(u16, usize)]) -> Sizes {
    let frames: usize = counts.iter().map(|(_, count)| count).sum();
    counts.iter().map(|(size, count)| (*size, *count as f64 / frames as f64)).collect()
}
