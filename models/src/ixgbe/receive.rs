//! Receive: from the wire through the filters and the packet buffer into descriptors (82599 datasheet 7.1).

use super::Card;
use super::bus::{Control, Offload};
use super::checksum;
use super::descriptor::{self, SplitKind, Written};
use super::filters::{self, Filters, Verdict};
use super::flow::{self, Flow};
use super::interrupts::RX_MISS;
use super::packet::Packet;
use super::registers::Registers;
use super::ring::{CONTROL, ENABLE, HEAD, Ring, TAIL};
use super::rsc::{self, Rsc};
use super::rss::{Hash, Rss};
use super::statistics::{self, Cast, FCS};
use super::switch::Switch;
use super::table::*;
use crate::wire::{Arrival, Frames, MAX_FRAME, Wire};

/// Receive queues: their registers, that is; frames go to any of them.
pub(super) const QUEUES: usize = 128;

const RXEN: u32 = 1 << 0;
const RXCRCSTRP: u32 = 1 << 1;
const JUMBOEN: u32 = 1 << 2;
const STORE_BAD: u32 = 1 << 1;
const VLAN_STRIP: u32 = 1 << 30;
const EXTENDED_VLAN: u32 = 1 << 26;
const PCSD: u32 = 1 << 13;
const DROP_EN: u32 = 1 << 28;

/// Shortest and longest ordinary frames, with FCS; a VLAN tag is not counted.
const MIN: usize = 64;
const MAX: usize = 1518;
/// Frames taken from the wire in one poll.
const BUDGET: usize = 128;

struct Queue {
    ring: Ring,
    enabled: bool,
    srrctl: u32,
    strip: bool,
}

/// Whether a frame found its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Done,
    /// Its queue has no descriptors and does not drop: it, and all behind it, wait.
    Blocked,
}

/// The receive side.
pub(super) struct Receive {
    queues: Box<[Queue]>,
    enabled: u128,
    touched: u128,
    buffer: Frames,
    scratch: Vec<u8>,
    pub(super) rss: Rss,
    rsc: Rsc,
    pub(super) filters: Filters,
    pub(super) flow: Flow,
}

/// A queue's block of registers.
fn block(queue: usize) -> u32 {
    let base = if queue < 64 { RDBAL } else { RDBAL_64 };
    base + 0x40 * (queue as u32 % 64)
}

impl Receive {
    pub(super) fn new() -> Self {
        let queue = |n| Queue { ring: Ring::new(block(n)), enabled: false, srrctl: 0, strip: false };
        Self {
            queues: (0..QUEUES).map(queue).collect(),
            enabled: 0,
            touched: 0,
            buffer: Frames::new(),
            scratch: Vec::with_capacity(MAX_FRAME),
            rss: Rss::default(),
            rsc: Rsc::default(),
            filters: Filters::new(),
            flow: Flow::default(),
        }
    }

    /// A queue's register was written, and holds what it now holds.
    pub(super) fn written(&mut self, registers: &Registers, control: &Control, offset: u32) {
        let queue = (offset & 0xfff) as usize / 0x40 + if offset >= RDBAL_64 { 64 } else { 0 };
        let field = offset % 0x40;
        if field == TAIL {
            self.queues[queue].ring.set_tail(registers.get(offset));
        } else {
            self.load(registers, control, queue);
        }
    }

    /// Take over a queue's registers.
    fn load(&mut self, registers: &Registers, control: &Control, queue: usize) {
        let q = &mut self.queues[queue];
        let rxdctl = registers.get(q.ring.block + CONTROL);
        q.enabled = rxdctl & ENABLE != 0;
        q.strip = rxdctl & VLAN_STRIP != 0;
        q.srrctl = registers.get(q.ring.block + 0x14);
        q.ring.load(registers);
        let bit = 1 << queue;
        self.enabled = if q.enabled { self.enabled | bit } else { self.enabled & !bit };
        if !q.enabled {
            let lost = self.rsc.forget(queue);
            if lost > 0 {
                control.count_malformed(format_args!(
                    "receive queue {queue} was stopped while {lost} packets were being coalesced"
                ));
            }
        }
    }

    /// Enabled queues.
    pub(super) fn enabled(&self) -> u128 {
        self.enabled
    }

    /// A queue's ring.
    pub(super) fn ring(&mut self, queue: usize) -> &mut Ring {
        &mut self.queues[queue].ring
    }

    /// Queues that were written to since this was last asked.
    pub(super) fn take_touched(&mut self) -> u128 {
        std::mem::take(&mut self.touched)
    }

    /// Rings that stalled may go on.
    pub(super) fn retry(&mut self) {
        self.queues.iter_mut().filter(|q| q.enabled).for_each(|q| q.ring.retry());
    }

