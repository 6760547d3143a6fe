//! Streams between two modelled cards back to back, and what is measured compared with what passed on the wire.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use pagewire_models::wire::{self, Arrival, Pair, Wire};

use super::super::headers::payload_at;
use super::super::pace::Clock;
use super::super::report::{Arrived, Outcome, Results, StreamReport};
use super::super::schedule::MEASURED;
use super::super::signature::{LEN, Signature};
use super::super::{Args, CARDS, measure};
use crate::embedded::Embedded;
use crate::{cores, tsc};

/// What the wire does to frames.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// Ticks that each frame is held back.
    delay: u64,
    /// Of the frames with a number that is so much more than a multiple of 100: they are lost, come twice, come after the one
    /// behind them, have a changed payload.
    lose: Option<u64>,
    double: Option<u64>,
    swap: Option<u64>,
    change: Option<u64>,
}

/// A frame that passed: its number, and ticks from when it was sent to when it was delivered.
type Passed = (u64, u64);

/// The receiving end of a cable, with a record of what was delivered.
struct Recorder {
    wire: Pair,
    faults: Faults,
    waiting: VecDeque<(u64, Vec<u8>)>,
    swapped: Option<(u64, Vec<u8>)>,
    record: Arc<Mutex<Vec<Passed>>>,
}

fn signature(frame: &[u8]) -> Option<Signature> {
    let at = payload_at(frame)?;
    let read = Signature::read(frame.get(at..)?.first_chunk::<LEN>()?)?.ok()?;
    (read.phase == MEASURED).then_some(read)
}

impl Recorder {
    /// Take a frame from the cable, and do to it what is to be done.
    fn take(&mut self) {
        let mut frame = Vec::new();
        if self.wire.receive(&mut frame).is_none() {
            return;
        }
        let due = tsc::read() + self.faults.delay;
        let number = signature(&frame).map(|signature| signature.number % 100);
        let is = |fault: Option<u64>| fault.is_some() && fault == number;
        if is(self.faults.lose) {
            return;
        }
        if is(self.faults.swap) {
            self.swapped = Some((due, frame));
            return;
        }
        if is(self.faults.change) {
            frame[70] ^= 1;
        }
        if is(self.faults.double) {
            self.waiting.push_back((due, frame.clone()));
        }
        self.waiting.push_back((due, frame));
        self.waiting.extend(self.swapped.take());
    }
}

impl Wire for Recorder {
    fn send(&mut self, frame: &[u8]) -> bool {
        self.wire.send(frame)
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        self.take();
        let now = tsc::read();
        let (_, first) = self.waiting.pop_front_if(|(due, _)| *due <= now)?;
        *frame = first;
        if let Some(signature) = signature(frame) {
            self.record.lock().unwrap().push((signature.number, signature.age(now)));
        }
        Some(Arrival::Good)
    }

    fn carrier(&mut self) -> bool {
        self.wire.carrier()
    }

