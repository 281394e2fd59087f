//! Removing some platforms of an image that is here for several: `DELETE /images/…?platforms=`.
//!
//! An index stays as it is named; the manifest of a platform goes, and with it what it alone reaches.
//! Children that are missing are nothing odd (`store::content`), so a later pull brings one back.
//! Where the platform that a name runs as goes, the name runs as one that stays. An image of which
//! nothing would stay is removed as any other.
//!
//! Source: moby 28.2 `daemon/containerd/image_delete.go`; API 1.50.

use std::sync::Arc;

use spec::{ImageId, Platform, Reference};
use store::{Child, Image, Target};

use super::content::{lacks_platform, unpack};
use super::remove::{Checks, Force, Quiet, Removal, Removed, check_conflicts, delete, remove};
use crate::blocking::blocking;
use crate::containers::find_image;
use crate::error::{Error, Kind, Result};
use crate::{Engine, Inner};

impl Engine {
    /// Removes what an image is for these platforms.
    ///
    /// # Errors
    /// `NotFound`, also where it has no such platform; `Conflict` when something needs it.
    pub async fn remove_image_platforms(
        &self,
        asked: &str,
        removal: Removal,
        platforms: Vec<Platform>,
    ) -> Result<Vec<Removed>> {
        let (engine, asked) = (Arc::clone(&self.inner), asked.to_owned());
        blocking(move || remove_platforms(&engine, &asked, removal, &platforms)).await
    }
}

/// Whether both run the same: nothing else than what was asked for may go.
fn is_same(one: &Platform, other: &Platform) -> bool {
    one.runs(other) && other.runs(one)
}

fn remove_platforms(
    engine: &Inner,
    asked: &str,
    removal: Removal,
    platforms: &[Platform],
) -> Result<Vec<Removed>> {
    let image = find_image(engine, asked)?;
    let store = &engine.store;
    let own = Reference::parse(asked).ok().and_then(|name| store.content(&name));
    let names = store.references(&image.id);
    let target = own.or_else(|| names.iter().find_map(|name| store.content(name)));
    let children = target.as_ref().map(|target| store.children(target)).unwrap_or_default();
    let here: Vec<(Platform, Child)> = children
        .into_iter()
        .filter_map(|child| Some((child.config(store)?.platform(), child)))
        .filter(|(_, child)| child.is_of(&image.id) || child.is_whole(store))
        .collect();
    let offered: Vec<Platform> = match here.is_empty() {
        true => vec![image.config.platform()],
        false => here.iter().map(|(platform, _)| platform.clone()).collect(),
    };
    for wanted in platforms {
        if !offered.iter().any(|offered| is_same(wanted, offered)) {
            return Err(lacks_platform(asked, &image, offered.len(), wanted));
        }
    }
    let goes = |platform: &Platform| platforms.iter().any(|wanted| is_same(wanted, platform));
    let (gone, kept): (Vec<_>, Vec<_>) = here.into_iter().partition(|(platform, _)| goes(platform));
    let (Some(target), Some((stays, _))) = (target, kept.first()) else {
        return remove(engine, asked, removal);
    };
    let removing = Removing { engine, image: &image, target: &target, removal };
    for (_, child) in &gone {
        removing.check(child)?;
    }
    let mut removed = Vec::new();
    for (_, child) in &gone {
        removing.remove(child, stays, &mut removed)?;
    }
    store.sweep_content();
    engine.flush()?;
    Ok(removed)
}

struct Removing<'a> {
    engine: &'a Inner,
    image: &'a Image,
    target: &'a Target,
    removal: Removal,
}

impl Removing<'_> {
    /// The image that a manifest is of, where it is unpacked.
    fn unpacked(&self, child: &Child) -> Option<ImageId> {
        let id = ImageId(child.manifest.as_ref()?.config.digest);
        self.engine.store.image(&id).map(|image| image.id)
    }

    fn check(&self, child: &Child) -> Result<()> {
        let store = &self.engine.store;
        let digest = child.descriptor.digest;
        let multiple = |id: &ImageId| {
            Error::conflict(format!(
                "conflict: unable to delete {} (cannot be forced) - image is referenced in multiple repositories",
                id.short()
            ))
        };
        let is_named = |(_, target): &(Reference, Target)| target.digest == digest;
        if store.all_content_names().iter().any(is_named) {
            return Err(multiple(&ImageId(digest)));
        }
        let Some(id) = self.unpacked(child) else { return Ok(()) };
        // Names that came another way do not follow this index to another platform.
        let is_other = |name: &Reference| store.content(name).as_ref() != Some(self.target);
        if store.references(&id).iter().any(is_other) {
            return Err(multiple(&id));
        }
        let soft = self.removal.force == Force::No;
        check_conflicts(self.engine, &id, Checks { references: false, soft })
    }

    fn remove(&self, child: &Child, stays: &Platform, removed: &mut Vec<Removed>) -> Result<()> {
        let store = &self.engine.store;
        let unpacked = self.unpacked(child);
        let names = unpacked.map(|id| store.references(&id)).unwrap_or_default();
        if !names.is_empty() {
            let next = unpack(store, self.target, stays)?
                .ok_or_else(|| Error::internal(format!("{stays} of {} is gone", self.image.id)))?;
            for name in names {
                let named = store.tag_as(&name, &next, Some(self.target.clone()));
                named.map_err(|source| Error::caused(Kind::Internal, source))?;
            }
        }
        store.remove_blob(&child.descriptor.digest);
        removed.push(Removed::Deleted(child.descriptor.digest.to_string()));
        match unpacked {
            Some(id) => delete(self.engine, &id, self.removal, Quiet::Yes, removed),
            None => Ok(()),
        }
    }
}
