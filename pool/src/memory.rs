//! The segments of a pool: from its provider, mapped for its devices, described by its records; and back.

// Fills records, which are reached by pointer.
#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use pagewire_hugepages::Segment;
use pagewire_pci::AddressSpace;

use crate::config::Geometry;
use crate::error::Error;
use crate::fault;
use crate::provider::Provider;
use crate::record::{Record, Records};
use crate::stats::{Published, add};
use crate::sync::Ordering;

/// Providers of memory that is mapped for good.
static STAYING: Mutex<Vec<Arc<dyn Provider>>> = Mutex::new(Vec::new());

/// A pool's segments. Dropped, each is unmapped and released, and then the provider uninstalled.
///
/// A segment that cannot be unmapped is neither released nor used again, since a device may still write it: the space keeps it, and its
/// provider never gets it back.
pub(crate) struct Memory {
    pub(crate) pool: Arc<str>,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) space: AddressSpace,
    pub(crate) geometry: Geometry,
    pub(crate) kind: u32,
    pub(crate) segments: Vec<Option<Arc<Segment>>>,
    pub(crate) published: Arc<Published>,
}

impl Memory {
    /// Gets a segment for the place `at`, which has none, maps it, and fills the records of its fragments.
    ///
    /// What fails leaves nothing behind.
    pub(crate) fn install(&mut self, at: usize, records: &Records) -> Result<Arc<Segment>, Error> {
        let pool = || self.pool.to_string();
        let needed = self.geometry.segment_bytes();
        let refused = |cause| Error::Provider { pool: pool(), provider: self.provider.describe(), cause };
        if fault::here() {
            return Err(refused("on order".into()));
        }
        let segment = self.provider.allocate(needed).map_err(|cause| {
            match cause.downcast::<pagewire_hugepages::Error>() {
                Ok(cause) => Error::Memory { pool: pool(), cause: *cause },
                Err(cause) => refused(cause),
            }
        })?;
        if segment.len() < needed {
            let found = segment.len();
            self.provider.release(segment);
            return Err(refused(format!("{found} bytes were provided where {needed} were asked for").into()));
        }
        let mapped = match fault::here() {
            true => Err(pagewire_pci::Error::NotMapped { window_offset: 0, offset: 0 }),
            false => self.space.map(segment.clone()),
        };
        let mapped = mapped.and_then(|()| self.describe(&segment, at, records));
        if let Err(cause) = mapped {
            let pool = pool();
            self.let_go(segment);
            return Err(Error::Map { pool, cause });
        }
        self.segments[at] = Some(segment.clone());
        Ok(segment)
    }

    /// Fills the records of a segment's fragments, all of which are the pool's and free.
    fn describe(&self, segment: &Segment, at: usize, records: &Records) -> Result<(), pagewire_pci::Error> {
        let Geometry { fragment_size, .. } = self.geometry;
        let first = at * self.geometry.per_segment();
        records.forget(first..first + self.geometry.per_segment());
        // Contiguous for every device; without an IOMMU no more than a page is.
        let step = segment.page_size().bytes().max(fragment_size);
        let mut iova = 0;
        for index in 0..self.geometry.per_segment() {
            let offset = index * fragment_size;
            if offset.is_multiple_of(step) {
                if fault::here() {
                    return Err(pagewire_pci::Error::NotMapped { window_offset: 0, offset });
                }
                iova = self.space.iova(segment, offset)?;
            }
            let addr = match segment.is_readable() {
                true => segment.as_ptr().as_ptr().wrapping_add(offset),
                false => std::ptr::null_mut(),
            };
            let record = Record {
                addr,
                iova: iova + (offset % step) as u64,
                data: 0,
                offset: 0,
                packet_len: 0,
                kind: self.kind,
                next: None,
                hash: 0,
                size: fragment_size as u32,
                vlan_tci: 0,
                segments: 1,
                l2_len: 0,
                l3_len: 0,
                l4_len: 0,
                mss: 0,
                packet_type: 0,
                rss_type: 0,
            };
            // SAFETY: nobody has a fragment of a segment that is not installed yet.
            unsafe { records.get(first + index).write(record) };
        }
        Ok(())
    }

    /// Takes the segment at a place out, none of whose fragments is out, and releases it.
    pub(crate) fn remove(&mut self, at: usize) {
        if let Some(segment) = self.segments[at].take() {
            self.let_go(segment);
        }
    }

    fn let_go(&self, segment: Arc<Segment>) {
        match self.space.unmap(&segment) {
            Ok(()) => self.provider.release(segment),
            Err(error) => {
                log::error!(
                    "pool {:?}: {} bytes from {} stay mapped for devices, and are lost to it: {error}",
                    self.pool,
                    segment.len(),
                    self.provider.describe()
                );
                add(&self.published.unmap_failed, self.geometry.per_segment() as u64);
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        (0..self.segments.len()).for_each(|at| self.remove(at));
        if self.published.unmap_failed.load(Ordering::Relaxed) == 0 {
            self.provider.uninstall();
        } else {
            // What it is made of has to outlive the mapping.
            STAYING.lock().unwrap_or_else(PoisonError::into_inner).push(self.provider.clone());
        }
    }
}
