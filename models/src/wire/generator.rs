//! A wire with a traffic generator and checker at its other end.
//!
//! It keeps a window of numbered UDP packets on their way and checks what comes back, here or at another port's generator:
//! that nothing is lost, doubled, out of order within its flow, or changed from byte 12 on (forwarders rewrite addresses).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Arrival, MAX_FRAME, MIN_FRAME, Wire, single_writer_add};

// Behind the headers: stream, number, filling.
const STREAM_AT: usize = 42;
const NUMBER_AT: usize = 46;
const FILL_AT: usize = 54;
const MAGIC: [u8; 3] = *b"pgw";
/// No progress for this long, with the window full: what is on its way is given up.
const PATIENCE: Duration = Duration::from_millis(20);

/// Streams of one report.
pub const STREAMS: usize = 16;

/// What became of one stream.
#[derive(Debug, Default)]
pub struct StreamReport {
    /// Frames sent.
    pub sent: AtomicU64,
    /// Frames that came back as they were.
    pub received: AtomicU64,
    /// Frames that later ones of the same flow overtook, or that never came.
    pub lost: AtomicU64,
    /// Frames that came twice or too late; they have been counted as lost before.
    pub late: AtomicU64,
    /// Frames that came back changed.
    pub corrupt: AtomicU64,
    /// Number after the highest one that came back.
    settled: AtomicU64,
    /// Times that its generator was asked for a frame and had none to send.
    refused: AtomicU64,
}

/// What became of the frames of all generators that share it.
#[derive(Debug)]
pub struct Report {
    /// By stream.
    pub streams: [StreamReport; STREAMS],
    /// Frames that are nobody's.
    pub foreign: AtomicU64,
    running: AtomicBool,
}

impl Default for Report {
    fn default() -> Self {
        Self { streams: Default::default(), foreign: AtomicU64::new(0), running: AtomicBool::new(true) }
    }
}

impl Report {
    /// Let the generators send, or only receive.
    pub fn run(&self, on: bool) {
        self.running.store(on, Relaxed);
    }

    fn sum(&self, what: impl Fn(&StreamReport) -> &AtomicU64) -> u64 {
        self.streams.iter().map(|s| what(s).load(Relaxed)).sum()
    }

    /// Frames sent on all streams.
    pub fn sent(&self) -> u64 {
        self.sum(|s| &s.sent)
    }

    /// Frames of all streams that came back as they were.
    pub fn received(&self) -> u64 {
        self.sum(|s| &s.received)
    }

    /// Frames of all streams that were lost.
    pub fn lost(&self) -> u64 {
        self.sum(|s| &s.lost)
    }

    /// Times that the card of each of the first streams asked its generator for a frame and got none: a card that is at work asks in every
    /// turn.
    pub fn refused(&self, streams: usize) -> impl Iterator<Item = u64> {
        self.streams.iter().take(streams).map(|stream| stream.refused.load(Relaxed))
    }

    /// Frames that were late, changed or nobody's.
    pub fn wrong(&self) -> u64 {
        self.sum(|s| &s.late) + self.sum(|s| &s.corrupt) + self.foreign.load(Relaxed)
    }
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Which stream of the report, below [`STREAMS`].
    pub stream: u8,
    /// Destination address.
    pub destination: [u8; 6],
    /// Bytes of a frame without FCS, at least 60.
    pub length: usize,
    /// Frames on their way at most; 0 sends nothing.
    pub window: u64,
    /// UDP flows, told apart by their source port.
    pub flows: u16,
    /// Frames wait until the card's receiver is on and has room. Else they are lost to a card that is not ready, as on a cable.
    pub patient: bool,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { stream: 0, destination: [0xff; 6], length: MIN_FRAME, window: 256, flows: 1, patient: true }
    }
}

/// The generator of one port.
#[derive(Debug)]
pub struct Generator {
    report: Arc<Report>,
    traffic: Traffic,
    templates: Vec<Vec<u8>>,
    next: u64,
    given_up: u64,
    waiting_since: Option<(Instant, u64)>,
    /// The next number of each flow of each stream that comes in here.
    expected: Vec<Vec<u64>>,
}

impl Generator {
    /// A generator of some traffic. The report's streams must have one generator each, and one that they come back to.
    pub fn new(mut traffic: Traffic, report: Arc<Report>) -> Self {
        traffic.length = traffic.length.clamp(MIN_FRAME, MAX_FRAME);
        traffic.flows = traffic.flows.max(1);
        traffic.stream %= STREAMS as u8;
        let templates = (0..traffic.flows).map(|flow| template(&traffic, flow)).collect();
        Self {
            report,
            traffic,
            templates,
            next: 0,
            given_up: 0,
            waiting_since: None,
            expected: vec![Vec::new(); STREAMS],
        }
    }

    #[cold]
    fn window_full(&mut self, settled: u64) {
        match self.waiting_since {
            Some((since, at)) if at == settled => {
                if since.elapsed() > PATIENCE {
                    self.given_up = self.next;
                    self.waiting_since = None;
                }
            }
            _ => self.waiting_since = Some((Instant::now(), settled)),
        }
    }

