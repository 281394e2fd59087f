//! `version`: of this program and of the daemon.

use api::system::Version;
use serde_json::{Value, json};

use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::Failure,
    render::{
        table::{self, Widths},
        template::{Format, Shape, Subject},
    },
    terminal,
};

pub static VERSION: Command = Command {
    name: "version",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS]",
    about: "Show the version information of client and server",
    flags: &[&[flag(
        "format",
        Text,
        "Format output by a template:\n'json':             As JSON\n'TEMPLATE':         By the given Go template",
    )
    .s('f')]],
    arity: Arity::None,
    order: Order::Mixed,
    run: |session, matches| Box::pin(version(session, matches)),
};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// `docker --version`.
pub fn one_line(program: &str) -> String {
    let name = if program == "docker" { "Docker" } else { "Tug" };
    format!("{name} version {OWN}, build tug\n")
}

async fn version(session: &Session, matches: &Matches) -> Outcome {
    let asked = match matches.text("format") {
        "" => None,
        "json" => Some(Format::of_object("{{json .}}")?),
        text => Some(Format::of_object(text)?),
    };
    let server = async {
        let client = session.client().await?;
        let version: Value = client.get("/version").send().await?.json().await?;
        Ok::<_, Failure>((version, client.version().to_string()))
    };
    let (server, spoken, failure) = match server.await {
        Ok((version, spoken)) => (Some(version), spoken, None),
        Err(failure) => (None, api::version::MAX.to_string(), Some(failure)),
    };
    let context = "default";
    if let Some(format) = asked {
        let value = json!({
            "Client": {
                "Platform": {"Name": "Tug"},
                "Version": OWN,
                "ApiVersion": spoken,
                "APIVersion": spoken,
                "DefaultAPIVersion": api::version::MAX.to_string(),
                "GitCommit": "tug",
                "GoVersion": "",
                "Os": std::env::consts::OS,
                "Arch": architecture(),
                "BuildTime": "",
                "Context": context,
            },
            "Server": with_go_names(server),
        });
        let text = format
            .run(&Subject::json(&value), Shape::Map)
            .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
        terminal::out(&format!("{text}\n"));
    } else {
        let mut text = client_text(&spoken, context);
        if let Some(server) =
            server.as_ref().and_then(|value| api::golang::from_value::<Version>(value.clone()).ok())
        {
            text.push_str(&server_text(&server));
        }
        terminal::out(&table::align(&text, Widths { least: 20, padding: 1 }));
    }
    match failure {
        None => Ok(0),
        Some(failure) => Err(failure),
    }
}

/// Docker's templates say `APIVersion` where its JSON says `ApiVersion`.
fn with_go_names(server: Option<Value>) -> Value {
    let Some(mut server) = server else { return Value::Null };
    if let Some(fields) = server.as_object_mut()
        && let Some(version) = fields.get("ApiVersion").cloned()
    {
        fields.insert("APIVersion".to_owned(), version);
    }
    server
}

/// Go's name for this processor.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn client_text(spoken: &str, context: &str) -> String {
    format!(
        "Client: Tug\n Version:\t{OWN}\n API version:\t{spoken}\n OS/Arch:\t{}/{}\n Context:\t{context}\n",
        std::env::consts::OS,
        architecture()
    )
}

fn server_text(server: &Version) -> String {
    let platform = match server.platform.name.as_str() {
        "" => String::new(),
        name => format!(" {name}"),
    };
    let mut text = format!("\nServer:{platform}\n");
    if server.components.is_empty() {
        text.push_str(&format!(
            " Version:\t{}\n API version:\t{}\n",
            server.version, server.api_version
        ));
    }
    for component in &server.components {
        let detail = |name: &str| {
            component
                .details
                .as_ref()
                .and_then(|details| details.get(name))
                .cloned()
                .unwrap_or_default()
        };
        text.push_str(&format!(" {}:\n  Version:\t{}\n", component.name, component.version));
        if component.name == "Engine" {
            let built = detail("BuildTime");
            text.push_str(&format!(
                "  API version:\t{} (minimum version {})\n  Go version:\t{}\n  Git commit:\t{}\n  Built:\t{built}\n  OS/Arch:\t{}/{}\n  Experimental:\t{}\n",
                detail("ApiVersion"), detail("MinAPIVersion"), detail("GoVersion"), detail("GitCommit"),
                detail("Os"), detail("Arch"), detail("Experimental"),
            ));
        } else {
            for (name, value) in component.details.iter().flatten() {
                text.push_str(&format!("  {name}:\t{value}\n"));
            }
        }
    }
    text
}
