//! What the loops with vector instructions have in common.

// Reads memory that a device may write.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;

use crate::path::refused;

/// Whether the loops with AVX2 may be used.
///
/// # Errors
///
/// Why not.
pub(crate) fn allowed(wanted: bool) -> Result<(), &'static str> {
    match (wanted, is_x86_feature_detected!("avx2")) {
        (false, _) => Err(refused::NOT_WANTED),
        (true, false) => Err(refused::NO_AVX2),
        (true, true) => Ok(()),
    }
}

/// Read 32 bytes once, as a volatile read does, from memory that a device may write meanwhile: each aligned word of 64 bits is as it was at
/// one moment. (A volatile read of this type would have to be aligned to 32 bytes.)
///
/// # Safety
///
/// So many can be read there, aligned to 8.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn load(from: *const u64) -> __m256i {
    let value;
    // SAFETY: reads what the caller vouches for, and nothing else happens.
    unsafe {
        asm!("vmovdqu {}, ymmword ptr [{}]", out(ymm_reg) value, in(reg) from, options(nostack, preserves_flags, readonly));
    }
    value
}

/// Write 32 bytes as a volatile write does, to memory that a device reads.
///
/// # Safety
///
/// So many can be written there, aligned to 8.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn store(to: *mut u64, value: __m256i) {
    // SAFETY: writes what the caller vouches for, and nothing else happens.
    unsafe {
        asm!("vmovdqu ymmword ptr [{}], {}", in(reg) to, in(ymm_reg) value, options(nostack, preserves_flags));
    }
}

/// The sum of four numbers.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn sum(numbers: __m256i) -> u64 {
    let halves = _mm_add_epi64(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256::<1>(numbers));
    _mm_cvtsi128_si64(_mm_add_epi64(halves, _mm_unpackhi_epi64(halves, halves))) as u64
}
