//! The command line of Tug, typed as `docker …` or `tug …`.
//!
//! [`main`] finds the command in the table ([`commands`]), reads its options ([`args`]), and
//! runs it on a single-threaded runtime with a [`context::Session`] that knows where the daemon
//! is. Output goes through [`render`]; what goes wrong is a [`failure::Failure`], printed once,
//! here. Nothing of the engine can be reached: everything is asked over the API.

#![forbid(unsafe_code)]

#[cfg(test)]
#[global_allocator]
static HEAP: sys::testing::CountedHeap = sys::testing::CountedHeap;

mod args;
mod build;
mod commands;
mod config_file;
mod context;
mod contexts;
mod create;
mod credentials;
mod failure;
mod files;
mod gotemplate;
mod guarded;
mod manifest;
mod outcome;
mod plugins;
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
use commands::completion;
use context::{Config, Session};
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
    let status = dispatch(&program, words.get(1..).unwrap_or_default());
    ExitCode::from(delivered(status))
}

/// No command has done its work whose output did not arrive.
fn delivered(status: u8) -> u8 {
    match terminal::check() {
        Err(failure) if status == 0 => report("", None, &failure),
        Err(_) | Ok(()) => status,
    }
}

fn dispatch(program: &str, words: &[String]) -> u8 {
    if words.first().is_some_and(|word| word == context::DAEMON_SESSION) {
        return context::become_daemon();
    }
    let global: Vec<&'static Flag> = commands::GLOBAL.iter().collect();
    let matches = match parse::parse(&global, Order::OptionsFirst, words) {
        Ok(matches) => matches,
        Err(Stop::Help) => return print(&commands::root_help(program, &Config::of_user())),
        Err(Stop::Wrong(why)) => {
            return wrong_flag(program, "", "[OPTIONS] COMMAND [ARG...]", &global, &why);
        }
    };
    if matches.on("version") {
        return print(&commands::version::one_line(program));
    }
    if matches.args.is_empty() {
        // Docker's client tells this on stderr, and calls it no failure.
        terminal::error_text(&commands::root_help(program, &Config::of_user()));
        return 0;
    }
    let session = match Session::new(program, &matches) {
        Ok(session) => session,
        Err(failure) => return report(program, None, &failure),
    };
    let args = match aliased(&session.config, &matches.args) {
        Ok(args) => args,
        Err(failure) => return report(program, None, &failure),
    };
    let Some((name, rest)) = args.split_first() else { return 0 };
    if matches!(name.as_str(), completion::COMPLETE | completion::COMPLETE_BARE) {
        return complete(&session, name == completion::COMPLETE, words, rest);
    }
    if name == "help" {
        return help_topic(&session, rest, words);
    }
    if let Some(group) = commands::GROUPS.iter().find(|group| group.name == name) {
        return in_group(&session, group, group.name, rest, words);
    }
    // Other names stand below their groups only.
    if let Some(command) = commands::TOP.iter().find(|command| command.name == name) {
        return run(&session, "", name, command, rest);
    }
    let words = replaced(words, &matches.args, &args);
    plugin(&session, name, &words).unwrap_or_else(|| unknown(program, &args))
}

/// The words with the user's own name of a command, which Docker allows for `builder` alone.
///
/// Source: docker CLI 28.2 `cmd/docker/aliases.go`.
fn aliased(config: &Config, args: &[String]) -> Result<Vec<String>, Failure> {
    let mut args = args.to_vec();
    for (name, target) in &config.aliases {
        if name != "builder" {
            return Err(Failure::new(format!(
                "not allowed to alias {name:?} (allowed: map[string]struct {{}}{{\"builder\":struct {{}}{{}}}})"
            )));
        }
        if commands::is_builtin(target) {
            return Err(Failure::new(format!(
                "not allowed to alias with builtin {target:?} as target"
            )));
        }
        if args.first() == Some(name) {
            args[0].clone_from(target);
        }
    }
    Ok(args)
}

/// The whole command line, its arguments exchanged.
fn replaced(words: &[String], old: &[String], new: &[String]) -> Vec<String> {
    let options = words.len() - old.len();
    words[..options].iter().chain(new).cloned().collect()
}

