//! Attached clients and further processes: what goes over a client's own socket.
//!
//! Both are two steps, since a refusal must be an HTTP status and what comes later cannot be: first
//! the request is accepted, then the front door answers and hands the connection over. From then
//! on the monitor serves it, so clients do not notice the daemon's end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use runs::{AttachOptions, Framing, Target};
use spec::Id;
use spec::runtime::{Capabilities, Process};
use tokio::sync::oneshot;

use super::execs::ExecPhase;
use super::lowering::process;
use super::record::Record;
use super::registry::{Arrival, ContainerHandle};
use super::step::Phase;
use super::task::{Message, PendingAttach, View};
use super::views::{
    AttachRequest, ClientSocket, ExecSpec, ExecStart, ExecView, LogLine, LogSource, LogsQuery,
};
use super::{cgroups, events, link_env};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::workloads::{Privileges, environment, limits, runtimes};
use crate::{Engine, Inner, words};

/// Ctrl-P, Ctrl-Q.
const DETACH_DEFAULT: &[u8] = &[16, 17];

/// An accepted attach: answer the HTTP request, then connect the client.
pub struct Attaching {
    /// Raw bytes instead of frames.
    pub tty: bool,
    engine: Engine,
    container: Arc<ContainerHandle>,
    request: AttachRequest,
    detach_keys: Vec<u8>,
    /// The run that was there when it was accepted.
    run: Option<u64>,
    /// Lets a start wait until the connection is there.
    _arrival: Arrival,
}

