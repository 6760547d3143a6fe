//! What the cards of the family differ in, as far as that is modelled.

/// Which card it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The 82599 with a cage for SFP+ modules (8086:10fb).
    #[default]
    I82599,
    /// The X540 with 10GBASE-T PHYs on the chip (8086:1528). Facts are from the "Intel Ethernet Controller X540 Datasheet" and from what
    /// drivers written for it do.
    X540,
}

impl Kind {
    /// PCI device.
    pub fn device(self) -> u16 {
        match self {
            Kind::I82599 => 0x10fb,
            Kind::X540 => 0x1528,
        }
    }

    /// That of its virtual functions.
    pub fn function_device(self) -> u16 {
        match self {
            Kind::I82599 => 0x10ed,
            Kind::X540 => 0x1515,
        }
    }

    /// Bytes of the receive packet buffer.
    pub(super) fn packet_buffer(self) -> u32 {
        match self {
            Kind::I82599 => 512 << 10,
            Kind::X540 => 384 << 10,
        }
    }
}
