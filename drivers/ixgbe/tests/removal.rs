//! A card that does not come back: pulled out at any moment, or in a reset that never ends.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use common::liar::{Liar, Write};
use common::neighbour::Neighbour;
use common::{config, eventually, fault, pool, serve, space, within};
use pagewire_ethdev::nic::testing::Random;
use pagewire_ethdev::{Burst, Error, Link, Port, RxQueue, TxQueue};
use pagewire_pool::flush_thread;

#[test]
fn a_reset_that_never_ends_is_an_error_and_keeps_no_memory() {
    for drops in [false, true] {
        let running = serve(false, |_| ());
        let (space, mut port) = running.open().unwrap();
        let (mut rx, tx) = port.start(config(&space)).unwrap();
        let monitor = rx[0].pool().monitor();
        eventually("the link", || port.link().is_up());
        running.set_faults(fault::STAYS_IN_RESET);
        drop((rx, tx));
        if drops {
            within(5, || drop(port));
            assert_eq!(running.logged("reset did not end within 100 ms"), 1, "{:?}", running.log());
        } else {
            let found = within(5, || port.stop()).unwrap_err();
            assert!(matches!(found, Error::Timeout { register: "CTRL", .. }), "{found}");
            // And works again once the card does.
            running.set_faults(0);
            let queues = port.start(config(&space)).unwrap();
            eventually("the link", || port.link().is_up());
            drop(queues);
            port.stop().unwrap();
        }
        assert_eq!(monitor.stats().inflight(), 0);
        running.assert_clean();
    }
}

/// Is pulled out after so many accesses to its registers.
struct PulledOut {
    accesses: Arc<AtomicU64>,
    at: u64,
    faults: Arc<AtomicU32>,
}

impl PulledOut {
    fn accessed(&mut self) -> bool {
        let gone = self.accesses.fetch_add(1, Relaxed) >= self.at;
        if gone {
            self.faults.store(fault::GONE | fault::GONE_FROM_THE_BUS, Relaxed);
        }
        gone
    }
}

impl Liar for PulledOut {
    fn read(&mut self, _: u64, value: u32) -> u32 {
        if self.accessed() { u32::MAX } else { value }
    }

    fn written(&mut self, _: u64, _: &mut u32) -> bool {
        !self.accessed()
    }

    fn write(&mut self, _: Write, _: &mut u64, _: &mut [u8]) -> bool {
        self.accesses.load(Relaxed) < self.at
    }
}

/// Open, start, run and stop a card that is pulled out after so many accesses. Returns how many there were when it was stopped, and
/// the first error.
fn pull_out(at: u64) -> (u64, Option<Error>) {
    let accesses = Arc::<AtomicU64>::default();
    let running = serve(false, |card| {
        card.liar = Box::new(PulledOut { accesses: accesses.clone(), at, faults: card.faults.clone() });
    });
    running.lie(true);
    let space = space();
    let (mut monitor, mut done) = (None, 0);
    let result = (|| {
        let mut port = within(20, || running.open_in(&space))?;
        let (mut own, config) = (pool(&space, 64), config(&space));
        monitor = Some(config.rx[0].pool.monitor());
        let (mut rx, mut tx) = within(20, || port.start(config))?;
        let mut burst = Burst::new(32);
        for _ in 0..10 {
            while let Some(mut packet) = own.alloc_packet().filter(|_| burst.room() > 0) {
                packet.extend_from_slice(&[0xff; 60]).unwrap();
                burst.push(packet).unwrap();
            }
            within(2, || {
                tx[0].tx_burst(&mut burst);
                tx[0].reclaim();
                burst.clear();
                rx[0].rx_burst(&mut burst);
            });
            burst.clear();
            within(10, || port.link());
            let stats = within(5, || port.stats());
            assert!(stats.rx_missed + stats.rx_errors + stats.tx_errors == 0, "{stats:?}");
        }
        let there = port.check();
        drop((rx, tx));
        let stopped = within(10, || port.stop());
        done = accesses.load(Relaxed);
        own.trim();
        assert_eq!(own.stats().inflight(), 0);
        there.and(stopped)
    })();
    flush_thread();
    assert!(monitor.is_none_or(|pool| pool.stats().inflight() == 0), "fragments are out after {at} accesses");
    (done, result.err())
}

/// Accesses of a stop that nothing depends on any more: the reset is over.
const AFTER_RESET: u64 = 8;

/// A sample of all moments there are; HOSTILE_MOMENTS is how many.
#[test]
fn a_card_that_is_pulled_out_at_any_moment_ends_in_a_clear_error() {
    let (accesses, error) = pull_out(u64::MAX);
    assert!(error.is_none(), "{error:?}");
    let moments = std::env::var("HOSTILE_MOMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(48);
    let neighbour = Neighbour::start();
    let mut random = Random::new();
    let moments: Vec<u64> = (0..moments).map(|n| (n * accesses + random.below(accesses)) / moments).collect();
    // Most of the time is waiting.
    std::thread::scope(|scope| {
        for some in moments.chunks(moments.len().div_ceil(8)) {
            scope.spawn(move || {
                for &at in some {
                    match pull_out(at) {
                        (
                            _,
                            Some(
                                error @ (Error::Timeout { .. }
                                | Error::Gone { .. }
                                | Error::Device { .. }
                                | Error::Pci(_)),
                            ),
                        ) => println!("after {at} accesses: {error}"),
                        // By then it had been reset.
                        (done, None) if at + AFTER_RESET >= done => {}
                        other => panic!("after {at} accesses of {accesses}: {other:?}"),
                    }
                }
            });
        }
    });
    neighbour.finish();
}

#[test]
fn a_port_without_its_card_says_so_and_can_be_opened_again() {
    let running = serve(false, |_| ());
    let (space, mut port) = running.open().unwrap();
    let queues = port.start(config(&space)).unwrap();
    eventually("the link", || port.link().is_up());
    port.check().unwrap();
    running.set_faults(fault::GONE | fault::GONE_FROM_THE_BUS);
    let found = port.check().unwrap_err();
    assert!(matches!(found, Error::Gone { .. }) && found.to_string().contains("open it anew"), "{found}");
    assert_eq!(port.link(), Link::Down);
    drop((queues, port));
    running.set_faults(0);
    eventually("the server takes the next", || running.open_in(&space).is_ok());
}
