//! `cp` and `export`.
//!
//! A copy's source and destination are told apart by a colon; `-` is a tar stream. What the
//! copy is called at its destination follows cp(1)'s rules as Docker has them: a directory is
//! put *into* a directory that exists, unless its path ends in `/.`, which means its content.
//!
//! Source of the rules and words: docker/cli `container/cp.go`, moby `pkg/archive/copy.go`.
//! Elsewhere: making and unpacking the tar, in [`local`].

pub mod local;

use std::{
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use api::{
    client::{Body, Client, segment},
    container::{PATH_STAT_HEADER, PathStat, file_mode},
};

use super::transfer;
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    create::files::reason,
    failure::Failure,
    terminal::{self, Output},
};

pub static CP: Command = Command {
    name: "cp",
    aliases: &[],
    spellings: &["container cp", "cp"],
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t{program} cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files/folders between a container and the local filesystem\n\n\
            With '-' as the source a tar archive is read from STDIN and unpacked into a\n\
            directory of the container. With '-' as the destination the source goes to\n\
            STDOUT as a tar archive.",
    flags: &[&[
        flag("archive", Bool, "Archive mode (copy all uid/gid information)").s('a'),
        flag("follow-link", Bool, "Follow symbolic links in SRC_PATH").s('L'),
        flag(
            "quiet",
            Bool,
            "Do not show progress. It is not shown either when no terminal is attached",
        )
        .s('q'),
    ]],
    arity: Arity::Exactly(2),
    order: Order::Mixed,
    run: |session, matches| Box::pin(cp(session, matches)),
};

pub static EXPORT: Command = Command {
    name: "export",
    spellings: &["container export", "export"],
    usage: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    flags: &[&[flag("output", Text, "Write to a file instead of STDOUT").s('o')]],
    arity: Arity::Exactly(1),
    run: |session, matches| Box::pin(export(session, matches)),
    aliases: &[],
    order: Order::Mixed,
};

async fn export(session: &Session, matches: &Matches) -> Outcome {
    let output = matches.text("output");
    if output.is_empty() && terminal::stdout_is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    transfer::check_output("export container", output)?;
    let Some(name) = matches.args.first() else { return Ok(0) };
    let path = format!("/containers/{}/export", segment(name));
    let response = session.client().await?.get(&path).send().await?;
    transfer::save_body(response, output).await?;
    Ok(0)
}

/// One side of a copy.
enum Side<'a> {
    Local(&'a str),
    Container { name: &'a str, path: &'a str },
}

/// `NAME:PATH` is in a container, unless it begins like a path.
fn side(text: &str) -> Side<'_> {
    if text.starts_with('/') {
        return Side::Local(text);
    }
    match text.split_once(':') {
        Some((name, path)) if !name.starts_with('.') => Side::Container { name, path },
        Some(_) | None => Side::Local(text),
    }
}

async fn cp(session: &Session, matches: &Matches) -> Outcome {
    let [source, target] = &matches.args[..] else { return Ok(0) };
    for (what, text) in [("source", source), ("destination", target)] {
        if text.is_empty() {
            return Err(Failure::new(format!("{what} can not be empty")));
        }
    }
    match (side(source), side(target)) {
        (Side::Container { name, path }, Side::Local(target)) => {
            from_container(session, matches, name, path, target).await
        }
        (Side::Local(source), Side::Container { name, path }) => {
            to_container(session, matches, source, name, path).await
        }
        (Side::Container { .. }, Side::Container { .. }) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        (Side::Local(_), Side::Local(_)) => {
            Err(Failure::new("must specify at least one container source"))
        }
    }
}

/// Whether a path says that it must be a directory.
fn wants_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}

/// Whether a path means a directory's content.
fn means_content(path: &str) -> bool {
    path.ends_with("/.") || path == "."
}

fn base_name(path: impl AsRef<Path>) -> String {
    crate::create::mounts::clean(path.as_ref())
        .file_name()
        .map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned())
}

async fn stat(client: &Client, name: &str, path: &str) -> Result<PathStat, api::client::Error> {
    let answer = client
        .head(&format!("/containers/{}/archive", segment(name)))
        .query("path", path)
        .send()
        .await?;
    Ok(answer.header(PATH_STAT_HEADER).and_then(PathStat::decode).unwrap_or_default())
}

