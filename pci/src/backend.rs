//! The seam between what a driver sees and what carries it out.
//!
//! A backend is a [`Device`] and the [`Domain`] whose memory it reaches. Everything above speaks of these two only;
//! how the kernel's VFIO does it is known in [`crate::vfio`] alone.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};

use memmap2::MmapRaw;
use pagewire_hugepages::Segment;

use crate::Error;
use crate::iova::Usable;

/// Region numbers: 0–5 are the BARs.
pub(crate) const CONFIG_REGION: u32 = 7;

/// A part of a device that can be read and written: a BAR or the configuration space.
pub(crate) struct Region {
    /// Its number.
    pub(crate) index: u32,
    /// Its length in bytes; 0 when the device has no such region.
    pub(crate) len: u64,
    /// Where it starts in whatever the backend reads and maps.
    pub(crate) offset: u64,
    /// The parts that may be mapped, in page units, ascending.
    pub(crate) mappable: Vec<Range<u64>>,
}

/// The ways a PCI function interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptKind {
    /// The shared, level-triggered line.
    Intx,
    /// Message-signalled, one address.
    Msi,
    /// Message-signalled, an address a vector.
    Msix,
}

impl fmt::Display for InterruptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InterruptKind::Intx => "INTx",
            InterruptKind::Msi => "MSI",
            InterruptKind::Msix => "MSI-X",
        })
    }
}

/// An opened device. Dropping it closes it.
pub(crate) trait Device: Send + Sync {
    fn region(&self, index: u32) -> io::Result<Region>;
    /// Reads by asking whoever owns the device; all of `into` or an error.
    fn read(&self, region: &Region, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes by asking whoever owns the device; all of `from` or an error.
    fn write(&self, region: &Region, offset: u64, from: &[u8]) -> io::Result<()>;
    /// Maps a part of a region that is `mappable`, shared and uncached.
    fn map(&self, region: &Region, part: Range<u64>) -> io::Result<MmapRaw>;
    /// Whether what is mapped are the registers themselves, so that to read one there does to the device what reading does. Else it is
    /// memory in their place, and who reads it goes unnoticed.
    fn maps_registers(&self) -> bool {
        true
    }
    /// The file that a region's mappable parts are mapped from, at the region's offset.
    fn file(&self, region: &Region) -> io::Result<OwnedFd>;
    /// How many interrupts of a kind there are.
    fn interrupts(&self, kind: InterruptKind) -> io::Result<u32>;
    /// Signals one eventfd a vector from now on; none turns the kind off.
    fn set_interrupts(&self, kind: InterruptKind, events: &[BorrowedFd<'_>]) -> io::Result<()>;
    /// Lets the line interrupt again: it is masked each time it does.
    fn unmask_intx(&self) -> io::Result<()>;
    fn can_reset(&self) -> bool;
    fn reset(&self) -> io::Result<()>;
}

/// A set of I/O page tables, and so the memory that the devices in it reach. Dropping it unmaps everything.
pub(crate) trait Domain: Send + Sync {
    /// The addresses that its devices can use.
    fn usable(&self) -> Result<Usable, Error>;
    /// Lets its devices read and write the segment at `iova`.
    fn map(&self, segment: &Segment, iova: u64) -> Result<(), Error>;
    /// Takes what was mapped there back.
    fn unmap(&self, iova: u64, len: usize) -> Result<(), Error>;
}

#[cfg(test)]
pub(crate) mod fake;
