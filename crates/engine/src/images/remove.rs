//! Removing and pruning images: which names and images go, and what stands in the way.
//!
//! A name can always go while the image keeps another. The last name, or an id, takes the image
//! along, unless a container uses it: a running one forbids it, anything else only asks for force.
//!
//! Of an image that is here for several platforms some can go: [`super::remove_platform`].
//!
//! Source: moby `daemon/images/image_delete.go`, `image_prune.go`.

use std::sync::Arc;

use spec::{ImageId, Reference};

use super::{User, by_id, chain_of, created, not_found, tell, until, users};
use crate::blocking::blocking;
use crate::containers::find_image;
use crate::error::{Error, Kind, Result};
use crate::events::EventType;
use crate::filters::Filters;
use crate::{Engine, Inner, words};

/// How an image is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    pub force: Force,
    pub parents: Parents,
}

/// Whether stopped containers and several names stand in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    No,
    Yes,
}

/// What happens to nameless parents that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    Remove,
    Keep,
}

impl Removal {
    #[must_use]
    pub fn new(force: Force, parents: Parents) -> Self {
        Self { force, parents }
    }
}

/// One line of what a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name, familiar.
    Untagged(String),
    /// An image's id or a layer's chain id.
    Deleted(String),
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    pub removed: Vec<Removed>,
    /// Bytes.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes a name, and the image with its last one.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when a container or another image needs it.
    pub async fn remove_image(&self, asked: &str, removal: Removal) -> Result<Vec<Removed>> {
        let (engine, asked) = (Arc::clone(&self.inner), asked.to_owned());
        blocking(move || remove(&engine, &asked, removal)).await
    }

    /// Removes images that nobody uses: nameless ones, or with `dangling=false` all.
    ///
    /// # Errors
    /// `Invalid` for an unknown filter; `Conflict` while another prune runs.
    pub async fn prune_images(&self, filters: Filters) -> Result<PruneReport> {
        let _alone = self.inner.pruning_images.try_lock().map_err(|_| words::prune_running())?;
        let engine = Arc::clone(&self.inner);
        blocking(move || prune(&engine, &filters)).await
    }
}

/// Blocking.
pub(crate) fn remove(engine: &Inner, asked: &str, removal: Removal) -> Result<Vec<Removed>> {
    let image = find_image(engine, asked)?;
    let id = image.id;
    let references = engine.store.references(&id);
    let mut removed = Vec::new();
    let mut quiet = Quiet::No;
    if by_id(&id, asked) && !is_name(engine, asked) {
        if one_repository(&references) {
            check_conflicts(
                engine,
                &id,
                Checks { references: false, soft: removal.force == Force::No },
            )?;
            untag_all(engine, &references, &id, &mut removed)?;
        }
    } else {
        let name =
            Reference::parse(asked).map_err(|source| Error::caused(Kind::Invalid, source))?;
        if removal.force == Force::No
            && one_repository(&references)
            && let Some(user) = users(engine, &id).first()
        {
            return Err(name_in_use(asked, user, &id));
        }
        if !untag(engine, &name, &id, &mut removed)? {
            return Err(not_found(asked));
        }
        drop_lonely_digests(engine, &name, &id, &mut removed)?;
        if !engine.store.references(&id).is_empty() {
            return Ok(removed);
        }
        quiet = Quiet::Yes;
    }
    delete(engine, &id, removal, quiet, &mut removed)?;
    Ok(removed)
}

/// Whether a conflict ends the removal silently, as the name that was asked for is gone already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    No,
    Yes,
}

/// A digest says where a tag came from; without any tag of its repository it says nothing.
fn drop_lonely_digests(
    engine: &Inner,
    name: &Reference,
    id: &ImageId,
    removed: &mut Vec<Removed>,
) -> Result<()> {
    if name.digest().is_some() {
        return Ok(());
    }
    let left = engine.store.references(id);
    let same: Vec<&Reference> = left.iter().filter(|other| other.name() == name.name()).collect();
    if same.iter().any(|other| other.digest().is_none()) {
        return Ok(());
    }
    for digest in same {
        untag(engine, digest, id, removed)?;
    }
    Ok(())
}

fn untag(
    engine: &Inner,
    name: &Reference,
    id: &ImageId,
    removed: &mut Vec<Removed>,
) -> Result<bool> {
    let gone = engine.store.untag(name).map_err(|source| Error::caused(Kind::Internal, source))?;
    if gone.is_some() {
        tell(engine, "untag", id, &id.to_string());
        removed.push(Removed::Untagged(name.familiar()));
    }
    Ok(gone.is_some())
}

fn untag_all(
    engine: &Inner,
    names: &[Reference],
    id: &ImageId,
    removed: &mut Vec<Removed>,
) -> Result<()> {
    for name in names {
        untag(engine, name, id, removed)?;
    }
    Ok(())
}

/// At most one tag, and all names in one repository; not for an image without names.
fn one_repository(names: &[Reference]) -> bool {
    let tags = names.iter().filter(|name| name.digest().is_none()).count();
    let Some(first) = names.first() else { return false };
    tags <= 1 && names.iter().all(|name| name.name() == first.name())
}

