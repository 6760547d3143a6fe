//! Interrupts (section 7.1): the receive queue's vector, 0, and that of all else; or the latter alone.

use std::time::Duration;

use pagewire_ethdev::nic::Device;

use crate::registers::*;

/// Unit of EITR's interval (section 10.2.4.3), which has 16 bits.
const UNIT_NANOS: u64 = 256;
/// Longest time from one receive interrupt to the next.
pub(crate) const LONGEST_INTERVAL: Duration = Duration::from_nanos(UNIT_NANOS * 0xffff);

/// The interval of the receive queue's vector, rounded down: it is a promise.
pub(crate) fn set_interval(device: &Device, interval: Duration) {
    let units = interval.min(LONGEST_INTERVAL).as_nanos() / u128::from(UNIT_NANOS);
    device.registers.write_at(EITR, 0, units as u32);
}

/// Link changes raise vector `queues`, and the receive queue, if that is not 0, vector 0, which clears and masks itself each
/// time it is sent.
pub(crate) fn enable(device: &Device, queues: usize) {
    let registers = &device.registers;
    let (queue, by_itself) = if queues > 0 { (IVAR_RXQ0_VECTOR_0, cause::RXQ0) } else { (0, 0) };
    registers.write(IVAR, queue | IVAR_OTHER_VALID | (queues as u32) << IVAR_OTHER_SHIFT);
    registers.write(EIAC, by_itself);
    registers.write(IAM, by_itself);
    registers.modify(CTRL_EXT, 0, ctrl_ext::EIAME | ctrl_ext::PBA_SUPPORT);
    registers.write(IMS, cause::LINK | cause::OTHER);
}
