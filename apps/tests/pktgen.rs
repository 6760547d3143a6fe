//! `pagewire pktgen` as its user runs it, on virtual ports and on modelled cards.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::Model;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
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
    let nothing =
        serde_json::json!({ "foreign": 0, "damaged": 0, "other": 0, "other_run": 0, "other_port": 0 });
    assert_eq!(report["unmatched"], nothing);
}

#[test]
fn frames_at_another_port_than_they_are_for_are_not_received() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("astray.toml");
    let stream = |name, rx, count| {
        format!("[[stream]]\nname = '{name}'\nrx = {rx}\ncount = {count}\nrate = '10kpps'\n")
    };
    std::fs::write(&file, stream("right", 1, 100) + &stream("astray", 2, 50)).expect("a scenario");
    let ports = words("--port ring:a --port ring:a --port ring:b --port ring:b --drain 0.2 --scenario");
    let report = last(&[&ports[..], &[file.to_str().expect("a path")]].concat(), 0);
    assert_eq!((count(&report, "/streams/0/received"), count(&report, "/streams/0/lost")), (100, 0));
    assert_eq!((count(&report, "/streams/1/received"), count(&report, "/streams/1/lost")), (0, 50));
    assert_eq!(count(&report, "/unmatched/other_port"), 50);
}

/// A cable of 10 Mb/s carries 14,881 of the shortest frames a second.
#[test]
fn a_port_that_is_too_slow_for_a_rate_is_found_out() {
    let model = Model::started("--socket a --socket b --wire pair:10 --mapped");
    let [a, b] = ["a", "b"].map(|name| format!("vfio-user:{}", model.path(name).display()));
    let file = model.path("slow.toml");
    std::fs::write(&file, "duration = 1\n[pass]\nmax-rate-error = 0.01\n[[stream]]\nrate = '30kpps'")
        .expect("a scenario");
    let report = last(&["--port", &a, "--port", &b, "--scenario", file.to_str().expect("a path")], 3);
    let stream = &report["streams"][0];
    assert!(
        stream["rate_error"].as_f64() < Some(-0.3) && stream["behind"].as_f64() > Some(0.1),
        "{stream:#}"
    );
    assert!(
        report["failed"][0].as_str().is_some_and(|failed| failed.contains("max-rate-error")),
        "{report:#}"
    );
}

/// Nobody waits for them at the other end, and the cable takes 134 ms for what fits into the ring.
#[test]
fn what_a_ring_has_at_the_end_is_sent() {
    let model = Model::started("--socket a --socket b --wire pair:1 --mapped");
    let a = format!("vfio-user:{}", model.path("a").display());
    let report = last(&[&["--port", &a], &words("--no-rx --count 200 --tx-ring 512")[..]].concat(), 0);
    assert_eq!((count(&report, "/streams/0/sent"), count(&report, "/ports/0/tx_packets")), (200, 200));
}

#[test]
fn frames_without_a_signature_are_counted_where_they_arrive() {
    let report = last(&words("--port ring:a --port ring:a --count 500 --rate 10kpps --no-signature"), 0);
    assert_eq!((count(&report, "/streams/0/sent"), count(&report, "/unmatched/foreign")), (500, 500));
    assert!(report["streams"][0]["lost"].is_null(), "{report:#}");
}

/// A capture in a folder, with a frame of each length at each time in microseconds.
fn capture(path: &std::path::Path, frames: &[(u64, usize)]) {
    let mut writer = PcapWriter::new(std::fs::File::create(path).expect("a file")).expect("a header");
    for (number, (time, length)) in frames.iter().enumerate() {
        let data = vec![number as u8; *length];
        let packet = PcapPacket::new(Duration::from_micros(1_000_000 + time), *length as u32, &data);
        writer.write_packet(&packet).expect("a record");
    }
}

/// The frames of a capture.
fn captured(path: &std::path::Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(std::fs::File::open(path).expect("a file")).expect("a header");
    std::iter::from_fn(|| reader.next_packet().map(|packet| packet.expect("a record").data.to_vec()))
        .collect()
}