    fn check(&mut self, frame: &[u8]) {
        let Some(stream) = frame.get(STREAM_AT + 3).filter(|&&s| (s as usize) < STREAMS) else {
            self.report.foreign.fetch_add(1, Relaxed);
            return;
        };
        if frame.len() < MIN_FRAME || frame[STREAM_AT..STREAM_AT + 3] != MAGIC {
            self.report.foreign.fetch_add(1, Relaxed);
            return;
        }
        let report = &self.report.streams[*stream as usize];
        let number = u64::from_be_bytes(frame[NUMBER_AT..FILL_AT].try_into().unwrap_or_default());
        let flow = u16::from_be_bytes([frame[34], frame[35]]) as usize;
        let total = u16::from_be_bytes([frame[16], frame[17]]) as usize + 14;
        let intact = total == frame.len() && frame[FILL_AT..].iter().all(|&byte| byte == number as u8);
        // A number that was not sent yet is one that somebody made up.
        if !intact || number >= report.sent.load(Relaxed) {
            single_writer_add(&report.corrupt, 1);
            return;
        }
        let expected = &mut self.expected[*stream as usize];
        if expected.len() <= flow {
            expected.resize(flow + 1, 0);
        }
        // Numbers of a flow are so many apart as there are flows: the frame says how many.
        let flows = u16::from_be_bytes([frame[18], frame[19]]).max(1) as u64;
        let expected = &mut expected[flow];
        let number_in_flow = number / flows;
        if number_in_flow < *expected {
            single_writer_add(&report.late, 1);
            return;
        }
        single_writer_add(&report.lost, number_in_flow - *expected);
        *expected = number_in_flow + 1;
        single_writer_add(&report.received, 1);
        if number >= report.settled.load(Relaxed) {
            report.settled.store(number + 1, Relaxed);
        }
    }
}

/// A frame of a flow, without number: IPv4, UDP from the flow's number to port 9, no UDP checksum. The IP identification
/// is the number of flows.
fn template(traffic: &Traffic, flow: u16) -> Vec<u8> {
    let mut frame = vec![0; traffic.length];
    frame[..6].copy_from_slice(&traffic.destination);
    frame[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0x10, traffic.stream]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let total = (traffic.length - 14) as u16;
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[18..20].copy_from_slice(&traffic.flows.to_be_bytes());
    frame[22] = 64;
    frame[23] = 17;
    frame[26..30].copy_from_slice(&[198, 18, traffic.stream, 1]);
    frame[30..34].copy_from_slice(&[198, 19, traffic.stream, 1]);
    let sum = frame[14..34].chunks_exact(2).map(|w| u16::from_be_bytes([w[0], w[1]]) as u32).sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame[34..36].copy_from_slice(&flow.to_be_bytes());
    frame[36..38].copy_from_slice(&9u16.to_be_bytes());
    frame[38..40].copy_from_slice(&(total - 20).to_be_bytes());
    frame[STREAM_AT..STREAM_AT + 3].copy_from_slice(&MAGIC);
    frame[STREAM_AT + 3] = traffic.stream;
    frame
}

impl Wire for Generator {
    fn send(&mut self, frame: &[u8]) -> bool {
        self.check(frame);
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        let report = &self.report.streams[self.traffic.stream as usize];
        let settled = report.settled.load(Relaxed);
        if self.next - self.given_up.max(settled).min(self.next) >= self.traffic.window {
            single_writer_add(&report.refused, 1);
            self.window_full(settled);
            return None;
        }
        if !self.report.running.load(Relaxed) {
            single_writer_add(&report.refused, 1);
            return None;
        }
        self.waiting_since = None;
        let flow = (self.next % self.traffic.flows as u64) as usize;
        frame.clear();
        frame.extend_from_slice(&self.templates[flow]);
        frame[NUMBER_AT..FILL_AT].copy_from_slice(&self.next.to_be_bytes());
        frame[FILL_AT..].fill(self.next as u8);
        self.next += 1;
        single_writer_add(&report.sent, 1);
        Some(Arrival::Good)
    }

    fn patient(&self) -> bool {
        self.traffic.patient
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(flows: u16) -> (Arc<Report>, Generator) {
        let report = Arc::new(Report::default());
        let generator = Generator::new(Traffic { flows, window: 8, ..Traffic::default() }, report.clone());
        (report, generator)
    }

    #[test]
    fn a_perfect_forwarder_has_nothing_wrong() {
        let (report, mut generator) = report(3);
        let mut frame = Vec::new();
        for _ in 0..1000 {
            assert!(generator.receive(&mut frame).is_some());
            frame[..12].fill(7);
            assert!(generator.send(&frame));
        }
        assert_eq!((report.sent(), report.received(), report.lost(), report.wrong()), (1000, 1000, 0, 0));
    }

    #[test]
    fn the_window_closes_and_time_opens_it() {
        let (report, mut generator) = report(1);
        let mut frame = Vec::new();
        assert_eq!((0..100).filter(|_| generator.receive(&mut frame).is_some()).count(), 8);
        assert_eq!(report.refused(2).collect::<Vec<_>>(), [92, 0]);
        std::thread::sleep(PATIENCE * 2);
        assert!(generator.receive(&mut frame).is_none());
        assert!(generator.receive(&mut frame).is_some());
        generator.send(&frame);
        assert_eq!((report.received(), report.lost()), (1, 8));
    }

    #[test]
    fn faults_are_found() {
        let (report, mut generator) = report(1);
        let mut frames = vec![Vec::new(); 5];
        for frame in &mut frames {
            generator.receive(frame).unwrap();
        }
        generator.send(&frames[0]);
        generator.send(&frames[0]);
        generator.send(&frames[2]);
        generator.send(&frames[1]);
        frames[3][59] ^= 1;
        generator.send(&frames[3]);
        for forged in [5, u64::MAX] {
            frames[4][NUMBER_AT..FILL_AT].copy_from_slice(&forged.to_be_bytes());
            frames[4][FILL_AT..].fill(forged as u8);
            generator.send(&frames[4]);
        }
        generator.send(&[0; 60]);
        generator.send(&[0; 14]);
        let stream = &report.streams[0];
        assert_eq!((report.received(), report.lost()), (2, 1));
        assert_eq!((stream.late.load(Relaxed), stream.corrupt.load(Relaxed)), (2, 3));
        assert_eq!(report.foreign.load(Relaxed), 2);
    }
}
