//! Tests that need the crate's inside: failures on order, nodes that the machine has not, times that have not passed.

// A provider vouches for its memory.
#![allow(unsafe_code)]

mod ages;
mod faults;
mod nodes;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use pagewire_hugepages::{Segment, SegmentOptions};
use pagewire_pci::mock::{self, Card, Iommu};
use pagewire_pci::{AddressSpace, AddressSpaceOptions, Function};

use crate::{Packet, PageSize, Pages, Pool, PoolConfig, Provider, ProviderError};

/// Registers that are memory.
struct Plain;

impl Card for Plain {}

/// A space with a device in it, and the IOMMU that this is behind.
fn space() -> (AddressSpace, Function, Arc<Iommu>) {
    let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
    let (function, registers) = mock::open(&space, (1, 2), 0..4096, Plain).expect("a function of memory");
    (space, function, registers.iommu().clone())
}

/// Four segments of 64 fragments at most, of which there are two at first.
fn config() -> PoolConfig {
    PoolConfig {
        name: "test".into(),
        fragments: 128,
        max_fragments: 256,
        segment_size: 64 * 2048,
        backing: PageSize::Size4K,
        ..PoolConfig::default()
    }
}

/// Small pages that are counted.
#[derive(Default)]
struct Counted {
    /// Every segment that was given, as long as it is there.
    given: Mutex<Vec<Weak<Segment>>>,
    released: AtomicUsize,
    uninstalled: AtomicUsize,
}

impl Counted {
    fn given(&self) -> usize {
        self.given.lock().expect("no panic").len()
    }

    fn released(&self) -> usize {
        self.released.load(Ordering::Relaxed)
    }

    fn alive(&self) -> usize {
        self.given.lock().expect("no panic").iter().filter(|segment| segment.strong_count() > 0).count()
    }
}

// SAFETY: its segments come from `Pages`, each once.
unsafe impl Provider for Counted {
    fn describe(&self) -> String {
        "counted pages".into()
    }

    fn allocate(&self, len: usize) -> Result<Arc<Segment>, ProviderError> {
        let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "counted".into() };
        let segment = Pages { options }.allocate(len)?;
        self.given.lock().expect("no panic").push(Arc::downgrade(&segment));
        Ok(segment)
    }

    fn release(&self, segment: Arc<Segment>) {
        assert_eq!(Arc::strong_count(&segment), 1, "the space has let go of it");
        self.released.fetch_add(1, Ordering::Relaxed);
    }

    fn uninstall(&self) {
        assert_eq!(self.released(), self.given(), "all of it came back before");
        self.uninstalled.fetch_add(1, Ordering::Relaxed);
    }
}

fn all(pool: &mut Pool) -> Vec<Packet> {
    std::iter::from_fn(|| pool.alloc_packet()).collect()
}

/// Drop packets as another core does: they come back through the return ring.
fn drop_elsewhere(packets: Vec<Packet>) {
    thread::spawn(move || drop(packets)).join().expect("dropping does not panic");
}
