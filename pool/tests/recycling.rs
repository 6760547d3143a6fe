//! What becomes of fragments: recycled once, whoever drops them, wherever, in whatever order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{
    Bulk, Burst, Chain, Packet, PacketFlags, PageSize, Pool, PoolConfig, PoolMonitor, flush_thread,
    release_bulk,
};
use proptest::prelude::*;

fn space() -> AddressSpace {
    AddressSpace::new(AddressSpaceOptions::default()).expect("an address space without devices needs nothing")
}

/// Small pages, asked for by name: these tests are about bookkeeping, not about the memory.
fn pool(fragments: usize, fragment_size: usize, page_size: usize) -> Pool {
    let config = PoolConfig {
        name: "test".into(),
        fragments,
        fragment_size,
        page_size,
        headroom: 64,
        backing: PageSize::Size4K,
        ..PoolConfig::default()
    };
    Pool::new(&config, &space()).expect("a small pool")
}

fn all(pool: &mut Pool) -> Vec<Packet> {
    std::iter::from_fn(|| pool.alloc_packet()).collect()
}

#[test]
fn any_order_of_frees_of_a_pages_fragments_makes_exactly_one_whole_page() {
    for (fragment_size, page_size) in [(2048, 4096), (1024, 4096), (4096, 4096), (2048, 65536), (512, 4096)] {
        let mut pool = pool(256, fragment_size, page_size);
        let pages = 256 * fragment_size / page_size;
        // A stride that is prime to the number of fragments visits each once, the halves of a page far apart.
        for stride in [1, 3, 129, 255] {
            let mut packets: Vec<_> = all(&mut pool).into_iter().map(Some).collect();
            assert_eq!(packets.len(), 256);
            pool.trim();
            assert_eq!(pool.whole_pages(), 0);
            for i in 0..256 {
                drop(packets[i * stride % 256].take().expect("visited once"));
                pool.trim();
                assert_eq!(pool.stats().inflight(), 255 - i as u64);
            }
            assert_eq!(pool.whole_pages(), pages);
        }
    }
}

#[test]
fn one_half_is_used_again_while_a_slow_holder_keeps_the_other() {
    let mut pool = pool(2, 2048, 4096);
    let kept = pool.alloc_packet().expect("the first half");
    for _ in 0..1000 {
        drop(pool.alloc_packet().expect("the second half, again and again"));
    }
    assert!(pool.alloc().is_some(), "the second half is still free");
    drop(kept);
}

#[test]
fn fragments_do_not_overlap_and_hold_what_was_written() {
    let mut pool = pool(512, 2048, 4096);
    let mut packets = all(&mut pool);
    for (i, packet) in packets.iter_mut().enumerate() {
        packet.extend_from_slice(&[i as u8; 1984]).expect("2,048 less headroom");
        assert!(packet.extend_from_slice(&[0]).is_err());
    }
    for (i, packet) in packets.iter().enumerate() {
        assert!(packet.as_slice().expect("host memory").iter().all(|byte| *byte == i as u8), "packet {i}");
    }
}

#[test]
fn alloc_is_one_straight_flow_of_the_cache_or_else_the_slow_path() {
    let mut pool = pool(256, 2048, 4096);
    let posted: Vec<_> = (0..64).map(|_| pool.alloc().expect("256")).collect();
    let stats = pool.stats();
    assert_eq!((stats.alloc_refill, stats.alloc_slow, stats.alloc_fast), (1, 64, 64), "one refill for 64");
    drop(posted);
    let posted: Vec<_> = (0..64).map(|_| pool.alloc().expect("256")).collect();
    assert_eq!(pool.stats().alloc_fast, 128);
    drop(posted);
}

#[test]
fn nobody_but_the_pool_takes_references() {
    let mut pool = pool(256, 2048, 4096);
    for _ in 0..50 {
        let (here, there) =
            all(&mut pool).into_iter().enumerate().partition::<Vec<_>, _>(|(i, _)| i % 3 == 0);
        let other = thread::spawn(move || drop(there));
        drop(here);
        other.join().expect("no panic");
    }
    pool.trim();
    let stats = pool.stats();
    assert_eq!((stats.hold - stats.release, stats.inflight(), pool.whole_pages()), (0, 0, 128));
}

