//! What the card's parser makes of a frame (82599 datasheet 7.1.2, 7.1.10, 7.1.11).

use super::checksum;

/// The Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

/// The transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A frame taken apart. Offsets are from the frame's first byte and inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// An outer tag was skipped.
    pub(super) outer_vlan: bool,
    /// Offset of the VLAN tag, and its control information.
    pub(super) vlan: Option<(usize, u16)>,
    /// The type after all tags.
    pub(super) ethertype: u16,
    /// Where the network header, or what follows the type, starts.
    pub(super) l3: usize,
    /// Internet protocol, if its header is whole.
    pub(super) network: Option<Network>,
    /// The header has options or extensions.
    pub(super) extended: bool,
    /// It is a fragment: its transport is not looked at.
    pub(super) fragment: bool,
    /// Where the network header ends.
    pub(super) l4: usize,
    /// Where the network header says the packet ends, at most the frame's end.
    pub(super) end: usize,
    /// Transport, if its header is whole.
    pub(super) transport: Option<Transport>,
    /// Where the transport header ends.
    pub(super) payload: usize,
}

fn be16(data: &[u8], at: usize) -> u16 {
    match data.get(at..at + 2) {
        Some(&[a, b]) => u16::from_be_bytes([a, b]),
        _ => 0,
    }
}

impl Packet {
    /// Take a frame of at least 14 bytes apart. `outer` is the type of an outer tag if such are expected, `inner` that of
    /// the VLAN tag.
    #[inline]
    pub(super) fn parse(frame: &[u8], outer: Option<u16>, inner: u16) -> Self {
        let mut at = 12;
        let mut outer_vlan = false;
        if outer.is_some_and(|outer| be16(frame, at) == outer) && frame.len() >= at + 8 {
            outer_vlan = true;
            at += 4;
        }
        let mut vlan = None;
        if be16(frame, at) == inner && frame.len() >= at + 6 {
            vlan = Some((at, be16(frame, at + 2)));
            at += 4;
        }
        let l3 = (at + 2).min(frame.len());
        let mut packet = Self {
            outer_vlan,
            vlan,
            ethertype: be16(frame, at),
            l3,
            network: None,
            extended: false,
            fragment: false,
            l4: l3,
            end: frame.len(),
            transport: None,
            payload: l3,
        };
        match packet.ethertype {
            0x0800 => packet.parse_v4(frame),
            0x86dd => packet.parse_v6(frame),
            _ => {}
        }
        packet
    }

    fn parse_v4(&mut self, frame: &[u8]) {
        let Some(header) = frame.get(self.l3..).filter(|h| h.len() >= 20 && h[0] >> 4 == 4) else { return };
        let length = (header[0] & 15) as usize * 4;
        let total = be16(header, 2) as usize;
        if length < 20 || length > header.len() || total < length {
            return;
        }
        self.network = Some(Network::V4);
        self.extended = length > 20;
        self.l4 = self.l3 + length;
        self.payload = self.l4;
        self.end = (self.l3 + total).min(frame.len());
        self.fragment = be16(header, 6) & 0x3fff != 0;
        let protocol = header[9];
        if !self.fragment {
            self.parse_transport(frame, protocol);
        }
    }

    fn parse_v6(&mut self, frame: &[u8]) {
        let Some(header) = frame.get(self.l3..).filter(|h| h.len() >= 40 && h[0] >> 4 == 6) else { return };
        self.network = Some(Network::V6);
        self.end = (self.l3 + 40 + be16(header, 4) as usize).min(frame.len());
        let mut next = header[6];
        let mut at = self.l3 + 40;
        // Hop-by-hop, routing, fragment, destination; a frame has room for few.
        while let 0 | 43 | 44 | 60 = next {
            // What is behind the packet's end is padding, whatever it looks like.
            let Some(extension) = frame.get(at..self.end).filter(|e| e.len() >= 8) else { break };
            let length = if next == 44 { 8 } else { (extension[1] as usize + 1) * 8 };
            if length > extension.len() {
                break;
            }
            self.fragment |= next == 44;
            self.extended = true;
            next = extension[0];
            at += length;
        }
        self.l4 = at;
        self.payload = at;
        if !self.fragment {
            self.parse_transport(frame, next);
        }
    }

