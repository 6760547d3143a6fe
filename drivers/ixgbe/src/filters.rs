//! Which frames the card lets in: its own addresses, groups, everything (section 7.1.1); VLANs are not filtered.

use pagewire_ethdev::nic::{Device, Filters};

use crate::configure::fill;
use crate::registers::*;

/// Unicast addresses besides the port's own.
pub(crate) const EXTRA_UNICAST: usize = RAL.count - 1;
/// Groups: the multicast table is a hash, which takes any number; beyond this, ask for all of them.
pub(crate) const MULTICAST: usize = 512;

/// Write all there is: tables that nothing is in hold anything after a reset (4.6.7).
pub(crate) fn write(device: &Device, filters: &Filters) {
    for table in [PFUTA, VFTA, PFVLVF, PFVLVFB, FTQF] {
        fill(device, table, 0);
    }
    write_addresses(device, filters);
    write_multicast(device, filters);
    write_modes(device, filters);
}

pub(crate) fn write_modes(device: &Device, filters: &Filters) {
    let mut bits = fctrl::BAM;
    if filters.promiscuous {
        bits |= fctrl::UPE | fctrl::MPE;
    }
    if filters.all_multicast {
        bits |= fctrl::MPE;
    }
    device.registers.write(FCTRL, bits);
}

/// Those that are as they should be are left alone: frames to them may be on their way.
pub(crate) fn write_addresses(device: &Device, filters: &Filters) {
    let registers = &device.registers;
    let mut addresses = filters.addresses();
    for index in 0..RAL.count {
        let (low, high, pools) = match addresses.next().map(Filters::words) {
            Some((low, high)) => (low, high | Filters::VALID, 1),
            None => (0, 0, 0),
        };
        // Frames to it go to pool 0, which without virtualisation is all there is.
        registers.write_at(MPSAR, 2 * index, pools);
        registers.write_at(MPSAR, 2 * index + 1, 0);
        if [registers.read_at(RAL, index), registers.read_at(RAH, index)] == [low, high] {
            continue;
        }
        // Invalid while it is being changed.
        registers.write_at(RAH, index, 0);
        registers.write_at(RAL, index, low);
        registers.write_at(RAH, index, high);
    }
}

pub(crate) fn write_multicast(device: &Device, filters: &Filters) {
    for (index, word) in filters.multicast_table().into_iter().enumerate() {
        device.registers.write_at(MTA, index, word);
    }
    device.registers.write(MCSTCTRL, MCSTCTRL_MFE);
}
