//! Time as the card has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Nanoseconds since the card was made: the machine's, or set by a test.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's time.
    Real(Instant),
    /// As somebody sets it.
    Set(Arc<AtomicU64>),
}

impl Default for Clock {
    fn default() -> Self {
        Self::Real(Instant::now())
    }
}

impl Clock {
    /// Now, in nanoseconds.
    pub fn now(&self) -> u64 {
        match self {
            Self::Real(start) => start.elapsed().as_nanos() as u64,
            Self::Set(now) => now.load(Relaxed),
        }
    }
}
