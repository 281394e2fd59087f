//! Whole lives of containers' networks, on a host of their own.

use std::os::fd::AsFd;
use std::path::PathBuf;

use net::zone::{Resolver, Zone};
use sys::netlink::netns;
use sys::netlink::route::{Link, LinkChange, State as LinkState, dump_links, link_set};
use sys::netlink::{Protocol as NetlinkProtocol, Socket};

use super::*;
use crate::containers::spec::{EndpointSpec, Port, PortBinding, Protocol};

struct Host {
    networks: Networks,
    config: EngineConfig,
    events: Events,
}

impl Host {
    fn root(&self) -> PathBuf {
        self.config.data_root.parent().unwrap().to_owned()
    }

    fn start(&self, id: Id, name: &str, spec: &ContainerSpec) -> Result<Prepared> {
        let mut spec = spec.clone();
        spec.settle_networks();
        self.networks.prepare(&Member {
            id,
            name,
            spec: MemberSpec::of(&spec),
            hostname: &id.short(),
        })
    }

    fn links(&self) -> Vec<String> {
        let mut socket = Socket::open(NetlinkProtocol::Route).unwrap();
        dump_links(&mut socket).unwrap().into_iter().map(|link| link.name).collect()
    }
}

fn on_a_host(work: impl FnOnce(&Host) + Send) {
    on_a_host_with(NetworkSettings::default(), work);
}

fn on_a_host_with(network: NetworkSettings, work: impl FnOnce(&Host) + Send) {
    if !sys::testing::privileged("networks need a network namespace of their own") {
        return;
    }
    netns::create(|| {
        let up = LinkChange { state: Some(LinkState::Up), ..LinkChange::default() };
        Socket::open(NetlinkProtocol::Route)
            .unwrap()
            .send(&[link_set(Link::Name("lo"), &up)])
            .unwrap();
        let root = std::env::temp_dir().join(format!("tug-networks-{}", Id::random().short()));
        let config = EngineConfig {
            data_root: root.join("data"),
            exec_root: root.join("run"),
            network,
            ..EngineConfig::default()
        };
        let events = Events::default();
        let networks = Networks::open(&config, events.clone()).unwrap();
        networks.restore(Vec::new());
        let host = Host { networks, config, events };
        work(&host);
        host.networks.tear_down().unwrap();
        let _ = std::fs::remove_dir_all(host.root());
    })
    .unwrap();
}

fn on(network: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::default();
    spec.host.network = network.parse().unwrap();
    spec.settle_networks();
    spec
}

fn request(name: &str) -> NetworkRequest {
    NetworkRequest { name: name.to_owned(), ..NetworkRequest::default() }
}

fn publish(spec: &mut ContainerSpec, host_port: &str) {
    let container = Port { number: 80, protocol: Protocol::Tcp };
    spec.host.ports.push(PortBinding { container, host_ip: None, host_port: host_port.to_owned() });
}

#[test]
fn a_container_on_the_default_bridge_has_address_ports_and_files() {
    on_a_host(|host| {
        let mut spec = on("bridge");
        publish(&mut spec, "8080");
        let id = Id::random();
        let prepared = host.start(id, "web", &spec).unwrap();
        let view = prepared.attachment.view(&spec);
        let endpoint = &view.endpoints["bridge"];
        assert_eq!(endpoint.address.unwrap().to_string(), "172.17.0.2");
        assert_eq!(endpoint.gateway.unwrap().to_string(), "172.17.0.1");
        assert_eq!(endpoint.prefix_len, 16);
        assert!(endpoint.dns_names.is_empty());
        let hosts: Vec<String> =
            view.ports.values().flatten().flatten().map(|port| port.ip.to_string()).collect();
        assert_eq!(hosts, ["0.0.0.0", "::"]);
        assert_eq!(prepared.listeners.len(), 2);
        assert!(
            prepared.hosts.ends_with(&format!("172.17.0.2\t{}\n", id.short())),
            "{}",
            prepared.hosts
        );
        assert_eq!(host.networks.inspect("bridge").unwrap().members[&id].name, "web");

        let error = host.start(Id::random(), "other", &spec).unwrap_err();
        assert_eq!(error.kind, Kind::Internal);
        assert!(
            error.message.contains(
                "Bind for 0.0.0.0:8080 failed: port is already allocated by container web"
            )
        );
        drop(prepared);
        host.networks.release(&id);
        host.networks.release(&id);
        let again = host.start(Id::random(), "other", &spec).unwrap();
        assert_eq!(
            again.attachment.view(&spec).endpoints["bridge"].address.unwrap().to_string(),
            "172.17.0.2"
        );
    });
}

