//! The producer's half: what offers packets and takes them back, on the thread that owns the pool.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pagewire_hugepages::Segment;

use super::attached::Attached;
use super::hub::{Hub, Mailbox, News};
use super::layout::{Piece, SegmentId, words};
use super::stats::Counts;
use super::table::Table;
use super::{Error, wake};
use crate::packet::{Chain, Packet};
use crate::pool::Pool;
use crate::stats::PoolMonitor;

/// Places of the table that one poll looks at for what a consumer left behind.
const SWEEP: u32 = 256;

/// Offers the packets of one pool to the consumers of a server. Made by [`Server::producer`](super::Server::producer).
///
/// It belongs to one thread, like the queue that its packets come from. With nobody attached an offer is one comparison, and
/// a poll three. Dropping it takes back what is still with consumers: [`drain`](Producer::drain) first if they are to be done.
pub struct Producer {
    hub: Arc<Hub>,
    lane: usize,
    mailbox: Arc<Mailbox>,
    pub(super) consumers: Vec<Attached>,
    /// Consumers that have gone, as long as the table has something of theirs.
    leaving: Vec<Leaving>,
    table: Table,
    pub(super) segments: Vec<(SegmentId, Arc<Segment>)>,
    monitor: PoolMonitor,
    /// Where a packet of several fragments lies that is being offered.
    pieces: Vec<Piece>,
    /// When the packets of this burst came, in nanoseconds since 1970.
    time: Option<u64>,
    /// Of consumers that have gone.
    past: Counts,
}

/// A consumer that has gone.
struct Leaving {
    consumer: Attached,
    /// Places of the table from here on may have something of it.
    place: u32,
}

impl Producer {
    pub(super) fn new(hub: Arc<Hub>, name: &str, pool: &Pool) -> Result<Producer, Error> {
        let mailbox = Mailbox::new().map_err(super::error::failed("making an eventfd"))?;
        let mailbox = Arc::new(mailbox);
        let lane = hub.add_lane(name, mailbox.clone())?;
        let places = hub.options.quota * hub.options.consumers;
        let mut producer = Producer {
            hub,
            lane,
            mailbox,
            consumers: Vec::with_capacity(super::MAX_CONSUMERS as usize),
            leaving: Vec::with_capacity(super::MAX_CONSUMERS as usize),
            table: Table::new(places),
            segments: Vec::new(),
            monitor: pool.monitor(),
            pieces: Vec::with_capacity(Chain::MAX_SEGMENTS.into()),
            time: None,
            past: Counts::default(),
        };
        producer.share(pool)?;
        Ok(producer)
    }

    /// The pool has grown or shrunk: consumers are told of new memory, and to let go of what the pool gave up.
    ///
    /// Until they know, packets in new memory are not handed over: [`offer`](Producer::offer) gives them back.
    pub fn share(&mut self, pool: &Pool) -> Result<(), Error> {
        // What a CPU cannot read is not handed over.
        let segments: Vec<_> = pool.segments().into_iter().filter(|segment| segment.is_readable()).collect();
        self.segments.retain(|(_, known)| segments.iter().any(|segment| Arc::ptr_eq(segment, known)));
        let shared = self.hub.set_segments(self.lane, &segments);
        // Nor what it had given up before this producer read that consumers know of it.
        self.mailbox.keep(&segments);
        shared
    }

    /// Whether anybody is attached, as of the last poll.
    #[inline(always)]
    pub fn has_consumers(&self) -> bool {
        !self.consumers.is_empty()
    }

    /// Hands a packet to every consumer that may hold more. They see it from the next [`poll`](Producer::poll) on, and the
    /// packet goes home when the last of them has returned it.
    ///
    /// The packet comes back if nobody took it: nobody is attached, all hold as much as they may, or its memory is not
    /// the pool's or cannot be read by a CPU.
    #[inline]
    pub fn offer(&mut self, packet: Packet) -> Result<(), Packet> {
        if self.consumers.is_empty() { Err(packet) } else { self.hand_over(packet) }
    }

    #[inline(never)]
    fn hand_over(&mut self, packet: Packet) -> Result<(), Packet> {
        let fragments = packet.segment_count();
        let mut holders = 0;
        for consumer in &mut self.consumers {
            if (self.hub.options.quota - consumer.held) as usize >= fragments {
                holders |= consumer.bit;
            } else {
                consumer.fresh.quota_denied += 1;
            }
        }
        if holders == 0 {
            return Err(packet);
        }
        let one;
        let pieces = if fragments == 1 {
            let Some(piece) = locate(&self.segments, packet.as_slice()) else { return Err(packet) };
            one = [piece];
            &one[..]
        } else {
            self.pieces.clear();
            for (number, fragment) in (1..).zip(packet.segments()) {
                let Some(piece) = locate(&self.segments, fragment.as_slice()) else { return Err(packet) };
                self.pieces.push(Piece { more: number < fragments, ..piece });
            }
            &self.pieces[..]
        };
        // The table has a place for every packet that quotas allow.
        let token = self.table.insert(packet, holders)?;
        let time = *self.time.get_or_insert_with(now);
        for consumer in self.consumers.iter_mut().filter(|consumer| holders & consumer.bit != 0) {
            consumer.push(token, time, pieces);
        }
        Ok(())
    }

    /// Once a burst, and when idle: consumers get to see what was offered, what they returned goes home, and so does
    /// everything of those that have gone.
    #[inline]
    pub fn poll(&mut self) {
        if self.mailbox.has_any() {
            self.read_news();
        }
        if !self.consumers.is_empty() {
            self.serve();
        }
        if !self.leaving.is_empty() {
            self.sweep(SWEEP);
        }
    }

