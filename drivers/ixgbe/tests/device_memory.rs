//! Payload that the card writes into another device's memory, past the CPU: a second function's BAR, which a process of its own serves.

// A provider vouches for its memory.
#![allow(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use common::bench::{Bench, bytes, count, frame, receive, send};
use common::memory::{End, Memory, Process, serve_if_asked};
use common::packets::{ETHERNET, Flow, UDP, ask, payload, segments, tcp_header, uncut};
use common::{eventually, headers, space};
use pagewire_ethdev::{Burst, Packet, PacketFlags, Pool, Port, RxOffloads, RxQueue, TxOffloads, TxQueue};
use pagewire_hugepages::Segment;
use pagewire_pci::AddressSpace;
use pagewire_pool::{
    DeviceMemory, Error, Life, PageSize, PoolConfig, PoolMonitor, Provider, ProviderError, flush_thread,
};

/// What the process runs that serves the second device. In the process of the tests: without it there is nothing to open.
#[test]
fn memory_process() {
    if serve_if_asked() {
        return;
    }
    let error = space().open_vfio_user("/nonexistent/memory".as_ref()).err().expect("no device");
    assert!(error.to_string().contains("/nonexistent/memory"), "{error}");
}

/// All fragment, from its first byte on: devices like what they work on aligned.
fn of_payload(fragments: usize) -> PoolConfig {
    PoolConfig {
        name: "payload".into(),
        fragments,
        headroom: 0,
        backing: PageSize::Size4K,
        ..PoolConfig::default()
    }
}

/// Two ports and a cable. The first has host memory alone; the second splits, and what follows the headers goes to the device.
struct Split {
    bench: Bench,
    memory: Arc<DeviceMemory>,
    device: Memory,
    headers: PoolMonitor,
}

/// What a test changes of it.
struct Options<'a> {
    mapped: bool,
    /// The device is opened in the cards' space. Else it has one of its own.
    one_space: bool,
    mtu: u16,
    payload: &'a dyn Fn(&AddressSpace, Arc<DeviceMemory>) -> Pool,
}

const USUAL: Options<'_> = Options {
    mapped: false,
    one_space: false,
    mtu: 1500,
    payload: &|space, memory| Pool::with_provider(&of_payload(512), space, memory).unwrap(),
};

impl Split {
    fn new(process: &Process, options: &Options<'_>) -> Split {
        let (ports, second) = (Cell::new(0), RefCell::new(None));
        let bench = Bench::new(options.mapped, |cards, config| {
            config.mtu = options.mtu;
            config.tx_offloads = TxOffloads::all();
            config.rx_offloads = RxOffloads::SCATTER | RxOffloads::L4_CSUM | RxOffloads::IP_CSUM;
            if ports.replace(1) == 0 {
                return;
            }
            let device = if options.one_space { process.open(cards) } else { process.open(&space()) };
            let (memory, headers) = (Arc::new(device.provider()), headers(cards, 256, 64));
            config.rx[0].pool = (options.payload)(cards, memory.clone());
            *second.borrow_mut() = Some((memory, device, headers.monitor()));
            config.rx_offloads |= RxOffloads::HEADER_SPLIT;
            config.rx[0].headers = Some(headers);
        });
        let (memory, device, headers) = second.into_inner().expect("there are two ports");
        Split { bench, memory, device, headers }
    }

    /// Where in the device's memory a segment's data is.
    fn place(&mut self, segment: &Packet) -> u64 {
        let segments = self.bench.b.rx[0].pool().segments();
        let mut offsets = segments.iter().filter_map(|memory| {
            let first = self.bench.space.iova(memory, 0).expect("a pool's segment is mapped");
            let inside = segment.iova().checked_sub(first).filter(|&inside| inside < memory.len() as u64)?;
            Some(self.memory.offset(memory).expect("it came from there") + inside)
        });
        offsets.next().expect("a segment of the pool's")
    }

