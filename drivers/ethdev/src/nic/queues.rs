//! Queues: made and handed over when the port starts; single ones stopped, and started again, while it runs.

use std::time::Duration;

use pagewire_pool::Pool;

use super::card::{Card, RxSetup, TxSetup};
use super::device::Way;
use super::port::Nic;
use super::rx::{AssembledRing, NicRx, Ring, RxLimits, RxRing, Source};
use super::tx::{NicTx, TxRing};
use crate::config::{PortConfig, RxOffloads, RxQueueConfig, TxQueueConfig};
use crate::error::Error;
use crate::flow::{FlowAction, FlowRule};

/// Bytes of a frame besides its MTU: Ethernet header and one VLAN tag, without the frame check sequence.
const FRAME_OVERHEAD: usize = 14 + 4;

/// Bytes of a coalesced packet at most: what its IP header can tell, and Ethernet's.
const COALESCED: usize = 0xffff + 14;

/// How long a transmit queue that is being stopped may go on sending.
const SENDING: Duration = Duration::from_millis(10);

/// Whether a queue runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Runs,
    /// The card was told to stop it and did not.
    Stopping,
    Stopped,
}

/// What a started port's queues have in common, and which of them run.
pub(super) struct Started {
    /// As asked for, without the queues.
    pub(super) config: PortConfig,
    /// What the card finds out about received packets.
    pub(super) finds_out: RxOffloads,
    /// By queue.
    pub(super) rx: Vec<State>,
    pub(super) tx: Vec<State>,
}

impl Started {
    fn states(&mut self, way: Way) -> &mut Vec<State> {
        match way {
            Way::Receive => &mut self.rx,
            Way::Transmit => &mut self.tx,
        }
    }

    /// The redirection table of so many entries: as configured, but queues that run stand in for those that do not.
    fn redirection(&self, entries: usize) -> Vec<u16> {
        let running = (0..).zip(&self.rx).filter(|(_, state)| **state == State::Runs);
        let mut running = running.map(|(queue, _)| queue).cycle();
        (0..entries)
            .map(|entry| {
                let table = self.config.rss.table.as_ref();
                let queue = table.map_or(entry % self.rx.len().max(1), |table| table[entry].into());
                match self.rx.get(queue) {
                    None | Some(State::Runs) => queue as u16,
                    Some(_) => running.next().unwrap_or(queue as u16),
                }
            })
            .collect()
    }
}

impl<C: Card> Nic<C> {
    /// Have RSS lead to queues that run.
    pub(super) fn redirect(&self, started: &Started) {
        let entries = self.info.capabilities.rss.table;
        self.card.write_redirection(&self.device, &started.redirection(entries));
    }

