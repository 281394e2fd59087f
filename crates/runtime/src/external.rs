//! The same interface against another OCI runtime's command line: `--runtime runc`.
//!
//! A root file system of ours is a descriptor, the other runtime wants a directory. So `create` runs
//! in a mount namespace of its own, in which the root is attached below the bundle: still nothing
//! shows on the host. What the other runtime cannot look up itself (users by name) is looked up here,
//! through the same descriptor.
//!
//! Its processes are orphans once its command has ended; the caller, a subreaper from the first call
//! on, inherits them, so they are waited for like our own.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{FileType, Mode, OFlags};
use spec::runtime::{Mount, NamespaceKind, Process, Spec};
use sys::cgroup::Cgroup;
use sys::mount::{self, Depth};
use sys::path::Root;
use sys::process::Pid;

use crate::error::{Kind, LaunchError, at, at_raw};
use crate::inside::identity;
use crate::request::{
    CgroupPlan, ExecLaunched, ExecRequest, Init, Keyring, LaunchRequest, Launched, RootChange,
    Stdio, UserRequest,
};
use crate::rootfs;

/// Another OCI runtime.
#[derive(Debug, Clone)]
pub struct External {
    /// Its command.
    pub program: PathBuf,
    /// Further arguments before the verb: daemon.json's `runtimeArgs`.
    pub arguments: Vec<String>,
    /// Where it keeps its state.
    pub root: PathBuf,
    /// Where we put documents, sockets and logs; one directory for each container.
    pub scratch: PathBuf,
}

const CONSOLE_NAME: &str = "console.sock";

/// Where the other runtime sends a terminal.
struct Console {
    listener: UnixListener,
    directory: OwnedFd,
}

impl Console {
    /// A way to the socket that fits into an address (unix(7): 108 bytes) however long the directory's
    /// own is, and from whatever working directory.
    fn path(&self) -> PathBuf {
        let fd = self.directory.as_raw_fd();
        format!("/proc/{}/fd/{fd}/{CONSOLE_NAME}", std::process::id()).into()
    }
}

/// Whether a verb insists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    Yes,
    No,
}

