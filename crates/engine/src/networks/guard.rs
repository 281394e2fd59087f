//! Guarding the firewall: a thread that waits for what other programs do to it.
//!
//! The kernel's notifications wake it, and it has the firewall looked at. What could not be put back
//! is tried again each second; until it is there, whoever starts a container is refused by
//! [`net::firewall::Firewall::change`], which looks too.
//!
//! The thread ends when its [`Watcher`] is dropped.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use net::firewall::{Firewall, Standing};
use sys::epoll::{Interest, Poller};

use crate::error::{Error, Kind, Result};

/// Between two looks: a program that loads its rules does so in several transactions, and one that
/// undoes ours in a loop must not have all of a processor.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How soon a restoration that failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The thread, until this is dropped.
pub(super) struct Watcher {
    waker: OwnedFd,
    ended: Arc<AtomicBool>,
}

impl Watcher {
    /// Has the firewall looked at soon, whether or not a notification waits.
    pub(super) fn look(&self) {
        sys::epoll::wake(&self.waker);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        sys::epoll::wake(&self.waker);
    }
}

/// Starts the thread. `look` looks at the firewall and says how it stands; `None` ends the thread.
pub(super) fn watch(
    firewall: &Firewall,
    look: impl Fn() -> Option<Standing> + Send + 'static,
) -> Result<Watcher> {
    let failed = |error: std::io::Error| Error::caused(Kind::Internal, error);
    let changes = firewall.waiter().map_err(|error| Error::caused(Kind::Internal, error))?;
    let waker = sys::epoll::waker().map_err(failed)?;
    let woken = waker.try_clone().map_err(failed)?;
    let ended = Arc::new(AtomicBool::new(false));
    let watcher = Watcher { waker, ended: Arc::clone(&ended) };
    let poller = Poller::new().map_err(failed)?;
    poller.add(&changes, 0, Interest::Read).map_err(failed)?;
    poller.add(&woken, 1, Interest::Read).map_err(failed)?;
    let work = move || {
        // Stays open while it is waited for.
        let _changes = changes;
        let mut patience = None;
        let mut ready = Vec::new();
        loop {
            if let Err(error) = poller.wait(&mut ready, patience) {
                tracing::error!(%error, "the firewall is not watched any more");
                return;
            }
            sys::epoll::drain(&woken);
            if ended.load(Ordering::Acquire) {
                return;
            }
            patience = match look() {
                Some(Standing::Whole) => None,
                Some(Standing::Broken) => Some(RETRY_INTERVAL),
                None => return,
            };
            std::thread::sleep(LOOK_INTERVAL);
        }
    };
    std::thread::Builder::new().name("firewall-watch".to_owned()).spawn(work).map_err(failed)?;
    Ok(watcher)
}
