//! What Docker has and Tug has not: swarm mode, managed plugins, content trust.
//!
//! The commands are there, so that who types one reads why it does not work. Where Docker's client
//! asks the daemon, so does this one, and shows the daemon's own words ("This node is not a swarm
//! manager…"); none of them has an effect, and so none of them reads its options.

use api::client::{Client, Request, segment};
use serde_json::Value as Json;

use super::FORMAT_USAGE;
use crate::{
    args::{Arity, Command, Group, Kind::*, Matches, Order, Outcome, Section, flag, group},
    context::Session,
    failure::{Failure, daemon_words},
    gotemplate::value::Value,
    render::{
        format::{self, Headers, Listing, Row},
        units,
    },
    terminal,
};

const fn swarm(name: &'static str, about: &'static str, commands: &'static [&Command]) -> Group {
    Group { section: Section::Hidden, ..group(name, about, commands) }
}

pub const CONFIG: Group = swarm("config", "Manage configs", CONFIG_COMMANDS);
pub const NODE: Group = swarm("node", "Manage nodes", NODE_COMMANDS);
pub const SECRET: Group = swarm("secret", "Manage secrets", SECRET_COMMANDS);
pub const SERVICE: Group = swarm("service", "Manage services", SERVICE_COMMANDS);
pub const STACK: Group = swarm("stack", "Manage stacks", STACK_COMMANDS);
pub const SWARM: Group = Group {
    section: Section::Swarm,
    // As Docker on a node that is in no swarm.
    hidden: &["ca", "join-token", "leave", "unlock", "unlock-key", "update"],
    ..group("swarm", "Manage Swarm", SWARM_COMMANDS)
};
pub const PLUGIN: Group = group("plugin", "Manage the plugins of the engine", PLUGIN_COMMANDS);
pub const TRUST: Group = Group {
    groups: &[
        group("key", "Manage keys that sign images", TRUST_KEY_COMMANDS),
        group("signer", "Manage who may sign images", TRUST_SIGNER_COMMANDS),
    ],
    ..group("trust", "Manage signatures of images", TRUST_COMMANDS)
};

/// How Docker's client comes by its refusal.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Get(&'static str),
    Post(&'static str),
    /// As `Get`, below the empty list that `inspect` prints.
    Listed(&'static str),
    /// Each service's name goes before the words.
    Scale,
    UnlockKey,
    /// What is done to the plugin named first; nothing is its removal.
    Plugin(&'static str),
    PluginInspect,
    PluginUpgrade,
    Trust,
}

macro_rules! absent {
    ($id:ident, $name:literal, $usage:literal, $about:literal, $arity:ident $(($n:literal))?, $ask:expr) => {
        static $id: Command = Command {
            name: $name,
            aliases: aliases($name),
            spellings: &[],
            usage: $usage,
            about: $about,
            flags: &[],
            arity: Arity::$arity $(($n))?,
            order: Order::Verbatim,
            run: |session, matches| Box::pin(refuse(session, matches, $ask)),
        };
    };
}

const fn aliases(name: &str) -> &'static [&'static str] {
    match name.as_bytes() {
        b"ls" => &["list"],
        b"rm" => &["remove"],
        _ => &[],
    }
}

/// The daemon's refusal, or our own where no daemon would be asked.
async fn refuse(session: &Session, matches: &Matches, ask: Ask) -> Outcome {
    if let Ask::Trust = ask {
        return Err(Failure::new(
            "Tug neither signs images nor checks signatures (Docker Content Trust)",
        ));
    }
    let client = session.client().await?;
    let first =
        matches.args.iter().find(|word| !word.starts_with('-')).cloned().unwrap_or_default();
    if matches!(ask, Ask::Listed(_) | Ask::PluginInspect) {
        terminal::out("[]\n");
    }
    let prefix = match ask {
        Ask::Scale => format!("{}: ", first.split('=').next().unwrap_or_default()),
        Ask::UnlockKey => "could not fetch unlock key: ".to_owned(),
        Ask::PluginUpgrade => "error reading plugin data: ".to_owned(),
        _ => String::new(),
    };
    match request(client, ask, &first).send().await {
        Err(error) => Err(Failure::new(format!("{prefix}{}", daemon_words(&error)))),
        // Another engine may well do it, but not by this client.
        Ok(_) => Err(Failure::new(format!("{} is not in Tug's client", matches.path))),
    }
}

fn request<'c>(client: &'c Client, ask: Ask, name: &str) -> Request<'c> {
    let none = Json::Object(serde_json::Map::new());
    match ask {
        Ask::Get(path) | Ask::Listed(path) => client.get(path),
        Ask::Post(path) => client.post(path).json(&none),
        Ask::Scale | Ask::Trust => client.get("/services"),
        Ask::UnlockKey => client.get("/swarm/unlockkey"),
        Ask::PluginInspect | Ask::PluginUpgrade => {
            client.get(&format!("/plugins/{}/json", segment(name)))
        }
        Ask::Plugin("") => client.delete(&format!("/plugins/{}", segment(name))),
        Ask::Plugin("set") => {
            client.post(&format!("/plugins/{}/set", segment(name))).json(&Json::Array(Vec::new()))
        }
        Ask::Plugin(verb) => client.post(&format!("/plugins/{}/{verb}", segment(name))).json(&none),
    }
}

