//! The messages as bytes. Numbers have the byte order of the host, and both ends are on one host: little-endian here.
//!
//! A message's fixed part is a list of fields without gaps. Decoding bounds everything that a length or a count is made of;
//! what it cannot make sense of is [`Malformed`].

use std::fmt;

pub use limits::{Limits, OWN_LIMITS};

mod limits;

/// Version of the protocol that both ends speak.
pub const MAJOR: u16 = 0;
/// The newest minor version known here. The older of the two ends' is used.
pub const MINOR: u16 = 1;

/// Most bytes of data in one message: the specification's default, and as much as either end here takes.
pub const MAX_DATA: usize = 1 << 20;
/// The longest message either end here takes: data, what says where it belongs, and the header.
pub const MAX_MESSAGE: usize = MAX_DATA + 64;
/// Descriptors that either end here takes with one message. QEMU refuses a peer that says more than 16.
pub const MAX_FDS: usize = 8;
/// The longest list of mappable areas that is believed.
pub const MAX_AREAS: usize = 64;

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Their names are the specification's.
pub enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceGetInfo = 4,
    DeviceGetRegionInfo = 5,
    DeviceGetIrqInfo = 7,
    DeviceSetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DmaRead = 11,
    DmaWrite = 12,
    DeviceReset = 13,
}

impl Command {
    const ALL: [Command; 12] = [
        Command::Version,
        Command::DmaMap,
        Command::DmaUnmap,
        Command::DeviceGetInfo,
        Command::DeviceGetRegionInfo,
        Command::DeviceGetIrqInfo,
        Command::DeviceSetIrqs,
        Command::RegionRead,
        Command::RegionWrite,
        Command::DmaRead,
        Command::DmaWrite,
        Command::DeviceReset,
    ];

    /// The command with a number, if it is one that is used here.
    pub fn from_number(number: u16) -> Option<Command> {
        Command::ALL.into_iter().find(|&command| command as u16 == number)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Version => "VERSION",
            Command::DmaMap => "DMA_MAP",
            Command::DmaUnmap => "DMA_UNMAP",
            Command::DeviceGetInfo => "DEVICE_GET_INFO",
            Command::DeviceGetRegionInfo => "DEVICE_GET_REGION_INFO",
            Command::DeviceGetIrqInfo => "DEVICE_GET_IRQ_INFO",
            Command::DeviceSetIrqs => "DEVICE_SET_IRQS",
            Command::RegionRead => "REGION_READ",
            Command::RegionWrite => "REGION_WRITE",
            Command::DmaRead => "DMA_READ",
            Command::DmaWrite => "DMA_WRITE",
            Command::DeviceReset => "DEVICE_RESET",
        })
    }
}

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Each message names its fields.
pub enum Malformed {
    #[error("a header that gives the message {size} bytes, where {HEADER_LEN} to {MAX_MESSAGE} make sense")]
    Size { size: u32 },
    #[error("a header with flags {flags:#x}: neither a command nor a reply")]
    Flags { flags: u32 },
    #[error("a body of {found} bytes, where {needed} are needed")]
    Short { needed: usize, found: usize },
    #[error("{fds} file descriptors, where {expected} make sense")]
    Descriptors { fds: usize, expected: usize },
    #[error("capabilities that are no JSON object: {why}")]
    Capabilities { why: String },
    #[error("{what}: {found:#x}, where {expected} makes sense")]
    Field { what: &'static str, found: u64, expected: String },
}

impl Malformed {
    /// A field whose value makes no sense.
    pub fn field(what: &'static str, found: impl Into<u64>, expected: impl fmt::Display) -> Malformed {
        Malformed::Field { what, found: found.into(), expected: expected.to_string() }
    }
}

/// Declares the fixed part of a message: its fields in their order, without gaps. Also for protocols of other crates that are
/// framed as this one.
#[doc(hidden)]
#[macro_export]
macro_rules! layout {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$meaning])* pub $field: $kind,)* }

        impl $name {
            /// Its length in bytes.
            pub const LEN: usize = 0 $(+ size_of::<$kind>())*;

            /// As bytes.
            pub fn encode(&self) -> [u8; $name::LEN] {
                let mut bytes = [0; $name::LEN];
                let mut at = 0;
                $(
                    bytes[at..at + size_of::<$kind>()].copy_from_slice(&self.$field.to_ne_bytes());
                    at += size_of::<$kind>();
                )*
                debug_assert_eq!(at, $name::LEN);
                bytes
            }

            /// From bytes, and what is behind it.
            pub fn decode(bytes: &[u8]) -> Result<($name, &[u8]), $crate::vfio_user::wire::Malformed> {
                let found = bytes.len();
                let (mut fixed, rest) = bytes
                    .split_at_checked($name::LEN)
                    .ok_or($crate::vfio_user::wire::Malformed::Short { needed: $name::LEN, found })?;
                $(
                    let (field, behind) = fixed.split_at(size_of::<$kind>());
                    let $field = <$kind>::from_ne_bytes(field.try_into().expect("split at its length"));
                    fixed = behind;
                )*
                debug_assert!(fixed.is_empty());
                Ok(($name { $($field,)* }, rest))
            }
        }
    };
}

