//! Memory that two processes map: the rings of a lane, and the segments that packets are in.
//!
//! **Rings.** Whatever the other process stores can be there, at any time. A word is read once, by one atomic load, and is a
//! plain number from then on; an index is masked before it is used. Each ring has a slot for every fragment that the quota
//! allows out, and a fragment is in it at most once, so a ring of an honest consumer cannot be full, and neither end ever
//! looks at how far the other has read: the producer reads of the consumer's words one position, one flag and the returns.
//!
//! **Orderings.** A position is stored with Release after the slots it covers and loaded with Acquire before them; the slots
//! themselves need no more than Relaxed. Who goes to sleep stores its flag, and who has stored a position loads the flag: each
//! has a SeqCst fence between the two, so that one of them sees the other (as in Dekker's algorithm), and no wake-up is lost.
//!
//! **Packets.** A consumer reads them by atomic loads too, because the other process may take them back at any time. It sets
//! [`words::REVOKED`] before, never to be cleared, with a fence behind it; a consumer that has read has a fence and then looks at
//! the word (the reader's half of a sequence lock). Not set: nothing of what was read is of later.

// Atomic words and byte slices in mapped memory are made from its address.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use pagewire_hugepages::{PageSize, Segment, SegmentOptions};
use rustix::fs::{SealFlags, fcntl_get_seals};

use super::layout::{Offer, Token, words};

/// A part of a sealed file.
pub(super) struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// Maps `len` bytes of a file from `offset` on, which will not shrink: access to what is not there any more would be a
    /// signal.
    pub(super) fn new(file: File, offset: u64, len: usize, writable: bool) -> io::Result<Mapping> {
        let bad = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return bad("a file that is not sealed against shrinking".into());
        }
        let found = file.metadata()?.len();
        let end = offset.checked_add(len as u64);
        if len == 0 || end.is_none_or(|end| end > found) {
            return bad(format!("a file of {found} bytes that should have {len} from {offset} on"));
        }
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        let map = if writable { options.map_raw(&file)? } else { options.map_raw_read_only(&file)? };
        Ok(Mapping { map })
    }

    /// Whether all of a piece is inside.
    pub(super) fn contains(&self, offset: u64, len: u32) -> bool {
        offset.checked_add(len.into()).is_some_and(|end| end <= self.map.len() as u64)
    }

    /// Copies bytes out that another process may change meanwhile.
    pub(super) fn load(&self, offset: usize, out: &mut [u8]) {
        let mut out = out;
        self.walk(offset, out.len(), |at, is_word| {
            // SAFETY: inside, and a word only where it is aligned and whole. All access to it here is atomic, and what other processes do
            // is not this one's undefined behaviour. Loads of these sizes may be of memory that is mapped for reading alone.
            let count = unsafe {
                if is_word {
                    let word = AtomicU64::from_ptr(at.cast()).load(Ordering::Relaxed);
                    out[..WORD].copy_from_slice(&word.to_ne_bytes());
                    WORD
                } else {
                    out[0] = AtomicU8::from_ptr(at).load(Ordering::Relaxed);
                    1
                }
            };
            out = &mut std::mem::take(&mut out)[count..];
        });
    }

    /// Copies bytes in; the memory is mapped for writing.
    pub(super) fn store(&self, offset: usize, bytes: &[u8]) {
        let mut bytes = bytes;
        self.walk(offset, bytes.len(), |at, is_word| {
            // SAFETY: as for `load`, and mapped for writing.
            unsafe {
                match bytes.split_first_chunk::<WORD>().filter(|_| is_word) {
                    Some((word, rest)) => {
                        AtomicU64::from_ptr(at.cast()).store(u64::from_ne_bytes(*word), Ordering::Relaxed);
                        bytes = rest;
                    }
                    None => {
                        AtomicU8::from_ptr(at).store(bytes[0], Ordering::Relaxed);
                        bytes = &bytes[1..];
                    }
                }
            }
        });
    }

    /// Goes through a part by words where they are aligned and whole, and by bytes elsewhere.
    fn walk(&self, offset: usize, len: usize, mut step: impl FnMut(*mut u8, bool)) {
        assert!(offset <= self.map.len() && len <= self.map.len() - offset);
        let mut done = 0;
        while done < len {
            // SAFETY: inside, by the assertion.
            let at = unsafe { self.map.as_mut_ptr().add(offset + done) };
            let is_word = at.addr().is_multiple_of(WORD) && len - done >= WORD;
            step(at, is_word);
            done += if is_word { WORD } else { 1 };
        }
    }
}

/// Bytes in what is copied at a time.
const WORD: usize = 8;

/// What keeps a lane's memory mapped.
enum Owner {
    Producer { _memory: Arc<Segment> },
    Consumer { _mapping: Mapping },
}

