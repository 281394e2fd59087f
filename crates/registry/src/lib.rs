//! The client's side of the OCI distribution protocol: what registries are asked and how.
//!
//! ```text
//! policy ─▶ Endpoint (where, how far it is trusted)      select: which image of an index
//!              │
//! client ──────┴─▶ auth (challenges, tokens) ─▶ transport (names, TCP, TLS, proxies, HTTP/1.1)
//! ```
//! Everything is async and keeps nothing on disk. All answers are bounded: in bytes where they are
//! held in memory, in time without progress where they are streamed. A registry is never believed:
//! manifests are checked against their digests here, blobs by whoever stores them.
//!
//! Errors speak as Docker's do, since people search for those words: a failed request is
//! `Get "https://host/v2/": dial tcp …`, an answered refusal is `denied: …`.
//!
//! Source: OCI distribution-spec 1.1; distribution/distribution v2 `registry/client`; moby
//! `distribution`, `registry`.

pub mod address;
pub mod auth;
pub mod client;
pub mod dial;
pub mod error;
pub mod files;
pub mod hosts;
mod json;
pub mod policy;
pub mod search;
pub mod select;
#[cfg(test)]
mod tests;
pub mod transport;

pub use auth::Credentials;
pub use client::{Access, Client, Fetched};
pub use error::{Error, RequestError, TransportError};
pub use policy::{Endpoint, HostFiles, Policy, Role, Scheme, Work};
pub use transport::{Proxies, Transport};

/// What [`Transport::send`] takes.
pub use hyper::{HeaderMap, Method, Uri};
