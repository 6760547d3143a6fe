//! What is to be found out by RFC 2544's tests, as a file says or the command line makes.

use anyhow::{Result, bail};
use serde::Deserialize;

use super::super::pace::Rate;
use super::super::scenario::{Paced, Pass, Scenario};
use super::super::values::{SIZES, Sizes};

/// RFC 2544, section 9.1: for Ethernet.
pub(super) const FRAME_SIZES: [u16; 7] = [64, 128, 256, 512, 1024, 1280, 1518];

/// One of RFC 2544's tests.
#[derive(Deserialize, serde::Serialize, clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) enum Test {
    /// The highest rate without loss (section 26.1)
    Throughput,
    /// How late frames are at that rate (26.2)
    Latency,
    /// What is lost at the highest rate, and at less in tenths (26.3)
    FrameLoss,
    /// The longest burst at the highest rate without loss (26.4)
    BackToBack,
}

/// The table `[rfc2544]`.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(in super::super) struct Rfc2544 {
    pub(in super::super) tests: Vec<Test>,
    /// Bytes with check sequence.
    pub(in super::super) sizes: Vec<u16>,
    /// Seconds of a trial whose outcome is reported.
    pub(in super::super) trial: f64,
    /// Seconds of a trial that only leads there.
    pub(in super::super) search_trial: f64,
    /// The part of a rate that a search may be off by.
    pub(in super::super) resolution: f64,
    /// The part of the frames that may be lost in a trial that went well.
    pub(in super::super) loss_tolerance: f64,
    /// How often a trial of throughput or a burst is made before it has gone wrong: on a machine with company something else may be why.
    pub(in super::super) attempts: u32,
    /// The highest rate that is tried, of all streams of a port together.
    pub(in super::super) max_rate: Paced,
    /// Seconds between two trials, for what is on its way.
    pub(in super::super) pause: f64,
    /// Less throughput than this at any size is a failure: of each port that sends, as the highest rate is.
    pub(in super::super) min_throughput: Option<Paced>,
}

impl Default for Rfc2544 {
    fn default() -> Rfc2544 {
        Rfc2544 {
            tests: vec![Test::Throughput, Test::Latency, Test::FrameLoss],
            sizes: FRAME_SIZES.to_vec(),
            // Section 24.
            trial: 60.0,
            search_trial: 5.0,
            resolution: 0.01,
            loss_tolerance: 0.0,
            attempts: 1,
            max_rate: Paced(Rate::Line(1.0)),
            pause: 0.5,
            min_throughput: None,
        }
    }
}

impl Rfc2544 {
    /// Numbers that make sense by themselves, and with the streams they are for.
    pub(in super::super) fn check(&self, scenario: &Scenario) -> Result<()> {
        for (key, seconds) in [("trial", self.trial), ("search-trial", self.search_trial)] {
            if !(0.05..=1e6).contains(&seconds) {
                bail!("rfc2544: {key}: {seconds} is not within 0.05 to 1000000 seconds");
            }
        }
        if !(0.0..=60.0).contains(&self.pause) {
            bail!("rfc2544: pause: {} is not within 0 to 60 seconds", self.pause);
        }
        if !(0.0001..=0.5).contains(&self.resolution) {
            bail!("rfc2544: resolution: {} is not within 0.0001 to 0.5", self.resolution);
        }
        if !(0.0..1.0).contains(&self.loss_tolerance) {
            bail!("rfc2544: loss-tolerance: {} is not a part of 1", self.loss_tolerance);
        }
        if !(1..=100).contains(&self.attempts) {
            bail!("rfc2544: attempts: {} is not within 1 to 100", self.attempts);
        }
        if let Some(size) = self.sizes.iter().find(|size| !SIZES.contains(size)) {
            bail!("rfc2544: sizes: a frame of {size} bytes: it has {} to {}", SIZES.start(), SIZES.end());
        }
        if self.sizes.is_empty() || self.tests.is_empty() {
            bail!("rfc2544: tests, sizes: there is nothing to be done");
        }
        if scenario.pass != Pass::default() && !self.tests.contains(&Test::Latency) {
            bail!(
                "pass: limits such as max-loss are judged in trials of latency: have `latency` among the tests, or no limits"
            );
        }
        for (key, rate) in [("max-rate", Some(self.max_rate)), ("min-throughput", self.min_throughput)] {
            if let Some(Paced(rate @ (Rate::Max | Rate::Gap(_)))) = rate {
                bail!(
                    "rfc2544: {key}: {rate:?} is no rate that there can be a part of; say 100%, 1Mpps or 5Gbps"
                );
            }
        }
        let frames = || scenario.streams.iter().flat_map(|stream| &stream.frames);
        for (key, wrong) in [
            ("rate", scenario.streams.iter().any(|stream| stream.rate.0 != Rate::Max)),
            ("count", scenario.streams.iter().any(|stream| stream.count.is_some())),
            ("pcap", scenario.streams.iter().any(|stream| stream.pcap.is_some())),
            ("bytes", frames().any(|frame| frame.bytes.is_some())),
            ("signature", scenario.streams.iter().any(|stream| !stream.signature())),
            ("duration", scenario.duration.is_some()),
        ] {
            if wrong {
                bail!("{key}: beside rfc2544, which decides what is sent and measures signed frames");
            }
        }
        Ok(())
    }

    /// The scenario of ports that take part in all of it.
    pub(in super::super) fn widest(&self, scenario: &Scenario) -> Scenario {
        sized(scenario, self.sizes.clone())
    }

    /// The scenario of a trial: frames of a size, at a part of the highest rate.
    pub(super) fn trial(&self, scenario: &Scenario, size: u16, part: f64) -> Scenario {
        let mut trial = sized(scenario, vec![size]);
        for stream in &mut trial.streams {
            let sharers = scenario.streams.iter().filter(|other| other.tx == stream.tx).count();
            stream.rate = Paced(self.max_rate.0.scaled(part / sharers as f64));
        }
        trial
    }
}

fn sized(scenario: &Scenario, sizes: Vec<u16>) -> Scenario {
    let mut sized = scenario.clone();
    for frame in sized.streams.iter_mut().flat_map(|stream| &mut stream.frames) {
        frame.size = Sizes { order: sizes.clone(), random: false };
    }
    sized
}
