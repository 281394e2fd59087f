//! `docker top` and `docker stats`: what a container's processes do and use, read from /proc and
//! the control group. No external `ps` is run.
//!
//! Columns are those of procps' `ps -ef`, and of `ps aux` and `-o` lists for what is common:
//! `pid ppid uid user gid comm cmd args stime start time tty stat pcpu pmem vsz rss c nlwp`.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::SystemTime;

use super::step::Phase;
use super::task::View;
use super::views::{BlockIoStat, CpuStats, InterfaceStats, MemoryStats, PidsStats, Stats, Top};
use super::{cgroups, events};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::{Engine, words};

/// proc(5): times in /proc/PID/stat are in USER_HZ, 100 on every architecture we run on.
const TICKS: u64 = 100;

/// One process as /proc shows it.
#[derive(Debug, Clone, Default)]
struct Process {
    pid: i32,
    ppid: i32,
    uid: u32,
    gid: u32,
    comm: String,
    args: String,
    state: String,
    tty: u64,
    /// Ticks of CPU time.
    cpu: u64,
    /// Ticks after boot.
    start: u64,
    threads: u64,
    /// Bytes.
    vsz: u64,
    /// Pages.
    rss: u64,
}

/// The host at one instant.
struct Moment {
    /// Seconds after boot.
    uptime: f64,
    now: jiff::Zoned,
    memory_kib: u64,
    users: BTreeMap<u32, String>,
}

impl Engine {
    /// A container's processes, as `ps` would list them.
    ///
    /// # Errors
    /// `Conflict` when it does not run or is restarting; `Invalid` for columns that are not known.
    pub async fn container_top(&self, asked: &str, ps_args: &str) -> Result<Top> {
        let container = self.container(asked)?;
        let view = container.now();
        if matches!(view.phase, Phase::Backoff { .. }) {
            return Err(words::is_restarting(container.id));
        }
        if view.phase.run().is_none() {
            return Err(words::not_running(container.id));
        }
        let columns = columns(ps_args)?;
        let group = cgroups::cgroup(&self.inner, &view.record);
        let top = blocking(move || -> std::io::Result<Top> {
            let moment = Moment::now();
            let pids = group.processes()?;
            let processes = pids.iter().filter_map(|pid| read(pid.as_raw_nonzero().get()));
            let rows = processes.map(|process| {
                columns.iter().map(|column| column.value(&process, &moment)).collect()
            });
            let titles = columns.iter().map(|column| column.title.to_owned()).collect();
            Ok(Top { titles, processes: rows.collect() })
        })
        .await
        .map_err(|source| {
            Error::because(Kind::Internal, "cannot list the container's processes", source)
        })?;
        events::publish(&self.inner, &view.record, "top", &[]);
        Ok(top)
    }

    /// One sample; zeros for a container that does not run.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn container_stats(&self, asked: &str) -> Result<Stats> {
        let view = self.container(asked)?.now();
        let mut stats = Stats {
            id: view.record.id.to_string(),
            name: view.record.name.clone(),
            cgroup_version: if self.inner.host.cgroup_v2 { 2 } else { 1 },
            ..Stats::default()
        };
        if view.phase.run().is_none() {
            return Ok(stats);
        }
        let engine = Arc::clone(&self.inner);
        Ok(blocking(move || {
            let group = cgroups::cgroup(&engine, &view.record);
            stats.read_at = Some(SystemTime::now());
            // One that ended this instant shows zeros, like any that does not run.
            if let Ok(found) = group.stats() {
                fill(&mut stats, &found);
            }
            stats.networks = interfaces(&view);
            stats
        })
        .await)
    }
}

fn fill(stats: &mut Stats, found: &sys::cgroup::Stats) {
    let host_memory = meminfo("MemTotal") * 1024;
    stats.cpu = CpuStats {
        total: found.cpu.total_ns,
        user: found.cpu.user_ns,
        kernel: found.cpu.system_ns,
        system: system_cpu(),
        online: u32::try_from(
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        )
        .unwrap_or(1),
        per_cpu: found.cpu.per_cpu_ns.clone(),
        periods: found.cpu.throttling.periods,
        throttled_periods: found.cpu.throttling.throttled_periods,
        throttled: found.cpu.throttling.throttled_ns,
    };
    stats.memory = MemoryStats {
        usage: found.memory.usage,
        usage_max: found.memory.usage_max,
        limit: found.memory.limit.map_or(host_memory, |limit| limit.min(host_memory)),
        fail_count: found.memory.failures,
        details: found.memory.detail.clone(),
    };
    stats.pids = PidsStats { current: found.pids.current, limit: found.pids.limit.unwrap_or(0) };
    let convert = |entry: &sys::cgroup::BlockIoEntry| BlockIoStat {
        major: entry.major,
        minor: entry.minor,
        operation: entry.operation.clone(),
        bytes: entry.value,
    };
    stats.block_io = found.block_io.bytes.iter().map(convert).collect();
}

