//! What becomes of a container whose task panics: its state is read again, as by a daemon that starts.
//!
//! A panic is a fault of ours, which the daemon's log tells with its backtrace. The record on disk was
//! written before anything was done, and effects may be done twice, so the task goes on from there; whoever
//! waited for the message that panicked is answered that the container is gone, and may ask again.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tracing::error;

use super::super::reconcile;
use super::super::record::{LIFE_FILE, Life};
use super::super::step::Input;
use super::Task;

/// Between a panic and the next turn, so that one that comes again at once does not keep a core busy.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs `work`; the words of a panic if it has one.
pub(super) async fn caught(work: impl Future<Output = ()>) -> Result<(), String> {
    let mut work = pin!(work);
    // What a panic leaves half changed is read again from disk.
    let polled = std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(panic) => Poll::Ready(Err(words(panic.as_ref()))),
        }
    });
    polled.await
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

impl Task {
    /// Reads the state again. What is due then is what a starting daemon would do.
    pub(super) async fn recover(&mut self, panic: &str) -> Vec<Input> {
        error!(container = %self.record.id, panic, "a container's task panicked; its state is read again");
        tokio::time::sleep(PAUSE).await;
        let path = self.engine.config.container_dir(&self.record.id).join(LIFE_FILE);
        let Ok(Some(life)) = store::records::read_json::<Life>(&path) else {
            // Nothing was written yet: it is as it was when the task began.
            return Vec::new();
        };
        let record = self.record.as_ref().clone();
        let found = reconcile::observe(&self.engine, record, life).await;
        let (life, adopted, inputs) = found.into_parts();
        self.phase = life.phase;
        self.attachment = life.attachment;
        self.generation += 1;
        self.supervised = None;
        self.notices = None;
        if let Some(adopted) = adopted {
            self.supervised = Some(Arc::clone(&adopted.supervised));
            self.notices = Some(adopted.notices);
        }
        self.publish();
        inputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_ends_nothing_else() {
        let outcome = caught(async { panic!("on purpose {}", 7) }).await;
        assert_eq!(outcome, Err("on purpose 7".to_owned()));
        assert_eq!(caught(async { tokio::task::yield_now().await }).await, Ok(()));
    }
}
