//! Containers, but for their streams.

use api::compat::{self, Answer as Shape};
use api::container as docker;
use engine::containers::spec::RestartPolicy;
use engine::containers::views::{
    ChangeKind, CommitRequest, Grace, ListQuery, Outcome, RemoveOptions, StopOptions, UpdateRequest,
};
use hyper::StatusCode;

use crate::convert::rows::Rows;
use crate::convert::{create as convert, view};
use crate::http::reply::{self, Result};
use crate::http::{Call, Failure};

pub async fn list(call: &Call) -> Result {
    let limit = call.query.integer("limit")?.unwrap_or(0);
    let query = ListQuery {
        // Source: moby 28.2 `daemon/list.go`: a limit counts stopped ones too.
        all: call.query.flag("all") || limit > 0,
        limit: usize::try_from(limit).ok().filter(|limit| *limit > 0),
        size: call.query.flag("size"),
        filters: call.filters()?,
    };
    let list = call.engine.list_containers(query).await?;
    reply::ok(&Rows { version: call.version, list: &list })
}

pub async fn create(mut call: Call) -> Result {
    // Source: moby 28.2 `runconfig/errors.go`.
    let empty = || Failure::invalid("config cannot be empty in order to create a container");
    let body = call.json_bytes().await?.ok_or_else(empty)?;
    let body = docker::CreateRequest::from_slice(&body)
        .map_err(|error| crate::http::request::invalid_json(&body, &error))?
        .ok_or_else(empty)?;
    let (request, of_version) =
        convert::create(call.version, call.query.text("name"), call.query.text("platform"), body)?;
    let created = call.engine.create_container(request).await?;
    let warnings = created.warnings.into_iter().chain(of_version).collect();
    let answer = docker::CreateResponse { id: created.id.to_string(), warnings };
    reply::json(StatusCode::CREATED, &answer)
}

pub async fn inspect(call: &Call, id: &str) -> Result {
    let container = call.engine.inspect_container(id, call.query.flag("size")).await?;
    let mut value = serde_json::to_value(view::inspect(container))
        .map_err(|error| Failure::internal(error.to_string()))?;
    compat::downgrade(Shape::ContainerInspect, call.version, &mut value);
    reply::ok(&value)
}

fn outcome(outcome: Outcome) -> Result {
    let status = match outcome {
        Outcome::Done => StatusCode::NO_CONTENT,
        Outcome::Unchanged => StatusCode::NOT_MODIFIED,
    };
    Ok(reply::empty(status).into())
}

pub async fn start(mut call: Call, id: &str) -> Result {
    // Before 1.24 a body could change the HostConfig.
    if call.json_bytes().await.is_ok_and(|body| body.is_some_and(|body| body.as_ref() != b"{}")) {
        return Err(Failure::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if call.query.has("checkpoint") && !call.query.text("checkpoint").is_empty() {
        return Err(Failure::invalid("checkpoint is only supported in experimental mode"));
    }
    outcome(call.engine.start_container(id).await?)
}

fn stop_options(call: &Call) -> std::result::Result<StopOptions, Failure> {
    let signal = call.query.get("signal").filter(|signal| !signal.is_empty()).map(str::to_owned);
    let grace = match call.query.integer("t")? {
        None => Grace::Default,
        Some(seconds) => u32::try_from(seconds).map_or(Grace::Forever, Grace::Seconds),
    };
    Ok(StopOptions { signal, grace })
}

pub async fn stop(call: &Call, id: &str) -> Result {
    outcome(call.engine.stop_container(id, stop_options(call)?).await?)
}

pub async fn restart(call: &Call, id: &str) -> Result {
    call.engine.restart_container(id, stop_options(call)?).await?;
    reply::no_content()
}

pub async fn kill(call: &Call, id: &str) -> Result {
    let signal = call.query.get("signal").filter(|signal| !signal.is_empty());
    call.engine.kill_container(id, signal).await?;
    reply::no_content()
}

pub async fn pause(call: &Call, id: &str) -> Result {
    call.engine.pause_container(id).await?;
    reply::no_content()
}

pub async fn unpause(call: &Call, id: &str) -> Result {
    call.engine.unpause_container(id).await?;
    reply::no_content()
}

pub async fn rename(call: &Call, id: &str) -> Result {
    call.engine.rename_container(id, call.query.text("name")).await?;
    reply::no_content()
}

pub async fn update(mut call: Call, id: &str) -> Result {
    let body: docker::UpdateRequest = call.json().await?.unwrap_or_default();
    let policy = &body.restart_policy;
    let restart = match policy.name.as_str() {
        "" => None,
        name => Some(RestartPolicy::parse(name, policy.maximum_retry_count)?),
    };
    let request = UpdateRequest { resources: convert::update(call.version, &body)?, restart };
    let warnings = call.engine.update_container(id, request).await?;
    reply::ok(&docker::UpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) })
}

