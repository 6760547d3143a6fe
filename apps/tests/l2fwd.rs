//! `pagewire l2fwd` as its user runs it, on virtual ports.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn pagewire(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command
}

fn output(arguments: &str) -> Output {
    pagewire(arguments).output().expect("the program starts")
}

/// The JSON objects of a run that ended well.
fn reports(arguments: &str) -> Vec<Value> {
    let output = output(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn count(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {value}"))
}

#[test]
fn without_ports_it_forwards_between_two_modelled_cards_for_a_while_and_says_so() {
    // Long enough for reports also where every core has other loops to run.
    let output = output("l2fwd --duration 4 --stats-period 0.3");
    let (text, notes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{notes}");
    assert!(
        notes.contains("no --port given: forwarding for 4 s between two models of the Intel 82599"),
        "{notes}"
    );
    assert!(text.lines().filter(|line| line.contains("rx packets")).count() >= 3, "{text}");
    assert!(text.contains("(net_ixgbe)") && text.contains("frames sent"), "{text}");
    assert!(text.contains("0 out after close: nothing lost"), "{text}");
}

/// Every frame that the generators at modelled cards sent has come back, or its loss has a name.
#[test]
fn between_modelled_cards_totals_add_up_in_every_mode() {
    for arguments in [
        "--mode io --tx-size 60",
        "--mode mac --tx-size 1514",
        "--mode macswap --burst 1 --portmap 0:0,1:1",
        "--mode mac --record-core-cycles",
        // Far more than these rings hold.
        "--mode mac --rx-ring 64 --tx-ring 64 --burst 64",
        "--queues 3 --record-core-cycles",
        "--mode rxonly",
        "--mode txonly",
        "--pages 4K --rx-ring 128 --tx-ring 128",
    ] {
        let reports = reports(&format!("l2fwd {arguments} --json --duration 0.7 -T 0.2"));
        let (last, periods) = reports.split_last().expect("a report");
        assert!(periods.iter().all(|report| report["generator"]["unexplained"].is_null()));
        let of = |name: &str| count(last, &format!("/generator/{name}"));
        let port = |port: usize, path: &str| count(last, &format!("/ports/{port}/{path}"));
        assert_eq!(last["generator"]["unexplained"], 0, "{arguments}: {last:#}");
        assert_eq!(of("corrupt") + of("late"), 0, "{arguments}: {last:#}");
        let drops: u64 = (0..2)
            .flat_map(|number| {
                ["rx_missed", "rx_errors", "tx_errors", "tx_full"]
                    .map(|name| port(number, &format!("drops/{name}")))
            })
            .sum();
        match arguments {
            "--mode rxonly" => {
                assert_eq!(of("received"), 0);
                assert!(of("sent") > 100);
                assert_eq!(of("sent"), port(0, "rx_packets") + port(1, "rx_packets") + drops);
            }
            "--mode txonly" => {
                assert_eq!(of("sent"), 0);
                assert!(of("foreign") > 100);
                assert!(port(0, "tx_packets") + port(1, "tx_packets") >= of("foreign"));
            }
            _ => {
                assert!(of("received") > 100, "{arguments}: {last:#}");
                assert_eq!(of("sent"), of("received") + drops, "{arguments}: {last:#}");
                assert_eq!(of("foreign"), 0);
            }
        }
        for number in 0..2 {
            for way in ["rx_packets", "tx_packets"] {
                let queues = last["ports"][number]["queues"].as_array().expect("queues");
                let sum: u64 = queues.iter().map(|queue| count(queue, &format!("/{way}"))).sum();
                assert_eq!(sum, port(number, way), "{arguments}: {last:#}");
            }
        }
        assert_eq!(count(last, "/fragments/after_close"), 0);
    }
}

/// Every queue of either port has its share, and forwards it to the peer's queue of its number.
#[test]
fn flows_are_spread_over_queues_and_each_is_forwarded_by_itself() {
    let last = reports("l2fwd --queues 4 --json --duration 1 -T 0").pop().expect("a report");
    assert_eq!(last["generator"]["unexplained"], 0, "{last:#}");
    assert_eq!(count(&last, "/generator/late") + count(&last, "/generator/corrupt"), 0, "{last:#}");
    for (port, peer) in [(0, 1), (1, 0)] {
        let mut sum = 0;
        for queue in 0..4 {
            let received = count(&last, &format!("/ports/{port}/queues/{queue}/rx_packets"));
            let sent = count(&last, &format!("/ports/{peer}/queues/{queue}/tx_packets"));
            assert!(received > 100, "queue {queue} of port {port}: {last:#}");
            assert!(received >= sent && sent > 0, "queue {queue} of port {port}: {last:#}");
            sum += received;
        }
        assert_eq!(sum, count(&last, &format!("/ports/{port}/rx_packets")));
        let sent: u64 =
            (0..4).map(|queue| count(&last, &format!("/ports/{peer}/queues/{queue}/tx_packets"))).sum();
        assert_eq!(sum, sent + count(&last, &format!("/ports/{port}/drops/tx_full")), "{last:#}");
    }
    assert_eq!(last["pools"].as_array().map(Vec::len), Some(8));
}

#[test]
fn json_has_an_object_a_period_and_a_final_one_whose_totals_add_up() {
    for mode in ["io", "mac", "macswap"] {
        let reports =
            reports(&format!("l2fwd --port null: --port null:1500 --mode {mode} --json --duration 1 -T 0.1"));
        let (last, periods) = reports.split_last().expect("a report");
        assert!(periods.len() >= 2 && periods.iter().all(|report| report["final"] == false));
        assert_eq!(last["final"], true);
        for (from, to) in [(0, 1), (1, 0)] {
            let received = count(last, &format!("/ports/{from}/rx_packets"));
            let sent = count(last, &format!("/ports/{to}/tx_packets"));
            assert!(received > 0);
            assert_eq!(received, sent + count(last, &format!("/ports/{from}/drops/tx_full")), "{mode}");
            assert_eq!(count(last, &format!("/ports/{from}/rx_bytes")), received * [64, 1500][from]);
        }
        assert_eq!(count(last, "/fragments/after_close"), 0);
    }
}

#[test]
fn rxonly_and_txonly() {
    let last = |mode: &str| {
        reports(&format!("l2fwd --port null: --mode {mode} --json --duration 0.2 -T 0")).remove(0)
    };
    let (received, sent) = (last("rxonly"), last("txonly"));
    assert!(count(&received, "/ports/0/rx_packets") > 0);
    assert_eq!(count(&received, "/ports/0/tx_packets"), 0);
    assert!(count(&sent, "/ports/0/tx_packets") > 0);
    assert_eq!(count(&sent, "/ports/0/rx_packets"), 0);
}

#[test]
fn a_burst_goes_round_a_ring_of_ports() {
    // What port 0 sends port 1 receives, and sends back.
    let last = reports(
        "l2fwd --port ring:a --port ring:a --portmap 0:0,1:1 --tx-first 1 --json --duration 0.3 -T 0",
    )
    .remove(0);
    let count = |path: &str| count(&last, path);
    assert!(count("/ports/0/rx_packets") > 64 && count("/ports/1/rx_packets") > 64);
    assert_eq!(count("/ports/0/drops/tx_full") + count("/ports/1/drops/tx_full"), 0);
    assert_eq!(count("/fragments/inflight"), 64);
    assert_eq!(count("/fragments/in_rings"), 64);
    assert_eq!(count("/fragments/after_close"), 0);
}

#[test]
fn signals_end_it_with_its_totals() {
    for (signal, ports) in [("INT", ""), ("TERM", ""), ("INT", "--port null:"), ("TERM", "--port null:")] {
        let mut child = pagewire(&format!("l2fwd {ports} --json -T 0.1"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut String::new()).expect("a first report");
        let kill = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(kill.expect("kill is there").success());
        let mut rest = String::new();
        out.read_to_string(&mut rest).expect("the rest of it");
        assert!(child.wait().expect("it ends").success(), "{signal}");
        let last: Value = serde_json::from_str(rest.lines().last().expect("a last line")).expect("JSON");
        assert_eq!(last["final"], true, "{signal}");
        if ports.is_empty() {
            assert_eq!(last["generator"]["unexplained"], 0, "{signal}: {last:#}");
            assert!(count(&last, "/generator/received") > 0);
        }
    }
}

#[test]
fn a_reader_that_leaves_does_not_stop_it() {
    let start = Instant::now();
    let mut child = pagewire("l2fwd --port null: --duration 0.6 -T 0.1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
    assert!(start.elapsed() >= Duration::from_millis(600), "it ended early");
}

#[test]
fn a_reader_of_its_notes_that_leaves_does_not_stop_it() {
    let mut child = pagewire("l2fwd --duration 0.3 -T 0")
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stderr.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing lost"));
}

#[test]
fn an_ordinary_user_runs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = common::for_everybody(folder.path());
    // With huge pages if there are any, and without them within the 8 MiB that such a user may lock by default.
    for arguments in ["", "--pages 4K"] {
        let script = format!(
            "exec prlimit --memlock=8388608 setpriv --reuid 65534 --regid 65534 --clear-groups {} l2fwd --duration 0.5 -T 0 {arguments}",
            program.display()
        );
        let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
        let (text, notes) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{notes}");
        assert!(
            text.contains("(net_ixgbe)") && text.contains("0 out after close: nothing lost"),
            "{text}{notes}"
        );
    }
}

#[test]
fn bad_arguments_are_refused() {
    for (arguments, expected) in [
        ("l2fwd --port null:5", "14 to 1792"),
        ("l2fwd --port ring:a --port null:", "ring:a is named 1 times; a ring has two ends"),
        ("l2fwd --fragments 0", "0 is not in 1..="),
        ("l2fwd --port ring:", "wants a name"),
        ("l2fwd --burst 0", "0 is not in 1..=1024"),
        ("l2fwd --duration=-1", "a number of seconds"),
        ("l2fwd --cores 5-2", "no list of CPUs"),
        ("l2fwd --mode sideways", "possible values: io, mac, macswap, rxonly, txonly"),
        ("l2fwd --mode io --no-mac-updating", "cannot be used with"),
        ("l2fwd --port null: --port null: --portmap 0:0", "port 1 is not in it"),
        ("l2fwd --port null: --pages 3M", "3M"),
        ("l2fwd --queues 0", "0 is not in 1..=128"),
        ("l2fwd --queues 17", "number of receive queues 17 is not possible; the port has 16"),
        (
            "l2fwd --port null: --port null: --queues 2",
            "number of receive queues 2 is not possible; the port has 1",
        ),
    ] {
        let output = output(arguments);
        let notes = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments}");
        assert!(notes.contains(expected), "{arguments}: {notes}");
    }
}
