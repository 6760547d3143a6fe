//! Ages of what is held, at times that are made up.

use std::time::Duration;

use super::*;
use crate::{Ages, Life, pools};

fn pool() -> Pool {
    let (space, ..) = space();
    Pool::new(&PoolConfig { name: "aged".into(), ..config() }, &space).expect("a small pool")
}

/// All of the pool that is not held goes round, through this thread's magazine.
fn circulate(pool: &mut Pool) {
    for _ in 0..20 {
        drop(all(pool));
    }
}

#[test]
fn what_one_holder_hoards_is_seen_by_its_age_and_what_circulates_is_young() {
    let mut pool = pool();
    let monitor = pool.monitor();
    let later = |by| {
        pool_time(&monitor, by);
        monitor.ages()
    };
    circulate(&mut pool);
    let hoarded: Vec<_> = (0..7).map(|_| pool.alloc_packet().expect("7 of 128")).collect();
    later(Duration::from_secs(2));
    circulate(&mut pool);
    let ages = later(Duration::from_secs(5));
    assert_eq!(
        ages.counts,
        [0, 128, 0, 0, 0, 0],
        "seven for as long as the pool is there, the rest for five"
    );
    assert!(ages.oldest >= Duration::from_secs(7), "{ages:?}");
    circulate(&mut pool);
    let ages = later(Duration::from_millis(100));
    assert_eq!((ages.counts[0], ages.counts[1]), (121, 7), "{ages:?}");
    circulate(&mut pool);
    later(Duration::from_secs(3000));
    circulate(&mut pool);
    let ages = later(Duration::ZERO);
    assert_eq!((ages.counts[0], ages.counts[4]), (121, 7), "{ages:?}");
    drop(hoarded);
    pool.trim();
    assert_eq!(later(Duration::ZERO), Ages { counts: [0; 6], oldest: Duration::ZERO }, "all at home");
}

fn pool_time(monitor: &crate::PoolMonitor, by: Duration) {
    monitor.published.stamps.backdate(by);
}

#[test]
fn what_comes_back_through_the_ring_is_young_again() {
    let mut pool = pool();
    let monitor = pool.monitor();
    let held = all(&mut pool);
    for _ in 0..5 {
        pool_time(&monitor, Duration::from_secs(20));
        monitor.ages();
    }
    drop_elsewhere(held);
    let held = all(&mut pool);
    assert_eq!(monitor.ages().counts, [128, 0, 0, 0, 0, 0]);
    drop(held);
}

#[test]
fn a_process_lists_its_pools_with_orphans() {
    let (space, ..) = space();
    let config = PoolConfig { name: "a_process_lists_its_pools".into(), ..config() };
    let listed = || {
        let of_mine = pools().into_iter().filter(|pool| pool.name() == config.name);
        of_mine.map(|pool| (pool.life(), pool.stats().inflight())).collect::<Vec<_>>()
    };
    let mut first = Pool::new(&config, &space).expect("a small pool");
    let second = Pool::new(&config, &space).expect("another");
    let mut held = all(&mut first);
    assert_eq!(listed(), [(Life::Open, 128), (Life::Open, 0)]);
    let monitor = first.monitor();
    drop((first, second));
    assert_eq!(listed(), [(Life::Orphan, 128)]);
    drop_elsewhere(held.split_off(100));
    assert_eq!(listed(), [(Life::Orphan, 100)]);
    pool_time(&monitor, Duration::from_secs(60));
    assert_eq!(monitor.ages().counts, [0, 0, 0, 100, 0, 0]);
    drop_elsewhere(held);
    assert_eq!((listed(), monitor.life(), monitor.stats().inflight()), (vec![], Life::Gone, 0));
}
