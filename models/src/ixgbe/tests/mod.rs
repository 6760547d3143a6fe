//! The whole card on a machine made of an array.

mod forwarding;
mod functions;
mod fuzz;
mod init;
mod interrupts;
mod limits;
mod mapped;
mod offloads;
mod traffic;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::ring::ENABLE;
use super::*;
use crate::function::DmaError;
use crate::wire::{Arrival, pair};

/// Where memory is mapped for the card.
const BASE: u64 = 0x1_0000_0000;
const MEMORY: usize = 4 << 20;

/// Memory, interrupts and shared pages.
struct Machine {
    memory: Vec<u8>,
    sent: Vec<u16>,
    shared: Vec<u32>,
    refused: u64,
}

impl Machine {
    fn new() -> Self {
        Self { memory: vec![0; MEMORY], sent: Vec::new(), shared: vec![0; BAR_SIZE as usize / 4], refused: 0 }
    }

    fn at(&mut self, iova: u64, len: usize, write: bool) -> Result<&mut [u8], DmaError> {
        let range = iova.checked_sub(BASE).and_then(|at| {
            let at = usize::try_from(at).ok()?;
            Some(at..at.checked_add(len)?)
        });
        match range.filter(|r| r.end <= MEMORY) {
            Some(range) => Ok(&mut self.memory[range]),
            None => {
                self.refused += 1;
                Err(DmaError { iova, len, write })
            }
        }
    }

    fn word(&mut self, iova: u64) -> u64 {
        u64::from_le_bytes(self.at(iova, 8, false).unwrap().try_into().unwrap())
    }

    fn put(&mut self, iova: u64, words: [u64; 2]) {
        let bytes = self.at(iova, 16, true).unwrap();
        bytes[..8].copy_from_slice(&words[0].to_le_bytes());
        bytes[8..].copy_from_slice(&words[1].to_le_bytes());
    }
}

impl Host for Machine {
    fn dma_read(&mut self, iova: u64, data: &mut [u8]) -> Result<(), DmaError> {
        data.copy_from_slice(self.at(iova, data.len(), false)?);
        Ok(())
    }

    fn dma_write(&mut self, iova: u64, data: &[u8]) -> Result<(), DmaError> {
        self.at(iova, data.len(), true)?.copy_from_slice(data);
        Ok(())
    }

    fn interrupt(&mut self, vector: u16) {
        self.sent.push(vector);
    }

    fn shared_read(&mut self, _: Region, offset: u64) -> u32 {
        self.shared[offset as usize / 4]
    }

    fn shared_write(&mut self, _: Region, offset: u64, value: u32) {
        self.shared[offset as usize / 4] = value;
    }
}

/// Descriptors of a test's rings.
const RING: u32 = 64;
/// Bytes of a test's buffers.
const BUFFER: u64 = 2048;

/// A card on its machine, with a driver's hands on it.
struct Rig {
    card: Ixgbe,
    machine: Machine,
    time: Arc<AtomicU64>,
    rx_next: [u32; 128],
    tx_next: [u32; 128],
}

fn rx_ring(queue: u32) -> u64 {
    BASE + queue as u64 * 0x1000
}

fn tx_ring(queue: u32) -> u64 {
    BASE + 0x10_0000 + queue as u64 * 0x1000
}

fn rx_buffer(queue: u32, n: u32) -> u64 {
    BASE + 0x20_0000 + (queue * RING + n) as u64 * BUFFER
}

const TX_BUFFERS: u64 = BASE + 0x30_0000;

/// What a receive descriptor says and what its buffer holds.
#[derive(Debug)]
struct Received {
    info: u32,
    hash: u32,
    status: u32,
    tag: u16,
    data: Vec<u8>,
}

impl Rig {
    fn new(wire: Box<dyn Wire>) -> Self {
        Self::with(wire, Config::default())
    }

    fn with(wire: Box<dyn Wire>, mut config: Config) -> Self {
        let time = Arc::new(AtomicU64::new(0));
        config.clock = Clock::Set(time.clone());
        let mut rig = Self {
            card: Ixgbe::new(config, wire),
            machine: Machine::new(),
            time,
            rx_next: [0; 128],
            tx_next: [0; 128],
        };
        rig.config(0x04, 0x0406);
        rig.poll();
        rig
    }

    fn config(&mut self, offset: u64, value: u16) {
        self.card.write(Region::Config, offset, &value.to_le_bytes(), &mut self.machine);
    }

    fn get(&mut self, offset: u32) -> u32 {
        let mut word = [0; 4];
        self.card.read(Region::Bar(0), offset as u64, &mut word, &mut self.machine);
        u32::from_le_bytes(word)
    }

    fn set(&mut self, offset: u32, value: u32) {
        self.card.write(Region::Bar(0), offset as u64, &value.to_le_bytes(), &mut self.machine);
    }

    fn change(&mut self, offset: u32, bits: u32) {
        let value = self.get(offset);
        self.set(offset, value | bits);
    }

    fn poll(&mut self) {
        while self.card.poll(&mut self.machine) {}
    }

    fn pass(&self, nanoseconds: u64) {
        self.time.fetch_add(nanoseconds, Relaxed);
    }

