//! Users and their passwords: the file that `htpasswd -B` writes, and `Authorization: Basic`.
//!
//! Only bcrypt is taken, which is meant to be slow; so credentials that were right once are
//! remembered by their digest for as long as this process lives. Wrong ones cost the time of a
//! check each, a few at once at most.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::create::files::reason;
use crate::failure::Failure;

/// Checks at once; each takes a core for a moment.
const CHECKS_MAX: usize = 2;
const ADMITTED_MAX: usize = 1024;
/// Looked at where a user does not exist, so that this takes as long as a wrong password.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuuIOyyBpfJ8Hb9TSxq41bQE6EyyFd0o2y";

/// Who is let in.
pub struct Users {
    hashes: HashMap<String, String>,
    admitted: RefCell<HashSet<[u8; 32]>>,
    checks: Semaphore,
}

impl Users {
    /// # Errors
    /// When the file cannot be read, or has a line that is not bcrypt's.
    pub fn load(path: &Path) -> Result<Users, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("open {}: {}", path.display(), reason(&error)))
        })?;
        Users::parse(&text).map_err(|why| Failure::new(format!("{}: {why}", path.display())))
    }

    fn parse(text: &str) -> Result<Users, String> {
        let mut hashes = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line
                .split_once(':')
                .filter(|(user, _)| !user.is_empty())
                .ok_or_else(|| format!("line {} is not USER:HASH", number + 1))?;
            if hash.parse::<bcrypt::HashParts>().is_err() {
                return Err(format!(
                    "line {}: the password of {user:?} is not hashed by bcrypt: make it with \"htpasswd -B\"",
                    number + 1
                ));
            }
            hashes.insert(user.to_owned(), hash.to_owned());
        }
        if hashes.is_empty() {
            return Err("there are no users in it".to_owned());
        }
        Ok(Users { hashes, admitted: RefCell::default(), checks: Semaphore::new(CHECKS_MAX) })
    }

    /// Whether an `Authorization` header is one of a user with the right password.
    pub async fn admit(&self, header: &str) -> bool {
        let Some((user, password)) = credentials(header) else { return false };
        let mark: [u8; 32] = Sha256::digest(format!("{user}:{password}").as_bytes()).into();
        if self.admitted.borrow().contains(&mark) {
            return true;
        }
        let Ok(_turn) = self.checks.acquire().await else { return false };
        let known = self.hashes.get(&user);
        let hash = known.map_or(NOBODY, String::as_str).to_owned();
        let checked =
            tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false));
        let is_right = checked.await.unwrap_or(false) && known.is_some();
        if is_right {
            let mut admitted = self.admitted.borrow_mut();
            if admitted.len() >= ADMITTED_MAX {
                admitted.clear();
            }
            admitted.insert(mark);
        }
        is_right
    }
}

/// Source: RFC 7617.
fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> String {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_right_password_is_let_in_and_no_other() {
        let hash = bcrypt::hash("word", 4).unwrap();
        let users = Users::parse(&format!("# ours\n\nme:{hash}\n")).unwrap();
        for _ in 0..2 {
            assert!(users.admit(&header("me:word")).await);
        }
        let basic = header("me:word");
        for wrong in [
            header("me:other"),
            header("me:"),
            header("you:word"),
            header("me"),
            basic.replace("Basic", "Bearer"),
            "Basic ???".to_owned(),
            String::new(),
        ] {
            assert!(!users.admit(&wrong).await, "{wrong}");
        }
    }

    #[test]
    fn the_hash_of_nobody_is_a_hash() {
        assert!(!bcrypt::verify("", NOBODY).unwrap());
    }

    #[test]
    fn weak_hashes_are_refused() {
        let why = |text: &str| Users::parse(text).err().unwrap_or_default();
        assert_eq!(why(""), "there are no users in it");
        assert_eq!(why("me"), "line 1 is not USER:HASH");
        assert!(why("a:{SHA}x").contains("not hashed by bcrypt"));
        assert!(why("a:$apr1$x$y").contains("htpasswd -B"));
    }
}
