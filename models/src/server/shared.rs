//! The memory behind mappable areas: one file a region, as long as the region, so that offsets are the same in both.

// memfd_create and fcntl have no safe wrapper in the standard library.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

use super::memory::Memory;
use crate::{Area, Function, Region};

/// What the protocol's ends agree on: see `Limits`.
pub(crate) const PAGE: u64 = 4096;

/// The areas of one region.
pub(crate) struct Areas {
    region: Region,
    pub(crate) list: Vec<Area>,
    pub(crate) file: File,
    memory: Memory,
}

/// All areas of a function. Made anew for each client: the one before may still have its own mapped.
#[derive(Default)]
pub(crate) struct Shared(Vec<Areas>);

impl Shared {
    pub(crate) fn new(function: &dyn Function) -> io::Result<Shared> {
        let mut all = Vec::new();
        for region in (0..6).map(Region::Bar) {
            let info = function.region(region);
            let whole = |area: &Area| {
                area.offset.is_multiple_of(PAGE) && area.size.is_multiple_of(PAGE) && area.size > 0
            };
            if info.mappable.is_empty() {
                continue;
            }
            if !info.mappable.iter().all(whole) {
                let why =
                    format!("{region:?} has mappable areas that are no whole pages: {:?}", info.mappable);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            let len = info.size.next_multiple_of(PAGE);
            let file = sealed(len)?;
            let memory = Memory::map(&file, len)?;
            all.push(Areas { region, list: info.mappable, file, memory });
        }
        Ok(Shared(all))
    }

    pub(crate) fn areas(&self, region: Region) -> Option<&Areas> {
        self.0.iter().find(|areas| areas.region == region)
    }

    /// The word at an offset; 0 where no area is.
    pub(crate) fn load(&self, region: Region, offset: u64) -> u32 {
        self.inside(region, offset, 4).and_then(|areas| areas.memory.load(offset)).unwrap_or(0)
    }

    /// Stores bytes that are all in one area; others are left alone.
    pub(crate) fn store(&self, region: Region, offset: u64, bytes: &[u8]) {
        if let Some(areas) = self.inside(region, offset, bytes.len()) {
            areas.memory.write(offset, bytes);
        }
    }

    fn inside(&self, region: Region, offset: u64, len: usize) -> Option<&Areas> {
        let end = offset.checked_add(len as u64)?;
        self.areas(region).filter(|areas| {
            areas.list.iter().any(|area| area.offset <= offset && end - area.offset <= area.size)
        })
    }
}

/// An anonymous file of zeroes whose length is fixed.
fn sealed(len: u64) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"pagewire-model".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, ours alone.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: the descriptor is open, and the argument is a plain number.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}
