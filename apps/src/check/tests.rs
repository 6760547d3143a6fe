//! Machines made of files, each with something wrong.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use clap::Parser as _;
use pagewire_pci::vfio_user::Listener;

use super::*;
use crate::testing::Machine;

const CARD: &str = "0000:01:00.0";
const OTHER: &str = "0000:01:00.1";
const PAGES: &str = "hugepages/hugepages-2048kB";

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn findings(machine: &Machine, arguments: &str) -> Vec<Finding> {
    let arguments = std::iter::once("check").chain(arguments.split_whitespace());
    let args = Cli::try_parse_from(arguments).expect("arguments").args;
    Check::new(&args, machine.path()).expect("a machine").all()
}

/// What is not fine: the check, how bad, what was found and what mends it.
fn wrong(machine: &Machine, arguments: &str) -> Vec<(&'static str, Severity, String, String)> {
    let findings =
        findings(machine, arguments).into_iter().filter(|finding| finding.severity != Severity::Fine);
    findings.map(|one| (one.check, one.severity, one.found, one.mend.expect("it is to be mended"))).collect()
}

/// The one thing that is not fine: how bad, what was found and what mends it.
#[track_caller]
fn only(machine: &Machine, arguments: &str, check: &str) -> (Severity, String, String) {
    let wrong = wrong(machine, arguments);
    assert_eq!(wrong.iter().map(|one| one.0).collect::<Vec<_>>(), [check], "{wrong:?}");
    let (_, severity, found, mend) = wrong.into_iter().next().expect("one");
    (severity, found, mend)
}

fn huge_pages(machine: &Machine, folder: &str, reserved: &str, free: &str) {
    for (name, count) in [
        ("nr_hugepages", reserved),
        ("free_hugepages", free),
        ("surplus_hugepages", "0"),
        ("resv_hugepages", "0"),
    ] {
        machine.file(format!("{folder}/{PAGES}/{name}"), count);
    }
}

/// Who asks: a user with a limit on locked memory, on these CPUs.
fn who(machine: &Machine, user: u32, capabilities: &str, memlock: &str, cpus: &str) {
    let status = format!(
        "Uid:\t0\t{user}\nGid:\t0\t4294967295\nGroups:\t\nCapEff:\t{capabilities}\nCpus_allowed_list:\t{cpus}"
    );
    machine.file("proc/self/status", &status);
    machine.file(
        "proc/self/limits",
        &format!("Max locked memory         {memlock}              {memlock}  bytes"),
    );
}

/// A machine that has nothing wrong: a bound card on node 0 and cores 2-3, which are isolated, on it too.
fn ready() -> Machine {
    let machine = Machine::new();
    machine.add(CARD, ["0x8086", "0x10fb"], "0x020000", Some("vfio-pci"), 7);
    machine.add(OTHER, ["0x8086", "0x10fb"], "0x020000", Some("vfio-pci"), 7);
    machine.add("0000:00:02.0", ["0x8086", "0x29c0"], "0x060400", Some("pcieport"), 7);
    for (name, text) in [
        ("current_link_speed", "5.0 GT/s PCIe"),
        ("max_link_speed", "5.0 GT/s PCIe"),
        ("current_link_width", "8"),
        ("max_link_width", "8"),
    ] {
        machine.attribute(CARD, name, text);
    }
    machine.file("sys/class/iommu/dmar0/name", "");
    machine.file("sys/bus/pci/drivers/vfio-pci/bind", "");
    machine.file("dev/vfio/vfio", "");
    machine.file("dev/vfio/7", "");
    machine.file("proc/cpuinfo", "vendor_id : GenuineIntel");
    huge_pages(&machine, "sys/kernel/mm", "64", "64");
    huge_pages(&machine, "sys/devices/system/node/node0", "32", "32");
    huge_pages(&machine, "sys/devices/system/node/node1", "32", "32");
    machine.file("sys/devices/system/node/node0/cpulist", "0-3");
    machine.file("sys/devices/system/node/node1/cpulist", "4-7");
    machine.file("sys/devices/system/cpu/isolated", "2-5");
    for cpu in 0..8 {
        machine.file(format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), "performance");
    }
    let own = fs::metadata(machine.path()).expect("it is there").uid();
    who(&machine, own, "0", "unlimited", "0-7");
    machine
}

const PORT: &str = "--port 01:00.0 --cores 2";

