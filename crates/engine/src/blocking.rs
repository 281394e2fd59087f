//! Blocking work of async callers, on a thread for it.

/// Runs blocking work beside the async ones.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking work; nobody will read an answer.
            Err(_) => std::future::pending().await,
        },
    }
}
