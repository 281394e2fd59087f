//! Errors as answers: the one place where an error's kind becomes a status.

use std::error::Error as StdError;

use engine::Kind;
use hyper::StatusCode;

/// A refused request: its status and the words of `{"message"}`.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub message: String,
}

impl Failure {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// A parse error of the request, told with its causes.
    pub fn bad(error: &(dyn StdError + 'static)) -> Self {
        Self::invalid(engine::error::chain(error))
    }
}

/// Source: moby `api/server/httpstatus/status.go`.
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // A gateway would answer 502; Docker's clients know 500.
        Kind::Upstream | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let status = status(error.kind);
        if error.kind == Kind::Internal {
            // Here the error stops travelling; the others are the client's own affair.
            tracing::error!(error = error.message, "request failed");
        }
        Self::new(status, error.message)
    }
}

/// Errors of parsing a request are all the client's.
macro_rules! invalid_from {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::bad(&error)
            }
        }
    )*};
}

invalid_from! {
    api::filters::FiltersError,
    api::query::BadInteger,
    spec::platform::PlatformError,
    spec::reference::ReferenceError,
}
