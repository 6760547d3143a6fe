//! The transmit path. What a packet that is not plain needs is in `tx/plan.rs`.

mod plan;

use std::marker::PhantomData;
use std::sync::Arc;

use pagewire_pci::Doorbell;
use pagewire_pool::{Burst, Drain, Packet};

use plan::Contexts;
pub use plan::{Encoded, L4, Request};

use super::device::{Device, Left, Way};
use super::retiring::Retiring;
use crate::config::TxOffloads;
use crate::error::Error;
use crate::path::{Path, PathReport, refused};
use crate::port::TxQueue;
use crate::refused::TxRefused;
use crate::stats::QueueCounters;
use crate::transmit_ring::TransmitRing;

/// Descriptors between two status reports: one write-back by the card, one look by us, one bulk return to the pool.
const REPORT_EVERY: u32 = 32;

/// More descriptors than a ring has.
const ALL: u32 = 1 << 30;

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
    /// The context that every packet relies on which asks for none, if any: the first descriptor of a ring.
    const FIRST_CONTEXT: Option<[u64; 2]> = None;

    /// The second word of a data descriptor, but for its length, which is in its lowest bits.
    const DATA: u64;
    /// The lowest bit in it of the packet's length, headers not counted if it is cut into segments; 64 if it is not told.
    const PACKET_LEN: u32;

    /// The second word of a data descriptor of `len` bytes, of a packet of `packet` bytes in all.
    #[inline(always)]
    fn data(len: u16, packet: usize) -> u64 {
        Self::DATA | u64::from(len) | (packet as u64).checked_shl(Self::PACKET_LEN).unwrap_or(0)
    }

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
    ring: Retiring<TxRing<F>>,
}

/// Positions of descriptors that report, in turn: of a ring's, of which each reports once at most.
pub(super) struct Reports {
    positions: Box<[u32]>,
    oldest: u32,
    end: u32,
}

impl Reports {
    fn new(descriptors: u32) -> Reports {
        Reports { positions: vec![0; descriptors as usize].into(), oldest: 0, end: 0 }
    }

    #[inline(always)]
    fn place(&self, number: u32) -> usize {
        number as usize & (self.positions.len() - 1)
    }

    #[inline(always)]
    fn push(&mut self, position: u32) {
        let place = self.place(self.end);
        self.positions[place] = position;
        self.end = self.end.wrapping_add(1);
    }

    #[inline(always)]
    fn oldest(&self) -> Option<u32> {
        (self.oldest != self.end).then(|| self.positions[self.place(self.oldest)])
    }

    #[cfg(test)]
    fn all(&self) -> Vec<u32> {
        (self.oldest..self.end).map(|number| self.positions[self.place(number)]).collect()
    }

    #[inline(always)]
    fn forget_oldest(&mut self) {
        self.oldest = self.oldest.wrapping_add(1);
    }
}

