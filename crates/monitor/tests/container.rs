//! Real containers through the monitor, with a static busybox as their root file system.
//!
//! The test program is its own `tug`: started with the word `launcher` it is one. So it has no test
//! harness, whose threads would keep launchers from making containers.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use monitor::client::{Connection, Launcher, Launchers, Received};
use monitor::exit::ExitRecord;
use monitor::logs::{LogReader, ReadOptions};
use monitor::settings::{
    Durability, LogDriver, LogSettings, MonitorSettings, Rootfs, RuntimeChoice,
};
use monitor::wire::{
    AttachOptions, DetachCause, Enter, Event, Framing, Launch, ReceivedEvent, Request, State,
    Streams, Target,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use spec::id::Id;
use spec::runtime::{Linux, Mount, Namespace, NamespaceKind, Process, Root, Spec};

/// As many launchers as one daemon has.
fn launchers() -> &'static Launchers {
    static LAUNCHERS: OnceLock<Launchers> = OnceLock::new();
    LAUNCHERS.get_or_init(|| Launchers::new(std::env::current_exe().unwrap(), None))
}

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
    ("a_supervisor_has_no_rights_and_sees_its_own_places_only", confined),
    ("a_launcher_that_waits_for_an_exec_has_no_rights_either", confined_exec),
    ("launchers_that_hang_are_replaced", hanging_launchers),
    ("a_hundred_megabytes_of_lines_are_logged_quickly", log_speed),
];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == "launcher") {
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
            zones: None,
        };
        Fixture { directory, settings, spec: spec(&rootfs, args) }
    }

    fn launch(&self, attach: Vec<AttachOptions>) -> Request {
        Request::Launch(Box::new(Launch {
            bundle: self.directory.clone(),
            settings: self.settings.clone(),
            document: self.spec.clone(),
            netns: false,
            seccomp: false,
            places: Vec::new(),
            attach,
        }))
    }

    /// Starts the container; a client of its own is attached if `attach` says how.
    fn start(&self, attach: Option<AttachOptions>) -> (Daemon, Option<UnixStream>) {
        let mut daemon = Daemon::new();
        let client = attach.map(|options| (options, UnixStream::pair().unwrap()));
        let (attach, fds, ours) = match client {
            Some((options, (ours, theirs))) => {
                (vec![options], vec![OwnedFd::from(theirs)], Some(ours))
            }
            None => (Vec::new(), Vec::new(), None),
        };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let (event, mut handed) = daemon.request(&self.launch(attach), &fds);
        let Event::Started { pid, .. } = event else { panic!("{event:?} {}", self.stderr()) };
        daemon.main = Some((pid, handed.pop().expect("the process's handle")));
        (daemon, ours)
    }

    /// Starts a further process; its descriptors are what a supervisor takes over.
    fn enter(
        &self,
        (pid, pidfd): (i32, &OwnedFd),
        args: &[&str],
        stdin: bool,
    ) -> (Id, Event, Vec<OwnedFd>) {
        let exec = Id::random();
        let enter = Request::Enter(Box::new(Enter {
            container: self.settings.container,
            bundle: self.directory.clone(),
            exec,
            pid,
            process: process(args),
            user: None,
            groups: Vec::new(),
            cgroup: self.settings.cgroup.clone(),
            runtime: self.settings.runtime.clone(),
            seccomp: false,
            stdin,
        }));
        let (status, theirs) = UnixStream::pair().unwrap();
        let (read, write) = std::io::pipe().unwrap();
        let (out_read, out_write) = std::io::pipe().unwrap();
        let (err_read, err_write) = std::io::pipe().unwrap();
        let mut fds = vec![pidfd.as_fd(), theirs.as_fd()];
        if stdin {
            fds.push(read.as_fd());
        }
        fds.extend([out_write.as_fd(), err_write.as_fd()]);
        let (event, mut handed) = Daemon::new().request(&enter, &fds);
        let mut kept = Vec::new();
        if let Some(pidfd) = handed.pop() {
            kept.extend([pidfd, status.into()]);
            if stdin {
                kept.push(write.into());
            }
            kept.extend([OwnedFd::from(out_read), err_read.into()]);
        }
        (exec, event, kept)
    }

    /// What the daemon does once the supervisor has told of the end.
    fn clean_up(&self) {
        if let RuntimeChoice::External { .. } = &self.settings.runtime {
            let delete = Request::Delete {
                bundle: self.directory.clone(),
                container: self.settings.container,
                runtime: self.settings.runtime.clone(),
            };
            assert_eq!(Daemon::new().ask(&delete, &[]), Event::Done);
        }
        let path = self.settings.cgroup.clone().unwrap();
        let group = sys::cgroup::Cgroup::find(&path);
        let _empty = group.kill();
        group.remove().unwrap();
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
        if !std::thread::panicking() {
            self.clean_up();
        }
        let _gone = std::fs::remove_dir_all(&self.directory);
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

/// The daemon's side of one launcher or supervisor.
struct Daemon {
    connection: Connection,
    pidfd: OwnedFd,
    received: Vec<ReceivedEvent>,
    /// The container's first process.
    main: Option<(i32, OwnedFd)>,
}

impl Daemon {
    fn new() -> Daemon {
        let Launcher { connection, pidfd } = launchers().take().unwrap();
        Daemon { connection, pidfd, received: Vec::new(), main: None }
    }

    fn send(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> u64 {
        self.connection.send(request, fds).unwrap()
    }

    /// Sends a request and waits for its reply.
    fn ask(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Event {
        self.request(request, fds).0
    }

    fn request(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> (Event, Vec<OwnedFd>) {
        let seq = self.send(request, fds);
        let received = self.wait_for(|received| received.re == Some(seq));
        (received.event, received.fds)
    }

    /// Waits for an event, and takes it out of those received.
    fn wait(&mut self, wanted: impl Fn(&ReceivedEvent) -> bool) -> Event {
        self.wait_for(wanted).event
    }

    fn wait_for(&mut self, wanted: impl Fn(&ReceivedEvent) -> bool) -> ReceivedEvent {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = self.received.iter().position(&wanted) {
                return self.received.remove(at);
            }
            assert!(Instant::now() < end, "nothing of the kind among {:?}", self.received);
            match self.connection.receive_blocking().unwrap() {
                Received::Events(events) => self.received.extend(events),
                Received::Closed(events) => {
                    self.received.extend(events);
                    assert!(self.received.iter().any(&wanted), "closed after {:?}", self.received);
                }
            }
        }
    }

    /// Signals the container's first process, which a supervisor may not.
    fn kill(&self, signal: i32) {
        let (_, pidfd) = self.main.as_ref().expect("a process");
        sys::process::signal_process(pidfd, signal).unwrap();
    }

    fn exit(&mut self) -> ExitRecord {
        match self.wait(|received| matches!(received.event, Event::Exited(_))) {
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

    /// Waits for the end of the supervisor, which is the fork server's child.
    fn reap(self) {
        drop(self.connection);
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&patience)), Ok(1), "it stays");
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
    let left = daemon.wait(|received| matches!(received.event, Event::Detached { .. }));
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

fn execs(runtime: RuntimeChoice) {
    let fixture = Fixture::new(runtime, &["/bin/sleep", "1000"]);
    let (mut daemon, _) = fixture.start(None);
    let (pid, pidfd) = daemon.main.take().unwrap();
    // Attached, with input.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let args = ["/bin/sh", "-c", "cat; exit 7"];
    let (exec, event, kept) = fixture.enter((pid, &pidfd), &args, true);
    let Event::ExecStarted { pid: exec_pid, .. } = event else { panic!("{event:?}") };
    let adopt = |exec, pid, streams, attach| Request::Adopt { exec, pid, streams, attach };
    let mut fds: Vec<BorrowedFd<'_>> = kept.iter().map(AsFd::as_fd).collect();
    fds.push(theirs.as_fd());
    let options = Some(attach_options(Framing::Raw));
    let request = adopt(exec, exec_pid, Streams::Pipes { stdin: true }, options);
    assert_eq!(daemon.ask(&request, &fds), Event::Done);
    drop((kept, theirs));
    ours.write_all(b"hello").unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    // Whoever saw the stream end finds the code.
    let state = daemon.state();
    let ended = state.execs.iter().find(|state| state.exec == exec).unwrap();
    assert_eq!(ended.exit_code, Some(7));
    // Running, with nobody attached.
    let (sleeper, event, kept) = fixture.enter((pid, &pidfd), &["/bin/sleep", "1000"], false);
    let Event::ExecStarted { pid: exec_pid, .. } = event else { panic!("{event:?}") };
    let fds: Vec<BorrowedFd<'_>> = kept.iter().map(AsFd::as_fd).collect();
    let request = adopt(sleeper, exec_pid, Streams::Pipes { stdin: false }, None);
    assert_eq!(daemon.ask(&request, &fds), Event::Done);
    sys::process::signal_process(&kept[0], 9).unwrap();
    let event = daemon.wait(
        |received| matches!(&received.event, Event::ExecExited { exec, .. } if *exec == sleeper),
    );
    assert_eq!(event, Event::ExecExited { exec: sleeper, exit_code: 137 });
    let (_, event, _) = fixture.enter((pid, &pidfd), &["nothing"], false);
    let Event::ExecFailed { exit_code: 127, message, .. } = event else { panic!("{event:?}") };
    assert!(message.contains("nothing"), "{message}");
    sys::process::signal_process(&pidfd, 9).unwrap();
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
    assert!(daemon.received.iter().any(|received| received.event == Event::Oom));
    daemon.reap();
}

fn failed_start(runtime: RuntimeChoice) {
    let fixture = Fixture::new(runtime, &["nothing"]);
    let mut daemon = Daemon::new();
    let event = daemon.ask(&fixture.launch(Vec::new()), &[]);
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
    let mut daemon = Daemon { connection, pidfd, received: Vec::new(), main: None };
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

/// What /proc says of a process: the lines of `status` that bear its rights.
#[track_caller]
fn check_rights(pid: i32, places: &[&Path]) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!((line("NoNewPrivs").as_str(), line("Seccomp").as_str()), ("1", "2"));
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mut points: Vec<&str> =
        mounts.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    points.sort_unstable();
    let mut want: Vec<&str> = places.iter().map(|path| path.to_str().unwrap()).collect();
    want.push("/");
    want.sort_unstable();
    assert_eq!(points, want);
    assert!(!Path::new(&format!("/proc/{pid}/root/etc")).exists());
    // Nothing of the host's but what it was given: no directory, no namespace, no mount.
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap();
        let text = target.to_str().unwrap();
        assert!(
            !target.is_dir() && !text.starts_with("net:") && !text.starts_with("mnt:"),
            "{text}"
        );
    }
}

fn confined(runtime: RuntimeChoice) {
    let fixture = Fixture::new(runtime, &["/bin/sleep", "1000"]);
    let (mut daemon, _) = fixture.start(None);
    check_rights(monitor_pid(&daemon.pidfd), &[&fixture.directory]);
    daemon.kill(9);
    daemon.exit();
    daemon.reap();
}

fn confined_exec(runtime: RuntimeChoice) {
    let fixture = Fixture::new(runtime, &["/bin/sleep", "1000"]);
    let (mut daemon, _) = fixture.start(None);
    let (pid, pidfd) = daemon.main.take().unwrap();
    let (_, event, kept) = fixture.enter((pid, &pidfd), &["/bin/sleep", "1000"], false);
    let Event::ExecStarted { pid: exec, .. } = event else { panic!("{event:?}") };
    let status = std::fs::read_to_string(format!("/proc/{exec}/status")).unwrap();
    let launcher = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    let launcher = launcher.trim().parse().unwrap();
    // It has replied before it gives up its rights.
    let filtered = || {
        let status = std::fs::read_to_string(format!("/proc/{launcher}/status")).unwrap();
        status.lines().any(|line| line == "Seccomp:\t2")
    };
    let end = Instant::now() + Duration::from_secs(20);
    while !filtered() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    check_rights(launcher, &[]);
    sys::process::signal_process(&kept[0], 9).unwrap();
    let mut code = [0; 4];
    UnixStream::from(kept.into_iter().nth(1).unwrap()).read_exact(&mut code).unwrap();
    assert_eq!(i32::from_ne_bytes(code), 137);
    sys::process::signal_process(&pidfd, 9).unwrap();
    daemon.exit();
    daemon.reap();
}

fn hanging_launchers(_: RuntimeChoice) {
    let own = Launchers::new(std::env::current_exe().unwrap(), None);
    own.fill().unwrap();
    let first = own.take().unwrap();
    let status = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let text = status(monitor_pid(&first.pidfd));
    let parent = text.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    let parent = rustix::process::Pid::from_raw(parent.trim().parse().unwrap()).unwrap();
    let handle = sys::process::open_process(parent).unwrap();
    let stop = rustix::process::Signal::STOP.as_raw();
    sys::process::signal_process(&handle, stop).unwrap();
    // Those that were ready before still serve; then there is a new parent.
    for _ in 0..6 {
        let launcher = own.take().unwrap();
        assert!(monitor_pid(&launcher.pidfd) > 0);
    }
}
