//! The child's half of a launch: from a fresh clone to the container's program.
//!
//! Order matters and is this: hide, standard streams, join the control groups (their namespace shows
//! where we are), close what is not needed, namespaces, mounts, hooks of the runtime, pivot, close all
//! but the channel, kernel settings, terminal, look up the user, give up privileges, look up the
//! program, the gate, filter, exec.
//!
//! Always true:
//! - The process is not dumpable until execve.
//! - When anything of the container's is looked up (user, directory, program), nothing is open but
//!   the standard streams, the channel and what the caller hands on. So no path of the image's, such
//!   as /proc/self/fd/N/.., leads to the host (CVE-2024-21626).
//! - The filter is installed last: no call of ours but execve runs under it, so a filter needs to
//!   allow only what the program does. Without no_new_privs that takes CAP_SYS_ADMIN, which is
//!   therefore held until execve; execve computes the program's capabilities from the bounding, the
//!   inheritable and the ambient set (capabilities(7)), and it is in none of them that was not asked.

mod copy_up;
pub(crate) mod filesystem;
pub(crate) mod identity;
pub(crate) mod procfs;
pub(crate) mod program;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use spec::runtime::{Hook, Process};
use sys::capability::{SYS_ADMIN, Set};
use sys::mount::{self, Attributes, Change, Depth, Propagation};
use sys::namespace::{self, Namespaces};
use sys::path::Root;
use sys::process::{Dumpable, Preserved};
use sys::tty::{self, Size};

use self::procfs::Procfs;
use crate::channel::Channel;
use crate::error::{Kind, LaunchError, at, at_raw, words};
use crate::hooks;
use crate::plan::{OwnedProgram, Plan};
use crate::request::{Keyring, RootChange, Stdio};

/// What holds the child back before its program.
#[derive(Debug)]
pub(crate) enum Gate {
    /// Nothing: [`crate::launch`].
    Open,
    /// A word on the channel: [`crate::create`].
    Channel,
    /// A connection to this socket, which then serves as the channel: `tug runtime start`.
    Listener(OwnedFd),
}

/// Never returns but in failure; the code is the process's.
pub(crate) fn run(plan: &Plan<'_>, channel: Channel, gate: Gate) -> i32 {
    let mut channel = channel;
    let listener = match &gate {
        Gate::Listener(listener) => Some(listener.as_fd()),
        Gate::Open | Gate::Channel => None,
    };
    let program = match prepare(plan, &channel, listener) {
        Ok(program) => program,
        Err(error) => return fail(&channel, &error),
    };
    match gate {
        Gate::Open => {}
        Gate::Channel => {
            if channel.tell(b'R', "").is_err() || !channel.wait().unwrap_or(false) {
                return 1;
            }
        }
        Gate::Listener(listener) => {
            if channel.tell(b'R', "").is_err() {
                return 1;
            }
            drop(channel);
            channel = match accept(&listener) {
                Ok(channel) => channel,
                Err(_) => return 1,
            };
        }
    }
    match finish(plan, &program, &channel) {
        Ok(code) => code,
        Err(error) => fail(&channel, &error),
    }
}

