//! Documents and images that mean harm, or say little: what they do not get.

mod bed;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bed::{
    Bed, Test, Wish, cgroup_path, check, check_refused, document, execute, next, process, run,
    run_with, shell,
};
use runtime::{CgroupPlan, Kind, LaunchRequest, Launched, Stdio, UserRequest};
use rustix::fs::{Mode, OFlags};
use spec::runtime::{Hook, Hooks, Spec};
use sys::process::Wait;

/// A container that sleeps, to execute further processes in.
fn sleeping(bed: &Bed, spec: &mut Spec) -> Launched {
    process(spec).args = ["/bin/sleep", "100"].map(str::to_owned).to_vec();
    let rootfs = bed.rootfs();
    let (_keep, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdio = Stdio::Streams { stdin: None, stdout: write.as_fd(), stderr: write.as_fd() };
    let cgroup = CgroupPlan::Path(cgroup_path());
    runtime::launch(&LaunchRequest::new("test", spec, &rootfs, stdio, cgroup)).unwrap()
}

fn over(launched: &Launched) {
    sys::process::signal_process(&launched.pidfd, 9).unwrap();
    sys::process::wait_process(&launched.pidfd, Wait::Block).unwrap();
    launched.cgroup.as_ref().unwrap().remove().unwrap();
}

/// A directory of the host with a program in it, open as the daemon's own descriptors are.
fn host_directory(bed: &Bed) -> OwnedFd {
    let path = bed.path.join("host-bin");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::copy("/usr/bin/busybox", path.join("busybox")).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).unwrap()
}

fn no_program_of_the_host_is_found_through_a_descriptor(bed: &Bed) {
    let held = host_directory(bed);
    // The child's own numbers may differ, so all that could be one are tried at once.
    let numbers = (3..100).chain([held.as_raw_fd()]);
    let places: Vec<_> = numbers.map(|number| format!("/proc/self/fd/{number}")).collect();
    let path = format!("PATH={}", places.join(":"));
    let text = "exec: \"busybox\": executable file not found in $PATH";
    let mut spec = document(&["busybox", "id"]);
    process(&mut spec).env = vec![path.clone()];
    let error = run(bed, &spec).err().unwrap();
    assert_eq!((error.kind, error.message.as_str()), (Kind::NotFound, text));
    let launched = sleeping(bed, &mut document(&[]));
    let error = execute(&launched, process(&mut spec), None).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::NotFound, text));
    for name in [
        format!("/proc/self/fd/{}/busybox", held.as_raw_fd()),
        format!("../../proc/self/fd/{}/busybox", held.as_raw_fd()),
        "/proc/self/root/../bin/busybox".to_owned(),
    ] {
        let mut spec = document(&[&name, "id"]);
        assert!(run(bed, &spec).is_err(), "{name}");
        assert!(execute(&launched, process(&mut spec), None).is_err(), "{name}");
        let mut spec = document(&["/bin/pwd"]);
        process(&mut spec).cwd = format!("/{}", name.replace("/busybox", "").trim_matches('/'));
        assert!(execute(&launched, process(&mut spec), None).is_err(), "{name}");
    }
    over(&launched);
}

fn scripts_and_relative_names_run_as_they_are_called(bed: &Bed) {
    use std::os::unix::fs::PermissionsExt;
    let image = bed.path.join("image");
    let script = image.join("bin/script");
    std::fs::write(&script, "#!/bin/sh\necho $0 $(cat /proc/$$/comm)\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    check(bed, &document(&["script"]), 0, "/bin/script script");
    let mut spec = document(&["./script"]);
    process(&mut spec).cwd = "/bin".into();
    check(bed, &spec, 0, "./script script");
    check(bed, &document(&["/bin/readlink", "/proc/self/exe"]), 0, "/bin/busybox");
}

fn each_kind_of_missing_program_has_its_words(bed: &Bed) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let image = bed.path.join("image");
    for (link, target) in [("dangling", "nowhere"), ("loop", "loop")] {
        let _ = symlink(target, image.join(link));
    }
    std::fs::create_dir_all(image.join("bin/folder")).unwrap();
    std::fs::create_dir_all(image.join("closed")).unwrap();
    std::fs::copy("/usr/bin/busybox", image.join("closed/tool")).unwrap();
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(image.join("closed"), closed).unwrap();
    let wish = || Wish {
        user: Some(UserRequest { user: "me".into(), groups: vec![] }),
        ..Wish::default()
    };
    let stat = |name: &str, words: &str| format!("exec: \"{name}\": stat {name}: {words}");
    for (name, kind, text) in [
        ("/dangling", Kind::NotFound, stat("/dangling", "no such file or directory")),
        ("/loop", Kind::Other, stat("/loop", "too many levels of symbolic links")),
        ("/etc/passwd/x", Kind::NotFound, stat("/etc/passwd/x", "not a directory")),
        ("/closed/tool", Kind::NotExecutable, stat("/closed/tool", "permission denied")),
        ("folder", Kind::NotFound, "exec: \"folder\": executable file not found in $PATH".into()),
        ("", Kind::NotFound, "exec: \"\": executable file not found in $PATH".into()),
    ] {
        let error = run_with(bed, &document(&[name]), &wish()).err().unwrap();
        assert_eq!((error.kind, error.message), (kind, text));
    }
    let mut spec = document(&["busybox"]);
    process(&mut spec).env = vec!["PATH=bin".into()];
    let error = run(bed, &spec).err().unwrap();
    assert!(error.message.ends_with("found relative to current directory"), "{}", error.message);
}

