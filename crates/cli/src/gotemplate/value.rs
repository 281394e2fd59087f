//! What templates work on: values with Go's types, made of JSON by them, and shown as Go shows them.

use std::{collections::BTreeMap, rc::Rc};

use serde_json::{Map as JsonMap, Value as Json};

use super::schema::{self, Field, Type};

#[derive(Debug, Clone)]
pub enum Value {
    /// No value at all, such as a key that a map has not.
    Missing,
    /// An interface that holds nothing.
    Nil,
    Bool(bool),
    Int(i64, &'static str),
    Uint(u64, &'static str),
    Float(f64),
    Text(Rc<str>, &'static str),
    /// A number as JSON wrote it, which Go keeps as text where it knows no type.
    Number(Rc<str>),
    /// RFC 3339.
    Time(Rc<str>),
    List(Option<Rc<Vec<Value>>>, Type),
    Map(Option<Rc<BTreeMap<String, Value>>>, Type),
    Struct(Rc<Struct>),
    Pointer(Option<Rc<Value>>, Type),
    /// A row of a listing, whose fields are methods in Go.
    Row(Rc<Row>),
}

#[derive(Debug)]
pub struct Struct {
    pub name: &'static str,
    /// In the order of the type's fields.
    pub fields: Vec<Value>,
}

#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub fields: Vec<(&'static str, Value)>,
    pub labels: BTreeMap<String, String>,
    /// The line of column names, whose labels are named after themselves.
    pub is_header: bool,
}

/// What a number of JSON becomes where no type says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untyped {
    Float,
    AsWritten,
}

impl Value {
    pub fn text(text: impl Into<Rc<str>>) -> Value {
        Value::Text(text.into(), "string")
    }

    pub fn int(int: i64) -> Value {
        Value::Int(int, "int")
    }

    pub fn texts(texts: impl IntoIterator<Item = String>) -> Value {
        let items = texts.into_iter().map(Value::text).collect();
        Value::List(Some(Rc::new(items)), schema::parse("[]string"))
    }

    /// JSON decoded into a type, as Go's `encoding/json` does: what is absent is the type's zero.
    pub fn decode(kind: Type, json: Option<&Json>) -> Value {
        let json = json.filter(|json| !json.is_null());
        match kind {
            Type::Bool(_) => Value::Bool(json.and_then(Json::as_bool).unwrap_or_default()),
            Type::Int(name) => Value::Int(json.and_then(Json::as_i64).unwrap_or_default(), name),
            Type::Uint(name) => Value::Uint(json.and_then(Json::as_u64).unwrap_or_default(), name),
            Type::Float(_) => Value::Float(json.and_then(Json::as_f64).unwrap_or_default()),
            Type::Text(name) => {
                Value::Text(json.and_then(Json::as_str).unwrap_or_default().into(), name)
            }
            Type::Time => {
                let text = json.and_then(Json::as_str).filter(|text| !text.is_empty());
                Value::Time(text.unwrap_or("0001-01-01T00:00:00Z").into())
            }
            Type::Any => json.map_or(Value::Nil, |json| Value::untyped(json, Untyped::Float)),
            Type::List(_, inner) => {
                let items = json.and_then(Json::as_array).map(|items| {
                    Rc::new(items.iter().map(|item| Value::decode(*inner, Some(item))).collect())
                });
                let is_pair =
                    matches!(kind, Type::List(written, _) if written.starts_with(schema::PAIR));
                let zeros = || Rc::new(vec![Value::decode(*inner, None); 2]);
                Value::List(if is_pair { items.or_else(|| Some(zeros())) } else { items }, kind)
            }
            Type::Map(_, inner) => {
                let entries = json.and_then(Json::as_object).map(|entries| {
                    let decoded = entries
                        .iter()
                        .map(|(key, entry)| (key.clone(), Value::decode(*inner, Some(entry))));
                    Rc::new(decoded.collect())
                });
                Value::Map(entries, kind)
            }
            Type::Pointer(_, inner) => {
                Value::Pointer(json.map(|json| Rc::new(Value::decode(*inner, Some(json)))), kind)
            }
            Type::Struct("registry.NetIPNet") => network(json),
            Type::Struct(name) => {
                let fields = schema::fields(name).iter().map(|field| decode_field(field, json));
                Value::Struct(Rc::new(Struct { name, fields: fields.collect() }))
            }
        }
    }

