use super::super::testing::plain::{Plain, TDT, Tx, bench};
use super::super::testing::{Bench, Random, burst, packet};
use super::*;
use crate::PacketFlags;
use crate::config::PortConfig;
use crate::port::Port;

/// Mark descriptors as done, as the card would.
fn done(ring: &mut TxRing<Tx>, index: u32) {
    let [first, second] = [ring.descriptors.read::<0>(index), ring.descriptors.read::<1>(index)];
    ring.descriptors.put(index, [first, second | Tx::DONE]);
}

#[test]
fn what_the_card_has_not_reported_is_not_freed_whatever_its_head_says() {
    let mut bench = bench();
    let (mut port, rx, mut queue) = bench.start(1024);
    let mut pool = bench.pool(256);
    let mut packets = Burst::new(256);
    for _ in 0..100 {
        packets.push(packet(&mut pool, &[60])).unwrap();
    }
    assert_eq!(queue.tx_burst(&mut packets), 63, "one descriptor stays free");
    for head in [0, 1, 63, 64, 0xffff, u32::MAX] {
        // The head is not even read.
        assert_eq!((queue.reclaim(), queue.tx_burst(&mut packets)), (0, 0), "TDH {head:#x}");
        assert_eq!((queue.pending(), packets.len()), (63, 37), "TDH {head:#x}");
    }
    // Done bits where no report was asked for, and out of turn, mean nothing.
    let ring = queue.ring();
    let reports = ring.reports.all();
    for index in 0..64 {
        if index != reports[0] {
            done(ring, index);
        }
    }
    assert_eq!((queue.reclaim(), queue.pending()), (0, 63));
    // The oldest report is there: everything up to the last one is.
    done(queue.ring(), reports[0]);
    assert_eq!(queue.reclaim() as u32, reports[reports.len() - 1] + 1);
    drop((rx, queue, packets));
    port.stop().unwrap();
    pool.trim();
    assert_eq!(pool.stats().inflight(), 0);
}

#[test]
fn an_idle_ring_asks_for_one_report_and_frees_all_when_it_is_there() {
    let mut bench = bench();
    let (_port, _rx, mut queue) = bench.start(1024);
    let mut pool = bench.pool(256);
    assert_eq!(queue.tx_burst(&mut burst(packet(&mut pool, &[60, 60, 60]))), 1);
    let tail = |bench: &Bench<Plain>| bench.registers.get(TDT.offset as u64);
    assert_eq!(tail(&bench), 3);
    for _ in 0..10 {
        assert_eq!(queue.reclaim(), 0);
        assert_eq!(tail(&bench), 4, "one descriptor more, and no more than one");
    }
    assert_eq!(queue.pending(), 3);
    done(queue.ring(), 3);
    assert_eq!((queue.reclaim(), queue.pending()), (3, 0));
    assert_eq!((queue.reclaim(), tail(&bench)), (0, 4));
}

/// A queue is settled once the card has reported its packets: a context alone, with which some rings begin, nobody waits for.
#[test]
fn a_ring_without_packets_is_settled() {
    let mut bench = bench();
    let (_port, _rx, mut queue) = bench.start(1024);
    let mut pool = bench.pool(256);
    queue.ring().descriptors.write([0, 1 << 29], None);
    assert!(queue.ring().settle());
    assert_eq!(queue.ring().descriptors.tail(), 1, "nothing is asked for");
    assert_eq!(queue.tx_burst(&mut burst(packet(&mut pool, &[60]))), 1);
    assert!(!queue.ring().settle());
    assert_eq!(queue.ring().descriptors.tail(), 3, "a report is");
    done(queue.ring(), 2);
    assert!(queue.ring().settle());
    assert_eq!(queue.pending(), 0);
}

