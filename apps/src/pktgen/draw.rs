//! The pages of the screen: ports, streams, latency, cores.

use hdrhistogram::Histogram;
use ratatui::buffer::Buffer;
use ratatui::style::Style;
use serde_json::Value;

use super::desk::{Delays, Gathered, Wrong};
use super::pace::Clock;
use super::report::{Results, StreamReport, Times, Unmatched};
use crate::l2fwd::draw::{count, drops_table, rate, traffic_table};
use crate::page::{Page, Row};

/// Their names; the keys 1, 2, … show them.
pub(super) const PAGES: [&str; 4] = ["ports", "streams", "latency", "cores"];

/// What a screen shows a page of.
pub(super) struct Content<'a> {
    pub(super) title: &'a str,
    pub(super) results: &'a Results,
    /// Of each stream.
    pub(super) delays: &'a [Delayed],
    pub(super) cores: &'a [Value],
    pub(super) notes: &'a [String],
}

/// How late a stream's packets were, and what else was wrong with them.
#[derive(Default)]
pub(super) struct Delayed {
    pub(super) so_far: Option<Times>,
    pub(super) lately: Option<Times>,
    pub(super) jitter: Option<Times>,
    /// Packets lately: how many took less than so many ns, from one power of two to the next.
    pub(super) spread: Vec<(u64, u64)>,
    pub(super) wrong: Wrong,
}

impl Delayed {
    pub(super) fn all(gathered: &Gathered, clock: &Clock) -> Vec<Delayed> {
        let both = gathered.so_far.iter().zip(&gathered.lately).enumerate();
        type Known<'a> = &'a Option<Box<Delays>>;
        let times = |delays: Known<'_>, of: fn(&Delays) -> &Histogram<u64>| {
            delays.as_ref().and_then(|delays| Times::new(of(delays), clock))
        };
        let one = |(stream, (so_far, lately)): (usize, (Known<'_>, Known<'_>))| Delayed {
            so_far: times(so_far, |delays| &delays.latency),
            lately: times(lately, |delays| &delays.latency),
            jitter: times(so_far, |delays| &delays.jitter),
            spread: lately.as_ref().map_or_else(Vec::new, |lately| spread(&lately.latency, clock)),
            wrong: gathered.wrong(stream),
        };
        both.map(one).collect()
    }
}

/// Samples by powers of two of a nanosecond, from the first that has any to the last.
pub(super) fn spread(ticks: &Histogram<u64>, clock: &Clock) -> Vec<(u64, u64)> {
    let mut spread: Vec<(u64, u64)> = Vec::new();
    for step in ticks.iter_recorded() {
        let ns = clock.seconds(step.value_iterated_to()) * 1e9;
        let below = (ns as u64 + 1).next_power_of_two();
        while spread.last().is_none_or(|(last, _)| *last < below) {
            let next = spread.last().map_or(below, |(last, _)| 2 * last);
            spread.push((next, 0));
        }
        if let Some((_, samples)) = spread.last_mut() {
            *samples += step.count_since_last_iteration();
        }
    }
    spread
}