/// Only what busybox does (its one prctl is PR_GET_NAME); nothing that we do before it.
fn strict(default: &str) -> spec::runtime::Seccomp {
    let names = [
        "execve",
        "exit",
        "exit_group",
        "read",
        "write",
        "writev",
        "open",
        "openat",
        "close",
        "brk",
        "mmap",
        "munmap",
        "mprotect",
        "mremap",
        "madvise",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "getrandom",
        "fstat",
        "newfstatat",
        "pread64",
        "readlink",
        "readlinkat",
        "access",
        "faccessat",
        "futex",
        "getuid",
        "geteuid",
        "getgid",
        "getegid",
        "uname",
        "getpid",
        "rt_sigaction",
        "rt_sigprocmask",
        "ioctl",
        "lseek",
        "sched_getaffinity",
        "sched_yield",
        "clock_gettime",
        "tgkill",
        "gettid",
        "statx",
        "setuid",
        "setgid",
    ];
    let text = format!(
        r#"{{"defaultAction":"{default}","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{{"names":{names:?},"action":"SCMP_ACT_ALLOW"}},
                {{"names":["prctl"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":0,"value":16,"op":"SCMP_CMP_EQ"}}]}}]}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn a_filter_needs_to_allow_only_what_the_program_does(bed: &Bed) {
    let script = ["/bin/grep", "-E", "^(Seccomp|NoNewPrivs|CapEff|CapPrm):", "/proc/self/status"];
    for (default, no_new_privileges, uid) in [
        ("SCMP_ACT_ERRNO", false, 0),
        ("SCMP_ACT_KILL_PROCESS", false, 1000),
        ("SCMP_ACT_KILL_PROCESS", true, 0),
        ("SCMP_ACT_ERRNO", true, 1000),
    ] {
        let mut spec = document(&script);
        let filter = strict(default);
        let compiled = runtime::seccomp::compile(&filter).unwrap();
        spec.linux.as_mut().unwrap().seccomp = Some(filter);
        process(&mut spec).no_new_privileges = no_new_privileges;
        process(&mut spec).user.uid = uid;
        // What was held for the filter's sake has gone with execve.
        let held = if uid == 0 { "00000000080020e1" } else { "0000000000000000" };
        let want = format!(
            "CapPrm:\t{held}\nCapEff:\t{held}\nNoNewPrivs:\t{}\nSeccomp:\t2",
            i32::from(no_new_privileges)
        );
        check(bed, &spec, 0, &want);
        let launched = sleeping(bed, &mut document(&[]));
        let (code, output) = execute(&launched, process(&mut spec), Some(&compiled)).unwrap();
        assert_eq!((code, output.trim_end()), (0, want.as_str()));
        over(&launched);
    }
}

fn what_a_document_does_not_say_is_not_given(bed: &Bed) {
    let mut spec = shell(
        "grep Cap /proc/self/status | while read a b; do echo $b; done; \
         busybox mknod /tmp/mem c 1 1 2>/dev/null || echo no node; \
         cat /dev/mem 2>/dev/null || echo no device; echo x >/dev/null && echo null",
    );
    process(&mut spec).capabilities = None;
    spec.linux.as_mut().unwrap().resources = None;
    let none = "0000000000000000\n".repeat(5);
    check(bed, &spec, 0, &format!("{none}no node\nno device\nnull"));
    let mut spec = shell("busybox mknod /tmp/mem c 1 1 && cat /tmp/mem 2>/dev/null || echo no");
    spec.linux.as_mut().unwrap().resources.as_mut().unwrap().devices.clear();
    check(bed, &spec, 0, "no");
    let launched = sleeping(bed, &mut document(&[]));
    let mut other = document(&["/bin/grep", "CapEff", "/proc/self/status"]);
    process(&mut other).capabilities = None;
    let (_, output) = execute(&launched, process(&mut other), None).unwrap();
    assert_eq!(output, "CapEff:\t0000000000000000\n");
    over(&launched);
}

fn settings_of_the_host_stay(bed: &Bed) {
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for name in ["net.//.kernel.core_pattern", "net/../kernel/core_pattern"] {
        let mut spec = shell("true");
        spec.linux.as_mut().unwrap().sysctl.insert(name.into(), "tug-was-here".into());
        let words = format!("sysctl {name:?} is not in a separate kernel namespace");
        check_refused(bed, &spec, Kind::Other, &words);
    }
    let after = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert_eq!(after, before);
    let mut spec = shell("true");
    let linux = spec.linux.as_mut().unwrap();
    linux.namespaces.retain(|one| one.kind != spec::runtime::NamespaceKind::Network);
    let error = run(bed, &spec).err().unwrap();
    assert!(error.message.ends_with("not allowed in host network namespace"), "{error}");
}

fn a_start_hook_has_no_more_than_the_program(bed: &Bed) {
    let mut spec = shell("cat /tmp/told");
    let script = "grep -E 'Uid|CapEff' /proc/self/status > /tmp/told";
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    let hook = Hook { path: "/bin/sh".into(), args, timeout: Some(5), ..Hook::default() };
    let env = vec!["PATH=/bin".to_owned()];
    spec.hooks = Some(Hooks { start_container: vec![Hook { env, ..hook }], ..Hooks::default() });
    spec.linux.as_mut().unwrap().seccomp = Some(strict_enough());
    check(bed, &spec, 0, "Uid:\t0\t0\t0\t0\nCapEff:\t00000000080020e1");
}

fn strict_enough() -> spec::runtime::Seccomp {
    serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}"#).unwrap()
}

fn every_hierarchy_has_the_container(bed: &Bed) {
    let mut spec = shell("cat /proc/self/cgroup; ls /sys/fs/cgroup");
    spec.linux.as_mut().unwrap().resources = None;
    let outcome = run(bed, &spec).unwrap();
    let host = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let (groups, names): (Vec<_>, Vec<_>) =
        outcome.output.lines().partition(|line| line.contains(':'));
    assert_eq!(groups.len(), host.lines().count(), "{}", outcome.output);
    for line in groups {
        assert!(line.contains("/tug-runtime-test-"), "{line}");
    }
    if let sys::cgroup::Layout::V1 { controllers, named, .. } = sys::cgroup::Layout::host() {
        for name in controllers.keys().chain(named.keys()) {
            assert!(names.contains(&name.as_str()), "{name}: {names:?}");
        }
    }
}

fn processes_are_scheduled_as_the_document_says(bed: &Bed) {
    let mut spec = shell("set -- $(cat /proc/$$/stat); shift 18; echo $1; busybox ionice -p $$");
    let given = r#"{"scheduler":{"policy":"SCHED_BATCH","nice":7},"ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0}}"#;
    let given: spec::runtime::Process = serde_json::from_str(given).unwrap();
    process(&mut spec).scheduler = given.scheduler;
    process(&mut spec).io_priority = given.io_priority;
    check(bed, &spec, 0, "7\nidle");
    let mut refused = shell("true");
    refused.linux.as_mut().unwrap().intel_rdt = Some(serde_json::json!({}));
    assert!(run(bed, &refused).err().unwrap().message.starts_with("intelRdt"));
}

fn owners_are_shown_through_the_mappings_of_a_mount(bed: &Bed) {
    let directory = bed.path.join("owned");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("file"), "x").unwrap();
    std::os::unix::fs::chown(directory.join("file"), Some(7), Some(8)).unwrap();
    let source = directory.to_str().unwrap();
    let with = |more: &str| {
        let mount = format!(
            r#"{{"destination":"/tmp/owned","type":"bind","source":"{source}","options":["rbind"]{more}}}"#
        );
        let mut spec = shell("stat -c %u:%g /tmp/owned/file; touch /tmp/owned/mine");
        spec.mounts.push(serde_json::from_str(&mount).unwrap());
        spec
    };
    let map = r#"[{"containerID":0,"hostID":0,"size":1},{"containerID":7,"hostID":1007,"size":2}]"#;
    let both = format!(r#","uidMappings":{map},"gidMappings":{map}"#);
    check(bed, &with(&both), 0, "1007:1008");
    check(bed, &with(""), 0, "7:8");
    let one = run(bed, &with(&format!(r#","uidMappings":{map}"#))).err().unwrap();
    assert!(one.message.contains("both uidMappings and gidMappings are needed"), "{one}");
    let mut none = shell("true");
    let tmpfs = r#"{"destination":"/tmp","type":"tmpfs","source":"tmpfs","options":["idmap"]}"#;
    none.mounts.push(serde_json::from_str(tmpfs).unwrap());
    assert!(run(bed, &none).err().unwrap().message.contains("only bind mounts"));
}

fn memory_and_cpus_are_those_of_the_document(bed: &Bed) {
    let policy = r#"{"mode":"MPOL_BIND","nodes":"0"}"#;
    let mut spec = shell("busybox grep -m 1 -o bind:0 /proc/self/numa_maps");
    spec.linux.as_mut().unwrap().memory_policy = Some(serde_json::from_str(policy).unwrap());
    check(bed, &spec, 0, "bind:0");
    let launched = sleeping(bed, &mut shell("true"));
    let own = sys::placement::affinity().unwrap();
    let allowed = |affinity: &str| {
        let mut inner = shell("grep Cpus_allowed_list /proc/self/status | busybox cut -f 2");
        process(&mut inner).exec_cpu_affinity = Some(serde_json::from_str(affinity).unwrap());
        bed::execute(&launched, process(&mut inner), None)
    };
    assert_eq!(allowed(r#"{"initial":"0","final":"0"}"#).unwrap(), (0, "0\n".to_owned()));
    let error = allowed(r#"{"final":"4000"}"#).unwrap_err();
    assert!(error.message.starts_with("error setting the final CPU affinity"), "{error}");
    assert_eq!(sys::placement::affinity().unwrap(), own);
    sys::process::signal_process(&launched.pidfd, 9).unwrap();
    bed::end(&launched);
}

fn a_console_that_is_a_link_stays_inside(bed: &Bed) {
    let dev = bed.path.join("linked-dev");
    std::fs::create_dir_all(dev.join("pts")).unwrap();
    let victim = bed.path.join("victim");
    std::fs::write(&victim, "the host's").unwrap();
    let _ = std::fs::remove_file(dev.join("console"));
    std::os::unix::fs::symlink(&victim, dev.join("console")).unwrap();
    let mut spec = shell("tty");
    for mount in &mut spec.mounts {
        if mount.destination == "/dev" {
            mount.kind = "bind".to_owned();
            mount.source = dev.to_str().unwrap().to_owned();
            mount.options = vec!["rbind".to_owned()];
        }
    }
    // What is masked is covered with the container's own /dev/null, and this one has none.
    spec.linux.as_mut().unwrap().masked_paths.clear();
    process(&mut spec).terminal = true;
    let (rootfs, cgroup) = (bed.rootfs(), CgroupPlan::Path(cgroup_path()));
    let stdio = Stdio::Terminal { size: None };
    let request = LaunchRequest::new("test", &spec, &rootfs, stdio, cgroup);
    let launched = runtime::launch(&request).unwrap();
    let mut output = Vec::new();
    let mut master = std::fs::File::from(launched.terminal.as_ref().unwrap().try_clone().unwrap());
    let _ = std::io::Read::read_to_end(&mut master, &mut output);
    assert_eq!(String::from_utf8_lossy(&output), "/dev/pts/0\r\n");
    assert_eq!(bed::end(&launched), 0);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "the host's");
}

fn descriptors_that_were_not_handed_over_are_not_handed_on(bed: &Bed) {
    let (spec, rootfs) = (shell("true"), bed.rootfs());
    let cgroup = CgroupPlan::Path(cgroup_path());
    let id = next().to_string();
    let mut request = LaunchRequest::new(&id, &spec, &rootfs, Stdio::Inherit, cgroup);
    request.preserved_fds = 500;
    let error = runtime::launch(&request).unwrap_err();
    assert!(error.message.starts_with("preserve descriptors"), "{error}");
}

fn a_mount_namespace_by_path_is_joined_unless_it_is_ours(bed: &Bed) {
    let mut holder = std::process::Command::new("unshare")
        .args(["--mount", "--propagation=private", "sh", "-c", "echo; exec sleep 100"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let with = |path: &str| {
        let mut spec = document(&["/bin/readlink", "/proc/self/ns/mnt"]);
        for one in &mut spec.linux.as_mut().unwrap().namespaces {
            if one.kind == spec::runtime::NamespaceKind::Mount {
                one.path = path.to_owned();
            }
        }
        spec
    };
    let path = format!("/proc/{}/ns/mnt", holder.id());
    let want = std::fs::read_link(&path).unwrap();
    check(bed, &with(&path), 0, want.to_str().unwrap());
    holder.kill().unwrap();
    holder.wait().unwrap();
    let error = run(bed, &with("/proc/self/ns/mnt")).err().unwrap();
    assert!(error.message.contains("own mount namespace"), "{error}");
    let mut spec = document(&["true"]);
    let linux = spec.linux.as_mut().unwrap();
    linux.namespaces.retain(|one| one.kind != spec::runtime::NamespaceKind::Mount);
    assert!(run(bed, &spec).err().unwrap().message.contains("without a mount namespace"));
}

fn the_command_line_answers_as_runcs_does(bed: &Bed) {
    let bundle = bed::bundle(bed, &mut document(&["/bin/sleep", "100"]));
    assert_eq!(bed::tug(bed, &["create", "--bundle", &bundle, "line"]).0, 0);
    assert_eq!(bed::tug(bed, &["start", "line"]), (0, String::new()));
    let (code, text) = bed::tug(bed, &["exec", "line", "nosuch"]);
    assert_eq!(code, 255, "{text}");
    // The host cannot raise limits, and that is nothing to say on the process's own stderr.
    let quiet = bed::tug(bed, &["exec", "line", "/bin/true"]);
    assert_eq!(quiet, (0, String::new()));
    let (code, text) = bed::tug(bed, &["ps", "line"]);
    assert!(code == 0 && text.contains("UID") && text.contains("sleep 100"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(bed::tug(bed, &["ps", "line", "-o", "pid"]).1.lines().count(), 2);
    assert_eq!(bed::tug(bed, &["delete", "--force", "line"]).0, 0);
    let (code, text) = bed::tug(bed, &["--log-format", "xml", "list"]);
    assert!(code == 1 && text.starts_with("invalid log-format: xml"), "{text}");
    let mut linked = document(&["/bin/true"]);
    let bundle = bed::bundle(bed, &mut linked);
    let link = bed.path.join("link");
    let _ = std::os::unix::fs::symlink(bed.path.join("image"), &link);
    linked.root.as_mut().unwrap().path = link.display().to_string();
    let text = serde_json::to_vec(&linked).unwrap();
    std::fs::write(std::path::Path::new(&bundle).join("config.json"), text).unwrap();
    let (code, text) = bed::tug(bed, &["run", "--bundle", &bundle, "linked"]);
    assert!(code == 1 && text.contains("not an absolute path, or a symlink"), "{text}");
    assert!(bed::tug(bed, &["checkpoint", "x"]).1.contains("not supported"));
}

const TESTS: &[Test] = tests![
    no_program_of_the_host_is_found_through_a_descriptor,
    scripts_and_relative_names_run_as_they_are_called,
    each_kind_of_missing_program_has_its_words,
    a_filter_needs_to_allow_only_what_the_program_does,
    what_a_document_does_not_say_is_not_given,
    settings_of_the_host_stay,
    a_start_hook_has_no_more_than_the_program,
    every_hierarchy_has_the_container,
    processes_are_scheduled_as_the_document_says,
    owners_are_shown_through_the_mappings_of_a_mount,
    memory_and_cpus_are_those_of_the_document,
    a_console_that_is_a_link_stays_inside,
    descriptors_that_were_not_handed_over_are_not_handed_on,
    a_mount_namespace_by_path_is_joined_unless_it_is_ours,
    the_command_line_answers_as_runcs_does,
];

fn main() -> std::process::ExitCode {
    bed::main(TESTS)
}