#[test]
fn what_finds_the_owners_magazine_full_goes_through_the_ring_and_is_counted() {
    let mut pool = pool(512, 2048, 4096);
    // The pool takes what this thread drops; so from then on the thread keeps more.
    drop(all(&mut pool));
    let mut held = all(&mut pool);
    assert_eq!((held.len(), pool.stats().recycle_cache_full), (512, 0));
    held.truncate(512 - 126);
    assert_eq!(pool.stats().recycle_cache_full, 0, "as many as a magazine holds");
    let before = pool.stats();
    held.pop();
    let stats = pool.stats();
    assert_eq!((stats.recycle_cache_full, stats.remote_batch - before.remote_batch), (63, 1));
    drop(held);
    assert_eq!(all(&mut pool).len(), 512);
}

#[test]
fn every_fragment_finds_room_in_the_return_ring_at_once() {
    for fragments in [64, 100, 1000] {
        let config = PoolConfig {
            fragments,
            max_fragments: 2 * fragments,
            backing: PageSize::Size4K,
            ..Default::default()
        };
        let mut pool = Pool::new(&config, &space()).expect("a small pool");
        while pool.grow().is_ok() {}
        let all = all(&mut pool);
        assert_eq!(all.len() as u64, pool.stats().fragments);
        assert!(all.len() >= 2 * fragments);
        // One by one, so that none is in a batch with another.
        thread::spawn(move || {
            for packet in all {
                drop(packet);
                flush_thread();
            }
        })
        .join()
        .expect("dropping does not panic");
        let before = pool.stats().recycle_ring;
        pool.trim();
        assert_eq!(pool.stats().recycle_ring - before, pool.stats().fragments);
        assert_eq!(pool.stats().inflight(), 0);
    }
}

#[test]
fn an_empty_pool_says_so_and_recovers() {
    let mut pool = pool(64, 2048, 4096);
    let packets = all(&mut pool);
    assert_eq!(packets.len(), 64);
    assert!(pool.alloc().is_none());
    assert_eq!(pool.batch(32).count(), 0);
    assert!(pool.stats().alloc_empty >= 2);
    drop(packets);
    assert_eq!(all(&mut pool).len(), 64);
}

/// What a receive loop had taken when it panicked is whoever took it's; what it had not is lost, but never anybody's twice.
#[test]
fn a_panic_in_a_receive_loop_gives_no_fragment_out_twice() {
    let mut pool = pool(64, 2048, 4096);
    let mut kept = Vec::new();
    let mut burst = Burst::new(32);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        burst.fill(&mut pool, 32, |number, fresh| {
            kept.push(fresh.take());
            assert!(number < 8, "on purpose");
            kept.pop().and_then(|fragment| fragment.complete(0, 60, PacketFlags::empty()).ok())
        })
    }));
    assert!(outcome.is_err() && kept.len() == 1 && burst.is_empty());
    let kept_at = kept[0].iova();
    let rest = all(&mut pool);
    assert_eq!(rest.len(), 32);
    assert!(rest.iter().all(|packet| packet.iova() != kept_at));
    // Those that leaked are out for ever, and the pool ends when they would come: here never.
    drop((kept, rest));
}

#[test]
fn what_is_not_taken_of_a_batch_stays_in_the_pool() {
    let mut pool = pool(64, 2048, 4096);
    for taken in 0..=32 {
        let posted: Vec<_> = pool.batch(32).take(taken).collect();
        assert_eq!(posted.len(), taken);
        let mut iovas: Vec<_> = posted.iter().map(|posted| posted.iova()).collect();
        iovas.dedup();
        assert_eq!(iovas.len(), taken, "a fragment was given out twice");
        drop(posted);
        pool.trim();
        assert_eq!(pool.stats().inflight(), 0);
    }
}

