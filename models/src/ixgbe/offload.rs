//! Transmit offloads: checksums and segmentation (82599 datasheet 7.2.4, 7.2.5).

use super::checksum;

const L4_TCP: u32 = 1;
const L4_SCTP: u32 = 2;

/// TCP flags: they are in the header's 12 bits from byte 12 on.
const FLAGS: u32 = 0xfff;

/// A context descriptor's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// Which of the queue's two.
    pub(super) index: usize,
    /// Bytes of the network header.
    pub(super) network_length: usize,
    /// Bytes of the MAC header, tags in the packet included.
    pub(super) mac_length: usize,
    /// Tag to insert.
    pub(super) vlan: u16,
    /// The network header is IPv4.
    pub(super) v4: bool,
    /// Transport: 0 UDP, 1 TCP, 2 SCTP.
    pub(super) transport: u32,
    /// Bytes of the transport header.
    pub(super) transport_length: usize,
    /// Most payload of a segment.
    pub(super) mss: usize,
}

impl Context {
    /// From a descriptor's two words.
    pub(super) fn new(first: u64, second: u64) -> Self {
        Self {
            index: (second >> 36 & 1) as usize,
            network_length: (first & 0x1ff) as usize,
            mac_length: (first >> 9 & 0x7f) as usize,
            vlan: (first >> 16) as u16,
            v4: second >> 10 & 1 != 0,
            transport: (second >> 11 & 3) as u32,
            transport_length: (second >> 40 & 0xff) as usize,
            mss: (second >> 48) as usize,
        }
    }

    fn l4(&self) -> usize {
        self.mac_length + self.network_length
    }
}

/// What a packet's first descriptor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The context that it names.
    pub(super) context: Context,
    /// Cut into segments.
    pub(super) segment: bool,
    /// Insert this tag.
    pub(super) vlan: Option<u16>,
    /// Insert the IPv4 header's checksum.
    pub(super) network: bool,
    /// Insert the transport's checksum.
    pub(super) transport: bool,
    /// Bytes to be segmented, without headers.
    pub(super) payload: usize,
    /// A legacy descriptor's checksum: where it starts, where it goes.
    pub(super) legacy: Option<(usize, usize)>,
    /// Its last four bytes are its check sequence: the card is not to make one.
    pub(super) has_fcs: bool,
}

/// Put the checksums that are asked for into a packet.
pub(super) fn checksums(packet: &mut [u8], request: &Request) -> Result<(), &'static str> {
    if let Some((start, at)) = request.legacy {
        if start >= packet.len() || at + 2 > packet.len() {
            return Err("checksum outside the packet");
        }
        let sum = !checksum::fold(checksum::add(0, &packet[start..]));
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        return Ok(());
    }
    let context = &request.context;
    if request.network && context.v4 {
        network(packet, context)?;
    }
    if request.transport {
        transport(packet, context)?;
    }
    Ok(())
}

