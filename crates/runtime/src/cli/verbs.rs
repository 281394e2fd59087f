//! The verbs.

use std::fmt::Display;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use spec::runtime::{Process, Resources, Spec};
use sys::cgroup::Freeze;
use sys::process::{Exit, Pid, Wait};

use super::args::{Flag, Parsed, parse, switch, value};
use super::{Failure, Globals};
use crate::error::words;
use crate::hooks;
use crate::request::{
    CgroupPlan, ExecLaunched, ExecRequest, Keyring, LaunchRequest, Launched, RootChange, Stdio,
    UserRequest,
};
use crate::rootfs::RootfsMount;
use crate::state::{Directory, State, Status, now, start_ticks};
use crate::{LaunchError, console, exec as execute, launch, resources};

pub(super) type Verdict = Result<ExitCode, Failure>;

const CREATE: &[Flag] = &[
    value(&["bundle", "b"]),
    value(&["console-socket"]),
    value(&["pid-file"]),
    switch(&["no-pivot"]),
    switch(&["no-new-keyring"]),
    value(&["preserve-fds"]),
    switch(&["detach", "d"]),
    switch(&["keep"]),
    value(&["no-subreaper"]),
];

const EXEC: &[Flag] = &[
    value(&["process", "p"]),
    value(&["console-socket"]),
    value(&["pid-file"]),
    value(&["cwd"]),
    value(&["env", "e"]),
    value(&["user", "u"]),
    value(&["additional-gids", "g"]),
    value(&["cap", "c"]),
    value(&["preserve-fds"]),
    value(&["cgroup"]),
    value(&["apparmor"]),
    value(&["process-label"]),
    switch(&["tty", "t"]),
    switch(&["detach", "d"]),
    switch(&["no-new-privs"]),
    switch(&["ignore-paused"]),
];

const KILL: &[Flag] = &[switch(&["all", "a"])];
const DELETE: &[Flag] = &[switch(&["force", "f"])];
const LIST: &[Flag] = &[value(&["format", "f"]), switch(&["quiet", "q"])];
const SPEC: &[Flag] = &[value(&["bundle", "b"]), switch(&["rootless"])];
const UPDATE: &[Flag] = &[
    value(&["resources", "r"]),
    value(&["memory"]),
    value(&["memory-swap"]),
    value(&["memory-reservation"]),
    value(&["cpu-share"]),
    value(&["cpu-period"]),
    value(&["cpu-quota"]),
    value(&["cpuset-cpus"]),
    value(&["cpuset-mems"]),
    value(&["pids-limit"]),
    value(&["blkio-weight"]),
];

fn told<E: std::error::Error>(error: E) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(super) fn at(step: impl Display) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| format!("{step}: {}", words(&error))
}

/// A new container as its document and the flags want it.
struct Order {
    id: String,
    directory: Directory,
    bundle: PathBuf,
    spec: Spec,
    rootfs: RootfsMount,
    cgroup: PathBuf,
    flags: Parsed,
}

impl Order {
    fn read(globals: &Globals, args: &[String]) -> Result<Self, Failure> {
        let flags = parse(args, CREATE)?;
        let id = flags.word(0, "a container ID")?.to_owned();
        let directory = Directory::find(&globals.root, &id).map_err(told)?;
        let bundle = PathBuf::from(flags.get("bundle").unwrap_or("."));
        let bundle = bundle.canonicalize().map_err(at(format!("bundle {}", bundle.display())))?;
        let path = bundle.join("config.json");
        let text = std::fs::read(&path)
            .map_err(at(format!("JSON specification file {}", path.display())))?;
        let spec: Spec = serde_json::from_slice(&text)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let root = spec.root.as_ref().ok_or("root property must not be empty")?;
        let rootfs = bundle.join(&root.path);
        std::fs::metadata(&rootfs)
            .map_err(at(format!("invalid rootfs: stat {}", rootfs.display())))?;
        // Source: runc `libcontainer/configs/validate`, `rootfs`.
        if rootfs.canonicalize().ok().as_deref() != Some(rootfs.as_path()) {
            return Err("invalid rootfs: not an absolute path, or a symlink".to_owned());
        }
        let rootfs = RootfsMount::Bind { path: rootfs };
        let asked = spec.linux.as_ref().map_or("", |linux| linux.cgroups_path.as_str());
        let cgroup = cgroup_path(asked, &id, globals.systemd_cgroup);
        Ok(Self { id, directory, bundle, spec, rootfs, cgroup, flags })
    }