    /// Checks a packet that is split after `at` bytes: what the CPU sees, what it does not, and what the device does.
    fn check(&mut self, packet: &Packet, data: &[u8], at: usize) {
        assert!(packet.flags().contains(PacketFlags::RX_HEADER_SPLIT));
        assert_eq!((packet.len(), packet.as_slice()), (data.len(), Some(&data[..at])));
        let mut copied = Vec::new();
        let error = packet.copy_to(&mut copied).expect_err("it cannot be read");
        assert!(matches!(error, Error::Unreadable { segment: 1 }), "{error}");
        assert_eq!(copied, data[..at]);
        let mut rest = &data[at..];
        for segment in packet.segments().skip(1) {
            assert!(segment.as_slice().is_none() && !segment.is_readable());
            let (here, later) = rest.split_at(segment.data_len().into());
            let place = self.place(segment);
            assert_eq!(self.device.sees(place, here.len()), here, "at {place:#x} of the device");
            rest = later;
        }
        assert_eq!(rest, [0u8; 0]);
    }

    /// Send a packet back from the second port; what comes out at the first.
    fn back(&mut self, packet: Packet) -> Vec<u8> {
        send(&mut self.bench.b.tx[0], vec![packet]);
        let got = receive(&mut self.bench.a.rx, 1).remove(0).remove(0);
        assert!(got.segments().all(Packet::is_readable));
        bytes(&got)
    }

    /// All that was dropped or sent is back in the second port's pool of payload.
    fn settle(&mut self) {
        let tx = &mut self.bench.b.tx[0];
        eventually("reports of all that was sent", || {
            tx.reclaim();
            tx.pending() == 0
        });
        self.bench.b.rx[0].pool().trim();
    }

    /// Everything stops, and nothing is left anywhere.
    fn finish(self) {
        let Split { bench, headers, .. } = self;
        bench.finish();
        flush_thread();
        assert_eq!((headers.stats().inflight(), headers.life()), (0, Life::Gone));
    }
}

/// Frames, and where each is split.
fn kinds() -> Vec<(Vec<u8>, usize)> {
    let both = [Flow::new(false), Flow::new(true)].into_iter();
    let flows = both.flat_map(|flow| [1, 100, 1400].map(|len| (flow, payload(len))));
    flows
        .flat_map(|(flow, data)| {
            let (tcp, udp) = (flow.tcp(&tcp_header(1), &data), flow.udp(&data));
            [(tcp, flow.l4() + 20), (udp, flow.l4() + UDP)]
        })
        .map(|(mut data, at)| {
            // What is padding on the wire is data here.
            data.resize(data.len().max(60), 0);
            (data, at)
        })
        .collect()
}

#[test]
fn payload_is_in_the_devices_memory_and_goes_out_from_there() {
    for (mapped, one_space) in [(false, false), (true, false), (true, true)] {
        let process = Process::start("memory_process");
        let mut split = Split::new(&process, &Options { mapped, one_space, ..USUAL });
        // Many times around the ring.
        for round in 0..12 {
            for (mut data, at) in kinds() {
                let packet = split.bench.pass_frame(&data);
                split.check(&packet, &data, at);
                let mut packet = packet;
                let header = packet.as_mut_slice().expect("host memory");
                // The application changes the header, the device the payload.
                header[..12].rotate_left(6);
                data[..12].rotate_left(6);
                if data.len() - at >= 4 {
                    let place = split.place(packet.segments().nth(1).expect("payload"));
                    split.device.write(place, 0x1234_5678 + round);
                    data[at..at + 4].copy_from_slice(&(0x1234_5678 + round).to_le_bytes());
                }
                assert_eq!(split.back(packet), data);
            }
            // Of what is no IP the card finds no headers, and the CPU sees nothing.
            let other = frame(split.bench.b.port.info().mac, 200);
            let packet = split.bench.pass_frame(&other);
            assert_eq!((packet.len(), packet.segment_count(), packet.as_slice()), (200, 1, None));
            assert!(matches!(packet.copy_to(&mut Vec::new()), Err(Error::Unreadable { segment: 0 })));
            let place = split.place(&packet);
            assert_eq!(split.device.sees(place, 200), other);
            assert_eq!(split.back(packet), other);
        }
        let (a, b) = (split.bench.a.port.stats(), split.bench.b.port.stats());
        assert_eq!((b.rx_packets, b.rx_bytes, b.rx_errors), (a.tx_packets, a.tx_bytes, 0));
        assert_eq!((a.rx_packets, a.rx_bytes, a.rx_errors), (b.tx_packets, b.tx_bytes, 0));
        split.settle();
        let stats = split.bench.b.rx[0].pool().stats();
        assert_eq!(stats.inflight(), 64, "those in the ring");
        split.finish();
    }
}

