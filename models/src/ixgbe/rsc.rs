//! Receive-side coalescing (82599 datasheet 7.11): TCP segments of one flow that come in order make one packet.
//!
//! A coalesced packet takes descriptors as it grows: one that is full names the next, which need not be its neighbour, for other
//! packets come meanwhile. It ends with a segment that has PSH or FIN, with whatever of its flow cannot be added, when descriptors or
//! its 64 KiB are used up, and with the interval of the queue's interrupt. Frames with tags are left alone here.

use super::Card;
use super::bus::Bus;
use super::checksum;
use super::descriptor::{self, SplitKind, Written};
use super::packet::{Network, Packet, Transport};
use super::registers::Registers;
use super::ring::Ring;
use super::table::*;

/// Packets that can be open at a time.
const CONTEXTS: usize = 32;
/// Bytes of a coalesced packet: less than this.
const MOST: usize = 64 << 10;
const RSC_DISABLE: u32 = 1 << 5;
const ENABLE: u32 = 1 << 0;
/// HLREG0 and RDRXCTL: the check sequence is taken off. RDRXCTL: a field that is to be cleared.
const CRC_STRIP: u32 = 1 << 1;
const DMA_CRC_STRIP: u32 = 1 << 1;
const FIRST_SIZE: u32 = 0x1f << 17;
const IVAR_VALID: u32 = 1 << 7;
/// A unit of EITR's interval in nanoseconds.
const EITR_UNIT: u64 = 2048;

const FIN: u8 = 1 << 0;
const PSH: u8 = 1 << 3;
const ACK: u8 = 1 << 4;
/// A timestamp, padded as every TCP pads it (RFC 7323, appendix A): the only option that there may be.
const TIMESTAMP: [u8; 4] = [1, 1, 8, 10];

/// A packet that is open.
#[derive(Debug)]
struct Open {
    queue: usize,
    /// Ethernet header, addresses, ports.
    flow: Vec<u8>,
    /// What must be the same in all: of the IP header what is not length, identification or checksum; how long the headers are.
    same: Vec<u8>,
    /// Sequence number that comes next.
    next: u32,
    /// The first segment's headers, as they are to be at the end, and where they are in memory.
    headers: Vec<u8>,
    headers_at: u64,
    packet: Packet,
    written: Written,
    /// The descriptor that data goes to now: its place, and its buffer's.
    descriptor: u64,
    buffer: u64,
    fill: usize,
    /// Segments that begin in it.
    segments: u32,
    descriptors: u32,
    len: usize,
    until: u64,
}

/// The packets that are open.
#[derive(Debug, Default)]
pub(super) struct Rsc {
    open: Vec<Open>,
}

/// What the queue of a segment is set up to.
pub(super) struct Queue<'q> {
    pub(super) number: usize,
    pub(super) ring: &'q mut Ring,
    pub(super) srrctl: u32,
}

/// Sequence number, flags, of a segment that may be coalesced.
fn candidate(frame: &[u8], packet: &Packet) -> Option<(u32, u8)> {
    let whole = packet.transport == Some(Transport::Tcp)
        && !(packet.extended || packet.fragment)
        && packet.vlan.is_none()
        && packet.check_network(frame) != Some(false)
        && packet.check_transport(frame) == Some(true)
        && packet.end > packet.payload;
    let tcp = frame.get(packet.l4..packet.payload).filter(|_| whole)?;
    let flags = tcp[13];
    let options = match tcp.len() {
        20 => true,
        32 => tcp[20..24] == TIMESTAMP,
        _ => false,
    };
    let plain = flags & ACK != 0 && flags & !(ACK | PSH | FIN) == 0 && tcp[12] & 0xf == 0;
    (plain && options).then(|| (u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]), flags))
}

fn flow(frame: &[u8], packet: &Packet) -> Vec<u8> {
    [&frame[..14], packet.addresses(frame), &frame[packet.l4..packet.l4 + 4]].concat()
}

fn same(frame: &[u8], packet: &Packet) -> Vec<u8> {
    let ip = &frame[packet.l3..packet.l4];
    let mut same = match packet.network {
        Some(Network::V4) => [&ip[..2], &ip[6..10]].concat(),
        _ => [&ip[..4], &ip[6..8]].concat(),
    };
    same.push((packet.payload - packet.l4) as u8);
    same
}

