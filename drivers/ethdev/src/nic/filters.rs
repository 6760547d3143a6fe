//! Which frames a card lets in, as configured.

use super::registers::{Register, Registers};
use crate::flow::FlowRule;
use crate::mac::MacAddr;

/// Words of the multicast table: a bit for each of 4,096 hashes.
const MULTICAST_WORDS: usize = 128;
/// Words of the VLAN table: a bit for each of 4,096 identifiers.
const VLAN_WORDS: usize = 128;

/// Addresses and modes as configured. A reset makes the card forget them; [`Card::configure`](super::Card::configure) brings
/// them back.
#[derive(Clone, Debug)]
pub struct Filters {
    /// The port's own address.
    pub mac: MacAddr,
    /// Unicast addresses besides it.
    pub extra_unicast: Vec<MacAddr>,
    /// Groups.
    pub multicast: Vec<MacAddr>,
    /// Every frame, whoever it is for.
    pub promiscuous: bool,
    /// Every group.
    pub all_multicast: bool,
    /// VLANs whose frames come in, and those without tag; `None` for all.
    pub vlans: Option<Vec<u16>>,
    /// Flow rules. A stop makes the port forget them: they name queues.
    pub flows: Vec<FlowRule>,
}

impl Filters {
    pub(super) fn new(mac: MacAddr) -> Filters {
        Filters {
            mac,
            extra_unicast: Vec::new(),
            multicast: Vec::new(),
            promiscuous: false,
            all_multicast: false,
            vlans: None,
            flows: Vec::new(),
        }
    }

    /// Bit of the high word: the address takes part in filtering (RAH.AV).
    pub const VALID: u32 = 1 << 31;

    /// The unicast addresses, the port's own first.
    pub fn addresses(&self) -> impl Iterator<Item = MacAddr> {
        std::iter::once(self.mac).chain(self.extra_unicast.iter().copied())
    }

    /// An address as Intel's receive address registers have it: low word, high word without its valid bit.
    pub fn words(mac: MacAddr) -> (u32, u32) {
        let MacAddr([a, b, c, d, e, f]) = mac;
        (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0]))
    }

    /// The address in a pair of receive address registers.
    pub fn address(low: u32, high: u32) -> MacAddr {
        let ([a, b, c, d], [e, f, ..]) = (low.to_le_bytes(), high.to_le_bytes());
        MacAddr([a, b, c, d, e, f])
    }

    /// Write the unicast addresses into Intel's receive address registers, of which there are `count`, and clear the others.
    ///
    /// Those that are as they should be are left alone: frames to them may be on their way.
    pub fn write_addresses(&self, registers: &Registers, low: Register, high: Register, count: usize) {
        let mut addresses = self.addresses().map(Filters::words);
        for index in 0..count {
            let words = addresses.next().map_or([0, 0], |(low, high)| [low, high | Filters::VALID]);
            if [registers.read_at(low, index), registers.read_at(high, index)] == words {
                continue;
            }
            // Invalid while it is being changed.
            registers.write_at(high, index, 0);
            registers.write_at(low, index, words[0]);
            registers.write_at(high, index, words[1]);
        }
    }

    /// Write [the multicast table](Filters::multicast_table).
    pub fn write_multicast(&self, registers: &Registers, table: Register) {
        for (index, word) in self.multicast_table().into_iter().enumerate() {
            registers.write_at(table, index, word);
        }
    }

    /// Intel's multicast table with multicast offset 0: bits 47:36 of a group's address choose one of 4,096 bits.
    pub fn multicast_table(&self) -> [u32; MULTICAST_WORDS] {
        let mut table = [0; MULTICAST_WORDS];
        for hash in self.multicast.iter().map(|group| Filters::hash(*group)) {
            table[hash as usize >> 5] |= 1 << (hash & 31);
        }
        table
    }

    /// Which of the multicast table's bits a group's is.
    pub fn hash(group: MacAddr) -> u32 {
        let MacAddr([.., e, f]) = group;
        u32::from(e) >> 4 | u32::from(f) << 4
    }

    /// Intel's VLAN table: a bit for each identifier.
    pub fn vlan_table(&self) -> [u32; VLAN_WORDS] {
        let mut table = [0; VLAN_WORDS];
        for vlan in self.vlans.iter().flatten() {
            table[usize::from(vlan >> 5) % VLAN_WORDS] |= 1 << (vlan & 31);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_multicast_hash_is_the_top_twelve_bits_of_the_address() {
        let mut filters = Filters::new(MacAddr::default());
        filters.multicast = vec!["01:00:5e:00:a5:c3".parse().unwrap()];
        let hash = 0xc3a;
        for (word, bits) in filters.multicast_table().into_iter().enumerate() {
            assert_eq!(bits, if word == hash >> 5 { 1 << (hash & 31) } else { 0 }, "word {word}");
        }
    }

    #[test]
    fn an_address_survives_its_registers() {
        let mac: MacAddr = "02:1b:21:82:59:0a".parse().unwrap();
        let (low, high) = Filters::words(mac);
        assert_eq!((low, high), (0x8221_1b02, 0x0a59));
        assert_eq!(Filters::address(low, high | 1 << 31), mac);
    }
}
