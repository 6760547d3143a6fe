//! What a virtual function and the driver of its physical function say to each other in the mailbox (82599 datasheet 7.10.2 has the
//! mailbox; its messages are a convention of the drivers, and these are their versions 1.0 to 1.2).
//!
//! The first word: what is asked, above it a number of the question's own, and in the answer whether it is granted. An answer has the
//! question's first word in it.

/// Words of a mailbox.
pub(crate) const WORDS: usize = 16;

/// A mailbox's contents.
pub(crate) type Message = [u32; WORDS];

/// What is asked: the lowest bits of the first word.
pub(crate) const KIND: u32 = 0xffff;
pub(crate) const RESET: u32 = 0x01;
pub(crate) const SET_MAC: u32 = 0x02;
pub(crate) const SET_MULTICAST: u32 = 0x03;
pub(crate) const SET_VLAN: u32 = 0x04;
pub(crate) const SET_FRAME: u32 = 0x05;
pub(crate) const SET_EXTRA_MAC: u32 = 0x06;
pub(crate) const NEGOTIATE: u32 = 0x08;
pub(crate) const GET_QUEUES: u32 = 0x09;
pub(crate) const SET_MODE: u32 = 0x0c;
/// From the physical function: look at the link, and at whether you are still known.
pub(crate) const CONTROL: u32 = 0x100;

/// A number of the question's own: how many groups, whether a VLAN is added.
pub(crate) const INFO_SHIFT: u32 = 16;
pub(crate) const INFO: u32 = 0xff;

/// In an answer.
pub(crate) const GRANTED: u32 = 1 << 31;
pub(crate) const REFUSED: u32 = 1 << 30;
/// The virtual function has been reset since its physical function was, and may go on asking.
pub(crate) const CLEAR_TO_SEND: u32 = 1 << 29;

/// Versions: what they are called, and the number in the message. 1 is another system's.
pub(crate) const VERSIONS: [(&str, u32); 3] = [("1.2", 3), ("1.1", 2), ("1.0", 0)];
/// From here on there is GET_QUEUES, and frames longer than 1,518 bytes come in several buffers.
pub(crate) const VERSION_1_1: u32 = 2;
/// From here on there is SET_MODE.
pub(crate) const VERSION_1_2: u32 = 3;

/// SET_MODE: no groups and no broadcasts, its own groups and broadcasts, all groups.
pub(crate) mod mode {
    pub(crate) const NONE: u32 = 0;
    pub(crate) const GROUPS: u32 = 1;
    pub(crate) const ALL_GROUPS: u32 = 2;
}

/// SET_MULTICAST: hashes of 12 bits, two in a word.
pub(crate) const MOST_GROUPS: usize = 30;
