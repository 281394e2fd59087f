//! The build context: an uploaded archive, unpacked into a directory of its own.
//!
//! The directory is below the store's `tmp`, is read only by descriptor, and goes when the
//! [`Context`] is dropped.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use spec::Id;
use spec::ignore::{Ignore, clean};
use store::Store;
use sys::path::Root;
use tracing::warn;

use crate::error::{Error, Kind, Result, chain};

/// More patterns than anybody writes, and few enough to be matched.
const IGNORE_BYTES_MAX: usize = 1 << 20;

/// Names of contexts below `tmp`.
pub(super) const PREFIX: &str = "build-context-";
const DOCKERFILE_BYTES_MAX: u64 = build::lines::SOURCE_BYTES_MAX as u64;

/// Removes its directory when dropped, on a thread of its own: nobody waits for thousands of files
/// to go. What a killed daemon leaves, the store removes when it is opened.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let remove = move || {
            if let Err(error) = std::fs::remove_dir_all(&path) {
                warn!(?path, %error, "build context left behind");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("tug-context".to_owned()).spawn(remove)
        {
            warn!(%error, "no thread to remove a build context");
        }
    }
}

/// An unpacked context.
pub(super) struct Context {
    root: Arc<Root>,
    ignore: Arc<Ignore>,
    _directory: Directory,
}

impl Context {
    /// Unpacks an archive.
    ///
    /// # Errors
    /// An archive that is none or that leads outside, a full disk.
    pub(super) fn unpack(store: &Store, archive: impl Read + Send) -> Result<Self> {
        let (directory, top) = make(store)?;
        let options =
            store::archive::ExtractOptions { overwrite: store::Overwrite::Anything, owner: None };
        store::archive::extract(top.as_fd(), Path::new("/"), archive, &options).map_err(
            |error| {
                let message =
                    format!("Error processing tar file(exit status 1): {}", chain(&error));
                Error::new(Kind::Invalid, message)
            },
        )?;
        Ok(Self { root: Arc::new(Root::new(top)), ignore: Arc::default(), _directory: directory })
    }

    /// A context that is nothing but a Dockerfile.
    ///
    /// # Errors
    /// A full disk.
    pub(super) fn of_dockerfile(store: &Store, text: &[u8]) -> Result<Self> {
        let (directory, top) = make(store)?;
        let path = directory.0.join("Dockerfile");
        std::fs::write(&path, text).map_err(|error| {
            Error::because(Kind::Internal, format!("cannot write {path:?}"), error)
        })?;
        Ok(Self { root: Arc::new(Root::new(top)), ignore: Arc::default(), _directory: directory })
    }

    pub(super) fn root(&self) -> Arc<Root> {
        Arc::clone(&self.root)
    }

    pub(super) fn ignore(&self) -> Arc<Ignore> {
        Arc::clone(&self.ignore)
    }

    /// The Dockerfile's bytes.
    ///
    /// # Errors
    /// A file that is not there, in Docker's words.
    pub(super) fn dockerfile(&self, path: &str) -> Result<Vec<u8>> {
        let by_text = clean(path);
        if by_text == ".." || by_text.starts_with("../") {
            return Err(Error::invalid(format!(
                "Forbidden path outside the build context: {path}"
            )));
        }
        match self.read(path)? {
            None => Err(Error::invalid(format!("Cannot locate specified Dockerfile: {path}"))),
            Some(text) if text.is_empty() => {
                Err(Error::invalid(format!("the Dockerfile ({path}) cannot be empty")))
            }
            Some(text) => Ok(text),
        }
    }

    /// Reads what is to be left out: the Dockerfile's own list, else `.dockerignore`. Its bytes' count.
    ///
    /// # Errors
    /// A pattern that is malformed; too many of them.
    pub(super) fn load_ignore(&mut self, dockerfile: &str) -> Result<usize> {
        let text = match self.read(&format!("{dockerfile}.dockerignore"))? {
            Some(text) => Some(text),
            None => self.read(".dockerignore")?,
        };
        let text = text.unwrap_or_default();
        // Every file is matched against every pattern.
        if text.len() > IGNORE_BYTES_MAX {
            let text = format!(
                "error checking context: .dockerignore is longer than {IGNORE_BYTES_MAX} bytes"
            );
            return Err(Error::invalid(text));
        }
        let ignore = Ignore::parse(&String::from_utf8_lossy(&text))
            .map_err(|error| Error::because(Kind::Invalid, "error checking context", error))?;
        self.ignore = Arc::new(ignore);
        Ok(text.len())
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |error| Error::because(Kind::Internal, format!("cannot read {path:?}"), error);
        let fd = match self.root.open(Path::new(path), flags) {
            Ok(fd) => fd,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        File::from(fd).take(DOCKERFILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }
}

fn make(store: &Store) -> Result<(Directory, OwnedFd)> {
    let path = store.root().join("tmp").join(format!("{PREFIX}{}", Id::random().short()));
    let failed = |error: std::io::Error| {
        Error::because(Kind::Internal, format!("cannot create {path:?}"), error)
    };
    std::fs::create_dir_all(&path).map_err(failed)?;
    let directory = Directory(path.clone());
    let top = File::open(&path).map_err(failed)?;
    Ok((directory, OwnedFd::from(top)))
}
