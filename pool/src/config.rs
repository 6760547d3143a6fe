//! What a pool is made of.

use pagewire_hugepages::PageSize;

use crate::error::Error;

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Its name, in messages and reports.
    pub name: String,
    /// How many fragments it begins with, rounded up to whole pages, or to whole segments if their size is given.
    pub fragments: usize,
    /// How many it may [grow](crate::Pool::grow) to, rounded up to whole segments; no more than `fragments` if 0.
    pub max_fragments: usize,
    /// Bytes in a segment, which is what it grows and shrinks by, and what is mapped for devices in one call: a multiple of
    /// `page_size`, and of the memory pages if none of their memory is to lie idle. 0: what `fragments` need, all in one.
    pub segment_size: usize,
    /// Grow by a segment when none is free, in the call that finds it so: that takes a millisecond.
    pub grow_when_empty: bool,
    /// Bytes in a fragment: a power of two, 512 to `page_size`. Half a page by default.
    pub fragment_size: usize,
    /// Bytes in a logical page: a power of two, 4 KiB to 64 KiB.
    pub page_size: usize,
    /// Bytes left free before the data of a fresh packet, for headers that are prepended later.
    pub headroom: u16,
    /// Kind of memory page behind it. Small pages are used only when asked for here. A [provider](crate::Provider) of other
    /// memory does as it likes.
    pub backing: PageSize,
    /// NUMA node of the memory; `None` means the node of the thread that allocates.
    pub node: Option<u32>,
}

impl PoolConfig {
    /// Headroom of a fresh packet in bytes, unless configured otherwise.
    pub const HEADROOM: u16 = 256;
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig {
            name: "pool".into(),
            fragments: 4096,
            max_fragments: 0,
            segment_size: 0,
            grow_when_empty: false,
            fragment_size: 2048,
            page_size: 4096,
            headroom: PoolConfig::HEADROOM,
            backing: PageSize::Size2M,
            node: None,
        }
    }
}

impl PoolConfig {
    /// The pool's measures, if they are in range.
    pub(crate) fn geometry(&self) -> Result<Geometry, Error> {
        let bad = |field, found, expected: String| {
            Err(Error::Config { pool: self.name.clone(), field, found, expected })
        };
        if !self.page_size.is_power_of_two() || !(4096..=65536).contains(&self.page_size) {
            return bad("page_size", self.page_size, "a power of two from 4096 to 65536".into());
        }
        let (smallest, largest) = (Geometry::SMALLEST, self.page_size);
        if !self.fragment_size.is_power_of_two() || !(smallest..=largest).contains(&self.fragment_size) {
            let expected = format!("a power of two from {smallest} to {largest}");
            return bad("fragment_size", self.fragment_size, expected);
        }
        if usize::from(self.headroom) >= self.fragment_size {
            let expected = format!("less than the fragment's {}", self.fragment_size);
            return bad("headroom", self.headroom.into(), expected);
        }
        let most = 1 << 26;
        if !(1..=most).contains(&self.fragments) {
            return bad("fragments", self.fragments, format!("1 to {most}"));
        }
        let max = if self.max_fragments == 0 { self.fragments } else { self.max_fragments };
        if !(self.fragments..=most).contains(&max) {
            return bad("max_fragments", max, format!("{} (fragments) to {most}, or 0", self.fragments));
        }
        let largest = 1 << 36;
        if !self.segment_size.is_multiple_of(self.page_size) || self.segment_size > largest {
            let expected = format!("a multiple of the page's {}, up to {largest}", self.page_size);
            return bad("segment_size", self.segment_size, expected);
        }
        let pages_per_segment = match self.segment_size {
            0 => self.fragments.div_ceil(self.page_size / self.fragment_size),
            bytes => bytes / self.page_size,
        };
        let per_segment = pages_per_segment * (self.page_size / self.fragment_size);
        Ok(Geometry {
            fragment_size: self.fragment_size,
            page_size: self.page_size,
            pages_per_segment,
            first_segments: self.fragments.div_ceil(per_segment),
            segments: max.div_ceil(per_segment),
        })
    }
}

/// A pool's measures: which fragment is in which page, and which page in which segment.
///
/// Fragments are numbered through all segments that the pool may come to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) fragment_size: usize,
    pub(crate) page_size: usize,
    pub(crate) pages_per_segment: usize,
    /// Segments that the pool begins with.
    pub(crate) first_segments: usize,
    /// Segments that it may come to have.
    pub(crate) segments: usize,
}

impl Geometry {
    /// Bytes of the smallest fragment.
    const SMALLEST: usize = 512;
    /// Fragments in a page at most: what a mask of 128 bits describes.
    pub(crate) const MOST_IN_A_PAGE: usize = 65536 / Geometry::SMALLEST;

    pub(crate) fn per_page(&self) -> usize {
        self.page_size / self.fragment_size
    }

    pub(crate) fn per_segment(&self) -> usize {
        self.pages_per_segment * self.per_page()
    }

    pub(crate) fn segment_bytes(&self) -> usize {
        self.pages_per_segment * self.page_size
    }

    /// Fragments of all segments.
    pub(crate) fn fragments(&self) -> usize {
        self.segments * self.per_segment()
    }
}
