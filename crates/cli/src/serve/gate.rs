//! Who and what is let through to the daemon: the registry's paths, and nothing that could be read
//! in two ways.

use hyper::header::{AUTHORIZATION, CONNECTION, UPGRADE};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::users::Users;

/// Whether clients may change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    Allowed,
    Refused,
}

/// Decides about each request.
pub struct Gate {
    pub users: Option<Users>,
    pub writing: Writing,
}

/// Why a request does not go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NoRegistryPath,
    Upgrade,
    Method,
    ReadOnly,
    Unauthorized,
}

impl Refusal {
    /// Status, code of the distribution specification, words.
    pub fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoRegistryPath => {
                (StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is only a registry here, at /v2/")
            }
            Self::Upgrade => {
                (StatusCode::BAD_REQUEST, "UNSUPPORTED", "the registry speaks HTTP only")
            }
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the operation is unsupported")
            }
            Self::ReadOnly => {
                (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry is read-only")
            }
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
            }
        }
    }
}

impl Gate {
    /// # Errors
    /// When the request does not go through.
    pub async fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        if !is_registry_path(uri.path()) {
            return Err(Refusal::NoRegistryPath);
        }
        if wants_upgrade(headers) {
            return Err(Refusal::Upgrade);
        }
        let reads = method == Method::GET || method == Method::HEAD;
        let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
        if !reads && !writes {
            return Err(Refusal::Method);
        }
        if let Some(users) = &self.users {
            let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            let Some(given) = given else { return Err(Refusal::Unauthorized) };
            if !users.admit(given).await {
                return Err(Refusal::Unauthorized);
            }
        }
        if writes && self.writing == Writing::Refused {
            return Err(Refusal::ReadOnly);
        }
        Ok(())
    }
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    headers.contains_key(UPGRADE)
        || connection
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

/// Whether a path is below `/v2/` however one reads it: as it stands, decoded once, and with dot
/// segments resolved.
fn is_registry_path(path: &str) -> bool {
    let Ok(decoded) = percent_decode_str(path).decode_utf8() else { return false };
    let below = |path: &str| path == "/v2" || path.starts_with("/v2/");
    let clean = |path: &str| {
        let body = path.strip_suffix('/').unwrap_or(path);
        body.split('/').skip(1).all(|segment| !matches!(segment, "" | "." | ".."))
    };
    below(path)
        && below(&decoded)
        && clean(&decoded)
        && !decoded.contains(|c: char| c.is_control() || c == '\\' || c == '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn only_the_registrys_paths_go_through() {
        for path in
            ["/v2", "/v2/", "/v2/a/blobs/uploads/", "/v2/a/blobs/sha256%3Aab", "/v2/_catalog"]
        {
            assert_eq!(check("GET", path, &[]).await, Ok(()), "{path}");
        }
        for path in [
            "/",
            "/info",
            "/v1.50/info",
            "/v2x/",
            "/v20/",
            "//v2/",
            "/v2//info",
            "/v2/../info",
            "/v2/./x",
            "/v2/%2e%2e/info",
            "/v2/..%2finfo",
            "/v2%2f..%2finfo",
            "/%76%32/../info",
            "/v2/%252e%252e/info",
            "/v2/%ff",
            "/v2/a%00",
            "/v2/a%5c..",
            "/x/v2/",
        ] {
            assert_eq!(check("GET", path, &[]).await, Err(Refusal::NoRegistryPath), "{path}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_protocol_cannot_be_changed() {
        let upgrade = [("connection", "keep-alive, Upgrade"), ("upgrade", "tcp")];
        assert_eq!(check("POST", "/v2/", &upgrade).await, Err(Refusal::Upgrade));
        assert_eq!(check("POST", "/v2/", &upgrade[..1]).await, Err(Refusal::Upgrade));
        assert_eq!(check("POST", "/v2/", &upgrade[1..]).await, Err(Refusal::Upgrade));
        assert_eq!(check("CONNECT", "/v2/", &[]).await, Err(Refusal::Method));
        assert_eq!(check("OPTIONS", "/v2/", &[]).await, Err(Refusal::Method));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_read_only_registry_only_reads() {
        let gate = Gate { users: None, writing: Writing::Refused };
        let uri = Uri::from_static("/v2/a/manifests/v1");
        for (method, want) in [
            (Method::GET, Ok(())),
            (Method::HEAD, Ok(())),
            (Method::PUT, Err(Refusal::ReadOnly)),
            (Method::DELETE, Err(Refusal::ReadOnly)),
            (Method::PATCH, Err(Refusal::ReadOnly)),
            (Method::POST, Err(Refusal::ReadOnly)),
        ] {
            assert_eq!(gate.check(&method, &uri, &HeaderMap::new()).await, want);
        }
    }

    async fn check(
        method: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), Refusal> {
        let gate = Gate { users: None, writing: Writing::Allowed };
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (hyper::header::HeaderName::from_static(name), value.parse().unwrap())
            })
            .collect();
        gate.check(&method.parse().unwrap(), &path.parse().unwrap(), &headers).await
    }
}
