//! The packets of one producer that are with consumers, and who has which. Nothing here is shared.

use std::ops::Range;

use super::layout::Token;
use crate::packet::Packet;

/// A set of consumers, a bit each.
pub(super) type Holders = u64;

/// Why a return is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// The table has no such place.
    Index,
    /// The place has been emptied, and perhaps used again, since.
    Generation,
    /// The packet is out, but not, or not any more, with who returns it.
    Holder,
}

struct Entry {
    packet: Option<Packet>,
    generation: u32,
    fragments: u16,
    holders: Holders,
}

/// Allocates nothing once it is made.
pub(super) struct Table {
    entries: Box<[Entry]>,
    free: Vec<u32>,
}

impl Table {
    pub(super) fn new(places: u32) -> Table {
        let entry = |_| Entry { packet: None, generation: 0, fragments: 0, holders: 0 };
        Table { entries: (0..places).map(entry).collect(), free: (0..places).rev().collect() }
    }

    /// Packets in it.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Keeps a packet until all of `holders`, at least one, have returned it. Gives it back if the table is full.
    pub(super) fn insert(&mut self, packet: Packet, holders: Holders) -> Result<Token, Packet> {
        let Some(index) = self.free.pop() else { return Err(packet) };
        let entry = &mut self.entries[index as usize];
        entry.fragments = packet.segment_count() as u16;
        (entry.packet, entry.holders) = (Some(packet), holders);
        Ok(Token { index, generation: entry.generation })
    }

    /// One holder's return: how many fragments it held by it, and the packet if it was the last.
    pub(super) fn take_back(&mut self, token: Token, holder: Holders) -> Result<(u16, Option<Packet>), Bad> {
        let entry = self.entries.get_mut(token.index as usize).ok_or(Bad::Index)?;
        if entry.generation != token.generation || entry.packet.is_none() {
            return Err(Bad::Generation);
        }
        if entry.holders & holder == 0 {
            return Err(Bad::Holder);
        }
        entry.holders &= !holder;
        let fragments = entry.fragments;
        Ok((fragments, self.vacate(token.index)))
    }

    /// Places.
    pub(super) fn places(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Takes back what a holder has in these places. Returns how many packets that were.
    pub(super) fn take_all(&mut self, places: Range<u32>, holder: Holders) -> u64 {
        let mut count = 0;
        for index in places {
            let entry = &mut self.entries[index as usize];
            if entry.holders & holder != 0 {
                entry.holders &= !holder;
                count += 1;
                drop(self.vacate(index));
            }
        }
        count
    }

    /// The packet of a place that nobody holds any more.
    fn vacate(&mut self, index: u32) -> Option<Packet> {
        let entry = &mut self.entries[index as usize];
        if entry.holders != 0 {
            return None;
        }
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        entry.packet.take()
    }
}
