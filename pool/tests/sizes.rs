//! Pages, fragments and requests of every size, and segments that come and go.

mod common;

use std::collections::BTreeMap;

use common::*;
use pagewire_pool::{Error, Packet, PacketFlags, PageSize, Pool, PoolConfig};
use proptest::prelude::*;

#[test]
fn every_size_of_page_and_fragment_down_to_512_bytes() {
    let bench = Bench::new();
    for page_size in [4096, 8192, 16384, 32768, 65536] {
        for fragment_size in (9..=16).map(|bits| 1 << bits).filter(|&size| size <= page_size) {
            let config =
                PoolConfig { page_size, fragment_size, headroom: 0, ..config((256 << 10) / fragment_size) };
            let mut pool = Pool::new(&config, &bench.space).expect("256 KiB");
            let mut packets = all(&mut pool);
            assert_eq!(packets.len(), config.fragments, "{page_size} {fragment_size}");
            for (number, packet) in packets.iter_mut().enumerate() {
                let room = packet.tailroom();
                assert_eq!(room, fragment_size.min(usize::from(u16::MAX)), "a length has 16 bits");
                packet.extend_from_slice(&vec![number as u8; room]).expect("all of it");
                assert!(packet.extend_from_slice(&[0]).is_err());
            }
            for (number, packet) in packets.iter().enumerate() {
                let bytes = packet.as_slice().expect("host memory");
                assert!(bytes.iter().all(|&byte| byte == number as u8), "{page_size} {fragment_size}");
            }
            drop(packets);
            pool.trim();
            assert_eq!(pool.whole_pages(), (256 << 10) / page_size);
        }
    }
}

#[test]
fn adjacent_descriptors_share_a_page_and_64_kib_serve_32() {
    let bench = Bench::new();
    for (page_size, shared) in [(4096, 2), (65536, 32)] {
        let config = PoolConfig { page_size, ..config(256) };
        let mut pool = Pool::new(&config, &bench.space).expect("a small pool");
        // A refill is 64 fragments of neighbouring pages.
        let pages: Vec<_> = (0..64).map(|_| pool.alloc().expect("256").iova() / page_size as u64).collect();
        for run in pages.chunks(shared) {
            assert!(run.iter().all(|page| *page == run[0]), "{pages:?}");
        }
        assert_eq!(pool.whole_pages(), (256 - 64) / shared);
    }
}

#[test]
fn the_second_half_goes_to_the_next_request_and_large_ones_take_the_whole_page() {
    let bench = Bench::new();
    let mut pool =
        Pool::new(&PoolConfig { page_size: 8192, ..config(16) }, &bench.space).expect("four pages");
    let page = |packet: &Packet| packet.iova() / 8192;
    let mut take = |len: usize| {
        let posted = pool.alloc_len(len).expect("there is room");
        assert!(posted.size() >= len);
        let size = posted.size();
        (posted.complete(0, len as u16, PacketFlags::empty()).expect("it fits"), size)
    };
    let (first, size) = take(4096);
    assert_eq!(size, 4096);
    let (second, size) = take(2049);
    assert_eq!((size, page(&second)), (4096, page(&first)), "the covering power of two, of the same page");
    let (third, size) = take(4097);
    assert_eq!((size, page(&third) != page(&first)), (8192, true), "above half a page: all of it");
    let (fourth, size) = take(8192);
    assert_eq!(size, 8192);
    assert!(pool.alloc_len(8193).is_none(), "more than a page");
    let rest = all(&mut pool);
    assert_eq!(rest.len(), 4, "one page is left");
    assert!(pool.alloc_len(4096).is_none());
    assert_eq!(pool.stats().inflight(), 16);
    drop((second, rest));
    drop_elsewhere(vec![fourth, first]);
    assert!(pool.alloc_len(8192).is_some(), "pages are put together from what comes back");
    drop(third);
    pool.trim();
    assert_eq!((pool.stats().inflight(), pool.whole_pages()), (0, 4));
}

