//! `pagewire model` as its user runs it, with the client that drivers use.

mod common;

use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use common::driver::{Driver, frame, space};
use common::{Model, for_everybody};

#[test]
fn it_says_how_to_use_it_and_serves_one_client_after_the_other() {
    let mut model = Model::folder();
    let said = model.start("--socket a --mac 02:00:00:00:00:77 --json -T 0.1");
    let path = model.path("a");
    for part in [
        "02:00:00:00:00:77, wire open, every access trapped",
        &format!("pagewire l2fwd --port vfio-user:{}\n", path.display()),
        "memory-backend-memfd,id=mem,size=1G,share=on",
        &format!(
            r#"-device '{{"bus":"rp0","driver":"vfio-user-pci","socket":{{"path":"{}","type":"unix"}}}}'"#,
            path.display()
        ),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for _ in 0..3 {
        let function = space().open_vfio_user(&path).unwrap();
        assert_eq!((function.info().vendor_id, function.info().device_id), (0x8086, 0x10fb));
        let bar = function.bar(0).unwrap();
        // STATUS: the link is up; RAL; a register that there is not.
        assert_eq!((bar.read32(8) & 0x80, bar.read32(0xa200)), (0x80, 2));
        bar.write32(0x1fffc, 5);
    }
    let totals = model.totals();
    let card = &totals["cards"][0];
    assert_eq!((&card["clients"], &card["dropped_clients"]), (&3.into(), &0.into()), "{totals}");
    assert_eq!(
        card["unknown_registers"],
        serde_json::json!([{ "offset": 0x1fffc, "reads": 0, "writes": 3 }])
    );
    assert!(model.files().is_empty());
}

#[test]
fn every_signal_ends_it_with_its_totals_and_leaves_nothing_behind() {
    for signal in ["INT", "TERM"] {
        let mut model = Model::started("--socket a --socket b --pair");
        assert_eq!(model.files(), ["a", "b"]);
        let function = space().open_vfio_user(&model.path("b")).unwrap();
        let bar = function.bar(0).unwrap();
        let (status, printed) = model.end(signal);
        assert!(status.success(), "{signal}: {printed}");
        assert!(printed.contains("total, "), "{printed}");
        assert!(
            printed.contains("wire to card 1; 0 bytes received") && printed.contains("wire to card 0; "),
            "{printed}"
        );
        assert!(
            printed.contains("0 refused DMA, 0 malformed descriptors, 0 accesses to unknown registers"),
            "{printed}"
        );
        assert_eq!(bar.read32(8), u32::MAX, "a card that was pulled out");
        assert!(model.files().is_empty());
    }
}

#[test]
fn a_duration_ends_it_and_reports_come_every_period() {
    let model = Model::folder();
    let output = model.output("--socket a --duration 0.5 -T 0.1");
    assert!(output.status.success());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.lines().filter(|line| line.contains("rx packets")).count() >= 3, "{printed}");
    assert!(model.files().is_empty());
}

#[test]
fn a_capture_is_received_and_what_is_sent_is_captured() {
    let mut model = Model::folder();
    let file = std::fs::File::create(model.path("in.pcap")).unwrap();
    let mut writer = pcap_file::pcap::PcapWriter::new(file).unwrap();
    for number in 0..200 {
        let (time, frame) = (Duration::from_secs(1), frame(number));
        writer.write_packet(&pcap_file::pcap::PcapPacket::new(time, frame.len() as u32, &frame)).unwrap();
    }
    drop(writer);
    model.start("--socket a --wire pcap:in.pcap,out.pcap,repeat=2 --json");
    // Nobody drives the card for a while: nothing is lost to that.
    std::thread::sleep(Duration::from_millis(50));
    let mut driver = Driver::start(&model.path("a"));
    for number in 0..400 {
        let received = driver.receive();
        assert_eq!(received, frame(number % 200), "frame {number}");
        driver.send(&received);
    }
    let totals = model.totals();
    let card = &totals["cards"][0];
    assert_eq!(
        card["wire_counters"],
        serde_json::json!({ "taken": 400, "exhausted": 1, "written": 400, "unwritten": 0 })
    );
    assert_eq!((&card["rx_packets"], &card["tx_packets"]), (&400.into(), &400.into()));
    assert_eq!((&card["refused_dma"], &card["malformed_descriptors"]), (&0.into(), &0.into()));
    let mut reader =
        pcap_file::pcap::PcapReader::new(std::fs::File::open(model.path("out.pcap")).unwrap()).unwrap();
    for number in 0..400 {
        assert_eq!(reader.next_packet().unwrap().unwrap().data[..], frame(number % 200));
    }
    assert!(reader.next_packet().is_none());
}

#[test]
fn generators_check_what_comes_back_at_the_other_card() {
    let mut model = Model::started(
        "--socket a --wire generate:60,8 --socket b --wire generate:1000,16,4 --mapped --json",
    );
    let mut drivers = ["a", "b"].map(|socket| Driver::start(&model.path(socket)));
    for _ in 0..500 {
        for (from, to) in [(0, 1), (1, 0)] {
            let frame = drivers[from].receive();
            drivers[to].send(&frame);
        }
    }
    let totals = model.totals();
    for card in [0, 1] {
        let counters = &totals["cards"][card]["wire_counters"];
        assert_eq!((&counters["back"], &counters["lost"]), (&500.into(), &0.into()), "{totals}");
        assert_eq!(
            (&counters["late"], &counters["corrupt"], &counters["foreign"]),
            (&0.into(), &0.into(), &0.into())
        );
        assert!(counters["sent"].as_u64().unwrap() >= 500, "{totals}");
    }
}

