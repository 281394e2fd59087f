//! Gets what a URL names: for `ADD https://…` and for a remote context.
//!
//! The requests go the way that those to registries go: through the daemon's proxies, with the host's
//! certificates, bounded in redirects and in time without progress. What comes is hashed and written
//! to a file without a name, so that a download costs no memory and leaves nothing.
//!
//! Source: docs.docker.com "Dockerfile reference", ADD: mode 0600, time from `Last-Modified`; moby
//! `builder/remotecontext/remote.go`.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use build::worker::{Blob, Content, Failure, FailureKind};
use registry::address;
use registry::dial::Trust;
use registry::transport::{Answer, Payload};
use registry::{HeaderMap, Method};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use spec::Digest;

use crate::Inner;
use crate::error::chain;

const BYTES_MAX: u64 = 16 << 30;
const REFUSAL_BYTES_MAX: usize = 1 << 10;

/// The bytes at `url`, with the name that the last part of its path gives.
///
/// # Errors
/// Unreachable, an answer other than success, too many bytes, a full disk.
pub(super) async fn fetch(engine: &Inner, url: &str) -> Result<Blob, Failure> {
    let invalid = |text: String| Failure::new(FailureKind::Invalid, text);
    let failed = |what: &dyn std::fmt::Display| invalid(format!("Get {url:?}: {what}"));
    let place = address::parse(url).map_err(|error| failed(&error))?;
    let name = address::file_name(&place);
    let transport = engine.registries.transport();
    let trust = Arc::new(Trust::default());
    // What is insecure to pull from is not therefore so to build from.
    let trust_of = move |_: &str| Arc::clone(&trust);
    let (method, headers) = (Method::GET, HeaderMap::new());
    let sent = transport.send(method, &place, &headers, Payload::empty(), &trust_of).await;
    let mut answer = sent.map_err(|error| invalid(chain(&error)))?;
    if !answer.status.is_success() {
        let said = answer.bytes(REFUSAL_BYTES_MAX).await.ok().flatten().unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        return Err(invalid(format!("failed to GET {url} with status {}{said}", answer.status)));
    }
    let modified_secs = answer.header("last-modified").and_then(http_date);
    let content = received(&mut answer, engine.store.root()).await;
    let content = content.map_err(|error| failed(&chain(&error)))?;
    Ok(Blob { name, content, mode: 0o600, modified_secs })
}

/// The body, in a file of the data root's file system.
async fn received(answer: &mut Answer, data_root: &Path) -> io::Result<Content> {
    let mut file = unnamed(&data_root.join("tmp"))?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    while let Some(chunk) = answer.chunk().await? {
        size += chunk.len() as u64;
        if size > BYTES_MAX {
            return Err(io::Error::other(format!("more than {BYTES_MAX} bytes")));
        }
        hash.update(&chunk);
        file.write_all(&chunk)?;
    }
    let digest = Digest::from_raw(hash.finalize().into());
    Ok(Content::File { file: Arc::new(file), size, digest })
}

/// open(2): O_TMPFILE; overlayfs has it since Linux 6.1 only.
fn unnamed(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            let path = directory.join(format!("fetch-{}", spec::Id::random()));
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(path)?;
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// Source: RFC 9110, 5.6.7.
fn http_date(text: &str) -> Option<i64> {
    let at = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(at.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_last_change_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn a_file_without_a_name_leaves_nothing() {
        let directory = std::env::temp_dir().join(format!("tug-fetch-{}", spec::Id::random()));
        std::fs::create_dir(&directory).unwrap();
        let mut file = unnamed(&directory).unwrap();
        file.write_all(b"content").unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(&directory).unwrap();
    }
}
