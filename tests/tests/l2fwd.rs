//! `pagewire l2fwd` on two e1000e cards bound to vfio-pci, frames going in and out on the host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pagewire_tests::{Guest, GuestOptions, Job, Nic, Traffic, Transfer};

/// A guest with two cards given to vfio-pci, and `pagewire l2fwd` running on them.
fn forwarder(arguments: &str) -> Result<(Guest, Job)> {
    let nics = vec![Nic::wired("e1000e"), Nic::wired("e1000e")];
    let mut guest = Guest::boot(GuestOptions { nics, ..GuestOptions::default() })?;
    let (a, b) = (Guest::address(0), Guest::address(1));
    guest.check(&format!("pagewire dev bind {a} {b}"))?;
    let job = guest.start(&format!("exec pagewire l2fwd --port {a} --port {b} {arguments}"))?;
    guest.wait_for(&job, "port 1 .*link up", Duration::from_secs(30))?;
    Ok((guest, job))
}

#[test]
fn every_frame_is_forwarded_unchanged_in_both_directions() -> Result<()> {
    let (mut guest, job) = forwarder("--mtu 9000")?;
    // Up to 9,000 bytes of payload, with Ethernet header and VLAN tag.
    let report =
        Transfer::both_ways(Traffic::Mixed { seed: 2, lengths: 60..=9018 }, 100_000).run(&mut guest.wires)?;
    println!("{report}");
    guest.signal(&job, "INT")?;
    let output = guest.wait(&job, Duration::from_secs(20))?;
    println!("{output}");
    report.lossless()?;
    // Not zero if a fragment is missing from the rings, or out after they are closed.
    assert_eq!(output.status, 0, "{output}");
    assert!(output.text.contains("0 out after close: nothing lost"), "{output}");
    assert_eq!(guest.iommu_faults(), Vec::<String>::new());
    Ok(())
}

/// With a limit of a second, what comes sooner after a silence came by an interrupt.
#[test]
fn interrupts_wake_a_loop_that_sleeps() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(1);
    const ALONE: u64 = 20;
    let (mut guest, job) = forwarder("--interrupts --max-wait 1000000 --json --stats-period 0 --mode io")?;
    let mut frame = Vec::new();
    Traffic::Uniform { length: 60 }.frame(0, 7, &mut frame)?;
    for number in 0..ALONE {
        // Longer than it polls for nothing.
        std::thread::sleep(Duration::from_millis(50));
        let (from, to) = if number % 2 == 0 { (0, 1) } else { (1, 0) };
        guest.wires[from].send(&frame)?;
        ensure!(
            guest.wires[to].receive(LIMIT / 2)?.as_deref() == Some(&frame[..]),
            "frame {number} did not come"
        );
    }
    let report =
        Transfer::both_ways(Traffic::Mixed { seed: 6, lengths: 60..=1514 }, 20_000).run(&mut guest.wires)?;
    println!("{report}");
    guest.signal(&job, "INT")?;
    let output = guest.wait(&job, Duration::from_secs(20))?;
    report.lossless()?;
    ensure!(output.status == 0, "{output}");
    let last = output.text.lines().rev().find(|line| line.starts_with('{')).context("no JSON report")?;
    let waiter = &serde_json::from_str::<serde_json::Value>(last)?["waiters"][0];
    println!("{waiter}");
    ensure!(waiter["wake_ups"].as_u64() >= Some(ALONE), "{waiter}");
    assert_eq!(guest.iommu_faults(), Vec::<String>::new());
    Ok(())
}

#[test]
fn each_mode_writes_the_addresses_it_says() -> Result<()> {
    let own = |nic: u8| [0x52, 0x54, 0, 0, 0, nic];
    let (source, destination) = ([2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 2, 0]);
    let mut frame = Vec::new();
    Traffic::Uniform { length: 60 }.frame(0, 7, &mut frame)?;
    assert_eq!(frame[..12], [destination, source].concat());
    for (arguments, expected) in [
        ("", [[2, 0, 0, 0, 0, 1], own(1)]),
        ("--mode mac --portmap 0:0,1:1", [[2, 0, 0, 0, 0, 0], own(0)]),
        ("--no-mac-updating", [destination, source]),
        ("--mode macswap", [source, destination]),
    ] {
        let (mut guest, _job) = forwarder(arguments)?;
        let out_of = usize::from(!arguments.contains("portmap"));
        guest.wires[0].send(&frame)?;
        let received = guest.wires[out_of].receive(Duration::from_secs(30))?;
        let received = received.unwrap_or_else(|| panic!("`{arguments}`: nothing came"));
        assert_eq!(received[..12], expected.concat(), "`{arguments}`");
        assert_eq!(received[12..], frame[12..], "`{arguments}`");
    }
    Ok(())
}
