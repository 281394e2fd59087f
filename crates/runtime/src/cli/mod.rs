//! `tug runtime`: the OCI runtime command line over this crate, for other engines.
//!
//! Each call is one transition and leaves what the next one needs in [`crate::state`]. The verbs and
//! flags are those with which containerd and podman call runc. The process first executes itself from
//! a sealed binary (see [`crate::seal`]), since here no monitor stands in between.
//!
//! Errors go to stderr and, with `--log`, as one line to that file, where containerd looks for the
//! last one.

mod args;
mod document;
mod events;
mod verbs;

use std::ffi::{CString, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

use args::{Flag, parse, switch, value};
use serde_json::json;

use crate::state::now;

const GLOBAL: &[Flag] = &[
    value(&["root"]),
    value(&["log"]),
    value(&["log-format"]),
    switch(&["systemd-cgroup"]),
    switch(&["debug"]),
    value(&["rootless"]),
    value(&["criu"]),
    switch(&["version", "v"]),
    switch(&["help", "h"]),
];

/// What holds for every verb.
pub(crate) struct Globals {
    pub root: PathBuf,
    pub systemd_cgroup: bool,
    log: Option<Log>,
}

/// `--log` and `--log-format`.
struct Log {
    path: PathBuf,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

impl Globals {
    fn read(parsed: &args::Parsed) -> Result<Self, Failure> {
        let format = match parsed.get("log-format") {
            None | Some("" | "text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => return Err(format!("invalid log-format: {other}")),
        };
        Ok(Self {
            root: parsed.get("root").unwrap_or("/run/tug-runtime").into(),
            systemd_cgroup: parsed.has("systemd-cgroup"),
            log: parsed.get("log").map(|path| Log { path: path.into(), format }),
        })
    }

    /// Writes a line to the log, if there is one.
    fn note(&self, level: &str, text: &str) {
        let Some(log) = &self.log else { return };
        let line = match log.format {
            Format::Json => json!({"level": level, "msg": text, "time": now()}).to_string(),
            Format::Text => format!("time={:?} level={level} msg={text:?}", now()),
        };
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&log.path);
        // Whoever gave a log that cannot be written still has stderr.
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }

    /// Tells what was not possible and is not fatal. Not on stderr, which the program of the container
    /// may have inherited.
    pub fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            self.note("warning", warning);
        }
    }
}

/// Why a verb failed, already in words.
pub(crate) type Failure = String;

const USAGE: &str = "usage: tug runtime [--root DIR] [--log FILE] [--log-format json|text] [--systemd-cgroup] VERB [FLAG...] [ARG...]

verbs: create start state kill delete run exec list ps pause resume update events features spec
";

/// Runs one verb; `args` are those after `runtime`.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let Ok(words) = args.iter().map(|arg| arg.clone().into_string()).collect::<Result<Vec<_>, _>>()
    else {
        eprintln!("arguments must be UTF-8");
        return ExitCode::FAILURE;
    };
    let parsed = match parse(&words, GLOBAL) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    if parsed.has("version") {
        let (own, spec) = (env!("CARGO_PKG_VERSION"), spec::runtime::VERSION);
        // Whoever reads one line only, hangs up before the second.
        let _ = writeln!(std::io::stdout(), "tug runtime version {own}\nspec: {spec}");
        return ExitCode::SUCCESS;
    }
    let Some((verb, rest)) = parsed.words.split_first() else {
        print!("{USAGE}");
        return if parsed.has("help") { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    let globals = match Globals::read(&parsed) {
        Ok(globals) => globals,
        Err(error) => return usage(&error),
    };
    // runc `exec.go`: codes below are the program's own.
    let failed = if verb == "exec" { ExitCode::from(255) } else { ExitCode::FAILURE };
    let run = match verb.as_str() {
        "create" => verbs::create,
        "start" => verbs::start,
        "state" => verbs::state,
        "kill" => verbs::kill,
        "delete" => verbs::delete,
        "run" => verbs::run,
        "exec" => verbs::exec,
        "list" => verbs::list,
        "ps" => verbs::ps,
        "pause" => verbs::pause,
        "resume" => verbs::resume,
        "update" => verbs::update,
        "features" => verbs::features,
        "events" => events::events,
        "spec" => verbs::spec,
        "checkpoint" | "restore" => {
            return fail(&globals, failed, "checkpoint and restore are not supported");
        }
        other => return usage(&format!("no such verb: {other}")),
    };
    if matches!(verb.as_str(), "create" | "run" | "exec")
        && let Err(error) = seal(&args)
    {
        return fail(&globals, failed, &format!("unable to seal our own binary: {error}"));
    }
    match run(&globals, rest) {
        Ok(code) => code,
        Err(error) => fail(&globals, failed, &error),
    }
}

fn usage(error: &str) -> ExitCode {
    eprint!("{error}\n{USAGE}");
    ExitCode::FAILURE
}

fn fail(globals: &Globals, code: ExitCode, error: &str) -> ExitCode {
    globals.note("error", error);
    eprintln!("{error}");
    code
}

/// Set in the sealed copy, so that one that cannot tell ends instead of sealing itself for ever.
const SEALED: &str = "_TUG_RUNTIME_SEALED";

/// Goes on in a copy of this process that runs from a sealed binary, unless it does already.
fn seal(args: &[OsString]) -> std::io::Result<()> {
    if crate::seal::is_sealed() {
        return Ok(());
    }
    if std::env::var_os(SEALED).is_some() {
        return Err(std::io::Error::other("the sealed binary is not known again"));
    }
    let sealed = crate::seal::Sealed::open()?;
    let string = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| std::io::ErrorKind::InvalidInput);
    let mut argv = vec![string(b"tug".to_vec())?, string(b"runtime".to_vec())?];
    for arg in args {
        argv.push(string(arg.as_bytes().to_vec())?);
    }
    let mut envp = Vec::new();
    let marked = std::env::vars_os().chain([(SEALED.into(), "1".into())]);
    for (name, value) in marked {
        envp.push(string([name.into_vec(), b"=".to_vec(), value.into_vec()].concat())?);
    }
    let argv: Vec<_> = argv.iter().map(CString::as_c_str).collect();
    let envp: Vec<_> = envp.iter().map(CString::as_c_str).collect();
    Err(sys::process::execve_file(&sealed, &argv, &envp))
}