/// The plugin's status when there is one; a plugin that runs has taken our place.
fn plugin(session: &Session, name: &str, words: &[String]) -> Option<u8> {
    if !plugins::is_there(&session.config, name) {
        return None;
    }
    // Who only asks for help or a version needs no daemon.
    let asks_little = |word: &String| {
        matches!(word.as_str(), "help" | "--help" | "-h" | "version" | "--version" | "-v")
    };
    let own: Vec<&String> = words.iter().skip_while(|word| *word != name).skip(1).collect();
    let start =
        own.iter().any(|word| !asks_little(word)) && !own.iter().any(|word| asks_little(word));
    let host = in_runtime(session.host_for_plugin(start)).ok().flatten();
    let failure = plugins::run(&session.config, &plugins::Call { name, words, host })?;
    Some(report(&session.program, None, &failure))
}

fn complete(session: &Session, with_descriptions: bool, words: &[String], typed: &[String]) -> u8 {
    // A plugin completes its own words.
    if let [name, _, ..] = typed
        && !commands::is_builtin(name)
        && plugins::is_there(&session.config, name)
    {
        let failure = plugins::run(&session.config, &plugins::Call { name, words, host: None });
        return failure.map_or(0, |failure| report(&session.program, None, &failure));
    }
    in_runtime(completion::complete(session, typed, with_descriptions)).unwrap_or(1)
}

fn unknown(program: &str, args: &[String]) -> u8 {
    let name = args.first().map(String::as_str).unwrap_or_default();
    let mut text = match name {
        // Docker's words on a daemon without experimental features.
        "checkpoint" => {
            format!(
                "{program} checkpoint is only supported on a Docker daemon with experimental features enabled\n"
            )
        }
        "bake" => format!(
            "ERROR: {program} bake requires the buildx component but it is missing or broken.\n       \
             Install the buildx component to use bake:\n       https://docs.docker.com/go/buildx/\n"
        ),
        name => format!(
            "{program}: unknown command: {program} {name}\n\nRun '{program} --help' for more information\n"
        ),
    };
    let known = commands::TOP.iter().map(|command| command.name);
    let known = known.chain(commands::GROUPS.iter().map(|group| group.name));
    match completion::nearest(name, known) {
        _ if name == "compose" => text.push_str(
            "\nCompose is a plugin: install docker-compose-plugin, or put docker-compose into ~/.docker/cli-plugins\n",
        ),
        Some(near) => text.push_str(&format!("\nDid you mean '{near}'?\n")),
        None => {}
    }
    terminal::error_text(&text);
    1
}

