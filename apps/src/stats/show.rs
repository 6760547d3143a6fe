//! What processes say, drawn as l2fwd draws its own: on a screen, or on paper as long as it takes.

use ratatui::buffer::Buffer;
use ratatui::crossterm::terminal;
use ratatui::layout::Rect;
use ratatui::style::Style;
use serde_json::Value;

use super::{Found, What};
use crate::l2fwd::Report;
use crate::l2fwd::draw::{Bottom, count, draw, lines, rate};
use crate::page::{Page, Row};

/// Columns where there is no terminal.
const PAPER: u16 = 100;
/// Lines of text at most.
const LINES: u16 = 4000;

impl Found {
    /// As text, as wide as the terminal.
    pub(super) fn text(&self, what: What) -> String {
        if self.documents.is_empty() && self.silent.is_empty() {
            return "no process of this user serves statistics\n".into();
        }
        let width = terminal::size().map_or(PAPER, |(columns, _)| columns.max(40));
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, self.height()));
        self.draw(&mut buffer, what, "");
        lines(&buffer).join("\n").trim_end().to_owned() + "\n"
    }

    /// Lines that are enough for everything.
    fn height(&self) -> u16 {
        fn leaves(value: &Value) -> usize {
            match value {
                Value::Array(list) => list.iter().map(leaves).sum::<usize>() + 4,
                Value::Object(map) => map.values().map(leaves).sum::<usize>() + 4,
                _ => 1,
            }
        }
        let lines: usize = self.documents.iter().map(leaves).sum();
        u16::try_from(lines + self.silent.len() + 8).map_or(LINES, |lines| lines.min(LINES))
    }

    /// What there is room for.
    pub(super) fn draw(&self, buffer: &mut Buffer, what: What, keys: &str) {
        match (what, self.documents.as_slice()) {
            (What::All, [document]) if self.silent.is_empty() => one(buffer, document, keys),
            (What::All, _) => self.list(buffer, keys),
            (What::Pools, _) => self.pools(buffer, keys),
        }
    }

    fn list(&self, buffer: &mut Buffer, keys: &str) {
        let mut page = Page::new(buffer, "pagewire stats", keys);
        let lines = self.documents.iter().map(|document| {
            let process = &document["process"];
            let arguments = process["arguments"].as_array().map_or(&[][..], Vec::as_slice);
            let command: Vec<_> = arguments.iter().filter_map(Value::as_str).collect();
            let up = process["uptime"].as_f64().unwrap_or(0.0);
            format!("{:<18}{:>10}  pagewire {}", text(process, "id"), duration(up), command.join(" "))
        });
        page.section(&format!("{:<18}{:>10}  command", "process", "up"), &lines.collect::<Vec<_>>());
        silent(&mut page, &self.silent);
        if self.documents.len() > 1 {
            page.section("one of them: pagewire stats --id ID", &[]);
        }
    }

    fn pools(&self, buffer: &mut Buffer, keys: &str) {
        let mut page = Page::new(buffer, "pagewire stats pools", keys);
        let pools: Vec<_> = self
            .documents
            .iter()
            .flat_map(|document| {
                let id = text(&document["process"], "id");
                list(document, "pools").iter().map(move |pool| (id, pool))
            })
            .collect();
        let rows = |cells: &dyn Fn(&Value) -> Vec<String>| -> Vec<Row> {
            let row = |(id, pool): &(&str, &Value)| {
                let orphan = pool["life"] == "orphan";
                let name = format!("{id} {}{}", text(pool, "name"), if orphan { " orphan" } else { "" });
                ([" ".into(), name], cells(pool), if orphan { Style::new().yellow() } else { Style::new() })
            };
            pools.iter().map(row).collect()
        };
        let counters = |names: &'static [&'static str]| {
            move |pool: &Value| names.iter().map(|name| count(number(pool, name))).collect::<Vec<_>>()
        };
        let now = rows(&|pool| {
            let mut cells = counters(&["fragments", "inflight"])(pool);
            cells.push(duration(pool["ages"]["oldest"].as_f64().unwrap_or(0.0)));
            cells.extend(counters(&["alloc_empty", "quota_denied", "stale_generation"])(pool));
            cells
        });
        page.table("pools", &["fragments", "in flight", "oldest", "empty", "denied", "stale"], now);
        let ages = rows(&|pool| {
            list(&pool["ages"], "counts").iter().map(|value| count(value.as_u64().unwrap_or(0))).collect()
        });
        page.table("out for", &["< 1 s", "< 10 s", "< 1 min", "< 10 min", "< 1 h", "longer"], ages);
        let traffic = rows(&|pool| {
            let mut cells = counters(&["alloc_fast"])(pool);
            cells.push(count(number(pool, "alloc_slow") + number(pool, "alloc_slow_high_order")));
            cells.extend(counters(&[
                "alloc_refill",
                "recycle_cached",
                "recycle_ring",
                "remote_batch",
                "alloc_waive",
            ])(pool));
            cells
        });
        let columns = ["fast", "slow", "refills", "cached", "ring", "batches", "waived"];
        page.table("since the start", &columns, traffic);
        silent(&mut page, &self.silent);
    }
}

