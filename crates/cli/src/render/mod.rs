//! How answers look: units, tables, templates and progress.

pub mod cache;
pub mod format;
pub mod json;
pub mod pull;
pub mod table;
pub mod template;
pub mod units;
pub mod width;
