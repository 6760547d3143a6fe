//! A frame as a file or the command line describes it.

use std::net::IpAddr;

use anyhow::{Result, bail};
use pagewire_ethdev::MacAddr;
use serde::Deserialize;

use super::values::{Range, Sizes, Text};

/// Above IP.
#[derive(Deserialize, clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Protocol {
    #[default]
    Udp,
    Tcp,
}

/// One frame of a stream, or, with ranges, many.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Frame {
    /// Bytes with the check sequence.
    pub(super) size: Sizes,
    /// How often it is sent before the next one has its turn.
    pub(super) repeat: u32,
    pub(super) src_mac: Option<Range<MacAddr>>,
    pub(super) dst_mac: Option<Range<MacAddr>>,
    /// IDs of 802.1Q tags; of two the outer one first.
    pub(super) vlan: Vec<Range<u16>>,
    pub(super) vlan_priority: u8,
    pub(super) src_ip: Range<IpAddr>,
    pub(super) dst_ip: Range<IpAddr>,
    pub(super) ttl: u8,
    pub(super) protocol: Protocol,
    pub(super) src_port: Range<u16>,
    pub(super) dst_port: Range<u16>,
    pub(super) payload: Payload,
    /// Bits of the finished frame that are random.
    pub(super) random_bits: Vec<RandomBits>,
    /// All of the frame without check sequence, in hexadecimal digits, in place of headers and payload.
    pub(super) bytes: Option<Bytes>,
}

impl Default for Frame {
    fn default() -> Frame {
        Frame {
            size: Sizes { order: vec![64], random: false },
            repeat: 1,
            src_mac: None,
            dst_mac: None,
            vlan: Vec::new(),
            vlan_priority: 0,
            // Of RFC 2544's networks for tests.
            src_ip: Range::one(IpAddr::from([198, 18, 0, 1])),
            dst_ip: Range::one(IpAddr::from([198, 19, 0, 1])),
            ttl: 64,
            protocol: Protocol::Udp,
            // The discard service (RFC 863).
            src_port: Range::one(1024),
            dst_port: Range::one(9),
            payload: Payload::default(),
            random_bits: Vec::new(),
            bytes: None,
        }
    }
}

/// Bits of a frame that are random.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct RandomBits {
    /// Bytes before them.
    pub(super) offset: usize,
    /// Which, in hexadecimal digits: up to 8 bytes.
    pub(super) mask: Bytes,
}

/// Bytes, as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let digits: Vec<_> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
        let error = || "expected hexadecimal digits, two a byte".to_owned();
        let byte = |pair: &[char]| match pair {
            [high, low] => Some((high.to_digit(16)? << 4 | low.to_digit(16)?) as u8),
            _ => None,
        };
        let bytes: Option<Vec<_>> = digits.chunks(2).map(byte).collect();
        bytes.filter(|bytes| !bytes.is_empty()).map(Bytes).ok_or_else(error)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What is behind headers and signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// These bytes again and again.
    Repeated(Vec<u8>),
    /// 0, 1, 2 …
    Increment,
    /// Random bytes, the same in every frame.
    Random,
}

impl Default for Payload {
    fn default() -> Payload {
        Payload::Repeated(vec![0])
    }
}

impl std::str::FromStr for Payload {
    type Err = String;

    fn from_str(text: &str) -> Result<Payload, String> {
        match text {
            "zero" => Ok(Payload::default()),
            "increment" => Ok(Payload::Increment),
            "random" => Ok(Payload::Random),
            digits => digits.parse().map(|Bytes(bytes)| Payload::Repeated(bytes)).map_err(|_| {
                format!("{text:?} is no payload; expected zero, increment, random or hexadecimal digits, two a byte")
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Frame {
    /// Numbers that make sense by themselves.
    pub(super) fn check(&self) -> Result<()> {
        if !(1..=1_000_000).contains(&self.repeat) {
            bail!("repeat: {} is not within 1 to 1000000", self.repeat);
        }
        if self.vlan.len() > 2 {
            bail!("vlan: {} tags; there are two at most", self.vlan.len());
        }
        if let Some(id) = self.vlan.iter().find(|id| id.max > 4095) {
            bail!("vlan: {} is no ID; they are 0 to 4095", id.max);
        }
        if self.vlan_priority > 7 {
            bail!("vlan-priority: {} is not within 0 to 7", self.vlan_priority);
        }
        let versions = [self.src_ip.min, self.src_ip.max, self.dst_ip.min, self.dst_ip.max];
        if versions.iter().any(|address| address.is_ipv4() != versions[0].is_ipv4()) {
            bail!("src-ip, dst-ip: addresses of IPv4 and of IPv6 in one frame");
        }
        Ok(())
    }
}
