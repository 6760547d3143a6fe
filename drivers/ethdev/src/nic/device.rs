//! The open card as all parts of a driver share it: who may let go of memory, and when.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagewire_pci::{AddressSpace, Function};

use super::card::Card;
use super::filters::Filters;
use super::registers::{Register, Registers};
use crate::error::Error;
use crate::mac::MacAddr;
use crate::wait::poll_until;

/// What a dropped queue leaves behind: memory that the card may still reach.
pub(super) trait Left: Send {
    /// Whether the card has reported all that it was given to send; it is asked for what it was not to report before.
    fn settle(&mut self) -> bool {
        true
    }
}

/// Who has queues, and what of them is left.
#[derive(Default)]
struct Lent {
    in_use: Vec<(Way, usize)>,
    /// What dropped queues left behind. Freed once the card has been reset, or has stopped that queue.
    retired: Vec<(Way, usize, Box<dyn Left>)>,
}

/// Kinds of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Receive,
    Transmit,
}

/// Shared by the port and its queues; the last of them to go stops the card.
pub struct Device {
    /// The port's name.
    pub name: String,
    /// BAR 0.
    pub registers: Registers,
    /// Where its memory is mapped.
    pub space: AddressSpace,
    /// The PCI function.
    pub function: Function,
    reset: fn(&Device) -> Result<(), Error>,
    lent: Mutex<Lent>,
}

impl Device {
    pub(super) fn new<C: Card>(space: &AddressSpace, function: Function) -> Result<Device, Error> {
        let (name, bar) = (function.info().name(), function.bar(0)?);
        // The length is the device's word; every register lies within this. Before anything is written to it.
        if bar.len() < C::BAR_LEN {
            return Err(Error::Device {
                port: name,
                what: "the length of BAR 0",
                found: format!("{:#x}", bar.len()),
                expected: C::BAR_LEN_TEXT,
            });
        }
        Ok(Device {
            name,
            registers: Registers::new(bar),
            space: space.clone(),
            function,
            reset: C::reset,
            lent: Mutex::default(),
        })
    }

    /// [`Error::Device`]: the card holds what no working one holds.
    pub fn error(&self, what: &'static str, found: impl Display, expected: &'static str) -> Error {
        Error::Device { port: self.name.clone(), what, found: found.to_string(), expected }
    }

    /// [`Error::Unsupported`]: more was asked than there is.
    pub fn unsupported(&self, what: &'static str, asked: impl Display, limit: impl Display) -> Error {
        Error::Unsupported {
            port: self.name.clone(),
            what,
            asked: asked.to_string(),
            limit: limit.to_string(),
        }
    }

    /// [`Error::Gone`]: registers read as all ones.
    pub fn gone(&self) -> Error {
        Error::Gone { port: self.name.clone() }
    }

    /// The port's own address, from the first pair of Intel's receive address registers.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the card has not loaded a valid one from its EEPROM.
    pub fn own_address(&self, low: u32, high: u32) -> Result<MacAddr, Error> {
        let mac = Filters::address(low, high);
        match high & Filters::VALID != 0 && mac.is_valid_unicast() {
            true => Ok(mac),
            false => Err(self.error(
                "the Ethernet address in RAL0/RAH0",
                format!("{mac} (RAH0 {high:#010x})"),
                "a valid unicast address from the EEPROM",
            )),
        }
    }

    /// [`Card::reset`].
    pub(super) fn reset(&self) -> Result<(), Error> {
        (self.reset)(self)
    }

    /// A queue has been made, which [`retire`](Device::retire)s when it is dropped.
    pub(super) fn lend(&self, way: Way, queue: usize) {
        self.lent().in_use.push((way, queue));
    }

    /// Whether somebody has the queue.
    pub(super) fn is_in_use(&self, way: Way, queue: usize) -> bool {
        self.lent().in_use.contains(&(way, queue))
    }

    /// A queue is gone: keep what the card may still read or write until the next reset.
    ///
    /// Its unit runs on meanwhile, and what is posted stays posted.
    pub(super) fn retire(&self, way: Way, queue: usize, left: impl Left + 'static) {
        let mut lent = self.lent();
        lent.in_use.retain(|used| *used != (way, queue));
        lent.retired.push((way, queue, Box::new(left)));
    }

    /// Whether a queue left something behind that has not been let go of.
    pub(super) fn has_retired(&self, way: Way, queue: usize) -> bool {
        self.lent().retired.iter().any(|left| (left.0, left.1) == (way, queue))
    }

    /// Wait until the card has reported all that a dropped queue was given to send, at most `limit`. Returns whether it has.
    pub(super) fn settle(&self, way: Way, queue: usize, limit: Duration) -> bool {
        poll_until(limit, || {
            let mut lent = self.lent();
            let mut left = lent.retired.iter_mut().filter(|left| (left.0, left.1) == (way, queue));
            left.all(|(.., left)| left.settle())
        })
    }

    /// The card is done with a queue: let go of what it left behind.
    pub(super) fn release(&self, way: Way, queue: usize) {
        let mut lent = self.lent();
        let left: Vec<_> = lent.retired.extract_if(.., |left| (left.0, left.1) == (way, queue)).collect();
        // Without the lock: what is dropped may log, and a logger may drop a queue.
        drop(lent);
        drop(left);
    }

    /// The card is done with all that dropped queues left behind: let go of it.
    pub(super) fn release_all(&self) {
        let left = std::mem::take(&mut self.lent().retired);
        // Without the lock, as above.
        drop(left);
    }

    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stop the card for good, then let go of what its queues left behind.
    ///
    /// Bus mastering goes off whatever the card does, and after that it reaches no memory.
    pub(super) fn stop(&self) -> Result<(), Error> {
        let reset = self.reset();
        let silenced = self.function.set_bus_master(false);
        // Either is enough to keep the card from memory.
        if reset.is_ok() || silenced.is_ok() {
            self.release_all();
        }
        silenced?;
        reset
    }

    /// Wait for a register, at most `millis`. All ones is what a card that is no longer there reads as, and is never `done`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with what the register read last.
    pub fn wait(
        &self,
        what: &'static str,
        register: Register,
        millis: u64,
        done: impl Fn(u32) -> bool,
    ) -> Result<(), Error> {
        self.wait_at(what, register, 0, millis, done)
    }

    /// [`wait`](Device::wait) for one of an array.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with what the register read last.
    pub fn wait_at(
        &self,
        what: &'static str,
        register: Register,
        index: usize,
        millis: u64,
        done: impl Fn(u32) -> bool,
    ) -> Result<(), Error> {
        let mut value = 0;
        let ended = poll_until(Duration::from_millis(millis), || {
            value = self.registers.read_at(register, index);
            value != u32::MAX && done(value)
        });
        if ended {
            return Ok(());
        }
        let port = self.name.clone();
        Err(Error::Timeout { port, what, millis: millis.into(), register: register.name, value })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            let level = if self.function.config().is_there() { log::Level::Warn } else { log::Level::Debug };
            log::log!(level, "{error}");
        }
        let left = std::mem::take(&mut self.lent().retired);
        if !left.is_empty() {
            log::error!(
                "{}: the card cannot be stopped; the memory it was given is never used again",
                self.name
            );
            std::mem::forget(left);
        }
    }
}
