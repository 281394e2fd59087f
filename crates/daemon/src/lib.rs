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

use std::process::ExitCode;

use config::{ConfigError, Wish};

/// Runs the daemon with dockerd's arguments (without the program's name).
#[must_use]
pub fn main(args: Vec<String>) -> ExitCode {
    let wish = match config::read(&args) {
        Ok(wish) => wish,
        Err(ConfigError::Flag(error)) => {
            eprintln!(
                "{error}\nSee 'dockerd --help'.\n\nUsage:  dockerd [OPTIONS]\n\nA self-sufficient runtime for containers."
            );
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("{}", engine::error::chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match wish {
        Wish::Help => print!("{}", config::usage()),
        Wish::Version => println!("Docker version {}, build tug", handlers::SERVER_VERSION),
        Wish::Validate => println!("configuration OK"),
        Wish::Run(settings) => {
            if let Err(error) = run::run(*settings, args) {
                eprintln!("failed to start daemon: {}", error.story());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
