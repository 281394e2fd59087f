//! The build context: an uploaded archive, or a directory that the engine got itself.
//!
//! ```text
//! body --list--> one unnamed file + listing --(only when a step needs files)--> directory below tmp
//! ```
//!
//! An archive is read once while it arrives. Its listing gives names and digests, which is all that
//! a cached build needs; files are unpacked when a step copies or mounts them. An archive that is
//! not plain is unpacked at once. A context may hold further, named ones (`--build-context`) below a
//! directory whose name the request tells; they are taken out of it.
//!
//! Directories are below the store's `tmp`, are read only by descriptor, and go with the
//! [`Context`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use build::worker::{Failure, Files, Origin};
use rustix::fs::OFlags;
use spec::Id;
use spec::ignore::{Ignore, clean};
use store::Store;
use store::archive::Destination;
use store::listing::{self, Listed};
use sys::path::Root;
use tracing::warn;

use super::files::{Owners, Tree};
use super::listed::ListedTree;
use super::worker::failure_of;
use crate::error::{Error, Kind, Result, chain};

/// More patterns than anybody writes, and few enough to be matched.
const IGNORE_BYTES_MAX: usize = 1 << 20;

/// Names of contexts below `tmp`.
pub(super) const PREFIX: &str = "build-context-";
const DOCKERFILE_BYTES_MAX: u64 = build::lines::SOURCE_BYTES_MAX as u64;

/// Removes its directory when dropped, on a thread of its own: nobody waits for thousands of files
/// to go. What a killed daemon leaves, the store removes when it is opened.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let remove = move || {
            if let Err(error) = std::fs::remove_dir_all(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                warn!(?path, %error, "build context left behind");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("tug-context".to_owned()).spawn(remove)
        {
            warn!(%error, "no thread to remove a build context");
        }
    }
}

impl Directory {
    /// A fresh directory.
    ///
    /// # Errors
    /// A full disk.
    pub(super) fn make(store: &Store) -> Result<Self> {
        let path = store.root().join("tmp").join(format!("{PREFIX}{}", Id::random().short()));
        let made = std::fs::create_dir_all(&path)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)));
        let directory = Self(path);
        made.map(|()| directory).map_err(|error| {
            Error::because(Kind::Internal, "cannot create the build context", error)
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn open(&self) -> Result<OwnedFd> {
        File::open(&self.0).map(OwnedFd::from).map_err(|error| {
            Error::because(Kind::Internal, format!("cannot open {:?}", self.0), error)
        })
    }
}

/// Where the files of a context are.
enum Ground {
    /// In an archive that nobody needed a file of yet; the place it will be unpacked to.
    Packed {
        store: Store,
        archive: File,
        directory: Directory,
    },
    Unpacked {
        root: Arc<Root>,
        named: Option<Arc<Root>>,
        _directories: Vec<Directory>,
    },
    /// Unpacking failed; the reason was told.
    Lost,
}

/// One tree: the main context, or a named one.
struct Area {
    listed: Option<Arc<listing::Directory>>,
    ignore: Arc<Ignore>,
    ground: Arc<Mutex<Ground>>,
    /// Below the root of all named contexts; `None` is the main one.
    below: Option<PathBuf>,
}

/// A build's context and the named ones beside it.
pub(super) struct Context {
    main: Area,
    named: Mutex<BTreeMap<String, Arc<Area>>>,
    /// Of the listing: what is read before anything else.
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The directory in the archive that holds named contexts; empty without.
    extras: String,
}

/// What else an archive holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Extras {
    /// A directory at the archive's top.
    pub(super) directory: String,
    /// The names of the contexts `0`, `1`, … in it.
    pub(super) names: Vec<String>,
}

