//! The commands: one module for each family, and the tables that name them.

use api::client::{Client, Error};
use tokio::task::JoinSet;

use crate::{
    args::{Command, Flag, Group, Kind::*, Matches, Outcome, flag, help},
    context::Session,
    failure::{Failure, daemon_words},
    terminal,
};

pub mod attach;
pub mod build;
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
    Group {
        name: "builder",
        about: "Manage builds",
        commands: &[&build::BUILD, &system::BUILDER_PRUNE],
    },
    Group {
        name: "buildx",
        about: "Build with more options",
        commands: &[&build::BUILD, &build::BUILDX_VERSION],
    },
    Group {
        name: "container",
        about: "Manage containers",
        commands: &[
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
    },
    Group {
        name: "context",
        about: "Manage contexts: where daemons are",
        commands: &[
            &context::CREATE,
            &context::INSPECT,
            &context::LS,
            &context::RM,
            &context::SHOW,
            &context::USE,
        ],
    },
    Group {
        name: "image",
        about: "Manage images",
        commands: &[
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
    },
    Group {
        name: "manifest",
        about: "Manage image manifests and lists of them, without a daemon",
        commands: &[
            &manifest::ANNOTATE,
            &manifest::CREATE,
            &manifest::INSPECT,
            &manifest::PUSH,
            &manifest::RM,
        ],
    },
    Group {
        name: "network",
        about: "Manage networks",
        commands: &[
            &networks::CONNECT,
            &networks::CREATE,
            &networks::DISCONNECT,
            &inspect::NETWORK_INSPECT,
            &networks::LS,
            &system::NETWORK_PRUNE,
            &networks::RM,
        ],
    },
    Group { name: "registry", about: "Serve images to others", commands: &[&crate::serve::SERVE] },
    Group {
        name: "system",
        about: "Manage the engine",
        commands: &[
            &system::DF,
            &system::DIAL_STDIO,
            &events::EVENTS,
            &info::INFO,
            &system::SYSTEM_PRUNE,
        ],
    },
    Group {
        name: "volume",
        about: "Manage volumes",
        commands: &[
            &volumes::CREATE,
            &inspect::VOLUME_INSPECT,
            &volumes::LS,
            &system::VOLUME_PRUNE,
            &volumes::RM,
        ],
    },
];

/// Help of the program itself.
pub fn root_help(program: &str) -> String {
    let rows = |commands: &[&'static Command]| {
        let rows: Vec<_> = commands.iter().map(|command| (command.name, command.about)).collect();
        help::table(&rows)
    };
    let mut others: Vec<&'static Command> = TOP
        .iter()
        .copied()
        .filter(|command| !COMMON.iter().any(|common| common.name == command.name))
        .collect();
    others.sort_unstable_by_key(|command| command.name);
    let groups: Vec<_> = GROUPS.iter().map(|group| (group.name, group.about)).collect();
    let global: Vec<&Flag> = GLOBAL.iter().collect();
    format!(
        "Usage:  {program} [OPTIONS] COMMAND\n\nBuilds, runs and ships containers\n\n\
         Common Commands:\n{}\nManagement Commands:\n{}\nCommands:\n{}\nGlobal Options:\n{}\n\
         Run '{program} COMMAND --help' for more information on a command.\n",
        rows(COMMON),
        help::table(&groups),
        rows(&others),
        help::options(&global, 80)
    )
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

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

    #[test]
    fn help_has_dockers_layout() {
        expect![[r#"
            Usage:  docker ps [OPTIONS]

            List containers

            Aliases:
              docker container ls, docker container list, docker container ps, docker ps

            Options:
              -a, --all             Show all containers (otherwise only those running)
              -f, --filter filter   Show only what meets these conditions
                  --format string   Format output by a template:
                                    'table':            As a table with column
                                    headers (default)
                                    'table TEMPLATE':   As a table of the given Go
                                    template
                                    'json':             As JSON
                                    'TEMPLATE':         By the given Go template
              -n, --last int        Show the n containers created last (in any state)
                                    (default -1)
              -l, --latest          Show the container created last (in any state)
                  --no-trunc        Do not shorten output
              -q, --quiet           Show only container IDs
              -s, --size            Show total file sizes
        "#]]
        .assert_eq(&help::command("docker", "ps", &ps::PS));
        expect![[r#"
            Usage:  docker volume COMMAND

            Manage volumes

            Commands:
              create      Create a volume
              inspect     Show all there is to know about one or more volumes
              ls          List volumes
              prune       Remove unused local volumes
              rm          Remove one or more volumes. A volume in use cannot be removed.

            Run 'docker volume COMMAND --help' for more information on a command.
        "#]]
        .assert_eq(&help::group(
            "docker",
            GROUPS.iter().find(|group| group.name == "volume").unwrap(),
        ));
    }
}
