//! The functions that templates call: Go's own, and Docker's.
//!
//! Source: Go 1.24 `text/template/funcs.go`, docker CLI 28.2 `templates/templates.go`.

use std::rc::Rc;

use super::{
    print::{plain, sprint, sprintf},
    schema::Type,
    value::Value,
};
use crate::render::json;

/// What a template is run for: the line of column names passes functions' arguments through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Row,
    Header,
}

/// A parameter's type, as far as it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Any,
    Text,
    Int,
    Texts,
}

impl Want {
    pub fn name(self) -> &'static str {
        match self {
            Want::Any => "interface {}",
            Want::Text => "string",
            Want::Int => "int",
            Want::Texts => "[]string",
        }
    }
}

/// A function's parameters; `more` may follow any number of times.
pub struct Function {
    pub wants: &'static [Want],
    pub more: Option<Want>,
    pub call: fn(&[Value]) -> Result<Value, String>,
}

const fn function(wants: &'static [Want], call: fn(&[Value]) -> Result<Value, String>) -> Function {
    Function { wants, more: None, call }
}

const fn variadic(
    wants: &'static [Want],
    more: Want,
    call: fn(&[Value]) -> Result<Value, String>,
) -> Function {
    Function { wants, more: Some(more), call }
}

/// `and` and `or` are the executor's own, since they look at no more than they need.
pub fn is_known(name: &str) -> bool {
    matches!(name, "and" | "or") || find(name, Purpose::Row).is_some()
}

pub fn find(name: &str, purpose: Purpose) -> Option<Function> {
    if purpose == Purpose::Header
        && let Some(header) = header(name)
    {
        return Some(header);
    }
    dockers(name).or_else(|| of_texts(name)).or_else(|| of_values(name))
}

/// Docker's own.
fn dockers(name: &str) -> Option<Function> {
    use Want::{Any, Int, Text, Texts};
    Some(match name {
        "json" => function(&[Any], |args| Ok(Value::text(to_json(&args[0])))),
        "split" => function(&[Text, Text], |args| {
            let (text, separator) = (plain(&args[0]), plain(&args[1]));
            if separator.is_empty() {
                return Ok(Value::texts(text.chars().map(String::from)));
            }
            Ok(Value::texts(text.split(&separator).map(str::to_owned)))
        }),
        "join" => {
            function(&[Texts, Text], |args| Ok(Value::text(join(&args[0], &plain(&args[1])))))
        }
        "title" => function(&[Text], |args| Ok(Value::text(title(&plain(&args[0]))))),
        "lower" => function(&[Text], |args| Ok(Value::text(plain(&args[0]).to_lowercase()))),
        "upper" => function(&[Text], |args| Ok(Value::text(plain(&args[0]).to_uppercase()))),
        "pad" => function(&[Text, Int, Int], |args| {
            let text = plain(&args[0]);
            if text.is_empty() {
                return Ok(args[0].clone());
            }
            let (before, behind) = (blanks(&args[1])?, blanks(&args[2])?);
            Ok(Value::text(format!("{before}{text}{behind}")))
        }),
        "truncate" => function(&[Text, Int], |args| {
            let text = plain(&args[0]);
            let Some(most) = whole(&args[1]).and_then(|most| usize::try_from(most).ok()) else {
                return Err("slice bounds out of range".to_owned());
            };
            let mut end = most.min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            Ok(Value::text(&text[..end]))
        }),
        _ => return None,
    })
}

/// Go's, that make texts.
fn of_texts(name: &str) -> Option<Function> {
    use Want::{Any, Text};
    Some(match name {
        "print" => variadic(&[], Any, |args| Ok(Value::text(sprint(args)))),
        "println" => variadic(&[], Any, |args| {
            let words: Vec<String> = args.iter().map(plain).collect();
            Ok(Value::text(words.join(" ") + "\n"))
        }),
        "printf" => {
            variadic(&[Text], Any, |args| Ok(Value::text(sprintf(&plain(&args[0]), &args[1..]))))
        }
        "html" => variadic(&[], Any, |args| {
            let text = sprint(args).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            Ok(Value::text(
                text.replace('"', "&#34;").replace('\'', "&#39;").replace('\0', "\u{fffd}"),
            ))
        }),
        "js" => variadic(&[], Any, |args| Ok(Value::text(js(&sprint(args))))),
        "urlquery" => variadic(&[], Any, |args| Ok(Value::text(query(&sprint(args))))),
        _ => return None,
    })
}

