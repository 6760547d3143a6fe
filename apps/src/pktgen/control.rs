//! Commands to a running pktgen, each a line of JSON at a UNIX socket. See docs/pktgen.md.
//!
//! They come by the thread of the socket to the one that watches the run, which gives orders to senders: nobody waits for anybody, and
//! the loops look at a flag.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::orders::Order;
use super::pace::{Clock, Rate};
use super::plan::check_load;
use super::report::VERSION;
use super::scenario::Paced;
use super::schedule::Span;
use super::watch::Watch;
use crate::door::{Service, Serving, line};

/// How long the thread that has the ports is waited for. It may be at a device that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A request.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) command: Command,
    /// By name; all of them if there is none.
    stream: Option<String>,
    rate: Option<Paced>,
}

#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Command {
    Start,
    Stop,
    SetRate,
    Statistics,
    Quit,
}

/// A request on its way, and where its answer is to go.
pub(super) struct Asked {
    pub(super) request: Request,
    answer: Sender<Vec<u8>>,
}

/// The socket, and what came there.
pub(super) struct Control {
    asked: Receiver<Asked>,
    _serving: Serving,
}

/// The thread's end.
struct Commands(Sender<Asked>);

/// A request, and from where its answer comes once it was asked.
struct Pending(Request, Option<Receiver<Vec<u8>>>);

impl Service for Commands {
    type Request = Pending;
    const WHAT: &'static str = "control";
    const MANY: bool = true;

    fn understand(&self, line: &[u8]) -> Result<Pending, String> {
        let error = |error: &dyn std::fmt::Display| {
            format!(
                "a request that is not {{\"command\":\"start\"}}, stop, set-rate, statistics or quit in place of start: {error}"
            )
        };
        let request: Request = serde_json::from_slice(line).map_err(|cause| error(&cause))?;
        match (request.command, request.rate.is_some()) {
            (Command::SetRate, false) => Err("set-rate wants a rate, such as \"1Mpps\"".into()),
            (Command::SetRate, true) | (_, false) => Ok(Pending(request, None)),
            (_, true) => Err("a rate is for set-rate".into()),
        }
    }

    fn refusal(&self, error: &str) -> Vec<u8> {
        line(&json!({ "version": VERSION, "error": error }))
    }

    fn answer(&mut self, Pending(request, waiting): &mut Pending, since: Instant) -> Option<Vec<u8>> {
        let answer = waiting.get_or_insert_with(|| {
            let (answer, waiting) = channel();
            // Where nobody takes it there is nobody to answer: that is seen below.
            let _ = self.0.send(Asked { request: request.clone(), answer });
            waiting
        });
        match answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Disconnected) => Some(self.refusal("it is over")),
            Err(TryRecvError::Empty) if since.elapsed() < PATIENCE => None,
            Err(TryRecvError::Empty) => Some(self.refusal("it is busy, and will do it later")),
        }
    }
}

impl Asked {
    pub(super) fn answer(self, document: Vec<u8>) {
        // Who asked may have left.
        let _ = self.answer.send(document);
    }

    /// The answer to what has been done, or not.
    pub(super) fn done(self, done: Result<()>) {
        let document = match done {
            Ok(()) => json!({ "version": VERSION, "done": true }),
            Err(error) => json!({ "version": VERSION, "error": format!("{error:#}") }),
        };
        self.answer(line(&document));
    }
}

impl Control {
    /// # Errors
    ///
    /// A path that is in use, or where there can be no socket.
    pub(super) fn serve(path: &Path) -> Result<Control> {
        let (sender, asked) = channel();
        let serving = Serving::start(path, Commands(sender))
            .with_context(|| format!("--control {}", path.display()))?;
        Ok(Control { asked, _serving: serving })
    }

    /// What has been asked meanwhile.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.try_iter().collect()
    }
}

