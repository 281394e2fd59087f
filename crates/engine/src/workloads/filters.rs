//! Seccomp filters, compiled once for each profile and set of capabilities and then shared.
//!
//! Compiling Docker's profile takes longer than a start may: 400 names and a thousand instructions. What
//! it depends on is the profile's text and the capabilities, so that is the key; the kernel and the
//! architecture are this host's.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use runs::RuntimeChoice;
use runs::workload::CallFilter;
use spec::runtime::Seccomp;

use super::Privileges;
use crate::Inner;
use crate::config::SeccompDefault;
use crate::containers::security::{self, SecurityOptions};
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

/// What a run's filter depends on.
pub(crate) struct FilterRequest<'a> {
    pub privileges: Privileges,
    pub options: &'a SecurityOptions,
    /// Names of those that its processes may have.
    pub capabilities: Vec<String>,
}

/// Which profile a run has.
enum Profile<'a> {
    Unconfined,
    Builtin,
    Text(&'a str),
}

/// The filter of a run in the form that its runtime takes; `None` for an unconfined one.
///
/// # Errors
/// `Invalid` for a profile that cannot be used.
pub(crate) fn for_runtime(
    engine: &Inner,
    request: &FilterRequest<'_>,
    runtime: &RuntimeChoice,
) -> Result<Option<CallFilter>> {
    match runtime {
        RuntimeChoice::Builtin => Ok(compiled(engine, request)?.map(CallFilter::Compiled)),
        RuntimeChoice::External { .. } => Ok(section(engine, request)?.map(CallFilter::Section)),
    }
}

/// The compiled filter of a run; `None` for an unconfined one.
///
/// # Errors
/// `Invalid` for a profile that cannot be used.
pub(crate) fn compiled(
    engine: &Inner,
    request: &FilterRequest<'_>,
) -> Result<Option<runs::Filter>> {
    let profile = match choose(engine, request) {
        Profile::Unconfined => return Ok(None),
        Profile::Builtin => None,
        Profile::Text(text) => Some(text.to_owned()),
    };
    let key = Key { profile, capabilities: request.capabilities.clone() };
    let kept = || engine.filters.compiled.lock().unwrap_or_else(PoisonError::into_inner);
    let known = kept().get(&key).cloned();
    if let Some(filter) = known {
        return Ok(Some(filter));
    }
    let Some(section) = section(engine, request)? else { return Ok(None) };
    let program = runtime::seccomp::compile(&section)
        .map_err(|source| Error::caused(Kind::Invalid, source))?;
    let filter = runs::Filter::new(&program)?;
    let mut compiled = kept();
    if compiled.len() >= KEPT_MAX {
        compiled.clear();
    }
    compiled.insert(key, filter.clone());
    Ok(Some(filter))
}

/// The profile as a section of an OCI document; `None` for an unconfined run.
fn section(engine: &Inner, request: &FilterRequest<'_>) -> Result<Option<Seccomp>> {
    let host = spec::seccomp::Host {
        architecture: &engine.host.architecture,
        kernel: engine.host.kernel,
        capabilities: &request.capabilities,
    };
    match choose(engine, request) {
        Profile::Unconfined => Ok(None),
        Profile::Builtin => Ok(Some(spec::seccomp::default_profile(&host))),
        Profile::Text(text) => match spec::seccomp::load(text, &host) {
            Ok(profile) => Ok(Some(profile)),
            Err(source) => Err(Error::caused(Kind::Invalid, source)),
        },
    }
}

/// Source: moby `daemon/seccomp_linux.go`.
fn choose<'a>(engine: &'a Inner, request: &FilterRequest<'a>) -> Profile<'a> {
    let own = &request.options.seccomp;
    // What was asked for counts for a privileged run too, the daemon's own profile does not.
    if request.privileges == Privileges::All && own.is_none() {
        return Profile::Unconfined;
    }
    match (own, &engine.config.seccomp_profile) {
        (Some(security::Seccomp::Unconfined), _) | (None, SeccompDefault::Unconfined) => {
            Profile::Unconfined
        }
        (Some(security::Seccomp::Profile(text)), _) | (None, SeccompDefault::Profile(text)) => {
            Profile::Text(text)
        }
        (Some(security::Seccomp::Builtin), _) | (None, SeccompDefault::Builtin) => Profile::Builtin,
    }
}
