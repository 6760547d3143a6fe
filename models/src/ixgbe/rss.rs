//! Receive-side scaling (82599 datasheet 7.1.2.8): the Toeplitz hash and the redirection table.

use super::packet::{Network, Packet, Transport};
use super::registers::Registers;
use super::table::*;

const MRQC_MODE: u32 = 0xf;
/// MRQC from here on: a pool's queues, without RSS or with it.
const VMDQ: u32 = 8;
const VMDQ_RSS_32: u32 = 0xa;
const VMDQ_RSS_64: u32 = 0xb;
const TCP_V4: u32 = 1 << 16;
const V4: u32 = 1 << 17;
const V6: u32 = 1 << 20;
const TCP_V6: u32 = 1 << 21;
const UDP_V4: u32 = 1 << 22;
const UDP_V6: u32 = 1 << 23;

/// Bytes of the longest input: two IPv6 addresses, two ports.
const INPUT: usize = 36;
const KEY: usize = 40;
/// Queues of all pools together.
const QUEUES: u32 = 128;

/// A packet's hash and what it was made of, as the descriptor says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hash {
    /// The Toeplitz hash; 0 if none was made.
    pub(super) value: u32,
    /// The descriptor's RSS type; 0 for none.
    pub(super) kind: u32,
}

/// The hash unit: the key, spread out so that each byte of input costs one look-up.
#[derive(Debug)]
pub(super) struct Rss {
    tables: Box<[[u32; 256]]>,
    stale: bool,
}

impl Default for Rss {
    fn default() -> Self {
        Self { tables: vec![[0; 256]; INPUT].into(), stale: true }
    }
}

impl Rss {
    /// The key's registers were written.
    pub(super) fn key_changed(&mut self) {
        self.stale = true;
    }

    #[cold]
    fn spread(&mut self, registers: &Registers) {
        let mut key = [0; KEY];
        for (n, bytes) in key.chunks_exact_mut(4).enumerate() {
            bytes.copy_from_slice(&registers.get(RSSRK + 4 * n as u32).to_le_bytes());
        }
        for (at, table) in self.tables.iter_mut().enumerate() {
            // The 40 bits of the key that the eight windows of this byte take from.
            let window = key[at..at + 5].iter().fold(0u64, |w, &b| w << 8 | b as u64);
            for (byte, entry) in table.iter_mut().enumerate() {
                *entry = (0..8)
                    .filter(|bit| byte >> (7 - bit) & 1 != 0)
                    .fold(0, |hash, bit| hash ^ (window >> (8 - bit)) as u32);
            }
        }
        self.stale = false;
    }

    fn toeplitz(&self, addresses: &[u8], ports: &[u8]) -> u32 {
        let input = addresses.iter().chain(ports);
        self.tables.iter().zip(input).fold(0, |hash, (table, &byte)| hash ^ table[byte as usize])
    }

    /// Whether packets are spread over queues by hash.
    #[inline]
    pub(super) fn enabled(registers: &Registers) -> bool {
        matches!(registers.get(MRQC) & MRQC_MODE, 1 | 4 | 5 | VMDQ_RSS_32 | VMDQ_RSS_64)
    }

    /// A packet's hash.
    pub(super) fn hash(&mut self, registers: &Registers, frame: &[u8], packet: &Packet) -> Hash {
        if self.stale {
            self.spread(registers);
        }
        let fields = registers.get(MRQC);
        let has = |bit| fields & bit != 0;
        let (kind, with_ports) = match (packet.network, packet.transport) {
            (Some(Network::V4), Some(Transport::Tcp)) if has(TCP_V4) => (1, true),
            (Some(Network::V4), Some(Transport::Udp)) if has(UDP_V4) => (7, true),
            (Some(Network::V4), _) if has(V4) => (2, false),
            (Some(Network::V6), Some(Transport::Tcp)) if has(TCP_V6) => (3, true),
            (Some(Network::V6), Some(Transport::Udp)) if has(UDP_V6) => (8, true),
            (Some(Network::V6), _) if has(V6) => (5, false),
            _ => return Hash::default(),
        };
        let ports = if with_ports { &frame[packet.l4..packet.l4 + 4] } else { &[] };
        Hash { value: self.toeplitz(packet.addresses(frame), ports), kind }
    }

