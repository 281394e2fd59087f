//! The commands: one module for each family, and the tables that name them.

use api::client::{Client, Error};
use tokio::task::JoinSet;

use crate::{
    args::{Command, Flag, Group, Kind::*, Matches, Outcome, Section, flag, group, help},
    context::{Config, Session},
    failure::{Failure, daemon_words},
    plugins, terminal,
};

pub mod absent;
pub mod attach;
pub mod build;
pub mod completion;
pub mod context;
pub mod copy;
pub mod events;
pub mod exec;
pub mod image_tree;
pub mod images;
pub mod info;
pub mod inspect;
pub mod lifecycle;
pub mod login;
pub mod logs;
pub mod manifest;
pub mod networks;
pub mod ps;
pub mod run;
pub mod search;
pub mod stats;
pub mod system;
pub mod transfer;
pub mod update;
pub mod usage;
pub mod version;
pub mod volumes;

pub static GLOBAL: &[Flag] = &[
    flag("config", Text, "Location of the client's configuration files"),
    flag(
        "context",
        Text,
        "Name of the context that says where the daemon is (goes before DOCKER_HOST and the chosen context)",
    )
    .s('c'),
    flag("debug", Bool, "Turn on debug mode").s('D'),
    flag("host", List, "Socket of the daemon to talk to").s('H'),
    flag(
        "log-level",
        Text,
        "Level of the log (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")",
    )
    .s('l')
    .or("info"),
    flag("tls", Bool, "Use TLS; follows from --tlsverify"),
    flag("tlscacert", Text, "Trust only certificates signed by this CA"),
    flag("tlscert", Text, "Path of the TLS certificate"),
    flag("tlskey", Text, "Path of the TLS key"),
    flag("tlsverify", Bool, "Use TLS and verify the other side"),
    flag("version", Bool, "Print version information and quit").s('v'),
];

const MANIFEST_LONG: &str = "One name may stand for several images, one for each platform: a list of manifests. These commands
make such lists, show and push them, and talk to registries without a daemon.";

/// Commands typed most, shown first in help.
static COMMON: &[&Command] = &[
    &run::RUN,
    &exec::EXEC,
    &ps::PS,
    &build::BUILD,
    &transfer::PULL,
    &transfer::PUSH,
    &images::IMAGES,
    &login::LOGIN,
    &login::LOGOUT,
    &search::SEARCH,
    &version::VERSION,
    &info::INFO,
];

pub static TOP: &[&Command] = &[
    &run::RUN,
    &exec::EXEC,
    &ps::PS,
    &build::BUILD,
    &transfer::PULL,
    &transfer::PUSH,
    &images::IMAGES,
    &login::LOGIN,
    &login::LOGOUT,
    &search::SEARCH,
    &version::VERSION,
    &info::INFO,
    &attach::ATTACH,
    &transfer::COMMIT,
    &copy::CP,
    &run::CREATE,
    &logs::DIFF,
    &events::EVENTS,
    &copy::EXPORT,
    &images::HISTORY,
    &transfer::IMPORT,
    &inspect::INSPECT,
    &lifecycle::KILL,
    &transfer::LOAD,
    &logs::LOGS,
    &lifecycle::PAUSE,
    &logs::PORT,
    &lifecycle::RENAME,
    &lifecycle::RESTART,
    &lifecycle::RM,
    &images::RMI,
    &transfer::SAVE,
    &attach::START,
    &stats::STATS,
    &lifecycle::STOP,
    &images::TAG,
    &logs::TOP,
    &lifecycle::UNPAUSE,
    &update::UPDATE,
    &lifecycle::WAIT,
];

