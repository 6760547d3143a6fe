//! What becomes of fragments: recycled once, whoever drops them, wherever, in whatever order.

use std::sync::mpsc;
use std::thread;

use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{
    Burst, Chain, Packet, PacketFlags, PageSize, Pool, PoolConfig, PoolMonitor, flush_thread, release_bulk,
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
    assert_eq!((stats.recycle_ring_full, stats.recycle_released_ref), (0, 0));
    // Every allocation ended in one return, one way or the other.
    assert_eq!(stats.alloc_fast, stats.recycle_cached + stats.recycle_ring, "{stats:?}");
    drop(pool);
    until_home(&monitor);
}

#[derive(Clone, Debug)]
enum Operation {
    Alloc(usize),
    Batch(usize),
    Drop(usize),
    DropElsewhere(usize),
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
        4 => (0..1000usize).prop_map(Drop),
        1 => (0..1000usize).prop_map(DropElsewhere),
        2 => (0..200usize).prop_map(Bulk),
        2 => (0..10usize).prop_map(Chain),
        1 => Just(Trim),
        1 => Just(Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The oracle is a set of addresses: none is given out twice, none is lost, and the counters agree.
    #[test]
    fn random_operations_agree_with_an_oracle(operations in proptest::collection::vec(operation(), 1..80)) {
        const FRAGMENTS: usize = 256;
        let mut pool = pool(FRAGMENTS, 1024, 4096);
        let mut held: Vec<Packet> = Vec::new();
        for operation in operations {
            match operation {
                Operation::Alloc(n) => held.extend((0..n).map_while(|_| pool.alloc_packet())),
                Operation::Batch(n) => {
                    let batch = pool.batch(n);
                    held.extend(batch.filter_map(|posted| posted.complete(0, 1, PacketFlags::empty()).ok()));
                }
                Operation::Drop(n) if !held.is_empty() => drop(held.swap_remove(n % held.len())),
                Operation::DropElsewhere(n) if !held.is_empty() => {
                    let gone = held.split_off(n % held.len());
                    thread::spawn(move || drop(gone)).join().expect("no panic");
                }
                Operation::Bulk(n) => {
                    let keep = held.len().saturating_sub(n);
                    let mut slots: Vec<_> = held.drain(keep..).map(Some).collect();
                    release_bulk(&mut slots);
                }
                Operation::Chain(n) if held.len() > n => {
                    let mut chain = None;
                    for segment in held.split_off(held.len() - n) {
                        if segment.flags().contains(PacketFlags::CHAINED) {
                            held.push(segment);
                            continue;
                        }
                        match &mut chain {
                            None => chain = Some(Chain::new(segment)),
                            Some(chain) => chain.push(segment).expect("ten segments at most"),
                        }
                    }
                    held.extend(chain.map(Chain::finish));
                }
                Operation::Trim => pool.trim(),
                Operation::Flush => flush_thread(),
                _ => {}
            }
            let mut iovas: Vec<_> =
                held.iter().flat_map(|packet| packet.segments()).map(|segment| segment.iova() & !1023).collect();
            let count = iovas.len();
            iovas.sort_unstable();
            iovas.dedup();
            prop_assert_eq!(iovas.len(), count, "a fragment is held twice");
            let stats = pool.stats();
            prop_assert!(stats.inflight() >= count as u64);
            prop_assert!(stats.inflight() <= FRAGMENTS as u64);
        }
        pool.trim();
        let outside: usize = held.iter().map(Packet::segment_count).sum();
        prop_assert_eq!(pool.stats().inflight(), outside as u64);
        let monitor = pool.monitor();
        drop(pool);
        drop(held);
        flush_thread();
        prop_assert_eq!(monitor.stats().inflight(), 0);
    }
}
