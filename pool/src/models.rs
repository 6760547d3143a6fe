//! Models for loom, which runs each body in every interleaving of its threads, up to a number of preemptions, and with
//! every value that the orderings named in the code allow a load to see.
//!
//! They run the pool's own code. Who holds a fragment touches its cell, which loom accepts only if everybody else's touch
//! happens before or after; the ring checks its slots and its end in the same way.

// A cell that threads share as they share a fragment.
#![allow(unsafe_code)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;
use pagewire_pci::{AddressSpace, AddressSpaceOptions};

use crate::{Packet, PacketFlags, PageSize, Pool, PoolConfig, PoolMonitor, flush_thread};

/// Two more find nothing more, and take ten times as long.
const PREEMPTIONS: usize = 4;

fn check(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 10_000;
    let body = Arc::new(body);
    builder.check(move || {
        let body = body.clone();
        spawn(move || body()).join().expect("no panic");
    });
}

/// A thread whose stack has room for its magazines, which loom makes there.
fn spawn(body: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::Builder::new().stack_size(0x8000).spawn(body).expect("a thread of loom's")
}

/// A pool of `fragments`, and what its fragments' holders touch.
struct Fixture {
    pool: Pool,
    monitor: PoolMonitor,
    touch: Touch,
}

struct Cell(UnsafeCell<()>);

// SAFETY: there is nothing in it; loom sees to it that touches do not meet.
unsafe impl Sync for Cell {}
// SAFETY: as above.
unsafe impl Send for Cell {}

/// A cell for each fragment, which only its holder may touch.
#[derive(Clone)]
struct Touch {
    cells: Arc<[Cell]>,
    base: u64,
}

impl Touch {
    fn touch(&self, packet: &Packet) {
        let index = (packet.iova() - self.base) as usize / Fixture::FRAGMENT;
        self.cells[index].0.with_mut(|_| ());
    }

    /// Drop packets as a thread of its own does.
    fn drop_elsewhere(&self, packets: Vec<Packet>) -> thread::JoinHandle<()> {
        let touch = self.clone();
        spawn(move || {
            packets.iter().for_each(|packet| touch.touch(packet));
            drop(packets);
            flush_thread();
        })
    }
}

impl Fixture {
    const FRAGMENT: usize = 2048;

    fn new(fragments: usize) -> Fixture {
        let config =
            PoolConfig { fragments, headroom: 0, backing: PageSize::Size4K, ..PoolConfig::default() };
        let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
        let mut pool = Pool::new(&config, &space).expect("a small pool");
        let all: Vec<_> = std::iter::from_fn(|| pool.alloc_packet()).collect();
        assert_eq!(all.len(), fragments);
        let base = all.iter().map(Packet::iova).min().expect("at least one");
        drop(all);
        pool.trim();
        let cells = (0..fragments).map(|_| Cell(UnsafeCell::new(()))).collect();
        Fixture { monitor: pool.monitor(), pool, touch: Touch { cells, base } }
    }

    fn take(&mut self, count: usize) -> Vec<Packet> {
        let packets: Vec<_> = std::iter::from_fn(|| self.pool.alloc_packet()).take(count).collect();
        packets.iter().for_each(|packet| self.touch.touch(packet));
        packets
    }

    /// Drop the pool, all of whose fragments are home or in this thread's magazine.
    fn finish(self) {
        drop(self.pool);
        gone(&self.monitor);
    }
}

/// The pool has been taken down: its shared half has let go of the counters.
fn gone(monitor: &PoolMonitor) {
    assert_eq!(Arc::strong_count(&monitor.published), 1, "the pool was not taken down");
    assert_eq!(monitor.stats().inflight(), 0);
}

