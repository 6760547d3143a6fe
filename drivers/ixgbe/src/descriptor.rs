//! Descriptor formats: advanced receive with one buffer or two (section 7.1.6), advanced data and context transmit (7.2.3.2.3 and
//! 7.2.3.2.4). Each is two little-endian 64-bit words.

use pagewire_ethdev::nic::{Encoded, L4, Request, RxFormat, TxFormat};
use pagewire_ethdev::{Packet, PacketFlags, PacketType, RssTypes, RxOffloads};

/// Advanced receive descriptor.
pub struct RxAdvanced;

/// Receive descriptor as written back.
mod rx {
    /// Word 0: what the hash in its upper half is of, 0 if there is none.
    pub(super) const RSS_TYPE: u64 = 0xf;
    /// Word 0: the headers that were found (7.1.6.2), in the order of `PacketType`; that the bits are something else.
    pub(super) const TYPE_SHIFT: u32 = 4;
    pub(super) const TYPE: u64 = 0x7f << TYPE_SHIFT;
    pub(super) const UDP: u64 = 1 << 9;
    pub(super) const SCTP: u64 = 1 << 10;
    pub(super) const BY_ETHERTYPE: u64 = 1 << 15;
    /// Word 0: segments of a coalesced packet that begin in the descriptor; 0 in others.
    pub(super) const RSCCNT: u64 = 0xf << 17;
    /// Word 1, of a coalesced packet's descriptors but the last: the next.
    pub(super) const NEXTP_SHIFT: u32 = 4;
    pub(super) const NEXTP: u64 = 0xffff;
    /// Word 0: bytes of the header; that it was split off.
    pub(super) const HDR_LEN_SHIFT: u32 = 21;
    pub(super) const HDR_LEN: u64 = 0x3ff;
    pub(super) const SPH: u64 = 1 << 31;
    pub(super) const DD: u64 = 1 << 0;
    pub(super) const EOP: u64 = 1 << 1;
    pub(super) const VP: u64 = 1 << 3;
    pub(super) const L4CS: u64 = 1 << 5;
    pub(super) const IPCS: u64 = 1 << 6;
    /// The header is longer than its buffer.
    pub(super) const HBO: u64 = 1 << 23;
    pub(super) const RXE: u64 = 1 << 29;
    pub(super) const L4E: u64 = 1 << 30;
    pub(super) const IPE: u64 = 1 << 31;
}

/// What a hash is of, by the descriptor's RSS type (7.1.6.2). Those of IPv6 with the addresses of extensions are not asked for.
const RSS_TYPES: [RssTypes; 16] = {
    let mut types = [RssTypes::empty(); 16];
    types[1] = RssTypes::TCP_IPV4;
    types[2] = RssTypes::IPV4;
    types[3] = RssTypes::TCP_IPV6;
    types[5] = RssTypes::IPV6;
    types[7] = RssTypes::UDP_IPV4;
    types[8] = RssTypes::UDP_IPV6;
    types
};
/// The packet type's bits need no table.
const _: () = assert!(PacketType::all().bits() as u64 == rx::TYPE >> rx::TYPE_SHIFT);

impl RxFormat for RxAdvanced {
    const DONE: u64 = rx::DD;
    const END: u64 = rx::EOP;
    const BROKEN: u64 = rx::RXE;

    #[inline(always)]
    fn describe([kind, status]: [u64; 2], offloads: RxOffloads, packet: &mut Packet) {
        let mut flags = PacketFlags::empty();
        if status & rx::IPCS != 0 && offloads.contains(RxOffloads::IP_CSUM) {
            let bad = status & rx::IPE != 0;
            flags |= if bad { PacketFlags::RX_IP_CSUM_BAD } else { PacketFlags::RX_IP_CSUM_GOOD };
        }
        let l4 = if kind & rx::SCTP != 0 { RxOffloads::SCTP_CSUM } else { RxOffloads::L4_CSUM };
        if status & rx::L4CS != 0 && offloads.contains(l4) {
            match status & rx::L4E != 0 {
                false => flags |= PacketFlags::RX_L4_CSUM_GOOD,
                // Of UDP it is not known: the card may take datagrams without checksum for bad ones (specification update).
                true if kind & rx::UDP != 0 => {}
                true => flags |= PacketFlags::RX_L4_CSUM_BAD,
            }
        }
        // It says that there was a tag, taken out or not.
        if status & rx::VP != 0 && offloads.contains(RxOffloads::VLAN_STRIP) {
            flags |= PacketFlags::RX_VLAN_STRIPPED;
            packet.set_vlan_tci((status >> 48) as u16);
        }
        if kind & rx::RSS_TYPE != 0 && offloads.contains(RxOffloads::RSS_HASH) {
            flags |= PacketFlags::RX_RSS_HASH;
            packet.set_rss_hash((kind >> 32) as u32, RSS_TYPES[(kind & rx::RSS_TYPE) as usize]);
        }
        if offloads.contains(RxOffloads::PACKET_TYPE) {
            flags |= PacketFlags::RX_PACKET_TYPE;
            let found = if kind & rx::BY_ETHERTYPE == 0 { kind & rx::TYPE } else { 0 };
            packet.set_packet_type(PacketType::from_bits_retain((found >> rx::TYPE_SHIFT) as u16));
        }
        if kind & rx::RSCCNT != 0 && offloads.contains(RxOffloads::LRO) {
            flags |= PacketFlags::RX_LRO;
        }
        packet.set_rx_flags(flags);
    }

