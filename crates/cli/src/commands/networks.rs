//! Networks: create, list, remove, connect, disconnect.

use api::{
    client::segment,
    network::{
        ConfigReference, ConnectRequest, CreateRequest, CreateResponse, DisconnectRequest, Ipam,
        IpamConfig, Network,
    },
};

use super::{FORMAT_USAGE, each};
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    create::{files, networks::Attachment, request::endpoint},
    failure::Failure,
    render::{
        format::{self, Headers, Row, labels_text},
        units::short_id,
    },
    terminal,
};

const BASE: Command = Command {
    name: "create",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    flags: &[&[
        flag("attachable", Bool, "Let containers be attached by hand"),
        flag("aux-address", Map, "Addresses that are the driver's own").or("map[]"),
        flag("config-from", Text, "Network to copy the configuration from"),
        flag("config-only", Bool, "Create only a configuration for other networks"),
        flag("driver", Text, "Driver of the network").s('d').or("bridge"),
        flag("gateway", Strings, "IPv4 or IPv6 gateway of the subnet"),
        flag("ingress", Bool, "Create the swarm's routing mesh"),
        flag("internal", Bool, "Keep the network from the outside"),
        flag("ip-range", Strings, "Give containers addresses from this range"),
        flag("ipam-driver", Text, "Driver that gives out addresses").or("default"),
        flag("ipam-opt", Map, "Options of the address driver").or("map[]"),
        flag("ipv4", Bool, "Turn IPv4 on or off").or("true"),
        flag("ipv6", Bool, "Turn IPv6 on or off"),
        flag("label", Label, "Set metadata on the network"),
        flag("opt", Map, "Options of the driver").s('o').or("map[]"),
        flag("scope", Text, "Scope of the network"),
        flag("subnet", Strings, "Subnet in CIDR form"),
    ]],
    arity: Arity::Exactly(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(create(session, matches)),
};
pub static CREATE: Command = BASE;

pub static LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    spellings: &["network ls", "network list"],
    usage: "[OPTIONS]",
    about: "List networks",
    flags: &[&[
        flag("filter", Filter, "Show only what meets these conditions (e.g. \"driver=bridge\")")
            .s('f'),
        flag("format", Text, FORMAT_USAGE),
        flag("no-trunc", Bool, "Do not shorten output"),
        flag("quiet", Bool, "Show only network IDs").s('q'),
    ]],
    arity: Arity::None,
    run: |session, matches| Box::pin(list(session, matches)),
    ..BASE
};

pub static RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    spellings: &["network rm", "network remove"],
    usage: "NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    flags: &[&[flag("force", Bool, "Say nothing of networks that are not there").s('f')]],
    arity: Arity::AtLeast(1),
    run: |session, matches| Box::pin(remove(session, matches)),
    ..BASE
};

pub static CONNECT: Command = Command {
    name: "connect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    flags: &[&[
        flag("alias", Strings, "Add a name for the container on this network"),
        flag("driver-opt", Strings, "Options of the network's driver"),
        flag("gw-priority", Int, "The network of highest priority has the default gateway"),
        flag("ip", Text, "IPv4 address (e.g., \"172.30.100.104\")"),
        flag("ip6", Text, "IPv6 address (e.g., \"2001:db8::33\")"),
        flag("link", Link, "Link to another container"),
        flag("link-local-ip", Strings, "Link-local address of the container"),
    ]],
    arity: Arity::Exactly(2),
    run: |session, matches| Box::pin(connect(session, matches)),
    ..BASE
};

pub static DISCONNECT: Command = Command {
    name: "disconnect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    flags: &[&[flag("force", Bool, "Disconnect it by force").s('f')]],
    arity: Arity::Exactly(2),
    run: |session, matches| Box::pin(disconnect(session, matches)),
    ..BASE
};

