//! The link: SFI to an SFP+ module (sections 3.7 and 4.6.4).

use std::thread::sleep;
use std::time::Duration;

use pagewire_ethdev::nic::Device;
use pagewire_ethdev::{Error, Link};

use crate::eeprom::{Eeprom, NONE};
use crate::family::Family;
use crate::registers::*;
use crate::semaphore::own;
use crate::sfp::{self, Kind, Module};

/// Where the EEPROM's list of set-ups by kind of module is.
const SET_UP_POINTER: u16 = 0x2b;
/// Kinds in that list and words of a set-up: more than any EEPROM has.
const MOST_KINDS: u16 = 64;
const MOST_WORDS: u16 = 1024;
/// The firmware gets its chance between two times that we own the MAC's registers.
const FIRMWARE_PAUSE: Duration = Duration::from_millis(10);

/// What is in the cage, as far as it has been looked at.
pub(crate) struct Cage {
    pub(crate) module: Module,
    /// The pin that says that there is something, when it was looked at last.
    pin: bool,
}

impl Cage {
    /// Look what is in it.
    pub(crate) fn look(device: &Device) -> Cage {
        // The pin first: what changes while the module is being read is noticed the next time.
        let pin = device.registers.read(ESDP) & esdp::MODULE != 0;
        let module = sfp::identify(device);
        sfp::report(device, &module);
        Cage { module, pin }
    }

    /// Look again, and say something only if it is another.
    pub(crate) fn look_again(&mut self, device: &Device) {
        let pin = device.registers.read(ESDP) & esdp::MODULE != 0;
        let before = std::mem::replace(&mut self.pin, pin);
        if let Module::Identified(identity) = &self.module
            && before == pin
            && sfp::is_still(device, identity)
        {
            return;
        }
        let module = sfp::identify(device);
        if module != self.module {
            sfp::report(device, &module);
            self.module = module;
        }
    }

    /// The link as it is. A module that came or went since the last look is seen to first.
    pub(crate) fn link(&mut self, device: &Device) -> Link {
        let pins = device.registers.read(ESDP);
        if pins == u32::MAX || !is_started(device) {
            return Link::Down;
        }
        if (pins & esdp::MODULE != 0) != self.pin {
            self.look_again(device);
            if let Err(error) = set_up(device, &self.module) {
                log::warn!("{error}; the link may not come up");
            }
        }
        self.known_link(device)
    }

    /// The same without a look at the module, which may take half a second.
    pub(crate) fn known_link(&self, device: &Device) -> Link {
        if !self.module.is_present() {
            return Link::Down;
        }
        link(device)
    }
}

/// Without this bit the port is not started, or the card is gone.
fn is_started(device: &Device) -> bool {
    device.registers.read(CTRL_EXT) & ctrl_ext::DRV_LOAD != 0
}

/// The link as the card has it.
pub(crate) fn link(device: &Device) -> Link {
    if !is_started(device) {
        return Link::Down;
    }
    // The first read may hold what was, the second does not.
    device.registers.read(LINKS);
    decode(Family::of(device), device.registers.read(LINKS))
}

/// What LINKS says.
pub(crate) fn decode(family: &Family, links: u32) -> Link {
    let other = family.other_speeds.filter(|_| links & links::OTHER_SPEED != 0);
    let speeds = other.unwrap_or([0, 100, 1000, 10_000]);
    let mbps = speeds[(links >> links::SPEED_SHIFT & 3) as usize];
    match links {
        u32::MAX => Link::Down,
        _ if links & links::UP == 0 || mbps == 0 => Link::Down,
        _ => Link::Up { mbps, full_duplex: true },
    }
}

/// Whether the management firmware has the link to itself, so that it is to stay as it is.
pub(crate) fn is_vetoed(device: &Device) -> bool {
    let veto = device.registers.read(MMNGC) & MMNGC_VETO != 0;
    if veto {
        log::warn!("{}: the management firmware keeps the link to itself; it stays as it is", device.name);
    }
    veto
}

/// 4.6.4.2: what the module needs, link mode, restart; and light. Does not wait for the link.
///
/// # Errors
///
/// [`Error::Timeout`] if the link's state machine does not start, or the EEPROM or the semaphores do not answer.
pub(crate) fn set_up(device: &Device, module: &Module) -> Result<(), Error> {
    let registers = &device.registers;
    if is_vetoed(device) {
        return Ok(());
    }
    let set_up = match module {
        Module::Absent => Vec::new(),
        _ => electrical_set_up(device, module.kind())?,
    };
    if !set_up.is_empty() {
        let _owned = own(device, sync::MAC)?;
        set_up.into_iter().for_each(|word| registers.write(CORECTL, word.into()));
    }
    sleep(FIRMWARE_PAUSE);
    let dual_rate = matches!(module, Module::Identified(identity) if identity.dual_rate);
    let rate = if dual_rate { esdp::RATE_SELECT | esdp::RATE_SELECT_OUT } else { 0 };
    registers.modify(ESDP, esdp::TX_DISABLE, rate);
    restart(device, module.kind())
}

/// What the EEPROM says is to be written to the analog core for this kind of module.
fn electrical_set_up(device: &Device, kind: Kind) -> Result<Vec<u16>, Error> {
    let second = device.registers.read(STATUS) >> status::LAN_ID_SHIFT & 1;
    let number = kind.set_up() + second as u16;
    let eeprom = Eeprom::new(device);
    let list = eeprom.read(SET_UP_POINTER)?;
    let found = match list {
        0 | NONE => None,
        _ => find_set_up(&eeprom, list, number)?,
    };
    let Some(start) = found else {
        log::warn!(
            "{}: the EEPROM has no set-up number {number} for modules like this one ({kind}); going on without",
            device.name
        );
        return Ok(Vec::new());
    };
    let mut words = Vec::new();
    for offset in 1..=MOST_WORDS {
        match eeprom.read(start.saturating_add(offset))? {
            NONE => return Ok(words),
            word => words.push(word),
        }
    }
    Err(device.error("the set-up for the SFP+ module in the EEPROM", "without end", "1024 words at most"))
}

/// Where a set-up is: the list has pairs of number and pointer behind its own length.
fn find_set_up(eeprom: &Eeprom<'_>, list: u16, number: u16) -> Result<Option<u16>, Error> {
    for pair in 0..MOST_KINDS {
        let at = list.saturating_add(1 + 2 * pair);
        match eeprom.read(at)? {
            NONE => break,
            found if found == number => {
                let start = eeprom.read(at.saturating_add(1))?;
                return Ok((!matches!(start, 0 | NONE)).then_some(start));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Choose the link mode and restart the link with it: 10 Gb/s without negotiation, or 1 Gb/s with.
fn restart(device: &Device, kind: Kind) -> Result<(), Error> {
    let registers = &device.registers;
    let _owned = own(device, sync::MAC)?;
    let serial = autoc2::PMA_10G_SERIAL | autoc2::LINK_DISABLE;
    registers.modify(AUTOC2, serial, autoc2::PMA_10G_SFI);
    let (mode, clear) = match kind {
        Kind::Gigabit => (autoc::LMS_1G_AN, autoc::LMS | autoc::PMA_1G),
        _ => (autoc::LMS_10G_SERIAL, autoc::LMS),
    };
    let mode = registers.read(AUTOC) & !clear | mode | autoc::RESTART;
    // A change of the mode's highest bit restarts the analog pipeline; its state machine shows when.
    registers.write(AUTOC, mode ^ autoc::LMS_2);
    let started = device.wait("restarting the link", ANLP1, 100, |value| value & ANLP1_STATE != 0);
    registers.write(AUTOC, mode);
    started
}
