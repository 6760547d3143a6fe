//! A virtual function of the card (8086:10ed; 8086:1515 of the X540, 8086:1565 of the X550, 8086:15a8 of the X552; 82599 datasheet 7.10.2, 8.3): what a driver of one pool's queues is given, as a PCI
//! function with memory, interrupts and bus mastering of its own.
//!
//! The card's descriptor engines serve its rings, on its own bus. Frames go to and come from the card's [switch](super::switch), and
//! with the mailbox that is all that the two have in common. Modelled apart from that: the queues are not to be seen among the card's.

pub(super) mod lane;
mod mailbox;
mod table;

use std::sync::Arc;

use super::Card;
use super::bus::{Bus, Control};
use super::clock::Clock;
use super::interrupts::{GPIE_AUTO_MASK, GPIE_MSIX, Interrupts};
use super::kind::Kind;
use super::msix::{self, Msix};
use super::pci::{self, ConfigSpace, Identity};
use super::receive::Receive;
use super::registers::{Registers, Unit};
use super::switch::Switch;
use super::table::*;
use super::transmit::Transmit;
use crate::function::{Function, Host, Region, RegionInfo};
use crate::wire::Frames;
use lane::Shared;
pub(super) use mailbox::WORDS;
use table::{BAR_SIZE, Meaning};

/// Which BAR holds the MSI-X table, and its vectors.
const MSIX_BAR: u8 = 3;
const VECTORS: u16 = 3;
const RESET: u32 = 1 << 26;
const RXEN: u32 = 1 << 0;
const TE: u32 = 1 << 0;

/// A virtual function.
pub struct Vf {
    number: u16,
    lane: Shared,
    registers: Registers,
    pci: ConfigSpace,
    msix: Msix,
    interrupts: Interrupts,
    receive: Receive,
    transmit: Transmit,
    /// It has none: its own is empty.
    switch: Switch,
    clock: Clock,
    control: Arc<Control>,
    arrived: Frames,
    frame: Vec<u8>,
    /// The card's registers that hold for all functions, as of this change.
    changes: u64,
    /// The card lets its interrupts out.
    interrupting: bool,
    master: bool,
}

impl Vf {
    pub(super) fn new(number: u16, kind: Kind, lane: Shared, clock: &Clock) -> Self {
        let device = kind.function_device();
        let identity = Identity { device, registers: BAR_SIZE, msix_bar: MSIX_BAR, serial: None };
        let mut vf = Self {
            number,
            lane,
            registers: Registers::of(kind),
            pci: ConfigSpace::new(identity, VECTORS),
            msix: Msix::new(VECTORS),
            interrupts: Interrupts::new(clock.clone()),
            receive: Receive::new(),
            transmit: Transmit::of_function(),
            switch: Switch::new(0),
            clock: clock.clone(),
            control: Arc::default(),
            arrived: Frames::new(),
            frame: Vec::new(),
            changes: 0,
            interrupting: false,
            master: false,
        };
        vf.stop();
        vf
    }

    /// Counters of what should not happen, to be looked at while it runs elsewhere. Its switches are without effect.
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// Queues and interrupts as after power-up.
    fn stop(&mut self) {
        self.registers.reset_all();
        self.registers.set(GPIE, GPIE_MSIX | GPIE_AUTO_MASK);
        self.interrupts.reset();
        self.receive = Receive::new();
        self.transmit = Transmit::of_function();
        self.arrived.clear();
        self.changes = 0;
    }

    /// VFCTRL.RST, or a function-level reset: the card is told, and lets it do nothing until its driver says so.
    fn reset_queues(&mut self) {
        self.stop();
        let mut lane = self.lane.lock();
        lane.stop();
        lane.mailbox.reset();
        lane.was_reset = true;
    }

    fn read_register(&mut self, offset: u32) -> u32 {
        let Some((line, n)) = table::lookup(offset) else {
            self.control.count_unknown();
            self.registers.note_unknown(offset, None);
            return 0;
        };
        match line.meaning {
            Meaning::Control => 0,
            Meaning::Status => u32::from(self.pci.bus_master()) << 19,
            Meaning::Links => self.lane.lock().links,
            Meaning::Timer => (self.clock.now() / 1000) as u32,
            Meaning::Mailbox => self.lane.lock().mailbox.read(),
            Meaning::Memory => self.lane.lock().mailbox.words[n as usize % WORDS],
            Meaning::Counter(offset) => self.registers.get(offset),
            Meaning::Same(first, stride) => {
                let offset = first + n * stride;
                match self.registers.lookup(offset) {
                    Some((line, _)) if line.unit == Unit::Interrupt => {
                        self.interrupts.read(&self.registers, offset)
                    }
                    Some((line, _)) => self.registers.read(line, offset),
                    None => 0,
                }
            }
        }
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        let Some((line, n)) = table::lookup(offset) else {
            self.control.count_unknown();
            self.registers.note_unknown(offset, Some(value));
            return;
        };
        match line.meaning {
            Meaning::Control if value & RESET != 0 => self.reset_queues(),
            Meaning::Mailbox => self.lane.lock().mailbox.write(value),
            Meaning::Memory => self.lane.lock().mailbox.words[n as usize % WORDS] = value,
            Meaning::Same(first, stride) => {
                let offset = first + n * stride;
                let Some((line, _)) = self.registers.lookup(offset) else { return };
                match line.unit {
                    Unit::Interrupt => self.interrupts.write(&mut self.registers, offset, value),
                    Unit::Receive => {
                        self.registers.set(offset, value);
                        self.receive.written(&self.registers, &self.control, offset);
                    }
                    Unit::Transmit => {
                        self.registers.set(offset, value);
                        self.transmit.written(&self.registers, offset);
                    }
                    _ => self.registers.write(line, offset, value),
                }
            }
            _ => {
                let (name, section) = (line.name, line.section);
                log::debug!("82599: write of {value:#x} to {name} (section {section}) has no effect");
            }
        }
    }

