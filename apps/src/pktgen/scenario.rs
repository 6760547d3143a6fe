//! What is to be sent and what is expected, as a file says or the command line makes.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use pagewire_ethdev::MacAddr;
use serde::Deserialize;

use super::pace::Rate;
use super::values::{Range, Sizes, Text};

/// A scenario file, all of it.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Scenario {
    /// Seconds of measurement.
    pub(super) duration: Option<f64>,
    /// Seconds of sending before it.
    #[serde(default)]
    pub(super) warm_up: f64,
    /// What is sent; one of all defaults if there is none.
    #[serde(default, rename = "stream")]
    pub(super) streams: Vec<Stream>,
    /// What makes it a success.
    #[serde(default)]
    pub(super) pass: Pass,
}

/// One stream: when it sends, and from where to where.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Stream {
    pub(super) name: Option<String>,
    /// Ports by number: the one that sends, and the one where the frames are expected.
    #[serde(default)]
    pub(super) tx: usize,
    pub(super) rx: Option<usize>,
    #[serde(default)]
    pub(super) rate: Paced,
    /// Packets that are sent together, at so many times the interval.
    #[serde(default = "one")]
    pub(super) burst: u32,
    /// Packets altogether.
    pub(super) count: Option<u64>,
    /// Whether frames carry a signature; without, only their number is known.
    #[serde(default = "yes")]
    pub(super) signature: bool,
    #[serde(default)]
    pub(super) checksums: Checksums,
    /// Frames, sent in turns.
    #[serde(default, rename = "frame")]
    pub(super) frames: Vec<Frame>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// [`Rate`], of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Paced(pub(super) Rate);

impl Default for Paced {
    fn default() -> Paced {
        Paced(Rate::Max)
    }
}

impl<'de> Deserialize<'de> for Paced {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Paced, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        text.parse().map(Paced).map_err(serde::de::Error::custom)
    }
}

/// Who fills in the checksums of IP, TCP and UDP.
#[derive(Deserialize, clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Checksums {
    /// The program, from what changes: costs nothing where nothing does
    #[default]
    Software,
    /// The card
    Offload,
    /// Nobody: they are 0
    None,
}

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

/// Limits for each stream; what is not named does not matter.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Pass {
    /// Lost frames, as a part of those sent.
    pub(super) max_loss: Option<f64>,
    pub(super) max_reordered: Option<u64>,
    pub(super) max_duplicates: Option<u64>,
    pub(super) max_corrupt: Option<u64>,
    /// Deviation of the rate from what was asked, as a part of it.
    pub(super) max_rate_error: Option<f64>,
    /// Microseconds.
    pub(super) max_latency_p50: Option<f64>,
    pub(super) max_latency_p99: Option<f64>,
    pub(super) max_latency: Option<f64>,
}

impl Scenario {
    /// A file's.
    ///
    /// # Errors
    ///
    /// What cannot be read or understood, with the file's name, the line and what is in it.
    pub(super) fn read(path: &Path) -> Result<Scenario> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("the scenario {}", path.display()))?;
        // The message tells line and column, and shows the line.
        let scenario: Scenario = toml::from_str(&text).map_err(|error| {
            anyhow::anyhow!("the scenario {}: {}", path.display(), error.to_string().trim_end())
        })?;
        scenario.check().with_context(|| format!("the scenario {}", path.display()))
    }

    /// Numbers that make sense by themselves.
    pub(super) fn check(mut self) -> Result<Scenario> {
        for (key, seconds) in [("duration", self.duration.unwrap_or(0.0)), ("warm-up", self.warm_up)] {
            if !(0.0..=1e9).contains(&seconds) {
                bail!("{key}: {seconds} is no number of seconds");
            }
        }
        if self.streams.is_empty() {
            self.streams.push(Stream { burst: 1, signature: true, ..Stream::default() });
        }
        for (number, stream) in self.streams.iter_mut().enumerate() {
            stream.name.get_or_insert_with(|| format!("stream{number}"));
            if stream.frames.is_empty() {
                stream.frames.push(Frame::default());
            }
            stream
                .check()
                .with_context(|| format!("stream {}", stream.name.as_deref().unwrap_or_default()))?;
        }
        Ok(self)
    }
}

