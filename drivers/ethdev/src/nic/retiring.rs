//! A queue's ring, which the card may reach for longer than the queue lives.

// Moves the ring out in `drop`, without asking on every access whether it is still there.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::device::{Device, Left, Way};

/// A ring that is handed to the device when its queue is dropped, which keeps it until the card is done with it.
pub(super) struct Retiring<R: Left + 'static> {
    /// Moved out by `drop` alone.
    ring: ManuallyDrop<Box<R>>,
    device: Arc<Device>,
    way: Way,
    number: usize,
}

impl<R: Left + 'static> Retiring<R> {
    pub(super) fn new(ring: R, device: Arc<Device>, way: Way, number: usize) -> Retiring<R> {
        Retiring { ring: ManuallyDrop::new(Box::new(ring)), device, way, number }
    }
}

impl<R: Left + 'static> Deref for Retiring<R> {
    type Target = R;

    #[inline(always)]
    fn deref(&self) -> &R {
        &self.ring
    }
}

impl<R: Left + 'static> DerefMut for Retiring<R> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut R {
        &mut self.ring
    }
}

impl<R: Left + 'static> Drop for Retiring<R> {
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        let ring = unsafe { ManuallyDrop::take(&mut self.ring) };
        self.device.retire(self.way, self.number, *ring);
    }
}
