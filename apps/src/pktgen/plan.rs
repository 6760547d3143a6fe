//! From a scenario to senders: which stream on which queue, with which templates, how fast.

use anyhow::{Context, Result, bail};
use pagewire_ethdev::{AnyPort, Link, TxOffloads};

use super::pace::{self, Clock, Rate};
use super::pattern::{Pattern, Shape};
use super::scenario::{Checksums, Frame, Scenario, Stream};
use super::sender::Sender;
use super::template::{Ends, FCS, Templates};

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
}

/// Everything to be sent.
pub(super) struct Plan {
    pub(super) streams: Vec<Asked>,
    /// By port and transmit queue.
    pub(super) senders: Vec<Vec<Vec<Sender>>>,
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
    scenario.streams.iter().flat_map(|stream| stream.frames.iter().map(length)).max().unwrap_or(0)
}

/// What ports are asked to do to what they send.
pub(super) fn tx_offloads(scenario: &Scenario) -> TxOffloads {
    match scenario.streams.iter().any(|stream| stream.checksums == Checksums::Offload) {
        true => TxOffloads::IP_CSUM | TxOffloads::UDP_CSUM | TxOffloads::TCP_CSUM,
        false => TxOffloads::empty(),
    }
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
        // Seconds of the link that a second takes.
        let mut loads = vec![0.0; ports.len()];
        for (number, stream) in scenario.streams.iter().enumerate() {
            let asked = (|| -> Result<Asked> {
                let line = line_rate(&mut ports[stream.tx])?;
                let (pattern, interval, load) = stream.pattern(ports, line, clock)?;
                loads[stream.tx] += load;
                if loads[stream.tx] > 1.0 + 1e-9 {
                    bail!(
                        "rate: together with the streams before it this is {:.1} % of what port {}'s link carries",
                        loads[stream.tx] * 100.0,
                        stream.tx
                    );
                }
                for queue in 0..queues {
                    let mut pattern = pattern.clone();
                    let shared = u128::from(queues);
                    pattern.templates_mut().for_each(|template| template.interval *= shared);
                    let of_queue = |count: u64| {
                        count / u64::from(queues) + u64::from(u64::from(queue) < count % u64::from(queues))
                    };
                    let id = number * usize::from(queues) + usize::from(queue);
                    let count = stream.count.map(of_queue);
                    senders[stream.tx][usize::from(queue)].push(Sender::new(
                        id as u8,
                        number,
                        pattern,
                        stream.burst,
                        count,
                    ));
                }
                let rate = (interval > 0.0).then(|| 1.0 / interval);
                let (tx, rx, signed) = (stream.tx, stream.rx, stream.signature);
                Ok(Asked { name: stream.label().into(), tx, rx, signed, rate })
            })();
            streams.push(asked.with_context(|| format!("stream {}", stream.label()))?);
        }
        Ok(Plan { streams, senders })
    }
}

/// Bits a second of a port's link.
fn line_rate(port: &mut AnyPort) -> Result<f64> {
    match port.link() {
        Link::Up { mbps, .. } => Ok(f64::from(mbps) * 1e6),
        Link::Down => bail!("{}: the link is down", port.info().name),
    }
}

impl Stream {
    pub(super) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The stream's frames, the mean time in seconds from one to the next, and the part of the link that they take.
    fn pattern(&self, ports: &[AnyPort], line: f64, clock: &Clock) -> Result<(Pattern, f64, f64)> {
        let mac = |port: usize| ports[port].info().mac;
        let ends = Ends { source: mac(self.tx), destination: mac(self.rx.unwrap_or(self.tx)) };
        let (mut shapes, mut frames, mut seconds, mut on_wire) = (Vec::new(), 0.0, 0.0, 0.0);
        for frame in &self.frames {
            let Templates { by_size: templates, fields } =
                frame.templates(ends, self.signature, self.checksums)?;
            let mut intervals = Vec::new();
            for (size, _) in &templates {
                let interval = self.rate.0.interval(u32::from(*size), line).context("rate")?;
                intervals.push((*size, interval));
            }
            let order = if frame.bytes.is_some() { vec![templates[0].0] } else { frame.size.order.clone() };
            let place = |size: &u16| templates.iter().position(|(other, _)| other == size);
            let indices: Vec<u16> = order.iter().filter_map(place).map(|index| index as u16).collect();
            let weight = f64::from(frame.repeat) / indices.len() as f64;
            for index in &indices {
                let (size, interval) = intervals[usize::from(*index)];
                frames += weight;
                seconds += weight * interval;
                on_wire += weight * 8.0 * f64::from(u32::from(size) + pace::OVERHEAD) / line;
            }
            let templates =
                templates.into_iter().zip(&intervals).map(|((_, mut template), (_, interval))| {
                    template.interval = pace::ticks(*interval, clock);
                    template
                });
            shapes.push(Shape {
                templates: templates.collect(),
                order: indices,
                random: frame.size.random,
                fields,
                repeat: frame.repeat,
                place: 0,
            });
        }
        let templates = shapes.iter().map(|shape| shape.templates.len()).sum::<usize>();
        if templates > TEMPLATES {
            bail!("size: {templates} frames of different lengths; at most {TEMPLATES}");
        }
        let load = if self.rate.0 == Rate::Max { 0.0 } else { on_wire / seconds };
        Ok((Pattern::new(shapes, self.tx as u64 + 1), seconds / frames, load))
    }
}
