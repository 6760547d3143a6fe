//! Bytes of the fuzzer taken for numbers, and the descriptors that messages carry.

// memfd_create and eventfd have no safe wrapper in the standard library.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::sync::LazyLock;

/// What is left of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; zero behind the end.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// As many bytes, or as many as are left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, left) = self.0.split_at(count.min(self.0.len()));
        self.0 = left;
        taken
    }
}

/// Bytes of the files that are handed over.
const FILE: u64 = 0x1_0000;

/// Kinds of descriptor, by number: a sealed file in memory, one that may shrink, an eventfd, something else.
static DESCRIPTORS: LazyLock<[File; 4]> = LazyLock::new(|| {
    // SAFETY: the name is a C string, the descriptor a new one.
    let memory = || unsafe {
        File::from_raw_fd(libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING))
    };
    let (sealed, plain) = (memory(), memory());
    for file in [&sealed, &plain] {
        file.set_len(FILE).expect("64 KiB of memory");
    }
    // SAFETY: no pointer is passed.
    let seal = unsafe { libc::fcntl(sealed.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
    assert_eq!(seal, 0, "a new file can be sealed");
    // SAFETY: no pointer is passed, and the descriptor is a new one.
    let event = unsafe { File::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) };
    [sealed, plain, event, File::open("/dev/null").expect("it is everywhere")]
});

/// Descriptors that a byte stands for: how many in its low four bits, at most eight, and of which kind in the next two.
pub fn descriptors(byte: u8) -> Vec<BorrowedFd<'static>> {
    let kind = (byte >> 4 & 3) as usize;
    vec![DESCRIPTORS[kind].as_fd(); (byte & 15).min(8) as usize]
}

/// Open descriptors of this process.
pub fn open_descriptors() -> usize {
    LazyLock::force(&DESCRIPTORS);
    std::fs::read_dir("/proc/self/fd").expect("proc is mounted").count()
}
