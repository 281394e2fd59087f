//! A container's `resolv.conf` on the host, with a hash of what we wrote beside it: what a user
//! edited inside a running container is not rewritten below it when its networks change. A start
//! writes the file anew, as Docker's does.
//!
//! Source: moby 28.2 `libnetwork/sandbox_dns_unix.go`, `rebuildDNS`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

fn hash_path(path: &Path) -> PathBuf {
    path.with_extension("conf.hash")
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// Writes the file whatever it holds.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::write(hash_path(path), hash(text.as_bytes()))
}

/// Writes the file unless it was edited since we wrote it.
pub(crate) fn rewrite(path: &Path, text: &str) -> io::Result<()> {
    let edited = match fs::read(hash_path(path)) {
        Ok(known) => known != hash(&fs::read(path)?),
        // Of a version that kept none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if edited { Ok(()) } else { write(path, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_file_is_left_alone_until_the_next_start() {
        let dir = std::env::temp_dir().join(format!("tug-resolv-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("resolv.conf");
        let now = || fs::read_to_string(&path).unwrap();
        write(&path, "one").unwrap();
        rewrite(&path, "two").unwrap();
        assert_eq!(now(), "two");
        fs::write(&path, "edited").unwrap();
        rewrite(&path, "three").unwrap();
        assert_eq!(now(), "edited");
        write(&path, "four").unwrap();
        assert_eq!(now(), "four");
        fs::remove_dir_all(&dir).unwrap();
    }
}
