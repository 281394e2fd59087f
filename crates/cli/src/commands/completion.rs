//! Completion: the shells' scripts, and `__complete`, which they ask.
//!
//! ```text
//! docker __complete run --network ''     the words behind `docker`; the last is what is being typed
//! bridge                                 one candidate a line, with a tab its description
//! :4                                     what the shell may do besides: 0 file names, 4 nothing, 1 failed
//! ```
//! Which names a command takes is in its usage line (`CONTAINER`, `IMAGE`…), so a new command completes
//! without more. Source of the protocol: cobra, "Shell completions".

use api::{client::Client, container, image, network::Network, volume::ListResponse};

use super::{GLOBAL, GROUPS, TOP};
use crate::{
    args::{Arity, Command, Flag, Group, Kind, Order, Section, group, help},
    context::{Config, Session},
    failure::Failure,
    plugins, terminal,
};

/// The first word that asks for candidates; the second form wants no descriptions.
pub const COMPLETE: &str = "__complete";
pub const COMPLETE_BARE: &str = "__completeNoDesc";

const NO_FILES: u8 = 4;
const FILES: u8 = 0;
const FAILED: u8 = 1;

pub const GROUP: Group = Group {
    section: Section::Hidden,
    long: "Print a script that completes the words of {program} in a shell. The help of each shell's own\ncommand says where the script goes.",
    ..group("completion", "Print the script that completes words in a shell", COMMANDS)
};

const COMMANDS: &[&Command] = &[&BASH, &FISH, &POWERSHELL, &ZSH];

macro_rules! script {
    ($id:ident, $name:literal, $about:literal, $text:literal) => {
        static $id: Command = Command {
            name: $name,
            aliases: &[],
            spellings: &[],
            usage: "",
            about: $about,
            flags: &[&[crate::args::flag(
                "no-descriptions",
                Kind::Bool,
                "complete without descriptions",
            )]],
            arity: Arity::None,
            order: Order::Mixed,
            run: |session, matches| {
                let word = if matches.on("no-descriptions") { COMPLETE_BARE } else { COMPLETE };
                let text = include_str!($text);
                let text = text.replace("PROGRAM", &session.program).replace("COMPLETE", word);
                Box::pin(async move {
                    terminal::out(&text);
                    Ok(0)
                })
            },
        };
    };
}

script!(
    BASH,
    "bash",
    "Print the script that completes words in bash\n\nFor the shell that runs:\n\n\tsource <({program} completion bash)\n\nFor every shell that starts from now on:\n\n\t{program} completion bash > /etc/bash_completion.d/{program}",
    "completion/bash"
);
script!(
    FISH,
    "fish",
    "Print the script that completes words in fish\n\nFor every shell that starts from now on:\n\n\t{program} completion fish > ~/.config/fish/completions/{program}.fish",
    "completion/fish"
);
script!(
    POWERSHELL,
    "powershell",
    "Print the script that completes words in powershell\n\nFor the shell that runs:\n\n\t{program} completion powershell | Out-String | Invoke-Expression",
    "completion/powershell"
);
script!(
    ZSH,
    "zsh",
    "Print the script that completes words in zsh\n\nFor the shell that runs:\n\n\tsource <({program} completion zsh)\n\nFor every shell that starts from now on:\n\n\t{program} completion zsh > \"${fpath[1]}/_{program}\"",
    "completion/zsh"
);

/// Candidates, and what the shell may do besides.
struct Answer {
    words: Vec<(String, String)>,
    directive: u8,
}

impl Answer {
    fn words<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Answer {
        let words = words.into_iter().map(|word| (word.into(), String::new())).collect();
        Answer { words, directive: NO_FILES }
    }

    fn nothing(directive: u8) -> Answer {
        Answer { words: Vec::new(), directive }
    }
}

/// What was typed so far, taken apart.
struct Typed<'a> {
    command: Option<&'static Command>,
    group: Option<&'static Group>,
    flags: Vec<&'static Flag>,
    args: Vec<&'a str>,
    /// The option whose value is being typed.
    value_of: Option<&'static Flag>,
    /// No option may follow any more.
    only_args: bool,
}

