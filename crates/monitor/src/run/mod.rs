//! The process `tug monitor DIR`: one thread, one loop.
//!
//! ```text
//! Waiting ──Start──▶ Running ──exit──▶ Draining ──streams ended, or 2 s──▶ Told ──▶ Leaving ──▶ gone
//!    │                                 exit record, control   the daemon has
//!    │                                 group removed, events  hung up, or 5 s
//!    └─ start failed, or the daemon died before Start ─▶ Leaving
//! ```
//!
//! While Told, clients' streams stay open: whoever sees one end and asks the daemon finds the end
//! recorded, for a daemon hangs up once it has. While Leaving, clients get the rest of the output,
//! for as long as they keep reading it.
//!
//! Always true: losing control connections changes nothing once the container runs; signals end
//! nothing here but zombies; one slow client holds back its own process only.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use runtime::OomWatch;
use sys::epoll::{Interest, Poller, Ready};
use sys::process::{Exit, Pid};

mod attached;
mod container;
mod control;
pub mod process;
mod requests;
mod streams;
pub mod watch;

use self::attached::Attached;
use self::container::Container;
use self::control::Control;
use self::process::Process;
use self::watch::{Kind, source, token};
use crate::client::SOCKET_NAME;
use crate::exit::{self, ExitRecord};
use crate::logs::LogWriter;
use crate::proxy::Proxy;
use crate::resolver::Resolver;
use crate::settings::MonitorSettings;
use crate::wire::{Event, ExecState, Target};

/// How long streams may stay open after their process has ended: moby `daemon/monitor.go`.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How long a daemon may take to record the end before clients are let go without it.
const TOLD_MAX: Duration = Duration::from_secs(5);

/// How long a client may read nothing while the monitor waits to leave.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// Read at once from a pipe, a terminal or a client.
const SCRATCH_BYTES: usize = 64 << 10;

/// Ended execs that are remembered; health checks alone make thousands a day.
const FINISHED_MAX: usize = 500;

/// The first process's id in [`Monitor::processes`].
const MAIN: u32 = 0;

struct Monitor {
    settings: MonitorSettings,
    bundle: PathBuf,
    poller: Poller,
    phase: Phase,
    listener: Option<UnixListener>,
    signals: OwnedFd,
    controls: BTreeMap<u32, Control>,
    clients: BTreeMap<u32, Attached>,
    processes: BTreeMap<u32, Process>,
    /// Execs that ended, for a daemon that missed it.
    finished: VecDeque<ExecState>,
    /// Given to connections, clients and processes; never twice.
    next_id: u32,
    log: Option<LogWriter>,
    container: Option<Container>,
    oom: Option<OomWatch>,
    oom_killed: bool,
    netns: Option<OwnedFd>,
    resolver: Option<Resolver>,
    proxy: Proxy,
    scratch: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running {
        pid: Pid,
        started_at: Timestamp,
    },
    Draining {
        pid: Pid,
        started_at: Timestamp,
        finished_at: Timestamp,
        exit: Exit,
        until: Instant,
    },
    /// The daemon knows of the end, and has yet to record it.
    Told {
        until: Instant,
    },
    Leaving {
        until: Instant,
    },
}

/// The monitor process; `args` are what follows the word `monitor`. Its stdin is the control
/// connection of whoever spawned it.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Monitor::open(args).and_then(|mut monitor| monitor.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

impl Monitor {
    fn open(args: impl IntoIterator<Item = OsString>) -> Result<Monitor, String> {
        let (bundle, cgroup) = parse(args)?;
        let said = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        // Fails only for the leader of a group, who has left its terminal's session already.
        let _leader = rustix::process::setsid();
        // What the daemon's directory is on may be unmounted while we live.
        rustix::process::chdir("/").map_err(|error| said("cannot go to /")(error.into()))?;
        if let Some(cgroup) = cgroup
            && let Err(error) = std::fs::write(cgroup.join("cgroup.procs"), "0")
        {
            eprintln!("cannot move to the monitors' control group {cgroup:?}: {error}");
        }
        let control = take_stdin().map_err(said("cannot take the control connection"))?;
        let signals = sys::epoll::signals(&[
            libc_signal::HUP,
            libc_signal::INT,
            libc_signal::QUIT,
            libc_signal::TERM,
            libc_signal::CHLD,
            libc_signal::WINCH,
        ])
        .map_err(said("cannot block signals"))?;
        sys::process::set_subreaper().map_err(said("cannot become a reaper"))?;
        let settings = MonitorSettings::read(&bundle).map_err(|error| chain(&error))?;
        let poller = Poller::new().map_err(said("cannot make an epoll set"))?;
        let listener = listen(&bundle).map_err(said("cannot listen on the control socket"))?;
        let mut monitor = Monitor {
            proxy: Proxy::new(),
            settings,
            bundle,
            poller,
            phase: Phase::Waiting,
            listener: None,
            signals,
            controls: BTreeMap::new(),
            clients: BTreeMap::new(),
            processes: BTreeMap::new(),
            finished: VecDeque::new(),
            next_id: MAIN + 1,
            log: None,
            container: None,
            oom: None,
            oom_killed: false,
            netns: None,
            resolver: None,
            scratch: vec![0; SCRATCH_BYTES],
        };
        monitor
            .watch_all(listener, control)
            .map_err(said("cannot watch the control connection"))?;
        Ok(monitor)
    }

