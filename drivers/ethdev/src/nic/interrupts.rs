//! What wakes who sleeps: the vectors of receive queues, and the one of the port's events.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use pagewire_pci::Interrupt;

use super::card::Card;
use super::device::Device;
use super::port::Nic;
use super::registers::Register;
use crate::error::Error;
use crate::interrupt::{PortEvents, RxInterrupt};

/// A started port's interrupts.
#[derive(Default)]
pub(super) struct Interrupts {
    /// By queue; none if they have none.
    queues: Vec<Arc<Interrupt>>,
    /// That of the port's events.
    events: Option<Interrupt>,
    /// What it has told and nobody has asked for yet.
    pub(super) happened: PortEvents,
}

impl Interrupts {
    /// For so many receive queues by MSI-X, the events' vector last. If there are to be none for queues, the events' alone: by MSI where MSI-X
    /// fails, or not at all.
    pub(super) fn new(device: &Device, queues: usize) -> Result<Interrupts, Error> {
        let (function, vectors) = (&device.function, u16::try_from(queues + 1).unwrap_or(u16::MAX));
        let mut vectors = match function.enable_msix(vectors) {
            Ok(vectors) => vectors,
            Err(error) if queues > 0 => return Err(error.into()),
            Err(_) => function.enable_msi(1).unwrap_or_else(|error| {
                log::warn!("{}: link changes are polled: no interrupt: {error}", device.name);
                Vec::new()
            }),
        };
        let events = vectors.pop();
        let queues = vectors.into_iter().map(Arc::new).collect();
        Ok(Interrupts { queues, events, happened: PortEvents::empty() })
    }

    pub(super) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(AsFd::as_fd)
    }

    /// A queue's, if they have any.
    pub(super) fn of_queue<C: Card>(&self, device: &Arc<Device>, queue: usize) -> Option<QueueInterrupt> {
        let vector = self.queues.get(queue)?.clone();
        Some(QueueInterrupt { vector, device: device.clone(), queue, arm: C::arm_receive })
    }
}

impl<C: Card> Nic<C> {
    /// Find out what has happened, if an interrupt tells of it, and keep it until somebody asks.
    pub(super) fn look_at_events(&mut self) {
        if let Some(interrupt) = &self.interrupts.events {
            // What happens from here on raises it again.
            let _ = interrupt.try_read();
            self.interrupts.happened |= self.card.take_events(&self.device);
        }
    }
}

impl Device {
    /// Have a cause raise its vector: forget that it has been there, in the register that clears what is written to it, then unmask it. What the
    /// card wrote to memory before is there afterwards: the read brings it along.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the card is.
    pub fn arm(&self, causes: Register, mask: Register, bit: u32) -> Result<(), Error> {
        self.registers.write(causes, bit);
        self.registers.write(mask, bit);
        match self.registers.read(mask) {
            u32::MAX => Err(self.gone()),
            _ => Ok(()),
        }
    }
}

/// The interrupt of a queue.
pub(super) struct QueueInterrupt {
    vector: Arc<Interrupt>,
    device: Arc<Device>,
    queue: usize,
    arm: fn(&Device, usize) -> Result<(), Error>,
}

impl RxInterrupt for QueueInterrupt {
    fn arm(&self) -> Result<(), Error> {
        // Before the card may raise it again.
        self.vector.try_read()?;
        (self.arm)(&self.device, self.queue)
    }
}

impl AsFd for QueueInterrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.vector.as_fd()
    }
}
