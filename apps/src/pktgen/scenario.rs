//! What is to be sent and what is expected, as a file says or the command line makes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::captured::{Captured, Timing};
use super::frame::Frame;
use super::pace::Rate;
use super::rfc2544::Rfc2544;
use super::values::Text;

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
    /// Not one run, but the trials of RFC 2544's tests.
    pub(super) rfc2544: Option<Rfc2544>,
    /// The file that it is from.
    #[serde(skip)]
    pub(super) file: Option<PathBuf>,
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
    /// Whether frames carry a signature; without, only their number is known. A capture's carry none.
    pub(super) signature: Option<bool>,
    #[serde(default)]
    pub(super) checksums: Checksums,
    /// Frames, sent in turns.
    #[serde(default, rename = "frame")]
    pub(super) frames: Vec<Frame>,
    /// In their place: a file of captured frames, sent as they are.
    pub(super) pcap: Option<PathBuf>,
    /// Of the capture, in place of a rate.
    pub(super) timing: Option<Timing>,
    /// How often the capture is sent; 0 is for ever, and once is the default.
    pub(super) loops: Option<u64>,
    /// What is in the file.
    #[serde(skip)]
    pub(super) captured: Option<Captured>,
}

fn one() -> u32 {
    1
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
        let mut scenario: Scenario = toml::from_str(&text).map_err(|error| {
            anyhow::anyhow!("the scenario {}: {}", path.display(), error.to_string().trim_end())
        })?;
        // Captures are where the file is that names them.
        let folder = path.parent().unwrap_or(Path::new(""));
        for pcap in scenario.streams.iter_mut().filter_map(|stream| stream.pcap.as_mut()) {
            *pcap = folder.join(&*pcap);
        }
        scenario
            .check()
            .with_context(|| format!("the scenario {}", path.display()))
            .map(|scenario| Scenario { file: Some(path.into()), ..scenario })
    }

    /// An error of what it says, with the file's name if it is from one.
    pub(super) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        match &self.file {
            Some(path) => result.with_context(|| format!("the scenario {}", path.display())),
            None => result,
        }
    }

    /// Numbers that make sense by themselves.
    pub(super) fn check(mut self) -> Result<Scenario> {
        for (key, seconds) in [("duration", self.duration.unwrap_or(0.0)), ("warm-up", self.warm_up)] {
            if !(0.0..=1e9).contains(&seconds) {
                bail!("{key}: {seconds} is no number of seconds");
            }
        }
        if self.streams.is_empty() {
            self.streams.push(Stream { burst: 1, ..Stream::default() });
        }
        for (number, stream) in self.streams.iter_mut().enumerate() {
            let name = stream.name.get_or_insert_with(|| format!("stream{number}")).clone();
            let ready = stream.check().and_then(|()| stream.fill());
            ready.with_context(|| format!("stream {name}"))?;
        }
        if let Some(rfc2544) = &self.rfc2544 {
            rfc2544.check(&self)?;
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
        let Some(path) = &self.pcap else {
            if self.timing.is_some() || self.loops.is_some() {
                bail!("timing, loops: of a capture; say which: `pcap`");
            }
            return self.frames.iter().try_for_each(Frame::check);
        };
        for (key, wrong) in [
            ("frame", !self.frames.is_empty()),
            ("signature", self.signature == Some(true)),
            ("checksums", self.checksums != Checksums::default()),
        ] {
            if wrong {
                bail!("{key}: the frames of a capture ({}) are sent as they are", path.display());
            }
        }
        if self.timing.is_some() && (self.rate.0 != Rate::Max || self.burst > 1) {
            bail!("timing: a stream has its capture's timing or a rate, not both");
        }
        Ok(())
    }

    /// What follows from what it says.
    fn fill(&mut self) -> Result<()> {
        match &self.pcap {
            Some(path) => self.captured = Some(Captured::read(path, self.timing, self.loops.unwrap_or(1))?),
            None if self.frames.is_empty() => self.frames.push(Frame::default()),
            None => {}
        }
        Ok(())
    }

    /// Packets altogether, if there is a limit.
    pub(super) fn count(&self) -> Option<u64> {
        let of_capture = self.captured.as_ref().and_then(Captured::count);
        self.count.into_iter().chain(of_capture).min()
    }

    /// Whether frames carry a signature.
    pub(super) fn signature(&self) -> bool {
        self.signature.unwrap_or(self.pcap.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Payload;
    use super::super::values::Range;
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
        assert_eq!((b.name.as_deref(), b.tx, b.frames.len(), b.signature()), (Some("stream1"), 1, 1, true));
        let frame = &a.frames[0];
        assert_eq!(frame.vlan, [Range::one(100), "1-9".parse().unwrap()]);
        assert_eq!(frame.payload, Payload::Repeated(vec![0xde, 0xad, 0xbe, 0xef]));
        assert_eq!(a.frames[1].bytes.as_ref().map(|bytes| bytes.0.len()), Some(15));
    }
}