    fn terminal(&self) -> bool {
        self.spec.process.as_ref().is_some_and(|process| process.terminal)
    }

    fn request(&self) -> Result<LaunchRequest<'_>, Failure> {
        let stdio = if self.terminal() { Stdio::Terminal { size: None } } else { Stdio::Inherit };
        let cgroup = CgroupPlan::Path(self.cgroup.clone());
        let mut request = LaunchRequest::new(&self.id, &self.spec, &self.rootfs, stdio, cgroup);
        request.bundle = &self.bundle;
        request.preserved_fds = number(&self.flags, "preserve-fds")?.unwrap_or(0);
        if self.flags.has("no-pivot") {
            request.root_change = RootChange::Chroot;
        }
        if self.flags.has("no-new-keyring") {
            request.keyring = Keyring::Keep;
        }
        Ok(request)
    }

    fn check_console(&self, attached: bool) -> Result<(), Failure> {
        match (self.terminal(), self.flags.get("console-socket"), attached) {
            (true, None, false) => {
                Err("cannot allocate tty if runc will detach without setting console socket"
                    .to_owned())
            }
            (false, Some(_), _) => {
                Err("cannot use console socket if runc will not detach or allocate tty".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Makes the container, up to its gate.
    fn make(&self, globals: &Globals) -> Result<Launched, Failure> {
        self.directory.create().map_err(told)?;
        self.make_in_directory(globals).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.directory.remove();
        })
    }

    fn make_in_directory(&self, globals: &Globals) -> Result<Launched, Failure> {
        let request = self.request()?;
        let gate = sys::socket::listen(&self.directory.gate(), 0o600)
            .map_err(at("make the start socket"))?;
        gate.set_nonblocking(false).map_err(at("make the start socket"))?;
        let launched = launch::create_behind(&request, OwnedFd::from(gate))
            .map_err(|error| error.to_string())?;
        self.record(&launched).inspect_err(|_| {
            let _ = sys::process::signal_process(&launched.pidfd, 9);
            let _ = sys::process::wait_process(&launched.pidfd, Wait::Block);
            let _ = launched.cgroup.as_ref().map(sys::cgroup::Cgroup::remove);
        })?;
        globals.warn(&launched.warnings);
        Ok(launched)
    }

    fn record(&self, launched: &Launched) -> Result<(), Failure> {
        let state = State {
            id: self.id.clone(),
            pid: launched.pid.as_raw_nonzero().get(),
            start_ticks: start_ticks(launched.pid).ok_or("the container's process has died")?,
            bundle: self.bundle.clone(),
            cgroup: launched.cgroup.as_ref().map(|_| self.cgroup.clone()),
            created: now(),
            spec: self.spec.clone(),
        };
        self.directory.save(&state).map_err(told)?;
        if let (Some(socket), Some(master)) = (self.flags.get("console-socket"), &launched.terminal)
        {
            console::send_master(Path::new(socket), master.as_fd())
                .map_err(at("send the terminal"))?;
        }
        write_pid(&self.flags, launched.pid)
    }
}

fn write_pid(flags: &Parsed, pid: Pid) -> Result<(), Failure> {
    let Some(path) = flags.get("pid-file") else { return Ok(()) };
    // Readers poll for the file, so it has to appear whole.
    let temporary = format!("{path}.new");
    let written = std::fs::write(&temporary, pid.as_raw_nonzero().to_string());
    written.and_then(|()| std::fs::rename(&temporary, path)).map_err(at(format!("write {path}")))
}

/// The document's path; with `--systemd-cgroup` its form is SLICE:PREFIX:NAME, and the group is made
/// where systemd would make it.
fn cgroup_path(asked: &str, id: &str, systemd: bool) -> PathBuf {
    let mut parts = asked.split(':');
    if systemd
        && let (Some(slice), Some(prefix), Some(name)) = (parts.next(), parts.next(), parts.next())
    {
        let mut path = PathBuf::from("/");
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let stem = slice.strip_suffix(".slice").unwrap_or(slice);
        // systemd.slice(5): a-b.slice lies in a.slice.
        let mut so_far = String::new();
        for part in stem.split('-').filter(|part| !part.is_empty()) {
            if !so_far.is_empty() {
                so_far.push('-');
            }
            so_far.push_str(part);
            path.push(format!("{so_far}.slice"));
        }
        let scope = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
        return path.join(format!("{scope}.scope"));
    }
    if asked.is_empty() { Path::new("/tug").join(id) } else { Path::new("/").join(asked) }
}

fn number<T: std::str::FromStr>(flags: &Parsed, name: &str) -> Result<Option<T>, Failure> {
    let Some(text) = flags.get(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("invalid value {text:?} for flag -{name}"))
}

/// Bytes: a number, also with a unit as in `64M`; -1 is no limit. Source: runc `update.go`.
fn size(flags: &Parsed, name: &str) -> Result<Option<i64>, Failure> {
    let Some(text) = flags.get(name) else { return Ok(None) };
    if text == "-1" {
        return Ok(Some(-1));
    }
    let bytes = spec::units::ram_in_bytes(text).ok().and_then(|bytes| i64::try_from(bytes).ok());
    bytes.map(Some).ok_or_else(|| format!("invalid value {text:?} for flag -{name}"))
}

pub(super) fn create(globals: &Globals, args: &[String]) -> Verdict {
    let order = Order::read(globals, args)?;
    order.check_console(false)?;
    order.make(globals)?;
    Ok(ExitCode::SUCCESS)
}

/// A container that exists.
pub(super) fn find(globals: &Globals, id: &str) -> Result<(Directory, State), Failure> {
    let directory = Directory::find(&globals.root, id).map_err(told)?;
    let state = directory.load().map_err(told)?;
    Ok((directory, state))
}

pub(super) fn start(globals: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, &[])?;
    let (directory, state) = find(globals, flags.word(0, "a container ID")?)?;
    match state.status(&directory) {
        Status::Created => {}
        Status::Stopped => return Err("cannot start a container that has stopped".to_owned()),
        Status::Running | Status::Paused => {
            return Err("cannot start an already running container".to_owned());
        }
    }
    let_go(&directory, &state)?;
    Ok(ExitCode::SUCCESS)
}

