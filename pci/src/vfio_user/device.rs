//! A function behind a socket, and the memory that it reaches.

// File status and seals are asked for by descriptor, with C structures.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{MmapOptions, MmapRaw};
use pagewire_hugepages::Segment;

use super::connection::Connection;
use super::wire::{
    self, Command, DeviceInfo, DmaMap, DmaUnmap, IrqInfo, Malformed, RegionAccess, RegionInfo, SetIrqs,
};
use crate::Error;
use crate::backend::{Device, Domain, InterruptKind, Region};
use crate::iova::Usable;
use crate::vfio::chain::{Chain, pairs, word};

const PAGE: u64 = 4096;
/// MSI-X has no more.
const MOST_VECTORS: u32 = 2048;

pub(super) struct SocketDevice {
    connection: Arc<Connection>,
    info: DeviceInfo,
    /// The files behind the regions that can be mapped.
    files: Mutex<BTreeMap<u32, File>>,
    /// Held so that the address space keeps it for as long as the device is open.
    _domain: Arc<SocketDomain>,
}

impl SocketDevice {
    pub(super) fn new(connection: Arc<Connection>, domain: Arc<SocketDomain>) -> Result<SocketDevice, Error> {
        let ask = DeviceInfo { argsz: DeviceInfo::LEN as u32, ..DeviceInfo::default() };
        let info = connection.request(Command::DeviceGetInfo, &[&ask.encode()], &[], |body, _| {
            let (info, _) = DeviceInfo::decode(body)?;
            if info.flags & wire::DEVICE_PCI == 0 {
                return Err(Malformed::field("flags of the device", info.flags, "a PCI function"));
            }
            if !(wire::CONFIG_REGION + 1..=1024).contains(&info.regions) {
                return Err(Malformed::field("number of regions", info.regions, "8 to 1024"));
            }
            Ok(info)
        })?;
        Ok(SocketDevice { connection, info, files: Mutex::default(), _domain: domain })
    }

    fn access(&self, region: &Region, offset: u64, count: usize) -> RegionAccess {
        RegionAccess { offset, region: region.index, count: count as u32 }
    }
}

impl Device for SocketDevice {
    fn region(&self, index: u32) -> io::Result<Region> {
        if index >= self.info.regions {
            return Ok(Region { index, len: 0, offset: 0, mappable: Vec::new() });
        }
        let room = RegionInfo::LEN + wire::SparseHeader::LEN + wire::MAX_AREAS * wire::Area::LEN;
        let ask = RegionInfo { argsz: room as u32, index, ..RegionInfo::default() };
        let command = Command::DeviceGetRegionInfo;
        let (region, file) = self.connection.request(command, &[&ask.encode()], &[], |body, fds| {
            let (info, _) = RegionInfo::decode(body)?;
            if info.index != index {
                return Err(Malformed::field("region replied to", info.index, index));
            }
            if index == wire::CONFIG_REGION && !(64..=4096).contains(&info.size) {
                return Err(Malformed::field("size of the configuration space", info.size, "64 to 4096"));
            }
            let mappable = mappable(&info, body)?;
            // One file is enough for a region. Others are closed here.
            let file = fds.into_iter().next().map(File::from);
            Ok((Region { index, len: info.size, offset: info.offset, mappable }, file))
        })?;
        Ok(self.keep(region, file))
    }

