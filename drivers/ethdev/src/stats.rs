use std::sync::atomic::{AtomicU64, Ordering};

/// What a port counted since it was opened. Hardware counts where the card has them, else the queues' own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames received into the application's reach.
    pub rx_packets: u64,
    /// Bytes of them, without the frame check sequence.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes of them, without the frame check sequence.
    pub tx_bytes: u64,
    /// Frames the card dropped because the receive ring or its own buffer was full: the application is too slow.
    pub rx_missed: u64,
    /// Frames received with an error (checksum of the frame, length, alignment, symbol).
    pub rx_errors: u64,
    /// Frames the card could not send.
    pub tx_errors: u64,
    /// Times a queue had a frame to take but its pool had no fragment to put in its place. Nothing is lost by it
    /// alone: the frame waits in the ring.
    pub rx_nombuf: u64,
}

impl Stats {
    /// What the queues alone know.
    pub fn from_queues(rx: &[QueueStats], tx: &[QueueStats]) -> Stats {
        let mut stats = Stats::default();
        for queue in rx {
            stats.rx_packets += queue.packets;
            stats.rx_bytes += queue.bytes;
            stats.rx_errors += queue.errors;
            stats.rx_nombuf += queue.nombuf;
        }
        for queue in tx {
            stats.tx_packets += queue.packets;
            stats.tx_bytes += queue.bytes;
            stats.tx_errors += queue.errors;
        }
        stats
    }
}

/// A counter with its name, as the datasheet or the driver calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XStat {
    /// Name, `snake_case`.
    pub name: String,
    /// Count since the port was opened.
    pub value: u64,
}

/// What one queue counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Packets received or sent.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets dropped because their descriptors made no sense or said that they are broken.
    pub errors: u64,
    /// See [`Stats::rx_nombuf`].
    pub nombuf: u64,
}

/// A queue's counters: written by the core that owns it, once a burst; read by anybody, without a lock.
///
/// On cache lines of its own, so that a reader disturbs the writer at most once a burst, and other queues not at all.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueueCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    nombuf: AtomicU64,
}

/// One writer: a plain addition in memory, without the bus lock of a read-modify-write.
#[inline(always)]
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

impl QueueCounters {
    /// Count a burst.
    #[inline(always)]
    pub fn count(&self, packets: usize, bytes: u64) {
        add(&self.packets, packets as u64);
        add(&self.bytes, bytes);
    }

    /// Count dropped packets.
    #[cold]
    pub fn count_errors(&self, errors: u64) {
        add(&self.errors, errors);
    }

    /// Count a receive that stopped for want of a fragment.
    #[cold]
    pub fn count_nombuf(&self) {
        add(&self.nombuf, 1);
    }

    /// The counts so far.
    pub fn stats(&self) -> QueueStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueStats {
            packets: get(&self.packets),
            bytes: get(&self.bytes),
            errors: get(&self.errors),
            nombuf: get(&self.nombuf),
        }
    }
}
