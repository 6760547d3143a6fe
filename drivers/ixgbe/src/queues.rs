//! Queues as the card knows them (sections 4.6.7 and 4.6.8).

use std::thread::sleep;
use std::time::Duration;

use pagewire_ethdev::Error;
use pagewire_ethdev::nic::{Device, Register, RxSetup, TxSetup};

use crate::family::Family;
use crate::interrupts;
use crate::registers::*;

/// Where a receive queue's registers are: the card's own, or a virtual function's.
pub(crate) struct RxBlock {
    /// Base low and high, length, head, tail.
    pub(crate) ring: [Register; 5],
    pub(crate) buffers: Register,
    pub(crate) control: Register,
    pub(crate) attributes: Register,
    /// What is read to have writes arrive.
    pub(crate) push: Register,
}

/// The same for transmit.
pub(crate) struct TxBlock {
    pub(crate) ring: [Register; 5],
    pub(crate) control: Register,
    pub(crate) attributes: Register,
    pub(crate) push: Register,
}

/// The card's own.
const RECEIVE: RxBlock = RxBlock {
    ring: [RDBAL, RDBAH, RDLEN, RDH, RDT],
    buffers: SRRCTL,
    control: RXDCTL,
    attributes: DCA_RXCTRL,
    push: STATUS,
};
const RECEIVE_64: RxBlock = RxBlock {
    ring: [RDBAL_64, RDBAH_64, RDLEN_64, RDH_64, RDT_64],
    buffers: SRRCTL_64,
    control: RXDCTL_64,
    attributes: DCA_RXCTRL_64,
    push: STATUS,
};
const TRANSMIT: TxBlock =
    TxBlock { ring: [TDBAL, TDBAH, TDLEN, TDH, TDT], control: TXDCTL, attributes: DCA_TXCTRL, push: STATUS };

/// How long a queue may take to be enabled, and the receive path to run dry.
const MILLIS: u64 = 100;
/// Unit of SRRCTL's buffer size, and the most of them.
pub(crate) const KIB: usize = 1024;
const MOST_KIB: usize = 16;
/// Unit of SRRCTL's header buffer size, the most it may be, and the least into which the headers of TCP over IPv6 fit.
const HEADER_UNIT: usize = 64;
const MOST_HEADER: usize = 1024;
const LEAST_HEADER: usize = 128;
/// What a tagged frame may be longer by than MAXFRS.
const VLAN_TAG: usize = 4;
/// Longest frame without frame check sequence, with tag, that comes in without jumbo enable whatever MAXFRS says.
const LONGEST_STANDARD: usize = 1518;

/// Bytes that the card may be allowed to write into a buffer with `room` bytes.
///
/// It counts in KiB. Where the longest that its MAC lets in fits it may be promised the next KiB in full, for it writes no more than the
/// frame: if all frames come by the MAC.
pub(crate) fn receive_buffer(room: usize, frame: usize) -> Option<usize> {
    let frame = if frame <= LONGEST_STANDARD { LONGEST_STANDARD } else { frame + VLAN_TAG };
    match room {
        _ if frame <= room && frame <= MOST_KIB * KIB => Some(frame),
        _ => whole_buffer(room),
    }
}

/// The same where nobody knows what the longest is.
pub(crate) fn whole_buffer(room: usize) -> Option<usize> {
    (room >= KIB).then_some((room / KIB * KIB).min(MOST_KIB * KIB))
}

/// Bytes that the card may be allowed to write into a header buffer with `room` bytes. It counts in 64 bytes, up to 1,024.
pub(crate) fn header_buffer(room: usize) -> Option<usize> {
    let bytes = room.min(MOST_HEADER) / HEADER_UNIT * HEADER_UNIT;
    (bytes >= LEAST_HEADER).then_some(bytes)
}