#[test]
fn a_machine_that_is_ready_has_only_fine_findings_and_nothing_is_changed() {
    let machine = ready();
    let all = findings(&machine, PORT);
    assert_eq!(wrong(&machine, PORT), []);
    let checks: Vec<_> = all.iter().map(|finding| (finding.check, finding.port.is_some())).collect();
    let (of_machine, of_port) = checks.split_at(8);
    let names = ["iommu", "vfio", "huge-pages", "memlock", "cores", "isolation", "governor", "sockets"];
    assert_eq!(of_machine, names.map(|name| (name, false)));
    let names = ["device", "driver", "group", "permission", "in-use", "numa", "node-memory", "pcie"];
    assert_eq!(of_port, names.map(|name| (name, true)));
    // The same without a name: both that are bound.
    assert_eq!(findings(&machine, "--cores 2").len(), 8 + 2 * 8);
    let object = document(&all);
    assert_eq!(
        (&object["version"], &object["blocking"], &object["warnings"]),
        (&json!(1), &json!(0), &json!(0))
    );
    assert_eq!(object["findings"][8]["port"], CARD);
    assert_eq!(object["findings"][8]["mend"], Value::Null);
    assert!(text(&all).starts_with("fine      iommu         in use\n"), "{}", text(&all));
}

#[test]
fn without_an_iommu_the_kernels_arguments_are_told_for_the_machines_boot_loader() {
    let machine = ready();
    fs::remove_dir_all(machine.path().join("sys/class/iommu")).expect("it is ours");
    let (severity, _, mend) = only(&machine, PORT, "iommu");
    assert!(
        severity == Severity::Blocking
            && mend.ends_with("restart with the kernel arguments intel_iommu=on iommu=pt"),
        "{mend}"
    );
    machine.file("etc/default/grub", "");
    assert!(
        only(&machine, PORT, "iommu")
            .2
            .contains("intel_iommu=on iommu=pt\"' >> /etc/default/grub && update-grub && reboot")
    );
    machine.file("usr/sbin/grubby", "");
    assert!(
        only(&machine, PORT, "iommu")
            .2
            .contains("grubby --update-kernel=ALL --args=\"intel_iommu=on iommu=pt\"")
    );
    machine.file("proc/cpuinfo", "vendor_id : AuthenticAMD");
    assert!(only(&machine, PORT, "iommu").2.contains("AMD-Vi"));

    let unsafe_port = format!("{PORT} --unsafe-noiommu");
    let (severity, _, mend) = only(&machine, &unsafe_port, "iommu");
    let parameter = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    assert_eq!((severity, mend), (Severity::Blocking, format!("modprobe vfio && echo 1 > /{parameter}")));
    machine.file(parameter, "Y");
    assert_eq!(only(&machine, &unsafe_port, "iommu").0, Severity::Warning);
    // No card, no IOMMU.
    assert_eq!(wrong(&machine, "--port null: --cores 2"), []);
}

#[test]
fn a_card_that_is_not_bound_is_told_how_and_not_pulled_from_under_the_machine() {
    let machine = ready();
    machine.bind(CARD, "ixgbe");
    let (severity, found, mend) = only(&machine, PORT, "driver");
    assert_eq!((severity, &*found), (Severity::Blocking, "bound to ixgbe, not to vfio-pci"));
    assert_eq!(mend, "pagewire dev bind 0000:01:00.0");
    machine.interface(CARD, "eth0", "0x1003", "1");
    assert_eq!(only(&machine, PORT, "driver").2, "ip link set eth0 down && pagewire dev bind 0000:01:00.0");
    machine.file("proc/net/route", "eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0");
    let (_, found, mend) = only(&machine, PORT, "driver");
    assert!(
        found.contains("eth0 carries the default route") && mend == "take another port",
        "{found}: {mend}"
    );
    // Its neighbour shares the group.
    let (_, found, mend) = only(&machine, "--port 01:00.1 --cores 2", "group");
    assert!(found.contains("0000:01:00.0 (bound to ixgbe)"), "{found}");
    assert_eq!(mend, "pagewire dev bind 0000:01:00.0");
}

