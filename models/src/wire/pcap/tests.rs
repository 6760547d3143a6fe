use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness, TsResolution};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use pagewire_captures::Frames;
use tempfile::TempDir;

use super::*;

/// Frames of different lengths, by number.
fn frame(number: usize) -> Vec<u8> {
    vec![number as u8; 14 + number * 37 % 1501]
}

fn padded(number: usize) -> Vec<u8> {
    let mut frame = frame(number);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn pcap(frames: usize, header: PcapHeader) -> Vec<u8> {
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for number in 0..frames {
        let frame = frame(number);
        writer
            .write_packet(&PcapPacket::new(Duration::from_secs(number as u64), frame.len() as u32, &frame))
            .unwrap();
    }
    writer.into_writer()
}

fn pcapng(frames: usize, link: DataLink) -> Vec<u8> {
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Little).unwrap();
    writer.write_pcapng_block(InterfaceDescriptionBlock::new(link, 0xffff)).unwrap();
    for number in 0..frames {
        let frame = frame(number);
        let (original_len, data) = (frame.len() as u32, frame.into());
        let block = if number % 2 == 0 {
            let timestamp = Duration::from_secs(1);
            EnhancedPacketBlock { interface_id: 0, timestamp, original_len, data, options: Vec::new() }
                .into_block()
        } else {
            SimplePacketBlock { original_len, data }.into_block()
        };
        writer.write_block(&block).unwrap();
    }
    writer.into_inner()
}

fn open(bytes: &[u8], repeat: u64) -> Result<Pcap, PcapError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, bytes).unwrap();
    Pcap::open(&PcapOptions { input: Some(path), repeat, output: None })
}

fn all(wire: &mut Pcap) -> Vec<Vec<u8>> {
    let mut frame = Vec::new();
    std::iter::from_fn(|| wire.receive(&mut frame).map(|_| frame.clone())).collect()
}

#[test]
fn frames_arrive_in_order_and_as_often_as_asked() {
    let header = PcapHeader::default();
    let swapped =
        PcapHeader { endianness: Endianness::Little, ts_resolution: TsResolution::NanoSecond, ..header };
    let expected: Vec<_> = (0..50).map(padded).collect();
    for file in [pcap(50, header), pcap(50, swapped), pcapng(50, DataLink::ETHERNET)] {
        for repeat in [1, 3] {
            let mut wire = open(&file, repeat).unwrap();
            let report = wire.report();
            assert!(!report.exhausted.load(Relaxed));
            assert_eq!(all(&mut wire), vec![&expected[..]; repeat as usize].concat());
            assert!(report.exhausted.load(Relaxed));
            assert_eq!(report.taken.load(Relaxed), 50 * repeat);
        }
    }
    let mut wire = open(&pcap(2, header), 0).unwrap();
    let mut taken = Vec::new();
    for number in 0..10_000 {
        assert_eq!(wire.receive(&mut taken), Some(Arrival::Good));
        assert_eq!(taken, padded(number % 2));
    }
    assert!(!wire.report().exhausted.load(Relaxed));
    let mut none = open(&pcap(0, header), 0).unwrap();
    assert!(all(&mut none).is_empty() && none.report().exhausted.load(Relaxed));
}

#[test]
fn what_is_sent_is_in_the_file_soon_and_all_of_it_in_the_end() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out.pcap");
    let (output, input) = (Some(path.clone()), None);
    let mut wire = Pcap::open(&PcapOptions { input, repeat: 1, output }).unwrap();
    let report = wire.report();
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(wire.send(&frame(1)));
    let limit = Instant::now() + Duration::from_secs(10);
    while report.written.load(Relaxed) == 0 {
        assert_eq!(wire.receive(&mut Vec::new()), None);
        assert!(Instant::now() < limit, "it is written though nothing follows");
    }
    assert!(std::fs::metadata(&path).unwrap().len() > 24 + 16);
    // More than a batch.
    (2..2000).for_each(|number| assert!(wire.send(&frame(number))));
    drop(wire);
    assert_eq!((report.written.load(Relaxed), report.unwritten.load(Relaxed)), (1999, 0));
    let mut reader = PcapReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(reader.header().datalink, DataLink::ETHERNET);
    let mut before = start;
    for number in 1..2000 {
        let packet = reader.next_packet().unwrap().unwrap();
        assert_eq!((&packet.data[..], packet.orig_len as usize), (&frame(number)[..], frame(number).len()));
        assert!(packet.timestamp >= before && packet.timestamp < start + Duration::from_secs(60));
        before = packet.timestamp;
    }
    assert!(reader.next_packet().is_none());
}

