//! What a packet that is not plain needs: what it asks for, checked; its descriptors; and the fields that the card adds to.

use pagewire_pool::{Packet, PacketFlags};

use super::{TxFormat, TxRing};
use crate::config::TxOffloads;
use crate::refused::TxRefused;

/// Bytes of an 802.1Q tag.
const VLAN_TAG: usize = 4;
/// Shortest headers of what has checksums.
const ETHERNET_HEADER: u16 = 14;
const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: u16 = 40;
const TCP_HEADER: u16 = 20;

/// What a packet asks the card to do. Header lengths are within the packet, and 0 if neither checksum nor segmentation is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the layer-2 header.
    pub l2_len: u16,
    /// Bytes of the layer-3 header.
    pub l3_len: u16,
    /// Bytes of the TCP header; 0 without segmentation.
    pub l4_len: u16,
    /// Most payload bytes of a segment; 0 without segmentation.
    pub mss: u16,
    /// Fill in the IPv4 header checksum. With segmentation the layer-3 header is IPv4's if so, IPv6's if not.
    pub ip_csum: bool,
    /// Fill in this layer-4 protocol's checksum. TCP's with segmentation.
    pub l4: L4,
    /// Insert a tag.
    pub vlan: Option<u16>,
}

/// Layer-4 protocol whose checksum is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// None.
    None,
    /// TCP: 16 bytes into its header.
    Tcp,
    /// UDP: 6 bytes into its header.
    Udp,
    /// SCTP: 8 bytes into its header.
    Sctp,
}

impl L4 {
    /// Bytes of the header up to and with the checksum.
    fn header_len(self) -> usize {
        match self {
            L4::None => 0,
            L4::Tcp => 18,
            L4::Udp => 8,
            L4::Sctp => 12,
        }
    }
}

/// A [`Request`] in the card's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bits of the second word of each data descriptor.
    pub options: u64,
    /// The context descriptor it relies on, if any: written unless the card has it.
    pub context: Option<[u64; 2]>,
}

/// The context descriptors that the card has, of the one or two that it keeps.
pub(super) struct Contexts {
    kept: [Option<[u64; 2]>; 2],
    last: usize,
}

impl Contexts {
    /// Of a ring that begins with this one.
    pub(super) fn of(first: Option<[u64; 2]>) -> Contexts {
        Contexts { kept: [first, None], last: 0 }
    }

    /// Where a context is or is to be, and whether it has to be written. Of two the one that was used longer ago makes room, but not the
    /// one that plain packets rely on: they are sent without a look at what is there.
    fn place<F: TxFormat>(&self, context: [u64; 2]) -> (usize, bool) {
        match self.kept.iter().position(|kept| *kept == Some(context)) {
            Some(index) => (index, false),
            None if F::SECOND_CONTEXT == 0 || self.kept[0].is_none() => (0, true),
            None if F::FIRST_CONTEXT.is_some() => (1, true),
            None => (1 - self.last, true),
        }
    }

    /// The context that was used last, as it was written.
    pub(super) fn last<F: TxFormat>(&self) -> Option<[u64; 2]> {
        self.kept[self.last].map(|words| numbered::<F>(words, self.last))
    }
}

/// A context as it stands in the ring.
fn numbered<F: TxFormat>([first, second]: [u64; 2], index: usize) -> [u64; 2] {
    [first, second | (F::SECOND_CONTEXT * index as u64)]
}

/// How a packet is to be written.
pub(super) struct Plan {
    pub(super) descriptors: u32,
    /// The context it relies on, where it is, and whether it is to be written first.
    context: Option<([u64; 2], usize, bool)>,
    /// Bits of word 1 in each data descriptor.
    pub(super) options: u64,
    /// Bytes of the packet as the data descriptors tell them: without headers if it is cut.
    pub(super) told: usize,
    /// Bytes of padding at its end, which have to go.
    padding: usize,
    /// Frames that it makes, and their bytes without tag and frame check sequence.
    pub(super) frames: usize,
    pub(super) bytes: usize,
    request: Request,
}

