//! The little of TCP that is needed to answer Linux's over a cable that loses nothing: one connection at a time, whose other end
//! opens it, and whose checksums, tags and segments are the cards' work at both ends.

use anyhow::{Context, Result, ensure};
use etherparse::{
    LinkHeader, NetHeaders, PacketBuilder, PacketHeaders, TcpHeader, TcpOptionElement, TransportHeader,
};
use pagewire_ethdev::{Packet, PacketFlags};

use crate::peer::{GOOD, Peer};

/// Most payload of a segment, both ways: what an MTU of 1,500 leaves beside headers without options.
pub const MSS: usize = 1460;
/// Bytes of the headers before TCP's.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// The largest packet that is handed to the card to be cut.
const LARGEST: usize = 44 * MSS;
/// Our sequence numbers begin anew within the first packets.
const FIRST: u32 = u32::MAX - 100_000;

/// A connection that the guest has opened.
pub struct Connection {
    vlan: Option<u16>,
    macs: [[u8; 6]; 2],
    addresses: [[u8; 4]; 2],
    ports: [u16; 2],
    /// The sequence number of what is sent next, the other end's of what comes next, and how far the other end has got.
    next: u32,
    expected: u32,
    acknowledged: u32,
    /// Bytes that the other end takes.
    window: usize,
    /// There is no more to come from the other end.
    ended: bool,
}

/// A segment that has come, and the connection as it would be from this end.
struct Segment {
    connection: Connection,
    header: TcpHeader,
    payload: Vec<u8>,
}

impl Connection {
    /// Waits until the guest connects to a port, and lets it. All of the connection's frames bear this tag, both ways, or none.
    pub fn accept(peer: &mut Peer, port: u16, vlan: Option<u16>) -> Result<Self> {
        loop {
            let Segment { mut connection, header, .. } = receive(peer, vlan)?;
            if connection.ports[0] != port || !header.syn {
                continue;
            }
            (connection.next, connection.expected) = (FIRST, header.sequence_number.wrapping_add(1));
            let mut answer = TcpHeader { syn: true, ..connection.header() };
            answer.set_options(&[TcpOptionElement::MaximumSegmentSize(MSS as u16)])?;
            connection.send(peer, answer, &[])?;
            return Ok(connection);
        }
    }

    /// The next so many bytes, and the lengths of the segments that they came in.
    pub fn read(&mut self, peer: &mut Peer, length: usize) -> Result<(Vec<u8>, Vec<usize>)> {
        let (mut bytes, mut segments) = (Vec::new(), Vec::new());
        while bytes.len() < length {
            let payload = self.step(peer)?;
            if !payload.is_empty() {
                segments.push(payload.len());
                bytes.extend(payload);
            }
        }
        ensure!(bytes.len() == length, "{} bytes came, expected {length}", bytes.len());
        Ok((bytes, segments))
    }