    /// Reset and receive everything on some queues, transmit on as many.
    fn start(&mut self, queues: u32) {
        self.set(CTRL, 1 << 26);
        self.set(FCTRL, 0x700);
        for queue in 0..queues {
            self.start_rx(queue, 0x0200_0402);
            self.start_tx(queue);
        }
        self.set(DMATXCTL, 0x8100_0001);
        self.set(RXCTRL, 1);
    }

    fn start_rx(&mut self, queue: u32, srrctl: u32) {
        let block = RDBAL + 0x40 * queue;
        self.set(block, rx_ring(queue) as u32);
        self.set(block + 4, (rx_ring(queue) >> 32) as u32);
        self.set(block + 8, RING * 16);
        self.set(block + 0x10, 0);
        self.set(block + 0x18, 0);
        self.set(block + 0x14, srrctl);
        let control = self.get(block + 0x28);
        self.set(block + 0x28, control | ENABLE);
        for n in 0..RING {
            let header = rx_buffer(queue, n) + BUFFER - 512;
            self.machine.put(rx_ring(queue) + 16 * n as u64, [rx_buffer(queue, n), header]);
        }
        self.rx_next[queue as usize] = 0;
        self.set(block + 0x18, RING - 1);
    }

    fn start_tx(&mut self, queue: u32) {
        let block = TDBAL + 0x40 * queue;
        self.set(block, tx_ring(queue) as u32);
        self.set(block + 4, (tx_ring(queue) >> 32) as u32);
        self.set(block + 8, RING * 16);
        self.set(block + 0x10, 0);
        self.set(block + 0x18, 0);
        self.set(block + 0x28, ENABLE);
        self.tx_next[queue as usize] = 0;
    }

    /// Put descriptors in a transmit ring and ring the doorbell. Gives the last one's address.
    fn submit(&mut self, queue: u32, descriptors: &[[u64; 2]]) -> u64 {
        let mut at = 0;
        for &words in descriptors {
            let next = &mut self.tx_next[queue as usize];
            at = tx_ring(queue) + 16 * *next as u64;
            *next = (*next + 1) % RING;
            self.machine.put(at, words);
        }
        self.set(TDT + 0x40 * queue, self.tx_next[queue as usize]);
        at
    }

    /// Send a frame from queue 0 in one descriptor.
    fn send(&mut self, frame: &[u8]) {
        self.machine.at(TX_BUFFERS, frame.len(), true).unwrap().copy_from_slice(frame);
        let command = 0x2b30_0000 | frame.len() as u64 | (frame.len() as u64) << 46;
        let at = self.submit(0, &[[TX_BUFFERS, command]]);
        self.poll();
        assert_eq!(self.machine.word(at + 8) >> 32 & 1, 1, "done");
    }

    /// The next finished descriptor of a queue.
    fn next(&mut self, queue: u32) -> Option<Received> {
        let n = self.rx_next[queue as usize];
        let at = rx_ring(queue) + 16 * n as u64;
        let (first, second) = (self.machine.word(at), self.machine.word(at + 8));
        if second & 1 == 0 {
            return None;
        }
        let data =
            self.machine.at(rx_buffer(queue, n), (second >> 32 & 0xffff) as usize, false).unwrap().to_vec();
        self.machine.put(at, [rx_buffer(queue, n), rx_buffer(queue, n) + BUFFER - 512]);
        self.rx_next[queue as usize] = (n + 1) % RING;
        self.set(RDT + 0x40 * queue, n);
        Some(Received {
            info: first as u32,
            hash: (first >> 32) as u32,
            status: second as u32,
            tag: (second >> 48) as u16,
            data,
        })
    }
}

/// Two cards on one cable, both started.
fn two(queues: u32) -> (Rig, Rig) {
    let (a, b) = pair();
    let (mut a, mut b) = (Rig::new(Box::new(a)), Rig::new(Box::new(b)));
    a.start(1);
    b.start(queues);
    a.poll();
    b.poll();
    (a, b)
}

/// A frame to everybody of some bytes.
fn frame(length: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|n| n as u8).collect();
    frame[..6].fill(0xff);
    frame[12..14].copy_from_slice(&[0x12, 0x34]);
    frame
}

type Arriving = (Vec<u8>, bool);

/// A wire that gives what is put in it and keeps what comes out.
#[derive(Clone, Default)]
struct Bench {
    /// Frames, and whether their check sequence is right.
    to_card: Arc<Mutex<VecDeque<Arriving>>>,
    from_card: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Bench {
    fn give(&self, frame: &[u8]) {
        self.to_card.lock().unwrap().push_back((frame.to_vec(), true));
    }

    fn taken(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.from_card.lock().unwrap())
    }
}

impl Wire for Bench {
    fn send(&mut self, frame: &[u8]) -> bool {
        self.from_card.lock().unwrap().push(frame.to_vec());
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        let (next, good) = self.to_card.lock().unwrap().pop_front()?;
        *frame = next;
        Some(if good { Arrival::Good } else { Arrival::BadFcs })
    }
}

/// A started card whose wire is in the test's hands.
fn bench(queues: u32) -> (Rig, Bench) {
    let bench = Bench::default();
    let mut rig = Rig::new(Box::new(bench.clone()));
    rig.start(queues);
    rig.poll();
    (rig, bench)
}
