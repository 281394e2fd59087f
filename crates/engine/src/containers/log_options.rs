//! The options of the log drivers: checked at create, turned into settings at start.
//!
//! As in Docker, create looks at the driver, the names of the options and the mode; a value that
//! the driver cannot take fails the start.
//!
//! Source: moby 28.2 `daemon/logger/factory.go` `ValidateLogOpts`, `daemon/logger/jsonfilelog`,
//! `daemon/logger/local`, `daemon/logger/loginfo.go`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runs::{LogDriver, LogSettings};
use spec::Id;
use spec::units::{SizeError, from_human_size, ram_in_bytes};

use super::log_tag::{self, Subject};
use super::record::Record;
use super::spec::LogSpec;
use crate::Inner;
use crate::error::{Error, Kind, Result};
use crate::words;

/// What a ring of entries holds when nothing is said: moby `daemon/logger/ring.go`.
const BUFFER_BYTES: u64 = 1_000_000;
/// Bytes of a file of the local driver.
const LOCAL_FILE_BYTES: u64 = 20_000_000;
const LOCAL_FILES: u32 = 5;

const FILES: [&str; 3] = ["max-size", "max-file", "compress"];
const ATTRIBUTES: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];

/// Refuses drivers, modes and options that there are not.
///
/// # Errors
/// `Invalid`, in Docker's words.
pub fn validate(log: &LogSpec) -> Result<()> {
    if log.driver == "none" {
        return Ok(());
    }
    let option = |key: &str| log.options.get(key).map_or("", String::as_str);
    let mode = option("mode");
    if !["", "blocking", "non-blocking"].contains(&mode) {
        return Err(Error::invalid(format!("logger: logging mode not supported: {mode}")));
    }
    if let Some(text) = log.options.get("max-buffer-size") {
        if mode != "non-blocking" {
            return Err(Error::invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ));
        }
        size(ram_in_bytes(text))
            .map_err(|error| error.within("error parsing option max-buffer-size"))?;
    }
    let (attributes, words): (&[&str], fn(&str) -> String) = match log.driver.as_str() {
        "json-file" => {
            (&ATTRIBUTES, |key| format!("unknown log opt '{key}' for json-file log driver"))
        }
        "local" => (&[], |key| format!("unknown log opt '{key}' for log driver local")),
        other => return Err(words::no_log_driver(other)),
    };
    let unknown = log.options.keys().find(|key| {
        let key = key.as_str();
        !["mode", "max-buffer-size"].contains(&key)
            && !FILES.contains(&key)
            && !attributes.contains(&key)
    });
    unknown.map_or(Ok(()), |key| Err(Error::invalid(words(key))))
}

/// What of a container its log's labels and tag may show.
pub(crate) fn log_subject<'a>(engine: &Inner, record: &'a Record) -> Subject<'a> {
    let dir = engine.config.container_dir(&record.id);
    Subject {
        record,
        image_name: &record.spec.image,
        log_path: log_path(&record.log, &dir, &record.id),
    }
}

/// The current log file; empty for drivers without one.
pub(crate) fn log_path(log: &LogSpec, dir: &Path, id: &Id) -> PathBuf {
    match log.driver.as_str() {
        "json-file" => dir.join(format!("{id}-json.log")),
        "local" => dir.join("local-logs").join("container.log"),
        _ => PathBuf::new(),
    }
}

/// What the supervisor must know.
///
/// # Errors
/// `Invalid` for a value that the driver cannot take.
pub(crate) fn settings(log: &LogSpec, subject: &Subject<'_>, dir: &Path) -> Result<LogSettings> {
    let record = subject.record;
    let mut settings = match log.driver.as_str() {
        "json-file" => LogSettings { driver: LogDriver::JsonFile, ..LogSettings::default() },
        "local" => LogSettings {
            driver: LogDriver::Local,
            file_bytes_max: Some(LOCAL_FILE_BYTES),
            files_max: LOCAL_FILES,
            compress: true,
            ..LogSettings::default()
        },
        "none" => return Ok(LogSettings::default()),
        other => return Err(words::no_log_driver(other)),
    };
    settings.path = log_path(log, dir, &record.id);
    settings.attrs = attributes(log, record)?;
    if let Some(tag) = log.options.get("tag").filter(|tag| !tag.is_empty()) {
        settings.attrs.insert("tag".to_owned(), log_tag::render(tag, subject)?);
    }
    if log.options.get("mode").is_some_and(|mode| mode == "non-blocking") {
        let bytes =
            log.options.get("max-buffer-size").map(|text| size(ram_in_bytes(text))).transpose()?;
        settings.buffer_bytes_max = Some(bytes.unwrap_or(BUFFER_BYTES));
    }
    files(log, &mut settings)?;
    Ok(settings)
}

