//! A liar that tells any lie, at random.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pagewire_ethdev::nic::testing::Random;
use pagewire_models::Host;

use super::liar::{Liar, Ring, Write};

/// Addresses of a card's former writes to memory that are kept, to write there again.
const REMEMBERED: usize = 256;

/// What can be a lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A register's value.
    Read,
    /// What a register is written.
    Written,
    /// Memory as the card reads it: descriptors, and frames to send.
    Fetched,
    /// Write-backs of receive descriptors.
    Status,
    /// Those of transmit descriptors.
    Report,
    /// Received frames.
    Data,
    /// Interrupts.
    Interrupt,
    /// Writes to memory that nothing asked for.
    Scribble,
}

impl Kind {
    const ALL: [(Kind, u64, u64); 8] = [
        // Of each kind: one in so many at most is a lie, halved so many times less one at least.
        (Kind::Read, 4, 10),
        (Kind::Written, 8, 10),
        (Kind::Fetched, 8, 8),
        (Kind::Status, 2, 8),
        (Kind::Report, 2, 8),
        (Kind::Data, 4, 8),
        (Kind::Interrupt, 2, 4),
        (Kind::Scribble, 2, 6),
    ];
}

/// Lies by kind.
#[derive(Debug, Default)]
pub(crate) struct Told([AtomicU64; Kind::ALL.len()]);

impl Told {
    pub(crate) fn all(&self) -> u64 {
        Kind::ALL.iter().map(|(kind, ..)| self.of(*kind)).sum()
    }

    fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Relaxed)
    }

    pub(crate) fn by_kind(&self) -> Vec<(Kind, u64)> {
        Kind::ALL.iter().map(|(kind, ..)| (*kind, self.of(*kind))).collect()
    }
}

/// One in so many of each kind is a lie; 0 for none.
type Odds = [u64; Kind::ALL.len()];

fn choose(random: &mut Random) -> Odds {
    Kind::ALL.map(|(_, most_often, seldom)| match random.below(3) {
        0 => 0,
        _ => most_often << random.below(seldom),
    })
}

/// Tells lies, and counts them.
pub(crate) struct Mutator {
    random: Random,
    odds: Odds,
    /// Things that may be lied about until the odds change.
    left: u64,
    told: Arc<Told>,
    /// From now on the card is not there.
    gone: bool,
    /// Where the card wrote before, some of it in memory that it no longer has.
    places: Vec<u64>,
    /// Writes that happen later.
    held: Vec<(u64, Vec<u8>)>,
    /// What the driver read last.
    last: u32,
    /// Something happened since the last poll, or that many polls ago.
    idle: u32,
}

impl Mutator {
    pub(crate) fn new(seed: u64, told: Arc<Told>) -> Mutator {
        let mut random = Random::seeded(seed);
        let odds = choose(&mut random);
        let (places, held) = (Vec::new(), Vec::new());
        Mutator { random, odds, left: 10_000, told, gone: false, places, held, last: 0, idle: 0 }
    }

    /// Whether the next thing of this kind is a lie.
    fn lies(&mut self, kind: Kind) -> bool {
        self.idle = 0;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.left = 200 << self.random.below(8);
            self.odds = choose(&mut self.random);
            self.gone = self.random.below(64) == 0;
        }
        let one_in = self.odds[kind as usize];
        let lies = one_in > 0 && self.random.below(one_in) == 0;
        self.told.0[kind as usize].fetch_add(lies.into(), Relaxed);
        lies
    }

    fn value(&mut self, value: u32) -> u32 {
        match self.random.below(8) {
            0 => 0,
            1 => u32::MAX,
            2 => self.last,
            3 | 4 => value ^ 1 << self.random.below(32),
            5 => value.wrapping_add(1),
            6 => !value,
            _ => self.random.next() as u32,
        }
    }

    /// A received descriptor's second word: done, a frame's end, broken, or long; or anything.
    fn status(&mut self, word: u64) -> u64 {
        match self.random.below(10) {
            0 => word ^ 1,
            1 | 2 => word ^ 2,
            3 => word ^ 1 << self.random.below(64),
            4 => word & !(0xffff << 32),
            5 | 6 => word & !(0xffff << 32) | self.random.below(0x1_0000) << 32,
            7 => word | 1 << 29,
            8 => self.random.next() | 1,
            _ => self.random.next(),
        }
    }

    /// Somewhere the card wrote before, or anywhere.
    fn place(&mut self) -> u64 {
        match self.places.len() as u64 {
            count @ 1.. if self.random.below(8) > 0 => self.places[self.random.below(count) as usize],
            _ => self.random.next() >> self.random.below(64),
        }
    }

    /// Write to memory that is not the card's, or to descriptors that it is not the turn of: one, or a ring of them.
    fn scribble(&mut self, rings: &[Ring], host: &mut dyn Host) {
        let ring = rings.get(self.random.below(rings.len().max(1) as u64) as usize);
        let Some(ring) = ring.filter(|_| self.random.below(8) > 0) else {
            // Where that is not allowed, nothing happens, and the server counts it.
            let _ = host.dma_write(self.place(), &self.random.next().to_le_bytes());
            return;
        };
        let descriptors = ring.bytes / 16;
        let count = if self.random.below(16) == 0 { descriptors } else { 1 };
        let start = self.random.below(descriptors);
        for descriptor in (start..start + count).map(|index| index % descriptors) {
            let (iova, done) = (ring.first + descriptor * 16 + 8, if ring.receive { 1 } else { 1 << 32 });
            let mut word = [0; 8];
            // One that the driver has not looked at since it was done last is no new lie.
            if host.dma_read(iova, &mut word).is_err() || u64::from_le_bytes(word) & done != 0 {
                continue;
            }
            let word = match (ring.receive, self.random.below(2)) {
                (true, 0) => self.random.below(1792) << 32 | 3,
                (true, _) => self.status(3),
                (false, 0) => u64::from_le_bytes(word) | done,
                (false, _) => self.random.next(),
            };
            let _ = host.dma_write(iova, &word.to_le_bytes());
            self.told.0[Kind::Scribble as usize].fetch_add(1, Relaxed);
        }
    }
}

