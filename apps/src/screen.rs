//! The terminal while something is drawn on all of it, and getting it back as it was: at the end, at a panic, at a signal.

use std::io::{self, IsTerminal, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use rustix::event::PollFlags;

use crate::notes;
use crate::run::{Reporting, happened};

/// A screen has the terminal.
static ON: AtomicBool = AtomicBool::new(false);

/// Options of commands with a live screen.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ScreenOptions {
    /// Print tables where there would be a live screen, on a terminal
    #[arg(long)]
    no_tui: bool,
}

/// What its user did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// Asked for the end, by q, Escape or Ctrl-C.
    pub(crate) quit: bool,
    /// Made the window another size.
    pub(crate) resized: bool,
    /// Asked for another page.
    pub(crate) turn: Option<Turn>,
}

/// Another page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// By a digit: its number, from 0 on.
    To(usize),
    /// By Tab, or the arrow to the right.
    Next,
    /// By Shift and Tab, or the arrow to the left.
    Back,
}

/// The terminal. Dropping it gives the terminal back.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Take the terminal. What is said from now on waits until it is given back; see [`notes`].
    pub(crate) fn open() -> io::Result<Screen> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        enable_raw_mode()?;
        ON.store(true, Ordering::SeqCst);
        notes::hold();
        let opened = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match opened {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Take the terminal for live reports, unless standard output is none that can be drawn on, or they are wanted in another form.
    pub(crate) fn for_reports(options: &ScreenOptions, reporting: &Reporting) -> Option<Screen> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if reporting.json
            || options.no_tui
            || reporting.stats_period.is_zero()
            || dumb
            || !io::stdout().is_terminal()
        {
            return None;
        }
        Screen::open().inspect_err(|error| log::debug!("no screen: {error}")).ok()
    }

    /// Draw all of it.
    pub(crate) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if ON.load(Ordering::SeqCst) {
            self.terminal.draw(render)?;
            // Given back meanwhile, by a panic elsewhere.
            if !ON.load(Ordering::SeqCst) {
                leave();
            }
        }
        Ok(())
    }

    /// What its user did since the last call. Does not wait.
    pub(crate) fn input(&mut self) -> io::Result<Input> {
        let mut input = Input::default();
        loop {
            // Asking for events of a terminal that has gone would never end.
            if is_gone() {
                input.quit = true;
                break;
            }
            if !event::poll(Duration::ZERO)? {
                break;
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('c') => input.quit |= control,
                        KeyCode::Char('q') | KeyCode::Esc => input.quit = true,
                        KeyCode::Char(digit @ '1'..='9') => {
                            input.turn = Some(Turn::To(digit as usize - '1' as usize));
                        }
                        KeyCode::Tab | KeyCode::Right => input.turn = Some(Turn::Next),
                        KeyCode::BackTab | KeyCode::Left => input.turn = Some(Turn::Back),
                        _ => {}
                    }
                }
                Event::Resize(..) => input.resized = true,
                _ => {}
            }
        }
        Ok(input)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Give the terminal back, if a screen has it. From any thread.
pub(crate) fn restore() {
    if ON.swap(false, Ordering::SeqCst) {
        leave();
        notes::release();
    }
}

/// Whether nobody is at the terminal's other end any more.
fn is_gone() -> bool {
    happened(io::stdout(), PollFlags::empty()).intersects(PollFlags::HUP | PollFlags::ERR)
}

/// A terminal that is gone cannot be given back.
fn leave() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}
