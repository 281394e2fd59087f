//! What the tests of real containers share: an image, documents, and how one is run.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use runtime::{CgroupPlan, Init, LaunchRequest, Launched, RootfsMount, Stdio, UserRequest};
use spec::runtime::{Process, Spec};
use sys::process::{Exit, Wait};

/// A directory with an image (busybox and its libraries) and room for a writable layer.
pub struct Bed {
    pub path: PathBuf,
}

impl Bed {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tug-runtime-{}", std::process::id()));
        let bed = Self { path };
        let image = bed.path.join("image");
        for directory in
            ["bin", "etc", "tmp", "dev", "proc", "sys", "root", "lib64", "sbin", "data"]
        {
            std::fs::create_dir_all(image.join(directory)).unwrap();
        }
        std::fs::write(
            image.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1001::/home/me:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(image.join("etc/group"), "root:x:0:\nstaff:x:50:me\n").unwrap();
        std::fs::write(image.join("etc/notexec"), "text").unwrap();
        std::fs::write(image.join("bin/garbage"), "text").unwrap();
        std::os::unix::fs::symlink("/proc/self/fd/3", image.join("escape")).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(image.join("bin/garbage"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        copy_program(Path::new("/usr/bin/busybox"), &image);
        for name in [
            "sh", "true", "cat", "id", "ls", "mount", "hostname", "sleep", "stty", "echo", "pwd",
            "grep", "touch", "mkdir", "kill", "tty", "env", "ulimit", "readlink", "stat",
        ] {
            let _ = std::os::unix::fs::symlink("busybox", image.join("bin").join(name));
        }
        bed
    }

    pub fn rootfs(&self) -> RootfsMount {
        let layer = self.path.join(format!("rw-{}", next()));
        std::fs::create_dir_all(layer.join("upper")).unwrap();
        std::fs::create_dir_all(layer.join("work")).unwrap();
        RootfsMount::Overlay {
            lowers: vec![self.path.join("image")],
            writable: Some(runtime::rootfs::Writable {
                upper: layer.join("upper"),
                work: layer.join("work"),
            }),
            options: Vec::new(),
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

pub fn next() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Copies a program and the libraries that ldd(1) names.
pub fn copy_program(program: &Path, image: &Path) {
    std::fs::copy(program, image.join("bin/busybox")).unwrap();
    let output = std::process::Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let to = image.join(word.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(word, to).unwrap();
    }
}

pub fn document(args: &[&str]) -> Spec {
    let text = r#"{
        "ociVersion": "1.2.0",
        "hostname": "boat",
        "process": {"user":{"uid":0,"gid":0},"cwd":"/","args":[],
            "env":["PATH=/usr/local/sbin:/usr/sbin:/sbin:/bin"],
            "capabilities":{
                "bounding":["CAP_CHOWN","CAP_KILL","CAP_SETUID","CAP_SETGID","CAP_NET_RAW","CAP_MKNOD"],
                "permitted":["CAP_CHOWN","CAP_KILL","CAP_SETUID","CAP_SETGID","CAP_NET_RAW","CAP_MKNOD"],
                "effective":["CAP_CHOWN","CAP_KILL","CAP_SETUID","CAP_SETGID","CAP_NET_RAW","CAP_MKNOD"]},
            "rlimits":[{"type":"RLIMIT_NOFILE","soft":123,"hard":456}]},
        "root": {"path":"rootfs"},
        "mounts": [
            {"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},
            {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
            {"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},
            {"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
            {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro","nosuid","noexec","nodev"]},
            {"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},
            {"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=67108864"]}
        ],
        "linux": {
            "sysctl": {"net.ipv4.ip_unprivileged_port_start":"0"},
            "namespaces": [{"type":"mount"},{"type":"network"},{"type":"uts"},{"type":"pid"},{"type":"ipc"}],
            "resources": {"devices":[{"allow":false,"access":"rwm"}],"pids":{"limit":50},"memory":{"limit":67108864}},
            "maskedPaths": ["/proc/kcore","/proc/keys","/proc/acpi","/proc/scsi","/sys/firmware"],
            "readonlyPaths": ["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]
        }
    }"#;
    let mut spec: Spec = serde_json::from_str(text).unwrap();
    process(&mut spec).args = args.iter().map(|&arg| arg.to_owned()).collect();
    spec
}

pub fn process(spec: &mut Spec) -> &mut Process {
    spec.process.as_mut().unwrap()
}

pub fn shell(script: &str) -> Spec {
    document(&["/bin/sh", "-c", script])
}

/// Runs a container to its end; its exit code and what it wrote.
pub struct Outcome {
    pub code: i32,
    pub output: String,
}

#[derive(Default)]
pub struct Wish<'a> {
    pub user: Option<UserRequest>,
    pub init: Option<&'a runtime::seal::Sealed>,
    pub rootfs: Option<RootfsMount>,
}

pub fn cgroup_path() -> PathBuf {
    parent().join(next().to_string())
}

/// Of all groups of this program.
fn parent() -> PathBuf {
    format!("/tug-runtime-test-{}", std::process::id()).into()
}

pub fn run_with(bed: &Bed, spec: &Spec, wish: &Wish<'_>) -> Result<Outcome, runtime::LaunchError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let rootfs = wish.rootfs.clone().unwrap_or_else(|| bed.rootfs());
    let stdio = Stdio::Streams { stdin: None, stdout: write.as_fd(), stderr: write.as_fd() };
    let mut request =
        LaunchRequest::new("test", spec, &rootfs, stdio, CgroupPlan::Path(cgroup_path()));
    request.user = wish.user.as_ref();
    if let Some(sealed) = wish.init {
        request.init = Init::Engine(sealed);
    }
    let launched = runtime::launch(&request)?;
    drop(request);
    drop(write);
    let mut output = String::new();
    std::fs::File::from(read).read_to_string(&mut output).unwrap();
    Ok(Outcome { code: end(&launched), output })
}

pub fn run(bed: &Bed, spec: &Spec) -> Result<Outcome, runtime::LaunchError> {
    run_with(bed, spec, &Wish::default())
}

pub fn end(launched: &Launched) -> i32 {
    let exit = sys::process::wait_process(&launched.pidfd, Wait::Block).unwrap().unwrap();
    launched.cgroup.as_ref().unwrap().remove().unwrap();
    Exit::code(exit)
}

#[track_caller]
pub fn check(bed: &Bed, spec: &Spec, code: i32, output: &str) {
    match run(bed, spec) {
        Ok(outcome) => assert_eq!((outcome.code, outcome.output.trim_end()), (code, output)),
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
pub fn check_refused(bed: &Bed, spec: &Spec, kind: runtime::Kind, message: &str) {
    match run(bed, spec) {
        Ok(outcome) => panic!("ran: {} {}", outcome.code, outcome.output),
        Err(error) => assert_eq!((error.kind, error.message.as_str()), (kind, message)),
    }
}

/// Calls this program as `tug runtime`; gives the code and what it wrote.
pub fn tug(bed: &Bed, args: &[&str]) -> (i32, String) {
    let log = bed.path.join("output");
    let file = std::fs::File::create(&log).unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["runtime", "--root"])
        .arg(bed.path.join("state"))
        .args(args)
        .stdin(std::process::Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status()
        .unwrap();
    (status.code().unwrap(), std::fs::read_to_string(log).unwrap())
}

pub fn bundle(bed: &Bed, spec: &mut Spec) -> String {
    let bundle = bed.path.join(format!("bundle-{}", next()));
    std::fs::create_dir_all(&bundle).unwrap();
    spec.root.as_mut().unwrap().path = bed.path.join("image").display().to_string();
    spec.linux.as_mut().unwrap().cgroups_path = cgroup_path().to_str().unwrap().to_owned();
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(spec).unwrap()).unwrap();
    bundle.to_str().unwrap().to_owned()
}

/// Runs a process beside the first one of a container; its code and what it wrote.
pub fn execute(
    launched: &Launched,
    process: &Process,
    seccomp: Option<&sys::seccomp::Program>,
) -> Result<(i32, String), runtime::LaunchError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let request = runtime::ExecRequest {
        pid: launched.pid,
        pidfd: launched.pidfd.as_fd(),
        process,
        stdio: Stdio::Streams { stdin: None, stdout: write.as_fd(), stderr: write.as_fd() },
        cgroup: launched.cgroup.as_ref(),
        user: None,
        seccomp,
        preserved_fds: 0,
    };
    let executed = runtime::exec(&request)?;
    drop(write);
    let mut output = String::new();
    std::fs::File::from(read).read_to_string(&mut output).unwrap();
    let exit = sys::process::wait_process(&executed.pidfd, Wait::Block).unwrap().unwrap();
    Ok((exit.code(), output))
}

pub type Test = (&'static str, fn(&Bed));

/// Functions as tests under their own names.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn(&Bed))),*] };
}

/// The program's main function: the parts that `tug` has, or the tests whose name has the argument.
pub fn main(tests: &[Test]) -> std::process::ExitCode {
    let mut args = std::env::args_os();
    if args.next().is_some_and(|name| name == runtime::init::PATH) {
        return runtime::init::main(args);
    }
    if args.next().is_some_and(|word| word == "runtime") {
        return runtime::cli::main(args);
    }
    if !sys::testing::privileged("containers need root") {
        return std::process::ExitCode::SUCCESS;
    }
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let bed = Bed::new();
    let mut failed = 0;
    for (name, test) in tests {
        if filter.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            continue;
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&bed)));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += u32::from(result.is_err());
    }
    let _ = sys::cgroup::Cgroup::find(&parent()).try_remove();
    drop(bed);
    if failed == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
