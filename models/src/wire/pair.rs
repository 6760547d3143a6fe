//! A cable between two cards of one process.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Arrival, Frames, Wire};

/// Frames that one direction holds before it is full.
const ROOM: usize = 1024;

#[derive(Debug, Default)]
struct Direction {
    frames: Mutex<Frames>,
    /// The end that sends is there and its transmitter on.
    alive: AtomicBool,
}

/// One end of a cable.
#[derive(Debug)]
pub struct Pair {
    out: Arc<Direction>,
    into: Arc<Direction>,
    /// What was taken out of the shared queue in one go.
    arrived: Frames,
}

/// A cable's two ends.
pub fn pair() -> (Pair, Pair) {
    let direction = || Arc::new(Direction { alive: true.into(), ..Direction::default() });
    let (ab, ba) = (direction(), direction());
    let end = |out: &Arc<Direction>, into: &Arc<Direction>| Pair {
        out: out.clone(),
        into: into.clone(),
        arrived: Frames::new(),
    };
    (end(&ab, &ba), end(&ba, &ab))
}

impl Wire for Pair {
    fn send(&mut self, frame: &[u8]) -> bool {
        let mut frames = self.out.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() >= ROOM {
            // Nobody takes them out: they leave the fibre.
            return !self.into.alive.load(Relaxed);
        }
        frames.push(frame);
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        if self.arrived.is_empty() {
            let mut frames = self.into.frames.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut self.arrived, &mut frames);
        }
        let first = self.arrived.front()?;
        frame.clear();
        frame.extend_from_slice(first);
        self.arrived.pop();
        Some(Arrival::Good)
    }

    fn carrier(&mut self) -> bool {
        self.into.alive.load(Relaxed)
    }

    fn light(&mut self, on: bool) {
        self.out.alive.store(on, Relaxed);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.out.alive.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_until_it_is_full() {
        let (mut a, mut b) = pair();
        let mut frame = Vec::new();
        assert_eq!(b.receive(&mut frame), None);
        let sent = (0..2000u32).take_while(|n| a.send(&n.to_le_bytes())).count();
        assert_eq!(sent, ROOM);
        for n in 0..ROOM as u32 {
            assert_eq!(b.receive(&mut frame), Some(Arrival::Good));
            assert_eq!(frame, n.to_le_bytes());
        }
        assert!(b.send(&[1]) && a.receive(&mut frame).is_some());
        assert!(a.carrier());
        b.light(false);
        assert!(!a.carrier());
        b.light(true);
        assert!(a.carrier());
        drop(b);
        assert!(!a.carrier());
        assert!((0..2000).all(|_| a.send(&[0])), "into the void");
    }
}
