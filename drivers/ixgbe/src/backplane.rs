//! The X552's PHY for 10GBASE-KR, behind the processor's sideband: told what to offer, and to negotiate anew. The sideband is in no
//! datasheet of the family; its registers and the PHY's are as Intel's drivers have them.

use pagewire_ethdev::Error;
use pagewire_ethdev::nic::Device;

use crate::registers::*;
use crate::semaphore::own;

/// How long an access may take.
const MILLIS: u64 = 10;
/// Link control, of each port.
const LINK_CONTROL: [u32; 2] = [0x420c, 0x820c];
/// Offers of 1 and 10 Gb/s; negotiate, and anew.
const CAN_1G: u32 = 1 << 16;
const CAN_10G: u32 = 1 << 18;
const NEGOTIATE: u32 = 1 << 29;
const RESTART: u32 = 1 << 31;

/// Have the PHY negotiate. Does not wait for the link.
///
/// # Errors
///
/// [`Error::Timeout`] if the sideband does not answer; [`Error::Device`] if it says no.
pub(crate) fn set_up(device: &Device) -> Result<(), Error> {
    let second = device.registers.read(STATUS) >> status::LAN_ID_SHIFT & 1;
    let port = LINK_CONTROL[second as usize];
    // There is one sideband for both ports.
    let _owned = own(device, sync::PHY_0 | sync::PHY_1)?;
    let offers = read(device, port)? | NEGOTIATE | CAN_1G | CAN_10G;
    write(device, port, offers)?;
    write(device, port, offers | RESTART)
}

fn read(device: &Device, address: u32) -> Result<u32, Error> {
    idle(device)?;
    device.registers.write(IOSF_CTRL, address);
    done(device, address)?;
    Ok(device.registers.read(IOSF_DATA))
}

fn write(device: &Device, address: u32, value: u32) -> Result<(), Error> {
    idle(device)?;
    device.registers.write(IOSF_CTRL, address);
    device.registers.write(IOSF_DATA, value);
    done(device, address)
}

fn idle(device: &Device) -> Result<(), Error> {
    device.wait("talking to the PHY by the sideband", IOSF_CTRL, MILLIS, |value| value & iosf::BUSY == 0)
}

fn done(device: &Device, address: u32) -> Result<(), Error> {
    idle(device)?;
    match device.registers.read(IOSF_CTRL) {
        value if value & iosf::FAILED != 0 => Err(device.error(
            "the sideband's answer",
            format!("a refusal of register {address:#x} (SB_IOSF_INDIRECT_CTRL {value:#010x})"),
            "the register's contents",
        )),
        _ => Ok(()),
    }
}