impl Stream {
    fn check(&self) -> Result<()> {
        if !(1..=65_536).contains(&self.burst) {
            bail!("burst: {} is not within 1 to 65536", self.burst);
        }
        if self.burst > 1 && self.rate.0 == Rate::Max {
            bail!("burst: bursts are of a stream with a rate; it has none");
        }
        for frame in &self.frames {
            if !(1..=1_000_000).contains(&frame.repeat) {
                bail!("repeat: {} is not within 1 to 1000000", frame.repeat);
            }
            if frame.vlan.len() > 2 {
                bail!("vlan: {} tags; there are two at most", frame.vlan.len());
            }
            if let Some(id) = frame.vlan.iter().find(|id| id.max > 4095) {
                bail!("vlan: {} is no ID; they are 0 to 4095", id.max);
            }
            if frame.vlan_priority > 7 {
                bail!("vlan-priority: {} is not within 0 to 7", frame.vlan_priority);
            }
            let versions = [frame.src_ip.min, frame.src_ip.max, frame.dst_ip.min, frame.dst_ip.max];
            if versions.iter().any(|address| address.is_ipv4() != versions[0].is_ipv4()) {
                bail!("src-ip, dst-ip: addresses of IPv4 and of IPv6 in one frame");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let error = Scenario::read(file.path()).expect_err(text);
        let text = format!("{error:#}");
        assert!(text.contains(file.path().to_str().unwrap()), "{text}");
        text
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_key() {
        for (text, expected) in [
            ("duration = 1\nspeed = 2", &["line 2", "unknown field `speed`"][..]),
            ("[[stream]]\nrate = \"1 furlong\"", &["line 2", "is no rate"]),
            ("[[stream]]\nframe = [{ size = 64, lenght = 3 }]", &["line 2", "unknown field `lenght`"]),
            (
                "[[stream]]\n[[stream.frame]]\nsrc-port = { min = 1, max = 9, setp = 2 }",
                &["line 3", "unknown field `setp`"],
            ),
            ("[[stream]]\n[[stream.frame]]\nsrc-ip = \"10.0.0.9-10.0.0.1\"", &["line 3", "above the last"]),
            ("[[stream]]\n[[stream.frame]]\nsize = 20", &["line 3", "a frame of 20 bytes"]),
            ("[[stream]]\n[[stream.frame]]\nvlan = [1, 2, 3]", &["stream stream0", "3 tags"]),
            ("[[stream]]\nname = \"x\"\nburst = 8", &["stream x", "with a rate"]),
            ("duration = -1", &["duration: -1"]),
            ("[[stream]\n", &["line 1"]),
        ] {
            let said = error(text);
            assert!(expected.iter().all(|part| said.contains(part)), "{text}: {said}");
        }
        let said = format!("{:#}", Scenario::read(Path::new("/nowhere/x.toml")).expect_err("no file"));
        assert!(said.contains("/nowhere/x.toml") && said.contains("No such file"), "{said}");
    }

    #[test]
    fn a_file_may_say_everything() {
        let text = r#"
            duration = 2.5
            warm-up = 0.5
            [pass]
            max-loss = 0.0
            [[stream]]
            name = "a"
            rate = "1Mpps"
            count = 5
            burst = 4
            checksums = "offload"
            [[stream.frame]]
            size = "imix"
            vlan = [100, "1-9"]
            src-mac = "02:00:00:00:00:01-02:00:00:00:00:09"
            src-ip = { min = "10.0.0.1", max = "10.0.0.9", start = "10.0.0.5", step = 2 }
            dst-port = "random 1-65535"
            payload = "dead beef"
            random-bits = [{ offset = 15, mask = "fc" }]
            [[stream.frame]]
            bytes = "ffffffffffff 020000000001 88b5 00"
            repeat = 3
            [[stream]]
            tx = 1
        "#;
        let scenario = toml::from_str::<Scenario>(text).unwrap().check().unwrap();
        let [a, b] = &scenario.streams[..] else { panic!("{scenario:?}") };
        assert_eq!((a.rate, a.burst, a.checksums), (Paced(Rate::Packets(1e6)), 4, Checksums::Offload));
        assert_eq!((b.name.as_deref(), b.tx, b.frames.len(), b.signature), (Some("stream1"), 1, 1, true));
        let frame = &a.frames[0];
        assert_eq!(frame.vlan, [Range::one(100), "1-9".parse().unwrap()]);
        assert_eq!(frame.payload, Payload::Repeated(vec![0xde, 0xad, 0xbe, 0xef]));
        assert_eq!(a.frames[1].bytes.as_ref().map(|bytes| bytes.0.len()), Some(15));
    }
}
