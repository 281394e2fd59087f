//! Uploads under way: sessions that clients append to until they say what digest it all has.
//!
//! ```text
//! content/uploads/<session>    the bytes so far; its length is the session's offset
//! ```
//! A session belongs to one repository: a part of its id is derived from the repository's name, so
//! nothing else need be kept, and a session goes on after a restart of the daemon. It has one writer
//! at a time; whoever comes meanwhile waits for a while, since a client whose connection broke comes
//! back sooner than we notice.
//!
//! Bounds: [`SESSIONS_MAX`] sessions; one that nobody touched for [`IDLE_TIME_MAX`] goes, and when
//! there is no room, the longest idle one beyond [`SPARED_TIME`].

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use spec::Digest;
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use super::{DistributionError, HOLD_TIME, Repository, Result};
use crate::blocking::blocking;
use crate::{Engine, Inner};

const SESSIONS_MAX: usize = 512;
const REPOSITORIES_MAX: usize = 4096;
const IDLE_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const SPARED_TIME: Duration = Duration::from_secs(10 * 60);
/// How long a request waits for the session's writer before it.
const WRITER_PATIENCE: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 256 << 10;

/// Names a session: a UUID of version 8 (RFC 9562, 5.8) whose last six bytes are derived from the
/// repository's name and whose others are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

/// A text that is no session's id.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSessionId;

const OWNER_START: usize = 10;

impl SessionId {
    fn new(repository: &Repository) -> io::Result<SessionId> {
        let mut bytes = [0u8; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        bytes[6] = 0x80 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        bytes[OWNER_START..].copy_from_slice(&owner(repository));
        Ok(SessionId(bytes))
    }

    fn belongs_to(&self, repository: &Repository) -> bool {
        self.0[OWNER_START..] == owner(repository)
    }
}

fn owner(repository: &Repository) -> [u8; 16 - OWNER_START] {
    let digest = Digest::of(repository.full_name().as_bytes());
    let mut owner = [0u8; 16 - OWNER_START];
    owner.copy_from_slice(&digest.raw()[..16 - OWNER_START]);
    owner
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = spec::digest::hex(&self.0);
        let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]);
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl FromStr for SessionId {
    type Err = NoSessionId;

    fn from_str(text: &str) -> std::result::Result<SessionId, NoSessionId> {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        let mut bytes = [0u8; 16];
        if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoSessionId);
        }
        for (byte, place) in bytes.iter_mut().zip((0..32).step_by(2)) {
            *byte = u8::from_str_radix(&hex[place..place + 2], 16).map_err(|_| NoSessionId)?;
        }
        let id = SessionId(bytes);
        // One spelling only, as it names a file.
        if id.to_string() == text { Ok(id) } else { Err(NoSessionId) }
    }
}

/// All sessions.
pub(crate) struct Uploads {
    root: PathBuf,
    open: Mutex<HashMap<SessionId, Arc<Session>>>,
    /// Repositories that got blobs and may not have a manifest yet.
    begun: Mutex<HashSet<String>>,
}

struct Session {
    touched: Mutex<Instant>,
    writer: Arc<tokio::sync::Mutex<Writer>>,
}

impl Session {
    fn new(writer: Writer, touched: Instant) -> Arc<Session> {
        Arc::new(Session {
            touched: Mutex::new(touched),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
        })
    }

    fn idle(&self) -> Duration {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn touch(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_busy(&self) -> bool {
        self.writer.try_lock().is_err()
    }
}

/// A session's file. Blocking.
struct Writer {
    path: PathBuf,
    file: Option<File>,
    /// Of all bytes; none where an earlier daemon wrote some of them.
    hash: Option<Sha256>,
    length: u64,
    /// Ended: whoever waited for it comes too late.
    is_over: bool,
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut file = File::options().write(true).open(&self.path)?;
                file.seek(SeekFrom::Start(self.length))?;
                file
            }
        };
        if let Err(error) = file.write_all(bytes) {
            // What of it was written does not count: the next write begins where this one did.
            let _ = file.set_len(self.length);
            return Err(error);
        }
        self.file = Some(file);
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Goes back to `length` bytes.
    fn cut(&mut self, length: u64) -> io::Result<()> {
        if length < self.length {
            File::options().write(true).open(&self.path)?.set_len(length)?;
            (self.file, self.hash, self.length) = (None, None, length);
        }
        Ok(())
    }

    fn digest(&mut self) -> io::Result<Digest> {
        let hash = match self.hash.take() {
            Some(hash) => hash,
            None => hash_of(&self.path)?,
        };
        Ok(Digest::from_raw(hash.finalize().into()))
    }
}

fn hash_of(path: &Path) -> io::Result<Sha256> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0u8; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash),
            got => hash.update(&buffer[..got]),
        }
    }
}

