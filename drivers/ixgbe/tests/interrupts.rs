//! Sleeping until packets come: each queue's interrupt, its moderation, and what may be wrong with interrupts.

mod common;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::bench::{Bench, count, receive, send};
use common::liar::{Liar, Ring};
use common::packets::{Flow, payload, segments};
use common::sleeper::Sleeper;
use common::{Card, config, eventually, pool, serve_as, space};
use pagewire_ethdev::{
    Burst, Error, FlowAction, FlowRule, Link, Port, PortConfig, PortEvents, RxOffloads, RxQueue,
    RxQueueConfig,
};
use pagewire_ixgbe::IxgbeRx;
use pagewire_models::Host;
use pagewire_models::ixgbe::{Clock, Config};
use pagewire_models::wire::Open;
use pagewire_pci::{AddressSpace, wait_any};

const QUEUES: u16 = 4;
/// Longer than any test takes: who sleeps for as long has missed an interrupt.
const FOR_EVER: Duration = Duration::from_secs(1000);
const PATIENCE: Duration = Duration::from_secs(10);

fn interrupting(interval: Duration) -> impl Fn(&AddressSpace, &mut PortConfig) {
    move |space, config| {
        for _ in 1..QUEUES {
            config.rx.push(RxQueueConfig::new(pool(space, 512), 64));
        }
        config.rx_interrupts = Some(interval);
    }
}

/// Frames for queue n of the second port go to port 7000 + n.
fn steer(bench: &mut Bench) {
    let rule =
        |queue| FlowRule { destination_port: Some(7000 + queue), ..FlowRule::new(FlowAction::Queue(queue)) };
    bench.b.port.set_flows(&(0..QUEUES).map(rule).collect::<Vec<_>>()).unwrap();
}

/// Send a frame to a queue of the second port.
fn send_to(bench: &mut Bench, queue: u16) {
    let data = Flow { ports: (1, 7000 + queue), ..Flow::new(false) }.udp(&payload(100));
    let packets = bench.packets([&data]);
    send(&mut bench.a.tx[0], packets);
}

/// Waits no longer than for a failing test to be patient enough.
fn readable(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    wait_any(&[fd], Some(limit.min(PATIENCE))).unwrap()
}

fn interrupted(queue: &IxgbeRx, limit: Duration) -> bool {
    readable(queue.interrupt().unwrap().as_fd(), limit)
}

#[test]
fn each_queue_wakes_its_own_waiter_and_no_packet_is_slept_over() {
    for mapped in [false, true] {
        let mut bench = Bench::new(mapped, interrupting(Duration::ZERO));
        steer(&mut bench);
        let queues = std::mem::take(&mut bench.b.rx);
        let sleepers: Vec<_> = queues.into_iter().map(|queue| Sleeper::start(queue, 20, FOR_EVER)).collect();
        // All asleep, one packet: one wakes, once, and the card has sent one message.
        for round in 0..5 {
            for queue in 0..QUEUES {
                sleepers.iter().for_each(Sleeper::fall_asleep);
                let messages = bench.b.running.counters.interrupts.load(Relaxed);
                send_to(&mut bench, queue);
                let sleeper = &sleepers[usize::from(queue)];
                eventually("the packet", || sleeper.received() == round + 1);
                sleeper.fall_asleep();
                assert_eq!(bench.b.running.counters.interrupts.load(Relaxed), messages + 1);
                for (number, sleeper) in (0..).zip(&sleepers) {
                    assert_eq!(
                        sleeper.stats().wake_ups,
                        round + u64::from(number <= queue),
                        "queue {number}"
                    );
                }
            }
        }
        // At any time between arming and sleeping: whoever misses one sleeps for ever.
        for round in 0..300 {
            for queue in 0..QUEUES {
                send_to(&mut bench, queue);
            }
            if round % 3 > 0 {
                eventually("all packets", || sleepers.iter().all(|sleeper| sleeper.received() == round + 6));
            }
            for _ in 0..round * 37 % 1000 {
                std::hint::spin_loop();
            }
        }
        eventually("all packets", || sleepers.iter().all(|sleeper| sleeper.received() == 305));
        for (queue, sleeper) in (0..).zip(sleepers) {
            sleeper.fall_asleep();
            sleeper.stop.store(true, Relaxed);
            send_to(&mut bench, queue);
            let stats = sleeper.stats();
            assert_eq!(stats.time_outs, 0);
            assert!(stats.wake_ups <= 306 && stats.polls > stats.sleeps, "{stats:?}");
            bench.b.rx.push(sleeper.finish().0);
        }
        bench.finish();
    }
}

