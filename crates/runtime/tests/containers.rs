//! Real containers, made in process: each test is a sentence, a document and what is to come out.
//!
//! This program has no usual harness, since making a container takes a process with one thread. An
//! argument selects tests by a part of their names.

mod bed;

use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use bed::{
    Bed, Test, Wish, bundle, cgroup_path, check, check_refused, document, end, execute, next,
    process, run, run_with, shell, tug,
};
use runtime::{CgroupPlan, LaunchRequest, RootfsMount, Stdio, UserRequest};
use sys::process::Wait;

fn a_program_runs_and_its_code_comes_back(bed: &Bed) {
    check(bed, &shell("echo hello; exit 7"), 7, "hello");
}

fn it_is_process_1_with_its_own_name_and_processes(bed: &Bed) {
    check(bed, &shell("echo $$ $(hostname); ls -d /proc/[0-9]*; true"), 0, "1 boat\n/proc/1");
}

fn capabilities_are_those_of_the_document(bed: &Bed) {
    check(
        bed,
        &shell("grep Cap /proc/self/status | while read a b; do echo $b; done"),
        0,
        "0000000000000000\n00000000080020e1\n00000000080020e1\n00000000080020e1\n0000000000000000",
    );
}

fn limits_of_the_document_hold(bed: &Bed) {
    check(bed, &shell("ulimit -Sn; ulimit -Hn"), 0, "123\n456");
}

fn only_the_standard_streams_are_inherited(bed: &Bed) {
    check(bed, &document(&["/bin/ls", "/proc/self/fd"]), 0, "0\n1\n2\n3");
}

fn nothing_of_the_host_is_mounted(bed: &Bed) {
    let outcome = run(bed, &document(&["/bin/cat", "/proc/self/mountinfo"])).unwrap();
    let roots = outcome.output.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count();
    assert_eq!(roots, 1, "{}", outcome.output);
    assert!(!outcome.output.contains("/mnt/"), "{}", outcome.output);
}

