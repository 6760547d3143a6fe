//! The card's way to the machine: DMA and interrupts behind the Bus Master Enable gate, and what outsiders may see and
//! change while the card runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::function::{DmaError, Host};

/// What a driver can have the card do to frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Put checksums into a packet that is sent as one frame.
    Checksum,
    /// Cut a packet into segments.
    Segmentation,
    /// Put a tag into a frame that is sent.
    TagInsertion,
    /// Take the tag out of a frame that is received.
    TagStripping,
}

/// Counters of what was done and of what should not happen, and switches for what may: shared with whoever runs the model.
#[derive(Debug)]
pub struct Control {
    cable: AtomicBool,
    module: AtomicBool,
    speed: AtomicU32,
    refused: AtomicU64,
    malformed: AtomicU64,
    unknown: AtomicU64,
    contexts: AtomicU64,
    offloads: [AtomicU64; 4],
}

impl Default for Control {
    fn default() -> Self {
        Self {
            cable: AtomicBool::new(true),
            module: AtomicBool::new(true),
            speed: AtomicU32::new(10_000),
            refused: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            contexts: AtomicU64::new(0),
            offloads: Default::default(),
        }
    }
}

impl Control {
    /// Plug the cable in or pull it out: the link follows at the next poll.
    pub fn set_cable(&self, plugged: bool) {
        self.cable.store(plugged, Relaxed);
    }

    /// Whether the cable is in.
    pub fn cable(&self) -> bool {
        self.cable.load(Relaxed)
    }

    /// What a PHY agrees with the cable's other end on, in Mb/s: 10,000, 1,000 or 100, and with the X550 5,000 or 2,500.
    pub fn set_speed(&self, mbps: u32) {
        self.speed.store(mbps, Relaxed);
    }

    /// That speed.
    pub fn speed(&self) -> u32 {
        self.speed.load(Relaxed)
    }

    /// Put the SFP+ module in its cage or take it out.
    pub fn set_module(&self, present: bool) {
        self.module.store(present, Relaxed);
    }

    /// Whether the SFP+ module is in its cage.
    pub fn module(&self) -> bool {
        self.module.load(Relaxed)
    }

    /// DMA accesses and interrupts that did not happen: outside what is mapped, or bus mastering off.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Descriptors that ask for what the card cannot do.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Relaxed)
    }

    /// Accesses to offsets where no register is.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Relaxed)
    }

    /// Context descriptors that were taken in.
    pub fn contexts(&self) -> u64 {
        self.contexts.load(Relaxed)
    }

    /// How often the card has done what it was asked to.
    pub fn offloads(&self, which: Offload) -> u64 {
        self.offloads[which as usize].load(Relaxed)
    }

    pub(super) fn count_unknown(&self) {
        self.unknown.fetch_add(1, Relaxed);
    }

    /// Count a malformed descriptor and log the first few.
    #[cold]
    pub(super) fn count_malformed(&self, what: std::fmt::Arguments<'_>) {
        if self.malformed.fetch_add(1, Relaxed) < 16 {
            log::warn!("82599: {what}");
        }
    }

    #[cold]
    fn count_refused(&self, error: DmaError, master: bool) -> DmaError {
        if self.refused.fetch_add(1, Relaxed) < 16 {
            let why = if master { "" } else { " (bus mastering is off)" };
            log::warn!("82599: {error}{why}");
        }
        error
    }
}

/// The machine as seen through the card's PCIe interface.
pub(super) struct Bus<'a> {
    host: &'a mut dyn Host,
    master: bool,
    control: &'a Arc<Control>,
}

impl<'a> Bus<'a> {
    pub(super) fn new(host: &'a mut dyn Host, master: bool, control: &'a Arc<Control>) -> Self {
        Self { host, master, control }
    }

    /// Read memory; fails with bus mastering off.
    pub(super) fn read(&mut self, iova: u64, data: &mut [u8]) -> Result<(), DmaError> {
        let result = if self.master {
            self.host.dma_read(iova, data)
        } else {
            Err(DmaError { iova, len: data.len(), write: false })
        };
        result.map_err(|e| self.control.count_refused(e, self.master))
    }

    /// Write memory; fails with bus mastering off.
    pub(super) fn write(&mut self, iova: u64, data: &[u8]) -> Result<(), DmaError> {
        let result = if self.master {
            self.host.dma_write(iova, data)
        } else {
            Err(DmaError { iova, len: data.len(), write: true })
        };
        result.map_err(|e| self.control.count_refused(e, self.master))
    }

    /// Send an interrupt: with bus mastering off only one that has a wire, since a message is a memory write.
    pub(super) fn interrupt(&mut self, vector: u16, message: bool) {
        if self.master || !message {
            self.host.interrupt(vector);
        }
    }

    pub(super) fn count_context(&self) {
        self.control.contexts.fetch_add(1, Relaxed);
    }

    pub(super) fn count_offload(&self, which: Offload) {
        self.control.offloads[which as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn malformed(&self, what: std::fmt::Arguments<'_>) {
        self.control.count_malformed(what);
    }
}
