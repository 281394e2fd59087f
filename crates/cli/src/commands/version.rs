//! `version`: of this program and of the daemon.

use api::system::Version;
use serde_json::{Value, json};

use super::OBJECT_FORMAT_USAGE;
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::Failure,
    render::{
        table::{self, Widths},
        template::{Format, typed},
    },
    terminal,
};

pub static VERSION: Command = Command {
    name: "version",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS]",
    about: "Show the version information of client and server",
    flags: &[&[flag("format", Text, OBJECT_FORMAT_USAGE).s('f')]],
    arity: Arity::None,
    order: Order::Mixed,
    run: |session, matches| Box::pin(version(session, matches)),
};

const OWN: &str = env!("CARGO_PKG_VERSION");
/// The Docker client whose behaviour this one has: scripts look for a version that is new enough.
const DOCKER: &str = "28.2.2";
/// Programs that parse this line look for a revision; ours is the program's name.
const BUILD: &str = "tug";

/// The version under the name that we were called by: as `docker`, one that its users know.
pub fn own(program: &str) -> String {
    if program == "docker" { format!("{DOCKER}+tug{OWN}") } else { OWN.to_owned() }
}

/// Who made the client; nothing under Docker's name, where nobody would look for it.
pub fn platform(program: &str) -> &'static str {
    if program == "docker" { "" } else { "Tug" }
}

/// `docker --version`.
pub fn one_line(program: &str) -> String {
    let name = if program == "docker" { "Docker" } else { "Tug" };
    format!("{name} version {}, build {BUILD}\n", own(program))
}

/// What is known of the client, by the names of Docker's JSON.
pub fn client(session: &Session, spoken: Option<&str>) -> Value {
    json!({
        "Platform": {"Name": "Tug"},
        "Version": own(&session.program),
        "ApiVersion": spoken.unwrap_or_default(),
        "DefaultAPIVersion": api::version::MAX.to_string(),
        "GitCommit": BUILD,
        "GoVersion": RUST,
        "Os": std::env::consts::OS,
        "Arch": architecture(),
        "BuildTime": "",
        "Context": session.context,
    })
}

/// Stands where a Go program tells its compiler.
const RUST: &str = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));

async fn version(session: &Session, matches: &Matches) -> Outcome {
    let wrong =
        |why: String| Failure::Said { text: format!("template parsing error: {why}"), status: 64 };
    let asked = match matches.text("format") {
        "" => None,
        "json" => Some(Format::parse_named("version", "{{json .}}").map_err(wrong)?),
        text => Some(Format::parse_named("version", text).map_err(wrong)?),
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
    let mut shown = Ok(());
    if let Some(format) = asked {
        let all = json!({"Client": client(session, Some(&spoken)), "Server": server});
        let (text, done) = format.show(&typed("system.versionInfo", &all));
        terminal::out(&table::align(&format!("{text}\n"), Widths { least: 20, padding: 1 }));
        shown = done;
    } else {
        let mut text = client_text(session, &spoken);
        if let Some(server) =
            server.as_ref().and_then(|value| api::golang::from_value::<Version>(value.clone()).ok())
        {
            text.push_str(&server_text(&server));
        }
        terminal::out(&table::align(&text, Widths { least: 20, padding: 1 }));
    }
    match failure {
        None => shown.map(|()| 0),
        Some(failure) => Err(failure),
    }
}

/// Go's name for this processor.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn client_text(session: &Session, spoken: &str) -> String {
    let platform = platform(&session.program);
    let platform = if platform.is_empty() { String::new() } else { format!(" {platform}") };
    let newest = api::version::MAX.to_string();
    let downgraded =
        if spoken == newest { String::new() } else { format!(" (downgraded from {newest})") };
    format!(
        "Client:{platform}\n Version:\t{}\n API version:\t{spoken}{downgraded}\n Git commit:\t{BUILD}\n OS/Arch:\t{}/{}\n Context:\t{}\n",
        own(&session.program),
        std::env::consts::OS,
        architecture(),
        session.context
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
            text.push_str(&format!(
                "  API version:\t{} (minimum version {})\n",
                detail("ApiVersion"),
                detail("MinAPIVersion")
            ));
            // A blank tells nothing; Docker's own daemon has none.
            for (name, key) in
                [("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime")]
            {
                if !detail(key).is_empty() {
                    text.push_str(&format!("  {name}:\t{}\n", detail(key)));
                }
            }
            text.push_str(&format!(
                "  OS/Arch:\t{}/{}\n  Experimental:\t{}\n",
                detail("Os"),
                detail("Arch"),
                detail("Experimental")
            ));
        } else {
            for (name, value) in component.details.iter().flatten() {
                text.push_str(&format!("  {name}:\t{value}\n"));
            }
        }
    }
    text
}
