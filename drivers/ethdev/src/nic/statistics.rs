//! Statistics registers, cleared by reading or running on, made into 64-bit counts.

use super::registers::{Register, Registers};
use crate::stats::XStat;

/// A counter of a card.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// Its name among the xstats.
    pub name: &'static str,
    /// Its register; of an array, the sum is counted.
    pub low: Register,
    /// Its upper half, read after the lower one, which clears both.
    pub high: Option<Register>,
    /// Bits of the upper half that count.
    pub high_mask: u32,
    /// Bits that it has in all if it runs on when it is read; 0 if reading clears it.
    pub runs_on: u32,
}

/// Makes `COUNTERS`, a table of [`Counter`](crate::nic::Counter)s: name, register and its offset, and where its upper half lies, with
/// the mask of what it has if not all 32 bits, or how long its array is; and of how many bits it runs on if reading does not clear it.
///
/// ```
/// pagewire_ethdev::counters! {
///     "rx_crc_errors"     CRCERRS 0x4000;
///     "rx_good_bytes"     GORC    0x4088 + 0x408c & 0xf;
///     "rx_missed_packets" RXMPC   0x3fa0 [4 x 8];
///     "tx_good_packets"   VFGPTC  0x201c runs on 32;
/// }
/// assert_eq!((COUNTERS.len(), COUNTERS[1].high_mask, COUNTERS[2].low.count, COUNTERS[3].runs_on), (4, 0xf, 8, 32));
/// ```
#[macro_export]
macro_rules! counters {
    ($($name:literal $register:ident $low:literal $(+ $high:literal $(& $mask:literal)?)? $([$stride:literal x $count:literal])? $(runs on $bits:literal)?;)*) => {
        pub(crate) const COUNTERS: &[$crate::nic::Counter] = &[$({
            #[allow(unused_mut, unused_assignments)]
            let mut high = None;
            $(high = Some($crate::nic::Register { name: stringify!($register), offset: $high, stride: 0, count: 1 });)?
            $crate::nic::Counter {
                name: $name,
                low: $crate::nic::Register {
                    name: stringify!($register),
                    offset: $low,
                    stride: 0 $(+ $stride)?,
                    count: 1 $(* $count)?,
                },
                high,
                high_mask: u32::MAX $($(& $mask)?)?,
                runs_on: 0 $(+ $bits)?,
            }
        }),*];
    };
}

/// Counts since the port was opened.
pub(super) struct Statistics {
    counters: &'static [Counter],
    totals: Vec<u64>,
    /// What those that run on held when they were last read.
    last: Vec<u64>,
}

impl Statistics {
    pub(super) fn new(counters: &'static [Counter]) -> Statistics {
        Statistics { counters, totals: vec![0; counters.len()], last: vec![0; counters.len()] }
    }

    /// Read, and thereby clear, every register: what they hold from before is nobody's.
    pub(super) fn clear(&mut self, registers: &Registers) {
        for (last, counter) in self.last.iter_mut().zip(self.counters) {
            *last = counter.read(registers);
        }
    }

    /// Add what the registers have counted since they were last read. Whatever they say, totals never go down.
    pub(super) fn update(&mut self, registers: &Registers) {
        for ((total, last), counter) in self.totals.iter_mut().zip(&mut self.last).zip(self.counters) {
            let value = counter.read(registers);
            let more = match counter.runs_on {
                0 => value,
                // Nobody is there, or it was reset.
                _ if value == 0 => continue,
                // What seems to have gone back was reset as well: from there on.
                bits => match value.wrapping_sub(*last) & (u64::MAX >> (64 - bits.min(64))) {
                    more if more >> (bits - 1) == 0 => more,
                    _ => 0,
                },
            };
            *last = value;
            *total = total.saturating_add(more);
        }
    }

    /// The sum of the counters with these names.
    pub(super) fn sum(&self, names: &[&str]) -> u64 {
        let named =
            self.counters.iter().zip(&self.totals).filter(|(counter, _)| names.contains(&counter.name));
        named.fold(0, |sum, (_, total)| sum.saturating_add(*total))
    }

    pub(super) fn xstats(&self) -> impl Iterator<Item = XStat> {
        self.counters
            .iter()
            .zip(&self.totals)
            .map(|(counter, &value)| XStat { name: counter.name.into(), value })
    }
}

impl Counter {
    fn read(&self, registers: &Registers) -> u64 {
        let read = |register, index| match registers.take_at(register, index) {
            // A card that was pulled out reads as all ones, which no counter reaches in the time between two reads.
            u32::MAX => 0,
            value => u64::from(value),
        };
        let low: u64 = (0..self.low.count).map(|index| read(self.low, index)).sum();
        let high = self.high.map_or(0, |high| read(high, 0) & u64::from(self.high_mask));
        low.saturating_add(high << 32)
    }
}

#[cfg(test)]
mod tests {
    use pagewire_pci::{AddressSpace, AddressSpaceOptions, mock};

    use super::super::testing::plain::Memory;
    use super::*;

    crate::counters! {
        "frames"   FRAMES   0x2000 [4 x 2];
        "bytes"    BYTES    0x2008 + 0x200c;
        "36 bits"  NARROW   0x2010 + 0x2014 & 0xf;
        "runs on"  RUNNING  0x2018 runs on 32;
    }

    /// Registers that say what they like: no total goes down, and none takes more than its register has bits.
    #[test]
    fn totals_only_grow() {
        let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
        let (function, card) = mock::open(&space, (1, 2), 0x2000..0x3000, Memory).unwrap();
        let registers = Registers::new(function.bar(0).unwrap());
        let mut statistics = Statistics::new(COUNTERS);
        let mut update = |value| {
            (0x2000..0x201c).step_by(4).for_each(|offset| card.set(offset, value));
            statistics.update(&registers);
            statistics.xstats().map(|stat| stat.value).collect::<Vec<u64>>()
        };
        assert_eq!(update(5), [10, 5 << 32 | 5, 5 << 32 | 5, 5]);
        // Nobody is there.
        assert_eq!(update(u32::MAX), [10, 5 << 32 | 5, 5 << 32 | 5, 5]);
        let most = u64::from(u32::MAX - 1);
        assert_eq!(update(u32::MAX - 1), [10 + 2 * most, u64::MAX, (5 << 32 | 5) + (0xe << 32 | most), 5]);
        assert_eq!(update(0), [10 + 2 * most, u64::MAX, (5 << 32 | 5) + (0xe << 32 | most), 5]);
        // Past its end it goes on from 0.
        assert_eq!(update(7)[3], 5 + 9);
        assert_eq!(update(100)[3], 5 + 9 + 93);
        assert_eq!(statistics.sum(&["bytes", "frames"]), u64::MAX);
    }
}
