//! Transmit: descriptors into frames on the wire (82599 datasheet 7.2).

use super::Card;
use super::bus::Offload;
use super::checksum;
use super::interrupts::PCI_EXCEPTION;
use super::offload::{self, Context, Request};
use super::registers::Registers;
use super::ring::{CONTROL, Descriptor, ENABLE, HEAD, Ring, TAIL};
use super::rss::own_pool;
use super::statistics::{self, Cast, FCS};
use super::switch::Switch;
use super::table::*;
use crate::wire::{Frames, Wire};

/// Transmit queues.
pub(super) const QUEUES: usize = 128;

const TRANSMIT_ENABLE: u32 = 1 << 0;
const PAD: u32 = 1 << 10;
const HEAD_WRITE_BACK: u32 = 1 << 0;
const WRITE_BACK_LOW: u32 = 0x38;
const WRITE_BACK_HIGH: u32 = 0x3c;

// Bits of the descriptor's second word, most of them commands.
const LENGTH: u64 = 0xffff;
const END: u64 = 1 << 24;
const INSERT_FCS: u64 = 1 << 25;
const INSERT_CHECKSUM: u64 = 1 << 26;
const REPORT: u64 = 1 << 27;
/// The packet relies on the context that it names.
const CHECK_CONTEXT: u64 = 1 << 39;
const EXTENDED: u64 = 1 << 29;
const VLAN: u64 = 1 << 30;
const SEGMENT: u64 = 1 << 31;
const KIND: u64 = 0xf << 20;
const KIND_CONTEXT: u64 = 2 << 20;
const KIND_DATA: u64 = 3 << 20;
const DONE: u64 = 1 << 32;

/// Descriptors that the card keeps for a queue, and those of them that no packet may take besides WTHRESH (7.2.1.1).
const KEPT: u32 = 40;
const SPARE: u32 = 2;

/// Bytes of a MAC header without tags.
const ETHERNET: usize = 14;
/// Shortest frame without FCS, and longest: 15.5 KiB with it.
const MIN_FRAME: usize = 60;
const MAX_FRAME: usize = 15872 - FCS;
/// The most bytes of a packet to be segmented: 18 bits of payload and headers.
const MAX_PACKET: usize = (1 << 18) + 512;
/// Descriptors of one queue in one turn, and frames but for the last packet's: one may be cut into very many segments.
const BUDGET: u32 = 128;

struct Queue {
    ring: Ring,
    enabled: bool,
    contexts: [Context; 2],
    /// The packet so far: its end has not come yet if it is not empty.
    packet: Vec<u8>,
    /// Descriptors that it is in.
    descriptors: u32,
    request: Option<Request>,
    spoilt: bool,
}

impl Queue {
    fn drop_packet(&mut self) {
        self.packet.clear();
        self.descriptors = 0;
        self.request = None;
        self.spoilt = false;
    }
}

/// The transmit side.
pub(super) struct Transmit {
    queues: Box<[Queue]>,
    enabled: u128,
    touched: u128,
    /// Frames that the wire had no room for.
    waiting: Frames,
    frame: Vec<u8>,
    /// Each packet is to rely on a context.
    checks: bool,
}

impl Transmit {
    pub(super) fn new() -> Self {
        let queue = |n: usize| Queue {
            ring: Ring::new(TDBAL + 0x40 * n as u32),
            enabled: false,
            contexts: Default::default(),
            packet: Vec::new(),
            descriptors: 0,
            request: None,
            spoilt: false,
        };
        Self {
            queues: (0..QUEUES).map(queue).collect(),
            enabled: 0,
            touched: 0,
            waiting: Frames::new(),
            frame: Vec::new(),
            checks: false,
        }
    }

    /// A virtual function's: the switch takes from a context where a packet's headers are, as the drivers for functions have it.
    pub(super) fn of_function() -> Self {
        Self { checks: true, ..Self::new() }
    }

    /// A queue's register was written, and holds what it now holds.
    pub(super) fn written(&mut self, registers: &Registers, offset: u32) {
        let queue = ((offset - TDBAL) / 0x40) as usize;
        if offset % 0x40 == TAIL {
            self.queues[queue].ring.set_tail(registers.get(offset));
        } else {
            self.load(registers, queue);
        }
    }

