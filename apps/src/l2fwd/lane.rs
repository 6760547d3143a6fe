//! The run loop: what one core does with the ports it looks after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pagewire_ethdev::{AnyRxQueue, AnyTxQueue, Burst, MacAddr, Packet, Waiter};

use super::args::Mode;
use super::cycles::{Cycles, Group};
use super::tap::Tap;
use crate::idle::{Idle, NAP, Rounds};
use crate::tsc;
use crate::workload::Workload;

/// From one port's receive queue to its peer's transmit queue of that number.
pub(crate) struct Lane {
    pub(crate) rx_port: usize,
    pub(crate) tx_port: usize,
    /// Of both ports.
    pub(crate) queue: usize,
    pub(crate) rx: AnyRxQueue,
    pub(crate) tx: AnyTxQueue,
    pub(crate) burst: Burst,
    pub(crate) mode: Mode,
    /// Destination and source of what mode `mac` sends.
    pub(crate) header: [u8; 12],
    /// The frame that mode `txonly` and `send_first` send.
    pub(crate) template: Vec<u8>,
    /// Where what is received can be watched, if anywhere; and what is sent.
    pub(crate) tap: Option<Tap>,
    pub(crate) tx_tap: Option<Tap>,
    pub(crate) counters: Arc<LaneCounters>,
}

/// What a lane counts besides its queues; written by its core alone.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct LaneCounters {
    /// Packets dropped because the transmit ring was full.
    pub(crate) tx_full: AtomicU64,
    /// Where cycles are recorded: how many, and the packets that took them.
    pub(crate) cycles: AtomicU64,
    pub(crate) recorded: AtomicU64,
    /// Times that its core found nothing for many rounds.
    pub(crate) rests: AtomicU64,
}

/// Destination and source, as they stand at the front of a frame.
pub(crate) fn header(destination: MacAddr, source: MacAddr) -> [u8; 12] {
    let mut header = [0; 12];
    header[..6].copy_from_slice(&destination.0);
    header[6..].copy_from_slice(&source.0);
    header
}

impl Lane {
    /// One round. Returns the number of packets moved.
    #[inline(always)]
    fn poll(&mut self) -> usize {
        if self.mode == Mode::Txonly {
            self.generate();
        } else {
            self.rx.rx_burst(&mut self.burst);
            if let Some(tap) = &mut self.tap {
                tap.see(&self.burst);
            }
        }
        let count = self.burst.len();
        if count == 0 {
            if let Some(tap) = &mut self.tx_tap {
                tap.poll();
            }
            return 0;
        }
        match self.mode {
            Mode::Io | Mode::Txonly => {}
            Mode::Mac => self.burst.iter_mut().for_each(|packet| rewrite(packet, &self.header)),
            Mode::Macswap => self.burst.iter_mut().for_each(swap),
            Mode::Rxonly => {
                self.burst.clear();
                return count;
            }
        }
        match &mut self.tx_tap {
            None => self.tx.tx_burst(&mut self.burst),
            Some(tap) => tap.send(&mut self.tx, &mut self.burst),
        };
        if !self.burst.is_empty() {
            self.drop_unsent();
        }
        count
    }

    /// The transmit ring is full: what is left would only delay what comes.
    #[cold]
    #[inline(never)]
    fn drop_unsent(&mut self) {
        // A packet that was never received is not lost.
        if self.mode != Mode::Txonly {
            self.counters.tx_full.fetch_add(self.burst.len() as u64, Ordering::Relaxed);
        }
        self.burst.clear();
    }

    /// Send bursts of the template, as far as the transmit ring takes them.
    pub(crate) fn send_first(&mut self, bursts: u32) {
        for _ in 0..bursts {
            self.generate();
            self.tx.tx_burst(&mut self.burst);
            self.burst.clear();
        }
    }

    fn generate(&mut self) {
        while self.burst.room() > 0 {
            let Some(mut packet) = self.rx.pool().alloc_packet() else { break };
            if packet.extend_from_slice(&self.template).is_err() || self.burst.push(packet).is_err() {
                break;
            }
        }
    }
}

#[inline(always)]
fn rewrite(packet: &mut Packet, header: &[u8; 12]) {
    if let Some(front) = packet.as_mut_slice().and_then(|data| data.first_chunk_mut()) {
        *front = *header;
    }
}

#[inline(always)]
fn swap(packet: &mut Packet) {
    if let Some(front) = packet.as_mut_slice().and_then(|data| data.first_chunk_mut::<12>()) {
        let (destination, source) = front.split_at_mut(6);
        destination.swap_with_slice(source);
    }
}

/// What a loop does that finds nothing.
pub(crate) enum Between {
    /// Rests, and looks again.
    Rest(Idle),
    /// Sleeps until a card interrupts.
    Sleep(Waiter),
}

