//! Reports while it forwards.

use anyhow::Result;
use ratatui::buffer::Buffer;

use super::args::Args;
use super::draw::{Bottom, draw};
use super::report::Report;
use crate::live::{Show, View};

/// What is said of the run as a whole.
pub(super) struct Summary(String);

impl Summary {
    pub(super) fn view(args: &Args) -> View<Summary> {
        let mode = clap::ValueEnum::to_possible_value(&args.mode());
        let mode = mode.map_or_else(String::new, |mode| mode.get_name().to_owned());
        let duration = args.reporting.duration;
        let end = duration.map_or_else(String::new, |duration| format!(" of {} s", duration.as_secs_f64()));
        let summary = Summary(format!("s{end}  {mode}, bursts of {}", args.lanes.burst));
        View::open(summary, &args.screen, &args.reporting)
    }
}

impl Show for Summary {
    type Report = Report;
    const PAGES: usize = 1;

    fn print(&self, report: &Report, json: bool) -> Result<()> {
        report.print(json)
    }

    fn draw(&self, buffer: &mut Buffer, _: usize, report: &Report, notes: &[String]) {
        let title = format!("pagewire l2fwd  {:.1} {}", report.seconds, self.0);
        let bottom = Bottom { title: "messages", lines: notes, last: true };
        draw(buffer, &title, "q: end", report, &bottom);
    }
}
