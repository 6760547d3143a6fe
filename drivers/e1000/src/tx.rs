//! The transmit path.

use std::collections::VecDeque;
use std::sync::Arc;

use pagewire_ethdev::{
    Burst, DescriptorRing, Drain, Error, Packet, PacketFlags, QueueCounters, TxOffloads, TxQueue,
    release_bulk,
};
use pagewire_pci::Doorbell;

use crate::descriptor::tx::{self, Context, L4};
use crate::device::Device;
use crate::registers::TDT;

/// Descriptors between two status reports: one write-back by the card, one look by us, one bulk return to the pool.
const REPORT_EVERY: u32 = 32;
/// Shortest frame that the card takes, without the frame check sequence (it pads from there to 60).
const SHORTEST: usize = 17;
const VLAN_TAG: usize = 4;
/// Shortest IPv4 header.
const IPV4_HEADER: u16 = 20;

/// The card's transmit queue.
pub struct E1000Tx {
    /// Present until dropped.
    ring: Option<Box<TxRing>>,
    device: Arc<Device>,
}

/// Everything the card may read, and how far it has come. Positions count on without end; rings take them modulo their length.
pub(crate) struct TxRing {
    /// Each packet is kept at its last descriptor.
    pub(crate) descriptors: DescriptorRing<Option<Packet>>,
    /// Next descriptor to write.
    tail: u32,
    /// Oldest descriptor not yet known to be done.
    clean: u32,
    /// Descriptors since the last that reports its status.
    unreported: u32,
    /// Descriptors that report, oldest first.
    reports: VecDeque<u32>,
    report_every: u32,
    /// Longest frame the link takes, without the frame check sequence.
    longest: usize,
    offloads: TxOffloads,
    /// What the card has been told of the packets that follow.
    context: Option<Context>,
    doorbell: Doorbell,
    counters: Arc<QueueCounters>,
}

impl TxRing {
    pub(crate) fn new(
        device: &Device,
        descriptors: u32,
        longest: usize,
        offloads: TxOffloads,
        counters: Arc<QueueCounters>,
    ) -> Result<TxRing, Error> {
        Ok(TxRing {
            descriptors: DescriptorRing::new(&device.space, (0..descriptors).map(|_| None).collect())?,
            tail: 0,
            clean: 0,
            unreported: 0,
            reports: VecDeque::with_capacity(descriptors as usize),
            report_every: REPORT_EVERY.min(descriptors / 4),
            longest,
            offloads,
            context: None,
            doorbell: device.registers.doorbell(TDT)?,
            counters,
        })
    }

    /// Descriptors free. One stays unused: head equal to tail means an empty ring.
    #[inline(always)]
    fn free(&self) -> u32 {
        self.descriptors.len() - 1 - self.tail.wrapping_sub(self.clean)
    }

    /// Free what the card has reported done, oldest first.
    #[inline(always)]
    fn clean_reported(&mut self) {
        while let Some(&report) = self.reports.front() {
            if self.descriptors.view().read::<1>(report) & tx::DD == 0 {
                break;
            }
            self.reports.pop_front();
            self.free_until(report.wrapping_add(1));
        }
    }

    #[inline(always)]
    fn free_until(&mut self, position: u32) {
        let count = position.wrapping_sub(self.clean);
        for slots in self.descriptors.slots(self.clean, count) {
            release_bulk(slots);
        }
        self.clean = position;
    }

    /// Send packets from the front of the burst. Returns how many are gone from it, how many of those were dropped, and the
    /// bytes of the others.
    #[inline(always)]
    fn send(&mut self, packets: &mut Burst) -> (usize, usize, u64) {
        let before = packets.len();
        let (mut errors, mut bytes) = (0, 0);
        let mut queue = packets.drain();
        loop {
            bytes += self.send_plain(&mut queue);
            if queue.len() == 0 {
                break;
            }
            // The next packet is not plain, or the ring is full.
            match self.send_planned(&mut queue) {
                Some(0) => errors += 1,
                Some(sent) => bytes += sent,
                None => break,
            }
        }
        drop(queue);
        (before - packets.len(), errors, bytes)
    }

