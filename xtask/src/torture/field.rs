//! The place of a campaign: namespaces, directories, the daemon and the registry, and how the
//! command line is called there.
//!
//! A call never waits for ever: after [`CALL_TIMEOUT`] it is killed and counts as hung, which is a
//! fault whatever is being killed around it.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::Options;
use crate::census::Census;

/// Set in the process inside the namespaces; its value is the binary under test.
const INSIDE: &str = "TUG_TORTURE_BINARY";
/// A client that waits for a daemon that was stopped for some seconds is slow, not hung.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// A daemon must answer within this after its start, however much it has to find again.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
pub const REGISTRY: &str = "127.0.0.1:5001";

/// How a call of the command line ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged; what it printed.
    Done(String),
    /// The daemon answered with an error.
    Refused(String),
    /// The connection was lost or there was no daemon; whether the request was carried out is open.
    Lost,
    /// The program inside the container ended with this status.
    Status(i32),
    /// No end within the deadline.
    Hung,
}

pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Builds the binary and runs this program again inside namespaces that end with it.
pub fn enter(options: &Options) -> ExitCode {
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "--package", "tug"]);
    if options.release {
        build.arg("--release");
    }
    if !build.status().is_ok_and(|status| status.success()) {
        eprintln!("the binary does not build");
        return ExitCode::FAILURE;
    }
    let profile = if options.release { "release" } else { "debug" };
    let Some(binary) = find_binary(profile) else {
        eprintln!("no binary below target/ after building it");
        return ExitCode::FAILURE;
    };
    let this = std::env::current_exe().expect("this program has a path");
    let status = Command::new("unshare")
        .args(["--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--net"])
        .arg("--propagation=private")
        // The first process of the PID namespace inherits every orphan; it must reap them.
        .arg(&binary)
        .args(["__init", "--"])
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, &binary)
        .status();
    match status {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            eprintln!("cannot run unshare(1): {error}");
            ExitCode::FAILURE
        }
    }
}

/// The newest `tug` of `profile`, with or without a target's directory.
fn find_binary(profile: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join("target");
    let mut found: Vec<PathBuf> = fs::read_dir(&target)
        .ok()?
        .flatten()
        .map(|entry| entry.path().join(profile).join("tug"))
        .chain([target.join(profile).join("tug")])
        .filter(|path| path.is_file())
        .collect();
    found.sort_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
    found.pop()
}

pub struct Field {
    directory: PathBuf,
    binary: PathBuf,
    cgroup_parent: String,
    daemon: Mutex<Option<Child>>,
    registry: Mutex<Option<Child>>,
}

impl Field {
    /// Starts the daemon and the registry and brings the image that everybody uses.
    pub fn open() -> Field {
        let binary = PathBuf::from(std::env::var_os(INSIDE).expect("we are inside"));
        let directory =
            std::env::temp_dir().join(format!("tug-torture-{}", std::process::id() as u64 ^ now()));
        fs::create_dir_all(directory.join("config")).expect("the temporary directory is writable");
        shell("ip link set lo up");
        shell("mkdir -p /run/netns && mount -t tmpfs torture-netns /run/netns");
        shell("mkdir -p /etc/docker && mount -t tmpfs torture-etc /etc/docker");
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let field = Field {
            cgroup_parent: format!("/{name}"),
            directory: directory.clone(),
            binary,
            daemon: Mutex::new(None),
            registry: Mutex::new(None),
        };
        field.start_registry();
        field.start_daemon().expect("the first start has nothing to find");
        field.bring_image();
        field.make_context();
        field
    }

