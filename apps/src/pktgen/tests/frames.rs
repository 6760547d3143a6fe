//! What a sender makes, taken apart by somebody else's parser.

use std::collections::HashSet;

use etherparse::{IpHeaders, NetSlice, SlicedPacket, TransportSlice};
use pagewire_ethdev::{Burst, PacketFlags, Pool, TxOffloads};
use pagewire_hugepages::PageSize;
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::PoolConfig;

use super::super::orders::Order;
use super::super::pace::Clock;
use super::super::plan::{Plan, tx_offloads};
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

/// What is made of a file's streams, on so many queues each.
fn plan(text: &str, queues: u16) -> Result<Plan, String> {
    let scenario = toml::from_str::<Scenario>(text).map_err(|error| error.to_string())?;
    let scenario = scenario.check().map_err(|error| format!("{error:#}"))?;
    let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
    let mut ports = ports::open(&[PortSpec::Null(64), PortSpec::Null(64)], &space).unwrap();
    Plan::new(&scenario, &mut ports, queues, &CLOCK, Run::new(1)).map_err(|error| format!("{error:#}"))
}

/// The sender of a file's only stream, which may send at once.
fn sender(text: &str) -> Result<Sender, String> {
    let mut plan = plan(text, 1)?;
    let mut sender = plan.senders[0][0].pop().ok_or("no sender")?;
    sender.begin(Span { start: 0, measured: 0, end: u64::MAX / 2 });
    Ok(sender)
}

