//! Method and path → typed [`Route`].
//!
//! A path may begin with `/vMAJOR.MINOR`. The rest is matched against [`TABLE`]: `{}` captures one
//! segment or, for image and plugin names, as many as there are; captures are percent-decoded.
//! Paths with empty or dot segments are moved to their clean form, as Go's mux does.
//! Source: moby 28.2 `api/server/router/*/*.go`, `api/server/server.go`.

use hyper::Method;

use crate::version::{ApiVersion, MIN, UnsupportedVersion};

/// An endpoint, with the names in its path as the client sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Ping,
    Version,
    Info,
    Auth,
    Events,
    DiskUsage,
    ContainerList,
    ContainerCreate,
    ContainerPrune,
    ContainerInspect(String),
    ContainerTop(String),
    ContainerLogs(String),
    ContainerChanges(String),
    ContainerExport(String),
    ContainerStats(String),
    ContainerResize(String),
    ContainerStart(String),
    ContainerStop(String),
    ContainerRestart(String),
    ContainerKill(String),
    ContainerUpdate(String),
    ContainerRename(String),
    ContainerPause(String),
    ContainerUnpause(String),
    ContainerAttach(String),
    ContainerAttachWebsocket(String),
    ContainerWait(String),
    ContainerDelete(String),
    ContainerArchiveStat(String),
    ContainerArchiveGet(String),
    ContainerArchivePut(String),
    ExecCreate(String),
    ExecStart(String),
    ExecResize(String),
    ExecInspect(String),
    Commit,
    Build,
    BuildPrune,
    BuildCancel,
    ImageList,
    ImageCreate,
    ImageInspect(String),
    ImageHistory(String),
    ImagePush(String),
    ImageTag(String),
    ImageDelete(String),
    ImageSearch,
    ImagePrune,
    ImageGet(String),
    ImageGetAll,
    ImageLoad,
    Distribution(String),
    VolumeList,
    VolumeCreate,
    VolumeInspect(String),
    VolumeUpdate(String),
    VolumeDelete(String),
    VolumePrune,
    NetworkList,
    NetworkCreate,
    NetworkInspect(String),
    NetworkDelete(String),
    NetworkConnect(String),
    NetworkDisconnect(String),
    NetworkPrune,
    PluginList,
    PluginInspect(String),
    /// Everything else about plugins.
    Plugins,
    /// Everything that needs a swarm manager.
    Swarm,
    /// `POST /swarm/init` and `/swarm/join`.
    SwarmEnter,
    /// `POST /swarm/leave`.
    SwarmLeave,
    /// Checkpoints, which need an experimental daemon.
    Checkpoints,
    /// BuildKit's `/session` and `/grpc`.
    BuildKit,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The version in the path; none means the newest.
    pub version: Option<ApiVersion>,
    pub route: Route,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Source: moby 28.2 `api/server/server.go`, also for a wrong method.
    #[error("page not found")]
    NotFound,
    /// The clean path to go to instead (301).
    #[error("the path is {0}")]
    Moved(String),
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
}

/// Takes the names captured by a pattern, in order.
type Make = fn(&mut dyn FnMut() -> String) -> Route;

struct Entry {
    method: Method,
    pattern: &'static str,
    make: Make,
}

macro_rules! table {
    ($($method:ident $pattern:literal => $route:ident $(($name:ident))?;)*) => {
        static TABLE: &[Entry] = &[$(Entry {
            method: Method::$method,
            pattern: $pattern,
            make: |next| {
                $(let $name = next();)?
                let _ = next;
                Route::$route $(($name))?
            },
        }),*];
    };
}

