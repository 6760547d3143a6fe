//! Base address registers: the function's registers, mapped.

// Registers are reached by pointer.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use memmap2::MmapRaw;
use pagewire_hugepages::Segment;

use crate::backend::Region;
use crate::space::Opened;
use crate::{Address, Error};

/// A page of the CPU: what can be mapped and what cannot is told apart in these.
const PAGE: u64 = 4096;

/// A BAR of a function.
///
/// Registers are read and written in place where the kernel, or a vfio-user server, lets their page be mapped. The pages of the MSI-X table are
/// not mapped even where it would: there, and wherever else a page cannot be mapped, each access is a system call, or a
/// message and its answer. The kernel owns the MSI-X table, and answers reads in it with all-ones and ignores writes.
///
/// An offset that is outside the BAR or no multiple of the access is a bug of the driver: a debug build panics, a release
/// build reads all-ones, as the bus would, and writes nothing. No device or frame can cause that. A register that no
/// longer answers (the card was pulled out) reads as all-ones too, so a driver treats `u32::MAX` with suspicion.
///
/// Memory and registers stay in order, as with the kernel's `readl` and `writel`: what this thread stored before it writes
/// a register is there when the device looks, and what it loads after it has read one is not older than that. On x86
/// this holds back the compiler and costs no instruction.
///
/// A clone is another handle of the same mapping, which stays until the last one is gone.
#[derive(Clone)]
pub struct Bar {
    inner: Arc<Inner>,
}

struct Inner {
    /// Ascending, without overlap. Unmapped before the device is closed: fields are dropped in this order.
    areas: Vec<Area>,
    len: usize,
    region: Region,
    address: Address,
    opened: Arc<Opened>,
}

/// A part of the BAR that is mapped.
struct Area {
    range: Range<usize>,
    mapping: MmapRaw,
}

impl Bar {
    pub(crate) fn open(
        address: Address,
        index: u8,
        msix_table: Option<Range<u64>>,
        opened: &Arc<Opened>,
    ) -> Result<Bar, Error> {
        if index > 5 {
            return Err(Error::NoBar { address, index });
        }
        let region = opened
            .device()
            .region(index.into())
            .map_err(Error::io(format!("asking for BAR {index} of {address}")))?;
        let Ok(len @ 1..) = usize::try_from(region.len) else { return Err(Error::NoBar { address, index }) };
        let mut areas = Vec::new();
        for part in mappable(&region, msix_table) {
            let mapping = opened.device().map(&region, part.clone()).map_err(Error::io(format!(
                "mapping {:#x}–{:#x} of BAR {index} of {address}",
                part.start, part.end
            )))?;
            areas.push(Area { range: part.start as usize..part.end as usize, mapping });
        }
        Ok(Bar { inner: Arc::new(Inner { areas, len, region, address, opened: opened.clone() }) })
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)] // It never is.
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// Reads the 32-bit little-endian register at `offset`.
    #[inline]
    pub fn read32(&self, offset: usize) -> u32 {
        let Some(register) = self.inner.mapped(offset) else { return self.inner.trapped_read(offset) };
        // SAFETY: `mapped` gives pointers to 4 aligned bytes of a live mapping only.
        let value = unsafe { register.read_volatile() };
        fence(Ordering::Acquire);
        u32::from_le(value)
    }

    /// Reads a register for what reading it does, such as clear it: a page that a vfio-user server lets be mapped is memory in the
    /// registers' place, where it does nothing. There this is a message and its answer; elsewhere it is [`read32`](Bar::read32).
    pub fn read32_with_effect(&self, offset: usize) -> u32 {
        match self.inner.opened.device().maps_registers() {
            true => self.read32(offset),
            false => self.inner.trapped_read(offset),
        }
    }

    /// Writes the 32-bit little-endian register at `offset`.
    #[inline]
    pub fn write32(&self, offset: usize, value: u32) {
        let Some(register) = self.inner.mapped(offset) else {
            return self.inner.trapped_write(offset, value);
        };
        fence(Ordering::Release);
        // SAFETY: as in `read32`.
        unsafe { register.write_volatile(value.to_le()) };
    }

    /// A part of the BAR as memory that other devices of a space may reach, in whole pages: memory of the device, which the CPU
    /// does not read. Map it with [`AddressSpace::map`](crate::AddressSpace::map).
    ///
    /// It holds the device's file, not the function: keep a clone of the BAR for as long as the device is to stay open.
    pub fn memory(&self, part: Range<u64>) -> Result<Arc<Segment>, Error> {
        let Inner { address, len, ref areas, ref region, ref opened } = *self.inner;
        let fits = |area: &Area| {
            area.range.start as u64 <= part.start
                && part.end <= area.range.end as u64
                && part.start < part.end
        };
        if !areas.iter().any(fits) || !part.start.is_multiple_of(PAGE) || !part.end.is_multiple_of(PAGE) {
            let (index, start, end) = (region.index as u8, part.start, part.end);
            return Err(Error::NoBarMemory { address, index, len, start, end });
        }
        let file = opened
            .device()
            .file(region)
            .map_err(Error::io(format!("asking for the file of BAR {} of {address}", region.index)))?;
        Ok(Segment::device(file, region.offset + part.start, (part.end - part.start) as usize)?)
    }

    /// A register to be written on the hot path: its offset is checked here and never again. It is written by one store if
    /// its page is mapped.
    pub fn doorbell(&self, offset: usize) -> Result<Doorbell, Error> {
        let Inner { address, len, ref region, .. } = *self.inner;
        if !self.inner.is_register(offset) {
            return Err(Error::NoDoorbell { address, index: region.index as u8, len, offset });
        }
        let mut unmapped = Box::new(0);
        let mapped = self.inner.mapped(offset);
        let register = mapped.unwrap_or(&raw mut *unmapped);
        Ok(Doorbell { register, is_mapped: mapped.is_some(), offset, bar: self.clone(), _unmapped: unmapped })
    }
}

