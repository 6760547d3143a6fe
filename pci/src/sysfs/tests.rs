//! A machine made of files, and what is read from it.

use std::fs::{self, create_dir_all};
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A tree that looks like `/sys`, `/proc` and `/dev` of a machine.
pub(crate) struct Machine {
    pub(crate) root: TempDir,
    pub(crate) sysfs: Sysfs,
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let root = tempfile::tempdir().unwrap();
        let sysfs = Sysfs::at(root.path());
        create_dir_all(sysfs.path("sys/bus/pci/devices")).unwrap();
        Machine { root, sysfs }
    }

    /// Writes a file below the root, and the folders it is in.
    pub(crate) fn file(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.root.path().join(path);
        create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn function(&self, at: &str, vendor: u16, device: u16, class: u32) {
        let folder = Path::new("sys/bus/pci/devices").join(at);
        let attribute = |name: &str, value: &str| self.file(folder.join(name), &format!("{value}\n"));
        attribute("vendor", &format!("{vendor:#06x}"));
        attribute("device", &format!("{device:#06x}"));
        attribute("class", &format!("{class:#08x}"));
        attribute("subsystem_vendor", "0x1af4");
        attribute("subsystem_device", "0x1100");
        attribute("revision", "0x03");
        attribute("numa_node", "-1");
        attribute("driver_override", "(null)");
    }

    pub(crate) fn e1000e(&self, at: &str) {
        self.function(at, 0x8086, 0x10d3, 0x020000);
    }

    /// Loads a driver, and binds a function to it.
    pub(crate) fn driver(&self, at: &str, driver: &str) {
        let path = self.sysfs.path("sys/bus/pci/drivers").join(driver);
        create_dir_all(&path).unwrap();
        symlink(path, self.sysfs.folder(address(at)).join("driver")).unwrap();
    }

    pub(crate) fn group(&self, id: u32, members: &[&str]) {
        let group = self.sysfs.path(format!("sys/kernel/iommu_groups/{id}"));
        create_dir_all(group.join("devices")).unwrap();
        for member in members {
            let folder = self.sysfs.folder(address(member));
            symlink(&folder, group.join("devices").join(member)).unwrap();
            symlink(&group, folder.join("iommu_group")).unwrap();
        }
        self.file(format!("dev/vfio/{id}"), "");
    }

    pub(crate) fn interface(&self, below: &str, name: &str, up: bool) {
        let folder = Path::new("sys/bus/pci/devices").join(below).join("net").join(name);
        self.file(folder.join("flags"), if up { "0x1003\n" } else { "0x1002\n" });
        self.file(folder.join("carrier"), if up { "1\n" } else { "0\n" });
        self.file(folder.join("address"), "52:54:00:12:34:56\n");
    }

    pub(crate) fn route(&self, interface: &str) {
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let default = format!("{interface}\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
        let local = "other\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        self.file("proc/net/route", &format!("{head}{default}{local}"));
    }
}

#[test]
fn reads_a_card_in_the_hands_of_the_kernel() {
    let machine = Machine::new();
    machine.e1000e("0000:01:00.0");
    machine.function("0000:00:1c.0", 0x8086, 0xa110, 0x060400);
    machine.driver("0000:01:00.0", "e1000e");
    machine.driver("0000:00:1c.0", "pcieport");
    machine.group(7, &["0000:01:00.0", "0000:00:1c.0"]);
    machine.interface("0000:01:00.0", "eth0", true);
    machine.interface("0000:01:00.0", "eth1", false);
    machine.route("eth0");
    machine.file("sys/bus/pci/devices/0000:01:00.0/numa_node", "1\n");

    let functions = machine.sysfs.functions().unwrap();
    assert_eq!(functions.len(), 2);
    let (bridge, card) = (&functions[0], &functions[1]);
    assert!(bridge.is_bridge() && !bridge.is_network() && !bridge.holds_group());
    assert_eq!(bridge.group_members, [card.address]);
    assert!(card.is_network() && !card.is_vfio() && card.holds_group());
    assert_eq!((card.vendor_id, card.device_id, card.class, card.revision), (0x8086, 0x10d3, 0x020000, 3));
    assert_eq!((card.subsystem_vendor_id, card.subsystem_device_id), (0x1af4, 0x1100));
    assert_eq!(card.driver.as_deref(), Some("e1000e"));
    assert_eq!((card.iommu_group, card.no_iommu), (Some(7), false));
    assert_eq!(card.group_members, [bridge.address]);
    assert_eq!((card.numa_node, bridge.numa_node), (Some(1), None));
    assert_eq!(card.device_name.as_deref(), Some("82574L Gigabit Network Connection"), "our own table");
    let interface = |name: &str, up, default_route| NetInterface {
        name: name.to_owned(),
        up,
        carrier: up,
        default_route,
        mac: "52:54:00:12:34:56".to_owned(),
    };
    assert_eq!(card.interfaces, [interface("eth0", true, true), interface("eth1", false, false)]);
}

#[test]
fn finds_the_interface_behind_virtio_and_the_default_route_of_ipv6() {
    let machine = Machine::new();
    machine.function("0000:00:03.0", 0x1af4, 0x1041, 0x020000);
    machine.interface("0000:00:03.0/virtio2", "ens3", true);
    let zero = "0".repeat(32);
    let route = |destination: &str, length, interface| {
        format!(
            "{destination} {length} {zero} 00 {zero} 00000400 00000001 00000000 00000003 {interface:>8}\n"
        )
    };
    let local = format!("fe80{}", "0".repeat(28));
    machine.file("proc/net/ipv6_route", &(route(&local, "40", "ens3") + &route(&zero, "00", "lo")));
    let carries = || machine.sysfs.functions().unwrap()[0].interfaces[0].default_route;
    assert!(!carries(), "a link-local route is none, and the default on lo is not its");
    machine.file("proc/net/ipv6_route", &route(&zero, "00", "ens3"));
    assert!(carries());
}

#[test]
fn names_come_from_the_list_of_the_machine_first() {
    let machine = Machine::new();
    machine.e1000e("0000:01:00.0");
    machine.function("0000:02:00.0", 0x15b3, 0x1017, 0x020000);
    machine.function("0000:03:00.0", 0xdead, 0xbeef, 0x020000);
    machine.file(
        "usr/share/hwdata/pci.ids",
        "# comment\n8086  Intel Corp.\n\t10d2  Another\n\t10d3  82574L of the list\n\t\t8086 a01f  Board\n\
         15b3  Mellanox Technologies\n\t10d3  Not this vendor's\n\t1017  MT27800\nC 02  Network controller\n\t00  Ethernet\n",
    );
    let names = |info: &FunctionInfo| (info.vendor_name.clone(), info.device_name.clone());
    let functions = machine.sysfs.functions().unwrap();
    let some = |vendor: &str, device: &str| (Some(vendor.to_owned()), Some(device.to_owned()));
    assert_eq!(names(&functions[0]), some("Intel Corp.", "82574L of the list"));
    assert_eq!(names(&functions[1]), some("Mellanox Technologies", "MT27800"));
    assert_eq!(names(&functions[2]), (None, None));
}

#[test]
fn an_absent_function_is_answered_with_those_there_are() {
    let machine = Machine::new();
    machine.e1000e("0000:01:00.0");
    machine.function("0000:00:1f.2", 0x8086, 0x2922, 0x010601);
    let error = machine.sysfs.function(address("0000:09:00.0")).unwrap_err().to_string();
    assert_eq!(error, "no PCI device 0000:09:00.0; the network devices here are: 0000:01:00.0");
}

#[test]
fn knows_who_has_a_node_open() {
    let machine = Machine::new();
    machine.file("proc/812/comm", "testpmd\n");
    create_dir_all(machine.sysfs.path("proc/812/fd")).unwrap();
    let node = machine.sysfs.path("dev/vfio/7");
    symlink("/dev/null", machine.sysfs.path("proc/812/fd/0")).unwrap();
    assert!(machine.sysfs.holders(&node).is_empty());
    symlink(&node, machine.sysfs.path("proc/812/fd/3")).unwrap();
    assert_eq!(machine.sysfs.holders(&node), ["pid 812 (testpmd)"]);
}
