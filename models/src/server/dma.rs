//! What of a client's memory the function may reach: ranges of IOVAs, and what is behind each.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};

use pagewire_pci::vfio_user::wire::{DMA_READABLE, DMA_WRITABLE, DmaMap};

use super::memory::{Identity, Memory, identify, is_sealed};

/// Ranges at a time: what the protocol has for a default, and the kernel's VFIO too.
const MOST: usize = 65535;

/// What is behind a range.
#[derive(Clone)]
pub(crate) enum Backing {
    /// A sealed file, mapped.
    Memory(Arc<Memory>),
    /// A file that could shrink while it is mapped: read and written by system call.
    File(Arc<File>),
    /// Nothing that was handed over: the client is asked.
    Client,
}

/// A range that is mapped.
#[derive(Clone)]
pub(crate) struct Range {
    iova: u64,
    /// The last address.
    last: u64,
    flags: u32,
    /// Where it starts in its backing.
    offset: u64,
    backing: Backing,
}

/// A part of a range that an access is in.
pub(crate) struct Piece {
    pub(crate) backing: Backing,
    /// In the backing.
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

/// The ranges, ascending, without overlap.
#[derive(Default)]
pub(crate) struct Table {
    ranges: Vec<Range>,
    /// Where the last access was. The next is likely there too.
    last: usize,
    /// The files that are mapped: a client with an IOMMU of its own maps many parts of one.
    files: HashMap<Identity, Weak<Memory>>,
}

impl Table {
    /// Adds a range; an errno if that cannot be.
    pub(crate) fn map(&mut self, map: &DmaMap, file: Option<File>) -> Result<(), i32> {
        let Some(last) = map.size.checked_sub(1).and_then(|size| map.address.checked_add(size)) else {
            return Err(libc::EINVAL);
        };
        // Also without a file: every place in the range has one in the backing.
        if map.flags & !(DMA_READABLE | DMA_WRITABLE) != 0 || map.offset.checked_add(map.size).is_none() {
            return Err(libc::EINVAL);
        }
        let at = self.ranges.partition_point(|range| range.last < map.address);
        if self.ranges.get(at).is_some_and(|next| next.iova <= last) {
            return Err(libc::EEXIST);
        }
        if self.ranges.len() == MOST {
            return Err(libc::ENOSPC);
        }
        let backing = match file {
            None => Backing::Client,
            Some(file) => self.backing(file, map).map_err(|error| {
                log::warn!("mapping {:#x} bytes at IOVA {:#x}: {error}", map.size, map.address);
                error.raw_os_error().unwrap_or(libc::EINVAL)
            })?,
        };
        let (iova, flags, offset) = (map.address, map.flags, map.offset);
        self.ranges.insert(at, Range { iova, last, flags, offset, backing });
        Ok(())
    }

    /// Takes all ranges inside this one away, as the kernel does: none may be there, but one that is only partly inside
    /// is refused.
    pub(crate) fn unmap(&mut self, address: u64, size: u64) -> Result<(), i32> {
        let last = size.checked_sub(1).and_then(|size| address.checked_add(size)).ok_or(libc::EINVAL)?;
        let from = self.ranges.partition_point(|range| range.last < address);
        let to = self.ranges.partition_point(|range| range.iova <= last);
        let inside = &self.ranges[from..to];
        if inside.first().is_some_and(|first| first.iova < address)
            || inside.last().is_some_and(|end| end.last > last)
        {
            return Err(libc::EINVAL);
        }
        self.ranges.drain(from..to);
        self.forget();
        Ok(())
    }

    /// Takes all ranges away.
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
        self.forget();
    }

    /// Whether all of an access is in ranges that allow it.
    pub(crate) fn covers(&mut self, iova: u64, len: usize, write: bool) -> bool {
        let wanted = if write { DMA_WRITABLE } else { DMA_READABLE };
        let Some(last) = iova.checked_add((len as u64).saturating_sub(1)) else { return false };
        let mut at = iova;
        loop {
            let Some(range) = self.find(at) else { return false };
            if range.flags & wanted == 0 {
                return false;
            }
            if range.last >= last {
                return true;
            }
            at = range.last + 1;
        }
    }

    /// The part of an access at `iova` that is in one range.
    pub(crate) fn piece(&mut self, iova: u64, len: usize) -> Option<Piece> {
        let range = self.find(iova)?;
        let inside = iova - range.iova;
        let room = usize::try_from(range.last - iova).unwrap_or(usize::MAX).saturating_add(1);
        Some(Piece { backing: range.backing.clone(), offset: range.offset + inside, len: len.min(room) })
    }

    fn find(&mut self, iova: u64) -> Option<&Range> {
        let contains = |range: &Range| (range.iova..=range.last).contains(&iova);
        if !self.ranges.get(self.last).is_some_and(contains) {
            self.last = self.ranges.partition_point(|range| range.last < iova);
        }
        self.ranges.get(self.last).filter(|range| contains(range))
    }

    fn backing(&mut self, file: File, map: &DmaMap) -> io::Result<Backing> {
        let (identity, len) = identify(&file)?;
        let end = map.offset.checked_add(map.size).filter(|&end| end <= len);
        let Some(end) = end else {
            let why = format!("its file has {len:#x} bytes, it starts at {:#x} there", map.offset);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        if !is_sealed(&file) {
            log::warn!(
                "the file behind IOVA {:#x} is not sealed against shrinking: it is read and written by system call",
                map.address
            );
            return Ok(Backing::File(Arc::new(file)));
        }
        // A file may have grown since.
        let known = self.files.get(&identity).and_then(Weak::upgrade).filter(|known| known.len() >= end);
        if let Some(known) = known {
            return Ok(Backing::Memory(known));
        }
        let memory = Arc::new(Memory::map(&file, len)?);
        self.files.insert(identity, Arc::downgrade(&memory));
        Ok(Backing::Memory(memory))
    }

    /// Forgets files that no range is in any more.
    fn forget(&mut self) {
        self.files.retain(|_, file| file.strong_count() > 0);
    }
}

impl Backing {
    /// Reads, where no message is needed for it.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        match self {
            Backing::Memory(memory) => memory.read(offset, into),
            Backing::File(file) => file.read_exact_at(into, offset).is_ok(),
            Backing::Client => false,
        }
    }

    /// Writes, where no message is needed for it.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> bool {
        match self {
            Backing::Memory(memory) => memory.write(offset, from),
            // Written within its length only: what is read-only or was shrunk stays so.
            Backing::File(file) => {
                let end = offset + from.len() as u64;
                file.metadata().is_ok_and(|about| end <= about.len())
                    && file.write_all_at(from, offset).is_ok()
            }
            Backing::Client => false,
        }
    }
}

#[cfg(test)]
mod tests;
