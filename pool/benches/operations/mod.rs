//! What is measured of a pool, each operation a function of its own that is never inlined: the bench `time` measures how long
//! they take, and the tests' program `pool` counts their instructions and looks at their machine code.

use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{Bulk, Burst, Packet, PacketFlags, PageSize, Pool, PoolConfig, Posted};

/// How pages are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A fragment is a page.
    Whole,
    /// Two fragments a page.
    Half,
    /// Fragments of either kind in turns, of two pools.
    Mixed,
}

impl Cut {
    pub(crate) const ALL: [Cut; 3] = [Cut::Whole, Cut::Half, Cut::Mixed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Cut::Whole => "whole page",
            Cut::Half => "half page",
            Cut::Mixed => "mixed",
        }
    }

    /// A pool, or for mixed fragments two.
    pub(crate) fn pools(self, backing: PageSize) -> Vec<Pool> {
        let sizes: &[usize] = match self {
            Cut::Whole => &[4096],
            Cut::Half => &[2048],
            Cut::Mixed => &[4096, 2048],
        };
        let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
        let pool = |&fragment_size| {
            let config = PoolConfig { fragment_size, fragments: FRAGMENTS, backing, ..PoolConfig::default() };
            Pool::new(&config, &space).unwrap_or_else(|error| panic!("{error}"))
        };
        sizes.iter().map(pool).collect()
    }
}

/// A pool of half pages that can grow by so many segments of [`GROWTH`] fragments.
pub(crate) fn growing(segments: usize, backing: PageSize) -> Pool {
    let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
    let config = PoolConfig {
        fragments: GROWTH,
        max_fragments: (1 + segments) * GROWTH,
        segment_size: 2 << 20,
        backing,
        ..PoolConfig::default()
    };
    Pool::new(&config, &space).unwrap_or_else(|error| panic!("{error}"))
}

/// Half pages in a segment of 2 MiB.
pub(crate) const GROWTH: usize = 1024;

/// Bulks that are measured.
pub(crate) const BULKS: [usize; 3] = [8, 32, 64];

/// Fragments in a pool.
pub(crate) const FRAGMENTS: usize = 4096;

#[inline(never)]
pub(crate) fn alloc_fragment(pool: &mut Pool) -> Option<Posted> {
    pool.alloc()
}

#[inline(never)]
pub(crate) fn alloc_packet(pool: &mut Pool) -> Option<Packet> {
    pool.alloc_packet()
}

/// Dropping a fragment that is no packet is the same machine code, which the compiler keeps once.
#[inline(never)]
pub(crate) fn free_packet(packet: Packet) {
    drop(packet)
}

/// Requests of both sizes in turns, of one pool of half pages: the larger takes a whole page.
pub(crate) const SIZES: [usize; 2] = [1500, 4000];

#[inline(never)]
pub(crate) fn alloc_len(pool: &mut Pool, len: usize) -> Option<Posted> {
    pool.alloc_len(len)
}

#[inline(never)]
pub(crate) fn add_segment(pool: &mut Pool) -> usize {
    pool.grow().unwrap_or_else(|error| panic!("{error}"))
}

/// Fill an empty burst with empty packets, in turns from all pools.
#[inline(never)]
pub(crate) fn alloc_bulk(pools: &mut [Pool], burst: &mut Burst) {
    let empty = |posted: Posted| posted.complete(PoolConfig::HEADROOM, 0, PacketFlags::empty()).ok();
    match pools {
        [pool] => _ = burst.fill(pool, burst.room(), |_, fresh| empty(fresh.take())),
        [first, second] => {
            let half = burst.room() / 2;
            let mut others = second.batch(half);
            for fragment in first.batch(half) {
                for fragment in [Some(fragment), others.next()].into_iter().flatten() {
                    _ = empty(fragment).map(|packet| burst.push(packet));
                }
            }
        }
        _ => unreachable!("one pool or two"),
    }
}

#[inline(never)]
pub(crate) fn free_bulk(burst: &mut Burst) {
    burst.clear()
}

/// Fill an empty bulk with bare fragments. Returns how many.
#[inline(never)]
pub(crate) fn alloc_bare(pool: &mut Pool, bulk: &mut Bulk) -> usize {
    pool.alloc_bulk(bulk, bulk.capacity())
}

#[inline(never)]
pub(crate) fn free_bare(bulk: &mut Bulk) {
    bulk.clear()
}