/// One register of a [`Bar`] that is written often, such as a queue's tail.
pub struct Doorbell {
    /// A word that nobody reads if the register is not mapped.
    register: *mut u32,
    is_mapped: bool,
    offset: usize,
    /// Keeps the mapping.
    bar: Bar,
    _unmapped: Box<u32>,
}

// SAFETY: the pointer is to a register, which any thread may write with one store; the mapping lives as long as `bar`.
unsafe impl Send for Doorbell {}
// SAFETY: as for `Send`; concurrent rings are two stores to the bus, one after the other.
unsafe impl Sync for Doorbell {}

impl Doorbell {
    /// Writes the register: one store, after all that this thread has stored before, descriptors above all; see [`Bar`].
    #[inline]
    pub fn ring(&self, value: u32) {
        match self.is_mapped {
            true => self.ring_mapped(value),
            false => self.bar.inner.trapped_write(self.offset, value),
        }
    }

    /// Whether [`ring`](Doorbell::ring) is one store.
    pub fn is_mapped(&self) -> bool {
        self.is_mapped
    }

    /// [`ring`](Doorbell::ring), of a register that [is mapped](Doorbell::is_mapped): nothing is written to another.
    #[inline(always)]
    pub fn ring_mapped(&self, value: u32) {
        fence(Ordering::Release);
        // SAFETY: `Bar::doorbell` checked that this is an aligned register of a mapping, which `bar` keeps.
        unsafe { self.register.write_volatile(value.to_le()) };
    }
}

impl Inner {
    /// The register at an offset, if it is mapped.
    #[inline]
    fn mapped(&self, offset: usize) -> Option<*mut u32> {
        let area = self.areas.iter().find(|area| area.range.contains(&offset))?;
        let inside = offset - area.range.start;
        let whole = offset.is_multiple_of(4) && area.range.end - offset >= 4;
        // SAFETY: `inside + 4` bytes are in the mapping, by the two comparisons.
        whole.then(|| unsafe { area.mapping.as_mut_ptr().add(inside) }.cast())
    }

    #[cold]
    #[inline(never)]
    fn trapped_read(&self, offset: usize) -> u32 {
        let mut value = [0xff; 4];
        if self.check(offset)
            && let Err(error) = self.opened.device().read(&self.region, offset as u64, &mut value)
        {
            log::debug!("reading BAR {} of {} at {offset:#x}: {error}", self.region.index, self.address);
            return u32::MAX;
        }
        u32::from_le_bytes(value)
    }

