//! What only a kernel of our own has: iommufd, and VFIO without an IOMMU. Debian's kernels have neither.
//!
//! Not part of `tests/run`, because building the kernel takes a quarter of an hour: `tests/run own-kernel`.

use std::time::Duration;

use anyhow::Result;
use pagewire_tests::{Guest, GuestOptions, Kernel, Nic, Traffic, Transfer};

fn guest(kernel_arguments: &[&str]) -> Result<Guest> {
    let mut guest = Guest::boot(GuestOptions {
        nics: vec![Nic::wired("e1000e"), Nic::wired("e1000e")],
        kernel: Kernel::Own,
        kernel_arguments: kernel_arguments.iter().map(|argument| argument.to_string()).collect(),
        ..GuestOptions::default()
    })?;
    guest.check(&format!("pagewire dev bind {} {}", Guest::address(0), Guest::address(1)))?;
    Ok(guest)
}

fn forwards_everything(guest: &mut Guest, arguments: &str) -> Result<()> {
    let (a, b) = (Guest::address(0), Guest::address(1));
    let job = guest.start(&format!(
        "RUST_LOG=debug exec pagewire l2fwd --port {a} --port {b} --mtu 9000 --stats-period 0 {arguments}"
    ))?;
    guest.wait_for(&job, "port 1 .*link up", Duration::from_secs(30))?;
    Transfer::both_ways(Traffic::Mixed { seed: 4, lengths: 60..=9018 }, 10_000)
        .run(&mut guest.wires)?
        .lossless()?;
    guest.signal(&job, "INT")?;
    let output = guest.wait(&job, Duration::from_secs(30))?;
    println!("{output}");
    assert_eq!(output.status, 0, "{output}");
    assert!(output.text.contains("nothing lost"), "{output}");
    Ok(())
}

#[test]
fn both_interfaces_to_an_iommu_forward_everything() -> Result<()> {
    let mut guest = guest(&[])?;
    guest.check("test -c /dev/iommu && ls /dev/vfio/devices/vfio*")?;
    for interface in ["iommufd", "group", "auto"] {
        forwards_everything(&mut guest, &format!("--vfio {interface}"))?;
    }
    assert_eq!(guest.iommu_faults(), Vec::<String>::new());
    Ok(())
}

#[test]
fn without_an_iommu_it_forwards_only_if_told_that_this_is_unsafe() -> Result<()> {
    let mut guest = guest(&["intel_iommu=off", "vfio.enable_unsafe_noiommu_mode=1"])?;
    let refused = guest.run(&format!("pagewire l2fwd --port {}", Guest::address(0)))?;
    println!("{refused}");
    assert_ne!(refused.status, 0);
    assert!(refused.text.contains("--unsafe-noiommu"), "{refused}");
    forwards_everything(&mut guest, "--unsafe-noiommu")
}
