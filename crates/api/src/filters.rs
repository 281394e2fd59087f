//! The `filters` parameter in both of its JSON shapes.
//!
//! `{"name":{"value":true}}` is Go's, `{"name":["value"]}` everybody else's.
//! Source: moby 28.2 `api/types/filters/parse.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Debug, thiserror::Error)]
pub enum FiltersError {
    #[error("invalid filter")]
    Malformed,
    #[error("invalid filter '{key}'")]
    UnknownKey { key: String },
    #[error("invalid filter '{key}={values:?}'")]
    BadValue { key: String, values: Vec<String> },
}

impl Filters {
    /// Reads the parameter; an empty one filters nothing.
    ///
    /// # Errors
    /// When the text is neither shape.
    pub fn parse(json: &str) -> Result<Self, FiltersError> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        let Ok(Value::Object(keys)) = serde_json::from_str(json) else {
            return Err(FiltersError::Malformed);
        };
        let mut filters = Self::default();
        for (key, values) in keys {
            filters.0.insert(key, read_values(values)?);
        }
        Ok(filters)
    }

    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().insert(value.into());
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The values of one key, sorted.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().map(|(key, values)| (key.as_str(), values))
    }

    /// Refuses keys that the endpoint does not know.
    ///
    /// # Errors
    /// Names the first unknown key.
    pub fn check_keys(&self, known: &[&str]) -> Result<(), FiltersError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(FiltersError::UnknownKey { key: key.clone() }),
            None => Ok(()),
        }
    }

    /// One boolean key: 1/true or 0/false, `default` when missing.
    ///
    /// # Errors
    /// When the value is anything else, or both.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, FiltersError> {
        let Some(values) = self.0.get(key) else {
            return Ok(default);
        };
        let yes = values.contains("1") || values.contains("true");
        let no = values.contains("0") || values.contains("false");
        if yes == no {
            return Err(FiltersError::BadValue {
                key: key.to_owned(),
                values: values.iter().cloned().collect(),
            });
        }
        Ok(yes)
    }

    /// Go's shape, which every daemon reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        let shape: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .iter()
            .map(|(key, values)| {
                let values = values.iter().map(|value| (value.as_str(), true));
                (key, values.collect())
            })
            .collect();
        serde_json::to_string(&shape).unwrap_or_default()
    }
}

fn read_values(values: Value) -> Result<BTreeSet<String>, FiltersError> {
    match values {
        Value::Null => Ok(BTreeSet::new()),
        // A value mapped to false counts as well: Docker looks at the keys alone.
        Value::Object(values) => Ok(values.into_iter().map(|(value, _)| value).collect()),
        Value::Array(values) => values
            .into_iter()
            .map(|value| match value {
                Value::String(value) => Ok(value),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_) => Err(FiltersError::Malformed),
            })
            .collect(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(FiltersError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(json: &str, want: Expect) {
        want.assert_eq(&match Filters::parse(json) {
            Ok(filters) => filters.to_json(),
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn both_shapes_say_the_same() {
        check(r#"{"label":{"a":true,"b":true}}"#, expect![[r#"{"label":{"a":true,"b":true}}"#]]);
        check(r#"{"label":["b","a"]}"#, expect![[r#"{"label":{"a":true,"b":true}}"#]]);
        check(
            r#"{"label":["a"],"status":{"up":true}}"#,
            expect![[r#"{"label":{"a":true},"status":{"up":true}}"#]],
        );
    }

    #[test]
    fn nothing_filters_nothing() {
        check("", expect!["{}"]);
        check("{}", expect!["{}"]);
    }

    #[test]
    fn other_shapes_are_refused() {
        check("[]", expect!["invalid filter"]);
        check(r#"{"a":1}"#, expect!["invalid filter"]);
        check(r#"{"a":[1]}"#, expect!["invalid filter"]);
        check("nonsense", expect!["invalid filter"]);
    }

    #[test]
    fn unknown_keys_are_named() {
        let filters = Filters::parse(r#"{"x":["a"]}"#).unwrap();
        assert_eq!(filters.check_keys(&["label"]).unwrap_err().to_string(), "invalid filter 'x'");
    }

    #[test]
    fn a_flag_is_one_of_two_words() {
        let flag = |json| Filters::parse(json).unwrap().flag("dangling", true).ok();
        assert_eq!(flag("{}"), Some(true));
        assert_eq!(flag(r#"{"dangling":["0"]}"#), Some(false));
        assert_eq!(flag(r#"{"dangling":["maybe"]}"#), None);
        assert_eq!(flag(r#"{"dangling":["0","1"]}"#), None);
    }
}