fn find(commands: &[&'static Command], name: &str) -> Option<&'static Command> {
    commands.iter().copied().find(|command| command.name == name || command.aliases.contains(&name))
}

fn in_group(
    session: &Session,
    group: &'static Group,
    path: &str,
    words: &[String],
    all: &[String],
) -> u8 {
    let program = &session.program;
    let Some((name, rest)) = words.split_first() else {
        // Nobody asked for help: it stands where errors do, and yet is none.
        terminal::error_text(&help::group(program, path, group));
        return 0;
    };
    // As docker/cli 28.2 has it, these two alone show that a word is missing.
    let usage = if matches!(group.name, "manifest" | "volume") { "COMMAND" } else { "" };
    if matches!(name.as_str(), "--help" | "-h" | "help") {
        return print(&help::group(program, path, group));
    }
    if name.starts_with('-') {
        let why = match name.strip_prefix("--") {
            Some(long) => format!("unknown flag: --{}", long.split('=').next().unwrap_or(long)),
            None => format!(
                "unknown shorthand flag: '{}' in {name}",
                name.chars().nth(1).unwrap_or('-')
            ),
        };
        return wrong_flag(program, path, usage, &[], &why);
    }
    if let Some(inner) = group.groups.iter().find(|inner| inner.name == name) {
        return in_group(session, inner, &format!("{path} {name}"), rest, all);
    }
    if let Some(command) = find(group.commands, name) {
        return run(session, path, name, command, rest);
    }
    // What we have of buildx is little; the rest is the plugin's.
    if let Some(status) = (group.name == "buildx").then(|| plugin(session, "buildx", all)).flatten()
    {
        return status;
    }
    let mut text = format!(
        "{program}: unknown command: {program} {path} {name}\n\n{}\n\nRun '{program} {path} --help' for more information\n",
        help::usage_line(program, path, usage),
    );
    let known = group.commands.iter().map(|command| command.name);
    if let Some(near) = completion::nearest(name, known) {
        text.push_str(&format!("\nDid you mean '{near}'?\n"));
    }
    terminal::error_text(&text);
    1
}

fn help_topic(session: &Session, words: &[String], all: &[String]) -> u8 {
    let program = &session.program;
    let unknown_topic = || {
        terminal::error_text(&format!("unknown help topic: {}\n", words.join(" ")));
        1
    };
    let Some((name, rest)) = words.split_first() else {
        return print(&commands::root_help(program, &session.config));
    };
    let Some(mut group) = commands::GROUPS.iter().find(|group| group.name == name) else {
        return match find(commands::TOP, name) {
            Some(command) if rest.is_empty() => print(&help::command(program, name, command)),
            Some(_) => unknown_topic(),
            None => {
                let call = plugins::Call { name, words: all, host: None };
                match plugins::help(&session.config, &call) {
                    None => unknown_topic(),
                    Some(Ok(())) => 0,
                    Some(Err(failure)) => report(program, None, &failure),
                }
            }
        };
    };
    let mut path = name.clone();
    let mut rest = rest;
    while let Some((name, after)) = rest.split_first() {
        path = format!("{path} {name}");
        rest = after;
        if let Some(inner) = group.groups.iter().find(|inner| inner.name == name) {
            group = inner;
            continue;
        }
        return match find(group.commands, name) {
            Some(command) if rest.is_empty() => print(&help::command(program, &path, command)),
            Some(_) | None => unknown_topic(),
        };
    }
    print(&help::group(program, &path, group))
}

/// Runs on this thread, as does all that it waits for.
fn in_runtime<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    let done = tasks.block_on(&runtime, work);
    // A reader of stdin may wait for ever; the process ends without it.
    runtime.shutdown_background();
    Ok(done)
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
        Err(Stop::Wrong(why)) => {
            return wrong_flag(program, &path, command.usage, &flags, &why);
        }
    };
    if matches.on("help") {
        return print(&help::command(program, &path, command));
    }
    // Docker's `container run` points to the help of `run`, too.
    matches.path = match command.name {
        "run" => format!("{program} run"),
        _ => format!("{program} {path}"),
    };
    let arity = command.arity.given(&matches);
    let is_counted =
        command.order != Order::Verbatim || !matches.args.iter().any(|word| word.starts_with('-'));
    if is_counted && let Err(why) = check_arity(arity, matches.args.len()) {
        if matches!(arity, args::Arity::Counted(_)) {
            terminal::error_text(&format!("{why}\n"));
            return 1;
        }
        let see = if matches!(arity, args::Arity::AtLeast(_)) { "See" } else { "Run" };
        terminal::error_text(&format!(
            "{program}: '{program} {path}' {why}\n\n{}\n\n{see} '{program} {path} --help' for more information\n",
            help::usage_line(program, &path, command.usage)
        ));
        return 1;
    }
    match in_runtime((command.run)(session, &matches)) {
        Ok(Ok(status)) => status,
        Ok(Err(failure)) => report(program, Some(&matches.path), &failure),
        Err(error) => {
            terminal::error_text(&format!("{program}: cannot start: {error}\n"));
            125
        }
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

fn wrong_flag(program: &str, path: &str, usage: &str, flags: &[&'static Flag], why: &str) -> u8 {
    let full = if path.is_empty() { program.to_owned() } else { format!("{program} {path}") };
    let mut text = format!(
        "{why}\n\n{}\n\nRun '{full} --help' for more information\n",
        help::usage_line(program, path, usage)
    );
    let known = flags.iter().filter(|flag| !flag.hidden).map(|flag| flag.name);
    if let Some(typed) = why.strip_prefix("unknown flag: --")
        && let Some(near) = completion::nearest(typed, known)
    {
        text.push_str(&format!("\nDid you mean '--{near}'?\n"));
    }
    terminal::error_text(&text);
    125
}

fn print(text: &str) -> u8 {
    terminal::out(text);
    0
}
