//! What a second queue on a second core adds: packets a second that two queues of one port forward on two cores, beside one queue on one.
//!
//! `cargo run --release -p pagewire-tests --bin scaling`
//!
//! The port is the driver's of an 82599 whose registers are a model's, with mapped doorbells. Its traffic is made by a card that costs
//! nothing while anything is measured: in rounds. Before a round it writes back every descriptor that the driver gave it, as received or as
//! sent, and then its thread sleeps. In a round each queue's thread, pinned to a core, forwards what is there in its ring: that is what is
//! timed. One queue alone, the other alone, and both at once take turns, so that whatever else the machine does meets all of them;
//! of each the median round counts.

use std::env::current_exe;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use pagewire_ethdev::{Burst, Pool, Port, PortConfig, RxQueue, RxQueueConfig, TxQueue, TxQueueConfig};
use pagewire_ixgbe::{Ixgbe, IxgbeRx, IxgbeTx};
use pagewire_models::ixgbe::{Config, Ixgbe as Model};
use pagewire_models::server::{Server, ServerOptions};
use pagewire_models::wire::Open;
use pagewire_models::{Function, Host, Region, RegionInfo};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{PageSize, PoolConfig};
use pagewire_tests::callgrind;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

const QUEUES: usize = 2;
/// Bytes of a frame.
const LENGTH: u64 = 60;
/// Rounds that valgrind counts, after as many that it does not.
const COUNTED: usize = 8;

#[derive(Parser)]
struct Cli {
    /// Descriptors of each ring, and packets of a round but for those that are not refilled yet
    #[arg(long, default_value_t = 1024)]
    ring: u32,
    /// Packets of a burst
    #[arg(long, default_value_t = 32)]
    burst: usize,
    /// Rounds of each kind
    #[arg(long, default_value_t = 3000)]
    rounds: usize,
    /// A line of JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Count instead the instructions of a packet with one queue and with two, by valgrind
    Instructions,
    /// What runs in valgrind
    #[command(hide = true)]
    Drive { queues: usize },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.part {
        None => measure(&cli),
        Some(Part::Instructions) => instructions(&cli),
        Some(Part::Drive { queues }) => drive(&cli, queues),
    }
}

#[derive(Serialize)]
struct Rates {
    /// The cores of the two queues.
    cores: Vec<usize>,
    /// Packets a second of each queue alone on its core, of each beside the other, and how much more that is together.
    alone: Vec<f64>,
    together: Vec<f64>,
    ratio: f64,
}

