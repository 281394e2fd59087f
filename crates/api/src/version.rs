//! Versions of the API: the range spoken here, parsing, and Docker's words for the others.

use std::fmt;
use std::str::FromStr;

/// `major.minor`. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

/// The oldest version served, as Docker 28 serves it.
pub const MIN: ApiVersion = v(24);
/// The newest version served: that of Docker 28.2.
pub const MAX: ApiVersion = v(50);

/// Version 1.`minor`.
#[must_use]
pub const fn v(minor: u32) -> ApiVersion {
    ApiVersion { major: 1, minor }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid API version {0:?}: want MAJOR.MINOR")]
pub struct ParseVersionError(String);

impl FromStr for ApiVersion {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self { major: number(major)?, minor: number(minor)? }))
            .ok_or_else(|| ParseVersionError(text.to_owned()))
    }
}

/// Source: moby 28.2 `api/server/middleware/version.go`. Clients match on these words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedVersion {
    #[error("client version {asked} is too new. Maximum supported API version is {MAX}")]
    TooNew { asked: ApiVersion },
    #[error(
        "client version {asked} is too old. Minimum supported API version is {MIN}, please upgrade your client to a newer version"
    )]
    TooOld { asked: ApiVersion },
}

impl ApiVersion {
    /// Refuses what is outside [`MIN`]..=[`MAX`].
    ///
    /// # Errors
    /// In Docker's words, when the version is not served.
    pub fn check_served(self) -> Result<Self, UnsupportedVersion> {
        if self > MAX {
            Err(UnsupportedVersion::TooNew { asked: self })
        } else if self < MIN {
            Err(UnsupportedVersion::TooOld { asked: self })
        } else {
            Ok(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, want: Expect) {
        let got = match text.parse::<ApiVersion>() {
            Err(error) => error.to_string(),
            Ok(version) => match version.check_served() {
                Ok(version) => version.to_string(),
                Err(error) => error.to_string(),
            },
        };
        want.assert_eq(&got);
    }

    #[test]
    fn both_ends_of_the_range_are_served() {
        check("1.24", expect!["1.24"]);
        check("1.50", expect!["1.50"]);
    }

    #[test]
    fn versions_outside_are_refused_in_dockers_words() {
        check(
            "1.51",
            expect!["client version 1.51 is too new. Maximum supported API version is 1.50"],
        );
        check(
            "2.0",
            expect!["client version 2.0 is too new. Maximum supported API version is 1.50"],
        );
        check(
            "1.9",
            expect![
                "client version 1.9 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
            ],
        );
    }

    #[test]
    fn what_is_no_version_is_refused() {
        check("1", expect![[r#"invalid API version "1": want MAJOR.MINOR"#]]);
        check("1.+4", expect![[r#"invalid API version "1.+4": want MAJOR.MINOR"#]]);
    }
}
