//! What a loop does that finds nothing to do.

use std::time::Duration;

/// Rounds without a packet after which a loop counts as idle and gives back what it hoards; a power of two.
pub(crate) const IDLE_ROUNDS: u32 = 1024;

/// How long a nap is, besides the kernel's own 50 µs of slack.
pub(crate) const NAP: Duration = Duration::from_micros(1);

/// What a loop does that finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Looks again.
    Spin,
    /// Leaves the core for a moment to those who make the frames, which have no other. Not by yielding: who yields to somebody
    /// busy often enough has yielded for seconds.
    Nap,
}

impl Idle {
    /// For a loop beside which those who make the frames may, or may not, need its core.
    pub(crate) fn napping(needed: bool) -> Idle {
        if needed { Idle::Nap } else { Idle::Spin }
    }

    /// Let no magazine keep what others could use.
    pub(crate) fn rest(self) {
        pagewire_pool::flush_thread();
        if self == Idle::Nap {
            std::thread::sleep(NAP);
        }
    }
}

/// Rounds of a loop without a packet.
#[derive(Debug, Default)]
pub(crate) struct Rounds(u32);

impl Rounds {
    /// After a round that moved so many packets: whether it is time to rest.
    #[inline(always)]
    pub(crate) fn are_idle(&mut self, moved: usize) -> bool {
        if moved > 0 {
            self.0 = 0;
            return false;
        }
        self.0 = self.0.wrapping_add(1);
        self.0 & (IDLE_ROUNDS - 1) == 0
    }
}
