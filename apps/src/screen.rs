//! The terminal while something is drawn on all of it, and getting it back as it was: at the end, at a panic, at a signal.

use std::io::{self, Stdout};
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

use crate::notes;

/// A screen has the terminal.
static ON: AtomicBool = AtomicBool::new(false);

/// What its user did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// Asked for the end, by q, Escape or Ctrl-C.
    pub(crate) quit: bool,
    /// Made the window another size.
    pub(crate) resized: bool,
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
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    input.quit |= match key.code {
                        KeyCode::Char('c') => control,
                        KeyCode::Char('q') | KeyCode::Esc => true,
                        _ => false,
                    };
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

/// A terminal that is gone cannot be given back.
fn leave() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}
