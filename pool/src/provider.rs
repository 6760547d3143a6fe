//! Where a pool's memory comes from.

// Providers vouch for the memory that packets are made of.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use pagewire_hugepages::{Segment, SegmentOptions};
use pagewire_pci::Bar;

/// Why a provider has no memory to give.
pub type ProviderError = Box<dyn StdError + Send + Sync>;

/// Where a pool's memory comes from: huge pages, a region of the application's, a device's memory.
///
/// A provider deals in segments and keeps no account of fragments: what is free, held and in flight the pool knows, in the same
/// way for all. Of memory that the CPU [cannot read](Segment::is_readable) come packets without readable data.
///
/// # Safety
///
/// A segment that [`allocate`](Provider::allocate) returns is for that pool alone until [`release`](Provider::release): it is not returned
/// again, to this pool or another, and nobody else writes, unmaps or punches holes into its memory.
pub unsafe trait Provider: Send + Sync {
    /// Says what it provides, for messages: "2 MiB pages".
    fn describe(&self) -> String;

    /// Provides a segment of at least `len` bytes, for the pool alone. The pool maps it for its devices.
    ///
    /// Asked for when a pool is made and when it grows.
    fn allocate(&self, len: usize) -> Result<Arc<Segment>, ProviderError>;

    /// Takes a segment back that it allocated: no device and no packet reaches it any more. Once for each, but for those that an IOMMU
    /// does not unmap: they are never released.
    ///
    /// Whoever brings a pool's last fragment home calls this, on any thread.
    fn release(&self, segment: Arc<Segment>) {
        drop(segment);
    }

    /// The pool is gone, and all its segments have been released. Not called, and the provider never dropped, if one of them was not.
    fn uninstall(&self) {}
}

/// Pinned memory of the kernel's: huge pages, or small ones.
///
/// Every segment has a [descriptor](Segment::fd), by which another process can map it.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Size, node and name.
    pub options: SegmentOptions,
}

// SAFETY: each call makes a segment of memory that was nobody's.
unsafe impl Provider for Pages {
    fn describe(&self) -> String {
        format!("pages of {}", self.options.page_size)
    }

    fn allocate(&self, len: usize) -> Result<Arc<Segment>, ProviderError> {
        Ok(Segment::allocate(len, &self.options)?)
    }
}

/// Parts of one range, handed out from its start on and again once they came back.
struct Parts {
    whole: Range<u64>,
    /// Parts that are out, in ascending order, with the offsets in a file by which their segments are known.
    out: Mutex<Vec<(Range<u64>, u64)>>,
}

/// There is no part of that length left.
#[derive(Debug, thiserror::Error)]
#[error("{asked} bytes in one piece are asked for, and {longest} of {whole} are free")]
struct UsedUp {
    asked: u64,
    longest: u64,
    whole: u64,
}

impl Parts {
    fn of(whole: Range<u64>) -> Parts {
        Parts { whole, out: Mutex::default() }
    }

    /// The first `len` bytes that are free, as the segment that `make` makes of them.
    fn take<E: Into<ProviderError>>(
        &self,
        len: usize,
        make: impl FnOnce(Range<u64>) -> Result<Arc<Segment>, E>,
    ) -> Result<Arc<Segment>, ProviderError> {
        let (len, mut out) = (len as u64, self.out.lock().unwrap_or_else(PoisonError::into_inner));
        let starts = std::iter::once(self.whole.start).chain(out.iter().map(|(part, _)| part.end));
        let ends = out.iter().map(|(part, _)| part.start).chain([self.whole.end]);
        let gaps: Vec<_> = starts.zip(ends).map(|(start, end)| start..end).collect();
        let Some(at) = gaps.iter().position(|gap| gap.end - gap.start >= len) else {
            let longest = gaps.iter().map(|gap| gap.end - gap.start).max().unwrap_or(0);
            return Err(UsedUp { asked: len, longest, whole: self.whole.end - self.whole.start }.into());
        };
        let part = gaps[at].start..gaps[at].start + len;
        let segment = make(part.clone()).map_err(Into::into)?;
        out.insert(at, (part, segment.fd_offset()));
        Ok(segment)
    }

    fn start(&self, segment: &Segment) -> Option<u64> {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.iter().find(|&&(_, offset)| offset == segment.fd_offset()).map(|(part, _)| part.start)
    }

    fn give(&self, segment: &Segment) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.retain(|&(_, offset)| offset != segment.fd_offset());
    }
}

/// A memfd of the application's, which it may have mapped or shared already: packets come to lie in memory of its own.
pub struct Region {
    file: OwnedFd,
    parts: Parts,
    _alone: Alone,
}

