//! `inspect`, of one kind or of whatever bears the name.

use api::client::{Client, segment};
use serde_json::Value;

use super::{OBJECT_FORMAT_USAGE, finish, platform_json};
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::{Failure, daemon_words},
    render::{
        json,
        template::{Format, typed},
    },
    terminal,
};

const FORMAT: Flag = flag("format", Text, OBJECT_FORMAT_USAGE).s('f');
const SIZE: Flag = flag("size", Bool, "Show total file sizes, if it is a container").s('s');

const ANY_SIZE: Flag = flag("size", Bool, "Show total file sizes, if it is a container").s('s');
const PLATFORM: &str = "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)";

const BASE: Command = Command {
    name: "inspect",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Show all there is to know about containers, images and other objects",
    flags: &[&[FORMAT, ANY_SIZE, flag("type", Text, "Look only among objects of this type")]],
    arity: Arity::AtLeast(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(any(session, matches)),
};
pub static INSPECT: Command = BASE;

pub static CONTAINER_INSPECT: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Show all there is to know about containers",
    flags: &[&[FORMAT, SIZE]],
    run: |session, matches| Box::pin(of_kinds(session, matches, &[Kind::Container])),
    ..BASE
};

pub static IMAGE_INSPECT: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Show all there is to know about images",
    flags: &[&[FORMAT, flag("platform", Text, PLATFORM)]],
    run: |session, matches| Box::pin(of_kinds(session, matches, &[Kind::Image])),
    ..BASE
};

pub static NETWORK_INSPECT: Command = Command {
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Show all there is to know about networks",
    flags: &[&[FORMAT, flag("verbose", Bool, "Show more, for finding faults").s('v')]],
    run: |session, matches| Box::pin(of_kinds(session, matches, &[Kind::Network])),
    ..BASE
};

pub static VOLUME_INSPECT: Command = Command {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Show all there is to know about volumes",
    flags: &[&[FORMAT]],
    // Docker's client keeps no raw answer of a volume that is asked for so.
    run: |session, matches| Box::pin(show(session, matches, &[Kind::Volume], Fallback::None)),
    ..BASE
};

/// What can be inspected, in the order in which a bare name is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

const ALL: [Kind; 4] = [Kind::Container, Kind::Image, Kind::Network, Kind::Volume];

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Network => "network",
            Kind::Volume => "volume",
        }
    }

    /// What Docker's client decodes the answer into.
    fn type_name(self) -> &'static str {
        match self {
            Kind::Container => "container.InspectResponse",
            Kind::Image => "image.InspectResponse",
            Kind::Network => "network.Inspect",
            Kind::Volume => "volume.Volume",
        }
    }

    fn path(self, name: &str) -> String {
        let name = segment(name);
        match self {
            Kind::Container => format!("/containers/{name}/json"),
            Kind::Image => format!("/images/{name}/json"),
            Kind::Network => format!("/networks/{name}"),
            Kind::Volume => format!("/volumes/{name}"),
        }
    }
}

async fn any(session: &Session, matches: &Matches) -> Outcome {
    match matches.text("type") {
        "" if matches.given("type") => Err(Failure::new(
            "type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"",
        )),
        "" => of_kinds(session, matches, &ALL).await,
        word => match ALL.iter().find(|kind| kind.word() == word) {
            Some(kind) => of_kinds(session, matches, &[*kind]).await,
            None => Err(Failure::new(format!(
                "unknown type: \"{word}\": must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\""
            ))),
        },
    }
}

/// How objects are shown, other than indented.
pub enum Shown {
    /// On one line.
    Json,
    Template(Format),
}

/// # Errors
/// When the template is wrong.
pub fn shown(matches: &Matches) -> Result<Option<Shown>, Failure> {
    Ok(match matches.text("format") {
        "" => None,
        "json" => Some(Shown::Json),
        text => Some(Shown::Template(Format::of_object(text)?)),
    })
}

/// What a template is tried on that a type does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fallback {
    Answer,
    None,
}

async fn of_kinds(session: &Session, matches: &Matches, kinds: &[Kind]) -> Outcome {
    show(session, matches, kinds, Fallback::Answer).await
}

async fn show(session: &Session, matches: &Matches, kinds: &[Kind], fallback: Fallback) -> Outcome {
    let shown = shown(matches)?;
    let client = session.client().await?;
    let (mut found, mut text, mut errors) = (Vec::new(), String::new(), Vec::new());
    for name in &matches.args {
        match (look_up(client, matches, kinds, name).await, &shown) {
            (Err(words), _) => errors.push(words),
            (Ok((kind, value)), Some(Shown::Template(format))) => {
                let line = match fallback {
                    Fallback::Answer => format.run_on_answer(kind.type_name(), &value),
                    Fallback::None => format.run(&typed(kind.type_name(), &value)),
                };
                match line {
                    Ok(line) => text.push_str(&format!("{line}\n")),
                    Err(why) => errors.push(format!("template parsing error: {why}")),
                }
            }
            (Ok((_, value)), None | Some(Shown::Json)) => found.push(value),
        }
    }
    terminal::out(&match shown {
        None => format!("{}\n", json::indented(&Value::Array(found))),
        Some(Shown::Json) => {
            format!("{}\n", json::compact_raw(&Value::Array(found).to_string()))
        }
        // A line for nothing keeps output in step with input.
        Some(Shown::Template(_)) if text.is_empty() => "\n".to_owned(),
        Some(Shown::Template(_)) => text,
    });
    finish(errors)
}

async fn look_up(
    client: &Client,
    matches: &Matches,
    kinds: &[Kind],
    name: &str,
) -> Result<(Kind, Value), String> {
    for kind in kinds {
        let mut request = client
            .get(&kind.path(name))
            .flag("size", *kind == Kind::Container && matches.on("size"))
            .flag(
                "verbose",
                *kind == Kind::Network && matches.given("verbose") && matches.on("verbose"),
            );
        if *kind == Kind::Image && matches.given("platform") {
            request = request.query("platform", platform_json(matches.text("platform")));
        }
        let answer = match request.send().await {
            Ok(answer) => answer.bytes().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(bytes) => {
                let value = serde_json::from_slice(&bytes).map_err(|error| error.to_string());
                return value.map(|value| (*kind, value));
            }
            // A name that cannot be of one kind may well be of another.
            Err(error)
                if kinds.len() > 1
                    && error.status().is_some_and(|status| status.is_client_error()) => {}
            Err(error) => return Err(daemon_words(&error)),
        }
    }
    Err(format!("Error: No such object: {name}"))
}
