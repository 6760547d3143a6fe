//! What a card answers, as far as it has to. The fuzzer of the client starts from this too.

use super::wire::{self, Command, DeviceInfo, DmaUnmap, IrqInfo, RegionAccess, RegionInfo, Version};

/// Its configuration space: who it is, BAR 0, and 4 MSI-X vectors with their table in BAR 3.
fn config(at: u64) -> u8 {
    match at {
        0x00..0x0c => [0x86, 0x80, 0xfb, 0x10, 0, 0, 0x10, 0, 1, 0, 0, 2][at as usize],
        0x34 => 0x50,
        0x50..0x58 => [0x11, 0, 3, 0, 3, 0, 0, 0][at as usize - 0x50],
        _ => 0,
    }
}

/// The body of the right reply. A command whose body is too short has none.
pub(super) fn right(command: Command, body: &[u8]) -> Vec<u8> {
    answer(command, body).unwrap_or_default()
}

fn answer(command: Command, body: &[u8]) -> Result<Vec<u8>, wire::Malformed> {
    Ok(match command {
        Command::Version => {
            let version = Version { major: 0, minor: 1 };
            [version.encode().as_slice(), &wire::OWN_LIMITS.encode()].concat()
        }
        Command::DeviceGetInfo => {
            DeviceInfo { argsz: 16, flags: 3, regions: 9, interrupts: 5 }.encode().to_vec()
        }
        Command::DeviceGetRegionInfo => {
            let (ask, _) = RegionInfo::decode(body)?;
            let size = if ask.index == wire::CONFIG_REGION { 256 } else { 0x1000 };
            RegionInfo { argsz: 32, flags: 3, cap_offset: 0, size, ..ask }.encode().to_vec()
        }
        Command::DeviceGetIrqInfo => {
            let (ask, _) = IrqInfo::decode(body)?;
            IrqInfo { flags: 1, count: 4, ..ask }.encode().to_vec()
        }
        Command::RegionRead => {
            let (access, _) = RegionAccess::decode(body)?;
            let byte = |at| if access.region == wire::CONFIG_REGION { config(at) } else { 0x5a };
            let data: Vec<u8> = (access.offset..).take(access.count as usize).map(byte).collect();
            [access.encode().as_slice(), &data].concat()
        }
        Command::RegionWrite => RegionAccess::decode(body)?.0.encode().to_vec(),
        Command::DmaUnmap => DmaUnmap::decode(body)?.0.encode().to_vec(),
        _ => Vec::new(),
    })
}