/// An absolute path in a container; Docker takes relative ones from the root.
fn in_container(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

async fn from_container(
    session: &Session,
    matches: &Matches,
    name: &str,
    path: &str,
    target: &str,
) -> Outcome {
    if target != "-" {
        check_target(target)?;
    }
    let client = session.client().await?;
    // The daemon has words for a path that is none.
    let mut path = if path.is_empty() { String::new() } else { in_container(path) };
    // A link is followed by asking for what it points to.
    if matches.on("follow-link")
        && let Ok(found) = stat(client, name, &path).await
        && found.mode & file_mode::SYMLINK != 0
    {
        let linked = Path::new(&path).parent().unwrap_or(Path::new("/")).join(&found.link_target);
        path = linked.to_string_lossy().into_owned();
    }
    let request =
        client.get(&format!("/containers/{}/archive", segment(name))).query("path", &path);
    let mut response = request.send().await?;
    if target == "-" {
        while let Some(chunk) = response.chunk().await? {
            terminal::write(Output::Stdout, &chunk)?;
        }
        return Ok(0);
    }
    let found = response.header(PATH_STAT_HEADER).and_then(PathStat::decode).unwrap_or_default();
    let is_directory = found.mode & file_mode::DIR != 0;
    let (into, renamed) = local_target(target, is_directory, means_content(&path))?;
    let (sender, receiver) = std::sync::mpsc::sync_channel::<bytes::Bytes>(4);
    let owners = matches.on("archive");
    let unpacking = tokio::task::spawn_blocking(move || {
        local::unpack(local::Pieces::new(receiver), &into, renamed.as_deref(), owners)
    });
    let mut bytes = 0u64;
    while let Some(chunk) = response.chunk().await? {
        bytes += chunk.len() as u64;
        let sender = sender.clone();
        // The unpacking thread may have failed; its own error is told below.
        let sent = tokio::task::spawn_blocking(move || sender.send(chunk).is_ok()).await;
        if !matches!(sent, Ok(true)) {
            break;
        }
    }
    drop(sender);
    match unpacking.await {
        Ok(result) => result?,
        Err(error) => return Err(Failure::new(error.to_string())),
    }
    tell(matches, bytes, target);
    Ok(0)
}

fn tell(matches: &Matches, bytes: u64, target: &str) {
    if !matches.on("quiet") && terminal::stderr_is_terminal() {
        terminal::error_text(&format!(
            "Successfully copied {} to {target}\n",
            crate::render::units::human_size(bytes as f64)
        ));
    }
}

/// Refuses what cannot be copied onto, before anything is asked. What stands there is removed for
/// the copy, so a fifo and a socket are refused as well, which Docker's client replaces.
///
/// Source: docker/cli 28.2 `cli/command/utils.go`, `ValidateOutputPath`.
fn check_target(target: &str) -> Result<(), Failure> {
    let absolute = local::absolute(target);
    let parent = crate::create::mounts::clean(Path::new(&absolute));
    let parent = parent.parent().unwrap_or(Path::new("/"));
    if let Err(error) = std::fs::metadata(parent)
        && error.kind() == std::io::ErrorKind::NotFound
    {
        let text = format!("invalid output path: directory {parent:?} does not exist");
        return Err(Failure::new(text));
    }
    let kind = match std::fs::metadata(&absolute) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::new(format!("stat {absolute}: {}", reason(&error)))),
    };
    let what = match kind {
        kind if kind.is_dir() || kind.is_file() => return Ok(()),
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "an irregular file",
    };
    Err(Failure::new(format!(
        "invalid output path: {absolute:?} must be a directory or a regular file: got {what}"
    )))
}

/// Where to unpack, and the name that the archive's root gets there, if another.
fn local_target(
    target: &str,
    source_is_directory: bool,
    content: bool,
) -> Result<(PathBuf, Option<String>), Failure> {
    let path = Path::new(target);
    if path.is_dir() {
        // Into it under its own name; the content of a directory goes in without a name.
        let renamed = (content && source_is_directory).then(|| ".".to_owned());
        return Ok((path.to_owned(), renamed));
    }
    // A link stays, and the copy takes the place of what it leads to.
    let path = crate::files::followed(path)
        .map_err(|error| Failure::new(format!("lstat {target}: {}", reason(&error))))?;
    let cleaned = crate::create::mounts::clean(&path);
    let parent = match cleaned.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    if !path.exists() && wants_directory(target) && !source_is_directory {
        return Err(Failure::new("no such directory"));
    }
    if path.exists() && source_is_directory {
        return Err(Failure::new("cannot copy directory"));
    }
    Ok((parent, Some(base_name(&path))))
}

