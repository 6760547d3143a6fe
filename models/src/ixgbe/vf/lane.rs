//! What the card and one of its virtual functions have between them. Each side does its part when it is polled: neither reaches
//! the other's memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mailbox::Mailbox;
use crate::wire::{Arrival, Frames, Wire};

/// Frames that either way holds: what is more waits in the sender's ring, or is dropped at the receiver's door.
const ROOM: usize = 512;

/// What is between the two.
#[derive(Debug, Default)]
pub(in super::super) struct Lane {
    pub(in super::super) mailbox: Mailbox,
    /// From the card's switch.
    pub(in super::super) inbound: Frames,
    /// To it.
    pub(in super::super) outbound: Frames,
    /// PFVFRE and PFVFTE let it receive and send.
    pub(in super::super) receives: bool,
    pub(in super::super) sends: bool,
    /// Card and interrupts are set for as many pools, as they must be.
    pub(in super::super) interrupts: bool,
    /// The card was reset, and with it all queues.
    pub(in super::super) stop: bool,
    /// It was reset: PFVFLRE has yet to say so.
    pub(in super::super) was_reset: bool,
    /// Frames that it had no descriptors for, which the card has yet to count.
    pub(in super::super) dropped: u32,
    /// The card's LINKS.
    pub(in super::super) links: u32,
    /// Registers of the card's that hold for all functions, and how often they have changed.
    pub(in super::super) common: Vec<(u32, u32)>,
    pub(in super::super) changes: u64,
}

/// A [`Lane`] as both sides have it.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Shared(Arc<Mutex<Lane>>);

impl Shared {
    pub(in super::super) fn lock(&self) -> MutexGuard<'_, Lane> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// A frame for it. False if there is no room, or it may not receive.
    pub(in super::super) fn give(&mut self, frame: &[u8]) -> bool {
        let room = self.receives && self.inbound.len() < ROOM;
        if room {
            self.inbound.push(frame);
        }
        room
    }

    /// All queues stop: what is on its way is lost.
    pub(in super::super) fn stop(&mut self) {
        (self.receives, self.sends) = (false, false);
        self.inbound.clear();
        self.outbound.clear();
    }
}

/// The way to the card's switch, for the transmit side.
impl Wire for Lane {
    fn send(&mut self, frame: &[u8]) -> bool {
        let room = self.outbound.len() < ROOM;
        if room {
            self.outbound.push(frame);
        }
        room
    }

    fn receive(&mut self, _: &mut Vec<u8>) -> Option<Arrival> {
        None
    }
}
