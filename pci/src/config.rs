//! Configuration space and the capabilities listed in it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::Region;
use crate::space::Opened;
use crate::{Address, Error};

/// Offsets in the header every function has (PCI Local Bus Specification 3.0, section 6.1).
const COMMAND: u16 = 0x04;
const STATUS: usize = 0x06;
const STATUS_HAS_LIST: u8 = 1 << 4;
const LIST_POINTER: usize = 0x34;

/// Where capabilities may be: behind the header, in the 256 bytes that PCI has, and behind those on PCI Express.
const LIST: Range<usize> = 0x40..0x100;
const EXTENDED_LIST: Range<usize> = 0x100..0x1000;

/// Power management.
pub const CAP_PM: u16 = 0x01;
/// Message-signalled interrupts.
pub const CAP_MSI: u16 = 0x05;
/// PCI Express.
pub const CAP_EXPRESS: u16 = 0x10;
/// MSI-X.
pub const CAP_MSIX: u16 = 0x11;
/// Extended: the device's serial number, for a network card usually its MAC address.
pub const CAP_SERIAL: u16 = 0x03;

/// The configuration space of an opened function. The kernel shows some registers as it sees fit and ignores writes to
/// those that are its own, such as the BARs' addresses.
pub struct ConfigSpace {
    address: Address,
    region: Region,
    /// Held while a register is read, changed and written.
    changing: Mutex<()>,
    opened: Arc<Opened>,
}

impl ConfigSpace {
    pub(crate) fn new(address: Address, region: Region, opened: Arc<Opened>) -> ConfigSpace {
        ConfigSpace { address, region, changing: Mutex::new(()), opened }
    }

    /// Length in bytes: 256 for PCI, 4096 for PCI Express.
    #[allow(clippy::len_without_is_empty)] // It never is.
    pub fn len(&self) -> usize {
        self.region.len as usize
    }

    /// Reads a byte.
    pub fn read8(&self, offset: u16) -> Result<u8, Error> {
        self.read(offset).map(u8::from_le_bytes)
    }

    /// Reads a 16-bit register.
    pub fn read16(&self, offset: u16) -> Result<u16, Error> {
        self.read(offset).map(u16::from_le_bytes)
    }

    /// Reads a 32-bit register.
    pub fn read32(&self, offset: u16) -> Result<u32, Error> {
        self.read(offset).map(u32::from_le_bytes)
    }

    /// Writes a byte.
    pub fn write8(&self, offset: u16, value: u8) -> Result<(), Error> {
        self.write(offset, &value.to_le_bytes())
    }

    /// Writes a 16-bit register.
    pub fn write16(&self, offset: u16, value: u16) -> Result<(), Error> {
        self.write(offset, &value.to_le_bytes())
    }

    /// Writes a 32-bit register.
    pub fn write32(&self, offset: u16, value: u32) -> Result<(), Error> {
        self.write(offset, &value.to_le_bytes())
    }

    /// Whether the function answers: one that was pulled out, or whose server is gone, does not, or with all ones. By the status
    /// register, because the kernel answers from memory for what identifies a function.
    pub fn is_there(&self) -> bool {
        self.read16(STATUS as u16).is_ok_and(|status| status != u16::MAX)
    }

    /// Reads the lists of capabilities.
    pub fn capabilities(&self) -> Result<Capabilities, Error> {
        let mut image = vec![0; self.len().min(EXTENDED_LIST.end)];
        self.opened.device().read(&self.region, 0, &mut image).map_err(self.failed("reading", 0))?;
        Ok(Capabilities::parse(&image))
    }

    /// Sets and clears bits of the command register.
    pub(crate) fn change_command(&self, set: u16, clear: u16) -> Result<(), Error> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let command = self.read16(COMMAND)?;
        self.write16(COMMAND, command & !clear | set)
    }

    fn read<const N: usize>(&self, offset: u16) -> Result<[u8; N], Error> {
        let mut value = [0; N];
        self.check(offset, N)?;
        self.opened
            .device()
            .read(&self.region, offset.into(), &mut value)
            .map_err(self.failed("reading", offset))?;
        Ok(value)
    }

    fn write(&self, offset: u16, value: &[u8]) -> Result<(), Error> {
        self.check(offset, value.len())?;
        self.opened.device().write(&self.region, offset.into(), value).map_err(self.failed("writing", offset))
    }

    fn check(&self, offset: u16, len: usize) -> Result<(), Error> {
        let (offset, address) = (usize::from(offset), self.address);
        let fits = offset.is_multiple_of(len) && offset + len <= self.len();
        fits.then_some(()).ok_or(Error::NoConfigRegister { address, offset, width: len, len: self.len() })
    }

    fn failed(&self, what: &str, offset: u16) -> impl FnOnce(std::io::Error) -> Error + use<> {
        Error::io(format!("{what} the configuration space of {} at {offset:#x}", self.address))
    }
}