    fn watch_all(&mut self, listener: UnixListener, control: OwnedFd) -> io::Result<()> {
        self.poller.add(&self.signals, token(Kind::Signals, 0), Interest::Read)?;
        self.poller.add(&listener, token(Kind::Listener, 0), Interest::Read)?;
        self.listener = Some(listener);
        self.add_control(control)
    }

    fn run(&mut self) -> Result<(), String> {
        let mut ready = Vec::new();
        while !self.has_left() {
            let timeout = self.timeout();
            self.poller
                .wait(&mut ready, timeout)
                .map_err(|error| format!("cannot wait for events: {error}"))?;
            for &news in &ready {
                self.handle(news);
            }
            self.tick();
        }
        Ok(())
    }

    /// Until when nothing needs doing, if nothing happens.
    fn timeout(&mut self) -> Option<Duration> {
        let idle = self.log.as_mut().is_none_or(|log| !log.work());
        if !idle {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let phase = match self.phase {
            Phase::Waiting | Phase::Running { .. } => None,
            Phase::Draining { until, .. } | Phase::Told { until } | Phase::Leaving { until } => {
                Some(until)
            }
        };
        [
            phase,
            self.resolver.as_ref().and_then(Resolver::deadline),
            self.proxy.deadline(),
            self.exec_deadline(),
            self.log.as_ref().and_then(|log| Some(now + log.retry_after()?)),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|until| until.saturating_duration_since(now) + Duration::from_millis(1))
    }

    fn handle(&mut self, news: Ready) {
        let Some((kind, id)) = source(news.token) else { return };
        match kind {
            Kind::Listener => self.accept(),
            Kind::Signals => {
                sys::epoll::drain(&self.signals);
                self.reap();
            }
            Kind::Oom => self.look_for_oom(),
            Kind::Stdout => self.output(id, crate::logs::Stream::Stdout),
            Kind::Stderr => self.output(id, crate::logs::Stream::Stderr),
            Kind::Stdin => self.stdin_ready(id),
            Kind::Client => self.client(id, news),
            Kind::Control => self.control(id, news),
            Kind::Resolver => {
                if let Some(resolver) = &mut self.resolver {
                    resolver.handle(id, news, &self.poller, &mut self.scratch);
                }
            }
            Kind::Proxy => self.proxy.handle(id, news, &self.poller, &mut self.scratch),
        }
    }

    /// What is due by time.
    fn tick(&mut self) {
        let now = Instant::now();
        if let Some(resolver) = &mut self.resolver {
            resolver.tick(now, &self.poller);
        }
        self.proxy.tick(now, &self.poller);
        self.end_execs(now);
        if let Phase::Draining { until, .. } = self.phase {
            let ended = self.processes.get(&MAIN).is_none_or(|main| !main.has_output());
            if ended || now >= until {
                self.finish();
            }
        }
        self.leave_if_settled(now);
    }

    /// Reaps every child that ended: our processes, and orphans that became ours.
    fn reap(&mut self) {
        use rustix::process::{WaitOptions, wait};
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal { signal, core_dumped: false },
                (None, None) => continue,
            };
            let known = self
                .processes
                .values()
                .find(|process| process.pid == pid && process.exit.is_none())
                .map(|process| process.id);
            match known {
                Some(MAIN) => self.main_ended(exit),
                Some(id) => self.exec_ended(id, exit),
                None => {}
            }
        }
    }

    fn main_ended(&mut self, exit: Exit) {
        let Phase::Running { pid, started_at } = self.phase else { return };
        let until = Instant::now() + DRAIN_MAX;
        let finished_at = Timestamp::now();
        self.phase = Phase::Draining { pid, started_at, finished_at, exit, until };
        if let Some(main) = self.processes.get_mut(&MAIN) {
            main.exit = Some(exit);
        }
        // A dead process is read whether or not a client is slow: its pipes hold little.
        self.watch_process(MAIN);
    }

    /// Ends the container's affairs: log, record, control group; then tells of it.
    fn finish(&mut self) {
        let Phase::Draining { pid, started_at, finished_at, exit, .. } = self.phase else { return };
        for stream in [crate::logs::Stream::Stdout, crate::logs::Stream::Stderr] {
            self.close_output(MAIN, stream);
        }
        if let Some(log) = &mut self.log {
            log.finish_writing();
            log.abandon_work();
        }
        self.look_for_oom();
        // The next run's monitor uses the same names, and may come as soon as the exit is told.
        self.unlisten();
        self.stop_services();
        let error = self.container.take().and_then(|container| container.remove().err());
        let record = ExitRecord {
            version: exit::VERSION,
            container: self.settings.container,
            pid: pid.as_raw_nonzero().get(),
            exit_code: exit.code(),
            signal: match exit {
                Exit::Code(_) => None,
                Exit::Signal { signal, .. } => Some(signal),
            },
            oom_killed: self.oom_killed,
            started_at,
            finished_at,
            error,
        };
        if let Err(error) = record.write(&self.settings.exit_record, self.settings.durability) {
            eprintln!("{}", chain(&error));
        }
        self.tell(&Event::Exited(record));
        self.phase = Phase::Told { until: Instant::now() + TOLD_MAX };
        self.leave_if_settled(Instant::now());
    }

    /// Goes on once no daemon is there that has yet to record the end.
    fn leave_if_settled(&mut self, now: Instant) {
        if let Phase::Told { until } = self.phase
            && (self.controls.is_empty() || now >= until)
        {
            self.leave();
        }
    }

    /// Lets go of every client as it has read everything, then of the world.
    fn leave(&mut self) {
        let ids: Vec<u32> = self.clients.keys().copied().collect();
        self.phase = Phase::Leaving { until: Instant::now() + LINGER_MAX };
        for id in ids {
            self.finish_client(id);
        }
    }

    fn has_left(&self) -> bool {
        match self.phase {
            Phase::Waiting => self.controls.is_empty(),
            Phase::Running { .. } | Phase::Draining { .. } | Phase::Told { .. } => false,
            Phase::Leaving { until } => {
                let waiting =
                    !self.clients.is_empty() || self.controls.values().any(Control::is_behind);
                !waiting || Instant::now() >= until
            }
        }
    }

    fn stop_services(&mut self) {
        self.resolver = None;
        self.proxy = Proxy::new();
        self.netns = None;
    }

    fn unlisten(&mut self) {
        if self.listener.take().is_some() {
            // Gone already when the daemon removed the directory.
            let _gone = std::fs::remove_file(self.bundle.join(SOCKET_NAME));
        }
    }

    fn look_for_oom(&mut self) {
        let kills = self.oom.as_mut().map_or(0, |oom| oom.take().unwrap_or(0));
        if kills > 0 {
            self.oom_killed = true;
            self.tell(&Event::Oom);
        }
    }

    fn exec_state(&self) -> Vec<ExecState> {
        let running = self.processes.values().filter_map(|process| match process.target {
            Target::Main => None,
            Target::Exec(exec) => {
                Some(ExecState { exec, pid: process.pid.as_raw_nonzero().get(), exit_code: None })
                    .filter(|_| process.exit.is_none())
            }
        });
        running.chain(self.finished.iter().copied()).collect()
    }

    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The process that `target` names, as long as its streams or itself are there.
    fn find(&self, target: Target) -> Option<u32> {
        self.processes.values().find(|process| process.target == target).map(|process| process.id)
    }
}

