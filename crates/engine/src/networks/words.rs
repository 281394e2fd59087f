//! Docker's wordings about networks. Clients match on some of them.
//!
//! Source: moby v28.2 `daemon/network.go`, `daemon/container_operations.go`, `libnetwork/error.go`,
//! `runconfig/errors.go`.

use spec::Id;

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
        members.join(", ")
    ))
}

/// Where nothing can be opened between ports that are kept apart.
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

/// Source: moby 28.2 `daemon/daemon_unix.go`, `initBridgeDriver`; `daemon/daemon.go`.
pub fn no_default_bridge(cause: &str) -> Error {
    Error::invalid(format!(
        "Error initializing network controller: error creating default \"bridge\" network: {cause}"
    ))
}

pub fn no_pool() -> Error {
    Error::new(Kind::Invalid, "all predefined address pools have been fully subnetted")
}

pub const ADDRESS_NEEDS_USER_NETWORK: &str =
    "user specified IP address is supported on user defined networks only";
pub const ADDRESS_NEEDS_CHOSEN_SUBNET: &str = "user specified IP address is supported only when connecting to networks with user configured subnets";
pub const ALIAS_NEEDS_USER_NETWORK: &str =
    "network-scoped alias is supported only for containers in user defined networks";

pub fn already_connected(container: &str, network: &str) -> Error {
    Error::forbidden(format!("endpoint with name {container} already exists in network {network}"))
}

/// Of a running container. Docker has no kind for it, so it is an internal error.
pub fn not_connected(container: &Id, network: &str) -> Error {
    Error::internal(format!("container {container} is not connected to network {network}"))
}

/// Of a stopped one, with an article more.
pub fn stopped_not_connected(container: &Id, network: &str) -> Error {
    Error::internal(format!("container {container} is not connected to the network {network}"))
}

pub fn marked_for_removal(container: &Id) -> Error {
    Error::internal(format!(
        "Container {container} is marked for removal and cannot be connected or disconnected to the network"
    ))
}

pub fn no_such_endpoint(name: &str) -> Error {
    Error::not_found(format!("endpoint {name} not found"))
}

pub fn shares_namespace() -> Error {
    Error::invalid(
        "container sharing network namespace with another container or host cannot be connected to any other network",
    )
}

pub fn connect_to_host() -> Error {
    Error::invalid(
        "cannot connect container to host network - container must be created in host network mode",
    )
}

pub fn disconnect_from_host() -> Error {
    Error::invalid(
        "cannot disconnect container from host network - container was created in host network mode",
    )
}

/// Source: moby 28.2 `libnetwork/osl/interface_linux.go`, `libnetwork/sandbox_linux.go`.
pub fn interface_exists(name: &str) -> Error {
    let outer = net::sandbox::veth_name();
    Error::internal(format!(
        "failed to add interface {outer} to sandbox: error renaming interface \"{outer}\" to \"{name}\": file exists"
    ))
}

/// Several mistakes as Docker lists them; one stands for itself.
///
/// Source: moby 28.2 `internal/multierror/multierror.go`.
pub fn listed(mistakes: &[String]) -> String {
    match mistakes {
        [one] => one.trim().to_owned(),
        several => {
            let lines = several.iter().map(|text| text.replace('\n', "\n\t"));
            format!("* {}", lines.collect::<Vec<_>>().join("\n* "))
        }
    }
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
