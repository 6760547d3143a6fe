//! Checksums that the card fills in, and those it checks.

use anyhow::{Context, Result, ensure};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv4Options, PacketBuilder, VlanId};
use pagewire_ethdev::{Packet, PacketFlags, RxOffloads, TxOffloads};

use crate::Case;
use crate::pair::{Options, Pair, Random, Side};

pub(crate) const CASES: &[Case] = &[
    ("checksums-are-filled-in", |cards| filled_in(&mut Pair::new(cards, &transmit())?)),
    ("checksums-are-checked", |cards| {
        let checking =
            Options { rx_offloads: RxOffloads::IP_CSUM | RxOffloads::L4_CSUM, ..Options::default() };
        checked(&mut Pair::with(cards, &Options::default(), &checking)?, true)
    }),
    ("checksums-are-left-alone", |cards| checked(&mut Pair::new(cards, &Options::default())?, false)),
];

fn transmit() -> Options {
    let tx_offloads =
        TxOffloads::IP_CSUM | TxOffloads::TCP_CSUM | TxOffloads::UDP_CSUM | TxOffloads::MULTI_SEGS;
    Options { tx_offloads, ..Options::default() }
}

/// A well-formed frame and where its headers are.
struct Frame {
    bytes: Vec<u8>,
    l2: usize,
    l3: usize,
    v4: bool,
    tcp: bool,
}

impl Frame {
    /// Which of 16 kinds, from the low bits of `kind`: IPv6, TCP, tagged, with IPv4 options.
    fn new(kind: u64, payload: &[u8]) -> Result<Frame> {
        let [v6, tcp, tagged, options] = [1, 2, 4, 8].map(|bit| kind & bit != 0);
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let v4 = !v6;
        let ip = if v6 {
            let header = etherparse::Ipv6Header {
                source: [0xfd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
                destination: [0xfe; 16],
                hop_limit: 64,
                ..Default::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        } else {
            let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, [10, 1, 2, 3], [192, 168, 254, 253])?;
            if options {
                // Four times "no operation".
                header.options = Ipv4Options::from([1; 4]);
            }
            IpHeaders::Ipv4(header, Default::default())
        };
        let l2 = if tagged { 18 } else { 14 };
        let l3 = ip.header_len();
        let mut bytes = Vec::new();
        match (tagged, tcp) {
            (false, false) => ethernet.ip(ip).udp(53, 1053).write(&mut bytes, payload)?,
            (false, true) => ethernet.ip(ip).tcp(80, 1080, 7, 512).write(&mut bytes, payload)?,
            (true, false) => {
                ethernet.single_vlan(VlanId::try_new(5)?).ip(ip).udp(53, 1053).write(&mut bytes, payload)?
            }
            (true, true) => ethernet
                .single_vlan(VlanId::try_new(5)?)
                .ip(ip)
                .tcp(80, 1080, 7, 512)
                .write(&mut bytes, payload)?,
        }
        Ok(Frame { bytes, l2, l3, v4, tcp })
    }

    fn l4_sum(&self) -> usize {
        self.l2 + self.l3 + if self.tcp { 16 } else { 6 }
    }

    /// Clears the IPv4 checksum.
    fn ask_ip(&mut self) -> PacketFlags {
        self.bytes[self.l2 + 10..][..2].fill(0);
        PacketFlags::TX_IP_CSUM
    }

    /// Puts the pseudo-header's sum where the TCP or UDP checksum goes.
    fn ask_l4(&mut self) -> PacketFlags {
        let ip = &self.bytes[self.l2..];
        let addresses = if self.v4 { &ip[12..20] } else { &ip[8..40] };
        let l4_len = self.bytes.len() - self.l2 - self.l3;
        let words = addresses.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let mut sum = words.sum::<u32>() + l4_len as u32 + if self.tcp { 6 } else { 17 };
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let at = self.l4_sum();
        self.bytes[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        if self.tcp { PacketFlags::TX_TCP_CSUM } else { PacketFlags::TX_UDP_CSUM }
    }

    /// A packet of one segment, or of several cut at random, within the headers too.
    fn packet(
        &self,
        side: &mut Side,
        random: &mut Random,
        chained: bool,
        flags: PacketFlags,
    ) -> Result<Packet> {
        let mut rest = &self.bytes[..];
        let mut segments = Vec::new();
        while chained && rest.len() > 1 {
            let (segment, left) = rest.split_at(random.between(1, rest.len() - 1).min(700));
            segments.push(segment);
            rest = left;
        }
        segments.push(rest);
        let mut packet = side.packet(&segments)?;
        packet.set_flags(flags);
        packet.set_header_lens(self.l2 as u16, self.l3 as u16);
        Ok(packet)
    }
}

/// What arrives is byte for byte what `etherparse` made, whose checksums are right.
fn filled_in(pair: &mut Pair) -> Result<()> {
    let mut random = Random(1);
    for number in 0..2_000 {
        let payload: Vec<u8> = (0..random.between(18, 1400)).map(|_| random.next() as u8).collect();
        // Runs of one kind, whose context the card keeps, and changes between them.
        let kind = if number % 8 < 3 { number / 8 } else { random.next() };
        let good = Frame::new(kind, &payload)?.bytes;
        let mut frame = Frame::new(kind, &payload)?;
        let asked = random.next();
        let mut flags = PacketFlags::empty();
        if frame.v4 && asked & 1 != 0 {
            flags |= frame.ask_ip();
        }
        if asked & 6 != 0 {
            flags |= frame.ask_l4();
        }
        let chained = random.next() & 1 != 0;
        let packet = frame.packet(&mut pair.a, &mut random, chained, flags)?;
        pair.a.send(packet)?;
        pair.b
            .expect(&good)
            .with_context(|| format!("frame {number}, kind {kind:#x}, chained {chained}, {flags:?}"))?;
    }
    Ok(())
}

/// The card's verdict about every kind of frame, with either checksum right and wrong.
fn checked(pair: &mut Pair, on: bool) -> Result<()> {
    use PacketFlags as Flags;
    let mut random = Random(2);
    for kind in 0..16 {
        for (bad_ip, bad_l4) in [(false, false), (false, true), (true, false)] {
            let mut frame = Frame::new(kind, &[0x5a; 99])?;
            if bad_ip && !frame.v4 {
                continue;
            }
            let mut expected = Flags::empty();
            if on {
                if frame.v4 {
                    expected |= if bad_ip { Flags::RX_IP_CSUM_BAD } else { Flags::RX_IP_CSUM_GOOD };
                }
                expected |= if bad_l4 { Flags::RX_L4_CSUM_BAD } else { Flags::RX_L4_CSUM_GOOD };
            }
            if bad_ip {
                frame.bytes[frame.l2 + 11] ^= 0x40;
            }
            if bad_l4 {
                *frame.bytes.last_mut().context("empty")? ^= 1;
            }
            let packet = frame.packet(&mut pair.a, &mut random, false, Flags::empty())?;
            pair.a.send(packet)?;
            let found = pair.b.expect(&frame.bytes)?;
            ensure!(
                found == expected,
                "kind {kind:#x}, IP {}, L4 {}: flags are {found:?}, expected {expected:?}",
                if bad_ip { "bad" } else { "good" },
                if bad_l4 { "bad" } else { "good" },
            );
        }
    }
    // What is neither.
    let other = crate::pair::frame(pair.b.mac(), pair.a.mac(), 100, 1);
    pair.a.send_frame(&other)?;
    let found = pair.b.expect(&other)?;
    ensure!(found == Flags::empty(), "a frame that is not IP has flags {found:?}");
    Ok(())
}