/// The card's own offloads over bytes that no CPU on the way can read: checksums, and TCP segments cut out of a jumbo frame.
#[test]
fn checksums_and_segments_are_made_of_payload_in_the_devices_memory() {
    let process = Process::start("memory_process");
    let mut split = Split::new(&process, &Options { mtu: 9000, ..USUAL });
    for v6 in [false, true] {
        let (flow, mss) = (Flow::new(v6), 1440);
        for len in [100, 1400, 2040, 2048, 8000] {
            let data = payload(len);
            // With another port number on the way back, which changes the sum.
            let there = flow.udp(&data);
            let packet = split.bench.chain(&there);
            let mut packet = split.bench.pass_one(packet);
            split.check(&packet, &there, flow.l4() + UDP);
            let header = packet.as_mut_slice().expect("host memory");
            header[flow.l4()..flow.l4() + 2].copy_from_slice(&4242u16.to_be_bytes());
            packet.set_flags(PacketFlags::TX_UDP_CSUM);
            packet.set_header_lens(ETHERNET as u16, flow.l3() as u16);
            let expected = Flow { ports: (4242, flow.ports.1), ..flow }.udp(&data);
            assert_eq!(split.back(packet), expected, "IPv6 {v6}, {len} bytes");
        }
        let data = payload(8000);
        let there = uncut(flow, &data);
        let packet = split.bench.chain(&there);
        let mut packet = split.bench.pass_one(packet);
        split.check(&packet, &there, flow.l4() + 20);
        ask(&mut packet, flow, mss);
        let expected = segments(flow, &data, mss.into());
        send(&mut split.bench.b.tx[0], vec![packet]);
        let got = receive(&mut split.bench.a.rx, expected.len()).remove(0);
        assert_eq!(got.iter().map(bytes).collect::<Vec<_>>(), expected, "IPv6 {v6}");
    }
    assert_eq!(count(&mut split.bench.a.port, "rx_checksum_errors"), 0);
    split.finish();
}

/// Segments that the pool in question begins with.
const FIRST: usize = 3;

/// Numbers below a bound, the same in every run.
struct Random(AtomicU32);

impl Random {
    fn below(&self, bound: u32) -> usize {
        let next = self.0.load(Relaxed).wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0.store(next, Relaxed);
        ((next >> 8) % bound) as usize
    }
}

/// Device memory of which there mostly is none, but for what a pool begins with.
struct Moody {
    memory: Arc<DeviceMemory>,
    random: Random,
    given: AtomicUsize,
    most: AtomicUsize,
    refused: AtomicUsize,
}

// SAFETY: its segments come from `DeviceMemory`, each once.
unsafe impl Provider for Moody {
    fn describe(&self) -> String {
        format!("sometimes {}", self.memory.describe())
    }

    fn allocate(&self, len: usize) -> Result<Arc<Segment>, ProviderError> {
        if self.given.load(Relaxed) >= FIRST && self.random.below(4) > 0 {
            self.refused.fetch_add(1, Relaxed);
            return Err("not now".into());
        }
        let segment = self.memory.allocate(len)?;
        let given = self.given.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(given, Relaxed);
        Ok(segment)
    }

    fn release(&self, segment: Arc<Segment>) {
        self.given.fetch_sub(1, Relaxed);
        self.memory.release(segment);
    }
}

