//! Go templates with Docker's functions, for `--format`.
//!
//! The engine knows no methods, which Docker's rows have one of: `.Label "name"`. Before parsing,
//! it becomes the function `rowLabel` on the root value, which carries the labels under a key
//! that no template can name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use gotmpl::{MissingKey, Template, TemplateError, Value};
use serde_json::Value as Json;

use super::json;
use crate::failure::Failure;

/// Where a row keeps its labels.
const LABELS: &str = "\u{0}labels";
/// Where a value keeps the JSON it came from, for `json .`.
const ORIGINAL: &str = "\u{0}original";

/// What a template is run for: the header line passes functions' arguments through unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Row,
    Header,
}

/// A parsed template.
pub struct Format {
    template: Template,
    source: String,
    shown: Shown,
}

/// What a template's value is, for Go's words about a field that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Keys as they come.
    Map,
    /// A row of a listing, a struct in Go.
    Struct(&'static str),
}

/// The JSON that is being shown, for `json` to print parts of it with their keys in order: the
/// engine's own maps are sorted.
type Shown = Arc<Mutex<Option<Json>>>;

/// A value to run a template on.
#[derive(Clone)]
pub struct Subject {
    value: Value,
    json: Option<Json>,
}

impl Subject {
    /// Raw JSON, as inspect shows it.
    pub fn json(value: &Json) -> Subject {
        Subject { value: from_json(value), json: Some(value.clone()) }
    }

    /// JSON with further names for its fields, which `json .` leaves out.
    pub fn with_names(original: &Json, named: &Json) -> Subject {
        let Value::Map(fields) = from_json(named) else { return Subject::json(original) };
        let mut fields = (*fields).clone();
        fields.insert(Arc::from(ORIGINAL), Value::from(original.to_string()));
        Subject { value: Value::Map(Arc::new(fields)), json: Some(original.clone()) }
    }

    /// A row of a listing: its fields and the labels behind `.Label`.
    pub fn row<'a>(
        fields: impl IntoIterator<Item = (&'a str, String)>,
        labels: &BTreeMap<String, String>,
    ) -> Subject {
        let mut map: BTreeMap<Arc<str>, Value> =
            fields.into_iter().map(|(name, value)| (Arc::from(name), Value::from(value))).collect();
        let labels = labels
            .iter()
            .map(|(key, value)| (Arc::from(key.as_str()), Value::from(value.as_str())))
            .collect::<BTreeMap<Arc<str>, Value>>();
        map.insert(Arc::from(LABELS), Value::Map(Arc::new(labels)));
        Subject { value: Value::Map(Arc::new(map)), json: None }
    }
}

impl Format {
    /// # Errors
    /// In Go's words, when the text is no template.
    pub fn parse(text: &str) -> Result<Format, String> {
        Format::with_purpose(text, Purpose::Row)
    }

    /// As [`Format::parse`], for the line of column names.
    pub fn parse_header(text: &str) -> Result<Format, String> {
        Format::with_purpose(text, Purpose::Header)
    }

    /// A template for an object rather than a listing; a wrong one ends with status 64, as
    /// Docker's client does.
    ///
    /// # Errors
    /// In Docker's words, when the text is no template.
    pub fn of_object(text: &str) -> Result<Format, Failure> {
        Format::parse(text).map_err(|why| Failure::Said {
            text: format!("template parsing error: {why}"),
            status: 64,
        })
    }

    fn with_purpose(text: &str, purpose: Purpose) -> Result<Format, String> {
        let shown = Shown::default();
        let template = Template::new("").missing_key(MissingKey::Error);
        let template = with_functions(template, purpose, &shown);
        let template = template.parse(&without_methods(text)).map_err(|error| go_words(&error))?;
        Ok(Format { template, source: text.to_owned(), shown })
    }

    /// # Errors
    /// In Go's words, when a field is missing or a function refuses its arguments.
    pub fn run(&self, subject: &Subject, shape: Shape) -> Result<String, String> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = subject.json.clone();
        self.template.execute_to_string(&subject.value).map_err(|error| match &error {
            TemplateError::MissingKey { key } => self.missing(key, shape),
            _ => go_words(&error),
        })
    }

    fn missing(&self, key: &str, shape: Shape) -> String {
        let field = format!(".{key}");
        let at = self.source.find(&field).unwrap_or_default();
        // Go shows the whole chain of fields and counts from its start.
        let chain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '$');
        let start = self.source[..at].rfind(|c: char| !chain(c)).map_or(0, |before| before + 1);
        let end = at + field.len();
        let line = self.source[..start].matches('\n').count() + 1;
        let column = start - self.source[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let node = self.source.get(start..end).unwrap_or(&field);
        let why = match shape {
            Shape::Map => format!("map has no entry for key {key:?}"),
            Shape::Struct(name) => format!("can't evaluate field {key} in type {name}"),
        };
        format!("template: :{line}:{column}: executing \"\" at <{node}>: {why}")
    }
}

