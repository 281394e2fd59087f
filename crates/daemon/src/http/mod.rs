//! HTTP: connections, requests, answers.
//!
//! ```text
//! Socket ─ conn: first bytes ─┬─ hyper ─ serve ─ handlers::answer ─ Answer ─┬─ reply
//!                             │                                             └─ 101, then the socket
//!                             └─ hijack without Upgrade: by hand ─ the same, with 200
//! ```
//! An [`Answer`] is a reply, or a wish to take the connection over. Every reply carries Docker's
//! headers. One decode of a request: handlers see the typed route, the query and the body only.

pub mod conn;
pub mod failure;
pub mod reply;
pub mod request;

pub use failure::Failure;
pub use reply::{Answer, TakeOver};
pub use request::Call;
