//! `--metadata-file`: what was made, for scripts.
//!
//! Source: docs.docker.com `docker buildx build`, --metadata-file; buildkit `exporter/exptypes`.

use std::{io::Write as _, path::Path};

use api::client::Client;
use serde_json::{Map, Value};
use spec::Reference;

use crate::{create::files::reason, failure::Failure, files::Whole};

/// What the file says of an image of the store: its id, its names, and the digest under which a
/// registry has it when it was pushed. Without an image there is nothing to say.
///
/// # Errors
/// When the daemon does not know the image any more.
pub async fn of_image(
    client: &Client,
    image: &str,
    names: &[String],
    is_pushed: bool,
) -> Result<Map<String, Value>, Failure> {
    let mut found = Map::new();
    if image.is_empty() {
        return Ok(found);
    }
    let references: Vec<Reference> =
        names.iter().filter_map(|name| Reference::parse(name).ok()).collect();
    let mut digest = image.to_owned();
    if is_pushed {
        let shown: Value =
            client.get(&format!("/images/{image}/json")).send().await?.json().await?;
        let pushed = shown["RepoDigests"].as_array().into_iter().flatten().find_map(|text| {
            let (name, digest) = text.as_str()?.split_once('@')?;
            references.iter().any(|own| own.familiar_name() == name).then(|| digest.to_owned())
        });
        digest = pushed.unwrap_or(digest);
    }
    found.insert("containerimage.config.digest".to_owned(), image.into());
    found.insert("containerimage.digest".to_owned(), digest.into());
    if !references.is_empty() {
        let names: Vec<String> = references.iter().map(Reference::to_string).collect();
        found.insert("image.name".to_owned(), names.join(",").into());
    }
    Ok(found)
}

/// # Errors
/// When it cannot be written.
pub fn write(path: &str, metadata: &Map<String, Value>) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(metadata).unwrap_or_default();
    Whole::beside(Path::new(path), 0o644)
        .and_then(|mut whole| {
            whole.file.write_all(text.as_bytes())?;
            whole.place()
        })
        .map_err(|error| Failure::new(format!("open {path}: {}", reason(&error))))
}
