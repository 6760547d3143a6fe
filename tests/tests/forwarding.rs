//! Forwarders on the model of the 82599, behind a virtual IOMMU: DPDK's, whose driver knows nothing of the model, and ours.
//!
//! They forward between two models, whose ports are wired to this process.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pagewire_tests::{Guest, GuestOptions, Job, Link, Nic, Traffic, Transfer, programs};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn testpmd_forwards_by_messages() -> Result<()> {
    testpmd(false)
}

#[test]
fn testpmd_forwards_by_mapped_doorbells() -> Result<()> {
    testpmd(true)
}

#[test]
fn l2fwd_forwards_by_messages() -> Result<()> {
    l2fwd(false, "")
}

#[test]
fn l2fwd_forwards_by_mapped_doorbells() -> Result<()> {
    l2fwd(true, "")
}

#[test]
fn l2fwd_forwards_what_interrupts_wake_it_for() -> Result<()> {
    l2fwd(true, "--interrupts")
}

fn testpmd(mapped: bool) -> Result<()> {
    /// Frames in each direction.
    const FRAMES: u64 = 100_000;
    let mut guest = guest(mapped)?;
    let program = programs::testpmd(
        Path::new(programs::IN_GUEST),
        &["net_ixgbe", "bus_pci"],
        &format!("--in-memory -a {} -a {}", Guest::address(0), Guest::address(1)),
    );
    // It drops what its transmit rings have no room for: they get more than can be under way.
    let job = guest.start(&format!("exec {program} --txd=512 --stats-period=1"))?;
    guest.wait_for(&job, "NIC statistics", PATIENCE)?;
    transfer(&mut guest, Traffic::Mixed { seed: 4, lengths: 60..=1514 }, FRAMES, 255)?;
    // The counts of the cards, as their driver reads them. Its receive counts are in a page that, mapped, cannot be cleared
    // by reading it; the model keeps them 0 there.
    guest.wait_for(&job, &format!("TX-packets: {FRAMES} "), PATIENCE)?;
    if !mapped {
        guest.wait_for(&job, &format!("RX-packets: {FRAMES} *RX-missed: 0 "), PATIENCE)?;
    }
    stop(&mut guest, &job)?;
    Ok(())
}

fn l2fwd(mapped: bool, more: &str) -> Result<()> {
    /// Frames in each direction.
    const FRAMES: u64 = 30_000;
    let mut guest = guest(mapped)?;
    let (a, b) = (Guest::address(0), Guest::address(1));
    let options = "--mtu 9000 --json --stats-period 0";
    let job = guest.start(&format!("exec pagewire l2fwd --port {a} --port {b} {options} {more}"))?;
    guest.wait_for(&job, "port 1 .*link up", PATIENCE)?;
    // Up to 9,000 bytes of payload, an Ethernet header and what a tag would take, of five descriptors each way. No more is under
    // way than the rings (512 descriptors) and the card's packet buffer (512 KiB) have room for.
    transfer(&mut guest, Traffic::Mixed { seed: 5, lengths: 60..=9018 }, FRAMES, 50)?;
    let output = stop(&mut guest, &job)?;
    let last = output.lines().rev().find(|line| line.starts_with('{')).context("no JSON report")?;
    let last: Value = serde_json::from_str(last)?;
    for port in 0..2 {
        for name in ["rx_packets", "tx_packets"] {
            assert_eq!(last["ports"][port][name], FRAMES, "port {port}: {last:#}");
        }
    }
    assert_eq!(last["fragments"]["after_close"], 0, "{last:#}");
    let woken = last["waiters"][0]["wake_ups"].as_u64();
    assert_eq!(woken.is_some_and(|count| count > 0), !more.is_empty(), "{last:#}");
    Ok(())
}

/// A guest with two models on vfio-pci, and Debian's programs.
fn guest(mapped: bool) -> Result<Guest> {
    let nics = vec![Nic::ixgbe(mapped, Link::Wire); 2];
    let mut guest = programs::boot(GuestOptions { nics, ..GuestOptions::default() })?;
    guest.check(&format!("pagewire dev bind {} {}", Guest::address(0), Guest::address(1)))?;
    Ok(guest)
}

/// Sends frames both ways. All must come back, once, unchanged, in order, and nothing else.
fn transfer(guest: &mut Guest, traffic: Traffic, frames: u64, window: u64) -> Result<()> {
    let transfer = Transfer { window: Some(window), ..Transfer::both_ways(traffic, frames) };
    let report = transfer.run(&mut guest.wires)?;
    println!("{report}");
    report.lossless()?;
    for model in guest.models() {
        let (sent, received) = (&model.counts.sent, &model.counts.received);
        assert_eq!((sent.load(Relaxed), received.load(Relaxed)), (frames, frames));
    }
    Ok(())
}

/// Asks a forwarder to stop. Neither it nor the IOMMU nor the models may have anything to complain of.
fn stop(guest: &mut Guest, job: &Job) -> Result<String> {
    guest.signal(job, "INT")?;
    let output = guest.wait(job, PATIENCE)?;
    ensure!(output.status == 0, "{output}");
    assert_eq!(guest.iommu_faults(), Vec::<String>::new());
    guest.check_models()?;
    Ok(output.text)
}
