//! What the user sees meanwhile: on a terminal a screen of several pages, else a table or a JSON object.

use anyhow::Result;
use serde_json::Value;

use super::Args;
use super::draw::{Content, Delayed, PAGES};
use super::pace::Clock;
use super::report::Results;
use super::watch::Watch;
use crate::notes;
use crate::screen::{Screen, Turn};

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
    /// Of how many seconds, if it is known.
    end: String,
    page: usize,
    shown: Option<Shown>,
    notes: usize,
}

/// The last report, and what else there was then.
struct Shown {
    results: Results,
    delays: Vec<Delayed>,
    cores: Vec<Value>,
}

impl View {
    /// A screen on a terminal that can be drawn on, unless it is not wanted.
    pub(super) fn open(args: &Args, duration: Option<f64>) -> View {
        match Screen::for_reports(&args.screen, &args.reporting) {
            Some(screen) => {
                let end = duration.map_or_else(String::new, |seconds| format!(" of {seconds} s"));
                View::Screen(Box::new(Live { screen, end, page: 0, shown: None, notes: 0 }))
            }
            None => View::Plain(args.reporting.json),
        }
    }

    /// Show a report, and, on a screen, what is seen of delays and cores since the last one.
    pub(super) fn show(&mut self, results: Results, watch: &mut Watch, clock: &Clock) -> Result<()> {
        match self {
            View::Plain(json) => results.print(*json),
            View::Screen(live) => {
                watch.gathered.gather();
                let delays = Delayed::all(&watch.gathered, clock);
                live.shown = Some(Shown { results, delays, cores: watch.cores() });
                live.draw()
            }
        }
    }

    /// Whether the user asks for the end. Draws anew if anything else has changed.
    pub(super) fn wants_to_quit(&mut self) -> Result<bool> {
        let View::Screen(live) = self else { return Ok(false) };
        let input = live.screen.input()?;
        let page = match input.turn {
            Some(Turn::To(page)) if page < PAGES.len() => page,
            Some(Turn::Next) => (live.page + 1) % PAGES.len(),
            Some(Turn::Back) => (live.page + PAGES.len() - 1) % PAGES.len(),
            _ => live.page,
        };
        if input.resized || page != live.page || notes::recent(0).0 != live.notes {
            live.page = page;
            live.draw()?;
        }
        Ok(input.quit)
    }
}

impl Live {
    fn draw(&mut self) -> Result<()> {
        let (count, notes) = notes::recent(100);
        self.notes = count;
        if let Some(Shown { results, delays, cores }) = &self.shown {
            let title = format!("pktgen  {:.1} s{}", results.seconds, self.end);
            let content = Content { title: &title, results, delays, cores, notes: &notes };
            self.screen.draw(|frame| content.draw(frame.buffer_mut(), self.page))?;
        }
        Ok(())
    }
}
