//! Docker's seccomp profiles: the built-in one and the JSON that `--security-opt seccomp=FILE` takes.
//!
//! A profile is written for every kernel, architecture and capability set; [`Host`] says which parts
//! apply, and what is left is a plain OCI filter.
//!
//! The built-in profile allows by name and answers EPERM to all else. What it withholds are calls
//! that act on the whole host (modules, kexec, swap, clocks, the kernel's keyring), that have been
//! ways out of containers (io_uring, userfaultfd), or that a capability unlocks.
//!
//! Source: Docker's documentation "Seccomp security profiles for Docker"; moby's
//! `profiles/seccomp`, as of Docker 29.7.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::image::null_is_default;
use crate::runtime::{Seccomp, SyscallArg, SyscallRule};

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of clone(2).
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// PER_LINUX, PER_LINUX32, UNAME26, both, and the query of personality(2).
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// All families of socket(2) but AF_ALG (38), the kernel's cryptography (CVE-2026-31431), and AF_VSOCK
/// (40), the hypervisor: mask and what is left under it. The kernel reads 32 bits of the argument, so
/// the masks cover just these; a comparison of the whole argument could be passed by setting others.
const SOCKET_FAMILIES: [(u64, u64); 8] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
    (0xffff_fff0, 48),
];

/// What decides which parts of a profile apply.
#[derive(Debug, Clone)]
pub struct Host<'a> {
    /// In Go's names: `amd64`, `arm64`, ….
    pub architecture: &'a str,
    /// Major and minor number of the kernel's release.
    pub kernel: (u32, u32),
    /// The container's bounding set, with the `CAP_` prefix.
    pub capabilities: &'a [String],
}

impl Host<'_> {
    fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|held| held == capability)
    }
}

/// Why a profile's JSON cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("decoding seccomp profile failed")]
    Json { source: serde_json::Error },
    #[error(
        "'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'"
    )]
    TwoArchitectures,
    #[error(
        "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
    )]
    TwoNames,
    #[error("invalid kernel version {0:?} in the seccomp profile: expected VERSION.REVISION")]
    KernelVersion(String),
}

/// Docker's default profile as it applies to one container.
pub fn default_profile(host: &Host<'_>) -> Seccomp {
    let mut syscalls = vec![allow(ALWAYS.split_whitespace(), &[])];
    if host.kernel >= (4, 8) {
        syscalls.push(allow(["process_vm_readv", "process_vm_writev", "ptrace"], &[]));
    }
    for (mask, family) in SOCKET_FAMILIES {
        syscalls.push(allow(["socket"], &[argument(0, "SCMP_CMP_MASKED_EQ", mask, family)]));
    }
    for personality in PERSONALITIES {
        syscalls.push(allow(["personality"], &[argument(0, "SCMP_CMP_EQ", personality, 0)]));
    }
    syscalls.extend(of_architecture(host.architecture));
    for (capability, names) in BY_CAPABILITY {
        if host.has(capability) {
            syscalls.push(allow(names.split_whitespace(), &[]));
        }
    }
    if !host.has("CAP_SYS_ADMIN") {
        let flags = if host.architecture == "s390x" { 1 } else { 0 };
        let namespaces = argument(flags, "SCMP_CMP_MASKED_EQ", CLONE_NAMESPACES, 0);
        syscalls.push(allow(["clone"], &[namespaces]));
        // The flags of clone3 are behind a pointer, where no filter sees them. ENOSYS makes the C
        // libraries fall back to clone.
        syscalls.push(SyscallRule {
            names: vec!["clone3".to_owned()],
            action: ERRNO.to_owned(),
            errno_ret: Some(ENOSYS),
            args: Vec::new(),
        });
    }
    Seccomp {
        default_action: ERRNO.to_owned(),
        default_errno_ret: Some(EPERM),
        architectures: architectures_of(host.architecture),
        syscalls,
        ..Seccomp::default()
    }
}

