//! Contents of a container's `/etc/hosts` and `/etc/resolv.conf`. Pure.
//!
//! Source: moby v28 `libnetwork/etchosts`, `libnetwork/internal/resolvconf`, resolv.conf(5).

use std::fmt::Write as _;
use std::net::IpAddr;

/// Address of the resolver inside containers on user-defined networks.
pub const RESOLVER_ADDRESS: &str = "127.0.0.11";

/// Whether the container has any IPv6 besides loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    On,
    Off,
}

/// One line of `/etc/hosts`: an address and its names, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsLine {
    pub address: IpAddr,
    pub names: Vec<String>,
}

/// `/etc/hosts`: the loopback lines, then `extra` (`--add-host`, links), then the container's own.
pub fn hosts(ipv6: Ipv6, extra: &[HostsLine], own: &[HostsLine]) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n");
    match ipv6 {
        Ipv6::On => text.push_str(
            "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
        ),
        Ipv6::Off => {}
    }
    for line in extra.iter().chain(own) {
        let _ = writeln!(text, "{}\t{}", line.address, line.names.join(" "));
    }
    text
}

/// The container's own lines: each address with `hostname.domain hostname`, or `hostname` alone.
pub fn own_lines(addresses: &[IpAddr], hostname: &str, domainname: &str) -> Vec<HostsLine> {
    let names = if domainname.is_empty() {
        // A host name given with its domain also answers to its first label.
        match hostname.split_once('.') {
            Some((short, _)) => vec![hostname.to_owned(), short.to_owned()],
            None => vec![hostname.to_owned()],
        }
    } else {
        vec![format!("{hostname}.{domainname}"), hostname.to_owned()]
    };
    addresses.iter().map(|&address| HostsLine { address, names: names.clone() }).collect()
}

/// A parsed `resolv.conf`. Unknown lines are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// `--dns`, `--dns-search`, `--dns-option`: each, when given, replaces the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsWish {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads a host's file; later `search` lines replace earlier ones. IPv6 zones are dropped.
    pub fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server: Option<IpAddr> =
                        words.next().and_then(|word| word.split('%').next()?.parse().ok());
                    conf.servers.extend(server);
                }
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                Some(_) | None => {}
            }
        }
        conf
    }

    /// Whether the only server is systemd-resolved's stub, whose real servers stand in
    /// `/run/systemd/resolve/resolv.conf`.
    pub fn is_resolved_stub(&self) -> bool {
        matches!(self.servers.as_slice(), [IpAddr::V4(only)] if only.octets() == [127, 0, 0, 53])
    }

    fn merged(&self, wish: &DnsWish) -> ResolvConf {
        let choose = |wished: &[String], own: &[String]| {
            if wished.is_empty() { own.to_vec() } else { wished.to_vec() }
        };
        ResolvConf {
            servers: if wish.servers.is_empty() {
                self.servers.clone()
            } else {
                wish.servers.clone()
            },
            // `--dns-search .` means no search list at all.
            search: choose(&wish.search, &self.search)
                .into_iter()
                .filter(|domain| domain != ".")
                .collect(),
            options: choose(&wish.options, &self.options),
        }
    }

    fn render(&self, comment: &str) -> String {
        let mut text = String::new();
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text + comment
    }
}

/// For containers that ask servers directly (default bridge, none): loopback servers of the host
/// are out of their reach and left out, as are IPv6 ones without IPv6; if none is left, public
/// servers stand in.
pub fn resolv_conf_direct(host: &ResolvConf, wish: &DnsWish, ipv6: Ipv6) -> String {
    let mut conf = host.merged(wish);
    if wish.servers.is_empty() {
        conf.servers.retain(|server| match ipv6 {
            Ipv6::On => !server.is_loopback(),
            Ipv6::Off => !server.is_loopback() && server.is_ipv4(),
        });
        if conf.servers.is_empty() {
            conf.servers = public_servers(ipv6);
        }
    }
    conf.render("")
}

