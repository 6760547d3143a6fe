//! From a scenario to senders: which stream on which queue, with which templates, how fast.

use anyhow::{Context, Result, bail};
use pagewire_ethdev::{AnyPort, Link, TxOffloads};

use super::captured::Captured;
use super::frame::Frame;
use super::pace::{self, Clock, Rate};
use super::pattern::{Pattern, Shape};
use super::scenario::{Checksums, Scenario, Stream};
use super::sender::{Content, Sender};
use super::signature::Run;
use super::template::{Ends, FCS, Templates};
use crate::ports::PortSpec;

/// Senders that signatures can tell apart.
const SENDERS: usize = 256;
/// Templates of a stream.
const TEMPLATES: usize = 4096;

/// What a stream was asked to do.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) tx: usize,
    pub(super) rx: Option<usize>,
    pub(super) signed: bool,
    /// Packets a second, if there is a rate.
    pub(super) rate: Option<f64>,
    /// The part of its link that it takes, if there is a rate or a capture's timing.
    pub(super) load: f64,
    /// Packets sent together.
    pub(super) burst: u32,
    /// It was told to send nothing.
    pub(super) stopped: bool,
    /// A capture that it sends.
    pub(super) replay: Option<Captured>,
    mix: Mix,
    /// Queues that share it.
    queues: u16,
}

/// Everything to be sent.
pub(super) struct Plan {
    pub(super) streams: Vec<Asked>,
    /// By port and transmit queue.
    pub(super) senders: Vec<Vec<Vec<Sender>>>,
}

/// The lengths of a stream's frames with check sequence, each with the part of the frames that have it; and the bits a second of the link.
#[derive(Clone, Debug)]
struct Mix {
    sizes: Vec<(u16, f64)>,
    line: f64,
    /// The part of the link that a capture with its own timing takes.
    timed: f64,
}

/// What a rate comes to.
pub(super) struct Pace {
    /// Parts of ticks from a frame of each length to the next on the same queue; none where the port sets the pace.
    pub(super) intervals: Option<Vec<u128>>,
    pub(super) rate: Option<f64>,
    pub(super) load: f64,
}

impl Asked {
    /// What another rate would come to.
    ///
    /// # Errors
    ///
    /// A rate that the link cannot carry, or that this stream cannot have.
    pub(super) fn pace(&self, rate: Rate, clock: &Clock) -> Result<Pace> {
        if self.replay.as_ref().is_some_and(|replay| replay.timing.is_some()) {
            bail!("rate: the stream has its capture's timing");
        }
        self.mix.pace(rate, self.queues, clock)
    }
}

impl Mix {
    fn seconds_on_wire(&self) -> f64 {
        self.sizes.iter().map(|(size, weight)| weight * pace::on_wire((*size).into()) / self.line).sum()
    }

    fn pace(&self, rate: Rate, queues: u16, clock: &Clock) -> Result<Pace> {
        if rate == Rate::Max {
            return Ok(Pace { intervals: None, rate: None, load: self.timed });
        }
        let (mut intervals, mut mean) = (Vec::new(), 0.0);
        for (size, weight) in &self.sizes {
            let interval = rate.spacing(u32::from(*size), self.line).context("rate")?;
            mean += weight * interval;
            intervals.push(pace::ticks(interval, clock) * u128::from(queues));
        }
        let seconds = self.seconds_on_wire();
        pace::check_line(&self.frames(), mean, seconds, self.line).context("rate")?;
        Ok(Pace { intervals: Some(intervals), rate: Some(1.0 / mean), load: seconds / mean })
    }

    /// What they are, for messages.
    fn frames(&self) -> String {
        let bytes: f64 = self.sizes.iter().map(|(size, weight)| weight * f64::from(*size)).sum();
        match self.sizes.iter().all(|(size, _)| *size == self.sizes[0].0) {
            true => format!("frames of {bytes:.0} bytes"),
            false => format!("frames of {bytes:.1} bytes on average"),
        }
    }
}

