//! `pagewire pktgen` as its user runs it, on virtual ports and on modelled cards.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
    command.arg("pktgen").args(arguments).stdin(Stdio::null()).output().expect("the program starts")
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The last report of a run with an exit code.
fn last(arguments: &[&str], code: i32) -> Value {
    let output = output(&[arguments, &["--json", "-T", "0"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    serde_json::from_str(text.lines().last().expect("a report")).expect("an object a line")
}

/// What is said of a run that fails.
fn refusal(arguments: &[&str]) -> String {
    let output = output(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?} has begun");
    said
}

fn count(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

#[test]
fn without_ports_it_sends_from_one_modelled_card_to_another_and_all_of_it_arrives() {
    let report =
        last(&words("--count 5000 --duration 60 --rate 5kpps --warm-up 0.2 --size imix --payload random"), 0);
    assert_eq!((count(&report, "/version"), &report["final"]), (1, &Value::Bool(true)));
    let stream = &report["streams"][0];
    let missed = count(&report, "/ports/1/drops/rx_missed");
    assert_eq!(count(stream, "/sent"), 5000, "{report:#}");
    assert_eq!(count(stream, "/lost"), missed, "{report:#}");
    for nothing in ["reordered", "duplicates", "late", "corrupt"] {
        assert_eq!(stream[nothing], 0, "{report:#}");
    }
    assert_eq!(count(stream, "/latency/samples"), count(stream, "/received"));
    assert!(count(stream, "/latency/min_ns") <= count(stream, "/latency/p99_99_ns"));
}

#[test]
fn several_streams_on_several_cores_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("two.toml");
    let text = "
        duration = 5
        [pass]
        max-loss = 0.0
        max-corrupt = 0
        [[stream]]
        name = 'there'
        count = 3000
        rate = '30kpps'
        [[stream.frame]]
        vlan = [10, '20-29']
        size = 128
        [[stream]]
        name = 'back'
        tx = 1
        rx = 0
        count = 2000
        rate = '20kpps'
        burst = 10
        [[stream.frame]]
        src-ip = 'random 10.0.0.0-10.0.255.255'
        [[stream.frame]]
        protocol = 'tcp'
        size = '76-1518/7'";
    std::fs::write(&file, text).expect("a scenario");
    let started = Instant::now();
    let ports = words("--port ring:a --port ring:a --scenario");
    let report = last(&[&ports[..], &[file.to_str().expect("a path")]].concat(), 0);
    // The count ends it, not the duration.
    assert!(started.elapsed() < Duration::from_secs(4));
    for (stream, name, packets) in [(0, "there", 3000), (1, "back", 2000)] {
        let stream = &report["streams"][stream];
        assert_eq!((stream["name"].as_str(), count(stream, "/sent")), (Some(name), packets));
        assert_eq!((count(stream, "/received"), count(stream, "/reordered")), (packets, 0));
    }
    assert_eq!(report["failed"], serde_json::json!([]));
    assert_eq!(report["unmatched"], serde_json::json!({ "foreign": 0, "damaged": 0, "other": 0 }));
}

#[test]
fn frames_without_a_signature_are_counted_where_they_arrive() {
    let report = last(&words("--port ring:a --port ring:a --count 500 --rate 10kpps --no-signature"), 0);
    assert_eq!((count(&report, "/streams/0/sent"), count(&report, "/unmatched/foreign")), (500, 500));
    assert!(report["streams"][0]["lost"].is_null(), "{report:#}");
}

#[test]
fn criteria_that_are_not_met_have_an_exit_code_of_their_own() {
    // Nobody takes anything out of this ring's other end but port 1, where nothing is expected.
    let lossy = "--port ring:a --port ring:a --port null: --count 100 --rx-port 0 --max-loss 0 --drain 0.1";
    let report = last(&words(lossy), 3);
    let failed = report["failed"][0].as_str().expect("a reason");
    assert_eq!(failed, "stream stream0: max-loss: 1 is more than 0");
    let output = output(&words(lossy));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("pagewire: 1 of the criteria are not met: stream stream0: max-loss"), "{said}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    for (arguments, expected) in [
        (
            "--port null: --rate 15Mpps",
            "stream stream0: rate: frames of 64 bytes at 15000000 packets/s are 10.080 Gb/s",
        ),
        ("--port null: --rate fast", "is no rate; expected something like max, 1000pps"),
        ("--port null: --size 63", "a frame of 63 bytes"),
        ("--port null: --size 64 --vlan 4096", "vlan: 4096 is no ID"),
        ("--port null: --src-ip 10.0.0.9-10.0.0.1", "above the last"),
        ("--port null: --tx-port 1", "tx: there is no port 1, only 1"),
        ("--port null: --rx-port 0", "a null port receives nothing that was sent"),
        ("--port ring:a --port ring:a --rx-port 2", "rx: there is no port 2, only 2"),
        ("--port null: --scenario /nowhere.toml", "the scenario /nowhere.toml"),
        ("--port null: --scenario x.toml --rate 1pps", "cannot be used with"),
        ("--port null: --checksums offload", "IP_CSUM"),
    ] {
        let said = refusal(&words(arguments));
        assert!(said.contains(expected), "{arguments}: {said}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, "duration = 1\n[[stream]]\nspeed = 1\n").expect("a scenario");
    let said = refusal(&["--port", "null:", "--scenario", file.to_str().expect("a path")]);
    assert!(said.contains("wrong.toml") && said.contains("line 3") && said.contains("`speed`"), "{said}");
}

/// Terminated, it says what it has measured.
#[test]
fn a_signal_ends_it_with_a_report() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
    command.args(words("pktgen --port ring:a --port ring:a --rate 1kpps --json -T 0.1"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let child = child.expect("the program starts");
    std::thread::sleep(Duration::from_secs(1));
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signal.expect("kill is there").success());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let last: Value = serde_json::from_str(text.lines().last().expect("a report")).expect("JSON");
    assert_eq!(last["final"], true);
    assert_eq!(count(&last, "/streams/0/sent"), count(&last, "/streams/0/received"));
}
