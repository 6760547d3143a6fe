//! A function made of memory: for the tests of drivers, without hardware, kernel or privileges.
//!
//! There with the feature `mock` only, which is for `dev-dependencies`. Configuration space is zeros that remember what is
//! written; there are no interrupts. BAR 0 is [`Registers`]; a range of its pages is mapped, as doorbells have to be, and on
//! every other register a [`Card`] is asked what it does.

use std::collections::BTreeMap;
use std::fs::{File, create_dir_all, write};
use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{MmapOptions, MmapRaw};
use pagewire_hugepages::Segment;

use crate::backend::{CONFIG_REGION, Device, Domain, InterruptKind, Region};
use crate::iova::Usable;
use crate::{Address, AddressSpace, Error, Function, Sysfs};

/// Bytes in BAR 0.
pub const BAR_LEN: u64 = 128 << 10;
const CONFIG_LEN: u64 = 4096;

/// What a card does when its driver reads or writes one of the registers that are not mapped. A register is memory unless
/// the card says otherwise.
pub trait Card: Send + Sync + 'static {
    /// The driver reads.
    fn read(&self, registers: &Registers, offset: u64) -> u32 {
        registers.get(offset)
    }

    /// The driver writes.
    fn write(&self, registers: &Registers, offset: u64, value: u32) {
        registers.set(offset, value);
    }
}

/// BAR 0 from the card's side.
#[derive(Clone)]
pub struct Registers {
    /// The BAR, and the configuration space behind it.
    file: Arc<File>,
    gone: Arc<AtomicBool>,
    iommu: Arc<Iommu>,
}

impl Registers {
    /// The IOMMU that the function is behind.
    pub fn iommu(&self) -> &Arc<Iommu> {
        &self.iommu
    }

    /// What a register holds.
    pub fn get(&self, offset: u64) -> u32 {
        let mut value = [0; 4];
        self.file.read_exact_at(&mut value, offset).expect("an offset inside the BAR");
        u32::from_le_bytes(value)
    }

    /// Changes what a register holds.
    pub fn set(&self, offset: u64, value: u32) {
        self.file.write_all_at(&value.to_le_bytes(), offset).expect("a file that can be written");
    }

    /// Whether the function is bus master.
    pub fn is_bus_master(&self) -> bool {
        self.get(BAR_LEN + 4) & 1 << 2 != 0
    }

