//! Spaces with devices and domains of their own making.

// Test memory is filled and read by pointer, as a device would.
#![allow(unsafe_code)]

use std::sync::Arc;

use pagewire_hugepages::{PageSize, Segment, SegmentOptions};

use crate::backend::fake::{FakeDevice, FakeDomain, open, space};
use crate::{AddressSpace, Error};

const G: u64 = 1 << 30;
const ANYWHERE: std::ops::RangeInclusive<u64> = 0..=u64::MAX;

fn segment(pages: usize) -> Arc<Segment> {
    let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "pci-test".into() };
    Segment::allocate(pages * 4096, &options).unwrap()
}

fn device() -> FakeDevice {
    FakeDevice::new(&[])
}

fn at(base: u64, segment: &Segment) -> (u64, usize) {
    (base + segment.window_offset() as u64, segment.len())
}

#[test]
fn every_device_sees_every_segment_at_one_address() {
    let (space, early, late) = (space(), FakeDomain::new(vec![ANYWHERE]), FakeDomain::new(vec![ANYWHERE]));
    let (one, two) = (segment(2), segment(3));
    let _first = open(&space, device(), early.clone()).unwrap();
    space.map(one.clone()).unwrap();
    space.map(one.clone()).unwrap();
    space.map(two.clone()).unwrap();
    let _second = open(&space, device(), late.clone()).unwrap();
    let mut expected = vec![at(64 * G, &one), at(64 * G, &two)];
    expected.sort();
    assert_eq!(early.mapped(), expected);
    assert_eq!(late.mapped(), expected, "a device that comes later sees what was mapped before");
    assert_eq!(space.iova(&two, 8191).unwrap(), at(64 * G, &two).0 + 8191);

    space.unmap(&one).unwrap();
    space.unmap(&one).unwrap();
    assert_eq!((early.mapped(), late.mapped()), (vec![at(64 * G, &two)], vec![at(64 * G, &two)]));
}

#[test]
fn only_mapped_memory_has_an_address() {
    let (space, one) = (space(), segment(1));
    assert!(matches!(space.iova(&one, 0), Err(Error::NotMapped { .. })));
    space.map(one.clone()).unwrap();
    assert!(space.iova(&one, 4095).is_ok());
    assert!(matches!(space.iova(&one, 4096), Err(Error::NotMapped { offset: 4096, .. })));
    space.unmap(&one).unwrap();
    assert!(matches!(space.iova(&one, 0), Err(Error::NotMapped { .. })));
}

#[test]
fn the_space_keeps_memory_while_it_is_mapped() {
    let (space, one) = (space(), segment(1));
    let weak = Arc::downgrade(&one);
    space.map(one).unwrap();
    let one = weak.upgrade().expect("mapped memory is kept");
    space.unmap(&one).unwrap();
    drop(one);
    assert!(weak.upgrade().is_none(), "and let go of when it is unmapped");
}

#[test]
fn the_first_device_decides_on_the_base() {
    // A narrow IOMMU with nothing at 64 GiB.
    let (space, narrow) = (space(), FakeDomain::new(vec![0..=0xfedf_ffff, 0xfef0_0000..=48 * G]));
    let _function = open(&space, device(), narrow.clone()).unwrap();
    let one = segment(1);
    space.map(one.clone()).unwrap();
    assert_eq!(narrow.mapped(), [at(4 * G, &one)], "the roomiest range");
}

#[test]
fn a_device_that_cannot_reach_what_is_mapped_is_refused_and_leaves_no_trace() {
    let (space, one) = (space(), segment(1));
    space.map(one.clone()).unwrap();
    let narrow = FakeDomain::new(vec![0..=4 * G]);
    let device = device();
    let log = device.log.clone();
    let error = open(&space, device, narrow.clone()).err().unwrap();
    assert!(matches!(error, Error::IovaUnusable { .. }), "{error}");
    assert!(error.to_string().contains("0x0–0x100000000"), "says what is usable: {error}");
    assert_eq!(log.lock().unwrap().last().unwrap(), "closed");
    assert!(narrow.mapped().is_empty());
    space.map(segment(1)).unwrap();
    assert!(narrow.mapped().is_empty(), "its domain is not in the space");
}

