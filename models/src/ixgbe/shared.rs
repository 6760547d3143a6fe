//! Doorbells in shared memory: the pages with the queues' registers, mapped by the driver.
//!
//! The driver may store to any register there without the card noticing. Tails are looked at in every poll, the rest of a
//! queue's block now and then, and when receive is switched on: when its control register (or SRRCTL, or RSCCTL) is not what it was,
//! the whole block is taken over.
//!
//! The pages also have the receive queues' statistics (QPRC, QBRC, QPRDC). Reading them clears them, which goes unnoticed in
//! memory: drivers that add up what they read would count everything again and again. So they read 0 there, and a driver that
//! wants them asks by message, page or no page. All other statistics are elsewhere.

use super::Ixgbe;
use super::ring::{CONTROL, HEAD, LEN, TAIL};
use super::table::*;
use crate::function::{Area, Host, Region};

/// The pages.
pub(super) const AREAS: [Area; 3] = [
    Area { offset: 0x1000, size: 0x1000 },
    Area { offset: 0x6000, size: 0x2000 },
    Area { offset: 0xd000, size: 0x1000 },
];

const BAR: Region = Region::Bar(0);
/// Control registers, and receive queues' SRRCTL and RSCCTL, which drivers change while the queue runs, are compared once in so many
/// polls.
const SCAN: u32 = 64;
const SPLIT: u32 = 0x14;
const COALESCE: u32 = 0x2c;
/// Registers of a block that a driver sets up: the buffer sizes (receive) or head write-back (transmit) among them.
const FIELDS: [u32; 10] = [0x00, 0x04, LEN, 0x0c, HEAD, SPLIT, TAIL, COALESCE, 0x38, 0x3c];

/// Whether a queue register is a tail.
pub(super) fn is_tail(offset: u32) -> bool {
    offset % 0x40 == TAIL
}

fn blocks() -> impl Iterator<Item = u32> {
    (0..64)
        .map(|n| RDBAL + 0x40 * n)
        .chain((0..64).map(|n| RDBAL_64 + 0x40 * n))
        .chain((0..128).map(|n| TDBAL + 0x40 * n))
}

/// Fields of a block that are its queue's registers: 0x38 and 0x3c are only a transmit queue's, 0x14 and 0x2c a receive queue's.
fn fields(block: u32) -> impl Iterator<Item = u32> {
    let transmit = (TDBAL..RDBAL_64).contains(&block);
    FIELDS.into_iter().filter(move |&field| match field {
        SPLIT | COALESCE => !transmit,
        0x38 | 0x3c => transmit,
        _ => true,
    })
}

fn bits(mut set: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(bit)
    })
}

impl Ixgbe {
    /// A trapped write to a queue's register: the shared page has it too.
    pub(super) fn share(&self, offset: u32, host: &mut dyn Host) {
        if self.config.mapped {
            host.shared_write(BAR, offset as u64, self.registers.get(offset));
        }
    }

    /// After a reset: all blocks as they are.
    pub(super) fn share_all(&self, host: &mut dyn Host) {
        if !self.config.mapped {
            return;
        }
        for block in blocks() {
            for field in fields(block).chain([CONTROL]) {
                host.shared_write(BAR, (block + field) as u64, self.registers.get(block + field));
            }
        }
    }

    /// Take over tails, and now and then whole blocks that have changed.
    pub(super) fn look_at_shared(&mut self, host: &mut dyn Host) {
        self.polls = self.polls.wrapping_add(1);
        if self.polls % SCAN == 1 {
            self.scan(host);
        }
        for queue in bits(self.receive.enabled()) {
            let ring = self.receive.ring(queue);
            let tail = host.shared_read(BAR, (ring.block + TAIL) as u64);
            if tail != ring.tail() {
                ring.set_tail(tail);
                let offset = ring.block + TAIL;
                self.registers.set(offset, tail);
            }
        }
        for queue in bits(self.transmit.enabled()) {
            let ring = self.transmit.ring(queue);
            let tail = host.shared_read(BAR, (ring.block + TAIL) as u64);
            if tail != ring.tail() {
                ring.set_tail(tail);
                let offset = ring.block + TAIL;
                self.registers.set(offset, tail);
            }
        }
    }

    /// Take over the blocks that have changed.
    pub(super) fn scan(&mut self, host: &mut dyn Host) {
        for block in blocks() {
            let transmit = (TDBAL..RDBAL_64).contains(&block);
            let mut same =
                |field| host.shared_read(BAR, (block + field) as u64) == self.registers.get(block + field);
            if same(CONTROL) && (transmit || same(SPLIT) && same(COALESCE)) {
                continue;
            }
            let control = host.shared_read(BAR, (block + CONTROL) as u64);
            for field in fields(block) {
                let value = host.shared_read(BAR, (block + field) as u64);
                self.registers.set(block + field, value);
            }
            self.registers.set(block + CONTROL, control);
            if transmit {
                self.transmit.written(&self.registers, block + CONTROL);
            } else {
                self.receive.written(&self.registers, &self.control, block + CONTROL);
            }
        }
    }

    /// Put the heads where the driver sees them.
    pub(super) fn show_heads(&mut self, host: &mut dyn Host) {
        for queue in bits(self.receive.take_touched()) {
            let ring = self.receive.ring(queue);
            host.shared_write(BAR, (ring.block + HEAD) as u64, ring.head());
        }
        for queue in bits(self.transmit.take_touched()) {
            let ring = self.transmit.ring(queue);
            host.shared_write(BAR, (ring.block + HEAD) as u64, ring.head());
        }
    }
}