    /// HDR_LEN (7.1.6.2): what was split off, unless it was too long for its buffer.
    fn header([kind, status]: [u64; 2]) -> u16 {
        match kind & rx::SPH != 0 && status & rx::HBO == 0 {
            true => (kind >> rx::HDR_LEN_SHIFT & rx::HDR_LEN) as u16,
            false => 0,
        }
    }

    /// NEXTP, valid if the packet is a coalesced one (7.1.6.2, 7.11).
    fn goes_on([kind, status]: [u64; 2]) -> Option<u32> {
        let valid = kind & rx::RSCCNT != 0 && status & rx::EOP == 0;
        valid.then_some((status >> rx::NEXTP_SHIFT & rx::NEXTP) as u32)
    }
}

/// Advanced transmit descriptors.
pub struct TxAdvanced;

/// Transmit descriptors, word 1.
mod tx {
    pub(super) const CONTEXT: u64 = 2 << 20;
    pub(super) const DATA: u64 = 3 << 20;
    pub(super) const EOP: u64 = 1 << 24;
    /// The card appends the frame check sequence.
    pub(super) const IFCS: u64 = 1 << 25;
    pub(super) const RS: u64 = 1 << 27;
    /// The descriptor is an advanced one.
    pub(super) const DEXT: u64 = 1 << 29;
    pub(super) const VLE: u64 = 1 << 30;
    pub(super) const DD: u64 = 1 << 32;
    /// Check context: the packet relies on one.
    pub(super) const CC: u64 = 1 << 39;
    pub(super) const IXSM: u64 = 1 << 40;
    pub(super) const TXSM: u64 = 1 << 41;
    /// The packet is cut into segments.
    pub(super) const TSE: u64 = 1 << 31;
    /// Context: the network header is IPv4's; the transport header is TCP's or SCTP's rather than UDP's; its length; a segment's
    /// payload.
    pub(super) const IPV4: u64 = 1 << 10;
    pub(super) const L4T_TCP: u64 = 1 << 11;
    pub(super) const L4T_SCTP: u64 = 2 << 11;
    pub(super) const L4LEN_SHIFT: u32 = 40;
    pub(super) const MSS_SHIFT: u32 = 48;
}

/// Limits of MACLEN, IPLEN and L4LEN in a context, and of the three together (7.2.3.2.3).
const MAX_MACLEN: u16 = 0x7f;
const MAX_IPLEN: u16 = 0x1ff;
const MAX_L4LEN: u16 = 0xff;
const MAX_HEADERS: u16 = 511;
/// MACLEN where there is only a tag to insert.
const ETHERNET: u16 = 14;

impl TxFormat for TxAdvanced {
    const DONE: u64 = tx::DD;
    const END: u64 = tx::EOP;
    const REPORT: u64 = tx::RS;
    /// What drivers of the card pad to, at least; the card pads the rest (HLREG0.TXPADEN).
    const SHORTEST: usize = 17;
    /// 15.5 KiB (section 7.2.3.2.2).
    const MAX_DATA: usize = 15872;
    /// 40 less WTHRESH, which is 0, less 2 (section 7.2.1.1).
    const MAX_DESCRIPTORS: u32 = 38;
    /// What PAYLEN can tell (7.2.3.2.4).
    const MAX_SEGMENTED: usize = (1 << 18) - 1;
    /// IDX: a queue has two contexts (7.2.3.2.3).
    const SECOND_CONTEXT: u64 = 1 << 36;
    const DATA: u64 = tx::DATA | tx::DEXT | tx::IFCS;
    /// PAYLEN (7.2.3.2.4).
    const PACKET_LEN: u32 = 46;

    fn encode(request: &Request) -> Option<Encoded> {
        let maclen = if request.l2_len == 0 { ETHERNET } else { request.l2_len };
        // Headers are in one packet: their sum does not overflow.
        let headers = maclen.checked_add(request.l3_len)?.checked_add(request.l4_len)?;
        if maclen > MAX_MACLEN
            || request.l3_len > MAX_IPLEN
            || request.l4_len > MAX_L4LEN
            || headers > MAX_HEADERS
        {
            return None;
        }
        let mut options = 0;
        let mut kind = tx::CONTEXT | tx::DEXT;
        if request.ip_csum {
            options |= tx::IXSM;
            kind |= tx::IPV4;
        }
        if request.l4 != L4::None {
            options |= tx::TXSM;
        }
        kind |= match request.l4 {
            L4::None | L4::Udp => 0,
            L4::Tcp => tx::L4T_TCP,
            L4::Sctp => tx::L4T_SCTP,
        };
        if request.mss != 0 {
            options |= tx::TSE;
            kind |= u64::from(request.l4_len) << tx::L4LEN_SHIFT | u64::from(request.mss) << tx::MSS_SHIFT;
        }
        if request.vlan.is_some() {
            options |= tx::VLE;
        }
        let vlan = u64::from(request.vlan.unwrap_or(0)) << 16;
        let lengths = u64::from(request.l3_len) | u64::from(maclen) << 9;
        Some(Encoded { options, context: Some([lengths | vlan, kind]) })
    }