impl External {
    /// Makes a container and starts its program, like [`crate::launch`].
    ///
    /// # Errors
    /// With what the other runtime says.
    pub fn launch(&self, request: &LaunchRequest<'_>) -> Result<Launched, LaunchError> {
        sys::process::set_subreaper().map_err(at("become a subreaper"))?;
        let bundle = self.scratch.join("bundle");
        let tree = bundle.join("rootfs");
        std::fs::create_dir_all(&tree).map_err(at(format!("make {}", tree.display())))?;
        let rootfs =
            rootfs::open(request.rootfs).map_err(at("error mounting the root file system"))?;
        let mut spec = document(request, &rootfs)?;
        let mut mounts = vec![(rootfs, c_path(tree)?)];
        mounts.extend(held_trees(&mut spec, &bundle)?);
        write_json(&bundle.join("config.json"), &spec)?;
        let console = self.console(&request.stdio)?;
        let pid_file = self.scratch.join("pid");
        let mut command = self.command("create");
        command.arg("--bundle").arg(&bundle).arg("--pid-file").arg(&pid_file);
        if let Some(console) = &console {
            command.arg("--console-socket").arg(console.path());
        }
        if request.keyring == Keyring::Keep {
            command.arg("--no-new-keyring");
        }
        if request.root_change == RootChange::Chroot {
            command.arg("--no-pivot");
        }
        command.arg(request.id);
        connect(&mut command, &request.stdio)?;
        sys::process::with_private_mounts(&mut command, mounts);
        self.run(command)?;
        self.finish(request, &pid_file, console).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.delete(request.id, Force::Yes);
        })
    }

    fn finish(
        &self,
        request: &LaunchRequest<'_>,
        pid_file: &Path,
        console: Option<Console>,
    ) -> Result<Launched, LaunchError> {
        let (pid, pidfd) = read_pid(pid_file)?;
        let terminal = console.map(|console| receive(&console.listener)).transpose()?;
        let mut command = self.command("start");
        command.arg(request.id);
        self.run(quiet(command))?;
        let cgroup = match &request.cgroup {
            CgroupPlan::Path(path) => Some(Cgroup::find(path)),
            CgroupPlan::Inherit => None,
        };
        Ok(Launched { pid, pidfd, terminal, cgroup, warnings: Vec::new() })
    }

    /// Executes a process in the container `id`, like [`crate::exec`].
    ///
    /// # Errors
    /// With what the other runtime says.
    pub fn exec(&self, id: &str, request: &ExecRequest<'_>) -> Result<ExecLaunched, LaunchError> {
        sys::process::set_subreaper().map_err(at("become a subreaper"))?;
        std::fs::create_dir_all(&self.scratch)
            .map_err(at(format!("make {}", self.scratch.display())))?;
        let mut process = request.process.clone();
        process.terminal = matches!(request.stdio, Stdio::Terminal { .. });
        set_size(&mut process, &request.stdio);
        if request.user.is_some() {
            let path = format!("/proc/{}/root", request.pid.as_raw_nonzero());
            let root = Root::open_at(Path::new(&path)).map_err(at(format!("open {path}")))?;
            set_user(&mut process, &root, request.user)?;
        }
        let document = self.scratch.join("process.json");
        write_json(&document, &process)?;
        let console = self.console(&request.stdio)?;
        let pid_file = self.scratch.join("exec-pid");
        let mut command = self.command("exec");
        command.arg("--process").arg(&document).arg("--detach").arg("--pid-file").arg(&pid_file);
        if let Some(console) = &console {
            command.arg("--console-socket").arg(console.path());
        }
        command.arg(id);
        connect(&mut command, &request.stdio)?;
        self.run(command)?;
        let (pid, pidfd) = read_pid(&pid_file)?;
        let terminal = console.map(|console| receive(&console.listener)).transpose()?;
        Ok(ExecLaunched { pid, pidfd, terminal, warnings: Vec::new() })
    }

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, id: &str, signal: i32) -> Result<(), LaunchError> {
        let mut command = self.command("kill");
        command.arg(id).arg(signal.to_string());
        self.run(quiet(command)).map(drop)
    }

    /// Removes what the other runtime keeps of a container that has ended, with its cgroup.
    ///
    /// # Errors
    /// When it still runs and we do not insist.
    pub fn delete(&self, id: &str, force: Force) -> Result<(), LaunchError> {
        let mut command = self.command("delete");
        if force == Force::Yes {
            command.arg("--force");
        }
        command.arg(id);
        self.run(quiet(command)).map(drop)
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("--root").arg(&self.root);
        command.arg("--log").arg(self.log()).arg("--log-format").arg("json").arg(verb);
        command
    }

    fn log(&self) -> PathBuf {
        self.scratch.join("log.json")
    }

    fn console(&self, stdio: &Stdio<'_>) -> Result<Option<Console>, LaunchError> {
        let Stdio::Terminal { .. } = stdio else { return Ok(None) };
        let path = self.scratch.join(CONSOLE_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("make the console socket")(error));
            }
            _ => {}
        }
        let listener = sys::socket::listen(&path, 0o600).map_err(at("make the console socket"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.scratch, flags, Mode::empty())
            .map_err(at_raw("open the console socket's directory"))?;
        Ok(Some(Console { listener, directory }))
    }

    /// Runs a command to its end; why it failed is the last error in its log.
    fn run(&self, mut command: Command) -> Result<Output, LaunchError> {
        std::fs::write(self.log(), "").map_err(at("empty the runtime's log"))?;
        let step = format!("execute the runtime {}", self.program.display());
        // Not `output`, which waits until the last holder of a pipe is gone: the container is one.
        let status = command.status().map_err(at(step))?;
        if status.success() {
            return Ok(Output { status, stdout: Vec::new(), stderr: Vec::new() });
        }
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        Err(reported(&log).unwrap_or_else(|| {
            LaunchError::new(Kind::Other, format!("the runtime failed: {status}"))
        }))
    }
}