/// Forward until told to stop. Gives the lanes back. What is counted when the cost of the loop is.
#[inline(never)]
pub(crate) fn run(
    mut lanes: Vec<Lane>,
    stop: &AtomicBool,
    between: Between,
    work: &mut Workload,
) -> Vec<Lane> {
    forward(&mut lanes, stop, between, work, |_, lane| lane.poll());
    lanes
}

/// [`run`], counting the cycles of each lane's rounds that moved packets.
pub(crate) fn run_recording(
    mut lanes: Vec<Lane>,
    stop: &AtomicBool,
    between: Between,
    work: &mut Workload,
) -> (Vec<Lane>, Cycles) {
    let mut cycles = Cycles::default();
    let mut groups = vec![Group::default(); lanes.len()];
    forward(&mut lanes, stop, between, work, |number, lane| {
        let start = tsc::read();
        let moved = lane.poll();
        let took = tsc::read().wrapping_sub(start);
        if moved > 0 {
            cycles.record(&mut groups[number], moved, took, &lane.counters);
        }
        moved
    });
    // Begun is not full, but may be all there is.
    lanes.iter().zip(&mut groups).for_each(|(lane, group)| cycles.close(group, &lane.counters));
    (lanes, cycles)
}

/// Rounds of `poll`, which returns how many packets it moved, over all lanes until told to stop.
#[inline(always)]
fn forward(
    lanes: &mut [Lane],
    stop: &AtomicBool,
    between: Between,
    work: &mut Workload,
    poll: impl FnMut(usize, &mut Lane) -> usize,
) {
    let idle_for = match between {
        Between::Sleep(waiter) => return sleep_between(lanes, stop, waiter, work, poll),
        Between::Rest(idle) => idle,
    };
    let mut empty = Rounds::default();
    rounds(lanes, stop, work, poll, |lanes, work, moved| {
        if empty.are_idle(moved) {
            rest(lanes, work, idle_for);
        }
    });
}

/// Rounds of a loop that sleeps. In a function of its own: two loops in one would cost each of them registers.
#[inline(never)]
fn sleep_between(
    lanes: &mut [Lane],
    stop: &AtomicBool,
    mut waiter: Waiter,
    work: &mut Workload,
    poll: impl FnMut(usize, &mut Lane) -> usize,
) {
    let mut said = false;
    rounds(lanes, stop, work, poll, |lanes, work, moved| {
        if moved == 0 && waiter.is_armed() {
            rest(lanes, work, Idle::Spin);
            // Nobody is to wait for it until it wakes up.
            work.publish();
        }
        let interrupts = lanes.iter().filter_map(|lane| lane.rx.interrupt());
        if let Err(error) = waiter.polled(moved, interrupts) {
            // A device that is gone ends it all soon.
            if !std::mem::replace(&mut said, true) {
                log::warn!("polling instead of sleeping: {error}");
            }
            std::thread::sleep(NAP);
        }
        if moved == 0 {
            work.rested();
        }
    });
}

#[inline(always)]
fn rounds(
    lanes: &mut [Lane],
    stop: &AtomicBool,
    work: &mut Workload,
    mut poll: impl FnMut(usize, &mut Lane) -> usize,
    mut after: impl FnMut(&mut [Lane], &mut Workload, usize),
) {
    while !stop.load(Ordering::Relaxed) {
        let mut moved = 0;
        for (number, lane) in lanes.iter_mut().enumerate() {
            let found = poll(number, lane);
            work.polled(found);
            moved += found;
        }
        work.round(moved);
        after(lanes, work, moved);
    }
    rest(lanes, work, Idle::Spin);
    work.publish();
}

/// Nothing to do: let no ring and no magazine keep what others could use.
#[cold]
#[inline(never)]
fn rest(lanes: &mut [Lane], work: &mut Workload, idle_for: Idle) {
    for lane in lanes {
        lane.tx.reclaim();
        lane.counters.rests.fetch_add(1, Ordering::Relaxed);
    }
    idle_for.rest();
    work.rested();
}

/// What mode `txonly` sends: a UDP packet without payload worth mentioning, to the peer's number.
pub(crate) fn template(header: [u8; 12], size: u16) -> Vec<u8> {
    let mut frame = header.to_vec();
    let ip_len = size - 14;
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!folded as u16).to_be_bytes());
    frame.extend([0x08, 0x00]);
    frame.extend(ip);
    // The discard service (RFC 863), without a checksum.
    frame.extend([0, 9, 0, 9]);
    frame.extend((ip_len - 20).to_be_bytes());
    frame.resize(size.into(), 0);
    frame
}
