//! Logs: the options of the drivers that keep them, and reading.

use std::collections::BTreeMap;

use jiff::Timestamp;
use monitor::logs::{LogReader, ReadOptions, Stream};
use monitor::settings::{LogDriver, LogSettings};
use tokio::sync::mpsc;

use super::record::Record;
use super::spec::LogSpec;
use super::task::View;
use super::views::{LogLine, LogSource, Logs, LogsQuery};
use super::world;
use crate::error::{Error, Kind, Result};
use crate::{Engine, words};

const LINES_AHEAD: usize = 64;

/// `max-size`, `max-file`, `compress`.
///
/// # Errors
/// `Invalid` for options that the driver does not have, and for bad values.
pub(crate) fn apply_options(log: &LogSpec, settings: &mut LogSettings) -> Result<()> {
    for (key, value) in &log.options {
        let bad = || Error::invalid(format!("invalid value for log option {key}: \"{value}\""));
        match key.as_str() {
            "max-size" => {
                settings.file_bytes_max =
                    Some(size(value).ok_or_else(bad)?).filter(|bytes| *bytes > 0)
            }
            "max-file" => {
                settings.files_max = value.parse().map_err(|_| bad())?;
                if settings.files_max == 0 {
                    return Err(Error::invalid("max-file cannot be less than 1"));
                }
            }
            "compress" => settings.compress = value.parse().map_err(|_| bad())?,
            // How the engine talks to the driver; writing is never on the container's path here.
            "mode" | "max-buffer-size" => {}
            "labels" | "labels-regex" | "env" | "env-regex" | "tag"
                if settings.driver == LogDriver::JsonFile => {}
            _ => {
                return Err(Error::invalid(format!(
                    "unknown log opt '{key}' for {} log driver",
                    log.driver
                )));
            }
        }
    }
    let rotates = settings.file_bytes_max.is_some();
    if settings.driver == LogDriver::JsonFile
        && settings.compress
        && (settings.files_max < 2 || !rotates)
    {
        return Err(Error::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ));
    }
    Ok(())
}

/// `10m`, `1.5g`, `4096`; bytes. Source: docker `go-units` `RAMInBytes`.
fn size(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(0);
    }
    let lower = text.trim().to_ascii_lowercase();
    let bare = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match bare.chars().last()? {
        'k' => (&bare[..bare.len() - 1], 10),
        'm' => (&bare[..bare.len() - 1], 20),
        'g' => (&bare[..bare.len() - 1], 30),
        't' => (&bare[..bare.len() - 1], 40),
        _ => (bare, 0),
    };
    let number: f64 = digits.trim().parse().ok().filter(|number| *number >= 0.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be positive; a size of exabytes may saturate"
    )]
    Some((number * f64::from(2_u32).powi(shift)) as u64)
}

/// The labels and environment that entries are to bear.
pub(crate) fn attributes(log: &LogSpec, record: &Record) -> Result<BTreeMap<String, String>> {
    let option = |key: &str| log.options.get(key).map_or("", String::as_str);
    let list = |key: &str| {
        option(key)
            .split(',')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let pattern = |key: &str| match option(key) {
        "" => Ok(None),
        text => regex_lite::Regex::new(text)
            .map(Some)
            .map_err(|source| Error::caused(Kind::Invalid, source)),
    };
    let mut attributes = BTreeMap::new();
    let config = &record.spec.config;
    let (names, expression) = (list("labels"), pattern("labels-regex")?);
    for (key, value) in &config.labels {
        if names.contains(key)
            || expression.as_ref().is_some_and(|expression| expression.is_match(key))
        {
            attributes.insert(key.clone(), value.clone());
        }
    }
    let (names, expression) = (list("env"), pattern("env-regex")?);
    for (key, value) in config.env.iter().filter_map(|entry| entry.split_once('=')) {
        if names.iter().any(|name| name == key)
            || expression.as_ref().is_some_and(|expression| expression.is_match(key))
        {
            attributes.insert(key.to_owned(), value.to_owned());
        }
    }
    let tag = option("tag");
    if !tag.is_empty() {
        attributes.insert("tag".to_owned(), tag.to_owned());
    }
    Ok(attributes)
}

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
    let settings =
        world::log_settings(&record.log, &engine.inner.config.container_dir(&record.id), record)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_like_docker_reads_them() {
        for (text, want) in [
            ("10m", Some(10 << 20)),
            ("1.5k", Some(1536)),
            ("4096", Some(4096)),
            ("1GiB", Some(1 << 30)),
            ("-1", Some(0)),
            ("x", None),
        ] {
            assert_eq!(size(text), want, "{text}");
        }
    }

    #[test]
    fn options_of_another_driver_are_refused() {
        let check = |driver: &str, key: &str, value: &str| {
            let log = LogSpec {
                driver: driver.to_owned(),
                options: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            };
            let kind = if driver == "local" { LogDriver::Local } else { LogDriver::JsonFile };
            let mut settings = LogSettings { driver: kind, ..LogSettings::default() };
            apply_options(&log, &mut settings).map_err(|error| error.message)
        };
        assert!(check("json-file", "max-size", "10m").is_ok());
        assert_eq!(
            check("json-file", "nope", "1").unwrap_err(),
            "unknown log opt 'nope' for json-file log driver"
        );
        assert!(check("local", "labels", "a").is_err());
        assert!(check("json-file", "compress", "true").is_err());
    }
}
