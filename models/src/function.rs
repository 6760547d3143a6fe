//! A PCI function as those see it who reach it, and the machine as the function sees it: the seam between the models and
//! the ways to serve them.

use std::fmt;

/// A region of a PCI function, by VFIO's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// Base address register 0 to 5.
    Bar(u8),
    /// The configuration space.
    Config,
}

/// What a region is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Bytes; 0 if there is no such region.
    pub size: u64,
    /// Parts that may be mapped by whoever drives the function, so that accesses there are plain memory accesses of which
    /// the model learns when it looks: doorbells.
    pub mappable: Vec<Area>,
}

/// A page-aligned part of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First byte, from the region's start.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// An access that the function was not allowed: outside what is mapped for it, or with bus mastering off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaError {
    /// First address of the access.
    pub iova: u64,
    /// Its bytes.
    pub len: usize,
    /// It was a write.
    pub write: bool,
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.write { "write" } else { "read" };
        write!(f, "DMA {kind} of {} bytes at {:#x} is outside what is mapped", self.len, self.iova)
    }
}

impl std::error::Error for DmaError {}

/// The machine that a function is plugged into.
pub trait Host {
    /// Read memory.
    fn dma_read(&mut self, iova: u64, data: &mut [u8]) -> Result<(), DmaError>;

    /// Write memory. Writes become visible to the machine's CPUs in the order of the calls; bytes within one in any order.
    fn dma_write(&mut self, iova: u64, data: &[u8]) -> Result<(), DmaError>;

    /// Raise an MSI-X vector (or the only MSI or INTx interrupt: vector 0).
    fn interrupt(&mut self, vector: u16);

    /// The memory behind a region's mappable areas, one word at a time: what its driver last stored there. Returns 0 for
    /// offsets that are in no such area.
    fn shared_read(&mut self, region: Region, offset: u64) -> u32;

    /// Change a word of a mappable area, for its driver to see.
    fn shared_write(&mut self, region: Region, offset: u64, value: u32);
}

/// A PCI function.
pub trait Function: Send {
    /// What a region is. Constant.
    fn region(&self, region: Region) -> RegionInfo;

    /// MSI-X vectors. Constant.
    fn vectors(&self) -> u16;

    /// A trapped read of 1, 2, 4 or 8 bytes. Out of range reads give all ones.
    fn read(&mut self, region: Region, offset: u64, data: &mut [u8], host: &mut dyn Host);

    /// A trapped write of 1, 2, 4 or 8 bytes. Out of range writes have no effect. What is written to a mappable area is in
    /// it already.
    fn write(&mut self, region: Region, offset: u64, data: &[u8], host: &mut dyn Host);

    /// Function-level reset, and what comes before a driver's first access. Mappable areas keep what is in them unless it is
    /// changed here; a new driver's are zeroes.
    fn reset(&mut self, host: &mut dyn Host);

    /// Do what there is to do without being accessed: look at shared doorbells, receive from the wire, run timers. Returns
    /// whether there was anything.
    fn poll(&mut self, host: &mut dyn Host) -> bool;
}
