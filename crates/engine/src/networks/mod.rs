//! Networks as the engine keeps them (placeholder with the published signatures; helper net's file replaces it).

use std::os::fd::OwnedFd;
use std::net::SocketAddr;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spec::Id;

use crate::config::EngineConfig;
use crate::containers::spec::{ContainerSpec, EndpointSpec};
use crate::containers::views::NetworkView;
use crate::error::{Error, Kind, Result};
use crate::events::Events;

#[derive(Clone)]
pub struct Networks;

pub struct Container<'a> {
    pub id: Id,
    pub name: &'a str,
    pub spec: &'a ContainerSpec,
    pub hostname: &'a str,
}

pub struct Prepared {
    pub netns: Option<OwnedFd>,
    pub listeners: Vec<Listener>,
    pub attachment: Attachment,
    pub hosts: String,
    pub resolv_conf: String,
}

pub struct Listener {
    pub port: PublishedPort,
    pub socket: OwnedFd,
    pub target: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub container: crate::containers::spec::Port,
    pub host: SocketAddr,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub sandbox_id: String,
    pub endpoints: BTreeMap<String, Endpoint>,
    pub ports: Vec<PublishedPort>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    pub network_id: String,
}

pub struct Connected {
    pub attachment: Attachment,
}

fn nothing<T>() -> Result<T> {
    Err(Error::new(Kind::NotImplemented, "no networks yet: use --network host"))
}

impl Networks {
    pub fn open(_config: &EngineConfig, _events: Events) -> Result<Self> {
        Ok(Self)
    }
    pub fn restore(&self, _running: Vec<(Id, Attachment)>) {}
    pub fn validate(&self, _spec: &ContainerSpec) -> Result<()> {
        Ok(())
    }
    pub fn prepare(&self, container: &Container<'_>) -> Result<Prepared> {
        if container.spec.host.network != crate::containers::spec::NetworkMode::Host {
            return nothing();
        }
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Ok(Prepared { netns: None, listeners: Vec::new(), attachment: Attachment::default(), hosts, resolv_conf })
    }
    pub fn release(&self, _id: &Id) {}
    pub fn connect(&self, _asked: &str, _container: &Container<'_>, _wish: &EndpointSpec, _live: Option<u32>, _now: Option<&Attachment>) -> Result<Connected> {
        nothing()
    }
    pub fn disconnect(&self, _asked: &str, _id: &Id, _live: Option<u32>, _force: bool) -> Result<Attachment> {
        nothing()
    }
    pub fn rename(&self, _id: &Id, _name: &str) {}
}

impl Attachment {
    pub fn view(&self, _spec: &ContainerSpec) -> NetworkView {
        NetworkView::default()
    }
}

pub fn stopped_view(_spec: &ContainerSpec) -> NetworkView {
    NetworkView::default()
}
