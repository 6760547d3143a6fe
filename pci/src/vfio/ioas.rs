//! iommufd: one I/O address space for devices opened by their own character devices. No groups to keep, and the newer
//! of the two interfaces.

// Mapping memory for a device is unsafe: its life is ours to vouch for.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::path::Path;

use pagewire_hugepages::Segment;

use super::{busy, describe, held_members, ioctl, map_error, not_viable};
use crate::Error;
use crate::backend::Domain;
use crate::iova::Usable;
use crate::sysfs::{FunctionInfo, Sysfs};

/// Where the kernel has it.
pub(super) const NODE: &str = "/dev/iommu";

/// An I/O address space. The kernel keeps page tables of as many formats as its devices need.
pub(super) struct Ioas {
    iommufd: File,
    id: u32,
}

impl Ioas {
    pub(super) fn new() -> Result<Ioas, Error> {
        let iommufd = OpenOptions::new()
            .read(true)
            .write(true)
            .open(NODE)
            .map_err(Error::io(format!("opening {NODE} (root's, unless its mode was changed)")))?;
        let id = ioctl::ioas_alloc(&iommufd).map_err(Error::io("making an I/O address space of iommufd"))?;
        Ok(Ioas { iommufd, id })
    }

    /// Takes a device in: until then the kernel lets nothing be done with it.
    pub(super) fn attach(
        &self,
        device: &File,
        sysfs: &Sysfs,
        info: &FunctionInfo,
        node: &Path,
    ) -> Result<(), Error> {
        let address = info.address;
        ioctl::bind_iommufd(device, &self.iommufd).map_err(|cause| match cause.raw_os_error() {
            Some(libc::EPERM | libc::EBUSY) if !held_members(sysfs, info).is_empty() => {
                not_viable(sysfs, info)
            }
            Some(libc::EBUSY) => busy(sysfs, node),
            _ => Error::io(format!("binding {address} to an iommufd"))(cause),
        })?;
        ioctl::attach_ioas(device, self.id).map_err(|cause| match cause.raw_os_error() {
            Some(libc::EPERM) => Error::NoInterruptRemapping { group: info.iommu_group.unwrap_or_default() },
            Some(libc::EADDRINUSE) => Error::io(format!(
                "{address} cannot use addresses at which memory is mapped for the devices already open; open it before them"
            ))(cause),
            _ => Error::io(format!("putting {address} in an I/O address space of iommufd"))(cause),
        })
    }
}

impl Domain for Ioas {
    fn usable(&self) -> Result<Usable, Error> {
        ioctl::ioas_usable(&self.iommufd, self.id)
            .map_err(Error::io("asking iommufd which addresses its devices can use"))
    }

    fn map(&self, segment: &Segment, iova: u64) -> Result<(), Error> {
        let len = segment.len() as u64;
        // SAFETY: the segment is mapped at this address for all its length, and the address space keeps it until it has
        // unmapped it or closed this iommufd. Nobody makes references into a segment: that is its contract.
        unsafe { ioctl::ioas_map(&self.iommufd, self.id, segment.as_ptr().as_ptr(), len, iova) }
            .map_err(|cause| map_error(describe(segment, iova), len, cause))
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), Error> {
        ioctl::ioas_unmap(&self.iommufd, self.id, iova, len as u64)
            .map_err(Error::io(format!("unmapping {len} bytes at IOVA {iova:#x}")))
    }
}