impl Content<'_> {
    /// One of the [`PAGES`].
    pub(super) fn draw(&self, buffer: &mut Buffer, page: usize) {
        let tab = |(number, name): (usize, &&str)| {
            let (left, right) = if number == page { ("[", "]") } else { (" ", " ") };
            format!("{left}{} {name}{right}", number + 1)
        };
        let tabs: String = PAGES.iter().enumerate().map(tab).collect();
        let mut shown = Page::new(buffer, self.title, &format!("{tabs} q: end"));
        match page {
            0 => self.ports(&mut shown),
            1 => self.streams(&mut shown),
            2 => self.latency(&mut shown),
            _ => self.cores(&mut shown),
        }
        shown.tail("messages", self.notes);
    }

    fn ports(&self, page: &mut Page<'_>) {
        let ports = &self.results.ports;
        let queues: usize = ports.iter().map(|port| port.queues.len()).sum();
        let with_queues = page.room() > queues + 2 * ports.len() + 2;
        let rows = ports.len() + 1 + if with_queues { queues } else { 0 };
        page.part(rows, |buffer, area| traffic_table(buffer, area, ports, with_queues));
        page.part(ports.len() + 1, |buffer, area| drops_table(buffer, area, ports));
        for port in ports {
            let counters = port.xstats.iter().filter(|(_, value)| value.as_u64() != Some(0));
            let lines: Vec<String> = counters.map(|(name, value)| format!("{name} {value}")).collect();
            if page.room() > lines.len() + 8 {
                page.section(&format!("port {}: {}, link {}", port.port, port.driver, port.link), &lines);
            }
        }
    }

    fn streams(&self, page: &mut Page<'_>) {
        let row = |stream: &StreamReport| -> Row {
            let asked = stream.asked_pps.map_or_else(|| "max".into(), |pps| rate(pps / 1e3));
            let measured = |cell: String| if stream.is_measured() { cell } else { "-".into() };
            let cells = vec![
                rate(stream.sent_pps / 1e3),
                measured(rate(stream.received_pps / 1e3)),
                asked,
                count(stream.sent),
                measured(count(stream.received)),
                measured(count(stream.sent.saturating_sub(stream.received))),
            ];
            let style = if stream.stopped { Style::new().dim() } else { Style::new() };
            (self.name(stream), cells, style)
        };
        let columns = ["sent kpps", "rx kpps", "asked", "sent", "received", "under way"];
        page.table("streams", &columns, self.results.streams.iter().map(row).collect());
        let wrong = |(stream, delayed): (&StreamReport, &Delayed)| -> Row {
            let Wrong { reordered, duplicates, late, corrupt } = delayed.wrong;
            let counts = [reordered, duplicates, late, corrupt];
            let style =
                if counts.iter().any(|count| *count > 0) { Style::new().yellow() } else { Style::new() };
            (self.name(stream), counts.map(count).into(), style)
        };
        let rows = self.results.streams.iter().zip(self.delays).map(wrong).collect();
        page.table("of what came", &["reordered", "twice", "too late", "corrupt"], rows);
        let Unmatched { foreign, damaged, other, other_run, other_port } = self.results.unmatched;
        let counts = [foreign, damaged, other_run, other_port, other].map(count).into();
        let columns = ["unsigned", "damaged", "other run", "elsewhere", "no sender"];
        page.table(
            "frames of no stream",
            &columns,
            vec![([" ".into(), "all ports".into()], counts, Style::new())],
        );
    }

    fn latency(&self, page: &mut Page<'_>) {
        const COLUMNS: [&str; 8] = ["p50", "p90", "p99", "p99.9", "p99.99", "max", "min", "samples"];
        let mut table = |title: &str, of: fn(&Delayed) -> &Option<Times>| {
            let rows = self.measured().filter_map(|(stream, delayed)| {
                let Times { samples, min_ns, p50_ns, p90_ns, p99_ns, p99_9_ns, p99_99_ns, max_ns } =
                    (*of(delayed))?;
                let times = [p50_ns, p90_ns, p99_ns, p99_9_ns, p99_99_ns, max_ns, min_ns];
                let mut cells: Vec<String> = times.map(|ns| rate(ns as f64 / 1e3)).into();
                cells.push(count(samples));
                Some((self.name(stream), cells, Style::new()))
            });
            let rows: Vec<Row> = rows.collect();
            if !rows.is_empty() {
                page.table(title, &COLUMNS, rows);
            }
        };
        table("latency µs", |delayed| &delayed.so_far);
        table("… lately", |delayed| &delayed.lately);
        table("jitter µs", |delayed| &delayed.jitter);
        for (stream, Delayed { spread, .. }) in self.measured() {
            if spread.is_empty() || page.room() < spread.len() + 2 {
                continue;
            }
            let all: u64 = spread.iter().map(|(_, samples)| samples).sum();
            let most = spread.iter().map(|(_, samples)| *samples).max().unwrap_or(1);
            let lines: Vec<String> =
                spread.iter().map(|&(below, samples)| bar(below, samples, all, most)).collect();
            page.section(&format!("{}: latency lately, share of packets", stream.name), &lines);
        }
        if self.measured().all(|(_, delayed)| delayed.so_far.is_none()) {
            let why = "nothing yet: frames with a signature that come to a port are measured";
            page.section("no latency", &[why.into()]);
        }
    }

    /// Streams with what is known of their delays.
    fn measured(&self) -> impl Iterator<Item = (&StreamReport, &Delayed)> {
        self.results.streams.iter().zip(self.delays)
    }

    fn cores(&self, page: &mut Page<'_>) {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let polls = |core: &Value| -> Vec<u64> {
            core["bursts"]["polls"].as_array().into_iter().flatten().map(number).collect()
        };
        let name = |core: &Value| [" ".into(), format!("core {}", number(&core["cpu"]))];
        let percent = |part: u64, all: u64| match all {
            0 => "-".into(),
            _ => format!("{:.1}", 100.0 * part as f64 / all as f64),
        };
        let row = |core: &Value| -> Row {
            let [busy, idle, packets] =
                ["busy_cycles", "idle_cycles", "packets"].map(|name| number(&core[name]));
            let (polls, all) = (polls(core), polls(core).iter().sum::<u64>());
            let empty = polls.first().copied().unwrap_or(0);
            let cycles = core["cycles_per_packet"].as_f64().map_or_else(|| "-".into(), rate);
            let mean = match all - empty {
                0 => "-".into(),
                found => format!("{:.1}", packets as f64 / found as f64),
            };
            let cells = vec![
                percent(busy, busy + idle),
                cycles,
                count(packets),
                count(all),
                percent(empty, all),
                mean,
            ];
            (name(core), cells, Style::new())
        };
        let columns = ["busy %", "cycles/pk", "packets", "polls", "empty %", "burst"];
        page.table("cores", &columns, self.cores.iter().map(row).collect());
        // Those that any core has found; polls that found nothing are in the table above.
        const SIZES: [&str; 12] = [
            "0", "1", "2-3", "4-7", "8-15", "16-31", "32-63", "64-127", "128-255", "256-511", "512-1023",
            "1024",
        ];
        let found = |size: &usize| self.cores.iter().any(|core| polls(core).get(*size) > Some(&0));
        let sizes: Vec<usize> = (1..SIZES.len()).filter(found).collect();
        let rows = self.cores.iter().map(|core| {
            let polls = polls(core);
            let all: u64 = polls.iter().skip(1).sum();
            let cells = sizes.iter().map(|size| percent(polls.get(*size).copied().unwrap_or(0), all));
            (name(core), cells.collect(), Style::new())
        });
        let columns: Vec<&str> = sizes.iter().map(|size| SIZES[*size]).collect();
        page.table("bursts, %", &columns, rows.collect());
    }

    fn name(&self, stream: &StreamReport) -> [String; 2] {
        let to = stream.rx_port.map_or("-".into(), |port| port.to_string());
        [" ".into(), format!("{} {}→{to}", stream.name, stream.tx_port)]
    }
}

/// A line of a distribution: up to how long, the share, and a bar as long as that is of the largest.
fn bar(below: u64, samples: u64, all: u64, most: u64) -> String {
    const LENGTH: u64 = 40;
    let to = below as f64 / 1e3;
    let share = 100.0 * samples as f64 / all.max(1) as f64;
    let bar = "█".repeat((samples * LENGTH).div_ceil(most.max(1)) as usize);
    format!("< {to:>12.3} µs {share:>6.2} %  {bar}")
}
