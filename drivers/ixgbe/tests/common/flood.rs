//! More than a card can receive.

use std::time::{Duration, Instant};

use pagewire_ethdev::nic::testing::Random;
use pagewire_models::wire::{Arrival, Wire};

use super::packets::{Flow, payload, tcp_header};

/// Frames at a time, and from one such time to the next: a card that is busy without end has little time for its registers.
const BATCH: usize = 32;
const PAUSE: Duration = Duration::from_micros(200);

/// A cable that frames of every length and kind come out of without end, TCP segments in order among them.
pub(crate) struct Flood {
    random: Random,
    /// Made beforehand, since that takes longer than all that a card does with them.
    frames: Vec<Vec<u8>>,
    next: usize,
    /// When the last batch began.
    since: Instant,
}

impl Flood {
    pub(crate) fn new(seed: u64) -> Flood {
        let mut random = Random::seeded(seed);
        let mut sequence = 0;
        let mut frame = || {
            let flow = Flow { ports: (random.below(8) as u16, 53), ..Flow::new(random.below(2) == 0) };
            match random.below(16) {
                0 => vec![0xff; random.below(9100) as usize],
                1 => flow.udp(&payload(random.below(1400) as usize)),
                2..6 => {
                    let data = payload(1 + random.below(1400) as usize);
                    let segment =
                        Flow { ports: (7, 7), ..Flow::new(false) }.tcp(&tcp_header(sequence), &data);
                    sequence = sequence.wrapping_add(data.len() as u32);
                    segment
                }
                _ => vec![0xff; 60 + random.below(64) as usize],
            }
        };
        let frames = (0..512).map(|_| frame()).collect();
        Flood { random, frames, next: 0, since: Instant::now() }
    }
}

impl Wire for Flood {
    fn send(&mut self, _: &[u8]) -> bool {
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        if self.next.is_multiple_of(BATCH) {
            if self.since.elapsed() < PAUSE {
                return None;
            }
            self.since = Instant::now();
        }
        self.next = (self.next + 1) % self.frames.len();
        frame.clone_from(&self.frames[self.next]);
        Some(if self.random.below(64) == 0 { Arrival::BadFcs } else { Arrival::Good })
    }

    fn patient(&self) -> bool {
        true
    }
}
