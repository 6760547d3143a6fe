//! The receive path. Frames that are put together from more than a ring's buffers in a row are in `rx/assembled.rs`.

mod assembled;
mod assembly;

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use pagewire_pci::Doorbell;
use pagewire_pool::{Burst, Packet, Pool, Posted};

pub(super) use assembled::{AssembledRing, Source};
use assembly::Assembly;
pub(super) use assembly::RxLimits;

use super::device::{Device, Left, Way};
use super::interrupts::QueueInterrupt;
use super::retiring::Retiring;
use crate::config::RxOffloads;
use crate::error::Error;
use crate::interrupt::RxInterrupt;
use crate::path::{self, PathReport, refused};
use crate::port::RxQueue;
use crate::posted_ring::{PostedRing, Whole};
use crate::stats::QueueCounters;

/// Descriptors refilled before the card is told: a doorbell costs more than the rest of a packet.
const REFILL_BATCH: u32 = 32;
/// Descriptors that one call looks at one by one, at least.
const CHUNK: usize = 64;

/// A receive descriptor of two words. Posted, its first word is the buffer's address and its second is zero; the card writes both.
///
/// What is asked here is in the second word, but for [`describe`](RxFormat::describe); all bits named are among its lower 32, and bits 32 to 47
/// are how many bytes the card wrote.
pub trait RxFormat: Send + 'static {
    /// The card is done with the descriptor.
    const DONE: u64;
    /// It is the last of its frame.
    const END: u64;
    /// The frame is broken: bits that mean so in its last descriptor.
    const BROKEN: u64;

    /// Put what the card found out about the packet into its metadata. `offloads`: what it was set up to find out
    /// ([`Card::finds_out`](super::Card::finds_out)); cards say more than that, and not always what it seems.
    fn describe(words: [u64; 2], offloads: RxOffloads, packet: &mut Packet);

    /// Bytes that the card wrote into the header's buffer, of a descriptor that has one: its second word, posted.
    fn header(_words: [u64; 2]) -> u16 {
        0
    }

    /// The descriptor in which a coalesced packet goes on, of which this one is not the last. `None`: in the next, as all others.
    fn goes_on(_words: [u64; 2]) -> Option<u32> {
        None
    }
}

/// A receive queue of a card with descriptors of format `F`.
pub struct NicRx<F: RxFormat> {
    ring: Retiring<Ring<F>>,
    pub(super) interrupt: Option<QueueInterrupt>,
}

/// A receive queue's ring, of one of two kinds.
#[expect(clippy::large_enum_variant, reason = "it is boxed")]
pub(super) enum Ring<F> {
    /// Frames lie in descriptors in a row, of one buffer each.
    Posted(RxRing<F>),
    /// They are put together.
    Assembled(Box<AssembledRing<F>>),
}

/// How the next descriptors are received. Kept, though the assembly and the offloads say it: to ask both costs the loop a register.
#[derive(Clone, Copy)]
enum Path {
    /// In fours, nothing but the data.
    Vector,
    /// In runs, nothing but the data.
    Bulk,
    /// In runs, with what the card found out.
    Describing,
    /// One by one: within a frame.
    Assembling,
}

impl Path {
    fn of(assembly: &Assembly, offloads: RxOffloads, vector: bool) -> Path {
        match assembly {
            Assembly::Between if offloads.is_empty() && vector => Path::Vector,
            Assembly::Between if offloads.is_empty() => Path::Bulk,
            Assembly::Between => Path::Describing,
            _ => Path::Assembling,
        }
    }
}

/// A pool has not as many fragments as a ring needs.
fn few_fragments(device: &Device, pool: &Pool, descriptors: u32, needed: u64) -> Error {
    let (name, has) = (pool.name(), pool.stats().fragments);
    let limit = format!("a pool ({name:?}) of {has} fragments for it, where {needed} are needed");
    device.unsupported("receive ring of", format!("{descriptors} descriptors"), limit)
}

/// What a queue counts.
#[derive(Default)]
pub(super) struct RxCounters {
    pub(super) queue: QueueCounters,
    /// Those of the queue's errors that were nothing worse.
    pub(super) longer_than_mtu: AtomicU64,
}

/// Everything the card may write, and how far it has come. Of two queues on two cores no line is shared, nor the pair of lines that a
/// core fetches together.
#[repr(align(128))]
pub(super) struct RxRing<F> {
    pub(super) descriptors: PostedRing,
    /// Where the next descriptor is when the card is to be told of what was refilled.
    doorbell_at: u32,
    refill_batch: u32,
    /// What is to be found out about packets.
    offloads: RxOffloads,
    doorbell: Doorbell,
    assembly: Assembly,
    path: Path,
    /// Whether whole packets are taken with vector instructions, or why not.
    vector: Result<(), &'static str>,
    limits: RxLimits,
    counters: Arc<RxCounters>,
    format: PhantomData<F>,
}

