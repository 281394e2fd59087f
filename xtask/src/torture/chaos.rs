//! What happens to the engine: kills and stops at random instants.
//!
//! | strike | how often |
//! |---|---|
//! | the daemon is killed and started again, at once or a little later | 50 % |
//! | the process that forks launchers is killed, or stopped for up to 4 s | 5 % |
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
            0..50 => self.restart("daemon killed", Signal::KILL),
            50..55 => self.hit_launchers(),
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

    /// The process behind all later starts and execs; what waits ahead is forked already.
    fn hit_launchers(&mut self) {
        let daemon = self.field.daemon_pid();
        for pid in children_of(daemon).into_iter().filter(|pid| is_fork_server(*pid)) {
            if self.random.chance(50) {
                self.report.strike("launchers' parent killed");
                signal_process(pid, Signal::KILL);
            } else {
                self.report.strike("launchers' parent stopped for a while");
                signal_process(pid, Signal::STOP);
                sleep(self.random.millis(10, 4000));
                signal_process(pid, Signal::CONT);
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

fn children_of(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task");
    let threads = fs::read_dir(path).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let all: Vec<String> = lists.collect();
    all.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}

fn is_fork_server(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).skip(1);
    words.next() == Some(b"launcher") && words.next().is_none_or(<[u8]>::is_empty)
}