async fn create(session: &Session, matches: &Matches) -> Outcome {
    let Some(name) = matches.args.first() else { return Ok(0) };
    let configs = ipam(matches)?;
    let given = |flag: &str| matches.given(flag).then(|| matches.on(flag));
    let from = matches.text("config-from");
    let request = CreateRequest {
        name: name.clone(),
        driver: matches.text("driver").to_owned(),
        scope: matches.text("scope").to_owned(),
        enable_ipv4: given("ipv4"),
        enable_ipv6: given("ipv6"),
        ipam: Some(Ipam {
            driver: matches.text("ipam-driver").to_owned(),
            options: Some(files::pairs(matches.all("ipam-opt"))),
            config: Some(configs),
        }),
        internal: matches.on("internal"),
        attachable: matches.on("attachable"),
        ingress: matches.on("ingress"),
        config_only: matches.on("config-only"),
        config_from: (!from.is_empty()).then(|| ConfigReference { network: from.to_owned() }),
        options: Some(files::pairs(matches.all("opt"))),
        labels: Some(files::labels(&[], matches.all("label"))?),
        check_duplicate: Some(true),
    };
    let made: CreateResponse = session
        .client()
        .await?
        .post("/networks/create")
        .json(&request)
        .send()
        .await?
        .json()
        .await?;
    if !made.warning.is_empty() {
        terminal::error_text(&format!("WARNING: {}\n", made.warning));
    }
    terminal::out(&format!("{}\n", made.id));
    Ok(0)
}

/// Puts gateways, ranges and auxiliary addresses to the subnets that hold them.
///
/// Source of the words: docker/cli `network/create.go`.
fn ipam(matches: &Matches) -> Result<Vec<IpamConfig>, Failure> {
    let subnets = matches.all("subnet");
    if subnets.len() < matches.all("ip-range").len() || subnets.len() < matches.all("gateway").len()
    {
        return Err(Failure::new("every ip-range or gateway must have a corresponding subnet"));
    }
    let mut configs: Vec<(Cidr, IpamConfig)> = Vec::new();
    let mut unread: Vec<IpamConfig> = Vec::new();
    for subnet in subnets {
        // What is no subnet is the daemon's to refuse.
        let Ok(cidr) = Cidr::parse(subnet) else {
            unread.push(IpamConfig { subnet: subnet.clone(), ..IpamConfig::default() });
            continue;
        };
        if configs
            .iter()
            .any(|(other, _)| other.contains(cidr.address) || cidr.contains(other.address))
        {
            return Err(Failure::new("multiple overlapping subnet configuration is not supported"));
        }
        configs.push((cidr, IpamConfig { subnet: subnet.clone(), ..IpamConfig::default() }));
    }
    for range in matches.all("ip-range") {
        let at = find(&configs, range, Cidr::parse(range)?.address, "range")?;
        if !configs[at].1.ip_range.is_empty() {
            return Err(Failure::new(format!(
                "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                configs[at].1.ip_range, configs[at].1.subnet
            )));
        }
        configs[at].1.ip_range = range.clone();
    }
    for gateway in matches.all("gateway") {
        let at = find(&configs, gateway, address(gateway)?, "gateway")?;
        if !configs[at].1.gateway.is_empty() {
            return Err(Failure::new(format!(
                "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                configs[at].1.gateway, configs[at].1.subnet
            )));
        }
        configs[at].1.gateway = gateway.clone();
    }
    for (name, text) in files::pairs(matches.all("aux-address")) {
        let at = find(&configs, &text, address(&text)?, "aux-address")?;
        configs[at].1.auxiliary_addresses.get_or_insert_default().insert(name, text);
    }
    Ok(configs.into_iter().map(|(_, config)| config).chain(unread).collect())
}

fn find(
    configs: &[(Cidr, IpamConfig)],
    text: &str,
    address: std::net::IpAddr,
    what: &str,
) -> Result<usize, Failure> {
    configs
        .iter()
        .position(|(cidr, _)| cidr.contains(address))
        .ok_or_else(|| Failure::new(format!("no matching subnet for {what} {text}")))
}

fn address(text: &str) -> Result<std::net::IpAddr, Failure> {
    text.parse().map_err(|_| Failure::new(format!("invalid IP address: {text}")))
}

/// An address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cidr {
    address: std::net::IpAddr,
    prefix: u32,
}

impl Cidr {
    fn parse(text: &str) -> Result<Cidr, Failure> {
        let wrong = || Failure::new(format!("invalid CIDR address: {text}"));
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u32 = prefix.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if prefix > most {
            return Err(wrong());
        }
        Ok(Cidr { address, prefix })
    }