impl Uploads {
    fn note(&self, repository: &Repository) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is forgotten sends its blobs again.
        if begun.len() >= REPOSITORIES_MAX {
            begun.clear();
        }
        begun.insert(repository.full_name());
    }

    fn knows(&self, repository: &Repository) -> bool {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.contains(&repository.full_name())
    }

    /// Takes over what an earlier daemon left. Blocking.
    pub(crate) fn open(data_root: &Path) -> io::Result<Uploads> {
        let root = data_root.join("content").join("uploads");
        fs::create_dir_all(&root)?;
        let mut open = HashMap::new();
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let idle =
                metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            let id = entry.file_name().to_str().and_then(|name| name.parse::<SessionId>().ok());
            let idle = idle.unwrap_or_default();
            let Some(id) = id.filter(|_| metadata.is_file() && idle < IDLE_TIME_MAX) else {
                remove(&entry.path());
                continue;
            };
            let writer = Writer {
                path: entry.path(),
                file: None,
                hash: None,
                length: metadata.len(),
                is_over: false,
            };
            let touched = Instant::now().checked_sub(idle).unwrap_or_else(Instant::now);
            open.insert(id, Session::new(writer, touched));
        }
        Ok(Uploads { root, open: Mutex::new(open), begun: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, repository: &Repository) -> Result<SessionId> {
        self.make_room()?;
        let failed = |source| DistributionError::Io { what: "cannot begin an upload", source };
        let id = SessionId::new(repository).map_err(failed)?;
        let path = self.root.join(id.to_string());
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let writer = Writer {
            path,
            file: Some(file.map_err(failed)?),
            hash: Some(Sha256::new()),
            length: 0,
            is_over: false,
        };
        self.lock().insert(id, Session::new(writer, Instant::now()));
        Ok(id)
    }

    fn make_room(&self) -> Result<()> {
        let mut open = self.lock();
        if open.len() < SESSIONS_MAX {
            return Ok(());
        }
        let idle = open.iter().filter(|(_, session)| !session.is_busy());
        let longest = idle.map(|(id, session)| (session.idle(), *id)).max_by_key(|(idle, _)| *idle);
        let (_, id) = longest
            .filter(|(idle, _)| *idle >= SPARED_TIME)
            .ok_or(DistributionError::UploadsMany)?;
        open.remove(&id);
        remove(&self.root.join(id.to_string()));
        Ok(())
    }

    /// Removes sessions that nobody touches any more. Blocking.
    pub(super) fn sweep(&self) {
        let mut gone = Vec::new();
        self.lock().retain(|id, session| {
            let stays = session.is_busy() || session.idle() < IDLE_TIME_MAX;
            if !stays {
                gone.push(*id);
            }
            stays
        });
        for id in gone {
            remove(&self.root.join(id.to_string()));
        }
    }

    fn find(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.lock().get(id).cloned()
    }

    /// The bytes of one that nobody writes to or may write to any more.
    fn end(&self, id: &SessionId) {
        self.lock().remove(id);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(path = %path.display(), %error, "the rest of an upload stays");
    }
}

/// A session in the hands of its one writer.
pub struct Upload {
    engine: Arc<Inner>,
    id: SessionId,
    session: Arc<Session>,
    /// None only while a thread has it.
    writer: Option<OwnedMutexGuard<Writer>>,
}

impl Engine {
    /// Begins an upload.
    ///
    /// # Errors
    /// When there are too many.
    pub async fn begin_upload(&self, repository: &Repository) -> Result<SessionId> {
        let (engine, repository) = (Arc::clone(&self.inner), repository.clone());
        blocking(move || {
            engine.uploads.note(&repository);
            engine.uploads.begin(&repository)
        })
        .await
    }

    /// Whether a repository has something, or was sent something since the daemon began.
    pub async fn has_repository(&self, repository: &Repository) -> bool {
        self.inner.uploads.knows(repository) || self.repository_tags(repository).await.is_ok()
    }

    /// Takes a session in hand.
    ///
    /// # Errors
    /// When there is none of this id in this repository, or somebody else does not let go of it.
    pub async fn open_upload(&self, repository: &Repository, id: &str) -> Result<Upload> {
        let id: SessionId = id.parse().map_err(|NoSessionId| DistributionError::Upload)?;
        let session = self.inner.uploads.find(&id).filter(|_| id.belongs_to(repository));
        let session = session.ok_or(DistributionError::Upload)?;
        let lock = Arc::clone(&session.writer).lock_owned();
        let writer = tokio::time::timeout(WRITER_PATIENCE, lock).await;
        let writer = writer.map_err(|_| DistributionError::UploadBusy)?;
        if writer.is_over {
            return Err(DistributionError::Upload);
        }
        session.touch();
        Ok(Upload { engine: Arc::clone(&self.inner), id, session, writer: Some(writer) })
    }
}