/// Ports that send, and ports where something is expected.
pub(super) fn roles(scenario: &Scenario, ports: usize) -> Result<(Vec<bool>, Vec<bool>)> {
    let (mut tx, mut rx) = (vec![false; ports], vec![false; ports]);
    for stream in &scenario.streams {
        for (key, port, role) in [("tx", Some(stream.tx), &mut tx), ("rx", stream.rx, &mut rx)] {
            let Some(port) = port else { continue };
            *role.get_mut(port).with_context(|| {
                format!("stream {}: {key}: there is no port {port}, only {ports}", stream.label())
            })? = true;
        }
    }
    Ok((tx, rx))
}

/// The longest frame of all, without check sequence.
pub(super) fn longest(scenario: &Scenario) -> usize {
    let length = |frame: &Frame| match &frame.bytes {
        Some(bytes) => bytes.0.len(),
        None => frame.size.order.iter().max().map_or(0, |size| usize::from(*size) - FCS),
    };
    let of_stream = |stream: &Stream| match &stream.captured {
        Some(replayed) => replayed.longest(),
        None => stream.frames.iter().map(length).max().unwrap_or(0),
    };
    scenario.streams.iter().map(of_stream).max().unwrap_or(0)
}

/// What a port is asked to do to what it sends.
pub(super) fn tx_offloads(scenario: &Scenario, port: usize) -> TxOffloads {
    let mut streams = scenario.streams.iter().filter(|stream| stream.tx == port);
    match streams.any(|stream| stream.checksums == Checksums::Offload) {
        true => TxOffloads::IP_CSUM | TxOffloads::UDP_CSUM | TxOffloads::TCP_CSUM,
        false => TxOffloads::empty(),
    }
}

/// No port is to send more than its link carries.
pub(super) fn check_load(port: usize, load: f64) -> Result<()> {
    if load > 1.0 + 1e-9 {
        bail!("rate: all streams of port {port} together are {:.1} % of what its link carries", load * 100.0);
    }
    Ok(())
}

impl Plan {
    /// # Errors
    ///
    /// A stream that cannot be sent, or more of them than a link carries: with the stream's name and the key.
    pub(super) fn new(
        scenario: &Scenario,
        ports: &mut [AnyPort],
        queues: u16,
        clock: &Clock,
        run: Run,
    ) -> Result<Plan> {
        Plan::with_lines(scenario, ports, queues, clock, run, |_, port| line_rate(port))
    }

    /// Whether there will be one, before a port is started. What a card's link carries is not known then, nor one's that is not up.
    ///
    /// # Errors
    ///
    /// As of [`Plan::new`].
    pub(super) fn check(
        scenario: &Scenario,
        (specs, ports): (&[PortSpec], &mut [AnyPort]),
        queues: u16,
        clock: &Clock,
    ) -> Result<()> {
        let line = |number: usize, port: &mut AnyPort| match port.link() {
            Link::Up { .. } if !specs[number].is_card() => line_rate(port),
            _ => Ok(f64::INFINITY),
        };
        Plan::with_lines(scenario, ports, queues, clock, Run::random(None), line).map(drop)
    }

