//! A pool's segments while it runs: growth and shrinking, nodes, requests larger than a fragment, pages in quarantine.

// Takes pages in quarantine from the CPU.
#![allow(unsafe_code)]

use std::sync::Arc;

use pagewire_hugepages::Segment;

use crate::check;
use crate::config::Geometry;
use crate::error::Error;
use crate::packet::{Packet, PacketFlags, Posted};
use crate::pool::Pool;
use crate::record::{LARGE, POOL};
use crate::stats::add;
use crate::sync::Ordering;

/// Refills that find nothing between two attempts to grow, after one that failed.
const GROWTH_RESTS: u32 = 1000;

impl Pool {
    /// Add a segment: get it from the provider and map it for every device of the space, in one call for each IOMMU. Returns how
    /// many fragments it has.
    ///
    /// This takes about a millisecond for 2 MiB of huge pages.
    ///
    /// # Errors
    ///
    /// [`Error::FullyGrown`], and those of [`Pool::new`]; the pool goes on as it was.
    pub fn grow(&mut self) -> Result<usize, Error> {
        let Some(place) = self.store.vacant() else {
            return Err(Error::FullyGrown { pool: self.name().into(), fragments: self.store.fragments() });
        };
        let segment = self.memory().install(place, &self.shared().records)?;
        self.adopt(place, &segment);
        Ok(self.memory().geometry.per_segment())
    }

    /// Grow, if the pool is to when it is empty. What failed is not tried at every poll: it takes its time.
    pub(crate) fn grow_for_want(&mut self) -> bool {
        if !self.grow_when_empty || self.store.vacant().is_none() {
            return false;
        }
        if self.growth_rests > 0 {
            self.growth_rests -= 1;
            return false;
        }
        let grown = self.grow();
        if let Err(error) = &grown {
            log::debug!("{error}");
            self.growth_rests = GROWTH_RESTS;
        }
        grown.is_ok()
    }

    /// Give back segments none of whose fragments is out, as long as `keep` fragments are left; everything that is free is
    /// [trimmed](Pool::trim) first. Returns how many fragments went.
    ///
    /// Each is unmapped for every device, and then its provider's again.
    pub fn shrink(&mut self, keep: usize) -> usize {
        self.trim();
        let per_segment = self.memory().geometry.per_segment();
        let before = self.store.fragments();
        while self.store.fragments() >= keep.saturating_add(per_segment)
            && let Some(place) = self.store.idle()
        {
            self.store.remove(place);
            self.nodes.segments[place] = None;
            self.memory().remove(place);
        }
        self.publish_size();
        before - self.store.fragments()
    }

    /// A segment has been installed at a place: its fragments can be allocated.
    pub(crate) fn adopt(&mut self, place: usize, segment: &Segment) {
        self.nodes.segments[place] =
            if self.nodes.topology.is_uniform() { None } else { self.nodes.topology.node_of(segment) };
        self.store.add(place, self.nodes.is_foreign(place));
        self.publish_size();
    }

    fn publish_size(&self) {
        self.monitor.published.fragments.store(self.store.fragments() as u64, Ordering::Relaxed);
    }

    /// The segments that there are now. Each has a [descriptor](Segment::fd) by which another process can map it.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.memory().segments.iter().flatten().cloned().collect()
    }

    /// The NUMA node that its memory is to be on; `None`: that of the thread which allocates.
    pub fn node(&self) -> Option<u32> {
        self.nodes.wanted
    }

    /// Want memory on another node from now on. The cache is flushed; what is on the wrong node is not used as long as there
    /// is some on the right one, and comes back by one a refill (`alloc_waive`).
    ///
    /// New memory is on this node if the provider says so: [`crate::Pages`] go by their own options.
    pub fn set_node(&mut self, node: Option<u32>) {
        self.nodes.wanted = node;
        self.nodes.has_moved();
        self.trim();
        self.sort_by_node();
    }

    /// Use up segments of the node that the pool wants before others.
    pub(crate) fn sort_by_node(&mut self) {
        for place in 0..self.nodes.segments.len() {
            self.store.set_foreign(place, self.nodes.is_foreign(place));
        }
    }

    /// Take a fragment of at least `len` bytes to post to a device: an ordinary one if that is enough, else the next power of two
    /// of them in a row, up to a whole page. `None` if there is none, or `len` is more than a page.
    ///
    /// What is left of the page goes to the next request. Requests above a fragment's size are taken from the page store and
    /// returned through the return ring: they cost several times as much as others.
    #[inline]
    pub fn alloc_len(&mut self, len: usize) -> Option<Posted> {
        if len <= self.fragment_size() { self.alloc() } else { self.alloc_large(len) }
    }

    #[inline(never)]
    fn alloc_large(&mut self, len: usize) -> Option<Posted> {
        if len > self.page_size {
            return None;
        }
        let count = len.div_ceil(self.fragment_size()).next_power_of_two();
        let first = self.store.take_run(count).or_else(|| {
            // Pages may be in pieces that lie in the cache and on the way.
            self.trim();
            self.store.take_run(count)
        });
        let first = first.or_else(|| self.grow_for_want().then(|| self.store.take_run(count)).flatten());
        let Some(first) = first else {
            add(&self.monitor.published.alloc_empty, 1);
            return None;
        };
        (first..first + count).for_each(|fragment| self.monitor.published.stamps.pass(fragment));
        self.joined += count - 1;
        self.count_split(count);
        let records = &self.shared().records;
        (first..first + count).for_each(|fragment| check::taken(records.get(fragment)));
        let record = records.get(first);
        records.join(record, count);
        Some(Posted::from_record(record))
    }

    /// Take a packet's page out of use: its fragments go to the page store as they come back on a slow path, and stay there until
    /// their segment goes. For memory that somebody may still write who should not.
    ///
    /// Gives back a packet of another pool, or of several segments.
    pub fn quarantine(&mut self, mut packet: Packet) -> Result<(), Packet> {
        let is_mine = packet.kind() & POOL & !LARGE == self.kind;
        if !is_mine || packet.flags().contains(PacketFlags::CHAINED) {
            return Err(packet);
        }
        packet.clear_requests();
        let record = packet.into_record();
        self.store.quarantine(self.shared().records.index_of(record));
        self.put(record);
        Ok(())
    }

    /// A fragment has been put into the page store. In the debug mode a page in quarantine that is complete is unmapped: whoever
    /// still has its address faults. Pages larger than ours stay as they are.
    pub(crate) fn seal_off(&self, fragment: usize) {
        if !check::is_on() || !self.store.is_sealed_off(fragment) {
            return;
        }
        let memory = self.memory();
        let Geometry { page_size, pages_per_segment, .. } = memory.geometry;
        let page = fragment / memory.geometry.per_page();
        let segment =
            memory.segments[page / pages_per_segment].as_ref().filter(|segment| segment.is_readable());
        if let Some(segment) = segment
            // SAFETY: all of the page's fragments are in the page store, which gives none of a sealed off page out again.
            && let Err(error) = unsafe { segment.withdraw(page % pages_per_segment * page_size, page_size) }
        {
            log::debug!("a page in quarantine stays mapped: {error}");
        }
    }
}
