//! Reading logs. The drivers' options are in [`super::log_options`].

use jiff::Timestamp;
use runs::logs::{LogReader, ReadOptions, Stream};
use tokio::sync::mpsc;

use super::log_options;
use super::task::View;
use super::views::{LogLine, LogSource, Logs, LogsQuery};
use crate::error::{Error, Kind, Result};
use crate::{Engine, words};

const LINES_AHEAD: usize = 64;

impl Engine {
    /// Reads a container's log; with `follow` until the container ends.
    ///
    /// # Errors
    /// `Invalid` when no stream is chosen, `NotImplemented` for a driver that keeps nothing.
    pub async fn container_logs(&self, asked: &str, query: LogsQuery) -> Result<Logs> {
        if !query.stdout && !query.stderr {
            return Err(words::no_stream_chosen());
        }
        let container = self.container(asked)?;
        let view = container.now();
        let reader = open(self, &view, &query)?;
        let (sender, lines) = mpsc::channel(LINES_AHEAD);
        if query.follow {
            let stopper = reader.stopper();
            let mut views = container.view.clone();
            let gone = sender.clone();
            tokio::spawn(async move {
                let over = async {
                    let _ = views.wait_for(|view| view.phase.run().is_none()).await;
                };
                // A container that is restarted by its policy ends the following too, as in Docker.
                tokio::select! {
                    () = over => {}
                    () = gone.closed() => {}
                }
                drop(gone);
                stopper.stop();
            });
        }
        tokio::task::spawn_blocking(move || read(reader, &query, &sender));
        Ok(Logs { tty: view.record.spec.tty, lines })
    }
}

/// Opens the log of a container. Quick: no data is read yet but for finding the place.
fn open(engine: &Engine, view: &View, query: &LogsQuery) -> Result<LogReader> {
    let record = &view.record;
    if record.log.driver == "none" {
        return Err(words::logs_not_supported());
    }
    let settings = log_options::settings(
        &record.log,
        &log_options::log_subject(&engine.inner, record),
        &engine.inner.config.container_dir(&record.id),
    )?;
    let time = |at: Option<std::time::SystemTime>| at.and_then(|at| Timestamp::try_from(at).ok());
    let options = ReadOptions {
        tail: query.tail,
        since: time(query.since),
        until: time(query.until),
        follow: query.follow,
    };
    LogReader::open(&settings, options).map_err(|source| Error::caused(Kind::Internal, source))
}

/// Runs on a thread of its own until the log or the reader's patience ends.
fn read(reader: LogReader, query: &LogsQuery, sender: &mpsc::Sender<Result<LogLine>>) {
    for entry in reader {
        let line = match entry {
            Ok(entry) => {
                let (source, wanted) = match entry.stream {
                    Stream::Stdout => (LogSource::Stdout, query.stdout),
                    Stream::Stderr => (LogSource::Stderr, query.stderr),
                };
                if !wanted {
                    continue;
                }
                Ok(LogLine {
                    source,
                    at: entry.time.into(),
                    bytes: entry.bytes,
                    attributes: entry.attrs,
                    begins_line: entry.starts_line,
                })
            }
            Err(source) => Err(Error::caused(Kind::Internal, source)),
        };
        if sender.blocking_send(line).is_err() {
            return;
        }
    }
}

/// Everything that a log holds, for an attach with `logs=1`.
pub(crate) fn replay(engine: &Engine, view: &View, query: &LogsQuery) -> Result<Vec<LogLine>> {
    let reader = open(engine, view, query)?;
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    let wanted = query.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || read(reader, &wanted, &sender));
        let mut all = Vec::new();
        while let Some(line) = lines.blocking_recv() {
            all.push(line?);
        }
        Ok(all)
    })
}
