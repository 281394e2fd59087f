//! `inspect`, of one kind or of whatever bears the name.

use api::client::{Client, segment};
use serde_json::Value;

use super::{finish, platform_json};
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::{Failure, daemon_words},
    render::{
        json,
        template::{Format, Shape, Subject},
    },
    terminal,
};

const FORMAT: Flag = flag(
    "format",
    Text,
    "Format output by a template:\n'json':             As JSON\n'TEMPLATE':         By the given Go template",
)
.s('f');
const SIZE: Flag = flag("size", Bool, "Show total file sizes, if it is a container").s('s');

const BASE: Command = Command {
    name: "inspect",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Show all there is to know about containers, images and other objects",
    flags: &[&[FORMAT, SIZE, flag("type", Text, "Look only among objects of this type")]],
    arity: Arity::AtLeast(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(any(session, matches)),
};
pub static INSPECT: Command = BASE;

pub static CONTAINER_INSPECT: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Show all there is to know about one or more containers",
    flags: &[&[FORMAT, SIZE]],
    run: |session, matches| Box::pin(of_kinds(session, matches, &[Kind::Container])),
    ..BASE
};

pub static IMAGE_INSPECT: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Show all there is to know about one or more images",
    flags: &[&[FORMAT, flag("platform", Text, "Platform of the image, where it has several")]],
    run: |session, matches| Box::pin(of_kinds(session, matches, &[Kind::Image])),
    ..BASE
};

pub static NETWORK_INSPECT: Command = Command {
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Show all there is to know about one or more networks",
    flags: &[&[FORMAT, flag("verbose", Bool, "Show more, for finding faults").s('v')]],
    run: |session, matches| Box::pin(of_kinds(session, matches, &[Kind::Network])),
    ..BASE
};

pub static VOLUME_INSPECT: Command = Command {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Show all there is to know about one or more volumes",
    flags: &[&[FORMAT]],
    run: |session, matches| Box::pin(of_kinds(session, matches, &[Kind::Volume])),
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

async fn of_kinds(session: &Session, matches: &Matches, kinds: &[Kind]) -> Outcome {
    let format = match matches.text("format") {
        "" => None,
        "json" => Some(Format::of_object("{{json .}}")?),
        text => Some(Format::of_object(text)?),
    };
    let client = session.client().await?;
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for name in &matches.args {
        match look_up(client, matches, kinds, name).await {
            Ok(value) => match &format {
                Some(format) => match format.run(&Subject::json(&value), Shape::Map) {
                    Ok(text) => terminal::out(&format!("{text}\n")),
                    Err(error) => errors.push(format!("template parsing error: {error}")),
                },
                None => found.push(value),
            },
            Err(words) => errors.push(words),
        }
        // A line for each name, also when nothing bears it, keeps output in step with input.
        if errors.len() == 1 && format.is_some() && found.is_empty() && matches.args.len() == 1 {
            terminal::out("\n");
        }
    }
    if format.is_none() {
        terminal::out(&format!("{}\n", json::indented(&Value::Array(found))));
    }
    finish(errors)
}

async fn look_up(
    client: &Client,
    matches: &Matches,
    kinds: &[Kind],
    name: &str,
) -> Result<Value, String> {
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
            Ok(bytes) => return serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            // A name that cannot be of one kind may well be of another.
            Err(error)
                if kinds.len() > 1
                    && error.status().is_some_and(|status| status.is_client_error()) => {}
            Err(error) => return Err(daemon_words(&error)),
        }
    }
    Err(format!("Error: No such object: {name}"))
}