    /// Take over a queue's registers.
    pub(super) fn load(&mut self, registers: &Registers, queue: usize) {
        let q = &mut self.queues[queue];
        q.enabled = registers.get(q.ring.block + CONTROL) & ENABLE != 0;
        if !q.enabled {
            q.drop_packet();
        }
        q.ring.load(registers);
        let bit = 1 << queue;
        self.enabled = if q.enabled { self.enabled | bit } else { self.enabled & !bit };
    }

    /// Enabled queues.
    pub(super) fn enabled(&self) -> u128 {
        self.enabled
    }

    /// A queue's ring.
    pub(super) fn ring(&mut self, queue: usize) -> &mut Ring {
        &mut self.queues[queue].ring
    }

    /// Queues that were worked on since this was last asked.
    pub(super) fn take_touched(&mut self) -> u128 {
        std::mem::take(&mut self.touched)
    }

    /// Rings that stalled may go on.
    pub(super) fn retry(&mut self) {
        self.queues.iter_mut().filter(|q| q.enabled).for_each(|q| q.ring.retry());
    }

    /// Send what there is to send, the link being up and nobody having asked for a pause. Gives whether there was anything.
    pub(super) fn poll(&mut self, card: &mut Card<'_, '_>, wire: &mut dyn Wire) -> bool {
        let mut busy = false;
        while let Some(frame) = self.waiting.front() {
            if !wire.send(frame) {
                return busy;
            }
            self.waiting.pop();
            busy = true;
        }
        if card.registers.get(DMATXCTL) & TRANSMIT_ENABLE == 0 {
            return busy;
        }
        let mut left = self.enabled;
        while left != 0 && self.waiting.is_empty() {
            let queue = left.trailing_zeros() as usize;
            left &= left - 1;
            if self.queues[queue].ring.available() != 0 {
                busy |= self.queue(card, wire, queue);
            }
        }
        busy
    }

    /// Send what virtual functions have to send, as far as it goes out. Gives whether there was anything.
    pub(super) fn relay(&mut self, card: &mut Card<'_, '_>, wire: &mut dyn Wire) -> bool {
        let mut busy = false;
        while self.waiting.is_empty()
            && let Some(pool) = card.switch.take_sent(&mut self.frame)
        {
            busy = true;
            if card.switch.send(card.registers, &mut self.frame, pool) {
                go_out(&self.frame, card.registers, wire, &mut self.waiting);
            }
        }
        busy
    }

    /// One queue's turn.
    fn queue(&mut self, card: &mut Card<'_, '_>, wire: &mut dyn Wire, queue: usize) -> bool {
        let q = &mut self.queues[queue];
        let (mut done, mut sent) = (0, 0);
        let mut report = false;
        let turn = q.ring.available().min(BUDGET);
        while done < turn && sent < BUDGET && self.waiting.is_empty() {
            let Some(descriptor) = q.ring.get(&mut card.bus, 0) else {
                card.interrupts.raise(PCI_EXCEPTION);
                break;
            };
            if self.checks && q.request.is_none() && lacks_context(q, descriptor[1]) {
                card.bus.malformed(format_args!(
                    "transmit queue {queue}: a function's packet relies on no context"
                ));
            }
            take(q, card, queue, descriptor);
            if descriptor[1] & END != 0 && descriptor[1] & (EXTENDED | KIND) != EXTENDED | KIND_CONTEXT {
                if let (Some(request), false) = (q.request, q.spoilt) {
                    if self.checks && misses_context(&request, &q.packet) {
                        let told = request.context.mac_length;
                        card.bus.malformed(format_args!(
                            "transmit queue {queue}: a function's packet relies on a context of a MAC header of {told} bytes"
                        ));
                    }
                    let mut out =
                        Output { card, wire, queue, waiting: &mut self.waiting, frame: &mut self.frame };
                    sent += finish(&mut q.packet, &request, &mut out);
                }
                q.drop_packet();
            }
            if descriptor[1] & REPORT != 0 {
                report = true;
                let low = card.registers.get(q.ring.block + WRITE_BACK_LOW);
                if low & HEAD_WRITE_BACK != 0 {
                    let high = card.registers.get(q.ring.block + WRITE_BACK_HIGH);
                    let address = (high as u64) << 32 | (low & !3) as u64;
                    let next = (q.ring.head() + 1) % q.ring.size().max(1);
                    let _ = card.bus.write(address, &next.to_le_bytes());
                } else {
                    let status = (descriptor[1] | DONE) >> 32;
                    let _ = card.bus.write(q.ring.address(0) + 12, &(status as u32).to_le_bytes());
                }
            }
            q.ring.advance(1);
            done += 1;
        }
        card.registers.set(q.ring.block + HEAD, q.ring.head());
        self.touched |= 1 << queue;
        if report {
            card.interrupts.transmit(card.registers, queue);
        }
        done != 0
    }
}

