//! The receive path for frames that are put together: headers in fragments of their own.
//!
//! Not one of the hot loops: what it does a frame costs more than the framework around it.

use std::marker::PhantomData;
use std::sync::Arc;

use pagewire_pci::Doorbell;
use pagewire_pool::{Burst, Packet, PacketFlags, Pool, Posted};

use super::super::device::Device;
use super::{Assembly, CHUNK, REFILL_BATCH, RxCounters, RxFormat, RxLimits, few_fragments};
use crate::config::RxOffloads;
use crate::error::Error;
use crate::ring::DescriptorRing;

/// Fragments of one kind: where they come from, and what the card has been promised of each.
pub(crate) struct Source {
    pool: Pool,
    headroom: u16,
    /// Bytes of the smallest fragment that may be posted.
    smallest: usize,
}

impl Source {
    /// Fragments into which the card may write `buffer` bytes after the pool's headroom.
    pub(crate) fn new(pool: Pool, buffer: usize) -> Source {
        let headroom = pool.headroom();
        Source { pool, headroom, smallest: buffer + usize::from(headroom) }
    }

    /// One to post. The pool may have been exchanged for one of smaller fragments, which the card must not get.
    fn alloc(&mut self) -> Option<Posted> {
        self.pool.alloc().filter(|fragment| fragment.size() >= self.smallest)
    }

    fn iova(&self, fragment: &Posted) -> u64 {
        fragment.iova() + u64::from(self.headroom)
    }
}

/// What a descriptor has posted.
pub(super) struct Slot {
    data: Posted,
    header: Posted,
}

/// A receive ring whose descriptors have two buffers each.
pub(crate) struct AssembledRing<F> {
    pub(super) descriptors: DescriptorRing<Slot>,
    pub(super) next: u32,
    /// Descriptors refilled since the last doorbell.
    held: u32,
    refill_batch: u32,
    data: Source,
    headers: Source,
    assembly: Assembly,
    limits: RxLimits,
    offloads: RxOffloads,
    doorbell: Doorbell,
    counters: Arc<RxCounters>,
    format: PhantomData<F>,
}

impl<F: RxFormat> AssembledRing<F> {
    /// A ring full of posted fragments.
    pub(crate) fn new(
        device: &Device,
        [mut data, mut headers]: [Source; 2],
        descriptors: u32,
        limits: RxLimits,
        offloads: RxOffloads,
        doorbell: Doorbell,
        counters: Arc<RxCounters>,
    ) -> Result<AssembledRing<F>, Error> {
        // The header is a segment too.
        let limits = RxLimits { segments: limits.segments + 1, ..limits };
        let needed = u64::from(descriptors) + u64::from(limits.segments);
        let mut slots = Vec::new();
        slots.extend(
            (0..descriptors).map_while(|_| Some(Slot { data: data.alloc()?, header: headers.alloc()? })),
        );
        let short = slots.len() < descriptors as usize;
        for source in [&mut data, &mut headers] {
            if source.pool.stats().fragments < needed || (short && source.alloc().is_none()) {
                return Err(few_fragments(device, &source.pool, descriptors, needed));
            }
        }
        let words: Vec<[u64; 2]> =
            slots.iter().map(|slot| [data.iova(&slot.data), headers.iova(&slot.header)]).collect();
        let mut ring = DescriptorRing::new(&device.space, slots)?;
        let mut view = ring.view();
        words.into_iter().zip(0..).for_each(|(words, index)| view.write(index, words));
        Ok(AssembledRing {
            descriptors: ring,
            next: 0,
            held: 0,
            refill_batch: REFILL_BATCH.min(descriptors / 4),
            data,
            headers,
            assembly: Assembly::Between,
            limits,
            offloads,
            doorbell,
            counters,
            format: PhantomData,
        })
    }

    /// Where the card finds the first descriptor, and bytes of the ring.
    pub(crate) fn place(&self) -> (u64, u32) {
        (self.descriptors.iova(), self.descriptors.bytes())
    }

