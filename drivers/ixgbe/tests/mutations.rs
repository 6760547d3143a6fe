//! A card that tells any lie, at any time, or a virtual function of one: nothing panics, nothing is lost, everything ends; and another port
//! goes on, the driver of the card itself and another of its functions too.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::flood::Flood;
use common::functions::{Physical, Served, TWO, Virtual, open_vf, serve_on as serve_functions};
use common::mutator::{Mutator, Told};
use common::neighbour::Neighbour;
use common::packets::{Flow, ask, payload, whole};
use common::{eventually, headers, pool, serve_kind, space};
use pagewire_ethdev::nic::testing::{Random, packet};
use pagewire_ethdev::{
    Burst, FlowAction, FlowProtocol, FlowRule, MacAddr, Packet, PacketFlags, Pool, Port, PortConfig,
    RxOffloads, RxQueue, RxQueueConfig, TxOffloads, TxQueue, TxQueueConfig, Waiter, XStat,
};
use pagewire_ixgbe::IxgbeRx;
use pagewire_models::ixgbe::Kind;
use pagewire_pci::AddressSpace;
use pagewire_pool::{PoolMonitor, flush_thread};

/// How long a normal run tells lies, and how many it tells at least, however slow the machine is: most tell several times as many.
/// HOSTILE_MUTATIONS=1000000 has it tell a million, however long that takes.
const NORMALLY: Duration = Duration::from_secs(15);
const LEAST: u64 = 10_000;

/// What is found out about packets.
const TOLD: RxOffloads =
    RxOffloads::all().difference(RxOffloads::SCATTER.union(RxOffloads::HEADER_SPLIT).union(RxOffloads::LRO));

/// Without a packet for this long a started port has heard the last of its card.
const QUIET: Duration = Duration::from_millis(50);

/// What packets can ask for but segmentation.
const REQUESTS: PacketFlags = PacketFlags::TX_IP_CSUM
    .union(PacketFlags::TX_TCP_CSUM)
    .union(PacketFlags::TX_UDP_CSUM)
    .union(PacketFlags::TX_SCTP_CSUM)
    .union(PacketFlags::TX_VLAN_INSERT);

/// Longest that any call may take, by its name: what its waits are limited to, and thousands of register accesses, each of which is a
/// message here, on a machine that does other things as well.
const LIMITS: [(&str, Duration); 9] = [
    ("open", Duration::from_secs(60)),
    ("start", Duration::from_secs(60)),
    ("stop", Duration::from_secs(30)),
    ("drop", Duration::from_secs(30)),
    ("link", Duration::from_secs(60)),
    ("statistics", Duration::from_secs(30)),
    ("filters", Duration::from_secs(30)),
    ("receive", Duration::from_secs(5)),
    ("transmit", Duration::from_secs(5)),
];