impl<F: TxFormat> TxRing<F> {
    /// What a packet needs, or why it cannot be sent at all.
    pub(super) fn plan(&self, packet: &Packet) -> Result<Plan, TxRefused> {
        let request = self.request(packet)?;
        let padding = request.padding(packet)?;
        let len = packet.len() - padding;
        if len < F::SHORTEST {
            return Err(TxRefused::TooShort { len, least: F::SHORTEST });
        }
        let headers = match request.mss {
            0 => 0,
            _ => usize::from(request.l2_len) + usize::from(request.l3_len) + usize::from(request.l4_len),
        };
        // Headers lie within the packet: `request` has looked.
        let told = len - headers;
        let (frames, longest) = match usize::from(request.mss) {
            0 => (1, len),
            mss => (told.div_ceil(mss), headers + told.min(mss)),
        };
        let longest = longest + if request.vlan.is_some() { VLAN_TAG } else { 0 };
        if longest > self.longest {
            return Err(TxRefused::TooLong { len: longest, most: self.longest });
        }
        let segments = packet.segments().try_fold(0, |count, segment| match segment.data_len().into() {
            len if len == 0 || len > F::MAX_DATA => Err(TxRefused::Segment { len, most: F::MAX_DATA }),
            _ => Ok(count + 1),
        })?;
        let plain =
            Request { l2_len: 0, l3_len: 0, l4_len: 0, mss: 0, ip_csum: false, l4: L4::None, vlan: None };
        let encoded = match request == plain {
            true => Encoded { options: 0, context: None },
            false => F::encode(&request).ok_or_else(|| request.refuse("longer than the card can be told"))?,
        };
        let context = encoded.context.map(|words| {
            let (index, write) = self.contexts.place::<F>(words);
            (words, index, write)
        });
        let (index, write) = context.map_or((0, false), |(_, index, write)| (index, write));
        let descriptors = segments + u32::from(write);
        let most = F::MAX_DESCRIPTORS.min(self.descriptors.len() - 1);
        if descriptors > most {
            return Err(TxRefused::Descriptors { descriptors, most });
        }
        let options = encoded.options | (F::SECOND_CONTEXT * index as u64);
        Ok(Plan {
            descriptors,
            context,
            options,
            told,
            padding,
            frames,
            bytes: told + frames * headers,
            request,
        })
    }

    /// What a packet asks for, if it may and its headers are where it says.
    fn request(&self, packet: &Packet) -> Result<Request, TxRefused> {
        let flags = packet.flags();
        let has = |flag| flags.contains(flag);
        let l4s = [
            (has(PacketFlags::TX_TCP_CSUM) || has(PacketFlags::TX_TSO), L4::Tcp),
            (has(PacketFlags::TX_UDP_CSUM), L4::Udp),
            (has(PacketFlags::TX_SCTP_CSUM), L4::Sctp),
        ];
        let mut asked = l4s.into_iter().filter(|(asked, _)| *asked).map(|(_, l4)| l4);
        let (l4, another) = (asked.next().unwrap_or(L4::None), asked.next().is_some());
        let missing = TxOffloads::asked_by(packet) - self.offloads;
        if !missing.is_empty() {
            return Err(TxRefused::Offload(missing));
        }
        let vlan = has(PacketFlags::TX_VLAN_INSERT).then(|| packet.vlan_tci());
        let mut request = Request {
            l2_len: 0,
            l3_len: 0,
            l4_len: 0,
            mss: 0,
            ip_csum: has(PacketFlags::TX_IP_CSUM),
            l4,
            vlan,
        };
        // What a packet that asks for no checksum says of its headers may be a former one's: nothing clears it.
        if !request.ip_csum && l4 == L4::None {
            return Ok(request);
        }
        (request.l2_len, request.l3_len) = packet.header_lens();
        if has(PacketFlags::TX_TSO) {
            (request.l4_len, request.mss) = packet.segmentation();
        }
        if another {
            return Err(request.refuse("more than one layer-4 checksum is asked for"));
        }
        self.check_headers(packet, &mut request)?;
        Ok(request)
    }

    /// The checksums must lie within the packet, and not in each other: the card does not check.
    fn check_headers(&self, packet: &Packet, request: &mut Request) -> Result<(), TxRefused> {
        let segmented = packet.flags().contains(PacketFlags::TX_TSO);
        let before = usize::from(request.l2_len) + usize::from(request.l3_len);
        let headers = before + request.l4.header_len().max(request.l4_len.into());
        let version =
            packet.as_slice().and_then(|data| data.get(usize::from(request.l2_len))).map(|byte| byte >> 4);
        let least = if version == Some(6) { IPV6_HEADER } else { IPV4_HEADER };
        if request.l2_len < ETHERNET_HEADER || request.l3_len < least || headers > packet.len() {
            return Err(request.refuse("too short, or longer than the packet"));
        }
        if version == Some(6) && request.ip_csum {
            return Err(request.refuse("IPv6 has no header checksum"));
        }
        if !segmented {
            return Ok(());
        }
        // The driver reads and changes them all; no card has been seen to take them in parts.
        if headers > packet.data_len().into() {
            return Err(request.refuse("a packet to be cut has them all in its first segment"));
        }
        match version {
            Some(4) => request.ip_csum = true,
            // Where the CPU cannot look, the request says it.
            Some(6) | None => {}
            Some(_) => return Err(request.refuse("layer 3 is neither IPv4 nor IPv6")),
        }
        if request.l4_len < TCP_HEADER || !request.l4_len.is_multiple_of(4) {
            return Err(request.refuse("no length of a TCP header"));
        }
        let (payload, mss, most) = (packet.len() - headers, request.mss, F::MAX_SEGMENTED);
        if mss == 0 || payload == 0 || payload > most {
            return Err(TxRefused::Segmentation { payload, mss, most });
        }
        Ok(())
    }