/// The engine says `template: LINE:COLUMN: why`, Go `template: NAME:LINE: why`, nameless here.
fn go_words(error: &TemplateError) -> String {
    let text = error.to_string();
    let Some(rest) = text.strip_prefix("template: ") else { return format!("template: {text}") };
    let mut parts = rest.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(line), Some(column), Some(why))
            if line.parse::<u32>().is_ok() && column.trim().parse::<u32>().is_ok() =>
        {
            format!("template: :{line}:{why}")
        }
        _ => text,
    }
}

fn with_functions(template: Template, purpose: Purpose, shown: &Shown) -> Template {
    let shown = Arc::clone(shown);
    type Text = fn(&str) -> String;
    let texts: [(&str, Text); 3] = [
        ("lower", |text| text.to_lowercase()),
        ("upper", |text| text.to_uppercase()),
        ("title", title),
    ];
    let mut template = template
        .func("json", move |args| {
            let value = args.first().cloned().unwrap_or(Value::Nil);
            Ok(match purpose {
                Purpose::Row => match value.field(ORIGINAL) {
                    Some(original) => original.clone(),
                    // A row encodes itself, by Go's default with HTML's letters escaped.
                    None if value.field(LABELS).is_some() => {
                        Value::from(json::escaped(&to_json(&value)))
                    }
                    None => Value::from(in_order(&shown, to_json(&value)).to_string()),
                },
                Purpose::Header => value,
            })
        })
        .func("rowLabel", move |args| Ok(label(args, purpose)))
        .func("split", |args| {
            let [text, separator] = two(args);
            Ok(Value::from(text.split(separator.as_str()).map(Value::from).collect::<Vec<Value>>()))
        })
        .func("join", |args| Ok(Value::from(join(args))))
        .func("pad", |args| {
            let count = |at: usize| {
                args.get(at)
                    .and_then(Value::as_int)
                    .and_then(|n| usize::try_from(n).ok())
                    .unwrap_or_default()
            };
            let text = args.first().map(ToString::to_string).unwrap_or_default();
            if text.is_empty() {
                return Ok(Value::from(text));
            }
            Ok(Value::from(format!("{}{text}{}", " ".repeat(count(1)), " ".repeat(count(2)))))
        })
        .func("truncate", move |args| {
            let text = args.first().map(ToString::to_string).unwrap_or_default();
            let length = args.get(1).and_then(Value::as_int).and_then(|n| usize::try_from(n).ok());
            Ok(Value::from(match (purpose, length) {
                (Purpose::Row, Some(length)) => text.chars().take(length).collect::<String>(),
                (Purpose::Row | Purpose::Header, _) => text,
            }))
        });
    for (name, change) in texts {
        template = template.func(name, move |args| {
            let text = args.first().map(ToString::to_string).unwrap_or_default();
            Ok(Value::from(match purpose {
                Purpose::Row => change(&text),
                Purpose::Header => text,
            }))
        });
    }
    template
}

/// The part of what is shown that equals `value`, which has its keys in their own order.
fn in_order(shown: &Shown, value: Json) -> Json {
    fn find<'a>(tree: &'a Json, value: &Json) -> Option<&'a Json> {
        if tree == value {
            return Some(tree);
        }
        match tree {
            Json::Array(items) => items.iter().find_map(|item| find(item, value)),
            Json::Object(entries) => entries.values().find_map(|entry| find(entry, value)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
        }
    }
    if !value.is_object() && !value.is_array() {
        return value;
    }
    let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    shown.as_ref().and_then(|tree| find(tree, &value)).cloned().unwrap_or(value)
}

fn label(args: &[Value], purpose: Purpose) -> Value {
    let name = args.get(1).map(ToString::to_string).unwrap_or_default();
    match purpose {
        // Docker names such a column after the last part of the label's name.
        Purpose::Header => {
            Value::from(name.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " "))
        }
        Purpose::Row => args
            .first()
            .and_then(|row| row.field(LABELS))
            .and_then(|labels| labels.field(&name))
            .cloned()
            .unwrap_or_else(|| Value::from("")),
    }
}

fn two(args: &[Value]) -> [String; 2] {
    let text = |at: usize| args.get(at).map(ToString::to_string).unwrap_or_default();
    [text(0), text(1)]
}

fn join(args: &[Value]) -> String {
    let separator = args.get(1).map(ToString::to_string).unwrap_or_default();
    match args.first() {
        Some(Value::List(items)) => {
            items.iter().map(ToString::to_string).collect::<Vec<_>>().join(&separator)
        }
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|letter| {
            let first = std::mem::replace(&mut start, !letter.is_alphanumeric() && letter != '_');
            if first { letter.to_uppercase().next().unwrap_or(letter) } else { letter }
        })
        .collect()
}

