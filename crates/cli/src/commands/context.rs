//! `context`: named places of daemons.
//!
//! Which of them is used is `currentContext` in config.json; the rest is [`crate::contexts`]'s.
//! Source: docker CLI 28.2 `cli/command/context`.

use std::{collections::BTreeMap, io::Write as _, os::unix::fs::OpenOptionsExt as _};

use serde_json::{Value, json};

use super::{FORMAT_USAGE, OBJECT_FORMAT_USAGE, finish, inspect::Shown};
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag, go},
    context::Session,
    contexts::{self, Context, DEFAULT, Store},
    create::files::reason,
    failure::Failure,
    gotemplate::value::Value as GoValue,
    render::{
        format::{self, Headers, Listing, Row},
        json,
        template::typed,
        units::ellipsis,
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
    usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    about: "Show all there is to know about one or more contexts",
    flags: &[&[flag("format", Text, OBJECT_FORMAT_USAGE).s('f')]],
    arity: Arity::AtLeast(0),
    run: |session, matches| Box::pin(async move { inspect(session, matches) }),
    ..BASE
};

const DOCKER: Flag = flag("docker", Pairs, "Where the daemon is, as host=ADDRESS").or("[]");
const DESCRIPTION: Flag = flag("description", Text, "Description of the context");

/// What `--docker` takes, as Docker's help shows it behind `about`, with an example of `verb`.
macro_rules! long {
    ($about:literal, $verb:literal) => {
        concat!(
            $about,
            "\n\nDocker endpoint config:\n\n",
            "NAME                DESCRIPTION\n",
            "from                Take over what another context has\n",
            "host                Where the daemon is\n",
            "ca                  Trust only certificates signed by this CA\n",
            "cert                Path of the TLS certificate\n",
            "key                 Path of the TLS key\n",
            "skip-tls-verify     Take the daemon's certificate unseen\n\n",
            "Example:\n\n$ {program} context ",
            $verb,
            " build-host --docker \"host=tcp://10.0.0.7:2376,ca=ca.pem,cert=cert.pem,key=key.pem\""
        )
    };
}

pub static EXPORT: Command = Command {
    name: "export",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] CONTEXT [FILE|-]",
    about: "Write a context to an archive FILE, or to STDOUT",
    flags: &[],
    arity: Arity::Between(1, 2),
    run: |session, matches| Box::pin(async move { export(session, matches) }),
    ..BASE
};

pub static IMPORT: Command = Command {
    name: "import",
    aliases: &[],
    spellings: &[],
    usage: "CONTEXT FILE|-",
    about: "Make a context of an archive",
    flags: &[],
    arity: Arity::Exactly(2),
    run: |session, matches| Box::pin(async move { import(session, matches) }),
    ..BASE
};

pub static UPDATE: Command = Command {
    name: "update",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] CONTEXT",
    about: long!("Change a context's settings", "update"),
    flags: &[&[DESCRIPTION, DOCKER]],
    arity: Arity::Exactly(1),
    run: |session, matches| Box::pin(async move { update(session, matches) }),
    ..BASE
};

pub static CREATE: Command = Command {
    name: "create",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] CONTEXT",
    about: long!("Create a context", "create"),
    flags: &[&[DESCRIPTION, DOCKER, flag("from", Text, "Make it of a context that exists")]],
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
    arity: Arity::Counted(1),
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

const DEFAULT_ABOUT: &str = "Current DOCKER_HOST based configuration";

fn store(session: &Session) -> Store {
    Store::new(&session.config.directory)
}

/// The names of all contexts.
pub fn names(session: &Session) -> Vec<String> {
    store(session).all().map(|contexts| contexts.into_keys().collect()).unwrap_or_default()
}

