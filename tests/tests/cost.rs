//! What a forwarded packet costs, in instructions: exact, because the guest's clock counts them.

use anyhow::{Context, Result};
use pagewire_tests::{Guest, GuestOptions, Nic};
use serde_json::Value;

/// The TSC of a counting guest advances by this for each instruction.
const TICKS: f64 = 16.0;

/// Instructions a packet, the median over groups of 128: receive, rewrite, send, clean, recycle, and the two reads of the
/// counter a round.
fn instructions(guest: &mut Guest, mode: &str, burst: u32) -> Result<f64> {
    let (a, b) = (Guest::address(0), Guest::address(1));
    let text = guest.check(&format!(
        "pagewire l2fwd --port {a} --port {b} --mode {mode} --burst {burst} --tx-first 1 --record-core-cycles \
         --duration 0.5 --stats-period 0 --json 2>/dev/null"
    ))?;
    let report: Value = serde_json::from_str(&text)?;
    let cycles = &report["cycles_per_packet"][0];
    assert_eq!(cycles["burst"], burst, "{report:#}");
    Ok(cycles["median"].as_f64().context("no median")? / TICKS)
}

#[test]
fn a_forwarded_packet_costs_what_the_documentation_says() -> Result<()> {
    // docs/performance.md has these figures; a change of more than a few per cent either way belongs there too.
    let documented = [
        ("io", 32, 91.7),
        ("mac", 32, 105.0),
        ("io", 8, 117.3),
        ("mac", 8, 131.3),
        ("io", 1, 347.8),
        ("mac", 1, 366.8),
    ];
    let nics = vec![Nic::on_hub("e1000e"), Nic::on_hub("e1000e")];
    let mut guest = Guest::boot(GuestOptions { nics, count_instructions: true, ..GuestOptions::default() })?;
    guest.check(&format!("pagewire dev bind {} {}", Guest::address(0), Guest::address(1)))?;
    let mut wrong = Vec::new();
    for (mode, burst, expected) in documented {
        let measured = instructions(&mut guest, mode, burst)?;
        println!("{mode}, burst {burst}: {measured:.1} instructions a packet, {expected} documented");
        if (measured / expected - 1.0).abs() > 0.03 {
            wrong.push(format!("{mode}, burst {burst}: {measured:.1} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "instructions a packet: {}", wrong.join("; "));
    Ok(())
}
