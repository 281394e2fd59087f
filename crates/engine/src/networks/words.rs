//! Docker's wordings about networks. Clients match on some of them.
//!
//! Source: moby v28.2 `daemon/network.go`, `daemon/container_operations.go`, `libnetwork/error.go`,
//! `runconfig/errors.go`.

use crate::error::{Error, Kind};

pub fn not_found(asked: &str) -> Error {
    Error::not_found(format!("network {asked} not found"))
}

pub fn ambiguous(asked: &str, matches: usize) -> Error {
    Error::invalid(format!("network {asked} is ambiguous ({matches} matches found on ID prefix)"))
}

pub fn name_taken(name: &str) -> Error {
    Error::conflict(format!("network with name {name} already exists"))
}

pub fn predefined_create(name: &str) -> Error {
    Error::forbidden(format!("operation is not permitted on predefined {name} network"))
}

pub fn predefined_remove(name: &str) -> Error {
    Error::forbidden(format!("{name} is a pre-defined network and cannot be removed"))
}

pub fn active_endpoints(name: &str, members: &[(String, String)]) -> Error {
    let members: Vec<String> = members
        .iter()
        .map(|(name, endpoint)| format!("name:\"{name}\" id:\"{endpoint}\""))
        .collect();
    Error::forbidden(format!(
        "error while removing network: network {name} has active endpoints ({})",
        members.join(" ")
    ))
}

/// Docker opens the exposed ports of the other container then; we do not.
pub fn links_without_icc() -> Error {
    Error::invalid(
        "links do not let containers reach each other where inter-container communication is off (icc=false): \
         put both on a user-defined network",
    )
}

pub fn no_ipvlan() -> Error {
    Error::new(Kind::NotImplemented, "network driver ipvlan is not supported: macvlan is")
}

pub fn no_such_driver(driver: &str) -> Error {
    Error::not_found(format!("plugin \"{driver}\" not found"))
}

pub fn not_a_swarm_manager() -> Error {
    Error::new(
        Kind::Unavailable,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
         to swarm and try again.",
    )
}

pub fn pool_overlaps() -> Error {
    Error::forbidden("invalid pool request: Pool overlaps with other one on this address space")
}

pub fn no_pool() -> Error {
    Error::new(Kind::Invalid, "all predefined address pools have been fully subnetted")
}

pub fn address_needs_user_network() -> Error {
    Error::invalid("user specified IP address is supported on user defined networks only")
}

pub fn address_needs_chosen_subnet() -> Error {
    Error::invalid(
        "user specified IP address is supported only when connecting to networks with user configured subnets",
    )
}

pub fn alias_needs_user_network() -> Error {
    Error::invalid("network-scoped alias is supported only for containers in user defined networks")
}

pub fn already_connected(container: &str, network: &str) -> Error {
    Error::forbidden(format!("endpoint with name {container} already exists in network {network}"))
}

pub fn not_connected(container: &str, network: &str) -> Error {
    Error::forbidden(format!("container {container} is not connected to network {network}"))
}

pub fn shares_namespace() -> Error {
    Error::invalid(
        "container sharing network namespace with another container or host cannot be connected to any other network",
    )
}

pub fn host_mode_fixed() -> Error {
    Error::invalid(
        "container cannot be disconnected from host network or connected to host network",
    )
}

pub fn none_mode_alone() -> Error {
    Error::invalid(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode",
    )
}

/// What failed while a container was being started.
pub fn setting_up(error: &Error) -> Error {
    Error::new(error.kind, format!("failed to set up container networking: {}", error.message))
}

/// A port that could not be published; the container stays `created`.
pub fn cannot_publish(container: &str, endpoint: &str, cause: &str) -> Error {
    Error::internal(format!(
        "driver failed programming external connectivity on endpoint {container} ({endpoint}): {cause}"
    ))
}