/// Everything of one process.
fn one(buffer: &mut Buffer, document: &Value, keys: &str) {
    let process = &document["process"];
    let up = process["uptime"].as_f64().unwrap_or(0.0);
    let mut title = format!("pagewire stats  {}, up {}", text(process, "id"), duration(up));
    if let Some(interval) = document["interval"].as_f64() {
        title += &format!("; rates of the last {}", duration(interval));
    }
    if let Some(age) = document["age"].as_f64().filter(|age| *age >= 0.5) {
        title += &format!("; THIS IS {} OLD", duration(age));
    }
    if document["cards"].is_array() {
        let mut page = Page::new(buffer, &title, keys);
        return cards(&mut page, document);
    }
    let Ok(report) = serde_json::from_value::<Report>(document.clone()) else {
        let mut page = Page::new(buffer, &title, keys);
        return page.section("it has opened no ports yet, or waits for a device", &[]);
    };
    let mut bottom: Vec<String> = list(document, "cores").iter().flat_map(core).collect();
    for port in &report.ports {
        bottom.push(format!("port {}: {} ({})", port.port, port.name, port.driver));
        bottom.push(format!("  {}, link {}", port.mac, port.link));
        let counters = port.xstats.iter().filter(|(_, value)| value.as_u64() != Some(0));
        bottom.extend(counters.map(|(name, value)| format!("  {name} {value}")));
    }
    let bottom = Bottom { title: "cores and counters", lines: &bottom, last: false };
    draw(buffer, &title, keys, &report, &bottom);
}

/// Who does not answer.
fn silent(page: &mut Page<'_>, silent: &[String]) {
    if !silent.is_empty() {
        page.section("no answer", silent);
    }
}

/// What a core does, a line for each of its lanes.
pub(crate) fn core(core: &Value) -> Vec<String> {
    let cycles = core["cycles_per_packet"].as_f64();
    let cycles = cycles.map_or_else(String::new, |cycles| format!(": {cycles:.1} cycles per packet"));
    let (busy, idle) = (number(core, "busy_cycles") as f64, number(core, "idle_cycles") as f64);
    let busy = if busy + idle > 0.0 {
        format!("; {:.1} % busy", 100.0 * busy / (busy + idle))
    } else {
        String::new()
    };
    let [sleeps, wake_ups] = ["sleeps", "wake_ups"].map(|name| core[name].as_u64());
    let sleeps = sleeps.zip(wake_ups).map_or_else(String::new, |(sleeps, wake_ups)| {
        format!("; has slept {sleeps} times, {wake_ups} of them until an interrupt")
    });
    let lanes = list(core, "lanes").iter().map(|lane| {
        let what = match (lane["to"].as_u64(), &lane["tx_path"]) {
            (Some(to), _) => format!("to port {to}"),
            (None, Value::String(path)) => format!("sends: {path}"),
            (None, _) => format!("receives: {}", lane["rx_path"].as_str().unwrap_or("?")),
        };
        format!("  port {} queue {} {what}", number(lane, "port"), number(lane, "queue"))
    });
    let head = format!("core {}{cycles}{busy}{sleeps}", number(core, "cpu"));
    std::iter::once(head).chain(lanes).chain(polls(&core["bursts"])).collect()
}

/// How much a core's polls found.
fn polls(bursts: &Value) -> Option<String> {
    let counts: Vec<(u64, u64)> = list(bursts, "from")
        .iter()
        .zip(list(bursts, "polls"))
        .filter_map(|(from, polls)| Some((from.as_u64()?, polls.as_u64()?)))
        .collect();
    let all: u64 = counts.iter().map(|(_, polls)| polls).sum();
    // What rounds to nothing is left out: a line has room for a few.
    let parts = counts.iter().filter(|(_, polls)| *polls * 2000 > all).map(|(from, polls)| {
        let to = (2 * from).saturating_sub(1);
        let size = if to > *from { format!("{from}-{to}") } else { from.to_string() };
        format!("{size}: {:.1} %", 100.0 * *polls as f64 / all as f64)
    });
    (all > 0).then(|| format!("  polls that found {}", parts.collect::<Vec<_>>().join(", ")))
}