    /// What the card has for it: a mailbox that was written, a reset, registers, frames.
    fn hear(&mut self) {
        let mut lane = self.lane.lock();
        if std::mem::take(&mut lane.stop) {
            drop(lane);
            let interrupts =
                [GPIE, IVAR, IVAR + 4, IVAR_MISC].map(|offset| (offset, self.registers.get(offset)));
            let masks = self.interrupts.read(&self.registers, EIMS);
            self.stop();
            // Queues stop; who is to hear of it stays told.
            interrupts.into_iter().for_each(|(offset, value)| self.registers.set(offset, value));
            self.interrupts.write(&mut self.registers, EIMS, masks);
            lane = self.lane.lock();
        }
        self.interrupting = lane.interrupts;
        if std::mem::take(&mut lane.mailbox.signal) {
            self.interrupts.mailbox(&self.registers);
        }
        if lane.changes != self.changes {
            self.changes = lane.changes;
            lane.common.iter().for_each(|&(offset, value)| self.registers.set(offset, value));
            self.receive.rss.key_changed();
        }
        self.registers.set(RXCTRL, if lane.receives { RXEN } else { 0 });
        self.registers.set(DMATXCTL, if lane.sends { TE } else { 0 });
        if self.arrived.is_empty() {
            std::mem::swap(&mut self.arrived, &mut lane.inbound);
        }
    }
}

impl Function for Vf {
    fn region(&self, region: Region) -> RegionInfo {
        let size = match region {
            Region::Bar(0) => BAR_SIZE as u64,
            Region::Bar(MSIX_BAR) => msix::SIZE as u64,
            Region::Config => pci::SIZE as u64,
            Region::Bar(_) => 0,
        };
        RegionInfo { size, mappable: Vec::new() }
    }

    fn vectors(&self) -> u16 {
        VECTORS
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8], _: &mut dyn Host) {
        match region {
            Region::Bar(0) => super::access::read_words(offset, data, BAR_SIZE, |at| self.read_register(at)),
            Region::Bar(MSIX_BAR) => self.msix.read(offset, data),
            Region::Config => self.pci.read(offset, data),
            Region::Bar(_) => data.fill(0xff),
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8], host: &mut dyn Host) {
        match region {
            Region::Bar(0) => {
                super::access::write_words(offset, data, BAR_SIZE, |at, value| {
                    self.write_register(at, value)
                });
            }
            Region::Bar(MSIX_BAR) => self.msix.write(offset, data),
            Region::Config => {
                if self.pci.write(offset, data).reset {
                    self.reset(host);
                }
            }
            Region::Bar(_) => {}
        }
    }

    fn reset(&mut self, _: &mut dyn Host) {
        self.pci.reset();
        self.msix.reset();
        self.reset_queues();
        log::debug!("82599: virtual function {} was reset", self.number);
    }

    fn poll(&mut self, host: &mut dyn Host) -> bool {
        let master = self.pci.bus_master();
        if master && !self.master {
            self.receive.retry();
            self.transmit.retry();
        }
        self.master = master;
        self.hear();
        let mut card = Card {
            registers: &mut self.registers,
            interrupts: &mut self.interrupts,
            bus: Bus::new(host, master, &self.control),
            clock: &self.clock,
            switch: &mut self.switch,
        };
        let mut busy = self.receive.drain(&mut card, &mut self.frame);
        while let Some(frame) = self.arrived.front() {
            self.frame.clear();
            self.frame.extend_from_slice(frame);
            self.arrived.pop();
            self.receive.take(&mut card, &mut self.frame);
            busy = true;
        }
        // The reads of its memory happen with the lane held; whoever waits for it is the card's poll.
        let mut lane = self.lane.lock();
        lane.dropped += card.registers.get(QPRDC);
        card.registers.set(QPRDC, 0);
        busy |= self.transmit.poll(&mut card, &mut *lane);
        drop(lane);
        if self.interrupting {
            card.interrupts.deliver(card.registers, &mut card.bus);
        }
        busy
    }
}
