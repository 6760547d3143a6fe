//! Binding on a machine made of files, with a kernel that answers as ours does.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::sysfs::tests::{Machine, address};

const CARD: &str = "0000:01:00.0";

/// Answers to written attributes as the kernel does, and keeps a record.
struct Fake<'a> {
    machine: &'a Machine,
    /// The driver that takes a function without an override.
    native: &'static str,
    /// Drivers that refuse every function.
    refusing: Vec<&'static str>,
    /// What `load` can load.
    loadable: Vec<&'static str>,
    /// An attribute that cannot be written, by the end of its path.
    broken: Option<(&'static str, io::ErrorKind)>,
    log: Vec<String>,
    owners: Vec<(PathBuf, u32)>,
}

impl<'a> Fake<'a> {
    fn new(machine: &'a Machine) -> Fake<'a> {
        Fake {
            machine,
            native: "e1000e",
            refusing: Vec::new(),
            loadable: vec!["vfio-pci"],
            broken: None,
            log: Vec::new(),
            owners: Vec::new(),
        }
    }

    fn bind(&mut self, options: &BindOptions) -> Result<Bound, Error> {
        self.bind_at(CARD, options)
    }

    fn bind_at(&mut self, at: &str, options: &BindOptions) -> Result<Bound, Error> {
        Work { sysfs: &self.machine.sysfs, address: address(at), kernel: self }.bind(options)
    }

    fn unbind(&mut self) -> Result<Unbound, Error> {
        Work { sysfs: &self.machine.sysfs, address: address(CARD), kernel: self }.unbind()
    }

    /// What a probe by `driver` does.
    fn probe(&self, function: &str, driver: &str) {
        let sysfs = &self.machine.sysfs;
        let folder = sysfs.folder(address(function));
        let path = sysfs.path("sys/bus/pci/drivers").join(driver);
        if path.exists() && !self.refusing.contains(&driver) && !folder.join("driver").exists() {
            symlink(path, folder.join("driver")).unwrap();
        }
    }
}

impl Kernel for Fake<'_> {
    fn write(&mut self, attribute: &Path, value: &str) -> io::Result<()> {
        let shown =
            attribute.strip_prefix(self.machine.sysfs.path("sys/bus/pci")).unwrap().display().to_string();
        if let Some((end, kind)) = self.broken
            && shown.ends_with(end)
        {
            return Err(kind.into());
        }
        self.log.push(format!("{shown} <- {}", value.trim_end()));
        let folder = |name: &str| self.machine.sysfs.folder(address(name));
        match shown.rsplit('/').next().unwrap() {
            "driver_override" => {
                fs::write(attribute, if value == "\n" { "(null)\n" } else { value })?;
            }
            "unbind" => fs::remove_file(folder(value).join("driver"))?,
            "drivers_probe" => {
                let wanted = fs::read_to_string(folder(value).join("driver_override"))?;
                self.probe(value, if wanted.starts_with("(null)") { self.native } else { &wanted });
            }
            "bind" => {
                let driver = attribute.parent().unwrap().file_name().unwrap().to_str().unwrap();
                if self.refusing.contains(&driver) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                self.probe(value, driver);
            }
            other => panic!("no such attribute: {other}"),
        }
        Ok(())
    }

    fn load(&mut self, module: &str) {
        self.log.push(format!("modprobe {module}"));
        if self.loadable.contains(&module) {
            fs::create_dir_all(self.machine.sysfs.path("sys/bus/pci/drivers").join(module)).unwrap();
        }
    }

    fn user(&mut self, name: &str) -> io::Result<Option<u32>> {
        Ok((name == "ana").then_some(1000))
    }

    fn give(&mut self, node: &Path, user: u32) -> io::Result<()> {
        self.owners.push((node.to_owned(), user));
        Ok(())
    }
}

fn machine() -> Machine {
    let machine = Machine::new();
    machine.e1000e(CARD);
    machine.driver(CARD, "e1000e");
    machine.group(7, &[CARD]);
    machine
}

