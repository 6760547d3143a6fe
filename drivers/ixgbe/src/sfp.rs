//! The SFP+ module: who made it and what it is for, as its memory says (SFF-8472, table 4-1 and on).

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use pagewire_ethdev::nic::Device;

use crate::i2c::Bus;
use crate::phy;
use crate::registers::*;

/// The memory with the identification, on the two wires.
const ADDRESS: u8 = 0xa0;
/// Bytes of it that are read, and how many at a time: longer reads are too much for some modules.
const BYTES: usize = 96;
const BLOCK: usize = 16;
/// Where the serial number is.
const SERIAL: std::ops::Range<usize> = 68..84;
/// What an SFP or SFP+ module says that it is.
const IDENTIFIER_SFP: u8 = 3;
/// A module may need 300 ms after power-up to answer, or to answer right (SFF-8431, t_start_up).
const TRIES: usize = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// What is in the cage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    /// Nothing.
    Absent,
    /// Something that does not answer.
    Silent,
    /// A module that has said what it is.
    Identified(Identity),
}

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) kind: Kind,
    /// It can do 1 Gb/s too, and is told which by a pin.
    pub(crate) dual_rate: bool,
    identifier: u8,
    /// The identification's own checksum holds.
    intact: bool,
    vendor: String,
    oui: [u8; 3],
    part: String,
    revision: String,
    serial: String,
}

/// What a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Direct-attach copper without electronics.
    PassiveCopper,
    /// Direct-attach copper with limiting amplifiers, which to the card is like optics.
    ActiveCopper,
    Sr,
    Lr,
    Lrm,
    Er,
    /// 1 Gb/s only.
    Gigabit,
    /// None of these; set up like optics.
    Unknown,
}

impl Module {
    /// Whether light can come in: the card's receiver sees things in an empty cage.
    pub(crate) fn is_present(&self) -> bool {
        *self != Module::Absent
    }

    /// What it is for.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Module::Identified(identity) => identity.kind,
            Module::Absent | Module::Silent => Kind::Unknown,
        }
    }
}

/// Say in the log what is in the cage.
pub(crate) fn report(device: &Device, module: &Module) {
    let name = &device.name;
    match module {
        Module::Absent => {
            log::info!("{name}: no SFP+ module in the cage; the link is down until there is one")
        }
        Module::Silent => {
            log::warn!("{name}: the SFP+ module does not answer on its two wires; taking it for optics");
        }
        Module::Identified(identity) if identity.is_known() => log::info!("{name}: SFP+ module {identity}"),
        Module::Identified(identity) => {
            log::warn!(
                "{name}: SFP+ module {identity}: not of a kind the 82599 is made for; trying it as optics"
            );
        }
    }
}

/// Find out what is in the cage.
pub(crate) fn identify(device: &Device) -> Module {
    let mut module = Module::Absent;
    for _ in 0..TRIES {
        let in_cage = device.registers.read(ESDP) & esdp::MODULE != 0;
        module = match read(device) {
            Some(bytes) => Module::Identified(Identity::new(&bytes)),
            None if in_cage => Module::Silent,
            // Not every board has the pin; what answers is there all the same.
            None => Module::Absent,
        };
        match &module {
            Module::Absent => break,
            Module::Identified(identity) if identity.intact => break,
            Module::Silent | Module::Identified(_) => sleep(PAUSE),
        }
    }
    module
}

/// Whether a module that was identified is still there, by its serial number: a register access a bit is what takes the time.
pub(crate) fn is_still(device: &Device, identity: &Identity) -> bool {
    let mut serial = [0; SERIAL.end - SERIAL.start];
    identity.intact
        && read_into(device, SERIAL.start as u8, &mut serial).is_some()
        && text(&serial) == identity.serial
}

/// The module's identification, if it answers.
fn read(device: &Device) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    read_into(device, 0, &mut bytes)?;
    Some(bytes)
}

/// Bytes of the identification from `offset` on.
fn read_into(device: &Device, offset: u8, into: &mut [u8]) -> Option<()> {
    // A port's wires are its PHY's business (section 10.5.4).
    let _owned =
        phy::own(device).inspect_err(|error| log::warn!("{error}; the SFP+ module is not read")).ok()?;
    let mut bus = Bus::new(&device.registers);
    for (number, block) in into.chunks_mut(BLOCK).enumerate() {
        bus.read(ADDRESS, offset + (number * BLOCK) as u8, block).ok()?;
    }
    Some(())
}

fn text(bytes: &[u8]) -> String {
    let printable = |&byte: &u8| if matches!(byte, b' '..=b'~') { byte as char } else { '.' };
    bytes.iter().map(printable).collect::<String>().trim().to_owned()
}