/// Everything the card may read, and how far it has come. Apart from other queues' as [`RxRing`](super::rx::RxRing) is.
#[repr(align(128))]
pub(super) struct TxRing<F> {
    pub(super) descriptors: TransmitRing,
    /// Whether they are written with vector instructions, or why not.
    vector: Result<(), &'static str>,
    /// The position after the last descriptor that reports its status: fewer than `report_every` behind the tail between packets.
    reported: u32,
    /// Descriptors that report, oldest first.
    pub(super) reports: Reports,
    report_every: u32,
    /// Packets at the end of a run that the short way of single packets leaves: the last, before a report; all if the doorbell is more than
    /// a store.
    spared: u32,
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
        let mut ring = TxRing {
            descriptors: TransmitRing::new(&device.space, descriptors, F::SHORTEST as u32, longest as u32)?,
            vector: Err(refused::NOT_WANTED),
            reported: 0,
            reports: Reports::new(descriptors),
            report_every: REPORT_EVERY.min(descriptors / 4),
            spared: if doorbell.is_mapped() { 1 } else { u32::MAX },
            longest,
            offloads,
            contexts: Contexts::of(F::FIRST_CONTEXT),
            doorbell,
            counters,
            format: PhantomData,
        };
        // It is there with the first doorbell.
        if let Some(context) = F::FIRST_CONTEXT {
            ring.descriptors.write(context, None);
        }
        Ok(ring)
    }

    /// Send with vector instructions, if they are `wanted` and the CPU has them.
    pub(super) fn use_vector(&mut self, wanted: bool) {
        self.vector = self.descriptors.use_vector(wanted);
    }

    /// Free what the card has reported done, oldest first, until that was `wanted` descriptors or more.
    ///
    /// With every report that is asked for, as many are wanted as there are between two: one comes home for each that leaves and each
    /// that the receive queue posts anew. A card that finishes hundreds at a time would flood the thread's magazine, and most would
    /// take the return ring. Cleaned to the end is a ring that is full or idle.
    fn clean_reported(&mut self, wanted: u32) {
        let enough = self.descriptors.clean().wrapping_add(wanted);
        while let Some(report) = self.reports.oldest()
            && self.descriptors.read::<1>(report) & F::DONE != 0
        {
            self.reports.forget_oldest();
            self.descriptors.release(report.wrapping_add(1));
            if report.wrapping_add(1).wrapping_sub(enough) as i32 >= 0 {
                break;
            }
        }
    }

    /// Have the card report the descriptor written last, and see to reports that are there.
    #[inline(never)]
    fn report(&mut self) {
        self.reports.push(self.descriptors.tail().wrapping_sub(1));
        self.reported = self.descriptors.tail();
        self.clean_reported(self.report_every);
    }

    /// Send a burst of one packet that is like the last, if the ring need not be seen to.
    #[inline(always)]
    fn send_one(&mut self, packets: &mut Burst) -> bool {
        let Some(len) = self.write_one(packets, self.spared) else { return false };
        self.doorbell.ring_mapped(self.descriptors.tail_index());
        self.counters.count(1, len.into());
        true
    }

    /// All of that but the doorbell and the count, as long as more than `but` are left in the run. Returns the packet's bytes.
    #[inline(always)]
    fn write_one(&mut self, packets: &mut Burst, but: u32) -> Option<u32> {
        let mut len = 0;
        let written = self.descriptors.send_one(packets, but, |packet| {
            // A plain packet is not longer.
            len = u32::from(packet.len() as u16);
            [packet.iova(), F::whole(len)]
        });
        written.then_some(len)
    }

    /// Begin a run up to the next status report.
    fn begin_run(&mut self) -> u32 {
        self.descriptors.begin_run(self.report_every - self.unreported())
    }

    /// Ask for a status report if one is due, in the descriptor written last, which the card does not own before the doorbell.
    #[inline(always)]
    fn see_to_report(&mut self) {
        if self.unreported() == self.report_every {
            self.descriptors.set_last::<1>(F::REPORT);
            self.report();
        }
    }

    /// [`tx_burst`](TxQueue::tx_burst), of any burst.
    #[inline(never)]
    fn send_burst(&mut self, packets: &mut Burst) -> usize {
        if packets.len() == 1 && self.send_single(packets) {
            return 1;
        }
        if self.descriptors.left() < 4 {
            self.begin_run();
        }
        // Nearly always that is all.
        let (sent, bytes) = self.descriptors.send_vector(packets, F::DATA | F::END, F::PACKET_LEN);
        if sent == 0 {
            return self.send_many(packets);
        }
        self.counters.count(sent, bytes);
        self.see_to_report();
        if packets.is_empty() {
            self.ring_doorbell();
            return sent;
        }
        let more = self.send_many(packets);
        if more == 0 {
            self.ring_doorbell();
        }
        sent + more
    }

    /// Send a burst of one packet that is like the last, with which a run begins or ends.
    #[inline(never)]
    fn send_single(&mut self, packets: &mut Burst) -> bool {
        if self.descriptors.left() == 0 && self.begin_run() == 0 {
            return false;
        }
        let Some(len) = self.write_one(packets, 0) else { return false };
        self.see_to_report();
        if self.descriptors.left() == 0 {
            self.begin_run();
        }
        self.ring_doorbell();
        self.counters.count(1, len.into());
        true
    }

    #[inline(never)]
    fn send_many(&mut self, packets: &mut Burst) -> usize {
        let (before, tail) = (packets.len(), self.descriptors.tail());
        let mut queue = packets.drain();
        let mut bytes = self.send_run(&mut queue);
        let mut errors = 0;
        if queue.len() > 0 {
            let (more, dropped) = self.send_rest(&mut queue);
            (bytes, errors) = (bytes + more, dropped);
        }
        drop(queue);
        let gone = before - packets.len();
        if self.descriptors.tail() != tail {
            self.ring_doorbell();
            self.counters.count(gone - errors, bytes);
        } else {
            if errors > 0 {
                // What went before by vector instructions waits for the doorbell still.
                self.ring_doorbell();
            }
            if !packets.is_empty() {
                // What the next packet waits for may be descriptors that nobody has been asked to report.
                self.request_report();
            }
        }
        gone
    }

    /// Send packets of one fragment that ask for nothing, until there is another, or no room, or a status report is due. Returns
    /// their bytes.
    ///
    /// In runs up to the next status report, so that the loop has one count to watch; the report is asked for afterwards, in the
    /// last descriptor, which the card does not own before the doorbell.
    #[inline(always)]
    fn send_run(&mut self, queue: &mut Drain<'_>) -> u64 {
        let mut bytes = 0u32;
        self.begin_run();
        self.descriptors.send(queue, |packet| {
            let len = packet.len() as u32;
            bytes += len;
            [packet.iova(), F::whole(len)]
        });
        self.see_to_report();
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
            self.clean_reported(ALL);
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
                true => self.descriptors.write(words, None),
                false => last = words,
            }
        }
        last[1] |= F::END;
        // Its count is one more once it is written.
        let report = self.unreported() + 1 >= self.report_every;
        if report {
            last[1] |= F::REPORT;
        }
        packet.clear_requests();
        self.descriptors.write(last, Some(packet));
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
        if self.unreported() == 0 || self.descriptors.free() == 0 {
            return;
        }
        self.descriptors.write(F::report(self.contexts.last::<F>()), None);
        self.report();
        self.ring_doorbell();
    }

    #[inline(always)]
    fn ring_doorbell(&self) {
        self.doorbell.ring(self.descriptors.tail_index());
    }

    /// Descriptors since the last that reports its status.
    #[inline(always)]
    fn unreported(&self) -> u32 {
        self.descriptors.tail().wrapping_sub(self.reported)
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
        NicTx { ring: Retiring::new(ring, device, Way::Transmit, number) }
    }

    #[cfg(test)]
    pub(super) fn ring(&mut self) -> &mut TxRing<F> {
        &mut self.ring
    }
}