    fn parse_transport(&mut self, frame: &[u8], protocol: u8) {
        let rest = frame.get(self.l4..self.end).unwrap_or_default();
        let (transport, length) = match protocol {
            6 if rest.len() >= 20 => (Transport::Tcp, (rest[12] >> 4) as usize * 4),
            17 if rest.len() >= 8 => (Transport::Udp, 8),
            132 if rest.len() >= 12 => (Transport::Sctp, 12),
            _ => return,
        };
        if length >= 8 && length <= rest.len() {
            self.transport = Some(transport);
            self.payload = self.l4 + length;
        }
    }

    /// The 13 bits of the descriptor's packet type (7.1.6.2).
    pub(super) fn descriptor_type(&self) -> u32 {
        let mut bits = match (self.network, self.extended) {
            (Some(Network::V4), false) => 1 << 0,
            (Some(Network::V4), true) => 1 << 0 | 1 << 1,
            (Some(Network::V6), false) => 1 << 2,
            (Some(Network::V6), true) => 1 << 2 | 1 << 3,
            (None, _) => 0,
        };
        bits |= match self.transport {
            Some(Transport::Tcp) => 1 << 4,
            Some(Transport::Udp) => 1 << 5,
            Some(Transport::Sctp) => 1 << 6,
            None => 0,
        };
        bits
    }

    /// Source and destination addresses of the network header.
    pub(super) fn addresses<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let range = match self.network {
            Some(Network::V4) => self.l3 + 12..self.l3 + 20,
            Some(Network::V6) => self.l3 + 8..self.l3 + 40,
            None => 0..0,
        };
        frame.get(range).unwrap_or_default()
    }

    /// Sum of the pseudo header that TCP and UDP checksums start from.
    pub(super) fn pseudo_header(&self, frame: &[u8]) -> u32 {
        let protocol = match self.transport {
            Some(Transport::Tcp) => 6,
            Some(Transport::Udp) => 17,
            _ => 0,
        };
        let length = (self.end - self.l4) as u32;
        checksum::add(protocol + (length >> 16) + (length & 0xffff), self.addresses(frame))
    }

    /// Whether the IPv4 header's checksum is right; nothing if there is none.
    pub(super) fn check_network(&self, frame: &[u8]) -> Option<bool> {
        (self.network == Some(Network::V4))
            .then(|| checksum::fold(checksum::add(0, &frame[self.l3..self.l4])) == 0xffff)
    }

    /// Whether the transport's checksum is right; nothing if there is none.
    pub(super) fn check_transport(&self, frame: &[u8]) -> Option<bool> {
        let segment = &frame[self.l4..self.end];
        match self.transport? {
            Transport::Udp if segment[6..8] == [0, 0] => None,
            Transport::Tcp | Transport::Udp => {
                Some(checksum::fold(checksum::add(self.pseudo_header(frame), segment)) == 0xffff)
            }
            Transport::Sctp => Some(segment[8..12] == checksum::sctp(segment).to_le_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ipv6_header_does_not_count_is_no_extension_of_it() {
        // Hop-by-hop options, destination options and TCP stand in the frame; the header says for how many bytes.
        let mut frame = [[2; 12].as_slice(), &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 0, 64], &[1; 32]].concat();
        frame.extend([[60, 0, 0, 0, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0, 0, 0]].concat());
        frame.extend([[0; 12].as_slice(), &[0x50, 0, 0, 0, 0, 0, 0, 0]].concat());
        for (length, l4, tcp) in
            [(36, 70, true), (35, 70, false), (16, 70, false), (15, 62, false), (0, 54, false)]
        {
            frame[19] = length;
            let packet = Packet::parse(&frame, None, 0x8100);
            assert_eq!((packet.l4, packet.end), (l4, 54 + usize::from(length)), "{length}");
            assert_eq!(packet.transport.is_some(), tcp, "{length}");
            assert_eq!(packet.check_transport(&frame).is_some(), tcp, "{length}");
        }
    }
}
