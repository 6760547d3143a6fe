//! What `pagewire model` says: a table a period, totals at the end, or the same as JSON.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pagewire_ethdev::MacAddr;
use pagewire_models::ixgbe::{Control, UnknownAccess};
use pagewire_models::server::Counters;
use pagewire_models::wire::{Counts, PcapReport, Report};
use serde_json::{Map, Value, json};

/// What a card's wire tells, besides what passes it.
pub(crate) enum Status {
    Nothing,
    /// Which stream of the report is its own.
    Generate(Arc<Report>, usize),
    Pcap(Arc<PcapReport>),
}

/// A card whose counters are shown.
pub(crate) struct Watched {
    pub(crate) socket: PathBuf,
    pub(crate) mac: MacAddr,
    pub(crate) wire: String,
    pub(crate) status: Status,
    pub(crate) control: Arc<Control>,
    pub(crate) server: Arc<Counters>,
    pub(crate) counts: Arc<Counts>,
}

/// Makes reports, and remembers what the last one said.
pub(crate) struct Reporter {
    json: bool,
    cards: Arc<[Watched]>,
    /// Frames received and sent.
    before: Vec<[u64; 2]>,
    then: Duration,
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

impl Status {
    /// Its counters by name.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        match self {
            Status::Nothing => Vec::new(),
            Status::Generate(report, stream) => {
                let own = &report.streams[*stream];
                vec![
                    ("sent", get(&own.sent)),
                    ("back", get(&own.received)),
                    ("lost", get(&own.lost)),
                    ("late", get(&own.late)),
                    ("corrupt", get(&own.corrupt)),
                    // Of all generators.
                    ("foreign", get(&report.foreign)),
                ]
            }
            Status::Pcap(report) => vec![
                ("taken", get(&report.taken)),
                ("exhausted", report.exhausted.load(Relaxed).into()),
                ("written", get(&report.written)),
                ("unwritten", get(&report.unwritten)),
            ],
        }
    }
}

impl Reporter {
    pub(crate) fn new(json: bool, cards: Arc<[Watched]>) -> Reporter {
        let before = vec![[0; 2]; cards.len()];
        Reporter { json, cards, before, then: Duration::ZERO }
    }

    /// What is new since the last report, as an object, whatever was chosen.
    pub(crate) fn snapshot(&mut self, now: Duration) -> Value {
        let rates = self.rates(now);
        self.object(now, &rates, None)
    }

    /// Frames that are missing in captures.
    pub(crate) fn unwritten(&self) -> u64 {
        let unwritten = |card: &Watched| match &card.status {
            Status::Pcap(report) => get(&report.unwritten),
            _ => 0,
        };
        self.cards.iter().map(unwritten).sum()
    }

    /// A report of the time since the last one, or, at the end and with each card's accesses to registers that there are not,
    /// of all the time.
    pub(crate) fn report(&mut self, now: Duration, last: Option<&[Vec<UnknownAccess>]>) -> String {
        if last.is_some() {
            self.before.fill([0; 2]);
            self.then = Duration::ZERO;
        }
        let rates = self.rates(now);
        match self.json {
            true => self.object(now, &rates, last).to_string() + "\n",
            false => self.table(now, &rates, last),
        }
    }

    /// Frames a second, received and sent, since the last report.
    fn rates(&mut self, now: Duration) -> Vec<[f64; 2]> {
        let seconds = (now - self.then).as_secs_f64().max(1e-9);
        let totals: Vec<_> =
            self.cards.iter().map(|card| [get(&card.counts.received), get(&card.counts.sent)]).collect();
        let rate = |(now, before): (&[u64; 2], &[u64; 2])| {
            [0, 1].map(|way| now[way].saturating_sub(before[way]) as f64 / seconds)
        };
        let rates: Vec<_> = totals.iter().zip(&self.before).map(rate).collect();
        (self.before, self.then) = (totals, now);
        rates
    }

    fn object(&self, now: Duration, rates: &[[f64; 2]], last: Option<&[Vec<UnknownAccess>]>) -> Value {
        let card = |(number, card): (usize, &Watched)| {
            let wire: Map<_, _> =
                card.status.counters().into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            let registers = last.map_or(&[][..], |unknown| &unknown[number]);
            let register =
                |a: &UnknownAccess| json!({ "offset": a.offset, "reads": a.reads, "writes": a.writes });
            json!({
                "socket": card.socket,
                "mac": card.mac.to_string(),
                "wire": card.wire,
                "clients": get(&card.server.clients),
                "dropped_clients": get(&card.server.dropped),
                "rx_packets": self.before[number][0],
                "rx_bytes": get(&card.counts.received_bytes),
                "rx_pps": rates[number][0],
                "tx_packets": self.before[number][1],
                "tx_bytes": get(&card.counts.sent_bytes),
                "tx_pps": rates[number][1],
                "interrupts": get(&card.server.interrupts),
                "refused_dma": card.control.refused(),
                "malformed_descriptors": card.control.malformed(),
                "unknown_accesses": card.control.unknown(),
                "unknown_registers": registers.iter().map(register).collect::<Vec<_>>(),
                "wire_counters": wire,
            })
        };
        let cards: Vec<_> = self.cards.iter().enumerate().map(card).collect();
        json!({ "seconds": now.as_secs_f64(), "final": last.is_some(), "cards": cards })
    }

    fn table(&self, now: Duration, rates: &[[f64; 2]], last: Option<&[Vec<UnknownAccess>]>) -> String {
        let when = if last.is_some() { "total, " } else { "" };
        let mut text = format!(
            "{:<24}{:>8}{:>14}{:>12}{:>14}{:>12}{:>10}{:>10}{:>10}\n",
            format!("{when}{:.1} s", now.as_secs_f64()),
            "clients",
            "rx packets",
            "rx kpps",
            "tx packets",
            "tx kpps",
            "refused",
            "malformed",
            "unknown",
        );
        for (number, card) in self.cards.iter().enumerate() {
            let _ = write!(
                text,
                "  {:<22}{:>8}{:>14}{:>12.1}{:>14}{:>12.1}{:>10}{:>10}{:>10}",
                format!("{number} {}", card.socket.display()),
                get(&card.server.clients),
                self.before[number][0],
                rates[number][0] / 1e3,
                self.before[number][1],
                rates[number][1] / 1e3,
                card.control.refused(),
                card.control.malformed(),
                card.control.unknown(),
            );
            for (name, value) in card.status.counters() {
                let _ = write!(text, "  {value} {name}");
            }
            text.push('\n');
        }
        for (number, (card, unknown)) in self.cards.iter().zip(last.unwrap_or_default()).enumerate() {
            let _ = writeln!(
                text,
                "  card {number}: {}, wire {}; {} bytes received, {} sent; {} interrupts, {} refused DMA, {} malformed \
                 descriptors, {} accesses to unknown registers, {} of {} clients dropped",
                card.mac,
                card.wire,
                get(&card.counts.received_bytes),
                get(&card.counts.sent_bytes),
                get(&card.server.interrupts),
                card.control.refused(),
                card.control.malformed(),
                card.control.unknown(),
                get(&card.server.dropped),
                get(&card.server.clients),
            );
            for UnknownAccess { offset, reads, writes } in unknown {
                let _ = writeln!(text, "    no register at {offset:#07x}: {reads} reads, {writes} writes");
            }
        }
        text
    }
}