/// The architecture with those whose programs it also runs, in libseccomp's names.
fn architectures_of(architecture: &str) -> Vec<String> {
    let names: &[&str] = match architecture {
        "amd64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "386" => &["SCMP_ARCH_X86"],
        "arm64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "arm" => &["SCMP_ARCH_ARM"],
        "s390x" => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        "ppc64le" => &["SCMP_ARCH_PPC64LE"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        "loong64" => &["SCMP_ARCH_LOONGARCH64"],
        _ => &[],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn of_architecture(architecture: &str) -> Vec<SyscallRule> {
    let names: &[&str] = match architecture {
        "amd64" => &["arch_prctl", "modify_ldt"],
        "386" => &["modify_ldt"],
        "arm" | "arm64" => &[
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "breakpoint",
            "cacheflush",
            "set_tls",
            "sync_file_range2",
        ],
        "ppc64le" => &["swapcontext", "sync_file_range2"],
        "s390x" => &["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"],
        "riscv64" => &["riscv_flush_icache"],
        _ => return Vec::new(),
    };
    vec![allow(names.iter().copied(), &[])]
}

fn allow<'a>(names: impl IntoIterator<Item = &'a str>, args: &[SyscallArg]) -> SyscallRule {
    SyscallRule {
        names: names.into_iter().map(str::to_owned).collect(),
        action: ALLOW.to_owned(),
        errno_ret: None,
        args: args.to_vec(),
    }
}

fn argument(index: u32, op: &str, value: u64, value_two: u64) -> SyscallArg {
    SyscallArg { index, value, value_two, op: op.to_owned() }
}

/// A profile as users write it, before it is narrowed down to one host.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(deserialize_with = "null_is_default")]
    architectures: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    arch_map: Vec<ArchitectureGroup>,
    #[serde(deserialize_with = "null_is_default")]
    flags: Vec<String>,
    listener_path: String,
    listener_metadata: String,
    #[serde(deserialize_with = "null_is_default")]
    syscalls: Vec<ProfileRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ArchitectureGroup {
    architecture: String,
    #[serde(deserialize_with = "null_is_default")]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProfileRule {
    name: String,
    #[serde(deserialize_with = "null_is_default")]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(deserialize_with = "null_is_default")]
    args: Vec<SyscallArg>,
    #[serde(deserialize_with = "null_is_default")]
    includes: Scope,
    #[serde(deserialize_with = "null_is_default")]
    excludes: Scope,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Scope {
    #[serde(deserialize_with = "null_is_default")]
    caps: BTreeSet<String>,
    #[serde(deserialize_with = "null_is_default")]
    arches: BTreeSet<String>,
    min_kernel: Option<String>,
}

impl Scope {
    fn kernel(&self) -> Result<Option<(u32, u32)>, ProfileError> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let parse = |(major, minor): (&str, &str)| Some((major.parse().ok()?, minor.parse().ok()?));
        let version = text.split_once('.').and_then(parse);
        version.map(Some).ok_or_else(|| ProfileError::KernelVersion(text.to_owned()))
    }
}

impl ProfileRule {
    fn applies(&self, host: &Host<'_>) -> Result<bool, ProfileError> {
        let (includes, excludes) = (&self.includes, &self.excludes);
        let excluded = excludes.arches.contains(host.architecture)
            || excludes.caps.iter().any(|capability| host.has(capability))
            || excludes.kernel()?.is_some_and(|least| host.kernel >= least);
        let included = (includes.arches.is_empty() || includes.arches.contains(host.architecture))
            && includes.caps.iter().all(|capability| host.has(capability))
            && includes.kernel()?.is_none_or(|least| host.kernel >= least);
        Ok(included && !excluded)
    }
}

/// Reads a profile in Docker's format and keeps what applies to one container.
///
/// # Errors
/// When the JSON is malformed, or says one thing twice in its two ways.
pub fn load(json: &str, host: &Host<'_>) -> Result<Seccomp, ProfileError> {
    let profile: Profile =
        serde_json::from_str(json).map_err(|source| ProfileError::Json { source })?;
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(ProfileError::TwoArchitectures);
    }
    let native = architectures_of(host.architecture);
    let mut architectures = profile.architectures;
    for group in profile.arch_map {
        if native.first() == Some(&group.architecture) {
            architectures.push(group.architecture);
            architectures.extend(group.sub_architectures);
        }
    }
    let mut syscalls = Vec::new();
    for rule in profile.syscalls {
        if !rule.name.is_empty() && !rule.names.is_empty() {
            return Err(ProfileError::TwoNames);
        }
        if rule.applies(host)? {
            let names = if rule.name.is_empty() { rule.names } else { vec![rule.name] };
            let (action, errno_ret, args) = (rule.action, rule.errno_ret, rule.args);
            syscalls.push(SyscallRule { names, action, errno_ret, args });
        }
    }
    Ok(Seccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags,
        listener_path: profile.listener_path,
        listener_metadata: profile.listener_metadata,
        syscalls,
    })
}

