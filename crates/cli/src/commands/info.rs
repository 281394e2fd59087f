//! `info`: the daemon and its host.

use api::system::Info;
use serde_json::{Value, json};

use super::{OBJECT_FORMAT_USAGE, version};
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::Failure,
    plugins::{self, Plugin},
    render::{
        template::{Format, typed},
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
    flags: &[&[flag("format", Text, OBJECT_FORMAT_USAGE).s('f')]],
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
    let plugins = plugins::list(&session.config);
    let client = client_info(session, &plugins);
    if let Some(format) = &asked
        && !needs_server(matches.text("format"), format, &client)
    {
        let (text, shown) = format.show(&typed(INFO_TYPE, &client));
        terminal::out(&format!("{text}\n"));
        return shown.map(|()| 0);
    }
    let server = async {
        let value: Value = session.client().await?.get("/info").send().await?.json().await?;
        Ok::<_, Failure>(value)
    };
    let (server, failure) = match server.await {
        Ok(value) => (Some(value), None),
        Err(failure) => (None, Some(failure)),
    };
    if let Some(format) = asked {
        let mut all = server.unwrap_or_else(|| json!({}));
        if let Some(fields) = all.as_object_mut() {
            fields.insert("ClientInfo".to_owned(), client["ClientInfo"].clone());
        }
        let (text, shown) = format.show(&typed(INFO_TYPE, &all));
        terminal::out(&format!("{text}\n"));
        return failure.map_or(shown.map(|()| 0), Err);
    }
    terminal::out(&client_text(session, &plugins));
    for plugin in &plugins {
        if let Some(why) = &plugin.invalid {
            terminal::error_text(&format!(
                "WARNING: Plugin {:?} is not valid: {why}\n",
                plugin.path.display().to_string()
            ));
        }
    }
    terminal::out("\nServer:\n");
    if let Some(failure) = failure {
        return Err(failure);
    }
    let info: Info = api::golang::from_value(server.unwrap_or_default())
        .map_err(|error| Failure::new(error.to_string()))?;
    terminal::out(&pretty(&info, session.debug));
    for warning in info.warnings.iter().flatten() {
        terminal::error_text(&format!("{warning}\n"));
    }
    Ok(0)
}

const INFO_TYPE: &str = "system.dockerInfo";

/// What is known without a daemon, as Docker's client has it in its JSON.
fn client_info(session: &Session, plugins: &[Plugin]) -> Value {
    let plugins: Vec<Value> = plugins
        .iter()
        .map(|plugin| {
            let shadowed: Vec<String> =
                plugin.shadowed.iter().map(|path| path.display().to_string()).collect();
            json!({
                "SchemaVersion": plugin.metadata.schema_version,
                "Vendor": plugin.metadata.vendor,
                "Version": plugin.metadata.version,
                "ShortDescription": plugin.metadata.short_description,
                "URL": plugin.metadata.url,
                "Name": plugin.name,
                "Path": plugin.path.display().to_string(),
                "Err": plugin.invalid,
                "ShadowedPaths": shadowed,
            })
        })
        .collect();
    let mut client = version::client(session, None);
    client["Debug"] = session.debug.into();
    client["Plugins"] = plugins.into();
    json!({ "ClientInfo": client })
}

/// Whether a template shows more than what is known without a daemon.
fn needs_server(text: &str, format: &Format, client: &Value) -> bool {
    let has_field =
        text.as_bytes().windows(2).any(|two| two[0] == b'.' && two[1].is_ascii_alphabetic());
    text == "json" || !has_field || format.run(&typed("system.sparseInfo", client)).is_err()
}

fn client_text(session: &Session, plugins: &[Plugin]) -> String {
    let platform = version::platform(&session.program);
    let platform = if platform.is_empty() { String::new() } else { format!(" {platform}") };
    let mut text = format!(
        "Client:{platform}\n Version:    {}\n Context:    {}\n Debug Mode: {}\n",
        version::own(&session.program),
        session.context,
        session.debug
    );
    if !plugins.is_empty() {
        text.push_str(" Plugins:\n");
    }
    for plugin in plugins.iter().filter(|plugin| plugin.invalid.is_none()) {
        let about = &plugin.metadata;
        let line = format!("  {}: {} ({})\n", plugin.name, about.short_description, about.vendor);
        text.push_str(&line);
        if !about.version.is_empty() {
            text.push_str(&format!("    Version:  {}\n", about.version));
        }
        text.push_str(&format!("    Path:     {}\n", plugin.path.display()));
    }
    text
}

fn pretty(info: &Info, debug: bool) -> String {
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
    // Tug is its own containerd, runc and init, and has no versions of them.
    for (name, commit) in [
        ("containerd version", &info.containerd_commit),
        ("runc version", &info.runc_commit),
        ("init version", &info.init_commit),
    ] {
        if !commit.id.is_empty() {
            line(&mut text, name, &commit.id);
        }
    }
    if !info.security_options.is_empty() {
        text.push_str(" Security Options:\n");
        for option in &info.security_options {
            text.push_str(&security_option(option));
        }
    }
    host(&mut text, info, debug);
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

fn host(text: &mut String, info: &Info, debug: bool) {
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
    if info.debug || debug {
        line(text, " File Descriptors", info.n_fd);
        line(text, " Goroutines", info.n_goroutines);
        line(text, " System Time", &info.system_time);
        line(text, " EventsListeners", info.n_events_listener);
    }
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
