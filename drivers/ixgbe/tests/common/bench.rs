//! Two ports, two models, a cable.

use std::sync::{Arc, Mutex, PoisonError};

use pagewire_ethdev::{Burst, Chain, MacAddr, Packet, Pool, Port, PortConfig, RxQueue, TxQueue};
use pagewire_ixgbe::{Ixgbe, IxgbeRx};
use pagewire_models::ixgbe::Config;
use pagewire_models::wire::{Arrival, Pair, Wire, pair};
use pagewire_pci::AddressSpace;
use pagewire_pool::PoolMonitor;

use super::{Card, Running, config, eventually, pool, serve_as, space};

/// What a port of the bench is: a card's, or a virtual function's.
pub(crate) trait Side: Port<Rx = IxgbeRx> + Sized + 'static {
    /// What is behind it.
    type Running;

    /// It has touched no register that is none, and no memory that is not its own.
    fn assert_clean(running: Self::Running);
}

impl Side for Ixgbe {
    type Running = Running;

    fn assert_clean(running: Running) {
        running.assert_clean();
    }
}

/// A started port.
pub(crate) struct End<P: Side = Ixgbe> {
    pub(crate) rx: Vec<IxgbeRx>,
    pub(crate) tx: Vec<P::Tx>,
    pub(crate) port: P,
    pub(crate) running: P::Running,
}

/// Frames as a card sent them.
#[derive(Clone, Default)]
pub(crate) struct Sent(Arc<Mutex<Vec<Vec<u8>>>>);

impl Sent {
    /// Those since this was last asked.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An end of a cable that remembers what its card sends.
pub(crate) struct Watched {
    pub(crate) cable: Pair,
    pub(crate) sent: Sent,
}

impl Wire for Watched {
    fn send(&mut self, frame: &[u8]) -> bool {
        let taken = self.cable.send(frame);
        if taken {
            self.sent.0.lock().unwrap_or_else(PoisonError::into_inner).push(frame.to_vec());
        }
        taken
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Arrival> {
        self.cable.receive(frame)
    }

    fn carrier(&mut self) -> bool {
        self.cable.carrier()
    }

    fn light(&mut self, on: bool) {
        self.cable.light(on);
    }
}

/// Two cards at one cable, whose drivers share a space.
pub(crate) struct Bench<P: Side = Ixgbe> {
    pub(crate) a: End<P>,
    pub(crate) b: End<P>,
    pub(crate) pool: Pool,
    pub(crate) space: AddressSpace,
}

impl Bench {
    pub(crate) fn new(mapped: bool, change: impl Fn(&AddressSpace, &mut PortConfig)) -> Bench {
        Bench::spoiled(mapped, change, |_| ())
    }

    /// With something wrong with both cards.
    pub(crate) fn spoiled(
        mapped: bool,
        change: impl Fn(&AddressSpace, &mut PortConfig),
        spoil: impl Fn(&mut Card),
    ) -> Bench {
        Bench::watched(Config { mapped, ..Config::default() }, change, spoil).0
    }

    /// Such cards, and everything that the first of them sends.
    pub(crate) fn watched(
        card: Config,
        change: impl Fn(&AddressSpace, &mut PortConfig),
        spoil: impl Fn(&mut Card),
    ) -> (Bench, Sent) {
        let space = space();
        let (one, two) = pair();
        let sent = Sent::default();
        let end = |number, wire: Box<dyn Wire>| {
            let card = Config { mac: [2, 0, 0, 0, 0, number], ..card.clone() };
            let running = serve_as(card, wire, &spoil);
            let mut port = running.open_in(&space).unwrap();
            let mut config = config(&space);
            change(&space, &mut config);
            let (rx, tx) = port.start(config).unwrap();
            End { rx, tx, port, running }
        };
        let one = Watched { cable: one, sent: sent.clone() };
        let (a, b) = (end(1, Box::new(one)), end(2, Box::new(two)));
        (Bench::of(a, b, space), sent)
    }
}

impl<P: Side> Bench<P> {
    /// Two ports that have been started in a space.
    pub(crate) fn of(mut a: End<P>, mut b: End<P>, space: AddressSpace) -> Bench<P> {
        for end in [&mut a, &mut b] {
            eventually("the link", || end.port.link().is_up());
        }
        Bench { a, b, pool: pool(&space, 1024), space }
    }

    /// Send from the first port's first queue; returns what the second got, by queue.
    pub(crate) fn pass(&mut self, packets: Vec<Packet>, expected: usize) -> Vec<Vec<Packet>> {
        send(&mut self.a.tx[0], packets);
        receive(&mut self.b.rx, expected)
    }

