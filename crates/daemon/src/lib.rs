//! `tug daemon`, also called `dockerd`: listeners, handlers, configuration, start and stop.
//!
//! Maps Docker's API and the distribution protocol to the engine and does nothing else: every decision about containers,
//! images, networks and volumes is the engine's.

mod config;
mod convert;
mod distribution;
mod handlers;
mod http;
mod instance;
mod listen;
mod reload;
mod run;
mod state;
mod tls;

#[cfg(test)]
#[global_allocator]
static HEAP: sys::testing::CountedHeap = sys::testing::CountedHeap;

use std::process::ExitCode;

use config::{ConfigError, Wish};

/// Runs the daemon with dockerd's arguments. `called` is how the user names it: `dockerd`, `tug daemon`.
#[must_use]
pub fn main(called: &str, args: Vec<String>) -> ExitCode {
    let wish = match config::read(&args) {
        Ok(wish) => wish,
        Err(ConfigError::Flag(error)) => {
            eprintln!(
                "{error}\nSee '{called} --help'.\n\nUsage:  {called} [OPTIONS]\n\nA self-sufficient runtime for containers."
            );
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("{}", engine::error::chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match wish {
        Wish::Help => print!("{}", config::usage(called)),
        Wish::Version => println!("Docker version {}, build tug", handlers::SERVER_VERSION),
        Wish::Validate => println!("configuration OK"),
        // dockerd's words; it points to rootless mode, which is not there yet.
        Wish::Run(_) if !rustix::process::geteuid().is_root() => {
            eprintln!("failed to start daemon: {called} needs to be started with root privileges");
            return ExitCode::FAILURE;
        }
        Wish::Run(settings) => {
            if let Err(error) = run::run(*settings, args) {
                eprintln!("failed to start daemon: {}", error.story());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
