//! Where memory comes from: the same fragments, counters and end for all of it, and no bytes where the CPU cannot read.

// Writes the memory of a pool through its pointer, as a card may.
#![allow(unsafe_code)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use common::*;
use pagewire_hugepages::{Segment, SegmentOptions};
use pagewire_pci::mock;
use pagewire_pool::{
    Burst, Chain, DeviceMemory, Error, Life, Packet, PacketFlags, PageSize, Pages, Pool, PoolConfig,
    PoolMonitor, Posted, Provider, ProviderError, Region, RegionError, flush_thread, release_bulk,
};

fn payload(posted: Posted, len: u16) -> Packet {
    posted.complete(0, len, PacketFlags::empty()).expect("it fits")
}

#[test]
fn fragments_counters_and_the_end_are_the_same_for_every_provider() {
    for (provider, readable) in Bench::providers() {
        let (bench, what) = (Bench::new(), provider.describe());
        let mut pool = Pool::with_provider(&config(64), &bench.space, provider).expect(&what);
        let monitor = pool.monitor();
        assert_eq!((bench.iommu().mapped_bytes(), bench.iommu().map_calls()), (128 << 10, 1), "{what}");
        for stride in [1, 7, 63] {
            // Any order of frees of a page's fragments makes one whole page.
            let mut packets: Vec<_> = all(&mut pool).into_iter().map(Some).collect();
            assert_eq!(packets.len(), 64, "{what}");
            assert!(packets.iter().flatten().all(|packet| packet.is_readable() == readable), "{what}");
            pool.trim();
            for i in 0..64 {
                drop(packets[i * stride % 64].take());
                pool.trim();
                assert_eq!(pool.stats().inflight(), 63 - i as u64, "{what}");
            }
            assert_eq!(pool.whole_pages(), 32, "{what}");
        }
        drop_elsewhere(all(&mut pool));
        let held = all(&mut pool);
        assert_eq!((held.len(), pool.stats().recycle_ring), (64, 64), "{what}");
        drop(pool);
        assert_eq!((monitor.life(), bench.iommu().mapped_bytes()), (Life::Orphan, 128 << 10), "{what}");
        drop(held);
        assert!(is_home(&monitor), "{what}");
        assert_eq!((monitor.life(), bench.iommu().mapped_bytes()), (Life::Gone, 0), "{what}");
    }
}

#[test]
fn an_unreadable_fragment_has_no_address() {
    let (bench, (memory, _)) = (Bench::new(), Bench::device_memory(0..mock::BAR_LEN));
    let mut pool = Pool::with_provider(&config(64), &bench.space, Arc::new(memory)).expect("device memory");
    let mut packet = payload(pool.alloc().expect("one"), 100);
    assert!(packet.as_slice().is_none() && packet.as_mut_slice().is_none() && !packet.is_readable());
    assert_eq!(
        (packet.len(), packet.data_len(), packet.tailroom()),
        (100, 100, 1948),
        "what is known is told"
    );
    let error = packet.extend_from_slice(b"x").expect_err("unreadable");
    assert_eq!(
        error.to_string(),
        "segment 0 of the packet is in memory that the CPU cannot read: it can be sent, handed on or dropped"
    );
    let mut bytes = vec![1, 2, 3];
    assert!(matches!(packet.copy_to(&mut bytes), Err(Error::Unreadable { segment: 0 })));
    assert!(bytes.is_empty());
}

