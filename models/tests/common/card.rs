//! A card of a few registers.

use pagewire_models::{Area, Function, Host, Region, RegionInfo};

/// Registers of BAR 0. Its second page is mappable.
pub(crate) const SCRATCH: usize = 0x00;
pub(crate) const IOVA: usize = 0x08;
pub(crate) const LEN: usize = 0x10;
/// Writing 1 copies `LEN` bytes from `IOVA` to just behind them, each byte plus one.
pub(crate) const ECHO: usize = 0x14;
/// DMA that went well, and DMA that was refused.
pub(crate) const DONE: usize = 0x18;
pub(crate) const REFUSED: usize = 0x1c;
/// Writing raises the vector written.
pub(crate) const RAISE: usize = 0x20;
/// How often the card was reset.
pub(crate) const RESETS: usize = 0x24;
/// What is stored here, plus one, appears in `ANSWER`.
pub(crate) const DOORBELL: usize = 0x1000;
pub(crate) const ANSWER: usize = 0x1004;
/// Writing sets it, in a page that is never mapped.
pub(crate) const FAR: usize = 0x3ffc;

pub(crate) const BAR0: u64 = 0x4000;

pub(crate) struct Card {
    config: [u8; 256],
    registers: [u32; 16],
    far: u32,
    seen: u32,
    resets: u32,
}

impl Card {
    pub(crate) fn new() -> Card {
        let mut config = [0; 256];
        config[..4].copy_from_slice(&[0x86, 0x80, 0xfb, 0x10]);
        // A list of capabilities; an Ethernet controller of revision 1.
        config[6] = 0x10;
        config[8..12].copy_from_slice(&[1, 0, 0, 2]);
        config[0x2c..0x30].copy_from_slice(&[0x34, 0x12, 0x78, 0x56]);
        (config[0x34], config[0x3d]) = (0x50, 1);
        // MSI-X: 20 vectors, their table at the start of BAR 3.
        config[0x50..0x58].copy_from_slice(&[0x11, 0, 19, 0, 3, 0, 0, 0]);
        Card { config, registers: [0; 16], far: 0, seen: 0, resets: 0 }
    }

    fn echo(&mut self, host: &mut dyn Host) {
        let iova = u64::from(self.registers[IOVA / 4]) | u64::from(self.registers[IOVA / 4 + 1]) << 32;
        let mut data = vec![0; self.registers[LEN / 4].min(1 << 20) as usize];
        let done = host.dma_read(iova, &mut data).and_then(|()| {
            data.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
            host.dma_write(iova + data.len() as u64, &data)
        });
        let counter = if done.is_ok() { DONE } else { REFUSED };
        self.registers[counter / 4] += 1;
    }
}

impl Function for Card {
    fn region(&self, region: Region) -> RegionInfo {
        let (size, mappable) = match region {
            Region::Bar(0) => (BAR0, vec![Area { offset: 0x1000, size: 0x1000 }]),
            Region::Bar(3) => (0x1000, Vec::new()),
            Region::Config => (256, Vec::new()),
            Region::Bar(_) => (0, Vec::new()),
        };
        RegionInfo { size, mappable }
    }

    fn vectors(&self) -> u16 {
        20
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8], host: &mut dyn Host) {
        let offset = offset as usize;
        let value = match (region, offset) {
            (Region::Config, _) => {
                return data.copy_from_slice(&self.config[offset..offset + data.len()]);
            }
            (Region::Bar(0), RESETS) => self.resets,
            (Region::Bar(0), ..0x40) => self.registers[offset / 4],
            (Region::Bar(0), FAR) => self.far,
            (Region::Bar(0), 0x1000..0x2000) => host.shared_read(region, offset as u64),
            _ => 0,
        };
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8], host: &mut dyn Host) {
        let offset = offset as usize;
        let mut word = [0; 4];
        word.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        let value = u32::from_le_bytes(word);
        match (region, offset) {
            // Command and the BARs.
            (Region::Config, 4..6 | 0x10..0x28) => {
                self.config[offset..offset + data.len()].copy_from_slice(data)
            }
            (Region::Bar(0), ECHO) => self.echo(host),
            (Region::Bar(0), RAISE) => host.interrupt(value as u16),
            (Region::Bar(0), ..0x40) => self.registers[offset / 4] = value,
            (Region::Bar(0), FAR) => self.far = value,
            _ => {}
        }
    }

    fn reset(&mut self, host: &mut dyn Host) {
        *self = Card { resets: self.resets + 1, ..Card::new() };
        host.shared_write(Region::Bar(0), ANSWER as u64, 0);
        host.shared_write(Region::Bar(0), DOORBELL as u64, 0);
    }

    fn poll(&mut self, host: &mut dyn Host) -> bool {
        let rung = host.shared_read(Region::Bar(0), DOORBELL as u64);
        let news = rung != self.seen;
        if news {
            self.seen = rung;
            host.shared_write(Region::Bar(0), ANSWER as u64, rung.wrapping_add(1));
        }
        news
    }
}
