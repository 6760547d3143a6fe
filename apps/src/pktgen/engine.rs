//! The loops: what a core does with the transmit and receive queues it looks after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pagewire_ethdev::{AnyRxQueue, AnyTxQueue, Burst, Pool, RxQueue, TxQueue};
use serde_json::{Value, json};

use super::measure::Receiver;
use super::pace::Clock;
use super::sender::{Sender, Sent};
use crate::idle::{Idle, Rounds};
use crate::tsc;
use crate::workload::{MOST, Workload};

/// A transmit queue, and the pool of what it sends.
pub(super) struct TxLane {
    pub(super) port: usize,
    pub(super) queue: u16,
    pub(super) tx: AnyTxQueue,
    pub(super) pool: Pool,
}

/// A receive queue.
pub(super) struct RxLane {
    pub(super) port: usize,
    pub(super) queue: u16,
    pub(super) rx: AnyRxQueue,
}

/// A transmit queue, and the streams that it sends.
pub(super) struct Transmitter {
    lane: TxLane,
    burst: Burst,
    senders: Vec<Sender>,
    /// The sender whose turn is next.
    turn: usize,
    /// The sender of what is in the burst.
    owner: usize,
    /// When it ended.
    done: Option<u64>,
}

/// What the loops are told, and tell.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Send nothing more.
    pub(super) halt: AtomicBool,
    /// End.
    pub(super) end: Arc<AtomicBool>,
    /// Transmitters that have more to send.
    pub(super) sending: AtomicUsize,
}

impl Transmitter {
    pub(super) fn new(mut lane: TxLane, burst: usize, mut senders: Vec<Sender>) -> Transmitter {
        if let [sender] = &mut senders[..] {
            sender.prepare(&mut lane.pool);
        }
        Transmitter { lane, burst: Burst::new(burst), senders, turn: 0, owner: 0, done: None }
    }

    /// One round: a burst of each stream that has something to send. Returns the number of packets sent.
    #[inline(always)]
    fn poll(&mut self, signals: &Signals) -> usize {
        if self.done.is_some() {
            return 0;
        }
        let now = tsc::read();
        let mut moved = 0;
        if !self.burst.is_empty() {
            // What there was no room for goes first: no stream's packets overtake each other.
            moved += self.lane.tx.tx_burst(&mut self.burst);
            self.senders[self.owner].taken(moved);
            if !self.burst.is_empty() {
                if signals.halt.load(Ordering::Relaxed) {
                    self.retire(signals, now);
                }
                return moved;
            }
        }
        // Also of a stream that always has something to send.
        if signals.halt.load(Ordering::Relaxed) {
            self.retire(signals, now);
            return moved;
        }
        for _ in 0..self.senders.len() {
            let turn = self.turn;
            self.turn = if turn + 1 == self.senders.len() { 0 } else { turn + 1 };
            let sender = &mut self.senders[turn];
            if sender.is_due(now) {
                moved += send_burst(sender, &mut self.lane, &mut self.burst, now);
                if !self.burst.is_empty() {
                    self.owner = turn;
                    return moved;
                }
            }
        }
        if moved == 0 && self.senders.iter().all(|sender| sender.is_done(now)) {
            self.retire(signals, now);
        }
        moved
    }

    #[cold]
    fn retire(&mut self, signals: &Signals, now: u64) {
        self.done = Some(now);
        signals.sending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Let the ring keep nothing that others could use.
    fn rest(&mut self) {
        self.lane.tx.reclaim();
    }

    /// The end: the queue, and what was sent of each stream.
    pub(super) fn finish(self, clock: &Clock) -> (TxLane, Vec<(usize, Sent)>) {
        let Transmitter { lane, senders, burst, owner, done, .. } = self;
        let (now, nothing) = (done.unwrap_or_else(tsc::read), Burst::new(1));
        let total = |(number, sender): (usize, Sender)| {
            let unsent = if number == owner { &burst } else { &nothing };
            (sender.stream, sender.finish(unsent, clock, now))
        };
        (lane, senders.into_iter().enumerate().map(total).collect())
    }
}

/// A burst of a stream: what is counted when the cost of a generated packet is.
#[inline(never)]
fn send_burst(sender: &mut Sender, lane: &mut TxLane, burst: &mut Burst, now: u64) -> usize {
    if sender.fill(&mut lane.pool, burst, now) == 0 {
        return 0;
    }
    let taken = lane.tx.tx_burst(burst);
    sender.taken(taken);
    taken
}

/// The queues of one core.
#[derive(Default)]
pub(super) struct Share {
    pub(super) transmitters: Vec<Transmitter>,
    pub(super) receivers: Vec<Receiver>,
}

impl Share {
    pub(super) fn is_empty(&self) -> bool {
        self.transmitters.is_empty() && self.receivers.is_empty()
    }

    /// What it looks after, and how, as others are told.
    pub(super) fn lanes(&self) -> Vec<Value> {
        let sends = self.transmitters.iter().map(|transmitter| {
            let TxLane { port, queue, tx, .. } = &transmitter.lane;
            json!({ "port": port, "queue": queue, "tx_path": tx.path().to_string() })
        });
        let receives = self.receivers.iter().map(|receiver| {
            let RxLane { port, queue, rx } = &receiver.lane;
            json!({ "port": port, "queue": queue, "rx_path": rx.path().to_string() })
        });
        sends.chain(receives).collect()
    }

    /// Send and receive until told to end.
    pub(super) fn run(&mut self, signals: &Signals, idle: Idle, work: &mut Workload) {
        let mut rounds = Rounds::default();
        while !signals.end.load(Ordering::Relaxed) {
            let mut moved = 0;
            for transmitter in &mut self.transmitters {
                let sent = transmitter.poll(signals);
                // In parts, where several streams together have sent more than a burst can have.
                work.polled(sent.min(MOST));
                (1..sent.div_ceil(MOST)).for_each(|part| work.polled((sent - part * MOST).min(MOST)));
                moved += sent;
            }
            for receiver in &mut self.receivers {
                let received = receiver.poll();
                work.polled(received);
                moved += received;
            }
            work.round(moved);
            if rounds.are_idle(moved) {
                self.rest(idle);
                work.rested();
            }
        }
        self.rest(Idle::Spin);
        work.publish();
    }

    #[cold]
    #[inline(never)]
    fn rest(&mut self, idle: Idle) {
        self.transmitters.iter_mut().for_each(Transmitter::rest);
        idle.rest();
    }
}
