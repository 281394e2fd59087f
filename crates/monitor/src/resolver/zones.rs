//! What the container may ask by name, from the files that the daemon rewrites.
//!
//! Files are looked at (one stat each) when a question comes, and read again when they changed: no
//! daemon has to tell anybody, and a question after a change sees it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use net::zone::{Resolver as Settings, Zone, ZoneError};

use super::message::{Answer, Query, Type, reverse_address};

/// The container's zones, links and upstream servers.
#[derive(Debug)]
pub struct Zones {
    path: PathBuf,
    stamp: Option<Stamp>,
    pub settings: Settings,
    zones: BTreeMap<PathBuf, (Option<Stamp>, Zone)>,
}

/// What changes when a file is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// Who answers a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Here(Answer),
    /// Ask an upstream server.
    Upstream,
    /// Nobody: there is no way out.
    Nobody,
}

impl Zones {
    /// # Errors
    /// When the settings are not there or damaged.
    pub fn open(path: &Path) -> Result<Zones, ZoneError> {
        let stamp = stamp(path);
        let settings = net::zone::read(path)?;
        Ok(Zones { path: path.to_owned(), stamp, settings, zones: BTreeMap::new() })
    }

    /// Reads what changed. A file that cannot be read leaves what was known, one that is gone
    /// leaves nothing.
    pub fn refresh(&mut self) {
        let now = stamp(&self.path);
        if now != self.stamp
            && let Ok(settings) = net::zone::read(&self.path)
        {
            self.settings = settings;
            self.stamp = now;
        }
        self.zones.retain(|path, _| self.settings.zones.contains(path));
        for path in &self.settings.zones {
            let now = stamp(path);
            let known = self.zones.entry(path.clone()).or_default();
            if now.is_none() {
                *known = (None, Zone::default());
            } else if now != known.0
                && let Ok(zone) = net::zone::read(path)
            {
                *known = (now, zone);
            }
        }
    }

    fn in_order(&self) -> impl Iterator<Item = &Zone> {
        self.settings.zones.iter().filter_map(|path| self.zones.get(path)).map(|(_, zone)| zone)
    }

    /// Looks for the answer.
    pub fn find(&self, query: &Query) -> Found {
        let known = query.name.as_deref().and_then(|name| match query.kind {
            Type::Ptr => self.find_name(name),
            Type::A => self.find_addresses(name, IpAddr::is_ipv4),
            Type::Aaaa => self.find_addresses(name, IpAddr::is_ipv6),
            // A name of ours has nothing but addresses, and is nobody else's business.
            Type::Other(_) => self.find_addresses(name, |_| false),
        });
        if let Some(answer) = known {
            return Found::Here(answer);
        }
        let mut zones = self.in_order().peekable();
        let closed = zones.peek().is_some() && zones.all(|zone| zone.internal);
        if closed || self.settings.upstreams.is_empty() { Found::Nobody } else { Found::Upstream }
    }

    fn find_addresses(&self, name: &str, wanted: impl Fn(&IpAddr) -> bool) -> Option<Answer> {
        let linked = self.settings.links.get(name);
        let here = || self.in_order().find_map(|zone| zone.names.get(name));
        let qualified = || {
            self.in_order().find_map(|zone| {
                let short =
                    name.strip_suffix(&zone.network.to_ascii_lowercase())?.strip_suffix('.')?;
                zone.names.get(short)
            })
        };
        let addresses = linked.or_else(here).or_else(qualified)?;
        let mut addresses: Vec<IpAddr> =
            addresses.iter().filter(|address| wanted(address)).copied().collect();
        shuffle(&mut addresses);
        Some(Answer::Addresses(addresses))
    }

    fn find_name(&self, name: &str) -> Option<Answer> {
        let address = reverse_address(name)?;
        self.in_order().find_map(|zone| {
            let name = zone.addresses.get(&address)?;
            Some(Answer::Name(format!("{name}.{}", zone.network)))
        })
    }
}

/// Spreads clients that take the first address over all of them.
fn shuffle(addresses: &mut [IpAddr]) {
    for at in (1..addresses.len()).rev() {
        let other = usize::from(super::random()) % (at + 1);
        addresses.swap(at, other);
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
    })
}

