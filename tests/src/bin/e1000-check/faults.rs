//! A card that reaches for memory it was not given: the IOMMU stops it, and only it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use pagewire_ethdev::{DescriptorRing, MacAddr};
use pagewire_pci::{AddressSpace, Bar, Function};

use crate::pair::{Options, Pair, frame};
use crate::{Cards, Case};

pub(crate) const CASES: &[Case] = &[("the-iommu-stops-stray-dma", stray_dma)];

// The window is above 64 GiB, so nothing is ever mapped at these addresses. The host's half of the test knows them.
const READ: u64 = 0xbad0_1000;
const WRITE: u64 = 0xbad0_2000;
const RING: u64 = 0xbad0_3000;

const CTRL: usize = 0;
const RCTL: usize = 0x100;
const RECEIVE: usize = 0x2800;
const TCTL: usize = 0x400;
const TRANSMIT: usize = 0x3800;

/// The third card, driven by hand in the same address space as the other two.
struct Stray {
    function: Function,
    registers: Bar,
    // Freed last.
    _ring: Vec<DescriptorRing<()>>,
}

impl Stray {
    /// Opened and reset.
    fn open(space: &AddressSpace, cards: &Cards) -> Result<Stray> {
        let function = space.open(cards.c)?;
        let registers = function.bar(0)?;
        registers.write32(CTRL, registers.read32(CTRL) | 1 << 26);
        sleep(Duration::from_millis(20));
        // Set link up.
        registers.write32(CTRL, registers.read32(CTRL) | 1 << 6);
        Ok(Stray { function, registers, _ring: Vec::new() })
    }

    /// Gives it a ring of legacy descriptors at `iova`, the registers of which are at `base`.
    fn set_ring(&self, base: usize, iova: u64) {
        self.registers.write32(base, iova as u32);
        self.registers.write32(base + 4, (iova >> 32) as u32);
        self.registers.write32(base + 8, 64 * 16);
        self.registers.write32(base + 0x10, 0);
        self.registers.write32(base + 0x18, 0);
    }

    /// The same with a ring that it may read, whose every descriptor points to `target`.
    fn aim(&mut self, space: &AddressSpace, base: usize, target: u64, command: u64) -> Result<()> {
        let mut ring = DescriptorRing::new(space, vec![(); 64])?;
        for index in 0..64 {
            ring.view().write(index, [target, command]);
        }
        self.set_ring(base, ring.iova());
        self._ring.push(ring);
        Ok(())
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        // Reset before its rings go.
        self.registers.write32(CTRL, self.registers.read32(CTRL) | 1 << 26);
        if let Err(error) = self.function.set_bus_master(false) {
            println!("{error}");
        }
    }
}

fn stray_dma(cards: &Cards) -> Result<()> {
    // Not promiscuous: QEMU's card sends zeros in place of what it may not read.
    let exact = Options { promiscuous: false, ..Options::default() };
    let mut pair = Pair::new(cards, &exact)?;
    let mut number = 0;
    let mut works = |pair: &mut Pair| -> Result<()> {
        for _ in 0..200 {
            number += 1;
            let (there, back) = (
                frame(pair.b.mac(), pair.a.mac(), 100, number),
                frame(pair.a.mac(), pair.b.mac(), 1000, number),
            );
            pair.a.send_frame(&there)?;
            pair.b.expect(&there)?;
            pair.b.send_frame(&back)?;
            pair.a.expect(&back)?;
        }
        Ok(())
    };
    works(&mut pair)?;

    let mut stray = Stray::open(&pair.space, cards)?;
    stray.function.set_bus_master(true)?;
    // A frame of 100 bytes at READ: end of packet, append checksum, report.
    stray.aim(&pair.space, TRANSMIT, READ, 100 | 0b1011 << 24)?;
    stray.registers.write32(TCTL, 1 << 1);
    stray.registers.write32(TRANSMIT + 0x18, 1);
    sleep(Duration::from_millis(100));
    works(&mut pair)?;

    // The next frame on the hub goes to WRITE. Promiscuous, so that any does.
    stray.aim(&pair.space, RECEIVE, WRITE, 0)?;
    stray.registers.write32(RCTL, 1 << 1 | 1 << 3 | 1 << 4 | 1 << 15);
    stray.registers.write32(RECEIVE + 0x18, 1);
    let sent = frame(MacAddr::BROADCAST, pair.a.mac(), 100, 1);
    pair.a.send_frame(&sent)?;
    pair.b.expect(&sent)?;
    sleep(Duration::from_millis(100));
    stray.registers.write32(RCTL, 0);
    works(&mut pair)?;

    // Not even its descriptors are its own.
    stray.set_ring(TRANSMIT, RING);
    stray.registers.write32(TRANSMIT + 0x18, 1);
    sleep(Duration::from_millis(100));
    works(&mut pair)?;

    drop(stray);
    works(&mut pair)?;
    let (a, b) = (pair.a.xstat("rx_good_packets")?, pair.b.xstat("rx_good_packets")?);
    ensure!((a, b) == (1000, 1001), "A received {a} frames and B {b}: a frame came out of nowhere");
    pair.stop()
}
