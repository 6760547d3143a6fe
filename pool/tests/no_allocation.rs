//! A pool that has been made allocates no more: counted on the test's own thread, since the harness allocates on others.

// A global allocator can only be implemented in unsafe code.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{Bulk, Burst, PageSize, Pool, PoolConfig, flush_thread};

thread_local! {
    // Const and without a destructor: reaching it allocates nothing.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_heap_allocation_after_a_pool_is_made() {
    let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
    let config = PoolConfig { fragments: 1024, backing: PageSize::Size4K, ..PoolConfig::default() };
    let mut pool = Pool::new(&config, &space).expect("a small pool");
    let (mut burst, mut bulk) = (Burst::new(256), Bulk::new(64));
    let monitor = pool.monitor();
    let before = ALLOCATIONS.get();
    assert_ne!(before, 0, "nothing is counted");
    for round in 0..10_000 {
        while burst.room() > round % 200 {
            let Some(packet) = pool.alloc_packet() else { break };
            burst.push(packet).expect("there is room");
        }
        pool.alloc_bulk(&mut bulk, round % 65);
        bulk.clear();
        if round % 3 == 0 {
            burst.clear()
        } else {
            burst.drain().take(20).for_each(drop)
        }
        if round % 100 == 0 {
            drop(pool.alloc_len(4096));
            assert!(monitor.ages().counts.iter().sum::<u64>() <= 1024);
            flush_thread();
            pool.trim();
        }
    }
    burst.clear();
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

/// What growth allocates is growth's; before and after it, and in a pool that is empty and polled, there is nothing.
#[test]
fn growth_allocates_and_exhaustion_does_not() {
    let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
    let config = PoolConfig {
        fragments: 64,
        max_fragments: 256,
        segment_size: 64 * 2048,
        grow_when_empty: true,
        backing: PageSize::Size4K,
        ..PoolConfig::default()
    };
    let mut pool = Pool::new(&config, &space).expect("a small pool");
    let (mut held, mut bulk) = (Vec::with_capacity(256), Bulk::new(64));
    for round in 0..3 {
        let mut growths = 0;
        while held.len() < 256 {
            let (fragments, before) = (pool.stats().fragments, ALLOCATIONS.get());
            held.push(pool.alloc_packet().expect("it grows"));
            let allocated = ALLOCATIONS.get() - before;
            if pool.stats().fragments == fragments {
                assert_eq!(allocated, 0, "round {round}, with {} held", held.len());
            } else {
                growths += 1;
                assert!((1..100).contains(&allocated), "a growth allocates {allocated} times");
            }
        }
        assert_eq!((growths, pool.stats().fragments), (3, 256));
        let before = ALLOCATIONS.get();
        for _ in 0..10_000 {
            assert!(
                pool.alloc().is_none() && pool.alloc_packet().is_none() && pool.alloc_len(4096).is_none()
            );
            assert_eq!(pool.batch(32).len(), 0);
            assert_eq!(pool.alloc_bulk(&mut bulk, 32), 0);
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "an empty pool is polled");
        held.drain(..200).for_each(drop);
        for _ in 0..10_000 {
            let packets = [pool.alloc_packet(), pool.alloc_packet()];
            assert!(packets.iter().all(Option::is_some));
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "a grown pool goes on");
        held.clear();
        flush_thread();
        assert_eq!(pool.shrink(64), 192);
    }
}
