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

pub mod flags;
pub mod instruction;
pub mod lex;
pub mod lines;
pub mod parse;
pub mod worker;
pub mod state;
pub mod select;
pub mod progress;
pub mod graph;