/// By the card's clock: a packet's interrupt comes at once after a time of silence, else with the end of the interval.
#[test]
fn moderation_keeps_a_packet_waiting_for_its_interval_and_no_longer() {
    const ASKED: Duration = Duration::from_micros(100);
    /// The next shorter time that the card can count to.
    const INTERVAL: u64 = 48 * 2048;
    for mapped in [false, true] {
        let time = Arc::<AtomicU64>::default();
        let card = Config { mapped, clock: Clock::Set(time.clone()), ..Config::default() };
        let mut bench = Bench::watched(card, interrupting(ASKED), |_| ()).0;
        steer(&mut bench);
        for queue in 0..QUEUES {
            let number = usize::from(queue);
            let arm = |bench: &mut Bench| {
                bench.b.rx[number].interrupt().unwrap().arm().unwrap();
                assert_eq!(bench.b.rx[number].rx_burst(&mut Burst::new(4)), 0);
            };
            time.fetch_add(1_000_000, Relaxed);
            arm(&mut bench);
            send_to(&mut bench, queue);
            assert!(interrupted(&bench.b.rx[number], FOR_EVER), "at once");
            assert_eq!(receive(&mut bench.b.rx, 1)[number].len(), 1);
            arm(&mut bench);
            let good = count(&mut bench.b.port, "rx_good_packets");
            send_to(&mut bench, queue);
            eventually("the frame", || count(&mut bench.b.port, "rx_good_packets") == good + 1);
            for step in [0, INTERVAL - 1] {
                time.fetch_add(step, Relaxed);
                assert!(!interrupted(&bench.b.rx[number], Duration::from_millis(10)), "too soon");
            }
            time.fetch_add(1, Relaxed);
            assert!(interrupted(&bench.b.rx[number], FOR_EVER));
            assert!(Duration::from_nanos(INTERVAL) <= ASKED);
            assert_eq!(receive(&mut bench.b.rx, 1)[number].len(), 1);
            // Masked by itself: without arming nothing comes, however long.
            send_to(&mut bench, queue);
            assert_eq!(receive(&mut bench.b.rx, 1)[number].len(), 1);
            time.fetch_add(1_000_000, Relaxed);
            arm(&mut bench);
            assert!(
                !interrupted(&bench.b.rx[number], Duration::from_millis(10)),
                "what came before is forgotten"
            );
        }
        bench.finish();
    }
}

/// Rings of packets that are put together end them with the interval of their own vector.
#[test]
fn coalesced_packets_interrupt_too() {
    for interval in [Duration::ZERO, Duration::from_micros(100)] {
        let mut bench = Bench::new(false, |space, config| {
            interrupting(interval)(space, config);
            config.rx.iter_mut().for_each(|queue| *queue = RxQueueConfig::new(pool(space, 1024), 64));
            config.rx_offloads = RxOffloads::LRO;
        });
        let flow = Flow::new(false);
        for queue in 0..usize::from(QUEUES) {
            let rule = FlowRule { source_port: Some(1000), ..FlowRule::new(FlowAction::Queue(queue as u16)) };
            bench.b.port.set_flows(&[rule]).unwrap();
            let sleeper = Sleeper::start(bench.b.rx.remove(queue), 20, FOR_EVER);
            sleeper.fall_asleep();
            let frames = segments(flow, &payload(6000), 1000);
            let packets = bench.packets(&frames[..5]);
            send(&mut bench.a.tx[0], packets);
            eventually("some of it", || sleeper.received() > 0);
            sleeper.stop.store(true, Relaxed);
            eventually("the end", || {
                let packets = bench.packets(&frames[5..]);
                send(&mut bench.a.tx[0], packets);
                sleeper.thread.is_finished()
            });
            bench.b.rx.insert(queue, sleeper.finish().0);
        }
        bench.b.rx.iter_mut().for_each(|queue| while queue.rx_burst(&mut Burst::new(32)) > 0 {});
        bench.finish();
    }
}

#[test]
fn an_idle_port_takes_less_than_a_hundredth_of_a_processor() {
    for mapped in [false, true] {
        let mut bench = Bench::new(mapped, interrupting(Duration::from_micros(20)));
        steer(&mut bench);
        let queues = std::mem::take(&mut bench.b.rx);
        let start = Instant::now();
        let sleepers: Vec<_> =
            queues.into_iter().map(|queue| Sleeper::start(queue, 1000, Duration::from_millis(10))).collect();
        std::thread::sleep(Duration::from_secs(2));
        // The first packet after that is there before its waiter has slept for its limit and more.
        let slept: Vec<_> = sleepers.iter().map(Sleeper::stats).collect();
        (0..QUEUES).for_each(|queue| send_to(&mut bench, queue));
        eventually("packets", || sleepers.iter().all(|sleeper| sleeper.received() == 1));
        let elapsed = start.elapsed();
        for (sleeper, slept) in sleepers.into_iter().zip(slept) {
            assert!(slept.sleeps > 20, "{slept:?}");
            let (queue, took) = sleeper.finish();
            println!("mapped {mapped}: {took:?} of {elapsed:?}, {slept:?}");
            assert!(took < elapsed / 100, "{took:?} of {elapsed:?}");
            bench.b.rx.push(queue);
        }
        bench.finish();
    }
}