#[test]
fn binds_and_gives_back() {
    let machine = machine();
    let mut fake = Fake::new(&machine);
    let bound = fake.bind(&BindOptions::default()).unwrap();
    assert_eq!(bound, Bound { former: Some("e1000e".to_owned()), nodes: Vec::new() });
    assert_eq!(machine.sysfs.driver(address(CARD)).as_deref(), Some("vfio-pci"));
    let steps = [
        "modprobe vfio-pci",
        "devices/0000:01:00.0/driver_override <- vfio-pci",
        "devices/0000:01:00.0/driver/unbind <- 0000:01:00.0",
        "drivers_probe <- 0000:01:00.0",
    ];
    assert_eq!(fake.log, steps, "and only this function is touched");

    fake.log.clear();
    assert_eq!(fake.bind(&BindOptions::default()).unwrap().former.as_deref(), Some("vfio-pci"));
    assert!(fake.log.is_empty(), "nothing to do the second time: {:?}", fake.log);

    let unbound = fake.unbind().unwrap();
    assert_eq!(unbound, Unbound { former: Some("vfio-pci".to_owned()), driver: Some("e1000e".to_owned()) });
    let left = fs::read_to_string(machine.sysfs.folder(address(CARD)).join("driver_override")).unwrap();
    assert_eq!(left, "(null)\n", "the next probe is the kernel's to decide");

    fake.log.clear();
    assert_eq!(fake.unbind().unwrap().driver.as_deref(), Some("e1000e"));
    assert!(
        !fake.log.iter().any(|step| step.contains("unbind")),
        "a kernel driver is left alone: {:?}",
        fake.log
    );
}

#[test]
fn an_interface_in_use_is_refused_and_nothing_is_touched() {
    for (up, route, why) in
        [(true, false, "is up"), (true, true, "default route"), (false, true, "default route")]
    {
        let machine = machine();
        machine.interface(CARD, "eth0", up);
        if route {
            machine.route("eth0");
        }
        let mut fake = Fake::new(&machine);
        let error = fake.bind(&BindOptions::default()).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("eth0") && error.contains("--force"), "{error}");
        assert!(fake.log.is_empty());

        fake.bind(&BindOptions { force: true, ..BindOptions::default() }).unwrap();
        assert_eq!(machine.sysfs.driver(address(CARD)).as_deref(), Some("vfio-pci"));
    }
}

#[test]
fn an_interface_that_is_down_is_no_obstacle() {
    let machine = machine();
    machine.interface(CARD, "eth0", false);
    machine.route("wlan0");
    Fake::new(&machine).bind(&BindOptions::default()).unwrap();
}

#[test]
fn a_refused_bind_puts_the_former_driver_back() {
    let machine = machine();
    let mut fake = Fake::new(&machine);
    fake.refusing.push("vfio-pci");
    let error = fake.bind(&BindOptions::default()).unwrap_err().to_string();
    assert!(error.contains("back with e1000e"), "{error}");
    assert_eq!(machine.sysfs.driver(address(CARD)).as_deref(), Some("e1000e"));
    assert_eq!(fake.log.last().unwrap(), "drivers/e1000e/bind <- 0000:01:00.0");
    assert!(fake.log.contains(&"devices/0000:01:00.0/driver_override <- ".to_owned()), "{:?}", fake.log);

    fake.refusing.push("e1000e");
    let error = fake.bind(&BindOptions::default()).unwrap_err().to_string();
    assert!(error.contains("no driver now"), "it is said when even that fails: {error}");
}

#[test]
fn a_step_that_fails_is_named_and_undone() {
    let machine = machine();
    let mut fake = Fake::new(&machine);
    fake.broken = Some(("drivers_probe", io::ErrorKind::InvalidInput));
    let error = fake.bind(&BindOptions::default()).unwrap_err().to_string();
    assert!(error.contains("drivers_probe") && error.contains("back with e1000e"), "{error}");
    assert_eq!(machine.sysfs.driver(address(CARD)).as_deref(), Some("e1000e"));
}

