//! A launcher that becomes the supervisor of a container: one thread, one loop.
//!
//! ```text
//! Waiting ──Launch──▶ Running ──exit──▶ Draining ──streams ended, or 2 s──▶ Told ──▶ Leaving ──▶ gone
//!    │     rights are                   exit record, event     the daemon has
//!    │     given up                                            hung up, or 5 s
//!    ├─ Enter ─▶ an exec is waited for: [`crate::launcher::enter`]
//!    └─ start failed, or the daemon died before Launch ─▶ Leaving
//! ```
//!
//! While Told, clients' streams stay open: whoever sees one end and asks the daemon finds the end
//! recorded, for a daemon hangs up once it has. While Leaving, clients get the rest of the output,
//! for as long as they keep reading it.
//!
//! From Running on the process is confined ([`crate::confine`]): it sees its own two directories and the
//! zones, and has no right to signal, to enter or to remove anything. What is left of a container when
//! it has ended (its control group, processes that outlived the first one) is the daemon's to remove.
//!
//! Always true: losing control connections changes nothing once the container runs; signals end
//! nothing here but zombies; one slow client holds back its own process only.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use runtime::OomWatch;
use sys::epoll::{Interest, Poller, Ready};
use sys::process::{Exit, Pid};

mod attached;
pub(crate) mod container;
mod control;
mod launch;
pub mod process;
mod requests;
mod streams;
pub mod watch;

use self::attached::Attached;
use self::control::Control;
use self::process::Process;
use self::watch::{Kind, source, token};
use crate::client::SOCKET_NAME;
use crate::complaints::complain;
use crate::exit::{self, ExitRecord};
use crate::launcher::Heirloom;
use crate::launcher::enter::Entered;
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

struct Monitor<'a> {
    heirloom: &'a Heirloom,
    /// Of the container that was launched.
    settings: Option<MonitorSettings>,
    bundle: PathBuf,
    /// The exec that was started instead.
    entered: Option<Entered>,
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
    oom: Option<OomWatch>,
    oom_killed: bool,
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

/// Serves the daemon at the other end of `control`, until what it asked for is over.
pub(crate) fn serve(control: OwnedFd, heirloom: &Heirloom) -> Result<(), String> {
    let mut monitor = Monitor::open(control, heirloom)?;
    monitor.run()?;
    match monitor.entered.take() {
        None => Ok(()),
        Some(entered) => {
            // Its descriptors are of no use any more.
            drop(monitor);
            entered.wait(heirloom)
        }
    }
}

impl Monitor<'_> {
    fn open(control: OwnedFd, heirloom: &Heirloom) -> Result<Monitor<'_>, String> {
        let said = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let signals = sys::epoll::signals(&[
            libc_signal::HUP,
            libc_signal::INT,
            libc_signal::QUIT,
            libc_signal::TERM,
            libc_signal::CHLD,
            libc_signal::WINCH,
        ])
        .map_err(said("cannot block signals"))?;
        let poller = Poller::new().map_err(said("cannot make an epoll set"))?;
        poller
            .add(&signals, token(Kind::Signals, 0), Interest::Read)
            .map_err(said("cannot watch signals"))?;
        let mut monitor = Monitor {
            heirloom,
            proxy: Proxy::new(),
            settings: None,
            bundle: PathBuf::new(),
            entered: None,
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
            oom: None,
            oom_killed: false,
            resolver: None,
            scratch: vec![0; SCRATCH_BYTES],
        };
        monitor.add_control(control).map_err(said("cannot watch the control connection"))?;
        let own = sys::process::open_process(rustix::process::getpid())
            .map_err(said("cannot open a handle on itself"))?;
        monitor.push(&Event::Ready, &[own.as_fd()]);
        Ok(monitor)
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
            Kind::Exit => self.exec_status(id),
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
            // Execs are children of their launchers.
            let main = self.processes.get(&MAIN);
            if main.is_some_and(|main| main.pid == pid && main.exit.is_none()) {
                self.main_ended(exit);
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

    /// Ends the container's affairs: log and record; then tells of it.
    fn finish(&mut self) {
        let Phase::Draining { pid, started_at, finished_at, exit, .. } = self.phase else { return };
        let Some(settings) = self.settings.clone() else { return };
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
        let record = ExitRecord {
            version: exit::VERSION,
            container: settings.container,
            pid: pid.as_raw_nonzero().get(),
            exit_code: exit.code(),
            signal: match exit {
                Exit::Code(_) => None,
                Exit::Signal { signal, .. } => Some(signal),
            },
            oom_killed: self.oom_killed,
            started_at,
            finished_at,
            error: None,
        };
        if let Err(error) = record.write(&settings.exit_record, settings.durability) {
            complain!("{}", spec::chain(&error));
        }
        self.push(&Event::Exited(record), &[]);
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
        if self.entered.is_some() {
            return !self.controls.values().any(Control::is_behind);
        }
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
            self.push(&Event::Oom, &[]);
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

const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();

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

fn listen(bundle: &Path) -> io::Result<UnixListener> {
    let path = bundle.join(SOCKET_NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    sys::socket::listen(&path, 0o600)
}