    /// Make ready what stands before the packet's data: fields that the card adds to, and the context.
    pub(super) fn begin(&mut self, packet: &mut Packet, plan: &Plan) {
        // `plan` has looked: the last segment is longer.
        let _ = packet.trim_back(plan.padding);
        plan.request.fill(packet);
        if let Some((words, index, write)) = plan.context {
            if write {
                self.descriptors.write(numbered::<F>(words, index), None);
                self.contexts.kept[index] = Some(words);
            }
            self.contexts.last = index;
        }
    }
}

impl Request {
    /// Bytes behind the end that the IP header tells. A card sums up to the end of what it is given: padding, which short frames have on
    /// receipt, would spoil SCTP's checksum always and the others if it is not zeros. The card pads again, after summing (82599
    /// specification update, "Padding on Transmitted SCTP Packets").
    fn padding(&self, packet: &Packet) -> Result<usize, TxRefused> {
        let (l3, headers) = (usize::from(self.l2_len), usize::from(self.l2_len) + usize::from(self.l3_len));
        let Some(header) = packet.as_slice().and_then(|data| data.get(l3..l3 + usize::from(IPV4_HEADER)))
        else {
            return Ok(0);
        };
        if self.l4 == L4::None || self.mss != 0 {
            return Ok(0);
        }
        let word = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let end = l3 + if header[0] >> 4 == 6 { usize::from(IPV6_HEADER) + word(4) } else { word(2) };
        if !(headers + self.l4.header_len()..packet.len()).contains(&end) {
            return Ok(0);
        }
        let padding = packet.len() - end;
        let last = packet.segments().last().map_or(0, |segment| usize::from(segment.data_len()));
        match padding < last {
            true => Ok(padding),
            false if self.l4 == L4::Sctp => {
                Err(self
                    .refuse("the packet ends before its last segment, and SCTP's checksum takes no padding"))
            }
            false => Ok(0),
        }
    }

    fn refuse(&self, why: &'static str) -> TxRefused {
        TxRefused::Headers { l2: self.l2_len, l3: self.l3_len, l4: self.l4_len, why }
    }

    /// Fill in what the card expects in the checksum fields: nothing in those that it makes from the packet alone, the
    /// pseudo-header's sum in TCP's and UDP's, without the length if it is cut, for then every segment has its own.
    ///
    /// What is not in the first segment, or not to be reached by the CPU, is the caller's to fill in; and the sum behind options and
    /// extension headers, which may name another destination.
    fn fill(&self, packet: &mut Packet) {
        let (l3, l4) = (usize::from(self.l2_len), usize::from(self.l2_len) + usize::from(self.l3_len));
        let longest = packet.len().saturating_sub(l4);
        let Some(data) = packet.as_mut_slice() else { return };
        if self.ip_csum && data.len() >= l3 + usize::from(IPV4_HEADER) {
            data[l3 + 10..l3 + 12].fill(0);
        }
        let (protocol, at) = match self.l4 {
            L4::Tcp => (6, l4 + 16),
            L4::Udp => (17, l4 + 6),
            L4::Sctp => {
                if let Some(field) = data.get_mut(l4 + 8..l4 + 12) {
                    field.fill(0);
                }
                return;
            }
            L4::None => return,
        };
        if data.len() < at + 2 {
            return;
        }
        let word = |at: usize| usize::from(u16::from_be_bytes([data[at], data[at + 1]]));
        // IP says how long it is: behind its end a chain may be padded.
        let (addresses, length) = match (data[l3] >> 4, self.l3_len) {
            (4, IPV4_HEADER) => (l3 + 12..l3 + 20, word(l3 + 2).saturating_sub(IPV4_HEADER.into())),
            (6, IPV6_HEADER) => (l3 + 8..l3 + 40, word(l3 + 4)),
            _ => return,
        };
        let length = if (1..longest).contains(&length) { length } else { longest } as u32;
        let words =
            data[addresses].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let length = if self.mss == 0 { length } else { 0 };
        // At most 18 words of 16 bits: it cannot overflow, and folding twice leaves 16 bits.
        let sum = words.sum::<u32>() + protocol + (length >> 16) + (length & 0xffff);
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        data[at..at + 2].copy_from_slice(&(folded as u16).to_be_bytes());
    }
}
