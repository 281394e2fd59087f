//! Networks for front doors: the operations as methods of the engine, off the async threads, and
//! what connecting means for a container's record, files and monitor.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::{
    Attachment, Connected, CreatedNetwork, Member, MemberSpec, NetworkInfo, NetworkRequest, words,
};
use crate::blocking::blocking;
use crate::containers::lifecycle::change;
use crate::containers::record::Record;
use crate::containers::resolv;
use crate::containers::spec::EndpointSpec;
use crate::containers::start::proxied;
use crate::containers::step::Phase;
use crate::containers::task::View;
use crate::containers::turns::in_turn;
use crate::error::{Error, Kind, Result};
use crate::filters::Filters;
use crate::workloads::files::files_in;
use crate::{Engine, containers};

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
    /// `Forbidden` when a running one is connected already, `Invalid` for modes that share a namespace
    /// and for addresses that the network cannot give.
    pub async fn connect_network(
        &self,
        network: &str,
        asked: &str,
        wish: EndpointSpec,
    ) -> Result<()> {
        let (engine, network) = (self.clone(), network.to_owned());
        in_turn(self.container(asked)?, move |container, view| async move {
            engine.connect(&container, &view, &network, wish).await
        })
        .await
    }

    async fn connect(
        &self,
        container: &containers::ContainerHandle,
        view: &View,
        network: &str,
        wish: EndpointSpec,
    ) -> Result<()> {
        check_stays(view)?;
        let info = self.inspect_network(network).await?;
        let netns = netns(view)?;
        let live = netns.is_some();
        let networks = self.inner.networks.clone();
        let (id, wanted, record) = (info.id.to_string(), wish.clone(), Arc::clone(&view.record));
        let connected = blocking(move || {
            let (spec, hostname) = (&record.spec, &record.hostname);
            let spec = MemberSpec::of(spec);
            let one = Member { id: record.id, name: &record.name, spec, hostname };
            networks.connect(&id, &one, &wanted, netns.as_ref().map(AsFd::as_fd))
        })
        .await?;
        // A stopped one that is on the network stays as it is.
        let Some(Connected { mut attachment, hosts_lines, resolv_conf }) = connected else {
            return Ok(());
        };
        if live {
            match self.move_ports(view, attachment).await {
                Ok(moved) => attachment = moved,
                Err(error) => {
                    self.leave(view, &info.name).await;
                    return Err(error);
                }
            }
        }
        let name = info.name.clone();
        let keep = move |record: &mut Record, now: &mut Option<Attachment>| {
            record.spec.endpoints.insert(name, wish);
            if live && now.is_some() {
                *now = Some(attachment);
            }
            Ok(())
        };
        change(container, Box::new(keep)).await?;
        if !live {
            return Ok(());
        }
        let files = files_in(&self.inner.config.container_dir(&container.id));
        let resolves = resolv_conf.is_some();
        blocking(move || {
            append(&files.hosts, &hosts_lines)?;
            let path = &files.resolv_conf;
            resolv_conf.map_or(Ok(()), |text| {
                resolv::rewrite(path, &text).map_err(|source| failed(path, source))
            })
        })
        .await?;
        match &view.supervised {
            Some(run) if resolves => Ok(run.resolve().await?),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a container off a network.
    ///
    /// Source: moby 28.2 `daemon/network.go`, `DisconnectContainerFromNetwork`,
    /// `daemon/container_operations.go`, `DisconnectFromNetwork`.
    ///
    /// # Errors
    /// `Internal`, as Docker's, when it is not connected.
    pub async fn disconnect_network(&self, network: &str, asked: &str, force: Force) -> Result<()> {
        let info = self.inspect_network(network).await;
        let container = match (self.container(asked), force) {
            (Ok(container), _) => container,
            // What a lost container left on a network, of which there is nothing here.
            (Err(_), Force::Yes) => {
                info?;
                return Err(words::no_such_endpoint(asked));
            }
            (Err(error), Force::No) => return Err(error),
        };
        let (engine, network) = (self.clone(), network.to_owned());
        in_turn(container, move |container, view| async move {
            engine.disconnect(&container, &view, (&network, info), force).await
        })
        .await
    }

    async fn disconnect(
        &self,
        container: &containers::ContainerHandle,
        view: &View,
        (network, info): (&str, Result<NetworkInfo>),
        force: Force,
    ) -> Result<()> {
        let live = netns(view)?;
        let Some(netns) = live.filter(|_| info.is_ok() || force == Force::No) else {
            check_stays(view)?;
            let name = info.map_or_else(|_| network.to_owned(), |info| info.name);
            if !view.record.spec.endpoints.contains_key(&name) {
                return Err(words::stopped_not_connected(&container.id, &name));
            }
            let forget = move |record: &mut Record, _: &mut Option<Attachment>| {
                record.spec.endpoints.remove(&name);
                Ok(())
            };
            return change(container, Box::new(forget)).await;
        };
        let info = info?;
        let gone = view.attachment.iter().filter_map(|now| now.endpoints.get(&info.name));
        let gone: BTreeSet<IpAddr> = gone.flat_map(super::Endpoint::addresses).collect();
        let (networks, id, asked) =
            (self.inner.networks.clone(), container.id, info.id.to_string());
        let attachment = blocking(move || networks.disconnect(&asked, &id, netns.as_fd())).await?;
        let (moved, outcome) = match self.move_ports(view, attachment.clone()).await {
            Ok(moved) => (moved, Ok(())),
            Err(error) => (Attachment { ports: Vec::new(), ..attachment }, Err(error)),
        };
        let name = info.name.clone();
        let keep = move |record: &mut Record, now: &mut Option<Attachment>| {
            record.spec.endpoints.remove(&name);
            if now.is_some() {
                *now = Some(moved);
            }
            Ok(())
        };
        change(container, Box::new(keep)).await?;
        let files = files_in(&self.inner.config.container_dir(&container.id));
        blocking(move || drop_lines(&files.hosts, &gone)).await?;
        outcome
    }

    /// Publishes a running container's ports anew, if its default routes go by another network now.
    async fn move_ports(&self, view: &View, now: Attachment) -> Result<Attachment> {
        let record = Arc::clone(&view.record);
        let networks = self.inner.networks.clone();
        let old = view.attachment.clone().unwrap_or_default();
        let (was, is) =
            (networks.targets(&record.spec, &old)?, networks.targets(&record.spec, &now)?);
        let Some(run) = view.supervised.as_ref().filter(|_| was != is) else { return Ok(now) };
        if !was.addresses().is_empty() {
            run.unpublish(was.addresses()).await?;
        }
        let republish = move || {
            let hostname = &record.hostname;
            let (id, name, spec) = (record.id, record.name.as_str(), &record.spec);
            let spec = MemberSpec::of(spec);
            networks.republish(&Member { id, name, spec, hostname })
        };
        let (attachment, listeners) = blocking(republish).await?;
        run.publish(&proxied(listeners)).await?;
        Ok(attachment)
    }

    /// Undoes a connect whose ports could not be published.
    async fn leave(&self, view: &View, network: &str) {
        let Ok(Some(netns)) = netns(view) else { return };
        let (networks, name) = (self.inner.networks.clone(), network.to_owned());
        let record = Arc::clone(&view.record);
        let back = move || {
            networks.disconnect(&name, &record.id, netns.as_fd())?;
            let (name, spec, hostname) = (record.name.as_str(), &record.spec, &record.hostname);
            let spec = MemberSpec::of(spec);
            networks.republish(&Member { id: record.id, name, spec, hostname })
        };
        let outcome = match (blocking(back).await, &view.supervised) {
            (Ok((_, listeners)), Some(run)) => {
                run.publish(&proxied(listeners)).await.map_err(Error::from)
            }
            (outcome, _) => outcome.map(drop),
        };
        if let Err(error) = outcome {
            let id = view.record.id;
            tracing::warn!(container = %id, error = %error.message, "a connect is half undone");
        }
    }
}

/// The network namespace of a container that runs. It is held, so that whatever happens to the process
/// meanwhile, nobody else's is changed.
fn netns(view: &View) -> Result<Option<OwnedFd>> {
    if view.phase.run().is_none() {
        return Ok(None);
    }
    let run = view.supervised.as_ref().ok_or_else(|| crate::words::not_running(view.record.id))?;
    Ok(Some(run.netns()?))
}

/// Whether a disconnect is meant for what is not there, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    Yes,
    No,
}

fn check_stays(view: &View) -> Result<()> {
    match view.phase {
        Phase::Removing { .. } | Phase::Dead { .. } | Phase::Gone => {
            Err(words::marked_for_removal(&view.record.id))
        }
        Phase::Created { .. }
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Paused { .. }
        | Phase::Stopping { .. }
        | Phase::Exited { .. }
        | Phase::Backoff { .. } => Ok(()),
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
