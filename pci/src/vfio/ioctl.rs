//! The VFIO and iommufd calls, one function each: arguments in, an `io::Result` out, nothing decided.
//!
//! They are ours and not `vfio-ioctls`' because that crate keeps all of them but a container's maps private, behind
//! types whose reset and region accesses swallow errors, whose region numbers shift when one query fails and whose
//! `Drop` panics after a hot removal. The structures are those of `vfio-bindings` and `iommufd-bindings`.

// Talking to the kernel by pointer is what an ioctl is.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::ptr::null_mut;

use iommufd_bindings::iommufd as ioas;
use vfio_bindings::bindings::vfio as abi;

use super::chain::{Chain, pairs, word};
use crate::backend::Region;
use crate::iova::Usable;

/// `_IO(';', 100 + number)`: VFIO's requests carry neither size nor direction.
const fn vfio(number: u32) -> u32 {
    ((abi::VFIO_TYPE as u32) << 8) | (abi::VFIO_BASE + number)
}

/// `_IO(';', number)`: iommufd shares VFIO's letter.
const fn iommufd(number: u32) -> u32 {
    ((abi::VFIO_TYPE as u32) << 8) | number
}

const SET_IOMMU: u32 = vfio(2);
const GROUP_GET_STATUS: u32 = vfio(3);
const GROUP_SET_CONTAINER: u32 = vfio(4);
const GROUP_GET_DEVICE_FD: u32 = vfio(6);
const DEVICE_GET_INFO: u32 = vfio(7);
const DEVICE_GET_REGION_INFO: u32 = vfio(8);
const DEVICE_GET_IRQ_INFO: u32 = vfio(9);
const DEVICE_SET_IRQS: u32 = vfio(10);
const DEVICE_RESET: u32 = vfio(11);
/// The same number as a device's hot-reset query: what it means depends on the file.
const IOMMU_GET_INFO: u32 = vfio(12);
const DEVICE_BIND_IOMMUFD: u32 = vfio(18);
const DEVICE_ATTACH_IOMMUFD_PT: u32 = vfio(19);
const IOAS_ALLOC: u32 = iommufd(ioas::IOMMUFD_CMD_IOAS_ALLOC);
const IOAS_IOVA_RANGES: u32 = iommufd(ioas::IOMMUFD_CMD_IOAS_IOVA_RANGES);
const IOAS_MAP: u32 = iommufd(ioas::IOMMUFD_CMD_IOAS_MAP);
const IOAS_UNMAP: u32 = iommufd(ioas::IOMMUFD_CMD_IOAS_UNMAP);

