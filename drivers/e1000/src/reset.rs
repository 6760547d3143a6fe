//! Reset, and the PHY.

use std::time::Duration;

use pagewire_ethdev::nic::Device;
use pagewire_ethdev::{Error, poll_until};

use crate::registers::*;

/// Sections 4.6.1 and 4.6.2: interrupts off, pending DMA finished, everything but the PCI configuration reset.
///
/// The card has no function-level reset: VFIO's returns success and clears nothing, so this is the only one. Receive is disabled
/// by nothing else either: its vendor's drivers do not do it.
pub(crate) fn reset(device: &Device) -> Result<(), Error> {
    let registers = &device.registers;
    registers.write(IMC, u32::MAX);
    // Let the card finish the DMA under way. One that does not is reset all the same.
    registers.modify(CTRL, 0, ctrl::GIO_MASTER_DISABLE);
    if !poll_until(Duration::from_millis(80), || registers.read(STATUS) & status::GIO_MASTER_ENABLE == 0) {
        log::warn!(
            "{}: DMA did not end within 80 ms of being disabled; resetting the card anyway",
            device.name
        );
    }
    registers.write(RCTL, 0);
    registers.write(TCTL, tctl::PSP);
    own_phy(device);
    // Proof that the reset is one: a length that it has to clear.
    registers.write(RDLEN, 128);
    registers.modify(CTRL, 0, ctrl::RST);
    // The card must not be touched for a microsecond; the EEPROM is read again in less than 10 ms.
    std::thread::sleep(Duration::from_millis(1));
    device.wait("reset", CTRL, 100, |ctrl| ctrl & ctrl::RST == 0)?;
    device.wait("reading the EEPROM after reset", EECD, 100, |eecd| eecd & EECD_AUTO_RD != 0)?;
    device.wait("reset of the receive ring", RDLEN, 100, |len| len == 0)?;
    registers.write(IMC, u32::MAX);
    registers.write(ICR, u32::MAX);
    Ok(())
}

/// Take the PHY's registers from the manageability firmware, which must not use them during a reset. The reset gives them back.
fn own_phy(device: &Device) {
    let registers = &device.registers;
    let owned = poll_until(Duration::from_millis(100), || {
        registers.modify(EXTCNF_CTRL, 0, EXTCNF_CTRL_MDIO_SW_OWNERSHIP);
        registers.read(EXTCNF_CTRL) & EXTCNF_CTRL_MDIO_SW_OWNERSHIP != 0
    });
    if !owned {
        log::warn!("{}: firmware keeps the PHY's registers; going on without them", device.name);
    }
}

/// Section 4.6.3: make sure that the PHY negotiates. The kernel's driver powers it down when its interface goes down.
pub(crate) fn wake_phy(device: &Device) {
    let Some(control) = access_phy(device, mdic::READ, bmcr::REGISTER, 0) else { return };
    if control & (bmcr::POWER_DOWN | bmcr::ISOLATE) != 0 || control & bmcr::AUTONEG == 0 {
        let awake = control & !(bmcr::POWER_DOWN | bmcr::ISOLATE) | bmcr::AUTONEG | bmcr::RESTART_AUTONEG;
        access_phy(device, mdic::WRITE, bmcr::REGISTER, awake);
    }
}

fn access_phy(device: &Device, operation: u32, register: u32, data: u16) -> Option<u16> {
    let command = operation | mdic::PHY_1 | register << mdic::REGISTER_SHIFT | u32::from(data);
    device.registers.write(MDIC, command);
    let mut answer = 0;
    let ready = poll_until(Duration::from_millis(10), || {
        answer = device.registers.read(MDIC);
        answer & mdic::READY != 0
    });
    if !ready || answer & mdic::ERROR != 0 {
        log::warn!("{}: PHY register {register} did not answer (MDIC {answer:#010x})", device.name);
        return None;
    }
    Some(answer as u16)
}
