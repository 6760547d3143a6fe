//! The pool and DPDK's mbuf pool doing the same, side by side.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};
use std::{env, hint, thread};

use anyhow::{Context, Result, ensure};
use pagewire_pool::{Bulk, Burst, PageSize, Pool};
use pagewire_tests::programs;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

use crate::operations::{BULKS, Cut, alloc_bare, alloc_bulk, free_bare, free_bulk};

/// Fragments in a measurement.
const PASSED: usize = 1 << 19;
/// Measurements, of which the shortest counts: the others had company.
const MEASUREMENTS: usize = 9;
/// Packets handed over to another core at a time.
const HANDED: usize = 64;

/// Nanoseconds a fragment, half pages: a line of JSON for each operation, as `tests/dpdk/pool.c` writes them.
pub(crate) fn ours() -> Result<()> {
    pin(0)?;
    let mut pools = Cut::Half.pools(PageSize::Size2M);
    report("one fragment", best(1, || drop(hint::black_box(pools[0].alloc()))));
    report("one packet", best(1, || drop(hint::black_box(pools[0].alloc_packet()))));
    for size in BULKS {
        let mut burst = Burst::new(size);
        let bulk = || {
            alloc_bulk(&mut pools, &mut burst);
            free_bulk(&mut burst);
        };
        report(&format!("bulk of {size}"), best(size, bulk));
        let mut bulk = Bulk::new(size);
        let bare = || {
            alloc_bare(&mut pools[0], &mut bulk);
            free_bare(&mut bulk);
        };
        report(&format!("bare bulk of {size}"), best(size, bare));
    }
    report("returned by another core", returned(&mut pools[0])?);
    Ok(())
}

fn report(operation: &str, time: Duration) {
    println!("{}", json!({ "operation": operation, "ns": time.as_nanos() as f64 / PASSED as f64 }));
}

/// The shortest time in which an operation on `size` fragments at a time passes them all.
fn best(size: usize, mut operation: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        (0..PASSED / size).for_each(|_| operation());
        start.elapsed()
    };
    (0..MEASUREMENTS).map(time).min().unwrap_or_default()
}

fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("running on core {core}: two are needed"))
}

/// Allocated on one core and dropped on the other, in turns, so that neither waits within what is measured.
fn returned(pool: &mut Pool) -> Result<Duration> {
    let (give, given) = sync_channel::<Burst>(1);
    let (give_back, back) = sync_channel(1);
    let other = thread::spawn(move || {
        pin(1)?;
        while let Some(mut burst) = spin(&given) {
            let start = Instant::now();
            burst.drain().for_each(drop);
            let spent = start.elapsed();
            give_back.send((burst, spent)).context("the other core has gone")?;
        }
        Ok(())
    });
    let mut best = Duration::MAX;
    let mut burst = Burst::new(HANDED);
    'all: for _ in 0..MEASUREMENTS {
        let mut spent = Duration::ZERO;
        for _ in 0..PASSED / HANDED {
            let start = Instant::now();
            while burst.room() > 0 {
                _ = burst.push(pool.alloc_packet().context("no fragment is free")?);
            }
            spent += start.elapsed();
            if give.send(burst).is_err() {
                break 'all;
            }
            let Some((empty, theirs)) = spin(&back) else { break 'all };
            burst = empty;
            spent += theirs;
        }
        best = best.min(spent);
    }
    drop(give);
    other.join().expect("it does not panic").map(|()| best)
}

