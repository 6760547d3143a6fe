//! A device and a domain made of files and lists, which record what is done to them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use memmap2::MmapOptions;

use super::*;
use crate::sysfs::tests::Machine;
use crate::{AddressSpace, AddressSpaceOptions, Function};

/// What was done, in its order.
pub(crate) type Log = Arc<Mutex<Vec<String>>>;

pub(crate) struct FakeDevice {
    pub(crate) log: Log,
    /// Configuration space at 0, the BAR from `BAR` on.
    pub(crate) file: Arc<File>,
    pub(crate) bar_len: u64,
    pub(crate) mappable: Vec<Range<u64>>,
    pub(crate) can_reset: bool,
    /// Descriptors that stand for the vectors that are on.
    pub(crate) events: Arc<Mutex<Vec<OwnedFd>>>,
}

/// Where the BAR is in the file.
pub(crate) const BAR: u64 = 0x1000;

impl FakeDevice {
    pub(crate) fn new(config: &[u8]) -> FakeDevice {
        let file = tempfile::tempfile().unwrap();
        file.set_len(BAR + 0x5000).unwrap();
        file.write_all_at(config, 0).unwrap();
        FakeDevice {
            log: Log::default(),
            file: Arc::new(file),
            bar_len: 0x4000,
            mappable: std::iter::once(0..0x4000).collect(),
            can_reset: true,
            events: Arc::default(),
        }
    }

    fn record(&self, what: String) {
        self.log.lock().unwrap().push(what);
    }
}

impl Device for FakeDevice {
    fn region(&self, index: u32) -> io::Result<Region> {
        Ok(match index {
            0 => Region { index, len: self.bar_len, offset: BAR, mappable: self.mappable.clone() },
            CONFIG_REGION => Region { index, len: 256, offset: 0, mappable: Vec::new() },
            _ => Region { index, len: 0, offset: 0, mappable: Vec::new() },
        })
    }

    fn read(&self, region: &Region, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.record(format!("read {} at {offset:#x}", region.index));
        self.file.read_exact_at(into, region.offset + offset)
    }

    fn write(&self, region: &Region, offset: u64, from: &[u8]) -> io::Result<()> {
        self.record(format!("write {} at {offset:#x}: {from:x?}", region.index));
        self.file.write_all_at(from, region.offset + offset)
    }

    fn map(&self, region: &Region, part: Range<u64>) -> io::Result<MmapRaw> {
        let len = (part.end - part.start) as usize;
        MmapOptions::new().offset(region.offset + part.start).len(len).map_raw(&*self.file)
    }

    fn file(&self, _: &Region) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    fn interrupts(&self, kind: InterruptKind) -> io::Result<u32> {
        Ok(if kind == InterruptKind::Msix { 5 } else { 1 })
    }

    fn set_interrupts(&self, kind: InterruptKind, events: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.record(format!("{kind}: {} on", events.len()));
        let copies = events.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<_>>()?;
        *self.events.lock().unwrap() = copies;
        Ok(())
    }

    fn unmask_intx(&self) -> io::Result<()> {
        self.record("unmask".to_owned());
        Ok(())
    }

    fn can_reset(&self) -> bool {
        self.can_reset
    }

    fn reset(&self) -> io::Result<()> {
        self.record("reset".to_owned());
        Ok(())
    }
}

impl Drop for FakeDevice {
    fn drop(&mut self) {
        self.record("closed".to_owned());
    }
}

/// A domain that keeps what is mapped in it.
pub(crate) struct FakeDomain {
    pub(crate) usable: Usable,
    /// IOVA → length.
    pub(crate) maps: Mutex<BTreeMap<u64, usize>>,
    /// Maps that it still takes.
    pub(crate) room: Mutex<usize>,
}

impl FakeDomain {
    pub(crate) fn new(usable: Usable) -> Arc<FakeDomain> {
        Arc::new(FakeDomain { usable, maps: Mutex::default(), room: Mutex::new(usize::MAX) })
    }

    pub(crate) fn mapped(&self) -> Vec<(u64, usize)> {
        self.maps.lock().unwrap().iter().map(|(&iova, &len)| (iova, len)).collect()
    }
}

impl Domain for FakeDomain {
    fn usable(&self) -> Result<Usable, Error> {
        Ok(self.usable.clone())
    }

    fn map(&self, segment: &Segment, iova: u64) -> Result<(), Error> {
        let mut room = self.room.lock().unwrap();
        *room = room.checked_sub(1).ok_or(Error::MapsExhausted { what: "a segment".to_owned() })?;
        let before = self.maps.lock().unwrap().insert(iova, segment.len());
        assert_eq!(before, None, "mapped twice at {iova:#x}");
        Ok(())
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), Error> {
        assert_eq!(self.maps.lock().unwrap().remove(&iova), Some(len), "unmapped as it was mapped");
        Ok(())
    }
}

/// A space on a machine without a device, for those of a test.
pub(crate) fn space() -> AddressSpace {
    let options = AddressSpaceOptions {
        dma_page_size: pagewire_hugepages::PageSize::Size4K,
        ..AddressSpaceOptions::default()
    };
    AddressSpace::with_sysfs(options, Machine::new().sysfs.clone()).unwrap()
}

/// Opens a device of a test's own in a space.
pub(crate) fn open(
    space: &AddressSpace,
    device: FakeDevice,
    domain: Arc<dyn Domain>,
) -> Result<Function, Error> {
    let machine = Machine::new();
    machine.e1000e("0000:01:00.0");
    let info = machine.sysfs.functions().unwrap().remove(0);
    space.adopt(info, Box::new(device), domain)
}
