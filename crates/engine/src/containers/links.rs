//! `--link` between containers: what a link means, the names that it gives, and how it goes.
//!
//! A link is kept in the record of the container that has it (the parent) as `ID:ALIAS`, so a rename
//! of either does not change its meaning. While both exist the target is also known as
//! `PARENT/ALIAS`. What a link does on a network is elsewhere: names on user-defined networks in
//! `networks::names`, the environment in [`super::link_env`].
//!
//! Source: moby 28.2 `daemon/daemon_unix.go` (`registerLinks`), `daemon/links.go`,
//! `daemon/delete.go` (`rmLink`), `daemon/container_operations_unix.go` (`getLegacyLinkEnv`).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spec::Id;

use super::lifecycle::change;
use super::record::Record;
use super::registry::ContainerHandle;
use super::spec::{ContainerSpec, NetworkMode};
use super::step::Phase;
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::networks::link_parts;
use crate::workloads::files::files_in;
use crate::{Engine, Inner, words};

/// How long a start waits for a target that is about to run, as after the host's restart.
const TARGET_PATIENCE: Duration = Duration::from_secs(5);

/// Finds the targets of a new container's links, and keeps their ids instead of their names.
///
/// # Errors
/// `Invalid` for a target that does not exist or cannot be linked to.
pub(crate) fn resolve(engine: &Inner, spec: &mut ContainerSpec) -> Result<()> {
    let legacy = is_legacy(spec);
    for link in &mut spec.host.links {
        if link.is_empty() {
            return Err(Error::invalid("empty string specified for links"));
        }
        if link.split(':').count() > 2 {
            return Err(Error::invalid(format!("bad format for links: {link}")));
        }
        if !legacy {
            // A name on the network, whose owner may come and go.
            continue;
        }
        let (name, alias) = link_parts(link);
        let mut target = find(engine, name)?;
        let mut seen = BTreeSet::from([target.id]);
        while let NetworkMode::Container(other) = &target.now().record.spec.host.network {
            target = find(engine, other)?;
            if !seen.insert(target.id) {
                break;
            }
        }
        if target.now().record.spec.host.network == NetworkMode::Host {
            return Err(words::link_to_host_network());
        }
        *link = format!("{}:{alias}", target.id);
    }
    Ok(())
}

/// Whether links are bonds between containers, made at create. On a user-defined network they are
/// names alone.
///
/// Source: moby 28.2 `daemon/daemon_unix.go`, `registerLinks`.
fn is_legacy(spec: &ContainerSpec) -> bool {
    !matches!(spec.host.network, NetworkMode::Named(_))
}

/// Not `NotFound`: clients take that for a missing image.
fn find(engine: &Inner, name: &str) -> Result<Arc<ContainerHandle>> {
    engine.containers.resolve(name).map_err(|error| {
        Error::invalid(format!("could not get container for {name}: {}", error.message))
    })
}

/// The links of a container with their targets; those whose target is gone are void.
fn links_of<'a>(
    engine: &'a Inner,
    record: &'a Record,
) -> impl Iterator<Item = (&'a str, Arc<ContainerHandle>)> {
    record.spec.host.links.iter().filter(|_| is_legacy(&record.spec)).filter_map(|link| {
        let (target, alias) = link_parts(link);
        Some((alias, engine.containers.resolve(target).ok()?))
    })
}

/// As inspect shows them: `/db:/web/alias`.
pub(crate) fn shown(engine: &Inner, record: &Record) -> Vec<String> {
    if !is_legacy(&record.spec) {
        return record.spec.host.links.clone();
    }
    let links = links_of(engine, record);
    links
        .map(|(alias, target)| format!("/{}:/{}/{alias}", target.now().record.name, record.name))
        .collect()
}

/// The names that links give their targets: `web/alias`.
pub(crate) fn names(engine: &Inner) -> HashMap<Id, Vec<String>> {
    let mut names: HashMap<Id, Vec<String>> = HashMap::new();
    for parent in engine.containers.all() {
        let view = parent.now();
        for (alias, target) in links_of(engine, &view.record) {
            names.entry(target.id).or_default().push(format!("{}/{alias}", view.record.name));
        }
    }
    for names in names.values_mut() {
        names.sort();
    }
    names
}

/// Whether any container has a link to this one.
pub(crate) fn is_target(engine: &Inner, id: &Id) -> bool {
    let id = id.to_string();
    let links_to =
        |record: &Record| record.spec.host.links.iter().any(|link| link_parts(link).0 == id);
    engine.containers.all().iter().any(|parent| links_to(&parent.now().record))
}