/// Nanoseconds that a queue's packets may stay open: the interval of its interrupt, without which nothing is coalesced.
fn interval(registers: &Registers, queue: usize) -> Option<u64> {
    let entry = registers.get(IVAR + 4 * (queue as u32 / 2)) >> (16 * (queue as u32 & 1));
    let eitr = match entry & 0x3f {
        _ if entry & IVAR_VALID == 0 => return None,
        vector @ ..24 => registers.get(EITR + 4 * vector),
        vector => registers.get(EITR_24 + 4 * (vector - 24)),
    };
    Some((eitr >> 3 & 0x1ff) as u64 * EITR_UNIT).filter(|time| *time > 0)
}

impl Rsc {
    /// Whether a queue coalesces, and the most descriptors of a packet then; or what it lacks for that (4.6.7.2, 7.11, 8.2.3.8.13).
    pub(super) fn enabled(
        registers: &Registers,
        queue: usize,
        srrctl: u32,
    ) -> Result<Option<u32>, &'static str> {
        let control = registers.get(if queue < 64 { RSCCTL } else { RSCCTL_64 } + 0x40 * (queue as u32 % 64));
        if control & ENABLE == 0 || registers.has(RFCTL, RSC_DISABLE) {
            return Ok(None);
        }
        let most = [1, 4, 8, 16][(control >> 2 & 3) as usize];
        if interval(registers, queue).is_none() {
            return Err("its vector has no interval (IVAR, EITR)");
        }
        if !registers.has(HLREG0, CRC_STRIP) || !registers.has(RDRXCTL, DMA_CRC_STRIP) {
            return Err("check sequences are not taken off (HLREG0, RDRXCTL)");
        }
        if registers.get(RDRXCTL) & FIRST_SIZE != 0 {
            return Err("RDRXCTL.RSCFRSTSIZE is not 0");
        }
        if !descriptor::is_advanced(srrctl) {
            return Err("its descriptors are legacy ones (SRRCTL)");
        }
        if most as usize * descriptor::buffer_size(srrctl) >= MOST {
            return Err("its packets may have 64 KiB (RSCCTL.MAXDESC, SRRCTL)");
        }
        Ok(Some(most))
    }

    /// A queue was stopped: what was open in it is lost. Gives how many packets.
    pub(super) fn forget(&mut self, queue: usize) -> usize {
        let before = self.open.len();
        self.open.retain(|open| open.queue != queue);
        before - self.open.len()
    }

    /// Take a frame in, if it is of a flow that is or can be coalesced. If not, what was open of its flow is closed.
    pub(super) fn take(
        &mut self,
        card: &mut Card<'_, '_>,
        queue: &mut Queue<'_>,
        most: u32,
        frame: &[u8],
        packet: &Packet,
        written: Written,
    ) -> bool {
        if packet.transport != Some(Transport::Tcp) {
            return false;
        }
        let of = flow(frame, packet);
        let found = self.open.iter().position(|open| open.queue == queue.number && open.flow == of);
        let candidate = candidate(frame, packet);
        if let Some(at) = found {
            let open = &mut self.open[at];
            if let Some((sequence, flags)) = candidate
                && sequence == open.next
                && open.same == same(frame, packet)
                && open.append(&mut card.bus, queue, most, &frame[packet.payload..packet.end])
            {
                open.update(&frame[packet.l4..packet.payload]);
                if flags & (PSH | FIN) != 0 {
                    self.close(card, at, queue.srrctl);
                }
                return true;
            }
            self.close(card, at, queue.srrctl);
        }
        let Some((sequence, flags)) = candidate else { return false };
        if flags & (PSH | FIN) != 0 || self.open.len() == CONTEXTS {
            return false;
        }
        let Some([buffer, _]) =
            (queue.ring.available() > 0).then(|| queue.ring.get(&mut card.bus, 0)).flatten()
        else {
            return false;
        };
        let mut open = Open {
            queue: queue.number,
            flow: of,
            same: same(frame, packet),
            next: sequence,
            headers: frame[..packet.payload].to_vec(),
            headers_at: buffer,
            packet: *packet,
            written,
            descriptor: queue.ring.address(0),
            buffer,
            fill: 0,
            segments: 0,
            descriptors: 1,
            len: 0,
            until: card.clock.now() + interval(card.registers, queue.number).unwrap_or(0),
        };
        // The first descriptor is not the packet's before all of the frame finds its place.
        queue.ring.advance(1);
        if !open.append(&mut card.bus, queue, most, &frame[..packet.end]) {
            queue.ring.back(1);
            return false;
        }
        open.next = sequence.wrapping_add((packet.end - packet.payload) as u32);
        self.open.push(open);
        true
    }

    /// Close what has been open for its time.
    pub(super) fn expire(&mut self, card: &mut Card<'_, '_>, srrctl: impl Fn(usize) -> u32) -> u128 {
        let mut queues = 0;
        let now = if self.open.is_empty() { 0 } else { card.clock.now() };
        while let Some(at) = self.open.iter().position(|open| open.until <= now) {
            let queue = self.open[at].queue;
            queues |= 1 << queue;
            self.close(card, at, srrctl(queue));
        }
        queues
    }

    fn close(&mut self, card: &mut Card<'_, '_>, at: usize, srrctl: u32) {
        let mut open = self.open.remove(at);
        let total = (open.len - open.packet.l3) as u16;
        let ip = &mut open.headers[open.packet.l3..open.packet.l4];
        if open.packet.network == Some(Network::V4) {
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[10..12].fill(0);
            let sum = !checksum::fold(checksum::add(0, ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&(total - 40).to_be_bytes());
        }
        let _ = card.bus.write(open.headers_at, &open.headers);
        open.write_back(&mut card.bus, srrctl, None);
        card.interrupts.receive(card.registers, open.queue);
    }
}

