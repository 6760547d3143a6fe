use std::time::{Duration, Instant};

use pagewire_ethdev::RxQueue;

use super::*;
use crate::testing::{Bench, fault};

#[test]
fn buffer_sizes_never_exceed_the_room() {
    for room in 0..70_000 {
        for long in [false, true] {
            match buffer_size(room, long) {
                None => assert!(room < 256),
                Some((bytes, _)) => assert!(bytes <= room, "{bytes} bytes promised of {room}"),
            }
        }
    }
    assert_eq!(buffer_size(1792, false), Some((1522, rctl::BSIZE_2048)));
    assert_eq!(buffer_size(2048, true), Some((2048, rctl::BSIZE_2048)));
    assert_eq!(buffer_size(1792, true), Some((1024, rctl::BSIZE_1024)));
    assert_eq!(buffer_size(3840, true), Some((3072, 3 << rctl::FLXBUF_SHIFT)));
}

/// What a card that does not come out of reset is reported as.
const DEAD: [(u32, &str); 4] = [
    (fault::STAYS_IN_RESET, "CTRL"),
    (fault::NO_EEPROM, "EECD"),
    (fault::RESETS_NOTHING, "RDLEN"),
    (fault::ALL_ONES, "CTRL"),
];

fn check_timeout<T>(result: Result<T, Error>, expected: &str, since: Instant) {
    match result.map(drop) {
        Err(Error::Timeout { register, .. }) => assert_eq!(register, expected),
        other => panic!("{other:?}, expected a timeout of {expected}"),
    }
    assert!(since.elapsed() < Duration::from_secs(5), "after {:?}", since.elapsed());
}

#[test]
fn a_dead_card_is_an_error_in_bounded_time() {
    for (faults, register) in DEAD {
        for slow in [0, fault::SLOW] {
            let mut bench = Bench::new();
            bench.faults.set(faults | slow);
            let start = Instant::now();
            check_timeout(bench.open(), register, start);
            assert!(!bench.registers.is_bus_master());

            let mut bench = Bench::new();
            let mut port = bench.open().unwrap();
            bench.faults.set(faults | slow);
            let start = Instant::now();
            check_timeout(port.start(bench.config(256)), register, start);
            assert!(!bench.registers.is_bus_master());
            // It can be tried again.
            bench.faults.set(0);
            port.start(bench.config(256)).unwrap();

            let mut bench = Bench::new();
            let (mut port, mut rx, tx) = bench.start(256);
            let monitor = rx.pool().monitor();
            assert!(bench.registers.is_bus_master());
            drop((rx, tx));
            bench.faults.set(faults | slow);
            let start = Instant::now();
            check_timeout(port.stop(), register, start);
            // Off all the same, and so the memory is free.
            assert!(!bench.registers.is_bus_master());
            assert_eq!(monitor.stats().inflight(), 0);
        }
    }
}

#[test]
fn a_slow_card_works() {
    let mut bench = Bench::new();
    bench.faults.set(fault::SLOW);
    let (mut port, rx, tx) = bench.start(256);
    drop((rx, tx));
    port.stop().unwrap();
}

/// A card that cannot be told to stop keeps the memory it was given for ever.
#[test]
fn a_card_that_is_pulled_out_keeps_its_memory() {
    let mut bench = Bench::new();
    let (port, mut rx, tx) = bench.start(256);
    let monitor = rx.pool().monitor();
    bench.registers.pull_out();
    drop((rx, port));
    drop(tx);
    assert!(monitor.stats().inflight() >= 64, "{:?}", monitor.stats());
}

#[test]
fn an_address_that_is_none_is_refused() {
    for (low, high) in [(0, 0), (u32::MAX, u32::MAX), (2, 0x100), (0, RAH_AV), (0x0000_0001, RAH_AV | 0x100)]
    {
        let mut bench = Bench::new();
        bench.registers.set(RAL.offset as u64, low);
        bench.registers.set(RAH.offset as u64, high);
        let error = bench.open().map(drop).unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{error:?}");
        assert!(error.to_string().contains("RAL0/RAH0"), "{error}");
    }
}

#[test]
fn counters_that_read_as_all_ones_do_not_count() {
    let mut bench = Bench::new();
    let (mut port, _rx, _tx) = bench.start(256);
    bench.registers.set(0x4010, 7);
    assert_eq!(port.stats().rx_missed, 7);
    bench.faults.set(fault::ALL_ONES_STATISTICS);
    assert_eq!(port.stats().rx_missed, 7);
    for stat in port.xstats() {
        assert!(stat.value <= 7, "{stat:?}");
    }
    bench.faults.set(fault::ALL_ONES);
    assert_eq!(port.link(), Link::Down, "a card that is gone has no link");
    assert_eq!(port.stats().rx_missed, 7);
}
