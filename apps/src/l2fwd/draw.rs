//! A report drawn on a screen of any size.

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Row, Table, Widget};

use super::report::{Drops, GeneratorReport, PortReport, Report, Sleeps, Traffic, WaiterReport};

/// What stands below the tables.
pub(crate) struct Bottom<'a> {
    pub(crate) title: &'a str,
    pub(crate) lines: &'a [String],
    /// If there is not room for all: the last ones rather than the first.
    pub(crate) last: bool,
}

/// All of it. What does not fit is left out, from the bottom up: the bottom, pools, drops, queues.
pub(crate) fn draw(buffer: &mut Buffer, title: &str, keys: &str, report: &Report, bottom: &Bottom<'_>) {
    let ports = report.ports.len() as u16;
    let mut left = buffer.area.height.saturating_sub(1);
    let mut take = |rows: u16, least: u16| {
        let rows = if left >= least { rows.min(left) } else { 0 };
        left -= rows;
        rows
    };
    // A line of title, and one a row.
    let traffic = take(ports + 1, 1);
    let generator = take(report.generator.as_ref().map_or(0, |_| 2), 2);
    let drops = take(ports + 1, 2);
    let waiters = take(if report.waiters.is_empty() { 0 } else { report.waiters.len() as u16 + 1 }, 2);
    let pools = take(report.pools.len() as u16 + 1, 2);
    let queues = report.ports.iter().map(|port| port.queues.len() as u16).sum::<u16>();
    let queues = take(queues, queues);
    let rest = take(u16::MAX, 2);
    let heights = [1, traffic + queues, drops, generator, waiters, pools, rest];
    let [head, traffic_area, drops_area, generator_area, waiters_area, pools_area, bottom_area] =
        Layout::vertical(heights.map(Constraint::Length)).areas(buffer.area);

    self::head(buffer, head, title, keys);
    traffic_table(buffer, traffic_area, &report.ports, queues > 0);
    drops_table(buffer, drops_area, &report.ports);
    if let Some(generator) = &report.generator {
        generator_table(buffer, generator_area, generator);
    }
    waiters_table(buffer, waiters_area, report);
    pools_table(buffer, pools_area, report);
    let visible = usize::from(bottom_area.height.saturating_sub(1));
    let skipped = if bottom.last { bottom.lines.len().saturating_sub(visible) } else { 0 };
    let lines = bottom.lines.iter().skip(skipped).map(|line| Line::from(format!(" {line}")));
    section(buffer, bottom_area, bottom.title, lines.collect());
}

/// The first line: what this is, and what its user can do.
pub(crate) fn head(buffer: &mut Buffer, area: Rect, title: &str, keys: &str) {
    let width = keys.chars().count() as u16;
    let widths = [Constraint::Fill(1), Constraint::Length(width + 3 * width.min(1))];
    let [name, right] = Layout::horizontal(widths).areas(area);
    Paragraph::new(format!(" {title}")).bold().render(name, buffer);
    Paragraph::new(format!("{keys} ")).alignment(Alignment::Right).dim().render(right, buffer);
}

/// A line of title above something else than a table.
pub(crate) fn section(buffer: &mut Buffer, area: Rect, title: &str, lines: Vec<Line<'_>>) {
    if !area.is_empty() {
        let title = Line::from(format!(" {title:width$}", width = area.width.into())).reversed();
        Paragraph::new(std::iter::once(title).chain(lines).collect::<Vec<_>>()).render(area, buffer);
    }
}

