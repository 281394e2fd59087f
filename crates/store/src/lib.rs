//! Everything that Tug keeps on disk, behind one handle: [`Store`].
//!
//! Images are stacks of layers; a layer lies unpacked as an overlayfs lower directory together with
//! a recipe that gives its tar back bit for bit. What came from elsewhere is kept beside it as it
//! came: compressed layers, manifests, indexes.
//! Containers get a [`Snapshot`] on top; builds and commits turn its upper directory into a layer by
//! renaming it. Volumes and the records of the engine's own are here as well.
//!
//! ```text
//! DATA_ROOT/lock               one daemon
//!           layers/<diff id>/  layers.rs, draft.rs, recipe.rs
//!           content/           content.rs, content_sweep.rs
//!           images/            images.rs
//!           init/ rw/          snapshots.rs
//!           volumes/<name>/    volumes.rs
//!           buildcache/        cache.rs
//!           tmp/ trash/        emptied at open
//! ```
//! Always true: a name that exists is whole (temporary name, then rename); nothing outside the data
//! root is written but by [`archive`] below a descriptor that the caller gives; no network.
//!
//! Locks: the store's state, then that of what is to be flushed. The lock of the records' flush group is
//! not taken inside them: only [`Durability::Lazy`] writes are made there.

pub mod archive;
pub mod blocks;
mod cache;
pub mod compress;
mod content;
mod content_sweep;
mod documents;
pub mod draft;
mod flush;
mod images;
mod layers;
mod limits;
pub mod listing;
mod load;
mod marks;
mod merged;
mod pipe;
mod recipe;
pub mod records;
mod save;
mod snapshots;
mod store;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod tree;
mod unpack;
mod volumes;
mod walk;
mod writer;

pub use cache::{CacheError, CacheMount, CacheRecord};
pub use content::{ContentError, ContentLease, ContentReader, DOCUMENT_BYTES_MAX, Ingest, Target};
pub use documents::{CHILDREN_MAX, Child, Document, DocumentError, is_image_config};
pub use draft::UnpackError;
pub use images::{Image, ImageError};
pub use layers::{BlobInfo, Layer, LayerError, LayerKey, Lease, Unpacked};
pub use limits::UnpackLimits;
pub use load::{LoadError, LoadProgress, LoadedImage};
pub use recipe::LayerTar;
pub use records::{Durability, RecordError, Records};
pub use save::{SaveError, SaveItem, SaveStream};
pub use snapshots::{Change, ChangeKind, CommitError, Snapshot, SnapshotError};
pub use store::{Driver, OpenError, Options, Store, UnknownDriver};
pub use tar::{TarError, Time};
pub use tree::{Overwrite, TreeError};
pub use unpack::server::main as unpack_main;
pub use unpack::{UnpackerError, Unpacking};
pub use volumes::{Creation, Volume, VolumeError, VolumeMount, VolumeSpec};
pub use walk::WalkError;
pub use writer::{Attrs, CopyOptions, Extracted, LayerWriter, NodeKind, NodeStat, WriteError};