impl Upload {
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Bytes so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.length)
    }

    /// Work on the file in a thread, which keeps the session until it is done even where the request
    /// is gone.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T> {
        let mut writer = self.writer.take().ok_or(DistributionError::UploadBusy)?;
        self.session.touch();
        let (writer, outcome) = blocking(move || {
            let outcome = work(&mut writer);
            (writer, outcome)
        })
        .await;
        self.writer = Some(writer);
        Ok(outcome)
    }

    /// Appends.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        let failed = |source| DistributionError::Io { what: "cannot write an upload", source };
        self.with(move |writer| writer.write(&piece)).await?.map_err(failed)
    }

    /// Forgets all beyond the first `length` bytes.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn cut(&mut self, length: u64) -> Result<()> {
        let failed = |source| DistributionError::Io { what: "cannot cut an upload", source };
        self.with(move |writer| writer.cut(length)).await?.map_err(failed)
    }

    /// Makes the bytes the blob `digest` and ends the session, also where they are another blob.
    ///
    /// # Errors
    /// `Digest` for other bytes.
    pub async fn finish(mut self, want: Digest) -> Result<()> {
        let (engine, id) = (Arc::clone(&self.engine), self.id);
        self.with(move |writer| {
            let failed = |source| DistributionError::Io { what: "cannot read an upload", source };
            let got = writer.digest().map_err(failed)?;
            writer.is_over = true;
            engine.uploads.end(&id);
            if got != want {
                remove(&writer.path);
                return Err(DistributionError::Digest { want, got });
            }
            let lease = engine.store.lease_content();
            engine.store.hold_content_for(&want, HOLD_TIME);
            engine.store.keep_file(&writer.path, &want, &lease).map_err(DistributionError::content)
        })
        .await?
    }

    /// Ends the session and forgets its bytes.
    ///
    /// # Errors
    /// None that the client could mend.
    pub async fn cancel(mut self) -> Result<()> {
        let (engine, id) = (Arc::clone(&self.engine), self.id);
        self.with(move |writer| {
            writer.is_over = true;
            engine.uploads.end(&id);
            remove(&writer.path);
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Repository {
        Repository::parse(name, None).unwrap()
    }

    #[test]
    fn a_session_has_one_spelling_and_one_repository() {
        let id = SessionId::new(&repository("a/b")).unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.belongs_to(&repository("a/b")) && !id.belongs_to(&repository("a/c")));
        let upper = id.to_string().to_uppercase();
        let bare = id.to_string().replace('-', "");
        for wrong in ["", "x", "../../../etc/passwd", &upper, &bare, &format!("{id}-")] {
            assert!(
                wrong.parse::<SessionId>().is_err() || wrong == upper && upper == id.to_string()
            );
        }
    }

    #[test]
    fn sessions_outlive_the_daemon() {
        let root = std::env::temp_dir().join(format!("tug-uploads-{}", std::process::id()));
        let uploads = Uploads::open(&root).unwrap();
        let id = uploads.begin(&repository("a")).unwrap();
        uploads.find(&id).unwrap().writer.try_lock().unwrap().write(b"half").unwrap();
        fs::write(root.join("content/uploads/stranger"), "x").unwrap();
        drop(uploads);
        let uploads = Uploads::open(&root).unwrap();
        let session = uploads.find(&id).unwrap();
        let mut writer = session.writer.try_lock().unwrap();
        assert_eq!(writer.length, 4);
        writer.write(b" and half").unwrap();
        writer.write(b" too much").unwrap();
        writer.cut(13).unwrap();
        assert_eq!(writer.digest().unwrap(), Digest::of(b"half and half"));
        assert!(!root.join("content/uploads/stranger").exists());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn sessions_without_end_are_refused() {
        let root = std::env::temp_dir().join(format!("tug-uploads-many-{}", std::process::id()));
        let uploads = Uploads::open(&root).unwrap();
        for _ in 0..SESSIONS_MAX {
            uploads.begin(&repository("a")).unwrap();
        }
        assert!(matches!(uploads.begin(&repository("a")), Err(DistributionError::UploadsMany)));
        let first = uploads.lock().values().next().cloned().unwrap();
        let long_ago = Instant::now().checked_sub(SPARED_TIME);
        // A machine that was started just now cannot tell such a time.
        if let Some(long_ago) = long_ago {
            *first.touched.lock().unwrap() = long_ago;
            uploads.begin(&repository("a")).unwrap();
            assert_eq!(fs::read_dir(root.join("content/uploads")).unwrap().count(), SESSIONS_MAX);
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
