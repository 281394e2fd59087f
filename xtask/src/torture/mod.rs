//! Torture: users at work while everything that serves them is killed.
//!
//! In namespaces of their own run one daemon, one registry, a few sentinels and several clients.
//! The clients create, run, exec, stop, rename, connect, build, pull and remove at random, and
//! write down what was acknowledged ([`ledger`]). Meanwhile [`chaos`] kills the daemon at random
//! instants and starts it again, kills monitors, and stops daemons and monitors for a while.
//! At the end there is peace, and the books are compared with the world:
//!
//! - what was acknowledged is there, what was acknowledged as removed is gone;
//! - sentinels (whose monitors are left alone) were never restarted, lost and doubled no line of
//!   their logs, and answered on their ports and by their names also while no daemon ran;
//! - after everything is removed, mounts, links, cgroups, processes, nftables objects and records
//!   are what they were ([`crate::census`]).
//!
//! All randomness comes from the seed, though what the kernel schedules does not. A fault is
//! printed when it is seen, and the campaign ends with a report and exit status 1.

mod chaos;
mod client;
mod field;
mod ledger;
mod random;
mod report;
mod sentinels;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use field::Field;
use random::Random;
use report::Report;
use sentinels::Sentinels;

/// What a campaign is told.
#[derive(Debug, Clone)]
pub struct Options {
    pub length: Duration,
    pub seed: u64,
    pub clients: u64,
    pub release: bool,
}

impl Options {
    /// Reads the words after `torture`.
    ///
    /// # Errors
    /// A sentence for the user: an unknown option, or one without a number.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options =
            Options { length: Duration::from_secs(120), seed: 1, clients: 6, release: false };
        let mut args = args;
        while let Some(name) = args.next() {
            if name == "--release" {
                options.release = true;
                continue;
            }
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (name, args.next()),
            };
            let number: Option<u64> = value.and_then(|value| value.parse().ok());
            let number = number.ok_or_else(|| format!("{name} wants a whole number"))?;
            match name.as_str() {
                "--minutes" => options.length = Duration::from_secs(number * 60),
                "--seconds" => options.length = Duration::from_secs(number),
                "--seed" => options.seed = number,
                "--clients" if number > 0 => options.clients = number,
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(options)
    }
}

/// Runs a campaign, in new namespaces, and prints its report.
pub fn main(options: &Options) -> ExitCode {
    if !field::inside() {
        return field::enter(options);
    }
    let field = Arc::new(Field::open());
    let report = Arc::new(Report::default());
    let mut random = Random::new(options.seed);
    let before = field.census_at_rest();
    let sentinels = Sentinels::start(&field, &report);
    let over = Arc::new(AtomicBool::new(false));

    let clients: Vec<_> = (0..options.clients)
        .map(|number| {
            let client =
                client::Client::new(number, Arc::clone(&field), Arc::clone(&report), random.fork());
            let over = Arc::clone(&over);
            thread::spawn(move || client.work(&over))
        })
        .collect();
    let mut chaos = chaos::Chaos::new(
        Arc::clone(&field),
        Arc::clone(&report),
        random.fork(),
        sentinels.ids().to_vec(),
    );
    let end = Instant::now() + options.length;
    while Instant::now() < end && !report.is_hopeless() {
        chaos.strike();
    }
    chaos.calm();
    over.store(true, Ordering::Relaxed);
    let ledgers: Vec<ledger::Ledger> =
        clients.into_iter().filter_map(|client| client.join().ok()).collect();
    if ledgers.len() as u64 != options.clients {
        report.fault("a client of the campaign itself panicked");
    }

    sentinels.check(&field, &report);
    let victims = report.victims();
    for ledger in &ledgers {
        verify::check(&field, &report, ledger, &victims);
    }
    verify::remove_everything(&field, &report, &before);
    report.daemon_log(&field.daemon_log());
    field.close();
    report.print(options)
}
