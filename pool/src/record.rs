//! The record of a fragment: what is known of it, outside the memory a device can write.

// Records are reached by raw pointer: they are shared between whoever owns the fragment now and the pool that owns it
// when it is free, and ownership passes through rings of plain pointers.
#![allow(unsafe_code)]

use std::mem::offset_of;
use std::ops::Range;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapRaw};

use crate::shared::MAX_POOLS;
use crate::{check, fault};

/// One cache line for each fragment.
///
/// What a receive path writes stands together, and a free path decides by one comparison of `kind` whether the fragment takes
/// the fast way home.
#[repr(C, align(64))]
pub(crate) struct Record {
    /// First byte of the fragment; null where the CPU cannot read it. Constant.
    pub addr: *mut u8,
    /// Where devices find that byte. Constant.
    pub iova: u64,

    /// Bytes of data in this fragment in the low half; in the high half the low one of [`crate::PacketFlags`], what was found out on
    /// receipt, valid in the first segment. One store for both.
    pub data: u32,
    /// Where the data begins, in bytes from `addr`: 16 bits, in a word that is as easily stored as added.
    pub offset: u32,

    /// Bytes in the packet, all segments. Valid in the first segment.
    pub packet_len: u32,
    /// The pool's number in the low half. The high half is that of [`crate::PacketFlags`]: what keeps a packet off the shortest way
    /// out, and a fragment off the shortest way home. Zero in a free fragment.
    ///
    /// It stands behind the length so that one comparison tells that a packet is of this pool, asks for nothing, and is neither too
    /// short nor too long ([`crate::Plain`]).
    pub kind: u32,

    /// The next segment. `None` in a free fragment.
    pub next: Option<NonNull<Record>>,

    /// RSS hash, valid with its flag.
    pub hash: u32,
    /// Bytes in the fragment: those of the pool's fragments, but for [`LARGE`] ones.
    pub size: u32,

    /// VLAN tag control information, valid with its flags.
    pub vlan_tci: u16,
    /// Segments in the packet. Valid in the first segment of a chained packet.
    pub segments: u16,
    /// Lengths of the layer-2 and layer-3 headers in bytes, for transmit offloads.
    pub l2_len: u16,
    pub l3_len: u16,
    /// Length of the layer-4 header and of a segment's payload in bytes, for segmentation.
    pub l4_len: u16,
    pub mss: u16,
    /// [`crate::PacketType`], valid with its flag.
    pub packet_type: u16,
    /// What the hash is made of: [`crate::RssTypes`], valid with the hash.
    pub rss_type: u8,
}

impl Record {
    /// Bytes of data in this fragment.
    #[inline(always)]
    pub(crate) fn len(&self) -> u16 {
        self.data as u16
    }
}

/// Have the CPU fetch a record's line, to be written soon. One that another core read last takes about 60 ns to become this core's own,
/// and stores wait for such lines nearly one after the other; asked for beforehand, many are on their way at once.
#[inline(always)]
pub(crate) fn fetch_to_write(record: NonNull<Record>) {
    // `_mm_prefetch` makes a fetch to read of it, unless the compiler is told of a CPU younger than the first with 64 bits.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which changes nothing that a program sees, whatever the address.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) record.as_ptr(), options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = record;
}

/// The pool's number in [`Record::kind`].
pub(crate) const POOL: u32 = 0xffff;

/// The low half of [`Record::kind`] for a pool: its number, whose last four bits stand where they choose the place of its magazine
/// without a shift.
pub(crate) const fn kind_of(pool: usize) -> u32 {
    debug_assert!(pool < 1 << 10);
    ((pool & 0xf) << MAGAZINE_SHIFT | pool >> 4) as u32
}

/// The number of the pool of a kind's low half.
#[inline(always)]
pub(crate) fn pool_of(kind: u32) -> usize {
    magazine_of(kind) | (kind as usize & 0x3f) << 4
}

