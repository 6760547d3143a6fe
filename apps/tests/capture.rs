//! `pagewire capture`: every frame in the file, and the death of either process.

mod common;

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use pcap_file::TsResolution;
use pcap_file::pcap::PcapReader;

use common::Model;
use common::capture::{Run, Wire, length, model, read_some, until};
use common::frames::{assert_same, frames, read};

#[test]
fn what_a_port_receives_is_in_the_file_in_order_with_nanoseconds() {
    // A capture of a model comes as fast as there are descriptors: the queue has room for all of it.
    let sent = frames(1, 2_000, 1_518);
    let model = model(&sent);
    let before = SystemTime::now();
    let run =
        Run::start(&model, "capture --port vfio-user:card --out out.pcap --count 2000 --queue 4096 --json");
    let (success, totals, said) = run.end();
    assert!(success, "{said}");
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(
        (&totals["received"], &totals["dropped"], &totals["missed"]),
        (&2000.into(), &0.into(), &0.into())
    );
    assert_eq!((&totals["packets"], &totals["bytes"]), (&2000.into(), &bytes.into()));
    assert_same(&read(&model.path("out.pcap")), &sent);
    let mut reader = PcapReader::new(File::open(model.path("out.pcap")).unwrap()).unwrap();
    assert_eq!(reader.header().ts_resolution, TsResolution::NanoSecond);
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut last = since(before);
    while let Some(packet) = reader.next_packet() {
        let time = packet.unwrap().timestamp;
        assert!(last <= time && time <= since(SystemTime::now()), "{time:?} after {last:?}");
        last = time;
    }
}

#[test]
fn jumbo_frames_of_several_fragments_are_whole_and_snaplen_cuts_them() {
    let sent = frames(1, 500, 9_018);
    let model = model(&sent);
    let run = Run::start(
        &model,
        "capture --port vfio-user:card --out out.pcap --count 500 --mtu 9000 --snaplen 3000 --json",
    );
    let (success, totals, said) = run.end();
    assert!(success && totals["dropped"] == 0, "{said}{totals}");
    let cut: Vec<Vec<u8>> = sent.iter().map(|frame| frame[..frame.len().min(3000)].to_vec()).collect();
    assert_same(&read(&model.path("out.pcap")), &cut);
    let mut reader = PcapReader::new(File::open(model.path("out.pcap")).unwrap()).unwrap();
    for frame in &sent {
        assert_eq!(reader.next_packet().unwrap().unwrap().orig_len as usize, frame.len());
    }
}

/// A capture of endless traffic, under way.
fn endless(arguments: &str) -> (Model, Run) {
    let model = Model::started("--socket card --wire generate:60,64 --json -T 0");
    let run = Run::start(&model, &format!("capture --port vfio-user:card --out out.pcap --json {arguments}"));
    until("packets in the file", || (length(&model.path("out.pcap")) > 100_000).then_some(()));
    (model, run)
}

#[test]
fn ctrl_c_ends_it_with_everything_accounted_for() {
    let (model, run) = endless("-T 0.05");
    run.signal("INT");
    let (success, totals, said) = run.end();
    assert!(success && totals["final"] == true, "{said}{totals}");
    let count = |name: &str| totals[name].as_u64().expect("a count");
    assert_eq!(count("received"), count("packets") + count("dropped"), "{totals}");
    assert_eq!(read(&model.path("out.pcap")).len() as u64, count("packets"));
}

#[test]
fn the_death_of_the_process_that_writes_ends_it_with_a_reason() {
    let (model, run) = endless("");
    let kill = Command::new("kill").args(["-KILL", &run.child().to_string()]).status();
    assert!(kill.expect("kill is there").success());
    let killed = Instant::now();
    let (success, _, said) = run.end();
    assert!(!success && said.contains("the process that writes the file has failed (signal: 9"), "{said}");
    assert!(killed.elapsed() < Duration::from_secs(5), "it took {:?}", killed.elapsed());
    // Whole records are in the file, and the port can be used again.
    assert!(read(&model.path("out.pcap")).len() > 100);
    let again = Run::start(&model, "capture --port vfio-user:card --out again.pcap --count 100 --json");
    let (success, totals, said) = again.end();
    assert!(success && totals["packets"] == 100, "{said}");
}