#[test]
fn captures_are_sent_again_frame_by_frame_and_say_how_well_their_gaps_were_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
    capture(&input, &[(0, 60), (1000, 1514), (1100, 14), (5000, 64)]);
    let port = format!("pcap:,{}", output.display());
    let input = input.to_str().expect("a path");
    let run = |options: &str| {
        let report = last(&[&["--pcap", input, "--port", &port, "--no-rx"], &words(options)[..]].concat(), 0);
        (report, captured(&output))
    };
    let once: Vec<Vec<u8>> = [(0, 60), (1, 1514), (2, 14), (3, 64)]
        .map(|(number, length)| {
            let mut frame = vec![number; length];
            frame.resize(length.max(60), 0);
            frame
        })
        .into();
    let rounds = |count| vec![once.clone(); count].concat();
    let (report, frames) = run("--timing capture:0.5 --loops 3");
    assert_eq!(frames, rounds(3));
    let replay = &report["streams"][0]["replay"];
    assert_eq!((count(replay, "/frames"), count(replay, "/gap_error/samples")), (4, 11));
    assert_eq!(replay["factor"], 0.5);
    assert!(replay["gap_measured"].as_str().is_some_and(|how| how.contains("time stamp counter")));
    // At a rate, and as fast as it goes, which has no gaps to keep.
    let (report, frames) = run("--rate 10kpps --loops 2 --queues 1");
    assert_eq!((frames, count(&report, "/streams/0/sent")), (rounds(2), 8));
    assert!(report["streams"][0]["replay"]["gap_error"].is_null(), "{report:#}");
    let (_, frames) = run("--loops 0 --count 5");
    assert_eq!(frames, [&once[..], &once[..1]].concat());
}

#[test]
fn captures_that_are_cut_off_or_of_something_else_are_refused_with_file_and_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
    capture(&input, &[(0, 60), (1, 60)]);
    let whole = std::fs::read(&input).expect("it is there");
    let mut foreign = whole.clone();
    foreign[20] = 101;
    let scenario = folder.path().join("replay.toml");
    std::fs::write(&scenario, "[[stream]]\npcap = 'in.pcap'\ntiming = 'capture'").expect("a scenario");
    let port = format!("pcap:,{}", output.display());
    for (content, expected) in [
        (&whole[..whole.len() - 1], "at byte 100 (frame 2): the file ends after 75 bytes of it"),
        (&whole[..10], "at byte 0 (the start): the file ends after 10 bytes of it"),
        (&foreign, "link type 101"),
        (b"#!/bin/sh\necho this is no capture\n", "a file that starts with 23 21 2f 62"),
        (&whole[..24], "there is no frame in it"),
    ] {
        std::fs::write(&input, content).expect("a file");
        let by_option = refusal(&["--pcap", input.to_str().expect("a path"), "--port", &port]);
        let by_file = refusal(&["--scenario", scenario.to_str().expect("a path"), "--port", &port]);
        for said in [&by_option, &by_file] {
            assert!(said.contains("in.pcap") && said.contains(expected), "{said}");
        }
        assert!(by_file.contains("replay.toml"), "{by_file}");
        assert!(!output.exists(), "something was begun");
    }
}

