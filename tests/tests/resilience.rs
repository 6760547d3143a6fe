//! What `pagewire l2fwd` does when things go wrong around it: too much traffic, lost links, sudden death, bad input.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pagewire_tests::{Guest, GuestOptions, Job, Nic, Traffic, Transfer, Wire};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn guest() -> Result<Guest> {
    let nics = vec![Nic::wired("e1000e"), Nic::wired("e1000e")];
    Guest::boot(GuestOptions { nics, ..GuestOptions::default() })
}

/// A guest whose two cards belong to vfio-pci.
fn bound() -> Result<Guest> {
    let mut guest = guest()?;
    guest.check(&format!("pagewire dev bind {} {}", Guest::address(0), Guest::address(1)))?;
    Ok(guest)
}

fn forward(guest: &mut Guest, arguments: &str) -> Result<Job> {
    let (a, b) = (Guest::address(0), Guest::address(1));
    let job = guest.start(&format!("exec pagewire l2fwd --port {a} --port {b} {arguments}"))?;
    guest.wait_for(&job, "port 1 .*link up", PATIENCE)?;
    Ok(job)
}

fn mixed(frames: u64) -> Transfer {
    Transfer::both_ways(Traffic::Mixed { seed: 3, lengths: 60..=1514 }, frames)
}

/// Ask a forwarder to stop; it must account for everything. Returns its last report.
fn stop(guest: &mut Guest, job: &Job) -> Result<Value> {
    guest.signal(job, "INT")?;
    let output = guest.wait(job, PATIENCE)?;
    ensure!(output.status == 0, "{output}");
    let last = output.text.lines().rev().find(|line| line.starts_with('{')).context("no JSON report")?;
    Ok(serde_json::from_str(last)?)
}

fn count(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {report}"))
}

/// Read what earlier transfers left on the way.
fn drain(wires: &mut [Wire]) -> Result<()> {
    for wire in wires {
        while wire.receive(Duration::from_millis(500))?.is_some() {}
    }
    Ok(())
}

fn free_huge_pages(guest: &mut Guest) -> Result<String> {
    guest.check("grep -E 'HugePages_(Free|Rsvd|Surp)' /proc/meminfo")
}

#[test]
fn overload_loses_nothing_that_has_no_name() -> Result<()> {
    let mut guest = bound()?;
    // The smallest rings, so that there is overload at all.
    let job = forward(&mut guest, "--json --stats-period 0 --rx-ring 64 --tx-ring 64")?;
    let transfer = Transfer { window: None, ..mixed(50_000) };
    let report = transfer.run(&mut guest.wires)?;
    println!("{report}");
    assert_eq!(report.faults, Vec::<String>::new(), "frames were changed");
    // It goes on as if nothing had been.
    drain(&mut guest.wires)?;
    mixed(1000).run(&mut guest.wires)?.lossless()?;
    let last = stop(&mut guest, &job)?;
    println!("{last:#}");
    for (from, to) in [(0, 1), (1, 0)] {
        let of = |port: usize, name: &str| count(&last, &format!("/ports/{port}/{name}"));
        let sent = report.sent[from] + 1000;
        let received = of(from, "rx_packets");
        assert_eq!(
            sent,
            received + of(from, "drops/rx_missed") + of(from, "drops/rx_errors"),
            "into port {from}"
        );
        let forwarded = of(to, "tx_packets");
        assert_eq!(
            received,
            forwarded + of(from, "drops/tx_full") + of(to, "drops/tx_errors"),
            "port {from} to {to}"
        );
        assert_eq!(forwarded, report.received[from] + 1000, "out of port {to}");
    }
    assert_eq!(count(&last, "/fragments/inflight"), count(&last, "/fragments/in_rings"));
    assert_eq!(count(&last, "/fragments/after_close"), 0);
    Ok(())
}