#[test]
fn the_death_of_the_process_that_has_the_port_leaves_a_whole_file() {
    let (model, mut run) = endless("");
    let writer = run.child();
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    until("the end of the other process", || {
        let about = std::fs::read_to_string(format!("/proc/{writer}/stat"));
        // It is nobody's child, and may wait for somebody to look at it.
        about.map_or(true, |about| about.contains(") Z ")).then_some(())
    });
    assert!(read(&model.path("out.pcap")).len() > 100);
}

#[test]
fn a_file_that_cannot_be_written_says_so() {
    let model = Model::started("--socket card --wire generate:60,64 --json -T 0");
    let run = Run::start(&model, "capture --port vfio-user:card --out no/such/folder.pcap");
    let (success, _, said) = run.end();
    assert!(
        !success && said.contains("the capture no/such/folder.pcap: No such file or directory"),
        "{said}"
    );
    let run = Run::start(&model, "capture --port vfio-user:card --out /dev/full --count 100000 --json");
    let (success, _, said) = run.end();
    assert!(!success && said.contains("/dev/full: No space left on device"), "{said}");
    let run = Run::start(&model, "capture --from nobody --out out.pcap");
    let (success, _, said) = run.end();
    assert!(!success && said.contains("nobody hands packets over at nobody"), "{said}");
    assert!(!model.path("out.pcap").exists(), "nothing is made where there is nothing to write");
}

#[test]
fn what_l2fwd_receives_can_be_watched_by_several_while_it_forwards() {
    let (to_a, to_b) = (frames(1, 1_000, 1_518), frames(2, 1_000, 1_518));
    // Watchers attach before there are frames: the cards' wires are not connected yet.
    let mut forwarder = Model::folder();
    forwarder.start("--socket a --wire stream:wire,listen --socket b --wire stream:wire2,listen --json -T 0");
    let mut l2fwd = Run::start(
        &forwarder,
        "l2fwd --json -T 0 --mode mac --port vfio-user:a --port vfio-user:b --capture-socket watch",
    );
    l2fwd.says("port 1 (b): link");
    let watch = |name: &str| {
        let run = Run::start(&forwarder, &format!("capture --from watch --out {name} --json"));
        until("a file", || (length(&forwarder.path(name)) > 0).then_some(()));
        run
    };
    let watchers = [watch("one.pcap"), watch("two.pcap")];
    let mut wires = [Wire::connect(&forwarder.path("wire")), Wire::connect(&forwarder.path("wire2"))];
    // No more at a time than watchers may hold and rings have room for, however long anybody is kept from running.
    for (number, (a, b)) in to_a.chunks(200).zip(to_b.chunks(200)).enumerate() {
        wires[0].send(a);
        wires[1].send(b);
        for name in ["one.pcap", "two.pcap"] {
            until("all in the file", || {
                (read_some(&forwarder.path(name)) >= 400 * (number + 1)).then_some(())
            });
        }
    }
    l2fwd.signal("INT");
    let (success, last, said) = l2fwd.end();
    assert!(success, "{said}");
    assert_eq!(last["fragments"]["after_close"], 0);
    for (watcher, name) in watchers.into_iter().zip(["one.pcap", "two.pcap"]) {
        let (success, totals, said) = watcher.end();
        assert!(success && totals["packets"] == 2_000 && totals["producer_gone"] == true, "{said}{totals}");
        // As they came: with the addresses they had before mode mac.
        let all = read(&forwarder.path(name));
        let of = |way: u8| all.iter().filter(|frame| frame[5] == way).cloned().collect::<Vec<_>>();
        assert_same(&of(1), &to_a);
        assert_same(&of(2), &to_b);
    }
}
