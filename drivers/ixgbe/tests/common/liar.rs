//! Between the model and its driver: what a card could say and do that is not so.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pagewire_models::{DmaError, Function, Host, Region, RegionInfo};

/// Polls between two looks where the rings are.
const LOOK: u32 = 64;
/// Where receive queues' registers begin, and what is from one queue to the next.
const RECEIVE: u64 = 0x1000;
const STRIDE: u64 = 0x40;

/// A descriptor ring as the driver told the card of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    pub(crate) receive: bool,
    pub(crate) first: u64,
    pub(crate) bytes: u64,
}

/// What a card's write to memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// First word of a receive descriptor: eight bytes.
    Kind,
    /// Second word of a receive descriptor, with the done bit: eight bytes.
    Status,
    /// Upper half of a transmit descriptor's second word, with the done bit: four bytes.
    Report,
    /// Received data.
    Data,
}

/// What becomes of all that the card says and does. What is not overridden is left as it is.
pub(crate) trait Liar: Send {
    /// What the driver reads in a register that has `value`.
    fn read(&mut self, _offset: u64, value: u32) -> u32 {
        value
    }

    /// Whether a write to a register arrives, and as what.
    fn written(&mut self, _offset: u64, _value: &mut u32) -> bool {
        true
    }

    /// What the card makes of memory that it reads.
    fn fetched(&mut self, _iova: u64, _data: &mut [u8]) {}

    /// Whether a write of the card's to memory happens, and where and of what.
    fn write(&mut self, _what: Write, _iova: &mut u64, _data: &mut [u8]) -> bool {
        true
    }

    /// How many interrupts come for one that the card sends.
    fn interrupts(&mut self) -> u32 {
        1
    }

    /// The card has done its work for now. What else it could do.
    fn polled(&mut self, _rings: &[Ring], _host: &mut dyn Host) {}
}

/// One that does not lie.
impl Liar for () {}

/// What a driver writes to registers, and when.
pub(crate) type Written = Vec<(u64, u32, Instant)>;

/// One that keeps what the driver writes to registers.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Written>>);

impl Record {
    /// What was written since this was last asked.
    pub(crate) fn take(&self) -> Written {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Liar for Record {
    fn written(&mut self, offset: u64, value: &mut u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((offset, *value, Instant::now()));
        true
    }
}

/// A function, and who is between it and its driver.
pub(crate) struct Lied<F> {
    function: F,
    /// Where its transmit queues' registers begin.
    transmit: u64,
    liar: Box<dyn Liar>,
    /// Whether the liar is asked.
    lying: Arc<AtomicBool>,
    rings: Vec<Ring>,
    polls: u32,
}

impl<F: Function> Lied<F> {
    pub(crate) fn new(function: F, transmit: u64, liar: Box<dyn Liar>, lying: Arc<AtomicBool>) -> Lied<F> {
        Lied { function, transmit, liar, lying, rings: Vec::new(), polls: 0 }
    }

    /// The rings of the first queues, as the driver told the card.
    fn look_for_rings(&mut self, host: &mut dyn Host) {
        let mut read = |offset| {
            let mut word = [0; 4];
            self.function.read(Region::Bar(0), offset, &mut word, host);
            u64::from(u32::from_le_bytes(word))
        };
        let mut ring = |(receive, block): (bool, u64)| {
            let first = read(block + 4) << 32 | read(block);
            Ring { receive, first, bytes: read(block + 8) }
        };
        let blocks = (0..4).map(|queue| STRIDE * queue);
        let blocks = blocks.flat_map(|at| [(true, RECEIVE + at), (false, self.transmit + at)]);
        // Where the card is not there all bits are set.
        let is_one = |ring: &Ring| (1..=4096 * 16).contains(&ring.bytes) && ring.first < 1 << 63;
        self.rings = blocks.map(&mut ring).filter(is_one).collect();
    }
}

impl<F: Function> Function for Lied<F> {
    fn region(&self, region: Region) -> RegionInfo {
        self.function.region(region)
    }

    fn vectors(&self) -> u16 {
        self.function.vectors()
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8], host: &mut dyn Host) {
        self.function.read(region, offset, data, host);
        if let (Region::Bar(0), Ok(bytes)) = (region, <[u8; 4]>::try_from(&*data))
            && self.lying.load(Relaxed)
        {
            let value = self.liar.read(offset, u32::from_le_bytes(bytes));
            data.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8], host: &mut dyn Host) {
        let queues = |first| (first..first + 0x1000).contains(&offset);
        // A queue's register, and not its tail.
        if region == Region::Bar(0) && (queues(RECEIVE) || queues(self.transmit)) && offset % STRIDE != 0x18 {
            self.rings.clear();
        }
        match <[u8; 4]>::try_from(data) {
            Ok(bytes) if region == Region::Bar(0) && self.lying.load(Relaxed) => {
                let mut value = u32::from_le_bytes(bytes);
                if self.liar.written(offset, &mut value) {
                    self.function.write(region, offset, &value.to_le_bytes(), host);
                }
            }
            _ => self.function.write(region, offset, data, host),
        }
    }

    fn reset(&mut self, host: &mut dyn Host) {
        self.function.reset(host);
    }

    fn poll(&mut self, host: &mut dyn Host) -> bool {
        self.polls = self.polls.wrapping_add(1);
        if !self.lying.load(Relaxed) {
            return self.function.poll(host);
        }
        if self.rings.is_empty() || self.polls.is_multiple_of(LOOK) {
            self.look_for_rings(host);
        }
        let (liar, rings) = (&mut *self.liar, &self.rings[..]);
        let busy = self.function.poll(&mut Through { host, liar, rings });
        liar.polled(rings, host);
        busy
    }
}

/// The machine behind a liar.
pub(crate) struct Through<'a> {
    pub(crate) host: &'a mut dyn Host,
    pub(crate) liar: &'a mut dyn Liar,
    pub(crate) rings: &'a [Ring],
}

impl Through<'_> {
    fn classify(&self, iova: u64, len: usize) -> Write {
        let ring = |ring: &&Ring| (ring.first..ring.first + ring.bytes).contains(&iova);
        match (self.rings.iter().find(ring), len) {
            (Some(Ring { receive: true, .. }), 8) if iova.is_multiple_of(16) => Write::Kind,
            (Some(Ring { receive: true, .. }), 8) => Write::Status,
            (Some(Ring { receive: false, .. }), 4) => Write::Report,
            _ => Write::Data,
        }
    }
}

impl Host for Through<'_> {
    fn dma_read(&mut self, iova: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.host.dma_read(iova, data)?;
        self.liar.fetched(iova, data);
        Ok(())
    }

    fn dma_write(&mut self, mut iova: u64, data: &[u8]) -> Result<(), DmaError> {
        let (what, mut data) = (self.classify(iova, data.len()), data.to_vec());
        match self.liar.write(what, &mut iova, &mut data) {
            true => self.host.dma_write(iova, &data),
            false => Ok(()),
        }
    }

    fn interrupt(&mut self, vector: u16) {
        (0..self.liar.interrupts()).for_each(|_| self.host.interrupt(vector));
    }

    fn shared_read(&mut self, region: Region, offset: u64) -> u32 {
        self.host.shared_read(region, offset)
    }

    fn shared_write(&mut self, region: Region, offset: u64, value: u32) {
        self.host.shared_write(region, offset, value);
    }
}