    pub(super) fn start_receive(
        &mut self,
        number: usize,
        queue: RxQueueConfig,
        started: &Started,
    ) -> Result<NicRx<C::Rx>, Error> {
        let config = &started.config;
        self.check_space(&queue.pool)?;
        let lro = config.rx_offloads.contains(RxOffloads::LRO);
        let frame = if lro { COALESCED } else { usize::from(config.mtu) + FRAME_OVERHEAD };
        let room = queue.pool.fragment_size() - usize::from(queue.pool.headroom());
        let buffer = self.card.receive_buffer(room, frame).ok_or_else(|| {
            let limit = format!(
                "buffers of {} bytes or more (a pool's fragment_size less its headroom)",
                C::LEAST_BUFFER
            );
            self.info.unsupported("receive buffer of", format!("{room} bytes"), limit)
        })?;
        if frame > buffer && !config.rx_offloads.intersects(RxOffloads::SCATTER | RxOffloads::LRO) {
            let limit =
                format!("receive buffers of {buffer} bytes, and RxOffloads::SCATTER is not asked for");
            return Err(self.info.unsupported("MTU", config.mtu, limit));
        }
        if self.rx_counters.len() <= number {
            self.rx_counters.push(Default::default());
        }
        let (tail, index) = self.card.receive_tail(number);
        let doorbell = self.device.registers.doorbell(tail, index)?;
        let coalesced = if lro { C::coalesced(buffer) } else { 0 };
        let limits = match coalesced {
            0 => RxLimits::new(frame, buffer),
            segments => RxLimits::new(frame.min(usize::from(segments) * buffer), buffer),
        };
        let counters = self.rx_counters[number].clone();
        let (device, offloads) = (&self.device, started.finds_out);
        let (ring, (iova, bytes), header) = match queue.headers {
            None if !lro => {
                let mut ring =
                    RxRing::new(device, queue.pool, queue.descriptors, limits, offloads, doorbell, counters)?;
                ring.use_vector(started.config.vector);
                let place = (ring.descriptors.iova(), ring.descriptors.bytes());
                (Ring::Posted(ring), place, 0)
            }
            headers => {
                let header = headers.as_ref().map_or(Ok(0), |headers| self.header_buffer(headers))?;
                let headers = headers.map(|headers| Source::new(headers, header));
                let data = Source::new(queue.pool, buffer);
                let ring = AssembledRing::new(
                    device,
                    (data, headers),
                    queue.descriptors,
                    limits,
                    offloads,
                    doorbell,
                    counters,
                )?;
                let place = ring.place();
                (Ring::Assembled(Box::new(ring)), place, header)
            }
        };
        self.device.lend(Way::Receive, number);
        let mut rx = NicRx::new(ring, device.clone(), number);
        // From here on the card may know of the ring: the queue's drop keeps its memory, whatever fails.
        self.device.function.set_bus_master(true)?;
        let interrupts = config.rx_interrupts;
        let setup = RxSetup { queue: number, iova, bytes, buffer, header, coalesced, interrupts };
        self.card.start_receive(&self.device, &self.filters, setup)?;
        rx.ring_doorbell();
        rx.interrupt = self.interrupts.of_queue::<C>(&self.device, number);
        Ok(rx)
    }

    /// Bytes that the card may write into each fragment of a pool for headers.
    fn header_buffer(&self, pool: &Pool) -> Result<usize, Error> {
        self.check_space(pool)?;
        let (size, headroom) = (pool.fragment_size(), usize::from(pool.headroom()));
        // Bit 0 of a header's address is the card's.
        let buffer = C::header_buffer(size - headroom).filter(|_| headroom.is_multiple_of(2));
        buffer.ok_or_else(|| {
            let asked = format!("{size} bytes after a headroom of {headroom}");
            self.info.unsupported("header buffer of", asked, "larger ones, at even addresses")
        })
    }

    fn check_space(&self, pool: &Pool) -> Result<(), Error> {
        if pool.space().is(&self.device.space) {
            return Ok(());
        }
        let asked = format!("{:?}, made in another address space,", pool.name());
        Err(self.info.unsupported("receive pool", asked, "one address space, for all its memory"))
    }

    pub(super) fn start_transmit(
        &mut self,
        number: usize,
        queue: TxQueueConfig,
        started: &Started,
    ) -> Result<NicTx<C::Tx>, Error> {
        if self.tx_counters.len() <= number {
            self.tx_counters.push(Default::default());
        }
        let (tail, index) = self.card.transmit_tail(number);
        let mut ring = TxRing::new(
            &self.device,
            queue.descriptors,
            usize::from(started.config.mtu) + FRAME_OVERHEAD,
            started.config.tx_offloads,
            self.device.registers.doorbell(tail, index)?,
            self.tx_counters[number].clone(),
        )?;
        ring.use_vector(started.config.vector);
        let setup = TxSetup { queue: number, iova: ring.descriptors.iova(), bytes: ring.descriptors.bytes() };
        self.device.function.set_bus_master(true)?;
        let queue = NicTx::new(ring, self.device.clone(), number);
        self.device.lend(Way::Transmit, number);
        self.card.start_transmit(&self.device, setup)?;
        Ok(queue)
    }

    pub(super) fn stop_queue(&mut self, way: Way, queue: u16) -> Result<(), Error> {
        let number = self.check_queue(way, queue, true)?;
        if self.device.is_in_use(way, number) {
            return Err(self.state("the queue is still in use; drop it before stopping it"));
        }
        let Some(mut started) = self.started.take() else { return Err(self.not_started()) };
        // Nothing is to be led to it while it stops.
        started.states(way)[number] = State::Stopping;
        match way {
            Way::Receive => self.redirect(&started),
            Way::Transmit if !self.device.settle(way, number, SENDING) => log::warn!(
                "{}: sending what is left in transmit queue {number} did not end within {SENDING:?}; it is not sent",
                self.info.name
            ),
            Way::Transmit => {}
        }
        let stopped = self.silence(way, number);
        if stopped.is_ok() {
            started.states(way)[number] = State::Stopped;
        }
        self.started = Some(started);
        stopped
    }