/// Whether a descriptor with data relies on no context, or on one that was never written.
fn lacks_context(q: &Queue, word: u64) -> bool {
    let data = word & (EXTENDED | KIND) == EXTENDED | KIND_DATA;
    data && (word & CHECK_CONTEXT == 0 || q.contexts[(word >> 36 & 1) as usize].mac_length == 0)
}

/// Whether a packet that asks for nothing relies on a context of other headers than it has: the plain one, or one that counts its tags.
fn misses_context(request: &Request, packet: &[u8]) -> bool {
    let tagged = |at: &usize| matches!(packet.get(*at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
    let header = ETHERNET + 4 * (ETHERNET - 2..).step_by(4).take_while(tagged).count();
    let asks = request.segment || request.network || request.transport || request.vlan.is_some();
    !asks && request.legacy.is_none() && ![ETHERNET, header].contains(&request.context.mac_length)
}

/// Take one descriptor in: a context, or a piece of a packet.
fn take(q: &mut Queue, card: &mut Card<'_, '_>, queue: usize, [address, word]: Descriptor) {
    let extended = word & EXTENDED != 0;
    match word & KIND {
        KIND_CONTEXT if extended => {
            let context = Context::new(address, word);
            q.contexts[context.index] = context;
            card.bus.count_context();
            return;
        }
        KIND_DATA if extended => {}
        // A null descriptor, between packets: it reports, and has no data (7.2.3.2.2).
        _ if !extended && word & (LENGTH | END) == END && q.request.is_none() => return,
        kind if extended => {
            card.bus.malformed(format_args!(
                "transmit queue {queue}: descriptor type {} does not exist",
                kind >> 20
            ));
            q.spoilt = true;
        }
        _ => {}
    }
    if q.request.is_none() {
        let context = q.contexts[(word >> 36 & 1) as usize];
        let has_fcs = word & INSERT_FCS == 0;
        q.request = Some(if extended {
            Request {
                context,
                segment: word & SEGMENT != 0,
                vlan: (word & VLAN != 0).then_some(context.vlan),
                network: word >> 40 & 1 != 0,
                transport: word >> 41 & 1 != 0,
                payload: (word >> 46) as usize,
                legacy: None,
                has_fcs,
            }
        } else {
            let start_offset = ((word >> 40 & 0xff) as usize, (word >> 16 & 0xff) as usize);
            Request {
                context: Context::default(),
                segment: false,
                vlan: (word & VLAN != 0).then_some((word >> 48) as u16),
                network: false,
                transport: false,
                payload: 0,
                legacy: (word & INSERT_CHECKSUM != 0).then_some(start_offset),
                has_fcs,
            }
        });
    }
    q.descriptors += 1;
    if q.descriptors > 1 && !q.spoilt {
        let threshold = card.registers.get(q.ring.block + CONTROL) >> 16 & 0x7f;
        let most = (KEPT - SPARE).saturating_sub(threshold);
        if q.descriptors > most {
            card.bus
                .malformed(format_args!("transmit queue {queue}: a packet of more than {most} descriptors"));
            q.spoilt = true;
        }
    }
    let length = (word & LENGTH) as usize;
    let at = q.packet.len();
    let segment = q.request.is_some_and(|r| r.segment);
    let most = if segment { MAX_PACKET } else { MAX_FRAME };
    if length == 0 || at + length > most {
        card.bus
            .malformed(format_args!("transmit queue {queue}: {length} bytes after {at}, of {most} at most"));
        q.spoilt = true;
    }
    if q.spoilt {
        return;
    }
    q.packet.resize(at + length, 0);
    if card.bus.read(address, &mut q.packet[at..]).is_err() {
        card.interrupts.raise(PCI_EXCEPTION);
        q.spoilt = true;
    }
}

/// Where frames go.
struct Output<'o, 'a, 'b> {
    card: &'o mut Card<'a, 'b>,
    wire: &'o mut dyn Wire,
    queue: usize,
    waiting: &'o mut Frames,
    frame: &'o mut Vec<u8>,
}

/// A packet is whole: do what was asked with it and send it. How many frames that took.
fn finish(packet: &mut Vec<u8>, request: &Request, out: &mut Output<'_, '_, '_>) -> u32 {
    if request.has_fcs || !request.segment {
        let done =
            if request.has_fcs { take_fcs(packet, request) } else { offload::checksums(packet, request) };
        if let Err(why) = done {
            out.card.bus.malformed(format_args!("transmit queue {}: {why}", out.queue));
            return 0;
        }
        if request.network || request.transport || request.legacy.is_some() {
            out.card.bus.count_offload(Offload::Checksum);
        }
        send(packet, request, out);
        return 1;
    }
    let mut sent = 0;
    let flags = (out.card.registers.get(DTXTCPFLGL), out.card.registers.get(DTXTCPFLGH));
    let mut frame = std::mem::take(out.frame);
    match offload::Segments::new(packet, request, flags) {
        Ok(mut segments) => {
            out.card.bus.count_offload(Offload::Segmentation);
            while segments.next_into(&mut frame) {
                send(&mut frame, request, out);
                sent += 1;
            }
        }
        Err(why) => out.card.bus.malformed(format_args!("transmit queue {}: {why}", out.queue)),
    }
    *out.frame = frame;
    sent
}

/// Take a frame's own check sequence off, which the wire does not carry. A wrong one is one that nobody would receive.
fn take_fcs(packet: &mut Vec<u8>, request: &Request) -> Result<(), &'static str> {
    let changed = request.vlan.is_some() || request.legacy.is_some() || request.network || request.transport;
    if changed || request.segment {
        return Err("what changes a frame needs IFCS");
    }
    let (frame, fcs) = packet.split_last_chunk::<FCS>().ok_or("no IFCS, and no check sequence")?;
    if *fcs != checksum::fcs(frame).to_le_bytes() {
        return Err("no IFCS, and the last four bytes are not the check sequence");
    }
    packet.truncate(packet.len() - FCS);
    Ok(())
}