/// The longest that each call took, and all of them together.
#[derive(Default)]
struct Times(BTreeMap<&'static str, (Duration, Duration)>);

impl Times {
    fn of<T>(&mut self, name: &'static str, what: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = what();
        let took = start.elapsed();
        let (longest, all) = self.0.entry(name).or_default();
        (*longest, *all) = (took.max(*longest), *all + took);
        let (_, limit) = LIMITS.into_iter().find(|(known, _)| *known == name).expect("a limit for each");
        assert!(took < limit, "{name} took {took:?}");
        result
    }
}

/// What happened.
#[derive(Debug, Default)]
struct Tally {
    cards: u64,
    /// Of each kind.
    kinds: [u64; Kind::ALL.len()],
    not_opened: u64,
    starts: u64,
    not_started: u64,
    not_stopped: u64,
    packets: u64,
    chains: u64,
    sent: u64,
    refused_dma: u64,
    recovered: u64,
}

struct Bench {
    random: Random,
    told: Arc<Told>,
    times: Times,
    tally: Tally,
    space: AddressSpace,
    own: Pool,
    /// Bytes and segments of the longest packets there are.
    longest: (usize, usize),
    /// Headers go to fragments of their own.
    splits: bool,
    /// It is a virtual function: what its driver asks for others may refuse.
    function: bool,
}

#[test]
fn a_card_may_tell_any_lie() {
    let neighbour = Neighbour::start();
    let mut bench = Bench::new(false);
    bench.lives(|bench| {
        bench.card();
        neighbour.assert_forwards();
    });
    assert!(bench.tally.refused_dma > 0);
    neighbour.finish();
}

/// The driver of the card itself is asked for anything, and never told a lie: what becomes of its functions must not hurt it.
#[test]
fn a_virtual_function_may_tell_any_lie() {
    let mut bench = Bench::new(true);
    let (seeds, told) = ([bench.random.next(), bench.random.next()], bench.told.clone());
    let kind = bench.kind();
    let served = serve_functions(kind, 2, Box::new(Flood::new(seeds[0])), |number| match number {
        0 => Box::new(Mutator::new(seeds[1], told.clone())),
        _ => Box::new(()),
    });
    let physical = Physical::start(&served, &TWO, |_, _| ());
    let mut honest = Virtual::start(&served, 1);
    bench.lives(|bench| {
        bench.function(&served);
        bench.receives(&mut honest.rx, 100);
        honest.port.check().expect("nobody has reset the card");
    });
    honest.stop();
    physical.stop();
}

impl Bench {
    fn new(function: bool) -> Bench {
        let space = space();
        Bench {
            random: Random::new(),
            told: Arc::default(),
            times: Times::default(),
            tally: Tally::default(),
            own: pool(&space, 512),
            space,
            longest: (0, 0),
            splits: false,
            function,
        }
    }

    /// Lives of cards until enough lies have been told, which reach what the test is about and leave nothing behind.
    fn lives(&mut self, mut life: impl FnMut(&mut Bench)) {
        let most = std::env::var("HOSTILE_MUTATIONS").ok();
        let most: Option<u64> =
            most.map(|most| most.parse().expect("HOSTILE_MUTATIONS is a number, such as 1000000"));
        let start = Instant::now();
        while self.told.all() < most.unwrap_or(LEAST) || most.is_none() && start.elapsed() < NORMALLY {
            life(self);
        }
        println!("{} lies in {:?}: {:?}", self.told.all(), start.elapsed(), self.tally);
        println!("{:?}", self.told.by_kind());
        println!("calls, the longest and all: {:.1?}", self.times.0);
        let tally = &self.tally;
        assert!(tally.packets > 1000 && tally.sent > 1000 && tally.recovered > 0, "{tally:?}");
        self.own.trim();
        assert_eq!(self.own.stats().inflight(), 0);
    }

    /// A life of the first virtual function: as a card's.
    fn function(&mut self, served: &Served) {
        self.tally.cards += 1;
        let lie = |on| served.lying[0].store(on, Relaxed);
        lie(self.random.below(4) == 0);
        let port = self.times.of("open", || open_vf(served, 0, &self.space));
        match port {
            Ok(port) => self.port(&lie, port),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                self.tally.not_opened += 1;
            }
        }
    }

    /// Any card of the family.
    fn kind(&mut self) -> Kind {
        let kind = self.random.below(Kind::ALL.len() as u64) as usize;
        self.tally.kinds[kind] += 1;
        Kind::ALL[kind]
    }

    /// A card's life: opened, started a few times, and told the truth by in the end.
    fn card(&mut self) {
        self.tally.cards += 1;
        let (kind, seed) = (self.kind(), self.random.next());
        let wire = Box::new(Flood::new(self.random.next()));
        let running = serve_kind(kind, self.random.below(4) == 0, 1, wire, |card| {
            card.liar = Box::new(Mutator::new(seed, self.told.clone()));
        });
        // Most are opened by the truth: a card that lies about its EEPROM comes no further.
        running.lie(self.random.below(4) == 0);
        let port = self.times.of("open", || running.open_in(&self.space));
        match port {
            Ok(port) => self.port(&|on| running.lie(on), port),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                self.tally.not_opened += 1;
            }
        }
        self.tally.refused_dma += running.refused();
    }

    fn port<P>(&mut self, lie: &dyn Fn(bool), mut port: P)
    where
        P: Port<Rx = IxgbeRx>,
    {
        let mut before = port.xstats();
        for _ in 0..=self.random.below(3) {
            lie(self.random.below(3) == 0);
            let config = self.config(&port);
            let pools = config.rx.iter().flat_map(|queue| [Some(&queue.pool), queue.headers.as_ref()]);
            let monitors: Vec<PoolMonitor> = pools.flatten().map(Pool::monitor).collect();
            self.tally.starts += 1;
            match self.times.of("start", || port.start(config)) {
                Ok((rx, tx)) => {
                    lie(true);
                    self.run(&mut port, rx, tx, &mut before);
                    lie(self.random.below(2) == 0);
                    self.tally.not_stopped += u64::from(self.times.of("stop", || port.stop()).is_err());
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    self.tally.not_started += 1;
                }
            }
            flush_thread();
            let out: Vec<u64> = monitors.iter().map(|pool| pool.stats().inflight()).collect();
            assert!(out.iter().all(|&fragments| fragments == 0), "{out:?} fragments are out");
        }
        // Once at least, however few cards there is time for.
        if self.tally.recovered == 0 || self.random.below(2) == 0 {
            lie(false);
            self.recovers(&mut port);
        }
        self.times.of("drop", || drop(port));
    }

    /// Any configuration that a port says is possible.
    fn config(&mut self, port: &impl Port) -> PortConfig {
        const MODES: [RxOffloads; 5] = [
            RxOffloads::empty(),
            RxOffloads::SCATTER,
            RxOffloads::HEADER_SPLIT,
            RxOffloads::LRO,
            RxOffloads::HEADER_SPLIT.union(RxOffloads::SCATTER),
        ];
        let random = &mut self.random;
        // One or two: how many a function is granted may be a lie that it was told.
        let queues = port.info().capabilities.rx_queues.clamp(1, 2).into();
        // Frames come to a function in buffers of whole KiB, of which it takes two, and it can do no more with them.
        let mode = match MODES[random.below(5) as usize] {
            mode if !self.function && port.info().capabilities.rx_offloads.contains(mode) => mode,
            _ => RxOffloads::SCATTER,
        };
        // Sometimes barely enough, so that refills fail.
        let (least, mtu, longest) = match mode {
            RxOffloads::LRO => (64 + 32 * 64, 1500, (0xffff + 14, 64)),
            _ if self.function => (64 + 2, 1500, (1518, 2)),
            _ if mode.contains(RxOffloads::SCATTER) => (64 + 9, 9000, (9018, 10)),
            _ => (64 + 1, 1500, (1518, 2)),
        };
        let fragments = least + random.below(400) as usize;
        let split = mode.contains(RxOffloads::HEADER_SPLIT);
        let queue = || RxQueueConfig {
            headers: split.then(|| headers(&self.space, fragments, 64)),
            ..RxQueueConfig::new(pool(&self.space, fragments), 64)
        };
        let config = PortConfig {
            rx: (0..=random.below(queues)).map(|_| queue()).collect(),
            tx: vec![TxQueueConfig { descriptors: 64 }],
            mtu,
            rx_offloads: mode | if random.below(2) == 0 { RxOffloads::empty() } else { TOLD },
            tx_offloads: TxOffloads::all(),
            promiscuous: !self.function,
            rx_interrupts: port.info().capabilities.rx_interrupts.filter(|_| random.below(3) == 0),
            ..PortConfig::single_queue(pool(&self.space, 64))
        };
        (self.longest, self.splits) = (longest, split);
        config
    }

    /// Forward what the card says it has received, until it has told some thousand lies.
    fn run<P>(&mut self, port: &mut P, mut rx: Vec<IxgbeRx>, mut tx: Vec<P::Tx>, before: &mut Vec<XStat>)
    where
        P: Port<Rx = IxgbeRx>,
    {
        let (told, start) = (self.told.all(), Instant::now());
        let enough = 1000 << self.random.below(7);
        let (mut burst, mut held) = (Burst::new(32), Vec::new());
        // Or until nothing comes any more: the card waits for what it was not given, or we for what it has not said.
        let (mut last, mut packets) = (start, self.tally.packets);
        let mut waiter = Waiter::new(10, Duration::from_millis(1));
        while self.told.all() < told + enough && last.elapsed() < QUIET {
            if self.tally.packets > packets {
                (last, packets) = (Instant::now(), self.tally.packets);
            }
            let had = self.tally.packets;
            for rx in &mut rx {
                self.receive(rx, &mut burst, &mut held);
            }
            if rx.iter().any(|rx| rx.interrupt().is_some()) {
                let interrupts = rx.iter().filter_map(|rx| rx.interrupt());
                // The card may say that it is gone.
                let _ = waiter.polled((self.tally.packets - had) as usize, interrupts);
            }
            for tx in &mut tx {
                self.send(tx, &mut burst, &mut held);
            }
            if self.random.below(1000) == 0 {
                self.control(port, before);
            }
            if self.random.below(50) == 0 {
                self.balance(&mut rx, &tx, &held);
            }
        }
        self.control(port, before);
        held.clear();
        self.balance(&mut rx, &tx, &[]);
        if rx.len() > 1 {
            self.restart(port, &mut rx);
        }
        self.times.of("drop", || drop((rx, tx)));
    }

    /// Stop one queue while the other runs, and start it again.
    fn restart(&mut self, port: &mut impl Port<Rx = IxgbeRx>, rx: &mut Vec<IxgbeRx>) {
        rx.truncate(1);
        // Memory of a queue that does not stop is kept until the port does.
        let stopped = self.times.of("stop", || port.stop_rx_queue(1));
        if stopped.is_ok() {
            let config = RxQueueConfig {
                headers: Some(headers(&self.space, 4096, 64)),
                ..RxQueueConfig::new(pool(&self.space, 4096), 64)
            };
            rx.extend(self.times.of("start", || port.start_rx_queue(1, config)));
        }
        let mut burst = Burst::new(32);
        let until = Instant::now() + QUIET;
        while Instant::now() < until {
            for rx in &mut *rx {
                self.receive(rx, &mut burst, &mut Vec::new());
            }
        }
    }

    fn receive(&mut self, rx: &mut IxgbeRx, burst: &mut Burst, held: &mut Vec<Packet>) {
        self.times.of("receive", || rx.rx_burst(burst));
        for packet in burst.drain() {
            let (segments, bytes) = packet.segments().fold((0, 0), |(count, bytes), segment| {
                let data = segment.as_slice().expect("memory that can be read");
                // Every byte can be.
                std::hint::black_box(data.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
                (count + 1, bytes + data.len())
            });
            assert_eq!((segments, bytes), (packet.segment_count(), packet.len()));
            assert!(bytes <= self.longest.0 && segments <= self.longest.1, "{:?}: {packet:?}", self.longest);
            self.tally.packets += 1;
            self.tally.chains += u64::from(segments > 1);
            held.push(packet);
        }
    }

    /// What was received, and packets that ask for something.
    fn send(&mut self, tx: &mut impl TxQueue, burst: &mut Burst, held: &mut Vec<Packet>) {
        if self.random.below(4) == 0 && self.own.available() > 4 {
            held.push(self.request());
        }
        let keep = if self.random.below(4) == 0 { self.random.below(24) as usize } else { 0 };
        while held.len() > keep
            && burst.room() > 0
            && let Some(packet) = held.pop()
        {
            burst.push(packet).expect("there is room");
        }
        self.tally.sent += self.times.of("transmit", || tx.tx_burst(burst)) as u64;
        if self.random.below(8) == 0 {
            self.times.of("transmit", || tx.reclaim());
        }
        // What the card does not send is dropped.
        burst.clear();
    }

    /// A packet that asks for something, though perhaps not for what can be.
    fn request(&mut self) -> Packet {
        let random = &mut self.random;
        if random.below(2) == 0 {
            let flow = Flow::new(random.below(2) == 0);
            let mut packet = self.own.alloc_packet().expect("some are there");
            packet
                .extend_from_slice(&whole(flow, &payload(random.below(1500) as usize)))
                .expect("it has room");
            ask(&mut packet, flow, 1 + random.below(600) as u16);
            return packet;
        }
        let mut packet = packet(&mut self.own, &vec![100; 1 + random.below(3) as usize]);
        let asked = PacketFlags::from_bits_truncate(random.next() as _) & REQUESTS;
        packet.set_flags(packet.flags() | asked);
        packet.set_header_lens(14 + random.below(3) as u16 * 2, 20 * random.below(3) as u16);
        packet
    }

    /// Calls that are not of the hot path.
    fn control(&mut self, port: &mut impl Port, before: &mut Vec<XStat>) {
        let now = self.times.of("statistics", || {
            port.stats();
            port.xstats()
        });
        for old in before.iter() {
            let new = now.iter().find(|new| new.name == old.name).expect("counters stay");
            assert!(new.value >= old.value, "{} from {} to {}", old.name, old.value, new.value);
        }
        *before = now;
        self.times.of("link", || port.link());
        let address = MacAddr([2, 0, 0, 0, 0, self.random.next() as u8]);
        self.times.of("filters", || {
            if self.function {
                // The driver of the card may refuse, or never have been heard.
                let _ = port.set_multicast(&[]).and_then(|()| port.set_mac(address));
                return;
            }
            port.set_promiscuous(true).and_then(|()| port.set_multicast(&[])).expect("they cannot fail");
            port.set_mac(address).expect("an address that may be");
        });
        // These may: what the card has of them is read before it is changed.
        let rule = FlowRule { protocol: Some(FlowProtocol::Tcp), ..FlowRule::new(FlowAction::Queue(0)) };
        let _ = self.times.of("filters", || port.set_flows(&[rule]).and_then(|()| port.set_flows(&[])));
        // It may have been pulled out.
        let _ = port.check();
    }

    /// A card that tells the truth works, whatever it said before.
    fn recovers<P>(&mut self, port: &mut P)
    where
        P: Port<Rx = IxgbeRx>,
    {
        // A function's is answered by a thread, which a machine with much to do may keep from it for a second.
        let tries = if self.function { 3 } else { 1 };
        let mut start = || {
            let config = self.config(port);
            self.times.of("start", || port.start(config))
        };
        let mut started = start();
        for _ in 1..tries {
            started = started.or_else(|_| start());
        }
        let (mut rx, tx) = started.expect("a card that works");
        self.receives(&mut rx, 1000);
        drop((rx, tx));
        port.stop().expect("a card that works");
        self.tally.recovered += 1;
    }

    fn receives(&self, rx: &mut [IxgbeRx], least: usize) {
        let (mut burst, mut packets) = (Burst::new(32), 0);
        eventually("so many packets", || {
            for rx in &mut *rx {
                packets += rx.rx_burst(&mut burst);
                burst.clear();
            }
            packets > least
        });
    }

    /// Every fragment that is out is in a ring or in our hands. Where headers are split off some are of pools that only the port has.
    fn balance(&mut self, rx: &mut [IxgbeRx], tx: &[impl TxQueue], held: &[Packet]) {
        if self.splits {
            return;
        }
        let held: usize = held.iter().map(Packet::segment_count).sum();
        let rings =
            rx.iter().map(RxQueue::posted).sum::<usize>() + tx.iter().map(TxQueue::pending).sum::<usize>();
        self.own.trim();
        let mut out = self.own.stats().inflight();
        for rx in rx {
            rx.pool().trim();
            out += rx.pool().stats().inflight();
        }
        assert_eq!(out, (rings + held) as u64, "fragments out, and in rings and packets");
    }
}
