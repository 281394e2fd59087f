//! Settings of `eth0` that stood at a container's top before its networks had settings of their own,
//! moved to the network that the container's mode names.
//!
//! Source: moby 28.2 `api/server/router/container/container_routes.go` (`handleSysctlBC`,
//! `epConfigForNetMode`).

use api::container::HostConfig;
use api::version::{ApiVersion, v};
use engine::containers::spec::EndpointSpec;

use super::create::{Endpoints, Result};
use crate::http::Failure;

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// Moves settings of `eth0`; gives a warning that tells which.
pub(super) fn interface_sysctls(
    version: ApiVersion,
    host: &mut HostConfig,
    endpoints: &mut Endpoints,
) -> Result<Option<String>> {
    let mode = mode(host).to_owned();
    let Some(sysctls) = &mut host.sysctls else { return Ok(None) };
    if mode == "host" || is_container(&mode) {
        return Ok(None);
    }
    let (mut moved, mut settings) = (Vec::new(), Vec::new());
    for (name, value) in sysctls.iter() {
        let parts: Vec<&str> = name.splitn(5, '.').collect();
        let ["net", family, kind, interface, key] = parts[..] else { continue };
        if !interface.starts_with("eth") {
            continue;
        }
        if version > v(47) {
            return Err(Failure::invalid(format!(
                "interface specific sysctl setting {name:?} must be supplied using driver option '{SYSCTLS}'"
            )));
        }
        if interface != "eth0" {
            return Err(Failure::invalid(format!(
                "unable to determine network endpoint for sysctl {name}, use driver option '{SYSCTLS}' to set \
                 per-interface sysctls"
            )));
        }
        settings.push(format!("net.{family}.{kind}.IFNAME.{key}={value}"));
        moved.push(name.clone());
    }
    if moved.is_empty() {
        return Ok(None);
    }
    sysctls.retain(|name, _| !moved.contains(name));
    let endpoint = of_mode(version, &mode, endpoints).map_err(|failure| {
        let text = failure.message;
        Failure::invalid(format!("unable to find a network for sysctl {}: {text}", moved[0]))
    })?;
    let settings = settings.join(",");
    let text =
        format!("Migrated sysctl {:?} to DriverOpts{{{SYSCTLS:?}:{settings:?}}}.", moved.join(","));
    // What the endpoint says itself comes later, and wins.
    let own = endpoint.driver_opts.get(SYSCTLS).map(|own| format!(",{own}")).unwrap_or_default();
    endpoint.driver_opts.insert(SYSCTLS.to_owned(), settings + &own);
    Ok(Some(text))
}

fn mode(host: &HostConfig) -> &str {
    match host.network_mode.as_str() {
        "" | "default" => "bridge",
        other => other,
    }
}

fn is_container(mode: &str) -> bool {
    mode.starts_with("container:")
}

/// The wish for the mode's network.
fn of_mode<'a>(
    version: ApiVersion,
    mode: &str,
    endpoints: &'a mut Endpoints,
) -> Result<&'a mut EndpointSpec> {
    if endpoints.is_empty() {
        return Ok(endpoints.entry(mode.to_owned()).or_default());
    }
    // Old versions have one network at most, whatever it is called.
    let found =
        if version < v(44) { endpoints.values_mut().next() } else { endpoints.get_mut(mode) };
    found.ok_or_else(|| {
        Failure::invalid(
            "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
        )
    })
}
