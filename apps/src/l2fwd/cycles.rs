//! What packets cost: cycles of the rounds that moved some.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::lane::LaneCounters;

/// Packets of which the cycles are recorded together: enough that the work which a loop does once in several rounds, such as
/// cleaning the transmit ring, has its share in each record.
const GROUP: u64 = 128;

/// How many cycles packets took.
#[derive(Debug, Default)]
pub(crate) struct Cycles {
    /// Rounds that moved packets, by how many.
    rounds: BTreeMap<usize, u64>,
    /// Groups of at least [`GROUP`] packets, by hundredths of a cycle a packet.
    groups: BTreeMap<u64, u64>,
    cycles: u64,
    packets: u64,
}

/// The group that a lane is at.
#[derive(Debug, Default, Clone)]
pub(super) struct Group {
    cycles: u64,
    packets: u64,
}

/// Cycles per packet.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct CyclesPerPacket {
    /// Packets in the most frequent kind of round.
    pub(crate) burst: usize,
    /// The median over groups of consecutive rounds with 128 packets or more: timer ticks drop out, what a loop does once in
    /// several rounds does not.
    pub(crate) median: f64,
    /// Over all rounds that moved packets.
    pub(crate) mean: f64,
    /// Rounds that moved packets.
    pub(crate) rounds: u64,
}

impl Cycles {
    /// A round of a lane that moved packets.
    pub(super) fn record(&mut self, group: &mut Group, packets: usize, cycles: u64, counters: &LaneCounters) {
        *self.rounds.entry(packets).or_insert(0) += 1;
        group.cycles += cycles;
        group.packets += packets as u64;
        if group.packets >= GROUP {
            self.close(group, counters);
        }
    }

    pub(super) fn close(&mut self, group: &mut Group, counters: &LaneCounters) {
        let Group { cycles, packets } = std::mem::take(group);
        if let Some(cost) = (cycles * 100).checked_div(packets) {
            *self.groups.entry(cost).or_insert(0) += 1;
            self.cycles += cycles;
            self.packets += packets;
            counters.cycles.fetch_add(cycles, Ordering::Relaxed);
            counters.recorded.fetch_add(packets, Ordering::Relaxed);
        }
    }

    /// The summary, once a round has moved packets.
    pub(crate) fn summary(&self) -> Option<CyclesPerPacket> {
        let (&burst, _) = self.rounds.iter().max_by_key(|(_, count)| **count)?;
        let middle = self.groups.values().sum::<u64>() / 2;
        let mut below = 0;
        let (&median, _) = self.groups.iter().find(|(_, count)| {
            below += **count;
            below > middle
        })?;
        Some(CyclesPerPacket {
            burst,
            median: median as f64 / 100.0,
            mean: self.cycles as f64 / self.packets as f64,
            rounds: self.rounds.values().sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_has_the_cleaning_in_it_and_no_ticks() {
        let (mut cycles, mut group, counters) =
            (Cycles::default(), Group::default(), LaneCounters::default());
        for round in 0..1600 {
            // Rounds of 8: every fourth cleans, and one in a hundred meets a tick.
            let took =
                800 + if round % 4 == 3 { 160 } else { 0 } + if round % 100 == 50 { 90_000 } else { 0 };
            cycles.record(&mut group, 8, took, &counters);
        }
        let summary = cycles.summary().expect("rounds");
        assert_eq!((summary.burst, summary.rounds, summary.median), (8, 1600, 105.0));
        assert_eq!(summary.mean, 105.0 + 900.0 / 8.0);
    }

    #[test]
    fn a_few_packets_are_a_group_too_and_none_are_nothing() {
        let (mut cycles, mut group, counters) =
            (Cycles::default(), Group::default(), LaneCounters::default());
        assert!(cycles.summary().is_none());
        cycles.record(&mut group, 2, 300, &counters);
        cycles.close(&mut group, &counters);
        assert_eq!(cycles.summary().map(|summary| summary.median), Some(150.0));
    }
}
