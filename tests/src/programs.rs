//! Programs of Debian's, unpacked: DPDK's testpmd and ethtool, to be run in a guest or here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{Guest, GuestOptions, script};

/// Where a guest has them.
pub const IN_GUEST: &str = "/mnt";

/// Downloads them, unless that was done before; returns the folder they are in.
pub fn fetch() -> Result<PathBuf> {
    Ok(script("fetch", &["programs"])?.pop().context("tests/lab/fetch printed nothing")?.join("programs"))
}

/// Boots a guest that has them.
pub fn boot(options: GuestOptions) -> Result<Guest> {
    let mut guest = Guest::boot(GuestOptions { folder: Some(fetch()?), ..options })?;
    guest
        .check(&format!("mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144 folder {IN_GUEST}"))?;
    Ok(guest)
}

/// The start of a command line of a program in the folder `root`, such as `sbin/ethtool`.
pub fn command(root: &Path, program: &str) -> String {
    format!("{} {}/{program}", loader(root), root.display())
}

/// Debian's own loader, since the program that follows is linked with Debian's own libraries.
pub fn loader(root: &Path) -> String {
    let root = root.display();
    let libraries = format!("{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu");
    format!("{root}/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path {libraries}")
}

/// The start of a command line of testpmd with those drivers only, the EAL's arguments done; its own may follow.
pub fn testpmd(root: &Path, drivers: &[&str], devices: &str) -> String {
    let program = command(root, "usr/bin/dpdk-testpmd");
    let drivers = self::drivers(root, &[&["mempool_ring"], drivers].concat());
    format!("{program} -l 0,1{drivers} {devices} -- --total-num-mbufs=2048")
}

/// The EAL's arguments that load those drivers of DPDK's and no others.
pub fn drivers(root: &Path, drivers: &[&str]) -> String {
    let folder = format!("{}/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0", root.display());
    drivers.iter().map(|driver| format!(" -d {folder}/librte_{driver}.so")).collect()
}