fn quiet(mut command: Command) -> Command {
    use std::process::Stdio;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The last error of a log in JSON lines.
fn reported(log: &str) -> Option<LaunchError> {
    let lines =
        log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let line =
        lines.into_iter().find(|line| matches!(line["level"].as_str(), Some("error" | "fatal")))?;
    let message = line["msg"].as_str()?;
    let bare = match message.split_once("unable to start container process: ") {
        Some((_, bare)) => bare.strip_prefix("error during container init: ").unwrap_or(bare),
        None => message,
    };
    let has = |words: &str| bare.contains(words);
    let kind = if bare.starts_with("exec: ")
        && (has("executable file not found") || has("no such file or directory"))
    {
        Kind::NotFound
    } else if has("permission denied") || has("is a directory") {
        Kind::NotExecutable
    } else {
        Kind::Other
    };
    Some(LaunchError::new(kind, bare))
}

fn c_path(path: PathBuf) -> Result<CString, LaunchError> {
    CString::new(path.into_os_string().into_vec())
        .map_err(|error| at("name the bundle")(error.into()))
}

/// What the document binds by a descriptor of ours, with a path below the bundle for each. Another runtime
/// can bind only what its own mount namespace has, and there it is put.
fn held_trees(spec: &mut Spec, bundle: &Path) -> Result<Vec<(OwnedFd, CString)>, LaunchError> {
    let descriptors = format!("/proc/{}/fd/", std::process::id());
    let mut trees = Vec::new();
    for (index, mount) in spec.mounts.iter_mut().enumerate() {
        if !mount.source.starts_with(&descriptors) {
            continue;
        }
        let step = || format!("error mounting {:?}", mount.destination);
        let source = Path::new(&mount.source);
        let cloned = mount::clone_tree(rustix::fs::CWD, source, Depth::Recursive);
        // One that was made in another mount namespace cannot be cloned, and is attached itself.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let tree = match cloned {
            Ok(tree) => tree,
            Err(_) => rustix::fs::open(source, flags, Mode::empty()).map_err(at_raw(step()))?,
        };
        let target = bundle.join(format!("held-{index}"));
        let kind = rustix::fs::fstat(&tree).map_err(at_raw(step()))?.st_mode;
        let made = match FileType::from_raw_mode(kind) {
            FileType::Directory => std::fs::create_dir_all(&target),
            _ => std::fs::write(&target, ""),
        };
        made.map_err(at(format!("make {}", target.display())))?;
        mount.source = target.display().to_string();
        trees.push((tree, c_path(target)?));
    }
    Ok(trees)
}

/// The document as the other runtime has to see it.
fn document(request: &LaunchRequest<'_>, rootfs: &OwnedFd) -> Result<Spec, LaunchError> {
    let mut spec = request.spec.clone();
    spec.root.get_or_insert_default().path = "rootfs".to_owned();
    let linux = spec.linux.get_or_insert_default();
    if let CgroupPlan::Path(path) = &request.cgroup {
        linux.cgroups_path = path.display().to_string();
    }
    if let Some(netns) = request.netns {
        // A path that leads there from any process, as long as we live; which is longer than `create`.
        let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        for namespace in
            linux.namespaces.iter_mut().filter(|namespace| namespace.kind == NamespaceKind::Network)
        {
            namespace.path.clone_from(&path);
        }
    }
    if let Init::Engine(_) = request.init {
        let own = std::fs::read_link("/proc/self/exe").map_err(at("find our own binary"))?;
        spec.mounts.push(Mount {
            destination: crate::init::PATH.to_owned(),
            kind: "bind".to_owned(),
            source: own.display().to_string(),
            options: ["bind", "ro", "nosuid", "nodev"].map(str::to_owned).to_vec(),
            ..Mount::default()
        });
    }
    let Some(process) = &mut spec.process else {
        return Err(LaunchError::new(Kind::Other, "process property must not be empty"));
    };
    if let Init::Engine(_) = request.init {
        process.args.splice(0..0, [crate::init::PATH.to_owned(), "--".to_owned()]);
    }
    process.terminal = matches!(request.stdio, Stdio::Terminal { .. });
    set_size(process, &request.stdio);
    let root = Root::new(rootfs.try_clone().map_err(at("duplicate the root"))?);
    set_user(process, &root, request.user)?;
    Ok(spec)
}