/// How much a machine with company sends is not known; that numbers of a trial fit together is.
#[test]
fn the_tests_of_rfc_2544_report_trials_whose_numbers_fit_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trials.toml");
    let text = "
        [rfc2544]
        tests = ['throughput', 'latency', 'frame-loss', 'back-to-back']
        sizes = [512]
        trial = 0.2
        search-trial = 0.1
        max-rate = '2kpps'
        loss-tolerance = 0.5
        resolution = 0.2
        pause = 0
        min-throughput = '5kpps'";
    std::fs::write(&file, text).expect("a scenario");
    let ports = words("--port ring:a --port ring:a --json --scenario");
    let output = output(&[&ports[..], &[file.to_str().expect("a path")]].concat());
    // More than is tried.
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let (last, trials) = lines.split_last().expect("a report");
    assert_eq!((count(last, "/version"), &last["final"]), (1, &Value::Bool(true)));
    let found = &last["rfc2544"];
    assert_eq!(count(found, "/trials"), trials.len() as u64, "{last:#}");
    for trial in trials {
        let trial = &trial["trial"];
        let (sent, received, lost) =
            (count(trial, "/sent"), count(trial, "/received"), count(trial, "/lost"));
        // A ring loses nothing; trials have frames of their own, which none before it had.
        assert_eq!((received, lost), (sent, 0), "{trial:#}");
        let expected =
            trial["asked_pps"].as_f64().expect("a rate") * trial["seconds"].as_f64().expect("a time");
        assert!((sent as f64 - expected).abs() <= 1.0 + expected * 0.01, "{trial:#}");
        assert!(
            ["throughput", "latency", "frame-loss", "back-to-back"].map(Value::from).contains(&trial["test"])
        );
    }
    let of_size = &found["sizes"][0];
    assert_eq!((count(of_size, "/size"), count(of_size, "/back_to_back/frames")), (512, 4000));
    let part = |number: usize| of_size["frame_loss"][number]["part"].as_f64().expect("a part");
    assert_eq!((part(0), part(1)), (1.0, 0.9));
    let failed = last["failed"][0].as_str().expect("a reason");
    assert!(
        failed.starts_with("512 bytes: min-throughput: ") && failed.ends_with("is less than 5000"),
        "{failed}"
    );
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
        ("--port null: --timing capture", "--pcap <FILE>"),
        ("--port null: --pcap x --timing twice", "is no timing; expected capture"),
        ("--port null: --pcap x --timing capture --rate 1pps", "cannot be used with"),
        ("--port null: --pcap x --size 64", "cannot be used with"),
        ("--port null: --rfc2544", "RFC 2544's tests measure what arrives"),
        ("--port ring:a --port ring:a --rfc2544 --rate 1kpps", "cannot be used with"),
        ("--port ring:a --port ring:a --rfc2544=speed", "invalid value 'speed'"),
        ("--port ring:a --port ring:a --rfc2544 --sizes 63", "rfc2544: sizes: a frame of 63 bytes"),
        ("--port ring:a --port ring:a --rfc2544 --max-rate gap:12B", "rfc2544: max-rate"),
        (
            "--port ring:a --port ring:a --rfc2544 --max-rate 15Mpps",
            "frames of 64 bytes at 15000000 packets/s",
        ),
        ("--port ring:a --port ring:a --trial 3", "--rfc2544"),
        ("--port null: --pcap /nowhere.pcap", "the capture /nowhere.pcap: No such file"),
    ] {
        let said = refusal(&words(arguments));
        assert!(said.contains(expected), "{arguments}: {said}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, "duration = 1\n[[stream]]\nspeed = 1\n").expect("a scenario");
    for (text, expected) in [
        ("duration = 1\n[[stream]]\nspeed = 1\n", ["line 3", "`speed`"]),
        ("[[stream]]\nname = 'web'\nrate = '15Mpps'", ["stream web: rate: ", "at most 14880952 packets/s"]),
        (
            "[[stream]]\nrate = '60%'\n[[stream]]\nrate = '50%'",
            ["stream stream1: rate: ", "110.0 % of what its link"],
        ),
        ("[[stream]]\ntx = 3", ["stream stream0: tx: ", "there is no port 3"]),
        ("[rfc2544]\ntrials = 3", ["line 2", "`trials`"]),
        ("[rfc2544]\n[[stream]]\nrate = '1kpps'", ["rate: beside rfc2544", "which decides"]),
        ("[[stream]]\ntiming = 'capture'", ["stream stream0: timing", "`pcap`"]),
    ] {
        std::fs::write(&file, text).expect("a scenario");
        let said = refusal(&["--port", "null:", "--scenario", file.to_str().expect("a path")]);
        assert!(
            said.contains("wrong.toml") && expected.iter().all(|part| said.contains(part)),
            "{text}: {said}"
        );
    }
}

/// What the first run sent is what the second one receives.
#[test]
fn frames_of_an_earlier_run_are_counted_by_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let first = format!("pcap:,{}", path("old.pcap"));
    assert_eq!(count(&last(&["--port", &first, "--no-rx", "--count", "50"], 0), "/streams/0/sent"), 50);
    let second = format!("pcap:{},{}", path("old.pcap"), path("new.pcap"));
    let report = last(&["--port", &second, "--count", "20", "--drain", "0.2"], 0);
    assert_eq!((count(&report, "/streams/0/received"), count(&report, "/streams/0/lost")), (0, 20));
    assert_eq!((count(&report, "/unmatched/other_run"), count(&report, "/unmatched/other")), (50, 0));
}

#[test]
fn a_port_that_vanishes_ends_the_run_with_its_name_and_what_was_measured() {
    let mut model = Model::started("--socket a --socket b --pair --mapped");
    let [a, b] = ["a", "b"].map(|name| format!("vfio-user:{}", model.path(name).display()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
    command.args(["pktgen", "--port", &a, "--port", &b]).args(words("--rate 1kpps --json -T 0.1"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut has_sent = || {
        let report = lines.next().expect("a report").expect("UTF-8");
        count(&serde_json::from_str(&report).expect("an object a line"), "/streams/0/sent") > 0
    };
    while !has_sent() {}
    model.child.as_mut().expect("it runs").kill().expect("it is a child");
    let text = lines.last().expect("a report").expect("UTF-8");
    let report: Value = serde_json::from_str(&text).expect("an object a line");
    assert_eq!(report["final"], true, "{report:#}");
    assert!(count(&report, "/streams/0/sent") > 0);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(model.path("").to_str().expect("a path")) && said.contains("closed"), "{said}");
    assert!(!said.contains("bug"), "{said}");
}

/// Terminated, it says what it has measured.
#[test]
fn a_signal_ends_it_with_a_report() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
    // Nothing comes back, so that it waits.
    command.args(words("pktgen --port ring:a --port ring:a --port ring:b --port ring:b --rx-port 2 --rate 10kpps --drain 3 --json -T 0.1"));
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
    assert_eq!(count(&last, "/streams/0/sent"), count(&last, "/streams/0/lost"));
    // What it did not send while it waited is not missing.
    assert!(last["streams"][0]["behind"].as_f64() < Some(1.5), "{last:#}");
}
