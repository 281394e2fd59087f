//! Referrers: the manifests of a repository whose `subject` is a given one.
//!
//! Nothing is indexed: the repository's manifests are read each time, one after the other, and an
//! answer ends when it has grown to [`ANSWER_BYTES_MAX`], so memory is bounded however large the
//! annotations are.
//!
//! Source: OCI distribution-spec 1.1, "Listing Referrers".

use std::collections::BTreeMap;
use std::sync::Arc;

use spec::Digest;
use spec::image::Descriptor;
use store::Target;

use super::document::Document;
use super::{Repository, Result};
use crate::blocking::blocking;
use crate::{Engine, Inner};

/// Clients take an index of 4 MiB.
const ANSWER_BYTES_MAX: usize = 3 << 20;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ReferrersQuery {
    pub subject: Digest,
    pub artifact_type: Option<String>,
    /// Where the page before ended.
    pub after: Option<Digest>,
}

/// One page, in the order of digests.
#[derive(Debug, Clone, Default)]
pub struct Referrers {
    pub manifests: Vec<Descriptor>,
    /// More follow after the last one.
    pub has_more: bool,
}

impl Engine {
    /// # Errors
    /// None that the client could mend.
    pub async fn referrers(
        &self,
        repository: &Repository,
        query: ReferrersQuery,
    ) -> Result<Referrers> {
        let (engine, repository) = (Arc::clone(&self.inner), repository.clone());
        Ok(blocking(move || referrers(&engine, &repository, &query)).await)
    }
}

fn referrers(engine: &Inner, repository: &Repository, query: &ReferrersQuery) -> Referrers {
    let named = engine.store.content_names(&repository.full_name());
    let targets: BTreeMap<Digest, Target> =
        named.into_iter().map(|(_, target)| (target.digest, target)).collect();
    let mut found = Referrers::default();
    let mut bytes = 0;
    for (digest, target) in targets {
        if query.after.is_some_and(|after| digest <= after) {
            continue;
        }
        let Some(text) = engine.store.read_manifest(&digest) else { continue };
        let Some(descriptor) = referrer(&text, target, query) else { continue };
        bytes += serde_json::to_vec(&descriptor).map_or(0, |json| json.len());
        if bytes > ANSWER_BYTES_MAX && !found.manifests.is_empty() {
            found.has_more = true;
            break;
        }
        found.manifests.push(descriptor);
    }
    found
}

fn referrer(text: &[u8], target: Target, query: &ReferrersQuery) -> Option<Descriptor> {
    let document = Document::read(text).ok()?;
    document.subject.as_ref().filter(|subject| subject.digest == query.subject)?;
    let artifact_type = document.artifact_type();
    if query.artifact_type.is_some() && query.artifact_type != artifact_type {
        return None;
    }
    Some(Descriptor {
        annotations: document.annotations,
        artifact_type,
        ..Descriptor::new(&target.media_type, target.digest, target.size)
    })
}
