//! Which kept blobs are still needed, and the removal of the others.
//!
//! Marking starts at the names' targets and at the blobs of unpacked layers, and follows documents:
//! an index to its manifests, a manifest to its configuration and layers. What a document says of
//! sizes and types is not believed: a document is what is short and reads as one. It is done without
//! the lock; if meanwhile a name or a layer came, it is done anew, so nothing that was just named goes.
//!
//! Hostile documents: of each only digests are kept in memory, of blobs that are here; each is read
//! once, however many lead to it, and there is no recursion, so depth and number are bounded by what
//! is on the disk.
//!
//! `subject` is not followed: it points from an attestation to what it is about, and who has the
//! attestation need not have that.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use spec::Digest;
use tracing::debug;

use crate::store::Store;

const ROUNDS_MAX: usize = 8;

/// The digests in an index or a manifest; all other fields are somebody else's.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Links,
    #[serde(default)]
    config: Link,
    #[serde(default)]
    layers: Links,
}

/// The digest of a descriptor, if it is of a kind that blobs have here.
#[derive(Default)]
struct Link(Option<Digest>);

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Link, D::Error> {
        #[derive(Deserialize)]
        struct Descriptor<'a> {
            #[serde(default, borrow)]
            digest: Cow<'a, str>,
        }
        let descriptor = Option::<Descriptor<'_>>::deserialize(deserializer)?;
        Ok(Link(descriptor.and_then(|descriptor| descriptor.digest.parse().ok())))
    }
}

/// The digests of a list of descriptors. Those without one take no memory, as a document may have a
/// million of them.
#[derive(Default)]
struct Links(Vec<Digest>);

impl<'de> Deserialize<'de> for Links {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Links, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Links;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of descriptors")
            }

            fn visit_unit<E>(self) -> Result<Links, E> {
                Ok(Links::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Links, A::Error> {
                let mut found = Vec::new();
                while let Some(Link(link)) = list.next_element()? {
                    found.extend(link);
                }
                Ok(Links(found))
            }
        }
        deserializer.deserialize_any(List)
    }
}

impl Store {
    /// Removes all blobs that nothing needs; gives the bytes that they took.
    pub fn sweep_content(&self) -> u64 {
        let (freed, trashed) = self.sweep_to_trash();
        self.discard(trashed);
        freed
    }

    /// The same; gives also what is in the trash and yet to be deleted.
    pub(crate) fn sweep_to_trash(&self) -> (u64, Vec<PathBuf>) {
        for _ in 0..ROUNDS_MAX {
            let (roots, present, generation) = self.roots();
            let marked = self.mark(&roots, &present);
            let now = Instant::now();
            let mut state = self.state();
            if state.content.generation != generation {
                continue;
            }
            for (digest, until) in std::mem::take(&mut state.content.young) {
                if !marked.contains(&digest) {
                    state.content.timed.insert(digest, until);
                }
            }
            let unneeded = present.into_iter().filter(|digest| !marked.contains(digest));
            let (held, doomed): (Vec<Digest>, Vec<Digest>) =
                unneeded.partition(|digest| state.content.is_held(digest, now));
            state.content.sweep_after_leases |= !held.is_empty();
            let sizes = doomed.iter().filter_map(|digest| state.content.blobs.remove(digest));
            let freed = sizes.sum();
            // Renamed under the lock: a blob of the same digest may come right after.
            let paths = doomed.iter().map(|digest| self.blob_path(digest));
            let trashed = paths.filter_map(|path| self.to_trash(&path)).collect();
            drop(state);
            if !doomed.is_empty() {
                debug!(count = doomed.len(), bytes = freed, "blobs removed");
            }
            return (freed, trashed);
        }
        // Whoever named something asks for a sweep when it goes.
        debug!("names change faster than blobs can be swept");
        (0, Vec::new())
    }

    /// Whether something that is named or unpacked here reaches the blob.
    pub fn is_content_needed(&self, digest: &Digest) -> bool {
        let (roots, present, _) = self.roots();
        self.mark(&roots, &present).contains(digest)
    }

    /// Where marking starts, the blobs there are, and what tells whether that has changed.
    fn roots(&self) -> (Vec<(Digest, bool)>, HashSet<Digest>, u64) {
        let state = self.state();
        let targets = state.content.names.values().map(|target| (target.digest, true));
        let layers = state.layers.keys().filter_map(|key| {
            let blob = state.layers.get(key)?.record.blob.as_ref()?;
            Some((blob.digest, false))
        });
        let roots = targets.chain(layers).collect();
        (roots, state.content.blobs.keys().copied().collect(), state.content.generation)
    }

    fn mark(&self, roots: &[(Digest, bool)], present: &HashSet<Digest>) -> HashSet<Digest> {
        let mut marked = HashSet::new();
        let mut read = HashSet::new();
        let mut next = Vec::new();
        for (root, is_document) in roots.iter().filter(|(root, _)| present.contains(root)) {
            marked.insert(*root);
            next.extend(is_document.then_some(*root));
        }
        while let Some(digest) = next.pop() {
            if !read.insert(digest) {
                continue;
            }
            let Some(bytes) = self.read_manifest(&digest) else { continue };
            let Ok(document) = serde_json::from_slice::<Document>(&bytes) else { continue };
            let here = |digest: &Digest| present.contains(digest);
            let leaves = document.config.0.into_iter().chain(document.layers.0);
            marked.extend(leaves.filter(here));
            for child in document.manifests.0.into_iter().filter(here) {
                marked.insert(child);
                next.push(child);
            }
        }
        marked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(document: &str, want: &[&str]) {
        let read: Option<Document> = serde_json::from_str(document).ok();
        let found = read.map(|read| {
            let all = read.manifests.0.into_iter().chain(read.config.0).chain(read.layers.0);
            all.map(|digest| digest.hex()[..4].to_owned()).collect::<Vec<_>>()
        });
        assert_eq!(found.unwrap_or_default(), want);
    }

    #[test]
    fn only_digests_are_read_of_a_document() {
        let digest = |of: &str| Digest::of(of.as_bytes()).to_string();
        let (a, b) = (digest("a"), digest("b"));
        check(
            &format!(
                r#"{{"config":{{"digest":"{a}","size":-1}},"layers":[{{"digest":"{b}"}},{{}},null]}}"#
            ),
            &["ca97", "3e23"],
        );
        check(
            &format!(
                r#"{{"manifests":[{{"digest":"{a}"}},{{"digest":"sha512:00"}}],"subject":{{"digest":"{b}"}}}}"#
            ),
            &["ca97"],
        );
        check(r#"{"manifests":null,"layers":null,"config":null}"#, &[]);
        check(r#"{"manifests":7}"#, &[]);
        check("[[[[", &[]);
    }
}
