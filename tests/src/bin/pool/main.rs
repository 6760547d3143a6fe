//! What the page pool costs, in instructions and beside DPDK's.
//!
//! `cargo run --release -p pagewire-tests --bin pool -- --help`

mod instructions;
#[path = "../../../../pool/benches/operations/mod.rs"]
mod operations;
mod time;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Instructions a fragment, allocated and dropped, counted by valgrind
    Instructions {
        /// A line of JSON for each figure
        #[arg(long)]
        json: bool,
    },
    /// The instructions executed where an allocation finds a fragment in the cache, and a drop room in the magazine
    HitPath,
    /// Cycles a fragment beside DPDK's mbuf pool
    BesideDpdk {
        /// Runs of each program, in turns, of which the best counts: the others had company
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Nanoseconds a fragment
    #[command(hide = true)]
    Time,
    /// Allocate and drop: what runs in valgrind
    #[command(hide = true)]
    Drive { what: String },
}

fn main() -> Result<()> {
    match Cli::parse().what {
        What::Instructions { json } => instructions::report(json),
        What::HitPath => instructions::hit_path(),
        What::BesideDpdk { rounds } => time::beside_dpdk(rounds),
        What::Time => time::ours(),
        What::Drive { what } => instructions::drive(&what),
    }
}
