//! The X552's PHY for 10GBASE-KR, behind the processor's sideband: two registers through which its own are read and written. Facts are from
//! what Intel's drivers do.

use super::bus::Control;
use super::registers::Registers;
use super::table::*;

// IOSF_CTRL: the register's address, in whose PHY, and what became of it.
const ADDRESS: u32 = 0xffff;
const TARGET: u32 = 7 << 28;
const BUSY: u32 = 1 << 31;
const FAILED: u32 = 1 << 18;
const NO_SUCH: u32 = 1 << 20;
/// SW_FW_SYNC: both ports' PHYs, which are one here.
const SYNC_PHYS: u32 = 3 << 1;

/// Link control of the first port.
const LINK_CONTROL: u32 = 0x420c;
const CAN_1G: u32 = 1 << 16;
const CAN_10G: u32 = 1 << 18;
const NEGOTIATE: u32 = 1 << 29;
const RESTART: u32 = 1 << 31;

/// The PHY.
#[derive(Debug, Default)]
pub(super) struct Backplane {
    link_control: u32,
    /// As of the last time that it began to negotiate.
    offers: u32,
}

impl Backplane {
    /// The speed that it offers, in Mb/s; 0 if it does not negotiate.
    pub(super) fn speed(&self) -> u32 {
        match self.offers {
            offers if offers & NEGOTIATE == 0 => 0,
            offers if offers & CAN_10G != 0 => 10_000,
            offers if offers & CAN_1G != 0 => 1000,
            _ => 0,
        }
    }

    /// A write of one of the two registers. Writing the address reads, and writing data then writes.
    pub(super) fn write(&mut self, registers: &mut Registers, control: &Control, offset: u32, value: u32) {
        if registers.get(SW_FW_SYNC) & SYNC_PHYS != SYNC_PHYS {
            control.count_malformed(format_args!("the sideband is used by who does not own it"));
        }
        let address = if offset == IOSF_CTRL { value } else { registers.get(IOSF_CTRL) };
        let there = address & (ADDRESS | TARGET) == LINK_CONTROL;
        let state = if there { 0 } else { FAILED | NO_SUCH };
        registers.set(IOSF_CTRL, address & !BUSY | state);
        match offset {
            IOSF_CTRL => registers.set(IOSF_DATA, if there { self.link_control } else { u32::MAX }),
            _ if there => {
                self.link_control = value & !RESTART;
                if value & RESTART != 0 {
                    self.offers = self.link_control;
                }
            }
            _ => {}
        }
    }
}
