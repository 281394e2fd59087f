//! Seccomp filters, compiled once for each profile and set of capabilities and then shared.
//!
//! Compiling Docker's profile takes longer than a start may: 400 names and a thousand instructions. What
//! it depends on is the profile's text and the capabilities, so that is the key; the kernel and the
//! architecture are this host's.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use spec::runtime::Seccomp;

use super::capabilities;
use super::security::{self, SecurityOptions};
use super::spec::ContainerSpec;
use crate::Inner;
use crate::config::SeccompDefault;
use crate::error::{Error, Kind, Result};

/// Filters that are kept; beyond it all are forgotten, and made again as they are used.
const KEPT_MAX: usize = 64;

/// The compiled filters of one engine.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    compiled: Mutex<BTreeMap<Key, runs::Filter>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The text of a profile; `None` for the built-in one.
    profile: Option<String>,
    capabilities: Vec<String>,
}

/// Which profile a run has.
enum Profile<'a> {
    Unconfined,
    Builtin,
    Text(&'a str),
}

impl Filters {
    /// The filter of a run; `None` for an unconfined one.
    ///
    /// # Errors
    /// `Invalid` for a profile that cannot be used.
    pub(crate) fn filter(
        &self,
        engine: &Inner,
        spec: &ContainerSpec,
        security: &SecurityOptions,
    ) -> Result<Option<runs::Filter>> {
        let profile = match choose(engine, spec, security) {
            Profile::Unconfined => return Ok(None),
            Profile::Builtin => None,
            Profile::Text(text) => Some(text.to_owned()),
        };
        let key = Key { profile, capabilities: capabilities_of(engine, spec)? };
        let known = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(filter) = known {
            return Ok(Some(filter));
        }
        let Some(section) = section(engine, spec, security)? else { return Ok(None) };
        let program = runtime::seccomp::compile(&section)
            .map_err(|source| Error::caused(Kind::Invalid, source))?;
        let filter = runs::Filter::new(&program)?;
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= KEPT_MAX {
            compiled.clear();
        }
        compiled.insert(key, filter.clone());
        Ok(Some(filter))
    }
}

/// The profile as a section of an OCI document; `None` for an unconfined run.
///
/// # Errors
/// `Invalid` for a profile that cannot be used.
pub(crate) fn section(
    engine: &Inner,
    spec: &ContainerSpec,
    security: &SecurityOptions,
) -> Result<Option<Seccomp>> {
    let capabilities = capabilities_of(engine, spec)?;
    let host = spec::seccomp::Host {
        architecture: &engine.host.architecture,
        kernel: engine.host.kernel,
        capabilities: &capabilities,
    };
    match choose(engine, spec, security) {
        Profile::Unconfined => Ok(None),
        Profile::Builtin => Ok(Some(spec::seccomp::default_profile(&host))),
        Profile::Text(text) => match spec::seccomp::load(text, &host) {
            Ok(profile) => Ok(Some(profile)),
            Err(source) => Err(Error::caused(Kind::Invalid, source)),
        },
    }
}

/// Source: moby `daemon/seccomp_linux.go`.
fn choose<'a>(
    engine: &'a Inner,
    spec: &ContainerSpec,
    security: &'a SecurityOptions,
) -> Profile<'a> {
    // What was asked for counts for a privileged run too, the daemon's own profile does not.
    if spec.host.privileged && security.seccomp.is_none() {
        return Profile::Unconfined;
    }
    match (&security.seccomp, &engine.config.seccomp_profile) {
        (Some(security::Seccomp::Unconfined), _) | (None, SeccompDefault::Unconfined) => {
            Profile::Unconfined
        }
        (Some(security::Seccomp::Profile(text)), _) | (None, SeccompDefault::Profile(text)) => {
            Profile::Text(text)
        }
        (Some(security::Seccomp::Builtin), _) | (None, SeccompDefault::Builtin) => Profile::Builtin,
    }
}

fn capabilities_of(engine: &Inner, spec: &ContainerSpec) -> Result<Vec<String>> {
    capabilities::resolve(
        spec.host.privileged,
        &spec.host.cap_add,
        &spec.host.cap_drop,
        engine.host.last_capability,
    )
}
