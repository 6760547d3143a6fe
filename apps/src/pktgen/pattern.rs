//! What a stream sends: its frames in turns, each in its lengths.

use super::field::{Field, Random};
use super::template::Template;

/// A frame of a stream, in all its lengths.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) templates: Vec<Template>,
    /// Templates as they come.
    pub(super) order: Vec<u16>,
    /// Or any of them.
    pub(super) random: bool,
    pub(super) fields: Vec<Field>,
    /// How often it comes in a row.
    pub(super) repeat: u32,
    /// In the order.
    pub(super) place: usize,
}

/// A stream's frames, and which is next.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    shapes: Vec<Shape>,
    shape: usize,
    /// More of that one.
    left: u32,
    random: Random,
}

impl Pattern {
    /// One frame at least.
    pub(super) fn new(shapes: Vec<Shape>, seed: u64) -> Pattern {
        let left = shapes.first().map_or(1, |shape| shape.repeat);
        Pattern { shapes, shape: 0, left, random: Random::new(seed) }
    }

    /// Parts of ticks from each frame to the next, by template.
    pub(super) fn set_intervals(&mut self, intervals: Vec<u128>) {
        let templates = self.shapes.iter_mut().flat_map(|shape| &mut shape.templates);
        for (template, interval) in templates.zip(intervals) {
            template.interval = interval;
        }
    }

    /// Its only template, if nothing but the signature differs from packet to packet.
    #[inline]
    pub(super) fn plain(&self) -> Option<&Template> {
        match &self.shapes[..] {
            [Shape { templates, fields, .. }] if fields.is_empty() => match &templates[..] {
                [one] if one.signature_at.is_some() && one.offload.is_none() => Some(one),
                _ => None,
            },
            _ => None,
        }
    }

    /// The next frame: its template, its fields, and what random ones take their values from.
    #[inline]
    pub(super) fn next(&mut self) -> (&Template, &mut [Field], &mut Random) {
        if self.left == 0 {
            self.shape = if self.shape + 1 == self.shapes.len() { 0 } else { self.shape + 1 };
            self.left = self.shapes[self.shape].repeat;
        }
        self.left -= 1;
        let Shape { templates, order, random, fields, place, .. } = &mut self.shapes[self.shape];
        let this = match random {
            true => self.random.below(order.len() as u128) as usize,
            false => {
                let this = *place;
                *place = if this + 1 == order.len() { 0 } else { this + 1 };
                this
            }
        };
        (&templates[usize::from(order[this])], fields, &mut self.random)
    }
}