    /// Sends bytes, in packets as large as the other end takes. Returns how many of them the card has to cut.
    pub fn write(&mut self, peer: &mut Peer, mut bytes: &[u8]) -> Result<u64> {
        let mut to_cut = 0;
        while !bytes.is_empty() {
            // The other end says so when it takes more.
            while self.window < bytes.len().min(4 * MSS) {
                self.step(peer)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.window).min(LARGEST));
            self.send(peer, TcpHeader { psh: true, ..self.header() }, now)?;
            self.all_acknowledged(peer)?;
            to_cut += u64::from(now.len() > MSS);
            bytes = later;
        }
        Ok(to_cut)
    }

    /// Ends it: there is no more to come from either end.
    pub fn close(mut self, peer: &mut Peer) -> Result<()> {
        self.send(peer, TcpHeader { fin: true, ..self.header() }, &[])?;
        self.all_acknowledged(peer)?;
        while !self.ended {
            self.step(peer)?;
        }
        Ok(())
    }

    fn all_acknowledged(&mut self, peer: &mut Peer) -> Result<()> {
        while self.acknowledged != self.next {
            self.step(peer)?;
        }
        Ok(())
    }

    /// Takes the connection's next segment and returns what is new in it, acknowledged if no other has come meanwhile.
    fn step(&mut self, peer: &mut Peer) -> Result<Vec<u8>> {
        let Segment { connection, header, payload } = loop {
            let segment = receive(peer, self.vlan)?;
            if segment.connection.ports == self.ports {
                break segment;
            }
        };
        ensure!(!header.rst, "the guest has reset the connection");
        if header.ack {
            (self.acknowledged, self.window) = (connection.acknowledged, connection.window);
        }
        // What was sent twice, because the machine was busy, is no news.
        let new = header.sequence_number == self.expected;
        let length = payload.len() as u32 + u32::from(header.fin);
        if new {
            self.expected = self.expected.wrapping_add(length);
            self.ended |= header.fin;
        }
        if length > 0 && !peer.has_more() {
            self.send(peer, self.header(), &[])?;
        }
        Ok(if new { payload } else { Vec::new() })
    }

    /// Of a segment that acknowledges.
    fn header(&self) -> TcpHeader {
        let [ours, theirs] = self.ports;
        let mut header = TcpHeader::new(ours, theirs, self.next, u16::MAX);
        (header.ack, header.acknowledgment_number) = (true, self.expected);
        header
    }

    /// Sends a segment, or a packet of several, whose checksums are garbage until the card makes them.
    fn send(&mut self, peer: &mut Peer, header: TcpHeader, payload: &[u8]) -> Result<()> {
        let ([mac, to_mac], [from, to]) = (self.macs, self.addresses);
        let (l4_len, sequence) = (header.header_len(), payload.len() as u32);
        let sequence = sequence + u32::from(header.syn) + u32::from(header.fin);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(mac, to_mac)
            .ipv4(from, to, 64)
            .tcp_header(header)
            .write(&mut frame, payload)?;
        let mut packet = by_card(peer, &mut frame, PacketFlags::TX_TCP_CSUM, self.vlan)?;
        if payload.len() > MSS {
            packet.set_flags(packet.flags() | PacketFlags::TX_TSO);
            packet.set_segmentation(l4_len as u16, MSS as u16);
        }
        self.next = self.next.wrapping_add(sequence);
        peer.send(packet)
    }
}

/// A packet of a frame over IPv4, whose checksums are garbage until the card makes them, and in which the card is to put a tag.
pub fn by_card(peer: &mut Peer, frame: &mut [u8], l4: PacketFlags, vlan: Option<u16>) -> Result<Packet> {
    let at = ETHERNET + IPV4 + if l4 == PacketFlags::TX_UDP_CSUM { 6 } else { 16 };
    frame[ETHERNET + 10..ETHERNET + 12].fill(0xa5);
    frame[at..at + 2].fill(0xa5);
    let mut packet = peer.packet(frame)?;
    packet.set_header_lens(ETHERNET as u16, IPV4 as u16);
    packet.set_flags(packet.flags() | PacketFlags::TX_IP_CSUM | l4);
    if let Some(tag) = vlan {
        packet.set_flags(packet.flags() | PacketFlags::TX_VLAN_INSERT);
        packet.set_vlan_tci(tag);
    }
    Ok(packet)
}

/// The next TCP segment, of which the card must have said that it is right, and from which it must have taken this tag.
fn receive(peer: &mut Peer, vlan: Option<u16>) -> Result<Segment> {
    loop {
        let packet = peer.receive()?;
        let mut frame = Vec::new();
        packet.copy_to(&mut frame)?;
        let headers = PacketHeaders::from_ethernet_slice(&frame).with_context(|| format!("{frame:02x?}"))?;
        let (
            Some(LinkHeader::Ethernet2(ethernet)),
            Some(NetHeaders::Ipv4(ip, _)),
            Some(TransportHeader::Tcp(header)),
        ) = (headers.link, headers.net, headers.transport)
        else {
            continue;
        };
        let (flags, stripped) = (packet.flags(), packet.flags().contains(PacketFlags::RX_VLAN_STRIPPED));
        let tag = stripped.then(|| packet.vlan_tci());
        ensure!(flags.contains(GOOD), "the card says {flags:?} of {header:?}");
        ensure!(tag == vlan, "a segment came with tag {tag:x?}, expected {vlan:x?}");
        let connection = Connection {
            vlan,
            macs: [ethernet.destination, ethernet.source],
            addresses: [ip.destination, ip.source],
            ports: [header.destination_port, header.source_port],
            next: 0,
            expected: 0,
            acknowledged: header.acknowledgment_number,
            window: header.window_size.into(),
            ended: header.fin,
        };
        return Ok(Segment { connection, header, payload: headers.payload.slice().to_vec() });
    }
}
