//! Which image of an index fits a platform.
//!
//! Source: containerd `platforms/compare.go`: variants of the same architecture run older ones, the
//! closest first; `unknown/unknown` are attestations and no images.

use spec::Platform;
use spec::image::{Descriptor, Index, media_type};

/// The manifest for `platform`; among several that run, the newest variant, then the first.
pub fn select<'a>(index: &'a Index, platform: &Platform) -> Option<&'a Descriptor> {
    let images = index.manifests.iter().filter(|manifest| is_image(manifest));
    let mut best: Option<&Descriptor> = None;
    for manifest in images {
        let Some(offered) = &manifest.platform else { continue };
        if !platform.runs(offered) {
            continue;
        }
        let better = match best.and_then(|best| best.platform.as_ref()) {
            None => true,
            // The better one runs the other, and not the other way round.
            Some(known) => offered.runs(known) && !known.runs(offered),
        };
        if better {
            best = Some(manifest);
        }
    }
    best
}

fn is_image(manifest: &Descriptor) -> bool {
    let kind = matches!(
        manifest.media_type.as_str(),
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST | ""
    );
    kind && manifest.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
}

/// What Docker says when there is none.
///
/// Source: moby `distribution/pull_v2.go`, `noMatchesErr`.
pub fn no_match(platform: &Platform) -> String {
    format!("no matching manifest for {platform} in the manifest list entries")
}

#[cfg(test)]
mod tests {
    use spec::Digest;

    use super::*;

    #[track_caller]
    fn check(offered: &[&str], wanted: &str, want: Option<usize>) {
        let manifests = offered.iter().enumerate().map(|(place, text)| {
            let digest = Digest::of(&[u8::try_from(place).unwrap()]);
            let mut manifest = Descriptor::new(media_type::OCI_MANIFEST, digest, 1);
            let (os, rest) = text.split_once('/').unwrap();
            let (architecture, variant) = match rest.split_once('/') {
                Some((architecture, variant)) => (architecture, Some(variant)),
                None => (rest, None),
            };
            manifest.platform = Some(Platform::new(os, architecture, variant));
            manifest
        });
        let index = Index {
            schema_version: 2,
            media_type: None,
            manifests: manifests.collect(),
            annotations: Default::default(),
        };
        let found = select(&index, &wanted.parse().unwrap());
        let place = found.map(|found| index.manifests.iter().position(|one| one == found).unwrap());
        assert_eq!(place, want);
    }

    #[test]
    fn the_closest_variant_is_taken() {
        check(&["linux/amd64", "linux/arm64/v8"], "linux/arm64", Some(1));
        check(&["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", Some(2));
        check(&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", Some(1));
        check(&["linux/arm/v7"], "linux/arm/v6", None);
        check(&["windows/amd64", "unknown/unknown"], "linux/amd64", None);
    }
}