    fn with_lines(
        scenario: &Scenario,
        ports: &mut [AnyPort],
        queues: u16,
        clock: &Clock,
        run: Run,
        line: impl Fn(usize, &mut AnyPort) -> Result<f64>,
    ) -> Result<Plan> {
        let mut senders: Vec<Vec<Vec<Sender>>> =
            ports.iter().map(|_| (0..queues).map(|_| Vec::new()).collect()).collect();
        if scenario.streams.len() * usize::from(queues) > SENDERS {
            bail!(
                "{} streams on {queues} queues each; at most {SENDERS} can be told apart",
                scenario.streams.len()
            );
        }
        let mut streams = Vec::new();
        // Parts of the links that are taken.
        let mut loads = vec![0.0; ports.len()];
        for (number, stream) in scenario.streams.iter().enumerate() {
            let asked = (|| -> Result<Asked> {
                let line = line(stream.tx, &mut ports[stream.tx])?;
                let (mix, contents) = stream.contents(number, ports, line, queues, clock)?;
                let asked = Asked {
                    name: stream.label().into(),
                    tx: stream.tx,
                    rx: stream.rx,
                    signed: stream.signature(),
                    rate: None,
                    load: 0.0,
                    burst: stream.burst,
                    stopped: false,
                    replay: stream.captured.clone(),
                    mix,
                    queues: contents.len() as u16,
                };
                let timed = asked.replay.as_ref().is_some_and(|replay| replay.timing.is_some());
                let pace = asked.mix.pace(stream.rate.0, asked.queues, clock)?;
                loads[stream.tx] += pace.load;
                check_load(stream.tx, loads[stream.tx])?;
                let share = |queue: u64, count: u64| {
                    let queues = u64::from(asked.queues);
                    count / queues + u64::from(queue < count % queues)
                };
                let count = stream.count();
                for (queue, mut content) in contents.into_iter().enumerate() {
                    match (&mut content, &pace.intervals) {
                        (Content::Made(pattern), Some(list)) => pattern.set_intervals(list),
                        (Content::Replayed(replay), Some(list)) => replay.set_intervals(list.clone()),
                        (_, None) => {}
                    }
                    let id = (number * usize::from(queues) + queue) as u8;
                    let count = count.map(|count| share(queue as u64, count));
                    let paced = timed || pace.intervals.is_some();
                    let sender = Sender::new((id, number), content, paced, stream.burst, count, run);
                    senders[stream.tx][queue].push(sender);
                }
                Ok(Asked { rate: pace.rate, load: pace.load, ..asked })
            })();
            streams.push(asked.with_context(|| format!("stream {}", stream.label()))?);
        }
        Ok(Plan { streams, senders })
    }
}

/// Bits a second of a port's link.
pub(super) fn line_rate(port: &mut AnyPort) -> Result<f64> {
    match port.link() {
        Link::Up { mbps, .. } => Ok(f64::from(mbps) * 1e6),
        Link::Down => bail!("{}: the link is down", port.info().name),
    }
}

impl Stream {
    pub(super) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The lengths of the frames of the `number`th stream, and what each queue sends of them.
    fn contents(
        &self,
        number: usize,
        ports: &[AnyPort],
        line: f64,
        queues: u16,
        clock: &Clock,
    ) -> Result<(Mix, Vec<Content>)> {
        if let Some(replayed) = &self.captured {
            // On one queue: several would not keep the order.
            let (sizes, replay, timed) = replayed.plan(line, clock)?;
            return Ok((Mix { sizes, line, timed }, vec![Content::Replayed(replay)]));
        }
        let mac = |port: usize| ports[port].info().mac;
        let ends = Ends { source: mac(self.tx), destination: mac(self.rx.unwrap_or(self.tx)) };
        let (mut shapes, mut sizes) = (Vec::new(), Vec::new());
        for frame in &self.frames {
            let Templates { by_size: templates, fields } =
                frame.templates(ends, self.signature(), self.checksums)?;
            let order = if frame.bytes.is_some() { vec![templates[0].0] } else { frame.size.order.clone() };
            let place = |size: &u16| templates.iter().position(|(other, _)| other == size);
            let indices: Vec<u16> = order.iter().filter_map(place).map(|index| index as u16).collect();
            let before = sizes.len();
            sizes.extend(templates.iter().map(|(size, _)| (*size, 0.0)));
            for index in &indices {
                sizes[before + usize::from(*index)].1 += f64::from(frame.repeat) / indices.len() as f64;
            }
            shapes.push(Shape {
                templates: templates.into_iter().map(|(_, template)| template).collect(),
                order: indices.clone(),
                whole: indices,
                random: frame.size.random,
                fields,
                repeat: frame.repeat,
                place: 0,
            });
        }
        if sizes.len() > TEMPLATES {
            bail!("size: {} frames of different lengths; at most {TEMPLATES}", sizes.len());
        }
        let frames: f64 = sizes.iter().map(|(_, weight)| weight).sum();
        sizes.iter_mut().for_each(|(_, weight)| *weight /= frames);
        let mut patterns = vec![Pattern::new(shapes); usize::from(queues)];
        for (queue, pattern) in patterns.iter_mut().enumerate() {
            // Numbers of its own for each sender there is.
            let seed = (number * SENDERS + queue) as u64 + 1;
            pattern.deal(queue as u64, queues.into(), seed);
        }
        Ok((Mix { sizes, line, timed: 0.0 }, patterns.into_iter().map(Content::Made).collect()))
    }
}
