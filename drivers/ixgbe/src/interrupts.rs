//! Interrupts (7.3): a vector for each receive queue, the queue's number, and one for all else. By MSI-X alone; without vectors of queues
//! there is the last only.

use std::time::Duration;

use pagewire_ethdev::nic::{Device, RxSetup};
use pagewire_ethdev::{Error, PortEvents};

use crate::family::{Family, Media};
use crate::registers::*;

/// Unit of EITR's interval (8.2.3.5.12), and the most of them that its nine bits hold.
const UNIT: Duration = Duration::from_nanos(2048);
const MOST_UNITS: u32 = 0x1ff;
/// Longest time from one interrupt of a queue to the next.
pub(crate) const LONGEST_INTERVAL: Duration = UNIT.saturating_mul(MOST_UNITS);
/// How long a coalesced packet may wait for another segment, unless interrupts are asked for, at intervals that can be counted.
const COALESCE: Duration = Duration::from_micros(50);

/// What can happen that is no queue's; pin 2 only where there is a cage.
const EVENTS: [(u32, PortEvents); 4] = [
    (cause::LINK, PortEvents::LINK),
    (cause::MODULE, PortEvents::LINK),
    (cause::PCI_EXCEPTION, PortEvents::DMA_ERROR),
    (cause::ECC, PortEvents::MEMORY_ERROR),
];

fn event_causes(device: &Device) -> u32 {
    let all = EVENTS.iter().fold(0, |all, (cause, _)| all | cause);
    if has_cage(device) { all } else { all & !cause::MODULE }
}

/// Whose pin 2 says that there is a module. The later cards have other bits for their pins, and nothing at them that is ours.
fn has_cage(device: &Device) -> bool {
    Family::of(device).media == Media::Cage
}

/// 7.3.4.2 and 7.3.2: a queue's vector, `own` if it has interrupts, and its interval.
///
/// With the interval a coalesced packet ends too (4.6.7.2), whether the vector interrupts or not; without interrupts that of vector 0
/// does for all queues. Nobody has enabled its cause then.
pub(crate) fn set_up_queue(device: &Device, setup: &RxSetup, own: usize) {
    let coalesces = setup.coalesced > 0;
    let (vector, interval) = match setup.interrupts {
        Some(interval) if coalesces && interval < UNIT => (own, COALESCE),
        Some(interval) => (own, interval),
        None if coalesces => (0, COALESCE),
        None => return,
    };
    let (registers, shift) = (&device.registers, setup.queue as u32 % 2 * 16);
    registers.modify_at(IVAR, setup.queue / 2, 0xff << shift, (IVAR_VALID | vector as u32) << shift);
    // Rounded down: the interval is a promise.
    let units = (interval.as_nanos() / UNIT.as_nanos()).min(MOST_UNITS.into()) as u32;
    registers.write_at(EITR, vector, EITR_CNT_WDIS | units << EITR_INTERVAL_SHIFT);
}

/// The interval of the vector that a receive queue raises.
pub(crate) fn interval(device: &Device, queue: usize) -> Duration {
    let registers = &device.registers;
    let vector = registers.read_at(IVAR, queue / 2) >> (queue as u32 % 2 * 16) & IVAR_VECTOR;
    let vector = (vector as usize).min(QUEUE_CAUSES);
    UNIT * (registers.read_at(EITR, vector) >> EITR_INTERVAL_SHIFT & MOST_UNITS)
}

/// 4.6.6: vector `queues` for what is no queue's; the queues' clear and mask themselves each time they are sent.
pub(crate) fn enable(device: &Device, queues: usize) {
    let registers = &device.registers;
    let by_queue = (1u32 << queues.min(QUEUE_CAUSES)) - 1;
    let pin = if has_cage(device) { gpie::PIN_2 } else { 0 };
    let pools = VT_MODE << GPIE_VT_MODE_SHIFT;
    let mode = match queues {
        // By IVAR_MISC to vector 0.
        0 if registers.read(GPIE) & pools != 0 => pin | gpie::MULTIPLE_MSIX | gpie::PBA_SUPPORT,
        // Every cause raises vector 0.
        0 => pin,
        _ => pin | gpie::MULTIPLE_MSIX | gpie::OTHERS_STAY | gpie::AUTO_MASK | gpie::PBA_SUPPORT,
    };
    // How many pools there are stays as it is.
    registers.modify(GPIE, !pools, mode);
    registers.write(IVAR_MISC, (IVAR_VALID | queues as u32) << IVAR_MISC_OTHER_SHIFT);
    registers.write(EIAC, by_queue);
    registers.write(EIAM, by_queue);
    registers.write(EICR, u32::MAX);
    registers.write(EIMS, event_causes(device));
}

/// 7.3.1: let a queue raise its vector.
pub(crate) fn arm(device: &Device, queue: usize) -> Result<(), Error> {
    device.arm(EICR, EIMS, 1 << queue.min(QUEUE_CAUSES - 1))
}

/// What has happened. EICS is read, for to read EICR clears it, queues' bits among others; written, it clears what has been seen.
pub(crate) fn take_events(device: &Device) -> PortEvents {
    let causes = match device.registers.read(EICS) {
        // The card is gone, which is for others to say.
        u32::MAX => 0,
        causes => causes & event_causes(device),
    };
    if causes != 0 {
        device.registers.write(EICR, causes);
    }
    EVENTS.iter().filter(|(cause, _)| causes & cause != 0).map(|(_, event)| *event).collect()
}