/// The rings between one producer and one consumer, as either of them sees them.
pub(super) struct Rings {
    words: NonNull<u64>,
    slots: u32,
    _owner: Owner,
}

// SAFETY: all access to the words is atomic, and the memory is mapped as long as the owner lives.
unsafe impl Send for Rings {}

impl Rings {
    /// New ones, with at least `slots` slots, and what to hand to the other process.
    pub(super) fn new(slots: u32) -> Result<(Rings, Arc<Segment>), pagewire_hugepages::Error> {
        let slots = slots.next_power_of_two();
        let options =
            SegmentOptions { page_size: PageSize::Size4K, node: None, name: "pagewire-lane".into() };
        let segment = Segment::allocate(8 * words::count(slots), &options)?;
        let owner = Owner::Producer { _memory: segment.clone() };
        Ok((Rings { words: segment.as_ptr().cast(), slots, _owner: owner }, segment))
    }

    /// Those that another process made.
    pub(super) fn map(file: File, slots: u32) -> io::Result<Rings> {
        if !slots.is_power_of_two() || slots > super::MAX_QUOTA {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("rings of {slots} slots")));
        }
        let mapping = Mapping::new(file, 0, 8 * words::count(slots), true)?;
        let words = NonNull::new(mapping.map.as_mut_ptr()).ok_or(io::ErrorKind::InvalidData)?.cast();
        Ok(Rings { words, slots, _owner: Owner::Consumer { _mapping: mapping } })
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < words::count(self.slots));
        // SAFETY: inside the memory by the assertion, which is mapped, page aligned, and accessed by atomics only.
        unsafe { AtomicU64::from_ptr(self.words.as_ptr().add(index)) }
    }

    fn slot(&self, position: u64) -> usize {
        position as usize & (self.slots as usize - 1)
    }

    fn offer(&self, position: u64) -> &[AtomicU64; words::OFFER] {
        let first = words::OFFERS + words::OFFER * self.slot(position);
        assert!(first + words::OFFER <= words::count(self.slots));
        // SAFETY: as for `word`, and so are those behind it.
        unsafe { self.words.add(first).cast().as_ref() }
    }

    pub(super) fn write_offer(&self, position: u64, offer: Offer) {
        for (to, word) in self.offer(position).iter().zip(offer.words()) {
            // Relaxed: `publish` is what makes it seen.
            to.store(word, Ordering::Relaxed);
        }
    }

    pub(super) fn read_offer(&self, position: u64) -> Offer {
        // Relaxed: the position that covers the slot was loaded with Acquire.
        Offer::from_words(self.offer(position).each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    pub(super) fn write_return(&self, position: u64, token: Token) {
        // Relaxed: `publish` is what makes it seen.
        self.word(words::returns(self.slots) + self.slot(position)).store(token.word(), Ordering::Relaxed);
    }

    pub(super) fn read_return(&self, position: u64) -> Token {
        // Relaxed: the position that covers the slot was loaded with Acquire.
        Token::from_word(self.word(words::returns(self.slots) + self.slot(position)).load(Ordering::Relaxed))
    }

    /// How far the other end is. Acquire: the slots up to there are seen.
    pub(super) fn position(&self, of: usize) -> u64 {
        self.word(of).load(Ordering::Acquire)
    }

    /// Shows the other end everything up to `position`, and says whether it sleeps and has to be woken.
    pub(super) fn publish(&self, of: usize, position: u64, sleeper: usize) -> bool {
        // Release: so are the slots.
        self.word(of).store(position, Ordering::Release);
        fence(Ordering::SeqCst);
        let sleeper = self.word(sleeper);
        // Relaxed: the fence has ordered it, and nothing is read by the strength of it.
        let sleeps = sleeper.load(Ordering::Relaxed) == 1;
        if sleeps {
            sleeper.store(0, Ordering::Relaxed);
        }
        sleeps
    }

    /// The producer takes back what this consumer holds.
    pub(super) fn revoke(&self) {
        self.word(words::REVOKED).store(1, Ordering::Relaxed);
        // Whatever is stored to the packets from here on comes behind it.
        fence(Ordering::SeqCst);
    }

    /// Whether what was read of packets before this may be of a time when they were the consumer's no more.
    pub(super) fn is_revoked(&self) -> bool {
        // What was loaded before is not of later than this looks.
        fence(Ordering::Acquire);
        self.word(words::REVOKED).load(Ordering::Relaxed) != 0
    }

    /// Before sleeping: asks to be woken. Positions have to be looked at once more after it.
    pub(super) fn ask(&self, sleeper: usize) {
        self.word(sleeper).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn ask_no_more(&self, sleeper: usize) {
        self.word(sleeper).store(0, Ordering::Relaxed);
    }
}
