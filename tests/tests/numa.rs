//! The page pool on a machine with two NUMA nodes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pagewire_tests::{Guest, GuestOptions, script};

/// Half the memory and one of two processors on each node; huge pages are shared out evenly by the kernel.
#[test]
fn a_pool_keeps_to_its_node() -> Result<()> {
    let program = script("static", &["numa-check"])?.pop().context("tests/lab/static printed nothing")?;
    let folder = program.parent().context("a program in a folder")?.to_owned();
    let options = GuestOptions { folder: Some(folder), ..GuestOptions::default() };
    let half = options.memory_mib / 2;
    let mut arguments = Vec::new();
    for node in 0..2 {
        arguments.extend(["-object".into(), format!("memory-backend-ram,id=node{node},size={half}M")]);
        arguments.extend(["-numa".into(), format!("node,nodeid={node},cpus={node},memdev=node{node}")]);
    }
    let mut guest = Guest::boot(GuestOptions { qemu_arguments: arguments, ..options })?;
    ensure!(guest.check("cat /sys/devices/system/node/online")? == "0-1\n");
    guest.check("mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144 folder /mnt")?;
    let output = guest.run_within("/mnt/numa-check", Duration::from_secs(120))?;
    println!("{output}");
    ensure!(output.status == 0 && output.text.ends_with("all is as it should be\n"), "{output}");
    Ok(())
}