impl RxBlock {
    /// 4.6.7, for each queue. `drop` if others must not wait for it.
    pub(crate) fn start(
        &self,
        device: &Device,
        setup: RxSetup,
        drop: bool,
        strip_vlan: bool,
    ) -> Result<(), Error> {
        let (registers, queue) = (&device.registers, setup.queue);
        registers.modify_at(self.attributes, queue, DCA_RXCTRL_CLEAR, 0);
        registers.hand_ring(self.ring, queue, setup.iova, setup.bytes);
        let kib = setup.buffer.div_ceil(KIB).min(MOST_KIB) as u32;
        let drop = if drop { srrctl::DROP_EN } else { 0 };
        let kind = match setup.header {
            0 => srrctl::BSIZEHEADER_256 | srrctl::ADVANCED,
            bytes => ((bytes / HEADER_UNIT) as u32) << srrctl::BSIZEHEADER_SHIFT | srrctl::HEADER_SPLIT,
        };
        registers.write_at(self.buffers, queue, kib | kind | drop);
        let strip = if strip_vlan { rxdctl::VME } else { 0 };
        registers.write_at(self.control, queue, rxdctl::ENABLE | strip);
        let enabled = |value| value & rxdctl::ENABLE != 0;
        device.wait_at("enabling a receive queue", self.control, queue, MILLIS, enabled)
    }

    /// 4.6.7.1.2, after its first step, which leads frames elsewhere. What still comes is dropped.
    pub(crate) fn stop(&self, device: &Device, queue: usize) -> Result<(), Error> {
        device.registers.modify_at(self.control, queue, rxdctl::ENABLE, 0);
        device.registers.read(self.push);
        let stopped = |value| value & rxdctl::ENABLE == 0;
        device.wait_at("stopping a receive queue", self.control, queue, MILLIS, stopped)?;
        // What the datasheet gives writes under way.
        sleep(Duration::from_micros(100));
        Ok(())
    }
}

impl TxBlock {
    /// 4.6.8, for each queue. Its thresholds count descriptors; write-back has none, since not every descriptor is to be reported
    /// (7.2.3.5.1).
    pub(crate) fn start(&self, device: &Device, setup: TxSetup) -> Result<(), Error> {
        let (registers, queue) = (&device.registers, setup.queue);
        registers.modify_at(self.attributes, queue, DCA_TXCTRL_CLEAR, 0);
        registers.hand_ring(self.ring, queue, setup.iova, setup.bytes);
        let thresholds = txdctl::PTHRESH_32 | txdctl::HTHRESH_1;
        registers.write_at(self.control, queue, thresholds);
        registers.write_at(self.control, queue, thresholds | txdctl::ENABLE);
        let enabled = |value| value & txdctl::ENABLE != 0;
        device.wait_at("enabling a transmit queue", self.control, queue, MILLIS, enabled)
    }

    /// 4.6.8.1, after its first steps: all descriptors have been written back, or will never be, the link being down for one. The bit
    /// is cleared only when all the queue's activity has ended.
    pub(crate) fn stop(&self, device: &Device, queue: usize) -> Result<(), Error> {
        device.registers.modify_at(self.control, queue, txdctl::ENABLE, 0);
        device.registers.read(self.push);
        let stopped = |value| value & txdctl::ENABLE == 0;
        device.wait_at("stopping a transmit queue", self.control, queue, MILLIS, stopped)
    }
}

/// Where a queue's registers are, and its number there.
fn receive_block(queue: usize) -> (&'static RxBlock, usize) {
    match queue.checked_sub(RDT.count) {
        None => (&RECEIVE, queue),
        Some(queue) => (&RECEIVE_64, queue),
    }
}

/// The same of the register that says how it coalesces.
fn coalescing(queue: usize) -> (Register, usize) {
    match queue.checked_sub(RSCCTL.count) {
        None => (RSCCTL, queue),
        Some(queue) => (RSCCTL_64, queue),
    }
}

/// The tail of a queue of the card's own.
pub(crate) fn receive_tail(queue: usize) -> (Register, usize) {
    let (block, queue) = receive_block(queue);
    (block.ring[4], queue)
}

/// A queue of the card's own, and the vector that it is to raise if it has interrupts.
pub(crate) fn start_receive(
    device: &Device,
    setup: RxSetup,
    vector: usize,
    drop: bool,
    strip_vlan: bool,
) -> Result<(), Error> {
    coalesce(device, setup);
    interrupts::set_up_queue(device, &setup, vector);
    let (block, queue) = receive_block(setup.queue);
    block.start(device, RxSetup { queue, ..setup }, drop, strip_vlan)
}

