//! `context`: named places of daemons, in Docker's own files.
//!
//! ```text
//! CONFIG/contexts/meta/<sha256 of the name>/meta.json
//! {"Name":…,"Metadata":{"Description":…},"Endpoints":{"docker":{"Host":…,"SkipTLSVerify":false}}}
//! ```
//! Which of them is used is `currentContext` in config.json. Source: docker/cli 28.2
//! `cli/command/context`, `cli/context/store`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use spec::Digest;

use super::{FORMAT_USAGE, finish};
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    create::files::reason,
    failure::Failure,
    files,
    render::{
        format::{self, Headers, Listing, Row},
        json,
    },
    terminal,
};

const BASE: Command = Command {
    name: "ls",
    aliases: &["list"],
    spellings: &["context ls", "context list"],
    usage: "[OPTIONS]",
    about: "List contexts",
    flags: &[&[
        flag("format", Text, FORMAT_USAGE),
        flag("quiet", Bool, "Show only context names").s('q'),
    ]],
    arity: Arity::None,
    order: Order::Mixed,
    run: |session, matches| Box::pin(async move { list(session, matches) }),
};
pub static LS: Command = BASE;

pub static SHOW: Command = Command {
    name: "show",
    aliases: &[],
    spellings: &[],
    usage: "",
    about: "Print the name of the current context",
    flags: &[],
    run: |session, _| {
        Box::pin(async move {
            terminal::out(&format!("{}\n", session.context));
            Ok(0)
        })
    },
    ..BASE
};

pub static INSPECT: Command = Command {
    name: "inspect",
    aliases: &[],
    spellings: &[],
    usage: "[CONTEXT] [CONTEXT...]",
    about: "Show all there is to know about one or more contexts",
    flags: &[],
    arity: Arity::AtLeast(0),
    run: |session, matches| Box::pin(async move { inspect(session, matches) }),
    ..BASE
};

pub static CREATE: Command = Command {
    name: "create",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] CONTEXT",
    about: "Create a context",
    flags: &[&[
        flag("description", Text, "Description of the context"),
        flag("docker", List, "Where the daemon is, as host=ADDRESS"),
        flag("from", Text, "Make it of a context that exists"),
    ]],
    arity: Arity::Exactly(1),
    run: |session, matches| Box::pin(async move { create(session, matches) }),
    ..BASE
};

pub static USE: Command = Command {
    name: "use",
    aliases: &[],
    spellings: &[],
    usage: "CONTEXT",
    about: "Set the current context",
    flags: &[],
    arity: Arity::Exactly(1),
    run: |session, matches| Box::pin(async move { choose(session, matches) }),
    ..BASE
};

pub static RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    spellings: &["context rm", "context remove"],
    usage: "CONTEXT [CONTEXT...]",
    about: "Remove one or more contexts",
    flags: &[&[flag("force", Bool, "Remove a context that is in use").s('f')]],
    arity: Arity::AtLeast(1),
    run: |session, matches| Box::pin(async move { remove(session, matches) }),
    ..BASE
};

const DEFAULT: &str = "default";
const DEFAULT_ABOUT: &str = "Current DOCKER_HOST based configuration";

fn directory(session: &Session, kind: &str, name: &str) -> PathBuf {
    let digest = Digest::of(name.as_bytes()).hex();
    session.config.directory.join("contexts").join(kind).join(digest)
}

/// A context's document. The default one is in no file.
fn read(session: &Session, name: &str) -> Result<Value, Failure> {
    if name == DEFAULT {
        let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| api::client::Host::default().to_string());
        return Ok(document(DEFAULT, "", &host));
    }
    let path = directory(session, "meta", name).join("meta.json");
    let text = fs::read(&path).map_err(|error| {
        Failure::new(format!(
            "context {name:?}: context not found: open {}: {}",
            path.display(),
            reason(&error)
        ))
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn document(name: &str, about: &str, host: &str) -> Value {
    let metadata = if about.is_empty() { json!({}) } else { json!({"Description": about}) };
    json!({
        "Name": name,
        "Metadata": metadata,
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": false}},
    })
}

fn host(context: &Value) -> &str {
    context["Endpoints"]["docker"]["Host"].as_str().unwrap_or_default()
}

/// All contexts by name, the default one too.
fn all(session: &Session) -> Result<BTreeMap<String, Value>, Failure> {
    let mut found = BTreeMap::from([(DEFAULT.to_owned(), read(session, DEFAULT)?)]);
    let entries = fs::read_dir(session.config.directory.join("contexts/meta"));
    for entry in entries.into_iter().flatten().flatten() {
        let Ok(text) = fs::read(entry.path().join("meta.json")) else { continue };
        let context: Value = serde_json::from_slice(&text).unwrap_or_default();
        if let Some(name) = context["Name"].as_str() {
            found.insert(name.to_owned(), context);
        }
    }
    Ok(found)
}

fn list(session: &Session, matches: &Matches) -> Outcome {
    const HEADERS: Headers = &[
        ("Current", "CURRENT"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
        ("Name", "NAME"),
    ];
    const TABLE: &str = "table {{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
    let asked = matches.text("format");
    let is_quiet = matches.on("quiet");
    let template = if is_quiet { "{{.Name}}" } else { format::resolve(asked, TABLE) };
    let mut rows = Vec::new();
    for (name, context) in all(session)? {
        let is_current = name == session.context;
        let about = match name.as_str() {
            DEFAULT => DEFAULT_ABOUT,
            _ => context["Metadata"]["Description"].as_str().unwrap_or_default(),
        };
        if template == "{{json .}}" {
            let row = json!({
                "Current": is_current,
                "Description": about,
                "DockerEndpoint": host(&context),
                "Error": "",
                "Name": name,
            });
            terminal::out(&format!("{}\n", json::escaped(&row)));
            continue;
        }
        let marked = is_current && !is_quiet && template.starts_with("table");
        rows.push(Row {
            fields: vec![
                ("Current", is_current.to_string()),
                ("Description", about.to_owned()),
                ("DockerEndpoint", host(&context).to_owned()),
                ("Error", String::new()),
                ("Name", if marked { format!("{name} *") } else { name }),
            ],
            labels: BTreeMap::new(),
        });
    }
    format::print(Listing::Of("*formatter.clientContextContext"), template, HEADERS, &rows)?;
    warn_of_host(session, &session.context);
    Ok(0)
}

/// Tells that the environment goes before the context that was chosen.
fn warn_of_host(session: &Session, name: &str) {
    let chosen = session.config.current_context.as_deref().unwrap_or(name);
    if chosen != DEFAULT && std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) {
        terminal::error_text(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use \
             {chosen:?}, either set the global --context flag, or unset DOCKER_HOST environment variable.\n"
        ));
    }
}

fn inspect(session: &Session, matches: &Matches) -> Outcome {
    let current = [session.context.clone()];
    let names = if matches.args.is_empty() { &current[..] } else { &matches.args[..] };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        let place = |kind| match name.as_str() {
            DEFAULT => "<IN MEMORY>".to_owned(),
            name => directory(session, kind, name).display().to_string(),
        };
        match read(session, name) {
            Ok(mut context) => {
                context["TLSMaterial"] = json!({});
                context["Storage"] =
                    json!({"MetadataPath": place("meta"), "TLSPath": place("tls")});
                found.push(context);
            }
            Err(failure) => errors.push(failure.to_string()),
        }
    }
    let text = json::compact(&Value::Array(found).to_string());
    terminal::out(&format!("{}\n", json::indented_by("    ", &text)));
    finish(errors)
}

