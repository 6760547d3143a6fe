//! A function as VFIO hands it out: a file whose parts are the function's regions.

use std::any::Any;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use vfio_bindings::bindings::vfio as abi;

use super::ioctl;
use crate::backend::{Device, InterruptKind, Region};
use crate::{Address, Error};

pub(super) struct KernelDevice {
    /// Closed before its group is: fields are dropped in this order.
    file: File,
    flags: u32,
    /// The group or the I/O address space that it is in: held, not used.
    _attachment: Arc<dyn Any + Send + Sync>,
}

impl KernelDevice {
    pub(super) fn new(
        file: File,
        address: Address,
        attachment: Arc<dyn Any + Send + Sync>,
    ) -> Result<KernelDevice, Error> {
        let flags =
            ioctl::device_flags(&file).map_err(Error::io(format!("asking VFIO what {address} is")))?;
        if flags & abi::VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(Error::io(format!("{address} is no PCI device to VFIO (flags {flags:#x})"))(
                io::ErrorKind::Unsupported.into(),
            ));
        }
        Ok(KernelDevice { file, flags, _attachment: attachment })
    }
}

fn index(kind: InterruptKind) -> u32 {
    match kind {
        InterruptKind::Intx => abi::VFIO_PCI_INTX_IRQ_INDEX,
        InterruptKind::Msi => abi::VFIO_PCI_MSI_IRQ_INDEX,
        InterruptKind::Msix => abi::VFIO_PCI_MSIX_IRQ_INDEX,
    }
}

impl Device for KernelDevice {
    fn region(&self, index: u32) -> io::Result<Region> {
        ioctl::region(&self.file, index)
    }

    fn read(&self, region: &Region, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, region.offset + offset)
    }

    fn write(&self, region: &Region, offset: u64, from: &[u8]) -> io::Result<()> {
        self.file.write_all_at(from, region.offset + offset)
    }

    fn map(&self, region: &Region, part: Range<u64>) -> io::Result<MmapRaw> {
        let len = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
        MmapOptions::new().offset(region.offset + part.start).len(len).map_raw(&self.file)
    }

    fn file(&self, _: &Region) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    fn interrupts(&self, kind: InterruptKind) -> io::Result<u32> {
        ioctl::irq_count(&self.file, index(kind))
    }

    fn set_interrupts(&self, kind: InterruptKind, events: &[BorrowedFd<'_>]) -> io::Result<()> {
        // No vectors of no data is how a kind is turned off.
        let data =
            if events.is_empty() { abi::VFIO_IRQ_SET_DATA_NONE } else { abi::VFIO_IRQ_SET_DATA_EVENTFD };
        let flags = data | abi::VFIO_IRQ_SET_ACTION_TRIGGER;
        ioctl::set_irqs(&self.file, index(kind), flags, events.len() as u32, events)
    }

    fn unmask_intx(&self) -> io::Result<()> {
        let flags = abi::VFIO_IRQ_SET_DATA_NONE | abi::VFIO_IRQ_SET_ACTION_UNMASK;
        ioctl::set_irqs(&self.file, index(InterruptKind::Intx), flags, 1, &[])
    }

    fn can_reset(&self) -> bool {
        self.flags & abi::VFIO_DEVICE_FLAGS_RESET != 0
    }

    fn reset(&self) -> io::Result<()> {
        ioctl::reset(&self.file)
    }
}
