use std::time::{Duration, Instant};

use pagewire_ethdev::nic::Card;
use pagewire_ethdev::{Port, RxQueue};

use super::*;
use crate::testing::{TCTL_AFTER_RESET, bench as new_bench, fault};

#[test]
fn buffer_sizes_never_exceed_the_room() {
    let card = I82574 { long: false, rx_offloads: RxOffloads::empty(), link_up: false };
    for room in 0..70_000 {
        for frame in [LONGEST_STANDARD, LONGEST_STANDARD + 1] {
            match card.receive_buffer(room, frame) {
                None => assert!(room < 256),
                Some(bytes) => assert!(bytes <= room, "{bytes} bytes promised of {room}"),
            }
        }
    }
    for (room, frame, bytes, bits) in [
        (1792, LONGEST_STANDARD, 1522, rctl::BSIZE_2048),
        (2048, 9018, 2048, rctl::BSIZE_2048),
        (1792, 9018, 1024, rctl::BSIZE_1024),
        (3840, 9018, 3072, 3 << rctl::FLXBUF_SHIFT),
        (700, 9018, 512, rctl::BSIZE_512),
        (300, 60, 256, rctl::BSIZE_256),
    ] {
        assert_eq!(card.receive_buffer(room, frame), Some(bytes));
        assert_eq!(buffer_bits(bytes), bits);
    }
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
    for (fault, register) in DEAD {
        for slow in [0, crate::testing::fault::SLOW] {
            let (mut bench, faults) = new_bench();
            faults.set(fault | slow);
            let start = Instant::now();
            check_timeout(bench.open(), register, start);
            assert!(!bench.registers.is_bus_master());

            let (mut bench, faults) = new_bench();
            let mut port = bench.open().unwrap();
            faults.set(fault | slow);
            let start = Instant::now();
            check_timeout(port.start(bench.config(256)), register, start);
            assert!(!bench.registers.is_bus_master());
            // It can be tried again.
            faults.set(0);
            port.start(bench.config(256)).unwrap();

            let (mut bench, faults) = new_bench();
            let (mut port, mut rx, tx) = bench.start(256);
            let monitor = rx.pool().monitor();
            assert!(bench.registers.is_bus_master());
            drop((rx, tx));
            faults.set(fault | slow);
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
    let (mut bench, faults) = new_bench();
    faults.set(fault::SLOW);
    let (mut port, rx, tx) = bench.start(256);
    drop((rx, tx));
    port.stop().unwrap();
}

/// A card that cannot be told to stop keeps the memory it was given for ever.
#[test]
fn a_card_that_is_pulled_out_keeps_its_memory() {
    let (mut bench, _) = new_bench();
    let (port, mut rx, tx) = bench.start(256);
    let monitor = rx.pool().monitor();
    bench.registers.pull_out();
    drop((rx, port));
    drop(tx);
    assert!(monitor.stats().inflight() >= 64, "{:?}", monitor.stats());
}

#[test]
fn an_address_that_is_none_is_refused() {
    for (low, high) in
        [(0, 0), (u32::MAX, u32::MAX), (2, 0x100), (0, Filters::VALID), (1, Filters::VALID | 0x100)]
    {
        let (mut bench, _) = new_bench();
        bench.registers.set(RAL.offset as u64, low);
        bench.registers.set(RAH.offset as u64, high);
        let error = bench.open().map(drop).unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{error:?}");
        assert!(error.to_string().contains("RAL0/RAH0"), "{error}");
    }
}

#[test]
fn counters_that_read_as_all_ones_do_not_count() {
    let (mut bench, faults) = new_bench();
    let (mut port, _rx, _tx) = bench.start(256);
    bench.registers.set(0x4010, 7);
    assert_eq!(port.stats().rx_missed, 7);
    faults.set(fault::ALL_ONES_STATISTICS);
    assert_eq!(port.stats().rx_missed, 7);
    for stat in port.xstats() {
        assert!(stat.value <= 7, "{stat:?}");
    }
    faults.set(fault::ALL_ONES);
    assert_eq!(port.link(), Link::Down, "a card that is gone has no link");
    assert_eq!(port.stats().rx_missed, 7);
}

#[test]
fn transmit_keeps_what_a_reset_sets_for_reads() {
    let (mut bench, _) = new_bench();
    let _started = bench.start(256);
    let control = bench.registers.get(TCTL.offset as u64);
    assert_eq!(control, TCTL_AFTER_RESET & !tctl::CT_MASK | tctl::EN | tctl::CT | tctl::COLD | tctl::MULR);
}

#[test]
fn tags_that_the_card_takes_out_unasked_are_found_out() {
    let mut config = PortConfig {
        rx_offloads: RxOffloads::IP_CSUM,
        tx_offloads: TxOffloads::MULTI_SEGS,
        ..PortConfig::default()
    };
    assert_eq!(I82574::finds_out(&config), RxOffloads::IP_CSUM);
    config.tx_offloads |= TxOffloads::VLAN_INSERT;
    assert_eq!(I82574::finds_out(&config), RxOffloads::IP_CSUM | RxOffloads::VLAN_STRIP);
}