/// A record outlives its packet: what the packet before said of its headers is nothing to one that asks for no checksum.
#[test]
fn header_lengths_matter_to_checksums_alone() {
    let mut bench = bench();
    let (mut port, _rx, mut queue) = bench.start(1024);
    let mut pool = bench.pool(256);
    let mut tagged = packet(&mut pool, &[60]);
    tagged.set_header_lens(300, 600);
    tagged.set_flags(PacketFlags::TX_VLAN_INSERT);
    assert_eq!(queue.tx_burst(&mut burst(tagged)), 1);
    let ring = queue.ring();
    assert_eq!(
        (ring.descriptors.tail(), ring.contexts.last::<Tx>()),
        (2, Some([0, 1 << 29])),
        "a context of no header"
    );

    for (flags, l2, l3, sent) in [
        (PacketFlags::TX_IP_CSUM, 14, 20, true),
        (PacketFlags::TX_TCP_CSUM, 14, 28, true),
        (PacketFlags::TX_TCP_CSUM, 14, 29, false),
        (PacketFlags::TX_UDP_CSUM, 14, 38, true),
        // A card would look for the checksum 14 bytes further on, or within the layer before.
        (PacketFlags::TX_TCP_CSUM, 0, 30, false),
        (PacketFlags::TX_IP_CSUM, 0, 20, false),
        (PacketFlags::TX_UDP_CSUM, 14, 0, false),
        (PacketFlags::TX_IP_CSUM, 14, 19, false),
    ] {
        let before = queue.pending();
        let mut packet = packet(&mut pool, &[60]);
        packet.set_header_lens(l2, l3);
        packet.set_flags(flags);
        assert_eq!(queue.tx_burst(&mut burst(packet)), 1, "{flags:?}");
        assert_eq!(queue.pending() - before, usize::from(sent), "{flags:?} with headers of {l2} and {l3}");
    }
    assert_eq!(port.stats().tx_errors, 5);
}

/// What is sent together need not come home together: runs of two pools, chains and requests in between.
#[test]
fn packets_of_several_pools_go_home_to_their_own() {
    [true, false].into_iter().for_each(several_pools);
}

fn several_pools(vector: bool) {
    let mut random = Random::new();
    let mut bench = bench();
    let mut port = bench.open().unwrap();
    let (rx, mut tx) = port.start(PortConfig { vector, ..bench.config(1024) }).unwrap();
    let mut queue = tx.remove(0);
    assert_eq!(queue.path().active, if vector { Path::Vector } else { Path::Bulk });
    let mut pools = [bench.pool(512), bench.pool(512)];
    let mut packets = Burst::new(32);
    for round in 0..2_000 {
        while packets.len() < 1 + random.below(31) as usize {
            // Often of the same pool as the one before.
            let pool = &mut pools[usize::from(random.below(if round % 2 == 0 { 2 } else { 20 }) == 0)];
            let lengths = vec![100; if random.below(16) == 0 { 3 } else { 1 }];
            let mut packet = packet(pool, &lengths);
            if random.below(16) == 0 {
                packet.set_flags(PacketFlags::TX_UDP_CSUM);
                packet.set_header_lens(14, 20);
            }
            packets.push(packet).unwrap();
        }
        queue.tx_burst(&mut packets);
        let ring = queue.ring();
        (0..64).for_each(|index| done(ring, index));
        if random.below(8) == 0 {
            queue.reclaim();
        }
    }
    drop((rx, queue, packets));
    port.stop().unwrap();
    for pool in &mut pools {
        pool.trim();
        assert_eq!((pool.stats().inflight(), pool.available()), (0, 512));
    }
    // None came home with what was asked of it.
    for pool in &mut pools {
        let all: Vec<Packet> = std::iter::from_fn(|| pool.alloc_packet()).collect();
        assert!(all.len() == 512 && all.iter().all(|packet| packet.flags().is_empty()));
    }
}

