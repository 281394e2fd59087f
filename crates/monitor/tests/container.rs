//! Real containers through the monitor, with a static busybox as their root file system.
//!
//! The test program is its own `tug`: started with the word `monitor` it is one. So it has no test
//! harness, whose threads would keep it from making containers.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use monitor::client::{Connection, Received, SpawnOptions, Spawned};
use monitor::exit::ExitRecord;
use monitor::logs::{LogReader, ReadOptions};
use monitor::settings::{
    Durability, LogDriver, LogSettings, MonitorSettings, Rootfs, RuntimeChoice,
};
use monitor::wire::{
    AttachOptions, DetachCause, Event, ExecRequest, Framing, Request, State, Target, Told,
};
use spec::id::Id;
use spec::runtime::{Linux, Mount, Namespace, NamespaceKind, Process, Root, Spec};

/// A test's name and what it does.
type Test = (&'static str, fn(RuntimeChoice));

/// What every runtime must do alike.
const CONFORMANCE: &[Test] = &[
    ("output_lands_in_the_log_and_the_exit_in_the_record", output_and_exit),
    ("an_attached_client_types_and_sees_both_streams", attach),
    ("a_terminal_is_raw_resizes_and_detaches_by_keys", terminal),
    ("execs_report_their_codes_also_to_those_who_ask_late", execs),
    ("memory_beyond_the_limit_kills_and_is_said_to_have", oom),
    ("a_command_that_is_not_there_is_a_failed_start", failed_start),
];

/// What has nothing to do with the runtime.
const TESTS: &[Test] = &[
    ("losing_the_daemon_changes_nothing", survival),
    ("a_slow_client_loses_nothing", slow_client),
    ("input_left_behind_by_a_client_that_hung_up_arrives", left_input),
    ("a_hundred_megabytes_of_lines_are_logged_quickly", log_speed),
];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == "monitor") {
        return monitor::main(args);
    }
    let filter: Vec<OsString> = std::env::args_os().skip(1).collect();
    let wanted = |name: &str| {
        let mut words =
            filter.iter().filter_map(|word| word.to_str()).filter(|word| !word.starts_with('-'));
        let first = words.next();
        first.is_none_or(|first| name.contains(first)) || words.any(|word| name.contains(word))
    };
    if filter.iter().any(|word| word == "--list") {
        CONFORMANCE.iter().chain(TESTS).for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !sys::testing::privileged("containers need root") {
        return ExitCode::SUCCESS;
    }
    if !Path::new("/bin/busybox").exists() {
        sys::testing::ignored("containers need /bin/busybox (package busybox-static)");
        return ExitCode::SUCCESS;
    }
    let run = |tests: &[Test], runtime: &RuntimeChoice| {
        for (name, test) in tests.iter().filter(|(name, _)| wanted(name)) {
            let start = Instant::now();
            test(runtime.clone());
            println!("test {name} ... ok ({} ms)", start.elapsed().as_millis());
        }
    };
    run(CONFORMANCE, &RuntimeChoice::Builtin);
    run(TESTS, &RuntimeChoice::Builtin);
    let Some(program) = find_runc() else {
        sys::testing::ignored("the other runtime is not there (package runc)");
        return ExitCode::SUCCESS;
    };
    let root = std::env::temp_dir().join(format!("tug-runc-{}", std::process::id()));
    let args = Vec::new();
    run(CONFORMANCE, &RuntimeChoice::External { program, args, root: root.clone() });
    let _gone = std::fs::remove_dir_all(root);
    ExitCode::SUCCESS
}

fn find_runc() -> Option<PathBuf> {
    ["/usr/sbin/runc", "/usr/bin/runc"].map(PathBuf::from).into_iter().find(|path| path.exists())
}

/// A container's directory and settings, removed at the end.
struct Fixture {
    directory: PathBuf,
    settings: MonitorSettings,
    spec: Spec,
}

