//! Descriptor formats: extended receive (section 7.1.5), extended data and context transmit (section 7.2).
//!
//! Each is two little-endian 64-bit words.

use pagewire_ethdev::PacketFlags;

/// Extended receive descriptor: word 0 is the buffer's address when posted, word 1 zero; the card writes both.
pub(crate) mod rx {
    use super::PacketFlags;

    /// Word 1: descriptor done.
    pub(crate) const DD: u64 = 1 << 0;
    /// Word 1: end of packet.
    pub(crate) const EOP: u64 = 1 << 1;
    const VP: u64 = 1 << 3;
    const UDPCS: u64 = 1 << 4;
    const TCPCS: u64 = 1 << 5;
    const IPCS: u64 = 1 << 6;
    const TCPE: u64 = 1 << 29;
    const IPE: u64 = 1 << 30;
    /// Word 1: frame check sequence, symbol, sequence, carrier extension or receive data error: the frame is broken.
    pub(crate) const BROKEN: u64 = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31;
    /// Word 1: anything that [`flags`] translates.
    pub(crate) const METADATA: u64 = VP | UDPCS | TCPCS | IPCS | TCPE | IPE;

    /// Bytes the card wrote into the buffer.
    #[inline(always)]
    pub(crate) fn len(word: u64) -> u16 {
        (word >> 32) as u16
    }

    /// The tag that was stripped, if `flags` says so.
    #[inline(always)]
    pub(crate) fn vlan_tci(word: u64) -> u16 {
        (word >> 48) as u16
    }

    /// What the card found out about the packet. TCPE stands for UDP as well.
    pub(crate) fn flags(word: u64) -> PacketFlags {
        let mut flags = PacketFlags::empty();
        if word & IPCS != 0 {
            let bad = word & IPE != 0;
            flags |= if bad { PacketFlags::RX_IP_CSUM_BAD } else { PacketFlags::RX_IP_CSUM_GOOD };
        }
        if word & (TCPCS | UDPCS) != 0 {
            let bad = word & TCPE != 0;
            flags |= if bad { PacketFlags::RX_L4_CSUM_BAD } else { PacketFlags::RX_L4_CSUM_GOOD };
        }
        if word & VP != 0 {
            flags |= PacketFlags::RX_VLAN_STRIPPED;
        }
        flags
    }
}

/// Transmit descriptors. In data descriptors word 0 is the buffer's address.
pub(crate) mod tx {
    /// Word 1 of a data descriptor: extended, of data type.
    pub(crate) const DATA: u64 = 1 << 29 | 1 << 20;
    /// Word 1: last descriptor of the packet.
    pub(crate) const EOP: u64 = 1 << 24;
    /// Word 1: the card appends the frame check sequence.
    pub(crate) const IFCS: u64 = 1 << 25;
    /// Word 1: report status, that is set [`DD`] when done.
    pub(crate) const RS: u64 = 1 << 27;
    /// Word 1: insert the VLAN tag in the top 16 bits.
    pub(crate) const VLE: u64 = 1 << 30;
    /// Word 1: descriptor done.
    pub(crate) const DD: u64 = 1 << 32;
    /// Word 1: fill in the IPv4 header checksum as the context says.
    pub(crate) const IXSM: u64 = 1 << 40;
    /// Word 1: fill in the TCP or UDP checksum as the context says.
    pub(crate) const TXSM: u64 = 1 << 41;
    /// Bytes that one data descriptor can send.
    pub(crate) const MAX_DATA: usize = 0xffff;

    /// The VLAN tag's place in word 1.
    pub(crate) fn vlan(tci: u16) -> u64 {
        u64::from(tci) << 48
    }

    /// Where the checksums of the packets that follow are.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Context {
        pub(crate) l2_len: u8,
        pub(crate) l3_len: u8,
        pub(crate) l4: L4,
    }

    /// Layer-4 protocol whose checksum is filled in.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum L4 {
        None,
        Tcp,
        Udp,
    }

    impl Context {
        /// For when there has to be one and no packet asks for anything: plain IPv4 in Ethernet.
        pub(crate) const NONE: Context = Context { l2_len: 14, l3_len: 20, l4: L4::None };

        /// The context descriptor's words. The IPv4 checksum is 10 bytes into its header, TCP's 16, UDP's 6.
        pub(crate) fn words(self) -> [u64; 2] {
            let ip_start = u64::from(self.l2_len);
            let l4_start = ip_start + u64::from(self.l3_len);
            let l4_offset = match self.l4 {
                L4::None => 0,
                L4::Tcp => l4_start + 16,
                L4::Udp => l4_start + 6,
            };
            let ip = ip_start | (ip_start + 10) << 8 | (l4_start.saturating_sub(1)) << 16;
            let l4 = l4_start << 32 | l4_offset << 40;
            let tcp = if self.l4 == L4::Tcp { 1 << 24 } else { 0 };
            [ip | l4, 1 << 29 | tcp]
        }

        /// Whether every offset fits its field: they are bytes.
        pub(crate) fn is_encodable(self) -> bool {
            u16::from(self.l2_len) + u16::from(self.l3_len) + 16 <= 0xff
        }
    }
}