#[test]
fn a_chain_may_have_a_readable_header_and_an_unreadable_payload() {
    let (bench, (memory, _)) = (Bench::new(), Bench::device_memory(0..mock::BAR_LEN));
    let mut headers = Pool::new(&config(64), &bench.space).expect("host memory");
    let mut payloads = Pool::with_provider(&config(64), &bench.space, Arc::new(memory)).expect("of a device");
    let mut header = headers.alloc_packet().expect("one");
    header.extend_from_slice(b"header").expect("host memory");
    let mut chain = Chain::new(header);
    chain.push(payload(payloads.alloc().expect("one"), 1000)).expect("two segments");
    chain.push(payload(payloads.alloc().expect("one"), 500)).expect("three");
    let packet = chain.finish();
    assert_eq!(packet.as_slice(), Some(&b"header"[..]));
    assert_eq!((packet.len(), packet.segment_count()), (1506, 3));
    let readable: Vec<_> = packet.segments().map(Packet::is_readable).collect();
    assert_eq!(readable, [true, false, false]);
    assert!(packet.segments().skip(1).all(|segment| segment.as_slice().is_none() && segment.iova() != 0));
    let mut bytes = Vec::new();
    assert!(matches!(packet.copy_to(&mut bytes), Err(Error::Unreadable { segment: 1 })));
    assert_eq!(bytes, b"header");
    drop(packet);
    for pool in [&mut headers, &mut payloads] {
        pool.trim();
        assert_eq!(pool.stats().inflight(), 0);
    }
}

#[test]
fn what_kind_a_fragment_is_never_changes() {
    let (bench, (memory, _)) = (Bench::new(), Bench::device_memory(0..mock::BAR_LEN));
    let mut host = Pool::new(&config(64), &bench.space).expect("host memory");
    let mut device = Pool::with_provider(&config(64), &bench.space, Arc::new(memory)).expect("of a device");
    for round in 0..20 {
        let (mut a, mut b) = (all(&mut host), all(&mut device));
        assert!(a.iter().all(Packet::is_readable) && !b.iter().any(Packet::is_readable), "round {round}");
        // Through every way home, both kinds together.
        let mut slots: Vec<_> = a.drain(..20).chain(b.drain(..20)).map(Some).collect();
        release_bulk(&mut slots);
        let mut burst = Burst::new(40);
        a.drain(..20).chain(b.drain(..20)).for_each(|packet| burst.push(packet).expect("40 fit"));
        burst.clear();
        let mut chain = Chain::new(a.pop().expect("some are left"));
        b.drain(..10).for_each(|segment| chain.push(segment).expect("11 segments"));
        drop_elsewhere(vec![chain.finish()]);
        drop((a, b));
        host.trim();
    }
}

#[test]
fn a_clone_keeps_the_provider_and_the_memory_alive() {
    let bench = Bench::new();
    let provider = Arc::new(Told::default());
    let mut pool = Pool::with_provider(&config(2), &bench.space, provider.clone()).expect("a small pool");
    let monitor = pool.monitor();
    let mut packet = pool.alloc_packet().expect("one");
    packet.extend_from_slice(b"shared").expect("room");
    let one = Arc::new(packet);
    let other = one.clone();
    drop((pool, one));
    assert!(!is_home(&monitor));
    assert_eq!((provider.back.load(Ordering::Relaxed), other.as_slice()), (0, Some(&b"shared"[..])));
    drop(other);
    assert!(is_home(&monitor));
    assert_eq!(provider.back.load(Ordering::Relaxed), 1);
}

/// A provider that a user wrote. It notes what the pool's counters say when it is told of an end.
#[derive(Default)]
struct Told {
    monitor: OnceLock<PoolMonitor>,
    back: AtomicUsize,
    inflight: Mutex<Vec<(&'static str, u64, Life)>>,
}

impl Told {
    fn note(&self, what: &'static str) {
        if let Some(monitor) = self.monitor.get() {
            self.inflight.lock().expect("no panic").push((what, monitor.stats().inflight(), monitor.life()));
        }
    }
}

// SAFETY: its segments come from `Pages`, each once.
unsafe impl Provider for Told {
    fn describe(&self) -> String {
        "a user's own".into()
    }

    fn allocate(&self, len: usize) -> Result<Arc<Segment>, ProviderError> {
        let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "own".into() };
        Pages { options }.allocate(len)
    }

    fn release(&self, _: Arc<Segment>) {
        self.back.fetch_add(1, Ordering::Relaxed);
        self.note("release");
    }

    fn uninstall(&self) {
        self.note("uninstall");
    }
}

