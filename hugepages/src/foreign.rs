//! Segments of memory that was there before: a file of the caller's, memory of a device.

// Has a function whose caller vouches for references into a segment.
#![allow(unsafe_code)]

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use crate::{
    Error, PageSize, Segment, limits, memfd,
    window::{Presence, Slot},
};

impl Segment {
    /// Makes a segment of `len` bytes of a memfd of the caller's, from `offset` on. Both are multiples of its pages.
    ///
    /// Its pages are made present and stay so; its bytes stay as they are. The file is sealed against shrinking if it is not yet.
    ///
    /// # Errors
    /// Each reason for a refusal is an [`Error`] of its own. Nothing stays allocated but pages that the file now has.
    pub fn register(file: OwnedFd, offset: u64, len: usize) -> Result<Arc<Segment>, Error> {
        let refused = |doing| move |cause| Error::Part { doing, offset, len, cause };
        let page_size = memfd::page_size(&file)
            .map_err(refused("asked for its pages"))?
            .ok_or_else(|| refused("recognised")(std::io::ErrorKind::Unsupported.into()))?;
        let length = file_len(&file).map_err(refused("measured"))?;
        let page = page_size.bytes();
        let inside = offset.checked_add(len as u64).is_some_and(|end| end <= length);
        if !inside || len == 0 || !len.is_multiple_of(page) || !offset.is_multiple_of(page as u64) {
            return Err(Error::BadPart { offset, len, file: length, page });
        }
        memfd::seal_against_shrinking(&file).map_err(|cause| Error::NotSealed { cause })?;
        let slot = Slot::take(len, page)?;
        if page_size == PageSize::Size4K {
            // To be asked before: past these limits the kernel does not refuse, it kills.
            limits::check_memory(Path::new("/"), len as u64)?;
            limits::check_memlock(len as u64)?;
        }
        // Neither is beyond the file's length, which is one of the kernel's.
        memfd::allocate(&file, offset as i64, len as i64).map_err(refused("given its pages"))?;
        slot.map(file.as_fd(), offset, Presence::Present).map_err(refused("mapped"))?;
        if page_size == PageSize::Size4K {
            slot.lock().map_err(refused("locked"))?;
        }
        Ok(Arc::new(Segment { slot, file, file_offset: offset, page_size, node: None, readable: true }))
    }

    /// Makes a segment of `len` bytes of a device's memory, from `offset` on: of the file that a function's registers are mapped
    /// from, or of a dma-buf. Both are multiples of 4 KiB.
    ///
    /// It has addresses in the window, from which its device address is computed, and no byte that the CPU may read or write:
    /// [`is_readable`](Segment::is_readable) says no. Where the file can be mapped it is, because that is how the kernel finds
    /// the memory for an IOMMU.
    ///
    /// # Errors
    /// [`Error::BadPart`], and those of a window that is full.
    pub fn device(file: OwnedFd, offset: u64, len: usize) -> Result<Arc<Segment>, Error> {
        let page_size = PageSize::Size4K;
        let page = page_size.bytes();
        if len == 0 || !len.is_multiple_of(page) || !offset.is_multiple_of(page as u64) {
            return Err(Error::BadPart { offset, len, file: file_len(&file).unwrap_or(0), page });
        }
        // Where an IOMMU can use large entries, it does.
        let align = if len < PageSize::Size2M.bytes() { page } else { PageSize::Size2M.bytes() };
        let slot = Slot::take(len, align)?;
        if let Err(error) = slot.map(file.as_fd(), offset, Presence::Devices) {
            log::debug!("memory of a device that cannot be mapped: {error}");
        }
        Ok(Arc::new(Segment { slot, file, file_offset: offset, page_size, node: None, readable: false }))
    }

