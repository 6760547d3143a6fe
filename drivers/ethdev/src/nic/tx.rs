//! The transmit path. What a packet that is not plain needs is in `tx/plan.rs`.

mod plan;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use pagewire_pci::Doorbell;
use pagewire_pool::{Burst, Drain, Packet, PacketFlags, release_bulk};

use plan::Contexts;
pub use plan::{Encoded, L4, Request};

use super::device::{Device, Way};
use crate::config::TxOffloads;
use crate::error::Error;
use crate::port::TxQueue;
use crate::refused::TxRefused;
use crate::ring::DescriptorRing;
use crate::stats::QueueCounters;

/// Descriptors between two status reports: one write-back by the card, one look by us, one bulk return to the pool.
const REPORT_EVERY: u32 = 32;

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
    /// Bytes of payload that one packet can have which is cut into segments; 0 if the card cuts none.
    const MAX_SEGMENTED: usize;
    /// Bit of the second word of a context, and of the data descriptors that rely on it: the second of two that the card keeps. 0
    /// if it keeps one.
    const SECOND_CONTEXT: u64;

    /// The second word of a data descriptor of `len` bytes, of a packet of `packet` bytes in all, headers not counted if it is cut
    /// into segments.
    fn data(len: u16, packet: usize) -> u64;

    /// What the card must be told to do this for a packet. `None` if it cannot be told.
    fn encode(request: &Request) -> Option<Encoded>;

    /// A descriptor that sends nothing and reports. `context`: the last that was written.
    fn report(context: Option<[u64; 2]>) -> [u64; 2];
}

/// A transmit queue of a card with descriptors of format `F`.
pub struct NicTx<F: TxFormat> {
    /// Present until dropped.
    ring: Option<Box<TxRing<F>>>,
    device: Arc<Device>,
    number: usize,
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
    contexts: Contexts,
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
            contexts: Contexts::default(),
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
        if plan.as_ref().is_ok_and(|plan| plan.descriptors > self.free()) {
            return None;
        }
        let mut packet = queue.next()?;
        let Ok(plan) = plan else {
            self.counters.count_errors(1);
            return Some(0);
        };
        self.begin(&mut packet, &plan);
        let last = packet.segment_count() - 1;
        for (number, segment) in packet.segments().enumerate() {
            let mut command = F::data(segment.data_len(), plan.told) | plan.options;
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
        // The packet itself is counted with its burst.
        self.counters.count(plan.frames - 1, 0);
        Some(plan.bytes as u64)
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
        self.write(F::report(self.contexts.last::<F>()));
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
}

impl<F: TxFormat> NicTx<F> {
    pub(super) fn new(ring: TxRing<F>, device: Arc<Device>, number: usize) -> NicTx<F> {
        NicTx { ring: Some(Box::new(ring)), device, number }
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

    fn check(&self, packet: &Packet) -> Result<(), TxRefused> {
        self.ring.as_ref().map_or(Ok(()), |ring| ring.plan(packet).map(|_| ()))
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
        self.device.retire(Way::Transmit, self.number, self.ring.take());
    }
}

#[cfg(test)]
mod tests;
