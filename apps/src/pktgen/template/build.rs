//! From a frame as it is described to templates: headers, payload, and the fields that vary.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, VlanId};
use pagewire_ethdev::{MacAddr, PacketFlags};

use super::super::field::{Field, Random};
use super::super::frame::{Frame, Payload, Protocol};
use super::super::scenario::Checksums;
use super::super::signature;
use super::super::values::Range;
use super::{Ends, FCS, Layout, Offload, SHORTEST, TAG, Template, Templates, payload_check};

impl Frame {
    /// All that can be made beforehand.
    pub(in super::super) fn templates(
        &self,
        ends: Ends,
        signed: bool,
        checksums: Checksums,
    ) -> Result<Templates> {
        if let Some(bytes) = &self.bytes {
            if signed {
                bail!("bytes: a frame given as bytes carries no signature; say `signature = false`");
            }
            let frame = padded(bytes.0.clone())?;
            let size = u16::try_from(frame.len() + FCS).context("bytes: a frame that no wire carries")?;
            let fields = self.random_fields(&frame, None)?;
            return Ok(Templates { by_size: vec![(size, Template::new(frame))], fields });
        }
        let mut sizes = self.size.order.clone();
        sizes.sort_unstable();
        sizes.dedup();
        let mut fields = Vec::new();
        let make = |size| -> Result<_> {
            let (template, of_this) = self.template(size, ends, signed, checksums)?;
            fields = of_this;
            Ok((size, template))
        };
        // Bits at an offset that a short frame does not have are an error there; all others have the same fields.
        let by_size = sizes.into_iter().map(make).collect::<Result<Vec<_>>>()?;
        Ok(Templates { by_size, fields })
    }

    fn template(
        &self,
        size: u16,
        ends: Ends,
        signed: bool,
        checksums: Checksums,
    ) -> Result<(Template, Vec<Field>)> {
        let length = usize::from(size) - FCS;
        let (mut frame, layout) = self.build(length, ends)?;
        let behind = length - layout.payload;
        if signed && behind < signature::LEN {
            bail!(
                "size: frames of {size} bytes have {behind} bytes behind their headers, and a signature takes {}: at least {} bytes, \
                 or `signature = false`",
                signature::LEN,
                usize::from(size) - behind + signature::LEN
            );
        }
        for (tag, _) in self.vlan.iter().enumerate() {
            frame[14 + 4 * tag] |= self.vlan_priority << 5;
        }
        let signature_at = signed.then_some(layout.payload);
        let payload_at = layout.payload + if signed { signature::LEN } else { 0 };
        self.payload.fill(&mut frame[payload_at..]);
        let mut fields = self.fields(&frame, &layout);
        fields.extend(self.random_fields(&frame, Some((&layout, payload_at)))?);
        let mut template = Template::new(frame);
        template.signature_at = signature_at;
        template.payload_check = payload_check(&template.frame()[payload_at..]);
        let protocol = self.protocol;
        let l4_at = layout.l4 + if protocol == Protocol::Udp { 6 } else { 16 };
        match checksums {
            Checksums::Software => template.sum_up(&layout, l4_at, protocol, &fields),
            Checksums::None | Checksums::Offload => {
                let frame = &mut template.image[TAG..];
                frame[l4_at..l4_at + 2].fill(0);
                if layout.v4 {
                    frame[layout.l3 + 10..layout.l3 + 12].fill(0);
                }
            }
        }
        if checksums == Checksums::Offload {
            let ip = if layout.v4 { PacketFlags::TX_IP_CSUM } else { PacketFlags::empty() };
            let l4 = match protocol {
                Protocol::Udp => PacketFlags::TX_UDP_CSUM,
                Protocol::Tcp => PacketFlags::TX_TCP_CSUM,
            };
            let (l2, l3) = (layout.l3 as u16, (layout.l4 - layout.l3) as u16);
            template.offload = Some(Offload { flags: ip | l4, l2, l3 });
        }
        Ok((template, fields))
    }

