//! A container's tree from outside: changes, export, copy in and out, commit.
//!
//! What the tree is, is told in [`super::assemble`]. Paths are resolved by descriptor and never leave the
//! root.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use store::archive::{self, ArchiveError, Destination};
use store::{TarError, TreeError};
use sys::path::Root;

use super::assemble::{Assembled, Own, assemble};
use super::events;
use super::step::Phase;
use super::task::View;
use super::views::{Change, ChangeKind, ExtractOptions, PathStat};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result, chain};
use crate::stream::{self, ByteStream, StreamWriter};
use crate::{Engine, Inner, words};

/// Blocking.
fn tree(engine: &Inner, view: &View) -> Result<Assembled> {
    let id = view.record.id;
    if matches!(view.phase, Phase::Removing { .. } | Phase::Dead { .. } | Phase::Gone) {
        return Err(Error::conflict(format!(
            "container {id} is marked for removal and cannot be copied from"
        )));
    }
    assemble(engine, &view.record, Own::find(engine, view)?)
}

/// Docker's words and kinds for what goes wrong with archives.
fn worded(error: ArchiveError, asked: &str, path: &str) -> Error {
    // A read-only mount that the path leads to by a link.
    if is_errno(&error, Errno::ROFS) {
        return words::read_only_volume();
    }
    match error {
        ArchiveError::Missing(_) => words::no_such_file_in(asked, path),
        ArchiveError::NotADirectory(_) => Error::invalid("extraction point is not a directory"),
        ArchiveError::SlashOnFile(_) => Error::invalid("not a directory"),
        ArchiveError::Tree(TreeError::DirectoryByOther(there)) => {
            words::directory_by_other(&Path::new(path).join(there), Path::new(path))
        }
        ArchiveError::Tree(TreeError::OtherByDirectory(there)) => {
            words::other_by_directory(&Path::new(path).join(there), Path::new(path))
        }
        error @ ArchiveError::Tar(TarError::Unpacker(_)) => Error::caused(Kind::Internal, error),
        error @ ArchiveError::Tar(_) => Error::caused(Kind::Invalid, error),
        error @ ArchiveError::Tree(_) => Error::caused(Kind::Invalid, error),
        error @ (ArchiveError::Look { .. }
        | ArchiveError::Write(_)
        | ArchiveError::Walk(_)
        | ArchiveError::Times(_)
        | ArchiveError::WriteFile { .. }) => Error::caused(Kind::Internal, error),
    }
}

fn is_errno(error: &(dyn std::error::Error + 'static), wanted: Errno) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && Errno::from_io_error(error) == Some(wanted)
        {
            return true;
        }
        next = error.source();
    }
    false
}

impl Engine {
    /// What differs from the image, sorted by path.
    ///
    /// # Errors
    /// `NotFound`, or `Internal` when the layer cannot be read.
    pub async fn container_changes(&self, asked: &str) -> Result<Vec<Change>> {
        let container = self.container(asked)?;
        let (engine, id) = (Arc::clone(&self.inner), container.id.to_string());
        let changes = blocking(move || engine.store.snapshot_changes(&id)).await;
        let changes = changes.map_err(|source| Error::caused(Kind::Internal, source))?;
        let convert = |change: store::Change| Change {
            kind: match change.kind {
                store::ChangeKind::Modified => ChangeKind::Modified,
                store::ChangeKind::Added => ChangeKind::Added,
                store::ChangeKind::Deleted => ChangeKind::Deleted,
            },
            path: change.path.to_string_lossy().into_owned(),
        };
        Ok(changes.into_iter().map(convert).collect())
    }

    /// The whole tree as a tar, without mounts.
    ///
    /// # Errors
    /// `NotFound`, or `Internal` when the tree cannot be mounted.
    pub async fn export_container(&self, asked: &str) -> Result<ByteStream> {
        let container = self.container(asked)?;
        let view = container.now();
        let (engine, found) = (Arc::clone(&self.inner), Arc::clone(&view));
        let own = blocking(move || Own::find(&engine, &found)).await?;
        let (writer, stream) = stream::channel();
        tokio::task::spawn_blocking(move || {
            write_tar(writer, |out| archive::export(own.root().as_fd(), out))
        });
        events::publish(&self.inner, &view.record, "export", &[]);
        Ok(stream)
    }