/// Interrupts that do not come, or that come all the time.
struct Bells {
    /// For one that the card sends.
    each: u32,
    /// Besides, with every look that the card takes at its rings: vectors up to this.
    storm: u16,
}

impl Liar for Bells {
    fn interrupts(&mut self) -> u32 {
        self.each
    }
    fn polled(&mut self, _: &[Ring], host: &mut dyn Host) {
        (0..self.storm).for_each(|vector| host.interrupt(vector));
    }
}

fn lying(each: u32, storm: u16) -> Bench {
    let liar = |card: &mut Card| card.liar = Box::new(Bells { each, storm });
    let mut bench = Bench::spoiled(false, interrupting(Duration::ZERO), liar);
    steer(&mut bench);
    bench.b.running.lie(true);
    bench
}

#[test]
fn without_interrupts_packets_wait_for_the_limit() {
    let mut bench = lying(0, 0);
    let sleeper = Sleeper::start(bench.b.rx.remove(1), 20, Duration::from_millis(5));
    for round in 0..20 {
        sleeper.fall_asleep();
        send_to(&mut bench, 1);
        eventually("the packet", || sleeper.received() == round + 1);
    }
    let stats = sleeper.stats();
    assert!(stats.wake_ups == 0 && stats.time_outs >= 20, "{stats:?}");
    bench.b.rx.insert(1, sleeper.finish().0);
    bench.finish();
}

#[test]
fn a_storm_of_interrupts_wakes_nobody_for_long() {
    // Of the queues, and of the port's events.
    let mut bench = lying(3, QUEUES + 1);
    let sleepers: Vec<_> = std::mem::take(&mut bench.b.rx)
        .into_iter()
        .map(|queue| Sleeper::start(queue, 20, Duration::from_millis(2)))
        .collect();
    for round in 0..10 {
        std::thread::sleep(Duration::from_millis(20));
        (0..QUEUES).for_each(|queue| send_to(&mut bench, queue));
        eventually("packets", || sleepers.iter().all(|sleeper| sleeper.received() == round + 1));
        // The events' interrupt says nothing of itself.
        assert_eq!(bench.b.port.events() - PortEvents::LINK, PortEvents::empty());
    }
    for sleeper in sleepers {
        let stats = sleeper.stats();
        // Eight in vain before it stops listening, and the one that a packet came with, each round.
        assert!(stats.wake_ups <= 9 * 11 && stats.time_outs > 20, "{stats:?}");
        bench.b.rx.push(sleeper.finish().0);
    }
    bench.b.running.lie(false);
    bench.finish();
}

/// A card that reaches for the wrong memory once, and one that says that its own is broken.
struct Troubled {
    astray: Arc<AtomicBool>,
    ecc: Arc<AtomicU32>,
}

const EICS: u64 = 0x808;
const ECC: u32 = 1 << 28;

impl Liar for Troubled {
    fn read(&mut self, offset: u64, value: u32) -> u32 {
        if offset == EICS { value | self.ecc.load(Relaxed) } else { value }
    }
    fn fetched(&mut self, _: u64, data: &mut [u8]) {
        // Descriptors, no packet: their first word is where the packet is.
        if data.len().is_multiple_of(16) && self.astray.swap(false, Relaxed) {
            data[..8].copy_from_slice(&0x10u64.to_le_bytes());
        }
    }
    fn polled(&mut self, _: &[Ring], host: &mut dyn Host) {
        if self.ecc.load(Relaxed) != 0 {
            host.interrupt(QUEUES);
        }
    }
}

