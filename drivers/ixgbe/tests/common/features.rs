//! The card's features, each with packets that need it and what becomes of them.

use std::time::Duration;

use pagewire_ethdev::nic::testing::Random;
use pagewire_ethdev::{
    FlowAction, FlowProtocol, FlowRule, Packet, PacketFlags, PacketType, PortConfig, RssConfig, RxOffloads,
    RxQueueConfig, TxOffloads, TxQueueConfig,
};

use super::bench::{Bench, Side, bytes, frame};
use super::functions::wide_pool;
use super::packets::{ETHERNET, Flow, KEY, UDP, ask, payload, segments, tcp_header, toeplitz, whole};

/// Ring sizes.
pub(crate) const RINGS: [u32; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];
/// Tags: of the VLAN that is let in, and of another.
const TCI: u16 = 0x2123;
const OTHER_TCI: u16 = 0x0456;

/// A packet as it is received: its bytes, what is told of it, the bytes of its header if that was split off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) bytes: Vec<u8>,
    flags: u32,
    tci: u16,
    kind: Option<u16>,
    hash: Option<u32>,
    header: usize,
    /// Where it came, if RSS or a rule says.
    pub(crate) queue: Option<usize>,
}

impl Seen {
    pub(crate) fn new(bytes: &[u8], flags: PacketFlags) -> Seen {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().max(60), 0);
        Seen { bytes, flags: flags.bits(), tci: 0, kind: None, hash: None, header: 0, queue: None }
    }

    pub(crate) fn has_hash(&self) -> bool {
        self.hash.is_some()
    }

    /// What is left of it if nothing is said of RSS, which virtual functions tell whoever asks.
    pub(crate) fn without_hash(self) -> Seen {
        let flags = self.flags & !PacketFlags::RX_RSS_HASH.bits();
        Seen { flags, hash: None, queue: None, ..self }
    }

    pub(crate) fn of(packet: &Packet, queue: usize) -> Seen {
        let flags = packet.flags() - PacketFlags::CHAINED;
        let has = |flag| flags.contains(flag);
        Seen {
            bytes: bytes(packet),
            flags: flags.bits(),
            tci: if has(PacketFlags::RX_VLAN_STRIPPED) { packet.vlan_tci() } else { 0 },
            kind: packet.packet_type().map(|kind| kind.bits()),
            hash: packet.rss_hash(),
            header: if has(PacketFlags::RX_HEADER_SPLIT) { packet.data_len().into() } else { 0 },
            queue: Some(queue),
        }
    }
}

/// What becomes of a packet that is sent: frames, and what the other port makes of each that it lets in.
pub(crate) type Made = Vec<(Vec<u8>, Option<Seen>)>;

/// One frame, told so.
fn one(bytes: Vec<u8>, flags: PacketFlags) -> Made {
    let seen = Seen::new(&bytes, flags);
    vec![(bytes, Some(seen))]
}

/// What is tried.
pub(crate) struct Feature<P: Side> {
    pub(crate) name: &'static str,
    pub(crate) queues: usize,
    pub(crate) rx: RxOffloads,
    pub(crate) tx: TxOffloads,
    pub(crate) mtu: u16,
    /// What else the port is started with, and what is set then.
    pub(crate) config: fn(&mut PortConfig),
    pub(crate) started: fn(&mut Bench<P>),
    pub(crate) packet: fn(&mut Bench<P>, &mut Random) -> (Packet, Made),
    /// After each round.
    pub(crate) between: fn(&mut Bench<P>, &mut Random, u32),
}

pub(crate) fn nothing<P: Side>() -> Feature<P> {
    Feature {
        name: "",
        queues: 1,
        rx: RxOffloads::empty(),
        tx: TxOffloads::empty(),
        mtu: 1500,
        config: |_| (),
        started: |_| (),
        packet: |bench, random| plain(bench, random, 1514),
        between: |_, _, _| (),
    }
}