fn let_go(directory: &Directory, state: &State) -> Result<(), Failure> {
    let socket =
        sys::socket::connect(&directory.gate()).map_err(at("cannot start the container"))?;
    // Once it is gone no second start can get in between.
    std::fs::remove_file(directory.gate()).map_err(at("cannot start the container"))?;
    launch::start_through(OwnedFd::from(socket)).map_err(|error| error.to_string())?;
    run_hooks(state, "poststart", "running", state.pid).or_else(|error| {
        eprintln!("warning: {error}");
        Ok(())
    })
}

fn run_hooks(state: &State, stage: &str, status: &str, pid: i32) -> Result<(), Failure> {
    let Some(list) = &state.spec.hooks else { return Ok(()) };
    let list = if stage == "poststart" { &list.poststart } else { &list.poststop };
    let pid = u32::try_from(pid).unwrap_or(0);
    let told = hooks::State { id: &state.id, status, pid, bundle: &state.bundle };
    hooks::run(list, stage, &told, &state.spec).map_err(|error: LaunchError| error.message)
}

pub(super) fn run(globals: &Globals, args: &[String]) -> Verdict {
    let order = Order::read(globals, args)?;
    let detach = order.flags.has("detach");
    order.check_console(!detach)?;
    let launched = order.make(globals)?;
    let state = order.directory.load().map_err(told)?;
    if let Err(error) = let_go(&order.directory, &state) {
        remove(&order.directory, &state, Force::Yes)?;
        return Err(error);
    }
    if detach {
        return Ok(ExitCode::SUCCESS);
    }
    let exit = attend(launched.terminal.as_ref(), &launched.pidfd)?;
    if !order.flags.has("keep") {
        remove(&order.directory, &state, Force::Yes)?;
    }
    Ok(code(exit))
}