    /// Headers, and zeros behind them.
    fn build(&self, length: usize, ends: Ends) -> Result<(Vec<u8>, Layout)> {
        let mac = |range: &Option<Range<MacAddr>>, or: MacAddr| range.map_or(or, |range| range.start).0;
        let l2 =
            PacketBuilder::ethernet2(mac(&self.src_mac, ends.source), mac(&self.dst_mac, ends.destination));
        let protocol = match self.protocol {
            Protocol::Udp => IpNumber::UDP,
            Protocol::Tcp => IpNumber::TCP,
        };
        let ip = match (self.src_ip.start, self.dst_ip.start) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4Header::new(0, self.ttl, protocol, source.octets(), destination.octets())?;
                IpHeaders::Ipv4(header, Default::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                let next_header = protocol;
                let header = Ipv6Header {
                    next_header,
                    hop_limit: self.ttl,
                    source,
                    destination,
                    ..Default::default()
                };
                IpHeaders::Ipv6(header, Default::default())
            }
            _ => bail!("src-ip, dst-ip: addresses of IPv4 and of IPv6 in one frame"),
        };
        let v4 = matches!(ip, IpHeaders::Ipv4(..));
        let id = |range: &Range<u16>| VlanId::try_new(range.start).context("vlan: IDs are 0 to 4095");
        let l3 = match &self.vlan[..] {
            [] => l2.ip(ip),
            [one] => l2.single_vlan(id(one)?).ip(ip),
            [outer, inner, ..] => l2.double_vlan(id(outer)?, id(inner)?).ip(ip),
        };
        let l3_at = 14 + 4 * self.vlan.len();
        let l4_at = l3_at + if v4 { 20 } else { 40 };
        let (source, destination) = (self.src_port.start, self.dst_port.start);
        let mut frame = Vec::with_capacity(length);
        let payload_at = match self.protocol {
            Protocol::Udp => {
                let l4 = l3.udp(source, destination);
                let headers = l4.size(0);
                l4.write(&mut frame, &vec![0; room(length, headers)?])?;
                headers
            }
            Protocol::Tcp => {
                let l4 = l3.tcp(source, destination, 0, u16::MAX).ack(0);
                let headers = l4.size(0);
                l4.write(&mut frame, &vec![0; room(length, headers)?])?;
                headers
            }
        };
        Ok((frame, Layout { l3: l3_at, l4: l4_at, payload: payload_at, v4 }))
    }

    /// Fields of headers that vary.
    fn fields(&self, frame: &[u8], layout: &Layout) -> Vec<Field> {
        let Layout { l3, l4, v4, .. } = *layout;
        let mut fields = Vec::new();
        for (range, at) in [(&self.dst_mac, 0), (&self.src_mac, 6)] {
            fields.extend(range.filter(Range::varies).map(|range| Field::of_range(&range, at, 6, 0)));
        }
        for (tag, range) in self.vlan.iter().enumerate().filter(|(_, range)| range.varies()) {
            let at = 14 + 4 * tag;
            fields.push(Field::of_range(range, at, 2, u64::from(frame[at] & 0xf0) << 8));
        }
        // Of an address of IPv6 the last 8 bytes.
        let addresses = if v4 { [l3 + 12, l3 + 16] } else { [l3 + 16, l3 + 32] };
        for (range, at) in
            [&self.src_ip, &self.dst_ip].into_iter().zip(addresses).filter(|(range, _)| range.varies())
        {
            let field = Field::of_range(range, at, if v4 { 4 } else { 8 }, 0);
            fields.push(field.counting(v4, true));
        }
        for (range, at) in
            [(&self.src_port, l4), (&self.dst_port, l4 + 2)].into_iter().filter(|(range, _)| range.varies())
        {
            fields.push(Field::of_range(range, at, 2, 0).counting(false, true));
        }
        fields
    }

    /// Random bits, of a frame with headers or without.
    fn random_fields(&self, frame: &[u8], layout: Option<(&Layout, usize)>) -> Result<Vec<Field>> {
        let mut fields: Vec<Field> = layout.map_or_else(Vec::new, |(layout, _)| self.fields(frame, layout));
        let ranges = fields.len();
        for bits in &self.random_bits {
            let (start, mask) = (bits.offset, &bits.mask.0);
            let end = start.saturating_add(mask.len());
            let refuse = |why: &str| bail!("random-bits: {} bytes at {start} {why}", mask.len());
            if mask.len() > 8 {
                return refuse("are more than 8; use several");
            }
            if end > frame.len() {
                return refuse(&format!(
                    "are not within a frame of {} bytes without check sequence",
                    frame.len()
                ));
            }
            if fields.iter().any(|field| start < field.at + field.width && field.at < end) {
                return refuse("overlap a field that varies already");
            }
            let mut field = Field::of_bits(frame, start, mask);
            if let Some((layout, payload)) = layout {
                let Layout { l3, l4, v4, .. } = *layout;
                let checksum = l4 + if self.protocol == Protocol::Udp { 6 } else { 16 };
                let within = |area: std::ops::Range<usize>| start >= area.start && end <= area.end;
                let touches = |area: std::ops::Range<usize>| start < area.end && area.start < end;
                if touches(checksum..checksum + 2) || v4 && touches(l3 + 10..l3 + 12) {
                    return refuse("are of a checksum");
                }
                let lengths = [if v4 { l3 + 2..l3 + 4 } else { l3 + 4..l3 + 6 }, l4 + 4..l4 + 6];
                if self.size.order.len() > 1 && lengths.into_iter().any(touches) {
                    return refuse("are of a length, which differs between these sizes");
                }
                if touches(layout.payload..frame.len()) && payload > layout.payload {
                    return refuse("are of signature or payload, which a stream with signatures checks");
                }
                let addresses = if v4 { l3 + 12..l3 + 20 } else { l3 + 8..l3 + 40 };
                if touches(addresses.clone()) && !within(addresses.clone())
                    || [l3, l4].iter().any(|border| start < *border && end > *border)
                {
                    return refuse("are partly of one header or address and partly of another; use several");
                }
                field = field.counting(v4 && within(l3..l4), within(addresses) || start >= l4);
            }
            fields.push(field);
        }
        Ok(fields.split_off(ranges))
    }
}

/// Bytes behind the headers.
fn room(length: usize, headers: usize) -> Result<usize> {
    length.checked_sub(headers).with_context(|| {
        format!("size: headers of {headers} bytes are more than a frame of {} bytes has", length + FCS)
    })
}

fn padded(mut frame: Vec<u8>) -> Result<Vec<u8>> {
    if frame.len() < 14 {
        bail!("bytes: a frame of {} bytes; addresses and type are 14", frame.len());
    }
    frame.resize(frame.len().max(SHORTEST), 0);
    Ok(frame)
}

impl Payload {
    fn fill(&self, to: &mut [u8]) {
        let mut random = Random::new(2544);
        for (number, byte) in to.iter_mut().enumerate() {
            *byte = match self {
                Payload::Repeated(bytes) => bytes[number % bytes.len()],
                Payload::Increment => number as u8,
                Payload::Random => random.next() as u8,
            };
        }
    }
}
