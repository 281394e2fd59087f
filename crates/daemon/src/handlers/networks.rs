//! Networks.

use std::collections::BTreeMap;

use api::compat::{self, Answer as Shape};
use api::network as docker;
use engine::networks::{Force, NetworkInfo, NetworkRequest, SubnetRequest};
use hyper::StatusCode;

use crate::convert::{create::endpoint, time};
use crate::http::reply::{self, Result};
use crate::http::{Call, Failure};

fn network(info: NetworkInfo) -> docker::Network {
    let subnets = info.subnets.into_iter().map(|subnet| docker::IpamConfig {
        subnet: subnet.subnet.to_string(),
        ip_range: subnet.range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: subnet.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        auxiliary_addresses: {
            let addresses = subnet.auxiliary.into_iter();
            Some(addresses.map(|(name, address)| (name, address.to_string())).collect())
        },
    });
    let members = info.members.into_iter().map(|(id, member)| {
        let text = |address: Option<_>| match address {
            Some(address) => format!("{address}"),
            None => String::new(),
        };
        let resource = docker::EndpointResource {
            name: member.name,
            endpoint_id: member.endpoint_id.to_string(),
            mac_address: member.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            ipv4_address: text(member.address),
            ipv6_address: text(member.address6),
        };
        (id.to_string(), resource)
    });
    docker::Network {
        name: info.name,
        id: info.id.to_string(),
        created: time(Some(info.created_at)),
        scope: "local".to_owned(),
        driver: info.driver.to_owned(),
        enable_ipv4: info.ipv4,
        enable_ipv6: info.ipv6,
        ipam: docker::Ipam {
            driver: info.ipam_driver,
            options: (!info.ipam_options.is_empty()).then_some(info.ipam_options),
            config: Some(subnets.collect()),
        },
        internal: info.internal,
        attachable: info.attachable,
        ingress: false,
        config_from: docker::ConfigReference { network: info.config_from },
        config_only: info.config_only,
        containers: members.collect::<BTreeMap<_, _>>(),
        options: Some(info.options),
        labels: Some(info.labels),
    }
}

fn shown<T: serde::Serialize>(call: &Call, shape: Shape, value: &T) -> Result {
    let mut value =
        serde_json::to_value(value).map_err(|error| Failure::internal(error.to_string()))?;
    compat::downgrade(shape, call.version, &mut value);
    reply::ok(&value)
}

pub async fn list(call: &Call) -> Result {
    let networks = call.engine.list_networks(call.filters()?).await?;
    let rows: Vec<_> = networks
        .into_iter()
        .map(|mut info| {
            // Only inspect tells who is on a network.
            info.members.clear();
            network(info)
        })
        .collect();
    shown(call, Shape::NetworkList, &rows)
}

pub async fn inspect(call: &Call, asked: &str) -> Result {
    // What it adds is a swarm's. Source: moby 28.2 `network_routes.go` `getNetwork`.
    let verbose = call.query.text("verbose");
    if !["", "1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"]
        .contains(&verbose)
    {
        return Err(Failure::invalid(format!(
            "invalid value for verbose: {verbose}: strconv.ParseBool: parsing {verbose:?}: invalid syntax"
        )));
    }
    let scope = call.query.text("scope");
    if !matches!(scope, "" | "local") {
        return Err(Failure::new(StatusCode::NOT_FOUND, format!("network {asked} not found")));
    }
    let info = call.engine.inspect_network(asked).await?;
    shown(call, Shape::Network, &network(info))
}

pub async fn create(mut call: Call) -> Result {
    let body: docker::CreateRequest = call.json().await?.unwrap_or_default();
    let ipam = body.ipam.unwrap_or_default();
    let subnets = ipam.config.unwrap_or_default().into_iter().map(|config| SubnetRequest {
        subnet: config.subnet,
        range: config.ip_range,
        gateway: config.gateway,
        auxiliary: config.auxiliary_addresses.unwrap_or_default(),
    });
    let request = NetworkRequest {
        name: body.name,
        driver: body.driver,
        scope: body.scope,
        // Before 1.47 there was no network without IPv4.
        ipv4: body.enable_ipv4.filter(|_| call.version >= api::version::v(47)),
        ipv6: body.enable_ipv6,
        internal: body.internal,
        attachable: body.attachable,
        ingress: body.ingress,
        config_only: body.config_only,
        config_from: body.config_from.unwrap_or_default().network,
        options: body.options.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
        ipam_driver: ipam.driver,
        ipam_options: ipam.options.unwrap_or_default(),
        ipam: subnets.collect(),
    };
    let created = call.engine.create_network(request).await?;
    let answer = docker::CreateResponse { id: created.id.to_string(), warning: created.warning };
    reply::json(StatusCode::CREATED, &answer)
}

pub async fn delete(call: &Call, asked: &str) -> Result {
    call.engine.remove_network(asked).await?;
    reply::no_content()
}

pub async fn connect(mut call: Call, asked: &str) -> Result {
    let body: docker::ConnectRequest = call.json().await?.unwrap_or_default();
    let mut wish = endpoint(body.endpoint_config.unwrap_or_default());
    // Source: moby's API history, 1.54.
    if call.version < api::version::v(54) {
        wish.mac_address.clear();
    }
    call.engine.connect_network(asked, &body.container, wish).await?;
    Ok(reply::empty(StatusCode::OK).into())
}

pub async fn disconnect(mut call: Call, asked: &str) -> Result {
    let body: docker::DisconnectRequest = call.json().await?.unwrap_or_default();
    let force = if body.force { Force::Yes } else { Force::No };
    call.engine.disconnect_network(asked, &body.container, force).await?;
    Ok(reply::empty(StatusCode::OK).into())
}

pub async fn prune(call: &Call) -> Result {
    let names = call.engine.prune_networks(call.filters()?).await?;
    reply::ok(&docker::PruneReport { networks_deleted: (!names.is_empty()).then_some(names) })
}