#[test]
fn link_changes_and_trouble_are_told_by_interrupt() {
    for mapped in [false, true] {
        let (astray, ecc) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let spoil = |card: &mut Card| {
            card.liar = Box::new(Troubled { astray: astray.clone(), ecc: ecc.clone() });
        };
        let mut bench = Bench::spoiled(mapped, interrupting(Duration::ZERO), spoil);
        bench.b.port.events();
        for up in [false, true, false, true] {
            assert_eq!(bench.b.port.events(), PortEvents::empty());
            bench.b.running.control.set_cable(up);
            assert!(readable(bench.b.port.event_interrupt().unwrap(), FOR_EVER));
            eventually("the event", || bench.b.port.events() == PortEvents::LINK);
            eventually("the link", || bench.b.port.link().is_up() == up);
        }
        // Who asks for the link first finds out all the same.
        bench.b.running.control.set_cable(false);
        eventually("no link", || bench.b.port.link() == Link::Down);
        bench.b.running.control.set_cable(true);
        eventually("the link", || bench.b.port.link().is_up() && bench.a.port.link().is_up());
        assert_eq!((bench.b.port.events(), bench.b.port.events()), (PortEvents::LINK, PortEvents::empty()));

        bench.b.running.lie(true);
        astray.store(true, Relaxed);
        let packets = bench.packets([&Flow::new(false).udp(&payload(100))]);
        send(&mut bench.b.tx[0], packets);
        assert!(readable(bench.b.port.event_interrupt().unwrap(), FOR_EVER));
        assert_eq!(bench.b.port.events(), PortEvents::DMA_ERROR);
        ecc.store(ECC, Relaxed);
        assert!(readable(bench.b.port.event_interrupt().unwrap(), FOR_EVER));
        let events = bench.b.port.events();
        assert!(events == PortEvents::MEMORY_ERROR && PortEvents::FATAL.contains(events), "{events:?}");
        ecc.store(0, Relaxed);
        bench.b.running.lie(false);
        // Started anew it works. What it has been refused is counted, and was meant.
        let refused = bench.b.running.refused();
        assert_eq!(refused, 1);
        drop((std::mem::take(&mut bench.b.rx), std::mem::take(&mut bench.b.tx)));
        bench.b.port.stop().unwrap();
        let mut config = config(&bench.space);
        interrupting(Duration::ZERO)(&bench.space, &mut config);
        (bench.b.rx, bench.b.tx) = bench.b.port.start(config).unwrap();
        eventually("the link", || bench.a.port.link().is_up() && bench.b.port.link().is_up());
        bench.b.rx[0].interrupt().unwrap().arm().unwrap();
        let packets = bench.packets([&Flow::new(false).udp(&payload(100))]);
        send(&mut bench.a.tx[0], packets);
        assert_eq!(receive(&mut bench.b.rx, 1).iter().flatten().count(), 1);
    }
}

#[test]
fn a_queue_that_was_stopped_and_started_interrupts_again() {
    let mut bench = Bench::new(false, interrupting(Duration::ZERO));
    // Queue 0 stays: it is where everything goes that no other queue takes.
    for queue in 1..QUEUES {
        let number = usize::from(queue);
        drop(bench.b.rx.remove(number));
        bench.b.port.set_flows(&[]).unwrap();
        bench.b.port.stop_rx_queue(queue).unwrap();
        let again = RxQueueConfig::new(pool(&bench.space, 512), 64);
        bench.b.rx.insert(number, bench.b.port.start_rx_queue(queue, again).unwrap());
        steer(&mut bench);
        let armed = &bench.b.rx[number];
        armed.interrupt().unwrap().arm().unwrap();
        assert!(!interrupted(armed, Duration::ZERO));
        send_to(&mut bench, queue);
        assert!(interrupted(&bench.b.rx[number], FOR_EVER));
        assert_eq!(receive(&mut bench.b.rx, 1)[number].len(), 1);
    }
    bench.finish();
}

#[test]
fn what_a_card_cannot_do_is_said() {
    let card = Config { vectors: 3, ..Config::default() };
    let running = serve_as(card, Box::new(Open), |_| ());
    let space = space();
    let mut port = running.open_in(&space).unwrap();
    let start = |port: &mut pagewire_ixgbe::Ixgbe, queues: usize, interval| {
        let mut config = config(&space);
        config.rx_interrupts = interval;
        config.rx.extend((1..queues).map(|_| RxQueueConfig::new(pool(&space, 512), 64)));
        port.start(config).map(drop)
    };
    let error = start(&mut port, 1, Some(Duration::from_millis(2))).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("receive interrupts at intervals of 2ms is not possible"), "{said}");
    assert!(said.contains("the port has intervals up to 1.046528ms"), "{said}");
    let error = start(&mut port, 3, Some(Duration::ZERO)).unwrap_err().to_string();
    assert!(error.contains("has 3 MSI-X interrupt vectors, 4 were asked for"), "{error}");
    // Neither leaves anything behind.
    for (queues, interval) in
        [(3, None), (2, Some(Duration::ZERO)), (2, port.info().capabilities.rx_interrupts)]
    {
        start(&mut port, queues, interval).unwrap();
        port.stop().unwrap();
    }
    let (rx, tx) = port.start(config(&space)).unwrap();
    assert!(rx[0].interrupt().is_none(), "not asked for");
    drop((rx, tx));
    port.stop().unwrap();
    running.assert_clean();
}
