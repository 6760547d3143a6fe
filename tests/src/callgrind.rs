//! What a function executes, instruction by instruction, as valgrind sees it: exact, and the same in every run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Runs `program` with those arguments in valgrind; returns the instructions executed in `functions` and in what they call.
///
/// A function is named without its path, and must neither be inlined nor call another of those named.
pub fn count<A: AsRef<OsStr>>(
    functions: &[&str],
    program: &Path,
    args: impl IntoIterator<Item = A>,
) -> Result<u64> {
    run(functions, &[NO_PROFILE], program, args)
}

/// The machine instructions that `function` and whatever it calls execute while `program` runs with those arguments, in order of
/// address, as objdump writes them, and how often; each is there once.
///
/// # Errors
///
/// Besides what keeps the programs from running: that code outside of the program itself was executed.
pub fn executed<A: AsRef<OsStr>>(
    function: &str,
    program: &Path,
    args: impl IntoIterator<Item = A>,
) -> Result<Vec<(String, u64)>> {
    let folder = tempfile::tempdir()?;
    let profile = folder.path().join("profile");
    let options = ["--dump-instr=yes", "--compress-pos=no", "--compress-strings=no"];
    let out = format!("--callgrind-out-file={}", profile.display());
    run(&[function], &[&options[..], &[&out]].concat(), program, args)?;
    let profile = fs::read_to_string(&profile).context("reading what callgrind wrote")?;
    let listing = Command::new("objdump")
        .args(["--disassemble", "--demangle", "--no-show-raw-insn"])
        .arg(program)
        .output()
        .context("running objdump; install it with `apt install binutils`")?;
    ensure!(listing.status.success(), "objdump: {}", String::from_utf8_lossy(&listing.stderr));
    let listing = disassembly(&String::from_utf8(listing.stdout)?);
    addresses(&profile, &program.canonicalize()?)?
        .iter()
        .map(|(address, times)| {
            let text = listing.get(address).with_context(|| format!("{address:#x} is not in the program"))?;
            Ok((text.clone(), *times))
        })
        .collect()
}

fn run<A: AsRef<OsStr>>(
    functions: &[&str],
    options: &[&str],
    program: &Path,
    args: impl IntoIterator<Item = A>,
) -> Result<u64> {
    let mut command = command(functions, options, program, args);
    let run = command.stdout(Stdio::inherit()).output().context(MISSING)?;
    collected(&run)
}

/// For who wants the sum alone.
pub const NO_PROFILE: &str = "--callgrind-out-file=/dev/null";

const MISSING: &str = "running valgrind; install it with `apt install valgrind`";

/// What [`count`] runs, for who wants to do something meanwhile.
pub fn command<A: AsRef<OsStr>>(
    functions: &[&str],
    options: &[&str],
    program: &Path,
    args: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--collect-atstart=no"]).args(options);
    command.args(functions.iter().map(|function| format!("--toggle-collect=*::{function}")));
    command.arg(program).args(args);
    command
}

/// The instructions that it counted.
pub fn collected(run: &Output) -> Result<u64> {
    let said = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.success(), "valgrind ended with {}:\n{said}", run.status);
    let collected =
        said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    collected.filter(|&count| count > 0).with_context(|| format!("nothing was counted:\n{said}"))
}

/// Where in the program the instructions are that a profile lists, and how often each was executed.
fn addresses(profile: &str, program: &Path) -> Result<BTreeMap<u64, u64>> {
    let mut found = BTreeMap::new();
    let mut object = Path::new("");
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("calls=") {
            // The line after it has what the call cost, and the address of the call, which has a line of its own.
            lines.next();
        } else if let Some(name) = line.strip_prefix("ob=") {
            object = Path::new(name);
        } else if let Some((address, _)) = line.strip_prefix("0x").and_then(|line| line.split_once(' ')) {
            ensure!(object == program, "code of {} was executed", object.display());
            // Address, line of the source, and how often.
            let times = line.rsplit_once(' ').and_then(|(_, times)| times.parse::<u64>().ok());
            let (Ok(address), Some(times)) = (u64::from_str_radix(address, 16), times) else {
                bail!("profile: {line:?}");
            };
            *found.entry(address).or_default() += times;
        }
    }
    if found.is_empty() {
        bail!("the profile lists no instruction");
    }
    Ok(found)
}

/// The instructions of a listing, by address.
fn disassembly(listing: &str) -> BTreeMap<u64, String> {
    let instruction = |line: &str| {
        let (address, text) = line.split_once(":\t")?;
        Some((u64::from_str_radix(address.trim(), 16).ok()?, text.trim().to_owned()))
    };
    listing.lines().filter_map(instruction).collect()
}
