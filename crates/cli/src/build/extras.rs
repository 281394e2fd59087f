//! What a build is given beside its context: secrets, agents, further contexts.
//!
//! Source: docs.docker.com `docker buildx build`, --secret, --ssh, --build-context.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use super::context::Named;
use crate::{create::files::reason, failure::Failure};

/// All secrets of a build together; they travel in a header.
const SECRETS_BYTES_MAX: usize = 128 << 10;

/// Named contexts: directories to send, and what each name stands for.
#[derive(Debug, Default)]
pub struct Contexts {
    pub named: Named,
    /// As the parameter `contexts` has it.
    pub places: BTreeMap<String, String>,
}

/// The fields of `key=value,key=value`.
fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').map(|field| field.split_once('=').unwrap_or((field, "")))
}

/// The header's value for `--secret`.
///
/// # Errors
/// In Docker's words, for what cannot be read.
pub fn secrets(values: &[String]) -> Result<String, Failure> {
    let mut found = BTreeMap::new();
    let mut total = 0;
    for value in values {
        let (id, content) = secret(value)?;
        total += content.len();
        found.insert(id, BASE64_STANDARD.encode(content));
    }
    if total > SECRETS_BYTES_MAX {
        return Err(Failure::new(format!("secrets are longer than {SECRETS_BYTES_MAX} bytes")));
    }
    Ok(BASE64_STANDARD.encode(json!(found).to_string()))
}

fn secret(value: &str) -> Result<(String, Vec<u8>), Failure> {
    let (mut id, mut kind, mut source, mut variable) = ("", "", None, None);
    for (key, value) in fields(value) {
        match key.to_ascii_lowercase().as_str() {
            "id" => id = value,
            "type" if matches!(value, "file" | "env") => kind = value,
            "type" => return Err(Failure::new(format!("unsupported secret type {value:?}"))),
            "src" | "source" | "file" => source = Some(value),
            "env" => variable = Some(value),
            _ => return Err(Failure::new(format!("unexpected key '{key}' in '{key}={value}'"))),
        }
    }
    if id.is_empty() {
        return Err(Failure::new("secret missing 'id'"));
    }
    let variable = match kind {
        "env" => variable.or(source),
        _ => variable,
    };
    let content = match (variable, source) {
        (Some(name), _) => std::env::var(name).unwrap_or_default().into_bytes(),
        // Without a source it is a variable of that name, else a file.
        (None, None) if kind.is_empty() && std::env::var_os(id).is_some() => {
            std::env::var(id).unwrap_or_default().into_bytes()
        }
        (None, source) => {
            let path = source.unwrap_or(id);
            std::fs::read(path).map_err(|error| {
                Failure::new(format!("failed to stat {path}: {}", reason(&error)))
            })?
        }
    };
    Ok((id.to_owned(), content))
}

/// The sockets of `--ssh`, by name.
///
/// # Errors
/// Without an agent, and for keys, which an agent would have to hold.
pub fn agents(values: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut found = BTreeMap::new();
    for value in values {
        let (id, path) = match value.split_once('=') {
            Some((id, path)) => (id, PathBuf::from(path)),
            None => match std::env::var_os("SSH_AUTH_SOCK") {
                Some(socket) => (value.as_str(), PathBuf::from(socket)),
                None => {
                    let text = "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set";
                    return Err(Failure::new(text));
                }
            },
        };
        let is_socket = std::fs::metadata(&path)
            .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()));
        if !is_socket {
            let text = format!("{}: a key is not forwarded: add it to an agent", path.display());
            return Err(Failure::new(text));
        }
        found.insert(id.to_owned(), std::path::absolute(&path).unwrap_or(path));
    }
    Ok(found)
}

/// What `--build-context` names.
///
/// # Errors
/// For what is no directory and no image.
pub fn contexts(values: &[String]) -> Result<Contexts, Failure> {
    let (mut roots, mut places) = (Vec::new(), BTreeMap::new());
    for value in values {
        let Some((name, place)) = value.split_once('=') else {
            let text = format!("invalid context value: {value}, expected key=value");
            return Err(Failure::new(text));
        };
        if place.starts_with("docker-image://") {
            places.insert(name.to_owned(), place.to_owned());
            continue;
        }
        let root = std::fs::canonicalize(place).ok().filter(|root| root.is_dir());
        let Some(root) = root else {
            let text = format!("failed to get build context {name}: {place} is no directory here");
            return Err(Failure::new(text));
        };
        places.insert(name.to_owned(), roots.len().to_string());
        roots.push(root);
    }
    Ok(Contexts { named: Named::new(roots), places })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_variables() {
        let path = std::env::temp_dir().join(format!("tug-secret-{}", std::process::id()));
        std::fs::write(&path, "content").unwrap();
        let text = format!("id=s,src={}", path.display());
        assert_eq!(secret(&text).unwrap(), ("s".to_owned(), b"content".to_vec()));
        std::fs::remove_file(&path).unwrap();
        let (_, home) = secret("id=h,env=PATH").unwrap();
        assert_eq!(home, std::env::var("PATH").unwrap().into_bytes());
        for (text, want) in [
            ("src=x", "secret missing 'id'"),
            ("id=x,type=z", "unsupported secret type \"z\""),
            ("id=x,colour=red", "unexpected key 'colour' in 'colour=red'"),
            ("id=x,src=/no/such", "failed to stat /no/such: no such file or directory"),
        ] {
            assert_eq!(secret(text).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn contexts_are_directories_and_images() {
        let values = ["a=/tmp".to_owned(), "b=docker-image://x:1".to_owned(), "c=/".to_owned()];
        let found = contexts(&values).unwrap();
        assert_eq!(found.places["a"], "0");
        assert_eq!(found.places["b"], "docker-image://x:1");
        assert_eq!(found.places["c"], "1");
        assert!(contexts(&["x".to_owned()]).is_err());
        assert!(contexts(&["x=/no/such".to_owned()]).is_err());
    }
}
