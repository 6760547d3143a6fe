//! Instructions that the 82599 driver executes for a forwarded packet, counted by valgrind: receive, transmit and pool, and
//! nothing of the model's, which is another process.
//!
//! `cargo run --release -p pagewire-tests --bin count`, and with `loops` the machine code of the hot loops.
//!
//! Counted is one function, an application's loop over a round of packets, called when the card has finished all that it was given before:
//! `rx_burst`, in mode `mac` the rewriting of both addresses, `tx_burst`; in modes `rx` and `tx` one of the two alone.

use std::env::current_exe;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use pagewire_ethdev::{Burst, Packet, Pool, Port, PortConfig, RxQueue, TxQueue, poll_until};
use pagewire_ixgbe::Ixgbe;
use pagewire_models::ixgbe::{Config, Ixgbe as Model};
use pagewire_models::server::{Server, ServerOptions};
use pagewire_models::wire::{Generator, Report, Traffic};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{PageSize, PoolConfig};
use pagewire_tests::callgrind;
use serde::Serialize;

/// Packets counted, and passed before without counting: rings and caches reach their steady state.
const PACKETS: usize = 4096;
const WARM_UP: usize = 2048;
/// Packets that are forwarded at a time, when the card has finished all before: as many as there are between two of its status reports,
/// so that what is there to be cleaned never depends on how fast the card is.
const ROUND: usize = 32;
/// How long the card may take for a burst.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Cli {
    /// A line of JSON for each figure
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// List the instructions of the loops over received and sent packets: those executed for each packet, or for four
    Loops,
    /// Be the driver of the card at a socket: what runs in valgrind
    #[command(hide = true)]
    Drive { socket: PathBuf, path: LoopPath, mode: Mode, burst: usize },
    /// Be the card
    #[command(hide = true)]
    Serve { socket: PathBuf },
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Io,
    Mac,
    /// As `Io`; counted is receiving alone.
    Rx,
    /// As `Io`; counted is sending alone.
    Tx,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum LoopPath {
    Vector,
    Bulk,
}

#[derive(Serialize)]
struct Figure {
    path: LoopPath,
    mode: Mode,
    burst: usize,
    instructions: f64,
}

/// An instruction of a loop.
#[derive(Serialize)]
struct Executed {
    path: LoopPath,
    mode: Mode,
    instruction: String,
    /// How often, by packets.
    times: f64,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.part {
        Some(Part::Drive { socket, path, mode, burst }) => drive(&socket, path, mode, burst),
        Some(Part::Serve { socket }) => serve(&socket),
        Some(Part::Loops) => loops(cli.json),
        None => {
            for path in [LoopPath::Vector, LoopPath::Bulk] {
                for mode in Mode::value_variants().iter().copied() {
                    for burst in [32, 8, 1] {
                        let figure = Figure { path, mode, burst, instructions: count(path, mode, burst)? };
                        match cli.json {
                            true => println!("{}", serde_json::to_string(&figure)?),
                            false => println!(
                                "{path:?}, {mode:?}, burst {burst}: {:.1} instructions a packet",
                                figure.instructions
                            ),
                        }
                    }
                }
            }
            Ok(())
        }
    }
}

/// A card, ended with whoever holds it.
struct Card(Child);