fn attend(terminal: Option<&OwnedFd>, pidfd: &OwnedFd) -> Result<Exit, Failure> {
    let exit = match terminal {
        Some(master) => console::relay(master, pidfd),
        None => forward_signals(pidfd),
    };
    exit.map_err(at("wait for the process"))
}

/// Waits, handing on signals that are sent to us.
fn forward_signals(pidfd: &OwnedFd) -> std::io::Result<Exit> {
    sys::process::block_signals();
    loop {
        // Looked at before waiting: it may have ended before its signal could be held.
        if let Some(exit) = sys::process::wait_process(pidfd, Wait::Poll)? {
            return Ok(exit);
        }
        let signal = sys::process::wait_signal()?;
        if signal != rustix::process::Signal::CHILD.as_raw() {
            let _ = sys::process::signal_process(pidfd, signal);
        }
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(u8::try_from(exit.code()).unwrap_or(255))
}

fn shown(directory: &Directory, state: &State) -> serde_json::Value {
    let status = state.status(directory);
    let root = state.spec.root.as_ref().map(|root| state.bundle.join(&root.path));
    json!({
        "ociVersion": spec::runtime::VERSION,
        "id": state.id,
        "pid": if status == Status::Stopped { 0 } else { state.pid },
        "status": status.word(),
        "bundle": state.bundle,
        "rootfs": root,
        "created": state.created,
        "owner": "",
        "annotations": state.spec.annotations,
    })
}

pub(super) fn state(globals: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, &[])?;
    let (directory, state) = find(globals, flags.word(0, "a container ID")?)?;
    print(&shown(&directory, &state))
}

fn print(value: &serde_json::Value) -> Verdict {
    let text = serde_json::to_string_pretty(value).map_err(told)?;
    writeln!(std::io::stdout(), "{text}").map_err(at("write"))?;
    Ok(ExitCode::SUCCESS)
}

