//! `pagewire capture`: which packets are written, in pcapng, and what is known of those that are not.

mod common;

use std::fs::File;
use std::path::Path;
use std::process::Command;

use common::Model;
use common::capture::{Run, Wire, length, model, until};
use common::frames::{assert_same, frames};
use etherparse::PacketBuilder;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};

/// A packet of a pcapng file: its interface's name, its flags, its length on the wire and its bytes.
struct Packet {
    interface: String,
    flags: u32,
    length: usize,
    data: Vec<u8>,
}

fn packets(path: &Path) -> Vec<Packet> {
    let mut reader = PcapNgReader::new(File::open(path).expect("it is there")).expect("pcapng");
    let (mut names, mut packets) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.expect("a whole block").into_owned() {
            Block::InterfaceDescription(interface) => {
                let mut options = interface.options.into_iter();
                let name = options.find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.into_owned()),
                    _ => None,
                });
                names.push(name.expect("a name"));
                assert!(
                    options.any(|option| option == InterfaceDescriptionOption::IfTsResol(9)),
                    "nanoseconds"
                );
            }
            Block::EnhancedPacket(packet) => {
                let flags = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Flags(flags) => Some(*flags),
                    _ => None,
                });
                packets.push(Packet {
                    interface: names[packet.interface_id as usize].clone(),
                    flags: flags.expect("flags"),
                    length: packet.original_len as usize,
                    data: packet.data.into_owned(),
                });
            }
            other => panic!("{other:?}"),
        }
    }
    packets
}

/// UDP to port 1000 + its number, modulo 10.
fn datagrams(count: usize) -> Vec<Vec<u8>> {
    let datagram = |number: usize| {
        let mut frame = Vec::new();
        let headers =
            PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0xff; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let headers = headers.udp(number as u16, 1000 + number as u16 % 10);
        headers.write(&mut frame, &vec![number as u8; 100 + number % 300]).expect("it fits");
        frame
    };
    (0..count).map(datagram).collect()
}

#[test]
fn a_filter_a_sample_and_a_snap_length_leave_what_they_say() {
    let sent = datagrams(2_000);
    let model = model(&sent);
    let mut capture = Command::new(env!("CARGO_BIN_EXE_pagewire"));
    capture.args([
        "capture",
        "--port",
        "vfio-user:card",
        "--out",
        "out.pcapng",
        "--count",
        "50",
        "--json",
        "-T",
        "0",
    ]);
    capture.args([
        "--snaplen",
        "60",
        "--sample",
        "3",
        "--filter",
        "udp and (dst port 1004 or dst port 1007) and greater 150",
    ]);
    let output = capture.current_dir(model.folder.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let totals: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected: Vec<&Vec<u8>> = sent
        .iter()
        .enumerate()
        .filter(|(number, frame)| (number % 10 == 4 || number % 10 == 7) && frame.len() >= 150)
        .map(|(_, frame)| frame)
        .step_by(3)
        .take(50)
        .collect();
    assert_eq!(expected.len(), 50, "there are enough");
    let written = packets(&model.path("out.pcapng"));
    assert_eq!((&totals["packets"], &totals["dropped"]), (&50.into(), &0.into()), "{said}");
    assert!(totals["seen"].as_u64() > Some(500), "{totals}");
    assert_eq!(written.len(), 50);
    for (packet, frame) in written.iter().zip(expected) {
        assert_eq!((packet.length, &packet.data[..]), (frame.len(), &frame[..60]));
        assert_eq!(packet.flags, 1, "received");
        assert!(packet.interface.ends_with("card"), "{}", packet.interface);
    }
}

#[test]
fn what_l2fwd_sends_can_be_watched_beside_what_it_receives_and_what_was_not_shown_is_counted() {
    let sent = frames(1, 600, 1_518);
    let mut cards = Model::folder();
    cards.start("--socket a --wire stream:wire,listen --socket b --wire stream:wire2,listen --json -T 0");
    let mut l2fwd = Run::start(
        &cards,
        "l2fwd --json -T 0 --mode mac --port vfio-user:a --port vfio-user:b --capture-socket watch --capture-direction both",
    );
    l2fwd.says("port 1 (b): link");
    let watch = |name: &str, way: &str| {
        let run =
            Run::start(&cards, &format!("capture --from watch --out {name} --json -T 0 --direction {way}"));
        until("a file", || (length(&cards.path(name)) > 0).then_some(()));
        run
    };
    let watchers = [watch("both.pcapng", "both"), watch("sent.pcapng", "send")];
    let (mut wire, _other) = (Wire::connect(&cards.path("wire")), Wire::connect(&cards.path("wire2")));
    // Whoever attaches is known at a loop's next round, which may not have come yet.
    let first = [[0xff; 12].as_slice(), &FIRST, &[0; 60]].concat();
    until("both are shown packets", || {
        wire.send(std::slice::from_ref(&first));
        let shown = |name| packets_so_far(&cards.path(name), true) > 0;
        (shown("both.pcapng") && shown("sent.pcapng")).then_some(())
    });
    for (number, some) in sent.chunks(200).enumerate() {
        wire.send(some);
        let all = || packets_so_far(&cards.path("both.pcapng"), false);
        until("all in the file", || (all() >= 400 * (number + 1)).then_some(()));
    }
    l2fwd.signal("INT");
    let (success, _, said) = l2fwd.end();
    assert!(success, "{said}");
    for watcher in watchers {
        let (success, totals, said) = watcher.end();
        assert!(success && totals["producer_gone"] == true, "{said}{totals}");
    }
    let both = packets(&cards.path("both.pcapng"));
    let of = |name: &str, flags: u32| -> Vec<Vec<u8>> {
        let found = both.iter().filter(|packet| packet.interface == name);
        let found = found.inspect(|packet| assert_eq!(packet.flags, flags)).map(|packet| packet.data.clone());
        found.filter(|data| data[12..14] != FIRST).collect()
    };
    assert_same(&of("port0", 1), &sent);
    // As it left: with the addresses that mode mac writes.
    let left: Vec<Vec<u8>> =
        packets(&cards.path("sent.pcapng")).into_iter().map(|packet| packet.data).collect();
    let left: Vec<_> = left.into_iter().filter(|data| data[12..14] != FIRST).collect();
    assert_same(&of("port1-send", 2), &left);
    for (one, other) in left.iter().zip(&sent) {
        assert_eq!((&one[..6], &one[12..]), (&[2, 0, 0, 0, 0, 1][..], &other[12..]));
    }
}

/// The type of frames that are sent before those that are looked at.
const FIRST: [u8; 2] = [0x88, 0xb6];

/// Packets that are in a file by now, those sent before or the others. It may end in the middle of one.
fn packets_so_far(path: &Path, first: bool) -> usize {
    let Ok(mut reader) = File::open(path).map(PcapNgReader::new) else { return 0 };
    let Ok(reader) = &mut reader else { return 0 };
    let mut count = 0;
    while let Some(Ok(block)) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block {
            count += usize::from((packet.data[12..14] == FIRST) == first);
        }
    }
    count
}

