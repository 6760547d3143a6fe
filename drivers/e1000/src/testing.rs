//! A card made of memory, which does as it is told by a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pagewire_ethdev::nic::Filters;
use pagewire_ethdev::nic::testing::Bench;
use pagewire_pci::mock::{Card, Registers};

use crate::I82574;
use crate::registers::*;

/// How the card misbehaves: any of these.
pub(crate) mod fault {
    /// CTRL.RST never clears.
    pub(crate) const STAYS_IN_RESET: u32 = 1;
    /// The EEPROM is never read.
    pub(crate) const NO_EEPROM: u32 = 2;
    /// A reset that clears nothing.
    pub(crate) const RESETS_NOTHING: u32 = 4;
    /// Every register outside the rings' pages reads as all ones.
    pub(crate) const ALL_ONES: u32 = 8;
    /// Statistics read as all ones.
    pub(crate) const ALL_ONES_STATISTICS: u32 = 16;
    /// The PHY answers nothing and DMA never ends.
    pub(crate) const SLOW: u32 = 32;
}

/// A threshold of reads of four lines, and a collision threshold of none.
pub(crate) const TCTL_AFTER_RESET: u32 = 1 << 29 | tctl::PSP | 0xf0 << 4;

/// Faults that the card has now.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<AtomicU32>);

impl Faults {
    pub(crate) fn set(&self, faults: u32) {
        self.0.store(faults, Ordering::Relaxed);
    }

    fn has(&self, fault: u32) -> bool {
        self.0.load(Ordering::Relaxed) & fault != 0
    }
}

impl Card for Faults {
    fn read(&self, registers: &Registers, offset: u64) -> u32 {
        if self.has(fault::ALL_ONES) {
            return u32::MAX;
        }
        let stored = registers.get(offset);
        match offset as usize {
            at if at == STATUS.offset => {
                let disabled = registers.get(CTRL.offset as u64) & ctrl::GIO_MASTER_DISABLE != 0;
                let busy = !disabled || self.has(fault::SLOW);
                status::LU
                    | status::FD
                    | 2 << status::SPEED_SHIFT
                    | if busy { status::GIO_MASTER_ENABLE } else { 0 }
            }
            at if at == EECD.offset && !self.has(fault::NO_EEPROM) => stored | EECD_AUTO_RD,
            at if at == MDIC.offset && !self.has(fault::SLOW) => stored | mdic::READY,
            0x4000..=0x40ff if self.has(fault::ALL_ONES_STATISTICS) => u32::MAX,
            _ => stored,
        }
    }

    fn write(&self, registers: &Registers, offset: u64, value: u32) {
        registers.set(offset, value);
        if offset == CTRL.offset as u64 && value & ctrl::RST != 0 && !self.has(fault::STAYS_IN_RESET) {
            registers.set(offset, 0);
            if !self.has(fault::RESETS_NOTHING) {
                registers.set(RDLEN.offset as u64, 0);
                registers.set(TCTL.offset as u64, TCTL_AFTER_RESET);
            }
        }
    }
}

/// A card of memory with the faults it is told to have.
pub(crate) fn bench() -> (Bench<I82574>, Faults) {
    let faults = Faults::default();
    // The pages of the rings' registers, whose tails are doorbells.
    let bench = Bench::new(0x2000..0x4000, faults.clone());
    bench.registers.set(RAL.offset as u64, 0x0000_0002);
    bench.registers.set(RAH.offset as u64, Filters::VALID | 0x0100);
    (bench, faults)
}
