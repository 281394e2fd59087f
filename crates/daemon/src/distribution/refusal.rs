//! Refusals in the specification's form: a status, a code, and words for people.
//!
//! Source: OCI distribution-spec 1.1, "Error Codes".

use api::body::Body;
use engine::distribution::{DistributionError, RepositoryError};
use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER};

use crate::http::reply::{self, Reply};

/// What of the specification's list is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    /// docker-registry's, for a count of entries that is none.
    PaginationNumberInvalid,
    SizeInvalid,
    Unsupported,
    TooManyRequests,
    /// Our own fault; the specification leaves codes of 5xx open.
    Unknown,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestBlobUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown => StatusCode::NOT_FOUND,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::PaginationNumberInvalid
            | Self::SizeInvalid => StatusCode::BAD_REQUEST,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A refused request.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: Code,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

pub type Result<T = Reply> = std::result::Result<T, Refusal>;

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { status: code.status(), code, message: message.into(), headers: Vec::new() }
    }

    /// The code with another status than its own.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// A value that cannot be one is left out.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The path is one of ours, the method is none of its.
    pub fn method(allowed: &'static str) -> Self {
        Self::new(Code::Unsupported, format!("the operation is unsupported: allowed are {allowed}"))
            .with_header(ALLOW, allowed)
    }

    /// The specification's form. A HEAD has no body, which hyper sees to.
    pub fn into_reply(self) -> Reply {
        let errors = serde_json::json!({
            "errors": [{"code": self.code.name(), "message": self.message, "detail": null}],
        });
        let mut reply = Reply::new(Body::full(format!("{errors}\n")));
        *reply.status_mut() = self.status;
        reply::set(&mut reply, "content-type", "application/json");
        reply.headers_mut().extend(self.headers);
        reply
    }
}

impl From<RepositoryError> for Refusal {
    fn from(error: RepositoryError) -> Self {
        Self::new(Code::NameInvalid, engine::error::chain(&error))
    }
}

impl From<DistributionError> for Refusal {
    fn from(error: DistributionError) -> Self {
        let words = engine::error::chain(&error);
        let code = match &error {
            DistributionError::Name => Code::NameUnknown,
            DistributionError::Blob(_) => Code::BlobUnknown,
            DistributionError::BlobInUse(_) => Code::Unsupported,
            DistributionError::Upload => Code::BlobUploadUnknown,
            DistributionError::UploadBusy => Code::BlobUploadInvalid,
            DistributionError::UploadsMany => {
                return Self::new(Code::TooManyRequests, words).with_header(RETRY_AFTER, "60");
            }
            DistributionError::Digest { .. } => Code::DigestInvalid,
            DistributionError::Invalid(_) => Code::ManifestInvalid,
            DistributionError::Document(_) => Code::ManifestInvalid,
            DistributionError::Missing(_) => Code::ManifestBlobUnknown,
            DistributionError::Manifest(_) => Code::ManifestUnknown,
            DistributionError::InUse(_) => Code::Unsupported,
            DistributionError::Engine(_) | DistributionError::Io { .. } => {
                // Here the error stops travelling.
                tracing::error!(error = words, "the registry failed");
                Code::Unknown
            }
        };
        Self::new(code, words)
    }
}