fn set_size(process: &mut Process, stdio: &Stdio<'_>) {
    if let Stdio::Terminal { size: Some(size) } = stdio {
        process.console_size =
            Some(spec::runtime::ConsoleSize { height: size.rows, width: size.columns });
    }
}

fn set_user(
    process: &mut Process,
    root: &Root,
    user: Option<&UserRequest>,
) -> Result<(), LaunchError> {
    if user.is_none() {
        return Ok(());
    }
    let identity = identity::resolve(root, process, user)?;
    process.user.uid = identity.uid;
    process.user.gid = identity.gid;
    process.user.additional_gids = identity.groups;
    if !process.env.iter().any(|variable| variable.starts_with("HOME=")) {
        process.env.push(format!("HOME={}", identity.home));
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), LaunchError> {
    let step = || format!("write {}", path.display());
    let text = serde_json::to_vec(value).map_err(|error| at(step())(error.into()))?;
    std::fs::write(path, text).map_err(at(step()))
}

fn connect(command: &mut Command, stdio: &Stdio<'_>) -> Result<(), LaunchError> {
    let copy = |fd: BorrowedFd<'_>| -> Result<std::process::Stdio, LaunchError> {
        Ok(fd.try_clone_to_owned().map_err(at("duplicate the standard streams"))?.into())
    };
    match stdio {
        Stdio::Inherit => {}
        Stdio::Streams { stdin, stdout, stderr } => {
            command.stdin(stdin.map_or_else(|| Ok(std::process::Stdio::null()), copy)?);
            command.stdout(copy(*stdout)?).stderr(copy(*stderr)?);
        }
        Stdio::Terminal { .. } => {
            use std::process::Stdio;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
    }
    Ok(())
}

fn read_pid(path: &Path) -> Result<(Pid, OwnedFd), LaunchError> {
    let step = || format!("read {}", path.display());
    let text = std::fs::read_to_string(path).map_err(at(step()))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid =
        pid.ok_or_else(|| LaunchError::new(Kind::Other, format!("{}: no process", step())))?;
    // It is our child by now, and stays a zombie until we reap it: the number cannot be reused.
    let pidfd = sys::process::open_process(pid).map_err(at("open the container's process"))?;
    Ok((pid, pidfd))
}

fn receive(listener: &UnixListener) -> Result<OwnedFd, LaunchError> {
    let step = "receive the terminal";
    let (socket, _) = listener.accept().map_err(at(step))?;
    let (mut bytes, mut fds) = ([0_u8; 4096], Vec::new());
    sys::socket::recv_with_fds(socket.as_fd(), &mut bytes, &mut fds).map_err(at(step))?;
    fds.pop().ok_or_else(|| LaunchError::new(Kind::Other, format!("{step}: there is none")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_the_log_is_told_without_its_prefixes() {
        let log = r#"{"level":"warning","msg":"x","time":"t"}
{"level":"error","msg":"runc create failed: unable to start container process: exec: \"foo\": executable file not found in $PATH","time":"t"}"#;
        let error = reported(log).unwrap();
        assert_eq!(error.kind, Kind::NotFound);
        assert_eq!(error.message, "exec: \"foo\": executable file not found in $PATH");
    }
}