fn accept(listener: &OwnedFd) -> io::Result<Channel> {
    let socket = rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC)?;
    let channel = Channel::over(socket);
    if channel.wait()? { Ok(channel) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

pub(crate) fn fail(channel: &Channel, error: &LaunchError) -> i32 {
    // When even this cannot be told, the parent sees the socket close and says so.
    let _ = channel.fail(error);
    1
}

fn prepare(
    plan: &Plan<'_>,
    channel: &Channel,
    listener: Option<BorrowedFd<'_>>,
) -> Result<program::Program, LaunchError> {
    sys::process::set_dumpable(Dumpable::No).map_err(at("prctl PR_SET_DUMPABLE"))?;
    sys::process::reset_signals();
    connect_streams(&plan.request.stdio, &plan.null)?;
    plan.entry.enter().map_err(at("error adding process to cgroup"))?;
    let talk: Vec<_> = [channel.as_fd()].into_iter().chain(listener).collect();
    let tree = plan.descriptors().chain(talk.iter().copied());
    close_all_but(&tree.collect::<Vec<_>>(), plan.request.preserved_fds)?;
    enter_namespaces(plan, channel)?;
    rustix::process::setsid().map_err(at_raw("setsid"))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    let devpts = set_up_root(plan, channel)?;
    let ours = talk.iter().copied().chain(devpts.as_ref().map(AsFd::as_fd));
    close_all_but(&ours.collect::<Vec<_>>(), plan.request.preserved_fds)?;
    let process = plan.process;
    let proc = Procfs::open().map_err(at("error preparing a proc file system"))?;
    set_kernel_settings(plan, &proc)?;
    set_process_settings(process, &proc, channel)?;
    drop(proc);
    if let Stdio::Terminal { size } = &plan.request.stdio {
        let slave = connect_terminal(*size, process, devpts.as_ref(), channel)?;
        show_console(&slave).map_err(at(CONSOLE_STEP))?;
    }
    drop(devpts);
    if plan.request.keyring == Keyring::New {
        let name = CString::new(format!("_ses.{}", plan.request.id)).unwrap_or_default();
        // As in runc, a kernel without keyrings or a full quota is no reason not to run.
        let _ = sys::process::join_session_keyring(&name);
    }
    let identity = identity::resolve(&container_root()?, process, plan.request.user)?;
    program::enter_directory(&process.cwd, program::Missing::Create)?;
    seal_root(plan)?;
    give_up(process, &identity, plan.seccomp.as_deref())?;
    program::find(&plan.argv, process, &identity)
}

/// Closes what this process has no more use for, copies of the parent's included.
pub(crate) fn close_all_but(keep: &[BorrowedFd<'_>], preserved: u32) -> Result<(), LaunchError> {
    sys::process::close_all_but(keep, Preserved(preserved)).map_err(at("close descriptors"))
}

/// The container's tree, once it is our root.
pub(crate) fn container_root() -> Result<Root, LaunchError> {
    Root::open_at(Path::new("/")).map_err(at("open the root"))
}

fn enter_namespaces(plan: &Plan<'_>, channel: &Channel) -> Result<(), LaunchError> {
    let wanted = &plan.namespaces;
    if wanted.new.contains(Namespaces::USER) {
        ask(channel, b'M', "map users")?;
        sys::capability::set_identity(0, 0, &[])
            .map_err(at("become root of the user namespace"))?;
    }
    // Namespaces were cloned together with the process, but the cgroup one shows the group that its
    // maker is in, and on version 1 we have only just moved.
    if wanted.new.contains(Namespaces::CGROUP) {
        namespace::unshare(Namespaces::CGROUP).map_err(at("unshare cgroup namespace"))?;
    }
    for (kind, descriptor) in wanted.join.iter().filter(|(kind, _)| *kind != Namespaces::PID) {
        namespace::join(descriptor, *kind).map_err(at("setns"))?;
    }
    let spec = plan.request.spec;
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).map_err(at_raw("sethostname"))?;
    }
    if !spec.domainname.is_empty() {
        rustix::system::setdomainname(spec.domainname.as_bytes())
            .map_err(at_raw("setdomainname"))?;
    }
    Ok(())
}

fn ask(channel: &Channel, question: u8, step: &str) -> Result<(), LaunchError> {
    let answered = channel.tell(question, "").and_then(|()| channel.wait()).map_err(at(step))?;
    if answered {
        Ok(())
    } else {
        Err(LaunchError::new(Kind::Other, format!("{step}: the runtime has gone away")))
    }
}

