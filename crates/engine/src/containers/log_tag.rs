//! The log option `tag`: a Go template over what a container is.
//!
//! Source: moby 28.2 `daemon/logger/loggerutils/log_tag.go`, `daemon/logger/loginfo.go`; the
//! functions are those of `daemon/logger/templates`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value};

use super::record::Record;
use crate::error::{Error, Result};

/// What a tag can show.
pub(crate) struct Subject<'a> {
    pub record: &'a Record,
    /// As typed.
    pub image_name: &'a str,
    pub log_path: PathBuf,
}

/// The tag's text.
///
/// # Errors
/// `Invalid`, in Go's words, when it is no template or names what there is not.
pub(crate) fn render(tag: &str, subject: &Subject<'_>) -> Result<String> {
    let template = functions(Template::new("log-tag").missing_key(MissingKey::Error));
    let failed = |error: TemplateError| Error::invalid(words(&error, tag));
    let template = template.parse(tag).map_err(failed)?;
    template.execute_to_string(&fields(subject)).map_err(failed)
}

/// Fields and methods of moby's `logger.Info`.
fn fields(subject: &Subject<'_>) -> Value {
    let record = subject.record;
    let config = &record.spec.config;
    let argv = record.spec.argv();
    let (program, arguments) =
        argv.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let text = |text: &str| Value::from(text);
    let list =
        |items: &[String]| Value::from(items.iter().map(|item| text(item)).collect::<Vec<Value>>());
    let map = |items: &BTreeMap<String, String>| {
        let items = items.iter().map(|(key, value)| (Arc::from(key.as_str()), text(value)));
        Value::Map(Arc::new(items.collect()))
    };
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fields = [
        ("ID", text(&record.id.short())),
        ("FullID", text(&record.id.to_string())),
        ("Name", text(&record.name)),
        ("ImageID", text(&record.image.short())),
        ("ImageFullID", text(&record.image.to_string())),
        ("ImageName", text(subject.image_name)),
        ("Hostname", text(&hostname)),
        ("Command", text(&argv.join(" "))),
        ("Config", map(&record.log.options)),
        ("ContainerID", text(&record.id.to_string())),
        ("ContainerName", text(&format!("/{}", record.name))),
        ("ContainerEntrypoint", text(program)),
        ("ContainerArgs", list(arguments)),
        ("ContainerImageID", text(&record.image.to_string())),
        ("ContainerImageName", text(subject.image_name)),
        ("ContainerCreated", text(&record.created_at.to_string())),
        ("ContainerEnv", list(&config.env)),
        ("ContainerLabels", map(&config.labels)),
        ("LogPath", text(&subject.log_path.to_string_lossy())),
        ("DaemonName", text("docker")),
    ];
    Value::Map(Arc::new(fields.map(|(name, value)| (Arc::from(name), value)).into()))
}

fn functions(template: Template) -> Template {
    let text =
        |args: &[Value], at: usize| args.get(at).map(ToString::to_string).unwrap_or_default();
    let count = |args: &[Value], at: usize| {
        let number = args.get(at).and_then(Value::as_int);
        number.and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
    };
    template
        .func("json", |args| {
            Ok(Value::from(
                args.first().map_or_else(|| "null".to_owned(), |value| json(value).to_string()),
            ))
        })
        .func("lower", move |args| Ok(Value::from(text(args, 0).to_lowercase())))
        .func("upper", move |args| Ok(Value::from(text(args, 0).to_uppercase())))
        .func("title", move |args| Ok(Value::from(title(&text(args, 0)))))
        .func("split", move |args| {
            let (whole, separator) = (text(args, 0), text(args, 1));
            Ok(Value::from(
                whole.split(separator.as_str()).map(Value::from).collect::<Vec<Value>>(),
            ))
        })
        .func("join", move |args| {
            let separator = text(args, 1);
            Ok(Value::from(match args.first() {
                Some(Value::List(items)) => {
                    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(&separator)
                }
                Some(_) | None => text(args, 0),
            }))
        })
        .func("pad", move |args| {
            let inner = text(args, 0);
            Ok(Value::from(match inner.as_str() {
                "" => inner,
                _ => format!("{}{inner}{}", " ".repeat(count(args, 1)), " ".repeat(count(args, 2))),
            }))
        })
        .func("truncate", move |args| {
            Ok(Value::from(text(args, 0).chars().take(count(args, 1)).collect::<String>()))
        })
}

fn title(text: &str) -> String {
    let mut start = true;
    let letters = text.chars().map(|letter| {
        let first = std::mem::replace(&mut start, letter.is_whitespace());
        if first { letter.to_uppercase().next().unwrap_or(letter) } else { letter }
    });
    letters.collect()
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(fields) => {
            fields.iter().map(|(key, value)| (key.to_string(), json(value))).collect()
        }
        Value::Bool(on) => (*on).into(),
        Value::Int(number) => (*number).into(),
        Value::Nil => serde_json::Value::Null,
        other => other.to_string().into(),
    }
}

/// A field that is not there, as Go says it; other errors have their place in front already.
fn words(error: &TemplateError, tag: &str) -> String {
    let TemplateError::MissingKey { key } = error else {
        let text = error.to_string();
        let rest = text.strip_prefix("template: ").unwrap_or(&text);
        let mut parts = rest.splitn(3, ':');
        return match (parts.next(), parts.next(), parts.next()) {
            (Some(line), Some(column), Some(why))
                if line.parse::<u32>().is_ok() && column.trim().parse::<u32>().is_ok() =>
            {
                format!("template: log-tag:{line}:{why}")
            }
            _ => format!("template: log-tag: {rest}"),
        };
    };
    let field = format!(".{key}");
    let at = tag.find(&field).unwrap_or_default();
    format!(
        "template: log-tag:1:{at}: executing \"log-tag\" at <{field}>: can't evaluate field {key} in type *logger.Info"
    )
}
