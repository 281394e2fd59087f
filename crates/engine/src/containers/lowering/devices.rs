//! A container's devices.

use runs::workload::{DeviceAccess, DeviceNode, DeviceRule, Devices};

use super::super::spec::ContainerSpec;
use crate::error::{Error, Kind, Result};
use crate::workloads::Privileges;
use crate::workloads::devices::{self, HostDevices};

pub(super) fn lower(spec: &ContainerSpec, found: &HostDevices) -> Result<Devices> {
    Ok(Devices { nodes: nodes(spec, found), rules: rules(spec, found)? })
}

fn nodes(spec: &ContainerSpec, found: &HostDevices) -> Vec<DeviceNode> {
    let host = found.all.iter().map(|device| device.node(device.path.clone()));
    let mut all: Vec<DeviceNode> = host.collect();
    for mapping in &spec.host.resources.devices {
        let place = if mapping.container.is_empty() { &mapping.host } else { &mapping.container };
        for device in found.at(&mapping.host) {
            // A directory's nodes keep their place below it.
            let below = device.path.strip_prefix(&mapping.host).unwrap_or("");
            all.push(device.node(format!("{place}{below}")));
        }
    }
    all
}

fn rules(spec: &ContainerSpec, found: &HostDevices) -> Result<Vec<DeviceRule>> {
    let privileges = super::privileges(&spec.host);
    let mut rules = devices::default_rules(privileges);
    if privileges == Privileges::All {
        return Ok(rules);
    }
    let resources = &spec.host.resources;
    for mapping in &resources.devices {
        let access = match mapping.permissions.as_str() {
            "" => DeviceAccess::ALL,
            letters => letters.parse().map_err(|_| {
                Error::invalid(format!("invalid device permissions: \"{letters}\""))
            })?,
        };
        rules.extend(found.at(&mapping.host).iter().map(|device| devices::allow(device, access)));
    }
    for text in &resources.device_cgroup_rules {
        rules.push(text.parse().map_err(|source| Error::caused(Kind::Invalid, source))?);
    }
    Ok(rules)
}
