//! `tests/bench-guest` and `tests/bench-null`: `pagewire l2fwd` beside DPDK's testpmd, in one run.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use pagewire_tests::{Guest, GuestOptions, Kernel, Link, Nic, Traffic, Transfer, programs, script};
use serde_json::Value;

#[derive(Parser)]
#[command(name = "tests/bench")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Two cards in a guest: frames a second, and instructions a packet
    Guest {
        /// Which cards: QEMU's model of the 82574L, or ours of the 82599 with mapped doorbells
        #[arg(long, value_enum, default_value = "82574")]
        card: Card,
        /// Kernel of the guest. `own` disturbs the count least
        #[arg(long, value_enum, default_value = "own")]
        kernel: Kernel,
        /// Frames each way in a measurement of the rate
        #[arg(long, default_value_t = 300_000)]
        frames: u64,
        /// Measurements of each rate, of which the best counts: the others had company. 0 leaves the rates out
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Null devices on this machine: cycles a forwarded packet, and packets generated a second
    Null {
        /// Measurements of each, of which the best counts: the others had company
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each measurement
        #[arg(long, default_value_t = 2)]
        seconds: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Card {
    #[value(name = "82574")]
    E1000e,
    #[value(name = "82599")]
    Ixgbe,
}

impl Card {
    /// Two of them, each at a wire of this process.
    fn wired(self) -> Vec<Nic> {
        match self {
            Card::E1000e => vec![Nic::wired("e1000e"); 2],
            Card::Ixgbe => vec![Nic::ixgbe(true, Link::Wire); 2],
        }
    }

    /// DPDK's driver.
    fn driver(self) -> &'static str {
        match self {
            Card::E1000e => "net_e1000",
            Card::Ixgbe => "net_ixgbe",
        }
    }
}

const MODES: [&str; 2] = ["io", "mac"];
const BURSTS: [u32; 3] = [32, 8, 1];

fn main() -> Result<()> {
    match Cli::parse().what {
        What::Guest { card, kernel, frames, rounds } => {
            if rounds > 0 {
                rates(card, kernel, frames, rounds)?;
            }
            counts(card, kernel)
        }
        What::Null { rounds, seconds } => null(rounds, seconds),
    }
}

/// Frames a second through a guest, at most 255 under way in each direction.
fn rates(card: Card, kernel: Kernel, frames: u64, rounds: usize) -> Result<()> {
    println!("frames a second, 64 bytes with checksum, both directions together, best of {rounds} (all)");
    let mut guest = boot(GuestOptions { nics: card.wired(), kernel, ..GuestOptions::default() })?;
    for mode in MODES {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (forwarder, rates) in FORWARDERS.iter().zip(&mut rates) {
                let job = guest.start(&format!("exec {}", (forwarder.guest)(card, mode, 32)))?;
                guest.wait_for(&job, forwarder.ready, Duration::from_secs(60))?;
                let report =
                    Transfer::both_ways(Traffic::Uniform { length: 60 }, frames).run(&mut guest.wires)?;
                report.lossless().with_context(|| forwarder.name)?;
                rates.push(report.rate());
                guest.signal(&job, "INT")?;
                guest.wait(&job, Duration::from_secs(60))?;
            }
        }
        row(mode, 32, rates.map(descending), 0);
    }
    Ok(())
}

