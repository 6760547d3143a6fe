//! Captures that tests make, and look at.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

/// Frames of 60 to `longest` bytes, no two alike: the shortest and the longest in turn, then all between. The last four bytes
/// of length are an 802.1Q tag's.
pub(crate) fn frames(way: u8, count: usize, longest: usize) -> Vec<Vec<u8>> {
    let length = |number: usize| match number {
        0..64 => 60 + number,
        64..128 => longest - (number - 64),
        _ => 60 + number * 7919 % (longest - 59),
    };
    let frame = |number: usize| {
        let mut frame: Vec<u8> = vec![0x02, 0, 0, 0, 0x99, way, 0x02, 0, 0, 0, 0x98, way];
        if length(number) > longest - 4 {
            frame.extend([0x81, 0x00, 0x00, 0x63]);
        }
        frame.extend([0x88, 0xb5]);
        frame.extend((number as u32).to_be_bytes());
        frame
            .extend((frame.len()..length(number)).map(|at| (at * 31 + number * 17 + usize::from(way)) as u8));
        frame
    };
    (0..count).map(frame).collect()
}

pub(crate) fn write(path: &Path, frames: &[Vec<u8>]) {
    let mut writer = PcapWriter::new(File::create(path).expect("a capture")).expect("its header");
    for frame in frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).expect("a frame is written");
    }
}

pub(crate) fn read(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).expect("a capture")).expect("its header");
    std::iter::from_fn(|| reader.next_packet().map(|packet| packet.expect("a frame").data.into_owned()))
        .collect()
}

pub(crate) fn assert_same(arrived: &[Vec<u8>], sent: &[Vec<u8>]) {
    assert_eq!(arrived.len(), sent.len());
    for (number, (arrived, sent)) in arrived.iter().zip(sent).enumerate() {
        assert!(
            arrived == sent,
            "frame {number} of {} bytes arrived with {}: {arrived:02x?}",
            sent.len(),
            arrived.len()
        );
    }
}