    /// Send packets of one fragment that ask for nothing, until there is another, or no room. Returns their bytes.
    ///
    /// In runs up to the next status report, so that the loop has one count to watch.
    #[inline(always)]
    fn send_plain(&mut self, queue: &mut Drain<'_>) -> u64 {
        let mut bytes = 0;
        loop {
            let quiet = (self.report_every - 1).saturating_sub(self.unreported);
            let room = queue.len().min(self.free() as usize) as u32;
            let (sent, run) = self.send_run(queue, room.min(quiet), 0);
            bytes += run;
            if sent < quiet || sent == room {
                return bytes;
            }
            let (sent, run) = self.send_run(queue, 1, tx::RS);
            bytes += run;
            if sent == 0 {
                return bytes;
            }
            self.reports.push_back(self.tail.wrapping_sub(1));
            self.unreported = 0;
        }
    }

    /// Send up to `count` plain packets, for which there is room. Returns how many were plain, and their bytes.
    #[inline(always)]
    fn send_run(&mut self, queue: &mut Drain<'_>, count: u32, option: u64) -> (u32, u64) {
        let (shortest, spread) = (SHORTEST, self.longest - SHORTEST);
        let command = tx::DATA | tx::EOP | tx::IFCS | option;
        let start = self.tail;
        let (mut tail, end, mut bytes) = (start, start.wrapping_add(count), 0);
        let mut ring = self.descriptors.view();
        while tail != end {
            let Some(packet) = queue.peek() else { break };
            let len = packet.len();
            if len.wrapping_sub(shortest) > spread || packet.flags().intersects(PacketFlags::TX_SLOW) {
                break;
            }
            ring.write(tail, [packet.iova(), len as u64 | command]);
            bytes += len as u64;
            let Some(packet) = queue.next() else { break };
            ring.put(tail, packet);
            tail = tail.wrapping_add(1);
        }
        let sent = tail.wrapping_sub(start);
        self.tail = tail;
        self.unreported += sent;
        (sent, bytes)
    }

    /// Send the packet at the front, which is not plain. Returns its bytes, 0 if it is not one that can be sent and was
    /// dropped, or `None` if there is no room for it now.
    #[inline(never)]
    fn send_planned(&mut self, queue: &mut Drain<'_>) -> Option<u64> {
        let plan = self.plan(queue.peek()?);
        if plan.as_ref().is_some_and(|plan| plan.descriptors > self.free()) {
            return None;
        }
        let packet = queue.next()?;
        let Some(plan) = plan else {
            self.counters.count_errors(1);
            return Some(0);
        };
        if let Some(context) = plan.context {
            self.write(context.words());
            self.context = Some(context);
        }
        let last = packet.segment_count() - 1;
        for (number, segment) in packet.segments().enumerate() {
            let mut command = u64::from(segment.data_len()) | plan.options | tx::DATA | tx::IFCS;
            if number == last {
                command |= tx::EOP;
                // Its count is one more once it is written.
                if self.unreported + 1 >= self.report_every {
                    command |= tx::RS;
                    self.reports.push_back(self.tail);
                }
            }
            self.write([segment.iova(), command]);
        }
        if self.reports.back() == Some(&self.tail.wrapping_sub(1)) {
            self.unreported = 0;
        }
        let bytes = packet.len() as u64;
        self.descriptors.view().put(self.tail.wrapping_sub(1), packet);
        Some(bytes)
    }

    /// Have the card report that it is done with all it has been given, if nothing in the ring makes it do so: by a context
    /// descriptor that changes nothing.
    ///
    /// The head register does not tell: "reading [it] to determine which buffers have been used […] is not reliable"
    /// (*PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual*, 13.4.39). There is room for one
    /// descriptor, because there are never as many unreported as the ring has.
    #[cold]
    #[inline(never)]
    fn request_report(&mut self) {
        if self.unreported == 0 || self.free() == 0 {
            return;
        }
        let [offsets, command] = self.context.get_or_insert(Context::NONE).words();
        self.reports.push_back(self.tail);
        self.write([offsets, command | tx::RS]);
        self.unreported = 0;
        self.ring_doorbell();
    }

    #[inline(always)]
    fn ring_doorbell(&self) {
        self.doorbell.ring(self.tail & (self.descriptors.len() - 1));
    }

    fn write(&mut self, words: [u64; 2]) {
        self.descriptors.view().write(self.tail, words);
        self.tail = self.tail.wrapping_add(1);
        self.unreported += 1;
    }

