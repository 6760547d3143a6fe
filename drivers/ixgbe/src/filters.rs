//! Which frames the card lets in: its own addresses, groups, everything; VLANs (section 7.1.1).

use pagewire_ethdev::nic::{Device, Filters};

use crate::configure::fill;
use crate::registers::*;

/// Unicast addresses besides the port's own.
pub(crate) const EXTRA_UNICAST: usize = RAL.count - 1;
/// Groups: the multicast table is a hash, which takes any number; beyond this, ask for all of them.
pub(crate) const MULTICAST: usize = 512;

/// Write all there is: tables that nothing is in hold anything after a reset (4.6.7).
pub(crate) fn write(device: &Device, filters: &Filters) {
    for table in [PFUTA, PFVLVF, PFVLVFB, FTQF, SAQF, DAQF, SDPQF, L34TIMIR] {
        fill(device, table, 0);
    }
    write_addresses(device, filters);
    write_multicast(device, filters);
    write_vlans(device, filters);
    write_modes(device, filters);
}

/// The table first: a frame that comes in meanwhile is of a VLAN of one or the other.
pub(crate) fn write_vlans(device: &Device, filters: &Filters) {
    let registers = &device.registers;
    for (index, word) in filters.vlan_table().into_iter().enumerate() {
        registers.write_at(VFTA, index, word);
    }
    let filter = if filters.vlans.is_some() { VLNCTRL_VFE } else { 0 };
    registers.write(VLNCTRL, VLNCTRL_8021Q | filter);
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

pub(crate) fn write_addresses(device: &Device, filters: &Filters) {
    // Frames to an address go to pool 0, which without virtualisation is all there is.
    let used = filters.addresses().count();
    for index in 0..RAL.count {
        device.registers.write_at(MPSAR, 2 * index, u32::from(index < used));
        device.registers.write_at(MPSAR, 2 * index + 1, 0);
    }
    filters.write_addresses(&device.registers, RAL, RAH, RAL.count);
}

pub(crate) fn write_multicast(device: &Device, filters: &Filters) {
    filters.write_multicast(&device.registers, MTA);
    device.registers.write(MCSTCTRL, MCSTCTRL_MFE);
}