#[test]
fn a_map_that_one_domain_refuses_is_taken_back_from_the_others() {
    let (space, wide, full) = (space(), FakeDomain::new(vec![ANYWHERE]), FakeDomain::new(vec![ANYWHERE]));
    let _functions =
        [open(&space, device(), wide.clone()).unwrap(), open(&space, device(), full.clone()).unwrap()];
    *full.room.lock().unwrap() = 1;
    let (one, two) = (segment(1), segment(1));
    space.map(one.clone()).unwrap();
    let weak = Arc::downgrade(&two);
    assert!(matches!(space.map(two), Err(Error::MapsExhausted { .. })));
    assert_eq!((wide.mapped(), full.mapped()), (vec![at(64 * G, &one)], vec![at(64 * G, &one)]));
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_domain_goes_with_its_last_device_and_memory_stays_for_the_next() {
    let (space, one) = (space(), segment(1));
    space.map(one.clone()).unwrap();
    let first = FakeDomain::new(vec![ANYWHERE]);
    let weak = Arc::downgrade(&first);
    let function = open(&space, device(), first).unwrap();
    let bar = function.bar(0).unwrap();
    drop(function);
    assert!(weak.upgrade().is_some(), "a BAR keeps the device");
    drop(bar);
    assert!(weak.upgrade().is_none(), "closed: what was mapped for the device is gone");
    let next = FakeDomain::new(vec![ANYWHERE]);
    let _function = open(&space, device(), next.clone()).unwrap();
    assert_eq!(next.mapped(), [at(64 * G, &one)]);
}

#[test]
fn dma_buffers_are_apart_aligned_zeroed_and_mapped() {
    let (space, domain) = (space(), FakeDomain::new(vec![ANYWHERE]));
    let _function = open(&space, device(), domain.clone()).unwrap();
    let ring = space.allocate_dma(4096, 128).unwrap();
    let small: Vec<_> = (0..8).map(|_| space.allocate_dma(100, 256).unwrap()).collect();
    let large = space.allocate_dma(3 * 4096 + 1, 64).unwrap();
    let mut ranges: Vec<(u64, u64)> =
        small.iter().chain([&ring, &large]).map(|buffer| (buffer.iova(), buffer.len() as u64)).collect();
    ranges.sort();
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{ranges:x?}");
    assert!(small.iter().all(|buffer| buffer.iova() % 256 == 0 && buffer.as_ptr().addr().get() % 256 == 0));
    let maps = domain.mapped();
    assert!(ranges.iter().all(|&(first, len)| {
        maps.iter().any(|&(iova, whole)| iova <= first && first + len <= iova + whole as u64)
    }));

    let fill = |buffer: &crate::DmaBuffer, value| {
        // SAFETY: the buffer's own bytes; no device is behind these domains.
        unsafe { buffer.as_ptr().write_bytes(value, buffer.len()) }
    };
    fill(&ring, 0xa5);
    let (place, maps) = (ring.iova(), domain.mapped().len());
    drop(ring);
    let again = space.allocate_dma(4096, 128).unwrap();
    assert_eq!((again.iova(), domain.mapped().len()), (place, maps), "the place is used again");
    // SAFETY: as above.
    assert!((0..4096).all(|at| unsafe { again.as_ptr().add(at).read_volatile() } == 0), "and cleared");
}

#[test]
fn impossible_dma_buffers_are_refused() {
    let space = space();
    for (len, align) in [(0, 64), (64, 0), (64, 48), (64, 8192), (usize::MAX, 64)] {
        assert!(matches!(space.allocate_dma(len, align), Err(Error::BadDmaBuffer { .. })), "{len} {align}");
    }
}

#[test]
fn handles_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<AddressSpace>();
    shared::<crate::Function>();
    shared::<crate::Bar>();
    shared::<crate::Doorbell>();
    sent::<crate::DmaBuffer>();
    sent::<crate::Interrupt>();
}
