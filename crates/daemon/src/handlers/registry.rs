//! What is asked of registries besides pull and push, and the credentials that come with requests.
//!
//! Of credentials, what cannot be read is taken for no credentials, as Docker does: the registry will tell.
//!
//! Source: moby 28.2 `api/types/registry/authconfig.go`.

use std::collections::BTreeMap;

use api::image::SearchResult;
use api::system::AuthConfig;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use engine::images::Credentials;
use serde::de::DeserializeOwned;
use spec::Reference;

use crate::http::Call;
use crate::http::reply::{self, Result};

/// URL-safe, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `X-Registry-Auth`: for one registry.
pub fn registry_auth(call: &Call) -> Credentials {
    credentials(decoded::<AuthConfig>(call.header("x-registry-auth")).unwrap_or_default())
}

/// `X-Meta-…`: what a client has to tell the registry itself.
///
/// Source: moby 28.2 `api/server/router/image/image_routes.go`.
pub fn meta_headers(call: &Call) -> Vec<(String, String)> {
    let ours = call.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-meta-"));
    let text = ours.filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    text.collect()
}

/// `X-Registry-Config`: for all that the client knows, by its names of them.
pub fn registry_config(call: &Call) -> BTreeMap<String, Credentials> {
    let all: Option<BTreeMap<String, AuthConfig>> = decoded(call.header("x-registry-config"));
    all.into_iter().flatten().map(|(key, config)| (key, credentials(config))).collect()
}

/// What a name is at its registry.
///
/// Source: moby 28.2 `api/server/router/distribution`.
pub async fn distribution(call: &Call, asked: &str) -> Result {
    let name = Reference::parse(asked)?;
    let found = call.engine.inspect_distribution(&name, registry_auth(call)).await?;
    reply::ok(&serde_json::json!({
        "Descriptor": {
            "mediaType": found.media_type,
            "digest": found.digest.to_string(),
            "size": found.size,
        },
        "Platforms": found.platforms,
    }))
}

/// What a registry knows under a term.
///
/// Source: moby 28.2 `api/server/router/image`, `getImagesSearch`.
pub async fn search(call: &Call) -> Result {
    let limit = call.query.integer("limit")?;
    let filters = call.filters()?;
    let found = call
        .engine
        .search_images(
            call.query.text("term"),
            limit,
            &filters,
            registry_auth(call),
            &meta_headers(call),
        )
        .await?;
    let found: Vec<SearchResult> = found
        .into_iter()
        .map(|found| SearchResult {
            star_count: found.star_count,
            is_official: found.is_official,
            name: found.name,
            is_automated: false,
            description: found.description,
        })
        .collect();
    reply::ok(&found)
}

fn decoded<T: DeserializeOwned>(header: &str) -> Option<T> {
    let bytes = BASE64.decode(header.trim()).ok()?;
    api::golang::from_slice(&bytes).ok()
}

pub fn credentials(config: AuthConfig) -> Credentials {
    let (mut user, mut password) = (config.username, config.password);
    if user.is_empty() && !config.auth.is_empty() {
        let text =
            base64::engine::general_purpose::STANDARD.decode(&config.auth).unwrap_or_default();
        if let Some((name, word)) = String::from_utf8_lossy(&text).split_once(':') {
            (user, password) = (name.to_owned(), word.trim_end_matches('\0').to_owned());
        }
    }
    Credentials {
        user,
        password,
        identity_token: config.identity_token,
        registry_token: config.registry_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, user: &str, password: &str) {
        let got = credentials(decoded::<AuthConfig>(header).unwrap_or_default());
        assert_eq!((got.user.as_str(), got.password.as_str()), (user, password));
    }

    #[test]
    fn credentials_come_in_base64_of_json() {
        // {"username":"me","password":"se?ret"}, and the same without padding.
        check("eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJzZT9yZXQifQ==", "me", "se?ret");
        check("eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJzZT9yZXQifQ", "me", "se?ret");
        // {"auth":"bWU6d29yZA=="}
        check("eyJhdXRoIjoiYldVNmQyOXlaQT09In0=", "me", "word");
        check("", "", "");
        check("e30", "", "");
        check("no base64!", "", "");
    }
}
