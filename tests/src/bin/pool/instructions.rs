//! Instructions of the pool's operations, counted by valgrind.

use std::env::current_exe;
use std::{fmt, thread};

use anyhow::{Context, Result, ensure};
use pagewire_pool::{Bulk, Burst, Packet, PacketFlags, PageSize, Posted};
use pagewire_tests::callgrind;
use serde::Serialize;

use crate::operations::{
    BULKS, Cut, FRAGMENTS, GROWTH, SIZES, add_segment, alloc_bare, alloc_bulk, alloc_fragment, alloc_len,
    alloc_packet, free_bare, free_bulk, free_packet, growing,
};

/// Fragments that are counted. Before them as many pass without being counted, so that all caches are in their steady state.
const COUNTED: usize = 8192;
/// Names what finds the cache filled and the magazine empty, after how pages are cut.
const HITS: &str = "hits";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// One at a time, as a receive ring takes them.
    Fragment,
    /// One at a time, made an empty packet.
    Packet,
    /// That many packets at a time.
    Bulk(usize),
    /// That many fragments at a time, of which no packet is made.
    Bare(usize),
    /// Packets dropped on another thread.
    Return,
    /// One at a time, half of them larger than a fragment of the pool.
    Sizes,
    /// Fragments of segments that the pool grows by.
    Growth,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Fragment => write!(f, "one fragment"),
            Operation::Packet => write!(f, "one packet"),
            Operation::Bulk(count) => write!(f, "bulk of {count}"),
            Operation::Bare(count) => write!(f, "bare bulk of {count}"),
            Operation::Return => write!(f, "returned by another thread"),
            Operation::Sizes => write!(f, "mixed sizes"),
            Operation::Growth => write!(f, "growth"),
        }
    }
}

/// Everything that is counted, by name.
fn cases() -> impl Iterator<Item = (String, Cut, Operation)> {
    let operations = || {
        let bulks = BULKS.into_iter().map(Operation::Bulk).chain(BULKS.into_iter().map(Operation::Bare));
        [Operation::Fragment, Operation::Packet].into_iter().chain(bulks).chain([Operation::Return])
    };
    let named = |cut: Cut, operation| (format!("{}, {operation}", cut.name()), cut, operation);
    let all =
        Cut::ALL.into_iter().flat_map(move |cut| operations().map(move |operation| named(cut, operation)));
    all.chain([Operation::Sizes, Operation::Growth].map(|operation| named(Cut::Half, operation)))
}

#[derive(Serialize)]
struct Figure<'a> {
    operation: &'a str,
    instructions: f64,
}

pub(crate) fn report(json: bool) -> Result<()> {
    for (name, _, operation) in cases() {
        let functions = match operation {
            Operation::Fragment => ["alloc_fragment", "free_packet"],
            Operation::Packet | Operation::Return => ["alloc_packet", "free_packet"],
            Operation::Bulk(_) => ["alloc_bulk", "free_bulk"],
            Operation::Bare(_) => ["alloc_bare", "free_bare"],
            Operation::Sizes => ["alloc_len", "free_packet"],
            // The second is not called.
            Operation::Growth => ["add_segment", "free_packet"],
        };
        let counted = callgrind::count(&functions, &current_exe()?, ["drive", &name])?;
        let figure = Figure { operation: &name, instructions: counted as f64 / COUNTED as f64 };
        match json {
            true => println!("{}", serde_json::to_string(&figure)?),
            false => println!("{name}: {:.1} instructions", figure.instructions),
        }
    }
    Ok(())
}

/// Prints what the test `cost` looks at.
pub(crate) fn hit_path() -> Result<()> {
    for function in ["alloc_fragment", "alloc_packet", "free_packet"] {
        println!("{function}:");
        for (instruction, _) in callgrind::executed(
            function,
            &current_exe()?,
            ["drive", &format!("{}, {HITS}", Cut::Half.name())],
        )? {
            println!("    {instruction}");
        }
    }
    Ok(())
}

