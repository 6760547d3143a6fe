//! What both ends agree on: the messages of the greeting, and where things are in the memory of a lane.
//!
//! `docs/handover.md` describes the same for people who write another end.

use pagewire_pci::layout;

/// Both ends have the same.
pub(super) const VERSION: u32 = 1;
/// The first word of [`Hello`]: "pagewire" in ASCII.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"pagewire");

/// Numbers of messages, in the header's `command`.
pub(super) const HELLO: u16 = 1;
pub(super) const SEGMENT: u16 = 2;
pub(super) const LANE: u16 = 3;
pub(super) const READY: u16 = 4;
pub(super) const RETIRED: u16 = 5;

/// Longest text in a message: a lane's name, the reason of a refusal.
pub(super) const MAX_TEXT: usize = 256;
/// Most segments, and most lanes, that there can be at one time.
pub(super) const MAX_PARTS: usize = 1 << 15;
/// A number's generations. It comes round only after as many messages, each of which a consumer has to take before the next is used.
pub(super) const GENERATIONS: u32 = 1 << 15;

layout! {
    /// `HELLO`, the consumer's only message.
    Hello {
        /// [`MAGIC`].
        magic: u64,
        /// [`VERSION`].
        version: u32,
        /// [`READ`] or [`READ_WRITE`].
        access: u32,
    }
}

/// `HELLO`, access: the memory can be mapped for reading.
pub(super) const READ: u32 = 0;
/// `HELLO`, access: for reading and writing.
pub(super) const READ_WRITE: u32 = 1;

layout! {
    /// The reply to `HELLO`; a refusal has the reason as text instead. `SEGMENT` and `LANE` messages follow for all there is,
    /// then `READY`, and more of the former two whenever there is more.
    Welcome {
        /// [`VERSION`].
        version: u32,
        /// As asked for.
        access: u32,
        /// Fragments of one producer that the consumer may hold.
        quota: u32,
        /// 0.
        reserved: u32,
    }
}

layout! {
    /// `SEGMENT`: memory that packets are in; its file comes along.
    SegmentInfo {
        /// What references call it, with the generation: below [`MAX_PARTS`]. A number that had a segment before has this one from now on.
        index: u32,
        /// Below [`GENERATIONS`].
        generation: u32,
        /// Where in the file it begins, in bytes: a multiple of 4,096.
        offset: u64,
        /// Bytes.
        len: u64,
    }
}

layout! {
    /// `RETIRED`: no reference to that memory will come any more.
    RetiredInfo {
        /// As in [`SegmentInfo`].
        index: u32,
        /// As in [`SegmentInfo`].
        generation: u32,
    }
}

layout! {
    /// `LANE`: rings with one producer; their file and a socket for wake-ups come along, the producer's name follows.
    LaneInfo {
        /// Slots of each ring: a power of two, no less than the quota.
        slots: u32,
        /// 0.
        reserved: u32,
    }
}

/// Words of 64 bits in a lane's memory. Each that is written often has a pair of cache lines to itself.
pub(super) mod words {
    /// References offered so far, modulo 2^64. Written by the producer.
    pub(crate) const OFFERED: usize = 0;
    /// 1: the producer has taken back what the consumer held, and does not look at the lane again. It stays.
    pub(crate) const REVOKED: usize = 8;
    /// 1: the producer sleeps, and wants a byte on the socket when something is returned. The other end makes it 0.
    pub(crate) const PRODUCER_SLEEPS: usize = 16;
    /// References returned so far, modulo 2^64. Written by the consumer.
    pub(crate) const RETURNED: usize = 32;
    /// 1: the consumer sleeps, and wants a byte on the socket when something is offered. The other end makes it 0.
    pub(crate) const CONSUMER_SLEEPS: usize = 48;
    /// Where the ring of offers starts: [`OFFER`] words a slot.
    pub(crate) const OFFERS: usize = 64;
    /// Words of an offer.
    pub(crate) const OFFER: usize = 4;

    /// Where the ring of returns starts: a word a slot.
    pub(crate) const fn returns(slots: u32) -> usize {
        OFFERS + OFFER * slots as usize
    }

    /// All of them.
    pub(crate) const fn count(slots: u32) -> usize {
        returns(slots) + slots as usize
    }
}

/// A handed-out packet: its place in the producer's table, and how often that place was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Token {
    pub(super) fn word(self) -> u64 {
        u64::from(self.index) | u64::from(self.generation) << 32
    }

    pub(super) fn from_word(word: u64) -> Token {
        Token { index: word as u32, generation: (word >> 32) as u32 }
    }
}

/// A memory segment's number, and how often it was another's before, modulo [`GENERATIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentId {
    pub(super) index: u16,
    pub(super) generation: u16,
}

/// A fragment's data, by segment. The segments of a packet follow one another in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Number of the memory segment, and which of those that had it.
    pub(super) segment: SegmentId,
    /// Another piece of the same packet follows.
    pub(super) more: bool,
    /// Bytes.
    pub(super) len: u32,
    /// From the memory segment's start, in bytes.
    pub(super) offset: u64,
}

/// One slot of the ring of offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) token: Token,
    pub(super) piece: Piece,
}

const MORE: u64 = 1 << 16;
/// The lowest bit of the generation.
const GENERATION: u32 = 17;

impl Offer {
    pub(super) fn words(self) -> [u64; words::OFFER] {
        let Piece { segment, more, len, offset } = self.piece;
        let SegmentId { index, generation } = segment;
        let more = if more { MORE } else { 0 };
        let what = u64::from(index) | more | u64::from(generation) << GENERATION | u64::from(len) << 32;
        [self.time, self.token.word(), what, offset]
    }

    pub(super) fn from_words([time, token, what, offset]: [u64; words::OFFER]) -> Offer {
        let generation = (what >> GENERATION) as u16 & (GENERATIONS - 1) as u16;
        let segment = SegmentId { index: what as u16, generation };
        let piece = Piece { segment, more: what & MORE != 0, len: (what >> 32) as u32, offset };
        Offer { time, token: Token::from_word(token), piece }
    }
}
