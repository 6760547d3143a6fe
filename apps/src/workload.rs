//! What a core does with its time: how much its polls find, and cycles with and without work.
//!
//! Counted in memory of the core's own, a number for each poll; what others read is written once in thousands of rounds. A round that moves packets reads no clock: its time is what lies between two that
//! move none, or between two publications.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::tsc;

/// The largest poll that is told apart: the largest burst there is.
pub(crate) const MOST: usize = 1024;
/// 0, 1, 2–3, 4–7, …, 512–1023, and more.
const BUCKETS: usize = 12;
/// Rounds between two publications.
const ROUNDS: u32 = 8192;

/// What others see of it; written by one core.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct CoreCounters {
    busy: AtomicU64,
    idle: AtomicU64,
    packets: AtomicU64,
    polls: [AtomicU64; BUCKETS],
}

/// The same for people and programs, since the start.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct WorkReport {
    /// Cycles of the time stamp counter in rounds that moved packets, and in all others, naps and sleep included.
    busy_cycles: u64,
    idle_cycles: u64,
    packets: u64,
    /// Busy cycles for each packet, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cycles_per_packet: Option<f64>,
    bursts: Bursts,
}

/// How much polls found.
#[derive(Serialize, Clone, Debug)]
struct Bursts {
    /// The least that is counted in the same place of `polls`.
    from: [u64; BUCKETS],
    polls: [u64; BUCKETS],
}

/// The core's own side.
pub(crate) struct Workload {
    counters: Arc<CoreCounters>,
    /// Polls since the last publication, by what they found.
    found: [u64; MOST + 1],
    /// Rounds until the next.
    left: u32,
    /// How many were left at the last round that moved nothing.
    empty_at: u32,
    /// Up to when cycles are counted.
    until: u64,
    /// The least that a round that moves nothing took behind another: more is somebody else's time, or a rest's.
    empty: u64,
    busy: u64,
    idle: u64,
}

impl Workload {
    pub(crate) fn new(counters: Arc<CoreCounters>) -> Workload {
        let (found, until) = ([0; MOST + 1], tsc::read());
        Workload { counters, found, left: ROUNDS, empty_at: ROUNDS + 1, until, empty: 0, busy: 0, idle: 0 }
    }

    /// A poll has found so many packets.
    #[inline(always)]
    pub(crate) fn polled(&mut self, found: usize) {
        self.found[found.min(MOST)] += 1;
    }

    /// A round of polls is over, which moved so many packets.
    #[inline(always)]
    pub(crate) fn round(&mut self, moved: usize) {
        if moved == 0 {
            self.idled();
        }
        self.left -= 1;
        if self.left == 0 {
            self.publish();
        }
    }

    /// Whether the round before this one moved nothing.
    fn was_empty(&self) -> bool {
        self.empty_at == self.left + 1
    }

    /// Out of the way of rounds that move packets.
    #[inline(never)]
    fn idled(&mut self) {
        let now = tsc::read();
        let took = now.wrapping_sub(self.until);
        if self.was_empty() {
            self.empty = if self.empty == 0 { took } else { self.empty.min(took) };
            self.idle += took;
        } else {
            let own = self.empty.min(took);
            self.idle += own;
            self.busy += took - own;
        }
        (self.until, self.empty_at) = (now, self.left);
    }

    /// The core rested, behind a round that moved nothing.
    pub(crate) fn rested(&mut self) {
        let now = tsc::read();
        self.idle += now.wrapping_sub(self.until);
        self.until = now;
    }