/// For containers on user-defined networks: our resolver, the host's search list, `ndots:0`.
pub fn resolv_conf_resolver(host: &ResolvConf, wish: &DnsWish) -> String {
    let mut conf = host.merged(wish);
    let servers: Vec<String> = conf.servers.iter().map(IpAddr::to_string).collect();
    conf.servers = vec![RESOLVER_ADDRESS.parse().expect("a literal address")];
    if !conf.options.iter().any(|option| option.starts_with("ndots:")) {
        conf.options.push("ndots:0".into());
    }
    conf.render(&format!("# ExtServers: [{}]\n", servers.join(" ")))
}

/// For containers in the host's namespace: the host's servers are all in reach.
pub fn resolv_conf_host(host: &ResolvConf, wish: &DnsWish) -> String {
    host.merged(wish).render("")
}

/// The servers that our resolver forwards to, host's or wished.
pub fn upstream_servers(host: &ResolvConf, wish: &DnsWish) -> Vec<IpAddr> {
    let servers = host.merged(wish).servers;
    if servers.is_empty() { public_servers(Ipv6::Off) } else { servers }
}

/// Source: moby `libnetwork/internal/resolvconf`, the defaults when the host names no server.
fn public_servers(ipv6: Ipv6) -> Vec<IpAddr> {
    let v4 = [IpAddr::from([8, 8, 8, 8]), IpAddr::from([8, 8, 4, 4])];
    let v6 = ["2001:4860:4860::8888", "2001:4860:4860::8844"]
        .map(|text| text.parse().expect("a literal address"));
    match ipv6 {
        Ipv6::On => v4.into_iter().chain(v6).collect(),
        Ipv6::Off => v4.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const HOST: &str = "# made by hand\nnameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nsearch corp.example lan\noptions timeout:2\n";

    #[track_caller]
    fn check(text: &str, want: Expect) {
        want.assert_eq(text);
    }

    #[test]
    fn loopback_servers_are_left_out_for_direct_use() {
        check(
            &resolv_conf_direct(&ResolvConf::parse(HOST), &DnsWish::default(), Ipv6::Off),
            expect![[r#"
                nameserver 10.0.0.2
                search corp.example lan
                options timeout:2
            "#]],
        );
    }

    #[test]
    fn public_servers_stand_in_when_none_is_left() {
        check(
            &resolv_conf_direct(
                &ResolvConf::parse("nameserver ::1"),
                &DnsWish::default(),
                Ipv6::Off,
            ),
            expect![[r#"
                nameserver 8.8.8.8
                nameserver 8.8.4.4
            "#]],
        );
    }

    #[test]
    fn wishes_replace_the_hosts_lines() {
        let wish = DnsWish {
            servers: vec!["127.0.0.1".parse().unwrap()],
            search: vec![".".into()],
            options: vec!["rotate".into()],
        };
        check(
            &resolv_conf_direct(&ResolvConf::parse(HOST), &wish, Ipv6::Off),
            expect![[r#"
                nameserver 127.0.0.1
                options rotate
            "#]],
        );
    }

    #[test]
    fn user_networks_ask_the_resolver() {
        check(
            &resolv_conf_resolver(&ResolvConf::parse(HOST), &DnsWish::default()),
            expect![[r#"
                nameserver 127.0.0.11
                search corp.example lan
                options timeout:2 ndots:0
                # ExtServers: [127.0.0.1 10.0.0.2 fe80::1]
            "#]],
        );
    }

    #[test]
    fn hosts_has_loopback_then_extra_then_own() {
        let extra = [HostsLine {
            address: "10.1.1.1".parse().unwrap(),
            names: vec!["db".into(), "db.lan".into()],
        }];
        let own = own_lines(&["172.17.0.2".parse().unwrap()], "web", "example.org");
        check(
            &hosts(Ipv6::Off, &extra, &own),
            expect![[r#"
                127.0.0.1	localhost
                10.1.1.1	db db.lan
                172.17.0.2	web.example.org web
            "#]],
        );
    }
}
