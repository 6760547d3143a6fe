//! What a card's port is plugged into.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

mod frames;
mod generator;
mod meter;
mod paced;
mod pair;
mod pcap;
mod stream;
mod tap;

pub use frames::Frames;
pub use generator::{Generator, Report, STREAMS, StreamReport, Traffic};
pub use meter::{Counts, Meter};
pub use paced::Paced;
pub use pagewire_captures::{
    CaptureFile, Captured, Direction, MAX_FRAME, PcapError, PcapOptions, PcapReport,
};
pub use pair::{Pair, pair};
pub use pcap::Pcap;
pub use stream::Stream;
pub use tap::{Tap, TapError};

/// The shortest frame on Ethernet, without FCS: what software hands over shorter is padded.
const MIN_FRAME: usize = pagewire_captures::MIN_FRAME;

/// Adds to a counter that nobody else adds to.
fn single_writer_add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed) + n, Relaxed);
}

/// How a frame arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Its check sequence is right.
    Good,
    /// Its check sequence is wrong.
    BadFcs,
}

/// A cable with something at its other end. Frames are from destination address to payload: the check sequence is not
/// carried, only whether it is right.
pub trait Wire: Send {
    /// Send a frame. False if the wire has no room at the moment: to be tried again.
    fn send(&mut self, frame: &[u8]) -> bool;

    /// The next frame, in place of what is in `frame`.
    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival>;

    /// Whether what is to be received waits until the card's receiver is on and has room, as frames in a file do; those on a
    /// cable do not.
    fn patient(&self) -> bool {
        false
    }

    /// Whether the other end is there.
    fn carrier(&mut self) -> bool {
        true
    }

    /// Whether the port sends light, told when it changes.
    fn light(&mut self, on: bool) {
        let _ = on;
    }
}

/// A cable with nothing at its other end: what is sent is lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Wire for Open {
    fn send(&mut self, _: &[u8]) -> bool {
        true
    }

    fn receive(&mut self, _: &mut Vec<u8>) -> Option<Arrival> {
        None
    }
}
