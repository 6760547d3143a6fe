//! What the kernel says about the PCI functions of this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Address, Error, names};

/// The kernel's view of the machine: `/sys`, `/proc` and `/dev` below one root.
///
/// The root is `/` except in tests, which build a tree of their own.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Sysfs {
        Sysfs::at("/")
    }
}

/// What is known of a function without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionInfo {
    /// Where it sits; what [`name`](FunctionInfo::name) it goes by, people should be told.
    pub address: Address,
    /// The socket it is behind, if it is not on a bus of this machine.
    pub socket: Option<PathBuf>,
    /// Who made it.
    pub vendor_id: u16,
    /// What it is, in its vendor's numbering.
    pub device_id: u16,
    /// Who made the board.
    pub subsystem_vendor_id: u16,
    /// Which board, in the board vendor's numbering.
    pub subsystem_device_id: u16,
    /// Class, subclass and programming interface: 0x020000 is an Ethernet controller.
    pub class: u32,
    /// The chip's revision.
    pub revision: u8,
    /// The vendor's name, where `pci.ids` or our own table has it.
    pub vendor_name: Option<String>,
    /// The device's name, where `pci.ids` or our own table has it.
    pub device_name: Option<String>,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// Its IOMMU group: the smallest set of functions that the IOMMU can tell from all others.
    pub iommu_group: Option<u32>,
    /// Whether the group is one that VFIO made up in its no-IOMMU mode.
    pub no_iommu: bool,
    /// The other members of the group.
    pub group_members: Vec<Address>,
    /// The NUMA node it is attached to, where the machine has any.
    pub numa_node: Option<u32>,
    /// The network interfaces its kernel driver made of it.
    pub interfaces: Vec<NetInterface>,
}

/// A network interface of a function that a kernel driver holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetInterface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// A link partner is there. An interface that is down does not know.
    pub carrier: bool,
    /// A default route leads through it.
    pub default_route: bool,
    /// Its MAC address as the kernel writes it.
    pub mac: String,
}

impl FunctionInfo {
    /// What a person knows it by: its address, or the socket it is behind.
    pub fn name(&self) -> String {
        match &self.socket {
            Some(socket) => socket.display().to_string(),
            None => self.address.to_string(),
        }
    }

    /// Whether it is a network controller, of whatever kind.
    pub fn is_network(&self) -> bool {
        self.class >> 16 == 0x02
    }

    /// Whether it is a bridge: those stay with the kernel, and do not count in a group.
    pub fn is_bridge(&self) -> bool {
        self.class >> 16 == 0x06
    }

    /// Whether it keeps its group from being used: VFIO wants every member, bridges aside, with itself or with no driver.
    pub fn holds_group(&self) -> bool {
        !self.is_bridge() && !self.is_vfio() && self.driver.is_some()
    }

    /// Where its group is opened, below the root.
    pub(crate) fn group_node(&self) -> Option<PathBuf> {
        let id = self.iommu_group?;
        let name = if self.no_iommu { format!("noiommu-{id}") } else { id.to_string() };
        Some(Path::new("dev/vfio").join(name))
    }

    /// Whether its driver hands it to programs: `vfio-pci` or one of its variants, such as `mlx5_vfio_pci`.
    pub fn is_vfio(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| driver.contains("vfio"))
    }
}

/// The PCI functions of this machine, in order of their addresses.
pub fn enumerate() -> Result<Vec<FunctionInfo>, Error> {
    Sysfs::default().functions()
}

impl Sysfs {
    /// Looks below `root`, which holds `sys`, `proc` and `dev`.
    pub fn at(root: impl Into<PathBuf>) -> Sysfs {
        Sysfs { root: root.into() }
    }

    /// Every PCI function, in order of their addresses.
    pub fn functions(&self) -> Result<Vec<FunctionInfo>, Error> {
        let folder = self.path("sys/bus/pci/devices");
        let entries = fs::read_dir(&folder).map_err(Error::io(format!("listing {}", folder.display())))?;
        let routes = self.default_routes();
        let mut functions: Vec<FunctionInfo> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            // A function may be pulled out between the listing and the reading.
            .filter_map(|address| self.read(address, &routes).ok())
            .collect();
        functions.sort_by_key(|function| function.address);
        names::fill(&self.root, &mut functions);
        Ok(functions)
    }

    /// One function.
    pub fn function(&self, address: Address) -> Result<FunctionInfo, Error> {
        match self.read(address, &self.default_routes()) {
            Ok(mut info) => {
                names::fill(&self.root, std::slice::from_mut(&mut info));
                Ok(info)
            }
            Err(_) if !self.folder(address).exists() => {
                let network = self.functions()?.into_iter().filter(FunctionInfo::is_network);
                let list: Vec<String> = network.map(|function| function.address.to_string()).collect();
                let present = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
                Err(Error::NoSuchDevice { address, present })
            }
            Err(error) => Err(Error::io(format!("reading what the kernel says of {address}"))(error)),
        }
    }

