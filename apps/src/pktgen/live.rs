//! Reports while it runs.

use std::time::Duration;

use anyhow::Result;
use ratatui::buffer::Buffer;
use serde_json::Value;

use super::Args;
use super::draw::{Content, Delayed, PAGES};
use super::pace::Clock;
use super::report::Results;
use super::watch::Watch;
use crate::live::{Show, View};

/// Of how many seconds it is, if that is known.
pub(super) struct Summary {
    end: String,
}

/// A report, and what else there is to see on a screen then.
pub(super) struct Shown {
    results: Results,
    delays: Vec<Delayed>,
    cores: Vec<Value>,
}

impl Summary {
    /// Where reports go that are made every so often, if they are.
    pub(super) fn view(args: &Args, duration: Option<f64>, period: Duration) -> View<Summary> {
        let end = duration.map_or_else(String::new, |seconds| format!(" of {seconds} s"));
        match period.is_zero() {
            true => View::plain(Summary { end }, &args.reporting),
            false => View::open(Summary { end }, &args.screen, &args.reporting),
        }
    }
}

impl View<Summary> {
    /// Show a report, and, on a screen, what is seen of delays and cores since the last one.
    pub(super) fn report(&mut self, results: Results, watch: &mut Watch, clock: &Clock) -> Result<()> {
        let (mut delays, mut cores) = (Vec::new(), Vec::new());
        if self.is_screen() {
            watch.gathered.gather();
            (delays, cores) = (Delayed::all(&watch.gathered, clock), watch.cores());
        }
        self.show(Shown { results, delays, cores })
    }
}

impl Show for Summary {
    type Report = Shown;
    const PAGES: usize = PAGES.len();

    fn print(&self, report: &Shown, json: bool) -> Result<()> {
        report.results.print(json)
    }

    fn draw(&self, buffer: &mut Buffer, page: usize, report: &Shown, notes: &[String]) {
        let Shown { results, delays, cores } = report;
        let title = format!("pktgen  {:.1} s{}", results.seconds, self.end);
        Content { title: &title, results, delays, cores, notes }.draw(buffer, page);
    }
}
