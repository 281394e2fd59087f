//! Handlers: Docker's requests in the engine's words, and the engine's answers in Docker's.
//!
//! One exhaustive match sends each route to its handler. Handlers decide nothing that the engine
//! could: they translate, and give streams their HTTP form.

mod archive;
mod build;
mod containers;
mod exec;
mod images;
mod networks;
mod registry;
mod streams;
mod swarm;
mod system;
mod usage;
mod volumes;
mod websocket;

pub use system::SERVER_VERSION;

use std::sync::Arc;

use api::query::Query;
use api::routes::{self, Matched, Route, RouteError};
use api::version;
use engine::Engine;
use hyper::{Method, StatusCode};

use crate::distribution;
use crate::http::conn::Head;
use crate::http::reply::{self, Result};
use crate::http::request::RequestBody;
use crate::http::{Call, Failure};
use crate::state::State;

/// Answers one request.
pub async fn answer(head: Head, body: RequestBody, engine: Engine, state: Arc<State>) -> Result {
    if head.method == Method::OPTIONS {
        return Ok(reply::empty(StatusCode::OK).into());
    }
    if distribution::is_ours(head.uri.path()) {
        return Ok(distribution::answer(head, body, engine).await.into());
    }
    let Matched { version, route } = match routes::find(&head.method, head.uri.path()) {
        Ok(matched) => matched,
        Err(RouteError::Moved(path)) => return Ok(moved(&path, head.uri.query()).into()),
        Err(error @ RouteError::NotFound) => {
            return Err(Failure::new(StatusCode::NOT_FOUND, error.to_string()));
        }
        Err(error @ RouteError::Version(_)) => return Err(Failure::invalid(error.to_string())),
    };
    let mut call = Call {
        engine,
        state,
        version: version.unwrap_or(version::MAX),
        query: Query::parse(head.uri.query()),
        headers: head.headers,
        body,
    };
    call.read_ahead().await?;
    dispatch(call, route).await
}

fn moved(path: &str, query: Option<&str>) -> reply::Reply {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut reply = reply::empty(StatusCode::MOVED_PERMANENTLY);
    reply::set(&mut reply, "location", &target);
    reply
}

async fn dispatch(call: Call, route: Route) -> Result {
    match route {
        Route::Ping => system::ping(),
        Route::Version => system::version(&call),
        Route::Info => system::info(&call).await,
        Route::Auth => system::auth(call).await,
        Route::Events => streams::events(&call),
        Route::ContainerList => containers::list(&call).await,
        Route::ContainerCreate => containers::create(call).await,
        Route::ContainerPrune => containers::prune(&call).await,
        Route::ContainerInspect(id) => containers::inspect(&call, &id).await,
        Route::ContainerTop(id) => containers::top(&call, &id).await,
        Route::ContainerChanges(id) => containers::changes(&call, &id).await,
        Route::ContainerResize(id) => containers::resize(&call, &id).await,
        Route::ContainerStart(id) => containers::start(call, &id).await,
        Route::ContainerStop(id) => containers::stop(&call, &id).await,
        Route::ContainerRestart(id) => containers::restart(&call, &id).await,
        Route::ContainerKill(id) => containers::kill(&call, &id).await,
        Route::ContainerUpdate(id) => containers::update(call, &id).await,
        Route::ContainerRename(id) => containers::rename(&call, &id).await,
        Route::ContainerPause(id) => containers::pause(&call, &id).await,
        Route::ContainerUnpause(id) => containers::unpause(&call, &id).await,
        Route::ContainerDelete(id) => containers::delete(&call, &id).await,
        Route::Commit => containers::commit(call).await,
        Route::ContainerLogs(id) => streams::logs(&call, &id).await,
        Route::ContainerStats(id) => streams::stats(&call, &id).await,
        Route::ContainerAttach(id) => streams::attach(&call, &id).await,
        Route::ContainerAttachWebsocket(id) => streams::attach_websocket(&call, &id).await,
        Route::ContainerWait(id) => streams::wait(&call, &id),
        Route::ContainerExport(id) => archive::export(&call, &id).await,
        Route::ContainerArchiveStat(id) => archive::stat(&call, &id).await,
        Route::ContainerArchiveGet(id) => archive::get(&call, &id).await,
        Route::ContainerArchivePut(id) => archive::put(call, &id).await,
        Route::ExecCreate(id) => exec::create(call, &id).await,
        Route::ExecStart(id) => exec::start(call, &id).await,
        Route::ExecResize(id) => exec::resize(&call, &id).await,
        Route::ExecInspect(id) => exec::inspect(&call, &id).await,
        other => elsewhere(call, other).await,
    }
}

/// Routes of other parts than containers.
async fn elsewhere(call: Call, route: Route) -> Result {
    match route {
        Route::Build => build::build(call).await,
        Route::BuildPrune => build::prune(&call).await,
        Route::DiskUsage => usage::disk_usage(&call).await,
        Route::ImageList => images::list(&call).await,
        Route::ImageCreate => images::create(call).await,
        Route::ImageInspect(name) => images::inspect(&call, &name).await,
        Route::ImageHistory(name) => images::history(&call, &name).await,
        Route::ImageTag(name) => images::tag(&call, &name).await,
        Route::ImageDelete(name) => images::delete(&call, &name).await,
        Route::ImagePrune => images::prune(&call).await,
        Route::ImageGet(name) => images::save(&call, &[name]).await,
        Route::ImageGetAll => images::save_all(&call).await,
        Route::ImageLoad => images::load(call).await,
        Route::ImagePush(name) => images::push(&call, &name).await,
        Route::ImageSearch => registry::search(&call).await,
        Route::Distribution(name) => registry::distribution(&call, &name).await,
        Route::NetworkList => networks::list(&call).await,
        Route::NetworkCreate => networks::create(call).await,
        Route::NetworkInspect(id) => networks::inspect(&call, &id).await,
        Route::NetworkDelete(id) => networks::delete(&call, &id).await,
        Route::NetworkConnect(id) => networks::connect(call, &id).await,
        Route::NetworkDisconnect(id) => networks::disconnect(call, &id).await,
        Route::NetworkPrune => networks::prune(&call).await,
        Route::VolumeList => volumes::list(&call).await,
        Route::VolumeCreate => volumes::create(call).await,
        Route::VolumeInspect(name) => volumes::inspect(&call, &name).await,
        Route::VolumeUpdate(_) => volumes::update(),
        Route::VolumeDelete(name) => volumes::delete(&call, &name).await,
        Route::VolumePrune => volumes::prune(&call).await,
        Route::PluginList => swarm::no_plugins(),
        Route::PluginInspect(name) => swarm::no_such_plugin(&name),
        Route::Plugins => swarm::plugins(),
        Route::Swarm => swarm::no_manager(),
        Route::SwarmEnter => swarm::enter(),
        Route::SwarmLeave => swarm::leave(),
        Route::Checkpoints => swarm::checkpoints(),
        Route::BuildCancel => build::cancel(&call),
        Route::BuildKit => swarm::buildkit(),
        other => Err(Failure::not_implemented(format!("{other:?} is not supported yet"))),
    }
}