impl Fixture {
    fn new(runtime: RuntimeChoice, args: &[&str]) -> Fixture {
        let id = Id::random();
        let directory = std::env::temp_dir().join(format!("tug-monitor-{}", id.short()));
        let rootfs = directory.join("rootfs");
        for name in ["bin", "proc", "dev", "tmp"] {
            std::fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for name in ["sh", "cat", "echo", "sleep", "yes", "head", "stty", "true"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let settings = MonitorSettings {
            container: id,
            config: directory.join("config.json"),
            rootfs: Rootfs::Bind { path: rootfs.clone() },
            user: None,
            groups: Vec::new(),
            tty: false,
            console_size: None,
            open_stdin: false,
            stdin_once: false,
            log: LogSettings {
                driver: LogDriver::JsonFile,
                path: directory.join("json.log"),
                ..LogSettings::default()
            },
            exit_record: directory.join("exit.json"),
            durability: Durability::Lazy,
            runtime,
            cgroup: Some(format!("/tug-test-{id}").into()),
            init: false,
            resolver: None,
        };
        Fixture { directory, settings, spec: spec(&rootfs, args) }
    }

    fn spawn(&self) -> Spawned {
        std::fs::write(&self.settings.config, serde_json::to_vec(&self.spec).unwrap()).unwrap();
        self.settings.write(&self.directory).unwrap();
        let program = std::env::current_exe().unwrap();
        let options = SpawnOptions { program: &program, bundle: &self.directory, cgroup: None };
        monitor::client::spawn(&options).unwrap()
    }

    /// Starts the container; a client of its own is attached if `attach` says how.
    fn start(&self, attach: Option<AttachOptions>) -> (Daemon, Option<UnixStream>) {
        let Spawned { pidfd, connection, .. } = self.spawn();
        let mut daemon = Daemon { connection, pidfd, told: Vec::new() };
        let client = attach.map(|options| (options, UnixStream::pair().unwrap()));
        let (attach, fds, ours) = match client {
            Some((options, (ours, theirs))) => {
                (vec![options], vec![OwnedFd::from(theirs)], Some(ours))
            }
            None => (Vec::new(), Vec::new(), None),
        };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let event = daemon.ask(&Request::Start { netns: false, attach }, &fds);
        assert!(matches!(event, Event::Started { .. }), "{event:?} {}", self.stderr());
        (daemon, ours)
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.directory.join("monitor.log")).unwrap_or_default()
    }

    fn log(&self) -> String {
        self.entries().concat()
    }

    fn entries(&self) -> Vec<String> {
        let reader = LogReader::open(&self.settings.log, ReadOptions::default()).unwrap();
        let text = |entry: monitor::logs::Entry| {
            format!("{}: {}", entry.stream.name(), String::from_utf8_lossy(&entry.bytes))
        };
        reader.map(Result::unwrap).map(text).collect()
    }

    fn record(&self) -> ExitRecord {
        ExitRecord::find(&self.settings.exit_record).unwrap().expect("an exit record")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.directory);
        let group = sys::cgroup::Cgroup::find(&PathBuf::from(format!(
            "/tug-test-{}",
            self.settings.container
        )));
        assert!(
            group.directories().iter().all(|directory| !directory.exists()),
            "the control group is left behind"
        );
    }
}

fn spec(rootfs: &Path, args: &[&str]) -> Spec {
    let mount = |destination: &str, kind: &str, options: &[&str]| Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: kind.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Mount::default()
    };
    let kinds = [
        NamespaceKind::Pid,
        NamespaceKind::Network,
        NamespaceKind::Mount,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
    ];
    Spec {
        process: Some(process(args)),
        root: Some(Root { path: rootfs.to_str().unwrap().to_owned(), readonly: false }),
        mounts: vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
        ],
        linux: Some(Linux {
            namespaces: kinds.map(|kind| Namespace { kind, path: String::new() }).to_vec(),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec!["PATH=/bin".to_owned(), "TERM=xterm".to_owned()],
        cwd: "/".to_owned(),
        ..Process::default()
    }
}

/// The daemon's side of one monitor.
struct Daemon {
    connection: Connection,
    pidfd: OwnedFd,
    told: Vec<Told>,
}

