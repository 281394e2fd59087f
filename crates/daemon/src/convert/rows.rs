//! Containers as Docker's list shows them.
//!
//! A list of a thousand is a megabyte, and some clients ask every second: each row is written into the
//! answer straight from the records, and copies next to nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::listing::{
    Row, RowEndpoint, RowHostConfig, RowMount, RowNames, RowNetworkSettings, RowPort,
};
use api::network::EndpointIpamConfig;
use api::version::{ApiVersion, v};
use engine::containers::list::ContainerList;
use engine::containers::spec as wish;
use engine::containers::views as view;
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};

/// A list as a version's clients know it.
pub struct Rows<'a> {
    pub version: ApiVersion,
    pub list: &'a ContainerList,
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.list.len()))?;
        for container in self.list.rows() {
            rows.serialize_element(&row(self.version, &container))?;
        }
        rows.end()
    }
}

/// Clients before 1.46 know no annotations there.
fn row<'a>(version: ApiVersion, container: &'a view::ContainerSummary<'a>) -> Row<'a> {
    let record = container.record;
    let annotations = &record.spec.host.annotations;
    let size = container.size.unwrap_or_default();
    Row {
        id: record.id,
        names: RowNames { own: record.name.trim_start_matches('/'), links: container.links },
        image: container.image,
        image_id: record.image,
        command: &container.command,
        created: record.created_at.as_second(),
        ports: ports(&container.ports),
        size_rw: super::view::bytes(size.writable),
        size_root_fs: super::view::bytes(size.total),
        labels: &record.spec.config.labels,
        state: container.status.name(),
        status: &container.status_text,
        host_config: RowHostConfig {
            network_mode: record.spec.host.network.text(),
            annotations: Some(annotations)
                .filter(|annotations| version >= v(46) && !annotations.is_empty()),
        },
        network_settings: RowNetworkSettings {
            networks: container.endpoints.iter().map(endpoint).collect(),
        },
        mounts: container.mounts.iter().map(mount).collect(),
    }
}

fn ports(ports: &BTreeMap<wish::Port, Option<Vec<view::HostPort>>>) -> Vec<RowPort> {
    let mut rows = Vec::new();
    for (port, places) in ports {
        let row = |ip, public_port| RowPort {
            ip,
            private_port: port.number,
            public_port,
            kind: port.protocol.name(),
        };
        match places {
            None => rows.push(row(None, 0)),
            Some(places) => rows.extend(places.iter().map(|place| row(Some(place.ip), place.port))),
        }
    }
    rows
}

/// `null` for an empty list, where Docker's clients leave the list out.
fn null<T>(items: &[T]) -> Option<&[T]> {
    (!items.is_empty()).then_some(items)
}

fn endpoint<'a>(place: &view::Place<'a>) -> (&'a str, RowEndpoint<'a>) {
    let mut row = RowEndpoint { network_id: place.network_id, ..RowEndpoint::default() };
    if let Some(wish) = place.wish {
        row.ipam_config = ipam_config(wish);
        row.links = null(&wish.links);
        row.aliases = null(&wish.aliases);
        row.driver_opts = Some(&wish.driver_opts).filter(|options| !options.is_empty());
        row.gw_priority = wish.gw_priority;
        row.mac_address = Cow::Borrowed(&wish.mac_address);
    }
    if let Some(endpoint) = place.endpoint {
        row.mac_address = endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default().into();
        row.endpoint_id = Some(endpoint.endpoint_id);
        row.gateway = endpoint.gateway;
        row.ip_address = endpoint.address.map(|subnet| subnet.address());
        row.ip_prefix_len = endpoint.address.map_or(0, |subnet| subnet.prefix().into());
        row.ipv6_gateway = endpoint.gateway6;
        row.global_ipv6_address = endpoint.address6.map(|subnet| subnet.address());
        row.global_ipv6_prefix_len = endpoint.address6.map_or(0, |subnet| subnet.prefix().into());
        row.dns_names = null(&endpoint.dns_names);
    }
    (place.network, row)
}

fn ipam_config(wish: &wish::EndpointSpec) -> Option<EndpointIpamConfig> {
    let wish::EndpointSpec { ipv4_address, ipv6_address, link_local_ips, .. } = wish;
    if ipv4_address.is_empty() && ipv6_address.is_empty() && link_local_ips.is_empty() {
        return None;
    }
    Some(EndpointIpamConfig {
        ipv4_address: ipv4_address.clone(),
        ipv6_address: ipv6_address.clone(),
        link_local_ips: null(link_local_ips).map(<[String]>::to_vec),
    })
}