impl Request {
    /// The numbers of the streams that it is for.
    fn streams(&self, watch: &Watch) -> Result<Vec<usize>> {
        let Some(name) = &self.stream else { return Ok((0..watch.streams.len()).collect()) };
        let number = watch.streams.iter().position(|stream| stream.name == *name);
        number.map(|number| vec![number]).with_context(|| {
            let names: Vec<_> = watch.streams.iter().map(|stream| stream.name.as_str()).collect();
            format!("there is no stream {name:?}; there are {}", names.join(", "))
        })
    }

    /// Have streams start, stop or go at a rate. `begin` tells from when to when, if nobody knew.
    pub(super) fn obey(&self, watch: &mut Watch, begin: Option<Span>, clock: &Clock) -> Result<()> {
        let streams = self.streams(watch)?;
        if let Some(span) = begin.filter(|_| self.command == Command::Start) {
            watch.senders.iter().for_each(|sender| sender.orders.give(Order::Begin(span)));
        }
        let order = match self.command {
            Command::Start => Order::Start,
            Command::Stop => Order::Stop,
            _ => return self.set_rate(watch, &streams, clock),
        };
        for number in streams {
            watch.streams[number].stopped = self.command == Command::Stop;
            watch.of_stream(number).for_each(|sender| sender.orders.give(order.clone()));
        }
        Ok(())
    }

    fn set_rate(&self, watch: &mut Watch, streams: &[usize], clock: &Clock) -> Result<()> {
        let Some(Paced(rate)) = self.rate else { return Ok(()) };
        if rate == Rate::Max && streams.iter().any(|number| watch.streams[*number].burst > 1) {
            bail!("rate: bursts are of a stream with a rate");
        }
        // All of it is possible before any of it is done.
        let paces = streams.iter().map(|number| watch.streams[*number].pace(rate, clock));
        let paces = paces.collect::<Result<Vec<_>>>()?;
        let mut loads: Vec<_> = watch.streams.iter().map(|stream| (stream.tx, stream.load)).collect();
        for (number, pace) in streams.iter().zip(&paces) {
            loads[*number].1 = pace.load;
        }
        for (port, _) in &loads {
            let of_port = loads.iter().filter(|(other, _)| other == port);
            check_load(*port, of_port.map(|(_, load)| load).sum())?;
        }
        for (number, pace) in streams.iter().zip(paces) {
            let stream = &mut watch.streams[*number];
            (stream.rate, stream.load) = (pace.rate, pace.load);
            watch
                .of_stream(*number)
                .for_each(|sender| sender.orders.give(Order::Pace(pace.intervals.clone())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_line_of_what_there_is() {
        let commands = Commands(channel().0);
        let understood = |text: &str| commands.understand(text.as_bytes()).map(|Pending(request, _)| request);
        let request = |command, stream: Option<&str>, rate| {
            Ok(Request { command, stream: stream.map(str::to_owned), rate })
        };
        assert_eq!(understood("{\"command\":\"start\"}\n"), request(Command::Start, None, None));
        assert_eq!(
            understood("{\"command\":\"set-rate\",\"stream\":\"a\",\"rate\":\"5kpps\"}"),
            request(Command::SetRate, Some("a"), Some(Paced(Rate::Packets(5e3))))
        );
        let nested = "[".repeat(1000);
        for (garbage, expected) in [
            ("", "a request that is not"),
            ("\0\u{7f}", "a request that is not"),
            ("{}", "missing field `command`"),
            ("[1]", "a request that is not"),
            (&nested, "a request that is not"),
            ("{\"command\":\"explode\"}", "unknown variant `explode`"),
            ("{\"command\":\"stop\",\"speed\":1}", "unknown field `speed`"),
            ("{\"command\":\"set-rate\",\"rate\":\"fast\"}", "is no rate"),
            ("{\"command\":\"set-rate\"}", "set-rate wants a rate"),
            ("{\"command\":\"stop\",\"rate\":\"1pps\"}", "a rate is for set-rate"),
        ] {
            let error = understood(garbage).expect_err("it is refused");
            assert!(error.contains(expected), "{garbage}: {error}");
        }
    }
}
