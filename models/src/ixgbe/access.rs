//! Reads and writes of the register BAR: what an offset means and which unit does what with it.

use super::registers::{BAR_SIZE, Register, Unit};
use super::table::*;
use super::{CTRL_MASTER_DISABLE, Ixgbe, firmware, shared};
use crate::function::{Host, Region};

const CTRL_LINK_RESET: u32 = 1 << 3;
const CTRL_RESET: u32 = 1 << 26;
const STATUS_MASTER: u32 = 1 << 19;
const RDRXCTL_DONE: u32 = 1 << 3;
const FDIR_INIT_DONE: u32 = 1 << 3;
const SWSM_SMBI: u32 = 1 << 0;
const SWSM_SWESMBI: u32 = 1 << 1;
/// SW_FW_SYNC: who owns the flash and the PHYs; on the X540 also who may change it.
const SYNC_NVM: u32 = 1 << 0;
const SYNC_PHYS: u32 = 3 << 1;
const SYNC_REGSMP: u32 = 1 << 31;

impl Ixgbe {
    /// The register that an offset means, through its second names.
    fn resolve(&self, offset: u32) -> Option<(&'static Register, u32)> {
        let (register, n) = self.registers.lookup(offset)?;
        match register.unit {
            Unit::Alias(first, stride) => {
                let offset = first + n * stride;
                self.registers.lookup(offset).map(|(register, _)| (register, offset))
            }
            _ => Some((register, offset)),
        }
    }

    fn read_register(&mut self, offset: u32, host: &mut dyn Host) -> u32 {
        // Drivers read it to have their writes arrive, which overtake the message where they are stores to shared pages.
        if offset == STATUS && self.config.mapped {
            self.scan(host);
        }
        let Some((register, offset)) = self.resolve(offset) else {
            self.control.count_unknown();
            self.registers.note_unknown(offset, None);
            return 0;
        };
        match register.unit {
            Unit::Link => self.link.read(&self.registers, offset),
            Unit::Interrupt => self.interrupts.read(&self.registers, offset),
            Unit::Sfp => self.sfp.read(),
            Unit::Receive | Unit::Transmit if self.config.mapped && shared::is_tail(offset) => {
                host.shared_read(Region::Bar(0), offset as u64)
            }
            Unit::Function => self.switch.read(&mut self.registers, &mut self.interrupts, register, offset),
            Unit::Control if offset == SWSM => {
                // Reading takes the semaphore if nobody has it.
                let value = self.registers.get(SWSM);
                self.registers.set(SWSM, value | SWSM_SMBI);
                value
            }
            // The later cards' second semaphore is taken in the same way.
            Unit::Control if offset == SW_FW_SYNC && self.config.kind.regsmp() => {
                let value = self.registers.get(SW_FW_SYNC);
                self.registers.set(SW_FW_SYNC, value | SYNC_REGSMP);
                value
            }
            _ => self.registers.read(register, offset),
        }
    }

    fn write_register(&mut self, offset: u32, value: u32, host: &mut dyn Host) {
        let Some((register, offset)) = self.resolve(offset) else {
            self.control.count_unknown();
            self.registers.note_unknown(offset, Some(value));
            return;
        };
        match register.unit {
            Unit::Control => {
                if offset == SW_FW_SYNC && !self.guards_sync() {
                    let control = &self.control;
                    control
                        .count_malformed(format_args!("SW_FW_SYNC is changed by who has not its semaphores"));
                }
                self.write_control(offset, value);
                if offset == CTRL {
                    self.share_all(host);
                }
            }
            Unit::Link if offset == IOSF_CTRL || offset == IOSF_DATA => {
                self.backplane.write(&mut self.registers, &self.control, offset, value);
            }
            Unit::Link if offset == MSCA && self.config.kind.mdio() => {
                let owned = SYNC_PHYS & self.registers.get(SW_FW_SYNC) != 0;
                if !owned {
                    self.control.count_malformed(format_args!("the PHY is talked to by who does not own it"));
                }
                self.phy.command(&mut self.registers, value);
            }
            Unit::Eeprom => {
                if self.config.kind.x550() {
                    self.control.count_malformed(format_args!("the flash is read past its firmware"));
                } else if self.config.kind.regsmp() && !self.registers.has(SW_FW_SYNC, SYNC_NVM) {
                    self.control.count_malformed(format_args!("the flash is read by who does not own it"));
                }
                let value = match offset {
                    EERD => self.eeprom.eerd(value),
                    _ => self.eeprom.write_eec(self.registers.get(EEC), value),
                };
                self.registers.set(offset, value);
            }
            Unit::Firmware if self.config.kind.x550() => {
                firmware::write(&mut self.registers, &self.eeprom, &self.control, value);
            }
            Unit::Sfp => self.sfp.write(value, self.control.module()),
            Unit::Link => self.link.write(&mut self.registers, offset, value),
            Unit::Interrupt => self.interrupts.write(&mut self.registers, offset, value),
            Unit::Address => {
                self.registers.set(offset, value);
                self.receive.filters.addresses_changed();
            }
            Unit::FiveTuple => {
                self.registers.set(offset, value);
                self.receive.filters.tuples_changed();
            }
            Unit::Hash => {
                self.registers.set(offset, value);
                self.switch.changed();
                self.receive.rss.key_changed();
            }
            Unit::Receive => {
                self.registers.set(offset, value);
                self.receive.written(&self.registers, &self.control, offset);
                self.share(offset, host);
            }
            Unit::Transmit => {
                self.registers.set(offset, value);
                self.transmit.written(&self.registers, offset);
                self.share(offset, host);
            }
            Unit::Function => {
                self.switch.write(&mut self.registers, &mut self.interrupts, register, offset, value);
            }
            Unit::Plain | Unit::Firmware | Unit::Alias(..) => {
                self.registers.write(register, offset, value);
                self.switch.changed();
                // Receive is switched on when the queues are: what comes in from now on finds them enabled.
                if self.config.mapped && offset == RXCTRL {
                    self.scan(host);
                }
            }
        }
    }

