//! What the cards of the family differ in, as data.

use pagewire_ethdev::nic::{Device, Register};

use crate::registers::{PFVFLRE, PFVFLREC};

/// What a card's port is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// A cage for SFP+ modules, which is the driver's to look after.
    Cage,
    /// 10GBASE-T: a PHY on the chip, which negotiates by itself.
    TwistedPair,
}

/// Who keeps SW_FW_SYNC from being changed by two at once, besides SWSM.SMBI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// SWSM.SWESMBI, set to take it.
    Swesmbi,
    /// SW_FW_SYNC's own highest bit, taken by reading it as 0.
    Regsmp,
}

/// A card of the family.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) media: Media,
    pub(crate) guard: Guard,
    /// The words of the EEPROM are shadows of a flash that has to be owned to read them.
    pub(crate) flash: bool,
    /// Pointers in the EEPROM whose sections its checksum does not cover.
    pub(crate) unchecked: &'static [u16],
    /// CTRL.LRST resets the link, which is to be set up anew then.
    pub(crate) resets_link: bool,
    /// How long a card is left alone after a reset, in milliseconds.
    pub(crate) settle: u64,
    /// The receive packet buffer in KiB.
    pub(crate) packet_buffer: u32,
    /// Where it says which virtual functions were reset.
    pub(crate) function_resets: Register,
}

/// The 82599.
const I82599: Family = Family {
    media: Media::Cage,
    guard: Guard::Swesmbi,
    flash: false,
    unchecked: &[],
    resets_link: true,
    settle: 10,
    packet_buffer: 512,
    function_resets: PFVFLRE,
};

/// The X540 (*Intel Ethernet Controller X540 Datasheet*).
const X540: Family = Family {
    media: Media::TwistedPair,
    guard: Guard::Regsmp,
    flash: true,
    // PHY and option ROM.
    unchecked: &[0x04, 0x05],
    resets_link: false,
    settle: 100,
    packet_buffer: 384,
    function_resets: PFVFLREC,
};

impl Family {
    /// That of a device among [`DEVICES`](crate::DEVICES).
    pub(crate) fn of(device: &Device) -> &'static Family {
        match device.function.info().device_id {
            0x1528 | 0x1560 => &X540,
            _ => &I82599,
        }
    }
}
