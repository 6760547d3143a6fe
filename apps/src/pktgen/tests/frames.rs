//! What a sender makes, taken apart by somebody else's parser.

use std::collections::HashSet;

use etherparse::{IpHeaders, NetSlice, SlicedPacket, TransportSlice};
use pagewire_ethdev::{Burst, PacketFlags, Pool};
use pagewire_hugepages::PageSize;
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::PoolConfig;

use super::super::pace::Clock;
use super::super::plan::Plan;
use super::super::scenario::Scenario;
use super::super::schedule::Span;
use super::super::sender::Sender;
use super::super::signature::{LEN, Run, Signature};
use crate::ports::{self, PortSpec};

/// When all of it is sent, in ticks: one that a signature can tell.
const NOW: u64 = 4;
/// A kilohertz of ticks.
const CLOCK: Clock = Clock { hz: 1e3 };

pub(super) fn pool(fragments: usize) -> Pool {
    let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
    let sizes = PoolConfig { fragment_size: 16384, page_size: 16384, ..PoolConfig::default() };
    Pool::new(&PoolConfig { fragments, backing: PageSize::Size4K, ..sizes }, &space).unwrap()
}

/// The sender of a file's only stream, which may send at once.
fn sender(text: &str) -> Result<Sender, String> {
    let scenario = toml::from_str::<Scenario>(text).map_err(|error| error.to_string())?;
    let scenario = scenario.check().map_err(|error| format!("{error:#}"))?;
    let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
    let mut ports = ports::open(&[PortSpec::Null(64), PortSpec::Null(64)], &space).unwrap();
    let mut plan =
        Plan::new(&scenario, &mut ports, 1, &CLOCK, Run::new(1)).map_err(|error| format!("{error:#}"))?;
    let mut sender = plan.senders[0][0].pop().ok_or("no sender")?;
    sender.begin(Span { start: 0, measured: 0, end: u64::MAX / 2 });
    Ok(sender)
}

/// So many frames, sent in bursts that keep the pool's fragments going round.
fn made(sender: &mut Sender, pool: &mut Pool, count: usize) -> Vec<(Vec<u8>, PacketFlags)> {
    let mut burst = Burst::new(7);
    let mut frames = Vec::new();
    while frames.len() < count {
        assert!(sender.is_due(NOW));
        assert!(sender.fill(pool, &mut burst, NOW) > 0);
        frames.extend(burst.iter().map(|packet| (packet.as_slice().unwrap().to_vec(), packet.flags())));
        burst.clear();
    }
    frames.truncate(count);
    frames
}

fn frames(stream: &str, count: usize) -> Vec<Vec<u8>> {
    let mut sender = sender(&format!("[[stream]]\n{stream}")).unwrap();
    made(&mut sender, &mut pool(16), count).into_iter().map(|(frame, _)| frame).collect()
}

/// Headers that hold, checksums included, and a signature of the number.
fn check(frame: &[u8], number: u64) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let ip = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "frame {number}");
            IpHeaders::Ipv4(header, Default::default())
        }
        NetSlice::Ipv6(ip) => IpHeaders::Ipv6(ip.header().to_header(), Default::default()),
        other => panic!("{other:?}"),
    };
    let payload = match packet.transport.as_ref().unwrap() {
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let expected = match &ip {
                IpHeaders::Ipv4(ip, _) => header.calc_checksum_ipv4(ip, udp.payload()),
                IpHeaders::Ipv6(ip, _) => header.calc_checksum_ipv6(ip, udp.payload()),
            };
            assert_eq!(header.checksum, expected.unwrap(), "frame {number}: {frame:02x?}");
            udp.payload()
        }
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let expected = match &ip {
                IpHeaders::Ipv4(ip, _) => header.calc_checksum_ipv4(ip, tcp.payload()),
                IpHeaders::Ipv6(ip, _) => header.calc_checksum_ipv6(ip, tcp.payload()),
            };
            assert_eq!(header.checksum, expected.unwrap(), "frame {number}: {frame:02x?}");
            tcp.payload()
        }
        other => panic!("{other:?}"),
    };
    let signature = Signature::read(payload.first_chunk::<LEN>().unwrap()).unwrap().unwrap();
    assert_eq!((signature.number, signature.time), (number, NOW));
    assert_eq!(signature.payload, super::super::template::payload_check(&payload[LEN..]));
}

fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