static PLUGIN_LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    spellings: &["plugin ls", "plugin list"],
    usage: "[OPTIONS]",
    about: "List plugins",
    flags: &[&[
        flag("filter", Filter, "Show only what meets these conditions (e.g. \"enabled=true\")")
            .s('f'),
        flag("format", Text, FORMAT_USAGE),
        flag("no-trunc", Bool, "Do not shorten output"),
        flag("quiet", Bool, "Show only IDs").s('q'),
    ]],
    arity: Arity::None,
    order: Order::Mixed,
    run: |session, matches| Box::pin(list_plugins(session, matches)),
};

async fn list_plugins(session: &Session, matches: &Matches) -> Outcome {
    const HEADERS: Headers = &[
        ("Description", "DESCRIPTION"),
        ("Enabled", "ENABLED"),
        ("ID", "ID"),
        ("Name", "NAME"),
        ("PluginReference", "IMAGE"),
    ];
    const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.Description}}\t{{.Enabled}}";
    let mut request = session.client().await?.get("/plugins");
    if let Some(filters) = super::filters(matches) {
        request = request.query("filters", filters);
    }
    let plugins: Vec<Json> = request.send().await?.json().await?;
    let full = matches.on("no-trunc");
    let rows: Vec<Row> = plugins
        .iter()
        .map(|plugin| {
            let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
            let id = text(&plugin["Id"]);
            let about = text(&plugin["Config"]["Description"]).replace('\n', " ");
            Row {
                fields: vec![
                    ("Description", if full { about } else { units::ellipsis(&about, 45) }),
                    ("ID", if full { id } else { units::short_id(&id).to_owned() }),
                    ("Name", text(&plugin["Name"])),
                    ("PluginReference", text(&plugin["PluginReference"])),
                ],
                others: vec![(
                    "Enabled",
                    Value::Bool(plugin["Enabled"].as_bool().unwrap_or_default()),
                )],
                ..Row::default()
            }
        })
        .collect();
    let asked = match matches.find("format") {
        Some(format) => format,
        None if matches.on("quiet") => "",
        None => session.config.format("pluginsFormat").unwrap_or_default(),
    };
    let quiet = matches.on("quiet") && matches!(asked, "" | "table");
    let template = if quiet {
        "{{.ID}}"
    } else {
        format::resolve(
            asked,
            TABLE,
            "plugin_id: {{.ID}}\nname: {{.Name}}\ndescription: {{.Description}}\nenabled: {{.Enabled}}\n",
        )
    };
    format::print(Listing::Of("*plugin.pluginContext"), template, HEADERS, &rows)?;
    Ok(0)
}

