//! The parent's half of a launch: control group, clone, and the talk with the child.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use spec::runtime::{IdMapping, Linux, Resources};
use sys::cgroup::Cgroup;
use sys::namespace::{self, Namespaces};
use sys::process::{self, Child, Dumpable, Parent, Pid, Preserved, SpawnOptions, Wait};

use crate::channel::{Channel, Told};
use crate::error::{Kind, LaunchError, at, at_raw};
use crate::hooks;
use crate::inside::{self, Gate};
use crate::plan::Plan;
use crate::request::{CgroupPlan, LaunchRequest, Launched};
use crate::resources;

/// How long the child may take for each step towards its program, hooks included.
const PATIENCE: Duration = Duration::from_secs(120);

/// A container that is ready but for its program.
#[derive(Debug)]
pub struct Created {
    launched: Launched,
    channel: Channel,
}

/// Makes a container and starts its program.
///
/// # Errors
/// With what failed; then nothing is left of it.
pub fn launch(request: &LaunchRequest<'_>) -> Result<Launched, LaunchError> {
    let (mut launched, channel) = make(request, Gate::Open)?;
    match until_executed(&mut launched, &channel, request) {
        Ok(()) => {
            run_poststart(request, &mut launched);
            Ok(launched)
        }
        Err(error) => Err(abandon(launched, error)),
    }
}

/// Makes a container and stops before its program.
///
/// # Errors
/// With what failed; then nothing is left of it.
pub fn create(request: &LaunchRequest<'_>) -> Result<Created, LaunchError> {
    let (mut launched, channel) = make(request, Gate::Channel)?;
    match until_ready(&mut launched, &channel, request) {
        Ok(()) => Ok(Created { launched, channel }),
        Err(error) => Err(abandon(launched, error)),
    }
}

/// Like [`create`], but what lets the program go is a connection to `listener`, so that another
/// process can do it later: [`start_through`].
pub(crate) fn create_behind(
    request: &LaunchRequest<'_>,
    listener: OwnedFd,
) -> Result<Launched, LaunchError> {
    let (mut launched, channel) = make(request, Gate::Listener(listener))?;
    match until_ready(&mut launched, &channel, request) {
        Ok(()) => Ok(launched),
        Err(error) => Err(abandon(launched, error)),
    }
}

/// Lets the program go that waits behind a listener which `socket` is connected to.
pub(crate) fn start_through(socket: OwnedFd) -> Result<(), LaunchError> {
    let channel = Channel::over(socket);
    channel.go().map_err(at("start the container"))?;
    let mut executing = false;
    loop {
        match channel.hear().map_err(at("start the container"))? {
            Told::Executing => executing = true,
            Told::Closed if executing => return Ok(()),
            Told::Failed(error) => return Err(error),
            Told::Closed => {
                return Err(LaunchError::new(Kind::Other, "the container's process has died"));
            }
            Told::Mapping | Told::Hooks | Told::Terminal(_) | Told::Warning(_) | Told::Ready => {}
        }
    }
}

impl Created {
    /// The process that will become the program.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.launched.pid
    }

    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.launched.pidfd.as_fd()
    }

    /// The terminal's master, to be taken once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.launched.terminal.take()
    }

    /// Starts the program.
    ///
    /// # Errors
    /// With what failed; then nothing is left of the container.
    pub fn start(mut self, request: &LaunchRequest<'_>) -> Result<Launched, LaunchError> {
        let going = self.channel.go().map_err(at("start the container"));
        match going.and_then(|()| until_executed(&mut self.launched, &self.channel, request)) {
            Ok(()) => {
                run_poststart(request, &mut self.launched);
                Ok(self.launched)
            }
            Err(error) => Err(abandon(self.launched, error)),
        }
    }

    /// Removes the container that was never started.
    pub fn cancel(self) {
        undo(&self.launched);
    }
}

fn make(request: &LaunchRequest<'_>, gate: Gate) -> Result<(Launched, Channel), LaunchError> {
    let cgroup = make_cgroup(request)?;
    match spawn(request, cgroup.as_ref(), gate) {
        Ok((child, channel)) => {
            let Child { pid, pidfd } = child;
            Ok((Launched { pid, pidfd, terminal: None, cgroup, warnings: Vec::new() }, channel))
        }
        Err(error) => {
            if let Some(cgroup) = cgroup {
                let _ = cgroup.remove();
            }
            Err(error)
        }
    }
}

fn make_cgroup(request: &LaunchRequest<'_>) -> Result<Option<Cgroup>, LaunchError> {
    let CgroupPlan::Path(path) = &request.cgroup else { return Ok(None) };
    let none = Resources::default();
    let resources = request.spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let resources = resources.unwrap_or(&none);
    resources::check(resources)?;
    let cgroup =
        Cgroup::create(path).map_err(at(format!("create the cgroup {}", path.display())))?;
    if let Err(error) = resources::apply(&cgroup, resources) {
        let _ = cgroup.remove();
        return Err(error);
    }
    Ok(Some(cgroup))
}

