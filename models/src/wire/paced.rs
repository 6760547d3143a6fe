//! A wire that carries so much and no more.

use std::time::{Duration, Instant};

use super::{Arrival, Wire};

/// Bytes of a frame on the wire besides its own: check sequence, preamble and gap.
const OVERHEAD: usize = 4 + 8 + 12;

/// How much of its past the wire makes up for: who sends may have had no core meanwhile, as a card never has.
const CATCH_UP: Duration = Duration::from_millis(10);

/// A wire that takes so many bits a second, check sequence, preamble and gap of each frame included, and has no room for more.
/// What is received is as fast as the other end.
#[derive(Debug)]
pub struct Paced<W> {
    wire: W,
    /// Nanoseconds of a byte.
    byte: f64,
    start: Instant,
    /// When all that was sent has left, in nanoseconds since the start.
    free: f64,
}

impl<W: Wire> Paced<W> {
    /// # Panics
    ///
    /// If it is to carry nothing.
    pub fn new(wire: W, bits_per_second: u64) -> Paced<W> {
        assert!(bits_per_second > 0, "a wire that carries nothing");
        Paced { wire, byte: 8e9 / bits_per_second as f64, start: Instant::now(), free: 0.0 }
    }

    fn send_at(&mut self, now: Duration, frame: &[u8]) -> bool {
        let nanos = |time: Duration| time.as_nanos() as f64;
        if self.free > nanos(now) || !self.wire.send(frame) {
            return false;
        }
        let length = frame.len().max(super::MIN_FRAME) + OVERHEAD;
        self.free = self.free.max(nanos(now) - nanos(CATCH_UP)) + length as f64 * self.byte;
        true
    }
}

impl<W: Wire> Wire for Paced<W> {
    fn send(&mut self, frame: &[u8]) -> bool {
        self.send_at(self.start.elapsed(), frame)
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        self.wire.receive(frame)
    }

    fn patient(&self) -> bool {
        self.wire.patient()
    }

    fn carrier(&mut self) -> bool {
        self.wire.carrier()
    }

    fn light(&mut self, on: bool) {
        self.wire.light(on);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Open, pair};

    /// 64 bytes with check sequence, preamble and gap are 672 bits: at a gigabit a second, as many nanoseconds.
    const FRAME: [u8; 60] = [0; 60];
    const GIGABIT: u64 = 1_000_000_000;

    /// How many frames it takes at a time.
    fn takes(wire: &mut Paced<Open>, nanos: u64, frame: &[u8]) -> usize {
        (0..).take_while(|_| wire.send_at(Duration::from_nanos(nanos), frame)).count()
    }

    #[test]
    fn a_frame_leaves_when_the_one_before_it_has_left() {
        let mut wire = Paced::new(Open, GIGABIT);
        assert_eq!(
            [0, 671, 672, 673, 1343, 1344].map(|now| takes(&mut wire, now, &FRAME)),
            [1, 0, 1, 0, 0, 1]
        );
        // Less than the least is padded, and a long one takes longer.
        assert_eq!([2016, 2687, 2688].map(|now| takes(&mut wire, now, &[0; 14])), [1, 0, 1]);
        assert_eq!(
            [3360, 3360 + 12303, 3360 + 12304].map(|now| takes(&mut wire, now, &[0; 1514])),
            [1, 0, 1]
        );
    }

    #[test]
    fn time_in_which_nobody_ran_is_made_up_for_and_no_more() {
        let mut wire = Paced::new(Open, GIGABIT);
        // 5 ms are 7441 frames, of which the last leaves a little later.
        assert_eq!(takes(&mut wire, 5_000_000, &FRAME), 7_441);
        assert_eq!(takes(&mut wire, 10_000_000, &FRAME), 7_440);
        // Of ten seconds, 10 ms.
        assert_eq!(takes(&mut wire, 10_000_000_000, &FRAME), 14_881);
    }

    #[test]
    fn what_the_wire_has_no_room_for_takes_no_time() {
        let (end, mut other) = pair();
        let mut wire = Paced::new(end, GIGABIT);
        let second = Duration::from_secs(1);
        let sent = (0..).take_while(|_| wire.send_at(second, &FRAME)).count();
        let mut frame = Vec::new();
        (0..sent).for_each(|_| assert!(other.receive(&mut frame).is_some()));
        let free = wire.free;
        (0..sent).for_each(|_| assert!(wire.send_at(second, &FRAME)));
        assert!(!wire.send_at(second, &FRAME));
        assert!((wire.free - free - 672.0 * sent as f64).abs() < 1.0);
    }
}
