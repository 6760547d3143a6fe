//! Which frames come in (82599 datasheet 7.1.1) and which queue an Ethertype (7.1.2.3) or five-tuple (7.1.2.5)
//! goes to.

use super::packet::{Network, Packet, Transport};
use super::registers::Registers;
use super::statistics::Cast;
use super::table::*;

const MULTICAST_PROMISCUOUS: u32 = 1 << 8;
const UNICAST_PROMISCUOUS: u32 = 1 << 9;
const BROADCAST_ACCEPT: u32 = 1 << 10;
const MULTICAST_FILTER: u32 = 1 << 2;
const VLAN_FILTER: u32 = 1 << 30;
const CFI: u32 = 1 << 28;
const CFI_ENABLE: u32 = 1 << 29;
const ADDRESS_VALID: u32 = 1 << 31;
const ETQF_FILTER: u32 = 1 << 31;
const ETQS_QUEUE: u32 = 1 << 31;
const TUPLE_ENABLE: u32 = 1 << 31;

/// Why a frame comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does not.
    Drop,
    /// Its address is one of the card's, or everybody's, or all are let in.
    Exact,
    /// Its address hashes like one that is let in: software has to look (the descriptor's PIF).
    Inexact,
}

/// The address filter's memory: valid station addresses in a row.
#[derive(Debug, Default)]
pub(super) struct Filters {
    stations: Vec<[u8; 6]>,
    stale: bool,
    /// Numbers of the five-tuple filters that are valid, those of higher priority first.
    tuples: Vec<u32>,
    tuples_stale: bool,
}

impl Filters {
    /// Addresses as the registers say.
    pub(super) fn new() -> Self {
        Self { stations: Vec::with_capacity(128), stale: true, tuples: Vec::new(), tuples_stale: true }
    }

    /// An address register was written.
    pub(super) fn addresses_changed(&mut self) {
        self.stale = true;
    }

    #[cold]
    fn collect(&mut self, registers: &Registers) {
        self.stations.clear();
        for n in 0..128 {
            let (low, high) = (registers.get(RAL + 8 * n), registers.get(RAH + 8 * n));
            if high & ADDRESS_VALID != 0 {
                let [a, b, c, d] = low.to_le_bytes();
                let [e, f, ..] = high.to_le_bytes();
                self.stations.push([a, b, c, d, e, f]);
            }
        }
        self.stale = false;
    }

    /// A five-tuple filter was written.
    pub(super) fn tuples_changed(&mut self) {
        self.tuples_stale = true;
    }

    /// The queue of the five-tuple filter that a packet matches, if it does (7.1.2.5): the one of the highest priority, and of those
    /// the first.
    #[inline]
    pub(super) fn five_tuple(
        &mut self,
        registers: &Registers,
        frame: &[u8],
        packet: &Packet,
    ) -> Option<usize> {
        if self.tuples_stale {
            self.tuples = (0..128).filter(|n| registers.has(FTQF + 4 * n, TUPLE_ENABLE)).collect();
            self.tuples.sort_by_key(|n| 7 - (registers.get(FTQF + 4 * n) >> 2 & 7));
            self.tuples_stale = false;
        }
        if self.tuples.is_empty() || packet.network != Some(Network::V4) {
            return None;
        }
        let matching = self.tuples.iter().find(|n| tuple_matches(registers, **n, frame, packet));
        matching.map(|n| (registers.get(L34TIMIR + 4 * n) >> 21 & 0x7f) as usize)
    }

    /// Whether an address is one of the card's.
    #[inline]
    pub(super) fn is_station(&mut self, registers: &Registers, address: &[u8]) -> bool {
        if self.stale {
            self.collect(registers);
        }
        self.stations.iter().any(|station| station[..] == *address)
    }

    /// The address and VLAN filters.
    #[inline]
    pub(super) fn accept(
        &mut self,
        registers: &Registers,
        frame: &[u8],
        cast: Cast,
        packet: &Packet,
    ) -> Verdict {
        if !vlan_passes(registers, packet) {
            return Verdict::Drop;
        }
        let fctrl = registers.get(FCTRL);
        let destination = &frame[..6];
        let passed = |bit: u32| if fctrl & bit != 0 { Verdict::Exact } else { Verdict::Drop };
        match cast {
            Cast::Broadcast => passed(BROADCAST_ACCEPT | MULTICAST_PROMISCUOUS),
            _ if self.is_station(registers, destination) => Verdict::Exact,
            Cast::Multicast if fctrl & MULTICAST_PROMISCUOUS != 0 => Verdict::Exact,
            Cast::Multicast => {
                let on = registers.has(MCSTCTRL, MULTICAST_FILTER);
                if on && in_table(registers, MTA, destination) { Verdict::Inexact } else { Verdict::Drop }
            }
            Cast::Unicast if fctrl & UNICAST_PROMISCUOUS != 0 => Verdict::Exact,
            Cast::Unicast if in_table(registers, PFUTA, destination) => Verdict::Inexact,
            Cast::Unicast => Verdict::Drop,
        }
    }
}

/// Whether an IPv4 packet matches a five-tuple filter. One that is not whole has neither protocol nor ports.
fn tuple_matches(registers: &Registers, n: u32, frame: &[u8], packet: &Packet) -> bool {
    let filter = registers.get(FTQF + 4 * n);
    let word = |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let source = word(packet.l3 + 12) == registers.get(SAQF + 4 * n);
    let destination = word(packet.l3 + 16) == registers.get(DAQF + 4 * n);
    let (ports, protocol) = match packet.transport {
        Some(transport) => {
            let differ = word(packet.l4) ^ registers.get(SDPQF + 4 * n);
            let number = match transport {
                Transport::Tcp => 0,
                Transport::Udp => 1,
                Transport::Sctp => 2,
            };
            ([differ & 0xffff == 0, differ >> 16 == 0], filter & 3 == number)
        }
        None => ([false; 2], !packet.fragment && filter & 3 == 3),
    };
    let fields = [source, destination, ports[0], ports[1], protocol];
    (25..).zip(fields).all(|(ignore, matches)| matches || filter >> ignore & 1 != 0)
}

