//! The X540's PHY behind MDIO (IEEE 802.3 clause 45): who it is, its power, and that negotiation begins anew when asked.

use super::registers::Registers;
use super::table::*;

/// Where on the bus it answers.
const ADDRESS: u32 = 0;
/// Its identifier, revision included.
const IDENTIFIER: u32 = 0x0154_0203;

// MSCA.
const COMMAND: u32 = 1 << 30;
const OPCODE: u32 = 3 << 26;
const WRITE: u32 = 1 << 26;
const READ: u32 = 3 << 26;

/// Device 30, register 0: low power.
const LOW_POWER: u16 = 1 << 11;
/// Device 7, register 0: negotiate anew. Clears itself.
const RESTART: u16 = 1 << 9;

/// The PHY.
#[derive(Debug)]
pub(super) struct Phy {
    /// The register that the next command is about, given by an address cycle.
    address: u16,
    vendor_control: u16,
    negotiation: u16,
}

impl Phy {
    /// As firmware leaves it: at rest, to be woken by a driver.
    pub(super) fn new() -> Self {
        Self { address: 0, vendor_control: LOW_POWER, negotiation: 0 }
    }

    /// Whether it may have a link.
    pub(super) fn powered(&self) -> bool {
        self.vendor_control & LOW_POWER == 0
    }

    /// A write of MSCA: a cycle on the bus, done at once.
    pub(super) fn command(&mut self, registers: &mut Registers, value: u32) {
        registers.set(MSCA, value & !COMMAND);
        let (phy, device) = (value >> 21 & 0x1f, value >> 16 & 0x1f);
        if value & COMMAND == 0 {
            return;
        }
        match value & OPCODE {
            0 => self.address = value as u16,
            READ => {
                // Nobody answers: the wire is pulled up.
                let word = if phy == ADDRESS { self.read(device) } else { 0xffff };
                registers.set(MSRWD, registers.get(MSRWD) & 0xffff | u32::from(word) << 16);
            }
            WRITE if phy == ADDRESS => self.write(device, registers.get(MSRWD) as u16),
            _ => {}
        }
    }

    fn read(&self, device: u32) -> u16 {
        match (device, self.address) {
            (1 | 7 | 30, 2) => (IDENTIFIER >> 16) as u16,
            (1 | 7 | 30, 3) => IDENTIFIER as u16,
            (7, 0) => self.negotiation,
            (30, 0) => self.vendor_control,
            _ => 0,
        }
    }

    fn write(&mut self, device: u32, value: u16) {
        match (device, self.address) {
            (7, 0) => self.negotiation = value & !RESTART,
            (30, 0) => self.vendor_control = value,
            _ => {}
        }
    }
}