    /// Let others see it.
    #[cold]
    #[inline(never)]
    pub(crate) fn publish(&mut self) {
        let now = tsc::read();
        let took = now.wrapping_sub(self.until);
        let was_empty = self.was_empty();
        *if was_empty { &mut self.idle } else { &mut self.busy } += took;
        (self.until, self.left) = (now, ROUNDS);
        self.empty_at = if was_empty { ROUNDS + 1 } else { 0 };
        let mut packets = 0;
        let mut polls = [0; BUCKETS];
        for (size, count) in self.found.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            packets += size as u64 * *count;
            polls[bucket(size)] += std::mem::take(count);
        }
        let CoreCounters { busy, idle, packets: all, polls: of_all } = &*self.counters;
        // Nobody else writes.
        let add = |counter: &AtomicU64, more| {
            counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        };
        add(busy, std::mem::take(&mut self.busy));
        add(idle, std::mem::take(&mut self.idle));
        add(all, packets);
        of_all.iter().zip(polls).filter(|(_, more)| *more > 0).for_each(|(counter, more)| add(counter, more));
    }
}

impl CoreCounters {
    pub(crate) fn report(&self) -> WorkReport {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (busy, packets) = (get(&self.busy), get(&self.packets));
        WorkReport {
            busy_cycles: busy,
            idle_cycles: get(&self.idle),
            packets,
            cycles_per_packet: (packets > 0).then(|| busy as f64 / packets as f64),
            bursts: Bursts {
                from: std::array::from_fn(|bucket| (1 << bucket) >> 1),
                polls: std::array::from_fn(|bucket| get(&self.polls[bucket])),
            },
        }
    }
}

/// Where a poll of this size is counted.
fn bucket(size: usize) -> usize {
    (usize::BITS - size.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_counted_by_powers_of_two() {
        let counters = Arc::new(CoreCounters::default());
        let mut workload = Workload::new(counters.clone());
        let sizes = [0, 0, 0, 1, 2, 3, 4, 7, 8, 32, 63, 512, 1023, 1024];
        for size in sizes {
            workload.polled(size);
            workload.round(size);
        }
        assert_eq!(counters.report().packets, 0, "not for each round");
        workload.publish();
        let report = counters.report();
        assert_eq!(report.packets as usize, sizes.iter().sum::<usize>());
        assert_eq!(report.bursts.from, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]);
        assert_eq!(report.bursts.polls, [3, 1, 2, 2, 1, 0, 2, 0, 0, 0, 2, 1]);
        (0..ROUNDS).for_each(|_| {
            workload.polled(1);
            workload.round(1);
        });
        assert_eq!(counters.report().bursts.polls[1], 1 + u64::from(ROUNDS), "in time, by itself");
    }

    /// All the time there is, between the first and the last publication, is one or the other.
    #[test]
    fn time_is_busy_or_idle_and_nothing_of_it_is_lost() {
        let spin = |cycles: u64| {
            let start = tsc::read();
            while tsc::read() - start < cycles {}
        };
        let counters = Arc::new(CoreCounters::default());
        let start = tsc::read();
        let mut workload = Workload::new(counters.clone());
        let [mut worked, mut rested] = [0; 2];
        for round in 0..200 {
            // Two that find nothing, and one that works.
            let moved = if round % 3 == 2 { 32 } else { 0 };
            let before = tsc::read();
            spin(if moved > 0 { 1_000_000 } else { 20_000 });
            workload.polled(moved);
            workload.round(moved);
            *if moved > 0 { &mut worked } else { &mut rested } += tsc::read() - before;
            if round % 50 == 49 {
                let before = tsc::read();
                spin(5_000_000);
                workload.rested();
                rested += tsc::read() - before;
            }
        }
        workload.publish();
        let whole = tsc::read() - start;
        let report = counters.report();
        let sum = report.busy_cycles + report.idle_cycles;
        assert!(sum <= whole && sum as f64 > 0.999 * whole as f64, "{sum} of {whole}");
        // A pause that another process makes of a round counts for both.
        let ratio = report.busy_cycles as f64 / worked as f64;
        assert!((0.9..1.1).contains(&ratio), "{report:?}, and {worked} worked, {rested} rested");
        let per_packet = report.cycles_per_packet.expect("packets");
        assert_eq!(per_packet, report.busy_cycles as f64 / (66.0 * 32.0));
    }
}