impl Identity {
    fn new(bytes: &[u8; BYTES]) -> Identity {
        let (ten_gigabit, gigabit, cable) = (bytes[3], bytes[6], bytes[8]);
        let has = |bits: u8, bit: u8| bits >> bit & 1 != 0;
        let kind = if bytes[0] != IDENTIFIER_SFP {
            Kind::Unknown
        } else if has(cable, 2) {
            Kind::PassiveCopper
        } else if has(cable, 3) && has(bytes[60], 2) {
            Kind::ActiveCopper
        } else if has(ten_gigabit, 4) {
            Kind::Sr
        } else if has(ten_gigabit, 5) {
            Kind::Lr
        } else if has(ten_gigabit, 6) {
            Kind::Lrm
        } else if has(ten_gigabit, 7) {
            Kind::Er
        } else if ten_gigabit == 0 && gigabit & 0xf != 0 {
            Kind::Gigabit
        } else {
            Kind::Unknown
        };
        Identity {
            kind,
            // 1000BASE-SX beside 10GBASE-SR, or LX beside LR.
            dual_rate: has(ten_gigabit, 4) && has(gigabit, 0) || has(ten_gigabit, 5) && has(gigabit, 1),
            identifier: bytes[0],
            intact: bytes[63] == bytes[..63].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)),
            vendor: text(&bytes[20..36]),
            oui: [bytes[37], bytes[38], bytes[39]],
            part: text(&bytes[40..56]),
            revision: text(&bytes[56..60]),
            serial: text(&bytes[SERIAL]),
        }
    }

    fn is_known(&self) -> bool {
        self.intact && self.kind != Kind::Unknown
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.oui;
        write!(f, "{}: {} {}", self.kind, self.vendor, self.part)?;
        write!(f, " rev {}, serial {}, OUI {a:02x}:{b:02x}:{c:02x}", self.revision, self.serial)?;
        if self.identifier != IDENTIFIER_SFP {
            write!(f, ", identifier {:#04x} where SFP+ has 0x03", self.identifier)?;
        }
        if !self.intact {
            write!(f, ", whose memory has a wrong checksum")?;
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::PassiveCopper => "passive direct-attach copper",
            Kind::ActiveCopper => "active direct-attach copper",
            Kind::Sr => "10GBASE-SR",
            Kind::Lr => "10GBASE-LR",
            Kind::Lrm => "10GBASE-LRM",
            Kind::Er => "10GBASE-ER",
            Kind::Gigabit => "1 Gb/s only",
            Kind::Unknown => "of unknown kind",
        })
    }
}

impl Kind {
    /// The number of its set-up in the EEPROM, for the first port; one more for the second.
    pub(crate) fn set_up(self) -> u16 {
        match self {
            Kind::PassiveCopper => 3,
            // The card is set up for what is limiting, be it at the end of a fibre or of copper, and for 1 Gb/s, in one way.
            _ => 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with these bytes changed, its checksum right.
    fn module(changes: &[(usize, u8)]) -> Identity {
        let mut bytes = [0x20; BYTES];
        bytes[..20].fill(0);
        (bytes[0], bytes[60]) = (IDENTIFIER_SFP, 0);
        bytes[20..28].copy_from_slice(b"Somebody");
        changes.iter().for_each(|(at, value)| bytes[*at] = *value);
        bytes[63] = bytes[..63].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
        Identity::new(&bytes)
    }

    #[test]
    fn kinds_are_told_from_their_codes() {
        for (changes, kind, dual_rate, set_up) in [
            (&[(3, 0x10)][..], Kind::Sr, false, 5),
            (&[(3, 0x10), (6, 0x01)], Kind::Sr, true, 5),
            (&[(3, 0x20), (6, 0x02)], Kind::Lr, true, 5),
            (&[(3, 0x40)], Kind::Lrm, false, 5),
            (&[(3, 0x80)], Kind::Er, false, 5),
            (&[(8, 0x04)], Kind::PassiveCopper, false, 3),
            (&[(8, 0x08), (60, 0x04)], Kind::ActiveCopper, false, 5),
            (&[(8, 0x08)], Kind::Unknown, false, 5),
            (&[(6, 0x08)], Kind::Gigabit, false, 5),
            (&[], Kind::Unknown, false, 5),
            (&[(0, 0x0d), (3, 0x10)], Kind::Unknown, false, 5),
        ] {
            let module = module(changes);
            assert_eq!((module.kind, module.dual_rate), (kind, dual_rate), "{changes:?}");
            assert_eq!(module.kind.set_up(), set_up, "{changes:?}");
            assert_eq!(module.is_known(), kind != Kind::Unknown, "{changes:?}");
        }
    }

    #[test]
    fn text_is_printable_whatever_the_module_says() {
        let module =
            module(&[(3, 0x10), (37, 0x00), (38, 0x1b), (39, 0x21), (40, 0xff), (41, 0x1b), (42, b'X')]);
        let text = module.to_string();
        assert!(text.starts_with("10GBASE-SR: Somebody ..X rev , serial , OUI 00:1b:21"), "{text}");
        assert!(text.chars().all(|letter| !letter.is_control()));
    }

    #[test]
    fn a_wrong_checksum_is_noticed() {
        let mut bytes = [0; BYTES];
        (bytes[0], bytes[3]) = (IDENTIFIER_SFP, 0x10);
        let module = Identity::new(&bytes);
        assert!(!module.is_known() && module.to_string().contains("wrong checksum"), "{module}");
    }
}