// `{}` is one segment, `{*}` one or more. The first match counts, so the literal ones stand first.
table! {
    GET "/_ping" => Ping;
    HEAD "/_ping" => Ping;
    GET "/version" => Version;
    GET "/info" => Info;
    POST "/auth" => Auth;
    GET "/events" => Events;
    GET "/system/df" => DiskUsage;
    GET "/containers/json" => ContainerList;
    POST "/containers/create" => ContainerCreate;
    POST "/containers/prune" => ContainerPrune;
    GET "/containers/{*}/json" => ContainerInspect(id);
    GET "/containers/{*}/top" => ContainerTop(id);
    GET "/containers/{*}/logs" => ContainerLogs(id);
    GET "/containers/{*}/changes" => ContainerChanges(id);
    GET "/containers/{*}/export" => ContainerExport(id);
    GET "/containers/{*}/stats" => ContainerStats(id);
    GET "/containers/{*}/attach/ws" => ContainerAttachWebsocket(id);
    GET "/containers/{*}/archive" => ContainerArchiveGet(id);
    HEAD "/containers/{*}/archive" => ContainerArchiveStat(id);
    PUT "/containers/{*}/archive" => ContainerArchivePut(id);
    POST "/containers/{*}/resize" => ContainerResize(id);
    POST "/containers/{*}/start" => ContainerStart(id);
    POST "/containers/{*}/stop" => ContainerStop(id);
    POST "/containers/{*}/restart" => ContainerRestart(id);
    POST "/containers/{*}/kill" => ContainerKill(id);
    POST "/containers/{*}/update" => ContainerUpdate(id);
    POST "/containers/{*}/rename" => ContainerRename(id);
    POST "/containers/{*}/pause" => ContainerPause(id);
    POST "/containers/{*}/unpause" => ContainerUnpause(id);
    POST "/containers/{*}/attach" => ContainerAttach(id);
    POST "/containers/{*}/wait" => ContainerWait(id);
    POST "/containers/{*}/exec" => ExecCreate(id);
    GET "/containers/{}/checkpoints" => Checkpoints;
    POST "/containers/{}/checkpoints" => Checkpoints;
    DELETE "/containers/{}/checkpoints/{}" => Checkpoints;
    DELETE "/containers/{*}" => ContainerDelete(id);
    POST "/exec/{}/start" => ExecStart(id);
    POST "/exec/{}/resize" => ExecResize(id);
    GET "/exec/{}/json" => ExecInspect(id);
    POST "/commit" => Commit;
    POST "/build" => Build;
    POST "/build/prune" => BuildPrune;
    POST "/build/cancel" => BuildCancel;
    GET "/images/json" => ImageList;
    GET "/images/search" => ImageSearch;
    GET "/images/get" => ImageGetAll;
    POST "/images/create" => ImageCreate;
    POST "/images/load" => ImageLoad;
    POST "/images/prune" => ImagePrune;
    GET "/images/{*}/get" => ImageGet(name);
    GET "/images/{*}/history" => ImageHistory(name);
    GET "/images/{*}/json" => ImageInspect(name);
    POST "/images/{*}/push" => ImagePush(name);
    POST "/images/{*}/tag" => ImageTag(name);
    DELETE "/images/{*}" => ImageDelete(name);
    GET "/distribution/{*}/json" => Distribution(name);
    GET "/volumes" => VolumeList;
    POST "/volumes/create" => VolumeCreate;
    POST "/volumes/prune" => VolumePrune;
    GET "/volumes/{*}" => VolumeInspect(name);
    PUT "/volumes/{*}" => VolumeUpdate(name);
    DELETE "/volumes/{*}" => VolumeDelete(name);
    GET "/networks" => NetworkList;
    GET "/networks/" => NetworkList;
    POST "/networks/create" => NetworkCreate;
    POST "/networks/prune" => NetworkPrune;
    POST "/networks/{*}/connect" => NetworkConnect(id);
    POST "/networks/{*}/disconnect" => NetworkDisconnect(id);
    GET "/networks/{*}" => NetworkInspect(id);
    DELETE "/networks/{*}" => NetworkDelete(id);
    GET "/plugins" => PluginList;
    GET "/plugins/privileges" => Plugins;
    POST "/plugins/pull" => Plugins;
    POST "/plugins/create" => Plugins;
    GET "/plugins/{*}/json" => PluginInspect(name);
    DELETE "/plugins/{*}" => PluginInspect(name);
    POST "/plugins/{*}/enable" => PluginInspect(name);
    POST "/plugins/{*}/disable" => PluginInspect(name);
    POST "/plugins/{*}/upgrade" => PluginInspect(name);
    POST "/plugins/{*}/push" => PluginInspect(name);
    POST "/plugins/{*}/set" => PluginInspect(name);
    POST "/swarm/init" => SwarmEnter;
    POST "/swarm/join" => SwarmEnter;
    POST "/swarm/leave" => SwarmLeave;
    GET "/swarm" => Swarm;
    GET "/swarm/unlockkey" => Swarm;
    POST "/swarm/update" => Swarm;
    POST "/swarm/unlock" => Swarm;
    GET "/nodes" => Swarm;
    GET "/nodes/{}" => Swarm;
    DELETE "/nodes/{}" => Swarm;
    POST "/nodes/{}/update" => Swarm;
    GET "/services" => Swarm;
    POST "/services/create" => Swarm;
    GET "/services/{}" => Swarm;
    DELETE "/services/{}" => Swarm;
    POST "/services/{}/update" => Swarm;
    GET "/services/{}/logs" => Swarm;
    GET "/tasks" => Swarm;
    GET "/tasks/{}" => Swarm;
    GET "/tasks/{}/logs" => Swarm;
    GET "/secrets" => Swarm;
    POST "/secrets/create" => Swarm;
    GET "/secrets/{}" => Swarm;
    DELETE "/secrets/{}" => Swarm;
    POST "/secrets/{}/update" => Swarm;
    GET "/configs" => Swarm;
    POST "/configs/create" => Swarm;
    GET "/configs/{}" => Swarm;
    DELETE "/configs/{}" => Swarm;
    POST "/configs/{}/update" => Swarm;
    POST "/session" => BuildKit;
    POST "/grpc" => BuildKit;
}

