//! Changes of a container that are more than one step: rename, update, networks.
//!
//! Each looks at the container, does something to the kernel or to a registry, and has the task write the
//! record. Two at once would work on the same old view; so they take turns, in the order in which they
//! came. Starts, stops and exits do not wait for them: the task goes on meanwhile, and what a change does
//! to a run that has ended fails.
//!
//! Always true: a change that has begun is finished though nobody waits for it any more.

use std::sync::Arc;

use super::registry::ContainerHandle;
use super::task::View;
use crate::error::{Error, Kind, Result};

/// Runs `work` when its turn has come, with the state as it is then.
pub(crate) async fn in_turn<T, F>(
    container: Arc<ContainerHandle>,
    work: impl FnOnce(Arc<ContainerHandle>, Arc<View>) -> F + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let turn = tokio::spawn(async move {
        let changed = Arc::clone(&container);
        let _turn = container.turn.lock().await;
        let view = changed.now();
        work(changed, view).await
    });
    turn.await.map_err(|failure| Error::because(Kind::Internal, "a change broke off", failure))?
}