/// Which of a thread's magazines serves the pool.
#[inline(always)]
pub(crate) fn magazine_of(kind: u32) -> usize {
    (kind >> MAGAZINE_SHIFT) as usize & 0xf
}

/// A magazine has 1,024 bytes.
const MAGAZINE_SHIFT: u32 = 10;

/// Bit of [`Record::kind`], in the low half, where [`kind_of`] leaves it zero: it stands for several fragments in a row, and is taken apart in the page store.
pub(crate) const LARGE: u32 = 1 << 15;

// A line each, and what the fast paths touch within its first half.
const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 64);
const _: () = assert!(offset_of!(Record, kind) < 32);
const _: () = assert!(offset_of!(Record, packet_len) % 8 == 0);
const _: () = assert!(offset_of!(Record, data) % 8 == 0);
const _: () = assert!(offset_of!(Record, offset) == offset_of!(Record, data) + 4);
const _: () = assert!(offset_of!(Record, kind) == offset_of!(Record, packet_len) + 4);
// The highest number sets every bit that a number can.
const _: () = assert!(kind_of(MAX_POOLS) & LARGE == 0);

/// The records of one pool, an array in ordinary memory that no device can reach.
pub(crate) struct Records {
    /// Never a slice: whoever has a fragment writes its record through a pointer that comes from here.
    memory: MmapRaw,
    count: usize,
    /// Bytes in a fragment.
    fragment_size: u32,
}

impl Records {
    pub(crate) fn bytes(count: usize) -> usize {
        count * size_of::<Record>()
    }

    pub(crate) fn new(count: usize, fragment_size: usize) -> std::io::Result<Records> {
        if fault::here() {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        let memory = MmapMut::map_anon(Records::bytes(count))?;
        // Records of a large pool span many small pages; fewer TLB misses are worth asking for, not failing for.
        if !cfg!(miri) {
            let _ = memory.advise(memmap2::Advice::HugePage);
        }
        Ok(Records { memory: memory.into(), count, fragment_size: fragment_size as u32 })
    }

    /// Begin anew with these fragments, none of which is out: they are of another segment now, or of none.
    pub(crate) fn forget(&self, fragments: Range<usize>) {
        let at = |index| self.memory.as_ptr().addr() + Records::bytes(index);
        check::forget(at(fragments.start)..at(fragments.end));
    }

    pub(crate) fn get(&self, index: usize) -> NonNull<Record> {
        assert!(index < self.count);
        // SAFETY: the index is within the mapping, which is page aligned, zeroed (a valid Record) and not null.
        unsafe { NonNull::new_unchecked(self.memory.as_mut_ptr().cast::<Record>().add(index)) }
    }

    pub(crate) fn index_of(&self, record: NonNull<Record>) -> usize {
        (record.as_ptr().addr() - self.memory.as_ptr().addr()) / size_of::<Record>()
    }

    /// The fragments that a record of the caller's stands for: one, or several in a row.
    pub(crate) fn fragments(&self, record: NonNull<Record>) -> Range<usize> {
        let first = self.index_of(record);
        // SAFETY: the caller owns the fragment, so its record is alive and nobody writes it.
        let count = unsafe { record.as_ref() }.size / self.fragment_size;
        first..first + count as usize
    }

    /// Make one of `count` fragments in a row, the first of which this is: all free and the caller's.
    pub(crate) fn join(&self, mut record: NonNull<Record>, count: usize) {
        // SAFETY: the caller's.
        let record = unsafe { record.as_mut() };
        record.size = self.fragment_size * count as u32;
        record.kind |= LARGE;
    }

    /// Undo [`join`](Records::join), for a record of any kind that is free and the caller's. Returns how many it stood for.
    pub(crate) fn split(&self, mut record: NonNull<Record>) -> usize {
        let count = self.fragments(record).len();
        // SAFETY: the caller's.
        let record = unsafe { record.as_mut() };
        record.size = self.fragment_size;
        record.kind &= !LARGE;
        count
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.forget(0..self.count);
    }
}
