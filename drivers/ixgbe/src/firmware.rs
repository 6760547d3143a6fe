//! Commands to the firmware of the X550: a block of words that it works on, and a register that says whose turn it is (section 8.2.3.25
//! has the registers; the commands are Intel's drivers', which the firmware is written for).
//!
//! The first word is a header: the command, the length of what follows, a status in answers, and a sum that nobody computes. Numbers
//! after it are big-endian.

use pagewire_ethdev::Error;
use pagewire_ethdev::nic::Device;

use crate::registers::*;
use crate::semaphore::own;

/// How long the firmware may take.
pub(crate) const MILLIS: u64 = 500;
/// How long it may be at what another driver asked before.
const IDLE_MILLIS: u64 = 100;
const READ_WORDS: u32 = 0x31;
const DISABLE_RECEIVE: u32 = 0xde;
const NO_SUM: u32 = 0xff << 24;
/// Where in the block the words are that were read.
const WORDS_AT: usize = 3;
/// Most words of the EEPROM that are read at once: 1,024 bytes.
pub(crate) const MOST_WORDS: u16 = 512;

/// Read words of the EEPROM's shadow, [`MOST_WORDS`] at most, within `millis`. Whoever asks owns [`sync::FLASH`] and [`sync::BLOCK`].
///
/// # Errors
///
/// Those of [`command`].
pub(crate) fn read_words(device: &Device, address: u16, count: u16, millis: u64) -> Result<Vec<u16>, Error> {
    let count = count.min(MOST_WORDS);
    let bytes = [u32::from(address) * 2, u32::from(count) * 2].map(u32::swap_bytes);
    command(device, [READ_WORDS | 6 << 16 | NO_SUM, bytes[0], bytes[1] >> 16, 0], millis)?;
    let pairs = (0..usize::from(count).div_ceil(2)).map(|n| device.registers.read_at(FLEX_MNG, WORDS_AT + n));
    let words = pairs.flat_map(|pair| [pair as u16, (pair >> 16) as u16]);
    Ok(words.take(count.into()).collect())
}

/// Have no more frames come in: the firmware, which receives by the same path, is to know of it.
///
/// # Errors
///
/// Those of [`command`], and of [`own`].
pub(crate) fn disable_receive(device: &Device) -> Result<(), Error> {
    let _owned = own(device, sync::BLOCK)?;
    let port = device.registers.read(STATUS) >> status::LAN_ID_SHIFT & 1;
    command(device, [DISABLE_RECEIVE | 1 << 8 | NO_SUM, port], MILLIS)
}

/// # Errors
///
/// [`Error::Device`] if the firmware takes no commands, or does not know this one, or answers another; [`Error::Timeout`] if it does not
/// answer, or is at another command.
fn command<const N: usize>(device: &Device, words: [u32; N], millis: u64) -> Result<(), Error> {
    let (registers, asked) = (&device.registers, words[0] as u8);
    // What it has to say of its own resets is of no interest.
    registers.modify(FWSTS, 0, FWSTS_RESET);
    let state = registers.read(HICR);
    if state & hicr::ENABLED == 0 {
        let found = format!("closed (HICR {state:#x})");
        return Err(device.error("the firmware's host interface", found, "open"));
    }
    // The block is the firmware's until it is done with what is there: a driver that was taken for dead may have asked.
    let taken = |value| value & hicr::COMMAND == 0;
    device.wait("waiting for the firmware to take commands", HICR, IDLE_MILLIS, taken)?;
    for (index, word) in words.into_iter().enumerate() {
        registers.write_at(FLEX_MNG, index, word);
    }
    registers.modify(HICR, 0, hicr::COMMAND);
    device.wait("asking the firmware", HICR, millis, taken)?;
    if registers.read(HICR) & hicr::VALID == 0 {
        let found = format!("none to command {asked:#04x}");
        return Err(device.error("the firmware's answer", found, "one with a valid status"));
    }
    let answer = registers.read_at(FLEX_MNG, 0);
    if answer as u8 != asked {
        let found = format!("{answer:#010x}, to command {:#04x} and not {asked:#04x}", answer as u8);
        return Err(device.error("the firmware's answer", found, "one to what it was asked"));
    }
    Ok(())
}