pub(super) fn delete(
    engine: &Inner,
    id: &ImageId,
    removal: Removal,
    quiet: Quiet,
    removed: &mut Vec<Removed>,
) -> Result<()> {
    let mut next = Some((*id, removal.force, quiet));
    while let Some((id, force, quiet)) = next.take() {
        let soft = force == Force::No;
        if let Err(conflict) = check_conflicts(engine, &id, Checks { references: soft, soft }) {
            return match quiet {
                Quiet::Yes => Ok(()),
                Quiet::No => Err(conflict),
            };
        }
        let Some(image) = engine.store.image(&id) else { return Ok(()) };
        let references = engine.store.references(&id);
        untag_all(engine, &references, &id, removed)?;
        let layers = engine
            .store
            .image_remove(&id)
            .map_err(|source| Error::caused(Kind::Internal, source))?;
        let attributes = std::collections::BTreeMap::from([("name".to_owned(), id.to_string())]);
        engine.events.publish(EventType::Image, "delete", id.to_string(), attributes);
        removed.push(Removed::Deleted(id.to_string()));
        let chains = layers.iter().filter_map(|key| chain_of(&image, key));
        removed.extend(chains.map(|chain| Removed::Deleted(chain.to_string())));
        if removal.parents == Parents::Remove {
            next = image.parent.map(|parent| (parent, Force::No, Quiet::Yes));
        }
    }
    Ok(())
}

/// What is looked at besides children and running containers, which always forbid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checks {
    pub(super) references: bool,
    pub(super) soft: bool,
}

pub(super) fn check_conflicts(engine: &Inner, id: &ImageId, checks: Checks) -> Result<()> {
    let conflict = |forced: &str, why: String| {
        Err(Error::conflict(format!(
            "conflict: unable to delete {} ({forced}) - {why}",
            id.short()
        )))
    };
    let (never, must) = ("cannot be forced", "must be forced");
    if !engine.store.image_children(id).is_empty() {
        return conflict(never, "image has dependent child images".to_owned());
    }
    let users = users(engine, id);
    if let Some(user) = users.iter().find(|user| user.running) {
        return conflict(
            never,
            format!("image is being used by running container {}", user.id.short()),
        );
    }
    if checks.references && !engine.store.references(id).is_empty() {
        return conflict(must, "image is referenced in multiple repositories".to_owned());
    }
    if let (true, Some(user)) = (checks.soft, users.first()) {
        return conflict(
            must,
            format!("image is being used by stopped container {}", user.id.short()),
        );
    }
    Ok(())
}

fn name_in_use(asked: &str, user: &User, id: &ImageId) -> Error {
    Error::conflict(format!(
        "conflict: unable to remove repository reference \"{asked}\" (must force) - \
         container {} is using its referenced image {}",
        user.id.short(),
        id.short()
    ))
}

fn prune(engine: &Inner, filters: &Filters) -> Result<PruneReport> {
    filters.only(&["dangling", "label", "label!", "until"])?;
    let dangling = filters.boolean("dangling")?.unwrap_or(true);
    let until = until(filters)?;
    let before = super::layers_size(engine);
    let mut report = PruneReport::default();
    let mut images = engine.store.images();
    images.sort_by_key(|image| image.id);
    for image in images {
        let references = engine.store.references(&image.id);
        let intermediate =
            references.is_empty() && !engine.store.image_children(&image.id).is_empty();
        let tagged = references.iter().any(|name| name.digest().is_none());
        if intermediate
            || (dangling && tagged)
            || until.is_some_and(|bound| created(&image) > bound)
            || !filters.labels(&image.config.config.labels)
            || !users(engine, &image.id).is_empty()
        {
            continue;
        }
        let mut names: Vec<String> = references.iter().map(Reference::familiar).collect();
        if names.is_empty() {
            names.push(image.id.to_string());
        }
        for name in names {
            match remove(engine, &name, Removal::new(Force::No, Parents::Remove)) {
                Ok(removed) => report.removed.extend(removed),
                // Used or removed since it was looked at.
                Err(error) if matches!(error.kind, Kind::Conflict | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }
    engine.store.sweep_content();
    report.reclaimed = before.saturating_sub(super::layers_size(engine));
    let attributes =
        std::collections::BTreeMap::from([("reclaimed".to_owned(), report.reclaimed.to_string())]);
    engine.events.publish(EventType::Image, "prune", "", attributes);
    Ok(report)
}

/// A name may look like the beginning of an id, and then it is the name.
fn is_name(engine: &Inner, asked: &str) -> bool {
    Reference::parse(asked).is_ok_and(|name| engine.store.resolve_tag(&name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], want: bool) {
        let names: Vec<Reference> =
            names.iter().map(|name| Reference::parse(name).unwrap()).collect();
        assert_eq!(one_repository(&names), want);
    }

    #[test]
    fn an_id_stands_for_all_names_only_within_one_repository() {
        let digest = format!("app@sha256:{}", "a".repeat(64));
        check(&[], false);
        check(&["app:1"], true);
        check(&["app:1", &digest], true);
        check(&["app:1", "app:2"], false);
        check(&["app:1", "other:1"], false);
    }
}
