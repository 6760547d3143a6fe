//! A packet of another process, as a consumer has it.

// It lies in memory of the producer's, and is lent as slices.
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;
use std::slice;
use std::time::{Duration, SystemTime};

use super::consumer::Consumer;
use super::layout::Token;

/// Bytes in a mapped segment.
#[derive(Clone, Copy)]
pub(super) struct Data {
    pub(super) at: NonNull<u8>,
    pub(super) len: usize,
}

impl Data {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: mapped as long as the consumer lives, which the packet borrows; the producer changes nothing while the packet
        // is held.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

/// A packet of another process. Dropping it returns it.
pub struct Received<'a> {
    pub(super) consumer: &'a Consumer,
    pub(super) lane: usize,
    pub(super) token: Token,
    pub(super) time: Duration,
    pub(super) first: Data,
    /// Of packets with several segments. Most have one, and allocate nothing.
    pub(super) rest: Vec<Data>,
}

impl Received<'_> {
    /// Bytes in the packet, all segments together.
    pub fn len(&self) -> usize {
        self.segments().map(<[u8]>::len).sum()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first segment's bytes: all there are, unless [`segments`](Received::segments) has more.
    pub fn data(&self) -> &[u8] {
        self.first.as_slice()
    }

    /// The first segment's bytes, to be changed; `None` with [`Access::Read`](super::Access::Read).
    pub fn data_mut(&mut self) -> Option<&mut [u8]> {
        // SAFETY: as for reading; the memory is mapped for writing, and the server lets one consumer write at a time.
        (self.consumer.may_write())
            .then(|| unsafe { slice::from_raw_parts_mut(self.first.at.as_ptr(), self.first.len) })
    }

    /// The bytes of each segment, first to last.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.first).chain(&self.rest).map(Data::as_slice)
    }

    /// Copies the whole packet into `out`, which is cleared first.
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        out.clear();
        self.segments().for_each(|segment| out.extend_from_slice(segment));
    }

    /// When the producer offered it, since 1970. Packets of one burst have the same time.
    pub fn since_epoch(&self) -> Duration {
        self.time
    }

    /// When the producer offered it.
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.time
    }

    /// The number of its producer, in [`Consumer::producers`].
    pub fn producer(&self) -> usize {
        self.lane
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        self.consumer.give_back(self.lane, self.token);
    }
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} bytes in {} segments)", self.len(), 1 + self.rest.len())
    }
}
