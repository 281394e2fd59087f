//! Compresses ahead of a push what will likely be pushed.
//!
//! ```text
//! image made here gets a name that a registry has ─▶ queue ─▶ one thread, when nothing else wants the
//! processor ─▶ blob, kept as the layer's
//! ```
//! What is imported by such a name is compressed while it comes in ([`super::beside`]).
//!
//! A name without a namespace (`app:latest`) cannot be pushed by anybody but Docker, so its image costs
//! nothing. A push that comes first does not wait: it compresses on all processors, sends meanwhile, and
//! what was begun here is given up.
//!
//! All of this only saves time: what is not done is done by the push. Nothing is written down, and a
//! layer that goes meanwhile is no failure.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spec::{ImageId, Reference};
use store::blocks::{self, Format};
use store::{LayerKey, Store};
use tracing::debug;

use super::content::{kept_blob, made};
use crate::error::chain;

/// Who pushes what was just built does not have it compressed twice.
const PATIENCE: Duration = Duration::from_secs(1);
/// What comes beyond is compressed by its push.
const QUEUE_MAX: usize = 1024;
/// setpriority(2): the least.
const PRIORITY: i32 = 19;

#[derive(Default)]
pub(crate) struct Ahead {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<LayerKey>,
    now: Option<(LayerKey, Arc<AtomicBool>)>,
    is_running: bool,
}

/// Whether somebody may push an image by this name.
pub(super) fn is_pushable(name: &Reference) -> bool {
    name.tag().is_some() && name.familiar_name().contains('/')
}

impl Ahead {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an image's new name.
    pub(super) fn named(self: &Arc<Self>, store: &Store, name: &Reference, id: &ImageId) {
        let Some(image) = store.image(id).filter(|_| is_pushable(name)) else { return };
        let mut state = self.state();
        for key in &image.layers {
            let has_blob = store
                .layer(key)
                .is_none_or(|layer| layer.blob.is_some_and(|blob| store.has_blob(&blob.digest)));
            if !has_blob && !state.queue.contains(key) && state.queue.len() < QUEUE_MAX {
                state.queue.push_back(*key);
            }
        }
        if state.queue.is_empty() || std::mem::replace(&mut state.is_running, true) {
            return;
        }
        let (ahead, store) = (Arc::clone(self), store.clone());
        let started = std::thread::Builder::new()
            .name("compress-ahead".to_owned())
            .spawn(move || ahead.run(&store));
        if started.is_err() {
            state.is_running = false;
        }
    }

    /// A push compresses this layer itself.
    pub(super) fn give_up(&self, key: &LayerKey) {
        let mut state = self.state();
        state.queue.retain(|waiting| waiting != key);
        if let Some((_, stop)) = state.now.as_ref().filter(|(now, _)| now == key) {
            stop.store(true, Ordering::Relaxed);
        }
    }

    fn run(&self, store: &Store) {
        // For this thread and those that it starts. Refused, it only has a better one.
        let _ = rustix::process::setpriority_process(None, PRIORITY);
        std::thread::sleep(PATIENCE);
        loop {
            let (key, stop) = {
                let mut state = self.state();
                let Some(key) = state.queue.pop_front() else {
                    (state.now, state.is_running) = (None, false);
                    return;
                };
                let stop = Arc::new(AtomicBool::new(false));
                state.now = Some((key, Arc::clone(&stop)));
                (key, stop)
            };
            if let Err(error) = compress(store, &key, &stop) {
                debug!(layer = %key, error = chain(error.as_ref()), "a layer is not compressed ahead");
            }
        }
    }
}

fn compress(
    store: &Store,
    key: &LayerKey,
    stop: &AtomicBool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let lease = store.lease_content();
    if store.layer(key).is_none() || kept_blob(store, key, &lease).is_some() {
        return Ok(());
    }
    let mut ingest = store.ingest()?;
    let input = Stoppable { inner: store.layer_tar(key)?, stop };
    blocks::compress(Format::Gzip, input, &mut ingest)?;
    let size = ingest.size();
    let digest = ingest.finish(None, &lease)?;
    Ok(made(store, key, digest, size)?)
}

struct Stoppable<'a, R> {
    inner: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("a push compresses it"));
        }
        self.inner.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_registry_takes_is_compressed_ahead() {
        let is = |name: &str| is_pushable(&Reference::parse(name).unwrap());
        assert!(is("me/app") && is("reg.example:5000/app:1") && is("localhost/a/b"));
        assert!(!is("app") && !is("library/app") && !is("docker.io/app:2"));
    }
}