#[test]
fn every_frame_has_the_checksums_of_what_is_in_it() {
    for (stream, lengths) in [
        ("", vec![60]),
        ("[[stream.frame]]\nprotocol = \"tcp\"\nsize = 1518\npayload = \"random\"", vec![1514]),
        ("[[stream.frame]]\nsize = \"imix\"\npayload = \"increment\"", vec![60, 590, 1514]),
        (
            "[[stream.frame]]\nsize = \"84-94/5\"\nsrc-ip = \"2001:db8::1-2001:db8::ff\"\ndst-ip = \"fd00::1\"",
            vec![80, 85, 90],
        ),
        (
            "[[stream.frame]]\nsize = 9018\nvlan = [7, \"100-109\"]\nsrc-ip = \"random 10.0.0.0-10.255.255.255\"\n\
             dst-port = \"random 0-65535\"\nsrc-port = \"1-3\"\nprotocol = \"tcp\"",
            vec![9014],
        ),
        (
            "[[stream.frame]]\nsize = \"random 68-131\"\nvlan = [1]\nsrc-mac = \"02:00:00:00:00:00-02:00:00:00:00:03\"\n\
             random-bits = [{ offset = 19, mask = \"fc\" }, { offset = 33, mask = \"0f0f\" }]\npayload = \"c0ffee\"",
            (64..128).collect(),
        ),
    ] {
        let frames = frames(stream, 700);
        for (number, frame) in frames.iter().enumerate() {
            check(frame, number as u64);
        }
        let seen: HashSet<usize> = frames.iter().map(Vec::len).collect();
        assert_eq!(seen, lengths.into_iter().collect(), "{stream}");
    }
}

#[test]
fn fields_take_their_values_in_order_or_all_of_them() {
    let frames = frames(
        "[[stream.frame]]\nsrc-ip = { min = \"10.0.0.1\", max = \"10.0.0.9\", start = \"10.0.0.7\", step = 2 }\n\
         dst-port = \"random 5-8\"\nvlan = [\"10-12\"]\nvlan-priority = 5\nsize = 68\n\
         dst-mac = \"02:00:00:00:ff:ff-02:00:00:01:00:01\"",
        60,
    );
    let addresses: Vec<u8> = frames.iter().take(6).map(|frame| frame[33]).collect();
    assert_eq!(addresses, [7, 9, 1, 3, 5, 7]);
    let tags: Vec<u16> = frames.iter().take(4).map(|frame| word(frame, 14)).collect();
    assert_eq!(tags, [0xa00a, 0xa00b, 0xa00c, 0xa00a]);
    let ports: HashSet<u16> = frames.iter().map(|frame| word(frame, 40)).collect();
    assert_eq!(ports, HashSet::from([5, 6, 7, 8]));
    let macs: Vec<&[u8]> = frames.iter().take(4).map(|frame| &frame[2..6]).collect();
    assert_eq!(macs, [[0, 0, 0xff, 0xff], [0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0xff, 0xff]]);
}

#[test]
fn frames_have_their_turns_as_often_as_they_ask() {
    let frames = frames(
        "signature = false\n[[stream.frame]]\nbytes = \"ffffffffffff 020000000001 88b5 01\"\nrepeat = 2\n\
         [[stream.frame]]\nbytes = \"ffffffffffff 020000000001 88b5 02\"\n[[stream.frame]]\nsize = \"70,80\"",
        12,
    );
    let of_frame = |frame: &Vec<u8>| (frame.len(), frame[14]);
    let seen: Vec<_> = frames.iter().map(of_frame).collect();
    let round = |length| [(60, 1), (60, 1), (60, 2), (length, 0x45)];
    assert_eq!(seen, [round(66), round(76), round(66)].concat());
}

#[test]
fn the_card_is_asked_for_checksums_where_it_is_to_fill_them_in() {
    let mut sender = sender("[[stream]]\nchecksums = \"offload\"").unwrap();
    for (frame, flags) in made(&mut sender, &mut pool(16), 20) {
        assert_eq!(flags, PacketFlags::TX_IP_CSUM | PacketFlags::TX_UDP_CSUM);
        assert_eq!((word(&frame, 24), word(&frame, 40)), (0, 0));
    }
}

