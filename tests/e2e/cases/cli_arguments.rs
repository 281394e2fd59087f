//! Wrong arguments, swept by machine: every command that Docker's client lists, with each kind of
//! mistake, in both command lines.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::cli_surface::{commands, shape};
use crate::harness::{BOTH, Cli, Outcome, Output, Suite};

super::cases! {
    wrong_arguments_are_told_in_dockers_words_by_every_command,
}

/// What is not compared, by how the command line begins (`=` at its end: by the whole of it), and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("checkpoint", "Docker's client itself says only that its daemon has none"),
    ("config", "swarm: Tug says that it has none"),
    ("node", "swarm: Tug says that it has none"),
    ("plugin", "engine plugins: Tug says that it has none"),
    ("secret", "swarm: Tug says that it has none"),
    ("service", "swarm: Tug says that it has none"),
    ("stack", "swarm: Tug says that it has none"),
    ("swarm", "swarm: Tug says that it has none"),
    ("trust", "signing: Tug says that it has none"),
    ("events=", "does not end"),
    ("system events=", "does not end"),
    ("stats=", "does not end"),
    ("container stats=", "does not end"),
    ("manifest=", "Docker's client has an empty line before the help"),
    ("manifest create a-1", "asks a registry, and the resolvers have words of their own"),
    ("search a-1", "asks a registry"),
];

/// The types of flags whose values can be wrong, as help names them.
const TYPES: [&str; 9] =
    ["int", "int16", "uint16", "uint", "uint32", "uint64", "duration", "bytes", "decimal"];

const MANY: [&str; 6] = ["a-1", "a-2", "a-3", "a-4", "a-5", "a-6"];

/// Whether an exception speaks of this line alone or of all that begin so.
fn is_excepted(words: &[String]) -> bool {
    let line = words.join(" ");
    EXCEPTIONS.iter().any(|(begin, _)| match begin.strip_suffix('=') {
        Some(whole) => line == whole,
        None => line == *begin || line.starts_with(&format!("{begin} ")),
    })
}

/// Every mistake that can be made with a command, whose words are given.
fn mistakes(suite: &Suite, command: &[&str]) -> Vec<Vec<String>> {
    let with = |more: &[&str]| -> Vec<String> {
        command.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let mut lines = vec![with(&[]), with(&MANY), with(&["--no-such-flag"]), with(&["-@"])];
    let help = suite.run(Cli::Docker, command.iter().copied().chain(["--help"])).stdout;
    let mut has_switch = false;
    for line in help.lines() {
        let Some((before, rest)) = line.split_once("--") else { continue };
        let is_flag = before.trim_start().is_empty() || before.trim_start().starts_with('-');
        let mut words = rest.split(' ');
        let (Some(name), Some(kind)) = (words.next(), words.next()) else { continue };
        if !is_flag || name.is_empty() {
            continue;
        }
        if TYPES.contains(&kind) {
            lines.push(with(&[&format!("--{name}=x1"), "a-1"]));
            lines.push(with(&[&format!("--{name}="), "a-1"]));
            lines.push(with(&[&format!("--{name}")]));
            if !["bytes", "decimal"].contains(&kind) {
                // Sizes and fractions beyond 64 bits come out negative in Docker's client.
                lines.push(with(&[&format!("--{name}=99999999999999999999"), "a-1"]));
            }
        } else if kind.is_empty() && !has_switch {
            has_switch = true;
            lines.push(with(&[&format!("--{name}=maybe"), "a-1"]));
        }
    }
    lines
}

/// What was said, without what has nothing to do with the mistake.
fn said(output: &Output) -> (i32, String) {
    // The first is a misprint of docker/cli 28.2, the second tells of the builder that it lacks here.
    let text = output.stderr.replace("SRun '", "Run '");
    let text = match text.split_once("\n\n") {
        Some((first, rest)) if first.starts_with("DEPRECATED: The legacy builder") => rest,
        _ => &text,
    };
    (output.code, text.to_owned())
}

/// The status, what is said before a usage, and the form of the help from there on: its sentences are
/// Tug's own.
fn form((code, text): &(i32, String)) -> (i32, String, Vec<String>) {
    let help = text.find("Usage:").unwrap_or(text.len());
    (*code, text[..help].to_owned(), shape(&text[help..]))
}

/// Runs `work` on every item, on a few threads: most of the time goes into starting programs.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(item));
        }
        done
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn wrong_arguments_are_told_in_dockers_words_by_every_command(suite: &Suite) -> Outcome {
    let top: Vec<Vec<String>> =
        commands(suite, Cli::Docker, &[]).into_iter().map(|name| vec![name]).collect();
    let below = each(&top, |words| {
        let names = commands(suite, Cli::Docker, &[words[0].as_str()]);
        names.into_iter().map(|name| vec![words[0].clone(), name]).collect::<Vec<_>>()
    });
    let mut all = top;
    all.extend(below.into_iter().flatten());
    let lines = each(&all, |words| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        mistakes(suite, &words)
    });
    let mut lines: Vec<Vec<String>> = lines.into_iter().flatten().collect();
    lines.retain(|line| !is_excepted(line));
    assert!(lines.len() > 600, "{}", lines.len());
    let differences: Vec<String> = each(&lines, |line| {
        let [own, dockers] = BOTH.map(|cli| said(&suite.run(cli, line)));
        (form(&own) != form(&dockers))
            .then(|| format!("{}\n  Docker {dockers:?}\n  Tug    {own:?}", line.join(" ")))
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    suite.tug(["volume", "prune", "-af"]).ok();
    Outcome::Passed
}