    #[cold]
    #[inline(never)]
    fn trapped_write(&self, offset: usize, value: u32) {
        if self.check(offset)
            && let Err(error) = self.opened.device().write(&self.region, offset as u64, &value.to_le_bytes())
        {
            log::debug!("writing BAR {} of {} at {offset:#x}: {error}", self.region.index, self.address);
        }
    }

    fn is_register(&self, offset: usize) -> bool {
        offset.is_multiple_of(4) && offset < self.len && self.len - offset >= 4
    }

    fn check(&self, offset: usize) -> bool {
        let inside = self.is_register(offset);
        debug_assert!(
            inside,
            "offset {offset:#x} in BAR {} of {} ({:#x} bytes)",
            self.region.index, self.address, self.len
        );
        inside
    }
}

/// The parts of a BAR to map: what the backend lets be mapped, less the pages of the MSI-X table.
fn mappable(region: &Region, msix_table: Option<Range<u64>>) -> Vec<Range<u64>> {
    let table = msix_table.unwrap_or(0..0);
    let hole =
        if table.is_empty() { 0..0 } else { table.start / PAGE * PAGE..table.end.next_multiple_of(PAGE) };
    let clipped = region.mappable.iter().map(|part| part.start.min(region.len)..part.end.min(region.len));
    clipped.flat_map(|part| without(part, &hole)).collect()
}

