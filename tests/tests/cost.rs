//! What a forwarded packet costs, in instructions: exact, because the guest's clock counts them, or valgrind.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pagewire_tests::{Guest, GuestOptions, Nic, callgrind, script};
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

/// Compare with docs/performance.md; a change of more than a few per cent either way belongs there too.
fn compare(figures: &[(&str, u32, f64)], mut measure: impl FnMut(&str, u32) -> Result<f64>) -> Result<()> {
    let mut wrong = Vec::new();
    for &(mode, burst, documented) in figures {
        let measured = measure(mode, burst)?;
        println!("{mode}, burst {burst}: {measured:.1} instructions a packet, {documented} documented");
        if (measured / documented - 1.0).abs() > 0.03 {
            wrong.push(format!("{mode}, burst {burst}: {measured:.1} instead of {documented}"));
        }
    }
    assert!(wrong.is_empty(), "instructions a packet: {}", wrong.join("; "));
    Ok(())
}

/// A program built as the guest's are: with all optimisations.
fn optimised(name: &str) -> Result<PathBuf> {
    script("static", &[name])?.pop().context("tests/lab/static printed nothing")
}

/// What a program prints as lines of JSON.
fn figures(program: &Path, args: &[&str]) -> Result<Vec<Value>> {
    let run = Command::new(program).args(args).output().context("running it")?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let text = String::from_utf8(run.stdout)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[test]
fn a_packet_forwarded_on_the_82574_costs_what_the_documentation_says() -> Result<()> {
    let figures = [
        ("io", 32, 74.8),
        ("mac", 32, 88.0),
        ("io", 8, 103.3),
        ("mac", 8, 117.3),
        ("io", 1, 362.3),
        ("mac", 1, 381.3),
    ];
    let nics = vec![Nic::on_hub("e1000e"), Nic::on_hub("e1000e")];
    let mut guest = Guest::boot(GuestOptions { nics, count_instructions: true, ..GuestOptions::default() })?;
    guest.check(&format!("pagewire dev bind {} {}", Guest::address(0), Guest::address(1)))?;
    compare(&figures, |mode, burst| instructions(&mut guest, mode, burst))
}

#[test]
fn a_packet_forwarded_on_the_82599_costs_what_the_documentation_says() -> Result<()> {
    let figures = [
        ("io", 32, 76.8),
        ("mac", 32, 88.2),
        ("io", 8, 105.3),
        ("mac", 8, 117.8),
        ("io", 1, 363.4),
        ("mac", 1, 384.4),
    ];
    let counted = self::figures(&optimised("count")?, &["--json"])?;
    compare(&figures, |mode, burst| {
        let figure = counted.iter().find(|figure| figure["mode"] == mode && figure["burst"] == burst);
        figure
            .and_then(|figure| figure["instructions"].as_f64())
            .with_context(|| format!("no figure for {mode}, {burst}"))
    })
}

#[test]
fn a_fragment_of_the_pool_costs_what_the_documentation_says() -> Result<()> {
    let figures = [
    ];
    let counted = self::figures(&optimised("pool")?, &["instructions", "--json"])?;
    compare(&figures, |operation, size| {
        Err(anyhow!("x"))
    })
}

#[test]
fn the_hit_path_of_the_pool_has_no_push_no_call_and_no_lock() -> Result<()> {
    let program = optimised("pool")?;
    for function in ["alloc_fragment", "alloc_packet", "free_packet"] {
        let executed = callgrind::executed(function, &program, ["drive", "hits"])?;
        println!("{function}:\n    {}", executed.join("\n    "));
        assert!(executed.last().is_some_and(|last| last.starts_with("ret")), "{function} does not return");
        for instruction in executed {
            let forbidden = ["push", "pop", "call", "lock", "xchg"].iter().any(|word| instruction.starts_with(word));
            assert!(!forbidden, "{function} executes {instruction}");
        }
    }
    Ok(())
}