/// Why a file cannot be made a region.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The kernel does not tell how long it is.
    #[error("how long the file is cannot be asked: {0}")]
    Length(io::Error),
    /// It is one already: pools of two regions would hand out the same memory.
    #[error(
        "the file (inode {inode} of device {device:#x}) is a region already: share that one, which several pools can have parts of, or drop it first"
    )]
    Taken {
        /// The device that it is on.
        device: u64,
        /// Its number there.
        inode: u64,
    },
}

/// A file's being a region, as long as it is one, by device and inode.
struct Alone(u64, u64);

static REGIONS: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

impl Alone {
    fn new(device: u64, inode: u64) -> Result<Alone, RegionError> {
        let mut regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
        match regions.insert((device, inode)) {
            true => Ok(Alone(device, inode)),
            false => Err(RegionError::Taken { device, inode }),
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        REGIONS.lock().unwrap_or_else(PoisonError::into_inner).remove(&(self.0, self.1));
    }
}

impl Region {
    /// All of a memfd, which is sealed against shrinking if it is not yet.
    ///
    /// # Errors
    ///
    /// [`RegionError`]: among others, where this process has a region of the same file, by whatever descriptor.
    ///
    /// # Safety
    ///
    /// Nobody writes to a part of it that a pool has, punches holes into it, or makes a region of it in another process: packets are read as
    /// memory that does not change by itself.
    pub unsafe fn new(file: OwnedFd) -> Result<Region, RegionError> {
        let file = File::from(file);
        let about = file.metadata().map_err(RegionError::Length)?;
        let alone = Alone::new(about.dev(), about.ino())?;
        Ok(Region { file: file.into(), parts: Parts::of(0..about.len()), _alone: alone })
    }
}

// SAFETY: parts that are out do not overlap, and of the rest `new`'s caller says that nobody touches it.
unsafe impl Provider for Region {
    fn describe(&self) -> String {
        format!("a region of {} bytes", self.parts.whole.end)
    }

    fn allocate(&self, len: usize) -> Result<Arc<Segment>, ProviderError> {
        self.parts.take(len, |part| -> Result<_, ProviderError> {
            Ok(Segment::register(self.file.try_clone()?, part.start, len)?)
        })
    }

    fn release(&self, segment: Arc<Segment>) {
        self.parts.give(&segment);
    }
}

/// Memory of a device, which other devices reach and the CPU does not: a part of a function's BAR, or a dma-buf.
///
/// Packets in it can be sent, handed on and dropped; their bytes are nobody's here to read.
pub struct DeviceMemory {
    source: Source,
    parts: Parts,
}

enum Source {
    /// Keeps the function open.
    Bar(Bar),
    File(OwnedFd),
}

impl DeviceMemory {
    /// A part of a function's BAR, in bytes: whole pages that can be mapped. The function stays open until the pool is gone.
    ///
    /// # Errors
    ///
    /// [`pagewire_pci::Error::NoBarMemory`] for another part.
    pub fn bar(bar: &Bar, part: Range<u64>) -> Result<DeviceMemory, pagewire_pci::Error> {
        bar.memory(part.clone())?;
        Ok(DeviceMemory { source: Source::Bar(bar.clone()), parts: Parts::of(part) })
    }

    /// Where in the BAR, or in the file, a segment begins that came from here and is not back yet, in bytes: what the device has to be
    /// told of a packet to find it is this, and how far the packet's [`iova`](crate::Packet::iova) is from that of the segment.
    pub fn offset(&self, segment: &Segment) -> Option<u64> {
        self.parts.start(segment)
    }

    /// The first `len` bytes of a dma-buf, or of another file that stands for memory of a device.
    pub fn dma_buf(file: OwnedFd, len: u64) -> DeviceMemory {
        DeviceMemory { source: Source::File(file), parts: Parts::of(0..len) }
    }
}

// SAFETY: parts that are out do not overlap; the CPU has no access, and what the device does with its own memory no packet shows.
unsafe impl Provider for DeviceMemory {
    fn describe(&self) -> String {
        let what = match self.source {
            Source::Bar(_) => "a BAR",
            Source::File(_) => "a dma-buf",
        };
        format!("{} bytes of {what}", self.parts.whole.end - self.parts.whole.start)
    }

    fn allocate(&self, len: usize) -> Result<Arc<Segment>, ProviderError> {
        self.parts.take(len, |part| -> Result<_, ProviderError> {
            Ok(match &self.source {
                Source::Bar(bar) => bar.memory(part)?,
                Source::File(file) => Segment::device(file.try_clone()?, part.start, len)?,
            })
        })
    }

    fn release(&self, segment: Arc<Segment>) {
        self.parts.give(&segment);
    }
}
