//! The time stamp counter.

// One instruction, which the language has only as an unsafe function on some toolchains.
#![allow(unsafe_code)]

/// The core's time stamp counter.
#[inline(always)]
#[allow(unused_unsafe)]
pub(crate) fn read() -> u64 {
    // SAFETY: every x86-64 processor has it, and Linux leaves it enabled for user space.
    unsafe { core::arch::x86_64::_rdtsc() }
}
