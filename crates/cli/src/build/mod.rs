//! What `build` needs on this side: the context that is sent, and the display of what happens.

pub mod board;
pub mod context;
pub mod extras;
pub mod metadata;
pub mod output;
pub mod palette;
pub mod plain;
pub mod raw;
pub mod tty;
pub mod view;
pub mod wishes;
