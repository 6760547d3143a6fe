//! The lab itself: guests boot and run commands, frames go in and come out, and what a test relies on to fail does fail.
//! The drivers here are those of the guest's kernel.

use std::time::Duration;

use anyhow::Result;
use pagewire_tests::{Guest, GuestOptions, Nic, Traffic, Transfer};

fn two_cards() -> GuestOptions {
    GuestOptions { nics: vec![Nic::wired("e1000e"), Nic::wired("e1000e")], ..GuestOptions::default() }
}

/// Makes the guest's kernel bridge its two cards.
fn bridge(guest: &mut Guest, mtu: u32) -> Result<()> {
    // Debian's default, fq_codel, lets flows overtake one another and drops what waits for long.
    guest.check(&format!(
        "echo pfifo_fast >/proc/sys/net/core/default_qdisc
         ip link add br0 type bridge
         echo 0 >/sys/class/net/br0/bridge/multicast_snooping
         for card in eth0 eth1; do ip link set $card mtu {mtu} up promisc on; brctl addif br0 $card; done
         ip link set br0 up"
    ))?;
    // 3: forwarding.
    guest.until("[ $(cat /sys/class/net/br0/brif/*/state | tr -d '\\n') = 33 ]", Duration::from_secs(60))
}

#[test]
fn a_bridge_of_the_kernel_forwards_every_frame_unchanged() -> Result<()> {
    let mut guest = Guest::boot(two_cards())?;
    bridge(&mut guest, 9000)?;
    let traffic = Traffic::Mixed { seed: 1, lengths: 60..=9014 };
    let report = Transfer::both_ways(traffic, 10_000).run(&mut guest.wires)?;
    println!("{report}");
    report.lossless()?;

    // The same with a cable pulled: the transfer must notice.
    guest.set_link(1, false)?;
    guest.until("[ $(cat /sys/class/net/eth1/carrier) = 0 ]", Duration::from_secs(10))?;
    let cut = Transfer {
        patience: Duration::from_secs(1),
        ..Transfer::both_ways(Traffic::Uniform { length: 64 }, 300)
    };
    let report = cut.run(&mut guest.wires)?;
    assert_eq!(report.received, [0, 0], "{report}");
    assert!(report.lossless().is_err());

    guest.set_link(1, true)?;
    guest.until("[ $(cat /sys/class/net/eth1/carrier) = 1 ]", Duration::from_secs(10))?;
    Ok(())
}

#[test]
fn commands_report_output_status_and_time_out() -> Result<()> {
    let mut guest = Guest::boot(GuestOptions::default())?;
    let output = guest.run("echo out; echo err >&2; exit 3")?;
    assert_eq!((output.status, output.text.as_str()), (3, "out\nerr\n"));
    assert!(guest.check("false").is_err());
    assert_eq!(guest.check("su pw -c id -s /bin/sh")?.split(' ').next(), Some("uid=1000(pw)"));
    assert_eq!(guest.check("cat /proc/sys/vm/nr_hugepages")?, "128\n");
    assert!(guest.check("pagewire --version")?.starts_with("pagewire "));

    let job = guest.start("echo ready; trap 'echo stopped; exit 5' TERM; while :; do :; done")?;
    guest.wait_for(&job, "ready", Duration::from_secs(10))?;
    assert_eq!(guest.status_of(&job)?, None);
    let error = guest.wait_for(&job, "no such line", Duration::from_millis(200)).unwrap_err();
    assert!(error.to_string().contains("ready"), "{error:#}");
    guest.signal(&job, "TERM")?;
    let output = guest.wait(&job, Duration::from_secs(10))?;
    assert_eq!((output.status, output.text.as_str()), (5, "ready\nstopped\n"));
    assert_eq!(guest.status_of(&job)?, Some(5));

    guest.check("echo '<4>a warning' >/dev/kmsg; echo '<3>an error' >/dev/kmsg")?;
    assert!(guest.console().contains("an error"), "{}", guest.console());
    // Last: there is no telling what the guest does after that.
    assert!(guest.run_within("sleep 60", Duration::from_millis(300)).is_err());
    Ok(())
}

#[test]
fn cards_are_alone_in_their_groups_and_go_to_vfio() -> Result<()> {
    let mut guest = Guest::boot(two_cards())?;
    for nic in 0..2 {
        let address = Guest::address(nic);
        let device = format!("/sys/bus/pci/devices/{address}");
        let found = guest.check(&format!("cat {device}/device; ls {device}/iommu_group/devices"))?;
        assert_eq!(found, format!("0x10d3\n{address}\n"));
        guest.check(&format!(
            "echo vfio-pci >{device}/driver_override
             echo {address} >{device}/driver/unbind
             echo {address} >/sys/bus/pci/drivers_probe
             [ -c /dev/vfio/$(basename $(readlink {device}/iommu_group)) ]"
        ))?;
    }
    Ok(())
}

/// The clock of a counting guest advances by what the guest does, not by what the host has time for.
#[test]
fn counting_guests_count_the_same_twice() -> Result<()> {
    let busy = || -> Result<f64> {
        let mut guest = Guest::boot(GuestOptions { count_instructions: true, ..GuestOptions::default() })?;
        let times = guest.check("uptime() { cut -d ' ' -f 1 /proc/uptime; }; uptime; n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; uptime")?;
        let times: Vec<f64> = times.lines().map(str::parse).collect::<Result<_, _>>()?;
        Ok(times[1] - times[0])
    };
    let (first, second) = (busy()?, busy()?);
    println!("{first} s, {second} s");
    assert!((first / second - 1.0).abs() < 0.02, "{first} s, {second} s");
    Ok(())
}
