//! The process's window: one range of addresses, reserved once, that every segment is mapped in.
//!
//! One window gives every segment an offset that is the same whoever asks, so that a device address is
//! `base + offset` and one IOMMU mapping covers a segment. Reserved addresses cost nothing but
//! themselves: no memory is behind them, and touching one is a fault, not a stray write.
//!
//! Miri, which runs the pool's tests, has neither memfds nor maps at addresses of one's choice: for it the window is memory of the heap.

// Reserving, mapping and unmapping addresses is what this module is for; nothing else in the crate calls mmap.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::{Error, PageSize, limits, memfd::NodeMask, ranges::Ranges};

/// What is asked for first. 38 bits of offset leave room above any base for an IOMMU of 39 bits.
const LARGEST: usize = 256 << 30;
/// What is asked for last, and what the window is aligned to: the largest page has to fit.
const SMALLEST: usize = PageSize::Size1G.bytes();

struct Window {
    base: NonNull<u8>,
    len: usize,
    free: Mutex<Ranges>,
}

// SAFETY: `base` is only ever an address to compute with; the range it starts is owned by this process until it ends.
unsafe impl Send for Window {}
// SAFETY: as for `Send`; the one thing that changes, `free`, is behind a lock.
unsafe impl Sync for Window {}

/// Length of the window in bytes: a power of two, 256 GiB unless `ulimit -v` forces a smaller one, and 0 when not even
/// 1 GiB could be reserved. The first call reserves the window.
pub fn window_len() -> usize {
    window().map_or(0, |window| window.len)
}

fn window() -> Result<&'static Window, Error> {
    static WINDOW: OnceLock<Result<Window, Option<i32>>> = OnceLock::new();
    WINDOW.get_or_init(|| reserve().map_err(|error| error.raw_os_error())).as_ref().map_err(|errno| {
        Error::NoWindow {
            smallest: SMALLEST,
            limit: limits::address_space(),
            cause: errno.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error),
        }
    })
}

fn reserve() -> io::Result<Window> {
    if cfg!(miri) {
        let memory = vec![0u64; 8 << 20 >> 3].leak().as_mut_ptr_range();
        let base = NonNull::new(memory.start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let len = memory.end.addr() - memory.start.addr();
        return Ok(Window { base, len, free: Mutex::new(Ranges::new(len)) });
    }
    // Half of a limit on address space stays for the rest of the process: its heap, its stacks.
    let most =
        limits::address_space().map_or(LARGEST as u64, |limit| (limit / 2).min(LARGEST as u64)) as usize;
    let mut len = if most < SMALLEST { SMALLEST } else { 1 << most.ilog2() };
    loop {
        match reserve_aligned(len, SMALLEST) {
            Ok(base) => return Ok(Window { base, len, free: Mutex::new(Ranges::new(len)) }),
            Err(error) if len <= SMALLEST => return Err(error),
            Err(_) => len /= 2,
        }
    }
}

/// Reserves `len` bytes at a multiple of `align`: reserves more, then gives both ends back.
fn reserve_aligned(len: usize, align: usize) -> io::Result<NonNull<u8>> {
    let whole = len + align;
    // SAFETY: no address is asked for, so the kernel picks one where nothing is.
    let start = unsafe { mmap_nothing(ptr::null_mut(), whole, 0) }?;
    let head = start.addr().get().next_multiple_of(align) - start.addr().get();
    let tail = align - head;
    // SAFETY: both ends are inside the reservation made above, which nobody else knows of, and `head <= align`.
    unsafe {
        let base = start.add(head);
        if head > 0 {
            libc::munmap(start.as_ptr().cast(), head);
        }
        if tail > 0 {
            libc::munmap(base.add(len).as_ptr().cast(), tail);
        }
        Ok(base)
    }
}

/// Maps `len` bytes that nobody can touch and that no memory is behind.
///
/// # Safety
/// With `MAP_FIXED` in `flags`, whatever is mapped at `at..at + len` is replaced, so it has to be the caller's.
unsafe fn mmap_nothing(at: *mut u8, len: usize, flags: i32) -> io::Result<NonNull<u8>> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the caller's promise about `at`.
    let mapped = unsafe { libc::mmap(at.cast(), len, libc::PROT_NONE, flags, -1, 0) };
    mapping(mapped)
}

