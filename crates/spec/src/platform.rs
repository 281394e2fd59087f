//! Platforms of images: `os/architecture[/variant]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on, in Go's names (`amd64`, `arm64`, `arm` with variant `v7`, …).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that names no platform.
///
/// Source: containerd `platforms/platforms.go`, `Parse`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    #[error(
        "{0:?} is an invalid OS component of {1:?}: OSAndVersion specifier component must match {OS:?}: invalid argument"
    )]
    Os(String, String),
    #[error(
        "{0:?} is an invalid component of {1:?}: platform specifier component must match {COMPONENT:?}: invalid argument"
    )]
    Component(String, String),
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    Parts(String),
}

const OS: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?$";
const COMPONENT: &str = "^[A-Za-z0-9_-]+$";

impl Platform {
    /// The platform of this process.
    pub fn host() -> Platform {
        let (architecture, variant) = normalize(std::env::consts::ARCH, None);
        Platform::new("linux", &architecture, variant.as_deref())
    }

    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            os_version: None,
            os_features: Vec::new(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Whether an image of platform `offered` runs here without emulation. ARM variants run the
    /// older ones; an image without a variant runs everywhere on its architecture.
    pub fn runs(&self, offered: &Platform) -> bool {
        let (wanted_arch, wanted_variant) = normalize(&self.architecture, self.variant.as_deref());
        let (arch, variant) = normalize(&offered.architecture, offered.variant.as_deref());
        if self.os != offered.os || wanted_arch != arch {
            return false;
        }
        let most = match &wanted_variant {
            Some(wanted) => level(Some(wanted)),
            None => default_level(&arch),
        };
        level(variant.as_deref()) <= most
    }
}

/// `v7` is 7; no variant is 0.
fn level(variant: Option<&str>) -> u32 {
    variant.and_then(|text| text.trim_start_matches('v').parse().ok()).unwrap_or(0)
}

fn default_level(architecture: &str) -> u32 {
    match architecture {
        "arm64" => 8,
        "arm" => 7,
        "amd64" => 1,
        _ => 0,
    }
}

/// Source: containerd `platforms/database.go`, which folds uname's and Go's names together.
fn normalize(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.map(str::to_ascii_lowercase).filter(|text| !text.is_empty());
    let (architecture, variant) = match architecture.as_str() {
        "x86_64" | "x86-64" | "amd64" => ("amd64", variant.filter(|text| text != "v1")),
        "x86" | "i386" | "i486" | "i586" | "i686" | "386" => ("386", None),
        "aarch64" | "arm64" => ("arm64", variant.filter(|text| text != "8" && text != "v8")),
        "armhf" => ("arm", Some("v7".to_owned())),
        "armel" => ("arm", Some("v6".to_owned())),
        "arm" => {
            let variant = variant.unwrap_or_else(|| "v7".to_owned());
            let variant = if variant.starts_with('v') { variant } else { format!("v{variant}") };
            ("arm", Some(variant))
        }
        "powerpc64le" => ("ppc64le", variant),
        other => (other, variant),
    };
    (architecture.to_owned(), variant)
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Reads `os`, `arch`, `os/arch` or `os/arch/variant`; what is left out is the host's.
    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        if text.contains('*') {
            return Err(PlatformError::Wildcard(text.to_owned()));
        }
        let mut parts: Vec<&str> = text.splitn(4, '/').collect();
        let mut os_version = None;
        for (place, part) in parts.iter_mut().enumerate() {
            let whole = (*part).to_owned();
            if place == 0
                && let Some((os, version)) = part.split_once('(')
            {
                os_version = version.strip_suffix(')').filter(|version| is_version(version));
                if os_version.is_none() {
                    return Err(PlatformError::Os(whole, text.to_owned()));
                }
                *part = os;
            }
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if part.is_empty() || !part.chars().all(legal) {
                return Err(match place {
                    0 => PlatformError::Os(whole, text.to_owned()),
                    _ => PlatformError::Component(whole, text.to_owned()),
                });
            }
        }
        let os_version = os_version.filter(|version| !version.is_empty()).map(str::to_owned);
        let platform = Platform::of_parts(&parts, text)?;
        Ok(Platform { os_version, ..platform })
    }
}

fn is_version(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

impl Platform {
    fn of_parts(parts: &[&str], text: &str) -> Result<Platform, PlatformError> {
        let host = Platform::host();
        match parts[..] {
            [os] if KNOWN_OS.contains(&os.to_ascii_lowercase().as_str()) => {
                Ok(Platform { os: os.to_ascii_lowercase(), ..host })
            }
            [arch] => {
                let (architecture, variant) = normalize(arch, None);
                if !KNOWN_ARCHITECTURES.contains(&architecture.as_str()) {
                    return Err(PlatformError::Unknown(text.to_owned()));
                }
                Ok(Platform::new(&host.os, &architecture, variant.as_deref()))
            }
            [os, arch] | [os, arch, _] => {
                let (architecture, variant) = normalize(arch, parts.get(2).copied());
                Ok(Platform::new(&os.to_ascii_lowercase(), &architecture, variant.as_deref()))
            }
            _ => Err(PlatformError::Parts(text.to_owned())),
        }
    }
}

const KNOWN_OS: [&str; 5] = ["linux", "windows", "darwin", "freebsd", "wasip1"];
const KNOWN_ARCHITECTURES: [&str; 9] =
    ["amd64", "386", "arm64", "arm", "ppc64le", "s390x", "riscv64", "mips64le", "loong64"];

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = match text.parse::<Platform>() {
            Ok(platform) => platform.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn names_of_other_tools_are_folded_into_gos() {
        check("linux/x86_64", "linux/amd64");
        check("linux/aarch64", "linux/arm64");
        check("linux/arm", "linux/arm/v7");
        check("linux/arm/6", "linux/arm/v6");
    }

    #[test]
    fn a_platform_that_nobody_knows_is_refused() {
        let invalid = |text: &str, why: &str| {
            check(text, &format!("{text:?}: {why}: invalid argument"));
        };
        invalid("vax", "unknown operating system or architecture");
        invalid("a/b/c/d", "cannot parse platform specifier");
        invalid("linux/*", "wildcards not yet supported");
        let os = r#"OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.-]*)\\))?$": invalid argument"#;
        check("  ", &format!(r#""  " is an invalid OS component of "  ": {os}"#));
        check("/", &format!(r#""" is an invalid OS component of "/": {os}"#));
        check(
            "windows(10/amd64",
            &format!(r#""windows(10" is an invalid OS component of "windows(10/amd64": {os}"#),
        );
        check(
            "linux/a b",
            r#""a b" is an invalid component of "linux/a b": platform specifier component must match "^[A-Za-z0-9_-]+$": invalid argument"#,
        );
    }

    #[test]
    fn a_version_stands_behind_the_system() {
        let platform: Platform = "windows(10.0.17763)/amd64".parse().unwrap();
        assert_eq!(platform.os_version.as_deref(), Some("10.0.17763"));
        assert_eq!((platform.os.as_str(), platform.architecture.as_str()), ("windows", "amd64"));
    }

    #[test]
    fn an_older_variant_runs_on_a_newer_machine() {
        let v7: Platform = "linux/arm/v7".parse().unwrap();
        let v6: Platform = "linux/arm/v6".parse().unwrap();
        assert!(v7.runs(&v6));
        assert!(!v6.runs(&"linux/arm/v8".parse().unwrap()));
        assert!(!v6.runs(&v7));
        assert!(!v7.runs(&"linux/amd64".parse().unwrap()));
    }
}
