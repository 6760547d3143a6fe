//! The receive path for frames that are put together: headers in fragments of their own, or TCP segments that the card coalesced.
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
use crate::posted_ring::written;
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
    header: Option<Posted>,
}

/// Packets that a card coalesces at a time.
const COALESCED: u16 = 32;

/// A receive ring whose descriptors have two buffers each, or whose frames go on in descriptors that are not neighbours.
#[repr(align(128))]
pub(crate) struct AssembledRing<F> {
    pub(super) descriptors: DescriptorRing<Slot>,
    pub(super) next: u32,
    /// Descriptors refilled since the last doorbell.
    held: u32,
    refill_batch: u32,
    data: Source,
    headers: Option<Source>,
    /// By descriptor: the frame that goes on in it.
    frames: Box<[Assembly]>,
    /// Frames that go on somewhere.
    open: u16,
    most_open: u16,
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
        (mut data, mut headers): (Source, Option<Source>),
        descriptors: u32,
        limits: RxLimits,
        offloads: RxOffloads,
        doorbell: Doorbell,
        counters: Arc<RxCounters>,
    ) -> Result<AssembledRing<F>, Error> {
        // Besides those that are coalesced there is one that is not, in descriptors in a row.
        let most_open = 1 + if offloads.contains(RxOffloads::LRO) { COALESCED } else { 0 };
        // The header is a segment too.
        let limits = RxLimits { segments: limits.segments + u16::from(headers.is_some()), ..limits };
        // With fewer the frames under way would wait for ever for fragments that they hold themselves: one of too many descriptors too.
        let needed = u64::from(descriptors) + u64::from(limits.segments) * u64::from(most_open) + 1;
        let mut slots = Vec::new();
        let mut slot = || {
            let header = match &mut headers {
                Some(headers) => Some(headers.alloc()?),
                None => None,
            };
            Some(Slot { data: data.alloc()?, header })
        };
        slots.extend((0..descriptors).map_while(|_| slot()));
        let short = slots.len() < descriptors as usize;
        for source in [Some(&mut data), headers.as_mut()].into_iter().flatten() {
            if source.pool.stats().fragments < needed || (short && source.alloc().is_none()) {
                return Err(few_fragments(device, &source.pool, descriptors, needed));
            }
        }
        let words: Vec<[u64; 2]> = slots.iter().map(|slot| words(&data, headers.as_ref(), slot)).collect();
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
            frames: (0..descriptors).map(|_| Assembly::Between).collect(),
            open: 0,
            most_open,
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
        &mut self.headers.as_mut().expect("a ring with headers").pool
    }

    /// Fragments in the ring and in a frame that has not ended.
    pub(crate) fn posted(&self) -> usize {
        let each = if self.headers.is_some() { 2 } else { 1 };
        each * self.descriptors.len() as usize + self.frames.iter().map(Assembly::held).sum::<usize>()
    }

    /// As [`RxQueue::rx_burst`](crate::RxQueue::rx_burst).
    #[cold]
    #[inline(never)]
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
            let index = self.next;
            self.next = self.next.wrapping_add(1);
            self.held += 1;
            if let Some(packet) = self.add(index, words, parts) {
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
        let fresh_header = match &mut self.headers {
            Some(headers) if F::header(words) > 0 => Some(headers.alloc()?),
            _ => None,
        };
        let fresh_data = if written(words[1]) > 0 { Some(self.data.alloc()?) } else { None };
        let mut view = self.descriptors.view();
        let slot = view.slot(self.next);
        let header = fresh_header.and_then(|fresh| slot.header.replace(fresh));
        let data = fresh_data.map(|fresh| std::mem::replace(&mut slot.data, fresh));
        let posted = self::words(&self.data, self.headers.as_ref(), slot);
        view.write(self.next, posted);
        Some([header, data])
    }

    /// The packet, if this is its end. `index`: of the descriptor.
    fn add(&mut self, index: u32, words: [u64; 2], [header, data]: [Option<Posted>; 2]) -> Option<Packet> {
        let end = words[1] & F::END != 0;
        let broken = words[1] & F::BROKEN != 0;
        let headroom = self.headers.as_ref().map_or(0, |headers| headers.headroom);
        let header = header
            .map(|header| header.complete(headroom, F::header(words), PacketFlags::RX_HEADER_SPLIT).ok());
        let data =
            data.map(|data| data.complete(self.data.headroom, written(words[1]), PacketFlags::empty()).ok());
        let mut parts = [header, data].into_iter().flatten().map(|part| part.filter(|_| !broken)).peekable();
        let mut frame = self.take_frame(index);
        let mut packet = None;
        if parts.peek().is_none() {
            // A descriptor of nothing: no card writes such, and no frame has it.
            frame.extend(end, None, self.limits, &self.counters);
        }
        while let Some(part) = parts.next() {
            let last = end && parts.peek().is_none();
            packet = frame.extend(last, part, self.limits, &self.counters);
        }
        self.put_frame(F::goes_on(words).unwrap_or(index.wrapping_add(1)), frame);
        let mut packet = packet?;
        let kept = packet.flags() & PacketFlags::RX_HEADER_SPLIT;
        F::describe(words, self.offloads, &mut packet);
        packet.set_flags(packet.flags() | kept);
        Some(packet)
    }

    /// The frame that goes on in a descriptor.
    fn take_frame(&mut self, index: u32) -> Assembly {
        let index = index as usize & (self.frames.len() - 1);
        let frame = std::mem::replace(&mut self.frames[index], Assembly::Between);
        self.open -= u16::from(matches!(frame, Assembly::Partial(_)));
        frame
    }

    /// A frame goes on in a descriptor. Of two that do one is no frame, nor is one that is more than a card has at a time: whoever
    /// says so leads us to hold more fragments than there are.
    fn put_frame(&mut self, index: u32, frame: Assembly) {
        if matches!(frame, Assembly::Between) {
            return;
        }
        let mut frame = frame;
        if !matches!(self.take_frame(index), Assembly::Between) || self.open >= self.most_open {
            self.counters.queue.count_errors(1);
            frame = Assembly::Skipping;
        }
        // What is skipped holds nothing.
        let held = matches!(frame, Assembly::Partial(_));
        let index = index as usize & (self.frames.len() - 1);
        self.frames[index] = frame;
        self.open += u16::from(held);
    }
}

/// A descriptor as it is posted.
fn words(data: &Source, headers: Option<&Source>, slot: &Slot) -> [u64; 2] {
    let header = headers.zip(slot.header.as_ref()).map_or(0, |(headers, header)| headers.iova(header));
    [data.iova(&slot.data), header]
}