/// The cards of a `pagewire model`.
fn cards(page: &mut Page<'_>, document: &Value) {
    let cards = list(document, "cards");
    let row = |(index, card): (usize, &Value)| -> Row {
        let mut cells: Vec<String> =
            ["rx_pps", "tx_pps"].map(|name| rate(card[name].as_f64().unwrap_or(0.0) / 1e3)).into();
        let counts = ["rx_packets", "tx_packets", "clients", "refused_dma", "malformed_descriptors"];
        cells.extend(counts.map(|name| count(number(card, name))));
        ([format!(" {index} "), text(card, "socket").into()], cells, Style::new())
    };
    let columns = ["rx kpps", "tx kpps", "rx total", "tx total", "clients", "refused", "malformed"];
    page.table("cards", &columns, cards.iter().enumerate().map(row).collect());
    let about = cards.iter().enumerate().map(|(index, card)| {
        let counters = card["wire_counters"].as_object().into_iter().flatten();
        let counters: String = counters.map(|(name, value)| format!(", {value} {name}")).collect();
        format!("card {index}: {}, wire {}{counters}", text(card, "mac"), text(card, "wire"))
    });
    page.section("wires", &about.collect::<Vec<_>>());
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("?")
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

/// Seconds, for people.
fn duration(seconds: f64) -> String {
    match seconds {
        0.0..100.0 => format!("{seconds:.1} s"),
        100.0..6_000.0 => format!("{:.1} min", seconds / 60.0),
        6_000.0..360_000.0 => format!("{:.1} h", seconds / 3_600.0),
        _ => format!("{:.1} d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pools_fit_a_common_terminal_and_orphans_are_marked() {
        let pool = |name: &str, life: &str| {
            json!({
                "name": name, "life": life, "fragments": 2112, "inflight": 960, "alloc_fast": 135_278, "alloc_slow": 960,
                "ages": { "counts": [3, 2, 1, 0, 0, 7], "oldest": 7_200.0 },
            })
        };
        let pools = [pool("port0", "open"), pool("port1", "orphan")];
        let documents = vec![json!({ "process": { "id": "l2fwd-12345" }, "pools": pools })];
        let found = Found { documents, silent: vec!["l2fwd-9: no whole answer".into()] };
        let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 12));
        found.draw(&mut buffer, What::Pools, "q: end");
        let expected = "
 pagewire stats pools                                                    q: end
 pools               fragments in flight    oldest     empty    denied     stale
 l2fwd-12345 port0        2112       960     2.0 h         0         0         0
 …12345 port1 orphan      2112       960     2.0 h         0         0         0
 out for                 < 1 s    < 10 s   < 1 min  < 10 min     < 1 h    longer
 l2fwd-12345 port0           3         2         1         0         0         7
 …12345 port1 orphan         3         2         1         0         0         7
 since the start          fast      slow   refills    cached      ring   batches
 l2fwd-12345 port0      135278       960         0         0         0         0
 …12345 port1 orphan    135278       960         0         0         0         0
 no answer
 l2fwd-9: no whole answer";
        assert_eq!(lines(&buffer).join("\n"), expected.trim_start_matches('\n'));
    }

    #[test]
    fn nothing_that_a_process_says_panics() {
        let odd = [
            json!(null),
            json!({ "cards": [1, {}], "process": 3 }),
            json!({ "cores": [{}], "pools": [{}], "seconds": 1 }),
            json!({ "process": { "id": "\u{1b}[2J" }, "pools": [{ "ages": { "counts": "x", "oldest": -1 } }] }),
        ];
        for document in odd {
            for what in [What::All, What::Pools] {
                let found = Found { documents: vec![document.clone()], silent: Vec::new() };
                assert!(!found.text(what).contains('\u{1b}'));
                for (width, height) in [(1, 1), (20, 3), (80, 24)] {
                    found.draw(&mut Buffer::empty(Rect::new(0, 0, width, height)), what, "q: end");
                }
            }
        }
    }

    #[test]
    fn times_are_short() {
        let all = [0.0, 99.94, 100.0, 5_999.0, 6_000.0, 359_999.0, 1e6].map(duration);
        assert_eq!(all, ["0.0 s", "99.9 s", "1.7 min", "100.0 min", "1.7 h", "100.0 h", "11.6 d"]);
        assert!(all.iter().all(|text| text.len() <= 9));
    }
}