    fn start_registry(&self) {
        let file = self.directory.join("registry.yml");
        let storage = self.directory.join("registry");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {REGISTRY}\n",
            storage.display()
        );
        fs::write(&file, text).expect("the directory is ours");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed (Debian: apt-get install docker-registry)");
        *lock(&self.registry) = Some(child);
    }

    fn bring_image(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent");
        let images = root.join("target/test-images");
        let made =
            Command::new(root.join("tests/images/make")).arg(&images).arg("busybox").status();
        assert!(made.is_ok_and(|status| status.success()), "tests/images/make busybox failed");
        let tar = images.join("busybox.tar");
        let name = format!("{REGISTRY}/busybox:latest");
        for args in [
            vec![
                "import",
                "-c",
                "CMD [\"sh\"]",
                tar.to_str().unwrap_or_default(),
                "busybox:latest",
            ],
            vec!["tag", "busybox:latest", &name],
            vec!["push", &name],
            vec!["run", "--rm", "busybox", "true"],
        ] {
            let outcome = self.call(&args);
            assert!(matches!(outcome, Outcome::Done(_)), "{args:?}: {outcome:?}");
        }
    }

    /// What the clients build: one instruction depends on an argument, so no build is all cache.
    fn make_context(&self) {
        let context = self.context();
        fs::create_dir_all(&context).expect("the directory is ours");
        let dockerfile = "FROM busybox\nCOPY data /data\nRUN cat /data > /copy\nARG TOKEN\n\
                          RUN echo $TOKEN > /token\nCMD [\"cat\", \"/token\"]\n";
        fs::write(context.join("Dockerfile"), dockerfile).expect("the directory is ours");
        fs::write(context.join("data"), vec![b'x'; 100_000]).expect("the directory is ours");
    }

    pub fn context(&self) -> PathBuf {
        self.directory.join("context")
    }

    /// Starts a daemon and waits for its answer; gives how long that took.
    ///
    /// # Errors
    /// When it ended instead, or did not answer within [`READY_TIMEOUT`].
    pub fn start_daemon(&self) -> Result<Duration, String> {
        let began = Instant::now();
        let log = self.open_log();
        let child = Command::new(&self.binary)
            .arg("daemon")
            .arg("--data-root")
            .arg(self.directory.join("data"))
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--pidfile")
            .arg(self.directory.join("tug.pid"))
            .args(["-H", &self.host(), "--cgroup-parent", &self.cgroup_parent])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be duplicated"))
            .stderr(log)
            .spawn()
            .expect("the binary was just built");
        let mut slot = lock(&self.daemon);
        *slot = Some(child);
        loop {
            if let Some(status) = slot.as_mut().and_then(|child| child.try_wait().ok()).flatten() {
                *slot = None;
                return Err(format!("the daemon ended at its start: {status}"));
            }
            let words = ["version", "--format", "{{.Server.Version}}"];
            if matches!(self.call_within(&words, Duration::from_secs(10)), Outcome::Done(_)) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > READY_TIMEOUT {
                return Err(format!("the daemon did not answer within {READY_TIMEOUT:?}"));
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Sends the daemon a signal; one that ends it is awaited.
    /// The daemon's process; 0 while there is none.
    pub fn daemon_pid(&self) -> u32 {
        lock(&self.daemon).as_ref().map_or(0, std::process::Child::id)
    }

    pub fn signal_daemon(&self, signal: Signal) {
        let mut slot = lock(&self.daemon);
        let Some(child) = slot.as_mut() else { return };
        signal_process(child.id(), signal);
        if signal == Signal::KILL || signal == Signal::TERM {
            let _ = child.wait();
            *slot = None;
        }
    }

    pub fn exec_root(&self) -> PathBuf {
        self.directory.join("exec")
    }

    fn host(&self) -> String {
        format!("unix://{}/tug.sock", self.directory.display())
    }

    fn open_log(&self) -> File {
        let path = self.directory.join("daemon.log");
        File::options().create(true).append(true).open(path).expect("the directory is ours")
    }

    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.directory.join("daemon.log")).unwrap_or_default()
    }

    /// Calls the command line and waits for its end.
    pub fn call<S: AsRef<str>>(&self, args: &[S]) -> Outcome {
        self.call_within(args, CALL_TIMEOUT)
    }

    fn call_within<S: AsRef<str>>(&self, args: &[S], limit: Duration) -> Outcome {
        let (mut out, mut err) = (memory_file(), memory_file());
        let child = Command::new(&self.binary)
            .args(args.iter().map(AsRef::as_ref))
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.directory.join("config"))
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a file can be duplicated"))
            .stderr(err.try_clone().expect("a file can be duplicated"))
            .spawn();
        let mut child = child.expect("the binary can be started");
        let Some(code) = wait_within(&mut child, limit) else { return Outcome::Hung };
        let (out, err) = (text_of(&mut out), text_of(&mut err));
        if code == 0 {
            Outcome::Done(out.trim_end().to_owned())
        } else if let Some((_, words)) = err.split_once("Error response from daemon: ") {
            Outcome::Refused(words.trim().to_owned())
        } else if is_lost(&err) {
            Outcome::Lost
        } else if err.trim().is_empty() {
            Outcome::Status(code)
        } else {
            Outcome::Refused(err.trim().to_owned())
        }
    }

    /// What is on this host once nothing moves any more.
    pub fn census_at_rest(&self) -> Census {
        let mut last = self.census();
        for _ in 0..20 {
            sleep(Duration::from_millis(200));
            let now = self.census();
            if now == last {
                break;
            }
            last = now;
        }
        last
    }

    pub fn census(&self) -> Census {
        let data = self.directory.join("data");
        let places = ["containers", "networks", "volumes", "tmp"].map(|name| data.join(name));
        let bundles = self.exec_root().join("containers");
        let mut paths: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
        paths.push(&bundles);
        Census::take(&self.cgroup_parent, &paths)
    }

    /// Ends what runs and removes what was written.
    pub fn close(&self) {
        self.signal_daemon(Signal::TERM);
        if let Some(mut registry) = lock(&self.registry).take() {
            let _ = registry.kill();
            let _ = registry.wait();
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&hierarchy.path().join(self.cgroup_parent.trim_start_matches('/')));
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The words with which the command line says that it does not know what became of its request.
fn is_lost(words: &str) -> bool {
    ["Cannot connect to the Docker daemon", "the connection to", "connection reset", "broke", "EOF"]
        .iter()
        .any(|sign| words.contains(sign))
}

/// The exit status, 128 and the signal for one that was killed, or nothing after `limit`, when it is killed.
fn wait_within(child: &mut Child, limit: Duration) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default())?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    let mut watched = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::time::Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    let ended = rustix::event::poll(&mut watched, Some(&limit)).is_ok_and(|ready| ready > 0);
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().ok()?;
    ended.then(|| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// A file without a name: what a command prints cannot block it, however much it is.
fn memory_file() -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    File::from(rustix::fs::memfd_create("output", flags).expect("memory for a command's output"))
}

fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.rewind();
    let _ = file.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn signal_process(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn shell(line: &str) {
    let done = Command::new("sh").args(["-c", line]).status();
    assert!(done.is_ok_and(|status| status.success()), "failed: {line}");
}

fn remove_cgroups(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map(|time| time.as_nanos() as u64).unwrap_or_default()
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