/// A queue of the card's own.
pub(crate) fn start_transmit(device: &Device, setup: TxSetup) -> Result<(), Error> {
    let registers = &device.registers;
    // 4.6.11: no rate limit.
    registers.write(RTTDQSEL, setup.queue as u32);
    registers.write(RTTBCNRC, 0);
    registers.modify(DMATXCTL, 0, DMATXCTL_TE);
    TRANSMIT.start(device, setup)
}

/// A queue of the card's own.
pub(crate) fn stop_receive(device: &Device, queue: usize) -> Result<(), Error> {
    let (registers, (coalescing, index)) = (&device.registers, coalescing(queue));
    if registers.read_at(coalescing, index) & RSCCTL_RSCEN != 0 {
        // 4.6.7.2: no packet begins to be coalesced, and within two intervals those that have begun end.
        registers.modify_at(coalescing, index, RSCCTL_RSCEN, 0);
        registers.read(RECEIVE.push);
        sleep(2 * interrupts::interval(device, queue));
    }
    let (block, queue) = receive_block(queue);
    block.stop(device, queue)
}

/// A queue of the card's own.
pub(crate) fn stop_transmit(device: &Device, queue: usize) -> Result<(), Error> {
    TRANSMIT.stop(device, queue)
}

/// Most descriptors of a coalesced packet: all buffers together stay below 64 KiB (8.2.3.8.13).
pub(crate) fn coalesced(buffer: usize) -> u16 {
    let fits = |most: &u16| usize::from(*most) * buffer.div_ceil(KIB) * KIB < 64 * KIB;
    RSCCTL_MAXDESC.map(|(most, _)| most).into_iter().find(fits).unwrap_or(1)
}

/// 4.6.7.2: coalescing, for each queue.
fn coalesce(device: &Device, setup: RxSetup) {
    let (registers, (coalescing, index)) = (&device.registers, coalescing(setup.queue));
    let Some((_, most)) = RSCCTL_MAXDESC.into_iter().find(|(most, _)| *most == setup.coalesced) else {
        registers.write_at(coalescing, index, 0);
        return;
    };
    registers.write_at(coalescing, index, RSCCTL_RSCEN | most);
}

/// 4.6.7, last step: let frames in, while none is half way through the security block, where there is one.
pub(crate) fn enable_receive(device: &Device) {
    let registers = &device.registers;
    if !Family::of(device).security {
        registers.modify(RXCTRL, 0, RXCTRL_RXEN);
        return;
    }
    registers.modify(SECRXCTRL, 0, SECRXCTRL_RX_DIS);
    let dry = device.wait("emptying the receive path", SECRXSTAT, MILLIS, |value| value & SECRXSTAT_RDY != 0);
    if let Err(error) = dry {
        log::warn!("{error}; going on, as the kernel's driver does");
    }
    registers.modify(RXCTRL, 0, RXCTRL_RXEN);
    registers.modify(SECRXCTRL, SECRXCTRL_RX_DIS, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_never_promised_more_than_can_be_written_to_them() {
        for (room, frame, expected) in [
            // A standard frame fits, though 2,048 bytes would not.
            (1920, 1518, Some(1518)),
            (2048, 1518, Some(1518)),
            // A short MTU does not keep longer frames off.
            (1024, 86, Some(1024)),
            (1517, 1518, Some(1024)),
            // Jumbo frames, whole or in parts.
            (16384, 9018, Some(9022)),
            (9022, 9018, Some(9022)),
            (9021, 9018, Some(8192)),
            (1920, 9018, Some(1024)),
            (65536, 9018, Some(9022)),
            (20000, 30000, Some(16384)),
            (1023, 1518, None),
            (0, 0, None),
        ] {
            let buffer = receive_buffer(room, frame);
            assert_eq!(buffer, expected, "{frame} bytes of frame into {room}");
            assert!(buffer.is_none_or(|bytes| bytes <= room && bytes.div_ceil(KIB) <= MOST_KIB));
        }
    }
}
