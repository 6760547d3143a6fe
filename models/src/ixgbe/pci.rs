//! The configuration space (82599 datasheet chapter 9).

use super::msix;

/// Bytes of the extended configuration space.
pub(super) const SIZE: usize = 4096;

/// What tells one function of the family from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// PCI device.
    pub(super) device: u16,
    /// Bytes of BAR 0, which has the registers.
    pub(super) registers: u32,
    /// Which BAR holds the MSI-X table.
    pub(super) msix_bar: u8,
    /// Serial number; a virtual function has none of its own.
    pub(super) serial: Option<u64>,
}

const COMMAND: usize = 0x04;
const BUS_MASTER: u8 = 1 << 2;
const BARS: usize = 0x10;
const POWER: usize = 0x40;
const MSI: usize = 0x50;
const MSIX: usize = 0x70;
const PCIE: usize = 0xa0;
const AER: usize = 0x100;
const SERIAL: usize = 0x140;
/// Device Control's function-level reset bit, in the register's second byte.
const FLR: u8 = 1 << 7;

/// The configuration space's bytes, and which of their bits a driver may change.
#[derive(Debug)]
pub(super) struct ConfigSpace {
    bytes: Box<[u8]>,
    initial: Box<[u8]>,
    writable: Box<[u8]>,
    clearable: Box<[u8]>,
}

/// What a write to the configuration space asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Function-level reset.
    pub(super) reset: bool,
}

impl ConfigSpace {
    /// The configuration space of a function with this many MSI-X vectors.
    pub(super) fn new(identity: Identity, vectors: u16) -> Self {
        let mut c = Self {
            bytes: vec![0; SIZE].into(),
            initial: vec![0; SIZE].into(),
            writable: vec![0; SIZE].into(),
            clearable: vec![0; SIZE].into(),
        };
        c.put16(0x00, 0x8086);
        c.put16(0x02, identity.device);
        c.put16(COMMAND, 0);
        c.writable16(COMMAND, 0x0547);
        c.put16(0x06, 0x0010);
        c.clearable[0x07] = 0xf9;
        c.put32(0x08, 0x0200_0001);
        c.bytes[0x0c] = 0x10;
        c.writable[0x0c] = 0xff;
        c.bar64(0, identity.registers);
        c.bar64(identity.msix_bar as usize, msix::SIZE);
        c.put16(0x2c, 0x8086);
        c.put16(0x2e, 0x0003);
        c.bytes[0x34] = POWER as u8;
        c.writable[0x3c] = 0xff;
        c.bytes[0x3d] = 1;
        // Power management 3: D0 and D3hot, no soft reset.
        c.put16(POWER, (MSI as u16) << 8 | 0x01);
        c.put16(POWER + 2, 0x0003);
        c.put16(POWER + 4, 0x0008);
        c.writable16(POWER + 4, 0x0003);
        // MSI: one vector, 64-bit, maskable.
        c.put16(MSI, (MSIX as u16) << 8 | 0x05);
        c.put16(MSI + 2, 0x0180);
        c.writable16(MSI + 2, 0x0071);
        for at in MSI + 4..MSI + 14 {
            c.writable[at] = 0xff;
        }
        c.writable[MSI + 4] = 0xfc;
        c.writable[MSI + 16] = 1;
        // MSI-X.
        c.put16(MSIX, (PCIE as u16) << 8 | 0x11);
        c.put16(MSIX + 2, vectors - 1);
        c.writable16(MSIX + 2, 0xc000);
        c.put32(MSIX + 4, identity.msix_bar as u32);
        c.put32(MSIX + 8, msix::PENDING | identity.msix_bar as u32);
        // PCIe 2 endpoint: 512-byte payloads, function-level reset, 5 GT/s x8.
        c.put16(PCIE, 0x0010);
        c.put16(PCIE + 2, 0x0002);
        c.put32(PCIE + 4, 0x1000_8cc2);
        c.put16(PCIE + 8, 0x2810);
        c.writable16(PCIE + 8, 0x7fff);
        c.clearable[PCIE + 10] = 0x0f;
        c.put32(PCIE + 12, 0x0003_6c82);
        c.writable16(PCIE + 16, 0x00fb);
        c.put16(PCIE + 18, 0x1082);
        c.put32(PCIE + 0x24, 0x0000_001f);
        c.writable16(PCIE + 0x28, 0x001f);
        c.put16(PCIE + 0x30, 0x0002);
        c.writable16(PCIE + 0x30, 0x000f);
        // Advanced error reporting: its registers, no errors.
        let next = if identity.serial.is_some() { SERIAL as u32 } else { 0 };
        c.put32(AER, next << 20 | 0x1_0001);
        c.put32(AER + 12, 0x0006_2030);
        c.put32(AER + 20, 0x0000_2000);
        for at in [AER + 8, AER + 12, AER + 20] {
            c.writable[at..at + 4].fill(0xff);
        }
        // Serial number: ends the list.
        if let Some(serial) = identity.serial {
            c.put32(SERIAL, 0x1_0003);
            c.put32(SERIAL + 4, serial as u32);
            c.put32(SERIAL + 8, (serial >> 32) as u32);
        }
        c.initial.copy_from_slice(&c.bytes);
        c
    }