impl Daemon {
    fn send(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> u64 {
        self.connection.send(request, fds).unwrap()
    }

    /// Asks and waits for the answer.
    fn ask(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Event {
        let seq = self.send(request, fds);
        self.wait(|told| told.re == Some(seq))
    }

    /// Waits for an event, and takes it out of those told.
    fn wait(&mut self, wanted: impl Fn(&Told) -> bool) -> Event {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = self.told.iter().position(&wanted) {
                return self.told.remove(at).event;
            }
            assert!(Instant::now() < end, "nothing of the kind among {:?}", self.told);
            match self.connection.receive_blocking().unwrap() {
                Received::Events(told) => self.told.extend(told),
                Received::Closed(told) => {
                    self.told.extend(told);
                    assert!(self.told.iter().any(&wanted), "closed after {:?}", self.told);
                }
            }
        }
    }

    fn exit(&mut self) -> ExitRecord {
        match self.wait(|told| matches!(told.event, Event::Exited(_))) {
            Event::Exited(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self) -> State {
        match self.ask(&Request::State, &[]) {
            Event::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    /// What a client gets until its end, which must not come before the daemon has hung up, and the
    /// container's end.
    fn rest(&mut self, mut client: UnixStream) -> (Vec<u8>, ExitRecord) {
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let record = self.exit();
        assert!(!reader.is_finished(), "the stream ended before the end was recorded");
        self.connection.hang_up();
        (reader.join().unwrap(), record)
    }

    /// Reaps the monitor, which must have ended well.
    fn reap(self) {
        drop(self.connection);
        let exit = sys::process::wait_process(&self.pidfd, sys::process::Wait::Block).unwrap();
        assert_eq!(exit, Some(sys::process::Exit::Code(0)));
    }
}

fn attach_options(framing: Framing) -> AttachOptions {
    AttachOptions {
        stdin: true,
        stdout: true,
        stderr: true,
        detach_keys: vec![0x10, 0x11],
        framing,
        prelude: Vec::new(),
    }
}

fn output_and_exit(runtime: RuntimeChoice) {
    let fixture =
        Fixture::new(runtime, &["/bin/sh", "-c", "echo out; echo err >&2; printf end; exit 3"]);
    let (mut daemon, _) = fixture.start(None);
    let told = daemon.exit();
    assert_eq!(told, fixture.record());
    assert_eq!(
        (told.exit_code, told.signal, told.oom_killed, &told.error),
        (3, None, false, &None)
    );
    assert!(told.finished_at >= told.started_at);
    let mut lines = fixture.entries();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr: err\n", "stdout: end", "stdout: out\n"]);
    assert!(!fixture.directory.join("monitor.sock").exists());
    daemon.reap();
    assert_eq!(fixture.stderr(), "");
}

fn attach(runtime: RuntimeChoice) {
    let mut fixture = Fixture::new(runtime, &["/bin/sh", "-c", "cat; echo err >&2; exit 0"]);
    fixture.settings.open_stdin = true;
    fixture.settings.stdin_once = true;
    let options =
        AttachOptions { prelude: b"pre".to_vec(), ..attach_options(Framing::Multiplexed) };
    let (mut daemon, client) = fixture.start(Some(options));
    let mut client = client.unwrap();
    client.write_all(b"lude\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (bytes, record) = daemon.rest(client);
    let mut text: [String; 3] = Default::default();
    let mut rest = bytes.as_slice();
    while let Some((header, body)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
        text[usize::from(header[0])] += std::str::from_utf8(&body[..length]).unwrap();
        rest = &body[length..];
    }
    assert_eq!(text, ["", "prelude\n", "err\n"]);
    assert_eq!(record.exit_code, 0);
    daemon.reap();
}

fn terminal(runtime: RuntimeChoice) {
    let script = "read word; stty size; echo got $word; read word; echo $word";
    let mut fixture = Fixture::new(runtime, &["/bin/sh", "-c", script]);
    fixture.settings.tty = true;
    fixture.settings.open_stdin = true;
    fixture.spec.process.as_mut().unwrap().terminal = true;
    let (mut daemon, client) = fixture.start(Some(attach_options(Framing::Raw)));
    let mut client = client.unwrap();
    let size = spec::runtime::ConsoleSize { height: 33, width: 111 };
    assert_eq!(daemon.ask(&Request::Resize { target: Target::Main, size }, &[]), Event::Done);
    client.write_all(b"one\n").unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("got one\r\n") {
        let mut bytes = [0; 256];
        let count = client.read(&mut bytes).unwrap();
        assert!(count > 0, "{seen:?}");
        seen.extend_from_slice(&bytes[..count]);
    }
    assert_eq!(String::from_utf8(seen).unwrap(), "one\r\n33 111\r\ngot one\r\n");
    client.write_all(b"\x10\x11").unwrap();
    let left = daemon.wait(|told| matches!(told.event, Event::Detached { .. }));
    assert_eq!(left, Event::Detached { target: Target::Main, cause: DetachCause::Keys });
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let again = Request::Attach { target: Target::Main, options: attach_options(Framing::Raw) };
    assert_eq!(daemon.ask(&again, &[theirs.as_fd()]), Event::Done);
    drop(theirs);
    (&ours).write_all(b"two\n").unwrap();
    let (text, record) = daemon.rest(ours);
    assert_eq!(text, b"two\r\ntwo\r\n");
    assert_eq!(record.exit_code, 0);
    daemon.reap();
}

fn exec_request(args: &[&str], attach: Option<AttachOptions>) -> ExecRequest {
    ExecRequest {
        exec: Id::random(),
        process: process(args),
        user: None,
        stdin: attach.is_some(),
        attach,
    }
}

fn execs(runtime: RuntimeChoice) {
    let fixture = Fixture::new(runtime, &["/bin/sleep", "1000"]);
    let (mut daemon, _) = fixture.start(None);
    // Attached, with input.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let exec = exec_request(&["/bin/sh", "-c", "cat; exit 7"], Some(attach_options(Framing::Raw)));
    let event = daemon.ask(&Request::Exec(Box::new(exec.clone())), &[theirs.as_fd()]);
    assert!(matches!(event, Event::ExecStarted { .. }), "{event:?}");
    drop(theirs);
    ours.write_all(b"hello").unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    // Whoever saw the stream end finds the code.
    let state = daemon.state();
    let ended = state.execs.iter().find(|state| state.exec == exec.exec).unwrap();
    assert_eq!(ended.exit_code, Some(7));
    // Detached, running.
    let sleeper = exec_request(&["/bin/sleep", "1000"], None);
    let event = daemon.ask(&Request::Exec(Box::new(sleeper.clone())), &[]);
    assert!(matches!(event, Event::ExecStarted { .. }), "{event:?}");
    let target = Target::Exec(sleeper.exec);
    assert_eq!(daemon.ask(&Request::Signal { target, signal: 9 }, &[]), Event::Done);
    let event = daemon.wait(
        |told| matches!(&told.event, Event::ExecExited { exec, .. } if *exec == sleeper.exec),
    );
    assert_eq!(event, Event::ExecExited { exec: sleeper.exec, exit_code: 137 });
    // Not there: the client is told, since its answer was sent long ago.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let exec = exec_request(&["nothing"], Some(attach_options(Framing::Raw)));
    let event = daemon.ask(&Request::Exec(Box::new(exec)), &[theirs.as_fd()]);
    drop(theirs);
    let Event::ExecFailed { exit_code: 127, message, .. } = event else { panic!("{event:?}") };
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(text, message + "\r\n");
    assert_eq!(daemon.ask(&Request::Signal { target: Target::Main, signal: 9 }, &[]), Event::Done);
    assert_eq!(daemon.exit().signal, Some(9));
    daemon.reap();
}

fn oom(runtime: RuntimeChoice) {
    let script = "x=$(yes 0123456789 | head -n 10000000); echo $x | head -c 1";
    let mut fixture = Fixture::new(runtime, &["/bin/sh", "-c", script]);
    let memory =
        spec::runtime::Memory { limit: Some(16 << 20), swap: Some(16 << 20), ..Default::default() };
    fixture.spec.linux.as_mut().unwrap().resources =
        Some(spec::runtime::Resources { memory: Some(memory), ..Default::default() });
    let (mut daemon, _) = fixture.start(None);
    let record = daemon.exit();
    assert!(record.oom_killed, "{record:?}");
    assert_eq!((record.exit_code, record.signal), (137, Some(9)));
    assert!(daemon.told.iter().any(|told| told.event == Event::Oom));
    daemon.reap();
}

fn failed_start(runtime: RuntimeChoice) {
    let fixture = Fixture::new(runtime, &["nothing"]);
    let Spawned { pidfd, connection, .. } = fixture.spawn();
    let mut daemon = Daemon { connection, pidfd, told: Vec::new() };
    let event = daemon.ask(&Request::Start { netns: false, attach: Vec::new() }, &[]);
    let Event::StartFailed { exit_code: 127, message } = event else { panic!("{event:?}") };
    assert!(message.contains("executable file not found in $PATH"), "{message}");
    daemon.reap();
    assert!(!fixture.settings.exit_record.exists());
}

fn survival(runtime: RuntimeChoice) {
    let script = "n=0; while [ $n -lt 50 ]; do n=$((n+1)); echo line $n; sleep 0.01; done; exit 5";
    let fixture = Fixture::new(runtime, &["/bin/sh", "-c", script]);
    let (daemon, _) = fixture.start(None);
    let Daemon { connection, pidfd, .. } = daemon;
    drop(connection);
    // What a terminal or a service manager might send is nothing to a monitor.
    for signal in [1, 2, 15] {
        sys::process::signal_process(&pidfd, signal).unwrap();
    }
    let connection = Connection::open(&fixture.directory).unwrap();
    let mut daemon = Daemon { connection, pidfd, told: Vec::new() };
    assert!(daemon.state().main.is_some());
    assert_eq!(daemon.exit().exit_code, 5);
    let want: String = (1..=50).map(|number| format!("stdout: line {number}\n")).collect();
    assert_eq!(fixture.log(), want);
    daemon.reap();
}

fn slow_client(runtime: RuntimeChoice) {
    let fixture = Fixture::new(runtime, &["/bin/sh", "-c", "yes 0123456789 | head -n 300000"]);
    let (mut daemon, client) = fixture.start(Some(attach_options(Framing::Raw)));
    std::thread::sleep(Duration::from_millis(300));
    assert!(daemon.state().main.is_some(), "the container waits for its client");
    let (bytes, record) = daemon.rest(client.unwrap());
    assert_eq!(bytes.len(), 300_000 * 11);
    assert_eq!(record.exit_code, 0);
    daemon.reap();
    assert_eq!(fixture.log().lines().count(), 300_000);
}

fn left_input(runtime: RuntimeChoice) {
    let mut fixture = Fixture::new(runtime, &["/bin/sh", "-c", "sleep 0.2; cat | md5sum"]);
    std::os::unix::fs::symlink("busybox", fixture.directory.join("rootfs/bin/md5sum")).unwrap();
    fixture.settings.open_stdin = true;
    fixture.settings.stdin_once = true;
    let (mut daemon, client) = fixture.start(Some(attach_options(Framing::Raw)));
    let mut client = client.unwrap();
    // More than the pipe and the monitor's buffer take while nobody reads.
    client.write_all(&[b'x'; 300_000]).unwrap();
    drop(client);
    assert_eq!(daemon.exit().exit_code, 0);
    let log = fixture.log();
    assert_eq!(log, "stdout: d408ed46ebcc326f9e7c6bb9c77af1cd  -\n");
    daemon.reap();
}

fn log_speed(runtime: RuntimeChoice) {
    let line = "x".repeat(99);
    let script = format!("yes {line} | head -n 1000000");
    let fixture = Fixture::new(runtime, &["/bin/sh", "-c", &script]);
    let start = Instant::now();
    let (mut daemon, _) = fixture.start(None);
    let pid = monitor_pid(&daemon.pidfd);
    let private = private_bytes(pid);
    assert_eq!(daemon.exit().exit_code, 0);
    println!("100 MB in {} ms, private memory {} KiB", start.elapsed().as_millis(), private / 1024);
    let size = std::fs::metadata(&fixture.settings.log.path).unwrap().len();
    assert!(size > 150_000_000, "{size}");
    daemon.reap();
}

fn monitor_pid(pidfd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap()
}

fn private_bytes(pid: i32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_Dirty:") || line.starts_with("Private_Clean:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum::<u64>()
        * 1024
}
