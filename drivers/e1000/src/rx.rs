//! The receive path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewire_ethdev::{
    Burst, Chain, DescriptorRing, Error, Packet, PacketFlags, Pool, Posted, QueueCounters, RxQueue,
};
use pagewire_pci::Doorbell;

use crate::descriptor::rx;
use crate::device::Device;
use crate::registers::RDT;

/// Descriptors refilled before the card is told: a doorbell costs more than the rest of a packet.
const REFILL_BATCH: u32 = 32;
/// Longest receive loop between two looks at the pool, within what its cache holds.
const CHUNK: usize = 64;

/// The card's receive queue.
pub struct E1000Rx {
    /// Present until dropped.
    ring: Option<Box<RxRing>>,
    device: Arc<Device>,
}

/// Where in a frame the next descriptor is.
enum Assembly {
    /// At its start.
    Between,
    /// After these segments.
    Partial(Chain),
    /// In one that could not be put together: the rest of it goes too.
    Skipping,
}

/// What a frame may be at most. The card's own limit is that of the longest frame there is.
#[derive(Clone, Copy)]
pub(crate) struct RxLimits {
    /// Bytes.
    frame: usize,
    /// Segments, each but the last of them full.
    segments: u16,
}

impl RxLimits {
    /// For frames of `frame` bytes in buffers of `buffer`.
    pub(crate) fn new(frame: usize, buffer: usize) -> RxLimits {
        RxLimits { frame, segments: frame.div_ceil(buffer) as u16 }
    }
}

/// What the queue counts.
#[derive(Default)]
pub(crate) struct RxCounters {
    pub(crate) queue: QueueCounters,
    /// Those of the queue's errors that were nothing worse.
    pub(crate) longer_than_mtu: AtomicU64,
}

/// Everything the card may write, and how far it has come.
pub(crate) struct RxRing {
    pub(crate) descriptors: DescriptorRing<Posted>,
    /// Next descriptor to look at.
    next: u32,
    /// Descriptors refilled since the last doorbell.
    held: u32,
    refill_batch: u32,
    headroom: u16,
    /// Most bytes of a plain packet: they fit into a fragment after the headroom, and are no more than the frame's limit.
    longest: u16,
    doorbell: Doorbell,
    assembly: Assembly,
    limits: RxLimits,
    counters: Arc<RxCounters>,
    pool: Pool,
}

impl RxRing {
    /// A ring full of posted fragments.
    pub(crate) fn new(
        device: &Device,
        mut pool: Pool,
        descriptors: u32,
        limits: RxLimits,
        counters: Arc<RxCounters>,
    ) -> Result<RxRing, Error> {
        let headroom = pool.headroom();
        // With fewer the longest frame would wait for ever for a fragment that it holds itself.
        let needed = u64::from(descriptors) + u64::from(limits.segments);
        let has = pool.stats().fragments;
        let fragments: Vec<Posted> = (0..descriptors).map_while(|_| pool.alloc()).collect();
        if has < needed || fragments.len() < descriptors as usize {
            return Err(Error::Unsupported {
                port: device.name.clone(),
                what: "receive ring of",
                asked: format!("{descriptors} descriptors"),
                limit: format!(
                    "a pool ({:?}) of {has} fragments for it, where {needed} are needed",
                    pool.name()
                ),
            });
        }
        let mut ring = DescriptorRing::new(&device.space, fragments)?;
        let mut view = ring.view();
        for index in 0..descriptors {
            let words = posted(view.slot(index), headroom);
            view.write(index, words);
        }
        Ok(RxRing {
            descriptors: ring,
            next: 0,
            held: 0,
            refill_batch: REFILL_BATCH.min(descriptors / 4),
            headroom,
            longest: (pool.fragment_size() - usize::from(headroom))
                .min(limits.frame)
                .min(usize::from(u16::MAX)) as u16,
            doorbell: device.registers.doorbell(RDT)?,
            assembly: Assembly::Between,
            limits,
            counters,
            pool,
        })
    }

    /// Hand the ring to the card, whose head is at 0.
    ///
    /// The tail stays one descriptor behind `next`: head equal to tail would mean an empty ring.
    pub(crate) fn ring_doorbell(&mut self) {
        self.doorbell.ring(self.next.wrapping_sub(1) & (self.descriptors.len() - 1));
        self.held = 0;
    }

    /// Take what the card has finished, at most a chunk, and put fresh fragments in its place. Returns packets and bytes.
    ///
    /// In runs of plain packets: whole ones in one fragment with nothing to translate. What ends a run is looked at alone.
    #[inline(always)]
    fn receive(&mut self, out: &mut Burst) -> (usize, u64) {
        let (mut packets, mut bytes) = (0, 0);
        let mut left = out.room().min(CHUNK);
        while left > 0 {
            if matches!(self.assembly, Assembly::Between) {
                let (run, run_bytes) = self.receive_run(out, left);
                (packets, bytes, left) = (packets + run, bytes + run_bytes, left - run);
            }
            if left == 0 || self.descriptors.view().read::<1>(self.next) & rx::DD == 0 {
                break;
            }
            match self.receive_other() {
                Other::None => break,
                Other::Consumed => left -= 1,
                Other::Packet(packet) => {
                    bytes += packet.len() as u64;
                    packets += usize::from(out.push(packet).is_ok());
                    left -= 1;
                }
            }
        }
        (packets, bytes)
    }

