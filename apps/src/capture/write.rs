//! The process that writes the file: a consumer of packets that another process hands over.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pagewire_models::wire::{CaptureFile, Captured, Direction, PcapReport};
use pagewire_pool::handover::{self, Consumer, Received};

use super::select::{self, Selection};
use super::{Args, Reported, Written};
use crate::run;

/// How often to look for a signal.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn write(args: &Args, socket: &Path, stop: &AtomicBool) -> Result<()> {
    // Attached first: where nobody hands packets over, a file that is there is left alone.
    let consumer = Consumer::attach(socket, handover::Access::Read)?;
    let way = args.selection.direction;
    let names = consumer.producers();
    if !names.is_empty() && !names.iter().any(|name| way.has(select::direction(name))) {
        bail!(
            "{} hands over only what went the other way: start its process with --capture-direction both",
            socket.display()
        );
    }
    let report = Arc::new(PcapReport::default());
    let mut sink = Sink {
        file: CaptureFile::create(&args.out, report.clone())?,
        interfaces: Vec::new(),
        selection: args.selection.clone(),
        turn: 0,
        snaplen: args.snaplen,
        left: args.count.unwrap_or(u64::MAX),
        data: Vec::new(),
        written: Written::default(),
    };
    let start = Instant::now();
    let mut next = args.reporting.stats_period;
    while !stop.load(Ordering::Relaxed)
        && sink.left > 0
        && args.reporting.duration.is_none_or(|duration| start.elapsed() < duration)
        && report.unwritten.load(Ordering::Relaxed) == 0
    {
        match consumer.wait(LOOK) {
            Ok(_) => {
                sink.take(&consumer)?;
                // Whether or not what came is for the file.
                sink.file.flush_when_due();
            }
            Err(handover::Error::Closed { .. }) => {
                sink.written.producer_gone = true;
                break;
            }
            Err(error) => return Err(error.into()),
        }
        if !args.reporting.stats_period.is_zero() && start.elapsed() >= next {
            next = start.elapsed() + args.reporting.stats_period;
            match args.reporting.json {
                true => Reported { last: false, counts: sink.written }.print()?,
                false => run::print(&format!("{} packets\n", sink.written.packets))?,
            }
        }
    }
    // Nobody waits for this process any more; then what is not in the file yet.
    drop(consumer);
    let Sink { file, written, .. } = sink;
    drop(file);
    match args.reporting.json {
        true => Reported { last: true, counts: written }.print()?,
        false => run::print(&format!(
            "{} packets, {} bytes in {}{}\n",
            written.packets,
            written.bytes,
            args.out.display(),
            if written.producer_gone { "; the process that handed them over has ended" } else { "" },
        ))?,
    }
    match report.unwritten.load(Ordering::Relaxed) {
        0 => Ok(()),
        lost => bail!("{lost} packets could not be written to {}", args.out.display()),
    }
}

/// The file, and what is to become of a packet.
struct Sink {
    file: CaptureFile,
    /// Of each producer: who it is, which way its packets went, and its number in the file.
    interfaces: Vec<(u64, Direction, u32)>,
    selection: Selection,
    /// Packets that were to be written or left out by their number since one was written.
    turn: u64,
    snaplen: u32,
    /// Packets still wanted.
    left: u64,
    /// What is written of a packet.
    data: Vec<u8>,
    written: Written,
}

impl Sink {
    /// Takes what is there now, or some of it: signals are looked for in between.
    fn take(&mut self, consumer: &Consumer) -> Result<()> {
        for _ in 0..1024 {
            if self.left == 0 {
                break;
            }
            let Some(packet) = consumer.receive()? else { break };
            self.write(&packet)?;
        }
        Ok(())
    }

    fn write(&mut self, packet: &Received<'_>) -> Result<()> {
        let (direction, interface) = self.interface(packet);
        self.written.seen += 1;
        if !self.selection.direction.has(direction) {
            return Ok(());
        }
        let (length, snaplen) = (packet.len(), self.snaplen as usize);
        // A filter sees all of it.
        let wanted = if self.selection.filter.is_some() { length } else { length.min(snaplen) };
        self.data.resize(wanted, 0);
        match packet.read_at(0, &mut self.data) {
            Ok(_) => {}
            // What is there now is not the packet. Whether its process has gone is seen at the next wait.
            Err(handover::Error::Revoked { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if self.selection.filter.as_ref().is_some_and(|filter| !filter.matches(&self.data)) {
            return Ok(());
        }
        let turn = self.turn;
        self.turn = (turn + 1) % self.selection.sample;
        if turn > 0 {
            return Ok(());
        }
        let front = &self.data[..wanted.min(snaplen)];
        let (direction, since) = (Some(direction), packet.since_epoch());
        self.file.write_captured(&Captured { interface, direction, since, length, front });
        self.left -= 1;
        self.written.packets += 1;
        self.written.bytes += length as u64;
        Ok(())
    }

    /// Which way a packet went, and where it comes from as the file has it.
    fn interface(&mut self, packet: &Received<'_>) -> (Direction, u32) {
        let age = packet.producer_age();
        if let Some((_, direction, interface)) = self.interfaces.iter().find(|(known, ..)| *known == age) {
            return (*direction, *interface);
        }
        let name = packet.producer_name();
        let (direction, interface) = (select::direction(&name), self.file.add_interface(&name, self.snaplen));
        self.interfaces.push((age, direction, interface));
        (direction, interface)
    }
}
