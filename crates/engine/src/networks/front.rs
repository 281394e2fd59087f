//! Networks for front doors: the operations as methods of the engine, off the async threads, and
//! what connecting means for a container's record, files and monitor.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use monitor::wire::Request;

use super::{Container, CreatedNetwork, NetworkInfo, NetworkRequest, words};
use crate::Engine;
use crate::containers::lifecycle::change;
use crate::containers::resolv;
use crate::containers::spec::EndpointSpec;
use crate::containers::world::{blocking, files_in};
use crate::error::{Error, Kind, Result};
use crate::filters::Filters;

impl Engine {
    /// # Errors
    /// `Conflict` when the name is taken, `Forbidden` for reserved names and overlapping subnets,
    /// `NotFound` for an unknown driver, `Invalid` for settings that contradict each other.
    pub async fn create_network(&self, request: NetworkRequest) -> Result<CreatedNetwork> {
        let networks = self.inner.networks.clone();
        blocking(move || networks.create(&request)).await
    }

    /// # Errors
    /// `Invalid` for unknown filters.
    pub async fn list_networks(&self, filters: Filters) -> Result<Vec<NetworkInfo>> {
        let networks = self.inner.networks.clone();
        blocking(move || networks.list(&filters)).await
    }

    /// # Errors
    /// `NotFound`, or `Invalid` when the text is the beginning of several ids.
    pub async fn inspect_network(&self, asked: &str) -> Result<NetworkInfo> {
        let (networks, asked) = (self.inner.networks.clone(), asked.to_owned());
        blocking(move || networks.inspect(&asked)).await
    }

    /// # Errors
    /// `Forbidden` for predefined networks and those with running containers.
    pub async fn remove_network(&self, asked: &str) -> Result<()> {
        let (networks, asked) = (self.inner.networks.clone(), asked.to_owned());
        blocking(move || networks.remove(&asked)).await.map(drop)
    }

    /// Removes networks that no running container is on; gives their names.
    ///
    /// # Errors
    /// `Invalid` for unknown filters.
    pub async fn prune_networks(&self, filters: Filters) -> Result<Vec<String>> {
        let networks = self.inner.networks.clone();
        blocking(move || networks.prune(&filters)).await
    }

    /// Connects a container: a running one at once, a stopped one for its next start.
    ///
    /// # Errors
    /// `Forbidden` when it is connected already, `Invalid` for modes that share a namespace and for
    /// addresses that the network cannot give.
    pub async fn connect_network(
        &self,
        network: &str,
        asked: &str,
        wish: EndpointSpec,
    ) -> Result<()> {
        let container = self.container(asked)?;
        let view = container.now();
        let info = self.inspect_network(network).await?;
        let record = &view.record;
        if record.spec.endpoints.contains_key(&info.name) && view.phase.run().is_none() {
            return Err(words::already_connected(&record.name, &info.name));
        }
        let live = view.phase.run().and_then(|run| u32::try_from(run.pid).ok());
        let (networks, record, now) =
            (self.inner.networks.clone(), record.clone(), view.attachment.clone());
        let (id, wanted) = (info.id.to_string(), wish.clone());
        // With the new wish, whose links count already.
        let mut spec = record.spec.clone();
        spec.endpoints.insert(info.name.clone(), wish.clone());
        let connected = blocking(move || {
            let container = Container {
                id: record.id,
                name: &record.name,
                spec: &spec,
                hostname: &record.hostname,
            };
            networks.connect(&id, &container, &wanted, live, now.as_ref())
        })
        .await?;
        let (name, attachment) = (info.name.clone(), connected.attachment);
        let keep = move |record: &mut crate::containers::record::Record,
                         now: &mut Option<super::Attachment>| {
            record.spec.endpoints.insert(name, wish);
            if live.is_some() && now.is_some() {
                *now = Some(attachment);
            }
            Ok(())
        };
        change(&container, Box::new(keep)).await?;
        let files = files_in(&self.inner.config.container_dir(&container.id));
        let (lines, resolv_conf) = (connected.hosts_lines, connected.resolv_conf);
        let resolves = resolv_conf.is_some();
        blocking(move || {
            append(&files.hosts, &lines)?;
            let path = &files.resolv_conf;
            resolv_conf.map_or(Ok(()), |text| {
                resolv::rewrite(path, &text).map_err(|source| failed(path, source))
            })
        })
        .await?;
        match &view.link {
            Some(link) if resolves => link.demand(&Request::Resolve, &[]).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a container off a network. Docker's `force` is for endpoints that a lost container
    /// left, of which there are none here.
    ///
    /// Source: moby 28.2 `daemon/network.go`, `DisconnectContainerFromNetwork`.
    ///
    /// # Errors
    /// `Forbidden` when it is not connected.
    pub async fn disconnect_network(&self, network: &str, asked: &str) -> Result<()> {
        let container = self.container(asked)?;
        let view = container.now();
        let info = self.inspect_network(network).await?;
        let live = view.phase.run().and_then(|run| u32::try_from(run.pid).ok());
        let known = view.record.spec.endpoints.contains_key(&info.name)
            || view.record.spec.host.network.to_string() == info.name;
        if live.is_none() && !known {
            return Err(words::not_connected(&view.record.name, &info.name));
        }
        let gone = view.attachment.iter().filter_map(|now| now.endpoints.get(&info.name));
        let gone: BTreeSet<IpAddr> = gone.flat_map(super::Endpoint::addresses).collect();
        let (networks, id, network) =
            (self.inner.networks.clone(), container.id, info.id.to_string());
        let attachment = blocking(move || networks.disconnect(&network, &id, live)).await?;
        let name = info.name.clone();
        let keep = move |record: &mut crate::containers::record::Record,
                         now: &mut Option<super::Attachment>| {
            record.spec.endpoints.remove(&name);
            if live.is_some() && now.is_some() {
                *now = Some(attachment);
            }
            Ok(())
        };
        change(&container, Box::new(keep)).await?;
        let files = files_in(&self.inner.config.container_dir(&container.id));
        blocking(move || drop_lines(&files.hosts, &gone)).await
    }
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::because(Kind::Internal, format!("cannot write {}", path.display()), source)
}

// The files are mounted into the container, so they are changed in place. What the user wrote into
// /etc/hosts stays.

fn append(path: &Path, lines: &str) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let file = fs::OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(lines.as_bytes()))
        .map_err(|source| failed(path, source))
}

fn rewrite(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| failed(path, source))
}

fn drop_lines(path: &Path, addresses: &BTreeSet<IpAddr>) -> Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let text = fs::read_to_string(path).map_err(|source| failed(path, source))?;
    rewrite(path, &without(&text, addresses))
}

/// The lines that do not begin with one of the addresses.
fn without(hosts: &str, addresses: &BTreeSet<IpAddr>) -> String {
    let stays = |line: &&str| {
        let first = line.split_whitespace().next().and_then(|word| word.parse::<IpAddr>().ok());
        first.is_none_or(|address| !addresses.contains(&address))
    };
    hosts.split_inclusive('\n').filter(stays).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_of_the_lost_addresses_go() {
        let hosts = "127.0.0.1\tlocalhost\n# 172.18.0.2 mine\n172.18.0.2\tweb\n172.17.0.2\tweb\n";
        let left = without(hosts, &BTreeSet::from(["172.18.0.2".parse().unwrap()]));
        assert_eq!(left, "127.0.0.1\tlocalhost\n# 172.18.0.2 mine\n172.17.0.2\tweb\n");
    }
}