fn spawn(
    request: &LaunchRequest<'_>,
    cgroup: Option<&Cgroup>,
    gate: Gate,
) -> Result<(Child, Channel), LaunchError> {
    Preserved(request.preserved_fds).check().map_err(at("preserve descriptors"))?;
    let plan = Plan::prepare(request, cgroup)?;
    // The child may be born among the processes of another container, and is hidden from them from
    // the first instant.
    process::set_dumpable(Dumpable::No).map_err(at("prctl PR_SET_DUMPABLE"))?;
    let (ours, theirs) = Channel::pair().map_err(at("make a socket pair"))?;
    let _restore_pid = join_pid_namespace(&plan)?;
    let _restore_time = make_time_namespace(&plan)?;
    let options = SpawnOptions {
        // The cgroup namespace is made by the child, once it is in its group.
        namespaces: plan.namespaces.new.without(Namespaces::CGROUP | Namespaces::TIME),
        cgroup: plan.entry.birthplace(),
        parent: Parent::Caller,
    };
    let mut ends = Some((ours, theirs));
    let mut gate = Some(gate);
    let child = process::spawn(&options, || match (ends.take(), gate.take()) {
        (Some((ours, theirs)), Some(gate)) => {
            // The child's copy: while it were open, the child would not notice that we are gone.
            drop(ours);
            inside::run(&plan, theirs, gate)
        }
        (None, _) | (_, None) => 1,
    })
    .map_err(at("clone the container's process"))?;
    let (ours, _) =
        ends.ok_or_else(|| LaunchError::new(Kind::Other, "the parent became the child"))?;
    Ok((child, ours))
}

/// Puts one of our own namespaces for children back when dropped.
pub(crate) struct RestoreNamespace(Option<(OwnedFd, Namespaces)>);

impl Drop for RestoreNamespace {
    fn drop(&mut self) {
        if let Some((own, kind)) = &self.0 {
            // Joining one's own namespace is always allowed; were it not, later children would be
            // born in the container, and nothing could be done about it here.
            let _ = namespace::join(own, *kind);
        }
    }
}

fn join_pid_namespace(plan: &Plan<'_>) -> Result<RestoreNamespace, LaunchError> {
    let joined = plan.namespaces.join.iter().find(|(kind, _)| *kind == Namespaces::PID);
    let Some((_, descriptor)) = joined else { return Ok(RestoreNamespace(None)) };
    children_into(descriptor.as_fd())
}

/// setns(2): joining a PID namespace concerns our children, not us. `descriptor` is the namespace's,
/// or a pidfd of a process in it.
pub(crate) fn children_into(descriptor: BorrowedFd<'_>) -> Result<RestoreNamespace, LaunchError> {
    let own = open_own("pid")?;
    namespace::join(descriptor, Namespaces::PID).map_err(at("join the PID namespace"))?;
    Ok(RestoreNamespace(Some((own, Namespaces::PID))))
}

/// time_namespaces(7): offsets can be set only before the first process is inside, so it is made for
/// our children and not by their clone.
fn make_time_namespace(plan: &Plan<'_>) -> Result<RestoreNamespace, LaunchError> {
    if !plan.namespaces.new.contains(Namespaces::TIME) {
        return Ok(RestoreNamespace(None));
    }
    let own = open_own("time")?;
    namespace::unshare(Namespaces::TIME).map_err(at("unshare time namespace"))?;
    let restore = RestoreNamespace(Some((own, Namespaces::TIME)));
    for (clock, offset) in &plan.linux.time_offsets {
        let line = format!("{clock} {} {}\n", offset.secs, offset.nanosecs);
        put("/proc/self/timens_offsets", &line)
            .map_err(at(format!("set the offset of the clock {clock}")))?;
    }
    Ok(restore)
}

fn open_own(kind: &str) -> Result<OwnedFd, LaunchError> {
    let path = format!("/proc/self/ns/{kind}");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(at_raw(format!("open {path}")))
}

/// Serves the child until it says that it is ready.
fn until_ready(
    launched: &mut Launched,
    channel: &Channel,
    request: &LaunchRequest<'_>,
) -> Result<(), LaunchError> {
    loop {
        match hear(launched, channel)? {
            Told::Ready => return Ok(()),
            told => serve(told, launched, channel, request)?,
        }
    }
}

/// Serves the child until execve has closed its socket.
fn until_executed(
    launched: &mut Launched,
    channel: &Channel,
    request: &LaunchRequest<'_>,
) -> Result<(), LaunchError> {
    let mut executing = false;
    loop {
        match hear(launched, channel)? {
            Told::Executing => executing = true,
            Told::Closed if executing => return Ok(()),
            told => serve(told, launched, channel, request)?,
        }
    }
}

fn hear(launched: &mut Launched, channel: &Channel) -> Result<Told, LaunchError> {
    let told = channel.hear_of(&launched.pidfd, PATIENCE);
    match told.map_err(at("hear from the container's process"))? {
        Told::Terminal(master) => {
            launched.terminal = Some(master);
            Ok(Told::Warning(String::new()))
        }
        told => Ok(told),
    }
}

