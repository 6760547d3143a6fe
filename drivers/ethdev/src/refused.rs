use crate::config::TxOffloads;

/// Why a packet can never be sent by a queue; see [`TxQueue::check`](crate::TxQueue::check). Lengths are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TxRefused {
    /// The frame is shorter than any that the card takes.
    #[error("the packet has {len} bytes; the card takes {least} or more")]
    TooShort {
        /// Of the packet.
        len: usize,
        /// That are needed.
        least: usize,
    },
    /// A frame of it is longer than the port's MTU allows, its tag counted.
    #[error("a frame of it has {len} bytes with its tag; the port's MTU allows {most}")]
    TooLong {
        /// Of the longest frame that it makes.
        len: usize,
        /// That are allowed.
        most: usize,
    },
    /// A segment is empty, or longer than one descriptor can tell.
    #[error("a segment of it has {len} bytes; a descriptor takes 1 to {most}")]
    Segment {
        /// Of the segment.
        len: usize,
        /// That are possible.
        most: usize,
    },
    /// It takes more descriptors than a packet can have, or the ring.
    #[error("it takes {descriptors} descriptors; {most} are possible")]
    Descriptors {
        /// It takes.
        descriptors: u32,
        /// There can be.
        most: u32,
    },
    /// It asks for what the port was not started with.
    #[error("it needs the transmit offload {0:?}, which the port was not started with")]
    Offload(TxOffloads),
    /// Its headers are not where it says, or are not such as the card can change.
    #[error("headers of {l2}, {l3} and {l4} bytes at layers 2, 3 and 4: {why}")]
    Headers {
        /// Layer 2.
        l2: u16,
        /// Layer 3.
        l3: u16,
        /// Layer 4, 0 where it does not matter.
        l4: u16,
        /// What is wrong.
        why: &'static str,
    },
    /// It cannot be cut so.
    #[error("{payload} bytes of payload in segments of {mss}; 1 to {most} can be cut")]
    Segmentation {
        /// What is to be cut.
        payload: usize,
        /// Most of a segment.
        mss: u16,
        /// Most that can be cut.
        most: usize,
    },
}