/// Go's, that look at values.
fn of_values(name: &str) -> Option<Function> {
    use Want::Any;
    Some(match name {
        "len" => function(&[Any], |args| len(&args[0])),
        "index" => variadic(&[Any], Any, |args| index(&args[0], &args[1..])),
        "slice" => variadic(&[Any], Any, |args| slice(&args[0], &args[1..])),
        "not" => function(&[Any], |args| Ok(Value::Bool(!args[0].is_true()))),
        "eq" => variadic(&[Any], Any, |args| equal(&args[0], &args[1..]).map(Value::Bool)),
        "ne" => {
            function(&[Any, Any], |args| equal(&args[0], &args[1..]).map(|same| Value::Bool(!same)))
        }
        "lt" => function(&[Any, Any], |args| Ok(Value::Bool(order(args)?.is_lt()))),
        "le" => function(&[Any, Any], |args| Ok(Value::Bool(order(args)?.is_le()))),
        "gt" => function(&[Any, Any], |args| Ok(Value::Bool(order(args)?.is_gt()))),
        "ge" => function(&[Any, Any], |args| Ok(Value::Bool(order(args)?.is_ge()))),
        "call" => variadic(&[Any], Any, |args| {
            Err(match &args[0] {
                Value::Missing | Value::Nil => "call of nil".to_owned(),
                other => format!("non-function of type {}", other.type_name()),
            })
        }),
        _ => return None,
    })
}

/// What the line of column names makes of Docker's functions: the name stays what it is.
fn header(name: &str) -> Option<Function> {
    use Want::{Int, Text};
    let first: fn(&[Value]) -> Result<Value, String> = |args| Ok(args[0].clone());
    match name {
        "json" | "title" | "lower" | "upper" => Some(function(&[Text], first)),
        "split" | "join" => Some(function(&[Text, Text], first)),
        "truncate" => Some(function(&[Text, Int], first)),
        _ => None,
    }
}

fn to_json(value: &Value) -> String {
    match value {
        // A row writes itself, by Go's default with HTML's letters escaped.
        Value::Row(_) => json::escaped(&value.to_json()),
        other => json::compact_as_is(&other.to_json().to_string()),
    }
}

fn join(list: &Value, separator: &str) -> String {
    match list {
        Value::List(Some(items), _) => items.iter().map(plain).collect::<Vec<_>>().join(separator),
        _ => String::new(),
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(int, _) => Some(*int),
        Value::Uint(uint, _) => i64::try_from(*uint).ok(),
        _ => None,
    }
}

fn blanks(count: &Value) -> Result<String, String> {
    let count = whole(count).and_then(|count| usize::try_from(count).ok());
    count.map(|count| " ".repeat(count)).ok_or_else(|| "strings: negative Repeat count".to_owned())
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|letter| {
            let inside = letter.is_alphanumeric() || letter == '_' || letter == '\'';
            let first = std::mem::replace(&mut start, !inside);
            if first { letter.to_uppercase().next().unwrap_or(letter) } else { letter }
        })
        .collect()
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '\\' | '\'' | '"' => out.extend(['\\', letter]),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(letter))),
            control if control < ' ' => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out
}

