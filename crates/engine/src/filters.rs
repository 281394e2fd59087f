//! List, prune and event filters as clients send them, parsed once.
//!
//! Two JSON shapes must parse: `{"key":{"value":true}}` (Go clients) and `{"key":["value"]}` (the
//! others). Values under one key are alternatives, keys are conjunctive; `label` values are all
//! required and `label!` negates.
//!
//! Source: moby `api/types/filters/parse.go`.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};

/// Parsed filters: each key with its set of values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    fields: BTreeMap<String, BTreeSet<String>>,
}

impl Filters {
    /// Parses the `filters` query parameter; empty text means no filter.
    ///
    /// # Errors
    /// `Invalid` when the text has neither shape.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let bad = |source: serde_json::Error| {
            Error::because(crate::Kind::Invalid, "invalid filter", source)
        };
        if let Ok(maps) = serde_json::from_str::<BTreeMap<String, BTreeMap<String, bool>>>(text) {
            let fields = maps
                .into_iter()
                .map(|(key, values)| {
                    let chosen = values.into_iter().filter(|(_, on)| *on).map(|(value, _)| value);
                    (key, chosen.collect())
                })
                .collect();
            return Ok(Self { fields });
        }
        let fields =
            serde_json::from_str::<BTreeMap<String, BTreeSet<String>>>(text).map_err(bad)?;
        Ok(Self { fields })
    }

    /// Adds one value, for callers that make their own filters.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.fields.entry(key.into()).or_default().insert(value.into());
    }

    /// Refuses keys that the operation does not know.
    ///
    /// # Errors
    /// `Invalid` naming the first unknown key.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.fields.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(crate::words::invalid_filter(key)),
            None => Ok(()),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.values().all(BTreeSet::is_empty)
    }

    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(|values| !values.is_empty())
    }

    /// The values under a key; none when the key is absent.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.fields.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether the key is absent or one of its values satisfies `matches`.
    pub fn any(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        !self.contains(key) || self.values(key).any(matches)
    }

    /// Whether `actual` equals one of the values, or the key is absent.
    #[must_use]
    pub fn exact(&self, key: &str, actual: &str) -> bool {
        self.any(key, |value| value == actual)
    }

    /// Container names and ids, network and volume names: equal, or an unanchored regular
    /// expression that is found. A value that is no expression matches literally.
    #[must_use]
    pub fn pattern(&self, key: &str, actual: &str) -> bool {
        self.any(key, |value| {
            value == actual
                || regex_lite::Regex::new(value).map_or_else(
                    |_| actual.contains(value),
                    |expression| expression.is_match(actual),
                )
        })
    }

    /// Whether one of the values is a prefix of `actual`, or the key is absent.
    #[must_use]
    pub fn prefix(&self, key: &str, actual: &str) -> bool {
        self.any(key, |value| actual.starts_with(value))
    }

    /// `label` and `label!`: `k` asks for presence, `k=v` for the value; all are required.
    #[must_use]
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|actual| actual == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").all(has) && !self.values("label!").any(has)
    }

    /// A yes/no filter such as `dangling`.
    ///
    /// # Errors
    /// `Invalid` when the value is no boolean or two values contradict each other.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        let mut found = None;
        for value in self.values(key) {
            let on = match value {
                "1" | "true" => true,
                "0" | "false" => false,
                other => return Err(crate::words::invalid_filter_value(key, other)),
            };
            if found.is_some_and(|before| before != on) {
                return Err(crate::words::invalid_filter_value(key, value));
            }
            found = Some(on);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_mean_the_same() {
        let maps = Filters::parse(r#"{"status":{"exited":true,"created":false}}"#).unwrap();
        let lists = Filters::parse(r#"{"status":["exited"]}"#).unwrap();
        assert_eq!(maps, lists);
        assert!(Filters::parse("").unwrap().is_empty());
        assert!(Filters::parse("[]").is_err());
    }

    #[test]
    fn labels_are_all_required_and_can_be_negated() {
        let labels =
            BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        check(r#"{"label":["a","b"]}"#, &labels, true);
        check(r#"{"label":["a=1","c"]}"#, &labels, false);
        check(r#"{"label!":["a=2"]}"#, &labels, true);
        check(r#"{"label!":["b"]}"#, &labels, false);
    }

    #[track_caller]
    fn check(filters: &str, labels: &BTreeMap<String, String>, want: bool) {
        assert_eq!(Filters::parse(filters).unwrap().labels(labels), want, "{filters}");
    }

    #[test]
    fn names_match_as_unanchored_expressions() {
        let filters = Filters::parse(r#"{"name":["^web","db$"]}"#).unwrap();
        assert!(filters.pattern("name", "web-1"));
        assert!(filters.pattern("name", "mydb"));
        assert!(!filters.pattern("name", "dbx"));
    }
}
