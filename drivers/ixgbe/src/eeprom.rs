//! The EEPROM: read a word at a time (section 8.2.3.2.2), or by asking the firmware; laid out as chapter 6 says.

use std::cell::RefCell;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pagewire_ethdev::nic::Device;
use pagewire_ethdev::{Error, MacAddr};

use crate::family::{Family, Memory};
use crate::firmware;
use crate::registers::*;
use crate::semaphore::{Owned, own};

/// Words that EERD can address.
const WORDS: u16 = 1 << 14;
/// No pointer, no length, end of list.
pub(crate) const NONE: u16 = 0xffff;

/// What the words that are checked sum up to.
const CHECKSUM: u16 = 0xbaba;
/// Words that the firmware is asked for at once.
const WINDOW: u16 = 64;

/// Milliseconds that all the words of one purpose may take together, which may be all there are.
const MILLIS: u64 = 5000;

/// How long it is owned before others get their chance. With the longest access after that, it is less than what it takes for an owner
/// to be dead in the eyes of others.
const TURN: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(5);

/// The EEPROM, for one purpose.
pub(crate) struct Eeprom<'a> {
    device: &'a Device,
    since: Instant,
    by_firmware: bool,
    /// What has to be owned for an access, if anything; and since when it is.
    shared: u32,
    owned: RefCell<Option<(Instant, Owned<'a>)>>,
    /// What the firmware told last: the first word's address, and the words.
    told: RefCell<(u16, Vec<u16>)>,
}

impl<'a> Eeprom<'a> {
    /// Have it for some reads.
    pub(crate) fn new(device: &'a Device) -> Eeprom<'a> {
        let (by_firmware, shared) = match Family::of(device).memory {
            Memory::Eeprom => (false, 0),
            Memory::Flash => (false, sync::FLASH),
            Memory::Firmware => (true, sync::FLASH | sync::BLOCK),
        };
        let (owned, told) = (RefCell::default(), RefCell::default());
        Eeprom { device, since: Instant::now(), by_firmware, shared, owned, told }
    }

    /// Own it where it has to be. Who has done so for a while lets others have it first.
    fn own(&self) -> Result<(), Error> {
        let mut owned = self.owned.borrow_mut();
        match &*owned {
            _ if self.shared == 0 => return Ok(()),
            Some((since, _)) if since.elapsed() < TURN => return Ok(()),
            Some(_) => {
                *owned = None;
                sleep(PAUSE);
            }
            None => {}
        }
        let taken = own(self.device, self.shared)?;
        *owned = Some((Instant::now(), taken));
        Ok(())
    }

    /// Read a word.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] for an address that there is none of, which only the EEPROM itself can have given, or if the firmware refuses;
    /// [`Error::Timeout`]; and those of [`own`], where it has to be owned.
    pub(crate) fn read(&self, address: u16) -> Result<u16, Error> {
        let device = self.device;
        if address >= WORDS {
            return Err(device.error(
                "an address in the EEPROM",
                format!("{address:#06x}"),
                "less than 0x4000",
            ));
        }
        if self.by_firmware {
            return self.ask(address);
        }
        self.own()?;
        device.registers.write(EERD, u32::from(address) << eerd::ADDRESS_SHIFT | eerd::START);
        device.wait("reading the EEPROM", EERD, self.left(100), |value| value & eerd::DONE != 0)?;
        Ok((device.registers.read(EERD) >> eerd::DATA_SHIFT) as u16)
    }

    /// Milliseconds that the next access may take.
    fn left(&self, most: u64) -> u64 {
        MILLIS.saturating_sub(self.since.elapsed().as_millis() as u64).min(most)
    }

    /// Ask the firmware, unless it has told already.
    fn ask(&self, address: u16) -> Result<u16, Error> {
        let mut told = self.told.borrow_mut();
        let (start, words) = &mut *told;
        if let Some(word) = address.checked_sub(*start).and_then(|at| words.get(usize::from(at))) {
            return Ok(*word);
        }
        self.own()?;
        *words = firmware::read_words(
            self.device,
            address,
            WINDOW.min(WORDS - address),
            self.left(firmware::MILLIS),
        )?;
        *start = address;
        Ok(words[0])
    }
}

/// Check that there is an EEPROM and that its checksum holds.
///
/// # Errors
///
/// [`Error::Device`] if not: what the card has loaded from it cannot be trusted.
pub(crate) fn check(device: &Device) -> Result<(), Error> {
    let eec = device.registers.read(EEC);
    if eec & eec::PRES == 0 {
        let found = format!("not there, or blank (EEC {eec:#010x})");
        return Err(device.error("the EEPROM", found, "one with a valid signature"));
    }
    let sum = sum(device, words(device, eec))?;
    match sum == CHECKSUM {
        true => Ok(()),
        false => Err(device.error(
            "the sum of the EEPROM's words",
            format!("{sum:#06x}"),
            "0xbaba; its contents are damaged: have the vendor's tool write them anew",
        )),
    }
}

/// Words that there are for sections. The 82599's drivers do not ask how many: what lies outside is an error there. The later cards' leave
/// out what does not lie within.
fn words(device: &Device, eec: u32) -> Option<u32> {
    let exponent = (eec >> eec::SIZE_SHIFT & 0xf) + 6;
    (Family::of(device).memory != Memory::Eeprom).then(|| (1 << exponent).min(WORDS.into()))
}

/// The sum of the first words and of the sections that they point to: those that end before word `limit`, if there is one.
fn sum(device: &Device, limit: Option<u32>) -> Result<u16, Error> {
    let outside = |end: u32| limit.is_some_and(|limit| end >= limit);
    let (eeprom, mut sum) = (Eeprom::new(device), 0u16);
    let checked = &Family::of(device).checked;
    for address in 0..=checked.last {
        sum = sum.wrapping_add(eeprom.read(address)?);
    }
    // Sections do not overlap, so that there are no more words in them than in the EEPROM.
    let mut left = WORDS;
    for pointer in checked.pointers.clone().filter(|pointer| !checked.except.contains(pointer)) {
        let start = eeprom.read(pointer)?;
        if matches!(start, 0 | NONE) || outside(start.into()) {
            continue;
        }
        let known = checked.known.iter().find(|(of, _)| *of == pointer);
        let (first, length) = match known {
            Some((_, length)) => (start, *length),
            None => (start.saturating_add(1), eeprom.read(start)?),
        };
        if matches!(length, 0 | NONE) || outside(u32::from(start) + u32::from(length)) {
            continue;
        }
        left = left.checked_sub(length).ok_or_else(|| {
            let found = format!("longer than the EEPROM (word {pointer:#04x} points to {length} words)");
            device.error("the length of the EEPROM's sections", found, "16384 words at most")
        })?;
        for word in 0..length {
            sum = sum.wrapping_add(eeprom.read(first.saturating_add(word))?);
        }
    }
    Ok(sum)
}

/// The address that the card has loaded from the EEPROM into its first receive address (section 8.2.3.7.9).
///
/// # Errors
///
/// [`Error::Device`] if it is not one that a port can have.
pub(crate) fn mac(device: &Device) -> Result<MacAddr, Error> {
    device.own_address(device.registers.read(RAL), device.registers.read(RAH))
}
