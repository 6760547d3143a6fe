//! The device as all parts of the driver share it: who may let go of memory, and when.

use std::any::Any;
use std::sync::Mutex;
use std::time::Duration;

use pagewire_ethdev::{Error, poll_until};
use pagewire_pci::{AddressSpace, Function};

use crate::registers::*;

/// Bytes of BAR 0 (section 10.1).
const BAR_LEN: usize = 0x20000;
/// Memory that the card may still write: rings, posted fragments, packets being sent.
type Retired = Box<dyn Any + Send>;

/// Shared by the port and its queues; the last of them to go stops the card.
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) registers: Registers,
    pub(crate) space: AddressSpace,
    pub(crate) function: Function,
    /// What dropped queues left behind. Freed once the card has been reset.
    retired: Mutex<Vec<Retired>>,
}

impl Device {
    pub(crate) fn new(space: &AddressSpace, function: Function) -> Result<Device, Error> {
        let (name, bar) = (function.info().name(), function.bar(0)?);
        // The length is the device's word; every register lies within this.
        if bar.len() < BAR_LEN {
            return Err(Error::Device {
                port: name,
                what: "the length of BAR 0",
                found: format!("{:#x}", bar.len()),
                expected: "0x20000",
            });
        }
        Ok(Device {
            name,
            registers: Registers::new(bar),
            space: space.clone(),
            function,
            retired: Mutex::default(),
        })
    }

    /// A queue is gone: keep what the card may still read or write until the next reset.
    ///
    /// Its unit runs on meanwhile: receive must not be disabled on this card but by a reset (its vendor's drivers do not
    /// either), and what is posted stays posted.
    pub(crate) fn retire(&self, left: impl Any + Send) {
        self.retired().push(Box::new(left));
    }

    fn retired(&self) -> std::sync::MutexGuard<'_, Vec<Retired>> {
        self.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Stop the card for good, then let go of what its queues left behind.
    ///
    /// Bus mastering goes off whatever the card does, and after that it reaches no memory.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        let reset = self.reset();
        let silenced = self.function.set_bus_master(false);
        // Either is enough to keep the card from memory.
        if reset.is_ok() || silenced.is_ok() {
            self.retired().clear();
        }
        silenced?;
        reset
    }

    /// Sections 4.6.1 and 4.6.2: interrupts off, pending DMA finished, everything but the PCI configuration reset.
    ///
    /// The card has no function-level reset: VFIO's returns success and clears nothing, so this is the only one.
    pub(crate) fn reset(&self) -> Result<(), Error> {
        let registers = &self.registers;
        registers.write(IMC, u32::MAX);
        // Let the card finish the DMA under way. One that does not is reset all the same.
        registers.modify(CTRL, 0, ctrl::GIO_MASTER_DISABLE);
        if !poll_until(Duration::from_millis(80), || registers.read(STATUS) & status::GIO_MASTER_ENABLE == 0)
        {
            log::warn!(
                "{}: DMA did not end within 80 ms of being disabled; resetting the card anyway",
                self.name
            );
        }
        registers.write(RCTL, 0);
        registers.write(TCTL, tctl::PSP);
        self.own_phy();
        // Proof that the reset is one: a length that it has to clear.
        registers.write(RDLEN, 128);
        registers.modify(CTRL, 0, ctrl::RST);
        // The card must not be touched for a microsecond; the EEPROM is read again in less than 10 ms.
        std::thread::sleep(Duration::from_millis(1));
        self.wait("reset", CTRL, 100, |ctrl| ctrl & ctrl::RST == 0)?;
        self.wait("reading the EEPROM after reset", EECD, 100, |eecd| eecd & EECD_AUTO_RD != 0)?;
        self.wait("reset of the receive ring", RDLEN, 100, |len| len == 0)?;
        registers.write(IMC, u32::MAX);
        registers.write(ICR, u32::MAX);
        Ok(())
    }

    /// Take the PHY's registers from the manageability firmware, which must not use them during a reset. The reset gives them back.
    fn own_phy(&self) {
        let owned = poll_until(Duration::from_millis(100), || {
            self.registers.modify(EXTCNF_CTRL, 0, EXTCNF_CTRL_MDIO_SW_OWNERSHIP);
            self.registers.read(EXTCNF_CTRL) & EXTCNF_CTRL_MDIO_SW_OWNERSHIP != 0
        });
        if !owned {
            log::warn!("{}: firmware keeps the PHY's registers; going on without them", self.name);
        }
    }

    /// Section 4.6.3: make sure that the PHY negotiates. The kernel's driver powers it down when its interface goes down.
    pub(crate) fn wake_phy(&self) {
        let Some(control) = self.read_phy(bmcr::REGISTER) else { return };
        if control & (bmcr::POWER_DOWN | bmcr::ISOLATE) != 0 || control & bmcr::AUTONEG == 0 {
            let awake = control & !(bmcr::POWER_DOWN | bmcr::ISOLATE) | bmcr::AUTONEG | bmcr::RESTART_AUTONEG;
            self.access_phy(mdic::WRITE, bmcr::REGISTER, awake);
        }
    }

    fn read_phy(&self, register: u32) -> Option<u16> {
        self.access_phy(mdic::READ, register, 0)
    }

    fn access_phy(&self, operation: u32, register: u32, data: u16) -> Option<u16> {
        let command = operation | mdic::PHY_1 | register << mdic::REGISTER_SHIFT | u32::from(data);
        self.registers.write(MDIC, command);
        let mut answer = 0;
        let ready = poll_until(Duration::from_millis(10), || {
            answer = self.registers.read(MDIC);
            answer & mdic::READY != 0
        });
        if !ready || answer & mdic::ERROR != 0 {
            log::warn!("{}: PHY register {register} did not answer (MDIC {answer:#010x})", self.name);
            return None;
        }
        Some(answer as u16)
    }

    /// Wait for a register, at most `millis`.
    pub(crate) fn wait(
        &self,
        what: &'static str,
        register: Register,
        millis: u64,
        done: impl Fn(u32) -> bool,
    ) -> Result<(), Error> {
        let mut value = 0;
        let limit = Duration::from_millis(millis);
        let ended = poll_until(limit, || {
            value = self.registers.read(register);
            // All ones is what a card that is no longer there reads as.
            value != u32::MAX && done(value)
        });
        match ended {
            true => Ok(()),
            false => Err(Error::Timeout {
                port: self.name.clone(),
                what,
                millis: limit.as_millis(),
                register: register.name,
                value,
            }),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::warn!("{error}");
        }
        let left = std::mem::take(&mut *self.retired());
        if !left.is_empty() {
            log::error!(
                "{}: the card cannot be stopped; the memory it was given is never used again",
                self.name
            );
            std::mem::forget(left);
        }
    }
}
