//! Sends numbered frames into cards and checks what comes out of others.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::traffic::Traffic;
use crate::wire::{Frames, Wire, push};

/// Frames of one flow: sent into one wire, expected from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Index of the wire they are sent into.
    pub into: usize,
    /// Index of the wire they have to come out of.
    pub out_of: usize,
}

/// A transfer of frames through the guest.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The frames' ways; all run at the same time.
    pub flows: Vec<Flow>,
    /// The frames.
    pub traffic: Traffic,
    /// How many in each flow.
    pub frames: u64,
    /// How many of a flow may be under way at once; at most 255, an e1000's ring, if none is to be lost. `None` sends as
    /// fast as the cards take them.
    pub window: Option<u64>,
    /// How long nothing may come before the rest counts as missing.
    pub patience: Duration,
}

impl Transfer {
    /// Both directions between two wires, losslessly.
    pub fn both_ways(traffic: Traffic, frames: u64) -> Self {
        Self {
            flows: vec![Flow { into: 0, out_of: 1 }, Flow { into: 1, out_of: 0 }],
            traffic,
            frames,
            window: Some(255),
            patience: Duration::from_secs(10),
        }
    }

    /// Runs the transfer.
    ///
    /// An error means that it could not be carried out; frames that are missing or wrong are in the report.
    pub fn run(&self, wires: &mut [Wire]) -> Result<Report> {
        ensure!(
            self.flows.len() <= 255 && !self.flows.is_empty(),
            "1 to 255 flows, not {}",
            self.flows.len()
        );
        let shared = Shared {
            progress: Mutex::new(Progress {
                flows: vec![Counts::default(); self.flows.len()],
                last: Instant::now(),
                senders: self.flows.len(),
            }),
            changed: Condvar::new(),
        };
        let started = Instant::now();
        let (streams, readers): (Vec<_>, Vec<_>) = wires.iter_mut().map(Wire::split).unzip();
        let mut seen = Seen::default();
        thread::scope(|scope| -> Result<()> {
            let senders: Vec<_> = (0..self.flows.len())
                .map(|flow| {
                    let (stream, shared) = (streams[self.flows[flow].into], &shared);
                    scope.spawn(move || self.send(flow, stream, shared))
                })
                .collect();
            let receivers: Vec<_> = readers
                .into_iter()
                .enumerate()
                .map(|(wire, reader)| {
                    let (stream, shared) = (streams[wire], &shared);
                    scope.spawn(move || self.receive(wire, stream, reader, shared))
                })
                .collect();
            for sender in senders {
                sender.join().expect("a sender panicked")?;
            }
            for receiver in receivers {
                let wire = receiver.join().expect("a receiver panicked")?;
                seen.missing.extend(wire.missing);
                seen.faults.extend(wire.faults);
                seen.foreign.extend(wire.foreign);
            }
            Ok(())
        })?;
        let progress = shared.lock();
        Ok(Report {
            sent: progress.flows.iter().map(|flow| flow.sent).collect(),
            received: progress.flows.iter().map(|flow| flow.received).collect(),
            wanted: self.frames,
            missing: seen.missing,
            faults: seen.faults,
            foreign: seen.foreign,
            elapsed: progress.last.duration_since(started),
        })
    }

    fn send(&self, flow: usize, stream: &UnixStream, shared: &Shared) -> Result<()> {
        let sent = self.send_all(flow, stream, shared);
        shared.lock().senders -= 1;
        sent
    }

    fn send_all(&self, flow: usize, stream: &UnixStream, shared: &Shared) -> Result<()> {
        /// Frames a write: enough to make the call cheap, few enough to keep the window full.
        const BATCH: u64 = 64;
        let (mut bytes, mut frame) = (Vec::new(), Vec::new());
        let mut next = 0;
        while next < self.frames {
            let Some(room) = shared.wait_for_room(flow, self) else { return Ok(()) };
            let batch = room.min(BATCH).min(self.frames - next);
            bytes.clear();
            for number in next..next + batch {
                self.traffic.frame(flow as u8, number, &mut frame)?;
                push(&mut bytes, &frame);
            }
            // Before they are under way, or they could be received before they count as sent.
            shared.lock().flows[flow].sent += batch;
            if let Err(error) = io::Write::write_all(&mut &*stream, &bytes) {
                bail!(
                    "the card of flow {flow} has taken no frame for a while, around number {next}: {error}"
                );
            }
            next += batch;
        }
        Ok(())
    }