/// Builds the container's tree and makes it ours; gives the devpts for a terminal.
fn set_up_root(plan: &Plan<'_>, channel: &Channel) -> Result<Option<OwnedFd>, LaunchError> {
    mount::change_all(Propagation::Private).map_err(at("make mounts private"))?;
    // On top of the old root: any other place would have to exist on the host. `pivot` and chroot
    // both go by the descriptor, which looks past the covered one.
    let top = rustix::fs::open(
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(at_raw("open /"))?;
    let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
    mount::change(&plan.rootfs, Depth::Recursive, private)
        .map_err(at("make the root file system private"))?;
    mount::attach(&plan.rootfs, &top).map_err(at("attach the root file system"))?;
    let built = filesystem::build(plan)?;
    if let Some(list) = plan.request.spec.hooks.as_ref() {
        if !list.prestart.is_empty() || !list.create_runtime.is_empty() {
            ask(channel, b'H', "run hooks")?;
        }
        run_own_hooks(plan, &list.create_container, "createContainer")?;
    }
    match plan.request.root_change {
        RootChange::Pivot => mount::pivot(&plan.rootfs)
            .map_err(at("error jailing process inside rootfs: pivot_root"))?,
        RootChange::Chroot => {
            rustix::process::fchdir(&plan.rootfs)
                .map_err(at_raw("chdir to the root file system"))?;
            rustix::process::chroot(".").map_err(at_raw("chroot"))?;
        }
    }
    Ok(built.devpts)
}

fn run_own_hooks(plan: &Plan<'_>, list: &[Hook], stage: &str) -> Result<(), LaunchError> {
    let state = hooks::State {
        id: plan.request.id,
        status: "creating",
        pid: std::process::id(),
        bundle: plan.request.bundle,
    };
    hooks::run(list, stage, &state, plan.request.spec)
}

fn set_kernel_settings(plan: &Plan<'_>, proc: &Procfs) -> Result<(), LaunchError> {
    for (name, value) in &plan.linux.sysctl {
        let path = spec::sysctl::Sysctl::parse(name)
            .map_err(|error| LaunchError::new(Kind::Other, error.to_string()))?
            .path();
        proc.write(&path, value.as_bytes())
            .map_err(|error| LaunchError::step(format!("open /proc/{}", path.display()), &error))?;
    }
    let propagation = plan.linux.rootfs_propagation.trim_start_matches('r');
    let propagation = match propagation {
        "shared" => Some(Propagation::Shared),
        "slave" => Some(Propagation::Slave),
        "unbindable" => Some(Propagation::Unbindable),
        _ => None,
    };
    if propagation.is_some() {
        let change = Change { propagation, ..Change::default() };
        mount::change(container_root()?, Depth::Only, change)
            .map_err(at("set the root's propagation"))?;
    }
    if let Some(policy) = &plan.linux.memory_policy {
        crate::scheduling::apply_memory_policy(policy)?;
    }
    if let Some(personality) = plan.personality {
        sys::process::set_personality(personality).map_err(at("personality"))?;
    }
    Ok(())
}

/// Settings of the process itself that `exec` has as well.
pub(crate) fn set_process_settings(
    process: &Process,
    proc: &Procfs,
    channel: &Channel,
) -> Result<(), LaunchError> {
    for limit in &process.rlimits {
        let Some(number) = sys::rlimit::number(&limit.kind) else {
            return Err(LaunchError::new(
                Kind::Other,
                format!("invalid rlimit type: {}", limit.kind),
            ));
        };
        let outcome = sys::rlimit::set(number, limit.soft, limit.hard)
            .map_err(at(format!("error setting rlimit type {number}")))?;
        if let sys::rlimit::Outcome::Lowered { hard, soft } = outcome {
            let text =
                format!("{} lowered to {soft}:{hard}: the host may not raise limits", limit.kind);
            let _ = channel.tell(b'W', &text);
        }
    }
    crate::scheduling::apply(process)?;
    if let Some(adjustment) = process.oom_score_adj {
        match proc.write("self/oom_score_adj".as_ref(), adjustment.to_string().as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let _ = channel.tell(b'W', "oom_score_adj kept: the host may not lower it");
            }
            done => done.map_err(at("write oom_score_adj"))?,
        }
    }
    if !process.apparmor_profile.is_empty() {
        let line = format!("exec {}", process.apparmor_profile);
        let written = proc
            .write("self/attr/apparmor/exec".as_ref(), line.as_bytes())
            .or_else(|_| proc.write("self/attr/exec".as_ref(), line.as_bytes()));
        // Source: runc `libcontainer/apparmor`.
        written.map_err(|error| {
            let why = if apparmor_enabled() {
                format!("apparmor failed to apply profile: {}", words(&error))
            } else {
                "apparmor: config provided but apparmor not supported".to_owned()
            };
            LaunchError::new(Kind::Other, format!("unable to apply apparmor profile: {why}"))
        })?;
    }
    Ok(())
}

const CONSOLE_STEP: &str = "error setting up the console";

/// Puts the standard streams in place, but for a terminal.
pub(crate) fn connect_streams(stdio: &Stdio<'_>, null: &OwnedFd) -> Result<(), LaunchError> {
    let Stdio::Streams { stdin, stdout, stderr } = stdio else { return Ok(()) };
    // A stream of the caller's may itself have one of the numbers: move all away first.
    let away = |fd: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(at_raw("duplicate the standard streams"))
    };
    let streams = [away(stdin.unwrap_or(null.as_fd()))?, away(*stdout)?, away(*stderr)?];
    streams.iter().zip(0..).try_for_each(|(stream, number)| put_stream(stream.as_fd(), number))
}

