//! What tests share: a machine made of files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A tree that looks like `/sys`, `/proc` and `/dev` of a machine.
pub(crate) struct Machine(TempDir);

impl Machine {
    pub(crate) fn new() -> Machine {
        let machine = Machine(TempDir::new().expect("a folder"));
        fs::create_dir_all(machine.path().join("sys/bus/pci/devices")).expect("it is ours");
        machine
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file below the root, and the folders that it is in.
    pub(crate) fn file(&self, path: impl AsRef<Path>, text: &str) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("it is ours");
        fs::write(&path, format!("{text}\n")).expect("it is ours");
        path
    }

    /// A file of a function.
    pub(crate) fn attribute(&self, address: &str, name: &str, text: &str) {
        self.file(Path::new("sys/bus/pci/devices").join(address).join(name), text);
    }

    /// A function in a group, on node 0.
    pub(crate) fn add(&self, address: &str, id: [&str; 2], class: &str, driver: Option<&str>, group: u32) {
        let values = [("vendor", id[0]), ("device", id[1]), ("class", class), ("numa_node", "0")];
        values.iter().for_each(|(name, value)| self.attribute(address, name, value));
        if let Some(driver) = driver {
            self.bind(address, driver);
        }
        self.file(format!("sys/kernel/iommu_groups/{group}/devices/{address}"), "");
        let group = self.path().join(format!("sys/kernel/iommu_groups/{group}"));
        let folder = self.path().join("sys/bus/pci/devices").join(address);
        symlink(group, folder.join("iommu_group")).expect("it is ours");
    }

    /// Gives a function to a driver.
    pub(crate) fn bind(&self, address: &str, driver: &str) {
        let link = self.path().join("sys/bus/pci/devices").join(address).join("driver");
        let _ = fs::remove_file(&link);
        symlink(format!("../../drivers/{driver}"), link).expect("it is ours");
    }

    /// A network interface of a function.
    pub(crate) fn interface(&self, address: &str, name: &str, flags: &str, carrier: &str) {
        for (file, text) in [("flags", flags), ("carrier", carrier), ("address", "52:54:00:12:34:56")] {
            self.attribute(address, &format!("net/{name}/{file}"), text);
        }
    }
}