/// What is left of `part` outside `hole`.
fn without(part: Range<u64>, hole: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let pieces = if hole.is_empty() {
        [part, 0..0]
    } else {
        [part.start..part.end.min(hole.start), part.start.max(hole.end)..part.end]
    };
    pieces.into_iter().filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::backend::fake::{BAR, FakeDevice, FakeDomain, open, space};
    use crate::config::tests::with_msix;

    /// A BAR of 0x4000 bytes whose pages 0, 1 and 3 are mapped: the MSI-X table is in page 2.
    fn bar() -> (Bar, Arc<std::fs::File>, crate::backend::fake::Log) {
        let device = FakeDevice::new(&with_msix(5, 0, 0x2010));
        let (file, log) = (device.file.clone(), device.log.clone());
        let function = open(&space(), device, FakeDomain::new(vec![0..=u64::MAX])).unwrap();
        let bar = function.bar(0).unwrap();
        log.lock().unwrap().clear();
        drop(function);
        log.lock().unwrap().clear();
        (bar, file, log)
    }

    #[test]
    fn registers_are_reached_in_place_and_the_msix_table_by_call() {
        let (bar, file, log) = bar();
        let on_device = |offset: u64| {
            let mut value = [0; 4];
            file.read_exact_at(&mut value, BAR + offset).unwrap();
            u32::from_le_bytes(value)
        };
        for offset in [0, 4, 0x1ffc, 0x3000, 0x3ffc] {
            bar.write32(offset, 0x1234_5678 + offset as u32);
            assert_eq!(on_device(offset as u64), 0x1234_5678 + offset as u32);
            assert_eq!(bar.read32(offset), 0x1234_5678 + offset as u32);
        }
        assert!(log.lock().unwrap().is_empty(), "without a call: {:?}", log.lock().unwrap());

        for offset in [0x2000, 0x2ffc] {
            bar.write32(offset, 0xaa55);
            assert_eq!((on_device(offset as u64), bar.read32(offset)), (0xaa55, 0xaa55));
        }
        let log = log.lock().unwrap();
        assert_eq!(log.len(), 4, "{log:?}");
        assert_eq!(log[..2], ["write 0 at 0x2000: [55, aa, 0, 0]", "read 0 at 0x2000"]);
    }

    #[test]
    fn an_offset_outside_never_touches_anything() {
        let (bar, _, log) = bar();
        for offset in [2, 0x3ffd, 0x4000, usize::MAX - 3, usize::MAX] {
            let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bar.read32(offset)));
            let write = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bar.write32(offset, 0)));
            if cfg!(debug_assertions) {
                assert!(read.is_err() && write.is_err(), "a debug build says so, at {offset:#x}");
            } else {
                assert_eq!(read.unwrap(), u32::MAX);
                write.unwrap();
            }
        }
        assert!(log.lock().unwrap().is_empty());
    }

    #[test]
    fn a_doorbell_is_checked_once_and_outlives_its_bar() {
        let (bar, file, log) = bar();
        for offset in [2, 0x3ffd, 0x4000, usize::MAX] {
            assert!(matches!(bar.doorbell(offset), Err(Error::NoDoorbell { .. })), "{offset:#x}");
        }
        let doorbell = bar.doorbell(0x3818).unwrap();
        drop(bar);
        doorbell.ring(0xbeef);
        let mut value = [0; 4];
        file.read_exact_at(&mut value, BAR + 0x3818).unwrap();
        assert_eq!(u32::from_le_bytes(value), 0xbeef);
        assert!(log.lock().unwrap().is_empty(), "by one store");
        drop(doorbell);
        assert_eq!(*log.lock().unwrap(), ["closed"]);
    }

    #[test]
    fn a_doorbell_that_is_not_mapped_is_rung_by_call() {
        let (bar, _, log) = bar();
        let doorbell = bar.doorbell(0x2ffc).unwrap();
        drop(bar);
        doorbell.ring(0x1234);
        drop(doorbell);
        assert_eq!(*log.lock().unwrap(), ["write 0 at 0x2ffc: [34, 12, 0, 0]", "closed"]);
    }

    #[test]
    fn whole_pages_outside_the_msix_table_are_memory_for_other_devices() {
        let (bar, file, _) = bar();
        for part in [0..0, 0..0x800, 0x800..0x1000, 0x1000..0x3000, 0x3000..0x5000] {
            let error = bar.memory(part.clone()).unwrap_err();
            assert!(matches!(error, Error::NoBarMemory { .. }), "{part:x?}: {error}");
        }
        let memory = bar.memory(0x1000..0x2000).unwrap();
        assert_eq!((memory.len(), memory.fd_offset(), memory.is_readable()), (0x1000, BAR + 0x1000, false));
        let (space, domain) = (space(), FakeDomain::new(vec![0..=u64::MAX]));
        let _other = open(&space, FakeDevice::new(&[]), domain.clone()).unwrap();
        space.map(memory.clone()).unwrap();
        assert_eq!(domain.mapped(), [(space.iova(&memory, 0).unwrap(), 0x1000)]);
        drop(bar);
        file.write_all_at(&[1], BAR + 0x1000).unwrap();
    }

    #[test]
    fn a_register_that_is_cut_off_by_the_end_is_none() {
        let mut device = FakeDevice::new(&[]);
        device.bar_len = 0x1002;
        let function = open(&space(), device, FakeDomain::new(vec![0..=u64::MAX])).unwrap();
        let bar = function.bar(0).unwrap();
        assert!(bar.doorbell(0xffc).is_ok());
        assert!(matches!(bar.doorbell(0x1000), Err(Error::NoDoorbell { .. })));
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)] // One part is what is meant.
    fn maps_what_may_be_mapped_less_the_pages_of_the_table() {
        let region =
            |len, mappable: &[Range<u64>]| Region { index: 0, len, offset: 0, mappable: mappable.to_vec() };
        let whole = region(0x20000, &[0..0x20000]);
        assert_eq!(mappable(&whole, None), [0..0x20000]);
        assert_eq!(mappable(&whole, Some(0x0..0x50)), [0x1000..0x20000]);
        assert_eq!(mappable(&whole, Some(0x1f000..0x1f050)), [0..0x1f000]);
        assert_eq!(mappable(&whole, Some(0x2ff0..0x3010)), [0..0x2000, 0x4000..0x20000]);
        assert_eq!(mappable(&region(0x1000, &[0..0x1000]), Some(0..0x50)), []);
        // What the kernel left out already, and a kernel that offers more than there is.
        assert_eq!(
            mappable(&region(0x4000, &[0..0x1000, 0x2000..0x4000]), Some(0x1000..0x1050)),
            [0..0x1000, 0x2000..0x4000]
        );
        assert_eq!(mappable(&region(0x2000, &[0..0x9000]), None), [0..0x2000]);
        assert_eq!(mappable(&region(0x2000, &[]), None), []);
    }
}