    fn receive(
        &self,
        wire: usize,
        stream: &UnixStream,
        reader: &mut Frames,
        shared: &Shared,
    ) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut arrived: Vec<Vec<bool>> = self.flows.iter().map(|_| Vec::new()).collect();
        for (flow, _) in self.flows.iter().enumerate().filter(|(_, flow)| flow.out_of == wire) {
            arrived[flow] = vec![false; self.frames as usize];
        }
        let mut expected = Vec::new();
        let mut counts = vec![0; self.flows.len()];
        // One queue and one ring each way: frames of a flow cannot overtake one another.
        let mut latest = vec![0; self.flows.len()];
        loop {
            let came = reader.fill(stream, Duration::from_millis(50))?;
            while let Some(frame) = reader.next()? {
                let Some((flow, number)) = Traffic::identify(frame) else {
                    seen.foreign.push(format!("wire {wire}: {}", hex(frame)));
                    continue;
                };
                let Some(first) =
                    arrived.get_mut(usize::from(flow)).and_then(|seen| seen.get_mut(number as usize))
                else {
                    seen.faults.push(format!("frame {number} of flow {flow} came out of wire {wire}"));
                    continue;
                };
                if *first {
                    seen.faults.push(format!("frame {number} of flow {flow} came twice"));
                    continue;
                }
                *first = true;
                let latest = &mut latest[usize::from(flow)];
                if number < *latest {
                    seen.faults.push(format!("frame {number} of flow {flow} came after number {latest}"));
                }
                *latest = number;
                counts[usize::from(flow)] += 1;
                self.traffic.frame(flow, number, &mut expected)?;
                // A forwarder may write other MAC addresses and nothing else.
                if frame.len() != expected.len() || frame[12..] != expected[12..] {
                    seen.faults.push(format!(
                        "frame {number} of flow {flow} was changed:\n sent     {}\n received {}",
                        hex(&expected),
                        hex(frame)
                    ));
                }
            }
            if shared.received(&mut counts, came, self) {
                for (flow, arrived) in arrived.iter().enumerate() {
                    let missing: Vec<_> = (0..arrived.len()).filter(|number| !arrived[*number]).collect();
                    if !missing.is_empty() {
                        let first = &missing[..missing.len().min(16)];
                        seen.missing.push(format!("{} of flow {flow}: numbers {first:?}", missing.len()));
                    }
                }
                return Ok(seen);
            }
        }
    }
}

/// What one wire should have given and did not, and what it gave and should not have.
#[derive(Default)]
struct Seen {
    missing: Vec<String>,
    faults: Vec<String>,
    foreign: Vec<String>,
}

#[derive(Clone, Default)]
struct Counts {
    sent: u64,
    received: u64,
}

struct Progress {
    flows: Vec<Counts>,
    /// When a frame was last received.
    last: Instant,
    /// Senders still at work.
    senders: usize,
}

struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("a thread of the transfer panicked")
    }

    /// How many frames of a flow may be sent now, or `None` if none have come back for too long.
    fn wait_for_room(&self, flow: usize, transfer: &Transfer) -> Option<u64> {
        let Some(window) = transfer.window else { return Some(u64::MAX) };
        let mut progress = self.lock();
        loop {
            let Counts { sent, received } = progress.flows[flow];
            // Frames of an earlier transfer, which bear the same numbers, may come before these are sent.
            let under_way = sent.saturating_sub(received);
            if under_way < window {
                return Some(window - under_way);
            }
            if progress.last.elapsed() > transfer.patience {
                return None;
            }
            progress = self.changed.wait_timeout(progress, transfer.patience).expect("a thread panicked").0;
        }
    }

    /// Notes what was received and says whether there is nothing to wait for any more.
    fn received(&self, counts: &mut [u64], came: bool, transfer: &Transfer) -> bool {
        let mut progress = self.lock();
        for (flow, count) in progress.flows.iter_mut().zip(counts) {
            flow.received += std::mem::take(count);
        }
        if came {
            progress.last = Instant::now();
            self.changed.notify_all();
        }
        let complete = progress.flows.iter().all(|flow| flow.received == transfer.frames);
        complete || progress.senders == 0 && progress.last.elapsed() > transfer.patience
    }
}

/// What became of a transfer.
#[derive(Clone, Debug)]
pub struct Report {
    /// Frames sent, for each flow.
    pub sent: Vec<u64>,
    /// Frames received, each counted once, for each flow.
    pub received: Vec<u64>,
    /// Frames that should have been sent and received in each flow.
    pub wanted: u64,
    /// Which frames did not come.
    pub missing: Vec<String>,
    /// Frames that were changed, came twice or out of the wrong card.
    pub faults: Vec<String>,
    /// Frames that nobody here sent.
    pub foreign: Vec<String>,
    /// From the start to the last frame.
    pub elapsed: Duration,
}

