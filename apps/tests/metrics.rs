//! `pagewire stats --prometheus`: what it serves, and to whom.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::place::{LONG, Place, Run};

/// A server of what the processes of a place count.
struct Metrics {
    run: Run,
    address: String,
}

/// What it answers.
struct Answer {
    status: u16,
    fields: BTreeMap<String, String>,
    text: String,
}

/// Samples of an exposition, by name and labels as they are written, and the types of families.
struct Exposition {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    fn serve(place: &Place, arguments: &str) -> Metrics {
        let (run, said) =
            place.start_saying(&format!("stats --prometheus 127.0.0.1:0 {arguments}"), "/metrics");
        let address =
            said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
        Metrics { run, address: address.into() }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(&self.address).expect("somebody listens");
        socket.set_read_timeout(Some(LONG)).expect("a time limit");
        socket
    }

    fn ask(&self, request: &[u8]) -> Answer {
        let mut socket = self.connect();
        // Who is refused early is not read to the end.
        let _ = socket.write_all(request);
        let mut bytes = Vec::new();
        let _ = socket.read_to_end(&mut bytes);
        let all = String::from_utf8(bytes).expect("text");
        let (head, text) = all.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {all:?}"));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let fields = lines.filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Answer { status: status.expect("a status"), fields, text: text.into() }
    }

    fn scrape(&self) -> Exposition {
        let answer = self.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(answer.status, 200, "{}", answer.text);
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(answer.fields["content-type"], kind);
        assert_eq!(answer.fields["content-length"], answer.text.len().to_string());
        Exposition::read(&answer.text)
    }
}