/// All CPUs' time since boot in nanoseconds: the first line of /proc/stat, without guests, which
/// are counted in user time.
fn system_cpu() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text.lines().next().unwrap_or("").split_whitespace().skip(1).take(8);
    ticks.filter_map(|word| word.parse::<u64>().ok()).sum::<u64>() * (1_000_000_000 / TICKS)
}

fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The counters of the network namespace that a process is in: /proc/PID/net/dev, proc(5).
fn interfaces(view: &View) -> BTreeMap<String, InterfaceStats> {
    let process = view.supervised.as_ref().and_then(|run| run.process());
    let text = process.and_then(|process| process.read("net/dev").ok()).unwrap_or_default();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> =
            rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let name = name.trim();
        if let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers[..]
            && name != "lo"
        {
            let stats = InterfaceStats {
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
            };
            found.insert(name.to_owned(), stats);
        }
    }
    found
}

/// Reads a process; `None` when it has ended.
fn read(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may hold blanks and parentheses, so it ends at the last one.
    let (head, rest) = stat.rsplit_once(')')?;
    let comm = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number =
        |field: usize| fields.get(field).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let id = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    };
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let args = words.join(" ").trim_end().to_owned();
    Some(Process {
        pid,
        ppid: fields.get(1)?.parse().ok()?,
        uid: id("Uid:"),
        gid: id("Gid:"),
        args: if args.is_empty() { format!("[{comm}]") } else { args },
        comm,
        state: (*fields.first()?).to_owned(),
        tty: number(4),
        cpu: number(11) + number(12),
        start: number(19),
        threads: number(17),
        vsz: number(20),
        rss: number(21),
    })
}

/// A column: what `-o` calls it, its title, and how it is shown.
#[derive(Debug, Clone)]
struct Column {
    key: &'static str,
    title: String,
}

const KNOWN: &[(&str, &str)] = &[
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("uid", "UID"),
    ("user", "USER"),
    ("gid", "GID"),
    ("comm", "COMMAND"),
    ("cmd", "CMD"),
    ("args", "COMMAND"),
    ("command", "COMMAND"),
    ("stime", "STIME"),
    ("start", "START"),
    ("start_time", "START"),
    ("time", "TIME"),
    ("cputime", "TIME"),
    ("etime", "ELAPSED"),
    ("tty", "TT"),
    ("tt", "TT"),
    ("tname", "TTY"),
    ("stat", "STAT"),
    ("s", "S"),
    ("state", "S"),
    ("pcpu", "%CPU"),
    ("%cpu", "%CPU"),
    ("pmem", "%MEM"),
    ("%mem", "%MEM"),
    ("vsz", "VSZ"),
    ("rss", "RSS"),
    ("c", "C"),
    ("nlwp", "NLWP"),
];

