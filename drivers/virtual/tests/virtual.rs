//! The virtual devices through the interface that applications use.

use pagewire_ethdev::{Burst, Link, Pool, Port, PortConfig, RxQueue, TxQueue};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{PageSize, PoolConfig};
use pagewire_virtual::{Null, Ring};

fn pool() -> Pool {
    let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
    let config = PoolConfig { fragments: 4096, backing: PageSize::Size4K, ..PoolConfig::default() };
    Pool::new(&config, &space).expect("a small pool")
}

#[test]
fn null_receives_without_end_and_loses_nothing() {
    let mut port = Null::new(0, 100);
    let pool = pool();
    let monitor = pool.monitor();
    let (mut rx, mut tx) = port.start(PortConfig::single_queue(pool)).expect("one queue pair");
    let mut burst = Burst::new(48);
    for _ in 0..1000 {
        assert_eq!(rx[0].rx_burst(&mut burst), 48);
        assert!(burst.iter().all(|packet| packet.len() == 100 && packet.headroom() == 256));
        assert_eq!(tx[0].tx_burst(&mut burst), 48);
        assert!(burst.is_empty());
    }
    let stats = port.stats();
    assert_eq!((stats.rx_packets, stats.rx_bytes), (48_000, 4_800_000));
    assert_eq!((stats.tx_packets, stats.tx_bytes), (48_000, 4_800_000));
    // To the last fragment of the pool.
    let mut held = Burst::new(4096);
    while rx[0].rx_burst(&mut held) > 0 {}
    assert_eq!(held.len(), 4096);
    drop((rx, tx, held));
    pagewire_pool::flush_thread();
    assert_eq!(monitor.stats().inflight(), 0);
}

#[test]
fn a_port_is_started_once_and_stopped_once() {
    let mut port = Null::new(0, 64);
    let queues = port.start(PortConfig::single_queue(pool())).expect("the first time");
    let error = port.start(PortConfig::single_queue(pool())).map(drop).expect_err("twice");
    assert_eq!(error.to_string(), "null:0: the port is started already; stop it first");
    drop(queues);
    port.stop().expect("it is started");
    assert_eq!(port.stop().expect_err("twice").to_string(), "null:0: the port is not started");
}

#[test]
fn asking_for_too_much_names_the_thing() {
    let mut port = Null::new(0, 64);
    let mut refused = |change: fn(&mut PortConfig)| {
        let mut config = PortConfig::single_queue(pool());
        change(&mut config);
        port.start(config).map(drop).expect_err("too much").to_string()
    };
    assert_eq!(
        refused(|config| config.tx.resize(2, config.tx[0].clone())),
        "null:0: number of transmit queues 2 is not possible; the port has 1"
    );
    assert_eq!(
        refused(|config| config.rx[0].descriptors = 48),
        "null:0: receive ring of 48 descriptors is not possible; the port has rings of a power of two from 64 to 4096"
    );
    assert_eq!(refused(|config| config.mtu = 67), "null:0: MTU 67 is not possible; the port has 68 to 9216");
    assert!(refused(|config| config.rx_offloads = pagewire_ethdev::RxOffloads::L4_CSUM).contains("L4_CSUM"));
    assert!(
        refused(|config| config.tx_offloads = pagewire_ethdev::TxOffloads::VLAN_INSERT)
            .contains("VLAN_INSERT")
    );
}

#[test]
fn rings_of_one_name_are_joined_and_what_does_not_fit_stays_with_its_sender() {
    let (mut a, mut b) = (Ring::new("test"), Ring::new("test"));
    let pools = [pool(), pool()];
    let monitors = [pools[0].monitor(), pools[1].monitor()];
    let [pool_a, pool_b] = pools;
    let (mut a_rx, mut a_tx) = a.start(PortConfig::single_queue(pool_a)).expect("one queue pair");
    assert_eq!(a.link(), Link::Down);
    let (mut b_rx, b_tx) = b.start(PortConfig::single_queue(pool_b)).expect("one queue pair");
    assert!(a.link().is_up() && b.link().is_up());

    let mut burst = Burst::new(2000);
    for i in 0..2000u16 {
        let mut packet = a_rx[0].pool().alloc_packet().expect("2,000 of 4,096");
        packet.extend_from_slice(&i.to_be_bytes()).expect("two bytes");
        burst.push(packet).expect("2,000 fit");
    }
    assert_eq!(a_tx[0].tx_burst(&mut burst), 1024);
    assert_eq!((burst.len(), a_tx[0].pending()), (976, 1024));
    let mut received = Burst::new(100);
    let mut next = 0u16;
    while next < 2000 {
        b_rx[0].rx_burst(&mut received);
        for packet in received.drain() {
            assert_eq!(packet.as_slice(), Some(&next.to_be_bytes()[..]));
            next += 1;
        }
        a_tx[0].tx_burst(&mut burst);
    }
    assert_eq!(a_tx[0].pending(), 0);
    assert_eq!((a.stats().tx_packets, b.stats().rx_packets, a.stats().rx_packets), (2000, 2000, 0));

    // Stopped with packets on their way.
    for _ in 0..10 {
        let packet = a_rx[0].pool().alloc_packet().expect("all are back");
        burst.push(packet).expect("it is empty");
    }
    a_tx[0].tx_burst(&mut burst);
    drop((a_rx, a_tx, b_rx, b_tx));
    b.stop().expect("it is started");
    assert_eq!(a.link(), Link::Down);
    a.stop().expect("it is started");
    pagewire_pool::flush_thread();
    assert_eq!(monitors.map(|monitor| monitor.stats().inflight()), [0, 0]);
}