#[cfg(test)]
mod tests {
    use net::zone::{From, Upstream};

    use super::super::message::tests::query;
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path =
                std::env::temp_dir().join(format!("tug-zones-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        /// Two networks, the second of them internal or not.
        fn zones(&self, first: Zone, second: Zone) -> Zones {
            let paths = [self.0.join("first.json"), self.0.join("second.json")];
            net::zone::write(&paths[0], &first).unwrap();
            net::zone::write(&paths[1], &second).unwrap();
            let server = "192.0.2.1:53".parse().unwrap();
            let settings = Settings {
                zones: paths.to_vec(),
                links: BTreeMap::from([("db".to_owned(), addresses(&["10.9.9.9"]))]),
                upstreams: vec![Upstream { server, from: From::Container }],
            };
            let path = self.0.join("resolver.json");
            net::zone::write(&path, &settings).unwrap();
            let mut zones = Zones::open(&path).unwrap();
            zones.refresh();
            zones
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn zone(network: &str, name: &str, address: &str) -> Zone {
        Zone {
            network: network.to_owned(),
            internal: false,
            names: BTreeMap::from([(name.to_owned(), addresses(&[address]))]),
            addresses: BTreeMap::from([(address.parse().unwrap(), name.to_owned())]),
        }
    }

    #[track_caller]
    fn check(zones: &Zones, name: &str, kind: u16, want: Found) {
        assert_eq!(zones.find(&Query::parse(&query(1, name, kind)).unwrap()), want, "{name}");
    }

    fn here(texts: &[&str]) -> Found {
        Found::Here(Answer::Addresses(addresses(texts)))
    }

    #[test]
    fn names_are_found_bare_qualified_and_linked() {
        let directory = Directory::new("names");
        let zones =
            directory.zones(zone("Front", "web", "172.18.0.2"), zone("back", "redis", "fd00::5"));
        check(&zones, "web", 1, here(&["172.18.0.2"]));
        check(&zones, "WEB.front", 1, here(&["172.18.0.2"]));
        check(&zones, "web.back", 1, Found::Upstream);
        check(&zones, "redis", 28, here(&["fd00::5"]));
        check(&zones, "db", 1, here(&["10.9.9.9"]));
        check(&zones, "example.com", 1, Found::Upstream);
    }

    #[test]
    fn a_name_without_addresses_of_the_family_is_known_all_the_same() {
        let directory = Directory::new("family");
        let zones =
            directory.zones(zone("front", "web", "172.18.0.2"), zone("back", "redis", "fd00::5"));
        check(&zones, "web", 28, here(&[]));
        check(&zones, "web", 15, here(&[]));
    }

    #[test]
    fn addresses_have_names() {
        let directory = Directory::new("reverse");
        let zones =
            directory.zones(zone("front", "web", "172.18.0.2"), zone("back", "redis", "fd00::5"));
        let name = Found::Here(Answer::Name("web.front".to_owned()));
        check(&zones, "2.0.18.172.in-addr.arpa", 12, name);
        check(&zones, "9.9.9.9.in-addr.arpa", 12, Found::Upstream);
    }

    #[test]
    fn nothing_leaves_when_every_network_is_internal() {
        let directory = Directory::new("internal");
        let internal = |network| Zone { internal: true, ..zone(network, "web", "172.18.0.2") };
        let zones = directory.zones(internal("front"), internal("back"));
        check(&zones, "example.com", 1, Found::Nobody);
        let zones = directory.zones(internal("front"), zone("back", "redis", "fd00::5"));
        check(&zones, "example.com", 1, Found::Upstream);
    }

    #[test]
    fn a_rewritten_zone_is_seen_at_the_next_question() {
        let directory = Directory::new("change");
        let mut zones =
            directory.zones(zone("front", "web", "172.18.0.2"), zone("back", "redis", "fd00::5"));
        let path = directory.0.join("first.json");
        net::zone::write(&path, &zone("front", "web", "172.18.0.9")).unwrap();
        zones.refresh();
        check(&zones, "web", 1, here(&["172.18.0.9"]));
        fs::remove_file(&path).unwrap();
        zones.refresh();
        check(&zones, "web", 1, Found::Upstream);
    }
}
