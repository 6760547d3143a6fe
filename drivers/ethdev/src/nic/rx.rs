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

use super::device::{Device, Way};
use super::interrupts::QueueInterrupt;
use crate::config::RxOffloads;
use crate::error::Error;
use crate::interrupt::RxInterrupt;
use crate::port::RxQueue;
use crate::posted_ring::PostedRing;
use crate::stats::QueueCounters;

/// Descriptors refilled before the card is told: a doorbell costs more than the rest of a packet.
const REFILL_BATCH: u32 = 32;
/// Longest receive loop between two looks at the pool, within what its cache holds.
const CHUNK: usize = 64;

/// A receive descriptor of two words. Posted, its first word is the buffer's address and its second is zero; the card writes both.
///
/// What is asked here is in the second word, but for [`describe`](RxFormat::describe).
pub trait RxFormat: Send + 'static {
    /// The card is done with the descriptor.
    const DONE: u64;
    /// It is the last of its frame.
    const END: u64;
    /// The frame is broken: bits that mean so in its last descriptor.
    const BROKEN: u64;

    /// Bytes the card wrote into the buffer, as it says.
    fn len(word: u64) -> u16;

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
    /// One of the two is present until dropped.
    ring: Option<Box<RxRing<F>>>,
    assembled: Option<Box<AssembledRing<F>>>,
    device: Arc<Device>,
    number: usize,
    pub(super) interrupt: Option<QueueInterrupt>,
}

/// How the next descriptors are received. Kept, though the assembly and the offloads say it: to ask both costs the loop a register.
#[derive(Clone, Copy)]
enum Path {
    /// In runs, nothing but the data.
    Plain,
    /// In runs, with what the card found out.
    Describing,
    /// One by one: within a frame.
    Assembling,
}

