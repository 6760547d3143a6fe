//! The PHY of the X540 and the X550, by MDIO (IEEE 802.3 clause 45): woken, told to negotiate, and left to itself. What it offers is what its firmware
//! has it offer.

use pagewire_ethdev::Error;
use pagewire_ethdev::nic::Device;

use crate::registers::*;
use crate::semaphore::{self, Owned};

/// How long a cycle on the bus may take.
const MILLIS: u64 = 10;
/// Addresses on the bus.
const ADDRESSES: u32 = 32;
/// Devices of a PHY: its medium, its negotiation, the vendor's.
const MEDIUM: u32 = 1;
const NEGOTIATION: u32 = 7;
const VENDOR: u32 = 30;
/// Their registers: control, and the upper half of the identifier.
const CONTROL: u32 = 0;
const IDENTIFIER: u32 = 2;
/// Negotiation's control: on, and anew.
const NEGOTIATE: u16 = 1 << 12;
const RESTART: u16 = 1 << 9;
/// The vendor's control: low power.
const LOW_POWER: u16 = 1 << 11;

/// Wake the PHY and have it negotiate. Does not wait for the link, which takes seconds.
///
/// # Errors
///
/// [`Error::Device`] if there is none; [`Error::Timeout`] if the bus does not answer.
pub(crate) fn set_up(device: &Device) -> Result<(), Error> {
    let _owned = own(device)?;
    let phy = find(device)?;
    let power = read(device, phy, VENDOR, CONTROL)?;
    if power & LOW_POWER != 0 {
        write(device, phy, VENDOR, CONTROL, power & !LOW_POWER)?;
    }
    let control = read(device, phy, NEGOTIATION, CONTROL)?;
    write(device, phy, NEGOTIATION, CONTROL, control | NEGOTIATE | RESTART)
}

/// Own the PHY of this port.
///
/// # Errors
///
/// Those of [`semaphore::own`].
pub(crate) fn own(device: &Device) -> Result<Owned<'_>, Error> {
    let second = device.registers.read(STATUS) >> status::LAN_ID_SHIFT & 1 != 0;
    semaphore::own(device, if second { sync::PHY_1 } else { sync::PHY_0 })
}

/// Where on the bus it is.
fn find(device: &Device) -> Result<u32, Error> {
    for phy in 0..ADDRESSES {
        // Where nobody is the wire is pulled up, or held down.
        if !matches!(read(device, phy, MEDIUM, IDENTIFIER)?, 0 | 0xffff) {
            return Ok(phy);
        }
    }
    Err(device.error("the PHY", "at none of the 32 addresses", "one that says who it is"))
}

fn read(device: &Device, phy: u32, unit: u32, register: u32) -> Result<u16, Error> {
    cycle(device, msca::ADDRESS, phy, unit, register)?;
    cycle(device, msca::READ, phy, unit, register)?;
    Ok((device.registers.read(MSRWD) >> MSRWD_READ_SHIFT) as u16)
}

fn write(device: &Device, phy: u32, unit: u32, register: u32, value: u16) -> Result<(), Error> {
    device.registers.write(MSRWD, value.into());
    cycle(device, msca::ADDRESS, phy, unit, register)?;
    cycle(device, msca::WRITE, phy, unit, register)
}

fn cycle(device: &Device, what: u32, phy: u32, unit: u32, register: u32) -> Result<(), Error> {
    let place = register | unit << msca::UNIT_SHIFT | phy << msca::PHY_SHIFT;
    device.registers.write(MSCA, place | what | msca::COMMAND);
    device.wait("talking to the PHY", MSCA, MILLIS, |value| value & msca::COMMAND == 0)
}