impl Open {
    /// Add data, if there is room for all of it.
    fn append(&mut self, bus: &mut Bus<'_>, queue: &mut Queue<'_>, most: u32, data: &[u8]) -> bool {
        let size = descriptor::buffer_size(queue.srrctl);
        let extra = data.len().saturating_sub(size.saturating_sub(self.fill)).div_ceil(size) as u32;
        let fits = self.len + data.len() < MOST && self.descriptors + extra <= most;
        if !fits || extra > queue.ring.available() || (0..extra).any(|n| queue.ring.get(bus, n).is_none()) {
            return false;
        }
        // It begins where there is room for its first byte.
        let mut begins = true;
        let mut rest = data;
        while !rest.is_empty() {
            // Drivers may have made buffers smaller meanwhile.
            if self.fill >= size {
                let Some([buffer, _]) = queue.ring.get(bus, 0) else { break };
                self.write_back(bus, queue.srrctl, Some(queue.ring.head()));
                (self.descriptor, self.buffer) = (queue.ring.address(0), buffer);
                (self.fill, self.segments) = (0, 0);
                self.descriptors += 1;
                queue.ring.advance(1);
            }
            self.segments += u32::from(std::mem::take(&mut begins));
            let (part, after) = rest.split_at(rest.len().min(size - self.fill));
            let _ = bus.write(self.buffer.wrapping_add(self.fill as u64), part);
            self.fill += part.len();
            rest = after;
        }
        self.len += data.len();
        self.next = self.next.wrapping_add(data.len() as u32);
        true
    }

    /// What of a segment's TCP header the whole packet's has: acknowledgement, flags, window, timestamp.
    fn update(&mut self, tcp: &[u8]) {
        let own = &mut self.headers[self.packet.l4..];
        own[8..12].copy_from_slice(&tcp[8..12]);
        own[13] |= tcp[13];
        own[14..16].copy_from_slice(&tcp[14..16]);
        own[20..].copy_from_slice(&tcp[20..]);
    }

    /// Give the descriptor back: the packet goes on in `next`, or ends. One into which data of earlier segments only went counts
    /// one too.
    fn write_back(&self, bus: &mut Bus<'_>, srrctl: u32, next: Option<u32>) {
        let mut words = self.written.words(0, srrctl, SplitKind::None, (0, self.fill), next.is_none());
        words[0] |= u64::from(self.segments.clamp(1, 15)) << 17;
        words[1] |= u64::from(next.unwrap_or(0)) << 4;
        let _ = bus.write(self.descriptor, &words[0].to_le_bytes());
        let _ = bus.write(self.descriptor + 8, &words[1].to_le_bytes());
    }
}
