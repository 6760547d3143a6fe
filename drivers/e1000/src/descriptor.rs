//! Descriptor formats: extended receive (section 7.1.5), extended data and context transmit (section 7.2).
//!
//! Each is two little-endian 64-bit words.

use pagewire_ethdev::nic::{Encoded, L4, Request, RxFormat, TxFormat};
use pagewire_ethdev::{Packet, PacketFlags, RxOffloads};

/// Extended receive descriptor.
pub struct ExtendedRx;

const VP: u64 = 1 << 3;
const UDPCS: u64 = 1 << 4;
const TCPCS: u64 = 1 << 5;
const IPCS: u64 = 1 << 6;
const TCPE: u64 = 1 << 29;
const IPE: u64 = 1 << 30;

impl RxFormat for ExtendedRx {
    const DONE: u64 = 1 << 0;
    const END: u64 = 1 << 1;
    /// Frame check sequence, symbol, sequence, carrier extension or receive data error.
    const BROKEN: u64 = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31;

    /// TCPE stands for UDP as well.
    #[inline(always)]
    fn describe([_, word]: [u64; 2], offloads: RxOffloads, packet: &mut Packet) {
        let mut flags = PacketFlags::empty();
        if word & IPCS != 0 {
            let bad = word & IPE != 0;
            flags |= if bad { PacketFlags::RX_IP_CSUM_BAD } else { PacketFlags::RX_IP_CSUM_GOOD };
        }
        if word & (TCPCS | UDPCS) != 0 {
            let bad = word & TCPE != 0;
            flags |= if bad { PacketFlags::RX_L4_CSUM_BAD } else { PacketFlags::RX_L4_CSUM_GOOD };
        }
        if word & VP != 0 && offloads.contains(RxOffloads::VLAN_STRIP) {
            flags |= PacketFlags::RX_VLAN_STRIPPED;
            packet.set_vlan_tci((word >> 48) as u16);
        }
        packet.set_rx_flags(flags);
    }
}

/// Extended transmit descriptor.
pub struct ExtendedTx;

/// Insert the VLAN tag in the top 16 bits.
const VLE: u64 = 1 << 30;
/// Fill in the IPv4 header checksum as the context says.
const IXSM: u64 = 1 << 40;
/// Fill in the TCP or UDP checksum as the context says.
const TXSM: u64 = 1 << 41;

impl TxFormat for ExtendedTx {
    const DONE: u64 = 1 << 32;
    const END: u64 = 1 << 24;
    const REPORT: u64 = 1 << 27;
    /// It pads from there to 60.
    const SHORTEST: usize = 17;
    const MAX_DATA: usize = 0xffff;
    /// The datasheet knows no limit.
    const MAX_DESCRIPTORS: u32 = u32::MAX;
    /// The driver does not have it cut packets.
    const MAX_SEGMENTED: usize = 0;
    const SECOND_CONTEXT: u64 = 0;
    /// Extended (DEXT), of data type; the card appends the frame check sequence.
    const DATA: u64 = 1 << 29 | 1 << 20 | 1 << 25;
    const PACKET_LEN: u32 = 64;

    fn encode(request: &Request) -> Option<Encoded> {
        let mut options = request.vlan.map_or(0, |tci| VLE | u64::from(tci) << 48);
        if request.ip_csum {
            options |= IXSM;
        }
        if request.l4 != L4::None {
            options |= TXSM;
        }
        let context = match options & (IXSM | TXSM) {
            0 => None,
            _ => Some(context(request.l2_len, request.l3_len, request.l4)?),
        };
        Some(Encoded { options, context })
    }

    /// The context once more, or one for plain IPv4 in Ethernet if there is none: it changes nothing.
    fn report(last: Option<[u64; 2]>) -> [u64; 2] {
        let [offsets, command] = last.unwrap_or(PLAIN_CONTEXT);
        [offsets, command | Self::REPORT]
    }
}

const PLAIN_CONTEXT: [u64; 2] = context_words(14, 34, 0, 0);

/// Where the checksums of the packets that follow are. The IPv4 checksum is 10 bytes into its header, TCP's 16, UDP's 6.
/// `None` unless every offset fits its field: they are bytes.
fn context(l2_len: u16, l3_len: u16, l4: L4) -> Option<[u64; 2]> {
    let l4_start = l2_len.checked_add(l3_len).filter(|start| *start <= 0xff - 16)?;
    let (l4_offset, tcp) = match l4 {
        L4::None => (0, 0),
        L4::Tcp => (l4_start + 16, 1 << 24),
        L4::Udp => (l4_start + 6, 0),
        // Not offered: it makes no CRC-32C.
        L4::Sctp => return None,
    };
    Some(context_words(l2_len as u64, l4_start as u64, l4_offset as u64, tcp))
}

const fn context_words(ip_start: u64, l4_start: u64, l4_offset: u64, options: u64) -> [u64; 2] {
    let ip = ip_start | (ip_start + 10) << 8 | l4_start.saturating_sub(1) << 16;
    let l4 = l4_start << 32 | l4_offset << 40;
    // Extended (DEXT), of context type.
    [ip | l4, 1 << 29 | options]
}
