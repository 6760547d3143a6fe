//! Wires that need something of the machine's to themselves: a network stack, a small disk. Each test runs once more, in
//! namespaces of its own, which takes root.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use pagewire_models::wire::{MAX_FRAME, Pcap, PcapOptions, Tap, TapError, Wire};

const ALONE: &str = "PAGEWIRE_TEST_ALONE";

/// Whether this is the process that has namespaces of its own. If not, runs the test in one that has, and fails as it does.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ALONE, "1");
    let output = command.output().expect("unshare, of the package util-linux");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "in namespaces of its own, which takes root:\n{}", said.concat());
    assert!(said[0].contains("1 passed"), "{test} is the name of no test");
    false
}

/// What a command says, all of which must end well.
fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output =
        Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The next frame of a type; the stack sends others when it likes.
fn next(tap: &mut Tap, ethertype: u16) -> Vec<u8> {
    let limit = Instant::now() + Duration::from_secs(10);
    let mut frame = Vec::new();
    loop {
        if tap.receive(&mut frame).is_some() && frame[12..14] == ethertype.to_be_bytes() {
            return frame;
        }
        assert!(Instant::now() < limit, "a frame of type {ethertype:#x}; {}", run("ip -s link show tap0"));
    }
}

const OURS: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

#[test]
fn the_hosts_stack_is_at_the_other_end_of_a_tap() {
    if !alone("the_hosts_stack_is_at_the_other_end_of_a_tap") {
        return;
    }
    let mut tap = Tap::open("tap0").unwrap();
    assert!(matches!(Tap::open("tap0"), Err(TapError::Busy(name)) if name == "tap0"));
    let error = Tap::open("lo").unwrap_err().to_string();
    assert!(error.contains("lo is no TAP"), "{error}");
    for name in ["", "a/b", "a b", "0123456789abcdef", "tap%d"] {
        assert!(matches!(Tap::open(name), Err(TapError::Name(_))), "{name}");
    }

    assert!(tap.carrier() && tap.send(&[0xff; 60]), "the interface is down: lost, and no harm");
    run("ip addr add 10.99.0.1/24 dev tap0");
    run("ip neigh add 10.99.0.2 lladdr 02:00:00:00:00:02 dev tap0");
    run("ip link set tap0 up");
    let ip = |last: u8| [10, 99, 0, last];
    let ask =
        [&[0xff; 6], &OURS[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &OURS, &ip(2), &[0; 6], &ip(1)].concat();
    assert!(tap.send(&ask));
    let answer = next(&mut tap, 0x0806);
    assert_eq!(
        (answer.len(), &answer[..6], &answer[20..22]),
        (60, &OURS[..], &[0, 2][..]),
        "padded, a reply"
    );
    let host = &answer[6..12];

    let socket = UdpSocket::bind("10.99.0.1:7").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(&[0x5a; 1000], "10.99.0.2:9").unwrap();
    let mut datagram = next(&mut tap, 0x0800);
    assert_eq!((datagram.len(), &datagram[..6], &datagram[42..]), (1042, &OURS[..], &[0x5a; 1000][..]));
    // Sent back: addresses and ports change places, no checksum is touched by that.
    let at = |from: usize, len: usize| datagram[from..from + len].to_vec();
    let back =
        [host, &OURS, &at(12, 14), &at(30, 4), &at(26, 4), &at(36, 2), &at(34, 2), &at(38, 1004)].concat();
    datagram = back;
    assert!(tap.send(&datagram));
    let mut received = [0; 2000];
    assert_eq!(socket.recv_from(&mut received).unwrap(), (1000, "10.99.0.2:9".parse().unwrap()));

    // Too long for the interface, or no frame at all.
    assert!(tap.send(&[0xff; MAX_FRAME]) && tap.send(&[0; 3]) && tap.carrier());

    assert!(!run("ip link show tap0").contains("NO-CARRIER"));
    tap.light(false);
    assert!(run("ip link show tap0").contains("NO-CARRIER"));
    tap.light(true);
    assert!(!run("ip link show tap0").contains("NO-CARRIER"));

    run("ip link del tap0");
    let limit = Instant::now() + Duration::from_secs(10);
    while tap.carrier() {
        tap.receive(&mut Vec::new());
        assert!(Instant::now() < limit, "the interface is gone, and noticed");
    }
    assert!(tap.send(&[0xff; 60]) && tap.receive(&mut Vec::new()).is_none());
    drop(tap);
    // One that was there before stays.
    run("ip tuntap add dev tap1 mode tap");
    drop(Tap::open("tap1").unwrap());
    drop(Tap::open("tap2").unwrap());
    assert!(run("ip link").contains("tap1") && !run("ip link").contains("tap2"));
}

#[test]
fn a_capture_on_a_full_disk_ends_with_a_whole_frame() {
    if !alone("a_capture_on_a_full_disk_ends_with_a_whole_frame") {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let disk = folder.path().display();
    run(&format!("mount -t tmpfs -o size=700k none {disk}"));
    let path = folder.path().join("out.pcap");
    let frames = |path: &Path| {
        let input = Some(path.to_owned());
        let mut wire = Pcap::open(&PcapOptions { input, ..PcapOptions::default() }).unwrap();
        let mut frame = Vec::new();
        std::iter::from_fn(|| wire.receive(&mut frame)).count() as u64
    };
    let mut wire = Pcap::open(&PcapOptions { output: Some(path.clone()), ..PcapOptions::default() }).unwrap();
    let report = wire.report();
    for _ in 0..1000 {
        assert!(wire.send(&[7; 1514]));
    }
    let (written, unwritten) = (report.written.load(Relaxed), report.unwritten.load(Relaxed));
    assert!(written > 100 && unwritten > 100, "{written} {unwritten}");
    assert_eq!(frames(&path), written);
    // Room that is made later is not used: a hole in the middle would be worse.
    run(&format!("mount -o remount,size=10m {disk}"));
    assert!(wire.send(&[7; 1514]));
    drop(wire);
    assert_eq!((frames(&path), report.unwritten.load(Relaxed)), (written, 1001 - written));
    run(&format!("umount {disk}"));
}