#[test]
fn without_an_iommu_the_refusal_says_so() {
    let machine = Machine::new();
    machine.e1000e(CARD);
    let mut fake = Fake::new(&machine);
    fake.refusing.push("vfio-pci");
    let error = fake.bind(&BindOptions::default()).unwrap_err().to_string();
    assert!(error.contains("intel_iommu=on") && error.contains("no driver, as before"), "{error}");
}

#[test]
fn needs_root_and_the_module() {
    let machine = machine();
    let mut fake = Fake::new(&machine);
    fake.broken = Some(("driver_override", io::ErrorKind::PermissionDenied));
    assert!(matches!(fake.bind(&BindOptions::default()), Err(Error::NeedsRoot { .. })));
    assert!(matches!(fake.unbind(), Err(Error::NeedsRoot { .. })));

    let machine = self::machine();
    let mut fake = Fake::new(&machine);
    fake.loadable.clear();
    let error = fake.bind(&BindOptions::default()).unwrap_err().to_string();
    assert!(error.contains("modprobe vfio-pci"), "{error}");
    assert_eq!(machine.sysfs.driver(address(CARD)).as_deref(), Some("e1000e"));
}

#[test]
fn gives_the_nodes_to_a_user_who_exists() {
    let machine = machine();
    machine.file(format!("sys/bus/pci/devices/{CARD}/vfio-dev/vfio3/dev"), "");
    machine.file("dev/vfio/devices/vfio3", "");
    let mut fake = Fake::new(&machine);
    let for_user = |name: &str| BindOptions { user: Some(name.to_owned()), ..BindOptions::default() };
    let error = fake.bind(&for_user("nobody-here")).unwrap_err();
    assert!(matches!(error, Error::NoSuchUser { .. }), "{error}");
    assert!(fake.log.is_empty(), "a misspelt name costs nothing");

    let bound = fake.bind(&for_user("ana")).unwrap();
    let nodes = ["dev/vfio/7", "dev/vfio/devices/vfio3"].map(|node| machine.sysfs.path(node));
    assert_eq!(bound.nodes, nodes);
    assert_eq!(fake.owners, nodes.map(|node| (node, 1000)));
}

#[test]
fn warns_of_members_that_hold_the_group_but_not_of_bridges() {
    let machine = Machine::new();
    let (bridge, other, free) = ("0000:00:1c.0", "0000:01:00.1", "0000:01:00.2");
    machine.e1000e(CARD);
    machine.e1000e(other);
    machine.e1000e(free);
    machine.function(bridge, 0x8086, 0xa110, 0x060400);
    machine.driver(CARD, "e1000e");
    machine.driver(other, "igb");
    machine.driver(bridge, "pcieport");
    machine.group(7, &[CARD, other, free, bridge]);
    let mut fake = Fake::new(&machine);
    fake.bind(&BindOptions::default()).unwrap();
    let warnings = warnings(&machine.sysfs, address(CARD)).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("pagewire dev bind 0000:01:00.1") && warnings[0].contains("igb"));
    assert!(matches!(fake.bind_at(bridge, &BindOptions::default()), Err(Error::Bridge { .. })));
}

#[test]
fn a_function_in_use_is_not_taken_away() {
    let machine = machine();
    let mut fake = Fake::new(&machine);
    fake.bind(&BindOptions::default()).unwrap();
    machine.file("proc/812/comm", "testpmd\n");
    fs::create_dir_all(machine.sysfs.path("proc/812/fd")).unwrap();
    symlink(machine.sysfs.path("dev/vfio/7"), machine.sysfs.path("proc/812/fd/9")).unwrap();
    let error = fake.unbind().unwrap_err().to_string();
    assert!(error.contains("pid 812 (testpmd)"), "{error}");
    assert_eq!(machine.sysfs.driver(address(CARD)).as_deref(), Some("vfio-pci"));
}
