//! `pagewire stats`: what running processes say, and who tries to keep them from it.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::place::{LONG, Place, ask, count, get};
use serde_json::Value;

#[test]
fn all_of_a_forwarding_process_is_seen_from_outside() {
    let place = Place::new();
    let run = place.l2fwd("--queues 2 --record-core-cycles");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&run.socket), mode(run.socket.parent().expect("a folder"))), (0o600, 0o700));
    let first = place.processes("stats --json").remove(0);
    std::thread::sleep(Duration::from_millis(500));
    let second = place.processes(&format!("stats --json --id {}", run.id())).remove(0);
    assert_eq!(second["process"]["id"], run.id());
    assert_eq!(second["process"]["pid"], run.child.id());
    assert_eq!(second["process"]["arguments"][0], "l2fwd");
    assert_eq!(second["configuration"]["queues"], 2);
    let interval = second["interval"].as_f64().expect("a time");
    assert!((0.4..20.0).contains(&interval) && second["age"].as_f64() < Some(1.0), "{second:#}");
    for port in 0..2 {
        let of = |document: &Value| count(document, &format!("/ports/{port}/rx_packets"));
        let more = of(&second) - of(&first);
        assert!(more > 100, "port {port} goes on: {first:#} {second:#}");
        let rate = second["ports"][port]["rx_pps"].as_f64().expect("a rate");
        let measured = more as f64 / interval;
        assert!((rate / measured - 1.0).abs() < 1e-6, "{rate} a second are said, {measured} were measured");
        // Counters of the card, those that are 0 too.
        assert!(second["ports"][port]["xstats"].as_object().is_some_and(|all| all.len() > 30));
        assert_eq!(second["ports"][port]["queues"].as_array().map(Vec::len), Some(2));
    }
    let lanes = second["cores"].as_array().expect("cores").iter().map(|core| {
        assert!(core["cycles_per_packet"].as_f64() > Some(10.0), "{core}");
        assert!(count(core, "/busy_cycles") > 0 && count(core, "/idle_cycles") > 0, "{core}");
        let list = |path: &str| -> Vec<u64> {
            let list = core.pointer(path).and_then(Value::as_array).expect("a list");
            list.iter().filter_map(Value::as_u64).collect()
        };
        let (from, polls) = (list("/bursts/from"), list("/bursts/polls"));
        assert_eq!((from.len(), polls.len(), from[5]), (12, 12, 16));
        // Bursts are of 32 at most.
        assert!(
            polls[0] > 0 && polls[1..=6].iter().sum::<u64>() > 0 && polls[7..].iter().sum::<u64>() == 0,
            "{core}"
        );
        core["lanes"].as_array().expect("lanes").len()
    });
    assert_eq!(lanes.sum::<usize>(), 4, "{second:#}");
    let pools = second["pools"].as_array().expect("pools");
    assert_eq!(pools.len(), 4);
    for pool in pools {
        // Each ring is full of fragments.
        assert!(count(pool, "/inflight") >= 512 && pool["life"] == "open", "{pool:#}");
        let ages: u64 =
            pool["ages"]["counts"].as_array().expect("ages").iter().filter_map(Value::as_u64).sum();
        assert!(ages >= 512, "{pool:#}");
    }
    let last = run.end();
    assert!(count(&last, "/ports/0/rx_packets") >= count(&second, "/ports/0/rx_packets"));
    assert_eq!(last["generator"]["unexplained"], 0);
    assert_eq!(place.text("stats"), "no process of this user serves statistics\n");
    let gone = place.output("stats --id l2fwd-1");
    let said = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(!gone.status.success() && said.contains("no process l2fwd-1 serves statistics"), "{said}");
}

#[test]
fn models_and_captures_serve_theirs_and_pools_are_listed_of_all() {
    let place = Place::new();
    let card = "--socket card --wire generate:60,64 -T 0";
    let model = place.start(&format!("model 82599 {card}"), "vfio-user-pci");
    let capture = place.start("capture -T 0 --port vfio-user:card --out out.pcap", "capturing what");
    std::thread::sleep(Duration::from_millis(300));
    let said = get(&capture.socket, "all");
    assert!(count(&said, "/capture/received") > 0 && count(&said, "/ports/0/rx_packets") > 0, "{said:#}");
    let said = get(&model.socket, "all");
    assert!(count(&said, "/cards/0/wire_counters/sent") > 0, "{said:#}");
    assert_eq!((count(&said, "/cards/0/clients"), &said["pools"]), (1, &Value::Array(Vec::new())));
    let list = place.text("stats");
    for run in [&model, &capture] {
        assert!(list.contains(&run.id()), "{list}");
        let one = place.text(&format!("stats --id {}", run.child.id()));
        assert!(one.contains(&run.id()) && one.contains("rx kpps"), "{one}");
    }
    let all = place.processes("stats pools --json");
    let pools: Vec<usize> = all.iter().map(|one| one["pools"].as_array().expect("a list").len()).collect();
    assert_eq!(pools, [1, 0], "{all:#?}");
    assert!(all.iter().all(|one| one["ports"].is_null()), "pools alone: {all:#?}");
    let text = place.text("stats pools");
    assert!(text.contains("in flight") && text.contains("< 10 min"), "{text}");
    assert!(text.contains(&format!("{} ", capture.id())), "{text}");
}