fn serve(
    told: Told,
    launched: &mut Launched,
    channel: &Channel,
    request: &LaunchRequest<'_>,
) -> Result<(), LaunchError> {
    match told {
        Told::Warning(text) => {
            if !text.is_empty() {
                launched.warnings.push(text);
            }
        }
        Told::Mapping => {
            let linux = request
                .spec
                .linux
                .as_ref()
                .ok_or_else(|| LaunchError::new(Kind::Other, "no linux section"))?;
            map_users(launched.pid, linux)?;
            channel.go().map_err(at("answer the container's process"))?;
        }
        Told::Hooks => {
            if let Some(list) = &request.spec.hooks {
                let state = hook_state(request, launched, "creating");
                hooks::run(&list.prestart, "prestart", &state, request.spec)?;
                hooks::run(&list.create_runtime, "createRuntime", &state, request.spec)?;
            }
            channel.go().map_err(at("answer the container's process"))?;
        }
        Told::Failed(error) => return Err(error),
        Told::Closed => return Err(LaunchError::new(Kind::Other, died(launched))),
        Told::Terminal(_) | Told::Ready | Told::Executing => {}
    }
    Ok(())
}

fn died(launched: &Launched) -> String {
    let how = match process::wait_process(&launched.pidfd, Wait::Block) {
        Ok(Some(process::Exit::Signal { signal, .. })) => format!("signal: {signal}"),
        Ok(Some(process::Exit::Code(code))) => format!("exit status {code}"),
        Ok(None) | Err(_) => "unknown status".to_owned(),
    };
    let oom = launched.cgroup.as_ref().and_then(|cgroup| cgroup.stats().ok());
    if oom.is_some_and(|stats| stats.memory.oom_kills > 0) {
        return "container init was OOM-killed (memory limit too low?)".to_owned();
    }
    format!("the container's process died before its program was executed: {how}")
}

fn hook_state<'a>(
    request: &LaunchRequest<'a>,
    launched: &Launched,
    status: &'a str,
) -> hooks::State<'a> {
    let pid = u32::try_from(launched.pid.as_raw_nonzero().get()).unwrap_or(0);
    hooks::State { id: request.id, status, pid, bundle: request.bundle }
}

fn run_poststart(request: &LaunchRequest<'_>, launched: &mut Launched) {
    let Some(list) = &request.spec.hooks else { return };
    let state = hook_state(request, launched, "running");
    // OCI runtime-spec `runtime.md`: a failing poststart hook is told and stops nothing.
    if let Err(error) = hooks::run(&list.poststart, "poststart", &state, request.spec) {
        launched.warnings.push(error.message);
    }
}

/// Kills what there is of the container, and gives the error back.
fn abandon(launched: Launched, error: LaunchError) -> LaunchError {
    undo(&launched);
    error
}

fn undo(launched: &Launched) {
    let _ = process::signal_process(&launched.pidfd, 9);
    // It may have been reaped when its death was explained.
    let _ = process::wait_process(&launched.pidfd, Wait::Block);
    if let Some(cgroup) = &launched.cgroup {
        let _ = cgroup.kill();
        let _ = cgroup.remove();
    }
}

/// user_namespaces(7): maps are written once, by somebody with privileges outside.
fn map_users(pid: Pid, linux: &Linux) -> Result<(), LaunchError> {
    write_maps(pid, &linux.uid_mappings, &linux.gid_mappings)
}

/// A user namespace with these maps and no process in it.
pub(crate) fn mapped_namespace(
    users: &[IdMapping],
    groups: &[IdMapping],
) -> Result<OwnedFd, LaunchError> {
    let step = "make a user namespace for a mount";
    let options = SpawnOptions { namespaces: Namespaces::USER, ..SpawnOptions::default() };
    let holder = process::spawn(&options, || {
        loop {
            rustix::event::pause();
        }
    })
    .map_err(at(step))?;
    let opened = write_maps(holder.pid, users, groups).and_then(|()| {
        let path = format!("/proc/{}/ns/user", holder.pid.as_raw_nonzero());
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(at_raw(step))
    });
    let _ = process::signal_process(&holder.pidfd, 9);
    let _ = process::wait_process(&holder.pidfd, Wait::Block);
    opened
}

fn write_maps(pid: Pid, users: &[IdMapping], groups: &[IdMapping]) -> Result<(), LaunchError> {
    let write = |file: &str, mappings: &[IdMapping]| -> Result<(), LaunchError> {
        let line = |map: &IdMapping| format!("{} {} {}\n", map.container_id, map.host_id, map.size);
        let text: String = mappings.iter().map(line).collect();
        let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
        put(&path, &text).map_err(at(format!("write {path}")))
    };
    write("uid_map", users)?;
    write("gid_map", groups)
}

fn put(path: &str, text: &str) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}
