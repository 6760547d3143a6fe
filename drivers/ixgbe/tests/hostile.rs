//! A card that lies, one lie at a time: what the driver makes of it, and that it goes on where it can.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::bench::{Bench, bytes, frame, send};
use common::liar::{Liar, Ring, Write};
use common::{Card, config, eventually, headers, pool, serve, within};
use pagewire_ethdev::nic::testing::Random;
use pagewire_ethdev::{Burst, Packet, Port, RxOffloads, RxQueue, TxQueue};
use pagewire_models::Host;

/// Done, and end of packet, of a received descriptor's second word.
const DD: u64 = 1;
const EOP: u64 = 2;

/// Changes the second word of received descriptors.
struct Status<F>(F);

impl<F: FnMut(u64) -> u64 + Send> Liar for Status<F> {
    fn write(&mut self, what: Write, _: &mut u64, data: &mut [u8]) -> bool {
        if let (Write::Status, Ok(word)) = (what, <[u8; 8]>::try_from(&*data)) {
            data.copy_from_slice(&(self.0)(u64::from_le_bytes(word)).to_le_bytes());
        }
        true
    }
}

/// Two cards, of which the second tells lies from now on about what it receives.
fn bench_with(offloads: RxOffloads, mtu: u16, lie: impl FnMut(u64) -> u64 + Send + Clone + 'static) -> Bench {
    let bench = Bench::spoiled(
        false,
        |space, config| {
            (config.rx_offloads, config.mtu) = (offloads, mtu);
            let split = offloads.contains(RxOffloads::HEADER_SPLIT);
            config.rx[0].headers = split.then(|| headers(space, 512, 64));
            if offloads.contains(RxOffloads::LRO) {
                config.rx[0].pool = pool(space, 4096);
            }
        },
        |card| card.liar = Box::new(Status(lie.clone())),
    );
    bench.b.running.lie(true);
    bench
}

/// Looks without a packet, of more than a tenth of a millisecond each, after which nothing more is to come: a model on a busy machine
/// has to wait for a core.
const QUIET: u32 = 60;

