//! What happens to the engine: kills and stops at random instants.
//!
//! | strike | how often |
//! |---|---|
//! | the daemon is killed and started again, at once or a little later | 55 % |
//! | the daemon is asked to end (SIGTERM) and started again | 8 % |
//! | the daemon is stopped (SIGSTOP) for up to 2 s | 7 % |
//! | a monitor is killed | 15 % |
//! | a monitor is stopped for up to 4 s, half of the time across a restart of the daemon | 15 % |
//!
//! The monitors of sentinels are left alone; every other container whose monitor was hit is written
//! down as a victim before it is hit.

use std::fs;
use std::sync::Arc;
use std::thread::sleep;

use rustix::process::Signal;

use super::field::{Field, signal_process};
use super::random::Random;
use super::report::Report;

pub struct Chaos {
    field: Arc<Field>,
    report: Arc<Report>,
    random: Random,
    spared: Vec<String>,
}

/// A monitor's process and the container it serves.
struct Monitor {
    pid: u32,
    container: String,
}

impl Chaos {
    pub fn new(
        field: Arc<Field>,
        report: Arc<Report>,
        random: Random,
        spared: Vec<String>,
    ) -> Chaos {
        Chaos { field, report, random, spared }
    }

    /// Waits a little, then strikes once.
    pub fn strike(&mut self) {
        sleep(self.random.millis(50, 1500));
        match self.random.below(100) {
            0..55 => self.restart("daemon killed", Signal::KILL),
            55..63 => self.restart("daemon ended by SIGTERM", Signal::TERM),
            63..70 => {
                self.report.strike("daemon stopped for a while");
                self.field.signal_daemon(Signal::STOP);
                sleep(self.random.millis(10, 2000));
                self.field.signal_daemon(Signal::CONT);
            }
            70..85 => {
                if let Some(monitor) = self.choose() {
                    self.report.strike("monitor killed");
                    signal_process(monitor.pid, Signal::KILL);
                }
            }
            _ => self.stop_monitor(),
        }
    }

    /// No more strikes; the daemon runs.
    pub fn calm(&mut self) {
        self.field.signal_daemon(Signal::CONT);
        self.restart("daemon killed", Signal::KILL);
    }

    fn restart(&mut self, name: &'static str, signal: Signal) {
        self.report.strike(name);
        self.field.signal_daemon(signal);
        if self.random.chance(50) {
            sleep(self.random.millis(0, 1500));
        }
        match self.field.start_daemon() {
            Ok(time) => self.report.ready_after(time),
            Err(why) => {
                self.report.fault(why);
                // A second chance, so that one fault does not hide the rest.
                self.field.signal_daemon(Signal::KILL);
                if let Err(why) = self.field.start_daemon() {
                    self.report.fault(format!("and again: {why}"));
                }
            }
        }
    }

    fn stop_monitor(&mut self) {
        let Some(monitor) = self.choose() else { return };
        self.report.strike("monitor stopped for a while");
        signal_process(monitor.pid, Signal::STOP);
        if self.random.chance(50) {
            self.restart("daemon killed", Signal::KILL);
        }
        sleep(self.random.millis(10, 4000));
        signal_process(monitor.pid, Signal::CONT);
    }

    /// A monitor that may be hit, already written down.
    fn choose(&mut self) -> Option<Monitor> {
        let mut monitors = self.monitors();
        monitors.retain(|monitor| !self.spared.contains(&monitor.container));
        if monitors.is_empty() {
            return None;
        }
        let at = usize::try_from(self.random.below(monitors.len() as u64)).unwrap_or_default();
        let monitor = monitors.swap_remove(at);
        self.report.victim(&monitor.container);
        Some(monitor)
    }

    /// Processes whose words are `… monitor DIRECTORY` with a directory of this campaign.
    fn monitors(&self) -> Vec<Monitor> {
        let ours = self.field.exec_root();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut words = line.split('\0').skip(1);
            let (Some("monitor"), Some(directory)) = (words.next(), words.next()) else {
                continue;
            };
            let path = std::path::Path::new(directory);
            if let (true, Some(name)) = (path.starts_with(&ours), path.file_name()) {
                found.push(Monitor { pid, container: name.to_string_lossy().into_owned() });
            }
        }
        found.sort_by(|one, other| one.container.cmp(&other.container));
        found
    }
}
