//! Checks of the e1000 driver on real (emulated) cards, run inside a guest of the lab.
//!
//! ```text
//! e1000-check A B C [CASE…]    every case, or those named, with cards A, B and C on one hub
//! e1000-check link A           prints A's link each time it changes, until standard input ends
//! ```
//!
//! All cards are bound to vfio-pci, and one huge page of 1 GiB is free. Each case opens what it needs and has to leave nothing behind. One line a case; exit status 0
//! only if every case that ran passed, and at least one did.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use pagewire_pci::Address;

mod checksums;
mod faults;
mod filters;
mod life;
mod limits;
mod link;
mod memory;
mod pair;
mod vlan;

/// The cards, all on one hub.
pub(crate) struct Cards {
    pub(crate) a: Address,
    pub(crate) b: Address,
    /// For the case that misuses one.
    pub(crate) c: Address,
}

type Case = (&'static str, fn(&Cards) -> Result<()>);

const CASES: &[&[Case]] = &[
    checksums::CASES,
    vlan::CASES,
    filters::CASES,
    limits::CASES,
    memory::CASES,
    life::CASES,
    faults::CASES,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["link", card] => link::watch(card).map(|()| true),
        [a, b, c, ref cases @ ..] => run(a, b, c, cases),
        _ => Err(anyhow::anyhow!("usage: e1000-check A B C [CASE…], or e1000-check link A")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(a: &str, b: &str, c: &str, wanted: &[&str]) -> Result<bool> {
    let cards = Cards { a: a.parse()?, b: b.parse()?, c: c.parse()? };
    let cases = CASES.iter().copied().flatten();
    let chosen: Vec<_> = cases.filter(|(name, _)| wanted.is_empty() || wanted.contains(name)).collect();
    ensure!(!chosen.is_empty() && (wanted.is_empty() || chosen.len() == wanted.len()), "no such case");
    let mut failed = 0;
    for (name, case) in &chosen {
        let free = free_huge_pages()?;
        match case(&cards).and_then(|()| nothing_is_left(&cards, free)) {
            Ok(()) => println!("ok {name}"),
            Err(error) => {
                failed += 1;
                println!("FAILED {name}: {error:#}");
            }
        }
    }
    println!("{} passed, {failed} failed", chosen.len() - failed);
    Ok(failed == 0)
}

/// As many huge pages are free as before, and the cards cannot reach memory.
fn nothing_is_left(cards: &Cards, before: u64) -> Result<()> {
    let free = free_huge_pages()?;
    ensure!(free == before, "{free} huge pages are free afterwards, {before} were before");
    for card in [cards.a, cards.b] {
        ensure!(!is_bus_master(card)?, "{card} is still bus master afterwards");
    }
    Ok(())
}

fn free_huge_pages() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let free = meminfo.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    Ok(free.context("/proc/meminfo has no HugePages_Free")?.trim().parse()?)
}

/// Whether a card may read and write memory: bit 2 of its command register.
pub(crate) fn is_bus_master(card: Address) -> Result<bool> {
    let config = fs::read(format!("/sys/bus/pci/devices/{card}/config"))?;
    Ok(config[4] & 1 << 2 != 0)
}
