//! Interrupts: causes, masks, auto-clear and auto-mask, vectors, moderation (82599 datasheet 7.3, 8.2.3.5).
//!
//! A cause is a bit of EICR: 0 to 15 (to 63 in EICR(1) and EICR(2)) are what IVAR sends receive and transmit queues to, 16
//! to 31 are the others. With GPIE.Multiple_MSIX bit n below 64 is sent as MSI-X vector n and the others as the vector that
//! IVAR_MISC names; without it everything is vector 0.

use super::bus::Bus;
use super::clock::Clock;
use super::registers::Registers;
use super::table::*;

/// EICR: a DMA went wrong.
pub(super) const PCI_EXCEPTION: u32 = 1 << 18;
/// EICR: a packet was missed for lack of buffer space.
pub(super) const RX_MISS: u32 = 1 << 17;
/// EICR: a virtual function has written to its mailbox, or was reset.
pub(super) const MAILBOX: u32 = 1 << 19;
/// EICR: link status changed.
pub(super) const LINK_CHANGE: u32 = 1 << 20;
/// EICR: pin 2 moved, which is the module's presence.
pub(super) const PIN_2: u32 = 1 << 26;

/// GPIE: every cause has a vector of its own.
pub(super) const GPIE_MSIX: u32 = 1 << 4;
const GPIE_OTHER_CLEAR_DISABLE: u32 = 1 << 5;
const GPIE_IMMEDIATE: u32 = 1 << 6;
/// GPIE: EIAM works when an interrupt is sent.
pub(super) const GPIE_AUTO_MASK: u32 = 1 << 30;
/// GPIE: pin 2 may interrupt.
pub(super) const GPIE_PIN_2: u32 = 1 << 2;

const OTHERS: u32 = 0xffff_0000;
const IVAR_VALID: u32 = 1 << 7;
const EITR_NO_COUNTER_WRITE: u32 = 1 << 31;
/// A unit of EITR's interval at 10 Gb/s, in nanoseconds.
const EITR_UNIT: u64 = 2048;

const VECTORS: usize = 64;

/// Interrupt state that is not plain register contents.
#[derive(Debug)]
pub(super) struct Interrupts {
    causes: u64,
    others: u32,
    masks: u64,
    other_masks: u32,
    auto_mask: u64,
    other_auto_mask: u32,
    /// Causes that have been sent and that nothing has raised or unmasked since: an edge is sent once.
    sent: u64,
    others_sent: u32,
    /// Vectors (or 0) that may not be sent before a time.
    not_before: [u64; VECTORS],
    /// Something changed that may let an interrupt out.
    dirty: bool,
    clock: Clock,
}

