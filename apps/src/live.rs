//! What the user sees meanwhile: on a terminal a screen of one or several pages, else a table or a JSON object every period.

use anyhow::Result;
use ratatui::buffer::Buffer;

use crate::notes;
use crate::run::Reporting;
use crate::screen::{Screen, ScreenOptions, Turn};

/// Messages that a screen may have room for.
const NOTES: usize = 100;

/// How a command shows its reports.
pub(crate) trait Show {
    type Report;
    /// Of a screen.
    const PAGES: usize;

    fn print(&self, report: &Self::Report, json: bool) -> Result<()>;

    /// Draws a page, numbered from 0, with the last messages.
    fn draw(&self, buffer: &mut Buffer, page: usize, report: &Self::Report, notes: &[String]);
}

/// Where reports go.
pub(crate) struct View<S: Show> {
    show: S,
    json: bool,
    live: Option<Live<S::Report>>,
}

/// A screen, and what is on it.
struct Live<R> {
    screen: Screen,
    page: usize,
    report: Option<R>,
    notes: usize,
}

impl<S: Show> View<S> {
    /// A screen on a terminal that can be drawn on, unless it is not wanted; else standard output.
    pub(crate) fn open(show: S, options: &ScreenOptions, reporting: &Reporting) -> View<S> {
        let live = Screen::for_reports(options, reporting);
        let live = live.map(|screen| Live { screen, page: 0, report: None, notes: 0 });
        View { show, json: reporting.json, live }
    }

    /// Standard output.
    pub(crate) fn plain(show: S, reporting: &Reporting) -> View<S> {
        View { show, json: reporting.json, live: None }
    }

    pub(crate) fn is_screen(&self) -> bool {
        self.live.is_some()
    }

    /// Show a report.
    pub(crate) fn show(&mut self, report: S::Report) -> Result<()> {
        match &mut self.live {
            None => self.show.print(&report, self.json),
            Some(live) => {
                live.report = Some(report);
                live.draw(&self.show)
            }
        }
    }

    /// Whether the user asks for the end. Draws anew if anything else has changed.
    pub(crate) fn wants_to_quit(&mut self) -> Result<bool> {
        let Some(live) = &mut self.live else { return Ok(false) };
        let input = live.screen.input()?;
        let page = match input.turn {
            Some(Turn::To(page)) if page < S::PAGES => page,
            Some(Turn::Next) => (live.page + 1) % S::PAGES,
            Some(Turn::Back) => (live.page + S::PAGES - 1) % S::PAGES,
            _ => live.page,
        };
        if input.resized || page != live.page || notes::recent(0).0 != live.notes {
            live.page = page;
            live.draw(&self.show)?;
        }
        Ok(input.quit)
    }
}

impl<R> Live<R> {
    fn draw(&mut self, show: &impl Show<Report = R>) -> Result<()> {
        let (count, notes) = notes::recent(NOTES);
        self.notes = count;
        if let Some(report) = &self.report {
            self.screen.draw(|frame| show.draw(frame.buffer_mut(), self.page, report, &notes))?;
        }
        Ok(())
    }
}
