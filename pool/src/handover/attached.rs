//! A producer's end of the lane to one consumer: what is written for it, and what of its returns is believed.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::layout::{Offer, Piece, Token, words};
use super::memory::Rings;
use super::stats::{Client, Counts};
use super::table::{Bad, Holders, Table};
use super::wake;
use crate::stats::PoolMonitor;

/// Returns that one poll takes from one consumer: what more there are waits for the next.
const BUDGET: u64 = 64;
/// Bad returns after which a consumer is thrown out. An honest one makes none.
const PATIENCE: u64 = 1024;

/// A producer's end of the lane to one consumer.
pub(super) struct Attached {
    pub(super) client: Arc<Client>,
    pub(super) rings: Rings,
    pub(super) wake: UnixStream,
    /// Its bit in the table; none until the producer has read the news.
    pub(super) bit: Holders,
    /// Positions in the rings.
    offered: u64,
    published: u64,
    returned: u64,
    /// Fragments it holds.
    pub(super) held: u32,
    pub(super) counts: Counts,
    /// What of `counts` the client's own have yet to get.
    pub(super) fresh: Counts,
}

impl Attached {
    pub(super) fn new(client: Arc<Client>, rings: Rings, wake: UnixStream) -> Attached {
        let (counts, fresh) = (Counts::default(), Counts::default());
        Attached {
            client,
            rings,
            wake,
            bit: 0,
            offered: 0,
            published: 0,
            returned: 0,
            held: 0,
            counts,
            fresh,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.client.id
    }

    pub(super) fn push(&mut self, token: Token, time: u64, pieces: &[Piece]) {
        for &piece in pieces {
            self.rings.write_offer(self.offered, Offer { time, token, piece });
            self.offered = self.offered.wrapping_add(1);
        }
        self.held += pieces.len() as u32;
        self.fresh.handed += 1;
    }

    pub(super) fn publish(&mut self) {
        if self.published != self.offered {
            self.published = self.offered;
            if self.rings.publish(words::OFFERED, self.offered, words::CONSUMER_SLEEPS) {
                wake::poke(&self.wake);
            }
        }
    }

    pub(super) fn has_returns(&self) -> bool {
        self.rings.position(words::RETURNED) != self.returned
    }

    /// Takes back what was returned. `false` if this consumer is to be thrown out.
    pub(super) fn collect(&mut self, table: &mut Table) -> bool {
        let waiting = self.rings.position(words::RETURNED).wrapping_sub(self.returned);
        if waiting > self.rings.slots().into() {
            return false;
        }
        for _ in 0..waiting.min(BUDGET) {
            let token = self.rings.read_return(self.returned);
            self.returned = self.returned.wrapping_add(1);
            match table.take_back(token, self.bit) {
                Ok((fragments, packet)) => {
                    self.held -= u32::from(fragments);
                    self.fresh.returned += 1;
                    drop(packet);
                }
                Err(Bad::Index) => self.fresh.bad_index += 1,
                Err(Bad::Generation) => self.fresh.stale_generation += 1,
                Err(Bad::Holder) => self.fresh.not_holder += 1,
            }
        }
        self.counts.bad_returns() + self.fresh.bad_returns() <= PATIENCE
    }

    /// Tells what has been counted since the last time.
    pub(super) fn report(&mut self, monitor: &PoolMonitor) {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh == Counts::default() {
            return;
        }
        self.counts.add(&fresh);
        self.client.count(&fresh);
        // Not `stats::add`: other producers of the same pool's packets count here too.
        let published = &monitor.published;
        if fresh.quota_denied > 0 {
            published.quota_denied.fetch_add(fresh.quota_denied, Ordering::Relaxed);
        }
        if fresh.bad_returns() > 0 {
            published.stale_generation.fetch_add(fresh.bad_returns(), Ordering::Relaxed);
        }
    }
}
