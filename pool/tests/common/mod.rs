//! What the tests of the pool's outside share.

// A region of memory is vouched for.
#![allow(unsafe_code)]
#![allow(dead_code, unreachable_pub, reason = "each test uses its part of it")]

use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{io, thread};

use pagewire_hugepages::{Segment, SegmentOptions};
use pagewire_pci::mock::{self, Card, Iommu, Registers};
use pagewire_pci::{AddressSpace, AddressSpaceOptions, Function};
use pagewire_pool::{
    DeviceMemory, Packet, PageSize, Pages, Pool, PoolConfig, PoolMonitor, Provider, Region, flush_thread,
};

/// Registers that are memory.
struct Plain;

impl Card for Plain {}

/// A space and a device in it, of memory.
pub struct Bench {
    pub space: AddressSpace,
    pub function: Function,
    pub registers: Registers,
}

impl Bench {
    /// All of the function's BAR may be mapped.
    pub fn new() -> Bench {
        let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
        let (function, registers) =
            mock::open(&space, (1, 2), 0..mock::BAR_LEN, Plain).expect("a function of memory");
        Bench { space, function, registers }
    }

    pub fn iommu(&self) -> &Iommu {
        self.registers.iommu()
    }

    /// Memory of another device, in a space of its own: `part` of its BAR.
    pub fn device_memory(part: Range<u64>) -> (DeviceMemory, Registers) {
        let Bench { function, registers, .. } = Bench::new();
        let bar = function.bar(0).expect("it has one");
        (DeviceMemory::bar(&bar, part).expect("whole pages"), registers)
    }

    /// A provider of each kind, with at least 128 KiB, and whether the CPU reads its memory.
    pub fn providers() -> Vec<(Arc<dyn Provider>, bool)> {
        let pages = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "pages".into() };
        // SAFETY: nobody else has the file.
        let region = unsafe { Region::new(memfd(256 << 10)) }.expect("a file with a length");
        vec![
            (Arc::new(Pages { options: pages }), true),
            (Arc::new(region), true),
            (Arc::new(Bench::device_memory(0..mock::BAR_LEN).0), false),
            (Arc::new(DeviceMemory::dma_buf(memfd(128 << 10), 128 << 10)), false),
        ]
    }
}

/// A memfd of the application's: the file behind a segment can be sealed and shared, as any other.
pub fn memfd(len: usize) -> OwnedFd {
    let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "theirs".into() };
    let segment = Segment::allocate(len, &options).expect("some memory");
    segment.fd().try_clone_to_owned().expect("a descriptor")
}

/// Fragments of 2 KiB in pages of 4 KiB, all in one segment of small pages.
pub fn config(fragments: usize) -> PoolConfig {
    PoolConfig { name: "test".into(), fragments, backing: PageSize::Size4K, ..PoolConfig::default() }
}

/// Everything that is free.
pub fn all(pool: &mut Pool) -> Vec<Packet> {
    std::iter::from_fn(|| pool.alloc_packet()).collect()
}

/// Drop packets as another core does: they come back through the return ring.
pub fn drop_elsewhere(packets: Vec<Packet>) {
    thread::spawn(move || drop(packets)).join().expect("dropping does not panic");
}

/// Everything that was dropped on this thread is home.
pub fn is_home(monitor: &PoolMonitor) -> bool {
    flush_thread();
    monitor.stats().inflight() == 0
}

/// Reads a file that stands for memory of a device, as that device does.
pub fn read_at(file: &OwnedFd, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; len];
    File::from(file.try_clone()?).read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
