//! Which OCI runtime a run is made by.

use std::path::{Path, PathBuf};

use runs::RuntimeChoice;

use crate::config::Live;
use crate::error::{Error, Result};

/// `directory` is the run's, where another runtime keeps its state.
///
/// # Errors
/// `Invalid` for a runtime that the daemon does not know.
pub(crate) fn choose(live: &Live, name: &str, directory: &Path) -> Result<RuntimeChoice> {
    let name = if name.is_empty() { &live.default_runtime } else { name };
    let root = directory.join("runtime");
    if let Some(other) = live.runtimes.get(name) {
        let (program, args) = (other.path.clone(), other.args.clone());
        return Ok(RuntimeChoice::External { program, args, root });
    }
    match name {
        "tug" | "io.containerd.runc.v2" => Ok(RuntimeChoice::Builtin),
        "runc" => match find_program("runc") {
            Some(program) => Ok(RuntimeChoice::External { program, args: Vec::new(), root }),
            None => Ok(RuntimeChoice::Builtin),
        },
        other => Err(Error::invalid(format!("unknown or invalid runtime name: {other}"))),
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}
