//! Time of the pool's operations; their exact counts of instructions are in `docs/performance.md`.
//!
//! `cargo bench -p pagewire-pool`

mod operations;

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use operations::{
    BULKS, Cut, GROWTH, SIZES, add_segment, alloc_bare, alloc_bulk, alloc_fragment, alloc_len, alloc_packet,
    free_bare, free_bulk, free_packet, growing,
};
use pagewire_pool::{Bulk, Burst, PageSize};

/// Packets that a pool gives out in one bulk, which is most of its cache, and that come back through the return ring.
const RETURNED: usize = 192;

fn operations(criterion: &mut Criterion) {
    for cut in Cut::ALL {
        let mut group = criterion.benchmark_group(cut.name());
        let mut pools = cut.pools(PageSize::Size4K);
        let turns = pools.len();
        let mut turn = 0;
        group.bench_function("one fragment", |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % turns;
                drop(black_box(alloc_fragment(&mut pools[turn])))
            })
        });
        group.bench_function("one packet", |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % turns;
                alloc_packet(&mut pools[turn]).map(free_packet)
            })
        });
        for size in BULKS {
            let mut burst = Burst::new(size);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(format!("bulk of {size}"), |bencher| {
                bencher.iter(|| {
                    alloc_bulk(&mut pools, &mut burst);
                    free_bulk(&mut burst);
                })
            });
            let mut bulk = Bulk::new(size);
            group.bench_function(format!("bare bulk of {size}"), |bencher| {
                bencher.iter(|| {
                    turn = (turn + 1) % turns;
                    alloc_bare(&mut pools[turn], &mut bulk);
                    free_bare(&mut bulk);
                })
            });
        }
        group.finish();
    }
}

/// Drops on a thread that does not allocate, and the refills that find what it dropped.
fn returns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("returned by another thread");
    let mut pools = Cut::Half.pools(PageSize::Size4K);
    let mut burst = Burst::new(RETURNED);
    group.throughput(Throughput::Elements(RETURNED as u64));
    let elsewhere = |burst: &mut Burst| {
        thread::scope(|scope| {
            let spawned = scope.spawn(|| {
                let start = Instant::now();
                burst.clear();
                start.elapsed()
            });
            spawned.join().expect("dropping does not panic")
        })
    };
    group.bench_function("drop", |bencher| {
        bencher.iter_custom(|rounds| {
            let round = |_| {
                alloc_bulk(&mut pools, &mut burst);
                elsewhere(&mut burst)
            };
            (0..rounds).map(round).sum::<Duration>()
        })
    });
    group.bench_function("refill", |bencher| {
        bencher.iter_custom(|rounds| {
            let round = |_| {
                elsewhere(&mut burst);
                let start = Instant::now();
                while let Some(packet) = (burst.room() > 0).then(|| pools[0].alloc_packet()).flatten() {
                    _ = burst.push(packet);
                }
                start.elapsed()
            };
            (0..rounds).map(round).sum::<Duration>()
        })
    });
}

/// Requests of mixed sizes of one pool.
fn sizes(criterion: &mut Criterion) {
    let mut pool = Cut::Half.pools(PageSize::Size4K).remove(0);
    let mut turn = 0;
    criterion.bench_function("mixed sizes of one pool", |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % SIZES.len();
            drop(black_box(alloc_len(&mut pool, SIZES[turn])))
        })
    });
}

/// What a pool costs to make, and to grow: its memory, its records, its maps.
fn creation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("growth");
    group.throughput(Throughput::Elements(GROWTH as u64));
    group.bench_function("2 MiB", |bencher| {
        let pool = || growing(1, PageSize::Size4K);
        bencher.iter_batched_ref(pool, add_segment, BatchSize::PerIteration)
    });
    group.finish();
    criterion.bench_function("creation", |bencher| {
        bencher.iter_batched(|| (), |()| Cut::Half.pools(PageSize::Size4K), BatchSize::PerIteration)
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    operations(&mut criterion);
    returns(&mut criterion);
    sizes(&mut criterion);
    creation(&mut criterion);
    criterion.final_summary();
}