fn measure(cli: &Cli) -> Result<()> {
    let cores = cores()?;
    ensure!(
        cores.len() >= QUEUES,
        "two cores are needed; this process may run on {cores:?} (see `taskset -p $$`)"
    );
    let cores = cores[cores.len() - QUEUES..].to_vec();
    let mut bench = Bench::start(cli, &cores)?;
    // Nanoseconds a packet by queue, alone and together.
    let mut alone = [Vec::new(), Vec::new()];
    let mut together = [Vec::new(), Vec::new()];
    for _ in 0..cli.rounds {
        for (queue, all) in alone.iter_mut().enumerate() {
            all.extend(bench.round(&[queue])?);
        }
        bench.round(&[0, 1])?.into_iter().zip(&mut together).for_each(|(took, all)| all.push(took));
    }
    bench.stop()?;
    let rates =
        |took: [Vec<f64>; QUEUES]| -> Vec<f64> { took.into_iter().map(|took| 1e9 / median(took)).collect() };
    let (alone, together) = (rates(alone), rates(together));
    let ratio = together.iter().sum::<f64>() / (alone.iter().sum::<f64>() / QUEUES as f64);
    let rates = Rates { cores, alone, together, ratio };
    if cli.json {
        println!("{}", serde_json::to_string(&rates)?);
        return Ok(());
    }
    println!(
        "million packets a second, rings of {}, bursts of {}, median of {} rounds",
        cli.ring, cli.burst, cli.rounds
    );
    for (queue, core) in rates.cores.iter().enumerate() {
        let [alone, together] = [rates.alone[queue], rates.together[queue]].map(|rate| rate / 1e6);
        println!("queue {queue} on core {core}: {alone:.1} alone, {together:.1} beside the other");
    }
    println!("both together {:.2} times one alone", rates.ratio);
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[derive(Serialize)]
struct Count {
    queues: usize,
    instructions: f64,
}

fn instructions(cli: &Cli) -> Result<()> {
    for queues in 1..=QUEUES {
        let this = current_exe()?;
        let options = [format!("--ring={}", cli.ring), format!("--burst={}", cli.burst)];
        let args = options.into_iter().chain(["drive".into(), queues.to_string()]);
        let all = callgrind::count(&["forward_a_round*"], &this, args)?;
        let count = Count { queues, instructions: all as f64 / (COUNTED * queues * per_round(cli)) as f64 };
        match cli.json {
            true => println!("{}", serde_json::to_string(&count)?),
            false => println!("{queues} queues: {:.2} instructions a packet", count.instructions),
        }
    }
    Ok(())
}

fn drive(cli: &Cli, queues: usize) -> Result<()> {
    let cores = cores()?;
    let mut bench = Bench::start(cli, &cores)?;
    let numbers: Vec<usize> = (0..queues).collect();
    for _ in 0..COUNTED {
        bench.round(&numbers)?;
    }
    bench.stop()
}

/// Packets that a queue forwards in a round: whole bursts of what the card has at least, one descriptor being free and some not refilled yet.
fn per_round(cli: &Cli) -> usize {
    (cli.ring as usize - 1 - 32.min(cli.ring as usize / 4)) / cli.burst * cli.burst
}

fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Nanoseconds a packet, or how many were forwarded if not all.
type Round = Result<f64, usize>;

/// The port, its queues' threads and its card.
struct Bench {
    port: Ixgbe,
    card: Sender<Order>,
    written: Receiver<()>,
    workers: Vec<(Sender<Start>, Receiver<Round>, thread::JoinHandle<()>)>,
    server: thread::JoinHandle<Result<()>>,
    stopper: pagewire_models::server::Stopper,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn start(cli: &Cli, cores: &[usize]) -> Result<Bench> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("card");
        let server = Server::bind(&path, ServerOptions::default())?;
        let stopper = server.stopper();
        let (card, orders) = channel();
        let (write, written) = channel();
        let server = thread::spawn(move || {
            let model = Model::new(Config { mapped: true, ..Config::default() }, Box::new(Open));
            let mut card = Card { model, orders, written: write, heads: [[0; 2]; QUEUES] };
            Ok(server.run(&mut card)?)
        });
        let space =
            AddressSpace::new(AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..Default::default() })?;
        let mut port = Ixgbe::with_function(&space, space.open_vfio_user(&path)?)?;
        let pool = || {
            let fragments = 4 * cli.ring as usize;
            Pool::new(&PoolConfig { fragments, backing: PageSize::Size4K, ..PoolConfig::default() }, &space)
        };
        let rx = (0..QUEUES).map(|_| Ok(RxQueueConfig::new(pool()?, cli.ring))).collect::<Result<_>>()?;
        let tx = vec![TxQueueConfig { descriptors: cli.ring }; QUEUES];
        let (rx, tx) = port.start(PortConfig { rx, tx, ..PortConfig::default() })?;
        let mut workers = Vec::new();
        for (number, (rx, tx)) in rx.into_iter().zip(tx).enumerate() {
            let (start, starts) = channel();
            let (end, ends) = channel();
            let (core, size, packets) = (cores[number % cores.len()], cli.burst, per_round(cli));
            let thread = thread::Builder::new().name(format!("queue-{number}")).spawn(move || {
                let mut set = CpuSet::new();
                set.set(core);
                // Elsewhere the figures are worse, and not wrong.
                let _ = sched_setaffinity(None, &set);
                work(rx, tx, size, packets, &starts, &end);
            })?;
            workers.push((start, ends, thread));
        }
        let mut bench = Bench { port, card, written, workers, server, stopper, _folder: folder };
        // Rings and caches reach their steady state.
        for _ in 0..COUNTED {
            bench.turn(&[0, 1], false)?;
        }
        Ok(bench)
    }

    /// One round of these queues at once: nanoseconds a packet of each.
    fn round(&mut self, queues: &[usize]) -> Result<Vec<f64>> {
        self.turn(queues, true)
    }

    fn turn(&mut self, queues: &[usize], counted: bool) -> Result<Vec<f64>> {
        self.card.send(Order::WriteBack).context("the card has gone")?;
        self.written.recv_timeout(Duration::from_secs(10)).context("the card does nothing")?;
        let arrived = Arc::new(AtomicUsize::new(0));
        for queue in queues {
            let start = Start { queues: queues.len(), arrived: arrived.clone(), counted };
            self.workers[*queue].0.send(start).context("a queue's thread has gone")?;
        }
        let took = queues.iter().map(|queue| {
            let took = self.workers[*queue]
                .1
                .recv_timeout(Duration::from_secs(10))
                .context("a queue that does not end")?;
            took.map_err(|packets| anyhow::anyhow!("queue {queue} forwarded {packets} packets in a round"))
        });
        took.collect()
    }

    fn stop(mut self) -> Result<()> {
        for (start, _, thread) in self.workers {
            drop(start);
            thread.join().expect("its message has been printed");
        }
        self.card.send(Order::Serve).context("the card has gone")?;
        self.port.stop()?;
        self.stopper.stop();
        self.server.join().expect("its message has been printed")
    }
}

