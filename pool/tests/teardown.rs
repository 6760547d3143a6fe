//! The end of a pool while fragments of it are out: the device, the thread or the process may go first.

mod common;

use std::process::Command;
use std::sync::mpsc;
use std::{env, thread};

use common::*;
use pagewire_pool::{Life, PacketFlags, Pool, pools};

#[test]
fn a_device_that_is_gone_first_is_not_asked_to_unmap() {
    let bench = Bench::new();
    let mut pool = Pool::new(&config(64), &bench.space).expect("a small pool");
    let monitor = pool.monitor();
    let mut packets = all(&mut pool);
    packets[0].extend_from_slice(b"still here").expect("room");
    let segment = pool.segments().remove(0);
    let Bench { space, function, registers } = bench;
    drop(function);
    assert_eq!(registers.iommu().mapped_bytes(), 0, "what was mapped for the device went with it");
    assert_eq!(packets[0].as_slice(), Some(&b"still here"[..]), "the CPU reaches it as before");
    assert!(space.iova(&segment, 0).is_ok(), "the next device of the space sees it at the same address");
    drop(pool);
    drop(packets);
    assert!(is_home(&monitor));
    assert_eq!((monitor.life(), registers.iommu().unmap_calls()), (Life::Gone, 0));
    assert!(space.iova(&segment, 0).is_err(), "nobody sees it any more");
}

#[test]
fn a_thread_that_is_gone_first_leaves_its_pool_and_its_packets_to_others() {
    let bench = Bench::new();
    let (to_here, from_owner) = mpsc::channel();
    let space = bench.space.clone();
    let owner = thread::spawn(move || {
        let mut pool = Pool::new(&config(64), &space).expect("a small pool");
        let monitor = pool.monitor();
        let (held, dropped) = (pool.alloc_packet().expect("one"), all(&mut pool));
        // What it has in its magazine goes with it.
        drop(dropped);
        to_here.send((held, monitor)).expect("the test waits");
    });
    owner.join().expect("no panic");
    let (held, monitor) = from_owner.recv().expect("it sent them");
    assert_eq!((monitor.life(), monitor.stats().inflight()), (Life::Orphan, 1));
    drop(held);
    assert!(is_home(&monitor));
    assert_eq!((monitor.life(), bench.iommu().mapped_bytes()), (Life::Gone, 0));
}

#[test]
fn a_drop_after_the_pool_was_closed_goes_the_remote_way() {
    let bench = Bench::new();
    let mut pool = Pool::new(&config(64), &bench.space).expect("a small pool");
    let monitor = pool.monitor();
    let held = all(&mut pool);
    drop(pool);
    let before = monitor.stats();
    drop(held);
    assert!(is_home(&monitor));
    assert_eq!(monitor.stats().recycle_cached, before.recycle_cached);
    assert_eq!(
        monitor.stats().remote_batch - before.remote_batch,
        4,
        "in batches of 16, as from any other core"
    );
}

#[test]
fn a_large_fragment_may_be_the_last() {
    for elsewhere in [false, true] {
        let bench = Bench::new();
        let mut pool = Pool::new(&config(64), &bench.space).expect("a small pool");
        let monitor = pool.monitor();
        let large =
            pool.alloc_len(4096).expect("a page").complete(0, 9, Default::default()).expect("nine bytes");
        let small = all(&mut pool);
        assert_eq!(small.len(), 62);
        drop((pool, small));
        assert!(!is_home(&monitor));
        assert_eq!((monitor.life(), monitor.stats().inflight()), (Life::Orphan, 2));
        if elsewhere {
            drop_elsewhere(vec![large])
        } else {
            drop(large)
        }
        assert_eq!(
            (monitor.life(), monitor.stats().inflight(), bench.iommu().mapped_bytes()),
            (Life::Gone, 0, 0)
        );
    }
}

#[test]
fn a_process_may_exit_first() {
    const CHILD: &str = "PAGEWIRE_TEST_EXITS_FIRST";
    if env::var_os(CHILD).is_some() {
        let bench = Bench::new();
        let mut pool = Pool::new(&config(64), &bench.space).expect("a small pool");
        let held = all(&mut pool);
        // A thread that holds packets and never ends, a pool without an owner, and a device that is still open.
        thread::spawn(move || {
            let _held = held;
            thread::park();
            unreachable!("nobody wakes it");
        });
        drop(pool);
        println!("\n{} pools", pools().len());
        std::process::exit(0);
    }
    let this = env::current_exe().expect("a test");
    let child = Command::new(this)
        .args(["--exact", "a_process_may_exit_first", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("the test once more");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("\n1 pools"),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

#[test]
fn a_page_marked_not_for_recycling_is_not_given_out_again() {
    let bench = Bench::new();
    let mut pool = Pool::new(&config(64), &bench.space).expect("a small pool");
    let monitor = pool.monitor();
    let mut packets = all(&mut pool);
    let mut bad = packets.swap_remove(10);
    let page = bad.iova() / 4096;
    let other = packets.iter().position(|packet| packet.iova() / 4096 == page).expect("the other half");
    let other = packets.swap_remove(other);
    // What was asked of it does not make it somebody else's.
    bad.set_flags(PacketFlags::TX_IP_CSUM);
    pool.quarantine(bad).expect("the pool's own");
    drop_elsewhere(vec![other]);
    drop_elsewhere(packets);
    for _ in 0..3 {
        let packets = all(&mut pool);
        assert_eq!(packets.len(), 62);
        assert!(packets.iter().all(|packet| packet.iova() / 4096 != page));
    }
    pool.trim();
    assert_eq!((pool.stats().inflight(), pool.whole_pages(), pool.available()), (0, 31, 62));

    let mut foreign = Pool::new(&config(2), &bench.space).expect("another pool");
    let packet = foreign.alloc_packet().expect("one");
    assert!(pool.quarantine(packet).is_err(), "not this pool's");
    drop(pool);
    assert_eq!(monitor.life(), Life::Gone, "nobody waits for what is in quarantine");
}
