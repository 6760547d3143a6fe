//! Which frames the card lets in: its own addresses, groups, everything; VLANs are not filtered.

use pagewire_ethdev::{Error, MacAddr};

use crate::device::Device;
use crate::registers::*;

/// Receive address registers, less the last, which belongs to the manageability firmware.
const ADDRESSES: usize = 15;
/// Unicast addresses besides the port's own.
pub(crate) const EXTRA_UNICAST: usize = ADDRESSES - 1;
/// Groups: the multicast table is a hash, which takes any number; beyond this, ask for all of them.
pub(crate) const MULTICAST: usize = 512;
const MTA_WORDS: usize = 128;
const VFTA_WORDS: usize = 128;

/// The filters as configured; a reset forgets them, and [`Filters::write`] brings them back.
#[derive(Clone, Debug)]
pub(crate) struct Filters {
    pub(crate) mac: MacAddr,
    pub(crate) extra_unicast: Vec<MacAddr>,
    pub(crate) multicast: Vec<MacAddr>,
    pub(crate) promiscuous: bool,
    pub(crate) all_multicast: bool,
}

impl Filters {
    /// The port's own address only, as the card has loaded it from its EEPROM.
    pub(crate) fn from_card(device: &Device, low: u32, high: u32) -> Result<Filters, Error> {
        let [a, b, c, d] = low.to_le_bytes();
        let [e, f, ..] = high.to_le_bytes();
        let mac = MacAddr([a, b, c, d, e, f]);
        if high & RAH_AV == 0 || !mac.is_valid_unicast() {
            return Err(Error::Device {
                port: device.name.clone(),
                what: "the Ethernet address in RAL0/RAH0",
                found: format!("{mac} (RAH0 {high:#010x})"),
                expected: "a valid unicast address from the EEPROM",
            });
        }
        Ok(Filters {
            mac,
            extra_unicast: Vec::new(),
            multicast: Vec::new(),
            promiscuous: false,
            all_multicast: false,
        })
    }

    /// Bits of RCTL.
    pub(crate) fn rctl(&self) -> u32 {
        let mut bits = rctl::BAM;
        if self.promiscuous {
            bits |= rctl::UPE | rctl::MPE;
        }
        if self.all_multicast {
            bits |= rctl::MPE;
        }
        bits
    }

    /// Write addresses and tables. With RCTL.VFE clear the VLAN table has no effect; it is cleared all the same.
    pub(crate) fn write(&self, registers: &Registers) {
        self.write_addresses(registers);
        self.write_multicast(registers);
        for index in 0..VFTA_WORDS {
            registers.write_at(VFTA, 4, index, 0);
        }
    }

    /// Those that are as they should be are left alone: frames to them may be on their way.
    pub(crate) fn write_addresses(&self, registers: &Registers) {
        for index in 0..ADDRESSES {
            let mac = if index == 0 { Some(&self.mac) } else { self.extra_unicast.get(index - 1) };
            let (low, high) = match mac {
                Some(MacAddr([a, b, c, d, e, f])) => {
                    (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, 0, 0]) | RAH_AV)
                }
                None => (0, 0),
            };
            if [registers.read_at(RAL, 8, index), registers.read_at(RAH, 8, index)] == [low, high] {
                continue;
            }
            // Invalid while it is being changed.
            registers.write_at(RAH, 8, index, 0);
            registers.write_at(RAL, 8, index, low);
            registers.write_at(RAH, 8, index, high);
        }
    }

    pub(crate) fn write_multicast(&self, registers: &Registers) {
        for (index, word) in multicast_table(&self.multicast).into_iter().enumerate() {
            registers.write_at(MTA, 4, index, word);
        }
    }

    /// Change RCTL to the filters' bits, leaving the rest.
    pub(crate) fn write_rctl(&self, registers: &Registers) {
        registers.modify(RCTL, rctl::UPE | rctl::MPE | rctl::BAM, self.rctl());
    }
}

/// Section 10.2.5.21 with RCTL.MO = 0: bits 47:36 of the address choose one of 4,096 bits.
fn multicast_table(groups: &[MacAddr]) -> [u32; MTA_WORDS] {
    let mut table = [0; MTA_WORDS];
    for MacAddr([.., e, f]) in groups {
        let hash = usize::from(*e) >> 4 | usize::from(*f) << 4;
        table[hash >> 5] |= 1 << (hash & 31);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_multicast_hash_is_the_top_twelve_bits_of_the_address() {
        let table = multicast_table(&["01:00:5e:00:a5:c3".parse().unwrap()]);
        let hash = 0xc3a;
        for (word, bits) in table.into_iter().enumerate() {
            assert_eq!(bits, if word == hash >> 5 { 1 << (hash & 31) } else { 0 }, "word {word}");
        }
    }
}