/// What a queue's thread is to wait for: so many, all there.
struct Start {
    queues: usize,
    arrived: Arc<AtomicUsize>,
    counted: bool,
}

fn work(
    mut rx: IxgbeRx,
    mut tx: IxgbeTx,
    size: usize,
    expected: usize,
    starts: &Receiver<Start>,
    end: &Sender<Round>,
) {
    let mut burst = Burst::new(size);
    while let Ok(Start { queues, arrived, counted }) = starts.recv() {
        arrived.fetch_add(1, Ordering::AcqRel);
        let mut looks = 0u32;
        while arrived.load(Ordering::Acquire) < queues {
            looks += 1;
            // Where there is one core for both the other one would never come.
            if looks.is_multiple_of(10_000) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        let start = Instant::now();
        let packets = match counted {
            true => forward_a_round(&mut rx, &mut tx, &mut burst, expected / size),
            false => forward(&mut rx, &mut tx, &mut burst, expected / size),
        };
        let took = start.elapsed().as_nanos() as f64 / packets as f64;
        let result = if packets == expected { Ok(took) } else { Err(packets) };
        if end.send(result).is_err() {
            return;
        }
    }
}

/// The function that valgrind counts.
#[inline(never)]
fn forward_a_round(rx: &mut IxgbeRx, tx: &mut IxgbeTx, burst: &mut Burst, bursts: usize) -> usize {
    forward(black_box(rx), tx, burst, bursts)
}

/// Returns how many packets were sent.
#[inline(always)]
fn forward(rx: &mut IxgbeRx, tx: &mut IxgbeTx, burst: &mut Burst, bursts: usize) -> usize {
    let mut packets = 0;
    for _ in 0..bursts {
        rx.rx_burst(burst);
        packets += tx.tx_burst(burst);
        burst.clear();
    }
    packets
}

/// What the card is to do.
enum Order {
    /// Write back all descriptors that it has, and sleep.
    WriteBack,
    /// Be the model.
    Serve,
}

/// A model for the driver to start, and no more than write-backs when it runs.
struct Card {
    model: Model,
    orders: Receiver<Order>,
    written: Sender<()>,
    /// Of each queue: receive, transmit.
    heads: [[u32; 2]; QUEUES],
}

/// Receive and transmit registers of queue 0, and what is from one queue to the next.
const BLOCKS: [u64; 2] = [0x1000, 0x6000];
const STRIDE: u64 = 0x40;

impl Card {
    fn write_back(&mut self, host: &mut dyn Host) {
        for (queue, heads) in self.heads.iter_mut().enumerate() {
            for (way, head) in heads.iter_mut().enumerate() {
                let mut register = |offset| {
                    let value =
                        host.shared_read(Region::Bar(0), BLOCKS[way] + STRIDE * queue as u64 + offset);
                    u64::from(value)
                };
                let (first, descriptors, tail) =
                    (register(4) << 32 | register(0), register(8) / 16, register(0x18));
                while u64::from(*head) != tail && descriptors > 0 {
                    let at = first + u64::from(*head) * 16;
                    // Refused DMA would show: the round would be short.
                    let _ = if way == 0 { received(host, at) } else { sent(host, at) };
                    *head = ((u64::from(*head) + 1) % descriptors) as u32;
                }
            }
        }
    }
}

/// A frame that has come: DD, EOP and its length.
fn received(host: &mut dyn Host, at: u64) -> Result<(), pagewire_models::DmaError> {
    let words = [0, LENGTH << 32 | 3].map(u64::to_le_bytes).concat();
    host.dma_write(at, &words)
}

/// A frame that has gone: DD where RS asks for it.
fn sent(host: &mut dyn Host, at: u64) -> Result<(), pagewire_models::DmaError> {
    let mut word = [0; 8];
    host.dma_read(at + 8, &mut word)?;
    match u64::from_le_bytes(word) {
        word if word & 1 << 27 != 0 => host.dma_write(at + 12, &((word >> 32) as u32 | 1).to_le_bytes()),
        _ => Ok(()),
    }
}

impl Function for Card {
    fn region(&self, region: Region) -> RegionInfo {
        self.model.region(region)
    }

    fn vectors(&self) -> u16 {
        self.model.vectors()
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8], host: &mut dyn Host) {
        self.model.read(region, offset, data, host);
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8], host: &mut dyn Host) {
        self.model.write(region, offset, data, host);
    }

    fn reset(&mut self, host: &mut dyn Host) {
        self.model.reset(host);
    }

    fn poll(&mut self, host: &mut dyn Host) -> bool {
        let mut order = self.orders.try_recv().ok();
        while let Some(Order::WriteBack) = order {
            self.write_back(host);
            // Nobody waits for it if the program ends.
            let _ = self.written.send(());
            order = self.orders.recv().ok();
        }
        self.model.poll(host)
    }
}