    /// The queue that a hash leads to: of all of them, or of those of the card's own pool (7.1.2.8.3, 7.10.2).
    #[inline]
    pub(super) fn queue(registers: &Registers, hash: Hash) -> usize {
        let entry = match hash.kind {
            0 => 0,
            _ => entry(registers, hash.value),
        };
        let mode = registers.get(MRQC) & MRQC_MODE;
        let queue = match mode {
            VMDQ.. => {
                let each = if mode == VMDQ_RSS_32 { 4 } else { 2 };
                let pool = own_pool(registers) % (QUEUES / each);
                // PSRTYPE.RQPL: bits of the entry that count.
                let bits = registers.get(PSRTYPE + 4 * pool) >> 29;
                pool * each + (entry & ((1 << bits) - 1) & (each - 1))
            }
            _ => entry,
        };
        queue as usize
    }
}

/// The redirection table's entry for a hash: of 128 with four bits, or of 512 with six.
fn entry(registers: &Registers, hash: u32) -> u32 {
    let (table, number, bits) = match (registers.kind().x550(), hash & 0x1ff) {
        (true, number @ 128..) => (ERETA, number - 128, 0x3f),
        (true, number) => (RETA, number, 0x3f),
        (false, number) => (RETA, number & 0x7f, 0xf),
    };
    registers.get(table + (number & !3)) >> (8 * (number & 3)) & bits
}

/// The pool whose queues are this function's: the default one of the card's, the only one that a virtual function has.
#[inline]
pub(super) fn own_pool(registers: &Registers) -> u32 {
    match registers.get(PFVTCTL) {
        control if control & 1 != 0 => control >> 7 & 0x3f,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of Microsoft's "Verifying the RSS Hash Calculation".
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn unit() -> (Rss, Registers) {
        let mut registers = Registers::new();
        for (n, word) in KEY.chunks_exact(4).enumerate() {
            registers.set(RSSRK + 4 * n as u32, u32::from_le_bytes(word.try_into().unwrap()));
        }
        let mut rss = Rss::default();
        rss.spread(&registers);
        (rss, registers)
    }

    #[test]
    fn microsofts_ipv4_vectors() {
        let (rss, _) = unit();
        // Source, destination, source port, destination port, hash of addresses, hash with ports.
        type Row = ([u8; 4], [u8; 4], u16, u16, u32, u32);
        let rows: [Row; 5] = [
            ([66, 9, 149, 187], [161, 142, 100, 80], 2794, 1766, 0x323e_8fc2, 0x51cc_c178),
            ([199, 92, 111, 2], [65, 69, 140, 83], 14230, 4739, 0xd718_262a, 0xc626_b0ea),
            ([24, 19, 198, 95], [12, 22, 207, 184], 12898, 38024, 0xd2d0_a5de, 0x5c2b_394a),
            ([38, 27, 205, 30], [209, 142, 163, 6], 48228, 2217, 0x8298_9176, 0xafc7_327f),
            ([153, 39, 163, 191], [202, 188, 127, 2], 44251, 1303, 0x5d18_09c5, 0x10e8_28a2),
        ];
        for (source, destination, from, to, plain, with_ports) in rows {
            let addresses = [source, destination].concat();
            let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
            assert_eq!(rss.toeplitz(&addresses, &[]), plain);
            assert_eq!(rss.toeplitz(&addresses, &ports), with_ports);
        }
    }

    #[test]
    fn microsofts_ipv6_vectors() {
        let (rss, _) = unit();
        let rows = [
            ("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 2794u16, 1766u16, 0x2cc1_8cd5, 0x4020_7d3d),
            ("3ffe:501:8::260:97ff:fe40:efab", "ff02::1", 14230, 4739, 0x0f0c_461c, 0xdde5_1bbf),
            (
                "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
                "fe80::200:f8ff:fe21:67cf",
                44251,
                38024,
                0x4b61_e985,
                0x02d1_feef,
            ),
        ];
        for (source, destination, from, to, plain, with_ports) in rows {
            let [source, destination] =
                [source, destination].map(|a| a.parse::<std::net::Ipv6Addr>().unwrap().octets());
            let addresses = [source, destination].concat();
            let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
            assert_eq!(rss.toeplitz(&addresses, &[]), plain);
            assert_eq!(rss.toeplitz(&addresses, &ports), with_ports);
        }
    }

    #[test]
    fn the_redirection_table_has_a_byte_an_entry() {
        let mut registers = Registers::new();
        registers.set(RETA + 4 * 31, 0x0f0e_0d0c);
        for (low, queue) in [(124, 12), (125, 13), (126, 14), (127, 15), (0, 0)] {
            assert_eq!(Rss::queue(&registers, Hash { value: 0xffff_ff80 | low, kind: 1 }), queue);
        }
        assert_eq!(Rss::queue(&registers, Hash { value: 127, kind: 0 }), 0);
    }
}
