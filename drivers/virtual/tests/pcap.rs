//! The port between two capture files.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pagewire_ethdev::{Burst, Pool, Port, PortConfig, RxQueue, TxQueue};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{PageSize, PoolConfig};
use pagewire_virtual::{Pcap, PcapOptions};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

fn pool(fragments: usize) -> Pool {
    let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
    let config = PoolConfig { fragments, backing: PageSize::Size4K, ..PoolConfig::default() };
    Pool::new(&config, &space).expect("a small pool")
}

fn frame(number: usize) -> Vec<u8> {
    vec![number as u8; 14 + number * 37 % 1501]
}

fn write(path: &Path, frames: &[Vec<u8>]) {
    let mut writer = PcapWriter::new(std::fs::File::create(path).expect("a file")).expect("its header");
    for frame in frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).expect("a frame is written");
    }
}

fn read(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(std::fs::File::open(path).expect("a file")).expect("its header");
    std::iter::from_fn(|| reader.next_packet().map(|packet| packet.expect("a frame").data.into_owned()))
        .collect()
}

#[test]
fn what_is_in_one_file_is_received_and_what_is_sent_is_in_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
    let frames: Vec<_> = (0..300).map(frame).collect();
    write(&from, &frames);
    let options: PcapOptions =
        format!("{},{},repeat=2", from.display(), to.display()).parse().expect("options");
    let mut port = Pcap::new(0, &options).expect("two files");
    let report = port.report();
    // Fewer fragments than frames: those wait.
    let pool = pool(64);
    let monitor = pool.monitor();
    let mut received = Vec::new();
    for _ in 0..2 {
        // Once more from the start.
        received.clear();
        let (mut rx, mut tx) = port.start(PortConfig::single_queue(self::pool(64))).expect("one queue pair");
        let mut burst = Burst::new(100);
        while rx[0].rx_burst(&mut burst) > 0 {
            received.extend(burst.iter().map(|packet| packet.as_slice().expect("it is readable").to_vec()));
            let count = burst.len();
            assert_eq!(tx[0].tx_burst(&mut burst), count);
            pagewire_pool::flush_thread();
        }
        drop((rx, tx));
        port.stop().expect("it is started");
    }
    drop(pool);
    let padded = |frame: &Vec<u8>| {
        let mut frame = frame.clone();
        frame.resize(frame.len().max(60), 0);
        frame
    };
    let expected: Vec<_> = frames.iter().chain(&frames).map(padded).collect();
    assert!(received == expected, "{} frames", received.len());
    assert_eq!((report.taken.load(Relaxed), report.exhausted.load(Relaxed)), (1200, true));
    let stats = port.stats();
    assert_eq!((stats.rx_packets, stats.tx_packets, stats.tx_errors), (1200, 1200, 0));
    assert!(stats.rx_nombuf > 0);
    drop(port);
    assert!(read(&to) == [&expected[..], &expected].concat());
    assert_eq!(monitor.stats().inflight(), 0);
}

#[test]
fn a_bad_capture_is_refused_by_name_and_place_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
    write(&from, &[frame(1), frame(2)]);
    std::fs::write(&to, "precious").expect("a file");
    let whole = std::fs::read(&from).expect("a file");
    let options = PcapOptions { input: Some(from.clone()), output: Some(to.clone()), repeat: 1 };
    for (bytes, expected) in [
        (&whole[..whole.len() - 1], "in.pcap, at byte 91 (frame 2): the file ends after"),
        (
            b"GET / HTTP/1.1\r\nHost: example\r\n",
            "in.pcap, at byte 0 (the start): a file that starts with 47 45 54 20",
        ),
    ] {
        std::fs::write(&from, bytes).expect("a file");
        let error = Pcap::new(0, &options).err().expect("a bad file").to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(std::fs::read(&to).expect("a file"), b"precious");
    }
}

#[test]
fn a_file_is_overwritten_by_the_start_and_not_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("out.pcap");
    std::fs::write(&to, "precious").expect("a file");
    let options = PcapOptions { output: Some(to.clone()), ..PcapOptions::default() };
    let mut port = Pcap::new(0, &options).expect("nothing to read");
    assert_eq!(std::fs::read(&to).expect("a file"), b"precious");
    drop(port.start(PortConfig::single_queue(pool(64))).expect("one queue pair"));
    assert!(read(&to).is_empty());
    // One that cannot be made leaves the port as it was.
    let options = PcapOptions { output: Some(folder.path().into()), ..PcapOptions::default() };
    let mut port = Pcap::new(0, &options).expect("nothing to read");
    for _ in 0..2 {
        let error = port.start(PortConfig::single_queue(pool(64))).map(drop).expect_err("a folder");
        assert_eq!(
            error.to_string(),
            format!("the capture {}: Is a directory (os error 21)", to.parent().expect("it").display())
        );
    }
}

#[test]
fn frames_that_no_fragment_holds_are_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
    write(&from, &[vec![0; 3000]]);
    let options = PcapOptions { input: Some(from), output: Some(to.clone()), ..PcapOptions::default() };
    let mut port = Pcap::new(0, &options).expect("a file");
    let error = port.start(PortConfig::single_queue(pool(64))).map(drop).expect_err("too long").to_string();
    assert!(error.contains("the capture's longest frame of 3000") && error.contains("1792 bytes"), "{error}");
    assert!(!to.exists(), "made for a port that does not start");
}
