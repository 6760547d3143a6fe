//! The link: module, cable, laser, the MAC's and PHY's registers about them (82599 datasheet 8.2.3.22, 3.7).

use super::registers::Registers;
use super::table::*;

/// AUTOC.Restart_AN: clears itself.
const RESTART: u32 = 1 << 12;
/// AUTOC.LMS: how the link is run.
const LMS: u32 = 7 << 13;
/// LMS: 10 Gb/s serial, no auto-negotiation.
const LMS_10G_SERIAL: u32 = 3 << 13;
/// LMS: 1 Gb/s, no auto-negotiation.
const LMS_1G: u32 = 0;

/// LINKS as a card with a PHY shows it while it is up; the speeds, of which the X550 has two more than their bits would say.
const LINKS_PHY: u32 = 0x4000_0080;
const BY_SPEED: [(u32, u32); 5] = [
    (10_000, 3 << 28),
    (1000, 2 << 28),
    (100, 1 << 28),
    (2500, 3 << 28 | 1 << 27),
    (5000, 1 << 28 | 1 << 27),
];
/// LINKS as an 82599 shows it while it is up at 10 Gb/s.
const LINKS_10G: u32 = 0x7b80_0080;
/// LINKS while down: the receiver is on, nothing is there.
const LINKS_DOWN: u32 = 0x0b80_0000;
const LINKS_SPEED: u32 = 3 << 28;
const LINKS_1G: u32 = 2 << 28;
/// LINKS: up now and ever since the last read.
const STEADY: u32 = 1 << 7;

/// STATUS.LinkUp.
const LINK_UP: u32 = 1 << 7;
/// ESDP: a module is in the cage.
const MODULE_PRESENT: u32 = 1 << 2;
/// ESDP: the module's laser is off.
const LASER_OFF: u32 = 1 << 3;
/// MSCA.MDI_CMD: clears itself; no PHY answers.
const MDI_COMMAND: u32 = 1 << 30;

/// What of the link changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// It went up or down.
    pub(super) link: bool,
    /// A module came or went.
    pub(super) module: bool,
}

/// The state of the link.
#[derive(Debug, Default)]
pub(super) struct Link {
    up: bool,
    /// In Mb/s, of a PHY.
    speed: u32,
    module: bool,
    dropped: bool,
}

impl Link {
    /// Whether frames pass.
    #[inline]
    pub(super) fn up(&self) -> bool {
        self.up
    }

    /// What a PHY agrees with its other end on: holds from the next time the link goes up.
    #[inline]
    pub(super) fn set_speed(&mut self, mbps: u32) {
        self.speed = mbps;
    }

    /// Look at the outside world. Gives what changed.
    #[inline]
    pub(super) fn update(&mut self, registers: &mut Registers, module: bool, carrier: bool) -> Changes {
        let up = module && carrier && can_link(registers);
        if up == self.up && module == self.module {
            return Changes::default();
        }
        let changes = Changes { link: up != self.up, module: module != self.module };
        self.dropped |= !up;
        self.up = up;
        self.module = module;
        self.show(registers);
        changes
    }

    fn show(&self, registers: &mut Registers) {
        let status = registers.get(STATUS) & !LINK_UP;
        registers.set(STATUS, status | if self.up { LINK_UP } else { 0 });
        if registers.kind().cage() {
            let esdp = registers.get(ESDP) & !MODULE_PRESENT;
            registers.set(ESDP, esdp | if self.module { MODULE_PRESENT } else { 0 });
        }
        let links = match (self.up, registers.get(AUTOC) & LMS) {
            (false, _) => LINKS_DOWN,
            (true, _) if !registers.kind().cage() => LINKS_PHY | speed_bits(self.speed),
            (true, LMS_1G) => LINKS_10G & !LINKS_SPEED | LINKS_1G,
            (true, _) => LINKS_10G,
        };
        registers.set(LINKS, links);
    }

    /// The registers were reset: show the link in them again.
    pub(super) fn after_reset(&mut self, registers: &mut Registers) {
        self.up = false;
        self.dropped = true;
        self.show(registers);
    }

    /// A read of one of the link's registers.
    pub(super) fn read(&mut self, registers: &Registers, offset: u32) -> u32 {
        let value = registers.get(offset);
        if offset == LINKS && std::mem::take(&mut self.dropped) { value & !STEADY } else { value }
    }

    /// A write to one of the link's registers.
    pub(super) fn write(&mut self, registers: &mut Registers, offset: u32, value: u32) {
        let value = match offset {
            AUTOC => value & !RESTART,
            MSCA => value & !MDI_COMMAND,
            ESDP if registers.kind().cage() => {
                value & !MODULE_PRESENT | if self.module { MODULE_PRESENT } else { 0 }
            }
            ESDP => value,
            AUTOC2 => value,
            _ => return,
        };
        registers.set(offset, value);
    }
}

/// LINKS' bits for a speed.
fn speed_bits(mbps: u32) -> u32 {
    BY_SPEED.into_iter().find(|(speed, _)| *speed == mbps).map_or(0, |(_, bits)| bits)
}

/// Whether the card's own half of the link is in working order.
#[inline]
fn can_link(registers: &Registers) -> bool {
    if !registers.kind().cage() {
        return true;
    }
    !registers.has(ESDP, LASER_OFF) && matches!(registers.get(AUTOC) & LMS, LMS_10G_SERIAL | LMS_1G)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_up_with_module_and_carrier_and_remembers_a_drop() {
        let mut registers = Registers::new();
        let mut link = Link::default();
        assert_eq!(link.update(&mut registers, false, true), Changes::default());
        assert_eq!(link.update(&mut registers, true, true), Changes { link: true, module: true });
        assert_eq!(link.read(&registers, LINKS), LINKS_10G);
        assert!(registers.has(STATUS, LINK_UP) && registers.has(ESDP, MODULE_PRESENT));
        assert!(link.update(&mut registers, true, false).link);
        assert_eq!(link.read(&registers, LINKS) & (1 << 30), 0);
        link.update(&mut registers, true, false);
        assert!(link.update(&mut registers, true, true).link);
        link.update(&mut registers, true, false);
        link.update(&mut registers, true, true);
        assert_eq!(link.read(&registers, LINKS), LINKS_10G & !STEADY);
        assert_eq!(link.read(&registers, LINKS), LINKS_10G);
    }

    #[test]
    fn autoc_restart_clears_itself_and_chooses_the_speed() {
        let mut registers = Registers::new();
        let mut link = Link::default();
        link.write(&mut registers, AUTOC, 0xc09c_7004);
        assert_eq!(link.read(&registers, AUTOC), 0xc09c_6004);
        link.write(&mut registers, AUTOC, RESTART);
        link.update(&mut registers, true, true);
        assert_eq!(registers.get(LINKS) & LINKS_SPEED, LINKS_1G);
        link.write(&mut registers, ESDP, LASER_OFF);
        assert!(link.update(&mut registers, true, true).link);
        assert!(!link.up());
        assert_eq!(registers.get(ESDP), LASER_OFF | MODULE_PRESENT);
    }
}