fn check_name(name: &str) -> Result<(), Failure> {
    if name == DEFAULT {
        return Err(Failure::new("\"default\" is a reserved context name"));
    }
    let is_first = name.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_.+-".contains(letter);
    if name.len() < 2 || !is_first || !name.chars().all(fits) {
        return Err(Failure::new(format!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        )));
    }
    Ok(())
}

fn create(session: &Session, matches: &Matches) -> Outcome {
    let Some(name) = matches.args.first() else { return Ok(0) };
    check_name(name)?;
    if read(session, name).is_ok() {
        return Err(Failure::new(format!("context {name:?} already exists")));
    }
    let from = matches.find("from").unwrap_or(&session.context);
    let mut place = host(&read(session, from)?).to_owned();
    for pair in matches.all("docker").iter().flat_map(|value| value.split(',')) {
        match pair.split_once('=') {
            Some(("host", address)) => {
                let parsed: Result<api::client::Host, _> = address.parse();
                parsed.map_err(|error| {
                    Failure::new(format!("unable to create docker endpoint config: {error}"))
                })?;
                place = address.to_owned();
            }
            Some((other, _)) => {
                return Err(Failure::new(format!(
                    "unable to create docker endpoint config: unrecognized config key: {other}"
                )));
            }
            None => return Err(Failure::new(format!("{pair} must be formatted as key=value"))),
        }
    }
    let directory = directory(session, "meta", name);
    let path = directory.join("meta.json");
    let text = json::compact(&document(name, matches.text("description"), &place).to_string());
    fs::create_dir_all(&directory)
        .and_then(|()| files::replace(&path, text.as_bytes(), 0o644))
        .map_err(|error| Failure::new(format!("open {}: {}", path.display(), reason(&error))))?;
    terminal::out(&format!("{name}\n"));
    terminal::error_text(&format!("Successfully created context {name:?}\n"));
    Ok(0)
}

fn choose(session: &Session, matches: &Matches) -> Outcome {
    let Some(name) = matches.args.first() else { return Ok(0) };
    read(session, name)?;
    session.config.change(|root| {
        if name == DEFAULT {
            root.remove("currentContext");
        } else {
            root.insert("currentContext".to_owned(), name.as_str().into());
        }
    })?;
    terminal::out(&format!("{name}\n"));
    terminal::error_text(&format!("Current context is now {name:?}\n"));
    Ok(0)
}

fn remove(session: &Session, matches: &Matches) -> Outcome {
    let mut errors = Vec::new();
    for name in &matches.args {
        match remove_one(session, name, matches) {
            Ok(()) => terminal::out(&format!("{name}\n")),
            Err(failure) => errors.push(failure.to_string()),
        }
    }
    finish(errors)
}

fn remove_one(session: &Session, name: &str, matches: &Matches) -> Result<(), Failure> {
    if name == DEFAULT {
        return Err(Failure::new("context \"default\" cannot be removed"));
    }
    let directory = directory(session, "meta", name);
    if !directory.exists() {
        return Err(Failure::new(format!("context {name:?} does not exist")));
    }
    if session.config.current_context.as_deref() == Some(name) {
        if !matches.on("force") {
            return Err(Failure::new(format!(
                "context {name:?} is in use, set -f flag to force remove"
            )));
        }
        session.config.change(|root| drop(root.remove("currentContext")))?;
    }
    fs::remove_dir_all(&directory)
        .map_err(|error| Failure::new(format!("{}: {}", directory.display(), reason(&error))))
}