/// Header, flags: the message is a reply. The low four bits are 0 in a command.
pub const REPLY: u32 = 1;
const TYPE: u32 = 0xf;
/// Header, flags: the sender of a command wants no reply.
pub const NO_REPLY: u32 = 1 << 4;
/// Header, flags: the reply says that the command failed; `error` is an errno.
pub const ERROR: u32 = 1 << 5;

/// Bytes of a header.
pub const HEADER_LEN: usize = Header::LEN;
layout! {
    /// What every message starts with.
    Header {
        /// The sender's number for a command, given back in its reply.
        id: u16,
        /// A [`Command`]'s number.
        command: u16,
        /// Bytes of the whole message.
        size: u32,
        /// [`REPLY`], [`NO_REPLY`], [`ERROR`].
        flags: u32,
        /// An errno, in a reply with [`ERROR`].
        error: u32,
    }
}

impl Header {
    /// Whether it is a reply's.
    pub fn is_reply(&self) -> bool {
        self.flags & TYPE == REPLY
    }

    /// Checks what can be checked without knowing the command.
    pub fn check(self) -> Result<Header, Malformed> {
        let Header { size, flags, .. } = self;
        if !(HEADER_LEN..=MAX_MESSAGE).contains(&(size as usize)) {
            return Err(Malformed::Size { size });
        }
        if flags & TYPE > REPLY {
            return Err(Malformed::Flags { flags });
        }
        Ok(self)
    }
}

layout! {
    /// `VERSION`, both ways; [`Limits`] follow as JSON.
    Version {
        /// Has to be the same at both ends.
        major: u16,
        /// The reply's is at most the command's.
        minor: u16,
    }
}

layout! {
    /// `DMA_MAP`: memory that the server may reach. The file it is in comes along, or the server has to ask for each access.
    DmaMap {
        /// Bytes of this structure.
        argsz: u32,
        /// [`DMA_READABLE`], [`DMA_WRITABLE`].
        flags: u32,
        /// Where it is in the file.
        offset: u64,
        /// Its IOVA.
        address: u64,
        /// Bytes.
        size: u64,
    }
}

/// `DMA_MAP`, flags: the device may read it.
pub const DMA_READABLE: u32 = 1;
/// `DMA_MAP`, flags: the device may write it.
pub const DMA_WRITABLE: u32 = 2;

layout! {
    /// `DMA_UNMAP`, and its reply.
    DmaUnmap {
        /// Bytes of the reply that there is room for.
        argsz: u32,
        /// [`UNMAP_ALL`].
        flags: u32,
        /// The IOVA.
        address: u64,
        /// Bytes.
        size: u64,
    }
}

/// `DMA_UNMAP`, flags: all that is mapped. Address and size are 0 then.
pub const UNMAP_ALL: u32 = 2;

layout! {
    /// `DEVICE_GET_INFO`, both ways.
    DeviceInfo {
        /// Bytes of this structure.
        argsz: u32,
        /// [`DEVICE_RESETS`], [`DEVICE_PCI`].
        flags: u32,
        /// How many regions there are.
        regions: u32,
        /// How many kinds of interrupt there are.
        interrupts: u32,
    }
}

/// `DEVICE_GET_INFO`, flags: the device takes `DEVICE_RESET`.
pub const DEVICE_RESETS: u32 = 1;
/// `DEVICE_GET_INFO`, flags: it is a PCI function.
pub const DEVICE_PCI: u32 = 2;
/// Regions of a PCI function: six BARs, the ROM, configuration space, VGA.
pub const PCI_REGIONS: u32 = 9;
/// The region that is configuration space.
pub const CONFIG_REGION: u32 = 7;
/// Kinds of interrupt of a PCI function: INTx, MSI, MSI-X, errors, requests.
pub const PCI_INTERRUPTS: u32 = 5;