/// What arrives, without sleeping; `None` when the sender has gone.
fn spin<T>(receiver: &Receiver<T>) -> Option<T> {
    loop {
        match receiver.try_recv() {
            Ok(value) => return Some(value),
            Err(TryRecvError::Empty) => hint::spin_loop(),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
}

/// What is compared: ours, DPDK's, and the most that the first should take of the second's time.
const RATIOS: [(&str, &str, Option<f64>); 8] = [
    ("one fragment", "one packet", Some(0.5)),
    ("one packet", "one packet", Some(0.5)),
    ("bulk of 8", "bulk of 8", None),
    ("bulk of 32", "bulk of 32", Some(0.4)),
    ("bulk of 64", "bulk of 64", None),
    ("bare bulk of 32", "bulk of 32", None),
    ("bare bulk of 32", "raw bulk of 32", Some(1.5)),
    ("returned by another core", "returned by another core", Some(0.7)),
];

/// The two programs in turns.
pub(crate) fn beside_dpdk(rounds: usize) -> Result<()> {
    let root = programs::fetch()?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("pool");
    build(&root, &program)?;
    let mut dpdk = Command::new("sh");
    let drivers = programs::drivers(&root, &["mempool_ring"]);
    dpdk.args([
        "-c",
        &format!(
            "{} {} -l 0,1{drivers} --in-memory --no-pci -m 32",
            programs::loader(&root),
            program.display()
        ),
    ]);
    let mut ours = Command::new(env::current_exe()?);
    ours.arg("time");
    let (mut best, mut hz) = ([HashMap::new(), HashMap::new()], None);
    for _ in 0..rounds {
        for (command, best) in [&mut ours, &mut dpdk].into_iter().zip(&mut best) {
            let run = command.output().with_context(|| format!("{command:?}"))?;
            ensure!(run.status.success(), "{command:?}: {}", String::from_utf8_lossy(&run.stderr));
            for line in String::from_utf8(run.stdout)?.lines() {
                let figure: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
                hz = hz.or(figure["hz"].as_f64());
                if let (Some(operation), Some(ns)) = (figure["operation"].as_str(), figure["ns"].as_f64()) {
                    let best = best.entry(operation.to_owned()).or_insert(ns);
                    *best = best.min(ns);
                }
            }
        }
    }
    let cycles_per_ns = hz.context("DPDK's program did not say how fast the clock is")? / 1e9;
    let [ours, theirs] = best;
    println!("cycles a fragment that is allocated and freed, best of {rounds} rounds");
    for (our, their, goal) in RATIOS {
        let figure = |of: &HashMap<String, f64>, name| {
            Ok::<_, anyhow::Error>(
                of.get(name).with_context(|| format!("no figure for {name}"))? * cycles_per_ns,
            )
        };
        let (our_cycles, their_cycles) = (figure(&ours, our)?, figure(&theirs, their)?);
        let ratio = our_cycles / their_cycles;
        print!("  {our:25}{our_cycles:6.1}   DPDK, {their:25}{their_cycles:6.1}   ratio {ratio:.2}");
        match goal {
            Some(goal) if ratio > goal => println!("   above the {goal} that it should be"),
            Some(goal) => println!("   within {goal}"),
            None => println!(),
        }
    }
    Ok(())
}

/// Compiles DPDK's program with the flags of its own libdpdk.pc.
fn build(root: &Path, program: &Path) -> Result<()> {
    let root = root.display();
    let run = Command::new("gcc")
        .args([
            "-std=gnu11",
            "-O3",
            "-march=corei7",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-include",
            "rte_config.h",
        ])
        .args(["dpdk", "x86_64-linux-gnu/dpdk"].map(|folder| format!("-I{root}/usr/include/{folder}")))
        .args(["-idirafter", &format!("{root}/usr/include")])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/dpdk/pool.c"))
        .arg("-o")
        .arg(program)
        .arg(format!("-L{root}/usr/lib/x86_64-linux-gnu"))
        // What the libraries need themselves is found by the loader that they run with.
        .args(["-Wl,--allow-shlib-undefined", "-lrte_eal", "-lrte_mempool", "-lrte_mbuf", "-lrte_ring"])
        .output()
        .context("running gcc; install it with `apt install gcc`")?;
    ensure!(run.status.success(), "gcc: {}", String::from_utf8_lossy(&run.stderr));
    Ok(())
}