fn network(packet: &mut [u8], context: &Context) -> Result<(), &'static str> {
    let header = packet.get_mut(context.mac_length..context.l4()).filter(|h| h.len() >= 20);
    let header = header.ok_or("IPv4 header outside the packet")?;
    header[10..12].fill(0);
    let sum = !checksum::fold(checksum::add(0, header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// The packet's checksum field holds the pseudo header's sum already, which the card only has to add to. The card does not
/// look at the network header, of which a context for checksums need not say the version: it sums up to the packet's end, with padding that
/// the driver has added, and before the card pads (specification update, "Padding on Transmitted SCTP Packets").
fn transport(packet: &mut [u8], context: &Context) -> Result<(), &'static str> {
    let l4 = context.l4();
    let segment = packet.get_mut(l4..).ok_or("transport header outside the packet")?;
    if context.transport == L4_SCTP {
        if segment.len() < 12 {
            return Err("SCTP header outside the packet");
        }
        let sum = checksum::sctp(segment).to_le_bytes();
        segment[8..12].copy_from_slice(&sum);
        return Ok(());
    }
    let at = if context.transport == L4_TCP { 16 } else { 6 };
    if segment.len() < at + 2 {
        return Err("transport header outside the packet");
    }
    let sum = match !checksum::fold(checksum::add(0, segment)) {
        0 if context.transport != L4_TCP => 0xffff,
        sum => sum,
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// A packet cut into segments: TCP, or UDP with one datagram a segment.
#[derive(Debug)]
pub(super) struct Segments<'p> {
    header: &'p [u8],
    payload: &'p [u8],
    request: &'p Request,
    flags: [u32; 3],
    index: usize,
    sent: usize,
}

impl<'p> Segments<'p> {
    /// Cut a packet; `flags` are DTXTCPFLGL and DTXTCPFLGH.
    pub(super) fn new(
        packet: &'p [u8],
        request: &'p Request,
        flags: (u32, u32),
    ) -> Result<Self, &'static str> {
        let context = &request.context;
        let headers = context.l4() + context.transport_length;
        let least = if context.transport == L4_TCP { 20 } else { 8 };
        if context.mss == 0 || context.transport == L4_SCTP {
            return Err("segmentation without a maximal segment size, or of SCTP");
        }
        let network = if context.v4 { 20 } else { 40 };
        if context.mac_length < 14 || context.network_length < network || context.transport_length < least {
            return Err("segmentation with headers that are too short");
        }
        let Some((header, payload)) = packet.split_at_checked(headers) else {
            return Err("segmentation with headers outside the packet");
        };
        if payload.len() != request.payload {
            return Err("segmentation whose payload length is not the packet's");
        }
        let masks = [flags.0 & FLAGS, flags.0 >> 16 & FLAGS, flags.1 & FLAGS];
        Ok(Self { header, payload, request, flags: masks, index: 0, sent: 0 })
    }

    /// Make the next segment. False if there are no more.
    pub(super) fn next_into(&mut self, frame: &mut Vec<u8>) -> bool {
        if self.sent >= self.payload.len() && self.index > 0 {
            return false;
        }
        let context = &self.request.context;
        let rest = &self.payload[self.sent..];
        let part = &rest[..rest.len().min(context.mss)];
        let last = part.len() == rest.len();
        frame.clear();
        frame.extend_from_slice(self.header);
        frame.extend_from_slice(part);
        let l3 = context.mac_length;
        let l4 = context.l4();
        let total = frame.len() - l3;
        if context.v4 {
            put16(frame, l3 + 2, total as u16);
            let id = get16(frame, l3 + 4).wrapping_add(self.index as u16);
            put16(frame, l3 + 4, id);
        } else {
            put16(frame, l3 + 4, (total - 40) as u16);
        }
        let length = frame.len() - l4;
        let sum_at = if context.transport == L4_TCP {
            let number = u32::from_be_bytes([frame[l4 + 4], frame[l4 + 5], frame[l4 + 6], frame[l4 + 7]]);
            let number = number.wrapping_add(self.sent as u32);
            frame[l4 + 4..l4 + 8].copy_from_slice(&number.to_be_bytes());
            // The only segment of a packet keeps its flags: it is the first one and the last one.
            let mask = match (self.index, last) {
                (0, true) => FLAGS,
                (0, false) => self.flags[0],
                (_, false) => self.flags[1],
                (_, true) => self.flags[2],
            };
            let flags = get16(frame, l4 + 12) & (mask as u16 | 0xf000);
            put16(frame, l4 + 12, flags);
            l4 + 16
        } else {
            put16(frame, l4 + 4, length as u16);
            l4 + 6
        };
        // The driver's pseudo header sum is without the length: it differs from segment to segment.
        let seed = checksum::fold(get16(frame, sum_at) as u32 + length as u32);
        put16(frame, sum_at, seed);
        // Headers are inside the frame: these cannot fail.
        if context.v4 {
            let _ = network(frame, context);
        }
        let _ = transport(frame, context);
        self.index += 1;
        self.sent += part.len();
        true
    }
}

fn get16(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn put16(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::packet::Packet;
    use super::*;

    /// A TCP packet over IPv4 or IPv6, flags all set, its checksum field holding a pseudo header sum without length.
    fn tcp(v4: bool, payload: usize) -> (Vec<u8>, Request) {
        let mut p = vec![0u8; 12];
        p.extend(if v4 { [0x08, 0] } else { [0x86, 0xdd] });
        let addresses = if v4 {
            p.extend([0x45, 0, 0, 0, 0xff, 0xff, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            p[26..34].to_vec()
        } else {
            p.extend([0x60, 0, 0, 0, 0, 0, 6, 64]);
            p.extend((0..32).map(|n| n as u8 * 7));
            p[22..54].to_vec()
        };
        let l4 = p.len();
        p.extend([0x10, 0, 0x20, 0, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 1, 0x5f, 0xff, 1, 0, 0, 0, 0, 0]);
        let pseudo = checksum::fold(checksum::add(6, &addresses));
        p[l4 + 16..l4 + 18].copy_from_slice(&pseudo.to_be_bytes());
        p.extend((0..payload).map(|n| n as u8));
        let context = Context {
            mac_length: 14,
            network_length: l4 - 14,
            transport_length: 20,
            v4,
            transport: L4_TCP,
            mss: 1000,
            ..Context::default()
        };
        let request = Request {
            context,
            segment: true,
            vlan: None,
            network: true,
            transport: true,
            payload,
            legacy: None,
            has_fcs: false,
        };
        (p, request)
    }

    #[test]
    fn segments_are_whole_packets_with_right_sums() {
        for v4 in [true, false] {
            let (packet, request) = tcp(v4, 2500);
            let mut segments = Segments::new(&packet, &request, (0x0ff6_0ff6, 0xf7f)).unwrap();
            let (mut frame, mut payload, mut n) = (Vec::new(), Vec::new(), 0u16);
            while segments.next_into(&mut frame) {
                let parsed = Packet::parse(&frame, None, 0x8100);
                assert_eq!(parsed.end, frame.len());
                assert_ne!(parsed.check_network(&frame), Some(false));
                assert_eq!(parsed.check_transport(&frame), Some(true));
                let l4 = parsed.l4;
                let number = u32::from_be_bytes(frame[l4 + 4..l4 + 8].try_into().unwrap());
                assert_eq!(number, 0xffff_fff0u32.wrapping_add(1000 * n as u32));
                if v4 {
                    assert_eq!(get16(&frame, 18), 0xffffu16.wrapping_add(n));
                }
                // First and middle ones lose FIN and PSH, middle and last ones CWR.
                let flags = [0x5ff6, 0x5ff6, 0x5f7f][n as usize];
                assert_eq!(get16(&frame, l4 + 12), flags);
                payload.extend_from_slice(&frame[parsed.payload..]);
                n += 1;
            }
            assert_eq!((n, payload.len()), (3, 2500));
            assert!(payload.iter().enumerate().all(|(n, &byte)| byte == n as u8));
        }
    }

    #[test]
    fn single_packets_get_their_sums() {
        for v4 in [true, false] {
            let (mut packet, mut request) = tcp(v4, 333);
            request.segment = false;
            request.network = false;
            let l4 = request.context.l4();
            let length = packet.len() - 14;
            put16(&mut packet, if v4 { 16 } else { 18 }, if v4 { length } else { length - 40 } as u16);
            let seed = checksum::fold(get16(&packet, l4 + 16) as u32 + 353);
            put16(&mut packet, l4 + 16, seed);
            // As Linux does: no version for checksums alone.
            request.context.v4 &= request.network;
            checksums(&mut packet, &request).unwrap();
            let parsed = Packet::parse(&packet, None, 0x8100);
            assert_eq!(parsed.check_transport(&packet), Some(true));
            assert_eq!(parsed.check_network(&packet), v4.then_some(false), "nobody asked for it");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let (packet, request) = tcp(true, 100);
        type Spoil = fn(&mut Request);
        let spoils: [Spoil; 6] = [
            |r| r.context.mss = 0,
            |r| r.context.transport = L4_SCTP,
            |r| r.context.mac_length = 0,
            |r| r.context.transport_length = 255,
            |r| r.payload = 99,
            |r| r.context.network_length = 4,
        ];
        for spoil in spoils {
            let mut bad = request;
            spoil(&mut bad);
            assert!(Segments::new(&packet, &bad, (0, 0)).is_err());
        }
        let mut packet = vec![0; 20];
        let mut bad = Request { segment: false, ..request };
        assert!(checksums(&mut packet, &bad).is_err());
        bad.network = false;
        assert!(checksums(&mut packet, &bad).is_err());
        bad.legacy = Some((30, 4));
        assert!(checksums(&mut packet, &bad).is_err());
    }
}