pub(crate) fn features<P: Side>() -> Vec<Feature<P>> {
    let checksums = RxOffloads::IP_CSUM | RxOffloads::L4_CSUM | RxOffloads::SCTP_CSUM;
    let fills = TxOffloads::IP_CSUM | TxOffloads::TCP_CSUM | TxOffloads::UDP_CSUM | TxOffloads::SCTP_CSUM;
    let of_flow_1 = |config: &mut PortConfig| {
        config.rss = RssConfig { table: Some(vec![1; 128]), ..RssConfig::default() };
    };
    let split = RxOffloads::HEADER_SPLIT | RxOffloads::VLAN_STRIP | RxOffloads::PACKET_TYPE | checksums;
    vec![
        Feature { name: "frames", ..nothing() },
        Feature {
            name: "RSS",
            queues: 4,
            config: |config| config.rss.key = Some(KEY.into()),
            packet: hashed,
            ..nothing()
        },
        Feature {
            name: "scattered jumbo frames",
            rx: RxOffloads::SCATTER,
            tx: TxOffloads::MULTI_SEGS,
            mtu: 9000,
            packet: |bench, random| plain(bench, random, 9014),
            ..nothing()
        },
        Feature { name: "chains", tx: TxOffloads::MULTI_SEGS, packet: chain, ..nothing() },
        Feature { name: "header split", rx: RxOffloads::HEADER_SPLIT, packet: headed, ..nothing() },
        Feature { name: "checksum status", rx: checksums, packet: summed, ..nothing() },
        Feature {
            name: "VLAN insertion, filter and stripping",
            rx: RxOffloads::VLAN_STRIP,
            tx: TxOffloads::VLAN_INSERT,
            started: |bench| bench.b.port.set_vlan_filter(Some(&[TCI & 0xfff])).unwrap(),
            packet: tagged,
            ..nothing()
        },
        Feature { name: "packet type", rx: RxOffloads::PACKET_TYPE, packet: typed, ..nothing() },
        Feature {
            name: "checksums",
            rx: checksums,
            tx: fills | TxOffloads::MULTI_SEGS,
            packet: asking,
            ..nothing()
        },
        Feature { name: "segmentation", rx: checksums, tx: TxOffloads::all(), packet: cut, ..nothing() },
        Feature {
            name: "flow rules",
            queues: 4,
            config: of_flow_1,
            started: |bench| {
                let to = |port, action| FlowRule {
                    protocol: Some(FlowProtocol::Udp),
                    destination_port: Some(port),
                    ..FlowRule::new(action)
                };
                bench.b.port.set_flows(&[to(53, FlowAction::Queue(3)), to(54, FlowAction::Drop)]).unwrap();
            },
            packet: ruled,
            ..nothing()
        },
        Feature {
            name: "queues that stop and start",
            queues: 4,
            config: |config| config.rss.key = Some(KEY.into()),
            packet: |bench, random| {
                let (packet, mut made) = hashed(bench, random);
                made.iter_mut().flat_map(|(_, seen)| seen).for_each(|seen| seen.queue = None);
                (packet, made)
            },
            between: restart,
            ..nothing()
        },
        Feature {
            name: "interrupts",
            queues: 4,
            config: |config| {
                config.rss.key = Some(KEY.into());
                config.rx_interrupts = Some(Duration::ZERO);
            },
            packet: hashed,
            ..nothing()
        },
        Feature {
            name: "everything",
            queues: 4,
            rx: split,
            tx: TxOffloads::all(),
            config: |config| config.rss.key = Some(KEY.into()),
            packet: everything,
            ..nothing()
        },
    ]
}

fn plain<P: Side>(bench: &mut Bench<P>, random: &mut Random, longest: u64) -> (Packet, Made) {
    let to = bench.b.port.info().mac;
    let mut data = frame(to, (17 + random.below(longest - 16)) as usize);
    // No two alike: they are told apart by nothing else.
    data[14..17].copy_from_slice(&random.next().to_le_bytes()[..3]);
    (bench.chain(&data), one(data, PacketFlags::empty()))
}

fn flow(random: &mut Random) -> Flow {
    Flow {
        ports: (random.below(60_000) as u16, 53 + random.below(3) as u16),
        hosts: (random.below(200) as u8, 201),
        id: random.below(0xffff) as u16,
        v6: random.below(2) == 0,
    }
}

/// TCP, UDP or SCTP, its headers' bytes up to and with that, and the type. SCTP's header is not split off.
fn datagram(flow: Flow, random: &mut Random) -> (Vec<u8>, usize, PacketType) {
    let data = payload(20 + random.below(1200) as usize);
    let ip = if flow.v6 { PacketType::IPV6 } else { PacketType::IPV4 };
    match random.below(3) {
        0 => (flow.tcp(&tcp_header(5), &data), flow.l4() + 20, ip | PacketType::TCP),
        1 => (flow.udp(&data), flow.l4() + UDP, ip | PacketType::UDP),
        _ => (flow.sctp(&data), flow.l4(), ip | PacketType::SCTP),
    }
}