    fn put16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn writable16(&mut self, at: usize, mask: u16) {
        self.writable[at..at + 2].copy_from_slice(&mask.to_le_bytes());
    }

    /// A 64-bit memory BAR. Not prefetchable: reads have effects.
    fn bar64(&mut self, n: usize, size: u32) {
        let at = BARS + 4 * n;
        self.bytes[at] = 0x04;
        self.writable[at..at + 4].copy_from_slice(&(!(size - 1)).to_le_bytes());
        self.writable[at + 4..at + 8].fill(0xff);
    }

    /// Whether the function may reach memory and send interrupts: Bus Master Enable, and power state D0.
    #[inline]
    pub(super) fn bus_master(&self) -> bool {
        self.bytes[COMMAND] & BUS_MASTER != 0 && self.bytes[POWER + 4] & 3 == 0
    }

    /// Everything as after power-up.
    pub(super) fn reset(&mut self) {
        self.bytes.copy_from_slice(&self.initial);
    }

    /// Read; all ones past the end.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        for (n, byte) in data.iter_mut().enumerate() {
            let at = offset.saturating_add(n as u64);
            *byte = usize::try_from(at).ok().and_then(|at| self.bytes.get(at)).copied().unwrap_or(0xff);
        }
    }

    /// Write.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Effects {
        let mut effects = Effects::default();
        for (n, &byte) in data.iter().enumerate() {
            let Ok(at) = usize::try_from(offset.saturating_add(n as u64)) else { break };
            if at >= SIZE {
                break;
            }
            let mask = self.writable[at];
            self.bytes[at] = (self.bytes[at] & !mask | byte & mask) & !(byte & self.clearable[at]);
            effects.reset |= at == PCIE + 9 && byte & FLR != 0;
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(serial: u64) -> ConfigSpace {
        let registers = super::super::BAR_SIZE;
        ConfigSpace::new(Identity { device: 0x10fb, registers, msix_bar: 4, serial: Some(serial) }, 64)
    }

    fn read32(config: &ConfigSpace, at: u64) -> u32 {
        let mut word = [0; 4];
        config.read(at, &mut word);
        u32::from_le_bytes(word)
    }

    #[test]
    fn is_an_82599_with_its_capabilities_in_a_list() {
        let config = card(0x1122_3344_5566_7788);
        assert_eq!(read32(&config, 0), 0x10fb_8086);
        let mut at = read32(&config, 0x34) & 0xff;
        let mut ids = Vec::new();
        while at != 0 {
            let header = read32(&config, at as u64);
            ids.push(header & 0xff);
            at = header >> 8 & 0xff;
        }
        assert_eq!(ids, [0x01, 0x05, 0x11, 0x10]);
        assert_eq!(read32(&config, MSIX as u64) >> 16, 63);
        assert_eq!(read32(&config, SERIAL as u64) & 0xffff, 3);
        assert_eq!(read32(&config, SERIAL as u64 + 4), 0x5566_7788);
    }

    #[test]
    fn bars_tell_their_size() {
        let mut config = card(0);
        for (n, size) in [(0u64, 128u32 << 10), (4, 16 << 10)] {
            config.write(0x10 + 4 * n, &u32::MAX.to_le_bytes());
            let bar = read32(&config, 0x10 + 4 * n);
            assert_eq!((bar & 0xf, !(bar & !0xf) + 1), (4, size));
        }
        config.write(0x18, &u32::MAX.to_le_bytes());
        assert_eq!(read32(&config, 0x18), 0);
    }

    #[test]
    fn bus_master_needs_its_bit_and_d0() {
        let mut config = card(0);
        assert!(!config.bus_master());
        config.write(COMMAND as u64, &0x0406u16.to_le_bytes());
        assert!(config.bus_master());
        config.write(POWER as u64 + 4, &[3]);
        assert!(!config.bus_master());
        assert!(config.write(PCIE as u64 + 8, &0xa810u16.to_le_bytes()).reset);
        config.write(u64::MAX, &[0; 8]);
        let mut past = [0; 8];
        config.read(SIZE as u64 - 4, &mut past);
        assert_eq!(past[4..], [0xff; 4]);
    }
}