/// Finds the endpoint.
///
/// # Errors
/// When there is none, the path is not clean, or its version is not served.
pub fn find(method: &Method, path: &str) -> Result<Matched, RouteError> {
    if let Some(clean) = cleaned(path) {
        return Err(RouteError::Moved(clean));
    }
    let (version, rest) = split_version(path);
    let route = TABLE
        .iter()
        .filter(|entry| entry.method == *method)
        .find_map(|entry| {
            let mut names = captures(entry.pattern, rest)?.into_iter();
            Some((entry.make)(&mut || names.next().unwrap_or_default()))
        })
        .ok_or(RouteError::NotFound)?;
    // skopeo's docker-daemon transport asks for 1.22, whose two requests have not changed since.
    let is_archive = matches!(route, Route::ImageGetAll | Route::ImageLoad);
    let version = version.map(|asked| if is_archive { asked.max(MIN) } else { asked });
    let version = version.map(ApiVersion::check_served).transpose()?;
    Ok(Matched { version, route })
}

/// The version prefix and what follows it. `/v1` counts as `/v1.0`, which is too old.
fn split_version(path: &str) -> (Option<ApiVersion>, &str) {
    let none = (None, path);
    let Some(rest) = path.strip_prefix("/v") else {
        return none;
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (text, rest) = rest.split_at(end);
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return none;
    }
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = ApiVersion { major: next(), minor: next() };
    (Some(version), rest)
}

/// The clean form of a path that has empty or dot segments.
fn cleaned(path: &str) -> Option<String> {
    let dirty = |segment: &str| matches!(segment, "" | "." | "..");
    let body = path.strip_prefix('/')?;
    let body = body.strip_suffix('/').unwrap_or(body);
    if body.is_empty() || !body.split('/').any(dirty) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in body.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    let tail = if path.ends_with('/') { "/" } else { "" };
    Some(format!("/{}{tail}", kept.join("/")))
}