// Source of usages and descriptions: docker CLI 28.2's own help.
absent!(
    CONFIG_CREATE,
    "create",
    "[OPTIONS] CONFIG file|-",
    "Make a config of a file or of STDIN",
    Exactly(2),
    Ask::Get("/configs")
);
absent!(
    CONFIG_INSPECT,
    "inspect",
    "[OPTIONS] CONFIG [CONFIG...]",
    "Show all there is to know about configs",
    AtLeast(1),
    Ask::Listed("/configs")
);
absent!(CONFIG_LS, "ls", "[OPTIONS]", "List configs", None, Ask::Get("/configs"));
absent!(CONFIG_RM, "rm", "CONFIG [CONFIG...]", "Remove configs", AtLeast(1), Ask::Get("/configs"));
const CONFIG_COMMANDS: &[&Command] = &[&CONFIG_CREATE, &CONFIG_INSPECT, &CONFIG_LS, &CONFIG_RM];
absent!(
    NODE_DEMOTE,
    "demote",
    "NODE [NODE...]",
    "Make workers of managers",
    AtLeast(1),
    Ask::Get("/nodes")
);
absent!(
    NODE_INSPECT,
    "inspect",
    "[OPTIONS] self|NODE [NODE...]",
    "Show all there is to know about nodes",
    AtLeast(1),
    Ask::Listed("/nodes")
);
absent!(NODE_LS, "ls", "[OPTIONS]", "List the swarm's nodes", None, Ask::Get("/nodes"));
absent!(
    NODE_PROMOTE,
    "promote",
    "NODE [NODE...]",
    "Make managers of workers",
    AtLeast(1),
    Ask::Get("/nodes")
);
absent!(
    NODE_PS,
    "ps",
    "[OPTIONS] [NODE...]",
    "List the tasks of nodes; without names, of this one",
    AtLeast(0),
    Ask::Get("/nodes")
);
absent!(
    NODE_RM,
    "rm",
    "[OPTIONS] NODE [NODE...]",
    "Remove nodes from the swarm",
    AtLeast(1),
    Ask::Get("/nodes")
);
absent!(
    NODE_UPDATE,
    "update",
    "[OPTIONS] NODE",
    "Change a node's settings",
    Exactly(1),
    Ask::Get("/nodes")
);
const NODE_COMMANDS: &[&Command] =
    &[&NODE_DEMOTE, &NODE_INSPECT, &NODE_LS, &NODE_PROMOTE, &NODE_PS, &NODE_RM, &NODE_UPDATE];
