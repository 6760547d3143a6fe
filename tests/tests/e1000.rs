//! The e1000 driver, feature by feature: `e1000-check` in a guest (see `tests/src/bin/e1000-check`).

use std::time::Duration;

use anyhow::{Result, ensure};
use pagewire_tests::{Guest, GuestOptions, Nic};

/// A guest whose cards, all on one hub, belong to vfio-pci; and their addresses.
fn guest(cards: usize, options: GuestOptions) -> Result<(Guest, String)> {
    let nics = vec![Nic::on_hub("e1000e"); cards];
    let mut guest = Guest::boot(GuestOptions { nics, ..options })?;
    let addresses = (0..cards).map(Guest::address).collect::<Vec<_>>().join(" ");
    guest.check(&format!("pagewire dev bind {addresses}"))?;
    Ok((guest, addresses))
}

/// A function whose BAR is memory, alone in its group.
fn memory_device() -> Vec<String> {
    let arguments = "-object memory-backend-ram,id=memory,size=2M,share=on \
                     -device pcie-root-port,id=beside,chassis=99,slot=99,addr=0x1e \
                     -device ivshmem-plain,memdev=memory,bus=beside";
    arguments.split(' ').map(str::to_owned).collect()
}

/// All cases in one guest, which has a huge page of 1 GiB; one of them has a card reach for memory that it was not given, three times.
#[test]
fn every_feature_works_and_only_stray_dma_faults() -> Result<()> {
    let large = ["hugepagesz=1G", "hugepages=1"].map(str::to_owned).to_vec();
    // A gigabyte in one piece is only free above the hole below 4 GiB.
    let options = GuestOptions { memory_mib: 4096, kernel_arguments: large, ..GuestOptions::default() };
    let options = GuestOptions { qemu_arguments: memory_device(), ..options };
    let (mut guest, cards) = guest(3, options)?;
    // Its port comes behind those of the cards.
    guest.check(&format!("pagewire dev bind {}", Guest::address(3)))?;
    let output = guest.run_within(&format!("e1000-check {cards}"), Duration::from_secs(300))?;
    println!("{output}");
    ensure!(output.status == 0, "{output}");

    // Page and access of each, by card 2. QEMU's record is complete: those, and no other.
    let stray = [("0xbad01", "write 0"), ("0xbad02", "write 1"), ("0xbad03", "write 0")];
    let faults = guest.iommu_faults();
    let is = |fault: &str, (page, access): (&str, &str)| {
        fault.contains("sid 0x300 ") && fault.contains(&format!("addr {page}")) && fault.ends_with(access)
    };
    for expected in stray {
        ensure!(faults.iter().any(|fault| is(fault, expected)), "no fault at {expected:?}: {faults:?}");
    }
    let other: Vec<_> =
        faults.iter().filter(|fault| !stray.iter().any(|&expected| is(fault, expected))).collect();
    ensure!(other.is_empty(), "faults that nobody asked for: {other:?}");

    // And the guest's kernel says so where its administrator looks.
    let console = guest.console();
    for what in ["DMA Read", "DMA Write"] {
        let said = console.lines().any(|line| {
            line.contains(&format!("DMAR: [{what} ")) && line.contains("[03:00.0] fault addr 0xbad0")
        });
        ensure!(said, "no {what} of 03:00.0 at 0xbad0… on the console:\n{console}");
    }
    Ok(())
}

#[test]
fn the_link_interrupt_tells_of_a_cable_pulled_and_plugged_in() -> Result<()> {
    let (mut guest, card) = guest(1, GuestOptions::default())?;
    let job = guest.start(&format!("exec e1000-check link {card}"))?;
    guest.wait_for(&job, "link up, 1000 Mb/s full duplex", Duration::from_secs(30))?;
    guest.set_link(0, false)?;
    guest.wait_for(&job, "link down", Duration::from_secs(30))?;
    guest.set_link(0, true)?;
    let output = guest.wait(&job, Duration::from_secs(30))?;
    ensure!(
        output.status == 0 && output.text.trim_end().ends_with("link up, 1000 Mb/s full duplex"),
        "{output}"
    );
    Ok(())
}
