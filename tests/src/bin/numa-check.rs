//! The page pool on a machine with several NUMA nodes: run in a guest that has them (`tests/tests/numa.rs`), or on such a machine.
//!
//! Every check prints a line; the first that fails ends the program with its reason. It needs three free huge pages of 2 MiB on nodes 0
//! and 1 each, and a processor on each.

// A provider vouches for its memory.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use pagewire_hugepages::{Segment, SegmentOptions};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{Packet, PageSize, Pages, Pool, PoolConfig, Provider, ProviderError};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Fragments in a segment of one huge page.
const SEGMENT: usize = 1024;
/// Fragments that are out at a time.
const ROUND: usize = 256;

fn main() -> Result<()> {
    let space = AddressSpace::new(AddressSpaceOptions::default())?;
    memory_is_on_the_node_that_was_asked_for(&space)?;
    without_a_node_memory_is_where_the_owner_is(&space)?;
    foreign_memory_is_waived_one_a_refill(&space)?;
    an_owner_that_moves_is_followed(&space)?;
    println!("all is as it should be");
    Ok(())
}

fn config() -> PoolConfig {
    PoolConfig { name: "numa".into(), fragments: SEGMENT, backing: PageSize::Size2M, ..PoolConfig::default() }
}

fn memory_is_on_the_node_that_was_asked_for(space: &AddressSpace) -> Result<()> {
    for node in [0, 1] {
        let pool = Pool::new(&PoolConfig { node: Some(node), ..config() }, space)?;
        let found = pool.segments()[0].home_node();
        ensure!(found == Some(node), "asked for node {node}, the segment is on {found:?}");
    }
    println!("memory is on the node that was asked for");
    Ok(())
}

fn without_a_node_memory_is_where_the_owner_is(space: &AddressSpace) -> Result<()> {
    for node in [0, 1] {
        run_on(node)?;
        let mut pool = Pool::new(&config(), space)?;
        let found = pool.segments()[0].home_node();
        ensure!(found == Some(node as u32), "made on node {node}, the segment is on {found:?}");
        for _ in 0..100 {
            let packets = take(&mut pool, ROUND)?;
            drop_on(1 - node, packets)?;
        }
        let stats = pool.stats();
        let fresh = stats.alloc_slow;
        ensure!(stats.alloc_waive == 0 && fresh <= 2 * ROUND as u64, "not all is recycled: {stats:?}");
    }
    println!("without a node memory is where the owner is, and all of it is recycled");
    Ok(())
}

/// Huge pages of node 0 and of node 1 in turn.
#[derive(Default)]
struct InTurn(AtomicU32);

// SAFETY: its segments come from `Pages`, each once.
unsafe impl Provider for InTurn {
    fn describe(&self) -> String {
        "huge pages of two nodes in turn".into()
    }

    fn allocate(&self, len: usize) -> Result<Arc<Segment>, ProviderError> {
        let node = Some(self.0.fetch_add(1, Ordering::Relaxed) % 2);
        let options = SegmentOptions { page_size: PageSize::Size2M, node, name: "in turn".into() };
        Pages { options }.allocate(len)
    }
}

/// A pool with a segment on each node.
fn on_both(space: &AddressSpace, node: Option<u32>) -> Result<Pool> {
    let config = PoolConfig { fragments: 2 * SEGMENT, segment_size: 2 << 20, node, ..config() };
    Ok(Pool::with_provider(&config, space, Arc::new(InTurn::default()))?)
}

fn foreign_memory_is_waived_one_a_refill(space: &AddressSpace) -> Result<()> {
    run_on(0)?;
    let mut pool = on_both(space, Some(0))?;
    let packets = take(&mut pool, 2 * SEGMENT)?;
    let (here, there): (Vec<_>, Vec<_>) =
        packets.into_iter().partition(|packet| node_of(&pool, packet) == Some(0));
    ensure!(here.len() == SEGMENT && there.len() == SEGMENT, "{} and {}", here.len(), there.len());
    drop(here);
    pool.trim();
    drop_on(1, there)?;
    let before = pool.stats();
    let packets = take(&mut pool, ROUND)?;
    ensure!(packets.iter().all(|packet| node_of(&pool, packet) == Some(0)), "memory of node 1 was used");
    let after = pool.stats();
    let (waived, refills) =
        (after.alloc_waive - before.alloc_waive, after.alloc_refill - before.alloc_refill);
    ensure!((1..=refills).contains(&waived), "{waived} were waived in {refills} refills");
    drop(packets);

    pool.set_node(Some(1));
    ensure!(pool.stats().inflight() == 0, "the cache was not flushed: {:?}", pool.stats());
    let packets = take(&mut pool, ROUND)?;
    ensure!(packets.iter().all(|packet| node_of(&pool, packet) == Some(1)), "memory of node 0 was used");
    println!("foreign memory is waived one a refill, and a change of node flushes the cache");
    Ok(())
}

fn an_owner_that_moves_is_followed(space: &AddressSpace) -> Result<()> {
    run_on(0)?;
    let mut pool = on_both(space, None)?;
    let packets = take(&mut pool, ROUND)?;
    ensure!(packets.iter().all(|packet| node_of(&pool, packet) == Some(0)), "not where its owner is");
    drop(packets);
    run_on(1)?;
    for _ in 0..5000 {
        let packets = take(&mut pool, ROUND)?;
        let moved = packets.iter().all(|packet| node_of(&pool, packet) == Some(1));
        drop(packets);
        // By way of the ring, as from another core.
        pagewire_pool::flush_thread();
        if moved {
            println!("an owner that moves is followed");
            return Ok(());
        }
    }
    anyhow::bail!("memory of the old node is still used: {:?}", pool.stats())
}

/// Run on the processors of one node from now on. Processor `n` is on node `n` in the guest.
fn run_on(node: usize) -> Result<()> {
    let mut processors = CpuSet::new();
    processors.set(node);
    sched_setaffinity(None, &processors).with_context(|| format!("going to processor {node}"))
}

fn drop_on(node: usize, packets: Vec<Packet>) -> Result<()> {
    let there = thread::spawn(move || {
        run_on(node)?;
        drop(packets);
        Ok(())
    });
    there.join().expect("dropping does not panic")
}

fn take(pool: &mut Pool, count: usize) -> Result<Vec<Packet>> {
    (0..count).map(|_| pool.alloc_packet().context("the pool is empty")).collect()
}

fn node_of(pool: &Pool, packet: &Packet) -> Option<u32> {
    let segments = pool.segments();
    let at = packet.as_slice()?.as_ptr().addr();
    let has = |first: usize, len: usize| (first..first + len).contains(&at);
    segments.iter().find(|segment| has(segment.as_ptr().addr().get(), segment.len()))?.home_node()
}
