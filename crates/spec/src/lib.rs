//! Pure types of the field: digests, references, ids, platforms and the OCI documents.
//!
//! Everything here is data and its parsing; nothing does I/O. Other crates exchange these types
//! instead of strings, so a value that exists is valid.

mod chain;
pub mod digest;
pub mod errno;
pub mod glob;
pub mod id;
pub mod ignore;
pub mod image;
pub mod platform;
pub mod reference;
pub mod runtime;
pub mod seccomp;
pub mod signal;
pub mod sysctl;
pub mod units;

pub use chain::chain;
pub use digest::{ChainId, DiffId, Digest, ImageId};
pub use id::Id;
pub use platform::Platform;
pub use reference::Reference;
