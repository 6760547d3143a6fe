//! The kernel's VFIO, in its three forms: a group in a container with the type-1 IOMMU, a character device in an
//! iommufd, and the no-IOMMU mode.
//!
//! What is used of the crate `vfio-ioctls`: its container, for opening `/dev/vfio/vfio`, checking its version and
//! extension, and mapping and unmapping memory, all of which report the kernel's answer. Its devices and groups are not:
//! see [`ioctl`].

pub(crate) mod chain;
mod container;
mod device;
mod ioas;
mod ioctl;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use self::container::{Container, Group};
use self::device::KernelDevice;
use self::ioas::Ioas;
use crate::backend::{Device, Domain};
use crate::space::Backend;
use crate::sysfs::{FunctionInfo, Sysfs};
use crate::{Address, Error};

/// A device and the domain that it is in now.
pub(crate) type Opening = (Box<dyn Device>, Arc<dyn Domain>);

/// What one address space has open of VFIO.
#[derive(Default)]
pub(crate) struct Host {
    /// A group can be opened once only, so it is kept for as long as one of its functions is in use.
    groups: Vec<Arc<Group>>,
    ioas: Weak<Ioas>,
}

impl Host {
    /// Opens a function, and with it the group and the container or I/O address space it has to be in.
    pub(crate) fn open(
        &mut self,
        sysfs: &Sysfs,
        info: &FunctionInfo,
        backend: Backend,
    ) -> Result<Opening, Error> {
        if let Some(node) = cdev(sysfs, info, backend)? {
            let ioas = self.ioas()?;
            let file = open_node(sysfs, &node, info.address)?;
            ioas.attach(&file, sysfs, info, &node)?;
            let device = KernelDevice::new(file, info.address, ioas.clone())?;
            return Ok((Box::new(device), ioas));
        }
        let group = self.group(sysfs, info)?;
        let file = group.device(sysfs, info.address)?;
        let container = group.container();
        let device = KernelDevice::new(file, info.address, group)?;
        Ok((Box::new(device), container))
    }

    /// Closes the groups that no device uses any more.
    pub(crate) fn prune(&mut self) {
        self.groups.retain(|group| Arc::strong_count(group) > 1);
    }

    fn ioas(&mut self) -> Result<Arc<Ioas>, Error> {
        if let Some(ioas) = self.ioas.upgrade() {
            return Ok(ioas);
        }
        let ioas = Arc::new(Ioas::new()?);
        self.ioas = Arc::downgrade(&ioas);
        Ok(ioas)
    }

    fn group(&mut self, sysfs: &Sysfs, info: &FunctionInfo) -> Result<Arc<Group>, Error> {
        let id = info.iommu_group.ok_or(Error::NoIommu { address: info.address })?;
        if let Some(group) = self.groups.iter().find(|group| group.id() == id) {
            return Ok(group.clone());
        }
        let mut containers: Vec<Arc<Container>> = Vec::new();
        for container in self.groups.iter().map(|group| group.container()) {
            if !containers.iter().any(|known| Arc::ptr_eq(known, &container)) {
                containers.push(container);
            }
        }
        let group = Arc::new(Group::open(sysfs, info, id, &containers)?);
        self.groups.push(group.clone());
        Ok(group)
    }
}

/// The function's character device, if that is the way to open it: the kernel has iommufd and the node, and this user
/// may use iommufd.
fn cdev(sysfs: &Sysfs, info: &FunctionInfo, backend: Backend) -> Result<Option<PathBuf>, Error> {
    if backend == Backend::Group || info.no_iommu {
        return Ok(None);
    }
    let node = sysfs.vfio_device(info.address).map(|name| Path::new("/dev/vfio/devices").join(name));
    let usable = || OpenOptions::new().read(true).write(true).open(ioas::NODE);
    match (node.filter(|node| node.exists()), backend) {
        (Some(node), Backend::Iommufd) => Ok(Some(node)),
        // /dev/iommu is root's alone unless someone changed that; the group may be this user's all the same.
        (Some(node), _) => Ok(usable().is_ok().then_some(node)),
        (None, Backend::Iommufd) => Err(Error::NoIommufd { address: info.address }),
        (None, _) => Ok(None),
    }
}

/// Opens a node of VFIO's and says what to do when that fails.
fn open_node(sysfs: &Sysfs, node: &Path, address: Address) -> Result<File, Error> {
    OpenOptions::new().read(true).write(true).open(node).map_err(|cause| match cause.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV) => {
            Error::ModuleMissing { path: node.into(), module: "vfio-pci".into() }
        }
        Some(libc::EACCES | libc::EPERM) => Error::Permission { path: node.into(), address, cause },
        Some(libc::EBUSY) => busy(sysfs, node),
        _ => Error::io(format!("opening {} for {address}", node.display()))(cause),
    })
}

fn busy(sysfs: &Sysfs, node: &Path) -> Error {
    let own = format!("pid {} ", std::process::id());
    let holders: Vec<String> =
        sysfs.holders(node).into_iter().filter(|holder| !holder.starts_with(&own)).collect();
    let unseen = "another address space of this program, or a process that this user may not look into";
    Error::Busy { path: node.into(), holders: or(holders, ", ", unseen) }
}

/// The other members of a group that kernel drivers hold.
fn held_members(sysfs: &Sysfs, info: &FunctionInfo) -> Vec<FunctionInfo> {
    let members = info.group_members.iter().filter_map(|&member| sysfs.function(member).ok());
    members.filter(FunctionInfo::holds_group).collect()
}

/// Why a group is not viable: which other members kernel drivers hold, and what frees them.
fn not_viable(sysfs: &Sysfs, info: &FunctionInfo) -> Error {
    let held = held_members(sysfs, info);
    let drivers = held.iter().map(|member| {
        format!("{} is bound to {}", member.address, member.driver.as_deref().unwrap_or_default())
    });
    let addresses: Vec<String> = held.iter().map(|member| member.address.to_string()).collect();
    Error::GroupNotViable {
        address: info.address,
        group: info.iommu_group.unwrap_or_default(),
        members: or(drivers.collect(), ", ", "another of its members is in the kernel's hands"),
        addresses: or(addresses, " ", "ADDRESS"),
    }
}

fn or(list: Vec<String>, separator: &str, otherwise: &str) -> String {
    if list.is_empty() { otherwise.to_owned() } else { list.join(separator) }
}

/// What a failed DMA map means. `ENOMEM` is nearly always the limit on locked memory, which can be asked for.
fn map_error(what: String, len: u64, cause: io::Error) -> Error {
    match cause.raw_os_error() {
        Some(libc::ENOMEM) => match pagewire_hugepages::check_memlock(len) {
            Err(limit) => Error::Memory(limit),
            Ok(()) => Error::io(format!(
                "mapping {what}: the kernel has no memory for the page tables or may not pin it"
            ))(cause),
        },
        Some(libc::ENOSPC) => Error::MapsExhausted { what },
        Some(libc::EEXIST) => Error::io(format!("mapping {what}: something is mapped there already"))(cause),
        Some(libc::EINVAL) => Error::io(format!(
            "mapping {what}: not page-aligned, or outside what the IOMMU translates (see `pagewire dev list` and dmesg)"
        ))(cause),
        _ => Error::io(format!("mapping {what}"))(cause),
    }
}

/// A segment and where it goes, for messages.
fn describe(segment: &pagewire_hugepages::Segment, iova: u64) -> String {
    format!("a segment of {} bytes ({} pages) at IOVA {iova:#x}", segment.len(), segment.page_size().short())
}
