//! The `pagewire` command: forward frames between ports, and look after the devices and the memory that this needs.

/// Say something on standard error, or where a screen shows it.
macro_rules! note {
    ($($arguments:tt)*) => {
        $crate::notes::say(format_args!($($arguments)*))
    };
}

mod capture;
mod check;
mod cores;
mod dev;
mod door;
mod embedded;
mod hugepages;
mod idle;
mod l2fwd;
mod lanes;
mod live;
mod manual;
mod memory;
mod model;
mod notes;
mod page;
mod pktgen;
mod ports;
mod run;
mod screen;
mod stats;
#[cfg(test)]
mod testing;
mod tsc;
mod workload;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  pagewire l2fwd                     forward between two modelled cards, for 10 seconds
  pagewire check                     whether this machine is ready for real ones
  pagewire stats --watch             what running processes count
  pagewire completion bash           make the shell complete commands and options";

/// Poll-mode, user-space network drivers.
#[derive(Parser)]
#[command(name = "pagewire", version, about, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Forward frames between ports at layer 2
    L2fwd(Box<l2fwd::Args>),
    /// Generate packets, and measure what becomes of them
    Pktgen(Box<pktgen::Args>),
    /// Write packets to a pcap file: a port's, or those of a process that hands them over
    Capture(Box<capture::Args>),
    /// Serve modelled cards on sockets, for l2fwd and for guests
    Model(Box<model::Args>),
    /// Show what running processes count: ports, queues, cores, pools
    Stats(stats::Args),
    /// Check whether this machine is ready for ports, and say what mends what is not
    Check(Box<check::Args>),
    /// List network devices; bind them to vfio-pci and back
    Dev(dev::Args),
    /// Show, reserve and release huge pages
    Hugepages(hugepages::Args),
    /// Print what a shell needs to complete commands and options
    Completion(manual::CompletionArgs),
    /// Print or write manual pages
    Man(manual::ManArgs),
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp(None)
        .target(env_logger::Target::Pipe(Box::new(notes::Sink)))
        .init();
    let done = match Cli::parse().command {
        Command::L2fwd(args) => l2fwd::run(*args),
        Command::Pktgen(args) => pktgen::run(*args),
        Command::Capture(args) => capture::run(*args),
        Command::Model(args) => model::run(*args),
        Command::Stats(args) => stats::run(args),
        Command::Check(args) => check::run(*args),
        Command::Dev(args) => dev::run(args),
        Command::Hugepages(args) => hugepages::run(args),
        Command::Completion(args) => manual::completion(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("pagewire: {error:#}");
            if error.is::<pktgen::Unmet>() { ExitCode::from(pktgen::UNMET) } else { ExitCode::FAILURE }
        }
    }
}