impl<F: TxFormat> TxQueue for NicTx<F> {
    #[inline]
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        match self.ring.send_one(packets) {
            true => 1,
            false => self.ring.send_burst(packets),
        }
    }

    fn check(&self, packet: &Packet) -> Result<(), TxRefused> {
        self.ring.plan(packet).map(|_| ())
    }

    fn reclaim(&mut self) -> usize {
        let before = self.pending();
        if self.ring.descriptors.clean() != self.ring.descriptors.tail() {
            self.ring.clean_reported(ALL);
            // Of what is left, the report is there by one of the next calls.
            self.ring.request_report();
        }
        before - self.pending()
    }

    fn pending(&self) -> usize {
        self.ring.descriptors.packets().map(Packet::segment_count).sum()
    }

    fn path(&self) -> PathReport {
        match self.ring.vector {
            Ok(()) => PathReport { active: Path::Vector, refused: None },
            Err(why) => PathReport { active: Path::Bulk, refused: Some(why) },
        }
    }
}

impl<F: TxFormat> Left for TxRing<F> {
    fn settle(&mut self) -> bool {
        self.clean_reported(ALL);
        // A context that no packet came to need is nothing that is left to be sent.
        if self.descriptors.packets().next().is_none() {
            return true;
        }
        self.request_report();
        self.descriptors.clean() == self.descriptors.tail()
    }
}

#[cfg(test)]
mod tests;