/// A signal by number, or by name with or without `SIG`.
fn signal(text: &str) -> Result<i32, Failure> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = text.parse::<i32>() {
        return Ok(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let at = NAMES
        .iter()
        .position(|known| *known == name)
        .ok_or_else(|| format!("unknown signal {text:?}"))?;
    Ok(i32::try_from(at).unwrap_or(0) + 1)
}

pub(super) fn kill(globals: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, KILL)?;
    let (_, state) = find(globals, flags.word(0, "a container ID")?)?;
    let number = signal(flags.words.get(1).map_or("SIGTERM", String::as_str))?;
    if flags.has("all") && number == 9 {
        if let Some(cgroup) = state.cgroup() {
            cgroup.kill().map_err(at("kill all processes"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if flags.has("all")
        && let Some(cgroup) = state.cgroup()
    {
        for pid in cgroup.processes().map_err(at("list processes"))? {
            if let Ok(pidfd) = sys::process::open_process(pid) {
                let _ = sys::process::signal_process(&pidfd, number);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some((_, pidfd)) = state.process() else { return Err("container not running".to_owned()) };
    sys::process::signal_process(&pidfd, number).map_err(at("unable to signal init"))?;
    // A frozen process of version 1 takes its death only once thawed.
    if number == 9
        && let Some(cgroup) = state.cgroup()
        && cgroup.is_frozen().unwrap_or(false)
    {
        cgroup.freeze(Freeze::Thaw).map_err(at("thaw"))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Force {
    Yes,
    No,
}

pub(super) fn delete(globals: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, DELETE)?;
    let force = if flags.has("force") { Force::Yes } else { Force::No };
    let id = flags.word(0, "a container ID")?;
    let directory = Directory::find(&globals.root, id).map_err(told)?;
    match directory.load() {
        Ok(state) => remove(&directory, &state, force)?,
        Err(error) => {
            // A create that was killed half-way has a directory and no state.
            directory.remove().map_err(told)?;
            if force == Force::No {
                return Err(told(error));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(directory: &Directory, state: &State, force: Force) -> Result<(), Failure> {
    let status = state.status(directory);
    let may = match status {
        Status::Stopped | Status::Created => true,
        Status::Running | Status::Paused => force == Force::Yes,
    };
    if !may {
        return Err(format!(
            "cannot delete container {} that is not stopped: {}",
            state.id,
            status.word()
        ));
    }
    if let Some((_, pidfd)) = state.process() {
        sys::process::signal_process(&pidfd, 9).map_err(at("kill the container"))?;
    }
    if let Some(cgroup) = state.cgroup().filter(|cgroup| !cgroup.directories().is_empty()) {
        cgroup.kill().map_err(at("kill all processes"))?;
        cgroup.remove().map_err(at("unable to remove the container's cgroup"))?;
    }
    directory.remove().map_err(told)?;
    run_hooks(state, "poststop", "stopped", 0).or_else(|error| {
        eprintln!("warning: {error}");
        Ok(())
    })
}

fn exec_process(flags: &Parsed, state: &State) -> Result<(Process, Option<UserRequest>), Failure> {
    if let Some(path) = flags.get("process") {
        let text = std::fs::read(path).map_err(at(format!("read {path}")))?;
        let process = serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?;
        return Ok((process, None));
    }
    let mut process = state.spec.process.clone().unwrap_or_default();
    process.args = flags.words[1..].to_vec();
    if process.args.is_empty() {
        return Err("exec needs a command".to_owned());
    }
    process.terminal = flags.has("tty");
    process.env.extend_from_slice(flags.all("env"));
    if let Some(cwd) = flags.get("cwd") {
        process.cwd = cwd.to_owned();
    }
    if flags.has("no-new-privs") {
        process.no_new_privileges = true;
    }
    if let Some(profile) = flags.get("apparmor") {
        process.apparmor_profile = profile.to_owned();
    }
    if let Some(label) = flags.get("process-label").filter(|label| !label.is_empty()) {
        return Err(format!("SELinux labels are not supported: {label}"));
    }
    let capabilities = process.capabilities.get_or_insert_default();
    for name in flags.all("cap") {
        for set in
            [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted]
        {
            set.push(name.clone());
        }
    }
    let groups = flags.all("additional-gids").to_vec();
    let user = match flags.get("user") {
        Some(user) => Some(UserRequest { user: user.to_owned(), groups }),
        None if groups.is_empty() => None,
        None => {
            Some(UserRequest { user: format!("{}:{}", process.user.uid, process.user.gid), groups })
        }
    };
    Ok((process, user))
}

pub(super) fn exec(globals: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, EXEC)?;
    let (directory, state) = find(globals, flags.word(0, "a container ID")?)?;
    if state.status(&directory) == Status::Paused && !flags.has("ignore-paused") {
        return Err(
            "cannot exec in a paused container (use --ignore-paused to override)".to_owned()
        );
    }
    let Some((pid, pidfd)) = state.process() else {
        return Err("cannot exec in a stopped container".to_owned());
    };
    let (process, user) = exec_process(&flags, &state)?;
    let detach = flags.has("detach");
    let socket = flags.get("console-socket");
    if process.terminal && detach && socket.is_none() {
        return Err(
            "cannot allocate tty if runc will detach without setting console socket".to_owned()
        );
    }
    let seccomp = match state.spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) {
        Some(section) => Some(crate::seccomp::compile(section).map_err(told)?),
        None => None,
    };
    let cgroup = match (flags.get("cgroup"), &state.cgroup) {
        (Some(below), Some(path)) => {
            Some(sys::cgroup::Cgroup::find(&path.join(below.trim_start_matches('/'))))
        }
        (_, _) => state.cgroup(),
    };
    let request = ExecRequest {
        pid,
        pidfd: pidfd.as_fd(),
        process: &process,
        stdio: if process.terminal { Stdio::Terminal { size: None } } else { Stdio::Inherit },
        cgroup: cgroup.as_ref(),
        user: user.as_ref(),
        seccomp: seccomp.as_ref(),
        preserved_fds: number(&flags, "preserve-fds")?.unwrap_or(0),
    };
    let launched = execute(&request).map_err(|error| {
        format!("exec failed: unable to start container process: {}", error.message)
    })?;
    let ExecLaunched { pid, pidfd, terminal, warnings } = launched;
    globals.warn(&warnings);
    if let (Some(socket), Some(master)) = (socket, &terminal) {
        console::send_master(Path::new(socket), master.as_fd()).map_err(at("send the terminal"))?;
    }
    write_pid(&flags, pid)?;
    if detach {
        return Ok(ExitCode::SUCCESS);
    }
    let master = terminal.as_ref().filter(|_| socket.is_none());
    Ok(code(attend(master, &pidfd)?))
}

pub(super) fn list(globals: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, LIST)?;
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(&globals.root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        done => Some(done.map_err(at(format!("read {}", globals.root.display())))?),
    };
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that is being made or removed is not there yet, or any more.
        if let Ok((directory, state)) = find(globals, &name) {
            found.push(shown(&directory, &state));
        }
    }
    if flags.get("format") == Some("json") {
        return print(&serde_json::Value::Array(found));
    }
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if !flags.has("quiet") {
        println!("{:<40} {:<10} {:<10} {:<40} CREATED", "ID", "PID", "STATUS", "BUNDLE");
    }
    for state in &found {
        let column = |name: &str| text(&state[name]);
        if flags.has("quiet") {
            println!("{}", column("id"));
        } else {
            println!(
                "{:<40} {:<10} {:<10} {:<40} {}",
                column("id"),
                column("pid"),
                column("status"),
                column("bundle"),
                column("created")
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn ps(globals: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, LIST)?;
    let (_, state) = find(globals, flags.word(0, "a container ID")?)?;
    let cgroup = state.cgroup().ok_or("the container has no cgroup")?;
    let pids = cgroup.processes().map_err(at("list processes"))?;
    let pids: Vec<i32> = pids.into_iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    if flags.get("format") == Some("json") {
        return print(&json!(pids));
    }
    // As runc does: the host's ps, whose options follow the id, without the lines of other processes.
    let options = match &flags.words[1..] {
        [] => &["-ef".to_owned()],
        given => given,
    };
    let output = std::process::Command::new("ps").args(options).output().map_err(at("ps"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    write!(std::io::stdout(), "{}", of_processes(&text, &pids)?).map_err(at("write"))?;
    Ok(ExitCode::SUCCESS)
}

/// The head of a table of ps(1) and the lines of these processes.
fn of_processes(table: &str, pids: &[i32]) -> Result<String, Failure> {
    let head = table.lines().next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or("couldn't find PID field in ps output")?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let lines = [head].into_iter().chain(table.lines().skip(1).filter(ours));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

fn set_frozen(globals: &Globals, args: &[String], freeze: Freeze, needs: Status) -> Verdict {
    let flags = parse(args, &[])?;
    let (directory, state) = find(globals, flags.word(0, "a container ID")?)?;
    let status = state.status(&directory);
    if status != needs {
        let words = if freeze == Freeze::Freeze { "not running" } else { "not paused" };
        return Err(format!("container {words}: {}", status.word()));
    }
    let cgroup = state.cgroup().ok_or("the container has no cgroup")?;
    cgroup.freeze(freeze).map_err(at("freezer"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pause(globals: &Globals, args: &[String]) -> Verdict {
    set_frozen(globals, args, Freeze::Freeze, Status::Running)
}

pub(super) fn resume(globals: &Globals, args: &[String]) -> Verdict {
    set_frozen(globals, args, Freeze::Thaw, Status::Paused)
}

pub(super) fn update(globals: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, UPDATE)?;
    let (_, state) = find(globals, flags.word(0, "a container ID")?)?;
    let cgroup = state.cgroup().ok_or("the container has no cgroup")?;
    let mut wanted = match flags.get("resources") {
        Some("-") => serde_json::from_reader::<_, Resources>(std::io::stdin()).map_err(told)?,
        Some(path) => {
            let text = std::fs::read(path).map_err(at(format!("read {path}")))?;
            serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?
        }
        None => Resources::default(),
    };
    overlay_flags(&flags, &mut wanted)?;
    resources::update(&cgroup, &wanted).map_err(|error| error.message)?;
    Ok(ExitCode::SUCCESS)
}

fn overlay_flags(flags: &Parsed, wanted: &mut Resources) -> Result<(), Failure> {
    if ["memory", "memory-swap", "memory-reservation"].iter().any(|name| flags.get(name).is_some())
    {
        let memory = wanted.memory.get_or_insert_default();
        memory.limit = size(flags, "memory")?.or(memory.limit);
        memory.swap = size(flags, "memory-swap")?.or(memory.swap);
        memory.reservation = size(flags, "memory-reservation")?.or(memory.reservation);
    }
    let names = ["cpu-share", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];
    if names.iter().any(|name| flags.get(name).is_some()) {
        let cpu = wanted.cpu.get_or_insert_default();
        cpu.shares = number(flags, "cpu-share")?.or(cpu.shares);
        cpu.period = number(flags, "cpu-period")?.or(cpu.period);
        cpu.quota = number(flags, "cpu-quota")?.or(cpu.quota);
        if let Some(cpus) = flags.get("cpuset-cpus") {
            cpu.cpus = cpus.to_owned();
        }
        if let Some(mems) = flags.get("cpuset-mems") {
            cpu.mems = mems.to_owned();
        }
    }
    if let Some(limit) = number(flags, "pids-limit")? {
        wanted.pids = Some(spec::runtime::Pids { limit });
    }
    if let Some(weight) = number(flags, "blkio-weight")? {
        wanted.block_io.get_or_insert_default().weight = Some(weight);
    }
    Ok(())
}

pub(super) fn features(_: &Globals, args: &[String]) -> Verdict {
    parse(args, &[])?;
    print(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": spec::runtime::VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "exec", "idmap", "noatime", "nodev", "nodiratime", "noexec",
            "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime", "rexec", "ridmap",
            "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime",
            "rro", "rrw", "rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared",
            "slave", "strictatime", "suid", "symfollow", "tmpcopyup", "unbindable"
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": sys::capability::names().collect::<Vec<_>>(),
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "knownFlags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"],
                "supportedFlags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"]
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "memoryPolicy": {
                "modes": crate::scheduling::memory_modes().collect::<Vec<_>>(),
                "flags": crate::scheduling::memory_flags().collect::<Vec<_>>()
            },
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": false}
        }
    }))
}

pub(super) fn spec(_: &Globals, args: &[String]) -> Verdict {
    let flags = parse(args, SPEC)?;
    let path = Path::new(flags.get("bundle").unwrap_or(".")).join("config.json");
    let mut document = super::document::default_spec().map_err(told)?;
    if flags.has("rootless") {
        super::document::make_rootless(&mut document);
    }
    let text = serde_json::to_string_pretty(&document).map_err(told)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let file = file.as_mut().map_err(|error| format!("{}: {}", path.display(), words(error)))?;
    writeln!(file, "{text}").map_err(at(format!("write {}", path.display())))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_nest_by_their_dashes() {
        assert_eq!(
            cgroup_path("machine-a.slice:libpod:xyz", "id", true),
            Path::new("/machine.slice/machine-a.slice/libpod-xyz.scope")
        );
        assert_eq!(cgroup_path("", "id", false), Path::new("/tug/id"));
        assert_eq!(cgroup_path("docker/x", "id", false), Path::new("/docker/x"));
    }

    #[test]
    fn a_table_of_processes_keeps_its_head_and_ours() {
        let table = "UID PID CMD\nroot 1 init\nroot 12 sleep 1\n";
        assert_eq!(of_processes(table, &[12]).unwrap(), "UID PID CMD\nroot 12 sleep 1\n");
        assert!(of_processes("CMD\nx\n", &[12]).is_err());
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal("SIGTERM"), Ok(15));
        assert_eq!(signal("kill"), Ok(9));
        assert_eq!(signal("37"), Ok(37));
        assert!(signal("SIGNOPE").is_err());
    }

    #[test]
    fn sizes_have_units() {
        for (text, want) in [
            ("64M", Some(64 << 20)),
            ("1gib", Some(1 << 30)),
            ("1.5g", Some(3 << 29)),
            ("-1", Some(-1)),
            ("-2", None),
            ("7x", None),
        ] {
            let words = ["--memory".to_owned(), text.to_owned()];
            let flags = parse(&words, UPDATE).unwrap();
            assert_eq!(size(&flags, "memory").ok().flatten(), want, "{text}");
        }
    }
}