/// `max-size`, `max-file`, `compress`.
fn files(log: &LogSpec, settings: &mut LogSettings) -> Result<()> {
    let local = settings.driver == LogDriver::Local;
    if let Some(text) = log.options.get("max-size") {
        let bytes = size(from_human_size(text));
        let bytes = match local {
            true => bytes
                .map_err(|error| error.within(&format!("invalid value for max-size: {text}")))?,
            false => bytes?,
        };
        if bytes == 0 && !local {
            return Err(Error::invalid("max-size must be a positive number"));
        }
        settings.file_bytes_max = Some(bytes).filter(|bytes| *bytes > 0);
    }
    if let Some(text) = log.options.get("max-file") {
        let number: i64 = text.parse().map_err(|_| {
            let words = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
            match local {
                true => Error::invalid(format!("invalid value for max-file: {text}: {words}")),
                false => Error::invalid(words),
            }
        })?;
        settings.files_max = match (local, u32::try_from(number)) {
            (true, Err(_)) => return Err(Error::invalid("max-file must not be negative")),
            (true, Ok(number)) => number.max(1),
            (false, Err(_) | Ok(0)) => {
                return Err(Error::invalid("max-file cannot be less than 1"));
            }
            (false, Ok(number)) => number,
        };
    }
    if let Some(text) = log.options.get("compress") {
        settings.compress = match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => {
                let words = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
                return Err(Error::invalid(match local {
                    true => format!("invalid boolean value for compress: {words}"),
                    false => words,
                }));
            }
        };
    }
    let rotates = settings.files_max > 1 && settings.file_bytes_max.is_some();
    match settings.driver {
        LogDriver::JsonFile if settings.compress && !rotates => Err(Error::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        )),
        LogDriver::Local if settings.compress && settings.files_max < 2 => {
            Err(Error::invalid("compression cannot be enabled when max file count is 1"))
        }
        LogDriver::JsonFile | LogDriver::Local | LogDriver::None => Ok(()),
    }
}

/// Source: moby `daemon/logger/jsonfilelog`, `local` (files are counted in thousands) and
/// `daemon/logger/ring.go` (the buffer in 1024s).
fn size(read: std::result::Result<u64, SizeError>) -> Result<u64> {
    read.map_err(|error| Error::invalid(error.to_string()))
}