fn nothing_is_mounted_on_the_host(bed: &Bed) {
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (_keep, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (spec, rootfs) = (document(&["/bin/sleep", "100"]), bed.rootfs());
    let stdio = Stdio::Streams { stdin: None, stdout: write.as_fd(), stderr: write.as_fd() };
    let request =
        LaunchRequest::new("test", &spec, &rootfs, stdio, CgroupPlan::Path(cgroup_path()));
    let launched = runtime::launch(&request).unwrap();
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    sys::process::signal_process(&launched.pidfd, 9).unwrap();
    assert_eq!(end(&launched), 137);
}

fn masked_files_are_empty_and_settings_read_only(bed: &Bed) {
    check(
        bed,
        &shell(
            "cat /proc/keys; ls /sys/firmware; (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo ro; cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        ),
        0,
        "ro\n0",
    );
}

fn the_group_limits_are_visible_inside(bed: &Bed) {
    let file = if sys::cgroup::Layout::host().is_v2() {
        "/sys/fs/cgroup/pids.max"
    } else {
        "/sys/fs/cgroup/pids/pids.max"
    };
    check(bed, &document(&["/bin/cat", file]), 0, "50");
}

fn devices_work_and_others_do_not(bed: &Bed) {
    check(
        bed,
        &shell(
            "echo x > /dev/null && echo ok; busybox mknod /tmp/mem c 1 1 && cat /tmp/mem 2>/dev/null || echo no; readlink /dev/ptmx",
        ),
        0,
        "ok\nno\npts/ptmx",
    );
}

fn a_missing_program_is_not_found(bed: &Bed) {
    check_refused(
        bed,
        &document(&["foo"]),
        runtime::Kind::NotFound,
        "exec: \"foo\": executable file not found in $PATH",
    );
    check_refused(
        bed,
        &document(&["/x"]),
        runtime::Kind::NotFound,
        "exec: \"/x\": stat /x: no such file or directory",
    );
}

fn what_is_no_program_is_not_executable(bed: &Bed) {
    let kind = runtime::Kind::NotExecutable;
    check_refused(
        bed,
        &document(&["/etc/notexec"]),
        kind,
        "exec: \"/etc/notexec\": permission denied",
    );
    check_refused(bed, &document(&["/etc"]), kind, "exec: \"/etc\": permission denied");
}

fn a_program_that_the_kernel_refuses_says_so_itself(bed: &Bed) {
    check(bed, &document(&["/bin/garbage"]), 255, "exec /bin/garbage: exec format error");
}

fn users_are_looked_up_in_the_image(bed: &Bed) {
    let wish = |user: &str| Wish {
        user: Some(UserRequest { user: user.into(), groups: vec![] }),
        ..Wish::default()
    };
    let outcome = run_with(bed, &shell("id -u; id -g; id -G; echo $HOME"), &wish("me")).unwrap();
    assert_eq!(outcome.output, "1000\n1001\n1001 50\n/home/me\n");
    let error = run_with(bed, &shell("true"), &wish("foo")).err().unwrap();
    assert_eq!(error.docker_text(), "unable to find user foo: no matching entries in passwd file");
}

fn a_missing_directory_is_made_and_entered(bed: &Bed) {
    let mut spec = document(&["/bin/pwd"]);
    process(&mut spec).cwd = "/a/b".into();
    spec.root.as_mut().unwrap().readonly = true;
    check(bed, &spec, 0, "/a/b");
}

fn a_directory_through_a_descriptor_is_refused(bed: &Bed) {
    for cwd in ["/proc/self/fd/3", "/escape/etc"] {
        let mut spec = document(&["/bin/pwd"]);
        process(&mut spec).cwd = cwd.into();
        assert!(run(bed, &spec).is_err(), "{cwd}");
    }
}

fn a_read_only_root_cannot_be_written(bed: &Bed) {
    let mut spec = shell("touch /x 2>/dev/null || echo ro; touch /dev/shm/x && echo rw");
    spec.root.as_mut().unwrap().readonly = true;
    check(bed, &spec, 0, "ro\nrw");
}

fn binds_can_be_read_only_and_single_files(bed: &Bed) {
    std::fs::create_dir_all(bed.path.join("volume")).unwrap();
    std::fs::write(bed.path.join("volume/file"), "content").unwrap();
    let mut spec = shell("cat /vol/file /deep/er/file; touch /vol/x 2>/dev/null || echo ' ro'");
    let mount = |source: PathBuf, destination: &str, options: &[&str]| spec::runtime::Mount {
        destination: destination.into(),
        kind: "bind".into(),
        source: source.to_str().unwrap().into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..spec::runtime::Mount::default()
    };
    spec.mounts.push(mount(bed.path.join("volume"), "/vol", &["rbind", "ro", "rprivate"]));
    spec.mounts.push(mount(bed.path.join("volume/file"), "/deep/er/file", &["rbind", "ro"]));
    check(bed, &spec, 0, "contentcontent ro");
}

fn an_image_whose_dev_is_a_link_keeps_its_devices_inside(bed: &Bed) {
    let layer = bed.path.join("evil");
    std::fs::create_dir_all(&layer).unwrap();
    let outside = bed.path.join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, layer.join("dev")).unwrap();
    let RootfsMount::Overlay { mut lowers, writable, options } = bed.rootfs() else {
        unreachable!()
    };
    lowers.insert(0, layer);
    let rootfs = RootfsMount::Overlay { lowers, writable, options };
    let wish = Wish { rootfs: Some(rootfs), ..Wish::default() };
    let outcome = run_with(bed, &shell("echo x > /dev/null && echo ok"), &wish).unwrap();
    assert_eq!(outcome.output, "ok\n");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

fn an_image_whose_proc_is_a_link_is_refused(bed: &Bed) {
    let layer = bed.path.join("evil-proc");
    std::fs::create_dir_all(layer.join("other")).unwrap();
    std::os::unix::fs::symlink("/other", layer.join("proc")).unwrap();
    let RootfsMount::Overlay { mut lowers, writable, options } = bed.rootfs() else {
        unreachable!()
    };
    lowers.insert(0, layer);
    let rootfs = RootfsMount::Overlay { lowers, writable, options };
    let error = run_with(bed, &shell("true"), &Wish { rootfs: Some(rootfs), ..Wish::default() });
    let message = error.err().unwrap().message;
    assert!(message.ends_with("/proc must be an ordinary directory"), "{message}");
}

fn a_terminal_is_one_with_the_size_asked_for(bed: &Bed) {
    let (mut spec, rootfs) =
        (shell("tty; stty size; test -c /dev/console && echo console"), bed.rootfs());
    process(&mut spec).terminal = true;
    let size = Some(sys::tty::Size { rows: 33, columns: 77 });
    let request = LaunchRequest::new(
        "test",
        &spec,
        &rootfs,
        Stdio::Terminal { size },
        CgroupPlan::Path(cgroup_path()),
    );
    let launched = runtime::launch(&request).unwrap();
    let mut output = Vec::new();
    // Reading a master fails once the last slave is closed.
    let _ = std::fs::File::from(launched.terminal.as_ref().unwrap().try_clone().unwrap())
        .read_to_end(&mut output);
    assert_eq!(String::from_utf8_lossy(&output), "/dev/pts/0\r\n33 77\r\nconsole\r\n");
    assert_eq!(end(&launched), 0);
}

fn a_further_process_is_inside_and_its_code_comes_back(bed: &Bed) {
    let (_keep, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (spec, rootfs) = (document(&["/bin/sleep", "100"]), bed.rootfs());
    let stdio = Stdio::Streams { stdin: None, stdout: write.as_fd(), stderr: write.as_fd() };
    let request =
        LaunchRequest::new("test", &spec, &rootfs, stdio, CgroupPlan::Path(cgroup_path()));
    let launched = runtime::launch(&request).unwrap();
    let exec = |script: &str| execute(&launched, process(&mut shell(script)), None).unwrap();
    assert_eq!(exec("hostname; cat /proc/1/comm; exit 5"), (5, "boat\nsleep\n".to_owned()));
    let group = launched.cgroup.as_ref().unwrap();
    assert_eq!(group.processes().unwrap().len(), 1);
    assert!(group.stats().unwrap().memory.usage > 0);
    group.freeze(sys::cgroup::Freeze::Freeze).unwrap();
    assert!(group.is_frozen().unwrap());
    group.freeze(sys::cgroup::Freeze::Thaw).unwrap();
    group.kill().unwrap();
    assert_eq!(end(&launched), 137);
}

fn the_out_of_memory_killer_is_noticed(bed: &Bed) {
    let mut spec = shell("x=a; while true; do x=$x$x; done");
    let resources = spec.linux.as_mut().unwrap().resources.as_mut().unwrap();
    resources.memory.as_mut().unwrap().limit = Some(16 << 20);
    let (rootfs, path) = (bed.rootfs(), cgroup_path());
    let (_keep, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdio = Stdio::Streams { stdin: None, stdout: write.as_fd(), stderr: write.as_fd() };
    let created = runtime::create(&LaunchRequest::new(
        "test",
        &spec,
        &rootfs,
        stdio,
        CgroupPlan::Path(path.clone()),
    ))
    .unwrap();
    let mut watch = sys::cgroup::Cgroup::find(&path).watch_oom().unwrap();
    let stdio = Stdio::Inherit;
    let launched = created
        .start(&LaunchRequest::new("test", &spec, &rootfs, stdio, CgroupPlan::Path(path)))
        .unwrap();
    let exit = sys::process::wait_process(&launched.pidfd, Wait::Block).unwrap().unwrap();
    assert_eq!(exit.code(), 137);
    assert_eq!(watch.take().unwrap(), 1);
    launched.cgroup.unwrap().remove().unwrap();
}

fn ids_are_mapped_in_a_user_namespace(bed: &Bed) {
    let mut spec = shell("id -u; cat /proc/self/uid_map; echo x > /dev/null && echo dev");
    let map = spec::runtime::IdMapping { container_id: 0, host_id: 100_000, size: 65536 };
    let linux = spec.linux.as_mut().unwrap();
    linux.uid_mappings = vec![map];
    linux.gid_mappings = vec![map];
    linux.namespaces.push(spec::runtime::Namespace {
        kind: spec::runtime::NamespaceKind::User,
        path: String::new(),
    });
    let outcome = run(bed, &spec).unwrap();
    let words: Vec<_> = outcome.output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "dev"]);
}

fn hooks_run_where_and_when_they_belong(bed: &Bed) {
    let told = bed.path.join("told");
    let hook = |path: &str, args: &[&str]| spec::runtime::Hook {
        path: path.into(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec!["PATH=/bin:/usr/bin".into()],
        timeout: Some(5),
    };
    let mut spec = shell("test -e /tmp/inside && echo inside");
    let script = format!("cat > {}", told.display());
    spec.hooks = Some(spec::runtime::Hooks {
        create_runtime: vec![hook("/bin/sh", &["sh", "-c", &script])],
        start_container: vec![hook("/bin/touch", &["touch", "/tmp/inside"])],
        ..spec::runtime::Hooks::default()
    });
    check(bed, &spec, 0, "inside");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&"test".into(), &"creating".into()));
    spec.hooks.as_mut().unwrap().create_runtime = vec![hook("/bin/false", &["false"])];
    assert!(run(bed, &spec).is_err());
}

fn clocks_have_the_offsets_of_the_document(bed: &Bed) {
    let mut spec = shell("read up rest < /proc/uptime; echo ${up%.*}");
    let linux = spec.linux.as_mut().unwrap();
    let kind = spec::runtime::NamespaceKind::Time;
    linux.namespaces.push(spec::runtime::Namespace { kind, path: String::new() });
    let offset = spec::runtime::TimeOffset { secs: 1_000_000_000, nanosecs: 0 };
    linux.time_offsets.insert("boottime".into(), offset);
    let uptime: u64 = run(bed, &spec).unwrap().output.trim().parse().unwrap();
    assert!(uptime > 1_000_000_000, "{uptime}");
    // What we start afterwards is back in our own time.
    let spec = shell("read up rest < /proc/uptime; echo ${up%.*}");
    let uptime: u64 = run(bed, &spec).unwrap().output.trim().parse().unwrap();
    assert!(uptime < 1_000_000_000, "{uptime}");
}

fn processes_of_another_container_can_be_shared(bed: &Bed) {
    let (_keep, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (spec, rootfs) = (document(&["/bin/sleep", "100"]), bed.rootfs());
    let stdio = Stdio::Streams { stdin: None, stdout: write.as_fd(), stderr: write.as_fd() };
    let request = LaunchRequest::new("one", &spec, &rootfs, stdio, CgroupPlan::Path(cgroup_path()));
    let first = runtime::launch(&request).unwrap();
    let mut spec = shell("cat /proc/1/comm; echo $$");
    for namespace in &mut spec.linux.as_mut().unwrap().namespaces {
        if namespace.kind == spec::runtime::NamespaceKind::Pid {
            namespace.path = format!("/proc/{}/ns/pid", first.pid.as_raw_nonzero());
        }
    }
    check(bed, &spec, 0, "sleep\n2");
    sys::process::signal_process(&first.pidfd, 9).unwrap();
    end(&first);
}

fn a_filter_is_in_force(bed: &Bed) {
    let mut spec = shell("mkdir /tmp/x 2>&1; true");
    spec.linux.as_mut().unwrap().seccomp = Some(
        serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#).unwrap(),
    );
    check(bed, &spec, 0, "mkdir: can't create directory '/tmp/x': Operation not permitted");
    process(&mut spec).no_new_privileges = true;
    check(bed, &spec, 0, "mkdir: can't create directory '/tmp/x': Operation not permitted");
}

fn the_engines_init_runs_the_program_and_reaps(bed: &Bed) {
    for sealed in [runtime::seal::Sealed::open(), runtime::seal::Sealed::copy()] {
        runs_under_init(bed, &sealed.unwrap());
    }
}

fn runs_under_init(bed: &Bed, sealed: &runtime::seal::Sealed) {
    let wish = Wish { init: Some(sealed), ..Wish::default() };
    let script = "cat /proc/1/cmdline | busybox tr '\\0' ' '; (sleep 0.01 &); sleep 0.05; \
                  cat /proc/[0-9]*/stat | grep -c ' Z '; touch /sbin/docker-init 2>/dev/null || echo ro; exit 9";
    let outcome = run_with(bed, &shell(script), &wish).unwrap();
    let lines: Vec<_> = outcome.output.lines().collect();
    assert!(lines[0].starts_with("/sbin/docker-init -- /bin/sh -c"), "{}", outcome.output);
    assert!(outcome.output.ends_with(" 0\nro\n"), "{}", outcome.output);
    assert_eq!(outcome.code, 9);
}

fn the_command_line_takes_a_container_through_its_life(bed: &Bed) {
    let bundle = bundle(bed, &mut document(&["/bin/sleep", "100"]));
    let status = |want: &str| {
        let (code, text) = tug(bed, &["state", "life"]);
        assert!(code == 0 && text.contains(&format!("\"status\": \"{want}\"")), "{text}");
    };
    let done = |args: &[&str]| assert_eq!(tug(bed, args), (0, String::new()), "{args:?}");
    done(&["create", "--bundle", &bundle, "life"]);
    status("created");
    done(&["start", "life"]);
    status("running");
    assert_eq!(tug(bed, &["exec", "life", "/bin/hostname"]), (0, "boat\n".to_owned()));
    assert_eq!(tug(bed, &["exec", "life", "/bin/sh", "-c", "exit 4"]).0, 4);
    let (code, line) = tug(bed, &["events", "--stats", "life"]);
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((code, &event["type"], &event["id"]), (0, &"stats".into(), &"life".into()));
    assert_eq!(event["data"]["pids"]["current"], 1, "{line}");
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{line}");
    assert_eq!(tug(bed, &["events", "--interval", "0s", "life"]).0, 1);
    done(&["pause", "life"]);
    status("paused");
    done(&["resume", "life"]);
    done(&["update", "--pids-limit", "20", "life"]);
    assert_eq!(tug(bed, &["delete", "life"]).0, 1);
    done(&["kill", "life", "KILL"]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    status("stopped");
    done(&["delete", "life"]);
    assert_eq!(tug(bed, &["state", "life"]), (1, "container does not exist\n".to_owned()));
}

fn the_command_line_runs_in_the_foreground(bed: &Bed) {
    let bundle = bundle(bed, &mut shell("echo hello; exit 3"));
    assert_eq!(tug(bed, &["run", "--bundle", &bundle, "front"]), (3, "hello\n".to_owned()));
    let missing = self::bundle(bed, &mut document(&["foo"]));
    let (code, text) = tug(bed, &["create", "--bundle", &missing, "missing"]);
    assert!(
        code == 1 && text.contains("exec: \"foo\": executable file not found in $PATH"),
        "{text}"
    );
    assert_eq!(tug(bed, &["list", "-q"]), (0, String::new()));
}

fn runc() -> Option<PathBuf> {
    let found =
        ["/usr/sbin/runc", "/usr/bin/runc"].iter().map(PathBuf::from).find(|path| path.exists());
    if found.is_none() {
        sys::testing::ignored("runc is not installed");
    }
    found
}

/// The same requests through another runtime's command line and through ours.
fn other_runtimes_do_the_same(bed: &Bed) {
    let own = bed.path.join("tug-runtime");
    let script =
        format!("#!/bin/sh\nexec {} runtime \"$@\"\n", std::env::current_exe().unwrap().display());
    std::fs::write(&own, script).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
    for program in runc().into_iter().chain([own]) {
        let scratch = bed.path.join(format!("external-{}", next()));
        std::fs::create_dir_all(&scratch).unwrap();
        let root = scratch.join("root");
        let external =
            runtime::external::External { program, arguments: Vec::new(), root, scratch };
        conforms(bed, &external);
    }
}

fn conforms(bed: &Bed, external: &runtime::external::External) {
    use runtime::external::Force;
    let id = format!("tug-test-{}-{}", std::process::id(), next());
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (spec, rootfs) = (shell("id -u; hostname; sleep 100"), bed.rootfs());
    let user = UserRequest { user: "me".into(), groups: vec![] };
    let stdio = Stdio::Streams { stdin: None, stdout: write.as_fd(), stderr: write.as_fd() };
    let mut request =
        LaunchRequest::new(&id, &spec, &rootfs, stdio, CgroupPlan::Path(cgroup_path()));
    request.user = Some(&user);
    let launched = external.launch(&request).unwrap();
    drop(request);
    drop(write);
    let mut output = [0_u8; 10];
    std::fs::File::from(read).read_exact(&mut output).unwrap();
    assert_eq!(&output, b"1000\nboat\n");

    let mut other = shell("tty; exit 6");
    let exec = runtime::ExecRequest {
        pid: launched.pid,
        pidfd: launched.pidfd.as_fd(),
        process: process(&mut other),
        stdio: Stdio::Terminal { size: None },
        cgroup: launched.cgroup.as_ref(),
        user: None,
        seccomp: None,
        preserved_fds: 0,
    };
    let executed = external.exec(&id, &exec).unwrap();
    let mut output = Vec::new();
    let _ = std::fs::File::from(executed.terminal.unwrap()).read_to_end(&mut output);
    assert_eq!(String::from_utf8_lossy(&output), "/dev/pts/0\r\n");
    assert_eq!(
        sys::process::wait_process(&executed.pidfd, Wait::Block).unwrap().unwrap().code(),
        6
    );

    external.kill(&id, 9).unwrap();
    assert_eq!(
        sys::process::wait_process(&launched.pidfd, Wait::Block).unwrap().unwrap().code(),
        137
    );
    external.delete(&id, Force::No).unwrap();
    assert!(launched.cgroup.unwrap().directories().is_empty());

    let (spec, rootfs) = (document(&["foo"]), bed.rootfs());
    let (_keep, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdio = Stdio::Streams { stdin: None, stdout: write.as_fd(), stderr: write.as_fd() };
    let request = LaunchRequest::new(&id, &spec, &rootfs, stdio, CgroupPlan::Path(cgroup_path()));
    let error = external.launch(&request).unwrap_err();
    assert_eq!(error.kind, runtime::Kind::NotFound);
    assert_eq!(error.message, "exec: \"foo\": executable file not found in $PATH");
}

const TESTS: &[Test] = tests![
    a_program_runs_and_its_code_comes_back,
    it_is_process_1_with_its_own_name_and_processes,
    capabilities_are_those_of_the_document,
    limits_of_the_document_hold,
    only_the_standard_streams_are_inherited,
    nothing_of_the_host_is_mounted,
    nothing_is_mounted_on_the_host,
    masked_files_are_empty_and_settings_read_only,
    the_group_limits_are_visible_inside,
    devices_work_and_others_do_not,
    a_missing_program_is_not_found,
    what_is_no_program_is_not_executable,
    a_program_that_the_kernel_refuses_says_so_itself,
    users_are_looked_up_in_the_image,
    a_missing_directory_is_made_and_entered,
    a_directory_through_a_descriptor_is_refused,
    a_read_only_root_cannot_be_written,
    binds_can_be_read_only_and_single_files,
    an_image_whose_dev_is_a_link_keeps_its_devices_inside,
    an_image_whose_proc_is_a_link_is_refused,
    a_terminal_is_one_with_the_size_asked_for,
    a_further_process_is_inside_and_its_code_comes_back,
    the_out_of_memory_killer_is_noticed,
    ids_are_mapped_in_a_user_namespace,
    hooks_run_where_and_when_they_belong,
    clocks_have_the_offsets_of_the_document,
    processes_of_another_container_can_be_shared,
    a_filter_is_in_force,
    the_engines_init_runs_the_program_and_reaps,
    the_command_line_takes_a_container_through_its_life,
    the_command_line_runs_in_the_foreground,
    other_runtimes_do_the_same,
    many_starts_are_fast,
];

fn many_starts_are_fast(bed: &Bed) {
    let spec = document(&["/bin/true"]);
    let rounds = 20;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let rootfs = bed.rootfs();
        let path = cgroup_path();
        let request =
            LaunchRequest::new("test", &spec, &rootfs, Stdio::Inherit, CgroupPlan::Path(path));
        let began = std::time::Instant::now();
        let launched = runtime::launch(&request).unwrap();
        let started = began.elapsed();
        end(&launched);
        times.push(started);
    }
    times.sort();
    println!("    start: median {:?}, fastest {:?}", times[times.len() / 2], times[0]);
}

fn main() -> std::process::ExitCode {
    bed::main(TESTS)
}