impl Exposition {
    /// By the rules of OpenMetrics 1.0: descriptors before samples, families together, and the end said.
    fn read(text: &str) -> Exposition {
        let mut exposition = Exposition { samples: BTreeMap::new(), types: BTreeMap::new() };
        let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
        let mut family = String::new();
        for line in body.lines() {
            if let Some(descriptor) = line.strip_prefix("# ") {
                let words: Vec<&str> = descriptor.splitn(3, ' ').collect();
                if words[0] == "TYPE" {
                    family = words[1].to_owned();
                    let other = exposition.types.insert(family.clone(), words[2].to_owned());
                    assert_eq!(other, None, "{family} is there twice");
                } else {
                    assert_eq!(words[0], "HELP", "{line}");
                }
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let name = sample.split('{').next().expect("a name");
            let ending = name.strip_prefix(&*family).unwrap_or_else(|| panic!("{line} in {family}"));
            let endings: &[&str] = match &*exposition.types[&family] {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("{family} is a {other}"),
            };
            assert!(endings.contains(&ending), "{line}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert_eq!(exposition.samples.insert(sample.to_owned(), value), None, "{sample} is there twice");
        }
        exposition
    }

    /// The one sample of a family with these labels.
    fn get(&self, name: &str, labels: &[&str]) -> f64 {
        let is_it = |sample: &str| {
            sample.starts_with(&format!("{name}{{")) && labels.iter().all(|label| sample.contains(label))
        };
        let found: Vec<_> = self.samples.iter().filter(|(sample, _)| is_it(sample)).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        *found[0].1
    }
}

#[test]
fn counters_rise_and_are_of_every_process() {
    let place = Place::new();
    let metrics = Metrics::serve(&place, "");
    let run = place.l2fwd("--port null: --port null:");
    let process = format!("process=\"{}\"", run.id());
    let packets = |scraped: &Exposition| {
        scraped.get("pagewire_port_rx_packets_total", &[&process, "port=\"0\"", "device=\"null:0\""])
    };
    std::thread::sleep(Duration::from_millis(150));
    let first = metrics.scrape();
    std::thread::sleep(Duration::from_millis(250));
    let second = metrics.scrape();
    assert!(packets(&second) > packets(&first) && packets(&first) > 0.0);
    assert_eq!(second.types["pagewire_port_rx_packets"], "counter");
    assert_eq!(second.get("pagewire_process_uptime_seconds", &[&process, "command=\"l2fwd\""]).signum(), 1.0);
    // Null ports fill every burst, and a core that has them is never idle for long.
    let burst = |le: &str| second.get("pagewire_core_burst_packets_bucket", &[&process, le]);
    assert!(burst("le=\"+Inf\"") > 0.0 && burst("le=\"63.0\"") > burst("le=\"31.0\""));
    assert_eq!(second.get("pagewire_core_burst_packets_count", &[&process]), burst("le=\"+Inf\""));
    assert!(second.get("pagewire_core_busy_cycles_total", &[&process]) > 0.0);
    let pool = |name: &str| second.get(name, &[&process, "pool=\"port0\""]);
    assert!(pool("pagewire_pool_alloc_fast_total") >= packets(&first));
    assert!((0.0..=pool("pagewire_pool_fragments")).contains(&pool("pagewire_pool_inflight")));
    run.end();
    // What was asked a moment ago is not asked again.
    std::thread::sleep(Duration::from_millis(150));
    let gone = metrics.scrape();
    assert!(gone.samples.keys().all(|sample| !sample.contains(&process)), "{:?}", gone.samples);
    // Of one process, if one is asked for.
    let (one, other) = (place.l2fwd("--port null: --port null:"), place.l2fwd("--port null: --port null:"));
    let of_one = Metrics::serve(&place, &format!("--id {}", one.id()));
    assert_eq!(of_one.scrape().samples.get("pagewire_processes"), Some(&1.0));
    // Those of this user that have no such folder are there too.
    std::thread::sleep(Duration::from_millis(150));
    let all = metrics.scrape();
    assert!(all.samples.get("pagewire_processes") >= Some(&2.0), "{:?}", all.samples);
    for run in [&one, &other] {
        all.get("pagewire_process_uptime_seconds", &[&format!("process=\"{}\"", run.id())]);
    }
}

#[test]
fn addresses_that_others_reach_are_refused_and_taken_ones_are_named() {
    let place = Place::new();
    for open in ["0.0.0.0:9184", "[::]:0"] {
        let output = place.output(&format!("stats --prometheus {open}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("can be reached from other machines") && said.contains("loopback"), "{said}");
    }
    let metrics = Metrics::serve(&place, "");
    let output = place.output(&format!("stats --prometheus {}", metrics.address));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(&metrics.address) && said.contains("in use"), "{said}");
}

/// Garbage, too much, nothing at all, an answer that nobody takes, a hundred at once: honest ones are served, and it ends when told.
#[test]
fn clients_of_all_kinds_do_not_keep_honest_ones_from_it() {
    let place = Place::new();
    let run = place.l2fwd("--port null: --port null:");
    let mut metrics = Metrics::serve(&place, "");
    for (request, status) in [
        (&b"\0\xff\xfe\r\n\r\n"[..], 400),
        (b"{\"get\":\"all\"}\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (&[&b"GET /"[..], &[b'x'; 9000]].concat(), 431),
    ] {
        assert_eq!(metrics.ask(request).status, status);
    }
    let head = metrics.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.status == 200 && head.text.is_empty() && head.fields["content-length"] != "0");
    // All of it at once is cut off, whether an answer comes through or not.
    let mut endless = metrics.connect();
    endless.set_write_timeout(Some(LONG)).expect("a time limit");
    let start = Instant::now();
    let _ = endless.write_all(&vec![b'x'; 64 << 20]);
    assert!(start.elapsed() < Duration::from_secs(10), "it takes all there is");

    // Half of these say nothing, half ask and take nothing.
    let idle: Vec<TcpStream> = (0..100)
        .map(|number| {
            let mut socket = metrics.connect();
            if number % 2 == 0 {
                socket.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("there is room");
            }
            socket
        })
        .collect();
    let start = Instant::now();
    let scraped = metrics.scrape();
    let process = format!("process=\"{}\"", run.id());
    assert!(scraped.get("pagewire_port_rx_packets_total", &[&process, "port=\"1\""]) > 0.0);
    assert!(start.elapsed() < LONG, "it took {:?}", start.elapsed());
    drop(idle);
    metrics.run.signal("INT");
    let start = Instant::now();
    assert!(metrics.run.child.wait().expect("it ends").success());
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    run.end();
}