impl<F: RxFormat> RxRing<F> {
    const WHOLE: Whole =
        Whole { mask: (F::DONE | F::END | F::BROKEN) as u32, bits: (F::DONE | F::END) as u32 };

    /// A ring full of posted fragments.
    pub(super) fn new(
        device: &Device,
        mut pool: Pool,
        descriptors: u32,
        limits: RxLimits,
        offloads: RxOffloads,
        doorbell: Doorbell,
        counters: Arc<RxCounters>,
    ) -> Result<RxRing<F>, Error> {
        // With fewer a frame of too many descriptors would wait for ever for a fragment that it holds itself.
        let needed = u64::from(descriptors) + u64::from(limits.segments) + 1;
        let has = pool.stats().fragments;
        let fragments: Vec<Posted> = (0..descriptors).map_while(|_| pool.alloc()).collect();
        if has < needed || fragments.len() < descriptors as usize {
            return Err(few_fragments(device, &pool, descriptors, needed));
        }
        let offloads = offloads - RxOffloads::SCATTER;
        let longest = u16::try_from(limits.frame).unwrap_or(u16::MAX);
        Ok(RxRing {
            descriptors: PostedRing::new(&device.space, pool, fragments, longest)?,
            doorbell_at: 0,
            refill_batch: REFILL_BATCH.min(descriptors / 4),
            offloads,
            doorbell,
            assembly: Assembly::Between,
            path: Path::of(&Assembly::Between, offloads, false),
            vector: Err(refused::NOT_WANTED),
            limits,
            counters,
            format: PhantomData,
        })
    }

    /// Hand the ring to the card, whose head is at 0.
    pub(super) fn ring_doorbell(&mut self) {
        self.doorbell.ring(self.descriptors.tail_index());
        self.doorbell_at = self.descriptors.next().wrapping_add(self.refill_batch);
    }

    /// [`rx_burst`](RxQueue::rx_burst), of any burst: take what the card has finished, and put fresh fragments in its place.
    #[inline(never)]
    fn receive(&mut self, out: &mut Burst) -> usize {
        let vector = match self.path {
            Path::Vector => true,
            Path::Bulk => false,
            _ => return self.receive_many(out),
        };
        if self.descriptors.left() < 4 {
            self.begin_run();
            if out.push_last(|| self.receive_one()) {
                return 1;
            }
        }
        let (packets, bytes) = match vector {
            true => self.descriptors.take_vector(out, Self::WHOLE),
            false => self.receive_bulk(out),
        };
        if packets > 0 {
            self.counters.queue.count(packets, bytes);
            // Nearly always that is all.
            if out.room() == 0 {
                return packets;
            }
        }
        packets + self.receive_many(out)
    }

    /// The loop without vector instructions: whole packets only, no calls, up to the end of the run.
    #[inline(never)]
    fn receive_bulk(&mut self, out: &mut Burst) -> (usize, u64) {
        self.descriptors.take::<false>(out, Self::WHOLE, |_, _| {})
    }

    /// Take packets with vector instructions, if they are `wanted` and the CPU has them.
    pub(super) fn use_vector(&mut self, wanted: bool) {
        self.vector = self.descriptors.use_vector(wanted);
        self.path = Path::of(&self.assembly, self.offloads, self.vector.is_ok());
    }

    fn report(&self) -> PathReport {
        match self.vector {
            _ if !self.offloads.is_empty() => {
                PathReport { active: path::Path::Bulk, refused: Some(refused::DESCRIBING) }
            }
            Err(why) => PathReport { active: path::Path::Bulk, refused: Some(why) },
            Ok(()) => PathReport { active: path::Path::Vector, refused: None },
        }
    }

    /// Tell the card of what has been posted since the last doorbell, if that is enough.
    fn tell_card(&mut self) {
        if self.descriptors.next().wrapping_sub(self.doorbell_at) as i32 >= 0 {
            self.ring_doorbell();
        }
    }

    /// The same, and begin a run up to the next doorbell.
    fn begin_run(&mut self) {
        self.tell_card();
        self.descriptors.begin_run(self.doorbell_at.wrapping_sub(self.descriptors.next()));
    }

    /// Take what the card has finished, at most a chunk, one by one: in runs as long as they are whole packets in one fragment each.
    #[inline(never)]
    fn receive_many(&mut self, out: &mut Burst) -> usize {
        let (next, len) = (self.descriptors.next(), out.len());
        let (mut left, mut bytes) = (CHUNK, 0);
        while left > 0 && out.room() > 0 && self.is_done() {
            let (packets, run_bytes) = self.receive_run(out);
            (bytes, left) = (bytes + run_bytes, left.saturating_sub(packets));
            if packets > 0 {
                continue;
            }
            match self.receive_other() {
                Other::None => break,
                Other::Consumed => {}
                Other::Packet(packet) => {
                    bytes += packet.len() as u64;
                    // There is room: just asked.
                    let _ = out.push(packet);
                }
            }
            left -= 1;
        }
        if self.descriptors.next() != next {
            self.counters.queue.count(out.len() - len, bytes);
        }
        out.len() - len
    }