#[test]
fn the_released_counter_moves_last() {
    let (bench, provider) = (Bench::new(), Arc::new(Told::default()));
    let config = PoolConfig { segment_size: 4096, ..config(4) };
    let mut pool = Pool::with_provider(&config, &bench.space, provider.clone()).expect("two segments");
    let monitor = pool.monitor();
    assert!(provider.monitor.set(monitor.clone()).is_ok());
    let held = all(&mut pool);
    drop(pool);
    drop_elsewhere(held);
    let told = provider.inflight.lock().expect("no panic");
    assert_eq!(
        *told,
        [("release", 1, Life::Orphan), ("release", 1, Life::Orphan), ("uninstall", 1, Life::Orphan)],
        "whoever sees nothing in flight finds the memory back where it came from"
    );
    assert_eq!((monitor.stats().inflight(), monitor.life()), (0, Life::Gone));
}

#[test]
fn a_bulk_return_of_provided_buffers_is_one_operation() {
    let (bench, (memory, _)) = (Bench::new(), Bench::device_memory(0..mock::BAR_LEN));
    let mut pool = Pool::with_provider(&config(64), &bench.space, Arc::new(memory)).expect("device memory");
    let mut slots: Vec<_> = all(&mut pool).into_iter().map(Some).collect();
    // From another core: one reservation in the ring for 16.
    let before = pool.stats();
    slots = thread::spawn(move || {
        release_bulk(&mut slots);
        slots
    })
    .join()
    .expect("no panic");
    assert!(slots.iter().all(Option::is_none));
    assert_eq!(pool.stats().remote_batch - before.remote_batch, 4);
    // On the owner's: its magazine takes them all, and the cache takes them from there.
    for round in 0..8 {
        let before = pool.stats();
        let fragments: Vec<_> = pool.batch(32).map(|posted| Some(payload(posted, 60))).collect();
        assert_eq!(fragments.len(), 32);
        slots = fragments;
        release_bulk(&mut slots);
        // Its thread is known to be the owner's once the cache has been refilled.
        assert!(round < 4 || pool.stats().remote_batch == before.remote_batch, "round {round}");
    }
    assert_eq!(pool.batch(256).len(), 64, "never detached: all of it is back");
}

#[test]
fn a_region_of_the_users_holds_the_packets() {
    let (bench, file) = (Bench::new(), memfd(256 << 10));
    // SAFETY: the test reads the file, and nobody writes it.
    let region =
        unsafe { Region::new(file.try_clone().expect("a descriptor")) }.expect("a file with a length");
    let mut pool = Pool::with_provider(&config(64), &bench.space, Arc::new(region)).expect("a region");
    let mut packets = all(&mut pool);
    for (number, packet) in packets.iter_mut().enumerate() {
        packet.extend_from_slice(format!("packet {number:3}").as_bytes()).expect("room");
    }
    for (number, packet) in packets.iter().enumerate() {
        let offset = packet.iova() - bench.space.iova(&pool.segments()[0], 0).expect("it is mapped");
        assert_eq!(read_at(&file, offset, 10).expect("inside"), format!("packet {number:3}").as_bytes());
    }
}

#[test]
fn a_region_says_when_it_is_used_up_and_serves_again_what_came_back() {
    // SAFETY: nobody else has the file.
    let region = unsafe { Region::new(memfd(256 << 10)) }.expect("a file");
    let (bench, region) = (Bench::new(), Arc::new(region));
    let make = || Pool::with_provider(&config(64), &bench.space, region.clone());
    let (first, second) = (make().expect("one half"), make().expect("the other"));
    assert_eq!(
        make().map(drop).expect_err("no third").to_string(),
        "pool \"test\": a region of 262144 bytes: 131072 bytes in one piece are asked for, and 0 of 262144 are free"
    );
    drop(first);
    let third = make().expect("the first half again");
    assert_eq!(third.segments()[0].fd_offset(), 0);
    drop((second, third));
    let mut whole = Pool::with_provider(&config(128), &bench.space, region.clone()).expect("all of it");
    assert_eq!(all(&mut whole).len(), 128);
}

