//! When a capture's frames are sent, by a clock that is told what time it is.

use std::path::Path;
use std::time::Duration;

use pagewire_captures::{CaptureFile, Captured};
use pagewire_ethdev::Burst;
use pagewire_pci::{AddressSpace, AddressSpaceOptions};

use super::super::pace::Clock;
use super::super::plan::Plan;
use super::super::replay::Gaps;
use super::super::scenario::Scenario;
use super::super::schedule::Span;
use super::super::sender::Sender;
use super::super::signature::Run;
use super::frames::pool;
use crate::ports::{self, PortSpec};

/// A megahertz: a tick is a microsecond.
const CLOCK: Clock = Clock { hz: 1e6 };

fn capture(path: &Path, frames: &[(u64, usize)]) {
    let mut file = CaptureFile::create(path, Default::default()).unwrap();
    let interface = file.add_interface("", 65_535);
    for (number, (time, length)) in frames.iter().enumerate() {
        let (front, since) = (vec![number as u8; *length], Duration::from_micros(77_000_000 + time));
        file.write_captured(&Captured { interface, direction: None, since, length: *length, front: &front });
    }
}

/// The sender of a capture, which begins at tick 1000.
fn sender(frames: &[(u64, usize)], stream: &str) -> Result<Sender, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replay.toml");
    capture(&folder.path().join("in.pcap"), frames);
    std::fs::write(&file, format!("[[stream]]\npcap = \"in.pcap\"\n{stream}")).unwrap();
    let scenario = Scenario::read(&file).map_err(|error| format!("{error:#}"))?;
    let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
    let mut ports = ports::open(&[PortSpec::Null(64)], &space).unwrap();
    let plan = Plan::new(&scenario, &mut ports, 1, &CLOCK, Run::new(1));
    let mut sender = plan.map_err(|error| format!("{error:#}"))?.senders[0][0].pop().ok_or("no sender")?;
    sender.begin(Span { start: 500, measured: 1000, end: 1_000_000 });
    Ok(sender)
}

/// What is sent if somebody looks at these times: when, and which frame.
fn sent(sender: &mut Sender, times: impl Iterator<Item = u64>) -> Vec<(u64, u8)> {
    let (mut pool, mut burst, mut sent) = (pool(64), Burst::new(8), Vec::new());
    for now in times {
        while sender.is_due(now) && sender.fill(&mut pool, &mut burst, now) > 0 {
            sent.extend(burst.iter().map(|packet| (now, packet.as_slice().unwrap()[0])));
            burst.clear();
        }
    }
    sent
}

const FRAMES: [(u64, usize); 4] = [(0, 60), (100, 200), (130, 60), (300, 60)];

#[test]
fn frames_are_due_when_they_were_captured_times_a_factor() {
    let mut one = sender(&FRAMES, "timing = \"capture\"").unwrap();
    assert_eq!(sent(&mut one, 0..5000), [(1000, 0), (1100, 1), (1130, 2), (1300, 3)]);
    assert!(one.is_done(5000));
    let mut slow = sender(&FRAMES, "timing = \"capture:10\"").unwrap();
    assert_eq!(sent(&mut slow, 0..5000), [(1000, 0), (2000, 1), (2300, 2), (4000, 3)]);
    // Between two rounds there is the mean of the gaps.
    let mut twice = sender(&FRAMES, "timing = \"capture:0.5\"\nloops = 2").unwrap();
    let expected = [(1000, 0), (1050, 1), (1065, 2), (1150, 3), (1200, 0), (1250, 1), (1265, 2), (1350, 3)];
    assert_eq!(sent(&mut twice, 0..5000), expected);
    // What is late is sent at once, and what comes after it is not late for that.
    let mut late = sender(&FRAMES, "timing = \"capture\"").unwrap();
    let times = (0..1050).chain(1120..5000);
    assert_eq!(sent(&mut late, times), [(1000, 0), (1120, 1), (1130, 2), (1300, 3)]);
    // A stamp before the one before it.
    let mut back = sender(&[(50, 60), (40, 60), (90, 60)], "timing = \"capture\"").unwrap();
    assert_eq!(sent(&mut back, 0..5000), [(1000, 0), (1000, 1), (1040, 2)]);
}

