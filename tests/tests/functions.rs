//! The model's virtual functions under a driver that knows nothing of it, Linux's ixgbevf, as Debian ships it, behind a virtual IOMMU;
//! and the answers of our own driver, which drives the card itself, under a driver that was not written for it.
//!
//! The guest has two functions of one card, each in a network namespace of its own, so that what the guest sends itself goes through the
//! card's switch.

use std::time::Duration;

use anyhow::Result;
use pagewire_ethdev::{FunctionConfig, MacAddr};
use pagewire_tests::ports::{NAMES, Ports};
use pagewire_tests::{Functions, GuestOptions, Nic};

#[test]
fn linux_drives_virtual_functions_of_a_card_that_we_drive() -> Result<()> {
    let mac = MacAddr([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
    let functions =
        [FunctionConfig { mac: Some(mac), trusted: false }, FunctionConfig { mac: None, trusted: true }];
    let card = Functions::serve(&functions)?;
    let nics = card.sockets.iter().map(|socket| Nic::served(socket)).collect();
    let mut ports = Ports::boot("ixgbevf", GuestOptions { nics, processors: 2, ..GuestOptions::default() })?;
    for round in 0..3 {
        let macs = ports.load()?;
        assert_eq!(macs[0], mac.to_string(), "as it was given");
        assert_ne!(macs[1], macs[0]);
        // Of its own accord it asks for the MTU, multicast groups and VLAN 0.
        ports.up(1500)?;
        for (port, name) in NAMES.into_iter().enumerate() {
            assert_eq!(ports.check(port, &format!("cat /sys/class/net/{name}/speed"))?, "10000\n");
            assert_eq!(ports.check(port, &format!("cat /sys/class/net/{name}/carrier"))?, "1\n");
        }
        ports.ping(20)?;
        if round == 0 {
            ports.copy(20 << 20)?;
            // An address that was given is not its own to change, unless it is trusted.
            let refused = ports.run(0, &format!("ip link set {} address 02:00:00:00:12:34", NAMES[0]))?;
            assert_ne!(refused.status, 0, "{refused}");
            ports.check(1, &format!("ip link set {} address 02:00:00:00:12:34", NAMES[1]))?;
            std::thread::sleep(Duration::from_millis(100));
            ports.ping(5)?;
        }
        ports.unload()?;
    }
    ports.unharmed(&[])?;
    drop(ports);
    card.finish()
}
