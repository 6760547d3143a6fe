//! The PHY of cards with 10GBASE-T, behind MDIO (IEEE 802.3 clause 45): who it is, what it can do, its power, and that negotiation begins
//! anew when asked. What drivers have it offer is kept, and not looked at: the other end decides the speed.

use std::collections::BTreeMap;

use super::kind::Kind;
use super::registers::Registers;
use super::table::*;

/// Where on the bus it answers.
const ADDRESS: u32 = 0;

// MSCA.
const COMMAND: u32 = 1 << 30;
const OPCODE: u32 = 3 << 26;
const WRITE: u32 = 1 << 26;
const READ: u32 = 3 << 26;

/// Its devices: medium, negotiation, the vendor's.
const MEDIUM: u32 = 1;
const NEGOTIATION: u32 = 7;
const VENDOR: u32 = 30;
/// Those in the package: medium, PCS, PHY XS, negotiation; and the vendor's first, in the upper half.
const PACKAGE: [u16; 2] = [1 << 1 | 1 << 3 | 1 << 4 | 1 << 7, 1 << 14];
/// Status 2: a device answers here.
const PRESENT: u16 = 0x8000;
/// Medium: 10 Gb/s, 1 Gb/s, 100 Mb/s; 10GBASE-T, 1000BASE-T, 100BASE-TX.
const SPEEDS: u16 = 1 << 0 | 1 << 4 | 1 << 5;
const ABILITIES: u16 = 1 << 2 | 1 << 5 | 1 << 7;

/// Vendor's device, register 0: low power.
const LOW_POWER: u16 = 1 << 11;
/// Negotiation, register 0: anew. Clears itself.
const RESTART: u16 = 1 << 9;

/// The PHY.
#[derive(Debug)]
pub(super) struct Phy {
    identifier: u32,
    /// The register that the next command is about, given by an address cycle.
    address: u16,
    /// Registers that drivers have written, by device and number.
    written: BTreeMap<(u32, u16), u16>,
}

impl Phy {
    /// As firmware leaves it: the X540's at rest, to be woken by a driver; the X550's awake.
    pub(super) fn new(kind: Kind) -> Self {
        let (identifier, power) = match kind {
            Kind::I82599 | Kind::X540 => (0x0154_0203, LOW_POWER),
            Kind::X550 | Kind::X552 => (0x0154_0223, 0),
        };
        Self { identifier, address: 0, written: BTreeMap::from([((VENDOR, 0), power)]) }
    }

    /// Whether it may have a link.
    pub(super) fn powered(&self) -> bool {
        self.read(VENDOR, 0) & LOW_POWER == 0
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
                let word = if phy == ADDRESS { self.read(device, self.address) } else { 0xffff };
                registers.set(MSRWD, registers.get(MSRWD) & 0xffff | u32::from(word) << 16);
            }
            WRITE if phy == ADDRESS => self.write(device, registers.get(MSRWD) as u16),
            _ => {}
        }
    }

    fn read(&self, device: u32, register: u16) -> u16 {
        match (device, register) {
            (MEDIUM | 3 | 4 | NEGOTIATION | VENDOR, 2) => (self.identifier >> 16) as u16,
            (MEDIUM | 3 | 4 | NEGOTIATION | VENDOR, 3) => self.identifier as u16,
            (MEDIUM, 4) => SPEEDS,
            (MEDIUM | 3 | 4 | NEGOTIATION, 5) => PACKAGE[0],
            (MEDIUM | 3 | 4 | NEGOTIATION, 6) => PACKAGE[1],
            (MEDIUM | 3 | 4, 8) => PRESENT,
            (MEDIUM, 11) => ABILITIES,
            place => self.written.get(&place).copied().unwrap_or(0),
        }
    }

    fn write(&mut self, device: u32, value: u16) {
        let value = if (device, self.address) == (NEGOTIATION, 0) { value & !RESTART } else { value };
        self.written.insert((device, self.address), value);
    }
}
