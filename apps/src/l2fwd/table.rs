//! A report as a table: a line a port every period, everything at the end.

use std::fmt::{self, Write};

use super::report::{GeneratorReport, Report, Sleeps, WaiterReport};

impl Report {
    /// As text.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let when = if self.last { "total, " } else { "" };
        let names = self.ports.iter().map(|port| format!("{} {}", port.port, port.name));
        let width = names.map(|name| name.chars().count()).max().unwrap_or(0).max(22);
        let indented = width + 2;
        let _ = writeln!(
            text,
            "{:<indented$}{:>14}{:>12}{:>14}{:>12}{:>10}{:>10}{:>10}{:>10}",
            format!("{when}{:.1} s", self.seconds),
            "rx packets",
            "rx kpps",
            "tx packets",
            "tx kpps",
            "missed",
            "errors",
            "nombuf",
            "tx full",
        );
        for port in &self.ports {
            let link = if port.link_up { "" } else { "  link down" };
            let _ = writeln!(
                text,
                "  {:<width$}{:>14}{:>12.1}{:>14}{:>12.1}{:>10}{:>10}{:>10}{:>10}{link}",
                format!("{} {}", port.port, port.name),
                port.traffic.rx_packets,
                port.traffic.rx_pps / 1e3,
                port.traffic.tx_packets,
                port.traffic.tx_pps / 1e3,
                port.drops.rx_missed,
                port.drops.rx_errors + port.drops.tx_errors,
                port.drops.rx_nombuf,
                port.drops.tx_full,
            );
        }
        if !self.last {
            return text;
        }
        for port in &self.ports {
            let _ = writeln!(
                text,
                "  port {}: {} ({}), {}, link {}; {} bytes received, {} sent",
                port.port,
                port.name,
                port.driver,
                port.mac,
                port.link,
                port.traffic.rx_bytes,
                port.traffic.tx_bytes
            );
            for (name, value) in &port.xstats {
                let _ = writeln!(text, "    {name} {value}");
            }
        }
        if let Some(generator) = &self.generator {
            let _ = writeln!(text, "  generators: {generator}");
        }
        for pool in &self.pools {
            let counters: Vec<_> = pool
                .counters
                .iter()
                .filter(|(_, value)| value.as_u64() != Some(0))
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            let _ = writeln!(text, "  pool {}: {}", pool.name, counters.join(", "));
        }
        for WaiterReport { cpu, sleeps } in &self.waiters {
            let Sleeps { polls, sleeps, wake_ups, time_outs } = sleeps;
            let _ = writeln!(
                text,
                "  core {cpu}: {polls} polls, {sleeps} sleeps; {wake_ups} ended by interrupts, {time_outs} by their limit"
            );
        }
        for cycles in &self.cycles_per_packet {
            let _ = writeln!(
                text,
                "  cycles per packet: {:.1} in the middle, {:.1} on average over {} rounds, most of {}",
                cycles.median, cycles.mean, cycles.rounds, cycles.burst
            );
        }
        if let Some(fragments) = self.fragments {
            let _ = writeln!(
                text,
                "  fragments: {} out of their pools, {} in rings; {} out after close: {}",
                fragments.inflight,
                fragments.in_rings,
                fragments.after_close,
                if fragments.balance() { "nothing lost" } else { "SOME ARE LOST" },
            );
        }
        text
    }
}

impl fmt::Display for GeneratorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames sent, {} back", self.sent, self.received)?;
        let others = [
            (self.missing, if self.unexplained.is_none() { "under way or lost" } else { "lost" }),
            (self.late, "late"),
            (self.corrupt, "changed"),
            (self.foreign, "of others"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        match self.unexplained {
            Some(0) if self.missing == 0 => f.write_str("; nothing lost"),
            Some(0) => f.write_str("; the drops above say where"),
            Some(count) => write!(f, "; {count} MISSING WITHOUT A REASON"),
            None => Ok(()),
        }
    }
}