pub static GROUPS: &[Group] = &[
    group("builder", "Manage builds", &[&build::BUILD, &system::BUILDER_PRUNE]),
    // A plugin in Docker, whose other commands are left to the plugin.
    Group {
        section: Section::Own,
        ..group("buildx", "Docker Buildx", &[&build::BUILD, &build::BUILDX_VERSION])
    },
    group(
        "container",
        "Manage containers",
        &[
            &attach::ATTACH,
            &transfer::COMMIT,
            &copy::CP,
            &run::CREATE,
            &logs::DIFF,
            &exec::EXEC,
            &copy::EXPORT,
            &inspect::CONTAINER_INSPECT,
            &lifecycle::KILL,
            &logs::LOGS,
            &ps::LS,
            &lifecycle::PAUSE,
            &logs::PORT,
            &system::CONTAINER_PRUNE,
            &lifecycle::RENAME,
            &lifecycle::RESTART,
            &lifecycle::RM,
            &run::RUN,
            &attach::START,
            &stats::STATS,
            &lifecycle::STOP,
            &logs::TOP,
            &lifecycle::UNPAUSE,
            &update::UPDATE,
            &lifecycle::WAIT,
        ],
    ),
    group(
        "context",
        "Manage contexts",
        &[
            &context::CREATE,
            &context::EXPORT,
            &context::IMPORT,
            &context::INSPECT,
            &context::LS,
            &context::RM,
            &context::SHOW,
            &context::UPDATE,
            &context::USE,
        ],
    ),
    group(
        "image",
        "Manage images",
        &[
            &build::BUILD,
            &images::HISTORY,
            &transfer::IMPORT,
            &inspect::IMAGE_INSPECT,
            &transfer::LOAD,
            &images::LS,
            &system::IMAGE_PRUNE,
            &transfer::PULL,
            &transfer::PUSH,
            &images::RM,
            &transfer::SAVE,
            &images::TAG,
        ],
    ),
    Group {
        long: MANIFEST_LONG,
        ..group(
            "manifest",
            "Manage image manifests and lists of them, without a daemon",
            &[
                &manifest::ANNOTATE,
                &manifest::CREATE,
                &manifest::INSPECT,
                &manifest::PUSH,
                &manifest::RM,
            ],
        )
    },
    group(
        "network",
        "Manage networks",
        &[
            &networks::CONNECT,
            &networks::CREATE,
            &networks::DISCONNECT,
            &inspect::NETWORK_INSPECT,
            &networks::LS,
            &system::NETWORK_PRUNE,
            &networks::RM,
        ],
    ),
    Group {
        section: Section::Own,
        ..group("registry", "Serve images to others", &[&crate::serve::SERVE])
    },
    Group {
        hidden: &["dial-stdio"],
        ..group(
            "system",
            "Manage the engine",
            &[
                &system::DF,
                &system::DIAL_STDIO,
                &events::EVENTS,
                &info::INFO,
                &system::SYSTEM_PRUNE,
            ],
        )
    },
    Group {
        hidden: &["update"],
        ..group(
            "volume",
            "Manage volumes",
            &[
                &volumes::CREATE,
                &inspect::VOLUME_INSPECT,
                &volumes::LS,
                &system::VOLUME_PRUNE,
                &volumes::RM,
                &volumes::UPDATE,
            ],
        )
    },
    Group { section: Section::Hidden, ..completion::GROUP },
    absent::CONFIG,
    absent::NODE,
    absent::PLUGIN,
    absent::SECRET,
    absent::SERVICE,
    absent::STACK,
    absent::SWARM,
    absent::TRUST,
];

/// Whether a name is a command of ours; those that Docker leaves to plugins do not count.
pub fn is_builtin(name: &str) -> bool {
    GROUPS.iter().any(|group| group.name == name && group.section != Section::Own)
        || TOP.iter().any(|command| command.name == name)
}

/// Help of the program itself, with the plugins that `session`'s configuration finds.
pub fn root_help(program: &str, config: &Config) -> String {
    let plugins = plugins::list(config);
    let names = GROUPS.iter().map(|group| group.name).chain(TOP.iter().map(|command| command.name));
    let width = help::width(names.chain(plugins.iter().map(|plugin| plugin.name.as_str())));
    let about = "Builds, runs and ships containers: the whole of Docker's job in one program";
    let mut text = format!("Usage:  {program} [OPTIONS] COMMAND\n\n{about}\n\nCommon Commands:\n");
    for command in COMMON {
        text.push_str(&format!("  {:width$} {}\n", command.name, help::short(command.about)));
    }
    let of = |section| {
        let groups = GROUPS.iter().filter(move |group| group.section == section);
        groups.map(|group| (group.name.to_owned(), group.about.to_owned())).collect::<Vec<_>>()
    };
    let (valid, broken): (Vec<_>, Vec<_>) =
        plugins.iter().partition(|plugin| plugin.invalid.is_none());
    let mut management = of(Section::Management);
    let mark = |plugin: &&plugins::Plugin| {
        (format!("{}*", plugin.name), plugin.metadata.short_description.clone())
    };
    management.extend(valid.iter().map(mark));
    let mut own = of(Section::Own);
    own.push(("daemon".to_owned(), "Run the engine behind the Engine API (as dockerd)".to_owned()));
    let others = TOP.iter().filter(|command| !COMMON.iter().any(|one| one.name == command.name));
    let others = others.map(|command| (command.name.to_owned(), help::short(command.about)));
    let broken = broken
        .iter()
        .filter_map(|plugin| plugin.invalid.as_ref().map(|why| (plugin.name.clone(), why.clone())));
    for (heading, rows) in [
        ("Management Commands", management),
        ("Swarm Commands", of(Section::Swarm)),
        ("Commands", others.collect()),
        ("Invalid Plugins", broken.collect()),
        ("Tug's own Commands", own),
    ] {
        if !rows.is_empty() {
            text.push_str(&format!("\n{heading}:\n{}", help::table(width, rows)));
        }
    }
    let global: Vec<&Flag> = GLOBAL.iter().collect();
    let file = |name: &str| Some(config.directory.join(name).display().to_string());
    let known = |flag: &Flag| match flag.name {
        "config" => Some(config.directory.display().to_string()),
        "tlscacert" => file("ca.pem"),
        "tlscert" => file("cert.pem"),
        "tlskey" => file("key.pem"),
        _ => None,
    };
    text.push_str(&format!(
        "\nGlobal Options:\n{}\nRun '{program} COMMAND --help' for more information on a command.\n",
        help::options(&global, help::columns(), known)
    ));
    text
}

