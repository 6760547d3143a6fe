//! Descriptor formats: advanced receive with one buffer (section 7.1.6), advanced data and context transmit (7.2.3.2.3 and
//! 7.2.3.2.4). Each is two little-endian 64-bit words.

use pagewire_ethdev::nic::{Encoded, L4, Request, RxFormat, TxFormat};
use pagewire_ethdev::{Packet, PacketFlags, RxOffloads};

/// Advanced receive descriptor.
pub struct RxAdvanced;

/// Receive descriptor as written back.
mod rx {
    /// Word 0: what the hash in its upper half is of, 0 if there is none.
    pub(super) const RSS_TYPE: u64 = 0xf;
    /// Word 0: UDP.
    pub(super) const UDP: u64 = 1 << 9;
    pub(super) const DD: u64 = 1 << 0;
    pub(super) const EOP: u64 = 1 << 1;
    pub(super) const VP: u64 = 1 << 3;
    pub(super) const L4CS: u64 = 1 << 5;
    pub(super) const IPCS: u64 = 1 << 6;
    pub(super) const RXE: u64 = 1 << 29;
    pub(super) const L4E: u64 = 1 << 30;
    pub(super) const IPE: u64 = 1 << 31;
}

impl RxFormat for RxAdvanced {
    const DONE: u64 = rx::DD;
    const END: u64 = rx::EOP;
    const BROKEN: u64 = rx::RXE;

    #[inline(always)]
    fn len(word: u64) -> u16 {
        (word >> 32) as u16
    }

    #[inline(always)]
    fn describe([kind, status]: [u64; 2], offloads: RxOffloads, packet: &mut Packet) {
        let mut flags = PacketFlags::empty();
        if status & rx::IPCS != 0 && offloads.contains(RxOffloads::IP_CSUM) {
            let bad = status & rx::IPE != 0;
            flags |= if bad { PacketFlags::RX_IP_CSUM_BAD } else { PacketFlags::RX_IP_CSUM_GOOD };
        }
        if status & rx::L4CS != 0 && offloads.contains(RxOffloads::L4_CSUM) {
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
        if kind & rx::RSS_TYPE != 0 {
            flags |= PacketFlags::RX_RSS_HASH;
            packet.set_rss_hash((kind >> 32) as u32);
        }
        packet.set_rx_flags(flags);
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
    pub(super) const IXSM: u64 = 1 << 40;
    pub(super) const TXSM: u64 = 1 << 41;
    pub(super) const PAYLEN_SHIFT: u32 = 46;
    /// Context: the network header is IPv4's; the transport header is TCP's rather than UDP's.
    pub(super) const IPV4: u64 = 1 << 10;
    pub(super) const L4T_TCP: u64 = 1 << 11;
}

/// Limits of MACLEN and IPLEN in a context.
const MAX_MACLEN: u16 = 0x7f;
const MAX_IPLEN: u16 = 0x1ff;
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

    #[inline(always)]
    fn data(len: u16, packet: usize) -> u64 {
        u64::from(len) | tx::DATA | tx::DEXT | tx::IFCS | (packet as u64) << tx::PAYLEN_SHIFT
    }

    fn encode(request: &Request) -> Option<Encoded> {
        let maclen = if request.l2_len == 0 { ETHERNET } else { request.l2_len };
        if maclen > MAX_MACLEN || request.l3_len > MAX_IPLEN {
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
        if request.l4 == L4::Tcp {
            kind |= tx::L4T_TCP;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_say_where_the_headers_are() {
        let request = Request { l2_len: 18, l3_len: 20, ip_csum: true, l4: L4::Tcp, vlan: Some(0x6123) };
        let Some(Encoded { options, context: Some([lengths, kind]) }) = TxAdvanced::encode(&request) else {
            panic!("{request:?} can be encoded");
        };
        assert_eq!(lengths, 0x6123 << 16 | 18 << 9 | 20);
        assert_eq!(kind, 1 << 29 | 2 << 20 | 1 << 11 | 1 << 10);
        assert_eq!(options, 1 << 30 | 1 << 40 | 1 << 41);
        let udp = Request { l4: L4::Udp, vlan: None, ip_csum: false, l2_len: 14, ..request };
        let tag = Request { l2_len: 0, l3_len: 0, ip_csum: false, l4: L4::None, vlan: Some(5) };
        for (request, lengths, options) in [(udp, 14 << 9 | 20, 1 << 41), (tag, 5 << 16 | 14 << 9, 1 << 30)] {
            let context = Some([lengths, 1 << 29 | 2 << 20]);
            assert_eq!(TxAdvanced::encode(&request), Some(Encoded { options, context }));
        }
        for beyond in [Request { l2_len: 0x80, ..request }, Request { l3_len: 0x200, ..request }] {
            assert_eq!(TxAdvanced::encode(&beyond), None);
        }
    }

    #[test]
    fn the_longest_packet_fits_its_field() {
        assert_eq!(TxAdvanced::data(u16::MAX, (1 << 18) - 1) >> 46, (1 << 18) - 1);
        assert_eq!(TxAdvanced::data(60, 60), 60 << 46 | 1 << 29 | 1 << 25 | 3 << 20 | 60);
    }
}