/// Tag, pad, count and send a frame.
fn send(frame: &mut Vec<u8>, request: &Request, out: &mut Output<'_, '_, '_>) {
    let registers = &mut *out.card.registers;
    if frame.len() < 14 || frame.len() > MAX_FRAME {
        out.card.bus.malformed(format_args!(
            "transmit queue {}: a frame of {} bytes",
            out.queue,
            frame.len()
        ));
        return;
    }
    if let Some(tag) = request.vlan {
        let kind = (registers.get(VLNCTRL) as u16).to_be_bytes();
        let [high, low] = tag.to_be_bytes();
        frame.splice(12..12, [kind[0], kind[1], high, low]);
        out.card.bus.count_offload(Offload::TagInsertion);
    }
    if frame.len() < MIN_FRAME && registers.has(HLREG0, PAD) {
        frame.resize(MIN_FRAME, 0);
    }
    statistics::queue_transmitted(registers, out.queue, frame.len() + FCS);
    let own = own_pool(registers);
    if !Switch::is_on(registers) || out.card.switch.send(registers, frame, own) {
        go_out(frame, registers, out.wire, out.waiting);
    }
}

/// Count a frame, and put it on the wire, or behind those that the wire has no room for.
fn go_out(frame: &[u8], registers: &mut Registers, wire: &mut dyn Wire, waiting: &mut Frames) {
    statistics::transmitted(registers, frame.len() + FCS, Cast::of(frame));
    if !waiting.is_empty() || !wire.send(frame) {
        waiting.push(frame);
    }
}
