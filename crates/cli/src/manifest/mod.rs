//! Manifest lists as the command line makes them: entries, the files that keep them, registries.
//!
//! The command line asks registries itself here, without a daemon. [`entry`] is one manifest and what
//! is said of it, [`store`] keeps the entries of lists not yet pushed, [`remote`] fetches and puts.

pub mod entry;
pub mod remote;
pub mod store;
