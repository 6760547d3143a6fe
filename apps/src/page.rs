//! A page of tables and text, which fills from the top.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use crate::l2fwd::draw::{head, section, table};

/// A row of a table: number and name, cells, and how they look.
pub(crate) type Row = ([String; 2], Vec<String>, Style);

pub(crate) struct Page<'a> {
    buffer: &'a mut Buffer,
    left: Rect,
}

impl Page<'_> {
    /// The first line says what this is, and what its user can do.
    pub(crate) fn new<'a>(buffer: &'a mut Buffer, title: &str, keys: &str) -> Page<'a> {
        let left = buffer.area;
        let mut page = Page { buffer, left };
        let area = page.take(1);
        head(page.buffer, area, title, keys);
        page
    }

    /// Lines that are left.
    pub(crate) fn room(&self) -> usize {
        self.left.height.into()
    }

    fn take(&mut self, rows: usize) -> Rect {
        let rows = u16::try_from(rows).unwrap_or(u16::MAX).min(self.left.height);
        let area = Rect { height: rows, ..self.left };
        self.left = Rect { y: self.left.y + rows, height: self.left.height - rows, ..self.left };
        area
    }

    /// With as many columns as there is room for, the first ones first.
    pub(crate) fn table(&mut self, title: &str, columns: &[&'static str], rows: Vec<Row>) {
        let area = self.take(rows.len() + 1);
        table(self.buffer, area, title, columns, rows);
    }

    pub(crate) fn section(&mut self, title: &str, lines: &[String]) {
        let area = self.take(lines.len() + 1);
        section(self.buffer, area, title, lines.iter().map(|line| Line::from(format!(" {line}"))).collect());
    }

    /// The last of some lines, as many as there is room for.
    pub(crate) fn tail(&mut self, title: &str, lines: &[String]) {
        if self.room() > 1 {
            self.section(title, &lines[lines.len().saturating_sub(self.room() - 1)..]);
        }
    }

    /// What somebody else draws, in so many lines.
    pub(crate) fn part(&mut self, rows: usize, draw: impl FnOnce(&mut Buffer, Rect)) {
        let area = self.take(rows);
        draw(self.buffer, area);
    }
}
