//! The suite: one daemon with its own roots, the two command lines, and the images.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::census::Census;

/// No command of a case may take longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what an engine tears down in the background may take.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a case ended that did not panic.
#[derive(Debug)]
pub enum Outcome {
    Passed,
    /// It needs what this host has not; the text says what.
    Ignored(String),
}

/// Which command line types the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cli {
    /// Tug's own.
    Tug,
    /// Docker's own client on Tug's socket.
    Docker,
}

pub const BOTH: [Cli; 2] = [Cli::Tug, Cli::Docker];

/// What a command printed and how it ended; killed by signal n is 128 + n.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output, trimmed, of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.trim_end().to_owned()
    }

    /// Standard error of a command that must have ended with `code`.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }
}

pub struct Suite {
    /// Everything of this run, removed at the end.
    pub directory: PathBuf,
    daemon: Mutex<Option<Child>>,
    cgroup_parent: String,
}

/// The process that forks a daemon's launchers, and those that wait.
fn launchers(daemon: u32) -> Vec<String> {
    let children = |parent: &str| {
        let found = shell(&format!("pgrep -P {parent}")).stdout;
        found.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for server in children(&daemon.to_string()) {
        all.extend(children(&server));
        all.push(server);
    }
    all
}

impl Suite {
    /// Brings up loopback, starts the daemon and imports the images.
    pub fn open() -> Suite {
        let directory = std::env::temp_dir().join(format!("tug-e2e-{:x}", unique()));
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        shell("ip link set lo up").ok();
        // The names of network namespaces that others left are not ours.
        shell("mkdir -p /run/netns && mount -t tmpfs tug-netns /run/netns").ok();
        // What the machine's own daemon is told is not for this one, and cases have files of their own.
        shell("mkdir -p /etc/docker && mount -t tmpfs tug-etc /etc/docker").ok();
        let cgroup_parent = format!("/{}", directory.file_name().unwrap().to_str().unwrap());
        let suite = Suite { directory, daemon: Mutex::new(None), cgroup_parent };
        fs::create_dir_all(suite.directory.join("config")).expect("the directory is ours");
        // Typed as `docker`, so that both command lines speak of themselves by one name.
        std::os::unix::fs::symlink(tug(), suite.own_docker()).expect("the directory is ours");
        suite.start_daemon(&[]);
        for image in ["busybox", "redis"] {
            let tar = suite.image_tar(image);
            let name = format!("{image}:latest");
            suite.tug(["import", "-c", "CMD [\"sh\"]", tar.to_str().unwrap(), &name]).ok();
        }
        // The first container makes what stays for good: the sandbox pool, the cgroup's parent.
        suite.tug(["run", "--rm", "busybox", "true"]).ok();
        suite
    }

    /// The tar of a root file system, made by `tests/images/make`.
    pub fn image_tar(&self, name: &str) -> PathBuf {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-images");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/make");
        run(Command::new(script).arg(&directory).arg(name)).ok();
        directory.join(format!("{name}.tar"))
    }

    /// Tug's command line under Docker's name.
    pub fn own_docker(&self) -> PathBuf {
        self.directory.join("docker")
    }

    /// The program that [`Suite::command`] starts.
    pub fn program(&self, cli: Cli) -> PathBuf {
        match cli {
            Cli::Tug => self.own_docker(),
            Cli::Docker => PathBuf::from("docker"),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("tug.sock")
    }

    pub fn cgroup_parent(&self) -> String {
        self.cgroup_parent.clone()
    }

    pub fn data_root(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn exec_root(&self) -> PathBuf {
        self.directory.join("exec")
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts the daemon and waits for its answer. `more` are further flags.
    pub fn start_daemon(&self, more: &[&str]) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join("daemon.log"))
            .expect("the directory is ours");
        let child = Command::new(tug())
            .arg("daemon")
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--pidfile")
            .arg(self.directory.join("tug.pid"))
            .args(["-H", &self.host(), "--cgroup-parent", &self.cgroup_parent])
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be duplicated"))
            .stderr(log)
            .spawn()
            .expect("the binary was built with this test");
        *self.daemon.lock().unwrap() = Some(child);
        wait_for("the daemon's answer", Duration::from_secs(20), || {
            self.tug(["version", "--format", "{{.Server.Version}}"]).code == 0
        });
    }

    /// The system calls of the named kinds (strace's words) that the daemon, its launchers and all that
    /// they start make during `work`.
    pub fn system_calls_during(&self, kinds: &str, work: impl FnOnce()) -> Vec<String> {
        let daemon = self.daemon.lock().unwrap().as_ref().expect("the daemon runs").id();
        let mut traced = launchers(daemon);
        traced.push(daemon.to_string());
        self.trace(kinds, &traced, work)
    }

    /// The same of launchers and what they start alone.
    pub fn launcher_calls_during(&self, kinds: &str, work: impl FnOnce()) -> Vec<String> {
        let daemon = self.daemon.lock().unwrap().as_ref().expect("the daemon runs").id();
        self.trace(kinds, &launchers(daemon), work)
    }

    fn trace(&self, kinds: &str, traced: &[String], work: impl FnOnce()) -> Vec<String> {
        let file = self.scratch().join("calls");
        let mut tracer = Command::new("strace")
            .args(["-f", "-qq", "-e", &format!("trace={kinds}"), "-o"])
            .arg(&file)
            .args(traced.iter().flat_map(|pid| ["-p", pid]))
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is installed");
        let is_traced = |pid: &String| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|text| !text.contains("TracerPid:\t0"))
        };
        wait_for("strace", Duration::from_secs(5), || traced.iter().all(is_traced));
        work();
        run(Command::new("kill").arg(tracer.id().to_string())).ok();
        tracer.wait().expect("the tracer is our child");
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.lines().filter(|line| line.contains('(')).map(str::to_owned).collect()
    }

    /// Asks the daemon to read its file again, and waits for the log to say that it did or did not.
    pub fn reload(&self) -> String {
        let log = || fs::read_to_string(self.directory.join("daemon.log")).unwrap_or_default();
        let before = log().len();
        let daemon = self.daemon.lock().unwrap().as_ref().expect("the daemon runs").id();
        run(Command::new("kill").args(["-HUP", &daemon.to_string()])).ok();
        let mut said = String::new();
        wait_for("the reload", Duration::from_secs(20), || {
            said = log().get(before..).unwrap_or_default().to_owned();
            said.contains("configuration reloaded") || said.contains("configuration not reloaded")
        });
        said
    }

    /// Kilobytes of memory that the daemon had at most since its start or the last reset.
    pub fn daemon_peak_kilobytes(&self) -> u64 {
        let daemon = self.daemon.lock().unwrap().as_ref().expect("the daemon runs").id();
        let status = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Lets [`Suite::daemon_peak_kilobytes`] begin from what the daemon has now.
    pub fn reset_daemon_peak(&self) {
        let daemon = self.daemon.lock().unwrap().as_ref().expect("the daemon runs").id();
        // proc(5): 5 resets the peak resident set.
        fs::write(format!("/proc/{daemon}/clear_refs"), "5").unwrap();
    }

    /// Ends the daemon by `signal` (`KILL`, `TERM`) and waits for its end.
    pub fn end_daemon(&self, signal: &str) {
        let mut child = self.daemon.lock().unwrap().take().expect("the daemon runs");
        run(Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string())).ok();
        child.wait().expect("the daemon is our child");
    }

    /// Kills the daemon and starts the next one in the same moment, while the old one's threads and
    /// sockets may still be there.
    pub fn replace_daemon(&self) {
        let mut old = self.daemon.lock().unwrap().take().expect("the daemon runs");
        run(Command::new("kill").arg("-KILL").arg(old.id().to_string())).ok();
        self.start_daemon(&[]);
        old.wait().expect("the daemon is our child");
    }

    /// The command line of Tug on the suite's daemon.
    #[track_caller]
    pub fn tug<const N: usize>(&self, args: [&str; N]) -> Output {
        self.run(Cli::Tug, args)
    }

    #[track_caller]
    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, cli: Cli, args: I) -> Output {
        run(self.command(cli).args(args).stdin(Stdio::null()))
    }

    /// Feeds `input` to the command's standard input and closes it.
    #[track_caller]
    pub fn run_with_input<const N: usize>(
        &self,
        cli: Cli,
        args: [&str; N],
        input: &[u8],
    ) -> Output {
        let file = self.directory.join("stdin");
        fs::write(&file, input).expect("the directory is ours");
        let input = fs::File::open(&file).expect("it was just written");
        run(self.command(cli).args(args).stdin(input))
    }

    /// A command line pointed at the suite's daemon, with a configuration directory of its own.
    pub fn command(&self, cli: Cli) -> Command {
        let mut command = Command::new(self.program(cli));
        command
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.directory.join("config"))
            // Without its plugin the client builds by the classic API, which is what is tested.
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// A fresh directory for the files of a case.
    pub fn scratch(&self) -> PathBuf {
        let directory = self.directory.join(format!("scratch-{:x}", unique()));
        fs::create_dir_all(&directory).expect("the directory is ours");
        directory
    }

    /// Sends a request to the daemon's socket with curl: method, path, body. Gives status and body.
    pub fn api(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let mut command = Command::new("curl");
        command
            .args(["-s", "--max-time", "20", "-X", method, "-w", "\n%{http_code}", "--unix-socket"])
            .arg(self.socket())
            .arg(format!("http://d{path}"));
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "-d", body]);
        }
        let text = run(&mut command).ok();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        (status.parse().expect("curl prints the status"), body.to_owned())
    }

    pub fn census(&self) -> Census {
        let (data, exec) = (self.data_root(), self.exec_root());
        let roots = ["containers", "networks", "volumes"].map(|name| data.join(name));
        let (bundles, temporary) = (exec.join("containers"), data.join("tmp"));
        let mut paths: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();
        paths.extend([bundles.as_path(), temporary.as_path()]);
        Census::take(&self.cgroup_parent, &paths)
    }

    /// The census once nothing moves any more, such as the refill of prepared sandboxes.
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

    /// The census once it equals `before`, else what it is after a while.
    pub fn census_settled(&self, before: &Census) -> Census {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let now = self.census();
            if now == *before || Instant::now() > deadline {
                return now;
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Removes what a case is allowed to leave: containers, volumes, networks and images of its own.
    /// False when the daemon no longer answers.
    pub fn clean_up(&self) -> bool {
        if self.daemon.lock().unwrap().is_none() {
            self.start_daemon(&[]);
        }
        let containers = self.tug(["ps", "-aq"]);
        if containers.code != 0 {
            return false;
        }
        let ids = containers.stdout.split_whitespace();
        self.run(Cli::Tug, ["rm", "-fv"].into_iter().chain(ids));
        self.tug(["network", "prune", "-f"]);
        self.tug(["volume", "prune", "-af"]);
        let images = self.tug(["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]).stdout;
        for line in images.lines().filter(|line| !is_base(line)) {
            let (name, id) = line.split_once(' ').unwrap_or((line, line));
            let asked = if name.contains("<none>") { id } else { name };
            self.run(Cli::Tug, ["rmi", "-f", asked]);
        }
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("scratch-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        true
    }

    /// Prints what helps to understand a failure.
    pub fn report(&self) {
        let log = fs::read_to_string(self.directory.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("--- the daemon's last lines");
        lines[lines.len().saturating_sub(15)..].iter().for_each(|line| println!("{line}"));
    }

    /// Ends the daemon and removes everything of this run.
    pub fn close(self) {
        if self.daemon.lock().unwrap().is_some() {
            self.end_daemon("TERM");
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&hierarchy.path().join(self.cgroup_parent.trim_start_matches('/')));
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn is_base(line: &str) -> bool {
    ["busybox:latest", "redis:latest", "debian-python:latest"]
        .iter()
        .any(|name| line.starts_with(name))
}

fn remove_cgroups(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// The binary under test.
pub fn tug() -> &'static str {
    env!("CARGO_BIN_EXE_tug")
}

/// A build context with these files: names below it, and what they hold.
pub fn context(suite: &Suite, files: &[(&str, &str)]) -> PathBuf {
    let directory = suite.scratch();
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

/// Runs a shell line, such as a client's request.
#[track_caller]
pub fn shell(line: &str) -> Output {
    run(Command::new("sh").args(["-c", line]).stdin(Stdio::null()))
}

/// Runs to the end, or kills it after [`COMMAND_TIMEOUT`].
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let watched = child.id();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if ended
            .recv_timeout(COMMAND_TIMEOUT)
            .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            let _ = Command::new("kill").args(["-KILL", &watched.to_string()]).status();
        }
    });
    let output = child.wait_with_output().expect("the child is ours");
    drop(done);
    let _ = guard.join();
    let status = output.status;
    Output {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until `holds`, and fails after `timeout`.
#[track_caller]
pub fn wait_for(what: &str, timeout: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {timeout:?} for {what}");
        sleep(Duration::from_millis(20));
    }
}

/// A number that no other call gives, also in other processes.
fn unique() -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    time.as_nanos() as u64
}
