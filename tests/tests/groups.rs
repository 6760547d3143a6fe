//! IOMMU groups: several ports in one, several in a container.

use std::time::Duration;

use anyhow::Result;
use pagewire_tests::{Flow, Guest, GuestOptions, Nic, Traffic, Transfer};
use serde_json::Value;

/// A card of its own at 01:00.0, with a wire, and at 02:00.0 and 02:00.1 a card of two functions, on the hub. Nothing keeps
/// those two from reaching each other's registers, so they are one group.
fn guest() -> Result<Guest> {
    let mut qemu_arguments = vec!["-device", "pcie-root-port,id=both,chassis=99,addr=0x1e,x-speed=5"];
    for function in [
        ["hubport,id=first,hubid=0", "e1000e,bus=both,addr=0.0,multifunction=on,netdev=first"],
        ["hubport,id=second,hubid=0", "e1000e,bus=both,addr=0.1,netdev=second"],
    ] {
        qemu_arguments.extend(["-netdev", function[0], "-device", function[1]]);
    }
    Guest::boot(GuestOptions {
        nics: vec![Nic::wired("e1000e")],
        qemu_arguments: qemu_arguments.into_iter().map(str::to_owned).collect(),
        ..GuestOptions::default()
    })
}

#[test]
fn ports_of_one_group_and_of_another_work_together() -> Result<()> {
    let mut guest = guest()?;
    guest.check("pagewire dev bind 01:00.0 02:00.0 02:00.1")?;
    let job = guest.start(
        "exec pagewire l2fwd --port 01:00.0 --port 02:00.0 --port 02:00.1 --portmap 0:0,1:2 --mode io --tx-first 1 --json -T 0",
    )?;
    guest.wait_for(&job, "port 2 .*link up", Duration::from_secs(30))?;
    // The burst that port 0 sent first.
    while guest.wires[0].receive(Duration::from_millis(500))?.is_some() {}
    let reflected = Transfer {
        flows: vec![Flow { into: 0, out_of: 0 }],
        ..Transfer::both_ways(Traffic::Mixed { seed: 5, lengths: 60..=1514 }, 5_000)
    };
    reflected.run(&mut guest.wires)?.lossless()?;
    guest.signal(&job, "INT")?;
    let output = guest.wait(&job, Duration::from_secs(30))?;
    assert_eq!(output.status, 0, "{output}");
    let last: Value = serde_json::from_str(output.text.lines().last().unwrap_or_default())?;
    for port in [1, 2] {
        let received = last.pointer(&format!("/ports/{port}/rx_packets")).and_then(Value::as_u64);
        assert!(received.is_some_and(|packets| packets > 1000), "port {port}: {last:#}");
    }
    assert_eq!(guest.iommu_faults(), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_group_that_the_kernel_drives_in_part_is_refused_by_name() -> Result<()> {
    let mut guest = guest()?;
    let bind = guest.run("pagewire dev bind 02:00.0")?;
    assert_eq!(bind.status, 0, "{bind}");
    assert!(bind.text.contains("02:00.1"), "no warning of the other member: {bind}");
    let output = guest.run("pagewire l2fwd --port 02:00.0")?;
    assert_ne!(output.status, 0);
    for expected in ["0000:02:00.1", "e1000e", "pagewire dev bind"] {
        assert!(output.text.contains(expected), "no {expected}: {output}");
    }
    // `pagewire check` knows before, and the command that it names mends it.
    let blocking = |guest: &mut Guest, status| -> Result<Vec<Value>> {
        let output = guest.run("pagewire check --port 02:00.0 --json 2>/dev/null")?;
        assert_eq!(output.status, status, "{output}");
        let document: Value = serde_json::from_str(&output.text)?;
        let findings = document["findings"].as_array().cloned().unwrap_or_default();
        Ok(findings.into_iter().filter(|finding| finding["severity"] == "blocking").collect())
    };
    let found = blocking(&mut guest, 1)?;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((&found[0]["check"], &found[0]["port"]), (&"group".into(), &"0000:02:00.0".into()));
    guest.check(found[0]["mend"].as_str().unwrap_or_default())?;
    assert_eq!(blocking(&mut guest, 0)?, Vec::<Value>::new());
    Ok(())
}