/// Instructions a packet, in a guest whose time is a count of instructions.
///
/// QEMU's cards are on one hub, on which one burst for each goes round. Ours have generators, which are faster than the guest and
/// keep more under way than a burst, so that every burst is full.
fn counts(card: Card, kernel: Kernel) -> Result<()> {
    /// Cycles of the time stamp counter an instruction, in a guest that counts.
    const CYCLES: f64 = 16.0;
    println!("instructions a packet, mean over the polls that found packets, the kernel's ticks included");
    let (nics, hub_wire) = match card {
        Card::E1000e => (vec![Nic::on_hub("e1000e"); 2], true),
        Card::Ixgbe => (vec![Nic::ixgbe(true, Link::Generator { window: 255 }); 2], false),
    };
    let options =
        GuestOptions { nics, hub_wire, kernel, count_instructions: true, ..GuestOptions::default() };
    let cases: Vec<_> = MODES.iter().flat_map(|mode| BURSTS.map(|burst| (*mode, burst))).collect();
    let mut figures = [Vec::new(), Vec::new()];
    for (forwarder, figures) in FORWARDERS.iter().zip(&mut figures) {
        let mut guest = boot(options.clone())?;
        for &(mode, burst) in &cases {
            if hub_wire {
                guest.plug_hub_wire(true)?;
            }
            let job = guest.start(&format!("exec {} 2>&1", (forwarder.guest)(card, mode, burst)))?;
            // In the guest's seconds, of which many pass while it waits for its disk.
            guest.wait_for(&job, forwarder.ready, Duration::from_secs(300))?;
            // Links that were brought up may go down and up once more.
            guest.check("sleep 2")?;
            if hub_wire {
                let mut frame = Vec::new();
                for number in 0..burst {
                    Traffic::Uniform { length: 60 }.frame(0, number.into(), &mut frame)?;
                    guest.wires[0].send(&frame)?;
                }
                thread::sleep(Duration::from_millis(200));
                guest.plug_hub_wire(false)?;
            }
            // One command for all of it: what the guest does for us is counted too.
            guest.check(&format!("sleep 10; kill -INT -$(cat {}); sleep 3", job.pid_file()))?;
            let output = guest.wait(&job, Duration::from_secs(60))?.text;
            let cycles =
                (forwarder.cycles)(&output).with_context(|| format!("{}:\n{output}", forwarder.name))?;
            figures.push(vec![cycles / CYCLES]);
        }
    }
    let [ours, theirs] = figures;
    for ((mode, burst), figures) in cases.into_iter().zip(ours.into_iter().zip(theirs)) {
        row(mode, burst, figures.into(), 1);
    }
    Ok(())
}

/// Cycles a packet between two devices that are not there.
fn null(rounds: usize, seconds: u64) -> Result<()> {
    println!("cycles a packet between null devices, best of {rounds} (all)");
    let pagewire = script("static", &["pagewire"])?.pop().context("tests/lab/static printed nothing")?;
    let testpmd = testpmd(
        &programs::fetch()?,
        &["net_null", "bus_vdev"],
        "--in-memory --no-pci -m 32 --vdev net_null0 --vdev net_null1",
    );
    for mode in ["io", "macswap"] {
        for burst in BURSTS {
            let mut figures = [Vec::new(), Vec::new()];
            for _ in 0..rounds {
                let dpdk =
                    format!("timeout --signal=INT {seconds} {testpmd} --forward-mode={mode} --burst={burst}");
                let ours = format!(
                    "{} l2fwd --port null: --port null: --mode {mode} --burst {burst} --cores 1 --json \
                     --stats-period 0 --record-core-cycles --duration {seconds}",
                    pagewire.display()
                );
                for ((forwarder, command), figures) in FORWARDERS.iter().zip([ours, dpdk]).zip(&mut figures) {
                    let output = Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).output()?;
                    let text = String::from_utf8_lossy(&output.stdout);
                    let cycles = (forwarder.cycles)(&text).with_context(|| {
                        format!("{command}\n{text}\n{}", String::from_utf8_lossy(&output.stderr))
                    })?;
                    figures.push(cycles);
                }
            }
            row(mode, burst, figures.map(ascending), 1);
        }
    }
    generators(&pagewire, rounds, seconds)
}

/// Packets a second that are made and sent to a device that is not there. Each program tells it every second, of which the best
/// counts.
fn generators(pagewire: &Path, rounds: usize, seconds: u64) -> Result<()> {
    println!("packets a second, generated and sent to a null device, best second of {rounds} runs (all)");
    let testpmd = programs::testpmd(
        &programs::fetch()?,
        &["net_null", "bus_vdev"],
        "--in-memory --no-pci -m 32 --vdev net_null0",
    );
    for burst in BURSTS {
        let ours = format!(
            "{} pktgen --port null: --burst {burst} --cores 1 --json -T 1 --duration {}",
            pagewire.display(),
            seconds as f64 + 0.5
        );
        let dpdk = format!(
            "timeout --signal=INT {} {testpmd} --forward-mode=txonly --burst={burst} --nb-ports=1 --txd=512 --stats-period=1",
            seconds as f64 + 1.5
        );
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for ((command, rates), figures) in
                [(&ours, pktgen_rates as fn(&str) -> Vec<f64>), (&dpdk, testpmd_rates)]
                    .into_iter()
                    .zip(&mut figures)
            {
                let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output()?;
                let text = String::from_utf8_lossy(&output.stdout);
                let best = rates(&text).into_iter().max_by(f64::total_cmp);
                figures.push(best.with_context(|| {
                    format!("{command}\n{text}\n{}", String::from_utf8_lossy(&output.stderr))
                })?);
            }
        }
        row("txonly", burst, figures.map(descending), 0);
    }
    Ok(())
}

