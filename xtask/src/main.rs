//! `cargo xtask …`: campaigns that are too long, or too rough, for a test.
//!
//! `cargo xtask torture --minutes N --seed S` is the only one: see [`torture`].

#[path = "../../tests/e2e/census.rs"]
mod census;
mod torture;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask torture [--minutes N] [--seed S] [--clients N] [--release]";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("torture") => match torture::Options::parse(args) {
            Ok(options) => torture::main(&options),
            Err(why) => {
                eprintln!("{why}\n{USAGE}");
                ExitCode::from(2)
            }
        },
        Some(_) | None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
