//! The models of the 82599's successors under a driver that knows nothing of them: Linux's ixgbe, as Debian ships it.

use anyhow::Result;
use pagewire_models::ixgbe::Kind;
use pagewire_tests::ports::{NAMES, Ports};
use pagewire_tests::{GuestOptions, Link, Nic};

/// An X540 and an X550, wired to each other.
#[test]
fn linux_drives_the_models_of_the_successors() -> Result<()> {
    let nics = vec![Nic::ixgbe_kind(Kind::X540, Link::Pair), Nic::ixgbe_kind(Kind::X550, Link::Pair)];
    let mut ports = Ports::boot("ixgbe", GuestOptions { nics, ..GuestOptions::default() })?;
    assert_eq!(ports.load()?, ["52:54:00:00:00:00", "52:54:00:00:00:01"]);
    ports.up(1500)?;
    for (port, name) in NAMES.into_iter().enumerate() {
        assert_eq!(ports.check(port, &format!("cat /sys/class/net/{name}/speed"))?, "10000\n");
    }
    ports.ping(20)?;
    ports.copy(10 << 20)?;
    ports.unload()?;
    ports.unharmed(&[])
}