/// What pktgen sent in each second.
fn pktgen_rates(output: &str) -> Vec<f64> {
    let reports = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    reports.filter_map(|report| report["streams"][0]["sent_pps"].as_f64()).collect()
}

/// What testpmd sent in each second.
fn testpmd_rates(output: &str) -> Vec<f64> {
    let rates = output.split("Tx-pps:").skip(1);
    rates.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
}

/// A program to measure.
struct Forwarder {
    name: &'static str,
    /// How it is started in the guest, by card, mode and burst.
    guest: fn(Card, &str, u32) -> String,
    /// What it prints when it forwards.
    ready: &'static str,
    /// Its cycles a packet over all polls that found some, from what it printed.
    cycles: fn(&str) -> Option<f64>,
}

const FORWARDERS: [Forwarder; 2] = [
    Forwarder {
        name: "pagewire",
        guest: |_, mode, burst| {
            let (a, b) = (Guest::address(0), Guest::address(1));
            format!(
                "pagewire l2fwd --port {a} --port {b} --mode {mode} --burst {burst} -T 0 --record-core-cycles --json"
            )
        },
        ready: "port 1 .*link up",
        cycles: |output| {
            let last: Value = serde_json::from_str(output.lines().last()?).ok()?;
            last["cycles_per_packet"][0]["mean"].as_f64()
        },
    },
    Forwarder {
        name: "DPDK testpmd",
        guest: |card, mode, burst| {
            let (a, b) = (Guest::address(0), Guest::address(1));
            // DPDK's vector path for the 82599 receives nothing in bursts of less than four.
            let scalar = if card == Card::Ixgbe && burst < 4 { " --force-max-simd-bitwidth=64" } else { "" };
            let testpmd = testpmd(
                Path::new(programs::IN_GUEST),
                &[card.driver(), "bus_pci"],
                &format!("--in-memory{scalar} -a {a} -a {b}"),
            );
            format!("{testpmd} --forward-mode={mode} --burst={burst}")
        },
        ready: "NIC statistics",
        cycles: |output| {
            // By packets sent, which are all that were received: a card that is mapped does not count those it received where testpmd
            // looks.
            let number = |text: &str| text.trim_start().split([' ', ')']).next()?.parse::<f64>().ok();
            let (before, cycles) = output.rsplit_once("total cycles=")?;
            let (_, all) = before.rsplit_once("Accumulated forward statistics")?;
            let (_, sent) = all.split_once("TX-packets:")?;
            Some(number(cycles)? / number(sent)?).filter(|figure| figure.is_finite())
        },
    },
];

/// testpmd with those drivers, counting its cycles. It drops what its transmit rings have no room for: they get more than can be
/// under way.
fn testpmd(root: &Path, drivers: &[&str], devices: &str) -> String {
    programs::testpmd(root, drivers, devices) + " --txd=512 --record-core-cycles --stats-period=5"
}

/// A guest with DPDK and its cards on vfio-pci.
fn boot(options: GuestOptions) -> Result<Guest> {
    let mut guest = programs::boot(options)?;
    guest.check(&format!("pagewire dev bind {} {}", Guest::address(0), Guest::address(1)))?;
    Ok(guest)
}

fn ascending(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

fn descending(figures: Vec<f64>) -> Vec<f64> {
    ascending(figures).into_iter().rev().collect()
}

/// One line of a table; each program's figures begin with its best.
fn row(mode: &str, burst: u32, figures: [Vec<f64>; 2], decimals: usize) {
    print!("  {mode:8} burst {burst:2}");
    for (forwarder, figures) in FORWARDERS.iter().zip(&figures) {
        print!("   {} {:.decimals$}", forwarder.name, figures[0]);
        if figures.len() > 1 {
            let all: Vec<_> = figures.iter().map(|figure| format!("{figure:.decimals$}")).collect();
            print!(" ({})", all.join(" "));
        }
    }
    println!("   ratio {:.2}", figures[0][0] / figures[1][0]);
}