/// What RSS makes of a packet.
pub(crate) fn rss(key: &[u8], bytes: &[u8], flow: Flow, kind: PacketType) -> u32 {
    let addresses = if flow.v6 { 22..54 } else { 26..34 };
    let ports = if kind.contains(PacketType::SCTP) { 0 } else { 4 };
    toeplitz(key, &bytes[addresses.start..addresses.end + ports])
}

fn hashed<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let flow = flow(random);
    let (data, _, kind) = datagram(flow, random);
    let hash = rss(&KEY, &data, flow, kind);
    let seen = Seen {
        hash: Some(hash),
        queue: Some(hash as usize % 4),
        ..Seen::new(&data, PacketFlags::RX_RSS_HASH)
    };
    (bench.chain(&data), vec![(data, Some(seen))])
}

fn chain<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let (data, ..) = datagram(flow(random), random);
    let mut lengths = vec![data.len()];
    for _ in 0..random.below(24) {
        let at = random.below(lengths.len() as u64) as usize;
        let len = lengths[at];
        if len > 1 {
            let first = 1 + random.below(len as u64 - 1) as usize;
            lengths.splice(at..=at, [first, len - first]);
        }
    }
    (bench.packet(&data, &lengths), one(data, PacketFlags::empty()))
}

fn headed<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let (data, header, _) = datagram(flow(random), random);
    let seen = Seen { header, ..Seen::new(&data, PacketFlags::RX_HEADER_SPLIT) };
    (bench.chain(&data), vec![(data, Some(seen))])
}

fn ip_good(flow: Flow) -> PacketFlags {
    if flow.v6 { PacketFlags::empty() } else { PacketFlags::RX_IP_CSUM_GOOD }
}

fn summed<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let flow = flow(random);
    let (mut data, _, kind) = datagram(flow, random);
    let mut flags = ip_good(flow) | PacketFlags::RX_L4_CSUM_GOOD;
    match random.below(3) {
        0 => {}
        1 if !flow.v6 => {
            data[24] ^= 1;
            flags = PacketFlags::RX_IP_CSUM_BAD | PacketFlags::RX_L4_CSUM_GOOD;
        }
        _ => {
            *data.last_mut().unwrap() ^= 1;
            // Of UDP the card is not to be believed.
            let bad = !kind.contains(PacketType::UDP);
            flags = ip_good(flow) | if bad { PacketFlags::RX_L4_CSUM_BAD } else { PacketFlags::empty() };
        }
    }
    (bench.chain(&data), one(data, flags))
}

/// As it is on the wire with a tag.
fn with_tag(data: &[u8], tci: u16) -> Vec<u8> {
    [&data[..12], &[0x81, 0], &tci.to_be_bytes(), &data[12..]].concat()
}

fn tagged<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let (data, ..) = datagram(flow(random), random);
    let mut packet = bench.chain(&data);
    let tci = [None, Some(TCI), Some(OTHER_TCI)][random.below(3) as usize];
    let Some(tci) = tci else { return (packet, one(data, PacketFlags::empty())) };
    packet.set_flags(PacketFlags::TX_VLAN_INSERT);
    packet.set_vlan_tci(tci);
    let seen = Seen { tci, ..Seen::new(&data, PacketFlags::RX_VLAN_STRIPPED) };
    (packet, vec![(with_tag(&data, tci), (tci == TCI).then_some(seen))])
}

fn typed<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let (data, _, kind) = datagram(flow(random), random);
    let seen = Seen { kind: Some(kind.bits()), ..Seen::new(&data, PacketFlags::RX_PACKET_TYPE) };
    (bench.chain(&data), vec![(data, Some(seen))])
}

/// A packet without checksums, in one segment or two, that asks for them; what it is with them.
fn blank<P: Side>(
    bench: &mut Bench<P>,
    random: &mut Random,
    flow: Flow,
) -> (Packet, Vec<u8>, usize, PacketType) {
    let (right, header, kind) = datagram(flow, random);
    let (flag, at, len) = match kind {
        _ if kind.contains(PacketType::TCP) => (PacketFlags::TX_TCP_CSUM, 16, 2),
        _ if kind.contains(PacketType::UDP) => (PacketFlags::TX_UDP_CSUM, 6, 2),
        _ => (PacketFlags::TX_SCTP_CSUM, 8, 4),
    };
    let mut blank = right.clone();
    blank[flow.l4() + at..][..len].fill(0xa5);
    let ip = match flow.v6 {
        true => PacketFlags::empty(),
        false => {
            blank[24..26].fill(0xa5);
            PacketFlags::TX_IP_CSUM
        }
    };
    // The checksum is in the first segment.
    let cut = flow.l4() + 20 + random.below((right.len() - flow.l4() - 20) as u64) as usize;
    let lengths = if cut < right.len() && random.below(2) == 0 {
        vec![cut, right.len() - cut]
    } else {
        vec![right.len()]
    };
    let mut packet = bench.packet(&blank, &lengths);
    packet.set_flags(packet.flags() | ip | flag);
    packet.set_header_lens(ETHERNET as u16, flow.l3() as u16);
    (packet, right, header, kind)
}

