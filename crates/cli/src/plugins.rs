//! Plugins of the command line: programs `docker-NAME` in known directories, run as `docker NAME`.
//!
//! ```text
//! docker -D compose up          finds docker-compose
//! docker-compose docker-cli-plugin-metadata      {"SchemaVersion":"0.1.0","Vendor":…}
//! exec docker-compose -D compose up              with the whole command line, global options too
//! ```
//! The plugin takes this process's place, so that its signals, its terminal and its exit status are its
//! own. It is told where the daemon is when only we know that (Tug's own socket).
//!
//! A plugin never goes before a command of ours. Source: docker CLI 28.2 `cli-plugins/manager`.

use std::{
    fs,
    io::ErrorKind,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{args::go::quote, commands, context::Config, create::files::reason, failure::Failure};

/// The first argument that asks a plugin to describe itself.
const METADATA: &str = "docker-cli-plugin-metadata";
/// How the user typed us, so that the plugin can call back.
const ORIGINAL: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";
const PREFIX: &str = "docker-";
const SYSTEM_DIRECTORIES: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// What a plugin says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Metadata {
    pub schema_version: String,
    pub vendor: String,
    pub version: String,
    pub short_description: String,
    #[serde(rename = "URL")]
    pub url: String,
}

/// A program that may be a plugin.
#[derive(Debug, Clone, Default)]
pub struct Plugin {
    pub name: String,
    pub path: PathBuf,
    pub metadata: Metadata,
    /// Why it is none.
    pub invalid: Option<String>,
    /// Others of its name, which this one goes before.
    pub shadowed: Vec<PathBuf>,
}

fn directories(config: &Config) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = config.plugin_directories.iter().map(PathBuf::from).collect();
    found.push(config.directory.join("cli-plugins"));
    found.extend(SYSTEM_DIRECTORIES.map(PathBuf::from));
    found
}

fn is_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
}

/// Every candidate by name, each asked to describe itself.
pub fn list(config: &Config) -> Vec<Plugin> {
    let mut found: Vec<Plugin> = Vec::new();
    for directory in directories(config) {
        let mut names: Vec<_> = fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_symlink()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        for file in names {
            let Some(name) = file.strip_prefix(PREFIX) else { continue };
            let path = directory.join(&file);
            match found.iter_mut().find(|plugin| plugin.name == name) {
                Some(known) => known.shadowed.push(path),
                None => found.push(Plugin { name: name.to_owned(), path, ..Plugin::default() }),
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    std::thread::scope(|scope| {
        for plugin in &mut found {
            scope.spawn(|| ask(plugin));
        }
    });
    found
}

/// The plugin of this name that would be run, valid or not.
fn find(config: &Config, name: &str) -> Option<Plugin> {
    if !is_name(name) {
        return None;
    }
    let file = format!("{PREFIX}{name}");
    let mut paths = directories(config).into_iter().map(|directory| directory.join(&file));
    let path = paths.find(|path| {
        !matches!(fs::metadata(path), Err(error) if error.kind() == ErrorKind::NotFound)
            && path.parent().is_some_and(Path::is_dir)
    })?;
    let mut plugin = Plugin { name: name.to_owned(), path, ..Plugin::default() };
    ask(&mut plugin);
    Some(plugin)
}

/// Fills in what the plugin says of itself, or why it is none.
fn ask(plugin: &mut Plugin) {
    match described(plugin) {
        Ok(metadata) => plugin.metadata = metadata,
        Err(why) => plugin.invalid = Some(why),
    }
}

fn described(plugin: &mut Plugin) -> Result<Metadata, String> {
    let name = &plugin.name;
    if !is_name(name) {
        return Err(format!("plugin candidate {} did not match \"^[a-z][a-z0-9]*$\"", quote(name)));
    }
    if commands::is_builtin(name) {
        return Err(format!("plugin {} duplicates builtin command", quote(name)));
    }
    let failed = |why: String| format!("failed to fetch metadata: {why}");
    let output = Command::new(&plugin.path)
        .arg(METADATA)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| {
            failed(format!("fork/exec {}: {}", plugin.path.display(), reason(&error)))
        })?;
    if !output.status.success() {
        return Err(failed(exit_words(output.status)));
    }
    // What can be read counts, for the words about what is wrong with it.
    plugin.metadata = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("invalid metadata: {error}"))?;
    let metadata = plugin.metadata.clone();
    if metadata.schema_version != "0.1.0" {
        return Err(format!(
            "plugin SchemaVersion {} is not valid, must be 0.1.0",
            quote(&metadata.schema_version)
        ));
    }
    if metadata.vendor.is_empty() {
        return Err("plugin metadata does not define a vendor".to_owned());
    }
    Ok(metadata)
}

/// A plugin's command line and surroundings.
pub struct Call<'a> {
    pub name: &'a str,
    /// All that the user typed behind the program's name.
    pub words: &'a [String],
    /// Where the daemon is, when the plugin cannot know it.
    pub host: Option<String>,
}

/// Becomes the plugin. Returns when there is none that could be run (`None`), or it cannot be started.
pub fn run(config: &Config, call: &Call<'_>) -> Option<Failure> {
    let plugin = find(config, call.name).filter(|plugin| plugin.invalid.is_none())?;
    let mut command = Command::new(&plugin.path);
    command.args(call.words).env(ORIGINAL, std::env::args_os().next().unwrap_or_default());
    if let Some(host) = &call.host {
        command.env("DOCKER_HOST", host);
    }
    let error = command.exec();
    Some(Failure::new(format!("fork/exec {}: {}", plugin.path.display(), reason(&error))))
}

/// Runs the plugin below us, for its help: what goes wrong there is told as a failure of ours.
pub fn help(config: &Config, call: &Call<'_>) -> Option<Result<(), Failure>> {
    let plugin = find(config, call.name).filter(|plugin| plugin.invalid.is_none())?;
    let original = std::env::args_os().next().unwrap_or_default();
    let status = Command::new(&plugin.path).args(call.words).env(ORIGINAL, original).status();
    Some(match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(exit_words(status))),
        Err(error) => {
            let why = reason(&error);
            Err(Failure::new(format!("fork/exec {}: {why}", plugin.path.display())))
        }
    })
}

/// `exit status 3`, as Go says it.
fn exit_words(status: std::process::ExitStatus) -> String {
    status.to_string().replace("exit status:", "exit status")
}

/// Whether [`run`] would find something.
pub fn is_there(config: &Config, name: &str) -> bool {
    find(config, name).is_some_and(|plugin| plugin.invalid.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_name_is_small_letters_and_digits() {
        for (name, want) in [("compose", true), ("x2", true), ("2x", false), ("a-b", false)] {
            assert_eq!(is_name(name), want, "{name}");
        }
        assert!(!is_name("") && !is_name("../x") && !is_name("A"));
    }
}
