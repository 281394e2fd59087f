//! Random 64-digit ids of containers, networks, execs and volumes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{hex, write_hex};

/// 64 lower-case hexadecimal digits whose first twelve are not all decimal, so that a short id is
/// never read as a number.
///
/// Source: moby `pkg/stringid`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 32]);

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a 64-digit id")]
pub struct IdError(String);

impl Id {
    /// A fresh id from the kernel's random numbers.
    pub fn random() -> Id {
        loop {
            let mut raw = [0u8; 32];
            getrandom::fill(&mut raw).expect("getrandom(2) cannot fail once the kernel has booted");
            let id = Id(raw);
            if !id.short().bytes().all(|digit| digit.is_ascii_digit()) {
                return id;
            }
        }
    }

    /// The id whose 32 bytes are `raw`.
    pub fn from_raw(raw: [u8; 32]) -> Id {
        Id(raw)
    }

    /// The first twelve digits.
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({})", self.short())
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Id, IdError> {
        let digest = crate::Digest::from_hex(text).map_err(|_| IdError(text.to_owned()))?;
        Ok(Id(*digest.raw()))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_is_read_back_and_is_no_number() {
        for _ in 0..100 {
            let id = Id::random();
            assert_eq!(id.to_string().parse(), Ok(id));
            assert!(id.short().bytes().any(|digit| !digit.is_ascii_digit()));
        }
    }

    #[test]
    fn a_short_text_is_no_id() {
        assert!("abc".parse::<Id>().is_err());
    }
}
