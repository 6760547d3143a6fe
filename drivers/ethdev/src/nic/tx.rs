//! The transmit path.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use pagewire_pci::Doorbell;
use pagewire_pool::{Burst, Drain, Packet, PacketFlags, release_bulk};

use super::device::Device;
use crate::error::Error;
use crate::port::{TxOffloads, TxQueue};
use crate::ring::DescriptorRing;
use crate::stats::QueueCounters;

/// Descriptors between two status reports: one write-back by the card, one look by us, one bulk return to the pool.
const REPORT_EVERY: u32 = 32;
/// Bytes of an 802.1Q tag.
const VLAN_TAG: usize = 4;
/// Shortest layer-2 and layer-3 headers of what has checksums.
const ETHERNET_HEADER: u16 = 14;
const IPV4_HEADER: u16 = 20;

/// A transmit descriptor of two words. In a data descriptor the first is the buffer's address.
pub trait TxFormat: Send + 'static {
    /// Bit of the second word: the card is done with the descriptor, if it was asked to report.
    const DONE: u64;
    /// Bit of the second word: last of its packet.
    const END: u64;
    /// Bit of the second word: report, that is set [`DONE`](TxFormat::DONE).
    const REPORT: u64;
    /// Shortest frame that the card takes, without the frame check sequence.
    const SHORTEST: usize;
    /// Bytes that one descriptor can send.
    const MAX_DATA: usize;
    /// Descriptors that one packet can have, its context included, where the ring has more.
    const MAX_DESCRIPTORS: u32;

    /// The second word of a data descriptor of `len` bytes, of a packet of `packet` bytes in all.
    fn data(len: u16, packet: usize) -> u64;

    /// What the card must be told to do this for a packet. `None` if it cannot be told.
    fn encode(request: &Request) -> Option<Encoded>;

    /// A descriptor that sends nothing and reports. `context`: the last that was written.
    fn report(context: Option<[u64; 2]>) -> [u64; 2];
}

/// What a packet asks the card to do. Header lengths are within the packet, and 0 if no checksum is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the layer-2 header.
    pub l2_len: u16,
    /// Bytes of the layer-3 header.
    pub l3_len: u16,
    /// Fill in the IPv4 header checksum.
    pub ip_csum: bool,
    /// Fill in this layer-4 protocol's checksum.
    pub l4: L4,
    /// Insert a tag.
    pub vlan: Option<u16>,
}

/// Layer-4 protocol whose checksum is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// None.
    None,
    /// TCP: 16 bytes into its header.
    Tcp,
    /// UDP: 6 bytes into its header.
    Udp,
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

/// A [`Request`] in the card's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bits of the second word of each data descriptor.
    pub options: u64,
    /// The context descriptor it relies on, if any: written unless it is the one written last.
    pub context: Option<[u64; 2]>,
}

/// A transmit queue of a card with descriptors of format `F`.
pub struct NicTx<F: TxFormat> {
    /// Present until dropped.
    ring: Option<Box<TxRing<F>>>,
    device: Arc<Device>,
}

/// Everything the card may read, and how far it has come. Positions count on without end; rings take them modulo their length.
pub(super) struct TxRing<F> {
    /// Each packet is kept at its last descriptor.
    pub(super) descriptors: DescriptorRing<Option<Packet>>,
    /// Next descriptor to write.
    pub(super) tail: u32,
    /// Oldest descriptor not yet known to be done.
    pub(super) clean: u32,
    /// Descriptors since the last that reports its status: fewer than `report_every` between packets.
    unreported: u32,
    /// Descriptors that report, oldest first.
    pub(super) reports: VecDeque<u32>,
    report_every: u32,
    /// Longest frame the link takes, without the frame check sequence.
    longest: usize,
    offloads: TxOffloads,
    /// The context descriptor written last.
    context: Option<[u64; 2]>,
    doorbell: Doorbell,
    counters: Arc<QueueCounters>,
    format: PhantomData<F>,
}