    /// Pulls the card out: registers read as all ones and configuration space fails from now on.
    pub fn pull_out(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// Opens a function with these identifiers in `space`. Of its BAR the range `mapped`, in whole pages, is mapped.
pub fn open(
    space: &AddressSpace,
    (vendor, device): (u16, u16),
    mapped: Range<u64>,
    card: impl Card,
) -> Result<(Function, Registers), Error> {
    let address: Address = "0000:01:00.0".parse().expect("an address");
    let prepared = || -> io::Result<(tempfile::TempDir, File)> {
        let root = tempfile::tempdir()?;
        let folder = root.path().join(format!("sys/bus/pci/devices/{address}"));
        create_dir_all(&folder)?;
        write(folder.join("vendor"), format!("{vendor:#06x}\n"))?;
        write(folder.join("device"), format!("{device:#06x}\n"))?;
        write(folder.join("class"), "0x020000\n")?;
        let file = tempfile::tempfile()?;
        file.set_len(BAR_LEN + CONFIG_LEN)?;
        Ok((root, file))
    };
    let (root, file) = prepared().map_err(Error::io("making a card of memory".to_owned()))?;
    let info = Sysfs::at(root.path()).function(address)?;
    let iommu = Arc::<Iommu>::default();
    let registers = Registers { file: Arc::new(file), gone: Arc::default(), iommu: iommu.clone() };
    let mock = Mock { registers: registers.clone(), mapped, card: Box::new(card) };
    Ok((space.adopt(info, Box::new(mock), Arc::new(Everywhere(iommu)))?, registers))
}

struct Mock {
    registers: Registers,
    mapped: Range<u64>,
    card: Box<dyn Card>,
}

impl Mock {
    fn is_gone(&self) -> bool {
        self.registers.gone.load(Ordering::Relaxed)
    }

    fn check_present(&self) -> io::Result<()> {
        if self.is_gone() { Err(io::Error::other("the card is gone")) } else { Ok(()) }
    }
}

impl Device for Mock {
    fn region(&self, index: u32) -> io::Result<Region> {
        let region = |len, offset, mappable| Region { index, len, offset, mappable };
        Ok(match index {
            0 => region(BAR_LEN, 0, vec![self.mapped.clone()]),
            CONFIG_REGION => region(CONFIG_LEN, BAR_LEN, Vec::new()),
            _ => region(0, 0, Vec::new()),
        })
    }

    fn read(&self, region: &Region, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if region.index == CONFIG_REGION {
            self.check_present()?;
            return self.registers.file.read_exact_at(into, region.offset + offset);
        }
        let value = if self.is_gone() { u32::MAX } else { self.card.read(&self.registers, offset) };
        into.copy_from_slice(&value.to_le_bytes()[..into.len()]);
        Ok(())
    }

    fn write(&self, region: &Region, offset: u64, from: &[u8]) -> io::Result<()> {
        if region.index == CONFIG_REGION {
            self.check_present()?;
            return self.registers.file.write_all_at(from, region.offset + offset);
        }
        let mut value = [0; 4];
        value[..from.len()].copy_from_slice(from);
        if !self.is_gone() {
            self.card.write(&self.registers, offset, u32::from_le_bytes(value));
        }
        Ok(())
    }

    fn map(&self, region: &Region, part: Range<u64>) -> io::Result<MmapRaw> {
        let len = (part.end - part.start) as usize;
        MmapOptions::new().offset(region.offset + part.start).len(len).map_raw(&*self.registers.file)
    }

    fn file(&self, _: &Region) -> io::Result<OwnedFd> {
        Ok(self.registers.file.try_clone()?.into())
    }

    fn interrupts(&self, _: InterruptKind) -> io::Result<u32> {
        Ok(0)
    }

    fn set_interrupts(&self, _: InterruptKind, _: &[BorrowedFd<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn unmask_intx(&self) -> io::Result<()> {
        Ok(())
    }

    fn can_reset(&self) -> bool {
        false
    }

    fn reset(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What an IOMMU was asked to do.
#[derive(Default)]
pub struct Iommu {
    map_calls: AtomicUsize,
    unmap_calls: AtomicUsize,
    refuses: AtomicBool,
    keeps: AtomicBool,
    /// IOVA → length.
    mapped: Mutex<BTreeMap<u64, usize>>,
}

impl Iommu {
    /// How often something was mapped so far, refused or not.
    pub fn map_calls(&self) -> usize {
        self.map_calls.load(Ordering::Relaxed)
    }

    /// How often something was unmapped so far.
    pub fn unmap_calls(&self) -> usize {
        self.unmap_calls.load(Ordering::Relaxed)
    }

    /// Bytes that are mapped now.
    pub fn mapped_bytes(&self) -> usize {
        self.maps().values().sum()
    }

    /// Refuses every map from now on, or takes them again.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Refuses to unmap anything from now on, or does it again.
    pub fn refuse_unmap(&self, refuses: bool) {
        self.keeps.store(refuses, Ordering::Relaxed);
    }

    fn maps(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A domain that translates every address and has nobody to do it for.
struct Everywhere(Arc<Iommu>);

impl Domain for Everywhere {
    fn usable(&self) -> Result<Usable, Error> {
        Ok(vec![0..=u64::MAX])
    }

    fn map(&self, segment: &Segment, iova: u64) -> Result<(), Error> {
        self.0.map_calls.fetch_add(1, Ordering::Relaxed);
        if self.0.refuses.load(Ordering::Relaxed) {
            return Err(Error::MapsExhausted { what: format!("a segment of {} bytes", segment.len()) });
        }
        let before = self.0.maps().insert(iova, segment.len());
        assert_eq!(before, None, "mapped twice at {iova:#x}");
        Ok(())
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), Error> {
        self.0.unmap_calls.fetch_add(1, Ordering::Relaxed);
        if self.0.keeps.load(Ordering::Relaxed) {
            let doing = format!("unmapping {len} bytes at IOVA {iova:#x}");
            return Err(Error::io(doing)(io::ErrorKind::ResourceBusy.into()));
        }
        assert_eq!(self.0.maps().remove(&iova), Some(len), "unmapped as it was mapped");
        Ok(())
    }
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        // What was mapped for the function goes with it.
        self.0.maps().clear();
    }
}