    /// The hot loop: plain packets only, no calls.
    #[inline(always)]
    fn receive_run(&mut self, out: &mut Burst, count: usize) -> (usize, u64) {
        const PLAIN: u64 = rx::DD | rx::EOP;
        let (headroom, mut next, mut bytes) = (self.headroom, self.next, 0);
        let longest = self.longest;
        let mut fresh = self.pool.batch(count);
        let mut ring = self.descriptors.view();
        let packets = out.fill(&mut fresh, |fragment| {
            let status = ring.read::<1>(next);
            let len = rx::len(status);
            // A length beyond what is allowed is not plain either.
            if status & (PLAIN | rx::BROKEN | rx::METADATA) != PLAIN || len > longest {
                return None;
            }
            let fragment = fragment.take();
            ring.write(next, posted(&fragment, headroom));
            let done = std::mem::replace(ring.slot(next), fragment);
            next = next.wrapping_add(1);
            bytes += u64::from(len);
            done.complete(headroom, len, PacketFlags::empty()).ok()
        });
        self.next = next;
        (packets, bytes)
    }

    /// The next descriptor, whatever it is.
    #[cold]
    #[inline(never)]
    fn receive_other(&mut self) -> Other {
        let mut ring = self.descriptors.view();
        let status = ring.read::<1>(self.next);
        if status & rx::DD == 0 {
            return Other::None;
        }
        // The replacement first: without one the packet stays where it is.
        let Some(fragment) = self.pool.alloc() else {
            self.counters.queue.count_nombuf();
            return Other::None;
        };
        ring.write(self.next, posted(&fragment, self.headroom));
        let done = std::mem::replace(ring.slot(self.next), fragment);
        self.next = self.next.wrapping_add(1);
        match self.assembly.add(status, done, self.headroom, self.limits, &self.counters) {
            None => Other::Consumed,
            Some(packet) => Other::Packet(packet),
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

/// The descriptor that posts a fragment: its address, and no status.
#[inline(always)]
fn posted(fragment: &Posted, headroom: u16) -> [u64; 2] {
    [fragment.iova() + u64::from(headroom), 0]
}

impl Assembly {
    /// A fragment that is not a whole plain packet: part of a chain, with something to translate, or broken.
    ///
    /// Returns the packet once its end is there.
    fn add(
        &mut self,
        status: u64,
        done: Posted,
        headroom: u16,
        limits: RxLimits,
        counters: &RxCounters,
    ) -> Option<Packet> {
        let end = status & rx::EOP != 0;
        let before = std::mem::replace(self, Assembly::Between);
        let segment = match before {
            Assembly::Skipping => None,
            // Only the last descriptor of a frame says whether it is broken; then all of it goes.
            _ if status & rx::BROKEN != 0 => None,
            _ => done.complete(headroom, rx::len(status), PacketFlags::empty()).ok(),
        };
        let chain = match (before, segment) {
            (Assembly::Between, Some(segment)) => Some(Chain::new(segment)),
            (Assembly::Partial(mut chain), Some(segment)) => chain.push(segment).is_ok().then_some(chain),
            (Assembly::Skipping, _) => {
                *self = if end { Assembly::Between } else { Assembly::Skipping };
                return None;
            }
            (_, None) => None,
        };
        let too_long = |chain: &Chain| chain.len() > limits.frame || chain.segments() > limits.segments;
        if chain.as_ref().is_some_and(too_long) {
            counters.longer_than_mtu.fetch_add(1, Ordering::Relaxed);
        }
        let Some(chain) = chain.filter(|chain| !too_long(chain)) else {
            counters.queue.count_errors(1);
            *self = if end { Assembly::Between } else { Assembly::Skipping };
            return None;
        };
        if !end {
            *self = Assembly::Partial(chain);
            return None;
        }
        let mut packet = chain.finish();
        let flags = rx::flags(status);
        packet.set_flags(flags);
        if flags.contains(PacketFlags::RX_VLAN_STRIPPED) {
            packet.set_vlan_tci(rx::vlan_tci(status));
        }
        Some(packet)
    }

    /// Fragments of the frame so far.
    fn held(&self) -> usize {
        match self {
            Assembly::Partial(chain) => chain.segments().into(),
            _ => 0,
        }
    }
}

impl E1000Rx {
    pub(crate) fn new(ring: RxRing, device: Arc<Device>) -> E1000Rx {
        E1000Rx { ring: Some(Box::new(ring)), device }
    }
}

impl RxQueue for E1000Rx {
    fn rx_burst(&mut self, out: &mut Burst) -> usize {
        let Some(ring) = &mut self.ring else { return 0 };
        let before = ring.next;
        let (packets, bytes) = ring.receive(out);
        let taken = ring.next.wrapping_sub(before);
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
        // The ring leaves only in `drop`.
        &mut self.ring.as_mut().expect("a live queue has its ring").pool
    }

    fn posted(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.descriptors.len() as usize + ring.assembly.held())
    }
}

impl Drop for E1000Rx {
    fn drop(&mut self) {
        self.device.retire(self.ring.take());
    }
}

#[cfg(test)]
mod tests;
