//! Frames as they are made, and streams between two modelled cards with a wire that keeps a record.

mod frames;
mod models;
