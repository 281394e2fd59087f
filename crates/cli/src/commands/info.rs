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
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        text.push_str(&format!(" {name}: {value}\n"));
    };
    line("Containers", &info.containers);
    line(" Running", &info.containers_running);
    line(" Paused", &info.containers_paused);
    line(" Stopped", &info.containers_stopped);
    line("Images", &info.images);
    line("Server Version", &info.server_version);
    line("Storage Driver", &info.driver);
    for [name, value] in &info.driver_status {
        line(&format!(" {name}"), value);
    }
    line("Logging Driver", &info.logging_driver);
    line("Cgroup Driver", &info.cgroup_driver);
    if !info.cgroup_version.is_empty() {
        line("Cgroup Version", &info.cgroup_version);
    }
    text.push_str(" Plugins:\n");
    for (name, list) in
        [("Volume", &info.plugins.volume), ("Network", &info.plugins.network), ("Log", &info.plugins.log)]
    {
        text.push_str(&format!("  {name}: {}\n", list.join(" ")));
    }
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        text.push_str(&format!(" {name}: {value}\n"));
    };
    line("Swarm", &info.swarm.local_node_state);
    line("Runtimes", &runtimes.join(" "));
    line("Default Runtime", &info.default_runtime);
    line("Init Binary", &info.init_binary);
    line("containerd version", &info.containerd_commit.id);
    line("runc version", &info.runc_commit.id);
    line("init version", &info.init_commit.id);
    if !info.security_options.is_empty() {
        text.push_str(" Security Options:\n");
        for option in &info.security_options {
            text.push_str(&security_option(option));
        }
    }
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        text.push_str(&format!(" {name}: {value}\n"));
    };
    line("Kernel Version", &info.kernel_version);
    line("Operating System", &info.operating_system);
    line("OSType", &info.os_type);
    line("Architecture", &info.architecture);
    line("CPUs", &info.n_cpu);
    line("Total Memory", &binary_size(info.mem_total as f64));
    line("Name", &info.name);
    line("ID", &info.id);
    line("Docker Root Dir", &info.docker_root_dir);
    line("Debug Mode", &info.debug);
    for (name, proxy) in [
        ("HTTP Proxy", &info.http_proxy),
        ("HTTPS Proxy", &info.https_proxy),
        ("No Proxy", &info.no_proxy),
    ] {
        if !proxy.is_empty() {
            line(name, proxy);
        }
    }
    if !info.labels.is_empty() {
        line("Labels", &format!("\n  {}", info.labels.join("\n  ")));
    }
    line("Experimental", &info.experimental_build);
    text.push_str(" Insecure Registries:\n");
    for registry in &info.registry_config.insecure_registry_cidrs {
        text.push_str(&format!("  {registry}\n"));
    }
    text.push_str(&format!(" Live Restore Enabled: {}\n\n", info.live_restore_enabled));
    text
}

/// `name=seccomp,profile=builtin` as a name and its properties below.
fn security_option(option: &str) -> String {
    let mut text = String::new();
    for pair in option.split(',') {
        match pair.split_once('=') {
            Some(("name", name)) => text.push_str(&format!("  {name}\n")),
            Some((key, value)) => {
                let mut letters = key.chars();
                let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
                text.push_str(&format!("   {first}{}: {value}\n", letters.as_str()));
            }
            None => text.push_str(&format!("  {pair}\n")),
        }
    }
    text
}
