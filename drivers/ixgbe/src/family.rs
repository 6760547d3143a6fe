//! What the cards of the family differ in, as data.

use std::ops::RangeInclusive;

use pagewire_ethdev::nic::{Device, Register};

use crate::registers::{PFVFLRE, PFVFLREC};

/// What a card's port is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// A cage for SFP+ modules, which is the driver's to look after.
    Cage,
    /// 10GBASE-T: a PHY on the chip, which negotiates by itself.
    TwistedPair,
    /// 10GBASE-KR: a PHY behind the processor's sideband, which negotiates by itself.
    Backplane,
}

/// Who keeps SW_FW_SYNC from being changed by two at once, besides SWSM.SMBI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// SWSM.SWESMBI, set to take it.
    Swesmbi,
    /// SW_FW_SYNC's own highest bit, taken by reading it as 0.
    Regsmp,
}

/// How words of the EEPROM are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// By EERD.
    Eeprom,
    /// By EERD, from the shadow of a flash that has to be owned.
    Flash,
    /// The same, by asking the firmware.
    Firmware,
}

/// What the EEPROM's checksum covers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The last of its first words.
    pub(crate) last: u16,
    /// Pointers to sections, and those among them whose sections it does not cover.
    pub(crate) pointers: RangeInclusive<u16>,
    pub(crate) except: &'static [u16],
    /// Pointers to sections of so many words, which do not begin with their length.
    pub(crate) known: &'static [(u16, u16)],
}

/// RSS's redirection table: how many queues its entries can lead to, and how many there are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Redirection {
    pub(crate) queues: u16,
    pub(crate) entries: usize,
}

/// A card of the family.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) media: Media,
    pub(crate) guard: Guard,
    pub(crate) memory: Memory,
    pub(crate) checked: Checked,
    /// CTRL.LRST resets the link, which is to be set up anew then.
    pub(crate) resets_link: bool,
    /// How long a card is left alone after a reset, in milliseconds.
    pub(crate) settle: u64,
    /// The receive packet buffer in KiB.
    pub(crate) packet_buffer: u32,
    pub(crate) redirection: Redirection,
    /// Speeds by LINKS' two bits, in Mb/s, where a third is set, if it means something.
    pub(crate) other_speeds: Option<[u32; 4]>,
    /// There is a security block that frames come in by.
    pub(crate) security: bool,
    /// TCP segments are coalesced.
    pub(crate) coalesces: bool,
    /// Where it says which virtual functions were reset.
    pub(crate) function_resets: Register,
}

/// The 82599.
const I82599: Family = Family {
    media: Media::Cage,
    guard: Guard::Swesmbi,
    memory: Memory::Eeprom,
    // Analog, PCIe, core, MAC and CSR configuration, not the firmware's.
    checked: Checked { last: 0x3f, pointers: 0x03..=0x0e, except: &[], known: &[] },
    resets_link: true,
    settle: 10,
    packet_buffer: 512,
    redirection: Redirection { queues: 16, entries: 128 },
    other_speeds: None,
    security: true,
    coalesces: true,
    function_resets: PFVFLRE,
};

/// The X540 (*Intel Ethernet Controller X540 Datasheet*).
const X540: Family = Family {
    media: Media::TwistedPair,
    guard: Guard::Regsmp,
    memory: Memory::Flash,
    // Not PHY and option ROM.
    checked: Checked { except: &[0x04, 0x05], ..I82599.checked },
    resets_link: false,
    settle: 100,
    packet_buffer: 384,
    function_resets: PFVFLREC,
    ..I82599
};

/// The X550 (*Intel Ethernet Controller X550 Datasheet*).
const X550: Family = Family {
    memory: Memory::Firmware,
    checked: X550_CHECKED,
    redirection: LARGEST_REDIRECTION,
    other_speeds: Some([0, 5000, 1000, 2500]),
    ..X540
};

/// The X552 of processors. DPDK's driver has it coalesce nothing, though Linux's does: nor do we.
const X552: Family = Family {
    media: Media::Backplane,
    settle: 50,
    other_speeds: Some([0, 100, 1000, 2500]),
    security: false,
    coalesces: false,
    checked: X550_CHECKED,
    redirection: LARGEST_REDIRECTION,
    ..X550
};

/// What theirs covers.
const X550_CHECKED: Checked = Checked {
    last: 0x41,
    pointers: 0x02..=0x0e,
    except: &[0x04, 0x05],
    // PCIe: general, and of each function.
    known: &[(0x06, 0x24), (0x07, 8), (0x08, 8)],
};

/// The largest of the family's.
pub(crate) const LARGEST_REDIRECTION: Redirection = Redirection { queues: 64, entries: 512 };

impl Family {
    /// That of a device among [`DEVICES`](crate::DEVICES) or [`VF_DEVICES`](crate::VF_DEVICES).
    pub(crate) fn of(device: &Device) -> &'static Family {
        match device.function.info().device_id {
            0x1528 | 0x1560 | 0x1515 => &X540,
            0x1563 | 0x15d1 | 0x1565 => &X550,
            0x15ab | 0x15a8 => &X552,
            _ => &I82599,
        }
    }
}
