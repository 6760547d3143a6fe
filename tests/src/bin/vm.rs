//! `tests/vm`: one `pagewire` command, or a shell, in a guest of the lab, on the user's terminal.

use std::io::{self, IsTerminal, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use pagewire_tests::{Guest, GuestOptions, Kernel, Nic, quote};

/// Boot a guest in software emulation, bind its cards to vfio-pci, and run one `pagewire` command in it.
///
/// All cards are on one hub: what one sends, the others receive. Ctrl-] switches the machine off.
#[derive(Parser)]
#[command(name = "tests/vm")]
struct Cli {
    /// A card, by QEMU's name; repeat for more. They are at 0000:01:00.0, 0000:02:00.0 and so on
    #[arg(long = "nic", value_name = "MODEL", default_values_t = ["e1000e".to_owned(), "e1000e".to_owned()])]
    nics: Vec<String>,
    /// Kernel of the guest: `own` has IOMMUFD and VFIO without an IOMMU, and takes minutes to build the first time
    #[arg(long, value_enum, default_value = "debian")]
    kernel: Kernel,
    /// Make time a count of instructions: the TSC advances by 16 an instruction
    #[arg(long)]
    icount: bool,
    /// Memory, MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Huge pages of 2 MiB
    #[arg(long, default_value_t = 128)]
    hugepages: u32,
    /// Leave the cards to the guest's kernel
    #[arg(long)]
    no_bind: bool,
    /// Run an interactive shell
    #[arg(long, conflicts_with = "command")]
    shell: bool,
    /// What to run: arguments of `pagewire`
    #[arg(trailing_var_arg = true, required_unless_present = "shell")]
    command: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut guest = Guest::boot(GuestOptions {
        nics: cli.nics.iter().map(|model| Nic::on_hub(model)).collect(),
        kernel: cli.kernel,
        memory_mib: cli.memory,
        hugepages: cli.hugepages,
        count_instructions: cli.icount,
        terminal: true,
        ..GuestOptions::default()
    })?;
    if !cli.no_bind {
        let addresses: Vec<_> = (0..cli.nics.len()).map(Guest::address).collect();
        guest.check(&format!("pagewire dev bind {}", addresses.join(" ")))?;
    }
    let command = if cli.shell {
        "sh -l".to_owned()
    } else {
        cli.command.iter().fold("pagewire".to_owned(), |line, word| line + " " + &quote(word))
    };

    let terminal = guest.take_terminal().context("the guest has no third serial port")?;
    let raw = RawTerminal::enter()?;
    let job = guest.start(&format!(
        "exec <>/dev/ttyS2 >&0 2>&0; stty sane {}; : >/run/terminal; TERM=linux setsid -c sh -c {}",
        raw.as_ref().map(RawTerminal::size).transpose()?.unwrap_or_default(),
        quote(&format!("exec {command}"))
    ))?;
    // What arrives at a port that nobody has opened is lost.
    guest.until("[ -e /run/terminal ]", Duration::from_secs(10))?;
    let (mut keys, mut screen) = (terminal.try_clone()?, terminal);
    let off = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&off);
    let interactive = raw.is_some();
    thread::spawn(move || copy(&mut io::stdin(), &mut keys, interactive.then_some(&switch)));
    let screen = thread::spawn(move || copy(&mut screen, &mut io::stdout(), None));
    let status = loop {
        if off.load(Ordering::Relaxed) {
            break 1;
        }
        if let Some(status) = guest.status_of(&job)? {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
    };
    // The program's last words had left the guest when it closed the port; QEMU's end is the end of the stream.
    drop(guest);
    screen.join().expect("the screen's thread panicked");
    Ok(ExitCode::from(status as u8))
}

/// Copies until either side ends, and in the terminal's direction until Ctrl-] sets `off`.
fn copy(from: &mut impl Read, to: &mut impl Write, off: Option<&AtomicBool>) {
    const CTRL_BRACKET: u8 = 0x1d;
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if let Some(off) = off
            && buffer[..n].contains(&CTRL_BRACKET)
        {
            off.store(true, Ordering::Relaxed);
            return;
        }
        if to.write_all(&buffer[..n]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// The user's terminal while the guest has it: every key goes to the guest, which echoes and interprets it.
struct RawTerminal {
    saved: String,
}

impl RawTerminal {
    /// `None` if standard input is not a terminal.
    fn enter() -> Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let saved = stty(&["-g"])?;
        stty(&["raw", "-echo"])?;
        Ok(Some(Self { saved }))
    }

    /// Its size, as arguments of `stty`.
    fn size(&self) -> Result<String> {
        let size = stty(&["size"])?;
        let (rows, columns) = size.split_once(' ').context("stty printed no size")?;
        Ok(format!("rows {rows} cols {columns}"))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = stty(&[&self.saved]);
    }
}

fn stty(args: &[&str]) -> Result<String> {
    let output =
        Command::new("stty").args(args).stdin(Stdio::inherit()).output().context("cannot run stty")?;
    ensure!(output.status.success(), "stty: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