    pub(crate) fn ring_doorbell(&mut self) {
        self.doorbell.ring(self.next.wrapping_sub(1) & (self.descriptors.len() - 1));
        self.held = 0;
    }

    pub(crate) fn pool(&mut self) -> &mut Pool {
        &mut self.data.pool
    }

    #[cfg(test)]
    pub(crate) fn headers(&mut self) -> &mut Pool {
        &mut self.headers.pool
    }

    /// Fragments in the ring and in a frame that has not ended.
    pub(crate) fn posted(&self) -> usize {
        2 * self.descriptors.len() as usize + self.assembly.held()
    }

    /// As [`RxQueue::rx_burst`](crate::RxQueue::rx_burst).
    pub(crate) fn receive(&mut self, out: &mut Burst) -> usize {
        let (mut packets, mut bytes) = (0, 0);
        for _ in 0..out.room().min(CHUNK) {
            let status = self.descriptors.view().read::<1>(self.next);
            if status & F::DONE == 0 {
                break;
            }
            let words = [self.descriptors.view().read::<0>(self.next), status];
            let Some(parts) = self.exchange(words) else {
                self.counters.queue.count_nombuf();
                break;
            };
            self.next = self.next.wrapping_add(1);
            self.held += 1;
            if let Some(packet) = self.add(words, parts) {
                bytes += packet.len() as u64;
                packets += 1;
                // There is room: no more descriptors are looked at.
                let _ = out.push(packet);
            }
        }
        self.counters.queue.count(packets, bytes);
        if self.held >= self.refill_batch {
            self.ring_doorbell();
        }
        packets
    }

    /// Take out of the next descriptor what the card has written to: header and data. `None` if there is not a fresh fragment for each,
    /// and the frame stays where it is. What the card left alone stays posted.
    fn exchange(&mut self, words: [u64; 2]) -> Option<[Option<Posted>; 2]> {
        let (header, data) = (F::header(words) > 0, F::len(words[1]) > 0);
        let fresh_header = if header { Some(self.headers.alloc()?) } else { None };
        let fresh_data = if data { Some(self.data.alloc()?) } else { None };
        let mut view = self.descriptors.view();
        let slot = view.slot(self.next);
        let header = fresh_header.map(|fresh| std::mem::replace(&mut slot.header, fresh));
        let data = fresh_data.map(|fresh| std::mem::replace(&mut slot.data, fresh));
        let words = [self.data.iova(&slot.data), self.headers.iova(&slot.header)];
        view.write(self.next, words);
        Some([header, data])
    }

    /// The packet, if this is its end.
    fn add(&mut self, words: [u64; 2], [header, data]: [Option<Posted>; 2]) -> Option<Packet> {
        let end = words[1] & F::END != 0;
        let broken = words[1] & F::BROKEN != 0;
        let header = header.map(|header| {
            header.complete(self.headers.headroom, F::header(words), PacketFlags::RX_HEADER_SPLIT).ok()
        });
        let data =
            data.map(|data| data.complete(self.data.headroom, F::len(words[1]), PacketFlags::empty()).ok());
        let mut parts = [header, data].into_iter().flatten().map(|part| part.filter(|_| !broken)).peekable();
        let mut packet = None;
        if parts.peek().is_none() {
            // A descriptor of nothing: no card writes such, and no frame has it.
            return self.assembly.extend(end, None, self.limits, &self.counters);
        }
        while let Some(part) = parts.next() {
            let last = end && parts.peek().is_none();
            packet = self.assembly.extend(last, part, self.limits, &self.counters);
        }
        let mut packet = packet?;
        let split = packet.flags() & PacketFlags::RX_HEADER_SPLIT;
        F::describe(words, self.offloads, &mut packet);
        packet.set_flags(packet.flags() | split);
        Some(packet)
    }
}
