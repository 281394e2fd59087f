//! Carrying out what the daemon asks for.

use std::os::fd::{AsFd, OwnedFd};

use jiff::Timestamp;
use spec::runtime::ConsoleSize;
use sys::epoll::{Interest, Ready};
use sys::process::Exit;

use super::attached::Attached;
use super::container::{self, Failure, Started};
use super::control::Control;
use super::process::{self, OurEnds, Process};
use super::watch::{Kind, token};
use super::{MAIN, Monitor, Phase};
use crate::logs::{LogWriter, Stream};
use crate::resolver::Resolver;
use crate::wire::{
    Asked, AttachOptions, Event, ExecRequest, ExecState, Request, Running, State, Target,
};

impl Monitor {
    pub(super) fn add_control(&mut self, socket: OwnedFd) -> std::io::Result<()> {
        let id = self.take_id();
        self.controls.insert(id, Control::new(socket, id, &self.poller)?);
        Ok(())
    }

    /// A daemon connects; there may be several.
    pub(super) fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok((stream, _)) = listener.accept() else { return };
        if let Err(error) = self.add_control(stream.into()) {
            eprintln!("cannot take a control connection: {error}");
        }
    }

    /// A control connection has requests, or takes more events, or closed.
    pub(super) fn control(&mut self, id: u32, news: Ready) {
        let Some(control) = self.controls.get_mut(&id) else { return };
        let mut closed = news.writable && control.flush(&self.poller).is_err();
        if news.readable || news.hung_up {
            let (asked, end) = control.receive();
            closed |= end.is_err();
            for request in asked {
                self.answer(id, request);
            }
        }
        if closed && let Some(control) = self.controls.remove(&id) {
            control.close(&self.poller);
        }
    }

    /// Pushes an event to everybody.
    pub(super) fn tell(&mut self, event: &Event) {
        let closed: Vec<u32> = self
            .controls
            .iter_mut()
            .filter_map(|(&id, control)| control.send(None, event, &self.poller).err().map(|_| id))
            .collect();
        for id in closed {
            if let Some(control) = self.controls.remove(&id) {
                control.close(&self.poller);
            }
        }
    }

    /// Answers one request. A broken connection is noticed when it is read next.
    fn reply(&mut self, id: u32, seq: u64, event: &Event) {
        if let Some(control) = self.controls.get_mut(&id) {
            let _closed = control.send(Some(seq), event, &self.poller);
        }
    }

    fn answer(&mut self, id: u32, asked: Asked) {
        let Asked { seq, request, mut fds } = asked;
        let event = match request {
            Request::Start { netns, attach } => {
                let netns = if netns { Some(fds.remove(0)) } else { None };
                self.start(netns, attach.into_iter().zip(fds).collect())
            }
            Request::Publish { ports } => done(self.publish(&ports, fds)),
            Request::Unpublish { to } => {
                self.proxy.unpublish(&to, &self.poller);
                Event::Done
            }
            Request::Resolve => done(self.resolve()),
            Request::Attach { target, options } => done(self.attach(target, options, fds)),
            Request::Exec(exec) => self.exec(&exec, fds.pop()),
            Request::Resize { target, size } => done(self.resize(target, size)),
            Request::Signal { target, signal } => done(self.signal(target, signal)),
            Request::CloseStdin { target } => done(self.close_stdin(target)),
            Request::State => Event::State(self.state()),
            Request::Unknown => done(Err("this monitor is too old for what is asked".to_owned())),
        };
        self.reply(id, seq, &event);
        // Whoever asks for the exit code when the stream ends must find it told already.
        self.finish_orphans();
        if matches!(event, Event::StartFailed { .. }) {
            self.unlisten();
            self.stop_services();
            if let Some(Err(error)) = self.container.take().map(container::Container::remove) {
                eprintln!("{error}");
            }
            self.leave();
        }
    }

    /// Lets go of clients whose process did not come to be.
    fn finish_orphans(&mut self) {
        if self.phase == Phase::Waiting {
            return;
        }
        let orphans: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, client)| !client.closing && !self.processes.contains_key(&client.process))
            .map(|(&id, _)| id)
            .collect();
        for id in orphans {
            self.finish_client(id);
        }
    }

    fn start(&mut self, netns: Option<OwnedFd>, attach: Vec<(AttachOptions, OwnedFd)>) -> Event {
        if self.phase != Phase::Waiting {
            return Event::Failed { message: "the container was started already".to_owned() };
        }
        self.netns = netns;
        for (options, socket) in attach {
            self.add_client(MAIN, options, socket);
        }
        match self.launch() {
            Ok(started) => started,
            Err(Failure { exit_code, message }) => Event::StartFailed { exit_code, message },
        }
    }

    fn launch(&mut self) -> Result<Event, Failure> {
        let other = |message: String| Failure { exit_code: 128, message };
        let log = LogWriter::open(&self.settings.log)
            // Source of the words: moby `container/container.go`, `StartLogger`'s callers.
            .map_err(|error| {
                other(format!("failed to initialize logging driver: {}", super::chain(&error)))
            })?;
        self.log = Some(log);
        if self.settings.resolver.as_ref().is_some_and(|path| path.exists()) {
            self.resolve().map_err(other)?;
        }
        let (ours, theirs) = if self.settings.tty {
            (OurEnds::default(), None)
        } else {
            let (ours, theirs) = process::pipes(self.settings.open_stdin)
                .map_err(|error| other(format!("cannot make pipes: {error}")))?;
            (ours, Some(theirs))
        };
        let netns = self.netns.as_ref().map(AsFd::as_fd);
        let (container, started) =
            container::start(&self.settings, &self.bundle, netns, theirs.as_ref())?;
        drop(theirs);
        let started_at = Timestamp::now();
        self.oom = container.watch_oom();
        if let Some(oom) = &self.oom
            && let Err(error) = self.poller.add(oom, token(Kind::Oom, 0), Interest::Read)
        {
            eprintln!("cannot watch for want of memory: {error}");
        }
        self.container = Some(container);
        let pid = started.pid;
        let mut main = self.process(MAIN, Target::Main, started, ours)?;
        main.stdin_once = self.settings.stdin_once;
        if !self.settings.open_stdin {
            // A terminal's input is nobody's then.
            self.clients.values_mut().for_each(Attached::end_stdin);
        }
        self.processes.insert(MAIN, main);
        self.phase = Phase::Running { pid, started_at };
        let clients: Vec<u32> = self.clients.keys().copied().collect();
        for client in clients {
            self.prelude(client);
        }
        self.watch_process(MAIN);
        Ok(Event::Started { pid: pid.as_raw_nonzero().get(), started_at })
    }

    fn process(
        &self,
        id: u32,
        target: Target,
        started: Started,
        ours: OurEnds,
    ) -> Result<Process, Failure> {
        let Started { pid, pidfd, terminal } = started;
        match terminal {
            None => Ok(Process::new(id, target, pid, Some(pidfd), ours)),
            Some(master) => {
                Process::with_terminal(id, target, pid, Some(pidfd), master).map_err(|error| {
                    Failure {
                        exit_code: 128,
                        message: format!("cannot keep the terminal: {error}"),
                    }
                })
            }
        }
    }

    fn add_client(&mut self, process: u32, options: AttachOptions, socket: OwnedFd) -> u32 {
        let id = self.take_id();
        self.clients.insert(id, Attached::new(socket, id, process, options));
        id
    }

    fn publish(
        &mut self,
        ports: &[crate::settings::ProxyPort],
        sockets: Vec<OwnedFd>,
    ) -> Result<(), String> {
        for (port, socket) in ports.iter().zip(sockets) {
            self.proxy
                .publish(*port, socket, &self.poller)
                .map_err(|error| format!("cannot forward to {}: {error}", port.to))?;
        }
        Ok(())
    }

    fn resolve(&mut self) -> Result<(), String> {
        let (Some(settings), Some(netns)) = (&self.settings.resolver, &self.netns) else {
            return Err("the container has no network of its own".to_owned());
        };
        if self.resolver.is_none() {
            let netns = netns.try_clone().map_err(|error| error.to_string())?;
            let resolver = Resolver::open(settings, netns, &self.poller)
                .map_err(|error| super::chain(&error))?;
            self.resolver = Some(resolver);
        }
        Ok(())
    }

    fn attach(
        &mut self,
        target: Target,
        options: AttachOptions,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        if matches!(self.phase, Phase::Told { .. } | Phase::Leaving { .. }) {
            return Err("the process has ended".to_owned());
        }
        let process = self.find(target).ok_or("the process has ended")?;
        let socket = fds.pop().ok_or("no socket came with the request")?;
        let client = self.add_client(process, options, socket);
        let takes_stdin = self.processes.get(&process).is_some_and(Process::has_stdin);
        if !takes_stdin && let Some(client) = self.clients.get_mut(&client) {
            client.end_stdin();
        }
        self.prelude(client);
        self.watch_process(process);
        Ok(())
    }

    fn exec(&mut self, exec: &ExecRequest, socket: Option<OwnedFd>) -> Event {
        match self.start_exec(exec, &socket) {
            Ok((id, pid)) => {
                if let (Some(options), Some(socket)) = (exec.attach.clone(), socket) {
                    let client = self.add_client(id, options, socket);
                    self.prelude(client);
                }
                self.watch_process(id);
                Event::ExecStarted { exec: exec.exec, pid }
            }
            Err(Failure { exit_code, message }) => {
                let state = ExecState { exec: exec.exec, pid: 0, exit_code: Some(exit_code) };
                self.remember_exec(state);
                if let (Some(options), Some(socket)) = (exec.attach.clone(), socket) {
                    // The client's answer was a good one already, so the stream says what failed:
                    // moby `daemon/exec.go` and the router's `postContainerExecStart`.
                    let id = self.take_id();
                    let mut client = Attached::new(socket, id, id, options);
                    let _gone = client.push(Stream::Stdout, format!("{message}\r\n").as_bytes());
                    self.clients.insert(id, client);
                }
                Event::ExecFailed { exec: exec.exec, exit_code, message }
            }
        }
    }

    fn start_exec(
        &mut self,
        exec: &ExecRequest,
        socket: &Option<OwnedFd>,
    ) -> Result<(u32, i32), Failure> {
        let other = |message: String| Failure { exit_code: 128, message };
        let stopped = || other("the container is not running".to_owned());
        let Phase::Running { .. } = self.phase else { return Err(stopped()) };
        let id = self.take_id();
        let (ours, theirs) = match (exec.process.terminal, socket) {
            (true, _) => (OurEnds::default(), None),
            (false, Some(_)) => {
                let (ours, theirs) = process::pipes(exec.stdin)
                    .map_err(|error| other(format!("cannot make pipes: {error}")))?;
                (ours, Some(theirs))
            }
            (false, None) => {
                let theirs = process::silence()
                    .map_err(|error| other(format!("cannot open /dev/null: {error}")))?;
                (OurEnds::default(), Some(theirs))
            }
        };
        let container = self.container.as_ref().ok_or_else(stopped)?;
        let main = self.processes.get(&MAIN).ok_or_else(stopped)?;
        let pidfd = main.pidfd.as_ref().ok_or_else(stopped)?;
        let started = container.exec((main.pid, pidfd.as_fd()), exec, theirs.as_ref())?;
        let pid = started.pid.as_raw_nonzero().get();
        let mut process = self.process(id, Target::Exec(exec.exec), started, ours)?;
        // Docker's execs always end with their client's input: moby `daemon/exec.go`.
        process.stdin_once = true;
        self.processes.insert(id, process);
        Ok((id, pid))
    }

    fn resize(&mut self, target: Target, size: ConsoleSize) -> Result<(), String> {
        let id = self.find(target).ok_or("the process has ended")?;
        self.processes[&id].resize(size).map_err(|error| format!("cannot resize: {error}"))
    }

    fn signal(&mut self, target: Target, signal: i32) -> Result<(), String> {
        let id = self.find(target).ok_or("the process has ended")?;
        let process = &self.processes[&id];
        let pidfd = match (&process.pidfd, process.exit) {
            (Some(pidfd), None) => pidfd,
            (None, _) | (_, Some(Exit::Code(_) | Exit::Signal { .. })) => {
                return Err("the process has ended".to_owned());
            }
        };
        sys::process::signal_process(pidfd, signal)
            .map_err(|error| format!("cannot signal: {error}"))
    }

    fn close_stdin(&mut self, target: Target) -> Result<(), String> {
        let id = self.find(target).ok_or("the process has ended")?;
        if let Some(process) = self.processes.get_mut(&id) {
            process.end_stdin(&self.poller);
        }
        self.watch_process(id);
        Ok(())
    }

    fn state(&self) -> State {
        let main = match self.phase {
            Phase::Waiting | Phase::Told { .. } | Phase::Leaving { .. } => None,
            Phase::Running { pid, started_at } | Phase::Draining { pid, started_at, .. } => {
                Some(Running { pid: pid.as_raw_nonzero().get(), started_at })
            }
        };
        State { main, oom_killed: self.oom_killed, execs: self.exec_state() }
    }
}

fn done(result: Result<(), String>) -> Event {
    match result {
        Ok(()) => Event::Done,
        Err(message) => Event::Failed { message },
    }
}
