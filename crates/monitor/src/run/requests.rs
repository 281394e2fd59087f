//! Carrying out the daemon's requests.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use spec::runtime::ConsoleSize;
use sys::epoll::Ready;

use super::attached::Attached;
use super::container::{self, Failure};
use super::control::Control;
use super::process::Process;
use super::{Monitor, Phase};
use crate::complaints::complain;
use crate::launcher::enter;
use crate::wire::{AttachOptions, Enter, Event, ReceivedRequest, Request, Running, State, Target};

impl Monitor<'_> {
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
            complain!("cannot take a control connection: {error}");
        }
    }

    /// A control connection has requests, or takes more events, or closed.
    pub(super) fn control(&mut self, id: u32, news: Ready) {
        let Some(control) = self.controls.get_mut(&id) else { return };
        let mut closed = news.writable && control.flush(&self.poller).is_err();
        if news.readable || news.hung_up {
            let (requests, end) = control.receive();
            closed |= end.is_err();
            for request in requests {
                self.answer(id, request);
            }
        }
        if closed && let Some(control) = self.controls.remove(&id) {
            control.close(&self.poller);
        }
    }

    /// Pushes an event to everybody.
    pub(super) fn push(&mut self, event: &Event, fds: &[BorrowedFd<'_>]) {
        let mut closed = Vec::new();
        for (&id, control) in &mut self.controls {
            if control.send(None, event, fds, &self.poller).is_err() {
                closed.push(id);
            }
        }
        for id in closed {
            if let Some(control) = self.controls.remove(&id) {
                control.close(&self.poller);
            }
        }
    }

    /// Answers one request. A broken connection is noticed when it is read next.
    fn reply(&mut self, id: u32, seq: u64, event: &Event, fds: &[BorrowedFd<'_>]) {
        if let Some(control) = self.controls.get_mut(&id) {
            let _closed = control.send(Some(seq), event, fds, &self.poller);
        }
    }

    fn answer(&mut self, id: u32, request: ReceivedRequest) {
        let ReceivedRequest { seq, request, fds } = request;
        if matches!(request, Request::Launch(_) | Request::Enter(_)) {
            self.push(&Event::Accepted, &[]);
        }
        let (event, handed) = match request {
            Request::Launch(launch) => self.launch(*launch, fds),
            Request::Enter(request) => self.enter(&request, fds),
            Request::State => {
                let (state, pidfds) = self.state();
                (Event::State(state), pidfds)
            }
            Request::Unpublish { to } => {
                self.proxy.unpublish(&to, &self.poller);
                (Event::Done, Vec::new())
            }
            Request::Delete { bundle, container, runtime } => {
                (done(container::delete(&bundle, &container, &runtime)), Vec::new())
            }
            Request::Adopt { exec, pid, streams, attach } => {
                (done(self.adopt((exec, pid), streams, attach, fds)), Vec::new())
            }
            Request::Publish { ports } => (done(self.publish(&ports, fds)), Vec::new()),
            Request::Resolve { .. } => (done(self.resolve(fds)), Vec::new()),
            Request::Attach { target, options } => {
                (done(self.attach(target, options, fds)), Vec::new())
            }
            Request::Resize { target, size } => (done(self.resize(target, size)), Vec::new()),
            Request::CloseStdin { target } => (done(self.close_stdin(target)), Vec::new()),
            Request::Start { .. } | Request::Exec(_) | Request::Signal { .. } => {
                (done(Err("a supervisor may not do this".to_owned())), Vec::new())
            }
            Request::Unknown => {
                (done(Err("this monitor is too old for the request".to_owned())), Vec::new())
            }
        };
        let handed: Vec<BorrowedFd<'_>> = handed.iter().map(AsFd::as_fd).collect();
        self.reply(id, seq, &event, &handed);
        // Whoever asks for the exit code when the stream ends must find it sent already.
        self.finish_orphans();
        if matches!(event, Event::StartFailed { .. }) {
            self.unlisten();
            self.stop_services();
            self.leave();
        }
    }

    fn enter(&mut self, request: &Enter, fds: Vec<OwnedFd>) -> (Event, Vec<OwnedFd>) {
        if self.phase != Phase::Waiting {
            return (done(Err("a supervisor may not do this".to_owned())), Vec::new());
        }
        match enter::enter(request, fds) {
            Ok((event, handed, entered)) => {
                self.entered = Some(entered);
                (event, handed)
            }
            Err(Failure { exit_code, message }) => {
                (Event::ExecFailed { exec: request.exec, exit_code, message }, Vec::new())
            }
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

    pub(super) fn add_client(
        &mut self,
        process: u32,
        options: AttachOptions,
        socket: OwnedFd,
    ) -> u32 {
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

    fn resize(&mut self, target: Target, size: ConsoleSize) -> Result<(), String> {
        let id = self.find(target).ok_or("the process has ended")?;
        self.processes[&id].resize(size).map_err(|error| format!("cannot resize: {error}"))
    }

    fn close_stdin(&mut self, target: Target) -> Result<(), String> {
        let id = self.find(target).ok_or("the process has ended")?;
        if let Some(process) = self.processes.get_mut(&id) {
            process.end_stdin(&self.poller);
        }
        self.watch_process(id);
        Ok(())
    }

    /// What a daemon must know, and the handles on all that runs.
    fn state(&self) -> (State, Vec<OwnedFd>) {
        let main = match self.phase {
            Phase::Waiting | Phase::Told { .. } | Phase::Leaving { .. } => None,
            Phase::Running { pid, started_at } | Phase::Draining { pid, started_at, .. } => {
                Some(Running { pid: pid.as_raw_nonzero().get(), started_at })
            }
        };
        let execs = self.exec_state();
        let running = execs.iter().filter(|exec| exec.exit_code.is_none());
        let targets = main.map(|_| Target::Main).into_iter();
        let targets = targets.chain(running.map(|exec| Target::Exec(exec.exec)));
        let handles = targets.map_while(|target| {
            let process = self.processes.values().find(|process| process.target == target)?;
            process.pidfd.as_ref()?.try_clone().ok()
        });
        let handles = handles.take(sys::socket::FDS_PER_MESSAGE_MAX).collect();
        (State { supervisor: true, main, oom_killed: self.oom_killed, execs }, handles)
    }
}

fn done(result: Result<(), String>) -> Event {
    match result {
        Ok(()) => Event::Done,
        Err(message) => Event::Failed { message },
    }
}
