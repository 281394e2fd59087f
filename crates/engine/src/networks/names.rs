//! Names: zones for the resolvers, `/etc/hosts` and `resolv.conf` of containers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use net::files::{self, DnsWish, HostsLine, Ipv6, ResolvConf};
use net::zone::{self, From, RESOLVER_FILE, Resolver, Upstream, ZONE_FILE, Zone};
use spec::Id;

use super::kernel::isolates_ports;
use super::record::Driver;
use super::view::{LinkWish, wish_for};
use super::{Attached, Attachment, Member, Network, Shared, State, wish};
use crate::containers::spec::{EndpointSpec, NetworkMode};
use crate::error::{Error, Result};

const DNS_PORT: u16 = 53;
const UPSTREAMS_MAX: usize = 3;

/// The names that a container has on a user-defined network, each once.
pub(super) fn dns_names(container: &Member<'_>, wish: &EndpointSpec) -> Vec<String> {
    let short = container.id.short();
    let all = [container.name].into_iter().chain(wish.aliases.iter().map(String::as_str));
    let mut names: Vec<String> = Vec::new();
    for name in all.chain([short.as_str(), container.hostname]) {
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// `name:alias`, where an inspected link (`/db:/web/alias`) counts too.
pub(crate) fn link_parts(link: &str) -> (&str, &str) {
    let (target, alias) = link.split_once(':').unwrap_or((link, link));
    (target.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

/// The running container that a link means.
fn linked<'a>(
    attached: &'a BTreeMap<Id, Attached>,
    target: &str,
) -> Option<(&'a Id, &'a Attachment)> {
    let by_id = |id: &Id| target.len() >= 4 && id.to_string().starts_with(target);
    attached
        .iter()
        .find(|(id, other)| other.attachment.container_name == target || by_id(id))
        .map(|(id, other)| (id, &other.attachment))
}

/// Notes the names that links on user-defined networks give other containers.
pub(super) fn links(
    attachment: &mut Attachment,
    container: &Member<'_>,
    networks: &BTreeMap<Id, Network>,
    attached: &BTreeMap<Id, Attached>,
) {
    let mut wishes = Vec::new();
    for (name, endpoint) in &attachment.endpoints {
        if networks
            .get(&endpoint.network_id)
            .is_none_or(|network| network.record.is_default_bridge())
        {
            continue;
        }
        let wish = wish_for(container.spec, name, &endpoint.network_id);
        let primary = container.spec.network.to_string() == *name;
        let general = if primary { container.spec.links } else { &[] };
        wishes.extend(wish.links.iter().chain(general).map(|link| {
            let (target, alias) = link_parts(link);
            LinkWish {
                network_id: endpoint.network_id,
                target: target.to_owned(),
                alias: alias.to_lowercase(),
            }
        }));
    }
    attachment.links = follow(&wishes, attached);
    attachment.link_wishes = wishes;
}

/// The addresses behind links, of targets that run.
fn follow(wishes: &[LinkWish], attached: &BTreeMap<Id, Attached>) -> BTreeMap<String, Vec<IpAddr>> {
    let mut found: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for wish in wishes {
        let Some((_, other)) = linked(attached, &wish.target) else { continue };
        let there = other.endpoints.values().find(|there| there.network_id == wish.network_id);
        for address in there.into_iter().flat_map(super::Endpoint::addresses) {
            let addresses = found.entry(wish.alias.clone()).or_default();
            // One link may be among the network's and among the container's.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    found
}

impl Shared {
    pub(super) fn zone_dir(&self, id: &Id) -> PathBuf {
        self.exec_root.join("networks").join(id.to_string())
    }

    /// Writes the names of a user-defined network. A failure is logged: names are then stale, and
    /// the next change writes them again.
    pub(super) fn write_zone(&self, state: &State, id: &Id) {
        let Some(network) = state.networks.get(id) else { return };
        match network.record.driver {
            Driver::Bridge | Driver::Macvlan if !network.record.is_default_bridge() => {}
            Driver::Bridge | Driver::Macvlan | Driver::Host | Driver::Null => return,
        }
        let mut document = Zone {
            network: network.record.name.clone(),
            internal: network.record.internal,
            ..Zone::default()
        };
        for attached in state.attached.values() {
            let endpoints = attached.attachment.endpoints.values();
            for endpoint in endpoints.filter(|endpoint| endpoint.network_id == *id) {
                for address in endpoint.addresses() {
                    for name in &endpoint.dns_names {
                        document.names.entry(name.to_lowercase()).or_default().push(address);
                    }
                    if let Some(name) = endpoint.dns_names.first() {
                        document.addresses.insert(address, name.clone());
                    }
                }
            }
        }
        write(&self.zone_dir(id), ZONE_FILE, &document);
    }

    /// Follows links anew after somebody came to the network or left it.
    pub(super) fn refresh_links(&self, state: &mut State, network: &Id) {
        let mut changed = Vec::new();
        for (id, one) in &state.attached {
            let wishes = &one.attachment.link_wishes;
            if wishes.iter().any(|wish| wish.network_id == *network) {
                let links = follow(wishes, &state.attached);
                if links != one.attachment.links {
                    changed.push((*id, links));
                }
            }
        }
        for (id, links) in changed {
            if let Some(one) = state.attached.get_mut(&id) {
                one.attachment.links = links;
            }
            self.write_resolver(state, &id);
        }
        self.refresh_services(state, network);
    }

    /// Lets the containers of a network whose ports are kept apart reach what they are linked to now.
    fn refresh_services(&self, state: &mut State, network: &Id) {
        let apart = state.networks.get(network).is_some_and(|one| isolates_ports(&one.record));
        if !apart {
            return;
        }
        let linking =
            state.attached.iter().filter(|(_, one)| !one.attachment.bridge_links.is_empty());
        let linking: Vec<(Id, Attachment)> =
            linking.map(|(id, one)| (*id, one.attachment.clone())).collect();
        for (id, attachment) in linking {
            if let Err(error) = self.replace(state, &id, attachment) {
                tracing::warn!(container = %id, error = %error.message, "links are out of date");
            }
        }
    }

    /// Writes which zones a running container sees, if it has a resolver.
    pub(super) fn write_resolver(&self, state: &State, container: &Id) {
        let Some(attached) = state.attached.get(container) else { return };
        let attachment = &attached.attachment;
        if attachment.upstreams.is_empty() {
            return;
        }
        let named = attachment.endpoints.values().filter(|endpoint| !endpoint.dns_names.is_empty());
        let resolver = Resolver {
            zones: named
                .map(|endpoint| self.zone_dir(&endpoint.network_id).join(ZONE_FILE))
                .collect(),
            links: attachment.links.clone(),
            upstreams: attachment.upstreams.clone(),
        };
        let dir = self.exec_root.join("containers").join(container.to_string());
        write(&dir, RESOLVER_FILE, &resolver);
    }

    /// Decides whether the container has a resolver, and which servers that asks.
    pub(super) fn choose_upstreams(
        &self,
        attachment: &mut Attachment,
        container: &Member<'_>,
        networks: &BTreeMap<Id, Network>,
    ) {
        let named = attachment.endpoints.values().any(|endpoint| !endpoint.dns_names.is_empty());
        if !named {
            attachment.upstreams.clear();
            return;
        }
        let wish = self.dns_wish(container);
        let ipv6 = attachment.endpoints.values().any(|endpoint| {
            endpoint.gateway6.is_some()
                && networks
                    .get(&endpoint.network_id)
                    .is_some_and(|network| !network.record.internal)
        });
        let upstream = |server: IpAddr| {
            // The host's loopback servers are the host's; IPv6 ones may be out of reach inside.
            let host = wish.servers.is_empty() && server.is_loopback() || server.is_ipv6() && !ipv6;
            Upstream {
                server: SocketAddr::new(server, DNS_PORT),
                from: if host { From::Host } else { From::Container },
            }
        };
        let servers = files::upstream_servers(&self.host_resolv_conf(), &wish);
        attachment.upstreams = servers.into_iter().take(UPSTREAMS_MAX).map(upstream).collect();
    }

    /// `/etc/hosts` and `resolv.conf` of a container with a namespace of its own.
    pub(super) fn files(
        &self,
        state: &State,
        container: &Member<'_>,
        attachment: &Attachment,
    ) -> (String, String) {
        let addresses: Vec<IpAddr> =
            attachment.endpoints.values().flat_map(super::Endpoint::addresses).collect();
        let ipv6 = if addresses.iter().any(IpAddr::is_ipv6) { Ipv6::On } else { Ipv6::Off };
        let loopback = if wish::loopback_has_ipv6(container.spec) { Ipv6::On } else { Ipv6::Off };
        let mut extra = self.extra_hosts(state, container);
        extra.extend(default_bridge_links(state, container, attachment));
        let own = files::own_lines(&addresses, container.hostname, container.spec.domainname);
        let wish = self.dns_wish(container);
        let host = self.host_resolv_conf();
        let resolv_conf = if attachment.upstreams.is_empty() {
            files::resolv_conf_direct(&host, &wish, ipv6)
        } else {
            files::resolv_conf_resolver(&host, &wish)
        };
        (files::hosts(loopback, &extra, &own), resolv_conf)
    }

    /// The files of a container in the host's namespace; in another container's it shares that
    /// one's, and these are empty.
    pub(super) fn files_outside(&self, container: &Member<'_>) -> Result<(String, String)> {
        match *container.spec.network {
            NetworkMode::Container(_) => return Ok((String::new(), String::new())),
            NetworkMode::Host | NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => {
            }
        }
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::because(
                crate::Kind::Internal,
                format!("cannot read {}", path.display()),
                error,
            )),
            Err(_) => Ok(String::new()),
            Ok(text) => Ok(text),
        };
        let mut hosts = read(Path::new("/etc/hosts"))?;
        if !hosts.is_empty() && !hosts.ends_with('\n') {
            hosts.push('\n');
        }
        let state = self.lock();
        for line in self.extra_hosts(&state, container) {
            hosts.push_str(&format!("{}\t{}\n", line.address, line.names.join(" ")));
        }
        let wish = self.dns_wish(container);
        Ok((hosts, files::resolv_conf_host(&self.host_resolv_conf_as_is(), &wish)))
    }

    /// `--add-host`; `host-gateway` is the host as the container reaches it.
    fn extra_hosts(&self, state: &State, container: &Member<'_>) -> Vec<HostsLine> {
        let gateways: Vec<IpAddr> = if self.settings.host_gateway_ips.is_empty() {
            let bridge = state.networks.values().find(|network| network.record.is_default_bridge());
            bridge
                .into_iter()
                .flat_map(|network| &network.record.subnets)
                .map(|subnet| subnet.gateway)
                .collect()
        } else {
            self.settings.host_gateway_ips.clone()
        };
        let mut lines = Vec::new();
        for entry in container.spec.extra_hosts {
            // The name ends at the first separator; addresses of IPv6 hold colons too.
            let Some((name, address)) = entry.split_once(['=', ':']) else { continue };
            let names = vec![name.to_owned()];
            if address == "host-gateway" {
                let lines_of =
                    gateways.iter().map(|&address| HostsLine { address, names: names.clone() });
                lines.extend(lines_of);
            } else if let Ok(address) = address.trim_matches(['[', ']']).parse() {
                lines.push(HostsLine { address, names });
            }
        }
        lines
    }

    fn dns_wish(&self, container: &Member<'_>) -> DnsWish {
        let host = container.spec;
        let choose = |own: &[String], daemon: &[String]| {
            if own.is_empty() { daemon.to_vec() } else { own.to_vec() }
        };
        DnsWish {
            servers: if host.dns.is_empty() {
                self.settings.dns.clone()
            } else {
                host.dns.to_vec()
            },
            search: choose(host.dns_search, &self.settings.dns_search),
            options: choose(host.dns_options, &self.settings.dns_options),
        }
    }

    fn host_resolv_conf_path(&self) -> PathBuf {
        self.settings.resolv_conf.clone().unwrap_or_else(|| PathBuf::from("/etc/resolv.conf"))
    }

    /// The host's own file: its stub is in reach where the host's namespace is.
    fn host_resolv_conf_as_is(&self) -> ResolvConf {
        let path = self.host_resolv_conf_path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        ResolvConf::parse(&path.display().to_string(), &text)
    }

    /// The host's servers; behind systemd-resolved's stub, the real ones.
    fn host_resolv_conf(&self) -> ResolvConf {
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path).ok()?;
            Some(ResolvConf::parse(&path.display().to_string(), &text))
        };
        let path = self.host_resolv_conf_path();
        let conf = read(&path).unwrap_or_else(|| ResolvConf {
            path: path.display().to_string(),
            ..ResolvConf::default()
        });
        if conf.is_resolved_stub()
            && let Some(real) = read(Path::new("/run/systemd/resolve/resolv.conf"))
        {
            return real;
        }
        conf
    }
}

/// A container's own lines of `/etc/hosts` for some addresses.
pub(super) fn own_lines(addresses: &[IpAddr], container: &Member<'_>) -> String {
    let lines = files::own_lines(addresses, container.hostname, container.spec.domainname);
    lines.iter().map(|line| format!("{}\t{}\n", line.address, line.names.join(" "))).collect()
}

/// `--link` on the default bridge works by `/etc/hosts` alone.
fn default_bridge_links(
    state: &State,
    container: &Member<'_>,
    attachment: &Attachment,
) -> Vec<HostsLine> {
    let Some(endpoint) = attachment.endpoints.get("bridge") else { return Vec::new() };
    let mut lines = Vec::new();
    for link in container.spec.links {
        let (target, alias) = link_parts(link);
        let Some((id, other)) = linked(&state.attached, target) else { continue };
        let there = other.endpoints.values().find(|there| there.network_id == endpoint.network_id);
        let mut names = vec![alias.to_owned()];
        for name in [id.short(), other.container_name.clone()] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let addresses = there.into_iter().flat_map(super::Endpoint::addresses);
        lines.extend(addresses.map(|address| HostsLine { address, names: names.clone() }));
    }
    lines
}

fn write<T: serde::Serialize>(dir: &Path, file: &str, document: &T) {
    let made = std::fs::create_dir_all(dir).map_err(|error| error.to_string());
    let path = dir.join(file);
    let written = made
        .and_then(|()| zone::write(&path, document).map_err(|error| crate::error::chain(&error)));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), error, "names are out of date");
    }
}