/// The senders of a file's only stream, one for each of so many queues.
fn senders(text: &str, queues: u16) -> Vec<Sender> {
    let plan = plan(&format!("[[stream]]\n{text}"), queues).unwrap();
    let mut senders: Vec<_> = plan.senders.into_iter().flatten().flatten().collect();
    senders.iter_mut().for_each(|sender| sender.begin(Span { start: 0, measured: 0, end: u64::MAX / 2 }));
    senders
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

#[test]
fn a_port_is_asked_only_for_what_its_own_streams_want() {
    let text = "[[stream]]\n[[stream]]\ntx = 1\nchecksums = \"offload\"\n[[stream]]\ntx = 1";
    let scenario = toml::from_str::<Scenario>(text).unwrap().check().unwrap();
    let all = TxOffloads::IP_CSUM | TxOffloads::UDP_CSUM | TxOffloads::TCP_CSUM;
    let asked = [0, 1, 2].map(|port| tx_offloads(&scenario, port));
    assert_eq!(asked, [TxOffloads::empty(), all, TxOffloads::empty()]);
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
        // (7 x 64 + 4 x 594 + 1518) / 12, and 20 on the wire besides.
        (
            "rate = \"4Mpps\"\n[[stream.frame]]\nsize = \"imix\"",
            "rate: frames of 361.8 bytes on average at 4000000 packets/s are 12.219 Gb/s on the wire, and the link has 10.000 Gb/s: at \
             most 3273680 packets/s",
        ),
        ("rate = \"9.5Gbps\"\n[[stream.frame]]\nsize = \"imix\"", "frames of 361.8 bytes on average"),
        ("rate = \"100.1%\"\n[[stream.frame]]\nsize = \"imix\"", "frames of 361.8 bytes on average"),
        ("rate = \"gap:11B\"\n[[stream.frame]]\nsize = \"imix\"", "frames of 361.8 bytes on average"),
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

/// All that a sender has to send, without signatures, which tell senders apart.
fn all_of(sender: &mut Sender, pool: &mut Pool) -> Vec<Vec<u8>> {
    let (mut burst, mut frames) = (Burst::new(7), Vec::new());
    while sender.is_due(NOW) && sender.fill(pool, &mut burst, NOW) > 0 {
        frames.extend(burst.iter().map(|packet| packet.as_slice().unwrap().to_vec()));
        burst.clear();
    }
    frames
}

#[test]
fn several_queues_send_together_what_one_sends() {
    let mut pool = pool(16);
    for stream in [
        "count = 254\n[[stream.frame]]\nsrc-ip = \"10.0.0.1-10.0.0.254\"",
        "count = 1001\n[[stream.frame]]\nsize = \"imix\"\nvlan = [\"1-7/3\"]\nsrc-ip = \"10.0.0.1-10.0.0.254/5\"\nsrc-port = \"1-12\"",
        "count = 777\n[[stream.frame]]\nsize = \"64-1000/7\"\ndst-mac = { min = \"02:00:00:00:00:00\", max = \"02:00:00:00:01:00\", \
         start = \"02:00:00:00:00:ff\", step = 2 }",
        // Frames in turns: of whole turns.
        "count = 960\n[[stream.frame]]\nrepeat = 3\nsize = \"64,100\"\ndst-port = \"1-100\"\n[[stream.frame]]\ndst-port = \"200-300\"",
    ] {
        let stream = &format!("signature = false\n{stream}");
        let mut one = all_of(&mut senders(stream, 1)[0], &mut pool);
        let mut of_queues: Vec<_> =
            senders(stream, 4).iter_mut().map(|sender| all_of(sender, &mut pool)).collect();
        assert!(of_queues.iter().all(|frames| frames.len().abs_diff(one.len() / 4) <= 1));
        let mut union = std::mem::take(&mut of_queues).concat();
        one.sort();
        union.sort();
        assert!(union == one, "{stream}");
    }
}

#[test]
fn random_values_of_every_queue_and_stream_are_others() {
    let stream = "name = \"a\"\n[[stream.frame]]\nsrc-ip = \"random 10.0.0.0-10.255.255.255\"\n";
    let mut pool = pool(16);
    let mut senders = senders(&format!("{stream}[[stream]]\n{stream}"), 4);
    assert_eq!(senders.len(), 8);
    let addresses: HashSet<Vec<u8>> = senders
        .iter_mut()
        .flat_map(|sender| made(sender, &mut pool, 100))
        .map(|(frame, _)| frame[26..30].to_vec())
        .collect();
    // 800 of 2^24 may meet, now and then.
    assert!(addresses.len() > 795, "{}", addresses.len());
}

/// When a sender's first packets are due, in ticks.
fn first_due(sender: &mut Sender, pool: &mut Pool, packets: usize) -> Vec<u64> {
    let (mut burst, mut due, mut now) = (Burst::new(64), Vec::new(), 0);
    while due.len() < packets {
        if sender.is_due(now) {
            due.extend(vec![now; sender.fill(pool, &mut burst, now)]);
            burst.clear();
        }
        now += 1;
    }
    due
}

#[test]
fn queues_take_turns_evenly_from_their_first_packets_on() {
    let mut pool = pool(200);
    for (stream, expected) in [
        ("rate = \"1pps\"", [[0, 4000], [1000, 5000], [2000, 6000], [3000, 7000]]),
        (
            "rate = \"10pps\"\n[[stream.frame]]\nsize = \"imix\"",
            [[0, 400], [100, 500], [200, 600], [300, 700]],
        ),
        ("rate = \"10pps\"\nburst = 2", [[0, 0], [200, 200], [400, 400], [600, 600]]),
    ] {
        let due: Vec<_> =
            senders(stream, 4).iter_mut().map(|sender| first_due(sender, &mut pool, 2)).collect();
        assert_eq!(due, expected, "{stream}");
    }
    // And after another rate, from when it is given.
    let plan = plan("[[stream]]\nrate = \"10pps\"", 4).unwrap();
    let pace = plan.streams[0].pace("2pps".parse().unwrap(), &CLOCK).unwrap();
    let mut four: Vec<_> = plan.senders.into_iter().flatten().flatten().collect();
    let next = |sender: &mut Sender| {
        sender.begin(Span { start: 0, measured: 0, end: u64::MAX / 2 });
        sender.orders().give(Order::Pace(pace.intervals.clone()));
        (50..).find(|now| sender.is_due(*now))
    };
    assert_eq!(four.iter_mut().map(next).collect::<Vec<_>>(), [50, 550, 1050, 1550].map(Some));
    // A queue that has only short frames sends no more of them than another that has only long ones.
    let mut two = senders("rate = \"100kbps\"\n[[stream.frame]]\nsize = \"64,1518\"", 2);
    let last = |sender| first_due(sender, &mut pool, 100).pop().unwrap();
    let last: Vec<_> = two.iter_mut().map(last).collect();
    // 99 intervals of 2 x 791 bytes, and the other one between.
    assert!(last[0].abs_diff(12_530) <= 1 && last[1].abs_diff(12_530 + 63) <= 1, "{last:?}");
}

/// One that has nothing to do is done, whenever it would have been due.
#[test]
fn queues_without_a_share_do_not_wait_for_their_turn() {
    let mut senders = senders("rate = \"1pps\"\ncount = 2", 4);
    assert_eq!(
        senders.iter_mut().map(|sender| sender.is_done(0)).collect::<Vec<_>>(),
        [false, false, true, true]
    );
    senders.iter_mut().for_each(|sender| sender.begin(Span { start: 0, measured: 0, end: 500 }));
    // The second one's is due after the end.
    assert_eq!(
        senders.iter_mut().map(|sender| sender.is_done(0)).collect::<Vec<_>>(),
        [false, true, true, true]
    );
}

/// What counts is how much of the link all of the lengths take, not what the longest or the shortest would alone.
#[test]
fn lengths_that_are_mixed_have_the_rates_that_the_link_carries_of_the_mix() {
    // (7 x 64 + 4 x 594 + 1518) / 12.
    let mean = 4342.0 / 12.0;
    for (rate, pps, load) in [
        ("1Mpps", 1e6, (mean + 20.0) * 8e6 / 10e9),
        ("9Gbps", 9e9 / 8.0 / mean, 0.9 * (mean + 20.0) / mean),
        ("10GbpsL1", 10e9 / 8.0 / (mean + 20.0), 1.0),
        ("100%", 10e9 / 8.0 / (mean + 20.0), 1.0),
        ("gap:12B", 10e9 / 8.0 / (mean + 20.0), 1.0),
    ] {
        let plan =
            plan(&format!("[[stream]]\nrate = \"{rate}\"\n[[stream.frame]]\nsize = \"imix\""), 1).unwrap();
        let asked = &plan.streams[0];
        let close = |is: f64, expected: f64| (is / expected - 1.0).abs() < 1e-9;
        assert!(close(asked.rate.unwrap(), pps) && close(asked.load, load), "{rate}: {asked:?}");
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