impl<F: TxFormat> TxRing<F> {
    pub(super) fn new(
        device: &Device,
        descriptors: u32,
        longest: usize,
        offloads: TxOffloads,
        doorbell: Doorbell,
        counters: Arc<QueueCounters>,
    ) -> Result<TxRing<F>, Error> {
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
            doorbell,
            counters,
            format: PhantomData,
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
            if self.descriptors.view().read::<1>(report) & F::DONE == 0 {
                break;
            }
            self.reports.pop_front();
            self.free_until(report.wrapping_add(1));
        }
    }

    #[inline(always)]
    fn free_until(&mut self, position: u32) {
        let count = position.wrapping_sub(self.clean);
        let [slots, wrapped] = self.descriptors.slots(self.clean, count);
        release_bulk(slots);
        if !wrapped.is_empty() {
            release_bulk(wrapped);
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
    /// In runs up to the next status report, so that the loop has one count to watch; the report is asked for afterwards, in the
    /// last descriptor, which the card does not own before the doorbell.
    #[inline(always)]
    fn send_plain(&mut self, queue: &mut Drain<'_>) -> u64 {
        let (shortest, spread) = (F::SHORTEST as u32, (self.longest - F::SHORTEST) as u32);
        let mut bytes = 0;
        loop {
            let room = self.free().min(self.report_every - self.unreported);
            let count = queue.len().min(room as usize);
            if count == 0 {
                return bytes;
            }
            let mut ring = self.descriptors.view();
            let sent = ring.send(self.tail, queue, count, |packet| {
                let len = packet.len() as u32;
                let plain =
                    len.wrapping_sub(shortest) <= spread && !packet.flags().intersects(PacketFlags::TX_SLOW);
                plain.then(|| {
                    bytes += u64::from(len);
                    [packet.iova(), F::data(len as u16, len as usize) | F::END]
                })
            }) as u32;
            if sent == 0 {
                return bytes;
            }
            self.tail = self.tail.wrapping_add(sent);
            self.unreported += sent;
            if self.unreported == self.report_every {
                ring.set::<1>(self.tail.wrapping_sub(1), F::REPORT);
                self.reports.push_back(self.tail.wrapping_sub(1));
                self.unreported = 0;
            }
        }
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
            self.write(context);
            self.context = Some(context);
        }
        let (last, bytes) = (packet.segment_count() - 1, packet.len());
        for (number, segment) in packet.segments().enumerate() {
            let mut command = F::data(segment.data_len(), bytes) | plan.options;
            if number == last {
                command |= F::END;
                // Its count is one more once it is written.
                if self.unreported + 1 >= self.report_every {
                    command |= F::REPORT;
                    self.reports.push_back(self.tail);
                }
            }
            self.write([segment.iova(), command]);
        }
        if self.reports.back() == Some(&self.tail.wrapping_sub(1)) {
            self.unreported = 0;
        }
        self.descriptors.view().put(self.tail.wrapping_sub(1), packet);
        Some(bytes as u64)
    }

    /// Have the card report that it is done with all it has been given, if nothing in the ring makes it do so: by a
    /// descriptor that sends nothing.
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
        self.reports.push_back(self.tail);
        self.write(F::report(self.context));
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
        let vlan = flags.contains(PacketFlags::TX_VLAN_INSERT).then(|| packet.vlan_tci());
        let tag = if vlan.is_some() { VLAN_TAG } else { 0 };
        if len < F::SHORTEST || len + tag > self.longest {
            return None;
        }
        let segments = packet.segments().try_fold(0, |count, segment| {
            let data = usize::from(segment.data_len());
            (data > 0 && data <= F::MAX_DATA).then_some(count + 1)
        })?;
        let ip_csum = flags.contains(PacketFlags::TX_IP_CSUM);
        let l4 = if flags.contains(PacketFlags::TX_TCP_CSUM) {
            L4::Tcp
        } else if flags.contains(PacketFlags::TX_UDP_CSUM) {
            L4::Udp
        } else {
            L4::None
        };
        let needs = [
            (segments > 1, TxOffloads::MULTI_SEGS),
            (vlan.is_some(), TxOffloads::VLAN_INSERT),
            (ip_csum, TxOffloads::IP_CSUM),
            (l4 == L4::Tcp, TxOffloads::TCP_CSUM),
            (l4 == L4::Udp, TxOffloads::UDP_CSUM),
        ];
        if needs.into_iter().any(|(needed, offload)| needed && !self.offloads.contains(offload)) {
            return None;
        }
        let has_checksum = ip_csum || l4 != L4::None;
        // What a packet that asks for no checksum says of its headers may be a former one's: nothing clears it.
        let (l2_len, l3_len) = if has_checksum { packet.header_lens() } else { (0, 0) };
        // The checksums must lie within the packet, and not in each other: the card does not check.
        let headers = usize::from(l2_len) + usize::from(l3_len) + l4.header_len();
        if has_checksum && (l2_len < ETHERNET_HEADER || l3_len < IPV4_HEADER || headers > len) {
            return None;
        }
        let asked = has_checksum || vlan.is_some();
        let encoded = match asked {
            true => F::encode(&Request { l2_len, l3_len, ip_csum, l4, vlan })?,
            false => Encoded { options: 0, context: None },
        };
        let context = encoded.context.filter(|context| self.context != Some(*context));
        let descriptors = segments + u32::from(context.is_some());
        let plan = Plan { descriptors, context, options: encoded.options };
        (descriptors < self.descriptors.len() && descriptors <= F::MAX_DESCRIPTORS).then_some(plan)
    }
}

/// How a packet is to be written.
struct Plan {
    descriptors: u32,
    /// To be written first.
    context: Option<[u64; 2]>,
    /// Bits of word 1 in each data descriptor.
    options: u64,
}

impl<F: TxFormat> NicTx<F> {
    pub(super) fn new(ring: TxRing<F>, device: Arc<Device>) -> NicTx<F> {
        NicTx { ring: Some(Box::new(ring)), device }
    }

    #[cfg(test)]
    pub(super) fn ring(&mut self) -> &mut TxRing<F> {
        self.ring.as_mut().expect("a live queue has its ring")
    }
}

impl<F: TxFormat> TxQueue for NicTx<F> {
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

impl<F: TxFormat> Drop for NicTx<F> {
    fn drop(&mut self) {
        self.device.retire(self.ring.take());
    }
}

#[cfg(test)]
mod tests;