#[test]
fn names_on_a_user_network_follow_its_containers() {
    on_a_host(|host| {
        let network = host.networks.create(&request("backend")).unwrap().id;
        let mut spec = on("backend");
        let wish = EndpointSpec { aliases: vec!["Cache".to_owned()], ..EndpointSpec::default() };
        spec.endpoints.insert("backend".to_owned(), wish);
        let id = Id::random();
        let prepared = host.start(id, "redis", &spec).unwrap();
        let zone = || -> Zone {
            let dir = host.config.exec_root.join("networks").join(network.to_string());
            net::zone::read(&dir.join(net::zone::ZONE_FILE)).unwrap()
        };
        let names: Vec<String> = zone().names.into_keys().collect();
        let mut want = vec!["cache".to_owned(), id.short(), "redis".to_owned()];
        want.sort();
        assert_eq!(names, want);
        let resolver: Resolver =
            net::zone::read(&host.config.run_dir(&id).join(net::zone::RESOLVER_FILE)).unwrap();
        assert_eq!(resolver.zones.len(), 1);
        assert!(prepared.resolv_conf.contains("nameserver 127.0.0.11"), "{}", prepared.resolv_conf);
        host.networks.rename(&id, "store");
        assert!(zone().names.contains_key("store"));

        let refused = host.networks.remove("backend").unwrap_err();
        assert_eq!(refused.kind, Kind::Forbidden);
        assert!(refused.message.contains("has active endpoints"), "{}", refused.message);
        host.networks.release(&id);
        assert!(zone().names.is_empty());
        host.networks.remove("backend").unwrap();
        assert_eq!(
            host.networks.resolve("backend").unwrap_err().message,
            "network backend not found"
        );
        assert!(!host.links().iter().any(|link| link.starts_with("br-")));
    });
}