#[test]
fn a_disk_that_is_full_from_the_start_is_an_error() {
    let output = Some("/dev/full".into());
    let error = Pcap::open(&PcapOptions { input: None, repeat: 1, output }).unwrap_err().to_string();
    assert!(error.contains("/dev/full") && error.contains("No space left"), "{error}");
}

#[test]
fn what_cannot_be_received_from_is_an_error_that_says_where() {
    let good = pcap(3, PcapHeader::default());
    let link = |datalink| PcapHeader { datalink, ..PcapHeader::default() };
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    // Header; records of 14, 51 and 88 bytes.
    let (second, third) = (24 + 16 + 14, 24 + 16 + 14 + 16 + 51);
    for (file, at, place, found, expected) in [
        (Vec::new(), 0, "the start", "ends after 0 bytes", "pcap"),
        (good[..23].to_vec(), 0, "the start", "ends after 23 bytes", "pcap"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n".to_vec(), 0, "the start", "47 45 54 20", "pcap or pcapng"),
        (good[..good.len() - 1].to_vec(), third, "frame 3", "ends after 103 bytes", "whole"),
        (good[..third + 7].to_vec(), third, "frame 3", "ends after 7 bytes", "whole"),
        (with(second + 8, &[0xff; 4]), second, "frame 2", "ends after", "whole"),
        (
            with(second + 12, &[0, 0, 5, 0xdc]),
            second,
            "frame 2",
            "51 of the frame's 1500 bytes",
            "tcpdump -s 0",
        ),
        (with(second + 8, &[0, 0, 0, 13]), second, "frame 2", "13 of the frame's 51", "whole"),
        (with(24 + 8, &[0, 0, 0, 13, 0, 0, 0, 13]), 24, "frame 1", "a frame of 13 bytes", "14 to 16384"),
        (pcap(1, link(DataLink::LINUX_SLL)), 0, "the start", "link type 113 (LINUX_SLL)", "1, Ethernet"),
        (pcap(1, link(DataLink::Unknown(4711))), 0, "the start", "link type 4711", "1, Ethernet"),
        (pcapng(1, DataLink::RAW), 48, "frame 1", "link type 101 (RAW)", "1, Ethernet"),
        (pcapng(2, DataLink::ETHERNET)[..130].to_vec(), 96, "frame 2", "ends after 34 bytes", "pcapng"),
        (pcapng(0, DataLink::ETHERNET)[..20].to_vec(), 0, "the start", "ends after 20 bytes", "pcapng"),
    ] {
        let error = open(&file, 1).unwrap_err().to_string();
        let all = [&format!("at byte {at} ({place})"), found, expected, "in.pcap"];
        assert!(all.iter().all(|part| error.contains(*part)), "{all:?}: {error}");
    }
    let folder = TempDir::new().unwrap();
    let missing = Some(folder.path().join("none"));
    let error =
        Pcap::open(&PcapOptions { input: missing, ..PcapOptions::default() }).unwrap_err().to_string();
    assert!(error.contains("none") && error.contains("No such file"), "{error}");
    let path = folder.path().join("one.pcap");
    std::fs::write(&path, &good).unwrap();
    let both =
        PcapOptions { input: Some(path.clone()), repeat: 1, output: Some(folder.path().join("./one.pcap")) };
    assert!(matches!(Pcap::open(&both), Err(PcapError::Same(same)) if same == path));
    assert_eq!(std::fs::read(&path).unwrap(), good, "and it is still there");
}

/// Each byte of a good file changed, and each file cut off anywhere: frames or an error.
#[test]
fn garbled_files_do_no_harm() {
    let little = PcapHeader { endianness: Endianness::Little, ..PcapHeader::default() };
    for file in [pcap(4, little), pcapng(4, DataLink::ETHERNET)] {
        let mut errors = 0;
        let mut try_one = |file: &[u8]| errors += usize::from(Frames::parse(file).is_err());
        for at in 0..file.len() {
            try_one(&file[..at]);
            for change in [1, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] ^= change;
                try_one(&file);
            }
        }
        assert!(errors > file.len() / 2, "{errors}");
    }
}
