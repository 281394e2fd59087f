//! What Docker answers when there is no swarm, and no plugin.

use hyper::StatusCode;

use crate::http::Failure;
use crate::http::reply::{self, Result};

/// Source: moby 28.2 `daemon/cluster/errors.go`. Clients match on these words.
const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

pub fn no_manager() -> Result {
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, NO_MANAGER))
}

pub fn enter() -> Result {
    Err(Failure::not_implemented("Tug has no swarm mode"))
}

/// Source: moby 28.2 `daemon/cluster/errors.go`, `errNoSwarm`.
pub fn leave() -> Result {
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm"))
}

pub fn no_plugins() -> Result {
    reply::ok::<[(); 0]>(&[])
}

/// Source: moby 28.2 `plugin/errors.go`.
pub fn no_such_plugin(name: &str) -> Result {
    Err(Failure::new(StatusCode::NOT_FOUND, format!("plugin \"{name}\" not found")))
}

pub fn plugins() -> Result {
    Err(Failure::not_implemented("Tug has no managed plugins"))
}

/// Source: moby 28.2 `api/server/middleware/experimental.go`.
pub fn checkpoints() -> Result {
    Err(Failure::new(StatusCode::NOT_FOUND, "page not found"))
}

pub fn buildkit() -> Result {
    Err(Failure::not_implemented("this daemon builds without BuildKit: set DOCKER_BUILDKIT=0"))
}
