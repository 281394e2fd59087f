//! `tug`: one binary, many roles. The role is argv[0] (`docker`, `dockerd`, `docker-init`), else
//! the first word.
//!
//! Every role but the command line is named by its first word: `daemon`, `launcher`, `runtime`,
//! `unpack`.
//! All else is the command line's, so that `tug` and `docker` are the same program; `init` is a
//! plugin's name there, and so the reaper of containers goes by its own name or a hidden word.
//! An init starts with every container, so nothing happens here before the role is known.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

enum Role {
    Cli,
    Daemon,
    Launcher,
    Runtime,
    Unpack,
    Init,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let mut args = args.peekable();
    let name = Path::new(&program).file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let role = match name.as_deref() {
        Some("dockerd") => Role::Daemon,
        Some("docker-init") => Role::Init,
        Some(_) | None => {
            let role = args.peek().and_then(|word| named(word.to_str()?));
            if role.is_some() {
                args.next();
            }
            role.unwrap_or(Role::Cli)
        }
    };
    let called = match name.as_deref() {
        Some("dockerd") => "dockerd".to_owned(),
        other => format!("{} daemon", other.unwrap_or("tug")),
    };
    match role {
        Role::Launcher => monitor::main(args),
        Role::Unpack => store::unpack_main(),
        Role::Init => runtime::init::main(args),
        Role::Runtime => runtime::cli::main(args),
        Role::Daemon => match words(args) {
            Some(words) => daemon::main(&called, words),
            None => not_text(),
        },
        Role::Cli => match words(std::iter::once(program).chain(args)) {
            Some(words) => cli::main(words),
            None => not_text(),
        },
    }
}

fn named(word: &str) -> Option<Role> {
    match word {
        "daemon" => Some(Role::Daemon),
        "launcher" => Some(Role::Launcher),
        "runtime" => Some(Role::Runtime),
        "unpack" => Some(Role::Unpack),
        "__init" => Some(Role::Init),
        _ => None,
    }
}

fn words(args: impl Iterator<Item = OsString>) -> Option<Vec<String>> {
    args.map(|arg| arg.into_string().ok()).collect()
}

/// The API is JSON, which has no words for other bytes.
fn not_text() -> ExitCode {
    eprintln!("arguments must be UTF-8");
    ExitCode::from(125)
}
