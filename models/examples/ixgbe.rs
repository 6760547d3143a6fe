//! An 82599 at a socket, with a generator at its port, a frame stream in QEMU's netdev format, or a second one.
//!
//! `cargo run --release -p pagewire-models --example ixgbe -- SOCKET [mapped] [stream PATH | generate LENGTH WINDOW | pair SOCKET]`

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pagewire_models::ixgbe::{Config, Ixgbe};
use pagewire_models::server::{Server, ServerOptions};
use pagewire_models::wire::{Generator, Open, Report, Stream, Traffic, Wire, pair};

type Failure = Box<dyn std::error::Error>;

/// Warnings go to the standard error.
struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}", record.args());
    }

    fn flush(&self) {}
}

fn main() -> Result<(), Failure> {
    log::set_logger(&Warnings).map_err(|error| error.to_string())?;
    log::set_max_level(log::LevelFilter::Warn);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((socket, rest)) = arguments.split_first() else {
        return Err(
            "usage: ixgbe SOCKET [mapped] [stream PATH | generate LENGTH WINDOW | pair SOCKET]".into()
        );
    };
    let mapped = rest.first().is_some_and(|first| first == "mapped");
    let report = Arc::new(Report::default());
    let wire: Box<dyn Wire> = match &rest[mapped as usize..] {
        [] => Box::new(Open),
        [kind, path] if kind == "stream" => Box::new(Stream::new(UnixStream::connect(path)?)?),
        [kind, length, window] if kind == "generate" => {
            let traffic = Traffic { length: length.parse()?, window: window.parse()?, ..Traffic::default() };
            Box::new(Generator::new(traffic, report.clone()))
        }
        [kind, other] if kind == "pair" => {
            let (here, there) = pair();
            let server =
                Server::bind(Path::new(other), ServerOptions { mappable: mapped, ..Default::default() })?;
            let mac = [0x02, 0x1b, 0x21, 0x82, 0x59, 0x0a];
            let mut card = Ixgbe::new(Config { mapped, mac, ..Config::default() }, Box::new(there));
            std::thread::spawn(move || server.run(&mut card).map_err(|error| eprintln!("{error}")));
            Box::new(here)
        }
        other => return Err(format!("not understood: {other:?}").into()),
    };
    let server = Server::bind(Path::new(socket), ServerOptions { mappable: mapped, ..Default::default() })?;
    let mut card = Ixgbe::new(Config { mapped, ..Config::default() }, wire);
    let control = card.control();
    std::thread::spawn(move || {
        let mut before = 0;
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let received = report.received();
            println!(
                "{} frames/s back, {} sent, {received} back, {} lost, {} wrong; {} refused, {} malformed, {} unknown",
                received - before,
                report.sent(),
                report.lost(),
                report.wrong(),
                control.refused(),
                control.malformed(),
                control.unknown(),
            );
            before = received;
        }
    });
    server.run(&mut card)?;
    Ok(())
}