impl Drop for Card {
    fn drop(&mut self) {
        // It has ended by itself, or does now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Instructions a packet.
fn count(path: LoopPath, mode: Mode, burst: usize) -> Result<f64> {
    let counted =
        in_valgrind(path, mode, burst, |function, this, args| callgrind::count(&[function], this, args))?;
    Ok(counted as f64 / PACKETS as f64)
}

fn loops(json: bool) -> Result<()> {
    for path in [LoopPath::Vector, LoopPath::Bulk] {
        for mode in [Mode::Rx, Mode::Tx] {
            let executed = in_valgrind(path, mode, ROUND, |function, this, args| {
                callgrind::executed(function, this, args)
            })?;
            for (instruction, times) in executed {
                let times = times as f64 / PACKETS as f64;
                // What is executed once a burst is so less often.
                if times < 0.25 {
                    continue;
                }
                let one = Executed { path, mode, instruction, times };
                match json {
                    true => println!("{}", serde_json::to_string(&one)?),
                    false => println!("{path:?}, {mode:?}: {times:.2} {}", one.instruction),
                }
            }
        }
    }
    Ok(())
}

/// Have a card, and its driver in valgrind, which looks at one function.
fn in_valgrind<T>(
    path: LoopPath,
    mode: Mode,
    burst: usize,
    look: impl FnOnce(&str, &Path, [&OsStr; 5]) -> Result<T>,
) -> Result<T> {
    let folder = tempfile::tempdir()?;
    let (socket, this) = (folder.path().join("card"), current_exe()?);
    let card = Command::new(&this).arg("serve").arg(&socket).spawn().context("starting the card")?;
    let _card = Card(card);
    ensure!(
        poll_until(Duration::from_secs(10), || socket.exists()),
        "the card does not serve {}",
        socket.display()
    );
    let counted = match mode {
        Mode::Io | Mode::Mac => "forward_round*",
        Mode::Rx => "receive_burst*",
        Mode::Tx => "transmit_burst*",
    };
    let mode = mode.to_possible_value().context("a mode without a name")?;
    let path = path.to_possible_value().context("a path without a name")?;
    let burst = burst.to_string();
    let [path, mode] = [path.get_name().as_ref(), mode.get_name().as_ref()];
    let args = ["drive".as_ref(), socket.as_os_str(), path, mode, OsStr::new(&burst)];
    look(counted, &this, args)
}

fn serve(socket: &Path) -> Result<()> {
    let traffic = Traffic { window: 256, ..Traffic::default() };
    let wire = Box::new(Generator::new(traffic, Arc::<Report>::default()));
    let server = Server::bind(socket, ServerOptions::default())?;
    Ok(server.run(&mut Model::new(Config { mapped: true, ..Config::default() }, wire))?)
}

fn drive(socket: &Path, path: LoopPath, mode: Mode, size: usize) -> Result<()> {
    let space =
        AddressSpace::new(AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..Default::default() })?;
    let pool = Pool::new(&PoolConfig { backing: PageSize::Size4K, ..PoolConfig::default() }, &space)?;
    let mut port = Ixgbe::with_function(&space, space.open_vfio_user(socket)?)?;
    let vector = matches!(path, LoopPath::Vector);
    let (mut rx, mut tx) = port.start(PortConfig { vector, ..PortConfig::single_queue(pool) })?;
    // Where the CPU has no AVX2 there is nothing to count.
    let active = [rx[0].path(), tx[0].path()];
    ensure!(
        active.iter().all(|path| path.refused.is_none()) || !vector,
        "not on the vector path: {active:?}"
    );
    ensure!(poll_until(Duration::from_secs(5), || port.link().is_up()), "the link does not come up");
    let mut burst = Burst::new(size);
    let rounds = (WARM_UP + PACKETS) / ROUND;
    for round in 0..=rounds {
        let finished = || has_finished(&mut port, (round * ROUND) as u64);
        ensure!(
            poll_until(PATIENCE, finished),
            "the card does not deliver whole rounds of {ROUND} packets at bursts of {size}"
        );
        let (rx, tx, bursts) = (&mut rx[0], &mut tx[0], ROUND / size);
        match mode {
            _ if round == rounds => {}
            _ if round < WARM_UP / ROUND => forward::<false>(rx, tx, &mut burst, bursts),
            Mode::Io => forward_round::<false>(rx, tx, &mut burst, bursts),
            Mode::Mac => forward_round::<true>(rx, tx, &mut burst, bursts),
            Mode::Rx | Mode::Tx => (0..bursts).for_each(|_| {
                receive_burst(rx, &mut burst);
                transmit_burst(tx, &mut burst);
            }),
        }
    }
    drop((rx, tx));
    Ok(port.stop()?)
}

/// Whether the card has sent all packets that have passed, and received another round.
fn has_finished(port: &mut Ixgbe, passed: u64) -> bool {
    let xstats = port.xstats();
    let count = |name| xstats.iter().find(|stat| stat.name == name).map_or(0, |stat| stat.value);
    count("tx_good_packets") == passed && count("rx_good_packets") >= passed + ROUND as u64
}

/// The function that valgrind counts, one for each mode.
#[inline(never)]
fn forward_round<const MAC: bool>(
    rx: &mut impl RxQueue,
    tx: &mut impl TxQueue,
    burst: &mut Burst,
    bursts: usize,
) {
    forward::<MAC>(rx, tx, burst, bursts);
}

/// Half of it, with the call.
#[inline(never)]
fn receive_burst(rx: &mut impl RxQueue, burst: &mut Burst) {
    rx.rx_burst(burst);
}

/// The other half.
#[inline(never)]
fn transmit_burst(tx: &mut impl TxQueue, burst: &mut Burst) {
    tx.tx_burst(burst);
}

/// The loop of an application: what there is no room for stays in the burst, and goes with the next.
#[inline(always)]
fn forward<const MAC: bool>(rx: &mut impl RxQueue, tx: &mut impl TxQueue, burst: &mut Burst, bursts: usize) {
    for _ in 0..bursts {
        rx.rx_burst(burst);
        if MAC {
            burst.iter_mut().for_each(rewrite);
        }
        tx.tx_burst(burst);
    }
}

fn rewrite(packet: &mut Packet) {
    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1];
    if let Some(front) = packet.as_mut_slice().and_then(|data| data.first_chunk_mut()) {
        *front = ADDRESSES;
    }
}