    /// Take one packet that is like most, if the ring need not be seen to.
    #[inline(always)]
    fn receive_one(&mut self) -> Option<Packet> {
        let (packet, bytes) = self.descriptors.take_one(Self::WHOLE)?;
        self.counters.queue.count(1, bytes);
        Some(packet)
    }

    /// Whether the card is done with the next descriptor.
    #[inline(always)]
    fn is_done(&mut self) -> bool {
        self.descriptors.read::<1>(0) & F::DONE != 0
    }

    fn receive_run(&mut self, out: &mut Burst) -> (usize, u64) {
        match self.path {
            Path::Vector | Path::Bulk => {
                if self.descriptors.left() == 0 {
                    self.begin_run();
                }
                self.receive_bulk(out)
            }
            Path::Describing => self.receive_described(out),
            Path::Assembling => {
                self.tell_card();
                (0, 0)
            }
        }
    }

    /// [`receive_bulk`](RxRing::receive_bulk) with what the card found out.
    #[inline(never)]
    fn receive_described(&mut self, out: &mut Burst) -> (usize, u64) {
        let offloads = self.offloads;
        self.begin_run();
        let taken = self.descriptors.take::<true>(out, Self::WHOLE, |words, packet| {
            F::describe(words, offloads, packet);
        });
        // `receive_one` describes nothing.
        self.descriptors.end_run();
        taken
    }

    /// The next descriptor, whatever it is.
    #[cold]
    #[inline(never)]
    fn receive_other(&mut self) -> Other {
        let status = self.descriptors.read::<1>(0);
        if status & F::DONE == 0 {
            return Other::None;
        }
        let words = [self.descriptors.read::<0>(0), status];
        // The replacement first: without one, or with one that is too small for the card, the packet stays where it is.
        let Some(done) = self.descriptors.replace() else {
            self.counters.queue.count_nombuf();
            return Other::None;
        };
        let headroom = self.descriptors.headroom();
        let packet = self.assembly.add::<F>(status, done, headroom, self.limits, &self.counters);
        self.path = Path::of(&self.assembly, self.offloads, self.vector.is_ok());
        match packet {
            None => Other::Consumed,
            Some(mut packet) => {
                if !self.offloads.is_empty() {
                    F::describe(words, self.offloads, &mut packet);
                }
                Other::Packet(packet)
            }
        }
    }
}

/// What [`RxRing::receive_other`] found.
enum Other {
    /// Nothing, or nothing that can be taken now.
    None,
    /// Part of a packet.
    Consumed,
    /// A packet, or its end.
    Packet(Packet),
}

impl<F: RxFormat> NicRx<F> {
    pub(super) fn new(ring: Ring<F>, device: Arc<Device>, number: usize) -> NicRx<F> {
        NicRx { ring: Retiring::new(ring, device, Way::Receive, number), interrupt: None }
    }

    /// Hand the ring to the card.
    pub(super) fn ring_doorbell(&mut self) {
        match &mut *self.ring {
            Ring::Posted(ring) => ring.ring_doorbell(),
            Ring::Assembled(ring) => ring.ring_doorbell(),
        }
    }

    #[cfg(test)]
    pub(super) fn ring(&mut self) -> &mut RxRing<F> {
        let Ring::Posted(ring) = &mut *self.ring else { panic!("a queue that assembles frames") };
        ring
    }

    #[cfg(test)]
    pub(super) fn assembled(&mut self) -> &mut AssembledRing<F> {
        let Ring::Assembled(ring) = &mut *self.ring else { panic!("a queue that assembles no frames") };
        ring
    }
}

impl<F: RxFormat> RxQueue for NicRx<F> {
    #[inline]
    fn rx_burst(&mut self, out: &mut Burst) -> usize {
        match &mut *self.ring {
            Ring::Posted(ring) => match out.push_last(|| ring.receive_one()) {
                true => 1,
                false => ring.receive(out),
            },
            Ring::Assembled(ring) => ring.receive(out),
        }
    }

    fn pool(&mut self) -> &mut Pool {
        match &mut *self.ring {
            Ring::Posted(ring) => ring.descriptors.pool(),
            Ring::Assembled(ring) => ring.pool(),
        }
    }

    fn posted(&self) -> usize {
        match &*self.ring {
            Ring::Posted(ring) => ring.descriptors.len() as usize + ring.assembly.held(),
            Ring::Assembled(ring) => ring.posted(),
        }
    }

    fn path(&self) -> PathReport {
        match &*self.ring {
            Ring::Posted(ring) => ring.report(),
            Ring::Assembled(_) => {
                PathReport { active: path::Path::Assembled, refused: Some(refused::ASSEMBLING) }
            }
        }
    }

    fn interrupt(&self) -> Option<&dyn RxInterrupt> {
        self.interrupt.as_ref().map(|interrupt| interrupt as &dyn RxInterrupt)
    }
}

impl<F: RxFormat> Left for Ring<F> {}

#[cfg(test)]
mod tests;
