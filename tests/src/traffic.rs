//! Frames to send: each is a function of the traffic's seed, its flow and its number, so that whoever receives one can
//! tell which it is and what it has to look like.

use std::ops::RangeInclusive;

use anyhow::Result;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder, VlanId};

/// Ends every frame, in front of the flow and number.
const MAGIC: [u8; 4] = *b"pgwr";
const TRAILER: usize = MAGIC.len() + 8;

/// Shortest frame on an Ethernet, without its checksum.
const SHORTEST: usize = 60;

/// Which frames to send.
#[derive(Clone, Debug)]
pub enum Traffic {
    /// IPv4, IPv6, VLAN-tagged and ARP frames with valid checksums, of random lengths, about half of them odd.
    Mixed {
        /// Another seed gives other frames.
        seed: u64,
        /// Lengths in bytes without the Ethernet checksum, from 60.
        lengths: RangeInclusive<usize>,
    },
    /// IPv4 frames of one length: for measuring.
    Uniform {
        /// Length in bytes without the Ethernet checksum, from 60.
        length: usize,
    },
}

impl Traffic {
    /// Writes frame `number` of a flow into `frame`.
    ///
    /// Its addresses name the flow, so that a bridge learns each on one port only. It may be a few bytes longer than
    /// asked for if its headers need them.
    pub fn frame(&self, flow: u8, number: u64, frame: &mut Vec<u8>) -> Result<()> {
        frame.clear();
        let number = u64::from(flow) << 56 | number;
        let trailer = [&MAGIC[..], &number.to_be_bytes()].concat();
        let (random, length) = match self {
            Self::Mixed { seed, lengths } => {
                let random = mix(seed ^ mix(number));
                let span = (lengths.end() - lengths.start() + 1) as u64;
                (random, lengths.start() + (random % span) as usize)
            }
            Self::Uniform { length } => (0, *length),
        };
        let length = length.max(SHORTEST);
        let kind = match self {
            Self::Mixed { .. } => (random >> 32) % 8,
            Self::Uniform { .. } => 0,
        };

        let (source, destination) = ([2, 0, 0, 0, 1, flow], [2, 0, 0, 0, 2, flow]);
        let ethernet = PacketBuilder::ethernet2(source, destination);
        if kind == 7 {
            let sender = ArpHardwareId::ETHERNET;
            let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
            ethernet
                .arp(ArpPacket::new(
                    sender,
                    EtherType::IPV4,
                    ArpOperation::REQUEST,
                    &source,
                    &from,
                    &[0; 6],
                    &to,
                )?)
                .write_to_vec(frame)?;
            fill(frame, length.saturating_sub(TRAILER), random);
            frame.extend_from_slice(&trailer);
            return Ok(());
        }
        let tagged = kind >= 5;
        let v6 = kind % 2 == 1;
        let headers = 14 + if tagged { 4 } else { 0 } + if v6 { 40 } else { 20 } + 8;
        let mut payload = Vec::with_capacity(length);
        fill(&mut payload, length.saturating_sub(headers + TRAILER), random);
        payload.extend_from_slice(&trailer);
        let (from4, to4) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let (from6, to6) = ([0xfd; 16], [0xfe; 16]);
        let id = VlanId::try_new(100 + u16::from(flow))?;
        match (tagged, v6) {
            (false, false) => ethernet.ipv4(from4, to4, 64).udp(9, 9).write_to_vec(frame, &payload)?,
            (false, true) => ethernet.ipv6(from6, to6, 64).udp(9, 9).write_to_vec(frame, &payload)?,
            (true, false) => {
                ethernet.single_vlan(id).ipv4(from4, to4, 64).udp(9, 9).write_to_vec(frame, &payload)?
            }
            (true, true) => {
                ethernet.single_vlan(id).ipv6(from6, to6, 64).udp(9, 9).write_to_vec(frame, &payload)?
            }
        }
        Ok(())
    }

    /// Which frame this is, if it bears our mark: its flow and number.
    pub fn identify(frame: &[u8]) -> Option<(u8, u64)> {
        let (body, number) = frame.split_last_chunk()?;
        let number = u64::from_be_bytes(*number);
        body.ends_with(&MAGIC).then_some(((number >> 56) as u8, number & (u64::MAX >> 8)))
    }
}

/// Random bytes up to a length.
fn fill(bytes: &mut Vec<u8>, length: usize, mut random: u64) {
    while bytes.len() < length {
        random = mix(random);
        let n = (length - bytes.len()).min(8);
        bytes.extend_from_slice(&random.to_le_bytes()[..n]);
    }
}

/// SplitMix64: a number that looks random for each number.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketHeaders;

    #[test]
    fn frames_are_reproducible_well_formed_and_know_who_they_are() {
        let traffic = Traffic::Mixed { seed: 7, lengths: 60..=9018 };
        let (mut kinds, mut odd) = (std::collections::BTreeSet::new(), 0);
        for number in 0..1000 {
            let (mut frame, mut again) = (Vec::new(), Vec::new());
            traffic.frame(1, number, &mut frame).unwrap();
            traffic.frame(1, number, &mut again).unwrap();
            assert_eq!(frame, again);
            assert_eq!(Traffic::identify(&frame), Some((1, number)));
            assert!((60..=9018).contains(&frame.len()), "{} bytes", frame.len());
            odd += frame.len() % 2;
            let headers = PacketHeaders::from_ethernet_slice(&frame).unwrap();
            kinds.insert((
                headers.link_exts.len(),
                headers.net.map(|net| net.is_ipv6()),
                headers.transport.is_some(),
            ));
        }
        assert!((400..600).contains(&odd), "{odd} of 1000 have an odd length");
        assert_eq!(kinds.len(), 5, "{kinds:?}");
    }

    #[test]
    fn the_shortest_frames_hold_their_mark() {
        for flow in 0..2 {
            for number in 0..100 {
                let mut frame = Vec::new();
                Traffic::Mixed { seed: 1, lengths: 60..=60 }.frame(flow, number, &mut frame).unwrap();
                assert_eq!(Traffic::identify(&frame), Some((flow, number)));
                assert!((60..=78).contains(&frame.len()), "{} bytes", frame.len());
            }
        }
        let mut frame = Vec::new();
        Traffic::Uniform { length: 60 }.frame(0, 0, &mut frame).unwrap();
        assert_eq!(frame.len(), 60);
        assert_eq!(Traffic::identify(&[0; 60]), None);
    }
}
