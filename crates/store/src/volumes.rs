//! Volumes: directories that outlive containers.
//!
//! ```text
//! volumes/<name>/_data          what containers see
//! volumes/<name>/volume.json    labels and options
//! ```
//! The one driver is `local`. With the options `type`, `device` and `o` a volume is a file system
//! that is mounted at `_data` while containers use it: [`Volume::mount`] says how, the engine does.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::records::{self, Durability, RecordError};
use crate::store::{State, Store};

pub const LOCAL: &str = "local";

/// What a volume is asked to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Empty means `local`.
    pub driver: String,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub anonymous: bool,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub anonymous: bool,
    /// RFC 3339.
    pub created_at: String,
    /// The `_data` directory.
    #[serde(skip)]
    pub mountpoint: PathBuf,
}

/// A file system to mount in place of a volume's directory, as mount(2) wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    pub fs_type: String,
    pub source: String,
    pub options: Vec<String>,
}

impl VolumeMount {
    /// Whether this shows a directory of the host rather than a file system.
    pub fn is_bind(&self) -> bool {
        self.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"))
    }
}

impl Volume {
    /// Where the files are, if that is a directory of the host.
    pub fn directory(&self) -> Option<PathBuf> {
        match self.mount() {
            None => Some(self.mountpoint.clone()),
            Some(mount) => mount.is_bind().then(|| PathBuf::from(mount.source)),
        }
    }

    /// What is to be mounted; none for a plain directory.
    pub fn mount(&self) -> Option<VolumeMount> {
        let option = |key| self.options.get(key).cloned().unwrap_or_default();
        if !["type", "device", "o"].iter().any(|key| self.options.contains_key(*key)) {
            return None;
        }
        let options =
            option("o").split(',').filter(|text| !text.is_empty()).map(str::to_owned).collect();
        Some(VolumeMount { fs_type: option("type"), source: option("device"), options })
    }
}

/// Whether a volume was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    Created,
    Existing,
}