    /// Take frames off the wire. Gives whether there were any.
    pub(super) fn poll(&mut self, card: &mut Card<'_, '_>, wire: &mut dyn Wire) -> bool {
        let mut frame = std::mem::take(&mut self.scratch);
        let queues = &self.queues;
        self.touched |= self.rsc.expire(card, |queue| queues[queue].srrctl);
        let mut busy = self.drain(card, &mut frame);
        while card.switch.take_own(&mut frame) {
            busy = true;
            self.put(card, &mut frame);
        }
        let patient = wire.patient();
        let on = self.enabled != 0 && card.registers.get(RXCTRL) & RXEN != 0;
        for _ in 0..BUDGET {
            if patient && !(on && self.buffer.is_empty()) {
                break;
            }
            let Some(arrival) = wire.receive(&mut frame) else { break };
            busy = true;
            if self.admit(card, &frame, arrival)
                && (!Switch::is_on(card.registers) || card.switch.arrive(card.registers, &frame))
            {
                self.put(card, &mut frame);
            }
        }
        self.scratch = frame;
        if let Some(pause) = self.flow.fill(card.registers, self.buffer.bytes(), || card.clock.now()) {
            // A pause frame goes ahead of everything; if the wire has no room, it is refreshed later.
            if wire.send(&pause) {
                statistics::transmitted(card.registers, MIN, Cast::Multicast);
            }
        }
        busy
    }

    /// Take a frame that the card's switch has let in, as a virtual function does. Counted.
    pub(super) fn take(&mut self, card: &mut Card<'_, '_>, frame: &mut Vec<u8>) {
        statistics::received(card.registers, frame.len() + FCS, Cast::of(frame));
        self.put(card, frame);
    }

    /// Go on with what is in the packet buffer. Gives whether there was anything.
    pub(super) fn drain(&mut self, card: &mut Card<'_, '_>, frame: &mut Vec<u8>) -> bool {
        let mut busy = false;
        while let Some(first) = self.buffer.front() {
            frame.clear();
            frame.extend_from_slice(first);
            if self.deliver(card, frame) == Delivery::Blocked {
                break;
            }
            self.buffer.pop();
            busy = true;
        }
        busy
    }

    /// To a queue, or behind what waits for one.
    fn put(&mut self, card: &mut Card<'_, '_>, frame: &mut Vec<u8>) {
        if !self.buffer.is_empty() || self.deliver(card, frame) == Delivery::Blocked {
            self.store(card, frame);
        }
    }

    /// Keep a frame in the packet buffer, or miss it.
    #[cold]
    fn store(&mut self, card: &mut Card<'_, '_>, frame: &[u8]) {
        let room = (card.registers.get(RXPBSIZE) & 0xf_fc00) as usize;
        if self.buffer.bytes() + frame.len() > room {
            card.registers.count(RXMPC, 1);
            card.interrupts.raise(RX_MISS);
        } else {
            self.buffer.push(frame);
        }
    }

    /// The MAC and the filters: whether a frame comes in, counted.
    fn admit(&mut self, card: &mut Card<'_, '_>, frame: &[u8], arrival: Arrival) -> bool {
        let registers = &mut *card.registers;
        if registers.get(RXCTRL) & RXEN == 0 || frame.len() < 14 {
            return false;
        }
        let length = frame.len() + FCS;
        statistics::total_received(registers, length);
        let store_bad = registers.has(FCTRL, STORE_BAD);
        let packet = parse(registers, frame);
        if arrival == Arrival::BadFcs && length >= MIN {
            registers.count(CRCERRS, 1);
        }
        if length < MIN {
            registers.count(if arrival == Arrival::Good { RUC } else { RFC }, 1);
        }
        let longest = match registers.get(HLREG0) & JUMBOEN {
            0 => MAX,
            _ => (registers.get(MAXFRS) >> 16) as usize,
        } + if packet.vlan.is_some() { 4 } else { 0 }
            + if packet.outer_vlan { 4 } else { 0 };
        if length > longest {
            registers.count(if arrival == Arrival::Good { ROC } else { RJC }, 1);
        }
        let bad = arrival == Arrival::BadFcs || length < MIN || length > longest;
        if bad && !store_bad {
            return false;
        }
        match self.flow.receive(registers, frame, || card.clock.now()) {
            flow::Control::Taken => return false,
            flow::Control::Pass => return !bad,
            flow::Control::No => {}
        }
        let cast = Cast::of(frame);
        let verdict = self.filters.accept(registers, frame, cast, &packet);
        if verdict == Verdict::Drop {
            return false;
        }
        if !bad {
            statistics::received(registers, length, cast);
        }
        true
    }