/// `.Label "x"` inside an action becomes `rowLabel $ "x"`.
fn without_methods(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let (before, after) = rest.split_at(open);
        out.push_str(before);
        let Some(close) = after.find("}}") else {
            out.push_str(after);
            return out;
        };
        let action = &after[..close + 2];
        out.push_str(&replace_method(action));
        rest = &after[close + 2..];
    }
    out.push_str(rest);
    out
}

fn replace_method(action: &str) -> String {
    let mut out = String::new();
    let mut rest = action;
    while let Some(at) = rest.find(".Label") {
        let after = &rest[at + ".Label".len()..];
        let is_call =
            after.starts_with([' ', '\t']) && after.trim_start().starts_with(['"', '`', '(', '$']);
        // `.Labels` and a field of something else stay as they are.
        let on_root = rest[..at]
            .chars()
            .next_back()
            .is_none_or(|c| matches!(c, ' ' | '{' | '(' | '|' | '-' | '$'));
        let before = rest[..at].strip_suffix('$').unwrap_or(&rest[..at]);
        if is_call && on_root {
            out.push_str(before);
            out.push_str("rowLabel $");
        } else {
            out.push_str(&rest[..at + ".Label".len()]);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => Value::Int(whole),
            (None, Some(whole), _) => Value::Uint(whole),
            (None, None, float) => Value::Float(float.unwrap_or_default()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(entries) => Value::Map(Arc::new(
            entries
                .iter()
                .map(|(key, value)| (Arc::from(key.as_str()), from_json(value)))
                .collect(),
        )),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(truth) => Json::from(*truth),
        Value::Int(whole) => Json::from(*whole),
        Value::Uint(whole) => Json::from(*whole),
        Value::Float(float) => Json::from(*float),
        Value::String(text) => Json::from(&**text),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .filter(|(key, _)| &***key != LABELS)
                .map(|(key, value)| (key.to_string(), to_json(value)))
                .collect(),
        ),
        Value::Nil | Value::Function(_) => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, subject: &Subject, want: &str) {
        assert_eq!(
            Format::parse(template).unwrap().run(subject, Shape::Map).unwrap(),
            want,
            "{template}"
        );
    }

    fn row() -> Subject {
        let labels = BTreeMap::from([("com.x".to_owned(), "yes".to_owned())]);
        Subject::row([("ID", "abc".to_owned()), ("Names", "one,two".to_owned())], &labels)
    }

    #[test]
    fn a_row_has_fields_labels_and_functions() {
        check("{{.ID}}: {{.Names}}", &row(), "abc: one,two");
        check(r#"{{.Label "com.x"}}"#, &row(), "yes");
        check(r#"{{if eq (.Label "com.x") "yes"}}y{{end}}"#, &row(), "y");
        check(r#"{{.Label "none"}}"#, &row(), "");
        check("{{upper .ID}} {{title .ID}} {{truncate .ID 2}}", &row(), "ABC Abc ab");
        check(r#"{{join (split .Names ",") "/"}}"#, &row(), "one/two");
        check("{{pad .ID 1 2}}|", &row(), " abc  |");
        check("{{json .}}", &row(), r#"{"ID":"abc","Names":"one,two"}"#);
    }

    #[test]
    fn inspect_walks_raw_json() {
        let json: Json = serde_json::from_str(
            r#"{"State":{"Pid":12,"Running":true},"Ports":{"80/tcp":[{"HostPort":"8080"}]},"Args":["<a>"]}"#,
        )
        .unwrap();
        let subject = Subject::json(&json);
        check("{{.State.Pid}} {{.State.Running}}", &subject, "12 true");
        check(r#"{{(index (index .Ports "80/tcp") 0).HostPort}}"#, &subject, "8080");
        check("{{range $p, $b := .Ports}}{{$p}}{{end}}", &subject, "80/tcp");
        check("{{json .Args}}", &subject, r#"["<a>"]"#);
        check("{{json .State}}", &subject, r#"{"Pid":12,"Running":true}"#);
    }

    #[test]
    fn a_bad_template_is_status_64() {
        let failure = Format::of_object("{{.ID").err().unwrap();
        assert_eq!(failure.status(), 64);
        assert_eq!(failure.to_string(), "template parsing error: template: :1: unclosed action");
    }

    #[test]
    fn a_missing_field_is_told_in_gos_words() {
        let format = Format::parse("a {{.Foo}}").unwrap();
        assert_eq!(
            format.run(&row(), Shape::Map).unwrap_err(),
            "template: :1:4: executing \"\" at <.Foo>: map has no entry for key \"Foo\""
        );
        assert_eq!(
            format.run(&row(), Shape::Struct("*formatter.ContainerContext")).unwrap_err(),
            "template: :1:4: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext"
        );
    }
}