/// Reads the arguments of `ps` that are in use: none or `-ef`, `aux`, and `-o`/`-eo` lists.
fn columns(ps_args: &str) -> Result<Vec<Column>> {
    let list = |pairs: &[(&'static str, &str)]| {
        pairs.iter().map(|(key, title)| Column { key, title: (*title).to_owned() }).collect()
    };
    let words: Vec<&str> = ps_args.split_whitespace().collect();
    let wish = words.iter().position(|word| {
        word.starts_with('-') && word.ends_with('o') || *word == "o" || *word == "axo"
    });
    if let Some(at) = wish {
        let keys = words[at + 1..].iter().flat_map(|word| word.split(','));
        return keys.filter(|key| !key.is_empty()).map(column).collect();
    }
    match ps_args.trim().trim_start_matches('-') {
        "" | "ef" | "e" | "A" | "f" => Ok(list(&[
            ("uid", "UID"),
            ("pid", "PID"),
            ("ppid", "PPID"),
            ("c", "C"),
            ("stime", "STIME"),
            ("tname", "TTY"),
            ("time", "TIME"),
            ("cmd", "CMD"),
        ])),
        "aux" | "au" | "ax" | "x" => Ok(list(&[
            ("user", "USER"),
            ("pid", "PID"),
            ("pcpu", "%CPU"),
            ("pmem", "%MEM"),
            ("vsz", "VSZ"),
            ("rss", "RSS"),
            ("tname", "TTY"),
            ("stat", "STAT"),
            ("stime", "START"),
            ("time", "TIME"),
            ("args", "COMMAND"),
        ])),
        other => Err(Error::invalid(format!("ps: unsupported arguments: {other}"))),
    }
}

fn column(wish: &str) -> Result<Column> {
    let (key, title) = wish.split_once('=').map_or((wish, None), |(key, title)| (key, Some(title)));
    let found = KNOWN.iter().find(|(known, _)| *known == key);
    let (key, default) = found.ok_or_else(|| {
        Error::invalid(format!("ps: error: unknown user-defined format specifier \"{key}\""))
    })?;
    Ok(Column { key, title: title.unwrap_or(default).to_owned() })
}

impl Column {
    fn value(&self, process: &Process, moment: &Moment) -> String {
        let name = |uid: u32| moment.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string());
        #[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
        let seconds = |ticks: u64| ticks as f64 / TICKS as f64;
        let age = (moment.uptime - seconds(process.start)).max(0.01);
        let percent = seconds(process.cpu) * 100.0 / age;
        match self.key {
            "pid" => process.pid.to_string(),
            "ppid" => process.ppid.to_string(),
            // ps -f shows names in its UID column.
            "uid" if self.title == "UID" => name(process.uid),
            "uid" => process.uid.to_string(),
            "user" => name(process.uid),
            "gid" => process.gid.to_string(),
            "comm" => process.comm.clone(),
            "cmd" | "args" | "command" => process.args.clone(),
            "stime" | "start" | "start_time" => moment.clock(age),
            "time" | "cputime" => clock(process.cpu / TICKS),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a positive age in seconds"
            )]
            "etime" => clock(age as u64),
            "tty" | "tt" | "tname" => tty(process.tty),
            "stat" | "s" | "state" => process.state.clone(),
            "pcpu" | "%cpu" => format!("{percent:.1}"),
            #[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
            "pmem" | "%mem" => {
                let kib = process.rss * rustix::param::page_size() as u64 / 1024;
                format!("{:.1}", kib as f64 * 100.0 / moment.memory_kib.max(1) as f64)
            }
            "vsz" => (process.vsz / 1024).to_string(),
            "rss" => (process.rss * rustix::param::page_size() as u64 / 1024).to_string(),
            "c" => format!("{percent:.0}"),
            "nlwp" => process.threads.to_string(),
            _ => String::new(),
        }
    }
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Device numbers as in proc(5): minor in bits 31-20 and 7-0, major in 15-8; 136 to 143 are the
/// pseudo-terminals.
fn tty(number: u64) -> String {
    let (major, minor) = (number >> 8 & 0xfff, (number & 0xff) | (number >> 12 & 0xfff00));
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

impl Moment {
    fn now() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
        };
        let users = passwd.lines().filter_map(user).collect();
        Self { uptime, now: jiff::Zoned::now(), memory_kib: meminfo("MemTotal"), users }
    }

    /// When something that old began: the time of today, else the date.
    fn clock(&self, age: f64) -> String {
        #[expect(clippy::cast_possible_truncation, reason = "an age in seconds")]
        let began = self.now.checked_sub(jiff::SignedDuration::from_secs(age as i64));
        let Ok(began) = began else { return "?".to_owned() };
        let format = if began.date() == self.now.date() { "%H:%M" } else { "%b%d" };
        began.strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_arguments_of_ps_are_understood() {
        let check = |args: &str, want: &str| {
            let titles = columns(args).map(|found| {
                found.iter().map(|column| column.title.clone()).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(titles.unwrap_or_else(|error| error.message), want, "{args}");
        };
        check("", "UID PID PPID C STIME TTY TIME CMD");
        check("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
        check("-eo pid,comm", "PID COMMAND");
        check("-o pid=ID,args", "ID COMMAND");
        check("-o nope", "ps: error: unknown user-defined format specifier \"nope\"");
        check("--forest", "ps: unsupported arguments: forest");
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let process = read(pid).unwrap();
        assert_eq!(process.pid, pid);
        assert!(process.threads >= 1);
    }
}
