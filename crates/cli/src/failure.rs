//! How a command ends badly: what the user reads and the exit status.

use std::error::Error as _;

/// Docker's client uses 1 for most failures and 125 for those of `run`, `create` and of flags.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{text}")]
    Said { text: String, status: u8 },
    #[error(transparent)]
    Daemon(#[from] api::client::Error),
}

impl Failure {
    pub fn new(text: impl Into<String>) -> Failure {
        Failure::Said { text: text.into(), status: 1 }
    }

    pub fn status(&self) -> u8 {
        match self {
            Failure::Said { status, .. } => *status,
            Failure::Daemon(_) => 1,
        }
    }

    /// Whether the daemon or a registry does not take who we are.
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Failure::Daemon(error) => error.status().is_some_and(|status| status.as_u16() == 401),
            Failure::Said { .. } => false,
        }
    }

    /// What to print on stderr, if anything.
    pub fn words(&self) -> Option<String> {
        let text = match self {
            Failure::Said { text, .. } => text.clone(),
            Failure::Daemon(error) => daemon_words(error),
        };
        Some(spec::errno::in_go_words(&text).into_owned())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::new(text)
    }
}

/// An error of the client, with its causes where its own text does not say all.
pub fn daemon_words(error: &api::client::Error) -> String {
    use api::client::{Error, Host};
    if let Error::Connect { host: host @ Host::Unix(path), source } = error
        && source.kind() == std::io::ErrorKind::PermissionDenied
    {
        return format!(
            "permission denied while trying to connect to the Docker daemon socket at {host}: dial unix {}: connect: permission denied",
            path.display()
        );
    }
    let mut text = error.to_string();
    if let Error::Api { .. } | Error::Connect { .. } = error {
        return text;
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
