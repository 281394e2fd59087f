//! The launcher and the supervisor of a container, which outlives the daemon.
//!
//! A launcher starts the container through `runtime`, with privileges, and then gives them all up: what
//! stays is the supervisor. It keeps the container's stdio and terminal, writes its log and exit record,
//! serves attached clients, answers its DNS questions and forwards ports in user mode. An exec has a
//! launcher of its own, whose streams the supervisor serves. One thread around epoll, no tokio.
//! [`main`] is the process that forks launchers; everything else here is what the daemon uses.
//!
//! ```text
//! daemon ──[`client::Launchers`]──▶ tug launcher ──fork──▶ launcher, later "tug monitor DIR"
//!   └──[`wire`] requests, events──▶                        DIR/monitor.sock   for later daemons
//!                                                          exit record        [`exit::ExitRecord`]
//! ```
//!
//! Always true: losing every control connection changes nothing; a full disk loses log lines but
//! never stops the container; the exit record is complete before anybody is told of the exit.
//! Elsewhere: what to start and whether to restart it (`engine`), how to start it (`runtime`).

pub mod client;
mod complaints;
mod confine;
mod detach;
pub mod exit;
mod launcher;
pub mod logs;
mod proxy;
pub mod resolver;
mod run;
pub mod settings;
pub mod wire;

pub use launcher::main;
