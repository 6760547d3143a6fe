//! Descriptor rings: small, aligned pieces of mapped huge pages.

// A piece's pointer is computed and its bytes cleared.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hugepages::Segment;

use crate::space::Inner;

/// Pieces are whole cache lines, so that no two rings share one.
const LINE: usize = 64;

/// Memory that the devices of a space and this program share, such as a descriptor ring.
///
/// Dropping it gives the memory back for the next buffer. **A device that still has its address then writes into
/// somebody else's ring**, which no IOMMU can tell apart: a driver stops the queue, or resets the function, first.
pub struct DmaBuffer {
    pub(crate) piece: Piece,
    pub(crate) len: usize,
    /// Keeps the memory, and keeps it mapped.
    pub(crate) space: Arc<Inner>,
}

impl DmaBuffer {
    /// The first byte. A device may write at any time: volatile or atomic access only, never a reference.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.piece.pointer()
    }

    /// Length in bytes: what was asked for.
    #[allow(clippy::len_without_is_empty)] // It never is.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of the first byte for the devices of the space; all of the buffer follows it.
    pub fn iova(&self) -> u64 {
        self.piece.iova
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        self.space.give_back(&self.piece);
    }
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = format_args!("{:#x}", self.iova()).to_string();
        f.debug_struct("DmaBuffer")
            .field("at", &self.as_ptr())
            .field("len", &self.len)
            .field("iova", &address)
            .finish()
    }
}

/// A part of a segment that is in use.
pub(crate) struct Piece {
    segment: Arc<Segment>,
    offset: usize,
    len: usize,
    iova: u64,
}

impl Piece {
    fn pointer(&self) -> NonNull<u8> {
        // SAFETY: `Arena::take` made sure that the piece is inside the segment, which is one mapping.
        unsafe { self.segment.as_ptr().add(self.offset) }
    }

    /// Clears all of its bytes. Nobody else has its address yet, or no longer: see [`DmaBuffer`].
    pub(crate) fn zero(&self) {
        // SAFETY: `len` bytes inside the segment, which is mapped for writing, and no reference to them exists.
        unsafe { self.pointer().write_bytes(0, self.len) };
    }
}

/// The segments that pieces are cut from. Each stays until the space goes: rings come back in the same sizes.
#[derive(Default)]
pub(crate) struct Arena {
    chunks: Vec<Chunk>,
}

struct Chunk {
    segment: Arc<Segment>,
    iova: u64,
    free: FreeList,
}

impl Arena {
    /// Adds a segment that is contiguous for the devices from `iova` on.
    pub(crate) fn add(&mut self, segment: Arc<Segment>, iova: u64) {
        let free = FreeList::new(segment.len());
        self.chunks.push(Chunk { segment, iova, free });
    }

    /// Cuts a piece, if one of the segments has room. `align` is a power of two of at most a page.
    pub(crate) fn take(&mut self, len: usize, align: usize) -> Option<Piece> {
        let len = len.checked_next_multiple_of(LINE)?;
        self.chunks.iter_mut().find_map(|chunk| {
            // Segments start on a page for the CPU and for the device, so an aligned offset is an aligned address.
            let offset = chunk.free.take(len, align.max(LINE))?;
            Some(Piece { segment: chunk.segment.clone(), offset, len, iova: chunk.iova + offset as u64 })
        })
    }

    pub(crate) fn give_back(&mut self, piece: &Piece) {
        if let Some(chunk) = self.chunks.iter_mut().find(|chunk| Arc::ptr_eq(&chunk.segment, &piece.segment))
        {
            chunk.free.give(piece.offset, piece.len);
        }
    }
}

/// The free ranges of a segment: start → length, never touching one another.
struct FreeList {
    ranges: BTreeMap<usize, usize>,
}

impl FreeList {
    fn new(len: usize) -> FreeList {
        FreeList { ranges: BTreeMap::from([(0, len)]) }
    }

    /// The lowest `len` free bytes at a multiple of `align`.
    fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        let (start, whole, offset) = self.ranges.iter().find_map(|(&start, &whole)| {
            let offset = start.next_multiple_of(align);
            (offset.checked_add(len)? <= start + whole).then_some((start, whole, offset))
        })?;
        self.ranges.remove(&start);
        self.insert(start, offset - start);
        self.insert(offset + len, start + whole - (offset + len));
        Some(offset)
    }

    fn give(&mut self, mut start: usize, mut len: usize) {
        if let Some((&before, &size)) = self.ranges.range(..start).next_back() {
            debug_assert!(before + size <= start, "given back twice");
            if before + size == start {
                self.ranges.remove(&before);
                (start, len) = (before, len + size);
            }
        }
        if let Some(size) = self.ranges.remove(&(start + len)) {
            len += size;
        }
        self.insert(start, len);
    }

    fn insert(&mut self, start: usize, len: usize) {
        if len > 0 {
            self.ranges.insert(start, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_aligned_pieces_that_never_overlap_and_joins_them_again() {
        const LEN: usize = 1 << 16;
        let mut free = FreeList::new(LEN);
        let mut held: Vec<(usize, usize)> = Vec::new();
        // A fixed xorshift: the same sequence each run.
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        let mut refused = 0;
        for _ in 0..20_000 {
            if next(2) == 0 || held.is_empty() {
                let (len, align) = ((1 + next(128)) * LINE, LINE << next(7));
                match free.take(len, align) {
                    Some(offset) => {
                        assert_eq!(offset % align, 0);
                        assert!(offset + len <= LEN);
                        assert!(held.iter().all(|&(o, l)| offset + len <= o || o + l <= offset), "overlap");
                        held.push((offset, len));
                    }
                    None => refused += 1,
                }
            } else {
                let (offset, len) = held.swap_remove(next(held.len()));
                free.give(offset, len);
            }
        }
        assert!(refused > 0, "the list was never full: the test is too easy");
        held.drain(..).for_each(|(offset, len)| free.give(offset, len));
        assert_eq!(free.ranges, BTreeMap::from([(0, LEN)]), "everything came back as one range");
    }

    #[test]
    fn a_full_list_refuses_and_a_huge_request_does_not_wrap() {
        let mut free = FreeList::new(4096);
        assert_eq!(free.take(usize::MAX - 10, 64), None);
        assert_eq!(free.take(4096, 4096), Some(0));
        assert_eq!(free.take(64, 64), None);
        free.give(0, 4096);
        assert_eq!(free.take(64, 64), Some(0));
        assert_eq!(free.take(64, 2048), Some(2048), "skips to the alignment");
        assert_eq!(free.take(64, 64), Some(64), "and what was skipped is still free");
    }
}
