//! What the screen's pages look like on a common terminal.

use hdrhistogram::Histogram;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::json;

use crate::l2fwd::draw::lines;
use crate::pktgen::desk::{Wrong, histogram};
use crate::pktgen::draw::{Content, Delayed, spread};
use crate::pktgen::pace::Clock;
use crate::pktgen::report::{Results, StreamReport, Times, Unmatched};

/// A tick is a nanosecond.
const CLOCK: Clock = Clock { hz: 1e9 };

fn latency() -> Histogram<u64> {
    let mut latency = histogram();
    for (ns, times) in [(300, 10), (900, 50), (1_500, 30), (70_000, 1)] {
        latency.record_n(ns, times).unwrap();
    }
    latency
}

/// A page of two streams, the second of which goes nowhere, on a terminal of some size.
fn page(number: usize, width: u16, height: u16) -> Vec<String> {
    let stream = |name: &str, rx_port| StreamReport {
        name: name.into(),
        tx_port: 0,
        rx_port,
        signed: rx_port.is_some(),
        sent: 1_000_000,
        received: 999_990,
        sent_pps: 100_000.0,
        received_pps: 99_000.0,
        asked_pps: rx_port.map(|_| 100_000.0),
        ..StreamReport::default()
    };
    let unmatched = Unmatched { other_run: 7, ..Unmatched::default() };
    let streams = vec![stream("web", Some(1)), stream("noise", None)];
    let results = Results::new(3.2, streams, unmatched, Vec::new());
    let times = Times::new(&latency(), &CLOCK);
    let delays = [
        Delayed {
            so_far: times,
            lately: times,
            jitter: None,
            spread: spread(&latency(), &CLOCK),
            wrong: Wrong { reordered: 3, ..Wrong::default() },
        },
        Delayed::default(),
    ];
    let mut polls = [0; 12];
    (polls[0], polls[1], polls[6]) = (900, 25, 75);
    let core = json!({
        "cpu": 3, "busy_cycles": 250, "idle_cycles": 750, "packets": 2_425, "cycles_per_packet": 105.21, "bursts": { "polls": polls },
    });
    let notes = ["port 0: link up".to_owned()];
    let content = Content {
        title: "pktgen  3.2 s of 10 s",
        results: &results,
        delays: &delays,
        cores: &[core],
        notes: &notes,
    };
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    content.draw(&mut buffer, number);
    lines(&buffer)
}

#[test]
fn streams() {
    let expected = "
 pktgen  3.2 s of 10 s           1 ports [2 streams] 3 latency  4 cores  q: end
 streams             sent kpps   rx kpps     asked      sent  received under way
 web 0→1                 100.0      99.0     100.0   1000000    999990        10
 noise 0→-               100.0         -       max   1000000         -         -
 of what came                            reordered     twice  too late   corrupt
 web 0→1                                         3         0         0         0
 noise 0→-                                       0         0         0         0
 frames of no stream            unsigned   damaged other run elsewhere no sender
 all ports                             0         0         7         0         0
 messages
 port 0: link up";
    assert_eq!(page(1, 80, 24).join("\n").trim_end(), expected.trim_start_matches('\n'));
}

#[test]
fn latency_with_its_distribution() {
    let expected = "
 pktgen  3.2 s of 10 s           1 ports  2 streams [3 latency] 4 cores  q: end
 latency µs                p50       p90       p99     p99.9    p99.99       max
 web 0→1                   0.9       1.5      70.0      70.0      70.0      70.0
 … lately                  p50       p90       p99     p99.9    p99.99       max
 web 0→1                   0.9       1.5      70.0      70.0      70.0      70.0
 web: latency lately, share of packets
 <        0.512 µs  10.99 %  ████████
 <        1.024 µs  54.95 %  ████████████████████████████████████████
 <        2.048 µs  32.97 %  ████████████████████████
 <        4.096 µs   0.00 %
 <        8.192 µs   0.00 %
 <       16.384 µs   0.00 %
 <       32.768 µs   0.00 %
 <       65.536 µs   0.00 %
 <      131.072 µs   1.10 %  █
 messages
 port 0: link up";
    assert_eq!(page(2, 80, 24).join("\n").trim_end(), expected.trim_start_matches('\n'));
    // The distribution is what there may be no room for; and the wider, the more columns.
    assert!(page(2, 80, 10).iter().all(|line| !line.contains('█')));
    assert!(page(2, 200, 50)[1].ends_with("min   samples"));
}

#[test]
fn cores_with_what_their_polls_found() {
    let expected = "
 pktgen  3.2 s of 10 s           1 ports  2 streams  3 latency [4 cores] q: end
 cores                  busy % cycles/pk   packets     polls   empty %     burst
 core 3                   25.0     105.2      2425      1000      90.0      24.2
 bursts, %                                                           1     32-63
 core 3                                                           25.0      75.0
 messages
 port 0: link up";
    assert_eq!(page(3, 80, 24).join("\n").trim_end(), expected.trim_start_matches('\n'));
}

#[test]
fn every_size_of_terminal_will_do() {
    for (width, height) in [(1, 1), (2, 40), (15, 3), (26, 24), (300, 1), (300, 100)] {
        (0..4).for_each(|number| drop(page(number, width, height)));
    }
}