/// Refuses a start whose links on the default bridge lead to what does not run. Blocking.
pub(crate) fn check_running(engine: &Inner, record: &Record) -> Result<()> {
    if !record.spec.endpoints.contains_key("bridge") {
        return Ok(());
    }
    let deadline = Instant::now() + TARGET_PATIENCE;
    for (alias, target) in links_of(engine, record) {
        loop {
            match target.now().phase {
                Phase::Running { .. } | Phase::Paused { .. } => break,
                Phase::Starting { .. } | Phase::Backoff { .. } if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Phase::Created { .. }
                | Phase::Starting { .. }
                | Phase::Backoff { .. }
                | Phase::Stopping { .. }
                | Phase::Exited { .. }
                | Phase::Removing { .. }
                | Phase::Dead { .. }
                | Phase::Gone => {
                    let name = &target.now().record.name;
                    return Err(words::link_not_running(name, &record.name, alias));
                }
            }
        }
        let there = target.now();
        if !there.record.spec.endpoints.contains_key("bridge") {
            return Err(words::link_elsewhere(&there.record.name));
        }
    }
    Ok(())
}

/// Tells the running containers that link to one on the default bridge where it is now. Blocking.
pub(crate) fn tell_parents(engine: &Inner, target: &Record) {
    let address = |id: &Id| {
        let view = engine.containers.resolve(&id.to_string()).ok()?.now();
        let endpoint = view.attachment.as_ref()?.endpoints.get("bridge")?;
        endpoint.addresses().next()
    };
    let Some(now) = address(&target.id) else { return };
    for parent in engine.containers.all() {
        let view = parent.now();
        if view.phase.run().is_none() || address(&parent.id).is_none() {
            continue;
        }
        let files = files_in(&engine.config.container_dir(&parent.id));
        for (alias, found) in links_of(engine, &view.record) {
            if found.id != target.id {
                continue;
            }
            let line = format!("{now}\t{}\n", host_names(alias, target).join(" "));
            if let Err(error) = replace_line(&files.hosts, alias, &line) {
                tracing::warn!(container = %parent.id, %error, "the link's address is out of date");
            }
        }
    }
}

/// What stands behind a link's address in `/etc/hosts`.
fn host_names(alias: &str, target: &Record) -> Vec<String> {
    let mut names = vec![alias.to_owned()];
    for name in [&target.hostname, &target.name] {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Puts `line` where a line has `alias` as its first name; the file is mounted, so it is changed in
/// place.
fn replace_line(path: &Path, alias: &str, line: &str) -> std::io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let of_alias = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().is_some_and(|word| word.parse::<IpAddr>().is_ok());
        address && words.next() == Some(alias)
    };
    let replaced: String =
        text.split_inclusive('\n').map(|old| if of_alias(old) { line } else { old }).collect();
    if replaced == text { Ok(()) } else { std::fs::write(path, replaced) }
}

impl Engine {
    /// Takes a link away: `PARENT/ALIAS`.
    ///
    /// # Errors
    /// When there is no such link.
    pub(crate) async fn remove_link(&self, asked: &str) -> Result<()> {
        let target = self.container(asked)?;
        let path = asked.strip_prefix('/').unwrap_or(asked);
        // A plain name is the container's own.
        let (parent, alias) = path.split_once('/').ok_or_else(words::default_link)?;
        let parent = self.container(parent)?;
        let view = parent.now();
        let gone = format!("{}:{alias}", target.id);
        let forget = move |record: &mut Record, _: &mut Option<crate::networks::Attachment>| {
            record.spec.host.links.retain(|link| *link != gone);
            Ok(())
        };
        change(&parent, Box::new(forget)).await?;
        if view.phase.run().is_none() {
            return Ok(());
        }
        let hosts = files_in(&self.inner.config.container_dir(&parent.id)).hosts;
        let alias = alias.to_owned();
        let dropped = blocking(move || replace_line(&hosts, &alias, "")).await;
        dropped.map_err(|source| Error::because(Kind::Internal, "cannot write /etc/hosts", source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_links_own_line_changes() {
        let path = std::env::temp_dir().join(format!("tug-links-{}", std::process::id()));
        std::fs::write(&path, "127.0.0.1\tlocalhost\n172.17.0.2\tdb 0a1b\n# db\n").unwrap();
        replace_line(&path, "db", "172.17.0.9\tdb 0a1b\n").unwrap();
        let now = std::fs::read_to_string(&path).unwrap();
        assert_eq!(now, "127.0.0.1\tlocalhost\n172.17.0.9\tdb 0a1b\n# db\n");
        replace_line(&path, "db", "").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "127.0.0.1\tlocalhost\n# db\n");
        std::fs::remove_file(&path).unwrap();
    }
}