    /// What a packet needs. `None`: it cannot be sent at all.
    fn plan(&self, packet: &Packet) -> Option<Plan> {
        let (len, flags) = (packet.len(), packet.flags());
        let tag = if flags.contains(PacketFlags::TX_VLAN_INSERT) { VLAN_TAG } else { 0 };
        if len < SHORTEST || len + tag > self.longest {
            return None;
        }
        let segments = packet.segments().try_fold(0, |count, segment| {
            let data = usize::from(segment.data_len());
            (data > 0 && data <= tx::MAX_DATA).then_some(count + 1)
        })?;
        let mut options = 0;
        let mut needs = if segments > 1 { TxOffloads::MULTI_SEGS } else { TxOffloads::empty() };
        if flags.contains(PacketFlags::TX_VLAN_INSERT) {
            needs |= TxOffloads::VLAN_INSERT;
            options |= tx::VLE | tx::vlan(packet.vlan_tci());
        }
        let mut l4 = L4::None;
        if flags.contains(PacketFlags::TX_IP_CSUM) {
            needs |= TxOffloads::IP_CSUM;
            options |= tx::IXSM;
        }
        if flags.contains(PacketFlags::TX_TCP_CSUM) {
            (needs, l4) = (needs | TxOffloads::TCP_CSUM, L4::Tcp);
        } else if flags.contains(PacketFlags::TX_UDP_CSUM) {
            (needs, l4) = (needs | TxOffloads::UDP_CSUM, L4::Udp);
        }
        if l4 != L4::None {
            options |= tx::TXSM;
        }
        if !self.offloads.contains(needs) {
            return None;
        }
        let mut context = None;
        if options & (tx::IXSM | tx::TXSM) != 0 {
            let (l2_len, l3_len) = packet.header_lens();
            let wanted =
                Context { l2_len: u8::try_from(l2_len).ok()?, l3_len: u8::try_from(l3_len).ok()?, l4 };
            // The checksums must lie within the packet: the card does not check.
            let ip_len = if options & tx::IXSM != 0 { IPV4_HEADER } else { 0 };
            if !wanted.is_encodable()
                || l3_len < ip_len
                || usize::from(l2_len + l3_len) + l4.header_len() > len
            {
                return None;
            }
            context = (self.context != Some(wanted)).then_some(wanted);
        }
        let descriptors = segments + u32::from(context.is_some());
        (descriptors < self.descriptors.len()).then_some(Plan { descriptors, context, options })
    }
}

/// How a packet is to be written.
struct Plan {
    descriptors: u32,
    /// To be written first, unless the card has it already.
    context: Option<Context>,
    /// Bits of word 1 in each data descriptor.
    options: u64,
}

impl L4 {
    /// Bytes of the header up to and with the checksum.
    fn header_len(self) -> usize {
        match self {
            L4::None => 0,
            L4::Tcp => 18,
            L4::Udp => 8,
        }
    }
}

impl E1000Tx {
    pub(crate) fn new(ring: TxRing, device: Arc<Device>) -> E1000Tx {
        E1000Tx { ring: Some(Box::new(ring)), device }
    }
}

impl TxQueue for E1000Tx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let Some(ring) = &mut self.ring else { return 0 };
        ring.clean_reported();
        let before = ring.tail;
        let (gone, errors, bytes) = ring.send(packets);
        if ring.tail != before {
            ring.ring_doorbell();
            ring.counters.count(gone - errors, bytes);
        } else if !packets.is_empty() {
            // What the next packet waits for may be descriptors that nobody has been asked to report.
            ring.request_report();
        }
        gone
    }

    fn reclaim(&mut self) -> usize {
        let before = self.pending();
        if let Some(ring) = &mut self.ring
            && ring.clean != ring.tail
        {
            ring.clean_reported();
            // Of what is left, the report is there by one of the next calls.
            ring.request_report();
        }
        before - self.pending()
    }

    fn pending(&self) -> usize {
        let Some(ring) = self.ring.as_ref().filter(|ring| ring.clean != ring.tail) else { return 0 };
        ring.descriptors.iter().flatten().map(Packet::segment_count).sum()
    }
}

impl Drop for E1000Tx {
    fn drop(&mut self) {
        self.device.retire(self.ring.take());
    }
}

#[cfg(test)]
mod tests;
