//! One client, from its first message to its last.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use pagewire_pci::Capabilities;
use pagewire_pci::vfio_user::transport::{Broken, Channel, Wait};
use pagewire_pci::vfio_user::wire::{
    self, Command, DeviceInfo, DmaMap, DmaUnmap, Header, IrqInfo, Limits, Malformed, RegionAccess,
    RegionInfo, SetIrqs, SparseHeader, Version,
};

use super::ServerOptions;
use super::access::{read, region, widths};
use super::interrupts::{INTX, Interrupts, MSI, MSIX};
use super::machine::{Counters, Machine};
use super::shared::{PAGE, Shared};
use crate::{Function, Region};

/// Why a session ended.
pub(crate) enum End {
    /// The client closed the connection.
    Closed,
    /// The connection was dropped, and why.
    Dropped(Broken),
}

impl<E: Into<Broken>> From<E> for End {
    fn from(error: E) -> End {
        match error.into() {
            Broken::Closed => End::Closed,
            broken => End::Dropped(broken),
        }
    }
}

/// What a command is answered with.
enum Answer {
    Done,
    Body(Vec<u8>),
    /// A body, and the file behind a region's areas.
    Areas(Vec<u8>, Region),
    Errno(i32),
}

type Answered = Result<Answer, Malformed>;

pub(crate) struct Session<'a> {
    function: &'a mut dyn Function,
    machine: Machine,
    options: &'a ServerOptions,
    /// When it began, until the client has greeted.
    ungreeted: Option<Instant>,
    /// The message that is worked on. Kept for its memory.
    body: Vec<u8>,
}