#[test]
fn what_nobody_had_room_for_is_counted_by_the_data_path() {
    let folder = Model::folder();
    let mut l2fwd = Run::start(
        &folder,
        "l2fwd -T 0 --json --port null: --port null: --capture-socket watch --duration 600",
    );
    l2fwd.says("port 1 (");
    let watcher = Run::start(
        &folder,
        "capture --from watch --out out.pcapng --json -T 0 --sample 100000 --direction receive",
    );
    until("a file", || (length(&folder.path("out.pcapng")) > 0).then_some(()));
    watcher.signal("STOP");
    std::thread::sleep(std::time::Duration::from_millis(300));
    watcher.signal("CONT");
    // The other way is not to be had.
    let wrong = Run::start(&folder, "capture --from watch --out wrong.pcapng --direction send");
    let (success, _, said) = wrong.end();
    assert!(!success && said.contains("start its process with --capture-direction both"), "{said}");
    l2fwd.signal("INT");
    let (success, _, said) = l2fwd.end();
    assert!(success && said.contains("were not shown to who watched port0: too slow"), "{said}");
    let (success, totals, said) = watcher.end();
    let count = |name: &str| totals[name].as_u64().expect("a count");
    // One of so many of those that were seen, from the first on.
    let expected = count("seen").div_ceil(100_000);
    assert!(success && (expected..=expected + 1).contains(&count("packets")), "{said}{totals}");
}

#[test]
fn expressions_that_make_no_sense_are_refused_before_anything_is_done() {
    let folder = Model::folder();
    let run = Run::start(&folder, "capture --from nobody --out out.pcapng --filter udp-and-more");
    let (success, _, said) = run.end();
    assert!(!success && said.contains("--filter <EXPR>") && said.contains("udp and dst port 53"), "{said}");
    let run = Run::start(&folder, "capture --port null: --out out.pcapng --direction send");
    let (success, _, said) = run.end();
    assert!(!success && said.contains("--port"), "{said}");
    assert!(!folder.path("out.pcapng").exists());
}
