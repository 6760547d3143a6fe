//! What a forwarded packet costs, in instructions: exact, because the guest's clock counts them, or valgrind.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use pagewire_tests::{Guest, GuestOptions, Nic, script};
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

#[test]
fn a_packet_forwarded_on_the_82574_costs_what_the_documentation_says() -> Result<()> {
    let figures = [
        ("io", 32, 60.1),
        ("mac", 32, 77.2),
        ("io", 8, 82.4),
        ("mac", 8, 100.0),
        ("io", 1, 290.6),
        ("mac", 1, 312.6),
    ];
    let nics = vec![Nic::on_hub("e1000e"), Nic::on_hub("e1000e")];
    let mut guest = Guest::boot(GuestOptions { nics, count_instructions: true, ..GuestOptions::default() })?;
    guest.check(&format!("pagewire dev bind {} {}", Guest::address(0), Guest::address(1)))?;
    compare(&figures, |mode, burst| instructions(&mut guest, mode, burst))
}

#[test]
fn a_packet_forwarded_on_the_82599_costs_what_the_documentation_says() -> Result<()> {
    let figures = [
        ("io", 32, 62.2),
        ("mac", 32, 77.5),
        ("io", 8, 84.7),
        ("mac", 8, 100.8),
        ("io", 1, 294.7),
        ("mac", 1, 318.7),
    ];
    // The program is built as the guest's are: with all optimisations.
    let program = script("static", &["count"])?.pop().context("tests/lab/static printed nothing")?;
    let run = Command::new(program).arg("--json").output().context("running it")?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let counted: Vec<Value> = run
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()?;
    compare(&figures, |mode, burst| {
        let figure = counted.iter().find(|figure| figure["mode"] == mode && figure["burst"] == burst);
        figure
            .and_then(|figure| figure["instructions"].as_f64())
            .with_context(|| format!("no figure for {mode}, {burst}"))
    })
}