    fn read(&self, address: Address, routes: &[String]) -> io::Result<FunctionInfo> {
        let folder = self.folder(address);
        let number = |name: &str| hex(&fs::read_to_string(folder.join(name))?);
        // What an old kernel or a virtual bus does not say reads as 0.
        let optional = |name: &str| number(name).unwrap_or(0);
        let group = link_name(&folder.join("iommu_group"));
        let mut group_members: Vec<Address> = names_in(&folder.join("iommu_group/devices"))
            .filter_map(|name| name.parse().ok())
            .filter(|&member| member != address)
            .collect();
        group_members.sort();
        Ok(FunctionInfo {
            address,
            socket: None,
            vendor_id: number("vendor")? as u16,
            device_id: number("device")? as u16,
            subsystem_vendor_id: optional("subsystem_vendor") as u16,
            subsystem_device_id: optional("subsystem_device") as u16,
            class: number("class")?,
            revision: optional("revision") as u8,
            vendor_name: None,
            device_name: None,
            driver: link_name(&folder.join("driver")),
            iommu_group: group.and_then(|group| group.parse().ok()),
            no_iommu: text(&folder.join("iommu_group/name")) == "vfio-noiommu",
            group_members,
            // The kernel says -1 where there is only one node.
            numa_node: text(&folder.join("numa_node")).parse().ok(),
            interfaces: interfaces(&folder, routes),
        })
    }

    /// Names functions that have none yet.
    pub(crate) fn name(&self, functions: &mut [FunctionInfo]) {
        names::fill(&self.root, functions);
    }

    /// The interfaces that a default route leads through, for IPv4 and IPv6.
    fn default_routes(&self) -> Vec<String> {
        let v4 = fs::read_to_string(self.path("proc/net/route")).unwrap_or_default();
        // Interface, destination, gateway, flags, reference count, use, metric, mask.
        let v4 = v4.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let v4 =
            v4.filter(|f| f.len() > 7 && f[1] == "00000000" && f[7] == "00000000").map(|f| f[0].to_owned());
        let v6 = fs::read_to_string(self.path("proc/net/ipv6_route")).unwrap_or_default();
        // Destination, prefix length, source, prefix length, next hop, metric, references, use, flags, interface.
        let v6 = v6.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let v6 = v6.filter(|f| f.len() > 9 && f[1] == "00" && f[0].bytes().all(|b| b == b'0'));
        v4.chain(v6.map(|f| f[9].to_owned())).collect()
    }

    /// The driver a function is bound to now.
    pub(crate) fn driver(&self, address: Address) -> Option<String> {
        link_name(&self.folder(address).join("driver"))
    }

    /// Whether this machine has an IOMMU that is in use.
    pub fn has_iommu(&self) -> bool {
        names_in(&self.path("sys/class/iommu")).next().is_some()
    }

    /// The name of the function's VFIO character device (`vfio3`), where the kernel has them.
    pub(crate) fn vfio_device(&self, address: Address) -> Option<String> {
        names_in(&self.folder(address).join("vfio-dev")).find(|name| name.starts_with("vfio"))
    }

    /// The nodes through which a program opens a function: its group's, and its own.
    pub fn nodes(&self, info: &FunctionInfo) -> Vec<PathBuf> {
        let group = info.group_node().map(|node| self.path(node));
        let own = self.vfio_device(info.address).map(|name| self.path("dev/vfio/devices").join(name));
        group.into_iter().chain(own).collect()
    }

    /// Who has a node open, as far as this user may see: "pid 812 (testpmd)".
    pub fn holders(&self, node: &Path) -> Vec<String> {
        let processes =
            names_in(&self.path("proc")).filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        let holds = |pid: &String| {
            let descriptors =
                fs::read_dir(self.path("proc").join(pid).join("fd")).into_iter().flatten().flatten();
            descriptors
                .into_iter()
                .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| target == node))
        };
        processes
            .filter(holds)
            .map(|pid| format!("pid {pid} ({})", text(&self.path("proc").join(&pid).join("comm"))))
            .collect()
    }

    /// A path below the root, given without its leading slash.
    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    /// The folder of a function.
    pub(crate) fn folder(&self, address: Address) -> PathBuf {
        self.path("sys/bus/pci/devices").join(address.to_string())
    }
}

fn interfaces(folder: &Path, routes: &[String]) -> Vec<NetInterface> {
    // A virtio card's interface hangs below its virtio device.
    let virtio =
        names_in(folder).filter(|name| name.starts_with("virtio")).map(|name| folder.join(name).join("net"));
    let mut list: Vec<NetInterface> = virtio
        .chain([folder.join("net")])
        .flat_map(|net| names_in(&net).map(move |name| (net.join(&name), name)))
        .map(|(path, name)| NetInterface {
            up: hex(&text(&path.join("flags"))).is_ok_and(|flags| flags & 1 != 0),
            carrier: text(&path.join("carrier")) == "1",
            default_route: routes.contains(&name),
            mac: text(&path.join("address")),
            name,
        })
        .collect();
    list.sort_by(|a, b| a.name.cmp(&b.name));
    list
}

/// The names in a folder; none where there is no folder.
fn names_in(folder: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// The last part of what a link points to.
fn link_name(link: &Path) -> Option<String> {
    fs::read_link(link).ok()?.file_name()?.to_str().map(str::to_owned)
}

/// A file's text without its newline; nothing where it cannot be read.
pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

fn hex(text: &str) -> io::Result<u32> {
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
pub(crate) mod tests;
