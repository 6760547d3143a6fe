//! The file behind a segment: anonymous, so that a process that dies in any way leaves nothing behind.

// memfd_create, fallocate and set_mempolicy have no safe wrapper in the standard library.
#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    fs::{File, Permissions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    thread,
};

use crate::PageSize;

/// Makes an empty file whose pages will be of one size.
pub(crate) fn create(name: &CStr, page_size: PageSize) -> io::Result<OwnedFd> {
    let huge = match page_size {
        PageSize::Size4K => 0,
        PageSize::Size2M => libc::MFD_HUGETLB | libc::MFD_HUGE_2MB,
        PageSize::Size1G => libc::MFD_HUGETLB | libc::MFD_HUGE_1GB,
    };
    let flags = huge | libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // A kernel told never to make executable memfds (vm.memfd_noexec=2) wants the flag; one older than 6.3 has not heard
    // of it.
    memfd_create(name, flags | libc::MFD_NOEXEC_SEAL).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => memfd_create(name, flags),
        _ => Err(error),
    })
}

fn memfd_create(name: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string that outlives the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives the file all its pages, zeroed, on `node` if one is named, and fixes its length.
///
/// Pages are allocated here and not by touching a mapping, because here a lack of pages is an error code, on every kernel
/// since 4.3, where a touch would be SIGBUS.
pub(crate) fn fill(file: &OwnedFd, len: usize, node: Option<u32>) -> io::Result<()> {
    let file_len = i64::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let plain = File::from(file.try_clone()?);
    plain.set_len(file_len as u64)?;
    // A memfd is everybody's by default: who is handed a descriptor for reading could open it once more, for writing.
    plain.set_permissions(Permissions::from_mode(0o600))?;
    match node {
        None => allocate(file, 0, file_len)?,
        // Allocation by descriptor follows the memory policy of the thread that does it. A thread of its own takes its
        // policy with it when it ends, and the caller's is never touched.
        Some(node) => thread::scope(|scope| {
            let work = || bind_thread(node).and_then(|()| allocate(file, 0, file_len));
            let thread = thread::Builder::new().name("pagewire-fill".into()).spawn_scoped(scope, work)?;
            thread.join().expect("allocating pages does not panic")
        })?,
    }
    // Whoever is handed the descriptor could otherwise shrink the file, and this process would get SIGBUS.
    seal(file, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL)
}

fn seal(file: &OwnedFd, seals: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the argument is a plain number.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sees to it that nobody can shrink the file: by a seal that it has, or is given now.
pub(crate) fn seal_against_shrinking(file: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open; no pointer is passed.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) } {
        seals if seals < 0 => Err(io::Error::last_os_error()),
        seals if seals & libc::F_SEAL_SHRINK != 0 => Ok(()),
        _ => seal(file, libc::F_SEAL_SHRINK),
    }
}

/// The size of the pages that a file is made of; `None` if it is not one of ours.
pub(crate) fn page_size(file: &OwnedFd) -> io::Result<Option<PageSize>> {
    // SAFETY: all zeroes is a valid `statfs`.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the kernel writes one `statfs`, which outlives the call.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &mut about) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if about.f_type != libc::HUGETLBFS_MAGIC {
        return Ok(Some(PageSize::Size4K));
    }
    Ok(PageSize::ALL.into_iter().find(|size| size.bytes() as i64 == about.f_bsize))
}

/// Gives `len` bytes of the file from `offset` on the pages that they lack.
pub(crate) fn allocate(file: &OwnedFd, offset: i64, len: i64) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open; no memory of ours is passed.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // A signal stops the call between two pages; pages that are there already are not made again.
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn bind_thread(node: u32) -> io::Result<()> {
    let nodes = NodeMask::new(node)?;
    // SAFETY: the mask outlives the call and has the number of bits stated.
    match unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, nodes.0.as_ptr(), NodeMask::BITS) }
    {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A set of one NUMA node, as set_mempolicy(2) and mbind(2) read it.
pub(crate) struct NodeMask([libc::c_ulong; NodeMask::WORDS]);

impl NodeMask {
    const WORDS: usize = 1024 / libc::c_ulong::BITS as usize;
    /// The calls want one more than the number of bits they are to read.
    pub(crate) const BITS: libc::c_ulong = 1024 + 1;

    pub(crate) fn new(node: u32) -> io::Result<Self> {
        let mut words = [0; Self::WORDS];
        let word = words.get_mut((node / libc::c_ulong::BITS) as usize);
        *word.ok_or(io::Error::from_raw_os_error(libc::EINVAL))? = 1 << (node % libc::c_ulong::BITS);
        Ok(NodeMask(words))
    }

    pub(crate) fn as_ptr(&self) -> *const libc::c_ulong {
        self.0.as_ptr()
    }
}
