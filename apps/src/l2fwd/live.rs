//! What the user sees meanwhile: on a terminal a screen that is drawn anew every period, else a table or a JSON object.

use anyhow::Result;

use super::args::Args;
use super::draw::{Bottom, draw};
use super::report::Report;
use crate::notes;
use crate::screen::Screen;

/// Where reports go.
pub(super) enum View {
    /// To standard output, as JSON or not.
    Plain(bool),
    /// On all of the terminal.
    Screen(Box<Live>),
}

/// A screen, and what is on it.
pub(super) struct Live {
    screen: Screen,
    title: String,
    report: Option<Report>,
    notes: usize,
}

impl View {
    /// A screen on a terminal that can be drawn on, unless it is not wanted.
    pub(super) fn open(args: &Args) -> View {
        match Screen::for_reports(&args.screen, &args.reporting) {
            Some(screen) => {
                let title = title(args);
                View::Screen(Box::new(Live { screen, title, report: None, notes: 0 }))
            }
            None => View::Plain(args.reporting.json),
        }
    }

    /// Before there is anything to report: a screen shows the ports at once.
    pub(super) fn begin(&mut self, report: impl FnOnce() -> Report) -> Result<()> {
        match self {
            View::Plain(_) => Ok(()),
            View::Screen(_) => self.show(report()),
        }
    }

    /// Show a report.
    pub(super) fn show(&mut self, report: Report) -> Result<()> {
        match self {
            View::Plain(json) => report.print(*json),
            View::Screen(live) => {
                live.report = Some(report);
                live.draw()
            }
        }
    }

    /// Whether the user asks for the end. Draws anew if anything else has changed.
    pub(super) fn wants_to_quit(&mut self) -> Result<bool> {
        let View::Screen(live) = self else { return Ok(false) };
        let input = live.screen.input()?;
        if input.resized || notes::recent(0).0 != live.notes {
            live.draw()?;
        }
        Ok(input.quit)
    }
}

impl Live {
    fn draw(&mut self) -> Result<()> {
        let (count, notes) = notes::recent(100);
        self.notes = count;
        if let Some(report) = &self.report {
            let title = format!("pagewire l2fwd  {:.1} {}", report.seconds, self.title);
            let bottom = Bottom { title: "messages", lines: &notes, last: true };
            self.screen.draw(|frame| draw(frame.buffer_mut(), &title, "q: end", report, &bottom))?;
        }
        Ok(())
    }
}

fn title(args: &Args) -> String {
    let mode = clap::ValueEnum::to_possible_value(&args.mode());
    let mode = mode.map_or_else(String::new, |mode| mode.get_name().to_owned());
    let end = args
        .reporting
        .duration
        .map_or_else(String::new, |duration| format!(" of {} s", duration.as_secs_f64()));
    format!("s{end}  {mode}, bursts of {}", args.lanes.burst)
}