#[test]
fn a_link_that_goes_and_comes_back_is_seen_and_traffic_resumes() -> Result<()> {
    let mut guest = bound()?;
    let job = forward(&mut guest, "--json --stats-period 0")?;
    mixed(1000).run(&mut guest.wires)?.lossless()?;
    for nic in [0, 1] {
        let mut wires = std::mem::take(&mut guest.wires);
        let traffic = thread::spawn(move || {
            // Frames are lost while the link is down; how many is not the question here.
            let transfer = Transfer { patience: Duration::from_secs(2), ..mixed(20_000) };
            let _ = transfer.run(&mut wires);
            wires
        });
        guest.set_link(nic, false)?;
        guest.wait_for(&job, &format!("port {nic} .*link down"), PATIENCE)?;
        guest.set_link(nic, true)?;
        guest.until(&format!("[ $(grep -c 'port {nic} .*link up' /run/1.out) -ge 2 ]"), PATIENCE)?;
        guest.wires = traffic.join().expect("the transfer does not panic");
        drain(&mut guest.wires)?;
        mixed(1000).run(&mut guest.wires)?.lossless()?;
    }
    stop(&mut guest, &job)?;
    Ok(())
}

#[test]
fn a_forwarder_killed_in_full_traffic_leaves_nothing_in_the_way_of_the_next() -> Result<()> {
    let mut guest = bound()?;
    let free = free_huge_pages(&mut guest)?;
    for round in 0..20 {
        let job = forward(&mut guest, "--json --stats-period 0")?;
        let mut wires = std::mem::take(&mut guest.wires);
        let traffic = thread::spawn(move || {
            let transfer = Transfer { patience: Duration::from_millis(300), ..mixed(100_000) };
            let _ = transfer.run(&mut wires);
            wires
        });
        // Until it certainly forwards.
        thread::sleep(Duration::from_millis(200));
        guest.signal(&job, "KILL")?;
        let output = guest.wait(&job, PATIENCE)?;
        assert_eq!(output.status, 128 + 9, "round {round}: {output}");
        guest.wires = traffic.join().expect("the transfer does not panic");
        assert_eq!(free_huge_pages(&mut guest)?, free, "round {round}");
    }
    let job = forward(&mut guest, "--json --stats-period 0")?;
    drain(&mut guest.wires)?;
    mixed(1000).run(&mut guest.wires)?.lossless()?;
    stop(&mut guest, &job)?;
    assert_eq!(guest.iommu_faults(), Vec::<String>::new());
    Ok(())
}

#[test]
fn an_unprivileged_user_forwards_once_the_cards_are_his() -> Result<()> {
    let mut guest = guest()?;
    let (a, b) = (Guest::address(0), Guest::address(1));
    guest.check(&format!("pagewire dev bind --user pw {a} {b}"))?;
    let command = format!("pagewire l2fwd --port {a} --port {b} --json --stats-period 0");
    // Without a limit that allows the pools to be pinned it says what is missing.
    let refused = guest.run(&format!("ulimit -l 1024; su pw -c '{command}'"))?;
    assert_ne!(refused.status, 0);
    assert!(refused.text.contains("memlock") && refused.text.contains("ulimit -l"), "{refused}");
    let job = guest.start(&format!("ulimit -l 65536; exec su pw -c 'exec {command}'"))?;
    guest.wait_for(&job, "port 1 .*link up", PATIENCE)?;
    let who = guest.check("ps -o user,comm | grep pagewire")?;
    assert!(who.starts_with("pw "), "{who}");
    mixed(10_000).run(&mut guest.wires)?.lossless()?;
    stop(&mut guest, &job)?;
    Ok(())
}

