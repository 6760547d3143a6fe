//! A packet of another process, as a consumer has it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Error;
use super::consumer::Consumer;
use super::layout::Token;
use super::memory::Mapping;

/// Bytes in a mapped segment, all of which are inside.
pub(super) struct Data {
    pub(super) memory: Arc<Mapping>,
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// A packet of another process. Dropping it returns it.
///
/// It lies in memory that is not this process's: the other one takes it back when this one is thrown out, or when the
/// [`Producer`](super::Producer) or the [`Server`](super::Server) goes, and uses it again. So its bytes are copied and never lent, and every
/// copy says whether it is of the packet.
pub struct Received<'a> {
    pub(super) consumer: &'a Consumer,
    pub(super) lane: usize,
    pub(super) age: u64,
    pub(super) token: Token,
    pub(super) time: Duration,
    pub(super) first: Data,
    /// Of packets with several segments. Most have one, and allocate nothing.
    pub(super) rest: Vec<Data>,
}

impl Received<'_> {
    fn segments(&self) -> impl Iterator<Item = &Data> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// Bytes in the packet, all segments together.
    pub fn len(&self) -> usize {
        self.segments().map(|segment| segment.len).sum()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in each segment, first to last.
    pub fn segment_lens(&self) -> impl Iterator<Item = usize> {
        self.segments().map(|segment| segment.len)
    }

    /// Calls `touch` for each piece of memory that `len` bytes from `offset` on are in, and which of the bytes those are; fewer if the
    /// packet ends before. Returns how many, if the packet was this process's all the time.
    fn touch(
        &self,
        offset: usize,
        len: usize,
        mut touch: impl FnMut(&Mapping, usize, std::ops::Range<usize>),
    ) -> Result<usize, Error> {
        let (mut skip, mut done) = (offset, 0);
        for segment in self.segments() {
            let from = skip.min(segment.len);
            let count = (segment.len - from).min(len - done);
            touch(&segment.memory, segment.offset + from, done..done + count);
            done += count;
            skip -= from;
        }
        // Asked once it is done: the word is set before anything is used again, and stays.
        match self.consumer.is_revoked(self.lane, self.age) {
            true => Err(self.consumer.revoked()),
            false => Ok(done),
        }
    }

    /// Copies bytes from `offset` on into `out`, from as many segments as it takes. Returns how many, which is fewer than `out` has where the
    /// packet ends before.
    ///
    /// # Errors
    ///
    /// [`Error::Revoked`] if the packet has been taken back: `out` has bytes of whatever came to lie there.
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<usize, Error> {
        self.touch(offset, out.len(), |memory, at, which| memory.load(at, &mut out[which]))
    }

    /// Copies the whole packet into `out`, which is cleared first.
    ///
    /// # Errors
    ///
    /// [`Error::Revoked`] if the packet has been taken back: `out` is empty then.
    pub fn copy_to(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.clear();
        out.resize(self.len(), 0);
        self.read_at(0, out).map(drop).inspect_err(|_| out.clear())
    }

    /// Changes bytes of the packet from `offset` on. Returns how many, which is fewer than there are `bytes` where the packet ends before.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`] with [`Access::Read`](super::Access::Read). [`Error::Revoked`] if the packet has been taken back: if that
    /// happened meanwhile, whatever came to lie there is changed.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<usize, Error> {
        if !self.consumer.may_write() {
            return Err(Error::ReadOnly);
        }
        // Nothing is changed that is known to be somebody else's.
        self.touch(0, 0, |_, _, _| {})?;
        self.touch(offset, bytes.len(), |memory, at, which| memory.store(at, &bytes[which]))
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

    /// The name of its producer.
    pub fn producer_name(&self) -> String {
        self.consumer.name_of(self.lane)
    }

    /// A number for its producer that none of this consumer's has had before.
    pub fn producer_age(&self) -> u64 {
        self.age
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        self.consumer.give_back(self.lane, self.age, self.token);
    }
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} bytes in {} segments)", self.len(), 1 + self.rest.len())
    }
}
