//! The builder's pure half: Dockerfile parser, variables, stage graph, solver and progress.
//!
//! This crate decides what a build does and in which order, and runs nothing: the one trait
//! [`worker::Worker`] has the world behind it. Two implementations exist, the engine's and the
//! in-memory [`dry::Dry`], which answers `--call=check`-like questions.
//!
//! ```text
//! bytes -> lines -> parse -> Dockerfile -> graph -> solve --Worker--> image
//!                                                     |
//!                                                 progress -> classic text, or trace of vertices
//! ```

pub mod chmod;
pub mod dry;
pub mod export;
pub mod flags;
pub mod git;
pub mod graph;
pub mod instruction;
pub mod key;
pub mod lex;
pub mod lines;
pub mod parse;
pub mod progress;
pub mod select;
pub mod solve;
#[cfg(test)]
mod solve_tests;
mod stage;
pub mod state;
mod step;
pub mod worker;