impl Path {
    fn of(assembly: &Assembly, offloads: RxOffloads) -> Path {
        match assembly {
            Assembly::Between if offloads.is_empty() => Path::Plain,
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

/// Everything the card may write, and how far it has come.
pub(super) struct RxRing<F> {
    pub(super) descriptors: PostedRing,
    /// Next descriptor to look at.
    pub(super) next: u32,
    /// Descriptors refilled since the last doorbell.
    held: u32,
    refill_batch: u32,
    /// What is to be found out about packets.
    offloads: RxOffloads,
    doorbell: Doorbell,
    assembly: Assembly,
    path: Path,
    limits: RxLimits,
    counters: Arc<RxCounters>,
    pool: Pool,
    format: PhantomData<F>,
}

impl<F: RxFormat> RxRing<F> {
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
        let headroom = pool.headroom();
        // With fewer the longest frame would wait for ever for a fragment that it holds itself.
        let needed = u64::from(descriptors) + u64::from(limits.segments);
        let has = pool.stats().fragments;
        let fragments: Vec<Posted> = (0..descriptors).map_while(|_| pool.alloc()).collect();
        if has < needed || fragments.len() < descriptors as usize {
            return Err(few_fragments(device, &pool, descriptors, needed));
        }
        let offloads = offloads - RxOffloads::SCATTER;
        let longest = u16::try_from(limits.frame).unwrap_or(u16::MAX);
        Ok(RxRing {
            descriptors: PostedRing::new(&device.space, fragments, headroom, longest)?,
            next: 0,
            held: 0,
            refill_batch: REFILL_BATCH.min(descriptors / 4),
            offloads,
            doorbell,
            assembly: Assembly::Between,
            path: Path::of(&Assembly::Between, offloads),
            limits,
            counters,
            pool,
            format: PhantomData,
        })
    }

    /// Hand the ring to the card, whose head is at 0.
    ///
    /// The tail stays one descriptor behind `next`: head equal to tail would mean an empty ring.
    pub(super) fn ring_doorbell(&mut self) {
        self.doorbell.ring(self.next.wrapping_sub(1) & (self.descriptors.len() - 1));
        self.held = 0;
    }

    /// Take what the card has finished, at most a chunk, and put fresh fragments in its place. Returns the packets' bytes.
    ///
    /// Nearly always that is one run of whole packets in one fragment each.
    #[inline(always)]
    fn receive(&mut self, out: &mut Burst) -> u64 {
        let most = out.room().min(CHUNK);
        let (packets, bytes) = self.receive_run(out, most);
        if packets < most && self.is_done() {
            return bytes + self.receive_rest(out, most - packets);
        }
        bytes
    }

    /// Whether the card is done with the next descriptor.
    #[inline(always)]
    fn is_done(&mut self) -> bool {
        self.descriptors.read::<1>(self.next) & F::DONE != 0
    }

    /// The hot loop: whole packets only, no calls, up to the end of the ring. Twice in the program, with and without metadata.
    #[inline(always)]
    fn receive_run(&mut self, out: &mut Burst, most: usize) -> (usize, u64) {
        let run = match self.path {
            Path::Plain => self.exchange::<false>(out, most),
            Path::Describing => self.exchange_described(out, most),
            Path::Assembling => (0, 0),
        };
        self.next = self.next.wrapping_add(run.0 as u32);
        run
    }

    /// In a function of its own: two loops in one would cost each of them registers.
    #[inline(never)]
    fn exchange_described(&mut self, out: &mut Burst, most: usize) -> (usize, u64) {
        self.exchange::<true>(out, most)
    }

    #[inline(always)]
    fn exchange<const DESCRIBE: bool>(&mut self, out: &mut Burst, most: usize) -> (usize, u64) {
        let (whole, offloads) = (F::DONE | F::END, self.offloads);
        self.descriptors.exchange::<DESCRIBE>(
            self.next,
            &mut self.pool,
            out,
            most,
            |status| (status & (whole | F::BROKEN) == whole).then(|| F::len(status)),
            |words, packet| F::describe(words, offloads, packet),
        )
    }

    /// Go on where a run ended with more to take: at the start of the ring, or with a descriptor that is to be looked at alone.
    #[cold]
    #[inline(never)]
    fn receive_rest(&mut self, out: &mut Burst, mut left: usize) -> u64 {
        let mut bytes = 0;
        while left > 0 {
            let (packets, run_bytes) = self.receive_run(out, left);
            (bytes, left) = (bytes + run_bytes, left - packets);
            if packets > 0 {
                continue;
            }
            match self.receive_other() {
                Other::None => break,
                Other::Consumed => {}
                Other::Packet(packet) => {
                    bytes += packet.len() as u64;
                    // There is room: `left` counts it.
                    let _ = out.push(packet);
                }
            }
            left -= 1;
        }
        bytes
    }

    /// The next descriptor, whatever it is.
    #[cold]
    #[inline(never)]
    fn receive_other(&mut self) -> Other {
        let status = self.descriptors.read::<1>(self.next);
        if status & F::DONE == 0 {
            return Other::None;
        }
        let words = [self.descriptors.read::<0>(self.next), status];
        // The replacement first: without one, or with one that is too small for the card, the packet stays where it is.
        let fresh = self.pool.alloc();
        let Some(done) = fresh.and_then(|fragment| self.descriptors.replace(self.next, fragment).ok()) else {
            self.counters.queue.count_nombuf();
            return Other::None;
        };
        self.next = self.next.wrapping_add(1);
        let headroom = self.descriptors.headroom();
        let packet = self.assembly.add::<F>(status, done, headroom, self.limits, &self.counters);
        self.path = Path::of(&self.assembly, self.offloads);
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
    pub(super) fn new(ring: RxRing<F>, device: Arc<Device>, number: usize) -> NicRx<F> {
        NicRx { ring: Some(Box::new(ring)), assembled: None, device, number, interrupt: None }
    }

    pub(super) fn new_assembled(ring: AssembledRing<F>, device: Arc<Device>, number: usize) -> NicRx<F> {
        NicRx { ring: None, assembled: Some(Box::new(ring)), device, number, interrupt: None }
    }

    /// Hand the ring to the card.
    pub(super) fn ring_doorbell(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.ring_doorbell();
        }
        if let Some(ring) = &mut self.assembled {
            ring.ring_doorbell();
        }
    }

    #[cold]
    #[inline(never)]
    fn assemble(&mut self, out: &mut Burst) -> usize {
        self.assembled.as_mut().map_or(0, |ring| ring.receive(out))
    }

    #[cfg(test)]
    pub(super) fn ring(&mut self) -> &mut RxRing<F> {
        self.ring.as_mut().expect("a live queue has its ring")
    }
}

impl<F: RxFormat> RxQueue for NicRx<F> {
    fn rx_burst(&mut self, out: &mut Burst) -> usize {
        let Some(ring) = &mut self.ring else { return self.assemble(out) };
        let (next, len) = (ring.next, out.len());
        let bytes = ring.receive(out);
        let (taken, packets) = (ring.next.wrapping_sub(next), out.len() - len);
        if taken > 0 {
            ring.counters.queue.count(packets, bytes);
            ring.held += taken;
            if ring.held >= ring.refill_batch {
                ring.ring_doorbell();
            }
        }
        packets
    }

    fn pool(&mut self) -> &mut Pool {
        // The rings leave only in `drop`.
        match &mut self.ring {
            Some(ring) => &mut ring.pool,
            None => self.assembled.as_mut().expect("a live queue has its ring").pool(),
        }
    }

    fn posted(&self) -> usize {
        match &self.ring {
            Some(ring) => ring.descriptors.len() as usize + ring.assembly.held(),
            None => self.assembled.as_ref().map_or(0, |ring| ring.posted()),
        }
    }

    fn interrupt(&self) -> Option<&dyn RxInterrupt> {
        self.interrupt.as_ref().map(|interrupt| interrupt as &dyn RxInterrupt)
    }
}

impl<F: RxFormat> Drop for NicRx<F> {
    fn drop(&mut self) {
        self.device.retire(Way::Receive, self.number, (self.ring.take(), self.assembled.take()));
    }
}

#[cfg(test)]
mod tests;
