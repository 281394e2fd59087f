//! The command line of Tug, typed as `docker …` or `tug …`.
//!
//! [`main`] finds the command in the table ([`commands`]), reads its options ([`args`]), and
//! runs it on a single-threaded runtime with a [`context::Session`] that knows where the daemon
//! is. Output goes through [`render`]; what goes wrong is a [`failure::Failure`], printed once,
//! here. Nothing of the engine can be reached: everything is asked over the API.

#![forbid(unsafe_code)]

mod args;
mod build;
mod commands;
mod context;
mod create;
mod credentials;
mod failure;
mod files;
mod guarded;
mod manifest;
mod outcome;
mod relay;
mod render;
mod serve;
mod stream;
mod terminal;
mod tls;

use std::process::ExitCode;

use args::{
    Command, Flag, Group, Order, help,
    parse::{self, Stop, check_arity},
};
use context::Session;
use failure::Failure;

/// Runs one command line; `words[0]` is the program's own name.
#[must_use]
pub fn main(words: Vec<String>) -> ExitCode {
    let program = words
        .first()
        .and_then(|name| name.rsplit('/').next())
        .filter(|name| *name == "docker")
        .unwrap_or("tug")
        .to_owned();
    ExitCode::from(dispatch(&program, words.get(1..).unwrap_or_default()))
}

fn dispatch(program: &str, words: &[String]) -> u8 {
    if words.first().is_some_and(|word| word == context::DAEMON_SESSION) {
        return context::become_daemon();
    }
    let global: Vec<&'static Flag> = commands::GLOBAL.iter().collect();
    let matches = match parse::parse(&global, Order::OptionsFirst, words) {
        Ok(matches) => matches,
        Err(Stop::Help) => return print(&commands::root_help(program)),
        Err(Stop::Wrong(why)) => {
            return wrong_flag(program, "", "[OPTIONS] COMMAND [ARG...]", &why);
        }
    };
    if matches.on("version") {
        return print(&commands::version::one_line(program));
    }
    let Some((name, rest)) = matches.args.split_first() else {
        return print(&commands::root_help(program));
    };
    let session = match Session::new(program, &matches) {
        Ok(session) => session,
        Err(failure) => return report(program, None, &failure),
    };
    if name == "help" {
        return help_topic(program, rest);
    }
    if let Some(group) = commands::GROUPS.iter().find(|group| group.name == name) {
        return in_group(&session, group, rest);
    }
    if let Some(command) = find(commands::TOP, name) {
        return run(&session, "", name, command, rest);
    }
    let text = format!(
        "{program}: unknown command: {program} {name}\n\nRun '{program} --help' for more information\n"
    );
    terminal::error_text(&text);
    1
}

fn find(commands: &[&'static Command], name: &str) -> Option<&'static Command> {
    commands.iter().copied().find(|command| command.name == name || command.aliases.contains(&name))
}

fn in_group(session: &Session, group: &Group, words: &[String]) -> u8 {
    let program = &session.program;
    let Some((name, rest)) = words.split_first() else {
        return print(&help::group(program, group));
    };
    if matches!(name.as_str(), "--help" | "-h" | "help") {
        return print(&help::group(program, group));
    }
    if name.starts_with('-') {
        let why = match name.strip_prefix("--") {
            Some(long) => format!("unknown flag: --{}", long.split('=').next().unwrap_or(long)),
            None => format!(
                "unknown shorthand flag: '{}' in {name}",
                name.chars().nth(1).unwrap_or('-')
            ),
        };
        return wrong_flag(program, group.name, "", &why);
    }
    if let Some(command) = find(group.commands, name) {
        return run(session, group.name, name, command, rest);
    }
    terminal::error_text(&format!(
        "{program}: unknown command: {program} {} {name}\n\n{}\n\nRun '{program} {} --help' for more information\n",
        group.name,
        help::usage_line(program, group.name, ""),
        group.name
    ));
    1
}

fn help_topic(program: &str, words: &[String]) -> u8 {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => print(&commands::root_help(program)),
        [name] => {
            if let Some(group) = commands::GROUPS.iter().find(|group| group.name == name) {
                return print(&help::group(program, group));
            }
            match find(commands::TOP, name) {
                Some(command) => print(&help::command(program, name, command)),
                None => unknown_topic(&words),
            }
        }
        [group, name, ..] => {
            let found = commands::GROUPS
                .iter()
                .find(|candidate| candidate.name == group)
                .and_then(|group| find(group.commands, name));
            match found {
                Some(command) => {
                    print(&help::command(program, &format!("{group} {name}"), command))
                }
                None => unknown_topic(&words),
            }
        }
    }
}

fn unknown_topic(words: &[&str]) -> u8 {
    terminal::error_text(&format!("unknown help topic: {}\n", words.join(" ")));
    1
}

fn run(
    session: &Session,
    group: &str,
    typed: &str,
    command: &'static Command,
    words: &[String],
) -> u8 {
    let program = &session.program;
    // Help shows the command's own name even when an alias was typed.
    let name = if command.aliases.contains(&typed) { command.name } else { typed };
    let path = if group.is_empty() { name.to_owned() } else { format!("{group} {name}") };
    let flags: Vec<&'static Flag> = command.all_flags().collect();
    let mut matches = match parse::parse(&flags, command.order, words) {
        Ok(matches) => matches,
        Err(Stop::Help) => return print(&help::command(program, &path, command)),
        Err(Stop::Wrong(why)) => return wrong_flag(program, &path, command.usage, &why),
    };
    if matches.on("help") {
        return print(&help::command(program, &path, command));
    }
    matches.path = format!("{program} {path}");
    let arity = command.arity.given(&matches);
    if let Err(why) = check_arity(arity, matches.args.len()) {
        let see = if matches!(arity, args::Arity::AtLeast(_)) { "See" } else { "Run" };
        terminal::error_text(&format!(
            "{program}: '{program} {path}' {why}\n\n{}\n\n{see} '{program} {path} --help' for more information\n",
            help::usage_line(program, &path, command.usage)
        ));
        return 1;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::error_text(&format!("{program}: cannot start: {error}\n"));
            return 125;
        }
    };
    // Requests stay on this thread, as does all that waits for them.
    let tasks = tokio::task::LocalSet::new();
    let outcome = tasks.block_on(&runtime, (command.run)(session, &matches));
    // A reader of stdin may wait for ever; the process ends without it.
    runtime.shutdown_background();
    match outcome {
        Ok(status) => status,
        Err(failure) => report(program, Some(&matches.path), &failure),
    }
}

/// Failures of status 125 carry the program's name and a pointer to help, as Docker's do.
fn report(program: &str, path: Option<&str>, failure: &Failure) -> u8 {
    if let Some(words) = failure.words() {
        let text = match (failure.status(), path) {
            (125, Some(path)) => {
                format!("{program}: {words}\n\nRun '{path} --help' for more information\n")
            }
            _ => format!("{words}\n"),
        };
        terminal::error_text(&text);
    }
    failure.status()
}

fn wrong_flag(program: &str, path: &str, usage: &str, why: &str) -> u8 {
    let full = if path.is_empty() { program.to_owned() } else { format!("{program} {path}") };
    terminal::error_text(&format!(
        "{why}\n\n{}\n\nRun '{full} --help' for more information\n",
        help::usage_line(program, path, usage)
    ));
    125
}

fn print(text: &str) -> u8 {
    terminal::out(text);
    0
}
