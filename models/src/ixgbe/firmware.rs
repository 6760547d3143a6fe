//! Commands to the X550's firmware: a driver writes one into the block of words at FLEX_MNG and sets HICR.C; when that is clear again the
//! answer is there, if HICR.SV says so. The datasheet has the registers, Intel's drivers the commands: the header is a command, a length,
//! a status and a sum that nobody computes; numbers after it are big-endian.

use super::bus::Control;
use super::eeprom::Eeprom;
use super::registers::Registers;
use super::table::*;

// HICR.
pub(super) const ENABLED: u32 = 1 << 0;
const COMMAND: u32 = 1 << 1;
const STATUS_VALID: u32 = 1 << 2;

/// SW_FW_SYNC: who owns the words of the EEPROM, and the block.
const SYNC_NVM: u32 = 1 << 0;
const SYNC_BLOCK: u32 = 1 << 10;
const RXEN: u32 = 1 << 0;

const PHY_TOKEN: u8 = 0x0a;
const READ_SHADOW_RAM: u8 = 0x31;
const DRIVER_INFO: u8 = 0xdd;
const DISABLE_RECEIVE: u8 = 0xde;
/// Where the words that were read begin, and how many bytes of them there can be.
const DATA: u32 = 3;
const MOST_BYTES: u16 = 1024;
const SUCCESS: u32 = 1 << 16;
const NO_SUM: u32 = 0xff << 24;

/// A write of HICR: a command, done at once.
pub(super) fn write(registers: &mut Registers, eeprom: &Eeprom, control: &Control, value: u32) {
    if value & COMMAND == 0 {
        registers.set(HICR, value & !STATUS_VALID | ENABLED);
        return;
    }
    if !registers.has(SW_FW_SYNC, SYNC_BLOCK) {
        control.count_malformed(format_args!("the firmware is asked by who does not own its block"));
    }
    let words = [0, 1, 2].map(|n| registers.get(FLEX_MNG + 4 * n));
    let command = words[0] as u8;
    let answered = match command {
        READ_SHADOW_RAM => read_words(registers, eeprom, control, words),
        DISABLE_RECEIVE => {
            registers.set(RXCTRL, registers.get(RXCTRL) & !RXEN);
            true
        }
        PHY_TOKEN | DRIVER_INFO => true,
        _ => false,
    };
    if answered {
        registers.set(FLEX_MNG, u32::from(command) | SUCCESS | NO_SUM);
    } else {
        control.count_malformed(format_args!("the firmware knows no command {command:#04x} such as this"));
    }
    registers.set(HICR, ENABLED | if answered { STATUS_VALID } else { 0 });
}

/// Words of the EEPROM's shadow: where in bytes, and how many.
fn read_words(registers: &mut Registers, eeprom: &Eeprom, control: &Control, words: [u32; 3]) -> bool {
    if !registers.has(SW_FW_SYNC, SYNC_NVM) {
        control.count_malformed(format_args!("the flash is read by who does not own it"));
    }
    let (at, bytes) = (words[1].swap_bytes(), (words[2] as u16).swap_bytes());
    if bytes == 0 || bytes > MOST_BYTES || bytes % 2 != 0 || at % 2 != 0 {
        return false;
    }
    let word = |n: u32| u32::from(eeprom.word((at / 2).saturating_add(n) as usize));
    for pair in 0..u32::from(bytes).div_ceil(4) {
        registers.set(FLEX_MNG + 4 * (DATA + pair), word(2 * pair) | word(2 * pair + 1) << 16);
    }
    true
}