    /// A legacy descriptor of no length, which may stand between packets (*82598 Datasheet*, 3.5.3.3.1.1; the 82599's section on legacy
    /// descriptors was not to be had). Seen to work on the model only: should a card not report it, an idle ring keeps up to 31
    /// packets until there is traffic again, whose every 32nd descriptor reports.
    fn report(_context: Option<[u64; 2]>) -> [u64; 2] {
        [0, tx::EOP | tx::RS]
    }
}

/// A virtual function's advanced transmit descriptors: each packet relies on a context, by which the card's switch knows where its headers
/// are. So Intel's drivers have it, in Linux and DPDK.
pub struct TxSwitched;

impl TxFormat for TxSwitched {
    const DONE: u64 = TxAdvanced::DONE;
    const END: u64 = TxAdvanced::END;
    const REPORT: u64 = TxAdvanced::REPORT;
    const SHORTEST: usize = TxAdvanced::SHORTEST;
    const MAX_DATA: usize = TxAdvanced::MAX_DATA;
    const MAX_DESCRIPTORS: u32 = TxAdvanced::MAX_DESCRIPTORS;
    const MAX_SEGMENTED: usize = TxAdvanced::MAX_SEGMENTED;
    const SECOND_CONTEXT: u64 = TxAdvanced::SECOND_CONTEXT;
    const FIRST_CONTEXT: Option<[u64; 2]> = Some([(ETHERNET as u64) << 9, tx::CONTEXT | tx::DEXT]);
    const DATA: u64 = TxAdvanced::DATA | tx::CC;
    const PACKET_LEN: u32 = TxAdvanced::PACKET_LEN;

    fn encode(request: &Request) -> Option<Encoded> {
        TxAdvanced::encode(request)
    }

    fn report(context: Option<[u64; 2]>) -> [u64; 2] {
        TxAdvanced::report(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_say_where_the_headers_are() {
        let request = Request {
            l2_len: 18,
            l3_len: 20,
            l4_len: 0,
            mss: 0,
            ip_csum: true,
            l4: L4::Tcp,
            vlan: Some(0x6123),
        };
        let Some(Encoded { options, context: Some([lengths, kind]) }) = TxAdvanced::encode(&request) else {
            panic!("{request:?} can be encoded");
        };
        assert_eq!(lengths, 0x6123 << 16 | 18 << 9 | 20);
        assert_eq!(kind, 1 << 29 | 2 << 20 | 1 << 11 | 1 << 10);
        assert_eq!(options, 1 << 30 | 1 << 40 | 1 << 41);
        let udp = Request { l4: L4::Udp, vlan: None, ip_csum: false, l2_len: 14, ..request };
        let tag = Request { l2_len: 0, l3_len: 0, l4: L4::None, vlan: Some(5), ..udp };
        for (request, lengths, options) in [(udp, 14 << 9 | 20, 1 << 41), (tag, 5 << 16 | 14 << 9, 1 << 30)] {
            let context = Some([lengths, 1 << 29 | 2 << 20]);
            assert_eq!(TxAdvanced::encode(&request), Some(Encoded { options, context }));
        }
        let segmented = Request { l4_len: 32, mss: 1448, vlan: None, ..request };
        assert_eq!(
            TxAdvanced::encode(&segmented),
            Some(Encoded {
                options: 1 << 31 | 1 << 40 | 1 << 41,
                context: Some([18 << 9 | 20, 1448 << 48 | 32 << 40 | 1 << 29 | 2 << 20 | 1 << 11 | 1 << 10]),
            })
        );
        let sctp = Request { l4: L4::Sctp, l3_len: 40, ..udp };
        let context = Some([14 << 9 | 40, 1 << 29 | 2 << 20 | 2 << 11]);
        assert_eq!(TxAdvanced::encode(&sctp), Some(Encoded { options: 1 << 41, context }));
        for beyond in [
            Request { l2_len: 0x80, ..request },
            Request { l3_len: 0x200, ..request },
            Request { l4_len: 0x100, ..segmented },
            Request { l2_len: 0x7f, l3_len: 0x180, l4_len: 1, ..segmented },
        ] {
            assert_eq!(TxAdvanced::encode(&beyond), None);
        }
    }

    #[test]
    fn the_longest_packet_fits_its_field() {
        assert_eq!(TxAdvanced::data(u16::MAX, (1 << 18) - 1) >> 46, (1 << 18) - 1);
        assert_eq!(TxAdvanced::data(60, 60), 60 << 46 | 1 << 29 | 1 << 25 | 3 << 20 | 60);
    }
}
