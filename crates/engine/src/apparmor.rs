//! AppArmor: the profile `docker-default`, which every container has that names no other.
//!
//! Where the kernel has AppArmor the profile is generated and loaded when the daemon starts. The kernel
//! takes it in a compiled form only, which `apparmor_parser` makes; it is the host's, and so of the
//! kernel's age. Where that program is missing there is no profile, and `info` and the log say so.
//!
//! The profile adds to capabilities, seccomp and masked paths what these cannot say: nobody in it
//! mounts, traces or signals what is outside, or writes to the host's settings below /proc and /sys,
//! through whatever mount it finds them, and sockets of the kernel's cryptography (AF_ALG) are refused
//! also to 32-bit programs, whose socketcall(2) hides the family from filters.
//!
//! Source: apparmor.d(5); moby `daemon/apparmor_default.go` for who gets it.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::chain;
use crate::workloads::Privileges;

/// The name that Docker's users know.
pub const DEFAULT_PROFILE: &str = "docker-default";
pub const UNCONFINED: &str = "unconfined";

/// Where the parser is looked for: programs of the administrator's alone.
const PARSERS: [&str; 4] = [
    "/sbin/apparmor_parser",
    "/usr/sbin/apparmor_parser",
    "/usr/bin/apparmor_parser",
    "/bin/apparmor_parser",
];
/// A parser that takes longer is stopped, and there is no profile.
const PARSER_PATIENCE: Duration = Duration::from_secs(30);
const PARSER_WORDS_MAX: u64 = 4096;

/// A profile that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    Unconfined,
    Named(String),
}

impl Profile {
    /// By its name; the empty one leaves it to the daemon.
    #[must_use]
    pub fn parse(name: &str) -> Option<Profile> {
        match name {
            "" => None,
            UNCONFINED => Some(Profile::Unconfined),
            name => Some(Profile::Named(name.to_owned())),
        }
    }
}

/// What AppArmor can do for containers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppArmor {
    /// The kernel has none.
    Absent,
    /// The kernel has it, but our profile cannot be loaded.
    Unloaded,
    /// `docker-default` is loaded.
    Loaded,
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("apparmor_parser is not installed")]
    NoParser,
    #[error("cannot run {program}")]
    Run { program: &'static str, source: std::io::Error },
    #[error("{program} took longer than {PARSER_PATIENCE:?}")]
    Timeout { program: &'static str },
    #[error("{program} refuses the profile {DEFAULT_PROFILE}: {words}")]
    Refused { program: &'static str, words: String },
}

/// Loads the profile where the kernel has AppArmor. What does not work is logged.
pub fn set_up() -> AppArmor {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if enabled.is_ok_and(|text| text.trim() != "Y") || !Path::new("/sys/module/apparmor").exists() {
        return AppArmor::Absent;
    }
    let current = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    match load(&profile(DEFAULT_PROFILE, daemon_profile(&current), &Macros::of_host())) {
        Ok(()) => AppArmor::Loaded,
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "the kernel has AppArmor, but containers run without a profile of it"
            );
            AppArmor::Unloaded
        }
    }
}

/// The profile of a run's processes; `None` where there is none.
///
/// Source: moby 28.2 `daemon/oci_linux.go`, `WithApparmor`.
#[must_use]
pub fn profile_of(
    wanted: Option<&Profile>,
    privileges: Privileges,
    host: AppArmor,
) -> Option<String> {
    let name = match (wanted, host, privileges) {
        (None | Some(Profile::Unconfined), AppArmor::Absent, _) => return None,
        (None, AppArmor::Unloaded, _) => return None,
        (None, AppArmor::Loaded, Privileges::All) => UNCONFINED,
        (None, AppArmor::Loaded, Privileges::Default) => DEFAULT_PROFILE,
        (Some(Profile::Unconfined), AppArmor::Unloaded | AppArmor::Loaded, _) => UNCONFINED,
        // One that the host has not is refused by the start.
        (
            Some(Profile::Named(name)),
            AppArmor::Absent | AppArmor::Unloaded | AppArmor::Loaded,
            _,
        ) => name,
    };
    Some(name.to_owned())
}

/// `NAME (MODE)`, or a bare name.
fn daemon_profile(current: &str) -> &str {
    let name = current.trim_end_matches(['\0', '\n']);
    let name = name.rsplit_once(" (").map_or(name, |(name, _)| name);
    if name.is_empty() { UNCONFINED } else { name }
}

/// Which of the distribution's files a profile can build on.
struct Macros {
    abi: bool,
    tunables: bool,
    base: bool,
}

impl Macros {
    fn of_host() -> Macros {
        let has = |name: &str| Path::new("/etc/apparmor.d").join(name).exists();
        Macros {
            abi: has("abi/3.0"),
            tunables: has("tunables/global"),
            base: has("abstractions/base"),
        }
    }
}