#[test]
fn a_whole_page_of_64_kib_can_be_filled() {
    let bench = Bench::new();
    let config = PoolConfig { page_size: 65536, fragment_size: 512, headroom: 0, ..config(256) };
    let mut pool = Pool::new(&config, &bench.space).expect("two pages");
    let posted = pool.alloc_len(65536).expect("a page");
    assert_eq!(posted.size(), 65536);
    let packet = posted.complete(1, u16::MAX, PacketFlags::empty()).expect("what a length can say");
    assert_eq!(packet.as_slice().map(<[u8]>::len), Some(65535));
    drop(packet);
    assert_eq!(all(&mut pool).len(), 256, "it is 128 fragments again");
}

#[test]
fn one_map_a_segment_and_none_while_packets_flow() {
    for (segment_size, most) in [(0, 1), (2 << 20, 512)] {
        let bench = Bench::new();
        let config = PoolConfig { segment_size, ..config(1 << 19) };
        let mut pool = Pool::new(&config, &bench.space).expect("1 GiB of memory");
        assert_eq!((bench.iommu().map_calls(), bench.iommu().mapped_bytes()), (most, 1 << 30));
        let mut held = Vec::new();
        for round in 0..2000 {
            held.extend(
                pool.batch(32).filter_map(|posted| posted.complete(0, 60, PacketFlags::empty()).ok()),
            );
            if round % 500 == 499 {
                drop_elsewhere(held.split_off(100));
                pool.trim();
            }
        }
        assert_eq!((bench.iommu().map_calls(), bench.iommu().unmap_calls()), (most, 0));
        drop((held, pool));
        pagewire_pool::flush_thread();
        assert_eq!((bench.iommu().unmap_calls(), bench.iommu().mapped_bytes()), (most, 0));
    }
}

#[test]
fn segments_of_2_mib_pages_come_and_go() {
    let bench = Bench::new();
    let config = PoolConfig {
        backing: PageSize::Size2M,
        segment_size: 2 << 20,
        max_fragments: 3 << 10,
        ..config(1 << 10)
    };
    let mut pool = Pool::new(&config, &bench.space).expect("a huge page");
    let held = all(&mut pool);
    assert_eq!((held.len(), bench.iommu().map_calls()), (1 << 10, 1));
    assert_eq!(pool.grow().expect("another huge page"), 1 << 10);
    assert_eq!((all(&mut pool).len(), bench.iommu().map_calls()), (1 << 10, 2));
    assert_eq!(pool.segments()[1].page_size(), PageSize::Size2M);
    assert_eq!((pool.shrink(0), bench.iommu().mapped_bytes()), (1 << 10, 2 << 20));
    assert_eq!(pool.shrink(0), 0, "fragments of the other are out");
    drop(held);
    assert_eq!(pool.shrink(1), 0, "one is to be kept");
    assert_eq!((pool.shrink(0), pool.stats().fragments), (1 << 10, 0));
    assert!(pool.alloc().is_none());
    assert!(pool.grow().is_ok() && pool.alloc().is_some());
}

#[test]
fn a_pool_grows_when_it_is_empty_if_told_to_and_no_further_than_told() {
    let bench = Bench::new();
    let config =
        PoolConfig { max_fragments: 200, segment_size: 128 << 10, grow_when_empty: true, ..config(64) };
    let mut pool = Pool::new(&config, &bench.space).expect("a small pool");
    assert_eq!((pool.stats().fragments, bench.iommu().map_calls()), (64, 1));
    let held = all(&mut pool);
    assert_eq!((held.len(), bench.iommu().map_calls()), (256, 4), "200 are four segments of 64");
    assert!(matches!(pool.grow(), Err(Error::FullyGrown { fragments: 256, .. })));
    // The ring holds every fragment that there may be.
    drop_elsewhere(held);
    assert_eq!(all(&mut pool).len(), 256);
    assert_eq!(pool.stats().recycle_ring, 256);
}