    /// JSON without a type.
    pub fn untyped(json: &Json, numbers: Untyped) -> Value {
        match json {
            Json::Null => Value::Nil,
            Json::Bool(truth) => Value::Bool(*truth),
            Json::Number(number) if numbers == Untyped::AsWritten => {
                Value::Number(number.to_string().into())
            }
            Json::Number(number) => Value::Float(number.as_f64().unwrap_or_default()),
            Json::String(text) => Value::text(text.as_str()),
            Json::Array(items) => {
                let items = items.iter().map(|item| Value::untyped(item, numbers)).collect();
                Value::List(Some(Rc::new(items)), schema::parse("[]any"))
            }
            Json::Object(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, entry)| (key.clone(), Value::untyped(entry, numbers)))
                    .collect();
                Value::Map(Some(Rc::new(entries)), schema::parse("map[string]any"))
            }
        }
    }

    /// As Go's `encoding/json` writes it, keys in the type's order.
    pub fn to_json(&self) -> Json {
        match self {
            Value::Missing | Value::Nil | Value::Pointer(None, _) => Json::Null,
            Value::Bool(truth) => Json::from(*truth),
            Value::Int(int, _) => Json::from(*int),
            Value::Uint(uint, _) => Json::from(*uint),
            Value::Float(float) if float.fract() == 0.0 && float.abs() < 1e15 => {
                Json::from(*float as i64)
            }
            Value::Float(float) => Json::from(*float),
            Value::Number(text) => serde_json::from_str(text).unwrap_or(Json::Null),
            Value::Text(text, _) | Value::Time(text) => Json::from(&**text),
            Value::List(None, _) | Value::Map(None, _) => Json::Null,
            Value::List(Some(items), _) => Json::Array(items.iter().map(Value::to_json).collect()),
            Value::Map(Some(entries), _) => Json::Object(
                entries.iter().map(|(key, entry)| (key.clone(), entry.to_json())).collect(),
            ),
            Value::Pointer(Some(inner), _) => inner.to_json(),
            Value::Struct(one) if one.name == "registry.NetIPNet" => {
                Json::from(super::print::plain(self))
            }
            Value::Struct(one) => {
                let mut entries = JsonMap::new();
                write_fields(one, &mut entries);
                let mut object = Json::Object(entries);
                // It writes itself by way of a map, whose keys are sorted.
                if one.name == "registry.ServiceConfig" {
                    object.sort_all_objects();
                }
                object
            }
            Value::Row(row) => Json::Object(
                row.fields
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.to_json()))
                    .collect(),
            ),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Value::Missing | Value::Nil | Value::Pointer(None, _) => true,
            Value::Bool(truth) => !truth,
            Value::Int(int, _) => *int == 0,
            Value::Uint(uint, _) => *uint == 0,
            Value::Float(float) => *float == 0.0,
            Value::Number(text) | Value::Text(text, _) => text.is_empty(),
            Value::List(items, _) => items.as_ref().is_none_or(|items| items.is_empty()),
            Value::Map(entries, _) => entries.as_ref().is_none_or(|entries| entries.is_empty()),
            Value::Time(_) | Value::Struct(_) | Value::Pointer(Some(_), _) | Value::Row(_) => false,
        }
    }

    /// Whether `if` takes it. Source: Go `text/template`, `IsTrue`.
    pub fn is_true(&self) -> bool {
        matches!(self, Value::Struct(_) | Value::Row(_)) || !self.is_empty()
    }

    /// Through pointers; the last is kept where it points to nothing.
    pub fn indirect(&self) -> &Value {
        let mut value = self;
        while let Value::Pointer(Some(inner), _) = value {
            value = inner;
        }
        value
    }

    /// As Go names its type in errors.
    pub fn type_name(&self) -> String {
        match self {
            Value::Missing | Value::Nil => "nil".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Float(_) => "float64".to_owned(),
            Value::Number(_) => "json.Number".to_owned(),
            Value::Time(_) => "time.Time".to_owned(),
            Value::Int(_, name) | Value::Uint(_, name) | Value::Text(_, name) => {
                Type::Text(name).name()
            }
            Value::List(_, kind) | Value::Map(_, kind) | Value::Pointer(_, kind) => kind.name(),
            Value::Struct(one) => one.name.to_owned(),
            Value::Row(row) => row.name.to_owned(),
        }
    }
}

fn decode_field(field: &Field, json: Option<&Json>) -> Value {
    if field.is_embedded {
        // Its fields stand among its holder's.
        return Value::decode(field.kind, json);
    }
    let found = field.json.and_then(|name| {
        let entries = json?.as_object()?;
        entries.get(name).or_else(|| {
            entries.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, entry)| entry)
        })
    });
    Value::decode(field.kind, found)
}

/// A network is a text in JSON, and an address and a mask in Go.
fn network(json: Option<&Json>) -> Value {
    let text = json.and_then(Json::as_str).unwrap_or_default();
    let fields = vec![Value::text(text), Value::Nil];
    Value::Struct(Rc::new(Struct { name: "registry.NetIPNet", fields }))
}

fn write_fields(one: &Struct, entries: &mut JsonMap<String, Json>) {
    for (field, value) in schema::fields(one.name).iter().zip(&one.fields) {
        if field.is_embedded {
            if let Value::Struct(inner) = value.indirect() {
                write_fields(inner, entries);
            }
            continue;
        }
        let Some(name) = field.json else { continue };
        if field.omits_empty && value.is_empty() {
            continue;
        }
        entries.insert(name.to_owned(), value.to_json());
    }
}

impl Struct {
    /// A field by name, also of what is embedded.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let fields = || schema::fields(self.name).iter().zip(&self.fields);
        if let Some((_, value)) = fields().find(|(field, _)| field.name == name) {
            return Some(value);
        }
        fields().filter(|(field, _)| field.is_embedded).find_map(|(_, value)| {
            match value.indirect() {
                Value::Struct(inner) => inner.field(name),
                _ => None,
            }
        })
    }
}
