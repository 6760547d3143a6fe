//! The transmit path. What a packet that is not plain needs is in `tx/plan.rs`.

mod plan;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use pagewire_pci::Doorbell;
use pagewire_pool::{Burst, Drain, Packet};

use plan::Contexts;
pub use plan::{Encoded, L4, Request};

use super::device::{Device, Left, Way};
use crate::config::TxOffloads;
use crate::error::Error;
use crate::port::TxQueue;
use crate::refused::TxRefused;
use crate::stats::QueueCounters;
use crate::transmit_ring::TransmitRing;

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

    /// That of a data descriptor that is a whole packet.
    #[inline(always)]
    fn whole(len: u32) -> u64 {
        Self::data(len as u16, len as usize) | Self::END
    }

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

/// Everything the card may read, and how far it has come. Apart from other queues' as [`RxRing`](super::rx::RxRing) is.
#[repr(align(128))]
pub(super) struct TxRing<F> {
    pub(super) descriptors: TransmitRing,
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
            descriptors: TransmitRing::new(&device.space, descriptors, F::SHORTEST as u32, longest as u32)?,
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

    /// Free what the card has reported done, oldest first, until that was `wanted` descriptors or more.
    ///
    /// With every report that is asked for, as many are wanted as there are between two: one comes home for each that leaves and each
    /// that the receive queue posts anew. A card that finishes hundreds at a time would flood the thread's magazine, and most would
    /// take the return ring. Cleaned to the end is a ring that is full or idle.
    fn clean_reported(&mut self, wanted: u32) {
        let before = self.descriptors.clean();
        while self.descriptors.clean().wrapping_sub(before) < wanted
            && let Some(&report) = self.reports.front()
            && self.descriptors.read::<1>(report) & F::DONE != 0
        {
            self.reports.pop_front();
            self.descriptors.release(report.wrapping_add(1));
        }
    }

    /// Have the card report the descriptor written last, and see to reports that are there.
    #[inline(never)]
    fn report(&mut self) {
        self.reports.push_back(self.descriptors.tail().wrapping_sub(1));
        self.unreported = 0;
        self.clean_reported(self.report_every);
    }

    /// Send packets of one fragment that ask for nothing, until there is another, or no room, or a status report is due. Returns
    /// their bytes.
    ///
    /// In runs up to the next status report, so that the loop has one count to watch; the report is asked for afterwards, in the
    /// last descriptor, which the card does not own before the doorbell.
    #[inline(always)]
    fn send_run(&mut self, queue: &mut Drain<'_>) -> u64 {
        let mut bytes = 0u32;
        let room = (self.report_every - self.unreported) as usize;
        let sent = self.descriptors.send(queue, room, |packet| {
            let len = packet.len() as u32;
            bytes += len;
            [packet.iova(), F::whole(len)]
        });
        self.unreported += sent as u32;
        if self.unreported == self.report_every {
            self.descriptors.set_last::<1>(F::REPORT);
            self.report();
        }
        bytes.into()
    }

    /// Go on after a run. Returns the bytes sent, and the number of packets dropped.
    #[inline(never)]
    fn send_rest(&mut self, queue: &mut Drain<'_>) -> (u64, usize) {
        let (mut bytes, mut errors) = (0, 0);
        loop {
            let before = queue.len();
            bytes += self.send_run(queue);
            if queue.len() == 0 {
                break;
            }
            if queue.len() < before {
                continue;
            }
            // The next packet is not like those before, or the ring is full.
            match self.send_other(queue) {
                Other::Expected => {}
                Other::Sent(sent) => bytes += sent,
                Other::Dropped => errors += 1,
                Other::Waits => break,
            }
        }
        (bytes, errors)
    }

    /// See to the packet at the front, which [`send_run`](TxRing::send_run) did not send.
    #[inline(never)]
    fn send_other(&mut self, queue: &mut Drain<'_>) -> Other {
        let Some(packet) = queue.peek() else { return Other::Waits };
        let plan = self.plan(packet);
        if let Ok(plan) = &plan
            && plan.descriptors > self.descriptors.free()
        {
            self.clean_reported(u32::MAX);
            if plan.descriptors > self.descriptors.free() {
                return Other::Waits;
            }
        }
        if self.descriptors.expect(packet) {
            return Other::Expected;
        }
        let Some(mut packet) = queue.next() else { return Other::Waits };
        let Ok(plan) = plan else {
            self.counters.count_errors(1);
            return Other::Dropped;
        };
        self.begin(&mut packet, &plan);
        let segments = packet.segment_count();
        let mut last = [0; 2];
        for (number, segment) in packet.segments().enumerate() {
            let words = [segment.iova(), F::data(segment.data_len(), plan.told) | plan.options];
            match number + 1 < segments {
                true => self.write(words, None),
                false => last = words,
            }
        }
        last[1] |= F::END;
        // Its count is one more once it is written.
        let report = self.unreported + 1 >= self.report_every;
        if report {
            last[1] |= F::REPORT;
        }
        packet.clear_requests();
        self.write(last, Some(packet));
        if report {
            self.report();
        }
        // The packet itself is counted with its burst.
        self.counters.count(plan.frames - 1, 0);
        Other::Sent(plan.bytes as u64)
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
        if self.unreported == 0 || self.descriptors.free() == 0 {
            return;
        }
        self.write(F::report(self.contexts.last::<F>()), None);
        self.report();
        self.ring_doorbell();
    }

    #[inline(always)]
    fn ring_doorbell(&self) {
        self.doorbell.ring(self.descriptors.tail_index());
    }

    fn write(&mut self, words: [u64; 2], packet: Option<Packet>) {
        self.descriptors.write(words, packet);
        self.unreported += 1;
    }
}

/// What became of a packet that is not like those before it.
enum Other {
    /// It is the first of others like it.
    Expected,
    /// Sent: its bytes.
    Sent(u64),
    /// It is not one that can be sent.
    Dropped,
    /// There is no room for it now.
    Waits,
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
        let (before, tail) = (packets.len(), ring.descriptors.tail());
        let mut queue = packets.drain();
        let mut bytes = ring.send_run(&mut queue);
        let mut errors = 0;
        if queue.len() > 0 {
            let (more, dropped) = ring.send_rest(&mut queue);
            (bytes, errors) = (bytes + more, dropped);
        }
        drop(queue);
        let gone = before - packets.len();
        if ring.descriptors.tail() != tail {
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
            && ring.descriptors.clean() != ring.descriptors.tail()
        {
            ring.clean_reported(u32::MAX);
            // Of what is left, the report is there by one of the next calls.
            ring.request_report();
        }
        before - self.pending()
    }

    fn pending(&self) -> usize {
        let Some(ring) = &self.ring else { return 0 };
        ring.descriptors.packets().map(Packet::segment_count).sum()
    }
}

impl<F: TxFormat> Drop for NicTx<F> {
    fn drop(&mut self) {
        self.device.retire(Way::Transmit, self.number, self.ring.take());
    }
}

impl<F: TxFormat> Left for Option<Box<TxRing<F>>> {
    fn settle(&mut self) -> bool {
        let Some(ring) = self else { return true };
        ring.clean_reported(u32::MAX);
        ring.request_report();
        ring.descriptors.clean() == ring.descriptors.tail()
    }
}

#[cfg(test)]
mod tests;
