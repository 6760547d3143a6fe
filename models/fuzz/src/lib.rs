//! What an input of the fuzzer makes the ends of vfio-user do to one another. `docs/fuzzing.md` says how to run this;
//! `models/tests/corpus.rs` runs the inputs that are kept.

pub mod client;
mod input;
pub mod server;