#[test]
fn bad_input_is_told_what_is_wrong_and_changes_nothing() -> Result<()> {
    let mut guest = guest()?;
    let (a, b) = (Guest::address(0), Guest::address(1));
    guest.check(&format!("pagewire dev bind {b}"))?;
    let drivers = format!("for d in {a} {b}; do readlink /sys/bus/pci/devices/$d/driver; done");
    let before = guest.check(&drivers)?;
    let l2fwd = |arguments: &str| format!("pagewire l2fwd {arguments}");
    let cases = [
        // A function that is not there.
        (l2fwd("--port 0000:09:00.0"), vec!["0000:09:00.0", &a]),
        // One that is, but not ours.
        (l2fwd(&format!("--port {a}")), vec!["e1000e", "pagewire dev bind"]),
        // No network card: the host bridge.
        (l2fwd("--port 0000:00:00.0"), vec!["no driver for 8086:", "8086:10d3"]),
        (l2fwd("--port eth0"), vec!["a PCI address", "null:"]),
        (l2fwd(&format!("--port {b} --port {b}")), vec!["port 1 is port 0 once more"]),
        (
            l2fwd(&format!("--port {b} --rx-ring 100")),
            vec!["100 descriptors", "a power of two from 64 to 4096"],
        ),
        (l2fwd(&format!("--port {b} --mtu 10000")), vec!["MTU 10000", "68 to 9212"]),
        (l2fwd(&format!("--port {b} --fragments 100")), vec!["receive ring of 512 descriptors", "fragments"]),
        (l2fwd(&format!("--port {b} --cores 77")), vec!["CPU 77"]),
        (l2fwd(&format!("--port {b} --portmap 0:3")), vec!["no port 3"]),
        (l2fwd(&format!("--port {b} --pages 1G")), vec!["1 GiB", "pagewire hugepages reserve"]),
        (l2fwd(&format!("--port {b} --vfio iommufd")), vec!["iommufd"]),
        ("pagewire dev bind 0000:09:00.0".into(), vec!["0000:09:00.0"]),
        (format!("pagewire dev bind --user nobodyknows {a}"), vec!["nobodyknows"]),
        (format!("ip link set eth0 up; pagewire dev bind {a}"), vec!["eth0", "up", "--force"]),
        (
            format!("pagewire hugepages release >/dev/null; pagewire l2fwd --port {b}"),
            vec!["4 free huge pages of 2 MiB", "`pagewire hugepages reserve --size 2M --count 4`"],
        ),
    ];
    let mut wrong = Vec::new();
    for (command, expected) in cases {
        let output = guest.run(&command)?;
        let missing: Vec<_> = expected.into_iter().filter(|word| !output.text.contains(word)).collect();
        if output.status == 0 || output.text.contains("panicked") || !missing.is_empty() {
            wrong.push(format!("`{command}` does not say {missing:?}: {output}"));
        }
        println!("$ {command}\n{output}");
        let after = guest.check(&drivers)?;
        if after != before {
            wrong.push(format!("`{command}` left other drivers: {after}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn without_an_iommu_it_says_how_to_get_one() -> Result<()> {
    let kernel_arguments = vec!["intel_iommu=off".to_owned()];
    let nics = vec![Nic::wired("e1000e")];
    let mut guest = Guest::boot(GuestOptions { nics, kernel_arguments, ..GuestOptions::default() })?;
    let a = Guest::address(0);
    let bind = guest.run(&format!("pagewire dev bind {a}"))?;
    let output = guest.run(&format!("pagewire l2fwd --port {a}"))?;
    println!("{bind}\n{output}");
    for output in [&bind, &output] {
        assert_ne!(output.status, 0, "{output}");
    }
    assert!(bind.text.contains("IOMMU") && bind.text.contains("intel_iommu=on"), "{bind}");
    assert!(bind.text.contains("back with e1000e"), "{bind}");
    Ok(())
}

#[test]
fn without_ports_it_runs_without_privileges_and_without_huge_pages() -> Result<()> {
    let mut guest = Guest::boot(GuestOptions { hugepages: 0, ..GuestOptions::default() })?;
    // Every register of the modelled cards is a message between threads, which takes a millisecond in an emulated processor.
    let output = guest.run_within("su pw -c 'pagewire l2fwd --duration 1'", Duration::from_secs(240))?;
    println!("{output}");
    assert_eq!(output.status, 0, "{output}");
    assert!(output.text.contains("nothing lost"), "{output}");
    assert!(output.text.contains("4 KiB pages, which cost TLB misses"), "{output}");
    assert!(output.text.contains("pagewire hugepages reserve"), "{output}");
    Ok(())
}
