//! `info`: the daemon and its host.

use api::system::Info;
use serde_json::{Value, json};

use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::Failure,
    render::{
        template::{Format, Shape, Subject},
        units::binary_size,
    },
    terminal,
};

pub static INFO: Command = Command {
    name: "info",
    aliases: &[],
    spellings: &["system info", "info"],
    usage: "[OPTIONS]",
    about: "Display system-wide information",
    flags: &[&[flag(
        "format",
        Text,
        "Format output by a template:\n'json':             As JSON\n'TEMPLATE':         By the given Go template",
    )
    .s('f')]],
    arity: Arity::None,
    order: Order::Mixed,
    run: |session, matches| Box::pin(info(session, matches)),
};

async fn info(session: &Session, matches: &Matches) -> Outcome {
    let asked = match matches.text("format") {
        "" => None,
        "json" => Some(Format::of_object("{{json .}}")?),
        text => Some(Format::of_object(text)?),
    };
    let server = async {
        let answer = session.client().await?.get("/info").send().await?;
        Ok::<Value, Failure>(answer.json().await?)
    };
    let (server, failure) = match server.await {
        Ok(server) => (Some(server), None),
        Err(failure) => (None, Some(failure)),
    };
    if let Some(format) = asked {
        let mut value = server.unwrap_or_else(|| json!({}));
        if let (Some(failure), Some(fields)) = (&failure, value.as_object_mut()) {
            fields.insert("ServerErrors".to_owned(), json!([failure.words().unwrap_or_default()]));
        }
        if let Some(fields) = value.as_object_mut() {
            fields.insert(
                "ClientInfo".to_owned(),
                json!({"Debug": false, "Version": env!("CARGO_PKG_VERSION"), "Context": "default", "Plugins": [], "Warnings": null}),
            );
        }
        let text = format
            .run(&Subject::json(&value), Shape::Map)
            .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
        terminal::out(&format!("{text}\n"));
        return failure.map_or(Ok(0), Err);
    }
    terminal::out(&format!(
        "Client: Tug\n Version:    {}\n Context:    default\n Debug Mode: false\n\nServer:\n",
        env!("CARGO_PKG_VERSION")
    ));
    if let Some(failure) = failure {
        terminal::error_text(&format!("ERROR: {}\n", failure.words().unwrap_or_default()));
        return Err(Failure::new("errors pretty printing info"));
    }
    let info: Info = api::golang::from_value(server.unwrap_or_default())
        .map_err(|error| Failure::new(error.to_string()))?;
    terminal::out(&pretty(&info));
    for warning in info.warnings.iter().flatten() {
        terminal::error_text(&format!("{warning}\n"));
    }
    Ok(0)
}

fn pretty(info: &Info) -> String {
    let mut text = String::new();
    counts(&mut text, info);
    text.push_str(" Plugins:\n");
    for (name, list) in [
        ("Volume", &info.plugins.volume),
        ("Network", &info.plugins.network),
        ("Log", &info.plugins.log),
    ] {
        text.push_str(&format!("  {name}: {}\n", list.join(" ")));
    }
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    line(&mut text, "Swarm", &info.swarm.local_node_state);
    line(&mut text, "Runtimes", runtimes.join(" "));
    line(&mut text, "Default Runtime", &info.default_runtime);
    line(&mut text, "Init Binary", &info.init_binary);
    line(&mut text, "containerd version", &info.containerd_commit.id);
    line(&mut text, "runc version", &info.runc_commit.id);
    line(&mut text, "init version", &info.init_commit.id);
    if !info.security_options.is_empty() {
        text.push_str(" Security Options:\n");
        for option in &info.security_options {
            text.push_str(&security_option(option));
        }
    }
    host(&mut text, info);
    text
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    text.push_str(&format!(" {name}: {value}\n"));
}

fn counts(text: &mut String, info: &Info) {
    line(text, "Containers", info.containers);
    line(text, " Running", info.containers_running);
    line(text, " Paused", info.containers_paused);
    line(text, " Stopped", info.containers_stopped);
    line(text, "Images", info.images);
    line(text, "Server Version", &info.server_version);
    line(text, "Storage Driver", &info.driver);
    for [name, value] in &info.driver_status {
        line(text, &format!(" {name}"), value);
    }
    line(text, "Logging Driver", &info.logging_driver);
    line(text, "Cgroup Driver", &info.cgroup_driver);
    if !info.cgroup_version.is_empty() {
        line(text, "Cgroup Version", &info.cgroup_version);
    }
}

fn host(text: &mut String, info: &Info) {
    line(text, "Kernel Version", &info.kernel_version);
    line(text, "Operating System", &info.operating_system);
    line(text, "OSType", &info.os_type);
    line(text, "Architecture", &info.architecture);
    line(text, "CPUs", info.n_cpu);
    line(text, "Total Memory", binary_size(info.mem_total as f64));
    line(text, "Name", &info.name);
    line(text, "ID", &info.id);
    line(text, "Docker Root Dir", &info.docker_root_dir);
    line(text, "Debug Mode", info.debug);
    for (name, proxy) in [
        ("HTTP Proxy", &info.http_proxy),
        ("HTTPS Proxy", &info.https_proxy),
        ("No Proxy", &info.no_proxy),
    ] {
        if !proxy.is_empty() {
            line(text, name, proxy);
        }
    }
    if !info.labels.is_empty() {
        line(text, "Labels", format!("\n  {}", info.labels.join("\n  ")));
    }
    line(text, "Experimental", info.experimental_build);
    let registries = &info.registry_config;
    let insecure = registries.index_configs.values().filter(|index| !index.secure);
    let insecure = insecure.map(|index| &index.name).chain(&registries.insecure_registry_cidrs);
    text.push_str(" Insecure Registries:\n");
    insecure.for_each(|name| text.push_str(&format!("  {name}\n")));
    if let Some(mirrors) = registries.mirrors.as_ref().filter(|mirrors| !mirrors.is_empty()) {
        line(text, "Registry Mirrors", format!("\n  {}", mirrors.join("\n  ")));
    }
    text.push_str(&format!(" Live Restore Enabled: {}\n\n", info.live_restore_enabled));
}

/// `name=seccomp,profile=builtin` as a name and its properties below.
fn security_option(option: &str) -> String {
    let mut text = String::new();
    for pair in option.split(',') {
        match pair.split_once('=') {
            Some(("name", name)) => text.push_str(&format!("  {name}\n")),
            Some((key, value)) => {
                let mut letters = key.chars();
                let first =
                    letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
                text.push_str(&format!("   {first}{}: {value}\n", letters.as_str()));
            }
            None => text.push_str(&format!("  {pair}\n")),
        }
    }
    text
}
