//! NUMA nodes, of a machine that is made up.

use std::sync::atomic::AtomicU32;

use super::*;
use crate::numa::Topology;
use crate::{PacketFlags, PoolStats};

/// Two nodes. Segments are on them in turn, as they are made; the owner is where it is told.
#[derive(Clone, Default)]
struct TwoNodes {
    here: Arc<AtomicU32>,
    made: Arc<AtomicU32>,
}

impl Topology for TwoNodes {
    fn is_uniform(&self) -> bool {
        false
    }

    fn here(&self) -> Option<u32> {
        Some(self.here.load(Ordering::Relaxed))
    }

    fn node_of(&self, _: &Segment) -> Option<u32> {
        Some(self.made.fetch_add(1, Ordering::Relaxed) % 2)
    }
}

struct Fixture {
    pool: Pool,
    topology: TwoNodes,
    space: AddressSpace,
}

impl Fixture {
    /// A segment on node 0 and one on node 1.
    fn new(node: Option<u32>) -> Fixture {
        let (space, ..) = space();
        let topology = TwoNodes::default();
        let config = PoolConfig { node, ..config() };
        let provider = Arc::new(Counted::default());
        let mut pool =
            Pool::with_topology(&config, &space, provider, Box::new(topology.clone())).expect("a small pool");
        drop(all(&mut pool));
        pool.trim();
        Fixture { pool, topology, space }
    }

    fn node(&self, packet: &Packet) -> usize {
        let segments = self.pool.segments();
        let has = |segment: &Arc<Segment>| {
            let first = self.space.iova(segment, 0).expect("it is mapped");
            (first..first + segment.len() as u64).contains(&packet.iova())
        };
        segments.iter().position(has).expect("it is of this pool") % 2
    }

    /// Everything out, then those of one node back through the ring and the others in the page store.
    fn foreign_in_the_ring(&mut self) {
        let packets = all(&mut self.pool);
        let (here, there) = packets.into_iter().partition::<Vec<_>, _>(|packet| self.node(packet) == 0);
        assert_eq!((here.len(), there.len()), (64, 64));
        drop(here);
        self.pool.trim();
        drop_elsewhere(there);
    }

    fn stats_since(&self, before: PoolStats) -> (u64, u64) {
        let after = self.pool.stats();
        (after.alloc_waive - before.alloc_waive, after.recycle_ring - before.recycle_ring)
    }
}

#[test]
fn a_foreign_page_in_the_ring_is_recognised_at_refill_and_ends_it() {
    let mut fixture = Fixture::new(Some(0));
    fixture.foreign_in_the_ring();
    let before = fixture.pool.stats();
    let packets: Vec<_> = (0..64).map(|_| fixture.pool.alloc_packet().expect("64 of this node")).collect();
    assert!(packets.iter().all(|packet| fixture.node(packet) == 0), "fresh ones of this node instead");
    assert_eq!(fixture.stats_since(before), (1, 1), "one was released and counted, and the ring not drained");
    assert_eq!(fixture.pool.stats().release, before.release + 1);

    // With nothing left on this node, another's memory is better than none.
    let packet = fixture.pool.alloc_packet().expect("64 of the other node");
    assert_eq!((fixture.node(&packet), fixture.stats_since(before)), (1, (2, 64)), "all at once now");
}

#[test]
fn a_pool_with_nothing_on_its_node_gives_whole_batches_all_the_same() {
    let mut fixture = Fixture::new(Some(0));
    let packets = all(&mut fixture.pool);
    let (here, there) = packets.into_iter().partition::<Vec<_>, _>(|packet| fixture.node(packet) == 0);
    drop_elsewhere(there);
    for round in 0..10 {
        let packets: Vec<_> = (fixture.pool.batch(32))
            .map(|posted| posted.complete(0, 60, PacketFlags::empty()).expect("it fits"))
            .collect();
        assert_eq!(packets.len(), 32, "round {round}");
        drop_elsewhere(packets);
    }
    drop(here);
}

#[test]
fn changing_the_node_flushes_the_cache() {
    let mut fixture = Fixture::new(Some(0));
    let first = fixture.pool.alloc_packet().expect("one");
    assert_eq!(fixture.node(&first), 0);
    assert_eq!(fixture.pool.stats().inflight(), 64, "the cache has the rest of a refill");
    fixture.pool.set_node(Some(1));
    assert_eq!((fixture.pool.node(), fixture.pool.stats().inflight()), (Some(1), 1));
    let packets: Vec<_> = (0..64).map(|_| fixture.pool.alloc_packet().expect("64 of node 1")).collect();
    assert!(packets.iter().all(|packet| fixture.node(packet) == 1));
    // What comes back of the other node is waived now.
    let before = fixture.pool.stats();
    drop_elsewhere(vec![first]);
    assert!(fixture.pool.alloc_packet().is_some());
    assert_eq!(fixture.stats_since(before), (1, 1));
}

#[test]
fn no_node_means_the_owners_and_such_a_pool_recycles_everything() {
    let mut fixture = Fixture::new(None);
    let (before, round) = (fixture.pool.stats(), 64);
    for _ in 0..100 {
        let packets: Vec<_> =
            (0..round).map(|_| fixture.pool.alloc_packet().expect("64 of node 0")).collect();
        assert!(packets.iter().all(|packet| fixture.node(packet) == 0));
        drop_elsewhere(packets);
    }
    let stats = fixture.pool.stats();
    assert_eq!(fixture.stats_since(before), (0, 99 * round));
    assert_eq!(stats.alloc_slow - before.alloc_slow, round, "one turn was fresh, all others recycled");

    // The owner moves, and that is noticed in time.
    fixture.topology.here.store(1, Ordering::Relaxed);
    let mut moved = false;
    for _ in 0..3000 {
        let packets: Vec<_> =
            (0..round).map(|_| fixture.pool.alloc_packet().expect("64 of a node")).collect();
        moved = packets.iter().all(|packet| fixture.node(packet) == 1);
        drop_elsewhere(packets);
        if moved {
            break;
        }
    }
    assert!(moved, "memory of the old node is used to the end: {:?}", fixture.pool.stats());
}

#[test]
fn growth_is_sorted_by_node_too() {
    let mut fixture = Fixture::new(Some(1));
    fixture.pool.grow().expect("a third segment, on node 0");
    fixture.pool.grow().expect("a fourth, on node 1");
    let packets: Vec<_> = (0..128).map(|_| fixture.pool.alloc_packet().expect("128 of node 1")).collect();
    let nodes: Vec<_> = packets.iter().map(|packet| fixture.node(packet)).collect();
    assert!(nodes.iter().all(|&node| node == 1), "{nodes:?}");
}
