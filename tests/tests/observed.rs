//! What it costs a forwarding loop that others look at its statistics, however they behave: nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagewire_ethdev::poll_until;
use pagewire_tests::{callgrind, script};
use serde_json::Value;

/// Seconds that it forwards, in valgrind.
const DURATION: u64 = 4;

/// Instructions of the loop for each packet, from null ports to null ports, while `clients` do something at the statistics' socket.
fn instructions(clients: impl FnOnce(&Path) -> Result<()>) -> Result<f64> {
    let program = script("static", &["pagewire"])?.pop().context("tests/lab/static printed nothing")?;
    let folder = tempfile::tempdir()?;
    let args =
        format!("l2fwd --port null: --port null: --pages 4K --mode io --duration {DURATION} -T 0 --json");
    let mut command =
        callgrind::command(&["lane::run"], &[callgrind::NO_PROFILE], &program, args.split_whitespace());
    command.env("XDG_RUNTIME_DIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = command.spawn().context("running valgrind; install it with `apt install valgrind`")?;
    let socket = folder.path().join("pagewire").join(format!("l2fwd-{}.sock", run.id()));
    let looked = poll_until(Duration::from_secs(30), || socket.exists()).then(|| clients(&socket));
    let output = run.wait_with_output()?;
    looked.with_context(|| format!("no {}", socket.display()))??;
    let counted = callgrind::collected(&output)?;
    let last: Value = serde_json::from_slice(&output.stdout)?;
    let packets: u64 = (0..2).filter_map(|port| last["ports"][port]["rx_packets"].as_u64()).sum();
    ensure!(packets > 100_000, "{packets} packets are too few: {last:#}");
    Ok(counted as f64 / packets as f64)
}

fn connect(socket: &PathBuf) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).context("nobody listens")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// Garbage, huge requests, a hundred clients at once of which half never read, and honest ones, as long as it forwards.
fn hostile(socket: &Path) -> Result<()> {
    let socket = socket.to_path_buf();
    let start = Instant::now();
    let mut answers = 0;
    while start.elapsed() < Duration::from_secs(DURATION) {
        let Ok(mut garbage) = connect(&socket) else { break };
        let _ = garbage.write_all(b"\xff\0 GET / HTTP/1.1\r\n");
        if let Ok(mut huge) = connect(&socket) {
            let _ = huge.write_all(&vec![b'['; 1 << 20]);
        }
        let deaf: Vec<_> = (0..100).map_while(|_| connect(&socket).ok()).collect();
        for mut client in &deaf[..deaf.len() / 2] {
            let _ = client.write_all(b"{\"get\":\"all\"}\n");
        }
        let Ok(mut honest) = connect(&socket) else { break };
        let _ = honest.write_all(b"{\"get\":\"all\"}\n");
        drop(deaf);
        let mut answer = String::new();
        if honest.read_to_string(&mut answer).is_ok() && answer.contains("rx_packets") {
            answers += 1;
        }
    }
    ensure!(answers > 0, "nobody was answered while it forwarded");
    println!("{answers} honest clients were answered");
    Ok(())
}

#[test]
fn clients_of_all_kinds_add_no_instruction_to_a_packet() -> Result<()> {
    let alone = instructions(|_| Ok(()))?;
    let observed = instructions(hostile)?;
    println!("{alone:.3} instructions a packet alone, {observed:.3} with clients");
    // What is not exact is how many rounds find the end, and publish.
    ensure!(
        (observed / alone - 1.0).abs() < 0.002,
        "{alone:.3} instructions a packet alone, {observed:.3} with clients"
    );
    Ok(())
}