#[test]
fn frames_of_a_capture_are_sent_at_a_rate_as_any_others() {
    let mut rate = sender(&FRAMES, "rate = \"10kpps\"\nloops = 0\ncount = 6").unwrap();
    let expected = [(1000, 0), (1100, 1), (1200, 2), (1300, 3), (1400, 0), (1500, 1)];
    assert_eq!(sent(&mut rate, 0..5000), expected);
    // 64 bytes with preamble and gap are 672 bits, 204 are 1792.
    let mut bits = sender(&FRAMES, "rate = \"1MbpsL1\"").unwrap();
    assert_eq!(sent(&mut bits, 0..9000), [(1000, 0), (1672, 1), (3464, 2), (4136, 3)]);
    let mut fast = sender(&FRAMES, "loops = 3").unwrap();
    assert_eq!(sent(&mut fast, [999, 1000].into_iter()).len(), 12);
}

#[test]
fn what_cannot_be_replayed_is_refused_with_a_reason() {
    for (stream, expected) in [
        ("timing = \"capture\"\nrate = \"1kpps\"", "timing: a stream has its capture's timing or a rate"),
        ("signature = true", "signature: the frames of a capture"),
        ("checksums = \"offload\"", "checksums: the frames of a capture"),
        ("timing = \"capture:0\"", "is no timing"),
        ("timing = \"capture:nan\"", "is no timing"),
        ("loops = -1", "invalid value"),
        ("timing = \"capture:1e-9\"", "timing: the frames of"),
        ("rate = \"20Mpps\"", "rate: frames of 1517.3 bytes on average at 20000000 packets/s"),
        ("[[stream.frame]]\nsize = 64", "frame: the frames of a capture"),
    ] {
        // Much more than a link carries in no time.
        let frames: Vec<_> = (0..2000).map(|number| (number, 1514)).chain([(2000, 60)]).collect();
        let said = sender(&frames, stream).err().unwrap_or_else(|| panic!("{stream} is accepted"));
        assert!(said.contains(expected) && (said.contains("stream0") || said.contains("line")), "{said}");
    }
    // 12304 bits every 2 µs are 61.5 % of the link; the rest is left to the other stream.
    let slow: Vec<_> = (0..100).map(|number| (2 * number, 1514)).collect();
    let beside = |rate: &str| {
        sender(&slow, &format!("timing = \"capture\"\nloops = 0\n[[stream]]\nrate = \"{rate}\""))
    };
    assert!(beside("38%").is_ok());
    let said = beside("39%").err().unwrap();
    assert!(said.contains("stream stream1: rate: all streams of port 0 together are 100.5 %"), "{said}");
    let said = sender(&[(0, 60), (1, 9619)], "").err().unwrap();
    assert!(said.contains("in.pcap, frame 2: 9619 bytes; at most 9618"), "{said}");
}

#[test]
fn the_error_of_a_gap_is_what_the_queue_took_too_late_or_too_early() {
    let mut gaps = Gaps::new();
    [100, 200, 300, 400].into_iter().for_each(|due| gaps.made(due));
    gaps.taken(1, 110);
    // 20 late, then 20 early, with one that is taken together with it and should have come 100 later.
    gaps.taken(1, 230);
    gaps.taken(2, 310);
    let errors = |gaps: &Gaps| (gaps.errors.len(), gaps.errors.min(), gaps.errors.max());
    assert_eq!(errors(&gaps), (3, 20, 100));
    gaps.pause();
    gaps.made(500);
    gaps.taken(1, 9000);
    assert_eq!(errors(&gaps).0, 3);
    // More than were made.
    gaps.taken(7, 9000);
}
