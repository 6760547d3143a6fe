//! Which frames the card lets in: its own addresses, groups, everything; VLANs (section 7.1.1).

use pagewire_ethdev::nic::{Device, Filters};

use crate::configure::fill;
use crate::functions::Functions;
use crate::registers::*;

/// Unicast addresses besides the port's own.
pub(crate) const EXTRA_UNICAST: usize = RAL.count - 1;
/// Groups: the multicast table is a hash, which takes any number; beyond this, ask for all of them.
pub(crate) const MULTICAST: usize = 512;

/// Write all there is: tables that nothing is in hold anything after a reset (4.6.7).
pub(crate) fn write(device: &Device, filters: &Filters, functions: &Functions) {
    for table in [MPSAR, PFUTA, PFVLVF, PFVLVFB, FTQF, SAQF, DAQF, SDPQF, L34TIMIR] {
        fill(device, table, 0);
    }
    write_addresses(device, filters, functions);
    write_multicast(device, filters, functions);
    write_vlans(device, filters, functions);
}

/// The table first: a frame that comes in meanwhile is of a VLAN of one or the other. With virtual functions pools are told apart by
/// VLAN, and the table lets all in (7.10.3).
pub(crate) fn write_vlans(device: &Device, filters: &Filters, functions: &Functions) {
    let registers = &device.registers;
    for (index, word) in filters.vlan_table().into_iter().enumerate() {
        registers.write_at(VFTA, index, if functions.is_empty() { word } else { u32::MAX });
    }
    let on = filters.vlans.is_some() || !functions.is_empty();
    let filter = if on { VLNCTRL_VFE } else { 0 };
    registers.write(VLNCTRL, VLNCTRL_8021Q | filter);
}

pub(crate) fn write_modes(device: &Device, filters: &Filters, functions: &Functions) {
    let (mut bits, mut pool) = (fctrl::BAM, pfvml2flt::AUPE | pfvml2flt::BAM);
    if !filters.multicast.is_empty() {
        pool |= pfvml2flt::ROMPE;
    }
    if filters.promiscuous {
        bits |= fctrl::UPE;
    }
    if filters.promiscuous || filters.all_multicast {
        bits |= fctrl::MPE;
        pool |= pfvml2flt::MPE;
    }
    if !functions.is_empty() {
        device.registers.write_at(PFVML2FLT, functions.own_pool(), pool);
    }
    if functions.take_all_groups() {
        bits |= fctrl::MPE;
    }
    device.registers.write(FCTRL, bits);
}

/// Virtual functions' addresses are the last ones.
pub(crate) fn write_addresses(device: &Device, filters: &Filters, functions: &Functions) {
    // Frames to an address go to the port's pool: pool 0, which without virtual functions is all there is.
    let (used, pool) = (filters.addresses().count(), 1u64 << functions.own_pool());
    let count = RAL.count - functions.count();
    for index in 0..count {
        let pools = if index < used { pool } else { 0 };
        device.registers.write_at(MPSAR, 2 * index, pools as u32);
        device.registers.write_at(MPSAR, 2 * index + 1, (pools >> 32) as u32);
    }
    filters.write_addresses(&device.registers, RAL, RAH, count);
}

pub(crate) fn write_multicast(device: &Device, filters: &Filters, functions: &Functions) {
    functions.write_multicast(device, filters);
    // Whether the port's pool takes hashed groups.
    write_modes(device, filters, functions);
    device.registers.write(MCSTCTRL, MCSTCTRL_MFE);
}