/// Send so many frames, a multiple of 16, and take what comes until nothing does.
fn whatever_comes(bench: &mut Bench, count: usize, len: usize) -> Vec<Packet> {
    let (to, mut got, mut burst) = (bench.b.port.info().mac, Vec::new(), Burst::new(32));
    for _ in 0..count / 16 {
        let packets = bench.packets(&vec![frame(to, len); 16]);
        send(&mut bench.a.tx[0], packets);
        let mut quiet = 0;
        while quiet < QUIET {
            quiet = if bench.b.rx[0].rx_burst(&mut burst) > 0 { 0 } else { quiet + 1 };
            got.extend(burst.drain());
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    got
}

/// The card tells the truth from now on: what is in the ring may go with what it said before, the next ones arrive.
fn works_again(mut bench: Bench) {
    bench.b.running.lie(false);
    whatever_comes(&mut bench, 128, 100);
    bench.pass_all(10);
    bench.finish();
}

#[test]
fn lengths_beyond_the_buffer_are_errors() {
    for (offloads, mtu) in [(RxOffloads::empty(), 1500), (RxOffloads::SCATTER, 9000)] {
        let mut lengths = [1793, 1920, 2048, 0x7fff, 0x8000, 0xffff].into_iter().cycle();
        let mut bench = bench_with(offloads, mtu, move |status| {
            status & !(0xffff << 32) | lengths.next().unwrap_or(0xffff) << 32
        });
        assert_eq!(whatever_comes(&mut bench, 320, 100).len(), 0, "{offloads:?}");
        let stats = bench.b.port.stats();
        assert_eq!((stats.rx_packets, stats.rx_errors), (0, 320), "{offloads:?}");
        works_again(bench);
    }
}

#[test]
fn a_length_within_the_buffer_is_what_the_card_says_it_is() {
    let mut lengths = [0, 1, 59, 1518].into_iter().cycle();
    let mut bench = bench_with(RxOffloads::empty(), 1500, move |status| {
        status & !(0xffff << 32) | lengths.next().unwrap_or(0) << 32
    });
    let got = whatever_comes(&mut bench, 320, 100);
    assert_eq!(got.len(), 320);
    for (packet, expected) in got.iter().zip([0, 1, 59, 1518].into_iter().cycle()) {
        assert_eq!((packet.len(), bytes(packet).len()), (expected, expected));
    }
    drop(got);
    works_again(bench);
}

/// Keeps write-backs for itself, and does the last one first.
#[derive(Default)]
struct Reversed {
    held: Vec<(u64, Vec<u8>)>,
    reversed: Arc<AtomicU64>,
}

impl Liar for Reversed {
    fn write(&mut self, what: Write, iova: &mut u64, data: &mut [u8]) -> bool {
        if matches!(what, Write::Status | Write::Report) {
            self.held.push((*iova, data.to_vec()));
            return false;
        }
        true
    }

    fn polled(&mut self, _: &[Ring], host: &mut dyn Host) {
        self.reversed.fetch_add(self.held.len().saturating_sub(1) as u64, Relaxed);
        for (iova, data) in self.held.drain(..).rev() {
            host.dma_write(iova, &data).unwrap();
            // Long enough for the driver to look.
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}

#[test]
fn done_bits_out_of_order_neither_reorder_nor_lose_anything() {
    let reversed = Arc::<AtomicU64>::default();
    let count = reversed.clone();
    let mut bench = Bench::spoiled(
        false,
        |_, _| (),
        |card| card.liar = Box::new(Reversed { reversed: count.clone(), ..Reversed::default() }),
    );
    bench.a.running.lie(true);
    bench.b.running.lie(true);
    bench.pass_all(20);
    let reversed = reversed.load(Relaxed);
    assert!(reversed > 100, "{reversed} write-backs overtook another");
    bench.finish();
}

#[test]
fn garbage_status_is_bounded() {
    let plain = RxOffloads::all() - (RxOffloads::SCATTER | RxOffloads::HEADER_SPLIT | RxOffloads::LRO);
    for (mode, mtu, longest) in [
        (RxOffloads::empty(), 1500, 1518),
        (RxOffloads::SCATTER, 9000, 9018),
        (RxOffloads::HEADER_SPLIT, 1500, 1518),
        (RxOffloads::LRO, 1500, 0xffff + 14),
    ] {
        let mut random = Random::new();
        let mut bench = bench_with(plain | mode, mtu, move |_| random.next() & !(0xf000 << 32) | DD);
        let mut got = 0;
        for _ in 0..20 {
            let packets = whatever_comes(&mut bench, 96, 100);
            assert!(
                packets.iter().all(|packet| packet.len() <= longest && bytes(packet).len() == packet.len())
            );
            got += packets.len();
        }
        let errors = bench.b.port.stats().rx_errors;
        println!("{mode:?}: of 1920 descriptors {got} packets and {errors} errors");
        assert!(got > 0 && errors > 100, "{mode:?}: {got} packets, {errors} errors");
        works_again(bench);
    }
}

#[test]
fn an_end_of_packet_that_never_comes_holds_no_more_than_a_packet() {
    for (offloads, mtu) in [(RxOffloads::empty(), 1500), (RxOffloads::SCATTER, 9000)] {
        let mut bench = bench_with(offloads, mtu, |status| status & !EOP);
        for _ in 0..20 {
            assert_eq!(whatever_comes(&mut bench, 16, 1000).len(), 0);
            let rx = &mut bench.b.rx[0];
            let posted = rx.posted();
            assert!((64..=64 + 9).contains(&posted), "{posted} fragments");
            rx.pool().trim();
            assert_eq!(rx.pool().stats().inflight(), posted as u64);
        }
        assert_eq!(bench.b.port.stats().rx_errors, 1, "one frame without end");
        works_again(bench);
    }
}

/// Answers reads of registers from a list, in turn.
struct Answers {
    registers: &'static [u64],
    values: &'static [u32],
    next: usize,
}

impl Liar for Answers {
    fn read(&mut self, offset: u64, value: u32) -> u32 {
        if !self.registers.contains(&offset) {
            return value;
        }
        self.next += 1;
        self.values[self.next % self.values.len()]
    }
}

#[test]
fn a_head_beyond_the_ring_is_not_believed() {
    // RDH and TDH, by both names of the first.
    const REGISTERS: &[u64] = &[0x1010, 0x2b00, 0x6010];
    const VALUES: &[u32] = &[64, 65, 0xffff, 0x8000_0000, 0xffff_fffe, u32::MAX, 0, 63];
    let answers = || Answers { registers: REGISTERS, values: VALUES, next: 0 };
    let mut bench = Bench::spoiled(false, |_, _| (), |card| card.liar = Box::new(answers()));
    bench.a.running.lie(true);
    bench.b.running.lie(true);
    let to = bench.b.port.info().mac;
    for count in (0..40).chain([63; 10]) {
        let packets = bench.packets(&vec![frame(to, 100); count]);
        let got = bench.pass(packets, count);
        assert_eq!(got[0].len(), count);
        drop(got);
        let tx = &mut bench.a.tx[0];
        eventually("a report", || {
            tx.reclaim();
            tx.pending() == 0
        });
    }
    bench.finish();
}

/// Statistics registers hold anything.
struct Counters(Random);

impl Liar for Counters {
    fn read(&mut self, offset: u64, value: u32) -> u32 {
        let registers = [0x1430..0x1434, 0x2f50..0x2f5c, 0x3f60..0x4200, 0x87a0..0x87ac, 0xcf90..0xcf94];
        if !registers.into_iter().any(|registers| registers.contains(&offset)) {
            return value;
        }
        match self.0.below(6) {
            0 => 0,
            1 => u32::MAX,
            2 => u32::MAX - 1,
            3 => 1,
            4 => value,
            _ => self.0.next() as u32,
        }
    }
}

#[test]
fn statistics_that_run_backwards_do_not_take_totals_with_them() {
    let running = serve(false, |card| card.liar = Box::new(Counters(Random::new())));
    let (space, mut port) = running.open().unwrap();
    let _queues = port.start(config(&space)).unwrap();
    running.lie(true);
    let mut before = port.xstats();
    for round in 0..200 {
        let stats = port.stats();
        let now = port.xstats();
        for (before, now) in before.iter().zip(&now) {
            let grown = now.value.checked_sub(before.value);
            // Twice what a register of 36 bits holds, or eight of 32.
            assert!(
                grown.is_some_and(|grown| grown < 2 << 36),
                "round {round}: {} from {} to {}",
                now.name,
                before.value,
                now.value
            );
        }
        assert_eq!((stats.rx_packets, stats.tx_packets), (0, 0), "the queues count these themselves");
        before = now;
    }
}

/// Interrupts that never come, or never stop.
struct Interrupts {
    for_each: u32,
    storm: u32,
}

impl Liar for Interrupts {
    fn interrupts(&mut self) -> u32 {
        self.for_each
    }

    fn polled(&mut self, _: &[Ring], host: &mut dyn Host) {
        (0..self.storm).for_each(|_| host.interrupt(0));
    }
}

#[test]
fn links_are_seen_without_interrupts_and_through_any_number_of_them() {
    for (for_each, storm) in [(0, 0), (1000, 100)] {
        let mut bench =
            Bench::spoiled(false, |_, _| (), |card| card.liar = Box::new(Interrupts { for_each, storm }));
        bench.a.running.lie(true);
        bench.b.running.lie(true);
        let to = bench.b.port.info().mac;
        for _ in 0..5 {
            for (plugged, up) in [(false, false), (true, true)] {
                bench.b.running.control.set_cable(plugged);
                eventually("the link", || within(1, || bench.b.port.link()).is_up() == up);
            }
            eventually("the other end's link", || bench.a.port.link().is_up());
            let packets = bench.packets(&vec![frame(to, 100); 40]);
            assert_eq!(bench.pass(packets, 40)[0].len(), 40);
        }
        bench.finish();
    }
}

/// Remembers where received data went, and writes there again when told.
#[derive(Default)]
struct Remembering {
    places: Arc<Mutex<HashSet<u64>>>,
    now: Arc<AtomicBool>,
}

impl Liar for Remembering {
    fn write(&mut self, what: Write, iova: &mut u64, _: &mut [u8]) -> bool {
        if what == Write::Data && !self.now.load(Relaxed) {
            self.places.lock().unwrap().insert(*iova);
        }
        true
    }

    fn polled(&mut self, _: &[Ring], host: &mut dyn Host) {
        if self.now.load(Relaxed) {
            for place in self.places.lock().unwrap().iter() {
                host.dma_write(*place, &[0xdd; 64]).expect_err("memory that was taken back");
            }
        }
    }
}

#[test]
fn dma_to_freed_ranges_is_refused_and_reaches_nobody() {
    let (places, now) = (Arc::<Mutex<HashSet<u64>>>::default(), Arc::<AtomicBool>::default());
    let liar = |card: &mut Card| {
        card.liar = Box::new(Remembering { places: places.clone(), now: now.clone() });
    };
    let mut bench = Bench::spoiled(false, |_, _| (), liar);
    bench.b.running.lie(true);
    assert_eq!(whatever_comes(&mut bench, 320, 100).len(), 320);
    assert!(places.lock().unwrap().len() >= 64);
    // Memory of the next start, which is not where the first one's was.
    let next = config(&bench.space);
    bench.b.rx.clear();
    bench.b.tx.clear();
    bench.b.port.stop().unwrap();
    // Stopped: bus mastering is off, and the pool's memory is unmapped.
    let refused = |bench: &Bench| {
        let before = bench.b.running.refused();
        eventually("refused DMA", || bench.b.running.refused() > before + 1000);
    };
    now.store(true, Relaxed);
    refused(&bench);
    // Started again: bus mastering is on, and it is still not the card's.
    (bench.b.rx, bench.b.tx) = bench.b.port.start(next).unwrap();
    eventually("the link", || bench.b.port.link().is_up());
    refused(&bench);
    bench.pass_all(10);
    bench.finish();
}