/// What the pattern captures of the path, or nothing when it does not match.
fn captures(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let (mut pattern, mut path) = (pattern, path);
    while let Some(open) = pattern.find('{') {
        path = path.strip_prefix(&pattern[..open])?;
        let close = open + pattern[open..].find('}')?;
        let many = &pattern[open..=close] == "{*}";
        pattern = &pattern[close + 1..];
        let end = if many {
            // A name of many segments ends where the rest of the pattern begins for the last time.
            let literal = &pattern[..pattern.find('{').unwrap_or(pattern.len())];
            path.len() - literal.len().min(path.len())
        } else {
            path.find('/').unwrap_or(path.len())
        };
        // The cut may fall within a character of a path that matches nothing.
        let (name, rest) = path.split_at_checked(end)?;
        if name.is_empty() {
            return None;
        }
        names.push(percent_encoding::percent_decode_str(name).decode_utf8().ok()?.into_owned());
        path = rest;
    }
    (path == pattern).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(request: &str, want: Expect) {
        let (method, path) = request.split_once(' ').unwrap();
        let got = match find(&method.parse().unwrap(), path) {
            Ok(Matched { version: Some(version), route }) => format!("{version} {route:?}"),
            Ok(Matched { version: None, route }) => format!("{route:?}"),
            Err(error) => error.to_string(),
        };
        want.assert_eq(&got);
    }

    #[test]
    fn versions_are_optional() {
        check("GET /_ping", expect!["Ping"]);
        check("HEAD /_ping", expect!["Ping"]);
        check("GET /v1.41/containers/json", expect!["1.41 ContainerList"]);
        check("GET /containers/json", expect!["ContainerList"]);
    }

    #[test]
    fn versions_that_are_not_served_are_refused() {
        check(
            "GET /v1.51/info",
            expect!["client version 1.51 is too new. Maximum supported API version is 1.50"],
        );
        check(
            "GET /v1.12/info",
            expect![
                "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
            ],
        );
        check("POST /v1.22/images/load", expect!["1.24 ImageLoad"]);
        check("GET /v9.9/nonsense", expect!["page not found"]);
        check("GET /vx/info", expect!["page not found"]);
    }

    #[test]
    fn names_are_captured_and_decoded() {
        check("GET /containers/a%20b/json", expect![[r#"ContainerInspect("a b")"#]]);
        check("DELETE /v1.50/containers/x", expect![[r#"1.50 ContainerDelete("x")"#]]);
        check("POST /exec/1/start", expect![[r#"ExecStart("1")"#]]);
        check("GET /containers//json", expect!["the path is /containers/json"]);
    }

    #[test]
    fn image_names_have_slashes() {
        check("GET /images/a.b:5/c/d:e/json", expect![[r#"ImageInspect("a.b:5/c/d:e")"#]]);
        check("GET /images/json/json", expect![[r#"ImageInspect("json")"#]]);
        check("DELETE /images/a/b@sha256:0", expect![[r#"ImageDelete("a/b@sha256:0")"#]]);
        check("GET /images/json", expect!["ImageList"]);
        check("GET /images/get?", expect!["page not found"]);
    }

    #[test]
    fn a_wrong_method_is_no_page_either() {
        check("PUT /info", expect!["page not found"]);
        check("GET /containers/create", expect!["page not found"]);
    }

    #[test]
    fn unclean_paths_are_moved() {
        check("GET //v1.50//info", expect!["the path is /v1.50/info"]);
        check("GET /a/../info", expect!["the path is /info"]);
        check("GET /networks/", expect!["NetworkList"]);
        check("GET /", expect!["page not found"]);
    }

    #[test]
    fn a_path_in_another_script_does_no_harm() {
        check("GET /images/é/jsonü", expect!["page not found"]);
    }
}
