//! Blobs on their way, several at a time.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use api::progress::{Message, Progress};
use bytes::Bytes;
use registry::Client;
use registry::client::Upload;
use spec::{Digest, chain};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::Shown;
use crate::failure::Failure;
use crate::terminal::{self, Output};

const ATTEMPTS_MAX: u32 = 3;
const PIECES: usize = 8;
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What was sent, and what need not be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    pub sent: usize,
    pub sent_bytes: u64,
    pub skipped: usize,
    pub skipped_bytes: u64,
}

/// Brings all blobs to the other side.
///
/// # Errors
/// At the first that cannot be brought; what was sent stays there for a while.
pub async fn blobs(
    here: &Rc<Client>,
    there: &Rc<Client>,
    blobs: BTreeMap<Digest, u64>,
    lanes: usize,
    shown: Option<Shown>,
) -> Result<Sent, Failure> {
    let lanes = Rc::new(Semaphore::new(lanes));
    let mut tasks = JoinSet::new();
    for (digest, size) in blobs {
        let blob = Blob {
            here: Rc::clone(here),
            there: Rc::clone(there),
            shown: shown.clone(),
            digest,
            size,
        };
        let lanes = Rc::clone(&lanes);
        tasks.spawn_local(async move {
            let _lane = lanes.acquire().await;
            blob.bring().await.map(|was_sent| (was_sent, size))
        });
    }
    let mut total = Sent::default();
    while let Some(done) = tasks.join_next().await {
        let (was_sent, size) = match done {
            Ok(done) => done?,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        };
        if was_sent {
            total.sent += 1;
            total.sent_bytes += size;
        } else {
            total.skipped += 1;
            total.skipped_bytes += size;
        }
    }
    Ok(total)
}

struct Blob {
    here: Rc<Client>,
    there: Rc<Client>,
    shown: Option<Shown>,
    digest: Digest,
    size: u64,
}

impl Blob {
    /// Whether it had to be sent.
    async fn bring(&self) -> Result<bool, Failure> {
        let said = |error: registry::Error| Failure::new(chain(&error));
        if self.there.find_blob(&self.digest).await.map_err(said)?.is_some() {
            self.show("Already there", 0);
            return Ok(false);
        }
        let (mut attempts, mut begun) = (1, None);
        loop {
            match self.send(&mut begun).await {
                Ok(()) => {
                    self.show("Sent", 0);
                    return Ok(true);
                }
                Err(error) if error.is_transient() && attempts < ATTEMPTS_MAX => {
                    self.show("Retrying", 0);
                    tokio::time::sleep(Duration::from_secs(attempts.into())).await;
                    attempts += 1;
                }
                Err(error) => return Err(said(error)),
            }
        }
    }

    /// Sends all, or goes on with what was `begun` from where the other side has it.
    async fn send(&self, begun: &mut Option<Upload>) -> Result<(), registry::Error> {
        let known = match begun.take() {
            Some(upload) => self.there.upload_status(&upload).await.ok(),
            None => None,
        };
        let (upload, offset) = match known {
            Some(known) => known,
            None => (self.there.begin_upload().await?, 0),
        };
        *begun = Some(upload.clone());
        if offset >= self.size && offset > 0 {
            return self.there.finish_upload(upload, &self.digest, Bytes::new()).await;
        }
        let mut blob = self.here.blob(&self.digest, offset).await?;
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
        let pump = async move {
            let (mut passed, mut told) = (offset, Instant::now());
            while let Some(piece) = blob.chunk().await.transpose() {
                let is_broken = piece.is_err();
                passed += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                if sender.send(piece).await.is_err() || is_broken {
                    return;
                }
                if told.elapsed() > REPORT_EVERY {
                    told = Instant::now();
                    self.show("Sending", passed);
                }
            }
        };
        let ((), sent) = tokio::join!(pump, self.there.send_upload(upload, receiver));
        self.there.finish_upload(sent?, &self.digest, Bytes::new()).await
    }

    /// A line about this blob; without `passed` bytes it is a milestone.
    fn show(&self, status: &str, passed: u64) {
        let Some(board) = &self.shown else { return };
        let mut message = Message::status(status);
        message.id = self.digest.short();
        let amount = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        message.progress_detail = Some(match passed {
            0 => Progress::default(),
            passed => Progress {
                current: amount(passed),
                total: amount(self.size),
                ..Progress::default()
            },
        });
        let screen =
            terminal::moves_cursor(Output::Stdout).then(|| terminal::size_of(Output::Stdout));
        let text = board.borrow_mut().draw(&message, screen);
        // Told at the end.
        let _ = terminal::write(Output::Stdout, text.as_bytes());
    }
}
