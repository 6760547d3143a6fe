//! A wire whose frames are counted.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Arrival, Wire, single_writer_add};

/// Frames and their bytes without FCS, as the card sees them.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames that the card took from the wire, whatever it did with them.
    pub received: AtomicU64,
    /// Their bytes.
    pub received_bytes: AtomicU64,
    /// Frames that the card put on the wire.
    pub sent: AtomicU64,
    /// Their bytes.
    pub sent_bytes: AtomicU64,
}

/// Another wire, and counters of what passes.
pub struct Meter {
    wire: Box<dyn Wire>,
    counts: Arc<Counts>,
}

impl Meter {
    /// Around a wire.
    pub fn new(wire: Box<dyn Wire>) -> Self {
        Self { wire, counts: Arc::default() }
    }

    /// The counters, to be looked at while the wire is used elsewhere.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }
}

impl Wire for Meter {
    fn send(&mut self, frame: &[u8]) -> bool {
        let sent = self.wire.send(frame);
        if sent {
            single_writer_add(&self.counts.sent, 1);
            single_writer_add(&self.counts.sent_bytes, frame.len() as u64);
        }
        sent
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        let arrival = self.wire.receive(frame)?;
        single_writer_add(&self.counts.received, 1);
        single_writer_add(&self.counts.received_bytes, frame.len() as u64);
        Some(arrival)
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
    use super::super::pair;
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn what_passes_is_counted_and_what_does_not_is_not() {
        let (a, mut b) = pair();
        let mut meter = Meter::new(Box::new(a));
        let counts = meter.counts();
        let mut sent = 0;
        while meter.send(&[0; 60]) {
            sent += 1;
        }
        assert!(b.send(&[1; 100]) && meter.receive(&mut Vec::new()).is_some());
        assert_eq!(meter.receive(&mut Vec::new()), None);
        let read = [&counts.sent, &counts.sent_bytes, &counts.received, &counts.received_bytes];
        assert_eq!(read.map(|counter| counter.load(Relaxed)), [sent, 60 * sent, 1, 100]);
        // All else is the wire's.
        assert!(meter.carrier() && !meter.patient());
        meter.light(false);
        assert!(!b.carrier());
        drop(b);
        assert!(!meter.carrier());
    }
}