/// The profile's text. `daemon` is the profile that this process has itself.
fn profile(name: &str, daemon: &str, macros: &Macros) -> String {
    let quoted = |text: &str| text.replace(['"', '\\', '\n'], "_");
    let (name, daemon) = (quoted(name), quoted(daemon));
    // Rules for the network mean another thing from version 4 of the interface on.
    let abi = if macros.abi { "abi <abi/3.0>,\n" } else { "" };
    let head = if macros.tunables { "#include <tunables/global>\n" } else { "@{PROC}=/proc/\n" };
    let base = if macros.base { "  #include <abstractions/base>\n" } else { "" };
    let mut text = format!(
        "{abi}{head}profile \"{name}\" flags=(attach_disconnected,mediate_deleted) {{\n{base}"
    );
    let mut rule = |words: &str| {
        text.push_str("  ");
        text.push_str(words);
        text.push_str(",\n");
    };
    for allowed in ["capability", "file", "network", "umount"] {
        rule(allowed);
    }
    rule("signal (receive) peer=unconfined");
    rule(&format!("signal (receive) peer=\"{daemon}\""));
    rule(&format!("signal (send,receive) peer=\"{name}\""));
    rule(&format!("ptrace (trace,tracedby,read,readby) peer=\"{name}\""));
    rule("deny network alg");
    rule("deny mount");
    for place in UNTOUCHED {
        rule(&format!("deny {place} rwklx"));
    }
    for place in UNWRITTEN {
        rule(&format!("deny {place} wkl"));
    }
    text.push_str("}\n");
    text
}

/// What tells of, or acts on, the whole host.
const UNTOUCHED: [&str; 5] = [
    "@{PROC}/kcore",
    "@{PROC}/sysrq-trigger",
    "/sys/firmware/**",
    "/sys/devices/virtual/powercap/**",
    "/sys/kernel/security/**",
];

/// Everything below /proc but processes and the shared memory's settings, and everything below /sys
/// but control groups. A pattern names what begins otherwise than the exception does, letter by
/// letter: a rule that denies cannot be taken back for a part by one that allows.
const UNWRITTEN: [&str; 18] = [
    "@{PROC}/*",
    "@{PROC}/[^0-9s]*/**",
    "@{PROC}/s[^y]*/**",
    "@{PROC}/sy[^s]*/**",
    "@{PROC}/sys/*",
    "@{PROC}/sys/[^k]*/**",
    "@{PROC}/sys/k[^e]*/**",
    "@{PROC}/sys/ke[^r]*/**",
    "@{PROC}/sys/kernel/[^s]**",
    "@{PROC}/sys/kernel/s[^h]**",
    "@{PROC}/sys/kernel/sh[^m]**",
    "/sys/*",
    "/sys/[^f]*/**",
    "/sys/f[^s]*/**",
    "/sys/fs/[^c]*/**",
    "/sys/fs/c[^g]*/**",
    "/sys/fs/cg[^r]*/**",
    "/sys/fs/cgr[^o]*/**",
];

fn load(text: &str) -> Result<(), LoadError> {
    // Replacing one that is loaded already changes it for running containers too; -K because the
    // cache's directory may be read-only.
    run_parser(text, &["-K", "-r"])
}

fn run_parser(text: &str, flags: &[&str]) -> Result<(), LoadError> {
    let program = PARSERS.into_iter().find(|path| PathBuf::from(path).is_file());
    let program = program.ok_or(LoadError::NoParser)?;
    let failed = |source| LoadError::Run { program, source };
    let mut child = Command::new(program)
        .args(flags)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // The text is smaller than a pipe, so that this never waits; the words of a refusal are few.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).map_err(failed)?;
    }
    let deadline = Instant::now() + PARSER_PATIENCE;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(LoadError::Timeout { program });
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(PARSER_WORDS_MAX).read_to_string(&mut words);
    }
    Err(LoadError::Refused { program, words: words.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_nothing_has_the_default_where_it_is_loaded() {
        use AppArmor::{Absent, Loaded, Unloaded};
        use Privileges::{All, Default};
        for (asked, privileges, host, want) in [
            ("", Default, Loaded, Some("docker-default")),
            ("", All, Loaded, Some("unconfined")),
            ("", Default, Unloaded, None),
            ("", Default, Absent, None),
            ("unconfined", Default, Loaded, Some("unconfined")),
            ("unconfined", Default, Unloaded, Some("unconfined")),
            ("unconfined", Default, Absent, None),
            ("mine", All, Loaded, Some("mine")),
            ("mine", Default, Absent, Some("mine")),
        ] {
            let found = profile_of(Profile::parse(asked).as_ref(), privileges, host);
            assert_eq!(found.as_deref(), want, "{asked} {privileges:?} {host:?}");
        }
    }

    #[test]
    fn the_daemons_own_profile_is_told_without_its_mode() {
        assert_eq!(daemon_profile("unconfined\n"), "unconfined");
        assert_eq!(daemon_profile("my daemon (enforce)\n"), "my daemon");
        assert_eq!(daemon_profile(""), "unconfined");
    }

    #[test]
    fn the_parser_takes_the_profile_with_and_without_the_distributions_files() {
        let some = [Macros::of_host(), Macros { abi: false, tunables: false, base: false }];
        for macros in some {
            let text = profile(DEFAULT_PROFILE, "a \"b", &macros);
            // -Q compiles and loads nothing.
            match run_parser(&text, &["-Q", "-K"]) {
                Err(LoadError::NoParser) => sys::testing::ignored("there is no apparmor_parser"),
                outcome => outcome.unwrap_or_else(|error| panic!("{}\n{text}", chain(&error))),
            }
        }
    }
}