/// What a capability in the bounding set unlocks.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname \
         setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// What every container may call.
const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget \
    capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres \
    clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 \
    fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown \
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr \
    fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex \
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list \
    get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 \
    getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid \
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr \
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel \
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl \
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount \
    listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise \
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod \
    mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open \
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink \
    mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open \
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll \
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 \
    pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
    recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq \
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp \
    select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 \
    sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid \
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid \
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid \
    setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat \
    shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn \
    socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink \
    symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink \
    unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid \
    waitpid write writev";

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn rules_for<'a>(profile: &'a Seccomp, name: &str) -> Vec<&'a SyscallRule> {
        profile
            .syscalls
            .iter()
            .filter(|rule| rule.names.iter().any(|known| known == name))
            .collect()
    }

    #[test]
    fn an_ordinary_container_makes_no_namespaces() {
        let held = capabilities(&["CAP_CHOWN", "CAP_SYS_CHROOT"]);
        let host = Host { architecture: "amd64", kernel: (6, 18), capabilities: &held };
        let profile = default_profile(&host);
        assert_eq!(profile.default_action, ERRNO);
        assert!(rules_for(&profile, "mount").is_empty());
        assert!(rules_for(&profile, "io_uring_setup").is_empty());
        assert_eq!(rules_for(&profile, "clone")[0].args[0].value, CLONE_NAMESPACES);
        assert_eq!(rules_for(&profile, "clone3")[0].errno_ret, Some(ENOSYS));
        assert_eq!(rules_for(&profile, "chroot")[0].action, ALLOW);
        assert_eq!(rules_for(&profile, "ptrace").len(), 1);
        let old = Host { kernel: (4, 4), ..host };
        assert!(rules_for(&default_profile(&old), "ptrace").is_empty());
    }

    #[test]
    fn sys_admin_unlocks_mounts_and_namespaces() {
        let held = capabilities(&["CAP_SYS_ADMIN"]);
        let host = Host { architecture: "amd64", kernel: (6, 18), capabilities: &held };
        let profile = default_profile(&host);
        assert_eq!(rules_for(&profile, "clone3")[0].action, ALLOW);
        assert_eq!(rules_for(&profile, "mount").len(), 1);
    }

    #[track_caller]
    fn check(json: &str, want: Result<&[&str], &str>) {
        let held = capabilities(&["CAP_CHOWN"]);
        let host = Host { architecture: "amd64", kernel: (6, 1), capabilities: &held };
        let got = load(json, &host).map_err(|error| error.to_string());
        let names = got.map(|profile| {
            profile.syscalls.into_iter().flat_map(|rule| rule.names).collect::<Vec<_>>()
        });
        let want = want.map(capabilities).map_err(str::to_owned);
        assert_eq!(names, want);
    }

    #[test]
    fn a_users_profile_keeps_what_applies_here() {
        check(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                {"names":["a"],"action":"SCMP_ACT_ALLOW","args":null},
                {"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
                {"names":["c"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_CHOWN"]}},
                {"names":["d"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}},
                {"name":"e","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
                {"name":"f","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"7.0"}}]}"#,
            Ok(&["a", "e"]),
        );
    }

    #[test]
    fn a_profile_that_contradicts_itself_is_refused() {
        check("{", Err("decoding seccomp profile failed"));
        check(
            r#"{"syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
            Err(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
            ),
        );
        check(
            r#"{"syscalls":[{"name":"a","includes":{"minKernel":"new"}}]}"#,
            Err("invalid kernel version \"new\" in the seccomp profile: expected VERSION.REVISION"),
        );
    }
}