    /// Have the card stop a queue that is gone, and let go of what it left behind.
    fn silence(&mut self, way: Way, number: usize) -> Result<(), Error> {
        match way {
            Way::Receive => self.card.stop_receive(&self.device, number),
            Way::Transmit => self.card.stop_transmit(&self.device, number),
        }?;
        self.device.release(way, number);
        Ok(())
    }

    pub(super) fn start_queue<Q>(
        &mut self,
        way: Way,
        queue: u16,
        start: impl FnOnce(&mut Self, &Started) -> Result<Q, Error>,
    ) -> Result<Q, Error> {
        let number = self.check_queue(way, queue, false)?;
        let Some(mut started) = self.started.take() else { return Err(self.not_started()) };
        let result = start(self, &started);
        if result.is_ok() {
            started.states(way)[number] = State::Runs;
            if way == Way::Receive {
                self.redirect(&started);
            }
        } else if self.device.has_retired(way, number)
            && let Err(error) = self.silence(way, number)
        {
            // The start's own error is the one to report.
            log::warn!("{error}; what the queue was given is kept until it stops");
        }
        self.started = Some(started);
        result
    }

    /// Whether a queue can be stopped (`runs`) or started now. Returns its number.
    fn check_queue(&self, way: Way, queue: u16, runs: bool) -> Result<usize, Error> {
        let what = match way {
            Way::Receive => "receive queue",
            Way::Transmit => "transmit queue",
        };
        if !C::CAPABILITIES.queue_stop {
            return Err(self.info.unsupported(what, format!("{queue} alone"), crate::port::NO_QUEUE_STOP));
        }
        let Some(started) = &self.started else { return Err(self.not_started()) };
        let states = match way {
            Way::Receive => &started.rx,
            Way::Transmit => &started.tx,
        };
        let number = usize::from(queue);
        let Some(state) = states.get(number) else {
            let limit = format!("{} as it was started", states.len());
            return Err(self.info.unsupported(what, queue, limit));
        };
        match (runs, *state == State::Stopped) {
            (true, true) => return Err(self.state("the queue is stopped already")),
            (false, false) => return Err(self.state("the queue is running; stop it first")),
            _ => {}
        }
        if way == Way::Receive {
            self.check_default(&started.rx, number, runs)?;
        }
        Ok(number)
    }

    /// What has no hash goes to queue 0, and what a flow rule names to that rule's queue: neither may be led to nobody.
    fn check_default(&self, states: &[State], number: usize, stop: bool) -> Result<(), Error> {
        let others = states.iter().skip(1).any(|state| *state == State::Runs);
        if number == 0 && stop && others {
            return Err(
                self.state("packets without a hash go to receive queue 0; stop the other queues before it")
            );
        }
        if number != 0 && !stop && states[0] != State::Runs {
            return Err(self.state("packets without a hash go to receive queue 0; start it first"));
        }
        let leads = |rule: &FlowRule| rule.action == FlowAction::Queue(number as u16);
        if stop && self.filters.flows.iter().any(leads) {
            return Err(self.state("flow rules lead to the queue; set rules without it before stopping it"));
        }
        Ok(())
    }

    /// Whether flow rules lead to queues that run.
    pub(super) fn check_led_to(&self, rules: &[FlowRule], started: &Started) -> Result<(), Error> {
        let runs = |queue: u16| started.rx.get(usize::from(queue)) == Some(&State::Runs);
        match rules.iter().any(|rule| matches!(rule.action, FlowAction::Queue(queue) if !runs(queue))) {
            true => Err(self.state("a flow rule leads to a queue that is stopped; start it first")),
            false => Ok(()),
        }
    }

    /// [`Error::State`]: the call does not fit the port's state.
    pub(super) fn state(&self, what: &'static str) -> Error {
        Error::State { port: self.info.name.clone(), what }
    }
}