impl Attaching {
    /// Hands the connection to the container: to its monitor when it runs, else for when it will.
    ///
    /// # Errors
    /// When the container ended meanwhile.
    pub async fn connect(self, client: ClientSocket) -> Result<()> {
        let view = self.container.now();
        let socket = if self.request.logs {
            let (engine, request, past) =
                (self.engine.clone(), self.request.clone(), Arc::clone(&view));
            blocking(move || replay(&engine, &past, &request, client.socket)).await?
        } else {
            let socket = client.socket;
            // What does not run yet is started by a client that has its answer.
            if view.supervised.is_some() {
                blocking(move || {
                    await_head_read(&socket);
                    socket
                })
                .await
            } else {
                socket
            }
        };
        events::publish(&self.engine.inner, &view.record, "attach", &[]);
        if !self.request.stream {
            return Ok(());
        }
        let options = AttachOptions {
            stdin: self.request.stdin && view.record.spec.open_stdin,
            stdout: self.request.stdout,
            stderr: self.request.stderr,
            detach_keys: self.detach_keys,
            framing: framing(self.tty),
            prelude: client.prelude,
        };
        let (reply, answer) = oneshot::channel();
        let client = PendingAttach { socket, options, run: self.run };
        let message = Message::Attach { client, reply };
        let gone = || words::no_such_container(&self.container.id.to_string());
        self.container.inbox.send(message).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn framing(tty: bool) -> Framing {
    if tty { Framing::Raw } else { Framing::Multiplexed }
}

/// Writes what the log holds to a client. Blocking.
fn replay(
    engine: &Engine,
    view: &View,
    request: &AttachRequest,
    socket: OwnedFd,
) -> Result<OwnedFd> {
    let query =
        LogsQuery { stdout: request.stdout, stderr: request.stderr, ..LogsQuery::default() };
    let lines = super::logs::replay(engine, view, &query)?;
    await_head_read(&socket);
    for line in lines {
        if write_all(&socket, &framed(&line, view.record.spec.tty)).is_err() {
            break;
        }
    }
    Ok(socket)
}

fn framed(line: &LogLine, tty: bool) -> Vec<u8> {
    if tty {
        return line.bytes.clone();
    }
    let stream = match line.source {
        LogSource::Stdout => 1,
        LogSource::Stderr => 2,
    };
    frame(stream, &line.bytes)
}

/// Source: moby `api/types/container` "Stream format" in the API's documentation of attach.
fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend(length.to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// Waits, but not for long, until the client has read the answer's head.
///
/// Clients on Python's `http.client` (docker-py, and with it Ansible and others) read the head
/// through a buffer and then go on with the bare socket: output that arrives together with the head
/// is lost to them. Docker starts an exec so slowly that nobody ever noticed.
fn await_head_read(socket: &OwnedFd) {
    const PATIENCE: std::time::Duration = std::time::Duration::from_millis(50);
    const PAUSE: std::time::Duration = std::time::Duration::from_micros(50);
    let since = std::time::Instant::now();
    while since.elapsed() < PATIENCE
        && sys::socket::unread_by_peer(socket).is_ok_and(|count| count > 0)
    {
        std::thread::sleep(PAUSE);
    }
}

/// Waits while the client does not read, on a socket that may be non-blocking.
fn write_all(socket: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;
    while !bytes.is_empty() {
        match rustix::net::send(socket, bytes, rustix::net::SendFlags::NOSIGNAL) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(socket, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads `ctrl-p,ctrl-q`, `ctrl-@`, `a,b`.
///
/// Source: moby `moby/term` `ascii.go`.
fn detach_keys(text: Option<&str>) -> Result<Vec<u8>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(DETACH_DEFAULT.to_vec());
    };
    let refuse = || Error::invalid(format!("Invalid detach keys ({text}) provided"));
    text.split(',')
        .map(|key| match (key.as_bytes(), key.strip_prefix("ctrl-")) {
            ([byte], _) => Ok(*byte),
            (_, Some(letter)) => match letter.as_bytes() {
                [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
                [letter @ b'@'] => Ok(letter - b'@'),
                [letter @ (b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(letter - b'@'),
                _ => Err(refuse()),
            },
            (_, None) => Err(refuse()),
        })
        .collect()
}

/// Only on a terminal are keys typed; elsewhere any bytes are data.
///
/// Source: moby `container/stream/attach.go`.
fn keys_that_count(keys: Vec<u8>, tty: bool) -> Vec<u8> {
    if tty { keys } else { Vec::new() }
}

/// Ends a client's stream, also where a monitor that does not answer may hold its socket, too.
pub(crate) fn end_stream(socket: &OwnedFd) {
    // A client that has gone needs no end.
    let _gone = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// An accepted exec start.
pub struct ExecStarting {
    pub tty: bool,
    engine: Engine,
    container: Arc<ContainerHandle>,
    exec: Id,
    spec: ExecSpec,
    detach_keys: Vec<u8>,
}

impl ExecStarting {
    /// Starts the process with the client's connection. A failure is told to the client in the
    /// stream, in the exec's exit code, and here.
    ///
    /// # Errors
    /// When the process could not be started.
    pub async fn connect(self, client: ClientSocket) -> Result<()> {
        let options = AttachOptions {
            stdin: self.spec.attach_stdin,
            stdout: self.spec.attach_stdout,
            stderr: self.spec.attach_stderr,
            detach_keys: self.detach_keys.clone(),
            framing: framing(self.tty),
            prelude: client.prelude,
        };
        let tty = self.tty;
        let socket = client.socket;
        let socket = blocking(move || {
            await_head_read(&socket);
            socket
        })
        .await;
        let Err(error) = self.run(Some((options, &socket))).await else { return Ok(()) };
        // The client's answer was a good one already, so the stream says what failed:
        // moby `daemon/exec.go` and the router's `postContainerExecStart`.
        let text = format!("{}\r\n", error.message);
        let bytes = if tty { text.into_bytes() } else { frame(1, text.as_bytes()) };
        blocking(move || {
            // A client that has gone needs no words.
            let _gone = write_all(&socket, &bytes);
            end_stream(&socket);
        })
        .await;
        Err(error)
    }

    /// Starts the process without a client.
    ///
    /// # Errors
    /// When the process could not be started.
    pub async fn detached(self) -> Result<()> {
        self.run(None).await
    }

    async fn run(self, client: Option<(AttachOptions, &OwnedFd)>) -> Result<()> {
        let view = self.container.now();
        tell_exec(&self.engine.inner, &view.record, "exec_start", &self.exec, &self.spec.argv);
        let outcome = self.start(&view, client).await;
        if let Err((exit_code, _)) = &outcome {
            self.container.execs.ended(&self.exec, *exit_code);
        }
        outcome.map_err(|(_, error)| error)
    }

    /// A failure comes with the exit code that the exec has then.
    async fn start(
        &self,
        view: &View,
        client: Option<(AttachOptions, &OwnedFd)>,
    ) -> std::result::Result<(), (i32, Error)> {
        /// Source: moby `daemon/exec.go`: what could not be invoked.
        const NOT_INVOKED: i32 = 126;
        let failed = |error: Error| (NOT_INVOKED, error);
        let Some(run) = &view.supervised else {
            return Err(failed(words::not_running(self.container.id)));
        };
        let plan = exec_plan(&self.engine, view, &self.spec, self.exec).map_err(failed)?;
        let started = run.exec(&self.engine.inner.launchers, plan, client.is_some()).await;
        match started.map_err(|error| failed(error.into()))? {
            Ok(started) => {
                self.container.execs.started(&self.exec, started.pid);
                let client = client.map(|(options, socket)| (options, socket.as_fd()));
                run.adopt(started, client).await.map_err(|error| failed(error.into()))
            }
            Err(refusal) => Err((refusal.exit_code, Error::new(Kind::Invalid, refusal.message))),
        }
    }
}

/// An exec as the launcher gets it.
pub(crate) fn exec_plan(
    engine: &Engine,
    view: &View,
    spec: &ExecSpec,
    exec: Id,
) -> Result<runs::ExecPlan> {
    let (inner, record) = (&engine.inner, &view.record);
    let bundle = inner.config.run_dir(&record.id);
    let runtime = runtimes::choose(&inner.live(), &record.spec.host.runtime, &bundle)?;
    let filter = super::start::exec_filter(inner, &record.spec, &runtime)?;
    let user = if spec.user.is_empty() { &record.spec.config.user } else { &spec.user };
    Ok(runs::ExecPlan {
        exec,
        process: exec_process(engine, view, spec)?,
        user: Some(user.clone()),
        // `--group-add` counts for every exec too: moby `daemon/exec_linux.go`.
        groups: record.spec.host.group_add.clone(),
        cgroup: Some(cgroups::cgroup(inner, record).path()),
        runtime,
        filter,
        stdin: spec.attach_stdin,
        bundle,
    })
}

/// The OCI process of an exec: the container's environment, directory and rights, unless it says
/// otherwise.
pub(crate) fn exec_process(engine: &Engine, view: &View, spec: &ExecSpec) -> Result<Process> {
    let record = &view.record;
    let privileges = match spec.privileged {
        true => Privileges::All,
        false => super::lowering::privileges(&record.spec.host),
    };
    let names = super::capabilities::resolve(
        privileges,
        &record.spec.host.cap_add,
        &record.spec.host.cap_drop,
        engine.inner.host.last_capability,
    )?;
    let links = link_env::of(&engine.inner, record);
    let mut env = process::environment(&record.spec, &record.hostname, &links);
    // moby `daemon/exec_linux.go`: its own terminal counts, not the container's.
    let is_term = |entry: &String| entry.starts_with("TERM=");
    env.retain(|entry| spec.tty || record.spec.config.env.iter().any(is_term) || !is_term(entry));
    if spec.tty && !env.iter().any(is_term) {
        env.push("TERM=xterm".to_owned());
    }
    environment::replace(&mut env, &spec.env);
    let security = &record.spec.host.security_opt;
    let cwd = [&spec.working_dir, &record.spec.config.working_dir]
        .into_iter()
        .find(|path| !path.is_empty());
    Ok(Process {
        terminal: spec.tty,
        console_size: process::console_size(spec.console_size),
        args: spec.argv.clone(),
        env,
        cwd: cwd.map_or("/", String::as_str).to_owned(),
        capabilities: Some(Capabilities {
            bounding: names.clone(),
            effective: names.clone(),
            permitted: names,
            ..Capabilities::default()
        }),
        rlimits: limits::rlimits(
            &engine.inner.config.default_ulimits,
            &record.spec.host.resources.ulimits,
        ),
        apparmor_profile: process::apparmor(&record.spec, &engine.inner.host).unwrap_or_default(),
        no_new_privileges: security
            .no_new_privileges
            .unwrap_or(engine.inner.config.no_new_privileges),
        oom_score_adj: Some(record.spec.host.oom_score_adj),
        ..Process::default()
    })
}

impl Engine {
    /// Accepts an attach.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a paused or restarting container; `Invalid` for bad detach keys.
    pub async fn attach_container(&self, asked: &str, request: AttachRequest) -> Result<Attaching> {
        let detach_keys = detach_keys(request.detach_keys.as_deref())?;
        let container = self.container(asked)?;
        let view = container.now();
        match &view.phase {
            Phase::Paused { .. } => {
                let text = format!(
                    "container {} is paused, unpause the container before attach",
                    container.id
                );
                return Err(Error::conflict(text));
            }
            Phase::Backoff { .. } => {
                let text = format!(
                    "container {} is restarting, wait until the container is running",
                    container.id
                );
                return Err(Error::conflict(text));
            }
            Phase::Created { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Exited { .. }
            | Phase::Removing { .. }
            | Phase::Dead { .. }
            | Phase::Gone => {}
        }
        let tty = view.record.spec.tty;
        let _arrival = container.arrivals.announce();
        let run = view.phase.run().map(|_| view.exits);
        let detach_keys = keys_that_count(detach_keys, tty);
        Ok(Attaching { tty, engine: self.clone(), container, request, detach_keys, run, _arrival })
    }

    /// Sets the size of a container's terminal: rows (height) and columns (width).
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub async fn resize_container(&self, asked: &str, height: u16, width: u16) -> Result<()> {
        let container = self.container(asked)?;
        let view = container.now();
        let Some(run) = &view.supervised else { return Err(words::not_running(container.id)) };
        let size = spec::runtime::ConsoleSize { height, width };
        run.resize(Target::Main, size).await?;
        let more = [("height", height.to_string()), ("width", width.to_string())];
        events::publish(&self.inner, &view.record, "resize", &more);
        Ok(())
    }

    /// Notes a wish for a further process.
    ///
    /// # Errors
    /// `Conflict` when the container does not run, is paused or restarting; `Invalid` without a
    /// command.
    pub async fn create_exec(&self, asked: &str, spec: ExecSpec) -> Result<Id> {
        let container = self.container(asked)?;
        let view = container.now();
        running(&view)?;
        if spec.argv.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        detach_keys(spec.detach_keys.as_deref())?;
        if !spec.working_dir.is_empty() && !spec.working_dir.starts_with('/') {
            return Err(words::relative_workdir(&spec.working_dir));
        }
        let id = Id::random();
        let argv = spec.argv.clone();
        container.execs.insert(id, spec);
        tell_exec(&self.inner, &view.record, "exec_create", &id, &argv);
        Ok(id)
    }

    /// Accepts the start of an exec.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it was started before or the container does not run.
    pub async fn start_exec(&self, exec: &str, options: ExecStart) -> Result<ExecStarting> {
        let (container, id) = self.find_exec(exec)?;
        let view = container.now();
        running(&view)?;
        let Some(entry) = container.execs.get(&id) else { return Err(words::no_such_exec(exec)) };
        if !container.execs.claim(&id) {
            return Err(match entry.state {
                ExecPhase::Ended { .. } => Error::conflict(format!("exec {id} has already run")),
                ExecPhase::Created { .. } | ExecPhase::Starting | ExecPhase::Running { .. } => {
                    Error::conflict(format!("Error: Exec command {id} is already running"))
                }
            });
        }
        let mut spec = entry.spec;
        if options.console_size.is_some() {
            spec.console_size = options.console_size;
        }
        let detach_keys = keys_that_count(detach_keys(spec.detach_keys.as_deref())?, spec.tty);
        // The stream is framed as the start says, whatever terminal the create asked for: a client
        // unpacks what it asked for last. Source: moby 28.2 `api/server/router/container/exec.go`.
        Ok(ExecStarting {
            tty: options.tty,
            engine: self.clone(),
            container,
            exec: id,
            spec,
            detach_keys,
        })
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// `NotFound`, or `Internal` when it does not run.
    pub async fn resize_exec(&self, exec: &str, height: u16, width: u16) -> Result<()> {
        let (container, id) = self.find_exec(exec)?;
        let view = container.now();
        let Some(run) = &view.supervised else { return Err(words::not_running(container.id)) };
        let size = spec::runtime::ConsoleSize { height, width };
        Ok(run.resize(Target::Exec(id), size).await?)
    }

    /// # Errors
    /// `NotFound`.
    pub async fn inspect_exec(&self, exec: &str) -> Result<ExecView> {
        let (container, id) = self.find_exec(exec)?;
        let gone = || words::no_such_exec(exec);
        let mut view = container.execs.view(container.id, &id).ok_or_else(gone)?;
        // A client asks as soon as its stream has ended, and the news of the exit may still be on
        // its way; the monitor knew before it ended the stream.
        if container.execs.is_under_way(&id)
            && let Some(run) = container.now().supervised.clone()
            && let Ok(state) = run.state().await
            && let Some(code) =
                state.execs.iter().find(|found| found.exec == id).and_then(|found| found.exit_code)
        {
            view.running = false;
            view.exit_code = Some(code);
        }
        Ok(view)
    }

    fn find_exec(&self, asked: &str) -> Result<(Arc<ContainerHandle>, Id)> {
        let all = self.inner.containers.all();
        let found = all
            .into_iter()
            .find_map(|container| container.execs.find(asked).map(|id| (container, id)));
        found.ok_or_else(|| words::no_such_exec(asked))
    }
}

/// Publishes an event of an exec; its words have a space after the program, whether or not arguments
/// follow. Source: moby `daemon/exec.go`.
pub(crate) fn tell_exec(engine: &Inner, record: &Record, action: &str, exec: &Id, argv: &[String]) {
    let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(a, b)| (a.as_str(), b));
    let action = format!("{action}: {program} {}", arguments.join(" "));
    events::publish(engine, record, &action, &[("execID", exec.to_string())]);
}

/// Whether execs may be made now.
fn running(view: &View) -> Result<()> {
    let id = view.record.id;
    match &view.phase {
        Phase::Running { .. } | Phase::Stopping { .. } => Ok(()),
        Phase::Paused { .. } => Err(words::exec_paused(id)),
        Phase::Backoff { .. } => Err(words::is_restarting(id)),
        Phase::Created { .. }
        | Phase::Starting { .. }
        | Phase::Exited { .. }
        | Phase::Removing { .. }
        | Phase::Dead { .. }
        | Phase::Gone => Err(words::not_running(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read_in_dockers_form() {
        for (text, want) in [
            (None, Some(vec![16, 17])),
            (Some(""), Some(vec![16, 17])),
            (Some("ctrl-a,x"), Some(vec![1, b'x'])),
            (Some("ctrl-@,ctrl-["), Some(vec![0, 27])),
            (Some("ctrl-!"), None),
            (Some("abc"), None),
        ] {
            assert_eq!(detach_keys(text).ok(), want, "{text:?}");
        }
    }
}