#[test]
fn modules_groups_and_devices_that_are_not_there() {
    let machine = ready();
    fs::remove_file(machine.path().join("dev/vfio/vfio")).expect("it is ours");
    let (severity, found, mend) = only(&machine, PORT, "vfio");
    assert_eq!((severity, &*mend), (Severity::Blocking, "modprobe vfio-pci"), "{found}");
    let wrong_port = wrong(&machine, "--port 09:00.0 --cores 2").pop().expect("a finding");
    assert_eq!(
        (wrong_port.0, wrong_port.1, &*wrong_port.3),
        ("device", Severity::Blocking, "pagewire dev list")
    );
    assert!(wrong_port.2.contains("0000:09:00.0") && wrong_port.2.contains(CARD), "{}", wrong_port.2);
    let machine = ready();
    machine.attribute(CARD, "device", "0x1234");
    assert!(only(&machine, PORT, "device").1.contains("no driver for 8086:1234"));
    fs::remove_file(machine.path().join("sys/bus/pci/devices/0000:01:00.1/iommu_group")).expect("it is ours");
    assert!(
        wrong(&machine, "--port 01:00.1 --cores 2")
            .iter()
            .any(|one| one.0 == "group" && one.1 == Severity::Blocking)
    );
    let machine = Machine::new();
    who(&machine, 0, "0", "unlimited", "0-1");
    let nothing = wrong(&machine, "");
    assert!(nothing.iter().any(|one| one.0 == "device" && one.1 == Severity::Warning), "{nothing:?}");
}

#[test]
fn nodes_that_may_not_be_opened_or_are_in_use() {
    let machine = ready();
    let node = machine.path().join("dev/vfio/7");
    fs::set_permissions(&node, PermissionsExt::from_mode(0o000)).expect("it is ours");
    let (severity, found, mend) = only(&machine, PORT, "permission");
    assert!(severity == Severity::Blocking && found.ends_with("may not open /dev/vfio/7"), "{found}");
    let own = fs::metadata(&node).expect("it is there").uid();
    assert_eq!(mend, format!("pagewire dev bind 0000:01:00.0 --user {own}"));
    let by_iommufd = format!("{PORT} --vfio iommufd");
    assert!(only(&machine, &by_iommufd, "permission").1.contains("no node below /dev/vfio/devices"));
    // Another way in, for this card alone, of use to those who may use iommufd.
    machine.attribute(CARD, "vfio-dev/vfio3/dev", "");
    machine.file("dev/vfio/devices/vfio3", "");
    assert!(only(&machine, PORT, "permission").1.ends_with("/dev/vfio/7"));
    assert!(only(&machine, &by_iommufd, "permission").1.ends_with("/dev/iommu"));
    machine.file("dev/iommu", "");
    assert_eq!(wrong(&machine, PORT), []);
    assert_eq!(wrong(&machine, &by_iommufd), []);
    assert!(only(&machine, &format!("{PORT} --vfio group"), "permission").1.ends_with("/dev/vfio/7"));
    fs::create_dir_all(machine.path().join("proc/812/fd")).expect("it is ours");
    machine.file("proc/812/comm", "testpmd");
    std::os::unix::fs::symlink(&node, machine.path().join("proc/812/fd/5")).expect("it is ours");
    let (severity, found, mend) = only(&machine, PORT, "in-use");
    assert_eq!((severity, &*found, &*mend), (Severity::Blocking, "by pid 812 (testpmd)", "kill 812"));
}

#[test]
fn too_few_huge_pages_and_pages_on_the_wrong_node() {
    let machine = ready();
    let needed = |arguments: &str| only(&machine, arguments, "huge-pages");
    huge_pages(&machine, "sys/kernel/mm", "3", "1");
    let (severity, found, mend) = needed(PORT);
    let pages: u64 = found.split(' ').next().and_then(|count| count.parse().ok()).expect("a count");
    assert!(severity == Severity::Blocking && found.contains("1 of the 3 reserved are free"), "{found}");
    assert_eq!(mend, format!("pagewire hugepages reserve --size 2M --count {}", 2 + pages));
    // Two queues need more.
    let more: u64 =
        needed(&format!("{PORT} --queues 2")).1.split(' ').next().expect("a count").parse().expect("a count");
    assert!(more > pages, "{more}");
    // Others have to do where there is no card.
    assert_eq!(needed("--port null: --cores 2").0, Severity::Warning);
    huge_pages(&machine, "sys/kernel/mm", "64", "32");
    huge_pages(&machine, "sys/devices/system/node/node0", "4", "0");
    let (severity, found, mend) = only(&machine, PORT, "node-memory");
    assert!(severity == Severity::Warning && found.contains("on NUMA node 0"), "{found}");
    assert_eq!(mend, format!("pagewire hugepages reserve --size 2M --count {} --node 0", 4 + pages));
    assert_eq!(only(&machine, &format!("{PORT} --pages 4K"), "huge-pages").0, Severity::Warning);
    fs::remove_dir_all(machine.path().join("sys/kernel/mm")).expect("it is ours");
    assert!(wrong(&machine, PORT).iter().any(|one| one.0 == "huge-pages" && one.1 == Severity::Blocking));
}