pub async fn delete(call: &Call, id: &str) -> Result {
    let options = RemoveOptions {
        force: call.query.flag("force"),
        volumes: call.query.flag("v"),
        link: call.query.flag("link"),
    };
    call.engine.remove_container(id, options).await?;
    reply::no_content()
}

pub async fn prune(call: &Call) -> Result {
    let pruned = call.engine.prune_containers(call.filters()?).await?;
    reply::ok(&docker::PruneReport {
        containers_deleted: (!pruned.ids.is_empty()).then_some(pruned.ids),
        space_reclaimed: pruned.reclaimed,
    })
}

pub async fn top(call: &Call, id: &str) -> Result {
    let top = call.engine.container_top(id, call.query.text("ps_args")).await?;
    reply::ok(&docker::Top { processes: top.processes, titles: top.titles })
}

pub async fn changes(call: &Call, id: &str) -> Result {
    let changes = call.engine.container_changes(id).await?;
    let changes: Vec<_> = changes
        .into_iter()
        .map(|change| docker::Change {
            kind: match change.kind {
                ChangeKind::Modified => 0,
                ChangeKind::Added => 1,
                ChangeKind::Deleted => 2,
            },
            path: change.path,
        })
        .collect();
    // Docker says null where there are none.
    reply::ok(&(!changes.is_empty()).then_some(changes))
}

/// Height and width of a terminal.
pub fn terminal_size(call: &Call) -> std::result::Result<(u16, u16), Failure> {
    let side = |name: &str| {
        let text = call.query.text(name);
        // Go's own words for a failed `strconv.ParseUint`.
        let what = if name == "h" { "height" } else { "width" };
        let bad = |why: &str| Failure::invalid(format!("invalid resize {what} {text:?}: {why}"));
        // Source: moby 28.2 `api/server/httputils/form.go` `Uint32Value`.
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(bad("invalid syntax"));
        }
        let cells: u32 = text.parse().map_err(|_| bad("value out of range"))?;
        // Docker asks for 32 bits; the kernel's terminals have 16.
        Ok(u16::try_from(cells).unwrap_or(u16::MAX))
    };
    Ok((side("h")?, side("w")?))
}

pub async fn resize(call: &Call, id: &str) -> Result {
    let (height, width) = terminal_size(call)?;
    call.engine.resize_container(id, height, width).await?;
    Ok(reply::empty(StatusCode::OK).into())
}

pub async fn commit(mut call: Call) -> Result {
    let config: Option<docker::Config> = call.json().await?;
    let query = &call.query;
    let reference = match (query.text("repo"), query.text("tag")) {
        ("", _) => None,
        (repo, "") => Some(repo.parse::<spec::Reference>()?),
        (repo, tag) => Some(spec::Reference::parse_untagged(repo)?.with_tag(tag)?),
    };
    let request = CommitRequest {
        reference,
        comment: query.text("comment").to_owned(),
        author: query.text("author").to_owned(),
        // Pausing is the default from 1.13 on, so for all versions served.
        pause: query.flag_or("pause", true),
        config: config.map(|config| convert::image_config(call.version, config)),
        changes: query.all("changes").flat_map(str::lines).map(str::to_owned).collect(),
    };
    let image = call.engine.commit_container(query.text("container"), request).await?;
    reply::json(StatusCode::CREATED, &api::image::IdResponse { id: image.to_string() })
}
