//! What is said besides results: on standard error, or, while a screen has the terminal, kept until that is gone.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines that are kept; older ones go.
const MOST: usize = 1000;

/// What was said while a screen has the terminal.
#[derive(Default)]
struct Held {
    lines: VecDeque<String>,
    /// Lines said, those that are kept no more included.
    count: usize,
    /// They are on standard error already, which leads elsewhere.
    written: bool,
}

static HELD: Mutex<Option<Held>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Say something; a reader that left is no reason to stop.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    let mut held = held();
    let Some(held) = &mut *held else {
        let _ = writeln!(io::stderr(), "{text}");
        return;
    };
    if held.written {
        let _ = writeln!(io::stderr(), "{text}");
    }
    for line in text.to_string().lines() {
        held.lines.push_back(line.to_owned());
        held.count += 1;
    }
    let over = held.lines.len().saturating_sub(MOST);
    held.lines.drain(..over);
}

/// From now on keep what is said: a screen has the terminal.
pub(crate) fn hold() {
    held().get_or_insert_with(|| Held { written: !io::stderr().is_terminal(), ..Held::default() });
}

/// The terminal is free again: what was kept goes to standard error.
pub(crate) fn release() {
    let Some(held) = held().take().filter(|held| !held.written) else { return };
    let mut stderr = io::stderr().lock();
    for line in held.lines {
        let _ = writeln!(stderr, "{line}");
    }
}

/// How many lines were said since [`hold`], and the last of them.
pub(crate) fn recent(most: usize) -> (usize, Vec<String>) {
    held().as_ref().map_or_else(Default::default, |held| {
        let first = held.lines.len().saturating_sub(most);
        (held.count, held.lines.iter().skip(first).cloned().collect())
    })
}

/// Where the logger writes, a record at a time.
pub(crate) struct Sink;

impl Write for Sink {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        say(format_args!("{}", String::from_utf8_lossy(record).trim_end()));
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
