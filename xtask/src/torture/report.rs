//! What a campaign counts and finds. Shared by all threads; a fault is printed at once.

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use super::Options;
use super::field::{Outcome, lock};

/// More faults than these say nothing new.
const FAULTS_MAX: usize = 50;

#[derive(Default)]
pub struct Report {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By the operation's name: acknowledged, refused, lost.
    operations: BTreeMap<&'static str, [u64; 3]>,
    refusals: BTreeMap<String, u64>,
    strikes: BTreeMap<&'static str, u64>,
    ready: Vec<Duration>,
    slowest: BTreeMap<&'static str, Duration>,
    probes: u64,
    /// Containers whose monitor was killed or stopped; they may have ended.
    victims: HashSet<String>,
    faults: Vec<String>,
}

impl Report {
    pub fn operation(&self, name: &'static str, outcome: &Outcome, took: Duration) {
        let mut inner = lock(&self.inner);
        let slot = match outcome {
            Outcome::Done(_) | Outcome::Status(_) => 0,
            Outcome::Refused(words) => {
                let line = format!("{name}: {}", shape(words));
                *inner.refusals.entry(line).or_default() += 1;
                1
            }
            Outcome::Lost | Outcome::Hung => 2,
        };
        inner.operations.entry(name).or_default()[slot] += 1;
        let slowest = inner.slowest.entry(name).or_default();
        *slowest = (*slowest).max(took);
    }

    pub fn strike(&self, name: &'static str) {
        *lock(&self.inner).strikes.entry(name).or_default() += 1;
    }

    pub fn ready_after(&self, time: Duration) {
        lock(&self.inner).ready.push(time);
    }

    pub fn probe(&self) {
        lock(&self.inner).probes += 1;
    }

    pub fn victim(&self, container: &str) {
        lock(&self.inner).victims.insert(container.to_owned());
    }

    pub fn victims(&self) -> HashSet<String> {
        lock(&self.inner).victims.clone()
    }

    pub fn fault(&self, what: impl Into<String>) {
        let what = what.into();
        let mut inner = lock(&self.inner);
        if inner.faults.len() < FAULTS_MAX {
            println!("FAULT: {what}");
        }
        inner.faults.push(what);
    }

    /// Nothing more can be learned: no daemon comes up, or faults pile up.
    pub fn is_hopeless(&self) -> bool {
        lock(&self.inner).faults.len() >= FAULTS_MAX
    }

    /// Panics are faults wherever they were caught.
    pub fn daemon_log(&self, log: &str) {
        for line in log.lines().filter(|line| line.contains("panicked at")).take(5) {
            self.fault(format!("the daemon's log: {line}"));
        }
    }

    /// Prints everything and gives the exit status.
    pub fn print(&self, options: &Options) -> ExitCode {
        let mut inner = lock(&self.inner);
        println!("\ntorture: {} s, seed {}", options.length.as_secs(), options.seed);
        println!("  {:<22} {:>8} {:>8} {:>8}  slowest", "operation", "done", "refused", "lost");
        let mut sum = 0;
        for (name, counts) in &inner.operations {
            sum += counts.iter().sum::<u64>();
            let slowest = inner.slowest.get(name).copied().unwrap_or_default();
            let [done, refused, lost] = counts;
            println!(
                "  {name:<22} {done:>8} {refused:>8} {lost:>8}  {:.1} s",
                slowest.as_secs_f32()
            );
        }
        println!("  operations: {sum}; probes of ports: {}", inner.probes);
        for (line, count) in &inner.refusals {
            println!("  refused {count:>5} x {line}");
        }
        for (name, count) in &inner.strikes {
            println!("  {name}: {count}");
        }
        let kills = inner.strikes.iter().filter(|(name, _)| name.contains("killed"));
        println!("  kills: {}", kills.map(|(_, count)| count).sum::<u64>());
        inner.ready.sort();
        if let (Some(median), Some(longest)) =
            (inner.ready.get(inner.ready.len() / 2), inner.ready.last())
        {
            println!("  daemon ready after {median:.0?} (median), {longest:.0?} (longest)");
        }
        for fault in &inner.faults {
            println!("  FAULT: {fault}");
        }
        let passed = u32::from(inner.faults.is_empty());
        println!("\n{passed} passed, {} failed", inner.faults.len());
        ExitCode::from(1 - u8::try_from(passed).unwrap_or_default())
    }
}

/// A refusal without what differs from call to call, so that equal ones are counted together.
fn shape(words: &str) -> String {
    let words = words.lines().next().unwrap_or_default();
    let word = |word: &str| {
        let named = word.chars().any(|one| one.is_ascii_digit());
        if named { "…".to_owned() } else { word.to_owned() }
    };
    let text: Vec<String> = words.split(' ').map(word).collect();
    text.join(" ").chars().take(110).collect()
}