fn refused(error: &(dyn std::error::Error + 'static)) -> Error {
    let message = format!("Error processing tar file(exit status 1): {}", chain(error));
    Error::new(Kind::Invalid, message)
}

impl Context {
    /// Reads an archive. `dockerfile` is wanted soon. Gives the bytes that came, too.
    ///
    /// # Errors
    /// An archive that is none or that leads outside, a full disk.
    pub(super) fn receive(
        store: &Store,
        archive: impl Read + Send,
        dockerfile: &str,
        extras: &Extras,
    ) -> Result<(Self, u64)> {
        let directory = Directory::make(store)?;
        let spool = spool(directory.path())?;
        let wanted = [
            clean(dockerfile),
            format!("{}.dockerignore", clean(dockerfile)),
            ".dockerignore".into(),
        ];
        let listed = store.list(archive, spool, &wanted).map_err(|error| refused(&error))?;
        let bytes = listed.bytes;
        let ground = Ground::Packed { store: store.clone(), archive: listed.archive, directory };
        let mut context = Self {
            main: Area {
                listed: None,
                ignore: Arc::default(),
                ground: Arc::new(Mutex::new(ground)),
                below: None,
            },
            named: Mutex::default(),
            kept: listed.kept,
            extras: extras.directory.clone(),
        };
        context.divide(listed.tree, extras);
        if context.main.listed.is_none() {
            // Not plain: what it is shows only when it is unpacked.
            context.kept.clear();
            context.main.root(&context.extras)?;
        }
        Ok((context, bytes))
    }

    /// Takes the named contexts out of the main one.
    fn divide(&mut self, tree: Option<listing::Directory>, extras: &Extras) {
        let mut tree = tree;
        let held = tree.as_mut().and_then(|tree| tree.children.remove(extras.directory.as_bytes()));
        let mut named = BTreeMap::new();
        for (index, name) in extras.names.iter().enumerate() {
            let number = index.to_string();
            let listed = match &held {
                Some(Listed::Directory(held)) => match held.children.get(number.as_bytes()) {
                    Some(Listed::Directory(own)) => Some(Arc::new(own.clone())),
                    Some(Listed::File { .. } | Listed::Link(_)) | None => None,
                },
                Some(Listed::File { .. } | Listed::Link(_)) | None => None,
            };
            let area = Area {
                listed,
                ignore: Arc::default(),
                ground: Arc::clone(&self.main.ground),
                below: Some(PathBuf::from(number)),
            };
            named.insert(name.clone(), Arc::new(area));
        }
        self.named = Mutex::new(named);
        self.main.listed = tree.map(Arc::new);
    }

    /// A context that is a directory which the engine made.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn of_directory(directory: Directory, below: &Path) -> Result<Self> {
        Ok(Self {
            main: Area::of_directory(directory, below)?,
            named: Mutex::default(),
            kept: BTreeMap::new(),
            extras: String::new(),
        })
    }

    /// A context that is nothing but a Dockerfile.
    ///
    /// # Errors
    /// A full disk.
    pub(super) fn of_dockerfile(store: &Store, mut text: impl Read) -> Result<Self> {
        let directory = Directory::make(store)?;
        let path = directory.path().join("Dockerfile");
        let written = std::fs::File::create_new(&path)
            .and_then(|mut file| std::io::copy(&mut text, &mut file));
        written.map_err(|error| {
            Error::because(Kind::Internal, format!("cannot write {path:?}"), error)
        })?;
        Self::of_directory(directory, Path::new(""))
    }

    /// Adds a tree that the engine made, under a name that no Dockerfile can say.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn add(&self, directory: Directory, below: &Path) -> Result<Origin> {
        let area = Arc::new(Area::of_directory(directory, below)?);
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("/{}", named.len());
        named.insert(name.clone(), area);
        Ok(Origin::Named(name))
    }

    fn named(&self, name: &str) -> std::result::Result<Arc<Area>, Failure> {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || failure_of(&Error::invalid(format!("no build context {name:?}")));
        named.get(name).cloned().ok_or_else(missing)
    }

    /// The files of the main context, or of a named one, for reading.
    ///
    /// # Errors
    /// An archive that cannot be unpacked.
    pub(super) fn files(&self, name: Option<&str>) -> std::result::Result<Box<dyn Files>, Failure> {
        match name {
            None => self.main.files(&self.extras),
            Some(name) => self.named(name)?.files(&self.extras),
        }
    }

    /// The root of a context's files on disk; unpacks them when nobody did yet.
    ///
    /// # Errors
    /// An archive that cannot be unpacked.
    pub(super) fn root(&self, name: Option<&str>) -> std::result::Result<Arc<Root>, Failure> {
        let root = match name {
            None => self.main.root(&self.extras),
            Some(name) => self.named(name)?.root(&self.extras),
        };
        root.map_err(|error| failure_of(&error))
    }

    pub(super) fn ignore(&self, name: Option<&str>) -> Arc<Ignore> {
        match name {
            None => Arc::clone(&self.main.ignore),
            Some(_) => Arc::default(),
        }
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
        self.main.ignore = Arc::new(ignore);
        Ok(text.len())
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        if let Some(text) = self.kept.get(clean(path).as_bytes()) {
            return Ok(Some(text.clone()));
        }
        // Nothing is there: no need to unpack everything to see that.
        if let Some(tree) = &self.main.listed {
            let tree = ListedTree { tree: Arc::clone(tree), ignore: Arc::default() };
            if tree.kind(path).ok().flatten().is_none() {
                return Ok(None);
            }
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |error| Error::because(Kind::Internal, format!("cannot read {path:?}"), error);
        let fd = match self.main.root(&self.extras)?.open(Path::new(path), flags) {
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

impl Area {
    fn of_directory(directory: Directory, below: &Path) -> Result<Self> {
        let top = Root::new(directory.open()?);
        // The part of a repository that was asked for, which may be a link to elsewhere in it.
        let handle = top.open(below, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC);
        let handle = handle.map_err(|error| {
            Error::because(Kind::Invalid, format!("cannot open {below:?} of the context"), error)
        })?;
        let root = Arc::new(Root::new(handle));
        let ground = Ground::Unpacked { root, named: None, _directories: vec![directory] };
        Ok(Self {
            listed: None,
            ignore: Arc::default(),
            ground: Arc::new(Mutex::new(ground)),
            below: None,
        })
    }

    fn files(&self, extras: &str) -> std::result::Result<Box<dyn Files>, Failure> {
        let ignore = Arc::clone(&self.ignore);
        if let Some(tree) = &self.listed {
            return Ok(Box::new(ListedTree { tree: Arc::clone(tree), ignore }));
        }
        let root = self.root(extras).map_err(|error| failure_of(&error))?;
        Ok(Box::new(Tree::new(root, ignore, Owners::Ignored)))
    }

    fn root(&self, extras: &str) -> Result<Arc<Root>> {
        let mut ground = self.ground.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ground::Packed { .. } = &*ground
            && let Ground::Packed { store, archive, directory } =
                std::mem::replace(&mut *ground, Ground::Lost)
        {
            *ground = unpack(&store, archive, directory, extras)?;
        }
        let Ground::Unpacked { root, named, .. } = &*ground else {
            return Err(Error::internal("the build context could not be unpacked"));
        };
        let missing = || Error::invalid("the build has no such context");
        match &self.below {
            None => Ok(Arc::clone(root)),
            Some(below) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let handle = named.as_ref().ok_or_else(missing)?.open(below, flags);
                Ok(Arc::new(Root::new(handle.map_err(|error| {
                    Error::because(Kind::Invalid, "the build has no such context", error)
                })?)))
            }
        }
    }
}

/// A file without a name beside `path`.
fn spool(path: &Path) -> Result<File> {
    let file = path.with_extension("spool");
    let failed = |error| Error::because(Kind::Internal, format!("cannot create {file:?}"), error);
    let mut options = File::options();
    let opened = options.read(true).write(true).create_new(true).open(&file).map_err(failed)?;
    std::fs::remove_file(&file).map_err(failed)?;
    Ok(opened)
}

fn unpack(store: &Store, archive: File, directory: Directory, extras: &str) -> Result<Ground> {
    let top = directory.open()?;
    // What it may hold was looked at when it came; here it is as it was then, and plain.
    let options = store::archive::ExtractOptions {
        overwrite: store::Overwrite::Anything,
        owner: None,
        limits: store::UnpackLimits::default(),
    };
    store
        .extract(Destination::Directory(top.as_fd()), archive, &options)
        .map_err(|error| refused(&error))?;
    let mut named = None;
    let mut directories = Vec::new();
    if !extras.is_empty() {
        // A link in its place is moved, not followed.
        let aside = Directory(directory.path().with_extension("named"));
        if std::fs::rename(directory.path().join(extras), aside.path()).is_ok() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::open(aside.path(), flags, rustix::fs::Mode::empty());
            named = opened.ok().map(|fd| Arc::new(Root::new(fd)));
        }
        directories.push(aside);
    }
    directories.push(directory);
    Ok(Ground::Unpacked { root: Arc::new(Root::new(top)), named, _directories: directories })
}
