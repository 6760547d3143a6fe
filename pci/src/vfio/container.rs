//! Groups and containers: the interface every kernel has.

// `VfioContainer::vfio_dma_map` is unsafe: the memory's life is ours to vouch for.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pagewire_hugepages::Segment;
use vfio_bindings::bindings::vfio as abi;
use vfio_ioctls::{VfioContainer, VfioError};

use super::{busy, describe, ioctl, map_error, not_viable, open_node};
use crate::backend::Domain;
use crate::iova::Usable;
use crate::sysfs::{FunctionInfo, Sysfs};
use crate::{Address, Error};

const CONTAINER_NODE: &str = "/dev/vfio/vfio";

/// An IOMMU group that this process owns, in its container.
pub(super) struct Group {
    id: u32,
    node: PathBuf,
    /// Closing it takes the group out of its container.
    file: File,
    container: Arc<Container>,
}

impl Group {
    /// Opens a group and puts it in the first of the containers that takes it, or in a new one: a group whose IOMMU
    /// differs from the container's (another page-table format, no snooping) is refused.
    pub(super) fn open(
        sysfs: &Sysfs,
        info: &FunctionInfo,
        id: u32,
        containers: &[Arc<Container>],
    ) -> Result<Group, Error> {
        let node = Path::new("/").join(info.group_node().ok_or(Error::NoIommu { address: info.address })?);
        let file = open_node(sysfs, &node, info.address).map_err(|error| match error {
            // Whoever owns the node: without an IOMMU it takes CAP_SYS_RAWIO.
            Error::Permission { path, .. } if info.no_iommu => Error::NeedsRoot { path },
            error => error,
        })?;
        let status = ioctl::group_status(&file)
            .map_err(Error::io(format!("asking for the status of {}", node.display())))?;
        if status & abi::VFIO_GROUP_FLAGS_VIABLE == 0 {
            return Err(not_viable(sysfs, info));
        }
        let same_kind = containers.iter().filter(|container| container.translates() != info.no_iommu);
        for container in same_kind {
            match ioctl::group_set_container(&file, container.as_ref()) {
                Ok(()) => return Ok(Group { id, node, file, container: container.clone() }),
                Err(error) => log::debug!("IOMMU group {id} needs a container of its own: {error}"),
            }
        }
        let container = Container::open(info)?;
        ioctl::group_set_container(&file, &container)
            .map_err(Error::io(format!("putting {} in a container", node.display())))?;
        let kind = if info.no_iommu { abi::VFIO_NOIOMMU_IOMMU } else { abi::VFIO_TYPE1v2_IOMMU };
        ioctl::set_iommu(&container, kind).map_err(|cause| match cause.raw_os_error() {
            Some(libc::EPERM) if !info.no_iommu => Error::NoInterruptRemapping { group: id },
            _ => Error::io(format!("giving the container of {} an IOMMU of type {kind}", node.display()))(
                cause,
            ),
        })?;
        Ok(Group { id, node, file, container: Arc::new(container) })
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn container(&self) -> Arc<Container> {
        self.container.clone()
    }

    /// Opens one function of the group.
    pub(super) fn device(&self, sysfs: &Sysfs, address: Address) -> Result<File, Error> {
        let name = CString::new(address.to_string()).expect("an address has no zero byte");
        ioctl::group_device(&self.file, &name).map_err(|cause| match cause.raw_os_error() {
            Some(libc::EBUSY) => busy(sysfs, &self.node),
            Some(libc::EPERM) => Error::Permission { path: self.node.clone(), address, cause },
            _ => Error::io(format!("opening {address} through {}", self.node.display()))(cause),
        })
    }
}

/// A set of I/O page tables, shared by the groups in it; or, without an IOMMU, just what such groups have to be in.
pub(super) enum Container {
    Type1(VfioContainer),
    NoIommu(File),
}

impl Container {
    fn open(info: &FunctionInfo) -> Result<Container, Error> {
        let node = || PathBuf::from(CONTAINER_NODE);
        let opened = if info.no_iommu {
            // `VfioContainer` insists on the type-1 IOMMU.
            let file = File::options().read(true).write(true).open(CONTAINER_NODE);
            file.map(Container::NoIommu).map_err(VfioError::OpenContainer)
        } else {
            VfioContainer::new(None).map(Container::Type1)
        };
        opened.map_err(|error| match error {
            VfioError::OpenContainer(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Error::ModuleMissing { path: node(), module: "vfio-pci".into() }
            }
            VfioError::OpenContainer(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                Error::Permission { path: node(), address: info.address, cause }
            }
            VfioError::OpenContainer(cause) => Error::io(format!("opening {CONTAINER_NODE}"))(cause),
            // The version and the extension are there with the module that has them, or not at all.
            _ => Error::ModuleMissing { path: node(), module: "vfio_iommu_type1".into() },
        })
    }

    fn translates(&self) -> bool {
        matches!(self, Container::Type1(_))
    }
}

impl AsRawFd for Container {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Container::Type1(container) => container.as_raw_fd(),
            Container::NoIommu(file) => file.as_raw_fd(),
        }
    }
}

impl Domain for Container {
    fn usable(&self) -> Result<Usable, Error> {
        match self {
            Container::Type1(_) => ioctl::container_usable(self)
                .map_err(Error::io("asking a VFIO container which addresses its IOMMU translates")),
            Container::NoIommu(_) => Ok(vec![0..=u64::MAX]),
        }
    }

    fn map(&self, segment: &Segment, iova: u64) -> Result<(), Error> {
        // Without an IOMMU there is nothing to map: the segment's pages are pinned and devices use their addresses.
        let Container::Type1(container) = self else { return Ok(()) };
        // SAFETY: the segment is mapped at this address for all its length, and the address space keeps it until it has
        // unmapped it or closed this container. Nobody makes references into a segment: that is its contract.
        unsafe { container.vfio_dma_map(iova, segment.len(), segment.as_ptr().as_ptr()) }
            .map_err(|error| map_error(describe(segment, iova), segment.len() as u64, answer(error)))
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), Error> {
        let Container::Type1(container) = self else { return Ok(()) };
        container
            .vfio_dma_unmap(iova, len)
            .map_err(|error| Error::io(format!("unmapping {len} bytes at IOVA {iova:#x}"))(answer(error)))
    }
}

/// The kernel's answer inside the crate's error.
fn answer(error: VfioError) -> io::Error {
    match error {
        VfioError::IommuDmaMap(errno) | VfioError::IommuDmaUnmap(errno) => {
            io::Error::from_raw_os_error(errno.errno())
        }
        other => io::Error::other(other),
    }
}
