//! The model of the 82599 under a driver that knows nothing of it: Linux's ixgbe, as Debian ships it, behind a virtual IOMMU.
//!
//! Two models are wired to each other, and their ports are in network namespaces of their own, so that what the guest sends
//! itself goes over the wire.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, Result, ensure};
use pagewire_tests::counters::{Counters, agree, eventually, of_driver};
use pagewire_tests::ports::{NAMES, Ports, address};
use pagewire_tests::{GuestOptions, Link, Nic, programs};

/// Queues that each port has, one a processor.
const QUEUES: u32 = 4;
const MTU: u32 = 9000;

#[test]
fn linux_drives_the_model_by_messages() -> Result<()> {
    linux(false)
}

#[test]
fn linux_drives_the_model_by_mapped_doorbells() -> Result<()> {
    linux(true)
}

/// Without message-signalled interrupts the driver makes do with one queue, and the line that each card pulls.
#[test]
fn linux_makes_do_with_interrupt_lines() -> Result<()> {
    let mut ports = boot(false, "pci=nomsi")?;
    load(&mut ports)?;
    ports.up(MTU)?;
    let interrupts = ports.guest.check("grep -E 'IO-APIC.* eth[01]$' /proc/interrupts")?;
    assert_eq!(interrupts.lines().count(), 2, "{interrupts}");
    ports.ping(20)?;
    // It says what it does without.
    ports.unharmed(&["Failed to allocate MSI", "Disabling SR-IOV support", "Disabling RSS support"])
}

fn linux(mapped: bool) -> Result<()> {
    let mut ports = boot(mapped, "")?;
    load(&mut ports)?;
    ports.up(MTU)?;
    for (port, name) in NAMES.into_iter().enumerate() {
        assert_eq!(ports.check(port, &format!("cat /sys/class/net/{name}/speed"))?, "10000\n");
        let queues = ports.check(port, &format!("ls /sys/class/net/{name}/queues"))?;
        assert_eq!(queues.matches("rx-").count(), QUEUES as usize, "{queues}");
    }
    ports.ping(20)?;
    ports.copy(100 << 20)?;
    spread(&mut ports)?;
    eventually(|| statistics_agree(&mut ports))?;

    ports.introduce()?;
    for (port, name) in NAMES.into_iter().enumerate() {
        // Each end in turn; the other end's light goes out with it.
        ports.guest.models()[port].control.set_cable(false);
        ports.wait_link(false)?;
        let lost = ports.run(port, &format!("ping -c 1 -W 1 {}", address(1 - port)))?;
        ensure!(lost.status != 0, "through a pulled cable at {name}: {lost}");
        ports.guest.models()[port].control.set_cable(true);
        ports.wait_link(true)?;
    }
    ports.ping(5)?;

    for _ in 0..10 {
        ports.unload()?;
        load(&mut ports)?;
    }
    ports.up(MTU)?;
    ports.ping(5)?;
    ports.unload()?;
    ports.unharmed(&[])
}

/// Two cards wired to each other.
fn boot(mapped: bool, kernel_argument: &str) -> Result<Ports> {
    let nics = vec![Nic::ixgbe(mapped, Link::Pair); 2];
    let kernel_arguments = vec![kernel_argument.to_owned()];
    Ports::boot(
        "ixgbe",
        GuestOptions { nics, processors: QUEUES, kernel_arguments, ..GuestOptions::default() },
    )
}

/// Loads the driver, which must find both cards with their addresses.
fn load(ports: &mut Ports) -> Result<()> {
    assert_eq!(ports.load()?, ["52:54:00:00:00:00", "52:54:00:00:00:01"]);
    Ok(())
}

/// Packets that each receive queue has got, by the driver's own count.
fn queues(statistics: &Counters) -> Result<Vec<u64>> {
    let of = |queue| statistics.get(&format!("rx_queue_{queue}_packets")).copied();
    (0..QUEUES).map(of).collect::<Option<_>>().context("a queue without statistics")
}

/// Opens many connections, each of which is a flow of its own: both ports' queues must have got some.
fn spread(ports: &mut Ports) -> Result<()> {
    let before = [queues(&statistics(ports, 0)?)?, queues(&statistics(ports, 1)?)?];
    // Nobody listens, so each is two packets, one each way. That 64 flows miss a queue of four is a matter of 10⁻⁸.
    let connect = format!("n=0; while [ $n -lt 64 ]; do nc {} 9; n=$((n+1)); done", address(1));
    ports.run(0, &format!("sh -c '{connect}' 2>/dev/null"))?;
    for (port, before) in before.into_iter().enumerate() {
        let after = queues(&statistics(ports, port)?)?;
        let more = before.iter().zip(&after).all(|(before, after)| after > before);
        ensure!(more, "the queues of port {port} have {after:?} packets, before 64 flows {before:?}");
    }
    Ok(())
}

/// What the driver has read from the card's registers, and counted itports.
fn statistics(ports: &mut Ports, port: usize) -> Result<Counters> {
    let ethtool = programs::command(Path::new(programs::IN_GUEST), "sbin/ethtool");
    Ok(of_driver(&ports.check(port, &format!("{ethtool} -S {}", NAMES[port]))?))
}

/// The driver's statistics must be what passed on the wire, once what is under way has arrived.
fn statistics_agree(ports: &mut Ports) -> Result<()> {
    for port in 0..2 {
        let statistics = statistics(ports, port)?;
        let counts = &ports.guest.models()[port].counts;
        agree(&statistics, counts).with_context(|| format!("port {port}"))?;
        let received = counts.received.load(Relaxed);
        // `tx_dropped` is not the card's: it counts what the kernel wanted to send before there was a link.
        for (name, count) in &statistics {
            let bad = ["error", "missed", "rx_dropped", "no_buffer", "timeout", "failed"]
                .iter()
                .any(|bad| name.contains(bad));
            ensure!(!bad || *count == 0, "port {port}: {name} is {count}");
        }
        let queues: u64 = queues(&statistics)?.iter().sum();
        ensure!(queues == received, "port {port}: its queues got {queues}, on the wire {received}");
    }
    Ok(())
}