#[test]
fn a_length_beyond_the_fragment_gives_the_fragment_back_unread() {
    let mut pool = pool(2, 2048, 4096);
    let posted = pool.alloc().expect("one");
    let posted = posted.complete(256, 1793, PacketFlags::empty()).expect_err("2,049 bytes of 2,048");
    let posted =
        posted.complete(u16::MAX, u16::MAX, PacketFlags::empty()).expect_err("nor does that overflow");
    assert_eq!(posted.complete(256, 1792, PacketFlags::empty()).expect("2,048 bytes").len(), 1792);
}

#[test]
fn a_chain_comes_home_whole_and_its_fragments_are_single_again() {
    let mut pool = pool(1024, 2048, 4096);
    let mut chain = Chain::new(pool.alloc_packet().expect("a head"));
    for _ in 1..Chain::MAX_SEGMENTS {
        let segment = pool.alloc().expect("one").complete(0, 10, PacketFlags::empty()).expect("10 bytes fit");
        chain.push(segment).expect("up to the limit");
    }
    let segment = pool.alloc_packet().expect("one more");
    assert!(chain.push(segment).is_err(), "a chain without end");
    let packet = chain.finish();
    assert_eq!((packet.segment_count(), packet.len()), (256, 2550));
    assert_eq!(packet.segments().count(), 256);
    drop(packet);
    pool.trim();
    assert_eq!(pool.stats().inflight(), 0);
    assert!(
        all(&mut pool).iter().all(|packet| packet.segment_count() == 1 && packet.segments().count() == 1)
    );
}

#[test]
fn a_bulk_return_takes_packets_of_several_pools_chains_and_empty_slots() {
    let (mut a, mut b) = (pool(512, 2048, 4096), pool(512, 2048, 4096));
    let mut slots = Vec::new();
    for i in 0..300 {
        let mut packet = if i % 7 < 4 { a.alloc_packet() } else { b.alloc_packet() };
        if i % 13 == 0 {
            let mut chain = Chain::new(packet.take().expect("300 of 512"));
            chain.push(b.alloc_packet().expect("some more")).expect("two segments");
            packet = Some(chain.finish());
        }
        slots.push(packet.filter(|_| i % 5 != 0));
    }
    release_bulk(&mut slots);
    assert!(slots.iter().all(Option::is_none));
    for pool in [&mut a, &mut b] {
        pool.trim();
        assert_eq!(pool.stats().inflight(), 0);
    }
}