#[test]
fn a_file_is_one_region_at_a_time_whatever_the_descriptor() {
    let (bench, file, other) = (Bench::new(), memfd(256 << 10), memfd(256 << 10));
    let again = || file.try_clone().expect("a descriptor");
    // SAFETY: nobody writes them.
    let region = |file| unsafe { Region::new(file) };
    let first = region(again()).expect("a file");
    let error = region(again()).map(drop).expect_err("a second region of it");
    assert!(
        matches!(error, RegionError::Taken { .. }) && error.to_string().contains("is a region already"),
        "{error}"
    );
    let _other = region(other).expect("another file");
    // Until its last pool has gone.
    let pool = Pool::with_provider(&config(64), &bench.space, Arc::new(first)).expect("a region");
    assert!(region(again()).is_err());
    drop(pool);
    region(again()).expect("nobody has the first any more");
}

#[test]
fn memory_of_a_bar_keeps_its_function_open_and_is_where_the_device_says() {
    let (bench, (memory, registers)) = (Bench::new(), Bench::device_memory(0x4000..0x8000));
    let memory = Arc::new(memory);
    let mut pool = Pool::with_provider(&config(8), &bench.space, memory.clone()).expect("device memory");
    assert_eq!((pool.segments()[0].fd_offset(), memory.offset(&pool.segments()[0])), (0x4000, Some(0x4000)));
    let packet = pool.alloc_packet().expect("one");
    // The function was opened in a space of its own, whose last handle is the provider's.
    registers.set(0x4000, 7);
    assert_eq!(
        read_at(&pool.segments()[0].fd().try_clone_to_owned().expect("it has one"), 0x4000, 1)
            .expect("inside"),
        [7]
    );
    let segment = pool.segments().remove(0);
    drop((pool, packet));
    flush_thread();
    assert_eq!(memory.offset(&segment), None, "it is back");
}

#[test]
fn parts_of_a_bar_that_are_not_memory_are_refused() {
    let bench = Bench::new();
    let bar = bench.function.bar(0).expect("it has one");
    for part in [0..0, 0..100, 4096..mock::BAR_LEN + 4096] {
        assert!(DeviceMemory::bar(&bar, part.clone()).is_err(), "{part:?}");
    }
}

#[test]
fn memory_is_shared_with_another_process_by_descriptor() {
    let bench = Bench::new();
    let mut pool = Pool::new(&config(64), &bench.space).expect("a small pool");
    let mut packet = pool.alloc_packet().expect("one");
    packet.extend_from_slice(b"for another process").expect("room");
    let [segment] = &pool.segments()[..] else { panic!("one segment") };
    let fd = segment.fd().try_clone_to_owned().expect("it has one");
    let offset = packet.iova() - bench.space.iova(segment, 0).expect("it is mapped");
    assert_eq!(read_at(&fd, segment.fd_offset() + offset, 19).expect("inside"), b"for another process");
}

#[test]
fn metadata_never_lives_in_packet_memory() {
    let bench = Bench::new();
    let mut pool =
        Pool::new(&PoolConfig { page_size: 65536, ..config(128) }, &bench.space).expect("a small pool");
    let scribble = |pool: &Pool| {
        for segment in pool.segments() {
            // SAFETY: all of the segment; nobody refers to its bytes now.
            unsafe { segment.as_ptr().write_bytes(0xff, segment.len()) };
        }
    };
    for _ in 0..3 {
        let held = all(&mut pool);
        scribble(&pool);
        assert_eq!(held.len(), 128);
        assert!(held.iter().all(|packet| packet.is_empty() && packet.headroom() == 256));
        let (mut here, there): (Vec<_>, Vec<_>) =
            held.into_iter().enumerate().partition(|(number, _)| number % 2 == 0);
        drop_elsewhere(there.into_iter().map(|(_, packet)| packet).collect());
        here.truncate(32);
        drop(here);
        scribble(&pool);
        pool.trim();
        assert_eq!((pool.stats().inflight(), pool.whole_pages()), (0, 4));
    }
}