fn list(session: &Session, matches: &Matches) -> Outcome {
    const HEADERS: Headers = &[
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
        ("Name", "NAME"),
    ];
    const TABLE: &str = "table {{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
    let asked = matches.text("format");
    let is_quiet = matches.on("quiet");
    let template = if is_quiet { "{{.Name}}" } else { format::resolve(asked, TABLE, "") };
    let mut rows = Vec::new();
    let mut contexts: Vec<(String, Result<Context, Failure>)> =
        store(session).all()?.into_iter().map(|(name, context)| (name, Ok(context))).collect();
    if contexts.iter().all(|(name, _)| *name != session.context) {
        contexts.push((session.context.clone(), store(session).read(&session.context)));
        contexts.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    for (name, context) in contexts {
        let is_current = name == session.context;
        let (about, host, error) = match &context {
            Ok(context) if name == DEFAULT => (DEFAULT_ABOUT, context.host(), String::new()),
            Ok(context) => (context.description(), context.host(), String::new()),
            Err(failure) => ("", "", failure.to_string()),
        };
        let marked = is_current && template == TABLE;
        let (about, error) = if template.starts_with("table") {
            (ellipsis(about, 80), ellipsis(&error, 45))
        } else {
            (about.to_owned(), error)
        };
        rows.push(Row {
            fields: vec![
                ("Description", about),
                ("DockerEndpoint", host.to_owned()),
                ("Error", error),
                ("Name", if marked { format!("{name} *") } else { name }),
            ],
            others: vec![("Current", GoValue::Bool(is_current))],
            ..Row::default()
        });
    }
    format::print(Listing::Of("*formatter.clientContextContext"), template, HEADERS, &rows)?;
    if host_is_told() {
        terminal::error_text(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a \
             context, either set the global --context flag, or unset DOCKER_HOST environment variable.\n",
        );
    }
    Ok(0)
}

/// Whether the environment goes before whatever context is chosen.
fn host_is_told() -> bool {
    std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty())
}

fn inspect(session: &Session, matches: &Matches) -> Outcome {
    let shown = super::inspect::shown(matches)?;
    let current = [session.context.clone()];
    let names = if matches.args.is_empty() { &current[..] } else { &matches.args[..] };
    let (mut found, mut text, mut errors) = (Vec::new(), String::new(), Vec::new());
    for name in names {
        let document = match store(session).read(name) {
            Ok(context) => document(session, name, context),
            Err(failure) => {
                errors.push(failure.to_string());
                continue;
            }
        };
        match &shown {
            None | Some(Shown::Json) => found.push(document),
            Some(Shown::Template(format)) => {
                match format.run(&typed("context.contextWithTLSListing", &document)) {
                    Ok(line) => text.push_str(&format!("{line}\n")),
                    Err(why) => errors.push(format!("template parsing error: {why}")),
                }
            }
        }
    }
    let found = json::compact(&Value::Array(found).to_string());
    terminal::out(&match shown {
        None => format!("{}\n", json::indented_by("    ", &found)),
        Some(Shown::Json) => format!("{found}\n"),
        // A line for nothing keeps output in step with input.
        Some(Shown::Template(_)) if text.is_empty() => "\n".to_owned(),
        Some(Shown::Template(_)) => text,
    });
    finish(errors)
}