/// A pool that grows while packets come in, from a provider that mostly has nothing to give, beside few headers: frames wait, none
/// is lost, and what was given goes back.
#[test]
fn packets_wait_while_the_device_has_no_memory_to_give() {
    let process = Process::start("memory_process");
    let provider = RefCell::new(None);
    let payload_pool = |space: &AddressSpace, memory| {
        let counts = || AtomicUsize::new(0);
        let (random, given, most, refused) = (Random(1.into()), counts(), counts(), counts());
        let moody = Arc::new(Moody { memory, random, given, most, refused });
        *provider.borrow_mut() = Some(moody.clone());
        let (max_fragments, segment_size) = (13 * 32, 32 * 2048);
        let config =
            PoolConfig { max_fragments, segment_size, grow_when_empty: true, ..of_payload(FIRST * 32) };
        Pool::with_provider(&config, space, moody).unwrap()
    };
    let mut split = Split::new(&process, &Options { payload: &payload_pool, ..USUAL });
    let frame =
        |number: usize| Flow { hosts: (number as u8, 2), ..Flow::new(false) }.udp(&payload(200 + number));
    let frames: Vec<_> = (0..64).map(frame).collect();
    let (mut held, mut burst, random) = (VecDeque::new(), Burst::new(8), Random(7.into()));
    for round in 0..150 {
        // The oldest leave, in some rounds nearly all of them.
        let keep = random.below(160);
        let packets = split.bench.packets(&frames);
        send(&mut split.bench.a.tx[0], packets);
        let mut got = 0;
        eventually("every frame", || {
            split.bench.b.rx[0].rx_burst(&mut burst);
            for packet in burst.drain() {
                held.push_back((got, packet));
                got += 1;
            }
            while held.len() > keep {
                let (number, packet): (usize, Packet) = held.pop_front().expect("some are held");
                assert_eq!(packet.as_slice(), Some(&frames[number][..42]));
                if random.below(8) == 0 {
                    split.check(&packet, &frames[number], 42);
                }
            }
            got == frames.len()
        });
        if round % 10 == 9 {
            held.clear();
            split.bench.b.rx[0].pool().shrink(FIRST * 32);
        }
    }
    held.clear();
    let stats = split.bench.b.port.stats();
    assert_eq!((stats.rx_packets, stats.rx_errors, stats.rx_missed), (150 * 64, 0, 0));
    let provider = provider.into_inner().expect("a pool was made of it");
    let (most, refused) = (provider.most.load(Relaxed), provider.refused.load(Relaxed));
    assert!(most > FIRST && refused > 0 && stats.rx_nombuf > 0, "{most} {refused} {stats:?}");
    split.finish();
    assert_eq!(provider.given.load(Relaxed), 0, "all of it is the device's again");
}

/// The device goes while its memory is posted and in packets. What is there stays usable and comes home; nothing new is to be had, and
/// it is said why.
#[test]
fn a_device_that_goes_first_is_an_error_for_what_is_new_and_none_for_what_is_out() {
    for (end, one_space) in [(End::Killed, false), (End::Closed, false), (End::Killed, true)] {
        let mut process = Process::start("memory_process");
        let pool = |space: &AddressSpace, memory: Arc<DeviceMemory>| {
            let config = PoolConfig { max_fragments: 512, segment_size: 256 << 10, ..of_payload(128) };
            Pool::with_provider(&config, space, memory).unwrap()
        };
        let mut split = Split::new(&process, &Options { one_space, payload: &pool, ..USUAL });
        let data = Flow::new(false).udp(&payload(1000));
        let mut held: Vec<_> = (0..16).map(|_| split.bench.pass_frame(&data)).collect();
        split.check(&held[0], &data, 42);
        split.bench.b.rx[0].pool().grow().expect("memory of a device that is there");

        process.end(end);
        // What is asked of it.
        assert_eq!(split.device.sees(0, 4), [0xff; 4], "as a card that was pulled out");
        let said = [
            split.bench.b.rx[0].pool().grow().expect_err("no more of it").to_string(),
            split.device.bar.memory(0..4096).expect_err("no memory of it").to_string(),
            space().open_vfio_user(&process.path).err().expect("nobody is there").to_string(),
        ];
        assert!(
            said[0].contains("pool \"payload\": 1048576 bytes of a BAR: asking for the file of BAR 2"),
            "{}",
            said[0]
        );
        for (said, why) in
            said.iter().zip(["the connection was closed", "the connection was closed", "VERSION"])
        {
            assert!(said.contains(why) && said.contains(process.path.to_str().unwrap()), "{said}");
        }
        // The cards go on: with headers, and with memory that has lost its device.
        held.extend((0..16).map(|_| split.bench.pass_frame(&data)));
        assert!(held.iter().all(|packet| packet.as_slice() == Some(&data[..42])));
        assert_eq!(split.back(held.pop().expect("32 are held")), data);
        let mut host = common::pool(&split.bench.space, 64);
        assert!(host.alloc_packet().is_some(), "a dead neighbour is not in the way");
        drop(host);

        // The port stops, and the last packets go, one of them on another thread.
        let monitor = split.bench.b.rx[0].pool().monitor();
        let (last, headers) = (held.pop().expect("31 are held"), split.headers.clone());
        drop(held);
        split.bench.stop();
        assert_eq!((monitor.life(), monitor.stats().inflight()), (Life::Orphan, 1));
        std::thread::spawn(move || drop(last)).join().unwrap();
        assert_eq!((monitor.life(), monitor.stats().inflight()), (Life::Gone, 0));
        assert_eq!((headers.life(), headers.stats().inflight()), (Life::Gone, 0));
    }
}
