//! The store of contexts: named places of daemons, in Docker's own files.
//!
//! ```text
//! CONFIG/contexts/meta/<sha256 of the name>/meta.json
//! {"Name":…,"Metadata":{"Description":…},"Endpoints":{"docker":{"Host":…,"SkipTLSVerify":false}}}
//! CONFIG/contexts/tls/<sha256 of the name>/docker/{ca,cert,key}.pem
//! ```
//! An exported context is a tar of `meta.json` and `tls/docker/…`. Source: docker CLI 28.2
//! `cli/context/store`.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use spec::Digest;

use crate::{create::files::reason, failure::Failure, files, render::json};

pub const DEFAULT: &str = "default";
const ENDPOINT: &str = "docker";
/// A larger archive is no context. Source: docker CLI 28.2 `maxAllowedFileSizeToImport`.
const ARCHIVE_BYTES_MAX: u64 = 10 << 20;

/// Certificates and keys by the names of their files.
pub type Material = BTreeMap<String, Vec<u8>>;

/// A context with all that is kept of it.
#[derive(Debug, Clone)]
pub struct Context {
    pub document: Value,
    pub material: Material,
}

impl Context {
    pub fn new(name: &str, description: &str, host: &str, skip_verify: bool) -> Context {
        let metadata =
            if description.is_empty() { json!({}) } else { json!({"Description": description}) };
        let endpoint = json!({"Host": host, "SkipTLSVerify": skip_verify});
        let document =
            json!({"Name": name, "Metadata": metadata, "Endpoints": {ENDPOINT: endpoint}});
        Context { document, material: Material::new() }
    }

    pub fn host(&self) -> &str {
        self.document["Endpoints"][ENDPOINT]["Host"].as_str().unwrap_or_default()
    }

    pub fn description(&self) -> &str {
        self.document["Metadata"]["Description"].as_str().unwrap_or_default()
    }

    pub fn describe(&mut self, description: &str) {
        self.document["Metadata"]["Description"] = description.into();
    }

    /// Takes another's place of the daemon.
    pub fn set_endpoint(&mut self, other: &Context) {
        self.document["Endpoints"][ENDPOINT] = other.document["Endpoints"][ENDPOINT].clone();
        self.material.clone_from(&other.material);
    }
}

/// The contexts below a configuration directory.
pub struct Store {
    directory: PathBuf,
}

impl Store {
    pub fn new(configuration: &Path) -> Store {
        Store { directory: configuration.join("contexts") }
    }

    /// Where a context's document (`meta`) or certificates (`tls`) are.
    pub fn place(&self, kind: &str, name: &str) -> PathBuf {
        self.directory.join(kind).join(Digest::of(name.as_bytes()).hex())
    }

    /// # Errors
    /// When there is none of this name, or its file is none.
    pub fn read(&self, name: &str) -> Result<Context, Failure> {
        if name == DEFAULT {
            let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
            let host = host.unwrap_or_else(|| api::client::Host::default().to_string());
            return Ok(Context::new(DEFAULT, "", &host, false));
        }
        let path = self.place("meta", name).join("meta.json");
        let text = fs::read(&path).map_err(|error| {
            Failure::new(format!(
                "context {name:?}: context not found: open {}: {}",
                path.display(),
                reason(&error)
            ))
        })?;
        let document = serde_json::from_slice(&text)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        Ok(Context { document, material: self.material(name) })
    }

    fn material(&self, name: &str) -> Material {
        let entries = fs::read_dir(self.place("tls", name).join(ENDPOINT)).into_iter().flatten();
        let file = |entry: fs::DirEntry| {
            Some((entry.file_name().into_string().ok()?, fs::read(entry.path()).ok()?))
        };
        entries.flatten().filter_map(file).collect()
    }