    fn contains(self, other: std::net::IpAddr) -> bool {
        use std::net::IpAddr;
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix).unwrap_or_default();
                u32::from(own) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or_default();
                u128::from(own) & mask == u128::from(other) & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

const HEADERS: Headers = &[
    ("CreatedAt", "CREATED AT"),
    ("Driver", "DRIVER"),
    ("ID", "NETWORK ID"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("Name", "NAME"),
    ("Scope", "SCOPE"),
];

async fn list(session: &Session, matches: &Matches) -> Outcome {
    let mut request = session.client().await?.get("/networks");
    if let Some(filters) = super::filters(matches) {
        request = request.query("filters", filters);
    }
    let mut networks: Vec<Network> = request.send().await?.json().await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let full = matches.on("no-trunc");
    let rows: Vec<Row> = networks
        .iter()
        .map(|network| {
            let labels = network.labels.clone().unwrap_or_default();
            let id = if full { &network.id } else { short_id(&network.id) };
            Row {
                fields: vec![
                    ("CreatedAt", go_time(&network.created)),
                    ("Driver", network.driver.clone()),
                    ("ID", id.to_owned()),
                    ("IPv4", network.enable_ipv4.to_string()),
                    ("IPv6", network.enable_ipv6.to_string()),
                    ("Internal", network.internal.to_string()),
                    ("Labels", labels_text(&labels)),
                    ("Name", network.name.clone()),
                    ("Scope", network.scope.clone()),
                ],
                labels,
                ..Row::default()
            }
        })
        .collect();
    let asked = match matches.find("format") {
        Some(format) => format,
        None if matches.on("quiet") => "",
        None => session.config.format("networksFormat").unwrap_or_default(),
    };
    let template = if matches.on("quiet") && matches!(asked, "" | "table") {
        "{{.ID}}"
    } else if matches.on("quiet") && asked == "raw" {
        "network_id: {{.ID}}"
    } else {
        format::resolve(
            asked,
            "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
            "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
        )
    };
    format::print(format::Listing::Of("*network.networkContext"), template, HEADERS, &rows)?;
    Ok(0)
}

/// An RFC 3339 time as Go's `time.Time` prints itself.
fn go_time(text: &str) -> String {
    let (bare, zone) = match text.strip_suffix('Z') {
        Some(bare) => (bare, "+0000 UTC".to_owned()),
        None if text.len() > 6 && text.is_char_boundary(text.len() - 6) => {
            let (bare, offset) = text.split_at(text.len() - 6);
            let offset = offset.replace(':', "");
            (bare, format!("{offset} {offset}"))
        }
        None => return text.to_owned(),
    };
    format!("{} {zone}", bare.replacen('T', " ", 1))
}

async fn remove(session: &Session, matches: &Matches) -> Outcome {
    let force = matches.on("force");
    each(session, &matches.args, |client, name| async move {
        match client.delete(&format!("/networks/{}", segment(&name))).send().await {
            Err(error) if force && error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    })
    .await
    .map_err(|failure| match failure.words() {
        // Docker's client says so too.
        Some(words) => Failure::new(format!("{words}\nexit status 1")),
        None => failure,
    })
}

async fn connect(session: &Session, matches: &Matches) -> Outcome {
    let [network, container] = &matches.args[..] else { return Ok(0) };
    let settings = endpoint(Attachment {
        network: network.clone(),
        aliases: matches.all("alias").to_vec(),
        driver_options: files::pairs(matches.all("driver-opt")),
        ipv4: matches.text("ip").to_owned(),
        ipv6: matches.text("ip6").to_owned(),
        link_local: matches.all("link-local-ip").to_vec(),
        mac: String::new(),
        gateway_priority: matches.int("gw-priority"),
        links: matches.all("link").to_vec(),
    })?;
    let request = ConnectRequest { container: container.clone(), endpoint_config: Some(settings) };
    let path = format!("/networks/{}/connect", segment(network));
    session.client().await?.post(&path).json(&request).send().await?;
    Ok(0)
}

async fn disconnect(session: &Session, matches: &Matches) -> Outcome {
    let [network, container] = &matches.args[..] else { return Ok(0) };
    let request = DisconnectRequest { container: container.clone(), force: matches.on("force") };
    let path = format!("/networks/{}/disconnect", segment(network));
    session.client().await?.post(&path).json(&request).send().await?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_holds_its_addresses() {
        let cidr = Cidr::parse("10.1.0.0/16").unwrap();
        assert!(cidr.contains("10.1.2.3".parse().unwrap()));
        assert!(!cidr.contains("10.2.0.1".parse().unwrap()));
        assert!(Cidr::parse("::/0").unwrap().contains("fd00::1".parse().unwrap()));
        assert!(Cidr::parse("10.0.0.0/33").is_err() && Cidr::parse("10.0.0.0").is_err());
    }
}