    /// Whether a driver has the two semaphores that SW_FW_SYNC is changed under.
    fn guards_sync(&self) -> bool {
        let second = match self.config.kind.regsmp() {
            true => self.registers.has(SW_FW_SYNC, SYNC_REGSMP),
            false => self.registers.has(SWSM, SWSM_SWESMBI),
        };
        second && self.registers.has(SWSM, SWSM_SMBI)
    }

    fn write_control(&mut self, offset: u32, value: u32) {
        match offset {
            CTRL if value & (CTRL_RESET | CTRL_LINK_RESET) != 0 => {
                // All of CTRL is reset, the master disable bit that drivers set before with it.
                self.software_reset();
                self.show_master();
            }
            CTRL => {
                self.registers.set(CTRL, value);
                self.show_master();
            }
            RXPBSIZE if !self.config.kind.cage() && value > self.config.kind.packet_buffer() => {
                let most = self.config.kind.packet_buffer();
                self.control.count_malformed(format_args!("a packet buffer of {value} bytes, of {most}"));
                self.registers.set(RXPBSIZE, most);
            }
            RDRXCTL => self.registers.set(RDRXCTL, value | RDRXCTL_DONE),
            FDIRCTRL => self.registers.set(FDIRCTRL, value | FDIR_INIT_DONE),
            // The command is done: its field reads 0.
            FDIRCMD => self.registers.set(FDIRCMD, value & !3),
            _ => self.registers.set(offset, value),
        }
    }

    /// STATUS says whether the card may still start transactions.
    fn show_master(&mut self) {
        let status = self.registers.get(STATUS) & !STATUS_MASTER;
        let on = !self.registers.has(CTRL, CTRL_MASTER_DISABLE);
        self.registers.set(STATUS, status | if on { STATUS_MASTER } else { 0 });
    }

    pub(super) fn read_bar(&mut self, offset: u64, data: &mut [u8], host: &mut dyn Host) {
        read_words(offset, data, BAR_SIZE, |at| self.read_register(at, host));
    }

    pub(super) fn write_bar(&mut self, offset: u64, data: &[u8], host: &mut dyn Host) {
        write_words(offset, data, BAR_SIZE, |at, value| self.write_register(at, value, host));
    }
}

/// A read of any length, in registers. Narrow reads are of the register that they are in; past the end there are all ones.
pub(super) fn read_words(offset: u64, data: &mut [u8], size: u32, mut read: impl FnMut(u32) -> u32) {
    data.fill(0xff);
    if offset.saturating_add(data.len() as u64) > size as u64 {
        return;
    }
    let mut at = offset as u32;
    let mut rest = data;
    while !rest.is_empty() {
        let word = read(at & !3).to_le_bytes();
        let skip = (at & 3) as usize;
        let n = rest.len().min(4 - skip);
        let (now, later) = rest.split_at_mut(n);
        now.copy_from_slice(&word[skip..skip + n]);
        rest = later;
        at += n as u32;
    }
}

/// A write, in registers, which are written whole (8.1.1).
pub(super) fn write_words(offset: u64, data: &[u8], size: u32, mut write: impl FnMut(u32, u32)) {
    let whole = offset.is_multiple_of(4) && data.len().is_multiple_of(4);
    if !whole || offset.saturating_add(data.len() as u64) > size as u64 {
        return;
    }
    for (at, word) in (offset as u32..).step_by(4).zip(data.chunks_exact(4)) {
        write(at, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
}
