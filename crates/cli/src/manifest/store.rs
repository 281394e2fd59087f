//! Lists not yet pushed: a directory for each list, a file for each of its manifests.
//!
//! ```text
//! CONFIG/manifests/reg.example_list-v1/reg.example_image-amd64      `:` becomes `-`, `/` becomes `_`
//! ```
//! A list's manifests are in the order of these names. Source: docker/cli 28.2 `cli/manifest/store`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spec::Reference;

use super::entry::Entry;
use crate::create::files::reason;
use crate::failure::Failure;
use crate::files;

pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The lists of the user whose configuration is in `config`.
    pub fn new(config: &Path) -> Store {
        Store { root: config.join("manifests") }
    }

    /// A list's manifests; None where there is no such list.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn list(&self, list: &Reference) -> Result<Option<Vec<Entry>>, Failure> {
        let dir = self.dir(list);
        let names = match fs::read_dir(&dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &dir, &error)),
        };
        let mut paths: Vec<PathBuf> = names.flatten().map(|name| name.path()).collect();
        paths.retain(|path| !files::is_temporary(path));
        paths.sort();
        paths.iter().map(|path| read(path)).collect::<Result<Vec<Entry>, Failure>>().map(Some)
    }

    /// One manifest of a list.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find(&self, list: &Reference, image: &Reference) -> Result<Option<Entry>, Failure> {
        let path = self.dir(list).join(file_name(image));
        if path.exists() { read(&path).map(Some) } else { Ok(None) }
    }

    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, list: &Reference, image: &Reference, entry: &Entry) -> Result<(), Failure> {
        let dir = self.dir(list);
        fs::create_dir_all(&dir).map_err(|error| failed("mkdir", &dir, &error))?;
        let path = dir.join(file_name(image));
        files::replace(&path, entry.to_json().as_bytes(), 0o644)
            .map_err(|error| failed("open", &path, &error))
    }

    /// # Errors
    /// When it cannot be removed; a list that is not there can.
    pub fn remove(&self, list: &Reference) -> Result<(), Failure> {
        let dir = self.dir(list);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("unlinkat", &dir, &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn dir(&self, list: &Reference) -> PathBuf {
        self.root.join(file_name(list))
    }
}

/// A reference has no component that begins with a dot, so this leads nowhere else.
fn file_name(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

fn read(path: &Path) -> Result<Entry, Failure> {
    let text = fs::read_to_string(path).map_err(|error| failed("open", path, &error))?;
    Entry::parse(&text).map_err(|failure| Failure::new(format!("{}: {failure}", path.display())))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{what} {}: {}", path.display(), reason(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::entry::tests::entry;

    #[test]
    fn a_list_keeps_its_manifests_in_the_order_of_their_names() {
        let config = std::env::temp_dir().join(format!("tug-manifests-{}", std::process::id()));
        let store = Store::new(&config);
        let list = Reference::parse("reg.example:5000/group/list").unwrap();
        assert_eq!(store.list(&list).unwrap(), None);
        for name in ["reg.example:5000/b", "reg.example:5000/a"] {
            let one = entry(name, "m", "amd64");
            store.save(&list, &one.reference, &one).unwrap();
        }
        let names = |entries: Vec<Entry>| {
            entries.iter().map(|entry| entry.reference.to_string()).collect::<Vec<_>>()
        };
        let kept = store.list(&list).unwrap().unwrap();
        assert_eq!(names(kept), ["reg.example:5000/a:latest", "reg.example:5000/b:latest"]);
        assert!(config.join("manifests/reg.example-5000_group_list-latest").is_dir());
        store.remove(&list).unwrap();
        store.remove(&list).unwrap();
        assert_eq!(store.list(&list).unwrap(), None);
        fs::remove_dir_all(&config).unwrap();
    }
}
