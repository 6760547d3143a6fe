//! What a stream sends: its frames in turns, each in its lengths.

use super::field::{Field, Random};
use super::template::Template;

/// A frame of a stream, in all its lengths.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) templates: Vec<Template>,
    /// Templates as they come.
    pub(super) order: Vec<u16>,
    /// The same of all queues together.
    pub(super) whole: Vec<u16>,
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
    /// Which part of the stream it is, and of how many.
    part: (u64, u64),
}

impl Pattern {
    /// One frame at least.
    pub(super) fn new(shapes: Vec<Shape>) -> Pattern {
        let left = shapes.first().map_or(1, |shape| shape.repeat);
        Pattern { shapes, shape: 0, left, random: Random::new(0), part: (0, 1) }
    }

    /// What one of several queues has of it: each has the frames in the same turns, and of what a frame is one time after the other,
    /// length and values, each has its share. Together they send what one would. Random values are drawn by each for itself.
    pub(super) fn deal(&mut self, part: u64, parts: u64, seed: u64) {
        (self.part, self.random) = ((part, parts), Random::new(seed));
        for shape in &mut self.shapes {
            shape.fields.iter_mut().for_each(|field| field.deal(part, parts));
            if !shape.random {
                let mut order: Vec<u16> = Vec::new();
                let (all, stride) = (shape.whole.len(), (parts % shape.whole.len() as u64) as usize);
                let mut at = (part % all as u64) as usize;
                while order.is_empty() || at as u64 != part % all as u64 {
                    order.push(shape.whole[at]);
                    at = (at + stride) % all;
                }
                shape.order = order;
            }
        }
    }

    /// Parts of ticks from each frame to the next, by template.
    pub(super) fn set_intervals(&mut self, intervals: &[u128]) {
        let mut rest = intervals;
        for shape in &mut self.shapes {
            let (of_shape, others) = rest.split_at(shape.templates.len().min(rest.len()));
            let mean = |order: &[u16]| {
                let sum: f64 =
                    order.iter().filter_map(|at| of_shape.get(usize::from(*at))).map(|all| *all as f64).sum();
                sum / order.len() as f64
            };
            // Where lengths decide, a queue whose frames are shorter than the others' is not to send more of them.
            let factor = mean(&shape.whole) / mean(&shape.order);
            for (template, interval) in shape.templates.iter_mut().zip(of_shape) {
                template.interval =
                    if factor == 1.0 { *interval } else { (*interval as f64 * factor) as u128 };
            }
            rest = others;
        }
    }

    /// Parts of ticks by which it begins later than the first of the queues, where each frame is due by itself: the same from each queue to
    /// the next, and from the last to the first one's second frame.
    pub(super) fn delay(&self) -> u128 {
        let (mut sum, mut frames) = (0.0, 0.0);
        for Shape { templates, order, repeat, .. } in &self.shapes {
            let of_order: f64 = order.iter().map(|at| templates[usize::from(*at)].interval as f64).sum();
            sum += of_order / order.len() as f64 * f64::from(*repeat);
            frames += f64::from(*repeat);
        }
        let (part, parts) = self.part;
        (sum / frames * part as f64 / parts as f64) as u128
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