#[test]
fn a_limit_on_locked_memory_counts_for_cards_and_not_for_who_may_pass_it() {
    let machine = ready();
    let own = fs::metadata(machine.path()).expect("it is there").uid();
    who(&machine, own, "0", "65536", "0-7");
    let (severity, found, mend) = only(&machine, PORT, "memlock");
    assert!(severity == Severity::Blocking && found.contains("the limit is 65536"), "{found}");
    assert!(mend.starts_with("prlimit --pid $$ --memlock=unlimited"), "{mend}");
    assert_eq!(wrong(&machine, "--port null: --cores 2"), []);
    who(&machine, own, "4000", "65536", "0-7");
    assert_eq!(wrong(&machine, PORT), []);
}

#[test]
fn cores_that_are_far_forbidden_shared_or_slow() {
    let machine = ready();
    let (severity, found, mend) = only(&machine, "--port 01:00.0 --cores 4-5", "numa");
    assert_eq!((severity, &*mend), (Severity::Warning, "--cores 0-1"), "{found}");
    assert!(found.contains("on node 0, far from CPUs 4-5"), "{found}");
    let (severity, found, mend) = only(&machine, "--port 01:00.0 --cores 1,3", "isolation");
    assert!(severity == Severity::Warning && found.starts_with("CPUs 1 are not isolated"), "{found}");
    assert!(mend.ends_with("isolcpus=1,3 nohz_full=1,3 rcu_nocbs=1,3"), "{mend}");
    let governor = |cpu| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    machine.file(governor(2), "powersave");
    machine.file(governor(6), "powersave");
    let (severity, found, mend) = only(&machine, PORT, "governor");
    assert!(severity == Severity::Warning && found.starts_with("CPU 2 has powersave"), "{found}");
    assert_eq!(mend, format!("echo performance | tee /{}", governor(2)));
    let machine = ready();
    let own = fs::metadata(machine.path()).expect("it is there").uid();
    who(&machine, own, "0", "unlimited", "3");
    let forbidden = wrong(&machine, PORT);
    assert_eq!((forbidden[0].0, forbidden[0].1), ("cores", Severity::Blocking));
    assert!(forbidden[0].3.starts_with("taskset --cpu-list --pid 2 $$"), "{forbidden:?}");
    assert_eq!(only(&machine, "--port 01:00.0", "cores").0, Severity::Warning, "it is alone");
}

#[test]
fn a_slot_that_is_too_small_is_a_warning() {
    let machine = ready();
    machine.attribute(CARD, "current_link_width", "4");
    let (severity, found, mend) = only(&machine, PORT, "pcie");
    assert_eq!(
        (severity, &*found),
        (Severity::Warning, "x4 at 5 GT/s, of x8 at 5 GT/s that the card can do")
    );
    assert!(mend.contains("8 lanes"), "{mend}");
}

#[test]
fn sockets_of_served_cards_are_there_or_not() {
    let machine = ready();
    let missing = only(&machine, "--port vfio-user:/run/card --cores 2", "socket");
    assert_eq!((missing.0, &*missing.2), (Severity::Blocking, "pagewire model 82599 --socket /run/card"));
    fs::create_dir(machine.path().join("run")).expect("it is ours");
    let served = Listener::bind(&machine.path().join("run/card")).expect("a socket");
    assert_eq!(wrong(&machine, "--port vfio-user:/run/card --cores 2"), []);
    fs::set_permissions(served.path(), PermissionsExt::from_mode(0o000)).expect("it is ours");
    assert_eq!(
        only(&machine, "--port vfio-user:/run/card --cores 2", "socket").2,
        "become the user whose server it is"
    );
}

#[test]
fn a_folder_for_statistics_that_is_open_to_others_is_named() {
    let machine = ready();
    let folder = stats_folder(machine.path());
    fs::create_dir_all(&folder).expect("it is ours");
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).expect("it is ours");
    let (severity, found, mend) = only(&machine, PORT, "sockets");
    assert!(severity == Severity::Warning && found.contains("mode 0777"), "{found}");
    assert!(mend.starts_with("rm -r /"), "{mend}");
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("it is ours");
    assert_eq!(wrong(&machine, PORT), []);
}

/// Where this process would serve, below a root.
fn stats_folder(root: &Path) -> PathBuf {
    let folder = crate::stats::check_folder(root).expect("there is none yet");
    root.join(folder.strip_prefix("/").expect("an absolute path"))
}
