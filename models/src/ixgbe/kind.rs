//! What the cards of the family differ in, as far as that is modelled.

use std::fmt;

/// Which card it is. Facts about the later ones are from their datasheets, and from what drivers written for them do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The 82599 with a cage for SFP+ modules (8086:10fb).
    #[default]
    I82599,
    /// The X540 with 10GBASE-T PHYs on the chip (8086:1528).
    X540,
    /// The X550 with 10GBASE-T PHYs on the chip (8086:1563), which speak 2.5 and 5 Gb/s as well.
    X550,
    /// The X552 of processors with 10GBASE-KR, a backplane (8086:15ab).
    X552,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::I82599, Kind::X540, Kind::X550, Kind::X552];

    /// PCI device.
    pub fn device(self) -> u16 {
        match self {
            Kind::I82599 => 0x10fb,
            Kind::X540 => 0x1528,
            Kind::X550 => 0x1563,
            Kind::X552 => 0x15ab,
        }
    }

    /// That of its virtual functions.
    pub fn function_device(self) -> u16 {
        match self {
            Kind::I82599 => 0x10ed,
            Kind::X540 => 0x1515,
            Kind::X550 => 0x1565,
            Kind::X552 => 0x15a8,
        }
    }

    /// Bytes of the receive packet buffer.
    pub(super) fn packet_buffer(self) -> u32 {
        match self {
            Kind::I82599 => 512 << 10,
            Kind::X540 | Kind::X550 | Kind::X552 => 384 << 10,
        }
    }

    /// Whether its port is a cage.
    pub(super) fn cage(self) -> bool {
        self == Kind::I82599
    }

    /// Whether it has a PHY behind MDIO.
    pub(super) fn mdio(self) -> bool {
        matches!(self, Kind::X540 | Kind::X550)
    }

    /// Whether SW_FW_SYNC has a semaphore of its own, taken by reading.
    pub(super) fn regsmp(self) -> bool {
        self != Kind::I82599
    }

    /// Of the X550's generation: its firmware reads the EEPROM for drivers, RSS has 64 queues and 512 entries, and tables of each pool's.
    pub(super) fn x550(self) -> bool {
        matches!(self, Kind::X550 | Kind::X552)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::I82599 => "82599",
            Kind::X540 => "X540",
            Kind::X550 => "X550",
            Kind::X552 => "X552",
        })
    }
}