/// Allocates and drops what is to be counted.
pub(crate) fn drive(what: &str) -> Result<()> {
    if let Some(cut) = Cut::ALL.into_iter().find(|cut| format!("{}, {HITS}", cut.name()) == what) {
        return drive_hits(cut);
    }
    let (_, cut, operation) = cases().find(|(name, ..)| name == what).context("no such operation")?;
    if operation == Operation::Growth {
        let mut pool = growing(COUNTED / GROWTH, PageSize::Size4K);
        let grown: usize = (0..COUNTED / GROWTH).map(|_| add_segment(&mut pool)).sum();
        ensure!(grown == COUNTED, "the pool has grown by {grown}");
        return Ok(());
    }
    let mut pools = cut.pools(PageSize::Size4K);
    let size = match operation {
        Operation::Fragment | Operation::Packet | Operation::Sizes | Operation::Growth => 1,
        Operation::Bulk(size) | Operation::Bare(size) => size,
        Operation::Return => FRAGMENTS / 2,
    };
    let (mut burst, mut bulk) = (Burst::new(size), Bulk::new(size));
    let turns = pools.len();
    for round in 0..COUNTED / size {
        fill(&mut burst, |number| pools[(round + number) % turns].alloc_packet())?;
        match operation {
            Operation::Return => elsewhere(&mut burst, drop),
            _ => burst.clear(),
        }
    }
    for round in 0..COUNTED / size {
        let pool = &mut pools[round % turns];
        match operation {
            Operation::Fragment => free_packet(made(alloc_fragment(pool))?),
            Operation::Packet => free_packet(alloc_packet(pool).context(NONE)?),
            Operation::Bulk(_) => {
                alloc_bulk(&mut pools, &mut burst);
                ensure!(burst.room() == 0, NONE);
                free_bulk(&mut burst);
            }
            Operation::Bare(_) => {
                ensure!(alloc_bare(pool, &mut bulk) == size, NONE);
                free_bare(&mut bulk);
            }
            Operation::Sizes => free_packet(made(alloc_len(pool, SIZES[round % SIZES.len()]))?),
            Operation::Growth => {}
            Operation::Return => {
                fill(&mut burst, |number| alloc_packet(&mut pools[number % turns]))?;
                elsewhere(&mut burst, free_packet);
            }
        }
    }
    Ok(())
}

/// A few fragments and packets, after a refill and before the next.
fn drive_hits(cut: Cut) -> Result<()> {
    const HITS: usize = 16;
    let mut pool = cut.pools(PageSize::Size4K).pop().context("no pool")?;
    let mut burst = Burst::new(FRAGMENTS);
    drop(pool.alloc_packet());
    // A refill that finds something in the magazine has the thread keep more of what it drops; the next one gets all of that.
    for _ in 0..2 {
        let refills = pool.stats().alloc_refill;
        while pool.stats().alloc_refill == refills {
            burst.push(pool.alloc_packet().context(NONE)?).ok().context("the pool is never refilled")?;
        }
        burst.clear();
    }
    let refills = pool.stats().alloc_refill;
    let mut burst = Burst::new(2 * HITS);
    fill(&mut burst, |number| match number % 2 {
        0 => alloc_packet(&mut pool),
        _ => made(alloc_fragment(&mut pool)).ok(),
    })?;
    burst.drain().for_each(free_packet);
    ensure!(pool.stats().alloc_refill == refills, "the pool was refilled");
    Ok(())
}

const NONE: &str = "no fragment is free";

fn made(fragment: Option<Posted>) -> Result<Packet> {
    fragment.and_then(|fragment| fragment.complete(0, 0, PacketFlags::empty()).ok()).context(NONE)
}

/// Fills a burst with the packets that `make` makes for their numbers.
fn fill(burst: &mut Burst, mut make: impl FnMut(usize) -> Option<Packet>) -> Result<()> {
    while burst.room() > 0 {
        let packet = make(burst.len()).context(NONE)?;
        burst.push(packet).ok().context("the burst has room")?;
    }
    Ok(())
}

/// Drops a burst's packets on another thread.
fn elsewhere(burst: &mut Burst, drop: fn(Packet)) {
    thread::scope(|scope| _ = scope.spawn(|| burst.drain().for_each(drop)));
}
