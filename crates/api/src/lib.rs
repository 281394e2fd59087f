//! Docker's Engine API on the wire: JSON types, routes, filters, stream framing and a client.
//!
//! Both ends use it: `daemon` maps these types to the engine's, `cli` reads them through
//! [`client`]. Nothing here knows the engine, and no engine type is ever serialised.
//!
//! Types have the shape of the newest version spoken ([`version::MAX`]); what older versions
//! saw differently is put right by [`compat`] on the finished JSON, as Docker does it.
//! `Option<Vec<_>>` and `Option<BTreeMap<_, _>>` keep Go's difference between `null` and empty,
//! which clients index on. Decode with [`golang`], which reads JSON as Go's `encoding/json`
//! does: `null` is the zero value, keys match in any case, unknown keys are skipped.

#![forbid(unsafe_code)]

pub mod body;
pub mod client;
pub mod compat;
pub mod container;
pub mod event;
pub mod exec;
pub mod filters;
pub mod framing;
pub mod golang;
pub mod golang_words;
pub mod image;
pub mod listing;
pub mod network;
pub mod progress;
pub mod query;
pub mod routes;
pub mod stats;
pub mod system;
pub mod trace;
pub mod version;
pub mod volume;

/// The body of every error answer. Source: moby `api/swagger.yaml` `ErrorResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    pub message: String,
}

/// Go's zero `time.Time`, which Docker prints for "never".
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Omits a field as Go's `omitempty` does.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Omits a list or map that is nil or empty, as Go's `omitempty` does.
pub(crate) fn is_empty<T>(value: &Option<T>) -> bool
where
    for<'a> &'a T: IntoIterator,
{
    value.as_ref().is_none_or(|items| items.into_iter().next().is_none())
}
