//! Rows of `GET /containers/json` as they are sent: a [`Summary`] that borrows.
//!
//! A client reads the owned form. [`From`] names every field, so the two cannot drift apart.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::container::{MountPoint, Port, Summary, SummaryHostConfig, SummaryNetworkSettings};
use crate::is_zero;
use crate::network::EndpointSettings;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Row<'a> {
    pub id: String,
    pub names: Vec<String>,
    pub image: &'a str,
    #[serde(rename = "ImageID")]
    pub image_id: String,
    pub command: &'a str,
    /// Unix seconds.
    pub created: i64,
    pub ports: Vec<Port>,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_rw: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_root_fs: i64,
    pub labels: &'a BTreeMap<String, String>,
    pub state: &'a str,
    pub status: &'a str,
    pub host_config: RowHostConfig<'a>,
    pub network_settings: RowNetworkSettings,
    pub mounts: Vec<MountPoint>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RowHostConfig<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    pub network_mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RowNetworkSettings {
    pub networks: BTreeMap<String, EndpointSettings>,
}

impl From<Row<'_>> for Summary {
    fn from(row: Row<'_>) -> Self {
        Self {
            id: row.id,
            names: row.names,
            image: row.image.to_owned(),
            image_id: row.image_id,
            command: row.command.to_owned(),
            created: row.created,
            ports: row.ports,
            size_rw: row.size_rw,
            size_root_fs: row.size_root_fs,
            labels: row.labels.clone(),
            state: row.state.to_owned(),
            status: row.status.to_owned(),
            host_config: SummaryHostConfig {
                network_mode: row.host_config.network_mode,
                annotations: row.host_config.annotations.cloned(),
            },
            network_settings: SummaryNetworkSettings {
                networks: Some(row.network_settings.networks),
            },
            mounts: row.mounts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_the_same_text() {
        let labels = BTreeMap::from([("a".to_owned(), "<b>".to_owned())]);
        let endpoint = EndpointSettings { gateway: "10.0.0.1".to_owned(), ..Default::default() };
        let row = |size, annotations| Row {
            id: "i".to_owned(),
            names: vec!["/n".to_owned()],
            image: "img",
            image_id: "sha256:x".to_owned(),
            command: "sh -c 'echo hi'",
            created: 7,
            ports: vec![Port { private_port: 80, kind: "tcp".to_owned(), ..Port::default() }],
            size_rw: size,
            size_root_fs: size,
            labels: &labels,
            state: "running",
            status: "Up 1 second",
            host_config: RowHostConfig { network_mode: "bridge".to_owned(), annotations },
            network_settings: RowNetworkSettings {
                networks: BTreeMap::from([("bridge".to_owned(), endpoint.clone())]),
            },
            mounts: vec![MountPoint { destination: "/d".to_owned(), ..MountPoint::default() }],
        };
        for (size, annotations) in [(0, None), (5, Some(&labels))] {
            let sent = serde_json::to_string(&row(size, annotations)).unwrap();
            let owned = serde_json::to_string(&Summary::from(row(size, annotations))).unwrap();
            assert_eq!(sent, owned);
        }
    }
}
