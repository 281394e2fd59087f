//! Small files and directories of the engine's own, with errors that name them.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// An error that names the path.
pub(crate) fn failed(verb: &str, path: &Path, source: io::Error) -> Error {
    Error::because(Kind::Internal, format!("cannot {verb} {}", path.display()), source)
}

/// Makes a directory that only root may list.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.map_err(|source| failed("make", path, source))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| failed("write", path, source))
}

/// Removes a file that need not be there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