absent!(
    SECRET_CREATE,
    "create",
    "[OPTIONS] SECRET [file|-]",
    "Make a secret of a file or of STDIN",
    AtLeast(1),
    Ask::Get("/secrets")
);
absent!(
    SECRET_INSPECT,
    "inspect",
    "[OPTIONS] SECRET [SECRET...]",
    "Show all there is to know about secrets",
    AtLeast(1),
    Ask::Listed("/secrets")
);
absent!(SECRET_LS, "ls", "[OPTIONS]", "List secrets", None, Ask::Get("/secrets"));
absent!(SECRET_RM, "rm", "SECRET [SECRET...]", "Remove secrets", AtLeast(1), Ask::Get("/secrets"));
const SECRET_COMMANDS: &[&Command] = &[&SECRET_CREATE, &SECRET_INSPECT, &SECRET_LS, &SECRET_RM];
absent!(
    SERVICE_CREATE,
    "create",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Make a service",
    AtLeast(1),
    Ask::Get("/services")
);
absent!(
    SERVICE_INSPECT,
    "inspect",
    "[OPTIONS] SERVICE [SERVICE...]",
    "Show all there is to know about services",
    AtLeast(1),
    Ask::Listed("/services")
);
absent!(
    SERVICE_LOGS,
    "logs",
    "[OPTIONS] SERVICE|TASK",
    "Show what a service or a task has logged",
    Exactly(1),
    Ask::Get("/services")
);
absent!(SERVICE_LS, "ls", "[OPTIONS]", "List the services", None, Ask::Get("/services"));
absent!(
    SERVICE_PS,
    "ps",
    "[OPTIONS] SERVICE [SERVICE...]",
    "List services' tasks",
    AtLeast(1),
    Ask::Get("/services")
);
absent!(
    SERVICE_RM,
    "rm",
    "SERVICE [SERVICE...]",
    "Remove services",
    AtLeast(1),
    Ask::Get("/services")
);
absent!(
    SERVICE_ROLLBACK,
    "rollback",
    "[OPTIONS] SERVICE",
    "Take the latest update of a service back",
    Exactly(1),
    Ask::Get("/services")
);
absent!(
    SERVICE_SCALE,
    "scale",
    "SERVICE=REPLICAS [SERVICE=REPLICAS...]",
    "Say how many replicas services have",
    AtLeast(1),
    Ask::Scale
);
absent!(
    SERVICE_UPDATE,
    "update",
    "[OPTIONS] SERVICE",
    "Change a service's settings",
    Exactly(1),
    Ask::Get("/services")
);
const SERVICE_COMMANDS: &[&Command] = &[
    &SERVICE_CREATE,
    &SERVICE_INSPECT,
    &SERVICE_LOGS,
    &SERVICE_LS,
    &SERVICE_PS,
    &SERVICE_RM,
    &SERVICE_ROLLBACK,
    &SERVICE_SCALE,
    &SERVICE_UPDATE,
];
absent!(
    STACK_CONFIG,
    "config",
    "[OPTIONS]",
    "Show the file as it is read, merged and with its variables",
    None,
    Ask::Get("/services")
);
absent!(
    STACK_DEPLOY,
    "deploy",
    "[OPTIONS] STACK",
    "Make a stack, or bring one up to its file",
    Exactly(1),
    Ask::Get("/services")
);
absent!(STACK_LS, "ls", "[OPTIONS]", "List stacks", None, Ask::Get("/services"));
absent!(
    STACK_PS,
    "ps",
    "[OPTIONS] STACK",
    "List a stack's tasks",
    Exactly(1),
    Ask::Get("/services")
);
absent!(
    STACK_RM,
    "rm",
    "[OPTIONS] STACK [STACK...]",
    "Remove stacks",
    AtLeast(1),
    Ask::Get("/services")
);
absent!(
    STACK_SERVICES,
    "services",
    "[OPTIONS] STACK",
    "List a stack's services",
    Exactly(1),
    Ask::Get("/services")
);
const STACK_COMMANDS: &[&Command] =
    &[&STACK_CONFIG, &STACK_DEPLOY, &STACK_LS, &STACK_PS, &STACK_RM, &STACK_SERVICES];
