//! Rows of `GET /containers/json` as they are sent: a [`Summary`](crate::container::Summary) that borrows,
//! written straight into the answer. A client reads the owned form; a test holds the two together.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use serde::{Serialize, Serializer};
use spec::{Id, ImageId};

use crate::is_zero;
use crate::network::EndpointIpamConfig;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Row<'a> {
    pub id: Id,
    pub names: RowNames<'a>,
    pub image: &'a str,
    #[serde(rename = "ImageID")]
    pub image_id: ImageId,
    #[serde(serialize_with = "shown")]
    pub command: &'a dyn Display,
    /// Unix seconds.
    pub created: i64,
    pub ports: Vec<RowPort>,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_rw: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_root_fs: i64,
    pub labels: &'a BTreeMap<String, String>,
    pub state: &'a str,
    pub status: &'a str,
    pub host_config: RowHostConfig<'a>,
    pub network_settings: RowNetworkSettings<'a>,
    pub mounts: Vec<RowMount<'a>>,
}

/// Each is sent behind a slash.
#[derive(Debug)]
pub struct RowNames<'a> {
    pub own: &'a str,
    pub links: &'a [String],
}

impl Serialize for RowNames<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let links = self.links.iter().map(String::as_str);
        serializer.collect_seq(std::iter::once(self.own).chain(links).map(Slashed))
    }
}

struct Slashed<'a>(&'a str);

impl Serialize for Slashed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("/{}", self.0))
    }
}

/// One published or exposed port.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RowPort {
    #[serde(
        rename = "IP",
        serialize_with = "shown_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub ip: Option<IpAddr>,
    pub private_port: u16,
    #[serde(skip_serializing_if = "is_zero")]
    pub public_port: u16,
    #[serde(rename = "Type")]
    pub kind: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RowHostConfig<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub network_mode: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RowNetworkSettings<'a> {
    #[serde(serialize_with = "as_map")]
    pub networks: Vec<(&'a str, RowEndpoint<'a>)>,
}

/// An [`EndpointSettings`](crate::network::EndpointSettings). Addresses are absent while the container
/// is stopped.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RowEndpoint<'a> {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpamConfig>,
    pub links: Option<&'a [String]>,
    pub aliases: Option<&'a [String]>,
    pub mac_address: Cow<'a, str>,
    pub driver_opts: Option<&'a BTreeMap<String, String>>,
    pub gw_priority: i64,
    #[serde(rename = "NetworkID", serialize_with = "shown_if_any")]
    pub network_id: Option<Id>,
    #[serde(rename = "EndpointID", serialize_with = "shown_if_any")]
    pub endpoint_id: Option<Id>,
    #[serde(serialize_with = "shown_if_any")]
    pub gateway: Option<IpAddr>,
    #[serde(rename = "IPAddress", serialize_with = "shown_if_any")]
    pub ip_address: Option<IpAddr>,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    #[serde(rename = "IPv6Gateway", serialize_with = "shown_if_any")]
    pub ipv6_gateway: Option<IpAddr>,
    #[serde(rename = "GlobalIPv6Address", serialize_with = "shown_if_any")]
    pub global_ipv6_address: Option<IpAddr>,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<&'a [String]>,
}

/// A [`MountPoint`](crate::container::MountPoint).
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RowMount<'a> {
    #[serde(rename = "Type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'a str,
    pub source: &'a str,
    pub destination: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub driver: &'a str,
    pub mode: &'a str,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: &'a str,
}

fn shown<S: Serializer>(value: &dyn Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Nothing is an empty text.
fn shown_if_any<T: Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_str(""),
    }
}

fn as_map<T: Serialize, S: Serializer>(
    entries: &[(&str, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(entries.iter().map(|(name, entry)| (name, entry)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Summary;

    /// Both forms have the same fields in the same order: what one of them lacked would be lost or come
    /// to be in the owned one's text.
    #[test]
    fn both_forms_are_the_same_text() {
        let labels = BTreeMap::from([("a".to_owned(), "<b>".to_owned())]);
        let (texts, ip) = (vec!["web/alias".to_owned()], "10.0.0.1".parse().unwrap());
        let id = Id::random();
        let full = RowEndpoint {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: "10.0.0.1".to_owned(),
                ..EndpointIpamConfig::default()
            }),
            links: Some(&texts),
            aliases: Some(&texts),
            mac_address: "02:42:ac:11:00:02".into(),
            driver_opts: Some(&labels),
            gw_priority: 3,
            network_id: Some(id),
            endpoint_id: Some(id),
            gateway: Some(ip),
            ip_address: Some(ip),
            ip_prefix_len: 24,
            ipv6_gateway: Some(ip),
            global_ipv6_address: Some(ip),
            global_ipv6_prefix_len: 64,
            dns_names: Some(&texts),
        };
        let mount = |name| RowMount {
            kind: "volume",
            name,
            source: "/s",
            destination: "/d",
            driver: name,
            mode: "z",
            rw: true,
            propagation: "",
        };
        let port = |ip, public_port| RowPort { ip, private_port: 80, public_port, kind: "tcp" };
        let row = |size, annotations, endpoint| Row {
            id,
            names: RowNames { own: "n", links: &texts },
            image: "img",
            image_id: ImageId(spec::Digest::of(b"")),
            command: &"sh -c 'echo \"hi\"'",
            created: 7,
            ports: vec![port(None, 0), port(Some(ip), 8080)],
            size_rw: size,
            size_root_fs: size,
            labels: &labels,
            state: "running",
            status: "Up 1 second",
            host_config: RowHostConfig { network_mode: "bridge".into(), annotations },
            network_settings: RowNetworkSettings { networks: vec![("bridge", endpoint)] },
            mounts: vec![mount(""), mount("v")],
        };
        for row in [row(0, None, RowEndpoint::default()), row(5, Some(&labels), full)] {
            let sent = serde_json::to_string(&row).unwrap();
            let owned: Summary = serde_json::from_str(&sent).unwrap();
            assert_eq!(serde_json::to_string(&owned).unwrap(), sent);
            assert_eq!(owned.names, ["/n", "/web/alias"]);
        }
    }
}