    /// A packet of segments of these lengths.
    pub(crate) fn packet(&mut self, data: &[u8], lengths: &[usize]) -> Packet {
        let mut rest = data;
        let mut segments = lengths.iter().map(|&len| {
            let (now, later) = rest.split_at(len);
            rest = later;
            let mut packet = self.pool.alloc_packet().expect("a pool that is large enough");
            packet.extend_from_slice(now).unwrap();
            packet
        });
        let mut chain = Chain::new(segments.next().expect("a segment"));
        segments.for_each(|segment| chain.push(segment).expect("few segments"));
        chain.finish()
    }

    /// A packet of as few segments as hold it.
    pub(crate) fn chain(&mut self, data: &[u8]) -> Packet {
        let lengths: Vec<usize> = data.chunks(1700).map(<[u8]>::len).collect();
        self.packet(data, &lengths)
    }

    /// Packets of one segment each.
    pub(crate) fn packets<'a>(&mut self, frames: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Packet> {
        frames.into_iter().map(|data| self.packet(data, &[data.len()])).collect()
    }

    /// Frames in so many rounds of 40, which arrive as they were sent.
    pub(crate) fn pass_all(&mut self, rounds: usize) {
        let to = self.b.port.info().mac;
        for round in 0..rounds {
            let frames: Vec<Vec<u8>> = (0..40).map(|n| frame(to, 60 + (round * 40 + n) % 1459)).collect();
            let packets = self.packets(&frames);
            let got: Vec<_> = self.pass(packets, frames.len()).iter().flatten().map(bytes).collect();
            assert!(got == frames, "round {round}: other frames than were sent");
        }
    }

    /// One frame of one segment.
    pub(crate) fn pass_frame(&mut self, data: &[u8]) -> Packet {
        let packet = self.packet(data, &[data.len()]);
        self.pass_one(packet)
    }

    /// One packet, which must come back as one.
    pub(crate) fn pass_one(&mut self, packet: Packet) -> Packet {
        self.pass(vec![packet], 1).into_iter().flatten().next().expect("one packet")
    }

    /// Everything stops, and nothing is left anywhere.
    pub(crate) fn finish(self) {
        let inflight: Vec<u64> = self.stop().iter().map(|pool| pool.stats().inflight()).collect();
        assert!(inflight.iter().all(|&fragments| fragments == 0), "{inflight:?} fragments are out");
    }

    /// Everything stops, with packets out or not. Gives the pools of what was received, and that of what was sent.
    pub(crate) fn stop(self) -> Vec<PoolMonitor> {
        let Bench { mut a, mut b, mut pool, .. } = self;
        let mut monitors = Vec::new();
        // Of both first: a card whose neighbour has gone has no link, and sends nothing.
        for queue in a.tx.iter_mut().chain(&mut b.tx) {
            eventually("reports of all that was sent", || {
                queue.reclaim();
                queue.pending() == 0
            });
        }
        for End { mut rx, tx, mut port, running } in [a, b] {
            monitors.extend(rx.iter_mut().map(|queue| queue.pool().monitor()));
            drop((rx, tx));
            port.stop().unwrap();
            P::assert_clean(running);
        }
        pool.trim();
        monitors.push(pool.monitor());
        monitors
    }
}

pub(crate) fn send(tx: &mut impl TxQueue, packets: Vec<Packet>) {
    let mut burst = Burst::new(packets.len());
    packets.into_iter().for_each(|packet| burst.push(packet).expect("room for all"));
    eventually("room in the ring", || {
        tx.tx_burst(&mut burst);
        burst.is_empty()
    });
}

pub(crate) fn receive(rx: &mut [IxgbeRx], expected: usize) -> Vec<Vec<Packet>> {
    let mut got: Vec<Vec<Packet>> = rx.iter().map(|_| Vec::new()).collect();
    let mut burst = Burst::new(32);
    eventually("all packets", || {
        for (queue, got) in rx.iter_mut().zip(&mut got) {
            queue.rx_burst(&mut burst);
            got.extend(burst.drain());
        }
        got.iter().map(Vec::len).sum::<usize>() >= expected
    });
    got
}

/// A counter of the card, by its name among the port's.
pub(crate) fn count(port: &mut impl Port, name: &str) -> u64 {
    port.xstats().into_iter().find(|stat| stat.name == name).expect(name).value
}

/// Nothing comes, for as long as something would take a hundred times over.
pub(crate) fn assert_nothing(rx: &mut IxgbeRx) {
    let mut burst = Burst::new(32);
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(rx.rx_burst(&mut burst), 0);
    }
}

pub(crate) fn bytes(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.copy_to(&mut bytes).expect("memory that can be read");
    bytes
}

/// An Ethernet frame of so many bytes, each other than its neighbours.
pub(crate) fn frame(destination: MacAddr, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|at| (at * 7 + at / 256) as u8).collect();
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xee]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}