/// A pool of two senders, whose fragments are painted anew where the other one had them, and one of a single sender.
#[test]
fn fragments_never_show_what_they_carried_before() {
    let mut pool = pool(8);
    let mut senders = [
        sender("[[stream]]\n[[stream.frame]]\npayload = \"aa\"\nsize = 100").unwrap(),
        sender("[[stream]]\n[[stream.frame]]\npayload = \"bb\"\nsize = 200\ndst-port = \"1-9\"").unwrap(),
    ];
    for round in 0..50 {
        for (number, sender) in senders.iter_mut().enumerate() {
            let fill = [0xaa, 0xbb][number];
            for (at, (frame, _)) in made(sender, &mut pool, 7).into_iter().enumerate() {
                check(&frame, (7 * round + at) as u64);
                assert!(frame[60..].iter().all(|byte| *byte == fill), "{frame:02x?}");
            }
        }
    }
    let mut pool = self::pool(40);
    let mut one = sender("[[stream]]\n[[stream.frame]]\npayload = \"cc\"\nsize = 100").unwrap();
    one.prepare(&mut pool);
    for (number, (frame, _)) in made(&mut one, &mut pool, 500).into_iter().enumerate() {
        check(&frame, number as u64);
        assert!(frame[60..].iter().all(|byte| *byte == 0xcc), "{frame:02x?}");
    }
}

#[test]
fn what_cannot_be_sent_is_refused_with_a_reason() {
    for (stream, expected) in [
        (
            "rate = \"20Mpps\"",
            "stream stream0: rate: frames of 64 bytes at 20000000 packets/s are 13.440 Gb/s",
        ),
        ("rate = \"110%\"", "at most 14880952 packets/s"),
        (
            "rate = \"60%\"\n[[stream]]\nname = \"b\"\nrate = \"60%\"",
            "stream b: rate: all streams of port 0 together are 120.0 %",
        ),
        ("[[stream.frame]]\nvlan = [1]", "14 bytes behind their headers"),
        ("[[stream.frame]]\nsrc-ip = \"::1\"\ndst-ip = \"::2\"\nsize = 70", "at least 84 bytes"),
        ("[[stream.frame]]\nsrc-ip = \"::1\"", "addresses of IPv4 and of IPv6"),
        ("[[stream.frame]]\nbytes = \"00\"", "carries no signature"),
        ("signature = false\n[[stream.frame]]\nbytes = \"00\"", "a frame of 1 bytes"),
        (
            "[[stream.frame]]\nrandom-bits = [{ offset = 59, mask = \"ffff\" }]",
            "are not within a frame of 60 bytes",
        ),
        ("[[stream.frame]]\nrandom-bits = [{ offset = 42, mask = \"ff\" }]", "are of signature or payload"),
        ("[[stream.frame]]\nrandom-bits = [{ offset = 24, mask = \"ff\" }]", "are of a checksum"),
        ("[[stream.frame]]\nrandom-bits = [{ offset = 33, mask = \"ffff\" }]", "partly of one header"),
        (
            "[[stream.frame]]\nsrc-port = \"1-2\"\nrandom-bits = [{ offset = 35, mask = \"ff\" }]",
            "varies already",
        ),
    ] {
        let error = sender(&format!("[[stream]]\n{stream}")).err().unwrap_or_else(|| panic!("{stream}"));
        assert!(error.contains(expected), "{stream}: {error}");
    }
}

#[test]
fn a_rate_is_kept_in_the_long_run_however_irregularly_it_is_looked_at() {
    let mut pool = pool(2100);
    for (rate, group) in [("1pps", 1), ("7pps", 3), ("333pps", 1), ("100kpps", 50)] {
        let mut sender = sender(&format!("[[stream]]\nrate = \"{rate}\"\nburst = {group}")).unwrap();
        let (mut burst, mut now, mut sent, mut random) =
            (Burst::new(1000), 0, 0, super::super::field::Random::new(9));
        // An hour, or some seconds.
        let end = if rate.ends_with("kpps") { 20_000 } else { 3_600_000 };
        while now < end {
            while sender.is_due(now) {
                sent += sender.fill(&mut pool, &mut burst, now);
                burst.clear();
            }
            now += random.below(500);
        }
        let expected: f64 =
            rate.trim_end_matches("pps").replace('k', "000").parse::<f64>().unwrap() * now as f64 / 1e3;
        assert!(
            (sent as f64 - expected).abs()
                <= f64::from(group) + expected * 1e-9 + 1.0 + 500.0 * expected / now as f64,
            "{rate}: {sent} instead of {expected}"
        );
    }
}