/// Does one thing to each of several objects at once; prints each name that went well and all
/// the errors at the end, as Docker's client does.
pub async fn each<F, Fut>(session: &Session, names: &[String], act: F) -> Outcome
where
    F: Fn(Client, String) -> Fut,
    Fut: Future<Output = Result<(), Error>> + 'static,
{
    let client = session.client().await?;
    let mut tasks = JoinSet::new();
    for (index, name) in names.iter().enumerate() {
        let work = act(client.clone(), name.clone());
        tasks.spawn_local(async move { (index, work.await) });
    }
    let mut results: Vec<Option<Result<(), Error>>> = names.iter().map(|_| None).collect();
    let mut printed = 0;
    while let Some(done) = tasks.join_next().await {
        let Ok((index, result)) = done else { continue };
        results[index] = Some(result);
        // In the order typed, as soon as each is known.
        while let Some(Some(result)) = results.get(printed) {
            if result.is_ok() {
                terminal::out(&format!("{}\n", names[printed]));
            }
            printed += 1;
        }
    }
    let errors: Vec<_> = results
        .iter()
        .flatten()
        .filter_map(|result| result.as_ref().err())
        .map(daemon_words)
        .collect();
    finish(errors)
}

/// Success, or all the errors as one failure.
pub fn finish(errors: Vec<String>) -> Outcome {
    if errors.is_empty() { Ok(0) } else { Err(Failure::new(errors.join("\n"))) }
}

/// The `filters` parameter of `--filter` values, if any.
pub fn filters(matches: &Matches) -> Option<String> {
    let mut filters = api::filters::Filters::default();
    for value in matches.all("filter") {
        if let Some((key, value)) = value.split_once('=') {
            filters.add(key.trim().to_lowercase(), value.trim());
        }
    }
    (!filters.is_empty()).then(|| filters.to_json())
}

/// A platform as the API takes it in queries: JSON of its parts.
pub fn platform_json(text: &str) -> String {
    let mut parts = text.split('/');
    let mut fields = serde_json::Map::new();
    for name in ["os", "architecture", "variant"] {
        if let Some(part) = parts.next().filter(|part| !part.is_empty()) {
            fields.insert(name.to_owned(), part.into());
        }
    }
    serde_json::Value::Object(fields).to_string()
}

/// The options of every listing.
pub const FORMAT_USAGE: &str = "Format output by a template:\n'table':            As a table with column headers (default)\n'table TEMPLATE':   As a table of the given Go template\n'json':             As JSON\n'TEMPLATE':         By the given Go template";
/// The option of what shows one object after another.
pub const OBJECT_FORMAT_USAGE: &str = "Format output by a template:\n'json':             As JSON\n'TEMPLATE':         By the given Go template";

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Command> {
        TOP.iter().copied().chain(GROUPS.iter().flat_map(|group| group.commands.iter().copied()))
    }

    #[test]
    fn no_command_has_two_flags_of_one_name() {
        for command in all() {
            let mut names: Vec<_> = command.all_flags().map(|flag| flag.name).collect();
            let mut letters: Vec<_> = command.all_flags().filter_map(|flag| flag.short).collect();
            let counts = (names.len(), letters.len());
            names.sort_unstable();
            names.dedup();
            letters.sort_unstable();
            letters.dedup();
            assert_eq!((names.len(), letters.len()), counts, "{}", command.name);
        }
    }

    #[test]
    fn another_spelling_stands_for_a_flag_of_the_same_command() {
        for command in all() {
            for name in command.all_flags().filter_map(|flag| flag.same_as) {
                assert!(command.all_flags().any(|flag| flag.name == name), "{name}");
            }
        }
    }
}
