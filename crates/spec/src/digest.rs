//! Content digests and the typed ids that are digests of something particular.
//!
//! A [`Digest`] is always `sha256:` and 64 lower-case hexadecimal digits. The new types around it
//! say what was hashed, so that a layer's compressed and uncompressed digests cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("invalid checksum digest format")]
    Format,
    #[error("unsupported digest algorithm {0:?}")]
    Algorithm(String),
    #[error("invalid checksum digest length")]
    Length,
}

/// A SHA-256 digest, shown as `sha256:<64 hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest whose 32 bytes are `raw`.
    pub fn from_raw(raw: [u8; 32]) -> Digest {
        Digest(raw)
    }

    pub fn raw(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// The first twelve digits, as Docker shows ids.
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }

    /// Reads 64 hexadecimal digits without the algorithm.
    pub fn from_hex(text: &str) -> Result<Digest, DigestError> {
        if text.len() != 64 {
            return Err(DigestError::Length);
        }
        let mut raw = [0u8; 32];
        for (byte, pair) in raw.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let high = nibble(pair[0]).ok_or(DigestError::Format)?;
            let low = nibble(pair[1]).ok_or(DigestError::Format)?;
            *byte = high << 4 | low;
        }
        Ok(Digest(raw))
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// Writes the same digits without a text of their own: lists show thousands.
pub(crate) fn write_hex(raw: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut digits = [0u8; 64];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(raw) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let (algorithm, digits) = text.split_once(':').ok_or(DigestError::Format)?;
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm(algorithm.to_owned()));
        }
        Digest::from_hex(digits)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! digest_of {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The 64 hexadecimal digits.
            pub fn hex(&self) -> String {
                self.0.hex()
            }

            /// The first twelve digits.
            pub fn short(&self) -> String {
                self.0.short()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<$name, DigestError> {
                text.parse().map($name)
            }
        }
    };
}

digest_of! {
    /// Digest of a layer's *uncompressed* tar; the blob's own digest is its descriptor's.
    DiffId
}
digest_of! {
    /// Digest of an image's configuration document, which is the image's id.
    ImageId
}
digest_of! {
    /// Names a layer together with all layers below it: OCI image-spec, `config.md`, "Layer ChainID".
    ChainId
}

impl ChainId {
    /// The chain of a single bottom layer.
    pub fn bottom(layer: DiffId) -> ChainId {
        ChainId(layer.0)
    }

    /// The chain of `layer` on top of this one.
    pub fn above(&self, layer: DiffId) -> ChainId {
        ChainId(Digest::of(format!("{self} {layer}").as_bytes()))
    }

    /// The chain of `layers`, bottom first; none for an empty list.
    pub fn of(layers: &[DiffId]) -> Option<ChainId> {
        let (first, rest) = layers.split_first()?;
        Some(rest.iter().fold(ChainId::bottom(*first), |chain, layer| chain.above(*layer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_shown() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.short(), "e3b0c44298fc");
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        assert_eq!("e3b0".parse::<Digest>(), Err(DigestError::Format));
        assert_eq!("sha256:e3b0".parse::<Digest>(), Err(DigestError::Length));
        let upper = format!("sha256:{}", "A".repeat(64));
        assert_eq!(upper.parse::<Digest>(), Err(DigestError::Format));
        let other = format!("md5:{}", "a".repeat(64));
        assert_eq!(other.parse::<Digest>(), Err(DigestError::Algorithm("md5".into())));
    }

    #[test]
    fn a_chain_depends_on_order() {
        let (a, b) = (DiffId(Digest::of(b"a")), DiffId(Digest::of(b"b")));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&[a]), Some(ChainId(a.0)));
        assert_ne!(ChainId::of(&[a, b]), ChainId::of(&[b, a]));
    }
}
