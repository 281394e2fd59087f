//! Decoding JSON as Go's `encoding/json` does, so that what Docker accepts is accepted here.
//!
//! A wrapper around a parsed [`Value`] answers serde's questions with Go's rules: `null` leaves
//! the zero value wherever it stands; object keys match struct fields exactly or else in any
//! case; of two keys for one field the later wins; unknown keys are skipped. Structs meant for
//! it derive `Deserialize` with `#[serde(default)]` and need no attribute per field. `flatten`
//! does not work with it, since serde then hides the field names.
//!
//! Source: Go `encoding/json`, documentation of `Unmarshal`.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Unexpected, Visitor,
};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::{Error, Map, Value};

/// Decodes one JSON document.
///
/// # Errors
/// When the text is no JSON, or a value has a type its field cannot hold.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    from_value(serde_json::from_slice(json)?)
}

/// Decodes a parsed document; see [`from_slice`].
///
/// # Errors
/// When a value has a type its field cannot hold.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Go(value))
}

struct Go(Value);

impl IntoDeserializer<'_, Error> for Go {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

fn no_entries() -> MapDeserializer<'static, std::iter::Empty<(String, Go)>, Error> {
    MapDeserializer::new(std::iter::empty())
}

/// Asks the inner value, with `null` standing for the given zero.
macro_rules! zero_for_null {
    ($($method:ident => $visit:ident($zero:expr)),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Value::Null => visitor.$visit($zero),
                other => other.$method(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Go {
    type Error = Error;

    zero_for_null! {
        deserialize_bool => visit_bool(false),
        deserialize_i8 => visit_i64(0),
        deserialize_i16 => visit_i64(0),
        deserialize_i32 => visit_i64(0),
        deserialize_i64 => visit_i64(0),
        deserialize_u8 => visit_u64(0),
        deserialize_u16 => visit_u64(0),
        deserialize_u32 => visit_u64(0),
        deserialize_u64 => visit_u64(0),
        deserialize_f32 => visit_f64(0.0),
        deserialize_f64 => visit_f64(0.0),
        deserialize_str => visit_str(""),
        deserialize_string => visit_string(String::new()),
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            other => visitor.visit_some(Go(other)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<Go>())),
            Value::Array(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Go)))
            }
            other => other.deserialize_seq(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        // Go fills a fixed array with zeroes and drops what does not fit.
        let mut items = match self.0 {
            Value::Null => Vec::new(),
            Value::Array(items) => items,
            other => return other.deserialize_seq(visitor),
        };
        items.resize(length, Value::Null);
        visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Go)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(no_entries()),
            Value::Object(entries) => visitor.visit_map(Entries::new(entries.into_iter())),
            other => other.deserialize_map(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(no_entries()),
            Value::Object(entries) => {
                visitor.visit_map(Entries::new(match_fields(entries, fields).into_iter()))
            }
            // serde would fill the fields in their order; Go has no such form.
            Value::Array(_) => Err(serde::de::Error::invalid_type(Unexpected::Seq, &visitor)),
            other => other.deserialize_struct(name, fields, visitor),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Go)))
            }
            Value::Object(entries) => visitor.visit_map(Entries::new(entries.into_iter())),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any
    }
}

/// Renames keys to the field they fold to, so that each field occurs once.
fn match_fields(entries: Map<String, Value>, fields: &[&'static str]) -> Map<String, Value> {
    let mut matched = Map::new();
    for (key, value) in entries {
        let field = fields
            .iter()
            .find(|field| **field == key)
            .or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(&key)));
        if let Some(field) = field {
            matched.insert((*field).to_owned(), value);
        }
    }
    matched
}

struct Entries<I> {
    rest: I,
    value: Option<Value>,
}

impl<I> Entries<I> {
    fn new(rest: I) -> Self {
        Self { rest, value: None }
    }
}

impl<'de, I: Iterator<Item = (String, Value)>> MapAccess<'de> for Entries<I> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Go(self.value.take().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::collections::BTreeMap;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Sample {
        name: String,
        count: i64,
        flag: bool,
        list: Option<Vec<String>>,
        map: BTreeMap<String, Option<Vec<i64>>>,
        pair: [u64; 2],
        inner: Option<Box<Sample>>,
    }

    #[track_caller]
    fn check(json: &str, want: Expect) {
        let got = match from_slice::<Sample>(json.as_bytes()) {
            Ok(sample) => format!("{sample:?}"),
            Err(error) => error.to_string(),
        };
        want.assert_eq(&got);
    }

    #[test]
    fn null_is_the_zero_value_everywhere() {
        check(
            r#"{"Name":null,"Count":null,"Flag":null,"List":null,"Map":{"a":null},"Pair":null,"Inner":null}"#,
            expect![[
                r#"Sample { name: "", count: 0, flag: false, list: None, map: {"a": None}, pair: [0, 0], inner: None }"#
            ]],
        );
    }

    #[test]
    fn keys_match_in_any_case_and_the_later_wins() {
        check(
            r#"{"name":"a","NAME":"b","inner":{"cOUNT":3},"unknown":{"x":[1]}}"#,
            expect![[
                r#"Sample { name: "b", count: 0, flag: false, list: None, map: {}, pair: [0, 0], inner: Some(Sample { name: "", count: 3, flag: false, list: None, map: {}, pair: [0, 0], inner: None }) }"#
            ]],
        );
    }

    #[test]
    fn nulls_in_lists_are_empty_strings() {
        check(
            r#"{"List":["a",null],"Pair":[1,2,3]}"#,
            expect![[
                r#"Sample { name: "", count: 0, flag: false, list: Some(["a", ""]), map: {}, pair: [1, 2], inner: None }"#
            ]],
        );
    }

    #[test]
    fn a_wrong_type_is_an_error() {
        check(r#"{"Count":"3"}"#, expect![[r#"invalid type: string "3", expected i64"#]]);
    }
}