async fn to_container(
    session: &Session,
    matches: &Matches,
    source: &str,
    name: &str,
    path: &str,
) -> Outcome {
    let client = session.client().await?;
    if source != "-" {
        let links =
            if matches.on("follow-link") { local::Links::Follow } else { local::Links::Keep };
        local::check_source(source, links).map_err(Failure::new)?;
        if path.is_empty() && !Path::new(source).is_dir() {
            return Err(Failure::new("no such directory"));
        }
    }
    let path = in_container(path);
    let target = resolve_target(client, name, &path).await?;
    if source == "-" {
        if !target.is_directory {
            return Err(Failure::new(format!("destination \"{name}:{path}\" must be a directory")));
        }
        put(client, matches, name, &target.path, crate::stream::stdin_body()).await?;
        return Ok(0);
    }
    let follow = matches.on("follow-link") || wants_directory(source);
    let metadata =
        if follow { std::fs::metadata(source) } else { std::fs::symlink_metadata(source) };
    let metadata =
        metadata.map_err(|error| Failure::new(format!("lstat {source}: {}", reason(&error))))?;
    let is_directory = metadata.is_dir();
    if wants_directory(source) && !is_directory {
        return Err(Failure::new("not a directory"));
    }
    let (into, inner) = match (target.exists, target.is_directory) {
        (true, true) if means_content(source) && is_directory => {
            (target.path.clone(), ".".to_owned())
        }
        (true, true) => (target.path.clone(), source_name(source)),
        (true, false) if is_directory => return Err(Failure::new("cannot copy directory")),
        (false, _) if wants_directory(&path) && !is_directory => {
            return Err(Failure::new("no such directory"));
        }
        (true | false, _) => {
            let parent = Path::new(&target.path).parent().unwrap_or(Path::new("/"));
            (parent.to_string_lossy().into_owned(), base_name(&target.path))
        }
    };
    let (sender, body) = Body::channel();
    let from = PathBuf::from(source);
    let links = if follow { local::Links::Follow } else { local::Links::Keep };
    let packing = tokio::task::spawn_blocking(move || local::pack(&from, &inner, links, sender));
    let sent = put(client, matches, name, &into, body).await;
    let packed = packing.await.map_err(|error| Failure::new(error.to_string()))?;
    sent?;
    let bytes = packed?;
    tell(matches, bytes, &format!("{name}:{path}"));
    Ok(0)
}

fn source_name(source: &str) -> String {
    let path = Path::new(source);
    match path.file_name() {
        Some(_) => base_name(source),
        // `.` and `..` have their name from where they are.
        None => std::fs::canonicalize(path)
            .ok()
            .and_then(|full| full.file_name().map(|name| name.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "/".to_owned()),
    }
}

/// A destination in a container, links followed.
struct Target {
    path: String,
    exists: bool,
    is_directory: bool,
}

async fn resolve_target(client: &Client, name: &str, path: &str) -> Result<Target, Failure> {
    let mut path = path.to_owned();
    // As many links as the kernel follows: path_resolution(7).
    for _ in 0..40 {
        match stat(client, name, &path).await {
            Ok(found) if found.mode & file_mode::SYMLINK != 0 => {
                let parent = Path::new(&path).parent().unwrap_or(Path::new("/"));
                path = parent.join(&found.link_target).to_string_lossy().into_owned();
            }
            Ok(found) => {
                return Ok(Target {
                    path,
                    exists: true,
                    is_directory: found.mode & file_mode::DIR != 0,
                });
            }
            Err(error)
                if error.is_not_found() && !error.to_string().contains("No such container") =>
            {
                return Ok(Target { path, exists: false, is_directory: false });
            }
            // A file's name with a slash behind it; an answer to HEAD has no words.
            Err(error) if error.status() == Some(hyper::StatusCode::BAD_REQUEST) => {
                return Ok(Target { path, exists: false, is_directory: false });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(format!("too many links in {path:?}")))
}

async fn put(
    client: &Client,
    matches: &Matches,
    name: &str,
    path: &str,
    body: Body,
) -> Result<(), Failure> {
    client
        .put(&format!("/containers/{}/archive", segment(name)))
        .query("path", path)
        .query("noOverwriteDirNonDir", "true")
        .flag("copyUIDGID", matches.on("archive"))
        .body("application/x-tar", body)
        .send()
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_tells_a_container_from_a_path() {
        let container = |text| match side(text) {
            Side::Container { name, path } => Some((name, path)),
            Side::Local(_) => None,
        };
        assert_eq!(container("web:/etc"), Some(("web", "/etc")));
        assert_eq!(container("./a:b"), None);
        assert_eq!(container("/a:b"), None);
        assert_eq!(container("-"), None);
        assert!(means_content("/a/.") && !means_content("/a/"));
        assert_eq!(base_name("/a/b/."), "b");
    }

    #[test]
    fn a_copy_takes_no_special_files_place_and_leaves_links() {
        let dir = std::env::temp_dir().join(format!("tug-copy-target-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("below")).unwrap();
        let at = |name: &str| format!("{}/{name}", dir.display());
        std::os::unix::fs::symlink("below/real", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        check_target(&at("new")).unwrap();
        check_target(&at("link")).unwrap();
        let must = |path: &str, what: &str| {
            format!(
                "invalid output path: {path:?} must be a directory or a regular file: got {what}"
            )
        };
        let refused = |path: &str| check_target(path).unwrap_err().to_string();
        assert_eq!(refused("/dev/full"), must("/dev/full", "a device"));
        assert_eq!(refused(&at("socket")), must(&at("socket"), "an irregular file"));
        let (into, name) = local_target(&at("link"), false, false).unwrap();
        assert_eq!((into, name.as_deref()), (dir.join("below"), Some("real")));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