/// Answers `__complete`. A daemon is never started for it.
pub async fn complete(session: &Session, words: &[String], with_descriptions: bool) -> u8 {
    let Some((current, before)) = words.split_last() else {
        terminal::out(&format!(":{NO_FILES}\n"));
        return 0;
    };
    let typed = take_apart(before);
    let answer = candidates(session, &typed, current).await;
    // Of `--option=value` the value alone is completed.
    let start = match current.split_once('=') {
        Some((_, value)) if typed.value_of.is_none() && current.starts_with("--") => value,
        Some(_) | None => current.as_str(),
    };
    let mut text = String::new();
    for (word, about) in answer.words.iter().filter(|(word, _)| word.starts_with(start)) {
        let about = about.lines().next().unwrap_or_default();
        if with_descriptions && !about.is_empty() {
            text.push_str(&format!("{word}\t{about}\n"));
        } else {
            text.push_str(&format!("{word}\n"));
        }
    }
    terminal::out(&format!("{text}:{}\n", answer.directive));
    0
}

fn take_apart(words: &[String]) -> Typed<'_> {
    let mut typed = Typed {
        command: None,
        group: None,
        flags: GLOBAL.iter().collect(),
        args: Vec::new(),
        value_of: None,
        only_args: false,
    };
    for word in words {
        if typed.value_of.take().is_some() {
            continue;
        }
        if typed.only_args {
            typed.args.push(word);
        } else if word == "--" {
            typed.only_args = true;
        } else if word.len() > 1 && word.starts_with('-') {
            typed.value_of = wants_value(&typed.flags, word);
        } else if !descend(&mut typed, word) {
            typed.args.push(word);
            typed.only_args =
                typed.command.is_none_or(|command| command.order == Order::OptionsFirst);
        }
    }
    typed
}