#[test]
fn another_daemon_finds_everything_again() {
    on_a_host(|host| {
        let request = NetworkRequest { ipv6: Some(true), ..request("backend") };
        host.networks.create(&request).unwrap();
        let mut spec = on("backend");
        publish(&mut spec, "8081");
        let id = Id::random();
        let prepared = host.start(id, "web", &spec).unwrap();
        assert!(prepared.attachment.endpoints["backend"].address6.is_some());
        let before = host.networks.inspect("backend").unwrap();

        let next = Networks::open(&host.config, host.events.clone()).unwrap();
        next.restore(vec![(id, prepared.attachment.clone())]);
        let after = next.inspect("backend").unwrap();
        assert_eq!(
            (before.id, before.members, before.subnets),
            (after.id, after.members, after.subnets)
        );
        let backend = on("backend");
        let other = Member {
            id: Id::random(),
            name: "two",
            spec: MemberSpec::of(&backend),
            hostname: "two",
        };
        let two = next.prepare(&other).unwrap();
        assert_eq!(
            two.attachment.endpoints["backend"].address.unwrap().address().to_string(),
            "172.18.0.3"
        );
        let error = next
            .prepare(&Member {
                id: Id::random(),
                name: "x",
                spec: MemberSpec::of(&spec),
                hostname: "x",
            })
            .unwrap_err();
        assert!(error.message.contains("by container web"), "{}", error.message);
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    on_a_host(|host| {
        host.networks.create(&request("side")).unwrap();
        let spec = on("bridge");
        let id = Id::random();
        let prepared = host.start(id, "web", &spec).unwrap();
        let netns = prepared.netns.unwrap();
        let container = Member { id, name: "web", spec: MemberSpec::of(&spec), hostname: "web" };
        let wish = EndpointSpec { aliases: vec!["w".to_owned()], ..EndpointSpec::default() };
        let connected =
            host.networks.connect("side", &container, &wish, Some(netns.as_fd())).unwrap().unwrap();
        assert_eq!(connected.attachment.endpoints["side"].interface, "eth1");
        assert_eq!(connected.hosts_lines, "172.18.0.2\tweb\n");
        assert!(connected.resolv_conf.unwrap().contains("127.0.0.11"));
        let again =
            host.networks.connect("side", &container, &wish, Some(netns.as_fd())).unwrap_err();
        assert_eq!(again.message, "endpoint with name web already exists in network side");
        let left = host.networks.disconnect("bridge", &id, netns.as_fd()).unwrap();
        assert_eq!(left.endpoints.keys().collect::<Vec<_>>(), ["side"]);
    });
}

#[test]
fn wrong_wishes_are_refused_in_dockers_words() {
    on_a_host(|host| {
        let refuse = |spec: &ContainerSpec, want: &str| {
            let error = host
                .networks
                .validate(spec)
                .and_then(|()| host.start(Id::random(), "x", spec).map(drop));
            assert_eq!(error.unwrap_err().message, want);
        };
        refuse(&on("absent"), "failed to set up container networking: network absent not found");
        let mut spec = on("bridge");
        let wish =
            EndpointSpec { ipv4_address: "172.17.0.9".to_owned(), ..EndpointSpec::default() };
        spec.endpoints.insert("bridge".to_owned(), wish.clone());
        refuse(
            &spec,
            "invalid config for network bridge: invalid endpoint settings:\n\
             * user specified IP address is supported on user defined networks only\n\
             * user specified IP address is supported only when connecting to networks with user configured subnets",
        );
        host.networks.create(&request("auto")).unwrap();
        let mut spec = on("auto");
        spec.endpoints.insert("auto".to_owned(), wish);
        refuse(
            &spec,
            "invalid config for network auto: invalid endpoint settings:\n\
             user specified IP address is supported only when connecting to networks with user configured subnets",
        );
        for (name, kind) in [("auto", Kind::Conflict), ("host", Kind::Forbidden)] {
            assert_eq!(host.networks.create(&request(name)).unwrap_err().kind, kind);
        }
        assert_eq!(host.networks.remove("none").unwrap_err().kind, Kind::Forbidden);
        let none = host.start(Id::random(), "alone", &on("none")).unwrap();
        assert!(none.netns.is_some() && none.listeners.is_empty());
    });
}

#[test]
fn a_pooled_start_is_fast() {
    on_a_host(|host| {
        let spec = on("bridge");
        std::thread::sleep(std::time::Duration::from_millis(300));
        let mut times = Vec::new();
        for _ in 0..5 {
            let id = Id::random();
            let began = std::time::Instant::now();
            let prepared = host.start(id, "web", &spec).unwrap();
            let started = began.elapsed();
            drop(prepared);
            let began = std::time::Instant::now();
            host.networks.release(&id);
            times.push((started, began.elapsed()));
        }
        println!("start and release: {times:?}");
    });
}

#[test]
fn a_burst_of_starts_is_not_held_up_by_the_pool() {
    on_a_host(|host| {
        let (spec, here) = (on("bridge"), netns::current().unwrap());
        let starts = std::thread::scope(|scope| {
            let start = |number: u32| {
                let (spec, here) = (&spec, &here);
                scope.spawn(move || {
                    let work = || host.start(Id::random(), &format!("c{number}"), spec).unwrap();
                    netns::within(std::os::fd::AsFd::as_fd(here), work).unwrap()
                })
            };
            let threads: Vec<_> = (0..20).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let addresses: std::collections::BTreeSet<_> =
            starts.iter().map(|start| start.attachment.endpoints["bridge"].address).collect();
        assert_eq!(addresses.len(), 20);
    });
}

#[test]
fn the_default_bridge_follows_the_daemons_settings() {
    let settings = NetworkSettings {
        bip: Some(("10.55.0.1".parse().unwrap(), 24)),
        default_gateway: Some("10.55.0.2".parse().unwrap()),
        ..NetworkSettings::default()
    };
    on_a_host_with(settings, |host| {
        let spec = on("bridge");
        let prepared = host.start(Id::random(), "web", &spec).unwrap();
        let endpoint = &prepared.attachment.view(&spec).endpoints["bridge"];
        // The gateway's address is nobody else's.
        assert_eq!(endpoint.address.unwrap().to_string(), "10.55.0.3");
        assert_eq!(endpoint.gateway.unwrap().to_string(), "10.55.0.2");
        let bridge = &host.networks.inspect("bridge").unwrap().subnets[0];
        assert_eq!(bridge.gateway.unwrap().to_string(), "10.55.0.1");
    });
    let range = Some(("10.56.0.128".parse().unwrap(), 25));
    let settings = NetworkSettings { fixed_cidr: range, ..NetworkSettings::default() };
    on_a_host_with(settings, |host| {
        let spec = on("bridge");
        let prepared = host.start(Id::random(), "web", &spec).unwrap();
        let endpoint = &prepared.attachment.view(&spec).endpoints["bridge"];
        assert_eq!(endpoint.gateway.unwrap().to_string(), "10.56.0.129");
    });
    let settings =
        NetworkSettings { bridge: Some("none".to_owned()), ..NetworkSettings::default() };
    on_a_host_with(settings, |host| {
        let mut spec = on("bridge");
        // As docker's command line names it.
        spec.endpoints.insert("default".to_owned(), EndpointSpec::default());
        let prepared = host.start(Id::random(), "web", &spec).unwrap();
        let names: Vec<_> = prepared.attachment.endpoints.keys().cloned().collect();
        assert_eq!(names, ["none"]);
        assert!(host.networks.inspect("bridge").is_err());
    });
}

#[test]
fn what_create_settles_stays_as_it_is() {
    let names = |spec: &ContainerSpec| spec.endpoints.keys().cloned().collect::<Vec<_>>();
    let mut spec = ContainerSpec::default();
    spec.settle_networks();
    assert_eq!(names(&spec), ["bridge"]);
    // Disconnected from all: as the next daemon reads it.
    spec.endpoints.clear();
    spec.settle_old_networks();
    assert_eq!(names(&spec), [""; 0]);
    let wish = EndpointSpec::default();
    let mut spec = ContainerSpec::default();
    spec.endpoints.insert("na".to_owned(), wish.clone());
    let mut old = spec.clone();
    spec.settle_networks();
    assert_eq!(names(&spec), ["na"]);
    // A record of a version that joined the mode's network besides.
    old.settle_old_networks();
    assert_eq!(names(&old), ["bridge", "na"]);
    let mut joined = ContainerSpec::default();
    joined.host.network = "container:x".parse().unwrap();
    joined.endpoints.insert("na".to_owned(), wish);
    joined.settle_networks();
    assert_eq!(names(&joined), [""; 0]);
}