fn asking<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let flow = flow(random);
    let (packet, right, ..) = blank(bench, random, flow);
    (packet, one(right, ip_good(flow) | PacketFlags::RX_L4_CSUM_GOOD))
}

fn cut<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let flow = flow(random);
    let mss = 600 + random.below(800) as usize;
    let data = payload(random.below(8) as usize * mss + 20 + random.below(mss as u64 - 20) as usize);
    let mut packet = bench.chain(&whole(flow, &data));
    ask(&mut packet, flow, mss as u16);
    let flags = ip_good(flow) | PacketFlags::RX_L4_CSUM_GOOD;
    let made = segments(flow, &data, mss).into_iter().flat_map(|frame| one(frame, flags));
    (packet, made.collect())
}

fn ruled<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let flow = flow(random);
    let (data, _, kind) = datagram(flow, random);
    let to = if kind == PacketType::IPV4 | PacketType::UDP { flow.ports.1 } else { 0 };
    let queue = if to == 53 { 3 } else { 1 };
    // By the driver's own key, under which both directions of a flow meet.
    let key: Vec<u8> = [0x6d, 0x5a].into_iter().cycle().take(40).collect();
    let hash = rss(&key, &data, flow, kind);
    let seen = Seen { hash: Some(hash), queue: Some(queue), ..Seen::new(&data, PacketFlags::RX_RSS_HASH) };
    (bench.chain(&data), vec![(data, (to != 54).then_some(seen))])
}

fn everything<P: Side>(bench: &mut Bench<P>, random: &mut Random) -> (Packet, Made) {
    let flow = flow(random);
    let (mut packet, frames, header, kind) = match random.below(4) {
        0 => {
            let (packet, made) = cut(bench, random);
            let v6 = packet.as_slice().unwrap()[12] == 0x86;
            let ip = if v6 { PacketType::IPV6 } else { PacketType::IPV4 };
            let header = if v6 { 74 } else { 54 };
            (packet, made.into_iter().map(|(frame, _)| frame).collect(), header, ip | PacketType::TCP)
        }
        _ => {
            let (packet, right, header, kind) = blank(bench, random, flow);
            (packet, vec![right], header, kind)
        }
    };
    let flow = Flow { v6: kind.contains(PacketType::IPV6), ..flow };
    let tag = random.below(3) == 0;
    if tag {
        packet.set_flags(packet.flags() | PacketFlags::TX_VLAN_INSERT);
        packet.set_vlan_tci(TCI);
    }
    let told = PacketFlags::RX_L4_CSUM_GOOD
        | PacketFlags::RX_RSS_HASH
        | PacketFlags::RX_HEADER_SPLIT
        | PacketFlags::RX_PACKET_TYPE
        | ip_good(flow)
        | if tag { PacketFlags::RX_VLAN_STRIPPED } else { PacketFlags::empty() };
    let made = frames.into_iter().map(|frame: Vec<u8>| {
        let hash = rss(&KEY, &frame, flow, kind);
        let seen = Seen {
            header,
            kind: Some(kind.bits()),
            hash: Some(hash),
            queue: Some(hash as usize % 4),
            tci: if tag { TCI } else { 0 },
            ..Seen::new(&frame, told)
        };
        (if tag { with_tag(&frame, TCI) } else { frame }, Some(seen))
    });
    let made = made.collect();
    (packet, made)
}

/// One receive queue and one transmit queue stop, and start again with other rings.
fn restart<P: Side>(bench: &mut Bench<P>, random: &mut Random, ring: u32) {
    let queue = 1 + random.below(3) as usize;
    drop(bench.b.rx.remove(queue));
    bench.b.port.stop_rx_queue(queue as u16).unwrap();
    let again = bench
        .b
        .port
        .start_rx_queue(queue as u16, RxQueueConfig::new(wide_pool(&bench.space, ring as usize + 8), ring));
    bench.b.rx.insert(queue, again.unwrap());
    drop(bench.a.tx.remove(queue));
    bench.a.port.stop_tx_queue(queue as u16).unwrap();
    let again = bench.a.port.start_tx_queue(queue as u16, TxQueueConfig { descriptors: ring });
    bench.a.tx.insert(queue, again.unwrap());
}
