//! The EEPROM: read a word at a time (section 8.2.3.2.2), laid out as chapter 6 says.

use std::time::Instant;

use pagewire_ethdev::nic::Device;
use pagewire_ethdev::{Error, MacAddr};

use crate::family::Family;
use crate::registers::*;
use crate::semaphore::{Owned, own};

/// Words that EERD can address.
const WORDS: u16 = 1 << 14;
/// No pointer, no length, end of list.
pub(crate) const NONE: u16 = 0xffff;

/// Pointers to the sections that the checksum covers: analog, PCIe, core, MAC and CSR configuration, not the firmware's.
const SECTIONS: std::ops::RangeInclusive<u16> = 0x03..=0x0e;
/// The word that makes all of them sum up to [`CHECKSUM`].
const CHECKSUM_WORD: u16 = 0x3f;
const CHECKSUM: u16 = 0xbaba;

/// Milliseconds that all the words of one purpose may take together, which may be all there are.
const MILLIS: u64 = 5000;

/// The EEPROM, for one purpose.
pub(crate) struct Eeprom<'a> {
    device: &'a Device,
    since: Instant,
    /// Where it has to be owned.
    _owned: Option<Owned<'a>>,
}

impl<'a> Eeprom<'a> {
    /// Have it for some reads.
    ///
    /// # Errors
    ///
    /// Those of [`own`], where it has to be owned.
    pub(crate) fn new(device: &'a Device) -> Result<Eeprom<'a>, Error> {
        let owned = Family::of(device).flash.then(|| own(device, sync::FLASH)).transpose()?;
        Ok(Eeprom { device, since: Instant::now(), _owned: owned })
    }

    /// Read a word.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] for an address that there is none of, which only the EEPROM itself can have given; [`Error::Timeout`].
    pub(crate) fn read(&self, address: u16) -> Result<u16, Error> {
        let device = self.device;
        if address >= WORDS {
            return Err(device.error(
                "an address in the EEPROM",
                format!("{address:#06x}"),
                "less than 0x4000",
            ));
        }
        device.registers.write(EERD, u32::from(address) << eerd::ADDRESS_SHIFT | eerd::START);
        let left = MILLIS.saturating_sub(self.since.elapsed().as_millis() as u64).min(100);
        device.wait("reading the EEPROM", EERD, left, |value| value & eerd::DONE != 0)?;
        Ok((device.registers.read(EERD) >> eerd::DATA_SHIFT) as u16)
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
    let sum = sum(device)?;
    match sum == CHECKSUM {
        true => Ok(()),
        false => Err(device.error(
            "the sum of the EEPROM's words",
            format!("{sum:#06x}"),
            "0xbaba; its contents are damaged: have the vendor's tool write them anew",
        )),
    }
}

/// The sum of words 0 to 0x3f and of the sections that they point to.
fn sum(device: &Device) -> Result<u16, Error> {
    let (eeprom, mut sum) = (Eeprom::new(device)?, 0u16);
    for address in 0..=CHECKSUM_WORD {
        sum = sum.wrapping_add(eeprom.read(address)?);
    }
    // Sections do not overlap, so that there are no more words in them than in the EEPROM.
    let mut left = WORDS;
    let unchecked = Family::of(device).unchecked;
    for pointer in SECTIONS.filter(|pointer| !unchecked.contains(pointer)) {
        let start = eeprom.read(pointer)?;
        if matches!(start, 0 | NONE) {
            continue;
        }
        let length = eeprom.read(start)?;
        if matches!(length, 0 | NONE) {
            continue;
        }
        left = left.checked_sub(length).ok_or_else(|| {
            let found = format!("longer than the EEPROM (word {pointer:#04x} points to {length} words)");
            device.error("the length of the EEPROM's sections", found, "16384 words at most")
        })?;
        for word in 1..=length {
            sum = sum.wrapping_add(eeprom.read(start.saturating_add(word))?);
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