impl Report {
    /// Frames received in all flows a second.
    pub fn rate(&self) -> f64 {
        self.received.iter().sum::<u64>() as f64 / self.elapsed.as_secs_f64()
    }

    /// An error unless every frame came once, unchanged, out of the right card, and nothing else did.
    pub fn lossless(&self) -> Result<()> {
        let whole = self.received.iter().all(|received| *received == self.wanted);
        ensure!(whole && self.faults.is_empty() && self.foreign.is_empty(), "{self}");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, wanted, missing, faults, foreign, elapsed } = self;
        writeln!(f, "wanted {wanted} a flow, sent {sent:?}, received {received:?} in {elapsed:?}")?;
        writeln!(
            f,
            "{:.0} frames/s, {} faults, {} foreign frames",
            self.rate(),
            faults.len(),
            foreign.len()
        )?;
        for line in missing {
            writeln!(f, "missing {line}")?;
        }
        for line in faults.iter().chain(foreign).take(5) {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(96).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes {shown}", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a transfer from wire 0 to wire 1 through a forwarder that puts what `forward` makes of each frame on wire 1.
    fn through(forward: impl Fn(u64, &[u8]) -> Vec<Vec<u8>> + Send) -> Report {
        let pairs = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
        let (mut wires, card): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .map(|(wire, card)| (Wire::new(wire).unwrap(), Wire::new(card).unwrap()))
            .unzip();
        let [mut from, mut to] = <[Wire; 2]>::try_from(card).ok().unwrap();
        let transfer = Transfer {
            flows: vec![Flow { into: 0, out_of: 1 }],
            traffic: Traffic::Mixed { seed: 1, lengths: 60..=9018 },
            frames: 1000,
            window: Some(255),
            patience: Duration::from_secs(1),
        };
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut number = 0;
                // Ends when the transfer has hung up.
                while let Ok(Some(frame)) = from.receive(Duration::from_secs(10)) {
                    for frame in forward(number, &frame) {
                        to.send(&frame).unwrap();
                    }
                    number += 1;
                }
            });
            let report = transfer.run(&mut wires).unwrap();
            drop(wires);
            report
        })
    }

    #[test]
    fn other_addresses_are_fine() {
        let report = through(|_, frame| {
            let mut frame = frame.to_vec();
            frame[..12].fill(0xaa);
            vec![frame]
        });
        report.lossless().unwrap();
        assert_eq!((report.sent, report.received), (vec![1000], vec![1000]));
    }

    #[test]
    fn another_order_is_a_fault() {
        let held = Mutex::new(Vec::new());
        let report = through(|number, frame| {
            let mut held = held.lock().unwrap();
            held.push(frame.to_vec());
            if number % 2 == 0 { Vec::new() } else { std::mem::take(&mut *held).into_iter().rev().collect() }
        });
        assert_eq!((&report.received, report.faults.len()), (&vec![1000], 500), "{report}");
        assert!(report.lossless().is_err());
    }

    #[test]
    fn a_lost_frame_is_missed() {
        let report = through(|number, frame| if number == 500 { Vec::new() } else { vec![frame.to_vec()] });
        assert_eq!((&report.received, report.faults.len(), report.foreign.len()), (&vec![999], 0, 0));
        assert!(report.lossless().is_err());
    }

    #[test]
    fn losing_a_whole_window_ends_the_transfer() {
        let report = through(|_, _| Vec::new());
        assert_eq!((&report.sent, &report.received), (&vec![255], &vec![0]));
        assert!(report.lossless().is_err());
    }

    #[test]
    fn a_changed_doubled_cut_or_foreign_frame_is_a_fault() {
        let report = through(|number, frame| {
            let mut changed = frame.to_vec();
            match number {
                10 => changed[12] ^= 1,
                11 => return vec![frame.to_vec(), frame.to_vec()],
                12 => drop(changed.remove(20)),
                13 => return vec![frame.to_vec(), vec![0; 60]],
                _ => {}
            }
            vec![changed]
        });
        assert_eq!(
            (&report.received, report.faults.len(), report.foreign.len()),
            (&vec![1000], 3, 1),
            "{report}"
        );
        assert!(report.lossless().is_err());
    }
}
