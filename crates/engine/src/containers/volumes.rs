//! A container's volumes and image mounts: found or made, filled, removed. All blocking.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use store::{Creation, Volume, VolumeMount, VolumeSpec};
use tracing::warn;

use super::mounts::Mount;
use super::record::Record;
use super::spec::MountKind;
use crate::Inner;
use crate::error::{Error, Kind, Result, chain};
use crate::events::EventType;

/// What a volume's files are seen through.
pub(crate) enum Place {
    Directory(PathBuf),
    /// To be mounted where it is used.
    FileSystem(VolumeMount),
}

/// Where the volume's files are; makes the volume when it does not exist.
///
/// # Errors
/// As mount(2) would say it of a volume that shows a directory which is not there.
pub(crate) fn place(engine: &Inner, mount: &Mount) -> Result<Place> {
    let volume = ensure(engine, mount)?;
    let Some(file_system) = volume.mount() else {
        return Ok(Place::Directory(volume.mountpoint));
    };
    if !file_system.is_bind() {
        return Ok(Place::FileSystem(file_system));
    }
    let source = PathBuf::from(&file_system.source);
    match std::fs::metadata(&source) {
        Ok(_) => Ok(Place::FileSystem(file_system)),
        Err(error) => {
            let target = volume.mountpoint.display();
            let text = format!(
                "error while mounting volume '{target}': failed to mount local volume: mount {}:{target}, flags: 0x1000",
                source.display()
            );
            Err(Error::because(Kind::Internal, text, error))
        }
    }
}

/// The volume; makes it when it does not exist.
pub(crate) fn ensure(engine: &Inner, mount: &Mount) -> Result<Volume> {
    let wish = VolumeSpec {
        driver: mount.driver.clone(),
        options: mount.driver_options.clone(),
        labels: labels(mount),
        anonymous: mount.anonymous,
    };
    let (volume, creation) = engine
        .store
        .volume_create(&mount.name, &wish)
        .map_err(|source| Error::caused(Kind::Invalid, source))?;
    if creation == Creation::Created {
        let attributes = BTreeMap::from([("driver".to_owned(), volume.driver.clone())]);
        engine.events.publish(EventType::Volume, "create", volume.name.clone(), attributes);
    }
    Ok(volume)
}

fn labels(mount: &Mount) -> BTreeMap<String, String> {
    let mut labels = mount.labels.clone();
    if mount.anonymous {
        // Source: moby `volume/service/service.go`, AnonymousLabel.
        labels.insert("com.docker.volume.anonymous".to_owned(), String::new());
    }
    labels
}

/// Makes the volumes of a new container and fills the empty ones from its image.
pub(crate) fn create_all(engine: &Inner, record: &Record) -> Result<()> {
    let mut root = None;
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        place(engine, mount)?;
        if mount.no_copy {
            continue;
        }
        // What is copied into a file system of its own would have to be seen again at the next mount;
        // of a tmpfs nothing is.
        let Some(directory) = ensure(engine, mount)?.directory() else { continue };
        let tree = match &root {
            Some(tree) => tree,
            None => root.insert(
                engine
                    .store
                    .snapshot_mount(&record.id.to_string())
                    .map_err(|source| Error::caused(Kind::Internal, source))?,
            ),
        };
        fill(engine, mount, &directory, tree.as_fd())?;
    }
    Ok(())
}

/// Fills a volume, or the part of it that is mounted, with what the image has at its place.
fn fill(engine: &Inner, mount: &Mount, directory: &Path, tree: BorrowedFd<'_>) -> Result<()> {
    let target = Path::new(&mount.destination);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    if sys::fs::open_in_root(tree, target, flags, Mode::empty()).is_err() {
        return Ok(());
    }
    let data = if mount.subpath.is_empty() {
        sys::fs::open_dir(directory)
    } else {
        let found = super::mount_sources::open_subpath(directory, &mount.subpath)?;
        sys::fs::open_dir_at(found.as_fd(), ".")
    };
    let data = match data {
        // A subpath may be a file, which holds what it holds.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(()),
        other => other.map_err(|source| {
            Error::because(Kind::Internal, format!("cannot open {}", directory.display()), source)
        })?,
    };
    engine
        .store
        .volume_copy_up(&mount.name, data.as_fd(), tree, target)
        .map_err(|source| Error::caused(Kind::Internal, source))
}

/// An image's tree for `--mount type=image`, mounted nowhere.
pub(crate) fn image_tree(engine: &Inner, mount: &Mount) -> Result<OwnedFd> {
    let image = super::create::find_image(engine, &mount.name)?;
    let tree = engine.store.mount_chain(&image.layers);
    tree.map_err(|source| Error::caused(Kind::Internal, source))
}

/// Removes the volumes that were made for this container alone and that nobody else uses.
pub(crate) fn remove_anonymous(engine: &Inner, record: &Record) {
    for mount in
        record.mounts.iter().filter(|mount| mount.anonymous && mount.kind == MountKind::Volume)
    {
        let used = users(engine, &mount.name).into_iter().any(|id| id != record.id);
        if used {
            continue;
        }
        match engine.store.volume_remove(&mount.name) {
            Ok(()) => {
                let attributes = BTreeMap::from([("driver".to_owned(), mount.driver.clone())]);
                engine.events.publish(EventType::Volume, "destroy", mount.name.clone(), attributes);
            }
            Err(store::VolumeError::Missing(_)) => {}
            Err(error) => {
                warn!(volume = mount.name, error = chain(&error), "anonymous volume left behind")
            }
        }
    }
}

/// The containers that mount a volume.
pub(crate) fn users(engine: &Inner, name: &str) -> Vec<spec::Id> {
    let uses = |record: &Record| {
        record.mounts.iter().any(|mount| mount.kind == MountKind::Volume && mount.name == name)
    };
    engine
        .containers
        .all()
        .iter()
        .filter(|container| uses(&container.now().record))
        .map(|container| container.id)
        .collect()
}