/// Why something with a volume failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    NameTooShort,
    #[error(
        "\"{0}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path"
    )]
    Name(String),
    #[error("error looking up volume plugin {0}: plugin \"{0}\" not found")]
    Driver(String),
    #[error("invalid option: {0:?}")]
    Option(String),
    #[error("quota size requested but no quota support")]
    Quota,
    #[error("missing required option: {0:?}")]
    OptionMissing(&'static str),
    #[error("no such volume")]
    Missing(String),
    #[error("cannot make volume at {path:?}")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot fill volume {name}")]
    CopyUp { name: String, source: io::Error },
    #[error("cannot fill volume {name}")]
    Tree { name: String, source: crate::archive::ArchiveError },
    #[error(transparent)]
    Walk(#[from] crate::walk::WalkError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

#[derive(Default)]
pub(crate) struct Volumes {
    known: BTreeMap<String, Volume>,
}

impl Store {
    /// Makes a volume, or finds the one of that name, whatever its labels and options.
    pub fn volume_create(
        &self,
        name: &str,
        spec: &VolumeSpec,
    ) -> Result<(Volume, Creation), VolumeError> {
        check_name(name)?;
        if !matches!(spec.driver.as_str(), "" | LOCAL) {
            return Err(VolumeError::Driver(spec.driver.clone()));
        }
        check_options(&spec.options)?;
        let mut state = self.state();
        if let Some(existing) = state.volumes.known.get(name) {
            return Ok((existing.clone(), Creation::Existing));
        }
        let dir = self.volume_dir(name);
        let volume = Volume {
            name: name.to_owned(),
            driver: LOCAL.to_owned(),
            options: spec.options.clone(),
            labels: spec.labels.clone(),
            anonymous: spec.anonymous,
            created_at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            mountpoint: dir.join("_data"),
        };
        // A directory without a record is what a crash left of a creation.
        let make = || -> io::Result<()> {
            std::fs::create_dir_all(&volume.mountpoint)?;
            let data = sys::fs::open_dir(&volume.mountpoint)?;
            Ok(rustix::fs::fchmod(&data, Mode::from_raw_mode(0o755))?)
        };
        make().map_err(|source| VolumeError::Create { path: dir.clone(), source })?;
        let record = dir.join("volume.json");
        self.records().write_json(&record, &volume, Durability::Lazy)?;
        self.flushes().path(record);
        self.flushes().path(dir);
        state.volumes.known.insert(name.to_owned(), volume.clone());
        Ok((volume, Creation::Created))
    }

    pub fn volume(&self, name: &str) -> Option<Volume> {
        self.state().volumes.known.get(name).cloned()
    }

    /// Where a volume's files are.
    pub fn volume_mountpoint(&self, name: &str) -> Option<PathBuf> {
        self.state().volumes.known.get(name).map(|volume| volume.mountpoint.clone())
    }

    /// All volumes in the order of names.
    pub fn volumes(&self) -> Vec<Volume> {
        self.state().volumes.known.values().cloned().collect()
    }

    /// Removes a volume with its data, which is deleted in the background.
    pub fn volume_remove(&self, name: &str) -> Result<(), VolumeError> {
        let mut state = self.state();
        if state.volumes.known.remove(name).is_none() {
            return Err(VolumeError::Missing(name.to_owned()));
        }
        let trashed = self.to_trash(&self.volume_dir(name));
        drop(state);
        self.discard(trashed.into_iter().collect());
        Ok(())
    }

    /// Bytes of the files in a volume.
    pub fn volume_size(&self, name: &str) -> Result<u64, VolumeError> {
        let volume = self.volume(name).ok_or_else(|| VolumeError::Missing(name.to_owned()))?;
        let failed = |source| VolumeError::CopyUp { name: name.to_owned(), source };
        let data = sys::fs::open_dir(&volume.mountpoint).map_err(failed)?;
        Ok(crate::walk::size(data.as_fd())?)
    }

    /// Fills `data`, an empty directory of volume `name`, with what the tree below `root` has at
    /// `path`: content, owners, modes, attributes, and those of the directory itself. Does nothing if
    /// `data` is not empty or there is no such directory.
    ///
    /// Source: moby `container/container_unix.go`, `CopyImagePathContent`.
    pub fn volume_copy_up(
        &self,
        name: &str,
        data: BorrowedFd<'_>,
        root: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<(), VolumeError> {
        let failed = |source| VolumeError::CopyUp { name: name.to_owned(), source };
        if !sys::fs::entries_after(data, None, 1).map_err(failed)?.0.is_empty() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let source = match sys::fs::open_in_root(root, path, flags, Mode::empty()) {
            Ok(source) => source,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        crate::archive::copy_directory(source.as_fd(), data)
            .map_err(|source| VolumeError::Tree { name: name.to_owned(), source })
    }

    fn volume_dir(&self, name: &str) -> PathBuf {
        self.root().join("volumes").join(name)
    }

    pub(crate) fn load_volumes(&self, state: &mut State) -> Result<(), RecordError> {
        let dir = self.root().join("volumes");
        for (name, volume) in records::load_dir::<Volume>(&dir, "volume.json")? {
            let mountpoint = dir.join(&name).join("_data");
            state.volumes.known.insert(name.clone(), Volume { name, mountpoint, ..volume });
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), VolumeError> {
    let mut characters = name.chars();
    let first = characters.next().ok_or(VolumeError::NameTooShort)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !first.is_ascii_alphanumeric() || !characters.all(legal) {
        return Err(VolumeError::Name(name.to_owned()));
    }
    if name.len() < 2 { Err(VolumeError::NameTooShort) } else { Ok(()) }
}

/// Source: moby `volume/local/local_unix.go`, which wants these options together.
fn check_options(options: &BTreeMap<String, String>) -> Result<(), VolumeError> {
    let known = ["type", "o", "device", "size"];
    if let Some(unknown) = options.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(VolumeError::Option(unknown.clone()));
    }
    if options.contains_key("size") {
        return Err(VolumeError::Quota);
    }
    if options.is_empty() {
        return Ok(());
    }
    for required in ["device", "type"] {
        if options.get(required).is_none_or(String::is_empty) {
            return Err(VolumeError::OptionMissing(required));
        }
    }
    Ok(())
}
