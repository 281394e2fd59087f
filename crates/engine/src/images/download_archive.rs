//! An archive at an address, for `docker import URL`: streamed, never held.
//!
//! Source: moby 28.2 `api/server/router/image`, `postImagesCreate`; `builder/remotecontext/remote.go`.

use std::sync::Arc;

use registry::dial::Trust;
use registry::transport::Payload;
use registry::{HeaderMap, Method};
use tokio::sync::mpsc;

use crate::Engine;
use crate::error::{Error, Kind, Result};
use crate::stream::ByteStream;

const CHUNKS_MAX: usize = 8;
/// Of a refusal's body, for the words about it.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// What comes from an address.
pub struct Download {
    /// In bytes, where the server tells.
    pub size: Option<u64>,
    pub bytes: ByteStream,
}

impl Engine {
    /// Begins to get what is at `address`, by way of the daemon's proxies.
    ///
    /// # Errors
    /// `Invalid` for an address that is none, or an answer other than success.
    pub async fn download_archive(&self, address: &str) -> Result<Download> {
        let url = registry::address::parse(address).map_err(|source| {
            Error::because(Kind::Invalid, format_args!("parse {address:?}"), source)
        })?;
        let transport = self.inner.registries.transport();
        let trust = Arc::new(Trust::default());
        // What is insecure to pull from is not therefore so to import from.
        let trust_of = move |_: &str| Arc::clone(&trust);
        let (get, headers) = (Method::GET, HeaderMap::new());
        let sent = transport.send(get, &url, &headers, Payload::empty(), &trust_of);
        let mut answer = sent.await.map_err(|source| Error::caused(Kind::Invalid, source))?;
        if !answer.status.is_success() {
            let body = answer.bytes(REFUSAL_BYTES_MAX).await.ok().flatten().unwrap_or_default();
            let kind = if answer.status.as_u16() == 404 { Kind::NotFound } else { Kind::Invalid };
            let body = String::from_utf8_lossy(&body);
            let text = format!("failed to GET {address} with status {}: {body}", answer.status);
            return Err(Error::new(kind, text.trim_end_matches([' ', ':'])));
        }
        let size = answer.header("content-length").and_then(|text| text.parse().ok());
        let (sender, bytes) = mpsc::channel(CHUNKS_MAX);
        tokio::spawn(async move {
            while let Some(chunk) = answer.chunk().await.transpose() {
                let is_broken = chunk.is_err();
                if sender.send(chunk).await.is_err() || is_broken {
                    return;
                }
            }
        });
        Ok(Download { size, bytes })
    }
}