    /// Takes a part of the segment, in whole pages, from the CPU: whoever touches it faults. Devices reach it as before, and
    /// pointers into it are dangling. For finding who uses memory that is not his.
    ///
    /// # Errors
    /// [`Error::BadPart`] for a part that is not made of whole pages inside.
    ///
    /// # Safety
    ///
    /// Nobody has a reference into the part, or makes one afterwards.
    pub unsafe fn withdraw(&self, offset: usize, len: usize) -> Result<(), Error> {
        let page = self.page_size.bytes();
        let part = || (offset as u64, self.len() as u64);
        if !offset.is_multiple_of(page) || !len.is_multiple_of(page) {
            return Err(Error::BadPart { offset: part().0, len, file: part().1, page });
        }
        let refused = |cause| Error::Part { doing: "withdrawn", offset: part().0, len, cause };
        self.slot.withdraw(offset, len).map_err(refused)
    }
}

fn file_len(file: &OwnedFd) -> std::io::Result<u64> {
    Ok(File::from(file.try_clone()?).metadata()?.len())
}

#[cfg(test)]
mod tests {
    // Reads and writes segments through their pointers.
    #![allow(unsafe_code)]

    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::testing;

    fn memfd(len: u64) -> File {
        let file = File::from(memfd::create(c"theirs", PageSize::Size4K).unwrap());
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn a_part_of_a_file_becomes_a_segment_with_its_bytes() {
        let file = memfd(5 * 4096);
        file.write_all_at(b"theirs", 2 * 4096).unwrap();
        let segment = Segment::register(file.try_clone().unwrap().into(), 2 * 4096, 3 * 4096).unwrap();
        assert_eq!(
            (segment.len(), segment.fd_offset(), segment.page_size()),
            (3 * 4096, 8192, PageSize::Size4K)
        );
        assert!(segment.is_readable());
        // SAFETY: inside the segment, which nobody else touches.
        let first = unsafe { segment.as_ptr().cast::<[u8; 6]>().read_volatile() };
        assert_eq!(&first, b"theirs");
        // SAFETY: as above.
        unsafe { segment.as_ptr().add(4096).write_volatile(7) };
        let mut byte = [0];
        file.read_exact_at(&mut byte, 3 * 4096).unwrap();
        assert_eq!(byte, [7]);
        assert_eq!(file.set_len(0).unwrap_err().raw_os_error(), Some(libc::EPERM), "nobody can shrink it");
    }

    #[test]
    fn a_file_of_huge_pages_is_recognised() {
        let _turn = testing::huge_pages(2);
        let file = File::from(memfd::create(c"huge", PageSize::Size2M).unwrap());
        file.set_len(4 << 20).unwrap();
        let segment = Segment::register(file.try_clone().unwrap().into(), 2 << 20, 2 << 20).unwrap();
        assert_eq!((segment.page_size(), segment.window_offset() % (2 << 20)), (PageSize::Size2M, 0));
        let error = Segment::register(file.into(), 4096, 2 << 20).unwrap_err().to_string();
        assert!(error.ends_with("of whole pages of 2097152 bytes"), "{error}");
    }

    #[test]
    fn parts_that_are_not_there_and_files_that_may_shrink_are_refused() {
        for (offset, len) in [(0, 0), (0, 4097), (1, 4096), (4096, 8192), (u64::MAX - 4095, 4096)] {
            let error = Segment::register(memfd(8192).into(), offset, len).unwrap_err();
            assert!(matches!(error, Error::BadPart { .. }), "{offset} {len}: {error}");
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let error = Segment::register(file.into(), 0, 4096).unwrap_err();
        assert!(matches!(error, Error::NotSealed { .. }), "{error}");
    }

    #[test]
    fn memory_of_a_device_has_an_address_and_no_bytes() {
        let segment = Segment::device(memfd(3 << 20).into(), 1 << 20, 2 << 20).unwrap();
        assert_eq!((segment.len(), segment.fd_offset(), segment.home_node()), (2 << 20, 1 << 20, None));
        assert!(!segment.is_readable());
        assert_eq!(segment.window_offset() % (2 << 20), 0, "large entries of an IOMMU");
        assert!(segment.physical_address(0).is_err());
        // A file that cannot be mapped, as of a dma-buf whose exporter does not allow it.
        let (pipe, _) = std::io::pipe().unwrap();
        assert!(!Segment::device(pipe.into(), 0, 4096).unwrap().is_readable());
        let error = Segment::device(memfd(0).into(), 0, 100).unwrap_err();
        assert!(matches!(error, Error::BadPart { .. }), "{error}");
    }
}