#[test]
fn a_burst_keeps_what_is_not_drained_in_order() {
    let mut pool = pool(64, 2048, 4096);
    let mut burst = Burst::new(8);
    for i in 0..8u8 {
        let mut packet = pool.alloc_packet().expect("8 of 64");
        packet.extend_from_slice(&[i]).expect("a byte");
        burst.push(packet).expect("8 fit");
    }
    let ninth = pool.alloc_packet().expect("9 of 64");
    assert!(burst.push(ninth).is_err());
    assert_eq!(
        burst.drain().take(3).map(|packet| packet.as_slice().expect("readable")[0]).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let left: Vec<_> = burst.iter().map(|packet| packet.as_slice().expect("readable")[0]).collect();
    assert_eq!(left, [3, 4, 5, 6, 7]);
    burst.clear();
    pool.trim();
    assert_eq!(pool.stats().inflight(), 0);
}

#[test]
fn a_bulk_holds_single_fragments_of_one_pool_and_returns_what_it_holds() {
    let (mut a, mut b) = (pool(64, 2048, 4096), pool(64, 2048, 4096));
    let mut bulk = Bulk::new(32);
    assert_eq!((a.alloc_bulk(&mut bulk, 20), a.alloc_bulk(&mut bulk, 20), bulk.room()), (20, 12, 0));
    let mut iovas: Vec<_> = bulk.iter().map(|posted| posted.iova()).collect();
    iovas.sort();
    iovas.dedup();
    assert_eq!(iovas.len(), 32, "a fragment was given out twice");
    let ninth = a.alloc().expect("33 of 64");
    let ninth = bulk.push(ninth).expect_err("it is full");
    drop(bulk.pop());
    assert_eq!(b.alloc_bulk(&mut bulk, 1), 0, "of another pool");
    assert!(bulk.push(b.alloc().expect("one of 64")).is_err(), "of another pool");
    assert!(bulk.push(a.alloc_len(4096).expect("a whole page")).is_err(), "it stands for two");
    bulk.push(ninth).expect("there is room again");
    // What is not taken goes home as well.
    assert_eq!(bulk.drain().take(5).count(), 5);
    assert!(bulk.is_empty());
    assert_eq!(b.alloc_bulk(&mut bulk, usize::MAX), 32, "an empty one takes of any pool");
    drop(bulk);
    for pool in [&mut a, &mut b] {
        pool.trim();
        assert_eq!(pool.stats().inflight(), 0);
    }
}

#[test]
fn a_bulk_is_shorter_than_asked_where_fragments_are_short() {
    let mut pool = pool(48, 2048, 4096);
    let (mut first, mut second) = (Bulk::new(32), Bulk::new(32));
    assert_eq!((pool.alloc_bulk(&mut first, 32), pool.alloc_bulk(&mut second, 32)), (32, 16));
    assert_eq!((pool.alloc_bulk(&mut second, 1), pool.stats().alloc_empty), (0, 1));
    first.clear();
    assert_eq!(pool.alloc_bulk(&mut second, 32), 16, "as much as there is room for");
}

#[test]
fn a_bulk_dropped_on_another_thread_after_the_pools_end_takes_the_pool_down() {
    for count in [1, 15, 16, 17, 126, 200] {
        let mut pool = pool(256, 2048, 4096);
        let monitor = pool.monitor();
        let mut bulk = Bulk::new(count);
        assert_eq!(pool.alloc_bulk(&mut bulk, count), count);
        drop(pool);
        assert_eq!(monitor.stats().inflight(), count as u64);
        thread::spawn(move || drop(bulk)).join().expect("dropping does not panic");
        until_home(&monitor);
    }
}

#[test]
fn a_bulk_goes_round_between_threads_and_nothing_is_lost() {
    let mut pool = pool(256, 2048, 4096);
    for round in 0..1000 {
        let mut bulk = Bulk::new(32);
        assert_eq!(pool.alloc_bulk(&mut bulk, 32), 32, "round {round}");
        if round % 20 == 0 {
            thread::spawn(move || drop(bulk)).join().expect("dropping does not panic");
        }
    }
    pool.trim();
    assert_eq!((pool.stats().inflight(), pool.whole_pages()), (0, 128));
}

/// Wait for what other threads still do at their end.
fn until_home(monitor: &PoolMonitor) {
    for _ in 0..1000 {
        if monitor.stats().inflight() == 0 {
            return;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("fragments are lost: {:?}", monitor.stats());
}

#[test]
fn a_pool_may_go_before_its_packets_and_its_memory_stays_until_the_last() {
    let mut pool = pool(300, 2048, 4096);
    let monitor = pool.monitor();
    let mut packets = all(&mut pool);
    packets[299].extend_from_slice(b"still here").expect("room");
    drop(pool);
    assert_eq!(monitor.stats().inflight(), 300);
    let last = packets.pop().expect("300 of them");
    // Half here, half elsewhere, at the same time.
    let elsewhere = packets.split_off(150);
    let other = thread::spawn(move || drop(elsewhere));
    drop(packets);
    flush_thread();
    other.join().expect("dropping does not panic");
    assert_eq!(last.as_slice(), Some(&b"still here"[..]));
    assert_ne!(monitor.stats().inflight(), 0);
    drop(last);
    flush_thread();
    until_home(&monitor);
}

#[test]
fn a_thread_that_ends_keeps_nothing_whatever_its_destructors_drop() {
    thread_local!(static LATE: std::cell::RefCell<Vec<Packet>> = const { std::cell::RefCell::new(Vec::new()) });
    let mut pool = pool(64, 2048, 4096);
    let mut packets = all(&mut pool);
    thread::spawn(move || {
        // Registered before the magazine's exit hook, hence dropped after it.
        LATE.with_borrow_mut(|late| late.extend(packets.drain(..10)));
        drop(packets);
    })
    .join()
    .expect("dropping does not panic");
    pool.trim();
    assert_eq!(pool.stats().inflight(), 0);
}

#[test]
fn numbers_of_pools_are_used_again() {
    for round in 0..3000 {
        let mut pool = pool(4, 2048, 4096);
        let monitor = pool.monitor();
        let packet = pool.alloc_packet();
        if round % 2 == 0 {
            drop(pool);
            drop(packet);
        } else {
            drop(packet);
            drop(pool);
        }
        flush_thread();
        assert_eq!(monitor.stats().inflight(), 0);
    }
}

#[test]
fn a_pool_and_its_packets_wander_between_threads() {
    const ROUNDS: usize = if cfg!(miri) { 10 } else { 3000 };
    let mut pool = pool(256, 2048, 4096);
    let monitor = pool.monitor();
    let (to_holder, packets) = mpsc::sync_channel::<Packet>(64);
    let holder = thread::spawn(move || {
        let mut held = Vec::new();
        for packet in packets {
            held.push(packet);
            if held.len() == 40 {
                // Oldest and youngest, so that pages come home in pieces.
                held.retain({
                    let mut i = 0;
                    move |_| (i += 1, i % 3 == 0).1
                });
            }
        }
    });
    for round in 0..ROUNDS {
        let to_holder = to_holder.clone();
        // A new owner each time; what the last one dropped came back at its end.
        let owner = move || {
            for i in 0..50 {
                if let Some(packet) = pool.alloc_packet()
                    && i % 2 == round % 2
                {
                    to_holder.send(packet).expect("the holder outlives us");
                }
            }
            pool
        };
        pool = if round % 10 == 0 { thread::spawn(owner).join().expect("no panic") } else { owner() };
    }
    drop(to_holder);
    holder.join().expect("no panic");
    pool.trim();
    let stats = pool.stats();
    assert_eq!(stats.inflight(), 0, "{stats:?}");
    // Every allocation ended in one return, one way or the other.
    assert_eq!(stats.alloc_fast, stats.recycle_cached + stats.recycle_ring, "{stats:?}");
    drop(pool);
    until_home(&monitor);
}

#[derive(Clone, Debug)]
enum Operation {
    Alloc(usize),
    Batch(usize),
    /// As many into a bulk, of which every other one comes out again.
    Bare(usize),
    Drop(usize),
    Send(usize),
    Receive,
    Bulk(usize),
    Chain(usize),
    Trim,
    Flush,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        4 => (1..70usize).prop_map(Alloc),
        4 => (1..200usize).prop_map(Batch),
        4 => (1..200usize).prop_map(Bare),
        4 => (0..1000usize).prop_map(Drop),
        2 => (0..1000usize).prop_map(Send),
        2 => Just(Receive),
        2 => (0..200usize).prop_map(Bulk),
        2 => (0..10usize).prop_map(Chain),
        1 => Just(Trim),
        1 => Just(Flush),
    ]
}

/// What is out of its pool: the addresses of the fragments, and whose they are.
#[derive(Clone, Default)]
struct Oracle(Arc<Mutex<HashMap<usize, usize>>>);

impl Oracle {
    const FRAGMENT: usize = 1024;

    fn address(segment: &Packet) -> usize {
        segment.as_slice().expect("host memory").as_ptr().addr() & !(Oracle::FRAGMENT - 1)
    }

    fn given_out(&self, owner: usize, packet: Packet) -> Packet {
        let before = self.0.lock().expect("no panic").insert(Oracle::address(&packet), owner);
        assert_eq!(before, None, "a fragment is held twice");
        packet
    }

    fn dropped<'a>(&self, packets: impl IntoIterator<Item = &'a Packet>) {
        let mut out = self.0.lock().expect("no panic");
        for segment in packets.into_iter().flat_map(Packet::segments) {
            out.remove(&Oracle::address(segment)).expect("what is dropped was given out");
        }
    }

    fn count(&self, owner: usize) -> u64 {
        self.0.lock().expect("no panic").values().filter(|of| **of == owner).count() as u64
    }
}

/// A thread with a pool of its own, which holds and drops fragments of the other's as well.
struct Party {
    pool: Pool,
    number: usize,
    oracle: Oracle,
    held: Vec<Packet>,
    to_other: mpsc::Sender<Packet>,
    from_other: mpsc::Receiver<Packet>,
}

impl Party {
    const FRAGMENTS: usize = 256;

    fn perform(&mut self, operation: Operation) {
        let Party { pool, number, oracle, held, .. } = self;
        match operation {
            Operation::Alloc(n) => {
                let packets = (0..n).map_while(|_| pool.alloc_packet());
                held.extend(packets.map(|packet| oracle.given_out(*number, packet)));
            }
            Operation::Batch(n) => {
                let packets =
                    pool.batch(n).filter_map(|posted| posted.complete(0, 1, PacketFlags::empty()).ok());
                held.extend(packets.map(|packet| oracle.given_out(*number, packet)));
            }
            Operation::Bare(n) => {
                let mut bulk = Bulk::new(n);
                pool.alloc_bulk(&mut bulk, n);
                for _ in 0..bulk.len() / 2 {
                    let posted = bulk.pop().expect("half of them");
                    let packet = posted.complete(0, 1, PacketFlags::empty()).expect("a byte fits");
                    held.push(oracle.given_out(*number, packet));
                }
            }
            Operation::Drop(n) if !held.is_empty() => {
                let packet = held.swap_remove(n % held.len());
                oracle.dropped([&packet]);
            }
            Operation::Send(n) if !held.is_empty() => {
                for packet in held.split_off(n % held.len()) {
                    self.to_other.send(packet).expect("the other end is kept until both are done");
                }
            }
            Operation::Receive => held.extend(self.from_other.try_iter()),
            Operation::Bulk(n) => {
                let gone = held.split_off(held.len().saturating_sub(n));
                oracle.dropped(&gone);
                release_bulk(&mut gone.into_iter().map(Some).collect::<Vec<_>>());
            }
            Operation::Chain(n) if held.len() > n => {
                let (mut single, chained): (Vec<_>, Vec<_>) = held
                    .split_off(held.len() - n)
                    .into_iter()
                    .partition(|packet| !packet.flags().contains(PacketFlags::CHAINED));
                held.extend(chained);
                if let Some(head) = single.pop() {
                    let mut chain = Chain::new(head);
                    single.into_iter().for_each(|segment| chain.push(segment).expect("ten at most"));
                    held.push(chain.finish());
                }
            }
            Operation::Trim => pool.trim(),
            Operation::Flush => flush_thread(),
            _ => {}
        }
        // The other may drop some of ours meanwhile, and nobody can allocate any: what is out now was out then.
        let inflight = self.pool.stats().inflight();
        let out = self.oracle.count(self.number);
        assert!((out..=Party::FRAGMENTS as u64).contains(&inflight), "{inflight} in flight, {out} out");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two threads, each with a pool: no fragment is given out while somebody holds it, none is lost, and the counters
    /// of each pool agree with what is out of it.
    #[test]
    fn random_operations_on_two_threads_agree_with_an_oracle(
        operations in [(); 2].map(|()| proptest::collection::vec(operation(), 1..80)),
    ) {
        let oracle = Oracle::default();
        let ((to_first, from_second), (to_second, from_first)) = (mpsc::channel(), mpsc::channel());
        let channels = [(to_second, from_second), (to_first, from_first)];
        let mut threads = Vec::new();
        for (number, (operations, (to_other, from_other))) in operations.into_iter().zip(channels).enumerate() {
            let (pool, held) = (pool(Party::FRAGMENTS, Oracle::FRAGMENT, 4096), Vec::new());
            let mut party = Party { pool, number, oracle: oracle.clone(), held, to_other, from_other };
            threads.push(thread::spawn(move || {
                operations.into_iter().for_each(|operation| party.perform(operation));
                party
            }));
        }
        let mut parties: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        for party in &mut parties {
            party.perform(Operation::Receive);
            party.pool.trim();
            prop_assert_eq!(party.pool.stats().inflight(), oracle.count(party.number));
        }
        // The pools go first, then what was held of them.
        let monitors: Vec<_> = parties.iter().map(|party| party.pool.monitor()).collect();
        let held: Vec<_> = parties.into_iter().map(|party| party.held).collect();
        drop(held);
        flush_thread();
        for monitor in monitors {
            prop_assert_eq!(monitor.stats().inflight(), 0);
        }
    }
}