#[test]
fn a_request_for_a_page_has_an_empty_pool_grow_too() {
    let bench = Bench::new();
    let config =
        PoolConfig { max_fragments: 128, segment_size: 128 << 10, grow_when_empty: true, ..config(64) };
    let mut pool = Pool::new(&config, &bench.space).expect("a small pool");
    let pages: Vec<_> = std::iter::from_fn(|| pool.alloc_len(4096)).collect();
    assert_eq!((pages.len(), pool.stats().fragments), (64, 128));
    drop(pages);
}

#[derive(Clone, Debug)]
enum Operation {
    Take(usize),
    Drop(usize),
    Elsewhere(usize),
    Grow,
    Shrink(usize),
    Trim,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        8 => (1..9000usize).prop_map(Take),
        4 => (1..2048usize).prop_map(Take),
        6 => (0..1000usize).prop_map(Drop),
        3 => (0..1000usize).prop_map(Elsewhere),
        1 => Just(Grow),
        1 => (0..200usize).prop_map(Shrink),
        1 => Just(Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Requests of mixed sizes on a pool that grows and shrinks: nothing overlaps, everything that is held is mapped, the counters
    /// agree, and in the end it is all whole again.
    #[test]
    fn mixed_sizes_and_moving_segments_agree_with_an_oracle(
        operations in proptest::collection::vec(operation(), 1..200),
    ) {
        let bench = Bench::new();
        let config = PoolConfig {
            page_size: 8192,
            fragment_size: 1024,
            headroom: 0,
            segment_size: 32 << 10,
            max_fragments: 256,
            ..config(64)
        };
        let mut pool = Pool::new(&config, &bench.space).expect("a small pool");
        // By address, what is held and how many bytes it is.
        let mut held: BTreeMap<u64, (Packet, u64)> = BTreeMap::new();
        for operation in operations {
            match operation {
                Operation::Take(len) => {
                    let Some(posted) = pool.alloc_len(len) else {
                        prop_assert!(len > 8192 || pool.available() < 64 || pool.whole_pages() == 0 || len > 1024);
                        continue;
                    };
                    let (at, size) = (posted.iova(), posted.size() as u64);
                    prop_assert_eq!(size, (len as u64).next_power_of_two().max(1024));
                    prop_assert_eq!(at % size, 0, "aligned to its size");
                    let before = held.range(..at + size).next_back().map_or(0, |(at, (_, size))| at + size);
                    prop_assert!(before <= at, "two holders of {:#x}", at);
                    let bytes = vec![at as u8 ^ (at >> 10) as u8; len];
                    let mut packet = posted.complete(0, 0, PacketFlags::empty()).expect("nothing fits");
                    packet.extend_from_slice(&bytes).expect("it is large enough");
                    held.insert(at, (packet, size));
                }
                Operation::Drop(n) | Operation::Elsewhere(n) => {
                    let Some(&at) = held.keys().nth(n % held.len().max(1)) else { continue };
                    let (packet, _) = held.remove(&at).expect("just found");
                    let byte = at as u8 ^ (at >> 10) as u8;
                    prop_assert!(packet.as_slice().expect("host memory").iter().all(|&found| found == byte));
                    match operation {
                        Operation::Drop(_) => drop(packet),
                        _ => drop_elsewhere(vec![packet]),
                    }
                }
                Operation::Grow => {
                    let before = pool.stats().fragments;
                    prop_assert_eq!(pool.grow().is_ok(), before < 256);
                }
                Operation::Shrink(keep) => { pool.shrink(keep); }
                Operation::Trim => pool.trim(),
            }
            let stats = pool.stats();
            prop_assert_eq!(stats.fragments << 10, bench.iommu().mapped_bytes() as u64);
            let out: u64 = held.values().map(|(_, size)| size >> 10).sum();
            prop_assert!((out..=stats.fragments).contains(&stats.inflight()));
        }
        let monitor = pool.monitor();
        pool.trim();
        prop_assert_eq!(pool.stats().inflight(), held.values().map(|(_, size)| size >> 10).sum::<u64>());
        drop(pool);
        held.clear();
        prop_assert!(is_home(&monitor));
        prop_assert_eq!(bench.iommu().mapped_bytes(), 0);
    }
}
