//! Two threads, each with a pool, hold, hand on and drop fragments of both at random; every fragment is accounted for at the end.
//!
//! `STRESS_OPERATIONS=1e9 cargo test --release -p pagewire-pool --test stress -- --nocapture` does it for longer.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Instant;

use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{
    Chain, Packet, PacketFlags, PageSize, Pool, PoolConfig, PoolMonitor, flush_thread, release_bulk,
};

/// Allocations and drops of fragments, unless asked for otherwise.
const OPERATIONS: f64 = 1e7;
const FRAGMENTS: usize = 2048;
/// Fragments that a party holds before it does nothing but drop.
const MOST_HELD: usize = 1200;
/// Packets handed to the other party at a time.
const HANDED: usize = 64;

/// Numbers that are random enough, and the same in each run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * limit as u128) >> 64) as usize
    }
}

/// A packet and what was written into it. Whoever else is given the same fragment writes something else.
struct Held {
    packet: Packet,
    mark: u64,
}

impl Held {
    fn check(&self) {
        let found =
            self.packet.as_slice().and_then(|data| data.first_chunk().copied()).map(u64::from_ne_bytes);
        assert_eq!(found, Some(self.mark), "a fragment is held twice");
    }
}

struct Party {
    number: usize,
    pool: Pool,
    random: Random,
    held: Vec<Held>,
    /// Fragments allocated from its pool.
    allocated: u64,
    /// Fragments dropped, by the pool they came from.
    dropped: [u64; 2],
    to_other: SyncSender<Vec<Held>>,
    from_other: Receiver<Vec<Held>>,
}

impl Party {
    fn operations(&self) -> u64 {
        self.allocated + self.dropped[0] + self.dropped[1]
    }

    fn keep(&mut self, mut packet: Packet) {
        let mark = self.allocated << 1 | self.number as u64;
        packet.extend_from_slice(&mark.to_ne_bytes()).expect("a fresh packet has room");
        self.allocated += 1;
        self.held.push(Held { packet, mark });
    }

    /// Take the packet at `index` out, to be dropped.
    fn give_up(&mut self, index: usize) -> Packet {
        let held = self.held.swap_remove(index);
        held.check();
        self.dropped[(held.mark & 1) as usize] += 1;
        held.packet
    }

    fn perform(&mut self) {
        let many = 1 + self.random.below(HANDED);
        let few = 1 + self.random.below(8);
        match self.random.below(if self.held.len() > MOST_HELD { 5 } else { 12 }) {
            0..3 => {
                for _ in 0..few.min(self.held.len()) {
                    let index = self.random.below(self.held.len());
                    drop(self.give_up(index));
                }
            }
            3 => {
                let mut slots = [const { None }; HANDED];
                let count = many.min(self.held.len());
                slots[..count].fill_with(|| Some(self.give_up(self.held.len() - 1)));
                release_bulk(&mut slots[..count]);
            }
            4 => self.seldom(few),
            5..8 => {
                for _ in 0..few {
                    let Some(packet) = self.pool.alloc_packet() else { break };
                    self.keep(packet);
                }
            }
            8 => {
                let mut fresh = Vec::with_capacity(HANDED);
                let packets = self.pool.batch(many).map(|posted| posted.complete(0, 0, PacketFlags::empty()));
                // Not all that are on offer.
                fresh.extend(packets.take(many.saturating_sub(few / 2)).flatten());
                fresh.into_iter().for_each(|packet| self.keep(packet));
            }
            9 | 10 => {
                let handed = self.held.split_off(self.held.len().saturating_sub(many));
                if let Err(TrySendError::Full(handed) | TrySendError::Disconnected(handed)) =
                    self.to_other.try_send(handed)
                {
                    self.held.extend(handed);
                }
            }
            _ => self.receive(),
        }
    }

    fn receive(&mut self) {
        while let Ok(handed) = self.from_other.try_recv() {
            self.held.extend(handed);
        }
    }

    fn seldom(&mut self, segments: usize) {
        match self.random.below(60) {
            0 => self.pool.trim(),
            1 | 2 => flush_thread(),
            3..20 if !self.held.is_empty() => {
                let mut chain = Chain::new(self.give_up(self.held.len() - 1));
                for _ in 0..segments.min(self.held.len()) {
                    let segment = self.give_up(self.held.len() - 1);
                    chain.push(segment).expect("nine segments at most, none of them a chain");
                }
                drop(chain.finish());
            }
            _ => {}
        }
        let stats = self.pool.stats();
        assert!(stats.inflight() <= stats.fragments, "{stats:?}");
    }
}

#[test]
fn every_fragment_is_accounted_for_after_random_operations_on_two_threads() {
    let asked = std::env::var("STRESS_OPERATIONS").ok();
    let operations =
        asked.map_or(OPERATIONS, |text| text.parse().expect("STRESS_OPERATIONS is a number, as 1e9"));
    let started = Instant::now();
    let (to_first, from_second) = sync_channel(16);
    let (to_second, from_first) = sync_channel(16);
    let mut threads = Vec::new();
    for (number, (to_other, from_other)) in
        [(to_second, from_second), (to_first, from_first)].into_iter().enumerate()
    {
        let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
        let config = PoolConfig { fragments: FRAGMENTS, backing: PageSize::Size4K, ..PoolConfig::default() };
        let mut party = Party {
            number,
            pool: Pool::new(&config, &space).expect("a small pool"),
            random: Random(0x9e37_79b9_7f4a_7c15 + number as u64),
            held: Vec::new(),
            allocated: 0,
            dropped: [0; 2],
            to_other,
            from_other,
        };
        threads.push(thread::spawn(move || {
            while (party.operations() as f64) < operations / 2.0 {
                party.perform();
            }
            party
        }));
    }
    let mut parties: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    for party in &mut parties {
        party.receive();
        while !party.held.is_empty() {
            drop(party.give_up(0));
        }
    }
    flush_thread();
    let dropped = [0, 1].map(|pool| parties.iter().map(|party| party.dropped[pool]).sum::<u64>());
    let all: u64 = parties.iter().map(Party::operations).sum();
    println!("{all} operations on fragments in {:.1} s", started.elapsed().as_secs_f64());
    let mut monitors: Vec<PoolMonitor> = Vec::new();
    for (mut party, dropped) in parties.into_iter().zip(dropped) {
        party.pool.trim();
        let stats = party.pool.stats();
        println!(
            "pool {}: {} allocated, {dropped} dropped; hold {} - release {} = {} in flight; {} came back through the ring",
            party.number,
            party.allocated,
            stats.hold,
            stats.release,
            stats.inflight(),
            stats.recycle_ring
        );
        assert_eq!(stats.inflight(), 0, "{stats:?}");
        assert_eq!(party.allocated, dropped);
        assert_eq!(stats.alloc_fast, party.allocated, "{stats:?}");
        assert_eq!(stats.recycle_cached + stats.recycle_ring, dropped, "{stats:?}");
        assert!(stats.recycle_ring > 0, "nothing was dropped on the other thread");
        monitors.push(party.pool.monitor());
    }
    // The pools are gone; what reports of them says the same.
    for monitor in monitors {
        assert_eq!(monitor.stats().inflight(), 0);
    }
}
