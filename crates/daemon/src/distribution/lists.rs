//! Lists: tags (end-8), referrers (end-12), and the catalogue of repositories.

use engine::distribution::{Referrers, ReferrersQuery, Repository};
use hyper::Method;
use hyper::header::LINK;
use spec::Digest;
use spec::image::{Index, media_type};

use super::page::Page;
use super::refusal::{Code, Refusal, Result};
use super::route::Asked;
use super::{Ask, json, route};
use crate::http::reply::{self, Reply};

fn only_get(ask: &Ask) -> Result<()> {
    match ask.method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Refusal::method("GET")),
    }
}

fn with_link(mut reply: Reply, link: Option<String>) -> Reply {
    if let Some(link) = link {
        reply::set(&mut reply, LINK.as_str(), &link);
    }
    reply
}

/// Source: distribution v2 `docs/spec/api.md`, "Catalog".
pub async fn catalog(ask: &Ask) -> Result {
    only_get(ask)?;
    let page = Page::of(&ask.query)?;
    let mut names = ask.engine.repositories(ask.registry()).await;
    let link = page.cut(&mut names, "/v2/_catalog", ask.registry());
    Ok(with_link(json(&serde_json::json!({ "repositories": names })), link))
}

pub async fn tags(ask: &Ask, repository: &Repository) -> Result {
    only_get(ask)?;
    let page = Page::of(&ask.query)?;
    let mut tags = ask.engine.repository_tags(repository).await?;
    let path = format!("/v2/{}/tags/list", ask.name);
    let link = page.cut(&mut tags, &path, ask.registry());
    Ok(with_link(json(&serde_json::json!({ "name": ask.name, "tags": tags })), link))
}

pub async fn referrers(ask: &Ask, repository: &Repository, subject: Asked) -> Result {
    only_get(ask)?;
    let artifact_type = ask.query.get("artifactType").filter(|kind| !kind.is_empty());
    let Referrers { manifests, has_more } = match subject {
        // Nobody can have named it here, but it is a fair question.
        Asked::Other(_) => Referrers::default(),
        Asked::Digest(subject) => {
            let query = ReferrersQuery {
                subject,
                artifact_type: artifact_type.map(str::to_owned),
                after: ask.query.get("last").map(route::digest).transpose()?,
            };
            ask.engine.referrers(repository, query).await?
        }
    };
    let link = manifests.last().filter(|_| has_more).map(|last| next(ask, &last.digest));
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests,
        annotations: Default::default(),
    };
    let document = serde_json::to_value(&index)
        .map_err(|error| Refusal::new(Code::Unknown, error.to_string()))?;
    let mut reply = json(&document);
    reply::set(&mut reply, "content-type", media_type::OCI_INDEX);
    if artifact_type.is_some() {
        reply::set(&mut reply, "oci-filters-applied", "artifactType");
    }
    Ok(with_link(reply, link))
}

/// The address of the page after this one.
fn next(ask: &Ask, last: &Digest) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("last", &last.to_string());
    for name in ["artifactType", "ns"] {
        if let Some(value) = ask.query.get(name) {
            query.append_pair(name, value);
        }
    }
    format!("<{}?{}>; rel=\"next\"", ask.path, query.finish())
}
