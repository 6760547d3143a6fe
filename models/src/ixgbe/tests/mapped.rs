//! Doorbells in shared memory.

use super::*;

/// A driver that stores to its mapped pages where it can, and traps elsewhere.
fn store(rig: &mut Rig, offset: u32, value: u32) {
    rig.machine.shared[offset as usize / 4] = value;
}

/// A mapped card that was set up, queue 0 each way, by stores alone where that can be.
fn set_up() -> (Rig, Bench) {
    let bench = Bench::default();
    let mut rig = Rig::with(Box::new(bench.clone()), Config { mapped: true, ..Config::default() });
    assert_eq!(rig.card.region(Region::Bar(0)).mappable.len(), 3);
    rig.set(CTRL, 1 << 26);
    assert_eq!(rig.machine.shared[SRRCTL as usize / 4], 0x402, "reset values are shown");
    rig.set(FCTRL, 0x700);
    rig.set(DMATXCTL, 1);
    rig.set(RXCTRL, 1);
    for (block, ring) in [(RDBAL, rx_ring(0)), (TDBAL, tx_ring(0))] {
        store(&mut rig, block, ring as u32);
        store(&mut rig, block + 4, (ring >> 32) as u32);
        store(&mut rig, block + 8, RING * 16);
        store(&mut rig, block + 0x28, ENABLE);
    }
    store(&mut rig, SRRCTL, 0x0200_0402);
    for n in 0..RING {
        rig.machine.put(rx_ring(0) + 16 * n as u64, [rx_buffer(0, n), 0]);
    }
    store(&mut rig, RDT, RING - 1);
    settle(&mut rig);
    (rig, bench)
}

/// A poll of each register that is not a tail.
fn settle(rig: &mut Rig) {
    for _ in 0..100 {
        rig.card.poll(&mut rig.machine);
    }
}

#[test]
fn queues_set_up_and_rung_in_shared_memory() {
    let (mut rig, bench) = set_up();
    bench.give(&frame(77));
    rig.machine.at(TX_BUFFERS, 60, true).unwrap().copy_from_slice(&frame(60));
    rig.machine.put(tx_ring(0), [TX_BUFFERS, 0x2b30_0000 | 60 | 60 << 46]);
    store(&mut rig, TDT, 1);
    rig.poll();
    assert_eq!(rig.next(0).unwrap().data, frame(77));
    assert_eq!(bench.taken(), [frame(60)]);
    assert_eq!(rig.machine.shared[RDH as usize / 4], 1);
    assert_eq!(rig.machine.shared[TDH as usize / 4], 1);
    assert_eq!((rig.get(TDT), rig.get(QPRC), rig.get(QPRC)), (1, 1, 0));
}

#[test]
fn what_comes_in_once_receive_is_on_finds_the_queue_enabled() {
    let bench = Bench::default();
    let mut rig = Rig::with(Box::new(bench.clone()), Config { mapped: true, ..Config::default() });
    rig.set(FCTRL, 0x700);
    // Past the look at all blocks that comes first.
    for _ in 0..5 {
        rig.card.poll(&mut rig.machine);
    }
    store(&mut rig, RDBAL, rx_ring(0) as u32);
    store(&mut rig, RDBAL + 4, (rx_ring(0) >> 32) as u32);
    store(&mut rig, RDBAL + 8, RING * 16);
    store(&mut rig, SRRCTL, 0x0200_0402);
    store(&mut rig, RXDCTL, ENABLE);
    rig.machine.put(rx_ring(0), [rx_buffer(0, 0), 0]);
    store(&mut rig, RDT, 1);
    rig.set(RXCTRL, 1);
    bench.give(&frame(77));
    rig.card.poll(&mut rig.machine);
    assert_eq!(rig.next(0).unwrap().data, frame(77));
}

#[test]
fn a_running_queue_is_told_to_drop() {
    let (mut rig, bench) = set_up();
    bench.give(&frame(60));
    rig.poll();
    assert!(rig.next(0).is_some());
    // As Linux does when the link comes up, depending on flow control.
    store(&mut rig, SRRCTL, 0x1200_0402);
    settle(&mut rig);
    for _ in 0..RING + 10 {
        bench.give(&frame(61));
    }
    rig.poll();
    assert_eq!((0..RING + 10).filter(|_| rig.next(0).is_some()).count(), RING as usize - 1);
    assert_eq!(rig.get(QPRDC), 11);
}

#[test]
fn trapped_accesses_work_as_well() {
    let (a, b) = pair();
    let config = Config { mapped: true, ..Config::default() };
    let mut a = Rig::with(Box::new(a), config.clone());
    let mut b = Rig::with(Box::new(b), config);
    a.start(1);
    b.start(1);
    for n in 0..200 {
        a.send(&frame(60 + n));
        b.poll();
        assert_eq!(b.next(0).unwrap().data, frame(60 + n));
    }
    b.set(CTRL, 1 << 26);
    assert_eq!(b.machine.shared[RXDCTL as usize / 4], 0);
}