/// Done bits set early, late, never, on any descriptor, and a head of garbage: no panic, nothing lost, and never more
/// descriptors in use than there are.
#[test]
fn hostile_done_bits() {
    let mut random = Random::new();
    let mut bench = bench();
    let (mut port, rx, mut queue) = bench.start(1024);
    let mut pool = bench.pool(1024);
    let mut packets = Burst::new(64);
    let mut sent = 0;
    for round in 0..100_000 {
        while packets.len() < random.below(20) as usize {
            let lengths = vec![100; 1 + random.below(4) as usize];
            let mut packet = packet(&mut pool, &lengths);
            if random.below(3) == 0 {
                packet.set_flags(PacketFlags::TX_UDP_CSUM);
                packet.set_header_lens(14, 20 + random.below(3) as u16 * 4);
            }
            packets.push(packet).unwrap();
        }
        sent += queue.tx_burst(&mut packets);
        let ring = queue.ring();
        for _ in 0..random.below(40) {
            done(ring, random.next() as u32);
        }
        assert!(ring.descriptors.tail().wrapping_sub(ring.descriptors.clean()) < 64, "round {round}");
        if random.below(4) == 0 {
            queue.reclaim();
        }
        if random.below(64) == 0 {
            pool.trim();
            let waiting: usize = packets.iter().map(Packet::segment_count).sum();
            assert_eq!(pool.stats().inflight(), (queue.pending() + waiting) as u64, "round {round}");
        }
    }
    assert!(sent > 100_000, "{sent} packets");
    assert_eq!(port.stats().tx_errors, 0);
    drop((rx, queue, packets));
    port.stop().unwrap();
    pool.trim();
    assert_eq!(pool.stats().inflight(), 0);
}

/// What two queues write at every burst is in different pairs of lines: the rings with their pools and positions, and the counters.
#[test]
fn queues_share_no_line() {
    fn lines<T>(of: &T) -> std::ops::Range<usize> {
        let first = std::ptr::from_ref(of).addr();
        first / 128..(first + size_of::<T>()).div_ceil(128)
    }
    let mut bench = bench();
    let mut port = bench.open().unwrap();
    let mut config = bench.config(1024);
    for _ in 1..4 {
        config.rx.push(crate::RxQueueConfig::new(bench.pool(1024), 64));
        config.tx.push(crate::TxQueueConfig { descriptors: 64 });
    }
    let (mut rx, mut tx) = port.start(config).unwrap();
    let mut ranges = Vec::new();
    ranges.extend(rx.iter_mut().map(|queue| lines(queue.ring())));
    ranges.extend(tx.iter_mut().map(|queue| lines(queue.ring())));
    ranges.extend(tx.iter_mut().map(|queue| lines(&*queue.ring().counters)));
    ranges.extend(port.rx_counters.iter().map(|counters| lines(&**counters)));
    ranges.sort_by_key(|range| range.start);
    assert_eq!(ranges.len(), 16);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
}

/// What is sent by vector instructions goes at once, though all that follows it in its burst cannot be sent.
#[test]
fn the_card_is_told_of_a_burst_that_ends_with_what_cannot_be_sent() {
    let mut bench = bench();
    let (_port, _rx, mut queue) = bench.start(1024);
    let mut pool = bench.pool(256);
    let tail = |bench: &Bench<Plain>| bench.registers.get(TDT.offset as u64);
    // What packets are expected to be like it finds out by the first.
    assert_eq!(queue.tx_burst(&mut burst(packet(&mut pool, &[60]))), 1);
    let mut packets = Burst::new(32);
    for _ in 0..8 {
        packets.push(packet(&mut pool, &[60])).unwrap();
    }
    // Nobody has said where its headers are.
    let mut asking = packet(&mut pool, &[60]);
    asking.set_flags(PacketFlags::TX_IP_CSUM);
    packets.push(asking).unwrap();
    assert_eq!(queue.tx_burst(&mut packets), 9);
    assert_eq!((tail(&bench), queue.pending()), (9, 9));
}