    fn read(&self, region: &Region, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let most = self.connection.limits().max_data_xfer_size;
        for (part, data) in into.chunks_mut(most).enumerate() {
            let access = self.access(region, offset + (part * most) as u64, data.len());
            self.connection.request(Command::RegionRead, &[&access.encode()], &[], |body, _| {
                let read = expect(access, body)?;
                if read.len() != data.len() {
                    return Err(Malformed::Short { needed: data.len(), found: read.len() });
                }
                data.copy_from_slice(read);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn write(&self, region: &Region, offset: u64, from: &[u8]) -> io::Result<()> {
        let most = self.connection.limits().max_data_xfer_size;
        for (part, data) in from.chunks(most).enumerate() {
            let access = self.access(region, offset + (part * most) as u64, data.len());
            let body: [&[u8]; 2] = [&access.encode(), data];
            self.connection
                .request(Command::RegionWrite, &body, &[], |body, _| expect(access, body).map(drop))?;
        }
        Ok(())
    }

    fn map(&self, region: &Region, part: Range<u64>) -> io::Result<MmapRaw> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.get(&region.index).ok_or(io::ErrorKind::NotFound)?;
        let len = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
        MmapOptions::new().offset(region.offset + part.start).len(len).map_raw(file)
    }

    fn maps_registers(&self) -> bool {
        false
    }

    fn file(&self, region: &Region) -> io::Result<OwnedFd> {
        // Asked anew: the file would outlive a server that is gone, and be memory of no device.
        self.region(region.index)?;
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(files.get(&region.index).ok_or(io::ErrorKind::NotFound)?.try_clone()?.into())
    }

    fn interrupts(&self, kind: InterruptKind) -> io::Result<u32> {
        let index = index(kind);
        let ask = IrqInfo { argsz: IrqInfo::LEN as u32, index, ..IrqInfo::default() };
        let count =
            self.connection.request(Command::DeviceGetIrqInfo, &[&ask.encode()], &[], |body, _| {
                let (info, _) = IrqInfo::decode(body)?;
                if info.index != index || info.count > MOST_VECTORS {
                    return Err(Malformed::field("number of interrupts", info.count, "at most 2048"));
                }
                Ok(if info.flags & wire::IRQ_EVENTFD == 0 { 0 } else { info.count })
            })?;
        Ok(count)
    }

    fn set_interrupts(&self, kind: InterruptKind, events: &[BorrowedFd<'_>]) -> io::Result<()> {
        let set = |flags, start: usize, fds: &[BorrowedFd<'_>], count: usize| {
            let argsz = SetIrqs::LEN as u32;
            let set = SetIrqs { argsz, flags, index: index(kind), start: start as u32, count: count as u32 };
            self.connection.request(Command::DeviceSetIrqs, &[&set.encode()], fds, |_, _| Ok(()))
        };
        if events.is_empty() {
            return Ok(set(wire::IRQ_DATA_NONE | wire::IRQ_TRIGGER, 0, &[], 0)?);
        }
        let most = self.connection.limits().max_msg_fds;
        if most == 0 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the server takes no descriptors"));
        }
        for (part, fds) in events.chunks(most).enumerate() {
            set(wire::IRQ_DATA_EVENTFD | wire::IRQ_TRIGGER, part * most, fds, fds.len())?;
        }
        Ok(())
    }

    fn unmask_intx(&self) -> io::Result<()> {
        let flags = wire::IRQ_DATA_NONE | wire::IRQ_UNMASK;
        let argsz = SetIrqs::LEN as u32;
        let set = SetIrqs { argsz, flags, index: index(InterruptKind::Intx), start: 0, count: 1 };
        Ok(self.connection.request(Command::DeviceSetIrqs, &[&set.encode()], &[], |_, _| Ok(()))?)
    }

    fn can_reset(&self) -> bool {
        self.info.flags & wire::DEVICE_RESETS != 0
    }

    fn reset(&self) -> io::Result<()> {
        Ok(self.connection.request(Command::DeviceReset, &[], &[], |_, _| Ok(()))?)
    }
}

impl SocketDevice {
    /// Keeps the file of a region that can be mapped. Where mapping it could end in a fault later, it is not: accesses are
    /// messages then.
    fn keep(&self, mut region: Region, file: Option<File>) -> Region {
        let Some(end) = region.mappable.last().map(|last| last.end) else { return region };
        let lasting = file.filter(|file| stays(file, region.offset.saturating_add(end)));
        match lasting {
            Some(file) => {
                self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(region.index, file);
            }
            None => {
                log::warn!(
                    "region {} is not mapped: its file is missing, too short or not sealed against shrinking",
                    region.index
                );
                region.mappable.clear();
            }
        }
        region
    }
}

/// Whether a file has this many bytes for good: a mapping whose file shrinks is a bus error away.
fn stays(file: &File, len: u64) -> bool {
    // SAFETY: asks for the seals of an open descriptor; no pointer is passed.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0 && file.metadata().is_ok_and(|about| about.len() >= len)
}

/// The parts of a region that may be mapped, ascending: those the capability lists, or all of it if there is none.
fn mappable(info: &RegionInfo, reply: &[u8]) -> Result<Vec<Range<u64>>, Malformed> {
    if info.flags & wire::REGION_MMAP == 0 || info.size == 0 {
        return Ok(Vec::new());
    }
    if !info.offset.is_multiple_of(PAGE) || info.offset.checked_add(info.size).is_none() {
        return Err(Malformed::field("offset of a region in its file", info.offset, "a page's"));
    }
    let first = if info.flags & wire::REGION_CAPS == 0 { 0 } else { info.cap_offset };
    let sparse = Chain::new(reply, first).find(|(id, _)| *id == u32::from(wire::CAP_SPARSE));
    let Some((_, list)) = sparse else {
        return Ok(std::iter::once(0..info.size / PAGE * PAGE).filter(|whole| !whole.is_empty()).collect());
    };
    let count = word(list, 0);
    if count as usize > wire::MAX_AREAS {
        return Err(Malformed::field("number of mappable areas", count, "at most 64"));
    }
    let mut areas = Vec::new();
    for (offset, size) in pairs(list, 8, count) {
        let end = offset
            .checked_add(size)
            .filter(|&end| end <= info.size.checked_next_multiple_of(PAGE).unwrap_or(info.size));
        match end {
            Some(end) if offset.is_multiple_of(PAGE) && size.is_multiple_of(PAGE) => areas.push(offset..end),
            _ => return Err(Malformed::field("offset of a mappable area", offset, "whole pages inside")),
        }
    }
    areas.retain(|area| !area.is_empty());
    areas.sort_by_key(|area| area.start);
    match areas.windows(2).find(|pair| pair[0].end > pair[1].start) {
        Some(pair) => Err(Malformed::field("offset of a mappable area", pair[1].start, "no overlap")),
        None => Ok(areas),
    }
}

/// Checks that a reply is about this access; the data behind it.
fn expect(access: RegionAccess, body: &[u8]) -> Result<&[u8], Malformed> {
    match RegionAccess::decode(body)? {
        (about, data) if about == access => Ok(data),
        (about, _) => Err(Malformed::field("offset replied to", about.offset, format_args!("{access:x?}"))),
    }
}

fn index(kind: InterruptKind) -> u32 {
    match kind {
        InterruptKind::Intx => 0,
        InterruptKind::Msi => 1,
        InterruptKind::Msix => 2,
    }
}

/// The memory that the function behind a socket reaches: the server is handed the file of each segment.
///
/// The server drops it all when the connection ends, and what it still had would be pages of a file that nobody else
/// gets: so on a connection that has ended there is nothing to map, and nothing left to unmap.
pub(super) struct SocketDomain {
    connection: Arc<Connection>,
}

impl SocketDomain {
    pub(super) fn new(connection: Arc<Connection>) -> SocketDomain {
        SocketDomain { connection }
    }
}

impl Domain for SocketDomain {
    fn usable(&self) -> Result<Usable, Error> {
        Ok(vec![0..=u64::MAX])
    }

    fn map(&self, segment: &Segment, iova: u64) -> Result<(), Error> {
        if self.connection.is_dead() {
            return Ok(());
        }
        let flags = wire::DMA_READABLE | wire::DMA_WRITABLE;
        let (argsz, size) = (DmaMap::LEN as u32, segment.len() as u64);
        let map = DmaMap { argsz, flags, offset: segment.fd_offset(), address: iova, size };
        Ok(self.connection.request(Command::DmaMap, &[&map.encode()], &[segment.fd()], |_, _| Ok(()))?)
    }

    fn unmap(&self, iova: u64, len: usize) -> Result<(), Error> {
        if self.connection.is_dead() {
            return Ok(());
        }
        let argsz = DmaUnmap::LEN as u32;
        let unmap = DmaUnmap { argsz, flags: 0, address: iova, size: len as u64 };
        let unmapped = self.connection.request(Command::DmaUnmap, &[&unmap.encode()], &[], |_, _| Ok(()));
        match unmapped {
            Err(_) if self.connection.is_dead() => Ok(()),
            other => Ok(other?),
        }
    }
}
