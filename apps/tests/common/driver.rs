//! As little of a driver for the 82599 as moves frames.

// Its rings are memory that a card reads and writes: reached by pointer.
#![allow(unsafe_code)]

use std::path::Path;
use std::time::{Duration, Instant};

use pagewire_hugepages::PageSize;
use pagewire_pci::{AddressSpace, AddressSpaceOptions, Bar, DmaBuffer, Function};

pub(crate) fn space() -> AddressSpace {
    let options = AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..AddressSpaceOptions::default() };
    AddressSpace::new(options).unwrap()
}

/// Offsets of registers (82599 datasheet, 8.2.2).
const CTRL: usize = 0x0;
const FCTRL: usize = 0x5080;
const RXCTRL: usize = 0x3000;
const DMATXCTL: usize = 0x4a80;
const RX_RING: usize = 0x1000;
const TX_RING: usize = 0x6000;
/// In a ring's registers.
const BASE: usize = 0x00;
const LENGTH: usize = 0x08;
const SRRCTL: usize = 0x14;
const TAIL: usize = 0x18;
const CONTROL: usize = 0x28;
const ENABLE: u32 = 1 << 25;

/// One queue each way, a frame a descriptor.
pub(crate) struct Driver {
    pub(crate) function: Function,
    pub(crate) bar: Bar,
    memory: DmaBuffer,
    received: usize,
    sent: usize,
}

const RING: usize = 64;
const BUFFER: usize = 2048;
const TX_AT: usize = 0x1000;
const BUFFERS_AT: usize = 0x2000;

impl Driver {
    pub(crate) fn start(socket: &Path) -> Driver {
        Driver::start_within(socket, Duration::from_secs(5))
    }

    /// With a time limit for the model's answers.
    pub(crate) fn start_within(socket: &Path, limit: Duration) -> Driver {
        let space = space();
        let function = space.open_vfio_user_within(socket, limit).unwrap();
        let bar = function.bar(0).unwrap();
        let memory = space.allocate_dma(BUFFERS_AT + 2 * RING * BUFFER, 4096).unwrap();
        bar.write32(CTRL, 1 << 26);
        function.set_bus_master(true).unwrap();
        let driver = Driver { function, bar, memory, received: 0, sent: 0 };
        driver.bar.write32(FCTRL, 0x700);
        for (ring, at) in [(RX_RING, 0), (TX_RING, TX_AT)] {
            let iova = driver.memory.iova() + at as u64;
            driver.bar.write32(ring + BASE, iova as u32);
            driver.bar.write32(ring + BASE + 4, (iova >> 32) as u32);
            driver.bar.write32(ring + LENGTH, 16 * RING as u32);
        }
        driver.bar.write32(RX_RING + SRRCTL, 0x0200_0402);
        for n in 0..RING {
            driver.post(n);
        }
        driver.bar.write32(RX_RING + CONTROL, ENABLE);
        driver.bar.write32(TX_RING + CONTROL, ENABLE);
        driver.bar.write32(RX_RING + TAIL, RING as u32 - 1);
        driver.bar.write32(DMATXCTL, 1);
        driver.bar.write32(RXCTRL, 1);
        driver
    }

    fn word(&self, at: usize) -> *mut u64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.memory.len());
        // SAFETY: inside the memory.
        unsafe { self.memory.as_ptr().as_ptr().add(at).cast() }
    }

    fn write(&self, at: usize, word: u64) {
        // SAFETY: `word` gives an aligned place inside the memory, of which no reference exists.
        unsafe { self.word(at).write_volatile(word) }
    }

    fn read(&self, at: usize) -> u64 {
        // SAFETY: as in `write`.
        unsafe { self.word(at).read_volatile() }
    }

    fn post(&self, n: usize) {
        self.write(16 * n, self.memory.iova() + (BUFFERS_AT + n * BUFFER) as u64);
        self.write(16 * n + 8, 0);
    }

    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let n = self.received % RING;
        let limit = Instant::now() + Duration::from_secs(10);
        while self.read(16 * n + 8) & 1 == 0 {
            assert!(Instant::now() < limit, "frame {} arrives", self.received);
            std::thread::sleep(Duration::from_micros(100));
        }
        let len = (self.read(16 * n + 8) >> 32 & 0xffff) as usize;
        let words =
            (0..len.div_ceil(8)).map(|word| self.read(BUFFERS_AT + n * BUFFER + 8 * word).to_le_bytes());
        let frame = words.flatten().take(len).collect();
        self.post(n);
        self.bar.write32(RX_RING + TAIL, n as u32);
        self.received += 1;
        frame
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        let n = self.sent % RING;
        let at = BUFFERS_AT + (RING + n) * BUFFER;
        for (word, bytes) in frame.chunks(8).enumerate() {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            self.write(at + 8 * word, u64::from_le_bytes(whole));
        }
        let len = frame.len() as u64;
        self.write(TX_AT + 16 * n, self.memory.iova() + at as u64);
        self.write(TX_AT + 16 * n + 8, 0x2b30_0000 | len | len << 46);
        self.sent += 1;
        self.bar.write32(TX_RING + TAIL, (self.sent % RING) as u32);
        let limit = Instant::now() + Duration::from_secs(10);
        while self.read(TX_AT + 16 * n + 8) >> 32 & 1 == 0 {
            assert!(Instant::now() < limit, "frame {} is sent", self.sent);
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

/// Different lengths, addressed to everybody.
pub(crate) fn frame(number: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; 60 + number * 37 % 1400];
    frame[..6].fill(0xff);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}