impl AsFd for Session<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.machine.channel.as_fd()
    }
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        function: &'a mut dyn Function,
        channel: Channel,
        shared: Shared,
        options: &'a ServerOptions,
        counters: Arc<Counters>,
    ) -> Session<'a> {
        let none = Interrupts::new([0; 3]);
        let mut machine = Machine::new(channel, none, shared, counters, options.timeout);
        function.reset(&mut machine);
        let mut image = vec![0; function.region(Region::Config).size.min(4096) as usize];
        read(function, &mut machine, Region::Config, 0, &mut image);
        let msi = Capabilities::parse(&image).msi_vectors.unwrap_or(0);
        let line = image.get(0x3d).is_some_and(|&pin| pin != 0);
        let mut counts = [0; 3];
        (counts[INTX], counts[MSI], counts[MSIX]) = (line.into(), msi.into(), function.vectors().into());
        machine.interrupts = Interrupts::new(counts);
        machine.look_at_command(function);
        Session { function, machine, options, ungreeted: Some(Instant::now()), body: Vec::new() }
    }

    /// Ends it, and gives the function back.
    pub(crate) fn end(mut self) -> &'a mut dyn Function {
        self.machine.unplug();
        self.function.reset(&mut self.machine);
        self.function
    }

    /// Polls the function, and carries a command out if there is one. Whether there was anything to do. Commands are looked
    /// for if that is asked for or the function has nothing to do.
    pub(crate) fn turn(&mut self, look: bool) -> Result<bool, End> {
        if let Some(since) = self.ungreeted {
            return self.greet(since);
        }
        let polled = self.function.poll(&mut self.machine);
        let busy = if !polled || look { self.next()? || polled } else { polled };
        match self.machine.broken.take() {
            Some(broken) => Err(broken.into()),
            None => Ok(busy),
        }
    }

    fn greet(&mut self, since: Instant) -> Result<bool, End> {
        let timeout = self.options.timeout;
        let Some((header, _)) = self.machine.channel.receive(&mut self.body, Wait::Rest(timeout))? else {
            return if since.elapsed() < timeout { Ok(false) } else { Err(Broken::TimedOut(timeout).into()) };
        };
        if header.command != Command::Version as u16 || header.is_reply() {
            return Err(Malformed::field("first command", header.command, "VERSION").into());
        }
        let (theirs, capabilities) = Version::decode(&self.body)?;
        if theirs.major != wire::MAJOR {
            return Err(Malformed::field("major version", theirs.major, wire::MAJOR).into());
        }
        self.machine.limits = Limits::decode(capabilities)?;
        let ours = Version { major: wire::MAJOR, minor: theirs.minor.min(wire::MINOR) };
        let mut reply = ours.encode().to_vec();
        reply.extend(wire::OWN_LIMITS.encode());
        self.reply(header, Answer::Body(reply))?;
        self.ungreeted = None;
        Ok(true)
    }

    /// Carries the next command out, if there is one.
    fn next(&mut self) -> Result<bool, End> {
        let mut body = std::mem::take(&mut self.body);
        let carried_out = self.carry_out(&mut body);
        self.body = body;
        carried_out
    }

    fn carry_out(&mut self, body: &mut Vec<u8>) -> Result<bool, End> {
        let (header, fds) = match self.machine.queued.pop_front() {
            Some((header, queued, fds)) => {
                *body = queued;
                (header, fds)
            }
            None => match self.machine.channel.receive(body, Wait::Rest(self.options.timeout))? {
                Some(received) => received,
                None => return Ok(false),
            },
        };
        if header.is_reply() {
            return Err(Malformed::field("reply to a message", header.id, "no reply").into());
        }
        let answer = self.answer(header.command, body, fds)?;
        self.reply(header, answer)?;
        Ok(true)
    }

    fn reply(&mut self, command: Header, answer: Answer) -> Result<(), Broken> {
        if command.flags & wire::NO_REPLY != 0 {
            return Ok(());
        }
        let header = Header { flags: wire::REPLY, error: 0, ..command };
        let channel = &self.machine.channel;
        match answer {
            Answer::Done => channel.send(header, &[], &[]),
            Answer::Body(body) => channel.send(header, &[&body], &[]),
            Answer::Areas(body, region) => {
                let fds: Option<BorrowedFd<'_>> =
                    self.machine.shared.areas(region).map(|areas| areas.file.as_fd());
                channel.send(header, &[&body], fds.as_slice())
            }
            Answer::Errno(errno) => {
                let flags = wire::REPLY | wire::ERROR;
                channel.send(Header { flags, error: errno as u32, ..header }, &[], &[])
            }
        }
    }

    fn answer(&mut self, command: u16, body: &[u8], fds: Vec<OwnedFd>) -> Answered {
        Ok(match Command::from_number(command) {
            Some(Command::DmaMap) => self.map(body, fds)?,
            Some(Command::DmaUnmap) => self.unmap(body)?,
            Some(Command::DeviceGetInfo) => info(body)?,
            Some(Command::DeviceGetRegionInfo) => self.region_info(body)?,
            Some(Command::DeviceGetIrqInfo) => self.irq_info(body)?,
            Some(Command::DeviceSetIrqs) => {
                let (set, data) = SetIrqs::decode(body)?;
                if (set.argsz as usize) < SetIrqs::LEN {
                    return Ok(Answer::Errno(libc::EINVAL));
                }
                self.machine.interrupts.set(&set, data, fds).map_or_else(Answer::Errno, |()| Answer::Done)
            }
            Some(Command::RegionRead) => self.region_read(body)?,
            Some(Command::RegionWrite) => self.region_write(body)?,
            Some(Command::DeviceReset) => {
                self.reset();
                Answer::Done
            }
            Some(Command::Version) => {
                return Err(Malformed::field("second command", command, "VERSION only once"));
            }
            Some(Command::DmaRead | Command::DmaWrite) | None => Answer::Errno(libc::ENOTSUP),
        })
    }

    fn map(&mut self, body: &[u8], fds: Vec<OwnedFd>) -> Answered {
        let (map, _) = DmaMap::decode(body)?;
        if fds.len() > 1 {
            return Err(Malformed::Descriptors { fds: fds.len(), expected: 1 });
        }
        // Whole pages, as with an IOMMU.
        let whole = [map.address, map.size, map.offset].iter().all(|number| number.is_multiple_of(PAGE));
        if (map.argsz as usize) < DmaMap::LEN || !whole {
            return Ok(Answer::Errno(libc::EINVAL));
        }
        let file = fds.into_iter().next().map(Into::into);
        Ok(self.machine.table.map(&map, file).map_or_else(Answer::Errno, |()| Answer::Done))
    }

    fn unmap(&mut self, body: &[u8]) -> Answered {
        let (unmap, _) = DmaUnmap::decode(body)?;
        let unmapped = match unmap.flags {
            _ if (unmap.argsz as usize) < DmaUnmap::LEN => Err(libc::EINVAL),
            0 => self.machine.table.unmap(unmap.address, unmap.size),
            wire::UNMAP_ALL if (unmap.address, unmap.size) == (0, 0) => {
                self.machine.table.clear();
                Ok(())
            }
            _ => Err(libc::EINVAL),
        };
        Ok(unmapped.map_or_else(Answer::Errno, |()| Answer::Body(unmap.encode().to_vec())))
    }

    fn region_info(&mut self, body: &[u8]) -> Answered {
        let (ask, _) = RegionInfo::decode(body)?;
        if ask.index >= wire::PCI_REGIONS || (ask.argsz as usize) < RegionInfo::LEN {
            return Ok(Answer::Errno(libc::EINVAL));
        }
        let (argsz, flags) = (RegionInfo::LEN as u32, wire::REGION_READ | wire::REGION_WRITE);
        let mut info = RegionInfo { argsz, index: ask.index, ..RegionInfo::default() };
        let Some(region) = region(ask.index).filter(|&region| self.function.region(region).size > 0) else {
            return Ok(Answer::Body(info.encode().to_vec()));
        };
        (info.flags, info.size) = (flags, self.function.region(region).size);
        let Some(areas) = self.machine.shared.areas(region).filter(|_| self.options.mappable) else {
            return Ok(Answer::Body(info.encode().to_vec()));
        };
        let header = SparseHeader {
            id: wire::CAP_SPARSE,
            version: 1,
            areas: areas.list.len() as u32,
            ..SparseHeader::default()
        };
        let mut list = header.encode().to_vec();
        for area in &areas.list {
            list.extend(wire::Area { offset: area.offset, size: area.size }.encode());
        }
        info.flags |= wire::REGION_MMAP;
        info.argsz += list.len() as u32;
        // A client with room for less is told how much it takes, and asks again.
        if ask.argsz >= info.argsz {
            info.flags |= wire::REGION_CAPS;
            info.cap_offset = RegionInfo::LEN as u32;
        } else {
            list.clear();
        }
        let mut reply = info.encode().to_vec();
        reply.extend(list);
        Ok(Answer::Areas(reply, region))
    }

    fn irq_info(&mut self, body: &[u8]) -> Answered {
        let (ask, _) = IrqInfo::decode(body)?;
        if ask.index >= wire::PCI_INTERRUPTS || (ask.argsz as usize) < IrqInfo::LEN {
            return Ok(Answer::Errno(libc::EINVAL));
        }
        let flags = match ask.index as usize {
            INTX => wire::IRQ_EVENTFD | wire::IRQ_MASKABLE | wire::IRQ_AUTOMASKED,
            _ => wire::IRQ_EVENTFD,
        };
        let count = self.machine.interrupts.count(ask.index as usize);
        let info = IrqInfo { argsz: IrqInfo::LEN as u32, flags, index: ask.index, count };
        Ok(Answer::Body(info.encode().to_vec()))
    }

    /// The region of an access, if all of it is inside and not longer than a message may be.
    fn inside(&self, access: &RegionAccess) -> Option<Region> {
        let region = region(access.region)?;
        let end = access.offset.checked_add(access.count.into())?;
        let fits = end <= self.function.region(region).size && access.count as usize <= wire::MAX_DATA;
        fits.then_some(region)
    }

    fn region_read(&mut self, body: &[u8]) -> Answered {
        let (access, _) = RegionAccess::decode(body)?;
        let Some(region) = self.inside(&access) else { return Ok(Answer::Errno(libc::EINVAL)) };
        let mut reply = access.encode().to_vec();
        reply.resize(RegionAccess::LEN + access.count as usize, 0xff);
        read(self.function, &mut self.machine, region, access.offset, &mut reply[RegionAccess::LEN..]);
        Ok(Answer::Body(reply))
    }

    fn region_write(&mut self, body: &[u8]) -> Answered {
        let (access, data) = RegionAccess::decode(body)?;
        if data.len() != access.count as usize {
            return Err(Malformed::Short { needed: access.count as usize, found: data.len() });
        }
        let Some(region) = self.inside(&access) else { return Ok(Answer::Errno(libc::EINVAL)) };
        let mut at = 0;
        for width in widths(access.offset, data.len()) {
            let (offset, part) = (access.offset + at as u64, &data[at..at + width]);
            // What a driver stores in an area is there, whichever way it came.
            self.machine.shared.store(region, offset, part);
            self.function.write(region, offset, part, &mut self.machine);
            at += width;
        }
        if region == Region::Config {
            self.machine.look_at_command(self.function);
        }
        Ok(Answer::Body(access.encode().to_vec()))
    }

    /// Resets the function as the kernel does: what software set up in configuration space is as before.
    fn reset(&mut self) {
        /// Command, cache line size and latency, the BARs, the interrupt line (PCI Local Bus Specification 3.0, 6.1).
        const KEPT: [(u64, usize); 4] = [(0x0c, 2), (0x10, 24), (0x3c, 1), (0x04, 2)];
        let mut kept = [[0; 24]; KEPT.len()];
        for ((offset, len), bytes) in KEPT.into_iter().zip(&mut kept) {
            read(self.function, &mut self.machine, Region::Config, offset, &mut bytes[..len]);
        }
        self.function.reset(&mut self.machine);
        for ((offset, len), bytes) in KEPT.into_iter().zip(&kept) {
            let mut at = 0;
            for width in widths(offset, len) {
                let part = &bytes[at..at + width];
                self.function.write(Region::Config, offset + at as u64, part, &mut self.machine);
                at += width;
            }
        }
        self.machine.look_at_command(self.function);
    }
}

fn info(body: &[u8]) -> Answered {
    let (ask, _) = DeviceInfo::decode(body)?;
    if (ask.argsz as usize) < DeviceInfo::LEN {
        return Ok(Answer::Errno(libc::EINVAL));
    }
    let info = DeviceInfo {
        argsz: DeviceInfo::LEN as u32,
        flags: wire::DEVICE_RESETS | wire::DEVICE_PCI,
        regions: wire::PCI_REGIONS,
        interrupts: wire::PCI_INTERRUPTS,
    };
    Ok(Answer::Body(info.encode().to_vec()))
}