impl Liar for Mutator {
    fn read(&mut self, _: u64, value: u32) -> u32 {
        let lies = self.lies(Kind::Read);
        let value = match lies {
            _ if self.gone => u32::MAX,
            true => self.value(value),
            false => value,
        };
        self.last = value;
        value
    }

    fn written(&mut self, _: u64, value: &mut u32) -> bool {
        let lies = self.lies(Kind::Written);
        if lies && self.random.below(2) == 0 {
            return false;
        }
        if lies {
            *value = self.value(*value);
        }
        !self.gone
    }

    fn fetched(&mut self, _: u64, data: &mut [u8]) {
        let len = data.len() as u64;
        if len > 0 && self.lies(Kind::Fetched) {
            data[self.random.below(len) as usize] = self.random.next() as u8;
        }
    }

    fn write(&mut self, what: Write, iova: &mut u64, data: &mut [u8]) -> bool {
        let lies = match what {
            Write::Kind | Write::Status => self.lies(Kind::Status),
            Write::Report => self.lies(Kind::Report),
            Write::Data => self.lies(Kind::Data),
        };
        let at = self.places.len();
        match at < REMEMBERED {
            true => self.places.push(*iova),
            false => self.places[self.random.below(REMEMBERED as u64) as usize] = *iova,
        }
        if !lies {
            return !self.gone;
        }
        match (self.random.below(8), what) {
            (0, _) => return false,
            (1, _) if self.held.len() < 64 => {
                self.held.push((*iova, data.to_vec()));
                return false;
            }
            (2, Write::Data) => *iova = self.place(),
            (3, Write::Status | Write::Report) => *iova = iova.wrapping_add(16 * self.random.below(8)),
            (_, Write::Status) => {
                let word = <[u8; 8]>::try_from(&*data).map_or(0, u64::from_le_bytes);
                data.copy_from_slice(&self.status(word).to_le_bytes());
            }
            _ => data.iter_mut().for_each(|byte| *byte = self.random.next() as u8),
        }
        !self.gone
    }

    fn interrupts(&mut self) -> u32 {
        match self.lies(Kind::Interrupt) {
            true => self.random.below(100) as u32 * self.random.below(2) as u32,
            false => 1,
        }
    }

    fn polled(&mut self, rings: &[Ring], host: &mut dyn Host) {
        // Last come, first done.
        while self.random.below(8) == 0
            && let Some((iova, data)) = self.held.pop()
        {
            let _ = host.dma_write(iova, &data);
        }
        // While nothing happens, seldom: but often enough that a ring which waits for what never comes goes on.
        let idle = self.idle;
        if !idle.is_multiple_of(16) || !self.lies(Kind::Scribble) {
            self.idle = idle.wrapping_add(1);
            return;
        }
        (0..=self.random.below(8)).for_each(|_| self.scribble(rings, host));
        self.idle = idle.wrapping_add(1);
        if self.lies(Kind::Interrupt) {
            host.interrupt(0);
        }
        self.idle = idle.wrapping_add(1);
    }
}
