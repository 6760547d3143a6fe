//! A client's memory: files that are mapped, and the copies into and out of them.

// Mapped memory that another process writes is reached by pointer only.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

/// A file that is mapped as a whole.
pub(crate) struct Memory {
    mapping: MmapRaw,
    len: u64,
}

/// Which file it is, whatever descriptor leads to it.
pub(crate) type Identity = (u64, u64);

/// Whether a file can be mapped without the danger of a fault later: its client has given up shrinking it.
pub(crate) fn is_sealed(file: &File) -> bool {
    // SAFETY: asks for the seals of an open descriptor; no pointer is passed.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

/// What file it is, and its length in bytes.
pub(crate) fn identify(file: &File) -> io::Result<(Identity, u64)> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "memory that is no regular file"));
    }
    Ok(((about.dev(), about.ino()), about.len()))
}

impl Memory {
    /// Maps all of a sealed file, for reading and writing.
    pub(crate) fn map(file: &File, len: u64) -> io::Result<Memory> {
        let whole = usize::try_from(len).map_err(io::Error::other)?;
        let mut options = MmapOptions::new();
        options.len(whole);
        Ok(Memory { mapping: options.map_raw(file)?, len })
    }

    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Copies out of the memory; `false` if that is not all inside.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let Some(from) = self.at(offset, into.len()) else { return false };
        // SAFETY: `at` checked that as many bytes as `into` has are mapped there.
        unsafe { copy_from(from, into) };
        true
    }

    /// Copies into the memory; `false` if that is not all inside.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> bool {
        let Some(to) = self.at(offset, from.len()) else { return false };
        // SAFETY: `at` checked that as many bytes as `from` has are mapped there, and the mapping is for writing.
        unsafe { copy_to(to, from) };
        true
    }

    /// The 32-bit word at an aligned offset; `None` if it is not inside.
    pub(crate) fn load(&self, offset: u64) -> Option<u32> {
        let word = self.at(offset, 4).filter(|_| offset.is_multiple_of(4))?;
        // SAFETY: four mapped bytes, aligned because the mapping is.
        let value = unsafe { word.cast::<u32>().read_volatile() };
        // What the driver stored before it rang is seen after this.
        fence(Ordering::Acquire);
        Some(value)
    }

    fn at(&self, offset: u64, len: usize) -> Option<*mut u8> {
        let inside = offset.checked_add(len as u64).is_some_and(|end| end <= self.len);
        // SAFETY: inside the mapping, or just behind it if `len` is 0.
        inside.then(|| unsafe { self.mapping.as_mut_ptr().add(offset as usize) })
    }
}

/// Above this a copy is left to `memcpy`. Descriptors are shorter.
const SHORT: usize = 64;

/// Copies as a card reads: whole aligned words in ascending order as long as it is short.
///
/// # Safety
/// As many bytes as `into` has are mapped at `from`.
unsafe fn copy_from(from: *const u8, into: &mut [u8]) {
    let mut at = 0;
    while into.len() <= SHORT && at < into.len() {
        // SAFETY: `at` is below the length, and a word is read only where all of it is.
        at += unsafe {
            let from = from.add(at);
            if from.addr() % 8 == 0 && into.len() - at >= 8 {
                into[at..at + 8].copy_from_slice(&from.cast::<u64>().read_volatile().to_ne_bytes());
                8
            } else {
                into[at] = from.read_volatile();
                1
            }
        };
    }
    if at < into.len() {
        // SAFETY: the caller's promise; `into` is memory of our own, so the two do not overlap.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
    }
    fence(Ordering::Acquire);
}

/// Copies as a card writes: whole aligned words in ascending order as long as it is short, so that a driver that sees the
/// last word of a descriptor sees the others too. All that was copied before is there first.
///
/// # Safety
/// As many bytes as `from` has are mapped for writing at `to`.
unsafe fn copy_to(to: *mut u8, from: &[u8]) {
    fence(Ordering::Release);
    let mut at = 0;
    while from.len() <= SHORT && at < from.len() {
        // SAFETY: `at` is below the length, and a word is written only where all of it is.
        at += unsafe {
            let to = to.add(at);
            if to.addr() % 8 == 0
                && let Some(word) = from[at..].first_chunk()
            {
                to.cast::<u64>().write_volatile(u64::from_ne_bytes(*word));
                8
            } else {
                to.write_volatile(from[at]);
                1
            }
        };
    }
    if at < from.len() {
        // SAFETY: the caller's promise; `from` is memory of our own, so the two do not overlap.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }
}
