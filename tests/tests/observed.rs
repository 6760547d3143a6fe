//! What it costs a forwarding loop that others look at its statistics, however they behave: nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagewire_ethdev::poll_until;
use pagewire_tests::{callgrind, script};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For how long it forwards at least, in valgrind.
const DURATION: Duration = Duration::from_secs(4);
/// How long any one thing may take there.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers that honest clients must have got among the others.
const ANSWERS: u32 = 3;

/// Instructions of the loop for each packet, from null ports to null ports, while `clients` do something at the statistics' socket.
fn instructions(clients: impl FnOnce(&Path) -> Result<()>) -> Result<f64> {
    let program = script("static", &["pagewire"])?.pop().context("tests/lab/static printed nothing")?;
    let folder = tempfile::tempdir()?;
    let args = "l2fwd --port null: --port null: --pages 4K --mode io -T 0 --json".split(' ');
    let options = [callgrind::NO_PROFILE, "--fair-sched=yes"];
    let mut command = callgrind::command(&["lane::run"], &options, &program, args);
    command.env("XDG_RUNTIME_DIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = command.spawn().context("running valgrind; install it with `apt install valgrind`")?;
    let socket = folder.path().join("pagewire").join(format!("l2fwd-{}.sock", run.id()));
    let looked = poll_until(PATIENCE, || UnixStream::connect(&socket).is_ok()).then(|| clients(&socket));
    kill_process(Pid::from_child(&run), Signal::INT)?;
    let output = run.wait_with_output()?;
    looked.with_context(|| format!("nobody listens at {}", socket.display()))??;
    let counted = callgrind::collected(&output)?;
    let last: Value = serde_json::from_slice(&output.stdout)?;
    let packets: u64 = (0..2).filter_map(|port| last["ports"][port]["rx_packets"].as_u64()).sum();
    ensure!(packets > 100_000, "{packets} packets are too few: {last:#}");
    Ok(counted as f64 / packets as f64)
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).context("nobody listens")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Garbage, huge requests, a hundred clients at once of which half never read, and honest ones.
fn hostile(socket: &Path) -> Result<()> {
    let start = Instant::now();
    let mut answers = 0;
    while answers < ANSWERS || start.elapsed() < DURATION {
        ensure!(start.elapsed() < 3 * PATIENCE, "{answers} honest clients were answered in three minutes");
        // None of these can expect that it may say all it wants.
        let _ = connect(socket)?.write_all(b"\xff\0 GET / HTTP/1.1\r\n");
        let _ = connect(socket)?.write_all(&vec![b'['; 1 << 20]);
        let deaf = (0..100).map(|_| connect(socket)).collect::<Result<Vec<_>>>()?;
        for mut client in &deaf[..deaf.len() / 2] {
            let _ = client.write_all(b"{\"get\":\"all\"}\n");
        }
        let mut honest = connect(socket)?;
        let _ = honest.write_all(b"{\"get\":\"all\"}\n");
        drop(deaf);
        let mut answer = String::new();
        // One that had to wait for its turn for too long may be sent away.
        if honest.read_to_string(&mut answer).is_ok() && answer.contains("rx_packets") {
            answers += 1;
        }
    }
    println!("{answers} honest clients were answered");
    Ok(())
}

#[test]
fn clients_of_all_kinds_add_no_instruction_to_a_packet() -> Result<()> {
    let alone = instructions(|_| {
        thread::sleep(DURATION);
        Ok(())
    })?;
    let observed = instructions(hostile)?;
    println!("{alone:.3} instructions a packet alone, {observed:.3} with clients");
    // What is not exact is how many rounds find the end, and publish.
    ensure!(
        (observed / alone - 1.0).abs() < 0.002,
        "{alone:.3} instructions a packet alone, {observed:.3} with clients"
    );
    Ok(())
}
