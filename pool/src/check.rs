//! The debug mode: who dropped a fragment that is dropped once more, or was written after it was dropped.
//!
//! There in builds with debug assertions, and switched on by the environment variable `PAGEWIRE_POOL_CHECKS=1`. Every free fragment
//! of memory that the CPU can write is filled with [`POISON`], and where it was dropped is kept. A fragment that is dropped
//! twice, or is not poison any more when it is next given out (its device still wrote, or somebody kept a pointer), is a
//! panic that names the place. Elsewhere none of this is compiled.

// Fills and reads the memory of free fragments.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::record::Record;

#[cfg(debug_assertions)]
pub(crate) use on::{dropped, forget, is_on, split, taken};

/// What free fragments are filled with.
#[cfg(debug_assertions)]
pub(crate) const POISON: u8 = 0x5e;

/// A fragment is given out.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn taken(_: NonNull<Record>) {}

/// A fragment is dropped.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn dropped(_: NonNull<Record>) {}

/// A fragment that is free has been taken apart into so many of `size` bytes.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn split(_: NonNull<Record>, _: usize) {}

/// Records are about to be freed.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn forget(_: std::ops::Range<usize>) {}

/// Whether fragments are followed.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn is_on() -> bool {
    false
}

#[cfg(debug_assertions)]
mod on {
    use std::backtrace::Backtrace;
    use std::collections::BTreeMap;
    use std::ops::Range;
    use std::slice;
    use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

    use super::*;

    /// By the addresses of their records, the fragments that were dropped and not given out since, and where that was.
    static DROPPED: Mutex<BTreeMap<usize, Arc<Backtrace>>> = Mutex::new(BTreeMap::new());

    pub(crate) fn is_on() -> bool {
        static ON: LazyLock<bool> = LazyLock::new(|| {
            std::env::var_os("PAGEWIRE_POOL_CHECKS").is_some_and(|value| !value.is_empty() && value != "0")
        });
        *ON
    }

    fn all_dropped() -> MutexGuard<'static, BTreeMap<usize, Arc<Backtrace>>> {
        DROPPED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dropped(record: NonNull<Record>) {
        if !is_on() {
            return;
        }
        let here = Arc::new(Backtrace::force_capture());
        let before = all_dropped().insert(record.addr().get(), here.clone());
        if let Some(before) = before {
            panic!(
                "a fragment was dropped twice: at {}, and before that at {}",
                place(&here),
                place(&before)
            );
        }
        // SAFETY: the fragment is dropped, and the caller's until it is in a magazine.
        let Record { addr, size, .. } = *unsafe { record.as_ref() };
        if !addr.is_null() {
            // SAFETY: all of the fragment's memory, mapped and nobody's.
            unsafe { addr.write_bytes(POISON, size as usize) };
        }
    }

    pub(crate) fn taken(record: NonNull<Record>) {
        if !is_on() {
            return;
        }
        let Some(before) = all_dropped().remove(&record.addr().get()) else { return };
        // SAFETY: the fragment is free, and the caller's.
        let Record { addr, size, .. } = *unsafe { record.as_ref() };
        if addr.is_null() {
            return;
        }
        // SAFETY: all of the fragment's memory, which nobody may write: if somebody does, that is what this is here to find.
        let bytes = unsafe { slice::from_raw_parts(addr, size as usize) };
        if let Some(at) = bytes.iter().position(|&byte| byte != POISON) {
            panic!(
                "a fragment was written after it was dropped: byte {at} is {:#04x}; it was dropped at {}",
                bytes[at],
                place(&before)
            );
        }
    }

    pub(crate) fn split(record: NonNull<Record>, count: usize) {
        if !is_on() {
            return;
        }
        let mut dropped = all_dropped();
        let first = record.addr().get();
        if let Some(place) = dropped.get(&first).cloned() {
            dropped.extend((0..count).map(|index| (first + index * size_of::<Record>(), place.clone())));
        }
    }

    pub(crate) fn forget(records: Range<usize>) {
        let mut dropped = all_dropped();
        dropped.retain(|record, _| !records.contains(record));
    }

    /// The innermost function and line of a backtrace that is neither this crate's nor the standard library's.
    fn place(backtrace: &Backtrace) -> String {
        const OWN: [&str; 4] = ["pagewire_pool::", "core::", "std::", "alloc::"];
        let text = backtrace.to_string();
        let mut lines = text.lines().map(str::trim).peekable();
        while let Some(line) = lines.next() {
            let Some((_, function)) = line.split_once(": ") else { continue };
            let name = function.trim_start_matches(['<', '&']);
            let is_own = OWN.iter().any(|own| name.starts_with(own)) || name.starts_with("__rust");
            if !is_own && !line.starts_with("at ") {
                let at = lines.next_if(|next| next.starts_with("at ")).unwrap_or("at an unknown line");
                return format!("{function} ({})", at.trim_start_matches("at "));
            }
        }
        text
    }
}
