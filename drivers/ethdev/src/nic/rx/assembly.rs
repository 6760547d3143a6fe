//! Frames of several fragments, as descriptors bring them.

use std::sync::atomic::Ordering;

use pagewire_pool::{Chain, Packet, PacketFlags, Posted};

use super::{RxCounters, RxFormat};
use crate::posted_ring::written;

/// Where in a frame the next descriptor is.
pub(super) enum Assembly {
    /// At its start.
    Between,
    /// After these segments.
    Partial(Chain),
    /// In one that could not be put together: the rest of it goes too.
    Skipping,
}

/// What a frame may be at most. The card's own limit is that of the longest frame there is.
#[derive(Clone, Copy)]
pub(crate) struct RxLimits {
    /// Bytes.
    pub(super) frame: usize,
    /// Segments, each but the last of them full.
    pub(super) segments: u16,
}

impl RxLimits {
    /// For frames of `frame` bytes in buffers of `buffer`.
    pub(crate) fn new(frame: usize, buffer: usize) -> RxLimits {
        RxLimits { frame, segments: frame.div_ceil(buffer) as u16 }
    }
}

impl Assembly {
    /// A fragment that is not a whole good packet: part of a chain, or broken.
    ///
    /// Returns the packet once its end is there.
    pub(super) fn add<F: RxFormat>(
        &mut self,
        status: u64,
        done: Posted,
        headroom: u16,
        limits: RxLimits,
        counters: &RxCounters,
    ) -> Option<Packet> {
        let end = status & F::END != 0;
        let whole = match self {
            Assembly::Skipping => None,
            // Only the last descriptor of a frame says whether it is broken; then all of it goes.
            _ if status & F::BROKEN != 0 => None,
            _ => done.complete(headroom, written(status), PacketFlags::empty()).ok(),
        };
        self.extend(end, whole, limits, counters)
    }

    /// The next segment of a frame, or `None` for one that spoils it. Returns the packet if that was the `end`.
    pub(super) fn extend(
        &mut self,
        end: bool,
        segment: Option<Packet>,
        limits: RxLimits,
        counters: &RxCounters,
    ) -> Option<Packet> {
        let before = std::mem::replace(self, Assembly::Between);
        let chain = match (before, segment) {
            (Assembly::Between, Some(segment)) => Some(Chain::new(segment)),
            (Assembly::Partial(mut chain), Some(segment)) => chain.push(segment).is_ok().then_some(chain),
            (Assembly::Skipping, _) => {
                *self = if end { Assembly::Between } else { Assembly::Skipping };
                return None;
            }
            (_, None) => None,
        };
        let too_long = |chain: &Chain| chain.len() > limits.frame || chain.segments() > limits.segments;
        if chain.as_ref().is_some_and(too_long) {
            counters.longer_than_mtu.fetch_add(1, Ordering::Relaxed);
        }
        let Some(chain) = chain.filter(|chain| !too_long(chain)) else {
            counters.queue.count_errors(1);
            *self = if end { Assembly::Between } else { Assembly::Skipping };
            return None;
        };
        if !end {
            *self = Assembly::Partial(chain);
            return None;
        }
        Some(chain.finish())
    }

    /// Fragments of the frame so far.
    pub(super) fn held(&self) -> usize {
        match self {
            Assembly::Partial(chain) => chain.segments().into(),
            _ => 0,
        }
    }
}