#[test]
fn frames_pass_between_a_pair_and_over_streams() {
    let mut model = Model::folder();
    let hub = UnixListener::bind(model.path("hub")).unwrap();
    model.start(
        "--socket a --wire pair --socket b --socket c --wire stream:hub --socket d --wire stream:waiting,listen",
    );
    let (hub, _) = hub.accept().unwrap();
    let waiting = UnixStream::connect(model.path("waiting")).unwrap();
    // Whoever connects to both ends of a cable is the cable.
    for (from, to) in [(&hub, &waiting), (&waiting, &hub)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
    for (from, to) in [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")] {
        let mut to = Driver::start(&model.path(to));
        let mut from = Driver::start(&model.path(from));
        for number in 0..100 {
            from.send(&frame(number));
            assert_eq!(to.receive(), frame(number));
        }
    }
    // A cable that is pulled out is a link that is down, and one that is plugged in again is up.
    let function = space().open_vfio_user(&model.path("d")).unwrap();
    let bar = function.bar(0).unwrap();
    let link = |up: bool| {
        let limit = Instant::now() + Duration::from_secs(5);
        while (bar.read32(8) & 0x80 != 0) != up {
            assert!(Instant::now() < limit, "the link is {}", if up { "up" } else { "down" });
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    link(true);
    waiting.shutdown(Shutdown::Both).unwrap();
    link(false);
    let _again = UnixStream::connect(model.path("waiting")).unwrap();
    link(true);
    drop((function, hub));
    let (status, printed) = model.end("TERM");
    assert!(status.success(), "{printed}");
    assert_eq!(model.files(), ["hub"], "which is not its own");
}

#[test]
fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
    let mut model = Model::started("--socket a");
    let function = space().open_vfio_user(&model.path("a")).unwrap();
    std::fs::write(model.path("out.pcap"), "precious").unwrap();
    let said = model.refusal("--socket b --socket a --wire pcap:,out.pcap");
    assert!(said.contains("a is the socket of a server that runs; end that one first"), "{said}");
    assert_eq!(std::fs::read(model.path("out.pcap")).unwrap(), b"precious");
    assert_eq!(model.files(), ["a", "out.pcap"]);
    assert_eq!(function.bar(0).unwrap().read32(8) & 0x80, 0x80, "the first one serves on");

    let (status, _) = model.end("KILL");
    assert!(!status.success() && model.path("a").exists());
    for _ in 0..2 {
        model.start("--socket a");
        let function = space().open_vfio_user(&model.path("a")).unwrap();
        assert_eq!(function.bar(0).unwrap().read32(8) & 0x80, 0x80);
        model.end("KILL");
    }
    std::fs::remove_file(model.path("a")).unwrap();
    std::fs::write(model.path("a"), "a file").unwrap();
    let said = model.refusal("--socket a");
    assert!(said.contains("no socket has this path"), "{said}");
    assert_eq!(std::fs::read(model.path("a")).unwrap(), b"a file");
}

#[test]
fn bad_arguments_are_refused() {
    let model = Model::folder();
    std::fs::write(model.path("text"), "this is no capture, is it?").unwrap();
    for (arguments, expected) in [
        ("", "--socket <PATH>"),
        ("--socket a --socket a", "--socket a is there twice"),
        ("--socket a --socket b --socket c --pair", "two cards at a time, but there are 3 --socket"),
        ("--socket a --wire pair", "ends for 2 cards, but there are 1 --socket"),
        ("--socket a --wire open --wire open", "ends for 2 cards, but there are 1"),
        ("--socket a --wire nonsense", "expected open, pair[:MBPS], stream:PATH"),
        ("--socket a --wire open --pair", "cannot be used with"),
        ("--socket a --mapped --trapped", "cannot be used with"),
        ("--socket a --mac 01:00:5e:00:00:01", "neither zero nor a group's"),
        ("--socket a --mac 02:00", "is no Ethernet address"),
        ("--socket a --mac 02::1", "is no Ethernet address"),
        ("--socket a --duration x", "a number of seconds"),
        ("--socket none/a", "making the socket none/a: No such file"),
        ("--socket a --wire stream:none", "connecting to none: start what listens there first"),
        ("--socket a --wire pcap:none", "the capture none: No such file"),
        (
            "--socket a --wire pcap:text",
            "at byte 0 (the start): a file that starts with 74 68 69 73; expected a file header",
        ),
        ("--socket a --wire pcap:text,text", "the capture text, at byte 0"),
        ("--socket a --wire tap:a/b", "is no name of an interface"),
    ] {
        let said = model.refusal(arguments);
        assert!(said.contains(expected), "{arguments}: {said}");
    }
    assert_eq!(model.files(), ["text"], "and nothing is left");
}

#[test]
fn an_ordinary_user_is_told_how_to_get_a_tap() {
    let model = Model::folder();
    let program = for_everybody(model.folder.path());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
    command
        .args(["model", "82599", "--socket", "a", "--wire", "tap:pagewire7"])
        .current_dir(model.folder.path());
    let output = command.output().expect("setpriv, of the package util-linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("ip tuntap add dev pagewire7 mode tap user"), "{said}");
}