fn put_stream(fd: BorrowedFd<'_>, number: i32) -> Result<(), LaunchError> {
    sys::process::set_standard_stream(fd, number).map_err(at("connect the standard streams"))
}

/// Makes a terminal of the container's the standard streams; gives its slave.
pub(crate) fn connect_terminal(
    size: Option<Size>,
    process: &Process,
    devpts: Option<&OwnedFd>,
    channel: &Channel,
) -> Result<OwnedFd, LaunchError> {
    let step = CONSOLE_STEP;
    let devpts = devpts.ok_or_else(|| {
        LaunchError::new(Kind::Other, format!("{step}: the container has no devpts at /dev/pts"))
    })?;
    let pty = tty::open_pty(devpts).map_err(at(step))?;
    let asked = process.console_size.map(|size| Size { rows: size.height, columns: size.width });
    if let Some(size) = size.or(asked) {
        tty::resize(&pty.slave, size).map_err(at(step))?;
    }
    tty::set_controlling(&pty.slave).map_err(at(step))?;
    for number in 0..=2 {
        put_stream(pty.slave.as_fd(), number)?;
    }
    channel.tell_with(b'T', "", &[pty.master.as_fd()]).map_err(at(step))?;
    Ok(pty.slave)
}

/// Shows the first process's terminal as /dev/console. Those of later ones are nobody's console, and
/// over a terminal that is gone nothing can be mounted.
fn show_console(slave: &OwnedFd) -> io::Result<()> {
    // Some images have no /dev at all; then there is nowhere to show it.
    let Ok(console) = filesystem::console() else { return Ok(()) };
    let shown = mount::clone_tree(slave, "".as_ref(), Depth::Only)?;
    mount::attach(shown, console)
}

/// The last of the mounts: what had to stay writable until now.
fn seal_root(plan: &Plan<'_>) -> Result<(), LaunchError> {
    if plan.request.spec.root.as_ref().is_some_and(|root| root.readonly) {
        let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
        mount::change(container_root()?, Depth::Only, change)
            .map_err(at("make the root file system read-only"))?;
    }
    Ok(())
}

/// From the open gate to the program.
fn finish(
    plan: &Plan<'_>,
    program: &program::Program,
    channel: &Channel,
) -> Result<i32, LaunchError> {
    if let Some(list) = plan.request.spec.hooks.as_ref() {
        run_own_hooks(plan, &list.start_container, "startContainer")?;
    }
    let preserved = plan.request.preserved_fds;
    become_program(plan.process, plan.seccomp.as_deref(), preserved, program, channel)
}

/// Becomes the program's user, with no more than its privileges and what the filter takes.
pub(crate) fn give_up(
    process: &Process,
    identity: &identity::Identity,
    filter: Option<&OwnedProgram>,
) -> Result<(), LaunchError> {
    identity::own_streams(identity);
    if process.no_new_privileges {
        sys::process::set_no_new_privileges().map_err(at("prctl PR_SET_NO_NEW_PRIVS"))?;
    }
    let until_exec = if filter.is_some() && !process.no_new_privileges {
        Set::EMPTY.with(SYS_ADMIN)
    } else {
        Set::EMPTY
    };
    identity::assume(identity, process.capabilities.as_ref(), until_exec)?;
    // setuid(2): a change of user makes the process what fs.suid_dumpable says.
    sys::process::set_dumpable(Dumpable::No).map_err(at("prctl PR_SET_DUMPABLE"))?;
    program::enter_directory_again(&process.cwd)
}

/// Installs the filter and executes. `Ok` is the code to end with when the kernel refuses the program
/// itself: like runc's, that container has started and says why on its stderr.
pub(crate) fn become_program(
    process: &Process,
    filter: Option<&OwnedProgram>,
    preserved: u32,
    program: &program::Program,
    channel: &Channel,
) -> Result<i32, LaunchError> {
    let mask = process.user.umask.unwrap_or(0o022);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask & 0o777));
    sys::process::close_all_on_exec(Preserved(preserved)).map_err(at("close descriptors"))?;
    channel.tell(b'X', "").map_err(at("report to the runtime"))?;
    if let Some(filter) = filter {
        filter.install().map_err(at("error loading seccomp filter into kernel"))?;
    }
    let error = program.execute();
    eprintln!("exec {}: {}", program.path(), words(&error));
    Ok(255)
}

fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with(b"Y"))
}