/// The labels and environment that entries are to bear.
fn attributes(log: &LogSpec, record: &Record) -> Result<BTreeMap<String, String>> {
    let option = |key: &str| log.options.get(key).map_or("", String::as_str);
    let names = |key: &str| option(key).split(',').filter(|word| !word.is_empty());
    let pattern = |key: &str| match option(key) {
        "" => Ok(None),
        text => regex_lite::Regex::new(text)
            .map(Some)
            .map_err(|source| Error::caused(Kind::Invalid, source)),
    };
    let chosen = |list: &str, expression: Option<&regex_lite::Regex>, key: &str| {
        names(list).any(|name| name == key)
            || expression.is_some_and(|expression| expression.is_match(key))
    };
    let mut attributes = BTreeMap::new();
    let config = &record.spec.config;
    let expression = pattern("labels-regex")?;
    for (key, value) in &config.labels {
        if chosen("labels", expression.as_ref(), key) {
            attributes.insert(key.clone(), value.clone());
        }
    }
    let expression = pattern("env-regex")?;
    for (key, value) in config.env.iter().filter_map(|entry| entry.split_once('=')) {
        if chosen("env", expression.as_ref(), key) {
            attributes.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn log(driver: &str, options: &[(&str, &str)]) -> LogSpec {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        LogSpec { driver: driver.to_owned(), options: options.collect() }
    }

    #[track_caller]
    fn check(driver: &str, options: &[(&str, &str)], want: Expect) {
        let log = log(driver, options);
        let mut spec = super::super::spec::ContainerSpec::default();
        spec.config.labels.insert("com.x".to_owned(), "1".to_owned());
        spec.config.env = vec!["OS=linux".to_owned()];
        let image = spec::ImageId(spec::Digest::of(b""));
        let record = Record::new(spec::Id::from_raw([0xab; 32]), "n".to_owned(), image, spec);
        let subject = Subject { record: &record, image_name: "i", log_path: "/l".into() };
        let made = validate(&log).and_then(|()| settings(&log, &subject, Path::new("/d")));
        want.assert_eq(&match made {
            Ok(made) => format!(
                "{:?} x {} compress {} buffer {:?} attributes {:?}",
                made.file_bytes_max,
                made.files_max,
                made.compress,
                made.buffer_bytes_max,
                made.attrs
            ),
            Err(error) => error.message,
        });
    }

    #[test]
    fn what_is_given_takes_effect() {
        check("json-file", &[], expect!["None x 1 compress false buffer None attributes {}"]);
        check(
            "json-file",
            &[("max-size", "10m"), ("max-file", "3"), ("compress", "true")],
            expect!["Some(10000000) x 3 compress true buffer None attributes {}"],
        );
        check(
            "json-file",
            &[("labels", "a,com.x"), ("env-regex", "^O"), ("tag", "{{.Name}}/{{.ID}}")],
            expect![[
                r#"None x 1 compress false buffer None attributes {"OS": "linux", "com.x": "1", "tag": "n/abababababab"}"#
            ]],
        );
        check(
            "json-file",
            &[("max-size", "1.5g"), ("mode", "non-blocking"), ("max-buffer-size", "1.5g")],
            expect!["Some(1500000000) x 1 compress false buffer Some(1610612736) attributes {}"],
        );
        check(
            "json-file",
            &[("labels-regex", "x$"), ("env", "OS"), ("mode", "non-blocking")],
            expect![[
                r#"None x 1 compress false buffer Some(1000000) attributes {"OS": "linux", "com.x": "1"}"#
            ]],
        );
        check(
            "local",
            &[("mode", "non-blocking"), ("max-buffer-size", "4k")],
            expect!["Some(20000000) x 5 compress true buffer Some(4096) attributes {}"],
        );
        check(
            "local",
            &[("max-size", "1.5k"), ("max-file", "1"), ("compress", "0")],
            expect!["Some(1500) x 1 compress false buffer None attributes {}"],
        );
        check("none", &[("x", "y")], expect!["None x 1 compress false buffer None attributes {}"]);
    }

    #[test]
    fn what_cannot_be_is_refused_in_dockers_words() {
        check(
            "nosuch",
            &[],
            expect![[r#"error looking up logging plugin nosuch: plugin "nosuch" not found"#]],
        );
        check(
            "json-file",
            &[("nope", "1")],
            expect!["unknown log opt 'nope' for json-file log driver"],
        );
        check(
            "local",
            &[("labels", "a")],
            expect!["unknown log opt 'labels' for log driver local"],
        );
        check("local", &[("mode", "x")], expect!["logger: logging mode not supported: x"]);
        check(
            "local",
            &[("max-buffer-size", "1m")],
            expect!["logger: max-buffer-size option is only supported with 'mode=non-blocking'"],
        );
        check(
            "local",
            &[("mode", "non-blocking"), ("max-buffer-size", "x")],
            expect!["error parsing option max-buffer-size: invalid size: 'x'"],
        );
        check("json-file", &[("max-size", "x")], expect!["invalid size: 'x'"]);
        check("json-file", &[("max-size", "1q")], expect!["invalid suffix: 'q'"]);
        check("json-file", &[("max-size", "")], expect!["invalid size: ''"]);
        check(
            "json-file",
            &[("max-size", "1..5g")],
            expect![[r#"strconv.ParseFloat: parsing "1..5": invalid syntax"#]],
        );
        check("json-file", &[("max-size", "0")], expect!["max-size must be a positive number"]);
        check("json-file", &[("max-file", "0")], expect!["max-file cannot be less than 1"]);
        check(
            "json-file",
            &[("max-file", "x")],
            expect![[r#"strconv.Atoi: parsing "x": invalid syntax"#]],
        );
        check(
            "json-file",
            &[("compress", "true")],
            expect!["compress cannot be true when max-file is less than 2 or max-size is not set"],
        );
        check(
            "local",
            &[("max-file", "1")],
            expect!["compression cannot be enabled when max file count is 1"],
        );
        check(
            "local",
            &[("compress", "maybe")],
            expect![[
                r#"invalid boolean value for compress: strconv.ParseBool: parsing "maybe": invalid syntax"#
            ]],
        );
        check(
            "json-file",
            &[("tag", "{{.Nope}}")],
            expect![[
                r#"template: log-tag:1:2: executing "log-tag" at <.Nope>: can't evaluate field Nope in type *logger.Info"#
            ]],
        );
    }
}