layout! {
    /// `DEVICE_GET_REGION_INFO`, both ways; in a reply capabilities may follow.
    RegionInfo {
        /// In a command the bytes of the reply that there is room for, in a reply the bytes that are needed.
        argsz: u32,
        /// [`REGION_READ`] and so on.
        flags: u32,
        /// Which region.
        index: u32,
        /// Where in this reply the capabilities start.
        cap_offset: u32,
        /// Bytes of the region.
        size: u64,
        /// Where the region starts in the file that comes along.
        offset: u64,
    }
}

/// `DEVICE_GET_REGION_INFO`, flags: it can be read.
pub const REGION_READ: u32 = 1;
/// `DEVICE_GET_REGION_INFO`, flags: it can be written.
pub const REGION_WRITE: u32 = 2;
/// `DEVICE_GET_REGION_INFO`, flags: it can be mapped, as a whole or the areas that a capability names.
pub const REGION_MMAP: u32 = 4;
/// `DEVICE_GET_REGION_INFO`, flags: capabilities follow.
pub const REGION_CAPS: u32 = 8;

layout! {
    /// What each capability of a region starts with, and how the one that lists mappable areas goes on.
    SparseHeader {
        /// [`CAP_SPARSE`].
        id: u16,
        /// 1.
        version: u16,
        /// Where the next one starts; 0 at the end.
        next: u32,
        /// How many areas follow.
        areas: u32,
        /// 0.
        reserved: u32,
    }
}

/// The capability that lists mappable areas.
pub const CAP_SPARSE: u16 = 1;

layout! {
    /// A mappable area of a region.
    Area {
        /// From the region's start.
        offset: u64,
        /// Bytes.
        size: u64,
    }
}

layout! {
    /// `DEVICE_GET_IRQ_INFO`, both ways.
    IrqInfo {
        /// Bytes of this structure.
        argsz: u32,
        /// [`IRQ_EVENTFD`] and so on.
        flags: u32,
        /// The kind: 0 is INTx, 1 MSI, 2 MSI-X.
        index: u32,
        /// How many there are.
        count: u32,
    }
}

/// `DEVICE_GET_IRQ_INFO`, flags: signalled by eventfd.
pub const IRQ_EVENTFD: u32 = 1;
/// `DEVICE_GET_IRQ_INFO`, flags: can be masked.
pub const IRQ_MASKABLE: u32 = 2;
/// `DEVICE_GET_IRQ_INFO`, flags: is masked each time it fires.
pub const IRQ_AUTOMASKED: u32 = 4;
/// `DEVICE_GET_IRQ_INFO`, flags: to have more of them, all have to be turned off first.
pub const IRQ_NORESIZE: u32 = 8;

layout! {
    /// `DEVICE_SET_IRQS`; with [`IRQ_DATA_BOOL`] a byte an interrupt follows, with [`IRQ_DATA_EVENTFD`] descriptors come along.
    SetIrqs {
        /// Bytes of this structure and what follows.
        argsz: u32,
        /// One kind of data and one action.
        flags: u32,
        /// The kind of interrupt.
        index: u32,
        /// The first.
        start: u32,
        /// How many.
        count: u32,
    }
}

/// `DEVICE_SET_IRQS`, flags: no data.
pub const IRQ_DATA_NONE: u32 = 1;
/// `DEVICE_SET_IRQS`, flags: a byte an interrupt.
pub const IRQ_DATA_BOOL: u32 = 2;
/// `DEVICE_SET_IRQS`, flags: a descriptor an interrupt.
pub const IRQ_DATA_EVENTFD: u32 = 4;
/// `DEVICE_SET_IRQS`, flags: mask.
pub const IRQ_MASK: u32 = 8;
/// `DEVICE_SET_IRQS`, flags: unmask.
pub const IRQ_UNMASK: u32 = 16;
/// `DEVICE_SET_IRQS`, flags: fire, or with descriptors: signal these when it fires.
pub const IRQ_TRIGGER: u32 = 32;

layout! {
    /// `REGION_READ` and `REGION_WRITE`, both ways; data follows in a write and in a read's reply.
    RegionAccess {
        /// From the region's start.
        offset: u64,
        /// Which region.
        region: u32,
        /// Bytes of data.
        count: u32,
    }
}

layout! {
    /// `DMA_READ` and `DMA_WRITE`, both ways, from the server; data follows in a write and in a read's reply.
    DmaAccess {
        /// The IOVA.
        address: u64,
        /// Bytes of data.
        count: u64,
    }
}

#[cfg(test)]
mod tests;