/// Signal numbers, the same on every architecture that Linux calls asm-generic.
mod libc_signal {
    use rustix::process::Signal;

    pub const HUP: i32 = Signal::HUP.as_raw();
    pub const INT: i32 = Signal::INT.as_raw();
    pub const QUIT: i32 = Signal::QUIT.as_raw();
    pub const TERM: i32 = Signal::TERM.as_raw();
    pub const CHLD: i32 = Signal::CHILD.as_raw();
    pub const WINCH: i32 = Signal::WINCH.as_raw();
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(PathBuf, Option<PathBuf>), String> {
    let usage = || "usage: tug monitor DIRECTORY [--cgroup PATH]".to_owned();
    let mut args = args.into_iter();
    let bundle = args.next().ok_or_else(usage)?.into();
    let cgroup = match args.next() {
        None => None,
        Some(flag) if flag == "--cgroup" => Some(args.next().ok_or_else(usage)?.into()),
        Some(_) => return Err(usage()),
    };
    if args.next().is_some() {
        return Err(usage());
    }
    Ok((bundle, cgroup))
}

/// Moves stdin elsewhere, with /dev/null in its place, so that nothing is ever read from it.
fn take_stdin() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control)
}

fn listen(bundle: &Path) -> io::Result<UnixListener> {
    let path = bundle.join(SOCKET_NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    sys::socket::listen(&path, 0o600)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