fn mapping(mapped: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    match NonNull::new(mapped.cast()) {
        Some(address) if mapped != libc::MAP_FAILED => Ok(address),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a file that is mapped is made of.
pub(crate) enum Presence {
    /// Pages that all exist: populating cannot run out of memory half-way, and no later access can fault for want of one.
    Present,
    /// Memory of a device, which the CPU does not touch.
    Devices,
}

/// A range of the window that is taken. Dropped, nothing is mapped in it any more and it is free again.
pub(crate) struct Slot {
    window: &'static Window,
    offset: usize,
    len: usize,
}

impl Slot {
    /// Takes the lowest `len` free bytes that start on a multiple of `align`.
    pub(crate) fn take(len: usize, align: usize) -> Result<Slot, Error> {
        let window = window()?;
        let mut free = window.free.lock().unwrap_or_else(PoisonError::into_inner);
        match free.take(len, align) {
            Some(offset) => Ok(Slot { window, offset, len }),
            None => Err(Error::WindowFull { needed: len, longest: free.longest(), window: window.len }),
        }
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: `offset < window.len`, and the window is one reservation.
        unsafe { self.window.base.add(self.offset) }
    }

    /// Maps the whole slot to `file` from `offset` on.
    pub(crate) fn map(&self, file: BorrowedFd<'_>, offset: u64, presence: Presence) -> io::Result<()> {
        if cfg!(miri) {
            // SAFETY: the range is inside the window and this slot's own.
            unsafe { self.as_ptr().write_bytes(0, self.len) };
            return Ok(());
        }
        let offset =
            libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        // MAP_NORESERVE: the pages are there already, nothing is to be set aside for later.
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let flags = match presence {
            Presence::Present => flags | libc::MAP_POPULATE,
            Presence::Devices => flags,
        };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is inside the window and this slot alone owns it, so nothing but the reservation is
        // replaced.
        let mapped = unsafe {
            libc::mmap(self.as_ptr().as_ptr().cast(), self.len, protection, flags, file.as_raw_fd(), offset)
        };
        mapping(mapped).map(drop)
    }

    /// Unmaps a part of the slot, in whole pages: whoever touches it faults.
    pub(crate) fn withdraw(&self, offset: usize, len: usize) -> io::Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: inside the range that is this slot's own; nobody uses what is withdrawn, by the contract of a segment's.
        unsafe { mmap_nothing(self.as_ptr().as_ptr().add(offset), len, libc::MAP_FIXED) }.map(drop)
    }

    /// Locks the slot's pages in memory.
    pub(crate) fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is this slot's own; locking changes none of its bytes.
        if !cfg!(miri) && unsafe { libc::mlock(self.as_ptr().as_ptr().cast(), self.len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Keeps the slot's pages on one NUMA node, and fails if one of them is on another.
    pub(crate) fn bind(&self, node: u32) -> io::Result<()> {
        /// From the kernel's linux/mempolicy.h: fail with EIO if a page is elsewhere.
        const MPOL_MF_STRICT: libc::c_ulong = 1;
        let nodes = NodeMask::new(node)?;
        // SAFETY: the range is this slot's own, and the mask outlives the call and has the number of bits stated.
        let bound = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.as_ptr().as_ptr(),
                self.len,
                libc::MPOL_BIND,
                nodes.as_ptr(),
                NodeMask::BITS,
                MPOL_MF_STRICT,
            )
        };
        if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // One call replaces the memory by the reservation, so that there is never a hole in the window for an unrelated
        // mmap of another thread to land in and for the next segment to map over.
        let unmapped = match cfg!(miri) {
            true => Ok(self.as_ptr()),
            // SAFETY: the range is this slot's own, and a slot outlives every pointer into it by its owner's contract.
            false => unsafe { mmap_nothing(self.as_ptr().as_ptr(), self.len, libc::MAP_FIXED) },
        };
        match unmapped {
            Ok(_) => {
                let mut free = self.window.free.lock().unwrap_or_else(PoisonError::into_inner);
                free.give(self.offset, self.len);
            }
            // The range stays taken: what is behind it is not known any more.
            Err(error) => log::error!(
                "could not unmap {} bytes at {:p}, their addresses will not be used again: {error}",
                self.len,
                self.as_ptr()
            ),
        }
    }
}
