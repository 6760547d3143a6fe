//! A capture file to receive from, and one of everything that the card sends.

use std::sync::Arc;

use pagewire_captures::{CaptureFile, PcapError, PcapOptions, PcapReport, Player};

use super::{Arrival, MIN_FRAME, Wire};

/// A wire between two capture files.
///
/// Frames wait until the card's receiver is on and has room for them, so that none is lost to a driver that is slow or
/// starts late. Frames shorter than Ethernet's minimum are padded, as a sending card does. The input is read as a whole
/// when the wire is made: what is wrong with it is known before the first frame.
#[derive(Debug)]
pub struct Pcap {
    player: Player,
    output: Option<CaptureFile>,
}

impl Pcap {
    /// Opens the files.
    pub fn open(options: &PcapOptions) -> Result<Self, PcapError> {
        let (player, output) = pagewire_captures::open(options)?;
        Ok(Self { player, output })
    }

    /// What becomes of the frames.
    pub fn report(&self) -> Arc<PcapReport> {
        self.player.report()
    }
}

impl Wire for Pcap {
    fn send(&mut self, frame: &[u8]) -> bool {
        if let Some(output) = &mut self.output {
            output.write(frame);
        }
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        let Some(next) = self.player.take() else {
            // Nothing else to do: a good time for what the card sent.
            if let Some(output) = &mut self.output {
                output.flush_when_due();
            }
            return None;
        };
        frame.clear();
        frame.extend_from_slice(next);
        frame.resize(frame.len().max(MIN_FRAME), 0);
        Some(Arrival::Good)
    }

    fn patient(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