/// VFTA, and the CFI bit if it is looked at.
#[inline]
fn vlan_passes(registers: &Registers, packet: &Packet) -> bool {
    let Some((_, tag)) = packet.vlan else { return true };
    let vlnctrl = registers.get(VLNCTRL);
    if vlnctrl & VLAN_FILTER == 0 {
        return true;
    }
    let id = tag as u32 & 0xfff;
    let cfi = tag as u32 >> 12 & 1 != 0;
    let cfi_passes = vlnctrl & CFI_ENABLE == 0 || cfi == (vlnctrl & CFI != 0);
    cfi_passes && registers.get(VFTA + 4 * (id >> 5)) >> (id & 31) & 1 != 0
}

/// Whether the 12 bits of an address that MCSTCTRL.MO chooses are set in a table of 4096 bits.
pub(super) fn in_table(registers: &Registers, table: u32, address: &[u8]) -> bool {
    let last = u16::from_le_bytes([address[4], address[5]]) as u32;
    let shift = [4, 3, 2, 0][(registers.get(MCSTCTRL) & 3) as usize];
    let hash = last >> shift & 0xfff;
    registers.get(table + 4 * (hash >> 5)) >> (hash & 31) & 1 != 0
}

/// The Ethertype filter that a packet matches, and the queue it names if it does.
#[inline]
pub(super) fn ethertype(registers: &Registers, packet: &Packet) -> Option<(u32, Option<usize>)> {
    (0..8).find_map(|n| {
        let filter = registers.get(ETQF + 4 * n);
        (filter & ETQF_FILTER != 0 && filter as u16 == packet.ethertype).then(|| {
            let target = registers.get(ETQS + 4 * n);
            (n, (target & ETQS_QUEUE != 0).then_some((target >> 16 & 0x7f) as usize))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATION: [u8; 6] = [0x02, 0x1b, 0x21, 0x82, 0x59, 0x09];

    fn verdict(registers: &Registers, destination: [u8; 6], vlan: Option<u16>) -> Verdict {
        let mut frame = destination.to_vec();
        frame.extend([2; 6]);
        if let Some(tag) = vlan {
            frame.extend([0x81, 0]);
            frame.extend(tag.to_be_bytes());
        }
        frame.extend([0x12, 0x34]);
        frame.resize(60, 0);
        let packet = Packet::parse(&frame, None, 0x8100);
        Filters::new().accept(registers, &frame, Cast::of(&frame), &packet)
    }

    fn card() -> Registers {
        let mut registers = Registers::new();
        registers.set(RAL + 8 * 127, 0x8221_1b02);
        registers.set(RAH + 8 * 127, 0x8000_0959);
        registers
    }

    #[test]
    fn own_address_always_others_when_promiscuous() {
        let mut registers = card();
        assert_eq!(verdict(&registers, STATION, None), Verdict::Exact);
        assert_eq!(verdict(&registers, [2, 0, 0, 0, 0, 1], None), Verdict::Drop);
        registers.set(FCTRL, UNICAST_PROMISCUOUS);
        assert_eq!(verdict(&registers, [2, 0, 0, 0, 0, 1], None), Verdict::Exact);
        registers.set(RAH + 8 * 127, 0x0959);
        registers.set(FCTRL, 0);
        assert_eq!(verdict(&registers, STATION, None), Verdict::Drop);
    }

    #[test]
    fn groups_by_hash_under_every_offset() {
        let group = [0x01, 0x00, 0x5e, 0x00, 0x5a, 0xc3];
        for (mo, hash) in [(0u32, 0xc35u32), (1, 0x86b), (2, 0x0d6), (3, 0x35a)] {
            let mut registers = card();
            assert_eq!(verdict(&registers, group, None), Verdict::Drop);
            registers.set(MTA + 4 * (hash >> 5), 1 << (hash & 31));
            registers.set(MCSTCTRL, mo);
            assert_eq!(verdict(&registers, group, None), Verdict::Drop, "MFE is off");
            registers.set(MCSTCTRL, mo | MULTICAST_FILTER);
            assert_eq!(verdict(&registers, group, None), Verdict::Inexact, "MO {mo}");
        }
        let mut registers = card();
        registers.set(FCTRL, MULTICAST_PROMISCUOUS);
        assert_eq!(verdict(&registers, group, None), Verdict::Exact);
    }

    #[test]
    fn broadcast_when_accepted() {
        let mut registers = card();
        assert_eq!(verdict(&registers, [0xff; 6], None), Verdict::Drop);
        registers.set(FCTRL, BROADCAST_ACCEPT);
        assert_eq!(verdict(&registers, [0xff; 6], None), Verdict::Exact);
    }

    #[test]
    fn vlans_in_the_table_only() {
        let mut registers = card();
        assert_eq!(verdict(&registers, STATION, Some(100)), Verdict::Exact);
        registers.set(VLNCTRL, 0x8100 | VLAN_FILTER);
        assert_eq!(verdict(&registers, STATION, Some(100)), Verdict::Drop);
        registers.set(VFTA + 4 * 3, 1 << 4);
        assert_eq!(verdict(&registers, STATION, Some(0x6000 | 100)), Verdict::Exact);
        assert_eq!(verdict(&registers, STATION, Some(101)), Verdict::Drop);
        assert_eq!(verdict(&registers, STATION, None), Verdict::Exact);
    }
}
