//! The monitor: one small process for each running container, which outlives the daemon.
//!
//! It starts the container through `runtime`, keeps its stdio and terminal, writes its log and
//! exit record, serves attach and exec, answers its DNS questions and forwards ports in user mode.
//! One thread around epoll, no tokio. [`main`] is the process; everything else here is what the
//! daemon uses of it.
//!
//! ```text
//! daemon ──spawn──▶ tug monitor DIR     DIR/monitor.json   [`settings::MonitorSettings`]
//!   │  control socket: its stdin        DIR/monitor.sock   the same protocol, for later daemons
//!   └──[`wire`] requests, events──▶     exit record        [`exit::ExitRecord`]
//! ```
//!
//! Always true: losing every control connection changes nothing; a full disk loses log lines but
//! never stops the container; the exit record is complete before anybody is told of the exit.
//! Elsewhere: what to start and whether to restart it (`engine`), how to start it (`runtime`).

pub mod client;
mod detach;
pub mod exit;
pub mod logs;
mod proxy;
mod resolver;
mod run;
pub mod settings;
pub mod wire;

pub use run::main;
