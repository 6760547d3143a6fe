//! Reset (sections 4.2.1.6, 4.6.3 and 5.2.5.3.2).

use std::thread::sleep;
use std::time::Duration;

use pagewire_ethdev::nic::Device;
use pagewire_ethdev::{Error, poll_until};
use pagewire_pci::CAP_EXPRESS;

use crate::family::{Family, Media, Memory};
use crate::registers::*;
use crate::{firmware, phy};

/// How long a step may take that the datasheet gives no time for.
const MILLIS: u64 = 100;
/// A ring length: what a reset has to clear.
const MARK: u32 = 128;
/// PCI Express capability: device status, and its bit "transactions pending".
const DEVICE_STATUS: u16 = 0x0a;
const TRANSACTIONS_PENDING: u16 = 1 << 5;

/// Everything as after power-up but the PCI configuration; no interrupts, no DMA, no light.
///
/// # Errors
///
/// [`Error::Timeout`] if the card does not come out of it, or what was done was none.
pub(crate) fn reset(device: &Device) -> Result<(), Error> {
    let registers = &device.registers;
    // 4.6.3.1: interrupts off, before the reset and after it.
    mask_interrupts(device);
    stop_queues(device);
    let quiet = disable_master(device);
    registers.write(RDLEN, MARK);
    if !quiet {
        // 5.2.5.3.2: then what is under way has to be flushed, and it takes two resets.
        flush(device);
        registers.modify(CTRL, 0, ctrl::RST);
        sleep(Duration::from_millis(1));
    }
    // 4.6.3.2: both resets, unless the firmware talks to somebody over this link. Nothing is to be accessed for a millisecond,
    // and initialisation waits for ten, or more.
    let veto = registers.read(MMNGC) & MMNGC_VETO != 0;
    let family = Family::of(device);
    let link = if veto || !family.resets_link { 0 } else { ctrl::LINK_RESET };
    // A PHY that the firmware is talking to is not reset under its hands.
    let phy = (family.media != Media::Cage).then(|| phy::own(device)).transpose()?;
    registers.modify(CTRL, 0, ctrl::RST | link);
    sleep(Duration::from_millis(family.settle));
    drop(phy);
    device.wait("reset", CTRL, MILLIS, |value| value & (ctrl::RST | ctrl::LINK_RESET) == 0)?;
    mask_interrupts(device);
    device.wait("reading the EEPROM after reset", EEC, MILLIS, |value| value & eec::AUTO_RD != 0)?;
    device
        .wait("initialisation of DMA after reset", RDRXCTL, MILLIS, |value| value & rdrxctl::DMAIDONE != 0)?;
    device.wait("reset of the receive ring", RDLEN, MILLIS, |value| value == 0)?;
    registers.write(EICR, u32::MAX);
    // Nobody looks after the link from here on: the firmware may, and our light is out.
    registers.modify(CTRL_EXT, ctrl_ext::DRV_LOAD, 0);
    if !veto && family.media == Media::Cage {
        registers.modify(ESDP, 0, esdp::TX_DISABLE);
    }
    Ok(())
}

fn mask_interrupts(device: &Device) {
    device.registers.write(EIMC, u32::MAX);
    for index in 0..EIMC_EX.count {
        device.registers.write_at(EIMC_EX, index, u32::MAX);
    }
}

/// 4.6.7.1.2 and 4.6.8: no more packets. All queues, for who had the card before may have used any.
fn stop_queues(device: &Device) {
    let registers = &device.registers;
    let receives = registers.read(RXCTRL) & RXCTRL_RXEN != 0;
    if Family::of(device).memory == Memory::Firmware
        && receives
        && device.function.config().is_there()
        && let Err(error) = firmware::disable_receive(device)
    {
        log::warn!("{error}; the receive path is closed without its firmware");
    }
    registers.modify(RXCTRL, RXCTRL_RXEN, 0);
    for register in [TXDCTL, RXDCTL, RXDCTL_64] {
        for index in 0..register.count {
            registers.write_at(register, index, 0);
        }
    }
}

/// 5.2.5.3.2: let the card finish the DMA under way and begin no other. Returns whether it did.
fn disable_master(device: &Device) -> bool {
    let registers = &device.registers;
    registers.modify(CTRL, 0, ctrl::GIO_MASTER_DISABLE);
    let ended = device.wait("DMA", STATUS, MILLIS, |value| value & status::GIO_MASTER_ENABLE == 0);
    if let Err(error) = &ended
        && device.function.config().is_there()
    {
        log::warn!("{error}; resetting the card twice");
    }
    ended.is_ok()
}

/// 5.2.5.3.2: empty the buffers of a card that did not finish its DMA: nothing is to be sent, even if the link comes up.
fn flush(device: &Device) {
    let registers = &device.registers;
    let config = device.function.config();
    let express = config.capabilities().ok().and_then(|all| all.find(CAP_EXPRESS, false));
    if let Some(express) = express {
        let pending = || config.read16(express.offset.saturating_add(DEVICE_STATUS));
        let none = || pending().is_ok_and(|status| status & TRANSACTIONS_PENDING == 0);
        if !poll_until(Duration::from_millis(MILLIS), none) {
            log::warn!("{}: PCI Express transactions stay pending", device.name);
        }
    }
    registers.modify(HLREG0, 0, hlreg0::LPBK);
    registers.modify(GCR_EXT, 0, GCR_EXT_BUFFERS_CLEAR);
    sleep(Duration::from_micros(20));
    registers.modify(HLREG0, hlreg0::LPBK, 0);
    registers.modify(GCR_EXT, GCR_EXT_BUFFERS_CLEAR, 0);
}
