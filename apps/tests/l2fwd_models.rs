//! `pagewire l2fwd` over modelled cards in processes of their own: every frame, and the death of either side.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use common::Model;
use common::frames::{assert_same, frames, read, write};

/// A run of l2fwd that prints JSON, and is killed if a test forgets it.
struct Forwarder {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Forwarder {
    fn start(model: &Model, arguments: &str) -> Forwarder {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
        command.args(["l2fwd", "--json", "-T", "0.05"]).args(arguments.split_whitespace());
        command.current_dir(model.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Forwarder { child, out }
    }

    /// Reads reports until one is as it should be.
    fn wait_until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        let mut line = String::new();
        let mut last = Value::Null;
        while Instant::now() < end {
            line.clear();
            if self.out.read_line(&mut line).expect("a report") == 0 {
                let mut said = String::new();
                let _ = self.child.stderr.take().expect("piped").read_to_string(&mut said);
                panic!("it ended before {what}: {said}");
            }
            last = serde_json::from_str(&line).expect("JSON");
            if holds(&last) {
                return last;
            }
        }
        panic!("not {what} within 30 s: {last:#}");
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(kill.expect("kill is there").success());
    }

    /// Waits for its end: whether it was a success, its last report, what it said.
    fn end(mut self) -> (bool, Value, String) {
        let (mut out, mut said) = (String::new(), String::new());
        self.out.read_to_string(&mut out).expect("the rest of it");
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("what it said");
        let last = out.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).expect("JSON"));
        (self.child.wait().expect("it ends").success(), last, said)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn packets(report: &Value, port: usize, way: &str) -> u64 {
    report["ports"][port][format!("{way}_packets")].as_u64().expect("a count")
}

/// Forwards captures both ways at once and gives what arrived at each side.
fn forward(kind: &str, arguments: &str, sent: &[Vec<Vec<u8>>; 2]) -> [Vec<Vec<u8>>; 2] {
    forward_by(Model::folder(), kind, arguments, sent)
}

fn forward_by(mut model: Model, kind: &str, arguments: &str, sent: &[Vec<Vec<u8>>; 2]) -> [Vec<Vec<u8>>; 2] {
    for (name, frames) in ["a.pcap", "b.pcap"].into_iter().zip(sent) {
        write(&model.path(name), frames);
    }
    model.start(&format!(
        "{kind} --socket a --wire pcap:a.pcap,at-a.pcap --socket b --wire pcap:b.pcap,at-b.pcap --json -T 0"
    ));
    let mut forwarder =
        Forwarder::start(&model, &format!("--port vfio-user:a --port vfio-user:b {arguments}"));
    forwarder.wait_until("every frame forwarded", |report| {
        packets(report, 1, "tx") == sent[0].len() as u64 && packets(report, 0, "tx") == sent[1].len() as u64
    });
    forwarder.signal("INT");
    let (success, last, said) = forwarder.end();
    assert!(success, "{said}");
    assert_eq!(last["final"], true);
    for drops in [&last["ports"][0]["drops"], &last["ports"][1]["drops"]] {
        assert!(drops.as_object().expect("drops").values().all(|count| count == 0), "{last:#}");
    }
    assert_eq!(last["fragments"]["after_close"], 0);
    model.totals();
    [read(&model.path("at-a.pcap")), read(&model.path("at-b.pcap"))]
}

#[test]
fn frames_of_60_to_9018_bytes_arrive_in_order_and_unchanged() {
    let sent = [frames(1, 900, 9_018), frames(2, 700, 9_018)];
    for lengths in sent.iter().map(|frames| frames.iter().map(Vec::len)) {
        assert_eq!((lengths.clone().min(), lengths.max()), (Some(60), Some(9_018)));
    }
    for kind in ["--mapped", "--trapped"] {
        // A capture does not wait for who sends it on: the ring has room for all of it.
        for arguments in ["--burst 32", "--burst 1"] {
            let arguments = format!("--mode io --mtu 9000 --rx-ring 4096 --tx-ring 4096 {arguments}");
            let [at_a, at_b] = forward(kind, &arguments, &sent);
            assert_same(&at_b, &sent[0]);
            assert_same(&at_a, &sent[1]);
        }
    }
}

#[test]
fn mode_mac_changes_the_addresses_and_nothing_else() {
    let sent = [frames(1, 3_000, 1_518), frames(2, 3_000, 1_518)];
    let [at_a, at_b] = forward("--mapped", "--mode mac --tx-ring 4096", &sent);
    for (arrived, sent, sender, station) in [(at_b, &sent[0], 1, 0x0a), (at_a, &sent[1], 0, 0x09)] {
        let rewritten: Vec<Vec<u8>> = sent
            .iter()
            .map(|frame| {
                let mut frame = frame.clone();
                frame[..12]
                    .copy_from_slice(&[0x02, 0, 0, 0, 0, sender, 0x02, 0x1b, 0x21, 0x82, 0x59, station]);
                frame
            })
            .collect();
        assert_same(&arrived, &rewritten);
    }
}

#[test]
fn the_successors_forward_every_frame_too() {
    let sent = [frames(1, 500, 1_518), frames(2, 500, 1_518)];
    for card in ["x540", "x550", "x552"] {
        let mut model = Model::folder();
        model.card = card;
        let [at_a, at_b] = forward_by(model, "", "--mode io --tx-ring 4096 --rx-ring 4096", &sent);
        assert_same(&at_b, &sent[0]);
        assert_same(&at_a, &sent[1]);
    }
}

#[test]
fn who_sleeps_forwards_every_frame_too() {
    let sent = [frames(1, 2_000, 1_518), frames(2, 2_000, 1_518)];
    for kind in ["--mapped", "--trapped"] {
        let [at_a, at_b] = forward(kind, "--mode io --tx-ring 4096 --rx-ring 4096 --interrupts", &sent);
        assert_same(&at_b, &sent[0]);
        assert_same(&at_a, &sent[1]);
    }
}

/// Nanoseconds that a process's run loops had a processor.
fn loops_on_cpu(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let on_cpu = |task: std::path::PathBuf| {
        let read = |name| std::fs::read_to_string(task.join(name)).expect("it runs");
        let stat = read("schedstat");
        let time = stat.split(' ').next().and_then(|time| time.parse().ok()).expect("a time");
        if read("comm").starts_with("lcore-") { time } else { 0 }
    };
    tasks.map(|task| on_cpu(task.expect("a task").path())).sum()
}

#[test]
fn idle_ports_with_interrupts_leave_their_core_and_tell_how_often_they_slept() {
    let model = Model::started("--socket a --socket b --pair --mapped --json -T 0");
    let mut forwarder = Forwarder::start(&model, "--port vfio-user:a --port vfio-user:b --interrupts");
    let slept = |report: &Value| report["waiters"][0]["sleeps"].as_u64().expect("a count");
    forwarder.wait_until("sleep", |report| slept(report) > 10);
    let (start, before) = (Instant::now(), loops_on_cpu(forwarder.child.id()));
    std::thread::sleep(Duration::from_secs(2));
    let took = Duration::from_nanos(loops_on_cpu(forwarder.child.id()) - before);
    let elapsed = start.elapsed();
    assert!(took < elapsed / 100, "{took:?} of {elapsed:?}");
    forwarder.signal("INT");
    let (success, last, said) = forwarder.end();
    assert!(success, "{said}");
    let waiter = &last["waiters"][0];
    let count = |name: &str| waiter[name].as_u64().expect(name);
    assert!(slept(&last) > 100, "{waiter}");
    assert_eq!(count("sleeps"), count("wake_ups") + count("time_outs"), "{waiter}");
}

#[test]
fn what_cannot_sleep_says_so() {
    let model = Model::folder();
    for (arguments, expected) in [
        (
            "--port ring:x --port ring:x --interrupts",
            "ring:x: receive interrupts at intervals of 20µs is not possible; the port has none",
        ),
        ("--port null: --interrupts", "null:0: receive interrupts at intervals of 20µs is not possible"),
        ("--port null: --interrupts --mode txonly", "--interrupts with --mode txonly"),
        ("--port null: --max-wait 5", "--interrupts"),
    ] {
        let (success, _, said) = Forwarder::start(&model, arguments).end();
        assert!(!success && said.contains(expected), "{arguments}: {said}");
    }
}

/// Two models in two processes, and l2fwd between them.
fn between_two() -> (Model, Model, Forwarder) {
    let a = Model::started("--socket a --wire generate:60,64 --mapped --json -T 0");
    let b = Model::started("--socket b --wire generate:60,64 --mapped --json -T 0");
    let ports = format!("--port vfio-user:a --port vfio-user:{} --portmap 0:0,1:1", b.path("b").display());
    let mut forwarder = Forwarder::start(&a, &ports);
    forwarder.wait_until("traffic at both ports", |report| {
        packets(report, 0, "tx") > 1000 && packets(report, 1, "tx") > 1000
    });
    (a, b, forwarder)
}

/// The model serves somebody new, with traffic.
fn serves(model: &Model, socket: &str) {
    let mut forwarder = Forwarder::start(model, &format!("--port vfio-user:{socket}"));
    forwarder.wait_until("traffic", |report| packets(report, 0, "tx") > 1000);
    forwarder.signal("TERM");
    let (success, last, said) = forwarder.end();
    assert!(success && last["fragments"]["after_close"] == 0, "{said}");
}

#[test]
fn a_model_that_is_killed_ends_the_run_with_a_reason_and_leaves_the_others_in_order() {
    let (mut a, b, forwarder) = between_two();
    let killed = Instant::now();
    a.end("KILL");
    let (success, last, said) = forwarder.end();
    assert!(killed.elapsed() < Duration::from_secs(5), "it took {:?}", killed.elapsed());
    assert!(!success);
    let reason = said.lines().last().expect("a reason");
    assert!(reason.starts_with("pagewire: a: the device is gone"), "{said}");
    // It was counted up to the end all the same.
    assert_eq!(last["final"], true);
    assert!(packets(&last, 0, "rx") > 1000 && packets(&last, 1, "rx") > 1000);
    serves(&b, "b");
}

#[test]
fn a_model_that_hangs_ends_the_run_too() {
    let (a, b, forwarder) = between_two();
    let id = a.child.as_ref().expect("it runs").id().to_string();
    let stop = Command::new("kill").args(["-STOP", &id]).status();
    assert!(stop.expect("kill is there").success());
    let stopped = Instant::now();
    let (success, _, said) = forwarder.end();
    // A server has 5 seconds for an answer.
    assert!(stopped.elapsed() < Duration::from_secs(12), "it took {:?}", stopped.elapsed());
    assert!(
        !success && said.lines().last().is_some_and(|line| line.contains("a: the device is gone")),
        "{said}"
    );
    let resume = Command::new("kill").args(["-CONT", &id]).status();
    assert!(resume.expect("kill is there").success());
    serves(&a, "a");
    serves(&b, "b");
}

#[test]
fn models_serve_the_next_when_a_forwarder_is_killed() {
    let (mut a, b, mut forwarder) = between_two();
    forwarder.child.kill().expect("it runs");
    forwarder.child.wait().expect("it ends");
    serves(&a, "a");
    serves(&b, "b");
    let totals = a.totals();
    assert_eq!(totals["cards"][0]["clients"], 2, "{totals:#}");
}

#[test]
fn a_socket_with_nothing_behind_it_is_told_how_to_get_a_card() {
    let model = Model::folder();
    std::fs::write(model.path("file"), "").expect("a file");
    drop(std::os::unix::net::UnixListener::bind(model.path("stale")).expect("a socket"));
    for (port, expected) in [
        (
            "vfio-user:none",
            "port vfio-user:none: there is no such socket; `pagewire model 82599 --socket none` starts",
        ),
        ("vfio-user:stale", "nobody listens at it; `pagewire model 82599 --socket stale` starts"),
        ("vfio-user:file", "nobody listens at it; `pagewire model 82599 --socket file` starts"),
        ("vfio-user:", "wants the path of a socket"),
        ("vfio-user:x --port vfio-user:x", "port 1 is port 0 once more"),
    ] {
        let (success, _, said) = Forwarder::start(&model, &format!("--port {port}")).end();
        assert!(!success && said.contains(expected), "{port}: {said}");
    }
}
