//! What drivers and the card's firmware share: the PHYs' wires and the link registers (section 10.5.4).
//!
//! SWSM guards SW_FW_SYNC: its SMBI among drivers, its SWESMBI between driver and firmware. It is held for the few accesses
//! that it takes to change SW_FW_SYNC, whose bits say for how long it takes who owns what.

use std::cell::Cell;
use std::time::Duration;

use pagewire_ethdev::nic::Device;
use pagewire_ethdev::{Error, poll_until};

use crate::family::{Family, Guard};
use crate::registers::*;

/// How long anybody holds SWSM, several times over.
const SWSM_MILLIS: u64 = 100;
/// How long anybody owns what SW_FW_SYNC is about. Whoever does for longer is dead.
const OWNER_LIMIT: Duration = Duration::from_secs(1);

/// What SW_FW_SYNC's `bits` are about, owned until dropped.
pub(crate) struct Owned<'a> {
    device: &'a Device,
    bits: u32,
}

/// Own what SW_FW_SYNC's `bits` are about.
///
/// # Errors
///
/// [`Error::Timeout`] if SWSM is not to be had. An owner that does not let go in time is taken for dead.
pub(crate) fn own(device: &Device, bits: u32) -> Result<Owned<'_>, Error> {
    let mut others = bits | (bits & sync::SHARED) << sync::FIRMWARE_SHIFT;
    if bits & sync::FLASH != 0 && Family::of(device).guard == Guard::Regsmp {
        others |= sync::HARDWARE_FLASH;
    }
    // Kept for the message: reading it without the guard that it has itself would take that.
    let found = Cell::new(0);
    let free = |value| {
        found.set(value);
        value & others == 0
    };
    let mut failed = None;
    let owned = poll_until(OWNER_LIMIT, || match change(device, free, 0, bits) {
        Ok(done) => done,
        Err(error) => {
            failed = Some(error);
            true
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    if !owned {
        log::warn!(
            "{}: SW_FW_SYNC {:#x} says that firmware or another driver owns {bits:#x} for longer than 1 s; taking it",
            device.name,
            found.get()
        );
        change(device, |_| true, others, bits)?;
    }
    Ok(Owned { device, bits })
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        if let Err(error) = change(self.device, |_| true, self.bits, 0) {
            log::warn!("{error}; firmware is kept from it until the next reset");
        }
    }
}

/// Change SW_FW_SYNC under SWSM if it is such that it may be. Returns whether it was.
fn change(device: &Device, may: impl Fn(u32) -> bool, clear: u32, set: u32) -> Result<bool, Error> {
    take_swsm(device)?;
    let value = device.registers.read(SW_FW_SYNC);
    let changes = may(value);
    if changes {
        device.registers.write(SW_FW_SYNC, value & !clear | set);
    }
    release_swsm(device);
    Ok(changes)
}

fn take_swsm(device: &Device) -> Result<(), Error> {
    // Who reads SMBI as 0 has it.
    let free = |value| value & swsm::SMBI == 0;
    if device.wait("waiting for SWSM.SMBI", SWSM, SWSM_MILLIS, free).is_err() {
        log::warn!("{}: SWSM.SMBI was never given back; a driver must have died with it", device.name);
        release_swsm(device);
        device.wait("taking SWSM.SMBI", SWSM, SWSM_MILLIS, free)?;
    }
    let taken = match Family::of(device).guard {
        // It can be set while the firmware does not have it.
        Guard::Swesmbi => device.wait("taking SWSM.SWESMBI", SWSM, SWSM_MILLIS, |value| {
            device.registers.write(SWSM, value | swsm::SWESMBI);
            device.registers.read(SWSM) & swsm::SWESMBI != 0
        }),
        // Who reads it as 0 has it.
        Guard::Regsmp => device
            .wait("taking SW_FW_SYNC.REGSMP", SW_FW_SYNC, SWSM_MILLIS, |value| value & sync::REGSMP == 0),
    };
    taken.inspect_err(|_| release_swsm(device))
}

fn release_swsm(device: &Device) {
    if Family::of(device).guard == Guard::Regsmp {
        device.registers.modify(SW_FW_SYNC, sync::REGSMP, 0);
    }
    device.registers.modify(SWSM, swsm::SMBI | swsm::SWESMBI, 0);
}