/// Two threads bring what is out of a pool, batches of these sizes, while its owner leaves.
fn last_fragments_come_in(fragments: usize, batches: [usize; 2]) {
    check(move || {
        let mut fixture = Fixture::new(fragments);
        let batches = batches.map(|count| fixture.take(count));
        let Fixture { pool, monitor, touch } = fixture;
        let threads = batches.map(|batch| touch.drop_elsewhere(batch));
        drop(pool);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        gone(&monitor);
    });
}

/// One of the three takes the pool down, and nobody is still in the ring when it does.
#[test]
fn one_of_three_takes_the_pool_down() {
    last_fragments_come_in(2, [1, 1]);
}

/// The same with slots filled one after another, some of which the owner takes on its way out.
#[test]
fn a_pool_closes_while_a_batch_comes_in() {
    last_fragments_come_in(4, [2, 1]);
}

/// The same with a whole page among them, which stands for two and comes alone.
#[test]
fn a_pool_closes_while_a_large_fragment_comes_in() {
    check(|| {
        let mut fixture = Fixture::new(4);
        let large = fixture.pool.alloc_len(2 * Fixture::FRAGMENT).expect("a page is whole");
        let large = large.complete(0, 0, PacketFlags::empty()).expect("nothing fits");
        let small = fixture.take(1);
        let Fixture { pool, monitor, touch } = fixture;
        let threads = [touch.drop_elsewhere(vec![large]), touch.drop_elsewhere(small)];
        drop(pool);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        gone(&monitor);
    });
}

/// Batches come in while the owner allocates: a fragment has one holder at any time, and none is lost.
#[test]
fn a_batch_comes_in_while_the_owner_allocates() {
    check(|| {
        let mut fixture = Fixture::new(4);
        let (batch, single) = (fixture.take(2), fixture.take(1));
        let threads = [fixture.touch.drop_elsewhere(batch), fixture.touch.drop_elsewhere(single)];
        for _ in 0..2 {
            let held = fixture.take(4);
            assert!(!held.is_empty(), "the fourth never left");
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(fixture.take(5).len(), 4);
        fixture.finish();
    });
}

/// Fragments go round, so that a producer fills a slot that others have used before.
#[test]
fn a_slot_is_used_again_by_another_producer() {
    check(|| {
        let mut fixture = Fixture::new(2);
        let held_long = fixture.take(1);
        let thread = fixture.touch.drop_elsewhere(held_long);
        for _ in 0..3 {
            drop(fixture.take(1));
            // Through the ring, as if this were not the owner's thread.
            flush_thread();
        }
        thread.join().expect("no panic");
        assert_eq!(fixture.take(3).len(), 2);
        fixture.finish();
    });
}

/// What an orphan misses is what is out, whatever came back while its owner left.
#[test]
fn an_orphan_counts_what_is_out() {
    check(|| {
        let mut fixture = Fixture::new(4);
        let large = fixture.pool.alloc_len(2 * Fixture::FRAGMENT).expect("a page is whole");
        let large = large.complete(0, 0, PacketFlags::empty()).expect("nothing fits");
        let (batch, held) = (fixture.take(1), fixture.take(1));
        let Fixture { pool, monitor, touch } = fixture;
        let threads = [touch.drop_elsewhere(batch), touch.drop_elsewhere(vec![large])];
        drop(pool);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(monitor.stats().inflight(), 1);
        drop(held);
        flush_thread();
        gone(&monitor);
    });
}

/// A pool's number goes to the next one while a thread takes the first down.
#[test]
fn a_number_is_used_again() {
    check(|| {
        let mut first = Fixture::new(2);
        let packets = first.take(1);
        let Fixture { pool, monitor, touch } = first;
        let thread = touch.drop_elsewhere(packets);
        drop(pool);
        let mut second = Fixture::new(2);
        let packets = second.take(2);
        let other = second.touch.drop_elsewhere(packets);
        other.join().expect("no panic");
        assert_eq!(second.take(3).len(), 2);
        second.finish();
        thread.join().expect("no panic");
        gone(&monitor);
    });
}
