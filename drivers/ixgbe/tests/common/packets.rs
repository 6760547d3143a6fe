//! Packets of the Internet's protocols with every checksum right, by a library that nothing else here knows of.

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, PacketBuilder,
    PacketBuilderStep, TcpHeader, UdpHeader,
};
use pagewire_ethdev::{Packet, PacketFlags};

/// Bytes of the Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) v6: bool,
    pub(crate) ports: (u16, u16),
    /// Last bytes of the addresses.
    pub(crate) hosts: (u8, u8),
    /// IPv4's identification.
    pub(crate) id: u16,
}

impl Flow {
    pub(crate) fn new(v6: bool) -> Flow {
        Flow { v6, ports: (1000, 80), hosts: (1, 2), id: 7 }
    }

    /// Bytes of the IP header.
    pub(crate) fn l3(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// Bytes before the transport's header.
    pub(crate) fn l4(self) -> usize {
        ETHERNET + self.l3()
    }

    fn ip(self, protocol: IpNumber) -> PacketBuilderStep<IpHeaders> {
        let (from, to) = self.hosts;
        let headers = if self.v6 {
            let address = |last| [0xfd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, last];
            let header = Ipv6Header {
                next_header: protocol,
                hop_limit: 64,
                source: address(from),
                destination: address(to),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Ipv6Extensions::default())
        } else {
            let mut header = Ipv4Header::new(0, 64, protocol, [10, 0, 0, from], [10, 0, 0, to]).unwrap();
            header.identification = self.id;
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        };
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xee], [2, 0, 0, 0, 0, 2]).ip(headers)
    }

    pub(crate) fn tcp(self, header: &TcpHeader, payload: &[u8]) -> Vec<u8> {
        let mut header = header.clone();
        (header.source_port, header.destination_port) = self.ports;
        let mut packet = Vec::new();
        self.ip(IpNumber::TCP).tcp_header(header).write(&mut packet, payload).unwrap();
        packet
    }

    pub(crate) fn udp(self, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        self.ip(IpNumber::UDP).udp(self.ports.0, self.ports.1).write(&mut packet, payload).unwrap();
        packet
    }

    /// A later part of a datagram, which looks as if it had ports.
    pub(crate) fn fragment(self, payload: &[u8]) -> Vec<u8> {
        let mut packet = self.udp(payload);
        let mut header = Ipv4Header::from_slice(&packet[ETHERNET..]).unwrap().0;
        header.fragment_offset = IpFragOffset::try_new(185).unwrap();
        header.header_checksum = header.calc_header_checksum();
        packet[ETHERNET..ETHERNET + 20].copy_from_slice(&header.to_bytes());
        packet
    }

    pub(crate) fn sctp(self, payload: &[u8]) -> Vec<u8> {
        let (from, to) = self.ports;
        let mut chunk =
            [&from.to_be_bytes()[..], &to.to_be_bytes(), &[1, 2, 3, 4, 0, 0, 0, 0], payload].concat();
        let sum = crc32c(&chunk).to_le_bytes();
        chunk[8..12].copy_from_slice(&sum);
        let mut packet = Vec::new();
        self.ip(IpNumber::SCTP).write(&mut packet, IpNumber::SCTP, &chunk).unwrap();
        packet
    }

    /// VXLAN around an Ethernet frame. Its UDP checksum is 0, as RFC 7348 has it.
    pub(crate) fn vxlan(self, inner: &[u8]) -> Vec<u8> {
        let mut packet =
            Flow { ports: (5555, 4789), ..self }.udp(&[&[8, 0, 0, 0, 0, 0, 42, 0][..], inner].concat());
        packet[self.l4() + 6..self.l4() + 8].fill(0);
        packet
    }
}

/// A TCP header without options.
pub(crate) fn tcp_header(sequence_number: u32) -> TcpHeader {
    TcpHeader {
        sequence_number,
        ack: true,
        acknowledgment_number: 99,
        window_size: 500,
        ..TcpHeader::default()
    }
}

/// Where the sequence numbers of packets to be cut begin: soon after, they begin anew.
const SEQUENCE: u32 = u32::MAX - 2000;

/// What [`segments`] are parts of.
pub(crate) fn uncut(flow: Flow, data: &[u8]) -> Vec<u8> {
    let mut header = tcp_header(SEQUENCE);
    (header.psh, header.fin) = (true, true);
    flow.tcp(&header, data)
}

/// A packet to be cut, with garbage in every field that the card or the driver fills in.
pub(crate) fn whole(flow: Flow, data: &[u8]) -> Vec<u8> {
    let mut packet = uncut(flow, &[]);
    let (l3, l4) = (ETHERNET, flow.l4());
    packet[l4 + 16..l4 + 18].fill(0xa5);
    match flow.v6 {
        true => packet[l3 + 4..l3 + 6].fill(0x5a),
        false => {
            packet[l3 + 2..l3 + 4].fill(0x5a);
            packet[l3 + 10..l3 + 12].fill(0xa5);
        }
    }
    packet.extend_from_slice(data);
    packet
}

/// What a TCP that sends such segments itself would send.
pub(crate) fn segments(flow: Flow, data: &[u8], mss: usize) -> Vec<Vec<u8>> {
    let last = data.len().div_ceil(mss) - 1;
    data.chunks(mss)
        .enumerate()
        .map(|(number, part)| {
            let mut header = tcp_header(SEQUENCE.wrapping_add((number * mss) as u32));
            (header.psh, header.fin) = (number == last, number == last);
            Flow { id: flow.id.wrapping_add(number as u16), ..flow }.tcp(&header, part)
        })
        .collect()
}

/// Have a packet cut.
pub(crate) fn ask(packet: &mut Packet, flow: Flow, mss: u16) {
    packet.set_flags(PacketFlags::TX_TSO);
    packet.set_header_lens(ETHERNET as u16, flow.l3() as u16);
    packet.set_segmentation(20, mss);
}

/// Bytes of UDP's header.
pub(crate) const UDP: usize = UdpHeader::LEN;

/// So many bytes, each other than its neighbours.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// The hash as Microsoft describes it: for each bit of the input that is set, 32 bits of the key from there on.
pub(crate) fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| u32::from(bytes[at / 8]) >> (7 - at % 8) & 1;
    let window = |at: usize| (at..at + 32).fold(0, |word, at| word << 1 | bit(key, at));
    (0..input.len() * 8).filter(|at| bit(input, *at) == 1).fold(0, |hash, at| hash ^ window(at))
}

/// The key of Microsoft's "Verifying the RSS Hash Calculation".
pub(crate) const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// CRC-32C (RFC 9260, appendix A), bit by bit.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 })
    })
}
