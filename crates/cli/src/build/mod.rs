//! What `build` needs on this side: the context that is sent, and the display of what happens.

pub mod board;
pub mod context;
pub mod extras;
pub mod output;
pub mod plain;
pub mod tty;