absent!(SWARM_CA, "ca", "[OPTIONS]", "Show or replace the root CA", None, Ask::Get("/swarm"));
absent!(SWARM_INIT, "init", "[OPTIONS]", "Make a swarm", None, Ask::Post("/swarm/init"));
absent!(
    SWARM_JOIN,
    "join",
    "[OPTIONS] HOST:PORT",
    "Become a node of a swarm",
    Exactly(1),
    Ask::Post("/swarm/join")
);
absent!(
    SWARM_JOIN_TOKEN,
    "join-token",
    "[OPTIONS] (worker|manager)",
    "Show or replace the tokens for joining",
    Exactly(1),
    Ask::Get("/swarm")
);
absent!(SWARM_LEAVE, "leave", "[OPTIONS]", "Go out of the swarm", None, Ask::Post("/swarm/leave"));
absent!(SWARM_UNLOCK, "unlock", "", "Unlock swarm", None, Ask::Post("/swarm/unlock"));
absent!(
    SWARM_UNLOCK_KEY,
    "unlock-key",
    "[OPTIONS]",
    "Show or replace the unlock key",
    None,
    Ask::UnlockKey
);
absent!(
    SWARM_UPDATE,
    "update",
    "[OPTIONS]",
    "Change the swarm's settings",
    None,
    Ask::Get("/swarm")
);
const SWARM_COMMANDS: &[&Command] = &[
    &SWARM_CA,
    &SWARM_INIT,
    &SWARM_JOIN,
    &SWARM_JOIN_TOKEN,
    &SWARM_LEAVE,
    &SWARM_UNLOCK,
    &SWARM_UNLOCK_KEY,
    &SWARM_UPDATE,
];
absent!(
    PLUGIN_CREATE,
    "create",
    "[OPTIONS] PLUGIN PLUGIN-DATA-DIR",
    "Make a plugin of a directory with config.json and rootfs",
    Exactly(2),
    Ask::Post("/plugins/create")
);
absent!(
    PLUGIN_DISABLE,
    "disable",
    "[OPTIONS] PLUGIN",
    "Turn a plugin off",
    Exactly(1),
    Ask::Plugin("disable")
);
absent!(
    PLUGIN_ENABLE,
    "enable",
    "[OPTIONS] PLUGIN",
    "Turn a plugin on",
    Exactly(1),
    Ask::Plugin("enable")
);
absent!(
    PLUGIN_INSPECT,
    "inspect",
    "[OPTIONS] PLUGIN [PLUGIN...]",
    "Show all there is to know about plugins",
    AtLeast(1),
    Ask::PluginInspect
);
absent!(
    PLUGIN_INSTALL,
    "install",
    "[OPTIONS] PLUGIN [KEY=VALUE...]",
    "Pull a plugin and turn it on",
    AtLeast(1),
    Ask::Get("/plugins/privileges")
);
absent!(
    PLUGIN_PUSH,
    "push",
    "[OPTIONS] PLUGIN[:TAG]",
    "Send a plugin to a registry",
    Exactly(1),
    Ask::Plugin("push")
);
absent!(
    PLUGIN_RM,
    "rm",
    "[OPTIONS] PLUGIN [PLUGIN...]",
    "Remove plugins",
    AtLeast(1),
    Ask::Plugin("")
);
absent!(
    PLUGIN_SET,
    "set",
    "PLUGIN KEY=VALUE [KEY=VALUE...]",
    "Change a plugin's settings",
    AtLeast(2),
    Ask::Plugin("set")
);
absent!(
    PLUGIN_UPGRADE,
    "upgrade",
    "[OPTIONS] PLUGIN [REMOTE]",
    "Replace a plugin by a newer one",
    AtLeast(1),
    Ask::PluginUpgrade
);
const PLUGIN_COMMANDS: &[&Command] = &[
    &PLUGIN_CREATE,
    &PLUGIN_DISABLE,
    &PLUGIN_ENABLE,
    &PLUGIN_INSPECT,
    &PLUGIN_INSTALL,
    &PLUGIN_LS,
    &PLUGIN_PUSH,
    &PLUGIN_RM,
    &PLUGIN_SET,
    &PLUGIN_UPGRADE,
];
absent!(
    TRUST_KEY_GENERATE,
    "generate",
    "NAME",
    "Make a key pair for signing",
    Exactly(1),
    Ask::Trust
);
absent!(
    TRUST_KEY_LOAD,
    "load",
    "[OPTIONS] KEYFILE",
    "Take a private key for signing",
    Exactly(1),
    Ask::Trust
);
const TRUST_KEY_COMMANDS: &[&Command] = &[&TRUST_KEY_GENERATE, &TRUST_KEY_LOAD];
absent!(
    TRUST_SIGNER_ADD,
    "add",
    "OPTIONS NAME REPOSITORY [REPOSITORY...]",
    "Add a signer",
    AtLeast(2),
    Ask::Trust
);
absent!(
    TRUST_SIGNER_REMOVE,
    "remove",
    "[OPTIONS] NAME REPOSITORY [REPOSITORY...]",
    "Take a signer away",
    AtLeast(2),
    Ask::Trust
);
const TRUST_SIGNER_COMMANDS: &[&Command] = &[&TRUST_SIGNER_ADD, &TRUST_SIGNER_REMOVE];
absent!(
    TRUST_INSPECT,
    "inspect",
    "IMAGE[:TAG] [IMAGE[:TAG]...]",
    "Show keys and signatures in full",
    AtLeast(1),
    Ask::Trust
);
absent!(
    TRUST_REVOKE,
    "revoke",
    "[OPTIONS] IMAGE[:TAG]",
    "Take an image's signature back",
    Exactly(1),
    Ask::Trust
);
absent!(TRUST_SIGN, "sign", "IMAGE:TAG", "Put a signature to an image", Exactly(1), Ask::Trust);
const TRUST_COMMANDS: &[&Command] = &[&TRUST_INSPECT, &TRUST_REVOKE, &TRUST_SIGN];