    /// All contexts by name, the default one too.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn all(&self) -> Result<BTreeMap<String, Context>, Failure> {
        let mut found = BTreeMap::from([(DEFAULT.to_owned(), self.read(DEFAULT)?)]);
        let entries = fs::read_dir(self.directory.join("meta"));
        for entry in entries.into_iter().flatten().flatten() {
            let Ok(text) = fs::read(entry.path().join("meta.json")) else { continue };
            let document: Value = serde_json::from_slice(&text).unwrap_or_default();
            if let Some(name) = document["Name"].as_str() {
                let name = name.to_owned();
                found.insert(name, Context { document, material: Material::new() });
            }
        }
        Ok(found)
    }

    /// Writes a context in place of what was there.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, name: &str, context: &Context) -> Result<(), Failure> {
        let failed = |path: &Path, error: &std::io::Error| {
            Failure::new(format!("open {}: {}", path.display(), reason(error)))
        };
        let path = self.place("meta", name).join("meta.json");
        let text = json::compact(&context.document.to_string());
        fs::create_dir_all(self.place("meta", name))
            .and_then(|()| files::replace(&path, text.as_bytes(), 0o644))
            .map_err(|error| failed(&path, &error))?;
        let keys = self.place("tls", name);
        if keys.exists() {
            fs::remove_dir_all(&keys).map_err(|error| failed(&keys, &error))?;
        }
        for (file, content) in &context.material {
            let path = keys.join(ENDPOINT).join(file);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(keys.join(ENDPOINT))
                .and_then(|()| files::replace(&path, content, 0o600))
                .map_err(|error| failed(&path, &error))?;
        }
        Ok(())
    }

    pub fn exists(&self, name: &str) -> bool {
        self.place("meta", name).exists()
    }

    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        for directory in [self.place("meta", name), self.place("tls", name)] {
            if directory.exists() {
                fs::remove_dir_all(&directory).map_err(|error| {
                    Failure::new(format!("{}: {}", directory.display(), reason(&error)))
                })?;
            }
        }
        Ok(())
    }
}

/// A context as an archive.
pub fn pack(context: &Context) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind, mode, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        // Writing to memory does not fail, and these names are short.
        let _ = archive.append_data(&mut header, path, content);
    };
    let document = json::compact(&context.document.to_string());
    add("meta.json", tar::EntryType::Regular, 0o644, document.as_bytes());
    add("tls", tar::EntryType::Directory, 0o700, &[]);
    if !context.material.is_empty() {
        add("tls/docker", tar::EntryType::Directory, 0o700, &[]);
    }
    for (file, content) in &context.material {
        add(&format!("tls/docker/{file}"), tar::EntryType::Regular, 0o600, content);
    }
    archive.into_inner().unwrap_or_default()
}

/// Reads what [`pack`] or Docker's client wrote, under a name of its own.
///
/// # Errors
/// When it is no such archive.
pub fn unpack(name: &str, archive: impl std::io::Read) -> Result<Context, Failure> {
    let told = |error: std::io::Error| Failure::new(reason(&error));
    let mut bytes = Vec::new();
    archive.take(ARCHIVE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > ARCHIVE_BYTES_MAX {
        return Err(Failure::new("read exceeds the defined limit"));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(Failure::new("this is a zip archive: Tug imports contexts from tar archives"));
    }
    let (mut document, mut material) = (None, Material::new());
    let mut reader = tar::Archive::new(bytes.as_slice());
    for entry in reader.entries().map_err(told)? {
        let mut entry = entry.map_err(told)?;
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        check_path(&path).map_err(|why| Failure::new(format!("{path}: {why}")))?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(told)?;
        if path == "meta.json" {
            let mut read: Value = serde_json::from_slice(&content)
                .map_err(|error| Failure::new(format!("meta.json: {error}")))?;
            read["Name"] = name.into();
            document = Some(read);
            continue;
        }
        match path.trim_start_matches("tls/").split_once('/') {
            Some((ENDPOINT, file)) if !file.contains('/') => {
                material.insert(file.to_owned(), content);
            }
            Some(_) | None => return Err(Failure::new("archive format is invalid")),
        }
    }
    match document {
        Some(document) => Ok(Context { document, material }),
        None => Err(Failure::new("invalid context: no metadata found")),
    }
}

/// The names that may stand in an archive; none leads out of the store.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path != "meta.json" && !path.starts_with("tls/") {
        return Err("unexpected context file");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("unexpected path format");
    }
    if path.contains('\\') {
        return Err("unexpected '\\' in path");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked_under_another_name() {
        let mut context = Context::new("one", "about", "tcp://h:2376", true);
        context.material.insert("ca.pem".to_owned(), b"ca".to_vec());
        let read = unpack("two", pack(&context).as_slice()).unwrap();
        assert_eq!(read.document["Name"], "two");
        assert_eq!((read.host(), read.description()), ("tcp://h:2376", "about"));
        assert_eq!(read.material, context.material);
    }

    #[test]
    fn an_archives_names_do_not_lead_out_of_the_store() {
        for (path, fits) in [
            ("meta.json", true),
            ("tls/docker/ca.pem", true),
            ("tls/docker/../../x", false),
            ("../meta.json", false),
            ("tls//x", false),
            ("tls/docker/a\\b", false),
            ("other", false),
        ] {
            assert_eq!(check_path(path).is_ok(), fits, "{path}");
        }
        assert!(unpack("x", &b"PK\x03\x04"[..]).is_err() && unpack("x", &[0; 1024][..]).is_err());
    }
}
