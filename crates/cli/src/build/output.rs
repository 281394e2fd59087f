//! Where a build's result goes: `--output`.
//!
//! The daemon always makes an image; what else is wanted is made of it afterwards, and an image that
//! nobody asked for goes again.
//!
//! Source: docs.docker.com "Exporters overview".

use std::path::Path;

use api::client::Client;
use serde_json::{Value, json};

use crate::{commands::transfer, create::files::reason, failure::Failure};

/// One wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An image under further names.
    Image { names: Vec<String>, push: bool },
    /// The files, below a directory.
    Local(String),
    /// The files as a tar; empty is stdout.
    Tar(String),
    /// The image as a tar.
    Archive(String),
    /// Nothing but the cache.
    Nothing,
}

impl Output {
    /// Reads `type=…,dest=…`, a directory, or `-`.
    ///
    /// # Errors
    /// For types and keys that are not known.
    pub fn parse(text: &str) -> Result<Output, Failure> {
        if text == "-" {
            return Ok(Output::Tar(String::new()));
        }
        if !text.contains('=') {
            return Ok(Output::Local(text.to_owned()));
        }
        let (mut kind, mut dest, mut names, mut push) = ("", None, Vec::new(), false);
        for field in text.split(',') {
            match field.split_once('=').unwrap_or((field, "")) {
                ("type", value) => kind = value,
                ("dest", value) => dest = Some(value.to_owned()),
                ("name", value) => names.push(value.to_owned()),
                ("push", value) => push = value == "true",
                (key, _) => return Err(Failure::new(format!("unknown key {key:?} of --output"))),
            }
        }
        let dest = dest.map(|dest| if dest == "-" { String::new() } else { dest });
        match (kind, dest) {
            ("local", Some(dest)) if !dest.is_empty() => Ok(Output::Local(dest)),
            ("local", _) => Err(Failure::new("dest is required for local output")),
            ("tar", dest) => Ok(Output::Tar(dest.unwrap_or_default())),
            ("docker" | "oci", Some(dest)) => Ok(Output::Archive(dest)),
            ("oci", None) => Ok(Output::Archive(String::new())),
            ("docker" | "image", _) => Ok(Output::Image { names, push }),
            ("registry", _) => Ok(Output::Image { names, push: true }),
            ("cacheonly", _) => Ok(Output::Nothing),
            ("", _) => Err(Failure::new("type is required for output")),
            (other, _) => Err(Failure::new(format!("unsupported output type {other:?}"))),
        }
    }

    /// Whether the image itself is wanted.
    pub fn keeps_image(&self) -> bool {
        matches!(self, Output::Image { .. })
    }
}

/// Makes what was wished of the image `id`.
///
/// # Errors
/// What cannot be written.
pub async fn make(client: &Client, output: &Output, id: &str) -> Result<(), Failure> {
    match output {
        // Names were given with the build; pushing is the caller's.
        Output::Image { .. } | Output::Nothing => Ok(()),
        Output::Archive(dest) => {
            let response = client.get("/images/get").query("names", id).send().await?;
            transfer::save_body(response, dest).await
        }
        Output::Tar(dest) => files(client, id, Place::Tar(dest)).await,
        Output::Local(dest) => files(client, id, Place::Directory(dest)).await,
    }
}

enum Place<'a> {
    Tar(&'a str),
    Directory(&'a str),
}

/// The image's files, by way of a container that never runs.
async fn files(client: &Client, id: &str, place: Place<'_>) -> Result<(), Failure> {
    let wish = json!({ "Image": id, "Cmd": ["none"], "NetworkDisabled": true });
    let made: Value = client.post("/containers/create").json(&wish).send().await?.json().await?;
    let container = made["Id"].as_str().unwrap_or_default().to_owned();
    let taken = take(client, &container, place).await;
    let path = format!("/containers/{container}");
    let removed = client.delete(&path).flag("force", true).flag("v", true).send().await;
    taken?;
    removed?;
    Ok(())
}

async fn take(client: &Client, container: &str, place: Place<'_>) -> Result<(), Failure> {
    let mut response = client.get(&format!("/containers/{container}/export")).send().await?;
    let dest = match place {
        Place::Tar(dest) => return transfer::save_body(response, dest).await,
        Place::Directory(dest) => dest.to_owned(),
    };
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(16);
    let unpacking = tokio::task::spawn_blocking(move || unpack(&dest, receiver));
    while let Some(chunk) = response.chunk().await? {
        // The other end tells why it ended.
        if sender.send(chunk.to_vec()).is_err() {
            break;
        }
    }
    drop(sender);
    unpacking.await.map_err(|error| Failure::new(error.to_string()))?
}

fn unpack(dest: &str, chunks: std::sync::mpsc::Receiver<Vec<u8>>) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot write {dest}: {}", reason(&error)));
    std::fs::create_dir_all(dest).map_err(failed)?;
    let mut archive = tar::Archive::new(Chunks { chunks, left: Vec::new(), at: 0 });
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.unpack(Path::new(dest)).map_err(failed)
}

struct Chunks {
    chunks: std::sync::mpsc::Receiver<Vec<u8>>,
    left: Vec<u8>,
    at: usize,
}

impl std::io::Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.left.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.left, self.at) = (chunk, 0),
                Err(_) => return Ok(0),
            }
        }
        let count = out.len().min(self.left.len() - self.at);
        out[..count].copy_from_slice(&self.left[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_in_their_short_and_long_form() {
        for (text, want) in [
            ("out", Ok(Output::Local("out".into()))),
            ("-", Ok(Output::Tar(String::new()))),
            ("type=local,dest=x", Ok(Output::Local("x".into()))),
            ("type=tar,dest=-", Ok(Output::Tar(String::new()))),
            ("type=docker,dest=i.tar", Ok(Output::Archive("i.tar".into()))),
            (
                "type=image,name=x,push=true",
                Ok(Output::Image { names: vec!["x".into()], push: true }),
            ),
            ("type=cacheonly", Ok(Output::Nothing)),
            ("type=local", Err("dest is required for local output")),
            ("type=s3", Err("unsupported output type \"s3\"")),
            ("dest=x", Err("type is required for output")),
        ] {
            let got = Output::parse(text).map_err(|failure| failure.to_string());
            assert_eq!(got, want.map_err(str::to_owned), "{text}");
        }
    }
}