/// The option that takes the next word as its value.
fn wants_value(flags: &[&'static Flag], word: &str) -> Option<&'static Flag> {
    if word.contains('=') {
        return None;
    }
    let flag = match word.strip_prefix("--") {
        Some(long) => flags.iter().find(|flag| flag.name == long),
        None => flags.iter().find(|flag| word.chars().last() == flag.short),
    };
    flag.copied().filter(|flag| flag.kind != Kind::Bool)
}

/// Goes to the command of this name below where we are.
fn descend(typed: &mut Typed<'_>, word: &str) -> bool {
    if typed.command.is_some() || !typed.args.is_empty() {
        return false;
    }
    let (groups, commands): (&'static [Group], &[&'static Command]) = match typed.group {
        None => (GROUPS, TOP),
        Some(group) => (group.groups, group.commands),
    };
    if let Some(group) = groups.iter().find(|group| group.name == word) {
        typed.group = Some(group);
        typed.flags.clear();
        return true;
    }
    let named =
        |command: &&&'static Command| command.name == word || command.aliases.contains(&word);
    if let Some(command) = commands.iter().find(named) {
        typed.command = Some(command);
        typed.flags = command.all_flags().collect();
        return true;
    }
    false
}

async fn candidates(session: &Session, typed: &Typed<'_>, current: &str) -> Answer {
    if let Some(flag) = typed.value_of {
        return values(session, flag).await;
    }
    if !typed.only_args && current.starts_with('-') {
        if let Some((name, _)) = current.split_once('=') {
            let flag = typed.flags.iter().find(|flag| name.strip_prefix("--") == Some(flag.name));
            let Some(flag) = flag else { return Answer::nothing(NO_FILES) };
            return values(session, flag).await;
        }
        return options(&typed.flags);
    }
    match (typed.command, typed.group) {
        (Some(command), _) => arguments(session, command, typed.args.len()).await,
        (None, Some(group)) => below(group.groups, group.commands, group.hidden),
        (None, None) if typed.args.is_empty() => root(&session.config),
        (None, None) => Answer::nothing(FILES),
    }
}

fn options(flags: &[&'static Flag]) -> Answer {
    let mut shown: Vec<_> = flags.iter().filter(|flag| !flag.hidden).collect();
    shown.sort_unstable_by_key(|flag| flag.name);
    let mut words = Vec::new();
    for flag in shown {
        words.push((format!("--{}", flag.name), flag.usage.to_owned()));
        if let Some(short) = flag.short {
            words.push((format!("-{short}"), flag.usage.to_owned()));
        }
    }
    Answer { words, directive: NO_FILES }
}

fn below(groups: &[Group], commands: &[&Command], hidden: &[&str]) -> Answer {
    let groups = groups
        .iter()
        .filter(|group| group.section != Section::Hidden)
        .map(|group| (group.name.to_owned(), group.about.to_owned()));
    let commands = commands
        .iter()
        .filter(|command| !hidden.contains(&command.name))
        .map(|command| (command.name.to_owned(), help::short(command.about)));
    let mut words: Vec<_> = groups.chain(commands).collect();
    words.sort_unstable();
    Answer { words, directive: NO_FILES }
}

fn root(config: &Config) -> Answer {
    let mut answer = below(GROUPS, TOP, &[]);
    let plugins = plugins::list(config).into_iter().filter(|plugin| plugin.invalid.is_none());
    answer.words.extend(plugins.map(|plugin| (plugin.name, plugin.metadata.short_description)));
    answer.words.sort_unstable();
    answer.words.dedup();
    answer
}

/// The values that an option may have.
async fn values(session: &Session, flag: &Flag) -> Answer {
    const SIGNALS: [&str; 12] = [
        "HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "TSTP", "WINCH",
        "ALRM",
    ];
    let fixed: &[&str] = match flag.name {
        "pull" => &["always", "missing", "never"],
        "restart" => &["always", "no", "on-failure", "unless-stopped"],
        "log-driver" => &["json-file", "local", "none", "syslog"],
        "signal" | "stop-signal" => &SIGNALS,
        "platform" => &["linux/amd64", "linux/arm/v7", "linux/arm64", "linux/386", "linux/riscv64"],
        "log-level" => &["debug", "error", "fatal", "info", "warn"],
        "attach" => &["stderr", "stdin", "stdout"],
        "cgroupns" => &["host", "private"],
        "progress" => &["auto", "plain", "rawjson", "tty"],
        "type" => &["container", "image", "network", "volume"],
        "userns" | "uts" => &["host"],
        _ => &[],
    };
    if !fixed.is_empty() {
        return Answer::words(fixed.iter().copied());
    }
    match flag.name {
        "network" | "net" => names(session, Names::Networks).await,
        "volumes-from" => names(session, Names::Containers).await,
        "context" => names(session, Names::Contexts).await,
        "env" | "build-arg" => Answer::words(std::env::vars().map(|(name, _)| name)),
        _ => Answer::nothing(FILES),
    }
}

/// What an argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Containers,
    Running,
    Stopped,
    Paused,
    Images,
    Networks,
    Volumes,
    Contexts,
    Files,
    Nothing,
}

/// What stands at `place` in the command's usage line; its last word may stand for more.
fn kind(command: &Command, place: usize) -> Names {
    let words: Vec<&str> = command
        .usage
        .lines()
        .next()
        .unwrap_or_default()
        .split(' ')
        .filter(|word| !matches!(*word, "" | "[OPTIONS]" | "OPTIONS"))
        .collect();
    let repeats = words.last().is_some_and(|word| word.ends_with("...]"));
    let word = match words.get(place) {
        Some(word) => word,
        None if repeats => words.last().copied().unwrap_or_default(),
        None => return Names::Nothing,
    };
    let word = word.trim_matches(['[', ']', '.']);
    let start = word.split(['[', ':', '|', '=']).next().unwrap_or_default();
    match (command.name, start) {
        ("kill" | "stop" | "exec" | "attach" | "top" | "pause" | "port" | "wait", "CONTAINER") => {
            Names::Running
        }
        ("unpause", "CONTAINER") => Names::Paused,
        ("start", "CONTAINER") => Names::Stopped,
        (_, "CONTAINER") => Names::Containers,
        (_, "IMAGE" | "SOURCE_IMAGE" | "TARGET_IMAGE" | "REPOSITORY") | ("push", "NAME") => {
            Names::Images
        }
        (_, "NETWORK") if command.name != "create" => Names::Networks,
        (_, "VOLUME") if command.name != "create" => Names::Volumes,
        ("use" | "rm" | "inspect" | "update" | "export", "CONTEXT") => Names::Contexts,
        (
            _,
            "PATH" | "FILE" | "file" | "COMMAND" | "ARG" | "SRC_PATH" | "DEST_PATH" | "CONTEXT",
        ) => Names::Files,
        _ => Names::Nothing,
    }
}

async fn arguments(session: &Session, command: &Command, place: usize) -> Answer {
    match kind(command, place) {
        Names::Files => Answer::nothing(FILES),
        Names::Nothing => Answer::nothing(NO_FILES),
        kind => names(session, kind).await,
    }
}

async fn names(session: &Session, kind: Names) -> Answer {
    if kind == Names::Contexts {
        return Answer::words(super::context::names(session));
    }
    let found = async {
        let client = session.client_if_there().await?;
        listed(client, kind).await
    };
    match found.await {
        Ok(names) => Answer::words(names),
        Err(_) => Answer::nothing(FAILED),
    }
}

async fn listed(client: &Client, kind: Names) -> Result<Vec<String>, Failure> {
    Ok(match kind {
        Names::Images => {
            let images: Vec<image::Summary> =
                client.get("/images/json").send().await?.json().await?;
            let names = images.into_iter().flat_map(|image| image.repo_tags);
            names.filter(|name| name != "<none>:<none>").collect()
        }
        Names::Networks => {
            let networks: Vec<Network> = client.get("/networks").send().await?.json().await?;
            networks.into_iter().map(|network| network.name).collect()
        }
        Names::Volumes => {
            let found: ListResponse = client.get("/volumes").send().await?.json().await?;
            found.volumes.into_iter().map(|volume| volume.name).collect()
        }
        Names::Containers | Names::Running | Names::Stopped | Names::Paused => {
            let request = client.get("/containers/json").flag("all", kind != Names::Running);
            let containers: Vec<container::Summary> = request.send().await?.json().await?;
            let fits = |state: &str| match kind {
                Names::Paused => state == "paused",
                Names::Stopped => !matches!(state, "running" | "paused"),
                _ => true,
            };
            let with_ids =
                std::env::var("DOCKER_COMPLETION_SHOW_CONTAINER_IDS").is_ok_and(|on| on == "yes");
            let containers = containers.into_iter().filter(|container| fits(&container.state));
            containers
                .flat_map(|container| {
                    let names = container.names.into_iter();
                    let names = names.map(|name| name.trim_start_matches('/').to_owned());
                    with_ids.then_some(container.id).into_iter().chain(names)
                })
                .collect()
        }
        Names::Contexts | Names::Files | Names::Nothing => Vec::new(),
    })
}

/// The word nearest to `typed`, when it is near enough to be meant.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = if typed.len() < 4 { 1 } else { 2 };
    known
        .into_iter()
        .map(|word| (distance(typed, word), word))
        .filter(|(distance, word)| *distance <= allowed && *distance < word.len().min(typed.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Letters to insert, remove, change or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row[j] = best;
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_line_says_what_is_named() {
        let of = |group: &str, name: &str, place| {
            let command = match group {
                "" => TOP.iter().find(|command| command.name == name),
                group => GROUPS
                    .iter()
                    .find(|one| one.name == group)
                    .and_then(|group| group.commands.iter().find(|one| one.name == name)),
            };
            kind(command.unwrap(), place)
        };
        for (group, name, place, want) in [
            ("", "run", 0, Names::Images),
            ("", "run", 1, Names::Files),
            ("", "rm", 3, Names::Containers),
            ("", "stop", 0, Names::Running),
            ("", "unpause", 0, Names::Paused),
            ("", "push", 0, Names::Images),
            ("", "pull", 0, Names::Nothing),
            ("", "tag", 1, Names::Images),
            ("", "logs", 1, Names::Nothing),
            ("network", "connect", 0, Names::Networks),
            ("network", "connect", 1, Names::Containers),
            ("network", "create", 0, Names::Nothing),
            ("volume", "rm", 2, Names::Volumes),
            ("context", "use", 0, Names::Contexts),
        ] {
            assert_eq!(of(group, name, place), want, "{group} {name} {place}");
        }
    }

    #[test]
    fn a_near_word_is_meant() {
        let known = ["build", "images", "image", "name", "network"];
        for (typed, want) in [
            ("biuld", Some("build")),
            ("imgaes", Some("images")),
            ("nmae", Some("name")),
            ("x", None),
            ("frobnicate", None),
        ] {
            assert_eq!(nearest(typed, known), want, "{typed}");
        }
    }
}
