//! Cache keys: what a step depends on, as a digest.
//!
//! Every part is preceded by its length, so no two lists of parts share a key. The first part
//! names the format; a change of what steps mean changes it, and old records are never found again.

use spec::{DiffId, Digest};

const FORMAT: &str = "tug-build-1";

/// Collects parts.
pub struct Key(Vec<u8>);

impl Key {
    pub fn new(kind: &str) -> Self {
        Self(Vec::new()).with(FORMAT).with(kind)
    }

    #[must_use]
    pub fn with(mut self, part: &str) -> Self {
        self.0.extend_from_slice(&(part.len() as u64).to_le_bytes());
        self.0.extend_from_slice(part.as_bytes());
        self
    }

    #[must_use]
    pub fn with_all<'a>(self, parts: impl IntoIterator<Item = &'a String>) -> Self {
        let parts: Vec<&String> = parts.into_iter().collect();
        parts.iter().fold(self.with(&parts.len().to_string()), |key, part| key.with(part))
    }

    #[must_use]
    pub fn with_tree(self, chain: &[DiffId]) -> Self {
        let chain: Vec<String> = chain.iter().map(DiffId::to_string).collect();
        self.with_all(&chain)
    }

    #[must_use]
    pub fn with_digest(self, digest: &Digest) -> Self {
        self.with(&digest.to_string())
    }

    /// A part that may be absent, which is not the same as empty.
    #[must_use]
    pub fn with_option(self, part: Option<&str>) -> Self {
        match part {
            Some(part) => self.with("1").with(part),
            None => self.with("0"),
        }
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key =
            |parts: &[&str]| parts.iter().fold(Key::new("x"), |key, part| key.with(part)).digest();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(
            Key::new("x").with_option(None).digest(),
            Key::new("x").with_option(Some("")).digest()
        );
    }
}