    #[inline(never)]
    fn serve(&mut self) {
        self.time = None;
        let mut at = 0;
        while let Some(consumer) = self.consumers.get_mut(at) {
            consumer.publish();
            let good = consumer.collect(&mut self.table);
            consumer.report(&self.monitor);
            match good {
                true => at += 1,
                false => self.evict(at),
            }
        }
    }

    /// Throws a consumer out.
    #[cold]
    fn evict(&mut self, at: usize) {
        self.consumers[at].client.evict();
        self.hub.event.set();
        self.detach(at);
    }

    #[cold]
    #[inline(never)]
    fn read_news(&mut self) {
        for news in self.mailbox.take() {
            match news {
                News::Attached(mut consumer) => {
                    if self.leaving.len() + self.consumers.len() >= super::MAX_CONSUMERS as usize {
                        // The server lets no more in than there are bits: some are those of the ones that have gone.
                        self.sweep(u32::MAX);
                    }
                    let leaving = self.leaving.iter().map(|leaving| &leaving.consumer);
                    let taken = self.consumers.iter().chain(leaving).fold(0, |bits, one| bits | one.bit);
                    consumer.bit = !taken & taken.wrapping_add(1);
                    if consumer.bit != 0 {
                        self.consumers.push(consumer);
                    }
                }
                News::Gone(id) => {
                    if let Some(at) = self.consumers.iter().position(|consumer| consumer.id() == id) {
                        self.detach(at);
                    }
                }
                News::Segment(id, segment) => self.segments.push((id, segment)),
            }
        }
    }

    /// Has nothing more to do with a consumer. What it holds is taken back by [`sweep`](Producer::sweep).
    fn detach(&mut self, at: usize) {
        let mut consumer = self.consumers.swap_remove(at);
        consumer.rings.revoke();
        // What it did return is counted as that.
        consumer.collect(&mut self.table);
        self.leaving.push(Leaving { consumer, place: 0 });
    }

    /// Takes back what consumers hold that have gone, as far as it is in the next places of the table.
    #[cold]
    #[inline(never)]
    fn sweep(&mut self, places: u32) {
        let mut at = 0;
        while let Some(Leaving { consumer, place }) = self.leaving.get_mut(at) {
            let end = place.saturating_add(places).min(self.table.places());
            consumer.fresh.reclaimed += self.table.take_all(*place..end, consumer.bit);
            *place = end;
            at += 1;
            if end == self.table.places() {
                at -= 1;
                let mut consumer = self.leaving.swap_remove(at).consumer;
                consumer.report(&self.monitor);
                self.past.add(&consumer.counts);
                self.hub.bury(consumer);
            }
        }
    }

    /// Packets that are with consumers.
    pub fn outstanding(&self) -> usize {
        self.table.len()
    }

    /// What became of packets so far, over all consumers that there are and were.
    pub fn counts(&self) -> Counts {
        let mut counts = self.past;
        for consumer in self.consumers.iter().chain(self.leaving.iter().map(|leaving| &leaving.consumer)) {
            counts.add(&consumer.counts);
            counts.add(&consumer.fresh);
        }
        counts
    }

    /// Polls, and if that brought nothing sleeps until somebody attaches, leaves or returns something, or the time is up.
    pub fn wait(&mut self, within: Duration) {
        let until = wake::after(within);
        let before = (self.consumers.len(), self.outstanding());
        self.poll();
        if before != (self.consumers.len(), self.outstanding()) {
            return;
        }
        self.consumers.iter().for_each(|consumer| consumer.rings.ask(words::PRODUCER_SLEEPS));
        let sleeps = self.leaving.is_empty() && !self.mailbox.has_any();
        if sleeps && !self.consumers.iter().any(Attached::has_returns) {
            let wakes = self.consumers.iter().map(|consumer| consumer.wake.as_fd());
            let fds: Vec<_> = std::iter::once(self.mailbox.event.as_fd()).chain(wakes).collect();
            if let Err(error) = wake::wait(&fds, Some(until)) {
                log::warn!("waiting for consumers: {error}");
            }
        }
        let mut at = 0;
        while let Some(consumer) = self.consumers.get(at) {
            consumer.rings.ask_no_more(words::PRODUCER_SLEEPS);
            match wake::drain(&consumer.wake) {
                true => at += 1,
                // A closed end would end every wait at once.
                false => self.evict(at),
            }
        }
        self.poll();
    }

    /// Waits until consumers have returned everything. Gives the number of packets that they still hold when the time is up.
    pub fn drain(&mut self, within: Duration) -> usize {
        let until = wake::after(within);
        self.poll();
        while self.outstanding() > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Not for all of it at once: a wake-up that a consumer swallows costs this much.
            self.wait(left.min(Duration::from_millis(50)));
        }
        self.outstanding()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.hub.remove_lane(self.lane);
        while !self.consumers.is_empty() {
            self.detach(0);
        }
        self.sweep(u32::MAX);
    }
}

/// Where a fragment's data is, for those who have the memory elsewhere.
fn locate(segments: &[(SegmentId, Arc<Segment>)], data: Option<&[u8]>) -> Option<Piece> {
    let data = data?;
    segments.iter().find_map(|(id, segment)| {
        let offset = data.as_ptr().addr().checked_sub(segment.as_ptr().addr().get())?;
        let inside = offset < segment.len();
        inside.then_some(Piece { segment: *id, more: false, len: data.len() as u32, offset: offset as u64 })
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
