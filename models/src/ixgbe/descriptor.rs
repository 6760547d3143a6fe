//! What the card writes into receive descriptors, advanced and legacy (82599 datasheet 7.1.5, 7.1.6, 7.1.10).

use super::packet::{Network, Packet, Transport};
use super::registers::Registers;
use super::rss::Hash;
use super::table::PSRTYPE;

const DONE: u32 = 1 << 0;
const END: u32 = 1 << 1;
const VLAN: u32 = 1 << 3;
const UDP_CHECKED: u32 = 1 << 4;
const L4_CHECKED: u32 = 1 << 5;
const IP_CHECKED: u32 = 1 << 6;
const INEXACT: u32 = 1 << 7;
const OUTER_VLAN: u32 = 1 << 9;
const HEADER_OVERFLOW: u32 = 1 << 23;
const L4_ERROR: u32 = 1 << 30;
const IP_ERROR: u32 = 1 << 31;
const SPLIT: u32 = 1 << 31;
const ETHERTYPE_FILTER: u32 = 1 << 11;

const SPLIT_TCP: u32 = 1 << 4;
const SPLIT_UDP: u32 = 1 << 5;
const SPLIT_V4: u32 = 1 << 8;
const SPLIT_V6: u32 = 1 << 9;
const SPLIT_L2: u32 = 1 << 12;

/// SRRCTL.DESCTYPE.
fn kind(srrctl: u32) -> u32 {
    srrctl >> 25 & 7
}

/// Bytes of a packet buffer, from SRRCTL.BSIZEPACKET.
pub(super) fn buffer_size(srrctl: u32) -> usize {
    ((srrctl & 0x1f).max(1) as usize) << 10
}

/// Whether SRRCTL.DESCTYPE is not legacy.
pub(super) fn is_advanced(srrctl: u32) -> bool {
    kind(srrctl) != 0
}

/// Bytes of a header buffer, from SRRCTL.BSIZEHEADER.
fn header_size(srrctl: u32) -> usize {
    ((srrctl >> 8 & 0x3f) as usize) << 6
}

/// What goes to the header buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitKind {
    /// Nothing.
    None,
    /// A header of so many bytes.
    Header(usize),
    /// No header was found, so as much as fits.
    Fill(usize),
    /// Nothing: the header of so many bytes is longer than the buffer.
    Overflow(usize),
}

impl SplitKind {
    /// Bytes in the header buffer, of a packet of `data` bytes.
    pub(super) fn header_bytes(self, data: usize) -> usize {
        match self {
            Self::None | Self::Overflow(_) => 0,
            Self::Header(length) | Self::Fill(length) => length.min(data),
        }
    }
}

/// Where a packet is split (7.1.10), of whose header so many bytes are taken out.
pub(super) fn split(registers: &Registers, srrctl: u32, packet: &Packet, taken_out: usize) -> SplitKind {
    let kind = kind(srrctl);
    if kind != 2 && kind != 5 {
        return SplitKind::None;
    }
    let size = header_size(srrctl);
    let types = registers.get(PSRTYPE);
    let has = |bit| types & bit != 0;
    let length = match (packet.network, packet.transport) {
        (_, Some(Transport::Tcp)) if has(SPLIT_TCP) => packet.payload,
        (_, Some(Transport::Udp)) if has(SPLIT_UDP) => packet.payload,
        (Some(Network::V4), _) if has(SPLIT_V4) => packet.l4,
        (Some(Network::V6), _) if has(SPLIT_V6) => packet.l4,
        _ if has(SPLIT_L2) => packet.l3,
        _ => 0,
    };
    match length.saturating_sub(taken_out) {
        0 if kind == 5 => SplitKind::Fill(size),
        0 => SplitKind::None,
        length if length <= size => SplitKind::Header(length),
        _ if kind == 5 => SplitKind::Fill(size),
        length => SplitKind::Overflow(length),
    }
}

/// A packet's descriptors, in the making: the words of the last one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    info: u32,
    second: u32,
    status: u32,
    tag: u16,
    stripped: bool,
}

impl Written {
    /// Packet type, hash, checksums.
    pub(super) fn describe(&mut self, packet: &Packet, hash: Hash, filter: Option<u32>, frame: &[u8]) {
        let kind = match filter {
            Some(n) => ETHERTYPE_FILTER | n,
            None => packet.descriptor_type(),
        };
        self.info = kind << 4 | hash.kind;
        self.second = hash.value;
        if let Some(right) = packet.check_network(frame) {
            self.status |= IP_CHECKED | if right { 0 } else { IP_ERROR };
        }
        if let Some(right) = packet.check_transport(frame) {
            let udp = if packet.transport == Some(Transport::Udp) { UDP_CHECKED } else { 0 };
            self.status |= L4_CHECKED | udp | if right { 0 } else { L4_ERROR };
        }
    }

    /// The packet passed a filter that lets others in too.
    pub(super) fn inexact(&mut self) {
        self.status |= INEXACT;
    }

    /// RXCSUM.PCSD is clear: IP identification, in place of the hash.
    pub(super) fn identification(&mut self, packet: &Packet, frame: &[u8]) {
        self.second = match packet.network {
            Some(Network::V4) => u16::from_be_bytes([frame[packet.l3 + 4], frame[packet.l3 + 5]]) as u32,
            _ => 0,
        };
    }

    /// The tag was taken out.
    pub(super) fn vlan(&mut self, tag: u16, outer: bool) {
        self.tag = tag;
        self.stripped = true;
        self.vlan_left(outer);
    }

    /// The packet has a tag.
    pub(super) fn vlan_left(&mut self, outer: bool) {
        self.status |= VLAN | if outer { OUTER_VLAN } else { 0 };
    }

    /// One descriptor's two words: of the packet's, the one that holds so many bytes of header and data.
    /// `address` is the one that was in it, which a legacy descriptor keeps.
    pub(super) fn words(
        &self,
        address: u64,
        srrctl: u32,
        split: SplitKind,
        (header, data): (usize, usize),
        last: bool,
    ) -> [u64; 2] {
        let status = if last { self.status | END } else { 0 } | DONE;
        let tag = if last && self.stripped { self.tag as u64 } else { 0 };
        if kind(srrctl) == 0 {
            let errors = status >> 24 & 0xc0;
            return [
                address,
                data as u64 | ((status & 0xff) as u64) << 32 | (errors as u64) << 40 | tag << 48,
            ];
        }
        let (length, overflow) = match split {
            SplitKind::None => (0, false),
            SplitKind::Header(_) | SplitKind::Fill(_) => (header, false),
            SplitKind::Overflow(length) => (length, true),
        };
        let mut info = self.info | (length as u32 & 0x3ff) << 21;
        if matches!(split, SplitKind::Header(_) | SplitKind::Overflow(_)) {
            info |= SPLIT;
        }
        let status = status | if overflow { HEADER_OVERFLOW } else { 0 };
        [info as u64 | (self.second as u64) << 32, status as u64 | (data as u64) << 32 | tag << 48]
    }
}