#[test]
fn watching_goes_on_until_the_end() {
    let place = Place::new();
    let run = place.l2fwd("--port null: --port null:");
    let mut watch = place.command("stats --watch 0.3 --json").spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let (start, mut seen) = (Instant::now(), vec![0]);
    // Not each time: what forwards may be kept from its core.
    while seen.len() < 5 {
        assert!(start.elapsed() < LONG, "{seen:?}");
        let line: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
        let now = count(&line, "/processes/0/ports/0/rx_packets");
        assert!(Some(&now) >= seen.last(), "{now} after {seen:?}");
        seen.push(now);
        seen.dedup();
    }
    assert!(start.elapsed() > Duration::from_millis(800), "one every 0.3 s");
    let kill = Command::new("kill").args(["-INT", &watch.id().to_string()]).status();
    assert!(kill.expect("kill is there").success());
    assert!(watch.wait().expect("it ends").success());
    run.end();
}

#[test]
fn sockets_of_dead_processes_go_and_a_stopped_one_is_named() {
    let place = Place::new();
    let dead = place.l2fwd("--port null: --port null:");
    let stopped = place.l2fwd("--port null: --port null:");
    dead.signal("KILL");
    stopped.signal("STOP");
    // Not before it is certain that nobody is just making it.
    std::thread::sleep(Duration::from_millis(1100));
    let start = Instant::now();
    let output = place.output("stats");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(start.elapsed() < Duration::from_secs(10) && output.status.success(), "{text}");
    assert!(text.contains(&format!("{}: no whole answer within", stopped.id())), "{text}");
    assert!(!dead.socket.exists() && stopped.socket.exists(), "{text}");
    stopped.signal("CONT");
    assert_eq!(get(&stopped.socket, "process")["process"]["command"], "l2fwd");
    stopped.end();
}

#[test]
fn a_folder_that_is_open_to_others_is_not_used_and_the_run_goes_on() {
    let place = Place::new();
    let folder = place.folder.path().join("pagewire");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).expect("it is ours");
    let output = place.output("l2fwd -T 0 --port null: --duration 0.2");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("mode 0777") && said.contains("chmod 700"), "{said}");
    assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 0);
}

/// Garbage, too much, nothing at all, answers that nobody takes, a hundred at once: every honest question is answered, and
/// forwarding goes on.
#[test]
fn clients_of_all_kinds_block_neither_each_other_nor_the_ports() {
    let place = Place::new();
    let run = place.l2fwd("");
    let before = get(&run.socket, "all");
    for garbage in [&b"\n"[..], b"\xff\0\xfe\n", b"{\"get\":\"everything\"}\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let answer = String::from_utf8(ask(&run.socket, garbage)).expect("text");
        assert!(answer.starts_with("{\"error\":\"a request that is not"), "{answer}");
    }
    let huge = String::from_utf8(ask(&run.socket, &vec![b'['; 10 << 20])).expect("text");
    assert!(huge.contains("more than 1024 bytes"), "{huge}");

    // Every place is taken by somebody who says nothing; others ask and take nothing.
    let idle: Vec<UnixStream> = (0..80)
        .map(|number| {
            let mut stream = UnixStream::connect(&run.socket).expect("somebody listens");
            if number % 2 == 0 {
                stream.write_all(b"{\"get\":\"all\"}\n").expect("there is room");
            }
            stream
        })
        .collect();
    let start = Instant::now();
    let honest: Vec<_> = (0..100)
        .map(|_| {
            let socket = run.socket.clone();
            std::thread::spawn(move || get(&socket, "all"))
        })
        .collect();
    for client in honest {
        let said = client.join().expect("it is answered");
        assert!(count(&said, "/ports/0/rx_packets") > 0, "{said:#}");
    }
    // Those were cut off before: honest ones had to wait for a place.
    assert!((Duration::from_secs(1)..LONG).contains(&start.elapsed()), "it took {:?}", start.elapsed());
    drop(idle);
    let goal = count(&before, "/ports/0/rx_packets") + 1000;
    while count(&get(&run.socket, "all"), "/ports/0/rx_packets") < goal {
        assert!(start.elapsed() < 2 * LONG, "it forwards no more");
        std::thread::sleep(Duration::from_millis(100));
    }
    let last = run.end();
    assert_eq!(last["generator"]["unexplained"], 0, "{last:#}");
}