/// Source: Go `net/url.QueryEscape`.
fn query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn len(value: &Value) -> Result<Value, String> {
    let count = match value.indirect() {
        Value::Missing | Value::Nil => return Err("len of untyped nil".to_owned()),
        Value::Pointer(None, _) => return Err("len of nil pointer".to_owned()),
        Value::Text(text, _) | Value::Number(text) => text.len(),
        Value::List(items, _) => items.as_ref().map_or(0, |items| items.len()),
        Value::Map(entries, _) => entries.as_ref().map_or(0, |entries| entries.len()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::int(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn position(at: &Value, length: usize, beyond: usize) -> Result<usize, String> {
    let at = match at {
        Value::Missing | Value::Nil => {
            return Err("cannot index slice/array with nil".to_owned());
        }
        other => whole(other)
            .ok_or_else(|| format!("cannot index slice/array with type {}", other.type_name()))?,
    };
    match usize::try_from(at) {
        Ok(place) if place < length + beyond => Ok(place),
        Ok(_) | Err(_) => Err(format!("index out of range: {at}")),
    }
}

fn index(item: &Value, places: &[Value]) -> Result<Value, String> {
    if matches!(item, Value::Missing | Value::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    let mut item = item.clone();
    for place in places {
        item = match item.indirect() {
            Value::Pointer(None, _) => return Err("index of nil pointer".to_owned()),
            Value::Nil | Value::Missing => return Err("index of untyped nil".to_owned()),
            Value::List(items, _) => {
                let items = items.as_ref().map(|items| items.as_slice()).unwrap_or_default();
                items[position(place, items.len(), 0)?].clone()
            }
            Value::Text(text, _) | Value::Number(text) => {
                let byte = text.as_bytes()[position(place, text.len(), 0)?];
                Value::Uint(byte.into(), "uint8")
            }
            Value::Map(entries, kind) => {
                // Go takes no text for a key of another type, be it a text too.
                let wanted = kind.key();
                let named = Type::Text(wanted).name();
                let key = match place {
                    Value::Text(key, name) if *name == wanted => key,
                    Value::Missing | Value::Nil => {
                        return Err(format!("value is nil; should be of type {}", named));
                    }
                    other => {
                        return Err(format!(
                            "value has type {}; should be {named}",
                            other.type_name()
                        ));
                    }
                };
                let found = entries.as_ref().and_then(|entries| entries.get(&**key));
                match (found, kind) {
                    (Some(found), _) => found.clone(),
                    (None, Type::Map(_, inner)) => Value::decode(**inner, None),
                    (None, _) => Value::Nil,
                }
            }
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(item)
}

fn slice(item: &Value, places: &[Value]) -> Result<Value, String> {
    if matches!(item, Value::Missing | Value::Nil) {
        return Err("slice of untyped nil".to_owned());
    }
    if places.len() > 3 {
        return Err(format!("too many slice indexes: {}", places.len()));
    }
    let length = match item {
        Value::Text(..) if places.len() == 3 => {
            return Err("cannot 3-index slice a string".to_owned());
        }
        Value::Text(text, _) => text.len(),
        Value::List(items, _) => items.as_ref().map_or(0, |items| items.len()),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut bounds = [0, length, length];
    for (bound, place) in bounds.iter_mut().zip(places) {
        *bound = position(place, length, 1)?;
    }
    let [from, to, most] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    if to > most {
        return Err(format!("invalid slice index: {to} > {most}"));
    }
    Ok(match item {
        Value::Text(text, name) => {
            let bytes = &text.as_bytes()[from..to];
            Value::Text(String::from_utf8_lossy(bytes).into(), name)
        }
        Value::List(Some(items), kind) => {
            Value::List(Some(Rc::new(items[from..to].to_vec())), *kind)
        }
        other => other.clone(),
    })
}

/// What Go compares by their own kind.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Basic {
    Bool(bool),
    /// Signed and unsigned compare with each other.
    Whole(i128),
    Float(f64),
    Text(Rc<str>),
}

fn basic(value: &Value) -> Option<Basic> {
    Some(match value {
        Value::Bool(truth) => Basic::Bool(*truth),
        Value::Int(int, _) => Basic::Whole((*int).into()),
        Value::Uint(uint, _) => Basic::Whole((*uint).into()),
        Value::Float(float) => Basic::Float(*float),
        Value::Text(text, _) | Value::Number(text) => Basic::Text(Rc::clone(text)),
        _ => return None,
    })
}

const INCOMPATIBLE: &str = "incompatible types for comparison";

fn equal(first: &Value, others: &[Value]) -> Result<bool, String> {
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    let is_nothing = |value: &Value| {
        matches!(
            value,
            Value::Missing
                | Value::Nil
                | Value::Pointer(None, _)
                | Value::List(None, _)
                | Value::Map(None, _)
        )
    };
    for other in others {
        let same = match (basic(first), basic(other)) {
            (Some(a), Some(b)) if std::mem::discriminant(&a) == std::mem::discriminant(&b) => {
                a == b
            }
            (Some(_), Some(_)) => return Err(INCOMPATIBLE.to_owned()),
            (None, None) => {
                if is_nothing(first) || is_nothing(other) {
                    is_nothing(first) == is_nothing(other)
                } else if matches!(other, Value::List(..) | Value::Map(..)) {
                    return Err(format!(
                        "non-comparable type {}: {}",
                        plain(other),
                        other.type_name()
                    ));
                } else {
                    plain(first) == plain(other)
                }
            }
            // One of them is nothing at all, which compares with everything.
            (_, _)
                if matches!(first, Value::Missing | Value::Nil)
                    || matches!(other, Value::Missing | Value::Nil) =>
            {
                false
            }
            (_, _) => return Err(INCOMPATIBLE.to_owned()),
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

fn order(args: &[Value]) -> Result<std::cmp::Ordering, String> {
    const WRONG: &str = "invalid type for comparison";
    let (Some(a), Some(b)) = (basic(&args[0]), basic(&args[1])) else {
        return Err(WRONG.to_owned());
    };
    if std::mem::discriminant(&a) != std::mem::discriminant(&b) {
        return Err(INCOMPATIBLE.to_owned());
    }
    if matches!(a, Basic::Bool(_)) {
        return Err(WRONG.to_owned());
    }
    a.partial_cmp(&b).ok_or_else(|| WRONG.to_owned())
}