    /// What is at a path.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stat_path(&self, asked: &str, path: &str) -> Result<PathStat> {
        let view = self.container(asked)?.now();
        let (engine, path, name) = (Arc::clone(&self.inner), path.to_owned(), asked.to_owned());
        blocking(move || stat(&tree(&engine, &view)?, &name, &path)).await
    }

    /// A tar of what is at a path.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn read_archive(&self, asked: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let view = self.container(asked)?.now();
        let record = Arc::clone(&view.record);
        let (engine, path, name) = (Arc::clone(&self.inner), path.to_owned(), asked.to_owned());
        let place = path.clone();
        let (root, stat) = blocking(move || -> Result<_> {
            let root = tree(&engine, &view)?;
            let stat = stat(&root, &name, &path)?;
            Ok((root, stat))
        })
        .await?;
        let (writer, stream) = stream::channel();
        tokio::task::spawn_blocking(move || {
            write_tar(writer, |out| archive::tar_path(root.as_fd(), Path::new(&place), out));
        });
        events::publish(&self.inner, &record, "archive-path", &[]);
        Ok((stat, stream))
    }

    /// Unpacks a tar, compressed or not, into the directory `path`.
    ///
    /// # Errors
    /// `NotFound` without the directory; `Invalid` for a read-only place and for a bad archive.
    pub async fn write_archive(
        &self,
        asked: &str,
        path: &str,
        options: ExtractOptions,
        tar: impl Read + Send + 'static,
    ) -> Result<()> {
        let view = self.container(asked)?.now();
        check_writable(&view, path)?;
        let record = Arc::clone(&view.record);
        let (engine, path, name) = (Arc::clone(&self.inner), path.to_owned(), asked.to_owned());
        blocking(move || {
            let root = tree(&engine, &view)?;
            let overwrite = if options.no_overwrite_dir_non_dir {
                store::Overwrite::SameKind
            } else {
                store::Overwrite::Anything
            };
            let (owner, limits) = (owner(&view, &root, options)?, engine.store.unpack_limits());
            let extract = archive::ExtractOptions { overwrite, owner, limits };
            let worded = |error| worded(error, &name, &path);
            let directory = archive::open_directory(root.as_fd(), Path::new(&path));
            let mount = root.detached(&directory.map_err(worded)?)?;
            engine
                .store
                .extract(Destination::Detached(mount.as_fd()), tar, &extract)
                .map_err(worded)
        })
        .await?;
        events::publish(&self.inner, &record, "extract-to-dir", &[]);
        Ok(())
    }
}

fn stat(root: &Assembled, asked: &str, path: &str) -> Result<PathStat> {
    let found = archive::stat_path(root.as_fd(), Path::new(path))
        .map_err(|error| worded(error, asked, path))?;
    let since =
        std::time::Duration::new(u64::try_from(found.mtime.secs).unwrap_or(0), found.mtime.nanos);
    Ok(PathStat {
        name: found.name.to_string_lossy().into_owned(),
        size: found.size,
        mode: found.mode,
        modified: std::time::UNIX_EPOCH + since,
        link_target: found.link_target.to_string_lossy().into_owned(),
    })
}

/// `copyUIDGID`: what is copied belongs to the container's user, where it has one.
///
/// Source: moby `daemon/archive_tarcopyoptions_unix.go`.
fn owner(view: &View, root: &Assembled, options: ExtractOptions) -> Result<Option<(u32, u32)>> {
    let user = &view.record.spec.config.user;
    if !options.copy_uid_gid || user.is_empty() {
        return Ok(None);
    }
    let root = Root::new(root.as_fd().try_clone_to_owned().map_err(|source| {
        Error::because(Kind::Internal, "cannot look up the container's user", source)
    })?);
    runtime::find_user(&root, user).map(Some).map_err(Error::invalid)
}

fn check_writable(view: &View, path: &str) -> Result<()> {
    let path = super::mounts::clean(path);
    let below = |place: &str| {
        path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
    };
    let mount = view.record.mounts.iter().rev().find(|mount| below(&mount.destination));
    match mount {
        Some(mount) if mount.read_only => Err(words::read_only_volume()),
        Some(_) => Ok(()),
        None if view.record.spec.host.read_only_rootfs => Err(words::read_only_rootfs()),
        None => Ok(()),
    }
}

/// Runs on a thread of its own; a failure ends the stream with an error.
fn write_tar(
    mut writer: StreamWriter,
    write: impl FnOnce(&mut StreamWriter) -> std::result::Result<(), ArchiveError>,
) {
    if let Err(error) = write(&mut writer) {
        writer.fail(io::Error::other(chain(&error)));
    }
}
