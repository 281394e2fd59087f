//! What `--link` on the default bridge puts into a container's environment. Pure but for [`of`].
//!
//! Source: moby 28.2 `daemon/links/links.go`.

use std::net::IpAddr;

use super::record::Record;
use super::spec::{Port, Protocol};
use crate::Inner;
use crate::networks::link_parts;

/// A running container that another one is linked to.
#[derive(Debug, Clone)]
pub struct Linked<'a> {
    /// The container that has the link.
    pub parent: &'a str,
    pub alias: &'a str,
    pub address: IpAddr,
    /// What it exposes.
    pub ports: Vec<Port>,
    pub env: &'a [String],
}

/// What the links of a container on the default bridge put into its environment. A link to what
/// does not run there has been refused or is void.
pub(crate) fn of(engine: &Inner, record: &Record) -> Vec<String> {
    if !record.spec.endpoints.contains_key("bridge") {
        return Vec::new();
    }
    let mut all = Vec::new();
    for link in &record.spec.host.links {
        let (target, alias) = link_parts(link);
        let Ok(container) = engine.containers.resolve(target) else { continue };
        let view = container.now();
        let endpoint = view.attachment.as_ref().and_then(|there| there.endpoints.get("bridge"));
        let Some(address) = endpoint.and_then(|endpoint| endpoint.addresses().next()) else {
            continue;
        };
        let config = &view.record.spec.config;
        all.extend(variables(&Linked {
            parent: &record.name,
            alias,
            address,
            ports: config.exposed_ports.keys().filter_map(|port| port.parse().ok()).collect(),
            env: &config.env,
        }));
    }
    all
}

/// The variables, in Docker's order.
pub fn variables(link: &Linked<'_>) -> Vec<String> {
    let alias = link.alias.to_ascii_uppercase().replace('-', "_");
    let mut ports = link.ports.clone();
    ports.sort_by_key(|port| (port.number, port.protocol != Protocol::Tcp, port.protocol));
    let url = |port: &Port| format!("{}://{}:{}", protocol(*port), link.address, port.number);
    let base = |port: &Port| {
        format!("{alias}_PORT_{}_{}", port.number, protocol(*port).to_ascii_uppercase())
    };
    let mut all = Vec::new();
    if let Some(first) = ports.first() {
        all.push(format!("{alias}_PORT={}", url(first)));
    }
    for run in ports.chunk_by(|one, next| next.number - one.number <= 1) {
        let [first, .., last] = run else { continue };
        let base = base(first);
        all.push(format!("{base}_START={}", url(first)));
        all.push(format!("{base}_ADDR={}", link.address));
        all.push(format!("{base}_PROTO={}", protocol(*first)));
        all.push(format!("{base}_PORT_START={}", first.number));
        all.push(format!("{base}_END={}", url(last)));
        all.push(format!("{base}_PORT_END={}", last.number));
    }
    for port in &ports {
        let base = base(port);
        all.push(format!("{base}={}", url(port)));
        all.push(format!("{base}_ADDR={}", link.address));
        all.push(format!("{base}_PORT={}", port.number));
        all.push(format!("{base}_PROTO={}", protocol(*port)));
    }
    all.push(format!("{alias}_NAME=/{}/{}", link.parent, link.alias));
    for entry in link.env {
        if let Some((name, value)) = entry.split_once('=')
            && !["HOME", "PATH"].contains(&name)
        {
            all.push(format!("{alias}_ENV_{name}={value}"));
        }
    }
    all
}

fn protocol(port: Port) -> &'static str {
    match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(ports: &[&str], env: &[&str], want: Expect) {
        let env: Vec<String> = env.iter().map(|&entry| entry.to_owned()).collect();
        let link = Linked {
            parent: "web",
            alias: "my-db",
            address: [172, 17, 0, 2].into(),
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            env: &env,
        };
        want.assert_eq(&variables(&link).join("\n"));
    }

    #[test]
    fn a_link_tells_ports_name_and_environment() {
        check(
            &["80/tcp"],
            &["PATH=/bin", "MODE=fast", "bare"],
            expect![[r#"
                MY_DB_PORT=tcp://172.17.0.2:80
                MY_DB_PORT_80_TCP=tcp://172.17.0.2:80
                MY_DB_PORT_80_TCP_ADDR=172.17.0.2
                MY_DB_PORT_80_TCP_PORT=80
                MY_DB_PORT_80_TCP_PROTO=tcp
                MY_DB_NAME=/web/my-db
                MY_DB_ENV_MODE=fast"#]],
        );
    }

    #[test]
    fn ports_in_a_row_are_told_as_a_range_too() {
        check(
            &["7001/tcp", "7000/tcp"],
            &[],
            expect![[r#"
                MY_DB_PORT=tcp://172.17.0.2:7000
                MY_DB_PORT_7000_TCP_START=tcp://172.17.0.2:7000
                MY_DB_PORT_7000_TCP_ADDR=172.17.0.2
                MY_DB_PORT_7000_TCP_PROTO=tcp
                MY_DB_PORT_7000_TCP_PORT_START=7000
                MY_DB_PORT_7000_TCP_END=tcp://172.17.0.2:7001
                MY_DB_PORT_7000_TCP_PORT_END=7001
                MY_DB_PORT_7000_TCP=tcp://172.17.0.2:7000
                MY_DB_PORT_7000_TCP_ADDR=172.17.0.2
                MY_DB_PORT_7000_TCP_PORT=7000
                MY_DB_PORT_7000_TCP_PROTO=tcp
                MY_DB_PORT_7001_TCP=tcp://172.17.0.2:7001
                MY_DB_PORT_7001_TCP_ADDR=172.17.0.2
                MY_DB_PORT_7001_TCP_PORT=7001
                MY_DB_PORT_7001_TCP_PROTO=tcp
                MY_DB_NAME=/web/my-db"#]],
        );
    }
}