/// A table with numbers to the right and as many columns as there is room for, the first ones first.
pub(crate) fn table(
    buffer: &mut Buffer,
    area: Rect,
    title: &str,
    columns: &[&'static str],
    rows: Vec<([String; 2], Vec<String>, Style)>,
) {
    const FIRST: u16 = 15;
    const OTHERS: u16 = 9;
    if area.is_empty() {
        return;
    }
    let fit = usize::from(area.width.saturating_sub(FIRST) / (OTHERS + 1)).min(columns.len());
    let right = |text: String| Text::from(text).alignment(Alignment::Right);
    let row = |name: String, cells: Vec<String>| {
        let cells = cells.into_iter().take(fit).map(right);
        Row::new(std::iter::once(Text::from(name)).chain(cells))
    };
    let names = columns.iter().map(|column| (*column).to_owned()).collect();
    let widths = std::iter::once(Constraint::Fill(1)).chain((0..fit).map(|_| Constraint::Length(OTHERS)));
    let room = usize::from(area.width).saturating_sub(fit * usize::from(OTHERS + 1));
    let header = row(format!(" {title}"), names).style(Style::new().reversed());
    let rows = rows.into_iter().map(|([number, name], cells, style)| {
        let name = shorten(&name, room.saturating_sub(number.len()));
        row(number + &name, cells).style(style)
    });
    let table = Table::new(rows, widths).header(header).column_spacing(1);
    table.render(area, buffer);
}

/// Rates and totals of ports, and of their queues if there is room for them.
pub(crate) fn traffic_table(buffer: &mut Buffer, area: Rect, ports: &[PortReport], with_queues: bool) {
    let recorded = ports.iter().any(|port| port.cycles_per_packet.is_some());
    let mut columns = vec!["rx kpps", "tx kpps", "rx Mb/s", "tx Mb/s", "rx total", "tx total"];
    if recorded {
        columns.insert(2, "cycles");
    }
    let cells = |traffic: &Traffic, cycles: Option<f64>| {
        let Traffic { rx_pps, tx_pps, rx_bps, tx_bps, rx_packets, tx_packets, .. } = *traffic;
        let mut cells: Vec<String> =
            [rx_pps / 1e3, tx_pps / 1e3, rx_bps / 1e6, tx_bps / 1e6].map(rate).into();
        cells.extend([rx_packets, tx_packets].map(count));
        if recorded {
            cells.insert(2, cycles.map_or_else(String::new, rate));
        }
        cells
    };
    let mut rows = Vec::new();
    for port in ports {
        let style = if port.link_up { Style::new() } else { Style::new().red() };
        rows.push((name(port), cells(&port.traffic, port.cycles_per_packet), style));
        for queue in port.queues.iter().filter(|_| with_queues) {
            let name = format!("queue {}", queue.queue);
            rows.push((["   ".into(), name], cells(&queue.traffic, None), Style::new().dim()));
        }
    }
    table(buffer, area, "traffic", &columns, rows);
}

/// What ports dropped, and why.
pub(crate) fn drops_table(buffer: &mut Buffer, area: Rect, ports: &[PortReport]) {
    let rows = ports.iter().map(|port| {
        let Drops { rx_missed, rx_errors, rx_nombuf, tx_errors, tx_full } = port.drops;
        let counts = [rx_missed, tx_full, rx_nombuf, rx_errors, tx_errors];
        let style = if counts.iter().any(|count| *count > 0) { Style::new().yellow() } else { Style::new() };
        (name(port), counts.map(count).into(), style)
    });
    let columns = ["rx missed", "tx full", "rx nombuf", "rx errors", "tx errors"];
    table(buffer, area, "drops", &columns, rows.collect());
}

fn generator_table(buffer: &mut Buffer, area: Rect, generator: &GeneratorReport) {
    let GeneratorReport { sent, received, missing, late, corrupt, foreign, .. } = *generator;
    let mut cells: Vec<String> = [generator.sent_pps / 1e3, generator.received_pps / 1e3].map(rate).into();
    cells.extend([sent, received, missing, late + corrupt + foreign].map(count));
    let columns = ["sent kpps", "back kpps", "sent", "back", "not back", "wrong"];
    table(buffer, area, "generators", &columns, vec![([" ".into(), "both".into()], cells, Style::new())]);
}

fn waiters_table(buffer: &mut Buffer, area: Rect, report: &Report) {
    let rows = report.waiters.iter().map(|WaiterReport { cpu, sleeps }| {
        let Sleeps { polls, sleeps, wake_ups, time_outs } = *sleeps;
        let counts = [polls, sleeps, wake_ups, time_outs];
        ([" ".into(), format!("core {cpu}")], counts.map(count).into(), Style::new())
    });
    table(buffer, area, "sleep", &["polls", "sleeps", "wake-ups", "time-outs"], rows.collect());
}

fn pools_table(buffer: &mut Buffer, area: Rect, report: &Report) {
    let columns = ["fragments", "in flight", "empty", "fast", "slow", "recycled"];
    let rows = report.pools.iter().map(|pool| {
        let counter = |name: &str| pool.counters.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let counts = [
            counter("fragments"),
            pool.inflight,
            counter("alloc_empty"),
            counter("alloc_fast"),
            counter("alloc_slow") + counter("alloc_slow_high_order"),
            counter("recycle_cached") + counter("recycle_ring"),
        ];
        ([" ".into(), pool.name.clone()], counts.map(count).into(), Style::new())
    });
    table(buffer, area, "pools", &columns, rows.collect());
}

/// Number and name.
fn name(port: &PortReport) -> [String; 2] {
    let link = if port.link_up { "" } else { " down" };
    [format!(" {} ", port.port), format!("{}{link}", port.name)]
}

/// The end of a long name tells more than its beginning.
fn shorten(name: &str, most: usize) -> String {
    match name.chars().count() {
        length if length > most => {
            std::iter::once('…').chain(name.chars().skip(length + 1 - most.max(1))).collect()
        }
        _ => name.to_owned(),
    }
}

pub(crate) fn rate(value: f64) -> String {
    if value < 1e5 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// What is drawn, as text: a string a line.
pub(crate) fn lines(buffer: &Buffer) -> Vec<String> {
    let Rect { width, height, .. } = buffer.area;
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(row).collect()
}

/// Counts of ten digits and more in thousands or millions.
pub(crate) fn count(value: u64) -> String {
    match value {
        0..1_000_000_000 => value.to_string(),
        1_000_000_000..100_000_000_000 => format!("{}k", value / 1_000),
        _ => format!("{}M", value / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{PoolReport, QueueReport};
    use super::*;

    fn traffic(scale: u64) -> Traffic {
        Traffic {
            rx_packets: 1_234_567 * scale,
            tx_packets: 1_234_000 * scale,
            rx_pps: 1.5e6,
            tx_pps: 1.25e6,
            rx_bps: 768e6,
            tx_bps: 640e6,
            ..Traffic::default()
        }
    }

    fn report(ports: usize) -> Report {
        let port = |port| PortReport {
            port,
            name: format!("/tmp/pagewire-AbCdEf/82599-{port}"),
            driver: "net_ixgbe".into(),
            mac: String::new(),
            link_up: port != 1,
            link: String::new(),
            traffic: traffic(1),
            queues: vec![QueueReport { queue: 0, traffic: traffic(1) }],
            drops: Drops { rx_missed: 0, rx_errors: 0, rx_nombuf: 0, tx_errors: 0, tx_full: 77 },
            cycles_per_packet: None,
            xstats: Default::default(),
        };
        let counters = [("fragments".to_owned(), 2112.into()), ("alloc_empty".to_owned(), 3.into())];
        let pool = |pool| PoolReport {
            name: format!("port{pool}"),
            inflight: 640,
            counters: counters.clone().into_iter().collect(),
        };
        Report {
            seconds: 4.21,
            last: false,
            ports: (0..ports).map(port).collect(),
            pools: (0..ports).map(pool).collect(),
            generator: Some(GeneratorReport {
                sent: 2_000,
                received: 1_900,
                missing: 100,
                sent_pps: 1.5e6,
                received_pps: 1.4e6,
                ..Default::default()
            }),
            waiters: Vec::new(),
            cycles_per_packet: Vec::new(),
            fragments: None,
        }
    }

    /// What is on a screen of some size, a string a line.
    fn lines(width: u16, height: u16, ports: usize) -> Vec<String> {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        let notes: Vec<String> = (0..9).map(|number| format!("message {number}")).collect();
        let bottom = Bottom { title: "messages", lines: &notes, last: true };
        draw(&mut buffer, "pagewire l2fwd  4.2 s of 10 s", "q: end", &report(ports), &bottom);
        super::lines(&buffer)
    }

    #[test]
    fn a_common_terminal_shows_all_of_it() {
        let expected = "
 pagewire l2fwd  4.2 s of 10 s                                           q: end
 traffic               rx kpps   tx kpps   rx Mb/s   tx Mb/s  rx total  tx total
 0 …e-AbCdEf/82599-0    1500.0    1250.0     768.0     640.0   1234567   1234000
   queue 0              1500.0    1250.0     768.0     640.0   1234567   1234000
 1 …dEf/82599-1 down    1500.0    1250.0     768.0     640.0   1234567   1234000
   queue 0              1500.0    1250.0     768.0     640.0   1234567   1234000
 drops                         rx missed   tx full rx nombuf rx errors tx errors
 0 …mp/pagewire-AbCdEf/82599-0         0        77         0         0         0
 1 …gewire-AbCdEf/82599-1 down         0        77         0         0         0
 generators          sent kpps back kpps      sent      back  not back     wrong
 both                   1500.0    1400.0      2000      1900       100         0
 pools               fragments in flight     empty      fast      slow  recycled
 port0                    2112       640         3         0         0         0
 port1                    2112       640         3         0         0         0
 messages
 message 0
 message 1
 message 2
 message 3
 message 4
 message 5
 message 6
 message 7
 message 8";
        assert_eq!(lines(80, 24, 2).join("\n"), expected.trim_start_matches('\n'));
    }

    #[test]
    fn cores_that_sleep_are_shown() {
        let sleeps = Sleeps { polls: 1_234_567, sleeps: 400, wake_ups: 300, time_outs: 99 };
        let mut report = report(1);
        report.waiters = vec![WaiterReport { cpu: 3, sleeps }];
        let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
        draw(&mut buffer, "", "", &report, &Bottom { title: "", lines: &[], last: true });
        let shown = super::lines(&buffer);
        let at = shown.iter().position(|line| line.starts_with(" sleep ")).expect("a table");
        assert!(shown[at].ends_with("polls    sleeps  wake-ups time-outs"), "{shown:#?}");
        assert!(
            shown[at + 1].starts_with(" core 3 ")
                && shown[at + 1].ends_with("1234567       400       300        99")
        );
    }

    #[test]
    fn what_has_no_room_is_left_out_and_numbers_are_never_cut() {
        let expected = "
 pagewire l2fwd  4.2 s of 10 s             q: end
 traffic               rx kpps   tx kpps   rx Mb/s
 0 …e-AbCdEf/82599-0    1500.0    1250.0     768.0
 1 …dEf/82599-1 down    1500.0    1250.0     768.0
 drops               rx missed   tx full rx nombuf
 0 …e-AbCdEf/82599-0         0        77         0
 1 …dEf/82599-1 down         0        77         0
 generators          sent kpps back kpps      sent
 both                   1500.0    1400.0      2000";
        assert_eq!(lines(50, 9, 2).join("\n"), expected.trim_start_matches('\n'));
        // More ports than lines: as many as there is room for.
        assert!(lines(80, 24, 40)[23].starts_with(" 21 "));
        for (width, height) in [(1, 1), (2, 40), (15, 3), (26, 24), (300, 1), (300, 100)] {
            lines(width, height, 3);
        }
    }

    #[test]
    fn numbers_fit_their_columns() {
        for value in [0, 999_999_999, 1_000_000_000, 99_999_999_999, u64::MAX / 1_000_000] {
            assert!(count(value).len() <= 9, "{}", count(value));
        }
        assert_eq!((rate(14_880.94), rate(123_456.78)), ("14880.9".into(), "123457".into()));
        assert_eq!(shorten("0000:01:00.0", 12), "0000:01:00.0");
        assert_eq!(shorten("0000:01:00.0", 5), "…00.0");
        assert_eq!(shorten("0000:01:00.0", 0), "…");
    }
}