    /// Put a frame into its queue's descriptors.
    fn deliver(&mut self, card: &mut Card<'_, '_>, frame: &mut Vec<u8>) -> Delivery {
        let registers = &mut *card.registers;
        let packet = parse(registers, frame);
        let filter = filters::ethertype(registers, &packet);
        let hash = if Rss::enabled(registers) && filter.is_none() {
            self.rss.hash(registers, frame, &packet)
        } else {
            Hash::default()
        };
        let queue = match filter {
            Some((_, Some(queue))) => queue,
            Some((_, None)) => 0,
            None => match self.filters.five_tuple(registers, frame, &packet) {
                Some(queue) => queue,
                None => Rss::queue(registers, hash),
            },
        };
        let q = &mut self.queues[queue];
        if !q.enabled {
            statistics::queue_dropped(registers, queue);
            return Delivery::Done;
        }
        let mut written = Written::default();
        written.describe(&packet, hash, filter.map(|(n, _)| n), frame);
        if self.filters.accept(registers, frame, Cast::of(frame), &packet) == Verdict::Inexact {
            written.inexact();
        }
        if registers.get(RXCSUM) & PCSD == 0 {
            written.identification(&packet, frame);
        }
        let length = frame.len() + FCS;
        let coalesces = Rsc::enabled(registers, queue, q.srrctl).unwrap_or_else(|why| {
            card.bus.malformed(format_args!("receive queue {queue} cannot coalesce: {why}"));
            None
        });
        if let Some(most) = coalesces {
            let mut of = rsc::Queue { number: queue, ring: &mut q.ring, srrctl: q.srrctl };
            if self.rsc.take(card, &mut of, most, frame, &packet, written) {
                card.registers.set(q.ring.block + HEAD, q.ring.head());
                self.touched |= 1 << queue;
                statistics::queue_received(card.registers, queue, length);
                return Delivery::Done;
            }
        }
        let registers = &mut *card.registers;
        let strip = if q.strip { packet.vlan } else { None };
        let tag = if strip.is_some() { 4 } else { 0 };
        let split = descriptor::split(registers, q.srrctl, &packet, tag);
        let data = frame.len() - tag + if registers.has(HLREG0, RXCRCSTRP) { 0 } else { FCS };
        let buffer = descriptor::buffer_size(q.srrctl);
        let in_header = split.header_bytes(data);
        let needed = (data - in_header).div_ceil(buffer).max(1) as u32;
        if needed > q.ring.available() {
            if q.srrctl & DROP_EN != 0 || needed >= q.ring.size().max(1) && q.ring.size() != 0 {
                statistics::queue_dropped(registers, queue);
                return Delivery::Done;
            }
            return Delivery::Blocked;
        }
        // Read all descriptors before anything is written: a ring that cannot be read leaves the frame where it is.
        for n in 0..needed {
            if q.ring.get(&mut card.bus, n).is_none() {
                card.interrupts.raise(super::interrupts::PCI_EXCEPTION);
                return Delivery::Blocked;
            }
        }
        if !registers.has(HLREG0, RXCRCSTRP) {
            frame.extend_from_slice(&checksum::fcs(frame).to_le_bytes());
        }
        if let Some((at, tag)) = strip {
            written.vlan(tag, packet.outer_vlan);
            frame.drain(at..at + 4);
            card.bus.count_offload(Offload::TagStripping);
        } else if packet.vlan.is_some() {
            written.vlan_left(packet.outer_vlan);
        }
        let mut rest = &frame[..];
        for n in 0..needed {
            let Some([address, header]) = q.ring.get(&mut card.bus, n) else { break };
            let mut header_bytes = 0;
            if n == 0 && in_header > 0 {
                let (first, after) = rest.split_at(in_header);
                // Writes are posted: one that is refused is lost, and counted.
                let _ = card.bus.write(header & !1, first);
                rest = after;
                header_bytes = in_header;
            }
            let (part, after) = rest.split_at(rest.len().min(buffer));
            if !part.is_empty() {
                let _ = card.bus.write(address, part);
            }
            rest = after;
            let last = n + 1 == needed;
            let kind = if n == 0 { split } else { SplitKind::None };
            let words = written.words(address, q.srrctl, kind, (header_bytes, part.len()), last);
            let at = q.ring.address(n);
            // The half with the done bit goes last.
            let _ = card.bus.write(at, &words[0].to_le_bytes());
            let _ = card.bus.write(at + 8, &words[1].to_le_bytes());
        }
        q.ring.advance(needed);
        registers.set(q.ring.block + HEAD, q.ring.head());
        self.touched |= 1 << queue;
        statistics::queue_received(registers, queue, length);
        card.interrupts.receive(registers, queue);
        Delivery::Done
    }
}

/// Take a frame apart with the tag types that the registers name.
#[inline]
pub(super) fn parse(registers: &Registers, frame: &[u8]) -> Packet {
    let outer = registers.has(CTRL_EXT, EXTENDED_VLAN).then(|| (registers.get(EXVET) >> 16) as u16);
    Packet::parse(frame, outer, registers.get(VLNCTRL) as u16)
}
