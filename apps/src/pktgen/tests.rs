//! Frames as they are made, captures as they are sent again, and streams between two modelled cards with a wire that keeps a record; the screen's pages; what the documentation shows.

mod document;
mod frames;
mod models;
mod pages;
mod replay;