    fn light(&mut self, on: bool) {
        self.wire.light(on);
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// A run from one card to the other: what was measured, and what passed.
fn run(arguments: &str, faults: Faults) -> (Results, Vec<Passed>) {
    let line = format!("pktgen -T 0 --json {arguments}");
    let mut args = Cli::parse_from(line.split_whitespace()).args;
    let (a, wire) = wire::pair();
    let record = Arc::new(Mutex::new(Vec::new()));
    let recorder = Recorder { wire, faults, waiting: VecDeque::new(), swapped: None, record: record.clone() };
    let cpus = cores::beside(CARDS, CARDS).unwrap().1;
    let cards = Embedded::start(vec![Box::new(a), Box::new(recorder)], cpus).unwrap();
    args.ports = cards.ports();
    let scenario = args.scenario().unwrap();
    let (results, outcome) = measure(&args, scenario, Some(cards), &AtomicBool::new(false)).unwrap();
    outcome.unwrap();
    let passed = std::mem::take(&mut *record.lock().unwrap());
    (results, passed)
}

fn stream(results: &Results) -> (&StreamReport, &Outcome, &Arrived) {
    let stream = &results.streams[0];
    let outcome = stream.outcome.as_ref().unwrap();
    (stream, outcome, outcome.arrived.as_ref().unwrap())
}

/// The tests of this file measure time: one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// Tries five times what a machine with company may spoil.
fn best_of_five(mut attempt: impl FnMut() -> Result<(), String>) {
    let results: Vec<_> = (0..5).map_while(|_| attempt().err()).collect();
    assert!(results.len() < 5, "{results:#?}");
}

#[test]
fn rates_are_kept_nothing_is_lost_and_numbers_and_latencies_are_those_of_the_wire() {
    let _alone = ALONE.lock();
    let clock = Clock::calibrate();
    let (fastest, _) = run("--duration 0.7", Faults::default());
    let most = stream(&fastest).0.sent_pps;
    assert!(most > 20e3, "{most}");
    // From a thousand packets a second to half of what the models take, by equal factors, and that.
    let rates = (0..9).map(|step| Some(1e3 * (most / 2e3).powf(f64::from(step) / 8.0))).chain([None]);
    for rate in rates {
        let arguments = match rate {
            Some(rate) => format!("--duration 1 --warm-up 0.1 --rate {rate:.0}pps"),
            None => "--duration 1".into(),
        };
        best_of_five(|| {
            let (results, passed) = run(&arguments, Faults::default());
            let (stream, outcome, arrived) = stream(&results);
            // What passed on the wire is what is said to have been sent, in its order, and what arrived came of it.
            assert!(passed.iter().map(|(number, _)| *number).eq(0..stream.sent), "{} sent", stream.sent);
            assert_eq!((arrived.reordered, arrived.duplicates, arrived.late, arrived.corrupt), (0, 0, 0, 0));
            let missed: u64 = results.ports.iter().map(|port| port.drops.rx_missed).sum();
            assert_eq!(arrived.lost, missed, "{arguments}: lost and not counted by the card");
            let (unmatched, error) = (results.unmatched, stream.rate_error);
            assert_eq!(unmatched.foreign + unmatched.damaged + unmatched.other, 0);
            println!(
                "{:.0} packets/s, {} sent, {} lost, rate error {error:?}, {} ns late at most",
                stream.sent_pps,
                stream.sent,
                arrived.lost,
                outcome.lateness.map_or(0, |times| times.max_ns)
            );
            if let Some(rate) = rate {
                if error.is_none_or(|error| error.abs() > 0.001) {
                    return Err(format!("{rate:.0} packets/s: error {error:?}"));
                }
                // As many as are due in a second.
                assert!(
                    (stream.sent as f64 - rate.round()).abs() <= 1.0 || outcome.behind > 0.001,
                    "{}",
                    stream.sent
                );
                if arrived.lost > 0 {
                    return Err(format!("{rate:.0} packets/s: {} lost", arrived.lost));
                }
                latencies_agree(arrived, &passed, &clock)?;
            }
            Ok(())
        });
    }
}

/// No frame arrives before it was delivered, so no quantile is less than the wire's; and the card takes some time, but not long.
fn latencies_agree(arrived: &Arrived, passed: &[Passed], clock: &Clock) -> Result<(), String> {
    let mut ages: Vec<u64> = passed.iter().map(|(_, age)| (clock.seconds(*age) * 1e9) as u64).collect();
    ages.sort_unstable();
    let latency = arrived.latency.ok_or("no latency")?;
    for (quantile, measured) in
        [(0.0, latency.min_ns), (0.5, latency.p50_ns), (0.99, latency.p99_ns), (1.0, latency.max_ns)]
    {
        let wire = ages[((ages.len() - 1) as f64 * quantile) as usize];
        // A histogram has three digits, and a clock that was measured twice four or more.
        assert!(
            measured as f64 >= wire as f64 * 0.997 - 100.0,
            "quantile {quantile}: {measured} ns, {wire} ns on the wire"
        );
    }
    let wire = ages[ages.len() / 2];
    match latency.p50_ns.saturating_sub(wire) {
        0..20_000_000 => Ok(()),
        more => Err(format!("the median is {more} ns more than on the wire")),
    }
}

#[test]
fn a_delay_of_the_wire_is_what_is_measured() {
    let _alone = ALONE.lock();
    let clock = Clock::calibrate();
    let faults = Faults { delay: clock.ticks(Duration::from_millis(40)), ..Faults::default() };
    best_of_five(|| {
        let (results, passed) = run("--duration 1 --rate 5kpps", faults);
        let (_, _, arrived) = stream(&results);
        let latency = arrived.latency.ok_or("no latency")?;
        assert!(latency.min_ns >= 39_900_000, "{}", latency.min_ns);
        latencies_agree(arrived, &passed, &clock)
    });
}

#[test]
fn every_fault_of_the_wire_is_counted_exactly() {
    let _alone = ALONE.lock();
    let faults =
        Faults { lose: Some(10), double: Some(30), swap: Some(50), change: Some(70), ..Faults::default() };
    best_of_five(|| {
        let (results, _) = run(
            "--count 20000 --rate 20kpps --duration 5 --size 128 --payload random --max-loss 0.01",
            faults,
        );
        let (stream, _, arrived) = stream(&results);
        let missed: u64 = results.ports.iter().map(|port| port.drops.rx_missed).sum();
        assert_eq!(stream.sent, 20_000);
        if missed > 0 {
            return Err(format!("{missed} frames found no descriptor"));
        }
        let found = (arrived.lost, arrived.duplicates, arrived.reordered, arrived.corrupt, arrived.late);
        assert_eq!(found, (200, 200, 200, 200, 0));
        assert_eq!(results.failed.as_deref(), Some(&[][..]));
        Ok(())
    });
}