fn mount<'a>(row: &'a view::MountRow<'a>) -> RowMount<'a> {
    let mount = row.mount;
    RowMount {
        kind: mount.kind.name(),
        name: &mount.name,
        source: &row.source,
        destination: &mount.destination,
        driver: &mount.driver,
        mode: &mount.mode,
        rw: !mount.read_only,
        propagation: row.propagation,
    }
}

#[cfg(test)]
mod tests {
    use engine::config::Unpacking;
    use engine::containers::spec::{ContainerSpec, CreateRequest};
    use engine::containers::views::ListQuery;
    use engine::images::ImportRequest;
    use engine::{Engine, EngineConfig};
    use expect_test::expect;
    use sys::testing::allocations;

    use super::*;

    const CONTAINERS: usize = 64;
    /// What a list takes once, and its tables as they grow.
    const FOR_THE_LIST: usize = 64;
    /// Its networks as the engine tells them and as they are sent.
    const FOR_A_ROW: usize = 2;

    /// An engine on a directory of its own, with containers.
    async fn engine(root: &std::path::Path) -> Engine {
        let config = EngineConfig {
            data_root: root.join("data"),
            exec_root: root.join("run"),
            unpacking: Unpacking::Here,
            ..EngineConfig::default()
        };
        let engine = Engine::open(config).await.expect("an engine on a fresh directory");
        let (sender, archive) = tokio::sync::mpsc::channel(1);
        sender.send(Ok(vec![0; 1024].into())).await.unwrap();
        drop(sender);
        let name = Some(spec::Reference::parse("one:1").unwrap());
        let image = engine.import_image(archive, ImportRequest { name, ..Default::default() });
        image.await.expect("an empty archive is an image");
        for number in 0..CONTAINERS {
            let mut spec = ContainerSpec { image: "one:1".to_owned(), ..Default::default() };
            spec.config.cmd = Some(vec!["sh".to_owned(), "-c".to_owned(), "a \"b\"".to_owned()]);
            spec.config.labels.insert("a".to_owned(), "<b>".to_owned());
            spec.host.annotations.insert("note".to_owned(), "c".to_owned());
            let name = Some(format!("c{number}"));
            let request = CreateRequest { name, platform: None, spec };
            engine.create_container(request).await.expect("a container");
        }
        engine
    }

    fn written(version: ApiVersion, list: &ContainerList, into: &mut Vec<u8>) {
        serde_json::to_writer(into, &Rows { version, list }).unwrap();
    }

    #[test]
    fn a_row_copies_next_to_nothing() {
        if !sys::testing::privileged("an engine needs a network of its own") {
            return;
        }
        // Threads inherit the namespace of the thread that starts them.
        sys::namespace::unshare(sys::namespace::Namespaces::NET).expect("root may do that");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(count());
    }

    async fn count() {
        let root = std::env::temp_dir().join(format!("tug-rows-{}", spec::Id::random().short()));
        let engine = engine(&root).await;
        let query = ListQuery { all: true, ..ListQuery::default() };
        let list = engine.list_containers(query.clone()).await.unwrap();
        let mut json = Vec::new();
        written(v(50), &list, &mut json);
        let length = json.len();
        json.clear();

        let before = allocations();
        let list = engine.list_containers(query).await.unwrap();
        let for_list = allocations() - before;
        let before = allocations();
        written(v(50), &list, &mut json);
        let for_rows = allocations() - before;
        assert_eq!(json.len(), length);
        assert!((1..=FOR_THE_LIST).contains(&for_list), "{for_list} for a list");
        assert!(
            (1..=CONTAINERS * FOR_A_ROW).contains(&for_rows),
            "{for_rows} for {CONTAINERS} rows"
        );

        let rows: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let mut row = rows[CONTAINERS - 1].clone();
        for random in ["Id", "ImageID", "Created"] {
            row[random] = serde_json::Value::Null;
        }
        row["NetworkSettings"]["Networks"]["bridge"]["NetworkID"] = serde_json::Value::Null;
        expect![[r#"{"Id":null,"Names":["/c0"],"Image":"one:1","ImageID":null,"Command":"sh -c 'a \"b\"'","Created":null,"Ports":[],"Labels":{"a":"<b>"},"State":"created","Status":"Created","HostConfig":{"NetworkMode":"bridge","Annotations":{"note":"c"}},"NetworkSettings":{"Networks":{"bridge":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":null,"EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}},"Mounts":[]}"#]].assert_eq(&row.to_string());
        let mut old = Vec::new();
        written(v(45), &list, &mut old);
        assert!(
            String::from_utf8(old).unwrap().contains(r#""HostConfig":{"NetworkMode":"bridge"}"#)
        );
        engine.close().await;
        let _ = std::fs::remove_dir_all(root);
    }
}