/// Where one capability is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is: one of the `CAP_` numbers, which mean something else in the extended list.
    pub id: u16,
    /// The offset of its header.
    pub offset: u16,
    /// From the extended list.
    pub extended: bool,
}

/// The MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// How many vectors the function has, 1–2048.
    pub vectors: u16,
    /// The BAR that the table is in.
    pub table_bar: u8,
    /// Where it is in that BAR, in bytes.
    pub table_offset: u32,
}

impl Msix {
    /// The bytes of the table: 16 a vector.
    pub(crate) fn table(&self) -> Range<u64> {
        let start = u64::from(self.table_offset);
        start..start + 16 * u64::from(self.vectors)
    }
}

/// The capabilities of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// All of both lists, in their order.
    pub list: Vec<Capability>,
    /// How many MSI vectors the function has, if it has MSI.
    pub msi_vectors: Option<u16>,
    /// MSI-X, if the function has it.
    pub msix: Option<Msix>,
    /// Whether the function says that it can be reset by itself (PCI Express FLR).
    pub function_level_reset: bool,
    /// The device's serial number, if it has one.
    pub serial_number: Option<u64>,
}

impl Capabilities {
    /// Reads the lists out of an image of configuration space. An image is whatever a device says: a list that leaves it,
    /// bites its tail or never ends is read as far as it makes sense.
    pub fn parse(image: &[u8]) -> Capabilities {
        let mut found = Capabilities::default();
        let has_list = byte(image, STATUS) & STATUS_HAS_LIST != 0;
        let first = if has_list { byte(image, LIST_POINTER).into() } else { 0 };
        walk(LIST, first, |at| {
            let header = word(image, at)?;
            // All-ones is a function that is gone.
            (header != 0xffff).then(|| {
                found.list.push(Capability { id: header & 0xff, offset: at as u16, extended: false })
            })?;
            Some((header >> 8).into())
        });
        walk(EXTENDED_LIST, EXTENDED_LIST.start, |at| {
            let header = double(image, at)?;
            (header != 0 && header != u32::MAX).then(|| {
                found.list.push(Capability { id: header as u16, offset: at as u16, extended: true })
            })?;
            Some((header >> 20) as usize)
        });
        found.read_known(image);
        found
    }

    /// The first capability of a kind.
    pub fn find(&self, id: u16, extended: bool) -> Option<Capability> {
        self.list.iter().copied().find(|capability| capability.id == id && capability.extended == extended)
    }

    fn read_known(&mut self, image: &[u8]) {
        let at = |id, extended| self.find(id, extended).map(|capability| usize::from(capability.offset));
        // Message control: log2 of the vectors in bits 3:1, of which 6 and 7 are reserved.
        let msi = at(CAP_MSI, false).and_then(|at| word(image, at + 2));
        let msi_vectors = msi.map(|control| 1 << (control >> 1 & 7).min(5));
        // Message control: the table's size less one in bits 10:0. Table: BAR in bits 2:0, offset above.
        let msix = at(CAP_MSIX, false).and_then(|at| Some((word(image, at + 2)?, double(image, at + 4)?)));
        let msix = msix.map(|(control, table)| Msix {
            vectors: (control & 0x7ff) + 1,
            table_bar: (table & 7) as u8,
            table_offset: table & !7,
        });
        // Device capabilities, bit 28.
        let express = at(CAP_EXPRESS, false).and_then(|at| double(image, at + 4));
        let serial =
            at(CAP_SERIAL, true).and_then(|at| Some((double(image, at + 4)?, double(image, at + 8)?)));
        self.function_level_reset = express.is_some_and(|capabilities| capabilities >> 28 & 1 != 0);
        self.serial_number = serial.map(|(low, high)| u64::from(high) << 32 | u64::from(low));
        (self.msi_vectors, self.msix) = (msi_vectors, msix);
    }
}

/// Follows a list from `first` on. `visit` gives the next offset, or nothing at the end. An offset outside `bounds` or one
/// that was visited before ends the walk: headers are aligned to 4, so there cannot be more of them than that.
fn walk(bounds: Range<usize>, first: usize, mut visit: impl FnMut(usize) -> Option<usize>) {
    let mut visited = [false; EXTENDED_LIST.end / 4];
    // The two low bits are reserved.
    let mut at = first & !3;
    while bounds.contains(&at) && !std::mem::replace(&mut visited[at / 4], true) {
        let Some(next) = visit(at) else { return };
        at = next & !3;
    }
}

fn byte(image: &[u8], at: usize) -> u8 {
    image.get(at).copied().unwrap_or_default()
}

fn word(image: &[u8], at: usize) -> Option<u16> {
    image.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn double(image: &[u8], at: usize) -> Option<u32> {
    image.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests;
