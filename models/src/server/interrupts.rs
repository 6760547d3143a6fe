//! Interrupts: the eventfds that a client wants signalled.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use pagewire_pci::vfio_user::wire;

use super::signal::Signaller;

/// Kinds of interrupt, by VFIO's number.
pub(crate) const INTX: usize = 0;
pub(crate) const MSI: usize = 1;
pub(crate) const MSIX: usize = 2;

/// What an interrupt leads to.
#[derive(Default)]
struct Kind {
    /// One place a vector.
    events: Vec<Option<File>>,
    /// One of them is there.
    on: bool,
}

/// The interrupts of a function, as its client set them up.
pub(crate) struct Interrupts {
    kinds: [Kind; 3],
    /// What reaches eventfds, once there has been one.
    signaller: Option<Signaller>,
    /// The line fired, or was masked, and was not unmasked yet.
    masked: bool,
    /// The line wanted to fire since.
    pending: bool,
}

impl Interrupts {
    /// Of this many vectors of each kind.
    pub(crate) fn new(counts: [u32; 3]) -> Interrupts {
        let kind = |count: u32| Kind { events: (0..count).map(|_| None).collect(), on: false };
        Interrupts { kinds: counts.map(kind), signaller: None, masked: false, pending: false }
    }

    /// How many vectors a kind has.
    pub(crate) fn count(&self, kind: usize) -> u32 {
        self.kinds.get(kind).map_or(0, |kind| kind.events.len() as u32)
    }

    /// Turns all of them off.
    pub(crate) fn clear(&mut self) {
        for kind in &mut self.kinds {
            kind.events.iter_mut().for_each(|event| *event = None);
            kind.on = false;
        }
        (self.masked, self.pending) = (false, false);
    }

    /// Whether there is a vector that a message would signal.
    pub(crate) fn messages(&self) -> bool {
        self.kinds[MSI].on || self.kinds[MSIX].on
    }

    /// Signals a vector of the kind that is on.
    pub(crate) fn fire(&mut self, vector: u16) {
        if self.kinds[MSIX].on {
            self.signal(MSIX, vector.into());
        } else if self.kinds[MSI].on {
            self.signal(MSI, 0);
        } else if self.kinds[INTX].on && self.masked {
            self.pending = true;
        } else if self.kinds[INTX].on {
            self.masked = true;
            self.signal(INTX, 0);
        }
    }

    /// Carries a `DEVICE_SET_IRQS` out; an errno if it makes no sense.
    pub(crate) fn set(&mut self, set: &wire::SetIrqs, data: &[u8], fds: Vec<OwnedFd>) -> Result<(), i32> {
        let (index, count) = (set.index as usize, set.count as usize);
        let kind = self.kinds.get_mut(index).ok_or(libc::EINVAL)?;
        let start = set.start as usize;
        let vectors =
            start..start.checked_add(count).filter(|&end| end <= kind.events.len()).ok_or(libc::EINVAL)?;
        let action = set.flags & (wire::IRQ_MASK | wire::IRQ_UNMASK | wire::IRQ_TRIGGER);
        match (set.flags & !action, action) {
            (wire::IRQ_DATA_NONE, wire::IRQ_TRIGGER) if count == 0 => {
                kind.events.iter_mut().for_each(|event| *event = None);
                kind.on = false;
                if index == INTX {
                    (self.masked, self.pending) = (false, false);
                }
            }
            (wire::IRQ_DATA_NONE, wire::IRQ_TRIGGER) => vectors.for_each(|vector| self.signal(index, vector)),
            (wire::IRQ_DATA_BOOL, wire::IRQ_TRIGGER) if data.len() == count => {
                vectors
                    .zip(data)
                    .filter(|(_, on)| **on != 0)
                    .for_each(|(vector, _)| self.signal(index, vector));
            }
            (wire::IRQ_DATA_EVENTFD, wire::IRQ_TRIGGER) if fds.is_empty() || fds.len() == count => {
                if !fds.iter().all(is_eventfd) {
                    return Err(libc::EINVAL);
                }
                if self.signaller.is_none() {
                    let made = Signaller::new().map_err(|error| {
                        log::error!("eventfds cannot be signalled here, by asynchronous I/O: {error}");
                        error.raw_os_error().unwrap_or(libc::EIO)
                    })?;
                    self.signaller = Some(made);
                }
                let mut fds = fds.into_iter().map(File::from);
                kind.events[vectors].iter_mut().for_each(|event| *event = fds.next());
                kind.on = kind.events.iter().any(Option::is_some);
            }
            (wire::IRQ_DATA_NONE, wire::IRQ_MASK) if index == INTX => self.masked = true,
            (wire::IRQ_DATA_NONE, wire::IRQ_UNMASK) if index == INTX => {
                self.masked = false;
                if std::mem::take(&mut self.pending) {
                    self.fire(0);
                }
            }
            (wire::IRQ_DATA_BOOL | wire::IRQ_DATA_EVENTFD, wire::IRQ_MASK | wire::IRQ_UNMASK) => {
                return Err(libc::ENOTSUP);
            }
            _ => return Err(libc::EINVAL),
        }
        Ok(())
    }

    fn signal(&self, kind: usize, vector: usize) {
        if let Some(Some(event)) = self.kinds[kind].events.get(vector)
            && let Some(signaller) = &self.signaller
            && let Err(error) = signaller.signal(event)
        {
            log::debug!("signalling vector {vector}: {error}");
        }
    }
}

/// Whether a descriptor is an eventfd, and not something that a write to has another effect on.
fn is_eventfd(fd: &OwnedFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .is_ok_and(|target| target.as_os_str() == "anon_inode:[eventfd]")
}