/// # Safety
/// `argument` is what `request` expects: null, a number, or a pointer to memory it may read and write.
unsafe fn call<T>(fd: &impl AsRawFd, request: u32, argument: *mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise. The request's type differs between C libraries, hence `as _`.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// The group's flags: `VFIO_GROUP_FLAGS_VIABLE` and others.
pub(super) fn group_status(group: &File) -> io::Result<u32> {
    let mut status = abi::vfio_group_status { argsz: size_of::<abi::vfio_group_status>() as u32, flags: 0 };
    // SAFETY: the structure of this request.
    unsafe { call(group, GROUP_GET_STATUS, &mut status) }?;
    Ok(status.flags)
}

pub(super) fn group_set_container(group: &File, container: &impl AsRawFd) -> io::Result<()> {
    let mut container = container.as_raw_fd();
    // SAFETY: the request reads one descriptor.
    unsafe { call(group, GROUP_SET_CONTAINER, &mut container) }.map(drop)
}

pub(super) fn set_iommu(container: &impl AsRawFd, kind: u32) -> io::Result<()> {
    // SAFETY: the request takes a number in place of a pointer.
    unsafe { call(container, SET_IOMMU, std::ptr::without_provenance_mut::<u8>(kind as usize)) }.map(drop)
}

/// Opens a device of a group by its address.
pub(super) fn group_device(group: &File, name: &CStr) -> io::Result<File> {
    // SAFETY: the request reads a string and leaves it as it is.
    let fd = unsafe { call(group, GROUP_GET_DEVICE_FD, name.as_ptr().cast_mut()) }?;
    // SAFETY: a new descriptor, given to us alone.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The device's flags: `VFIO_DEVICE_FLAGS_PCI`, `VFIO_DEVICE_FLAGS_RESET` and others.
pub(super) fn device_flags(device: &File) -> io::Result<u32> {
    let mut info = abi::vfio_device_info {
        argsz: size_of::<abi::vfio_device_info>() as u32,
        ..abi::vfio_device_info::default()
    };
    // SAFETY: the structure of this request.
    unsafe { call(device, DEVICE_GET_INFO, &mut info) }?;
    Ok(info.flags)
}

/// A region and the parts of it that may be mapped.
pub(super) fn region(device: &File, index: u32) -> io::Result<Region> {
    let mut info = abi::vfio_region_info {
        argsz: size_of::<abi::vfio_region_info>() as u32,
        index,
        ..abi::vfio_region_info::default()
    };
    // SAFETY: the structure of this request.
    unsafe { call(device, DEVICE_GET_REGION_INFO, &mut info) }?;
    let mut mappable = Vec::new();
    if info.flags & abi::VFIO_REGION_INFO_FLAG_MMAP != 0 {
        mappable.push(0..info.size);
        if info.flags & abi::VFIO_REGION_INFO_FLAG_CAPS != 0 {
            let reply = with_chain(device, DEVICE_GET_REGION_INFO, info.argsz, |words| words[2] = index)?;
            let chain = Chain::new(&reply, word(&reply, 12));
            for (id, body) in chain {
                if id == abi::VFIO_REGION_INFO_CAP_SPARSE_MMAP {
                    // Count, padding, then offset and size of each.
                    mappable = pairs(body, 8, word(body, 0))
                        .map(|(start, len)| start..start.saturating_add(len))
                        .collect();
                }
            }
        }
    }
    Ok(Region { index, len: info.size, offset: info.offset, mappable })
}

/// How many interrupts of a kind the device has.
pub(super) fn irq_count(device: &File, index: u32) -> io::Result<u32> {
    let mut info =
        abi::vfio_irq_info { argsz: size_of::<abi::vfio_irq_info>() as u32, index, flags: 0, count: 0 };
    // SAFETY: the structure of this request.
    unsafe { call(device, DEVICE_GET_IRQ_INFO, &mut info) }?;
    Ok(info.count)
}

/// Acts on interrupts: `flags` says what; with `DATA_EVENTFD`, `events` are the vectors from 0 on.
pub(super) fn set_irqs(
    device: &File,
    index: u32,
    flags: u32,
    count: u32,
    events: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let header = size_of::<abi::vfio_irq_set>() / size_of::<u32>();
    let argsz = ((header + events.len()) * size_of::<u32>()) as u32;
    let mut set = vec![argsz, flags, index, 0, count];
    debug_assert_eq!(set.len(), header);
    set.extend(events.iter().map(|event| event.as_raw_fd() as u32));
    // SAFETY: a header and as many descriptors as `argsz` says; the kernel reads no further.
    unsafe { call(device, DEVICE_SET_IRQS, set.as_mut_ptr()) }.map(drop)
}

pub(super) fn reset(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { call(device, DEVICE_RESET, null_mut::<u8>()) }.map(drop)
}

/// The addresses that a container's devices can use: everything where the kernel (before 5.4) does not say.
pub(super) fn container_usable(container: &impl AsRawFd) -> io::Result<Usable> {
    let mut info = abi::vfio_iommu_type1_info {
        argsz: size_of::<abi::vfio_iommu_type1_info>() as u32,
        ..abi::vfio_iommu_type1_info::default()
    };
    // SAFETY: the structure of this request.
    unsafe { call(container, IOMMU_GET_INFO, &mut info) }?;
    if info.flags & abi::VFIO_IOMMU_INFO_CAPS != 0 {
        let reply = with_chain(container, IOMMU_GET_INFO, info.argsz, |_| ())?;
        for (id, body) in Chain::new(&reply, word(&reply, 16)) {
            if id == abi::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE {
                // Count, padding, then first and last of each.
                return Ok(pairs(body, 8, word(body, 0)).map(|(first, last)| first..=last).collect());
            }
        }
    }
    Ok(vec![0..=u64::MAX])
}

/// Hands a device to an iommufd, which lets it be used.
pub(super) fn bind_iommufd(device: &File, iommufd: &File) -> io::Result<()> {
    let mut bind = abi::vfio_device_bind_iommufd {
        // The token at the end is newer than the call, and we have none.
        argsz: std::mem::offset_of!(abi::vfio_device_bind_iommufd, token_uuid_ptr) as u32,
        iommufd: iommufd.as_raw_fd(),
        ..abi::vfio_device_bind_iommufd::default()
    };
    // SAFETY: the structure of this request.
    unsafe { call(device, DEVICE_BIND_IOMMUFD, &mut bind) }.map(drop)
}

/// Puts a device in an I/O address space.
pub(super) fn attach_ioas(device: &File, id: u32) -> io::Result<()> {
    let mut attach = abi::vfio_device_attach_iommufd_pt {
        // Likewise the PASID at the end.
        argsz: std::mem::offset_of!(abi::vfio_device_attach_iommufd_pt, pasid) as u32,
        pt_id: id,
        ..abi::vfio_device_attach_iommufd_pt::default()
    };
    // SAFETY: the structure of this request.
    unsafe { call(device, DEVICE_ATTACH_IOMMUFD_PT, &mut attach) }.map(drop)
}

/// Makes an I/O address space.
pub(super) fn ioas_alloc(iommufd: &File) -> io::Result<u32> {
    let mut alloc = ioas::iommu_ioas_alloc {
        size: size_of::<ioas::iommu_ioas_alloc>() as u32,
        ..ioas::iommu_ioas_alloc::default()
    };
    // SAFETY: the structure of this request.
    unsafe { call(iommufd, IOAS_ALLOC, &mut alloc) }?;
    Ok(alloc.out_ioas_id)
}

/// The addresses that an I/O address space's devices can use.
pub(super) fn ioas_usable(iommufd: &File, id: u32) -> io::Result<Usable> {
    let mut ranges: Vec<ioas::iommu_iova_range> = Vec::new();
    // A device attached between the two calls may add a hole: ask again, but not for ever.
    for _ in 0..4 {
        let mut query = ioas::iommu_ioas_iova_ranges {
            size: size_of::<ioas::iommu_ioas_iova_ranges>() as u32,
            ioas_id: id,
            num_iovas: ranges.len() as u32,
            allowed_iovas: ranges.as_mut_ptr() as u64,
            ..ioas::iommu_ioas_iova_ranges::default()
        };
        // SAFETY: the structure of this request; it points to `num_iovas` ranges, which the kernel fills.
        let answer = unsafe { call(iommufd, IOAS_IOVA_RANGES, &mut query) };
        match answer {
            Ok(_) => {
                ranges.truncate(query.num_iovas as usize);
                return Ok(ranges.iter().map(|range| range.start..=range.last).collect());
            }
            // Too few: `num_iovas` says how many there are.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                ranges.resize(query.num_iovas as usize, ioas::iommu_iova_range::default());
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Lets the devices of an I/O address space read and write memory of this process.
///
/// # Safety
/// `memory` points to `len` bytes that stay mapped until they are unmapped here, and to which no Rust reference exists
/// while a device may write them.
pub(super) unsafe fn ioas_map(
    iommufd: &File,
    id: u32,
    memory: *mut u8,
    len: u64,
    iova: u64,
) -> io::Result<()> {
    let mut map = ioas::iommu_ioas_map {
        size: size_of::<ioas::iommu_ioas_map>() as u32,
        flags: ioas::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
            | ioas::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
            | ioas::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
        ioas_id: id,
        user_va: memory as u64,
        length: len,
        iova,
        ..ioas::iommu_ioas_map::default()
    };
    // SAFETY: the structure of this request; the memory is the caller's promise.
    unsafe { call(iommufd, IOAS_MAP, &mut map) }.map(drop)
}

pub(super) fn ioas_unmap(iommufd: &File, id: u32, iova: u64, len: u64) -> io::Result<()> {
    let mut unmap = ioas::iommu_ioas_unmap {
        size: size_of::<ioas::iommu_ioas_unmap>() as u32,
        ioas_id: id,
        iova,
        length: len,
    };
    // SAFETY: the structure of this request.
    unsafe { call(iommufd, IOAS_UNMAP, &mut unmap) }.map(drop)
}

/// Asks again, with room for the capabilities that the first answer said there are. Every such structure starts with
/// its size; `fill` sets what else the query needs.
fn with_chain(
    fd: &impl AsRawFd,
    request: u32,
    argsz: u32,
    fill: impl FnOnce(&mut [u32]),
) -> io::Result<Vec<u8>> {
    // A chain is a few hundred bytes: a megabyte would be a broken kernel. At least 64 bytes, so that the fixed part
    // of any of these structures fits.
    let len = argsz.clamp(64, 1 << 20);
    let mut words = vec![0u32; (len as usize).div_ceil(8) * 2];
    words[0] = len;
    fill(&mut words);
    // SAFETY: as much zeroed memory as the structure says it has, and more than its fixed part.
    unsafe { call(fd, request, words.as_mut_ptr()) }?;
    Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_numbers_of_the_kernel() {
        // From linux/vfio.h and linux/iommufd.h, written out.
        assert_eq!((SET_IOMMU, DEVICE_SET_IRQS, IOMMU_GET_INFO), (0x3b66, 0x3b6e, 0x3b70));
        assert_eq!((DEVICE_BIND_IOMMUFD, DEVICE_ATTACH_IOMMUFD_PT), (0x3b76, 0x3b77));
        assert_eq!((IOAS_ALLOC, IOAS_IOVA_RANGES, IOAS_MAP, IOAS_UNMAP), (0x3b81, 0x3b84, 0x3b85, 0x3b86));
    }
}