/// A context with where it is kept.
fn document(session: &Session, name: &str, context: Context) -> Value {
    let place = |kind| match name {
        DEFAULT => "<IN MEMORY>".to_owned(),
        name => store(session).place(kind, name).display().to_string(),
    };
    let files: Vec<&String> = context.material.keys().collect();
    let mut document = context.document;
    document["TLSMaterial"] = if files.is_empty() { json!({}) } else { json!({ "docker": files }) };
    document["Storage"] = json!({"MetadataPath": place("meta"), "TLSPath": place("tls")});
    document
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

/// Checks that a context may be made under this name.
fn check_new(session: &Session, name: &str) -> Result<(), Failure> {
    check_name(name)?;
    if store(session).exists(name) {
        return Err(Failure::new(format!("context {name:?} already exists")));
    }
    Ok(())
}

fn create(session: &Session, matches: &Matches) -> Outcome {
    let Some(name) = matches.args.first() else { return Ok(0) };
    check_new(session, name)?;
    let from = matches.find("from").filter(|from| !from.is_empty());
    let context = match (from, matches.given("docker")) {
        (Some(_), true) => {
            return Err(Failure::new("cannot use --docker flag when --from is set"));
        }
        (None, true) => {
            let mut context = endpoint(session, matches)?;
            context.document["Name"] = name.as_str().into();
            let about = matches.text("description");
            let made = Context::new(name, about, context.host(), false);
            context.document["Metadata"] = made.document["Metadata"].clone();
            context
        }
        (from, false) => {
            let mut context = store(session).read(from.unwrap_or(&session.context))?;
            context.document["Name"] = name.as_str().into();
            if !matches.text("description").is_empty() {
                context.describe(matches.text("description"));
            }
            context
        }
    };
    store(session).write(name, &context)?;
    terminal::out(&format!("{name}\n"));
    terminal::error_text(&format!("Successfully created context {name:?}\n"));
    Ok(0)
}

/// A context that has the place of the daemon that `--docker` describes, and no more.
fn endpoint(session: &Session, matches: &Matches) -> Result<Context, Failure> {
    let told =
        |why: String| Failure::new(format!("unable to create docker endpoint config: {why}"));
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for pair in matches.all("docker").iter().flat_map(|value| value.split(',')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        given.insert(key, value);
    }
    let unknown: Vec<String> = given
        .keys()
        .filter(|key| !["from", "host", "ca", "cert", "key", "skip-tls-verify"].contains(key))
        .map(|key| format!("unrecognized config key: {key}"))
        .collect();
    if !unknown.is_empty() {
        return Err(told(unknown.join("\n")));
    }
    if let Some(from) = given.get("from") {
        let mut context = Context::new("", "", "", false);
        let source = store(session).read(from).map_err(|failure| told(failure.to_string()))?;
        context.set_endpoint(&source);
        return Ok(context);
    }
    let skip = match given.get("skip-tls-verify") {
        None => false,
        Some(text) => go::parse_bool(text).map_err(|_| {
            told(format!("skip-tls-verify: parsing {}: invalid syntax", go::quote(text)))
        })?,
    };
    let host = given.get("host").copied().unwrap_or_default();
    if !host.is_empty() {
        let parsed: Result<api::client::Host, _> = host.parse();
        parsed
            .map_err(|error| told(format!("unable to apply docker endpoint options: {error}")))?;
    }
    let mut context = Context::new("", "", host, skip);
    for (key, file) in [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")] {
        if let Some(path) = given.get(key).filter(|path| !path.is_empty()) {
            let content = std::fs::read(path)
                .map_err(|error| told(format!("open {path}: {}", reason(&error))))?;
            context.material.insert(file.to_owned(), content);
        }
    }
    Ok(context)
}

fn update(session: &Session, matches: &Matches) -> Outcome {
    let Some(name) = matches.args.first() else { return Ok(0) };
    check_name(name)?;
    let mut context = store(session).read(name)?;
    if !matches.text("description").is_empty() {
        context.describe(matches.text("description"));
    }
    if matches.given("docker") {
        context.set_endpoint(&endpoint(session, matches)?);
    }
    store(session).write(name, &context)?;
    terminal::out(&format!("{name}\n"));
    terminal::error_text(&format!("Successfully updated context {name:?}\n"));
    Ok(0)
}

fn export(session: &Session, matches: &Matches) -> Outcome {
    let [name, rest @ ..] = &matches.args[..] else { return Ok(0) };
    if name != DEFAULT {
        check_name(name)?;
    }
    let archive = contexts::pack(&store(session).read(name)?);
    let path = rest.first().cloned().unwrap_or_else(|| format!("{name}.dockercontext"));
    if path == "-" {
        if terminal::stdout_is_terminal() {
            return Err(Failure::new(
                "cowardly refusing to export to a terminal, specify a file path",
            ));
        }
        terminal::write(terminal::Output::Stdout, &archive)?;
        return Ok(0);
    }
    let failed = |verb: &str, error: &std::io::Error| {
        Failure::new(format!("{verb} {path}: {}", reason(error)))
    };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed("open", &error))?;
    file.write_all(&archive).map_err(|error| failed("write", &error))?;
    terminal::error_text(&format!("Written file {path:?}\n"));
    Ok(0)
}

fn import(session: &Session, matches: &Matches) -> Outcome {
    let [name, path] = &matches.args[..] else { return Ok(0) };
    check_new(session, name)?;
    let context = if path == "-" {
        contexts::unpack(name, std::io::stdin().lock())?
    } else {
        let file = std::fs::File::open(path)
            .map_err(|error| Failure::new(format!("open {path}: {}", reason(&error))))?;
        contexts::unpack(name, file)?
    };
    store(session).write(name, &context)?;
    terminal::out(&format!("{name}\n"));
    terminal::error_text(&format!("Successfully imported context {name:?}\n"));
    Ok(0)
}

fn choose(session: &Session, matches: &Matches) -> Outcome {
    let Some(name) = matches.args.first() else { return Ok(0) };
    store(session).read(name)?;
    session.config.change(|root| {
        if name == DEFAULT {
            root.remove("currentContext");
        } else {
            root.insert("currentContext".to_owned(), name.as_str().into());
        }
    })?;
    terminal::out(&format!("{name}\n"));
    terminal::error_text(&format!("Current context is now {name:?}\n"));
    if name != DEFAULT && host_is_told() {
        terminal::error_text(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use \
             {name:?}, either set the global --context flag, or unset DOCKER_HOST environment variable.\n"
        ));
    }
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
    if !store(session).exists(name) {
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
    store(session).remove(name)
}