impl Interrupts {
    /// Nothing pending, all masked.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            causes: 0,
            others: 0,
            masks: 0,
            other_masks: 0,
            auto_mask: 0,
            other_auto_mask: 0,
            sent: 0,
            others_sent: 0,
            not_before: [0; VECTORS],
            dirty: false,
            clock,
        }
    }

    /// As after a reset.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.clock.clone());
    }

    /// A cause that is not a queue's.
    pub(super) fn raise(&mut self, others: u32) {
        self.others |= others & OTHERS;
        self.others_sent &= !others;
        self.dirty = true;
    }

    /// A receive queue has written a packet back.
    #[inline]
    pub(super) fn receive(&mut self, registers: &Registers, queue: usize) {
        self.queue(registers, queue, 16 * (queue as u32 & 1));
    }

    /// A transmit queue has reported one.
    #[inline]
    pub(super) fn transmit(&mut self, registers: &Registers, queue: usize) {
        self.queue(registers, queue, 16 * (queue as u32 & 1) + 8);
    }

    #[inline]
    fn queue(&mut self, registers: &Registers, queue: usize, shift: u32) {
        let entry = registers.get(IVAR + 4 * (queue as u32 / 2)) >> shift;
        if entry & IVAR_VALID != 0 {
            self.cause(1 << (entry & 63));
        }
    }

    /// A virtual function's mailbox has something: the vector that its VTIVAR_MISC names (8.3.5).
    pub(super) fn mailbox(&mut self, registers: &Registers) {
        let entry = registers.get(IVAR_MISC);
        if entry & IVAR_VALID != 0 {
            self.cause(1 << (entry & 63));
        }
    }

    #[inline]
    fn cause(&mut self, bits: u64) {
        self.causes |= bits;
        self.sent &= !bits;
        self.dirty = true;
    }

    fn unmask(&mut self, registers: &Registers, bits: u64, others: u32) {
        self.masks |= bits;
        self.other_masks |= others;
        self.sent &= !bits;
        self.others_sent &= !others;
        // GPIE.EIMEN: enabling a pending cause sends it whatever EITR says.
        if registers.has(GPIE, GPIE_IMMEDIATE) {
            for (n, time) in self.not_before.iter_mut().enumerate() {
                if bits >> n & 1 != 0 {
                    *time = 0;
                }
            }
        }
    }

    /// A read of an interrupt register.
    pub(super) fn read(&mut self, registers: &Registers, offset: u32) -> u32 {
        match offset {
            EICR => {
                let value = self.eicr();
                if !registers.has(GPIE, GPIE_OTHER_CLEAR_DISABLE) {
                    self.causes &= !0xffff;
                }
                self.others = 0;
                self.mask_after_access(registers, value);
                value
            }
            EICS => self.eicr(),
            EIMS => self.masks as u32 & 0xffff | self.other_masks,
            EIAM => self.auto_mask as u32 & 0xffff | self.other_auto_mask,
            _ if (EICS_EX..EICS_EX + 8).contains(&offset) => word(self.causes, offset - EICS_EX),
            _ if (EIMS_EX..EIMS_EX + 8).contains(&offset) => word(self.masks, offset - EIMS_EX),
            _ if (EIAM_EX..EIAM_EX + 8).contains(&offset) => word(self.auto_mask, offset - EIAM_EX),
            EIMC => 0,
            _ if (EIMC_EX..EIMC_EX + 8).contains(&offset) => 0,
            _ => registers.get(offset),
        }
    }

    fn eicr(&self) -> u32 {
        self.causes as u32 & 0xffff | self.others
    }

    /// Without GPIE.EIAME, auto-mask works when EICR is read or written.
    fn mask_after_access(&mut self, registers: &Registers, value: u32) {
        if !registers.has(GPIE, GPIE_AUTO_MASK) {
            self.masks &= !(self.auto_mask & value as u64 & 0xffff);
            self.other_masks &= !(self.other_auto_mask & value);
        }
    }

    /// A write to an interrupt register.
    pub(super) fn write(&mut self, registers: &mut Registers, offset: u32, value: u32) {
        let low = value as u64 & 0xffff;
        self.dirty = true;
        match offset {
            EICR => {
                self.causes &= !low;
                self.others &= !value;
                self.mask_after_access(registers, value);
            }
            EICS => {
                self.cause(low);
                self.raise(value);
                self.mask_after_access(registers, value);
            }
            EIMS => {
                self.unmask(registers, low, value & OTHERS);
            }
            EIMC => {
                self.masks &= !low;
                self.other_masks &= !value;
            }
            EIAM => {
                self.auto_mask = self.auto_mask & !0xffff | low;
                self.other_auto_mask = value & OTHERS;
            }
            _ if (EICS_EX..EICS_EX + 8).contains(&offset) => self.cause(shifted(value, offset - EICS_EX)),
            _ if (EIMS_EX..EIMS_EX + 8).contains(&offset) => {
                self.unmask(registers, shifted(value, offset - EIMS_EX), 0);
            }
            _ if (EIMC_EX..EIMC_EX + 8).contains(&offset) => self.masks &= !shifted(value, offset - EIMC_EX),
            _ if (EIAM_EX..EIAM_EX + 8).contains(&offset) => {
                let keep = !shifted(u32::MAX, offset - EIAM_EX);
                self.auto_mask = self.auto_mask & keep | shifted(value, offset - EIAM_EX);
            }
            GPIE | EIAC => registers.set(offset, value),
            _ => {
                registers.set(offset, value & !EITR_NO_COUNTER_WRITE);
                let vector = match offset {
                    EITR_24.. => 24 + (offset - EITR_24) / 4,
                    _ => (offset - EITR) / 4,
                };
                let time = self.not_before.get_mut(vector as usize);
                if let (Some(time), 0) = (time, value & EITR_NO_COUNTER_WRITE) {
                    *time = 0;
                }
            }
        }
    }

    /// Send what may be sent.
    #[inline]
    pub(super) fn deliver(&mut self, registers: &Registers, bus: &mut Bus<'_>) {
        if self.dirty {
            self.deliver_pending(registers, bus);
        }
    }

    fn deliver_pending(&mut self, registers: &Registers, bus: &mut Bus<'_>) {
        self.dirty = false;
        let queues = self.causes & self.masks & !self.sent;
        let others = self.others & self.other_masks & !self.others_sent;
        if queues == 0 && others == 0 {
            return;
        }
        let now = self.clock.now();
        if !registers.has(GPIE, GPIE_MSIX) {
            if self.may_send(registers, 0, now) {
                bus.interrupt(0, false);
                self.after_sending(registers, queues, others);
            }
            return;
        }
        let mut pending = queues;
        while pending != 0 {
            let vector = pending.trailing_zeros() as usize;
            pending &= pending - 1;
            if !self.may_send(registers, vector, now) {
                continue;
            }
            bus.interrupt(vector as u16, true);
            // Vectors above 15 always clear themselves (7.3.1).
            let clear = if vector < 16 { registers.get(EIAC) as u64 & 1 << vector } else { 1 << vector };
            self.causes &= !clear;
            self.after_sending(registers, 1 << vector, 0);
        }
        let misc = registers.get(IVAR_MISC) >> 8;
        if others != 0 && misc & IVAR_VALID != 0 {
            let vector = (misc & 63) as usize;
            if self.may_send(registers, vector, now) {
                bus.interrupt(vector as u16, true);
                self.others &= !registers.get(EIAC);
                self.after_sending(registers, 0, others);
            }
        }
    }

    /// With GPIE.EIAME, auto-mask works when the interrupt is sent.
    fn after_sending(&mut self, registers: &Registers, queues: u64, others: u32) {
        self.sent |= queues;
        self.others_sent |= others;
        if registers.has(GPIE, GPIE_AUTO_MASK) {
            self.masks &= !(self.auto_mask & queues);
            self.other_masks &= !(self.other_auto_mask & others);
        }
    }

    /// Whether a vector's interval is over; if so the next one starts. If not, it is looked at again later.
    fn may_send(&mut self, registers: &Registers, vector: usize, now: u64) -> bool {
        if now < self.not_before[vector] {
            self.dirty = true;
            return false;
        }
        let v = vector as u32;
        let eitr = registers.get(if v < 24 { EITR + 4 * v } else { EITR_24 + 4 * (v - 24) });
        self.not_before[vector] = now + (eitr >> 3 & 0x1ff) as u64 * EITR_UNIT;
        true
    }
}

fn word(bits: u64, offset: u32) -> u32 {
    (bits >> (8 * offset)) as u32
}

fn shifted(value: u32, offset: u32) -> u64 {
    (value as u64) << (8 * offset)
}
